//! Service mode, carried out.
//!
//! Promise: each action is one entry of the journal, with the notes that it moves and the event that
//! is told to the operator; the event stays in the heartbeats, over restarts, until the service has
//! answered one that carried it. Nothing is sold while somebody is inside.
//!
//! `net` carries what is typed, the PIN too, and is not trusted: what it can do with a PIN that it
//! has seen is bounded to counts, which move no note and are told at once, and to the test
//! dispenses, which [`super::trial`] bounds.
//!
//! Failure policy: what cannot be booked as it was typed is refused in words on the screen, and
//! changes nothing.

use std::collections::BTreeMap;

use bitspire_shared::document::{Cassettes, FeesDocument, Position};
use bitspire_shared::ids::{BayId, ChangeId, JournalSeq};
use bitspire_shared::money::{Denomination, Direction, Fiat};
use bitspire_shared::rpc::{BayChange, MAX_SERVICE_EVENTS, ServiceAction, ServiceEvent};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::VaultError;
use super::boxes::found_in_box;
use super::core::Vault;
use super::settings::{InForce, Setting};
use crate::journal::{CashMove, CountChange, Entry, Heap, JournalError, Stage};
use crate::policy::pin::KeptTries;
use crate::screen::MachineScreen;
use crate::service::{Held, HeldBay, Inside, Ruling, ServiceView, Touch, Wish};
use crate::txn::{Txn, cash_in};

/// What outlives a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptService {
    /// What was done and not told, oldest first.
    pub(super) events: Vec<ServiceEvent>,
    /// When the dispenser was tried lately.
    pub(super) trials: Vec<Unix>,
}

impl Setting for KeptService {
    const KEY: &'static str = "service";
}

impl Setting for KeptTries {
    const KEY: &'static str = "service_pin_tries";
}

/// What an action comes to: words for the screen, or why not.
pub(super) type Done = Result<String, String>;

impl Vault {
    /// Somebody touches the screen for service.
    pub(super) fn service_touch(&mut self, touch: Touch) -> Result<(), VaultError> {
        if self.pairing.is_none() {
            return Ok(());
        }
        let (free, now) = (self.service_may_begin(), self.mono());
        let inside = self.service.is_inside();
        let wish = self.service.touch(touch, free, now);
        self.note_leaving(inside);
        let Some(wish) = wish else { return Ok(()) };
        let done = match wish {
            Wish::Look(pin) => {
                let right = self.try_pin(pin.expose())?;
                let now = self.mono();
                self.service.looked(right == Ok(true), now);
                tracing::info!(event = "service_pin", right = right == Ok(true));
                self.reports.soon(now);
                return Ok(());
            }
            Wish::Cashbox(counted, reason) => self.empty_cashbox(counted, reason)?,
            Wish::RejectBin(counted, reason) => self.empty_reject_bin(counted, reason)?,
            Wish::Bay(bay, change, reason) => self.change_bay(bay, change, reason)?,
            Wish::Test => self.begin_trial()?,
            Wish::Unpair => self.reset_pairing()?,
        };
        let now = self.mono();
        self.service.did(done, now);
        Ok(())
    }

    /// Whether nobody else has the screen and no note moves.
    fn service_may_begin(&self) -> bool {
        self.on_screen.is_none()
            && self.dispensing.is_none()
            && self.to_plan.is_none()
            && self.txns.values().all(|txn| !feeds(txn))
    }

    /// The page is gone, or nobody touches it.
    pub(super) fn end_service(&mut self) {
        let inside = self.service.is_inside();
        self.service.leave();
        self.note_leaving(inside);
    }

    fn note_leaving(&mut self, inside: bool) {
        if inside && !self.service.is_inside() {
            tracing::info!(event = "service_left");
            self.boxes.ask();
            self.reports.soon(self.mono());
        }
    }

    /// Ends a session that was left.
    pub(super) fn look_at_service(&mut self) {
        let (inside, now) = (self.service.is_inside(), self.mono());
        self.service.look_at_time(now);
        self.note_leaving(inside);
    }

    /// Writes what was done, the notes with it; refused where the journal's rules forbid it.
    pub(super) fn book(
        &mut self,
        actions: Vec<ServiceAction>,
        cash: Vec<CashMove>,
    ) -> Result<Done, VaultError> {
        if self.untold().len().saturating_add(actions.len()) > MAX_SERVICE_EVENTS {
            return Ok(Err("the operator's service has not heard of what was done here before: \
                           connect the machine first"
                .to_owned()));
        }
        let journal_seq = self.next_entry();
        let mut kept = self.kept_service.clone();
        for action in actions {
            let change = cash.iter().find_map(|movement| match movement {
                CashMove::Change { change_id, .. } => Some(*change_id),
                _ => None,
            });
            let id = match change {
                Some(id) => id,
                None => ChangeId::from_bytes(self.random()?),
            };
            let event = ServiceEvent { id, journal_seq, at: self.now().unix, action };
            if let Err(why) = event.validate() {
                return Ok(Err(why));
            }
            kept.events.push(event);
        }
        let value = serde_json::to_value(&kept)?;
        let key = KeptService::KEY.to_owned();
        match self.append(Entry::Setting { key, value, cash }) {
            Ok(_) => {}
            Err(VaultError::Journal(JournalError::Refused(why))) => {
                return Ok(Err(why.to_string()));
            }
            Err(error) => return Err(error),
        }
        self.kept_service = kept;
        let now = self.mono();
        self.reports.soon(now);
        if let Some(giver) = &mut self.dispenser {
            giver.set_up_again(now);
        }
        tracing::info!(event = "service_done", seq = journal_seq.0);
        Ok(Ok("It is on record.".to_owned()))
    }

    /// The position of the entry that is written next.
    pub(super) fn next_entry(&self) -> JournalSeq {
        JournalSeq(self.journal.head().seq.0.saturating_add(1))
    }

    fn change_bay(
        &mut self,
        bay: BayId,
        change: BayChange,
        reason: String,
    ) -> Result<Done, VaultError> {
        if self.dispensing.is_some() {
            return Ok(Err("the dispenser is at work".to_owned()));
        }
        let Some(held) = self.journal.holdings().bays.get(&bay).copied() else {
            return Ok(Err(format!(
                "nobody has said what lies in bay {bay}: the operator's \
                                   cassette document does"
            )));
        };
        let found = match change {
            BayChange::Set(count) => found_in_box(self.journal.holdings(), bay, count),
            BayChange::Delta(_) => None,
        };
        let more = match found {
            Some(CashMove::Recycled { notes, .. }) => notes.into(),
            _ => 0,
        };
        let expected = (held.doubts == 0).then(|| held.on_hand().saturating_add(more));
        let differs = matches!(change, BayChange::Set(count) if expected != Some(count.into()));
        if differs && reason.is_empty() {
            return Ok(Err(WHY.to_owned()));
        }
        let (counted, after) = match change {
            BayChange::Delta(delta) => {
                let after = held.on_hand().saturating_add(delta.into());
                (CountChange::Delta(delta.into()), after)
            }
            BayChange::Set(count) => (CountChange::Set(count), count.into()),
        };
        if after < 0 {
            return Ok(Err(format!("bay {bay} has {} notes", held.on_hand())));
        }
        let movement = CashMove::Change {
            bay,
            change_id: ChangeId::from_bytes(self.random()?),
            change: counted,
            base_seq: self.next_entry(),
            reason: reason.clone(),
        };
        let denomination_minor = held.denomination;
        let action =
            ServiceAction::BayChanged { bay, denomination_minor, change, expected, reason };
        self.book(vec![action], found.into_iter().chain([movement]).collect())
    }

    /// What was done and the service has not heard of, oldest first.
    pub(super) fn untold(&self) -> Vec<ServiceEvent> {
        let mut all = self.kept_service.events.clone();
        all.extend(self.trials.iter().filter_map(|trial| trial.event.clone()));
        all.sort_unstable_by_key(|event| event.journal_seq);
        all
    }

    /// The service has answered a report that carried these.
    pub(super) fn told(&mut self, events: &[ChangeId]) -> Result<(), VaultError> {
        let mut kept = self.kept_service.clone();
        kept.events.retain(|event| !events.contains(&event.id));
        if kept != self.kept_service {
            self.keep(&kept)?;
            self.kept_service = kept;
        }
        if !events.is_empty() {
            // what is told no more is seen in the next one
            self.reports.soon(self.mono());
        }
        self.trials_told(events)
    }

    /// What stands on the screen, where service mode has it.
    pub(super) fn service_screen(&self) -> Option<MachineScreen> {
        if !self.service.is_open() {
            return None;
        }
        let view = match self.service.page() {
            None if self.pin.is_none() => ServiceView::NoPin,
            None => ServiceView::Pad {
                wrong: self.service.was_wrong(),
                locked: self.pin_tries.locked(self.mono()).map(|locked| locked.to_string()),
            },
            Some(page) => ServiceView::Page {
                page,
                form: self.service.form(),
                said: self.service.said().map(str::to_owned),
                inside: self.inside(),
            },
        };
        Some(MachineScreen::Service(view))
    }

    fn inside(&self) -> Inside {
        let Some(currency) = self.config.currency else { return Inside::default() };
        let holdings = self.journal.holdings();
        let held = |note: Denomination, count: i64| Held {
            note: Fiat::new(note.minor().into(), currency),
            count,
        };
        type Heaps = BTreeMap<Denomination, Heap>;
        let heap = |boxes: &[&Heaps], known: Vec<Denomination>| {
            let mut all: BTreeMap<_, i64> = known.into_iter().map(|note| (note, 0)).collect();
            for (note, heap) in boxes.iter().copied().flatten() {
                let count = all.entry(*note).or_default();
                *count = count.saturating_add(heap.count);
            }
            all.into_iter().map(|(note, count)| held(note, count)).collect()
        };
        // a recycler has one box for what was fed and for what it drew back
        let one_box = self.config.recycler.is_some();
        let (alone, both) = ([&holdings.cashbox], [&holdings.cashbox, &holdings.reject_bin]);
        let fed: &[&Heaps] = if one_box { &both } else { &alone };
        let bays = holdings.bays.iter().map(|(id, bay)| HeldBay {
            bay: *id,
            held: held(bay.denomination, bay.on_hand()),
            doubt: bay.doubts != 0,
            unsure: bay.fewer(),
        });
        let given = holdings.bays.values().map(|bay| bay.denomination).collect();
        let taker = self.acceptor.as_ref();
        Inside {
            bays: bays.collect(),
            cashbox: taker.map(|taker| heap(fed, taker.notes.iter().copied().collect())),
            cashbox_out: taker.is_some_and(|taker| taker.cashbox_out),
            reject_bin: self
                .dispenser
                .as_ref()
                .filter(|_| !one_box)
                .map(|_| heap(&[&holdings.reject_bin], given)),
            untold: u32::try_from(self.untold().len()).unwrap_or(u32::MAX),
            rulings: self.rulings(),
        }
    }

    /// The operator's documents in force, as somebody at the machine reads them.
    fn rulings(&self) -> Vec<Ruling> {
        let Some(pairing) = &self.pairing else { return Vec::new() };
        let ruling = |says: String, kept: &InForce| Ruling {
            says,
            event_id: kept.mark().id,
            signed_by: pairing.pins.operator,
            published_at: kept.mark().published_at,
            applied_at: kept.applied_at,
        };
        let percent = |direction, fees: &FeesDocument| {
            let ppm = fees.of(direction).total().ppm();
            let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
            format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
        };
        let fees = self.fees.iter().map(|(kept, fees)| {
            let (taken, given) =
                (percent(Direction::CashIn, fees), percent(Direction::CashOut, fees));
            ruling(
                format!("Fees: {taken} where notes are fed, {given} where notes are given"),
                &kept.0,
            )
        });
        let cassettes = self.cassettes.iter().map(|kept| {
            let read = Cassettes::from_json(&kept.document.plaintext, pairing.pins.currency);
            let bays = read.map(|read| read.positions).unwrap_or_default();
            let bay = |(bay, position): (&BayId, &Position)| {
                let note = Fiat::new(position.denomination.minor().into(), pairing.pins.currency);
                format!("bay {bay} of {note}")
            };
            let bays: Vec<_> = bays.iter().map(bay).collect();
            ruling(format!("Cassettes: {}", bays.join(", ")), &kept.document)
        });
        fees.chain(cassettes).collect()
    }
}

/// Asked for wherever a count differs.
pub(super) const WHY: &str = "the count differs from the books: say why";

/// Whether a note of it is between the inlet and the cashbox.
fn feeds(txn: &Txn) -> bool {
    match txn {
        Txn::CashIn(session) => {
            txn.stage() == Stage::Open
                && !matches!(session.state(), cash_in::State::Uncertain { .. })
        }
        Txn::CashOut(_) => false,
    }
}
