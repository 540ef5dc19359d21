//! A journal stepped through: the machine as it was after any of its entries.
//!
//! Promise: the entries hold the states of the transactions, not what brought them about, so the
//! states are read and not decided again. Everything else is made again from the entries by the code
//! that the vault runs: the chain and the journal's rules, what the machine held, which transactions
//! were open, and the screen that follows from a state, without claim code, invoice and LNURL: these
//! are in no journal.
//!
//! Failure policy: the replay ends at the entry at which the journal does not hold. A state that
//! this version cannot read is named, and the rest goes on.

use bitspire_shared::ids::{JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use serde::Serialize;
use serde_json::{Value, json};

use crate::journal::{Heap, Holdings, JournalError, Reader, Stage, StoredEntry, StoredTxn, Walk};
use crate::kiosk::text;
use crate::screen::MachineScreen;
use crate::txn::cash_out::State;
use crate::txn::{Screen, Txn, View};
use crate::vault::is_trial;

/// The machine after one entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// The entry.
    pub seq: JournalSeq,
    /// When it was written.
    pub at: Unix,
    /// What it is.
    pub kind: String,
    /// The entry in words.
    pub entry: String,
    /// The transaction that it is about, as it stood then.
    pub txn: Option<Standing>,
    /// All transactions that were not closed.
    pub open: Vec<Standing>,
    /// What the machine held: bays, cashbox, reject bin.
    pub holdings: Value,
}

/// A transaction as it stood.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Which transaction.
    pub txid: TxnId,
    /// The name of its state.
    pub state: String,
    /// How far it was.
    pub stage: Stage,
    /// The entry at which it came into that state.
    pub since: JournalSeq,
    /// Its screen as data; none where this version cannot read the state.
    pub screen: Option<MachineScreen>,
    /// Its screen in words.
    pub text: String,
}

/// Steps through the entries up to `to`, those of `only` if it is given, and calls `with` after
/// each of them.
///
/// # Errors
/// [`JournalError::Broken`] at the entry that does not hold; those of `with`.
pub fn replay(
    reader: &Reader,
    to: JournalSeq,
    only: Option<TxnId>,
    mut with: impl FnMut(&Moment) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let mut walk = Walk::from_nothing()?;
    reader.each(JournalSeq(1), to, |entry| {
        walk.take(&entry)?;
        if only.is_some_and(|only| entry.txid != Some(only)) {
            return Ok(());
        }
        with(&moment(&walk, &entry)?)
    })
}

/// The machine at the entry that the walk has just taken.
fn moment(walk: &Walk, entry: &StoredEntry) -> Result<Moment, JournalError> {
    let txn = match entry.txid {
        Some(txid) => walk.txn(txid)?,
        None => None,
    };
    Ok(Moment {
        seq: entry.seq,
        at: entry.at,
        kind: entry.kind.clone(),
        entry: entry.in_words(),
        txn: txn.as_ref().map(standing),
        open: walk.open_txns()?.iter().map(standing).collect(),
        holdings: holdings(walk.holdings()),
    })
}

fn standing(stored: &StoredTxn) -> Standing {
    let (screen, text) = match Txn::from_stored(stored) {
        Ok(txn) => {
            let screen = MachineScreen::Txn(shown(&txn));
            let words = text(&screen);
            (Some(screen), words)
        }
        Err(_) if is_trial(&stored.name) => {
            (None, "a test of the dispenser in service mode".to_owned())
        }
        Err(error) => (None, error.to_string()),
    };
    let StoredTxn { txid, name, stage, since, .. } = stored;
    Standing { txid: *txid, state: name.clone(), stage: *stage, since: *since, screen, text }
}

/// The screen of a state. After a restart an invoice is shown to nobody any more; here, what stood
/// on the screen is shown with the one thing left out that the journal does not have.
fn shown(txn: &Txn) -> Screen {
    let mut screen = txn.screen();
    if let Txn::CashOut(cash_out) = txn
        && let State::Invoiced { sale, gave_up: None } = cash_out.state()
    {
        screen.view = View::Invoice {
            bolt11: "not in the journal".to_owned(),
            noffer: None,
            wire_sats: sale.terms.wire_sats,
            fiat: cash_out.deal().fiat,
            expires_at: sale.expires_at,
        };
    }
    screen
}

fn holdings(held: &Holdings) -> Value {
    let bays = held.bays.iter().map(|(id, bay)| {
        let shown = json!({
            "denomination_minor": bay.denomination,
            "on_hand": bay.on_hand(),
            "loaded": bay.loaded,
            "recycled_in": bay.recycled_in,
            "presented": bay.presented,
            "retracted": bay.retracted,
            "rejected": bay.rejected,
            "stray": bay.stray,
            "doubts": bay.doubts,
            "unsure": bay.fewer(),
        });
        (id.to_string(), shown)
    });
    let heaps = |heaps: &std::collections::BTreeMap<_, Heap>| -> Value {
        let heap = |heap: &Heap| json!({ "count": heap.count, "doubts": heap.doubts });
        let named = |value: &bitspire_shared::money::Denomination| value.minor().to_string();
        Value::Object(heaps.iter().map(|(value, of)| (named(value), heap(of))).collect())
    };
    json!({
        "bays": Value::Object(bays.collect()),
        "cashbox": heaps(&held.cashbox),
        "reject_bin": heaps(&held.reject_bin),
    })
}

impl Moment {
    /// The step for a person: the entry, and the screen of its transaction.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut said = self.entry.clone() + "\n";
        if let Some(txn) = self.txn.as_ref().filter(|_| self.kind != "request") {
            said += &framed(&txn.text);
        }
        said
    }

    /// The whole machine for a person: open transactions with their screens, and its notes.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut said = format!("\nafter entry {}, {}:\n", self.seq.0, self.at.to_iso());
        for txn in &self.open {
            let Standing { txid, state, since, .. } = txn;
            said += &format!("transaction {txid}: {state} since entry {}\n", since.0);
            said += &framed(&txn.text);
        }
        if self.open.is_empty() {
            said += "no transaction is open\n";
        }
        for (bay, held) in self.holdings["bays"].as_object().into_iter().flatten() {
            let of = |name: &str| held[name].as_i64().unwrap_or_default();
            said += &format!(
                "bay {bay}: {} notes of {} minor units; {} loaded, {} recycled, {} presented, \
                 {} rejected, {} stray, {} in doubt, up to {} fewer\n",
                of("on_hand"),
                of("denomination_minor"),
                of("loaded"),
                of("recycled_in"),
                of("presented"),
                of("rejected"),
                of("stray"),
                of("doubts"),
                of("unsure")
            );
        }
        for (name, key) in [("cashbox", "cashbox"), ("reject bin", "reject_bin")] {
            let heaps = self.holdings[key].as_object().into_iter().flatten();
            let heaps = heaps.map(|(value, heap)| {
                let (count, doubts) = (&heap["count"], &heap["doubts"]);
                format!("{count} notes of {value} minor units, {doubts} in doubt")
            });
            let heaps = heaps.collect::<Vec<_>>().join("; ");
            said += &format!("{name}: {}\n", if heaps.is_empty() { "empty" } else { &heaps });
        }
        said
    }
}

fn framed(text: &str) -> String {
    text.lines().map(|line| format!("         | {line}\n")).collect()
}
