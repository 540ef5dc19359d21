//! Fees and cassettes, as the operator publishes them.
//!
//! Promise: a document is applied if the pinned operator signed its event for this machine, it
//! stands after the last applied one and not far ahead of trusted time. Its plaintext is `net`'s
//! word: so a bay's denomination changes only with the operator's own statement inside, but for the
//! first document of a machine whose bays nobody has ever named. Each change is decided once.
//!
//! Failure policy: a document that does not hold is counted and said, and the last good one stays; one
//! that comes before trusted time is known, or from the future, is looked at again.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::document::watermark::{Decision, decide};
use bitspire_shared::document::{
    Action, BayCount, Cassettes, Change, Checked, DTag, DocumentError, DocumentKind, FeesDocument,
    apply, attest, check_event,
};
use bitspire_shared::ids::{BayId, ChangeId, JournalSeq, Nonce};
use bitspire_shared::seed::Pins;
use bitspire_shared::time::Unix;
use nostr::Event;

use super::VaultError;
use super::boxes::found_in_box;
use super::core::Vault;
use super::settings::{CassettesInForce, FeesInForce, InForce, LastSet};
use crate::journal::{CashMove, CountChange, Entry, Holdings, VerdictUse};

/// The documents that a machine reads.
const READS: [DocumentKind; 2] = [DocumentKind::Cassettes, DocumentKind::Fees];

impl Vault {
    /// A document came.
    pub(super) fn document(&mut self, event: Event, plaintext: String) -> Result<(), VaultError> {
        let Some(pins) = self.pairing.as_ref().map(|pairing| pairing.pins) else { return Ok(()) };
        let named = event.tags.identifier().and_then(|d| d.parse::<DTag>().ok());
        let Some(kind) = named.map(|d| d.kind).filter(|kind| READS.contains(kind)) else {
            self.document_refused("document", "it is none that a machine reads");
            return Ok(());
        };
        let Some(now) = self.time.known(self.mono()) else {
            self.early.insert(kind, (event, plaintext));
            return Ok(());
        };
        let address = DTag { kind, spire: pins.spire };
        let done = match check_event(&event, &address, &pins.operator, &pins.spire, now) {
            Ok(checked) => match kind {
                DocumentKind::Fees => self.fees(&checked, &plaintext, &pins, now)?,
                _ => self.cassettes(&checked, &plaintext, &pins, now)?,
            },
            Err(error) => Err(error),
        };
        match done {
            Ok(Decision::TooFarAhead) => {
                let known = self.early.insert(kind, (event.clone(), plaintext));
                if known.is_none_or(|(known, _)| known.id != event.id) {
                    self.document_refused(kind.prefix(), "it lies too far ahead of trusted time");
                }
            }
            Ok(Decision::Apply) => {
                let id = event.id.to_hex();
                tracing::info!(event = "document_applied", kind = kind.prefix(), id);
                self.no_longer_early(kind, &event);
                match kind {
                    // a quote by the fees before these would be refused
                    DocumentKind::Fees => self.reports.now(self.mono()),
                    _ => self.reports.soon(self.mono()),
                }
            }
            Ok(Decision::Replay) => self.no_longer_early(kind, &event),
            Ok(Decision::Stale) => {
                self.no_longer_early(kind, &event);
                self.document_refused(kind.prefix(), "it is older than the one in force");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
                let words = format!("{error}{}", cause.unwrap_or_default());
                self.no_longer_early(kind, &event);
                self.document_refused(kind.prefix(), &words);
            }
        }
        Ok(())
    }

    /// It is decided: it is not looked at again.
    fn no_longer_early(&mut self, kind: DocumentKind, event: &Event) {
        if self.early.get(&kind).is_some_and(|(early, _)| early.id == event.id) {
            self.early.remove(&kind);
        }
    }

    /// Looks at documents again that came too early.
    pub(super) fn try_early_documents(&mut self) -> Result<(), VaultError> {
        if self.time.known(self.mono()).is_some() {
            for (_, (event, plaintext)) in self.early.clone() {
                self.document(event, plaintext)?;
            }
        }
        Ok(())
    }

    fn document_refused(&mut self, what: &str, why: &str) {
        self.documents_refused = self.documents_refused.saturating_add(1);
        self.raise("document_refused", format!("{what}: {why}"));
    }

    fn fees(
        &mut self,
        checked: &Checked,
        plaintext: &str,
        pins: &Pins,
        now: Unix,
    ) -> Result<Result<Decision, DocumentError>, VaultError> {
        let document = match FeesDocument::from_json(plaintext) {
            Ok(document) => document,
            Err(error) => return Ok(Err(error)),
        };
        if document.attest.is_some()
            && let Err(error) = attest::check(plaintext, &pins.operator, &pins.spire, now)
        {
            return Ok(Err(error));
        }
        let mark = checked.mark(Some(document.published_at));
        let last = self.fees.as_ref().map(|(kept, _)| kept.0.mark());
        let decision = decide(last.as_ref(), &mark, now);
        if decision == Decision::Apply {
            let kept = FeesInForce(InForce::new(pins.spire, mark, plaintext, now));
            self.keep(&kept)?;
            self.fees = Some((kept, document));
        }
        Ok(Ok(decision))
    }

    fn cassettes(
        &mut self,
        checked: &Checked,
        plaintext: &str,
        pins: &Pins,
        now: Unix,
    ) -> Result<Result<Decision, DocumentError>, VaultError> {
        let document = match Cassettes::from_json(plaintext, pins.currency) {
            Ok(document) => document,
            Err(error) => return Ok(Err(error)),
        };
        let mark = checked.mark(document.published_at);
        let last = self.cassettes.as_ref().map(|kept| kept.document.mark());
        let decision = decide(last.as_ref(), &mark, now);
        if decision != Decision::Apply {
            return Ok(Ok(decision));
        }
        let nonce = match self.vouched(&document, plaintext, pins, now)? {
            Ok(nonce) => nonce,
            Err(error) => return Ok(Err(error)),
        };
        let refused = self.apply_cassettes(&document, checked)?;
        if let Some(nonce) = nonce {
            let seen = self.journal.head().seq;
            self.append(Entry::Verdict(VerdictUse { nonce, seen }))?;
        }
        let kept =
            CassettesInForce { document: InForce::new(pins.spire, mark, plaintext, now), refused };
        self.keep(&kept)?;
        self.cassettes = Some(kept);
        Ok(Ok(decision))
    }

    /// Whether the operator vouches for the denominations where that is needed; the nonce that is
    /// used up by it.
    fn vouched(
        &self,
        document: &Cassettes,
        plaintext: &str,
        pins: &Pins,
        now: Unix,
    ) -> Result<Result<Option<Nonce>, DocumentError>, VaultError> {
        let own = self.own_counts();
        let other = document.redenominates(&own);
        if other.is_empty() || (own.is_empty() && document.attest.is_none()) {
            return Ok(Ok(None));
        }
        match attest::check(plaintext, &pins.operator, &pins.spire, now) {
            Ok(nonce) if self.journal.nonce_used(&nonce)? => Ok(Err(DocumentError::NotAttested)),
            Ok(nonce) => Ok(Ok(Some(nonce))),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The bays by the journal, as changes are held against them.
    fn own_counts(&self) -> BTreeMap<BayId, BayCount> {
        let count = |(id, bay): (&BayId, &crate::journal::Bay)| {
            let last_set = match self.last_sets.0.get(id) {
                // earlier releases kept a base beyond the journal's end as it was named: whoever counts
                // after them has seen less
                Some(last) if last.entry == bay.set_at => last.base.min(bay.set_at),
                _ => bay.set_at,
            };
            let count = u32::try_from(bay.on_hand().max(0)).unwrap_or(u32::MAX);
            (*id, BayCount { denomination: bay.denomination, count, last_set })
        };
        self.journal.holdings().bays.iter().map(count).collect()
    }

    /// Writes what the document changes; the changes that it names and that are refused for ever.
    fn apply_cassettes(
        &mut self,
        document: &Cassettes,
        checked: &Checked,
    ) -> Result<BTreeMap<ChangeId, String>, VaultError> {
        let fitted = self.config.giver().bays;
        let mut own = self.own_counts();
        let mut moves = Vec::new();
        for (bay, position) in &document.positions {
            let denomination = position.denomination;
            let own_notes = own.get(bay).is_some_and(|held| held.denomination == denomination);
            if bay.get() > fitted {
                self.raise("unknown_bay", format!("the document names bay {bay}: not fitted"));
            } else if self.config.recycler.is_some() && !own_notes {
                let note = denomination.minor();
                let words = format!(
                    "the document has notes of {note} minor units in bay {bay}: which notes it keeps \
                     is the machine's configuration"
                );
                self.raise("other_notes", words);
                // a count of other notes is none of these
                own.remove(bay);
            } else if own.get(bay).is_none_or(|held| held.denomination != denomination) {
                moves.push(CashMove::Assign { bay: *bay, denomination, recycles: false });
                let last_set = JournalSeq(0);
                own.insert(*bay, BayCount { denomination, count: 0, last_set });
            }
        }
        let mut changes = match &document.changes {
            Some(changes) => changes.clone(),
            None => counts_as_changes(document, checked, &own),
        };
        // nobody has seen more of the journal than there is; a count by a position beyond it (of the
        // journal on an earlier disk, say) would have every later change of its bay refused
        let head = self.journal.head().seq;
        for change in &mut changes {
            change.base_seq = change.base_seq.min(head);
        }
        let mut refused =
            self.cassettes.as_ref().map_or_else(BTreeMap::new, |kept| kept.refused.clone());
        refused.retain(|id, _| changes.iter().any(|change| change.id == *id));
        let mut before: BTreeSet<ChangeId> = refused.keys().copied().collect();
        for change in &changes {
            if self.journal.change_applied(&change.id)? {
                before.insert(change.id);
            }
        }
        // the journal's own rule is about its entries: what was decided here stands on this one
        let base_seq = JournalSeq(self.journal.head().seq.0.saturating_add(1));
        let decided = apply(&own, &before, &changes).decided;
        let mut sets = self.last_sets.clone();
        for decision in decided {
            let change = changes.iter().find(|change| change.id == decision.id);
            match (decision.result, change) {
                (Ok(_), Some(change)) => {
                    if let Action::Set(count) = change.action {
                        let last = LastSet { base: change.base_seq, entry: base_seq };
                        sets.0.insert(change.bay, last);
                        let held = self.journal.holdings().clone();
                        let next = |held: Holdings, moved| held.after(moved, base_seq, base_seq);
                        let held = moves.iter().try_fold(held, next);
                        let found =
                            held.ok().and_then(|held| found_in_box(&held, change.bay, count));
                        moves.extend(found);
                    }
                    moves.push(as_move(change, base_seq));
                }
                (Err(refusal), _) => {
                    self.raise("change_refused", format!("{}: {refusal}", decision.id));
                    refused.insert(decision.id, refusal.to_string());
                }
                (Ok(_), None) => {}
            }
        }
        if !moves.is_empty() {
            self.append(Entry::Cash(moves))?;
            if sets != self.last_sets {
                self.keep(&sets)?;
                self.last_sets = sets;
            }
            let now = self.mono();
            if let Some(giver) = &mut self.dispenser {
                giver.set_up_again(now);
            }
            self.boxes.ask();
        }
        Ok(refused)
    }

    /// The changes of the document in force that were applied.
    pub(super) fn applied_changes(&self) -> Result<BTreeSet<ChangeId>, VaultError> {
        let mut applied = BTreeSet::new();
        let (Some(kept), Some(pairing)) = (&self.cassettes, &self.pairing) else {
            return Ok(applied);
        };
        let read = Cassettes::from_json(&kept.document.plaintext, pairing.pins.currency);
        for change in read.ok().and_then(|document| document.changes).unwrap_or_default() {
            if self.journal.change_applied(&change.id)? {
                applied.insert(change.id);
            }
        }
        Ok(applied)
    }
}

fn as_move(change: &Change, base_seq: JournalSeq) -> CashMove {
    CashMove::Change {
        bay: change.bay,
        change_id: change.id,
        change: match change.action {
            Action::Delta(delta) => CountChange::Delta(delta.into()),
            Action::Set(count) => CountChange::Set(count),
        },
        base_seq,
        reason: change.reason.clone(),
    }
}

/// A document of a writer that knows no changes counts each bay; its event makes them single use.
fn counts_as_changes(
    document: &Cassettes,
    checked: &Checked,
    own: &BTreeMap<BayId, BayCount>,
) -> Vec<Change> {
    let change = |(bay, position): (&BayId, &bitspire_shared::document::Position)| {
        let held = own.get(bay).filter(|held| held.count != position.count)?;
        let mut id = [0u8; 16];
        let digest = bitspire_shared::canonical::sha256(&format!("{}:{bay}", checked.id()));
        for (to, from) in id.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Some(Change {
            id: ChangeId::from_bytes(id),
            bay: *bay,
            action: Action::Set(position.count),
            reason: "counted by the operator's document".to_owned(),
            base_seq: held.last_set,
        })
    };
    document.positions.iter().filter_map(change).collect()
}
