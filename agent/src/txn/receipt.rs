//! What a transaction's receipt states.
//!
//! Promise: the figures follow from the journaled state alone, so that a receipt can be made again
//! from the journal at any time, and is the same. Whatever took money or notes has one, however it
//! ended; what ended before that has none.
//!
//! Failure policy: figures that no receipt has room for make none; the sale is not touched by it.

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey, QuoteId, TxnId};
use bitspire_shared::money::{Denomination, Direction, FeePpm, Fiat, Origins, Sats};
use bitspire_shared::receipt::{MAX_PRICES, Outcome, Price, Receipt, Reference};
use bitspire_shared::rpc::{CheckedQuote, QuoteTerms};
use bitspire_shared::split::{FeePair, wire_of};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cash_in::{self, CashIn, Fate, Note};
use super::cash_out::{self, Batch, CashOut, Sale};
use super::deal::Deal;
use super::record::Txn;
use crate::journal::StoredEntry;

/// What a receipt needs beside the state: how each price was made, and what became of notes by
/// value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paper {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prices: Vec<Priced>,
    /// The invoice of a sale that was paid too late: its state has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sale: Option<Sale>,
    /// Notes that the customer has or could have had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    given: BTreeMap<Denomination, u32>,
}

/// How a price was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Priced {
    quote_id: QuoteId,
    platform: FeePpm,
    operator: FeePpm,
    origins: Origins,
}

impl Paper {
    /// Keeps how this price was made.
    pub(super) fn priced(&mut self, quote: &CheckedQuote) {
        let (fees, quote_id) = (quote.fees(), quote.terms().quote_id);
        self.prices.retain(|known| known.quote_id != quote_id);
        let (platform, operator) = (fees.platform(), fees.operator());
        self.prices.push(Priced { quote_id, platform, operator, origins: quote.origins() });
    }

    /// Counts the notes of a final answer.
    pub(super) fn gave(&mut self, batch: &Batch, bays: &BayResults) {
        for (bay, lot) in &batch.lots {
            let notes = bays.get(bay).map_or(0, |result| result.delivered());
            if notes > 0 {
                let given = self.given.entry(lot.denomination).or_default();
                *given = given.saturating_add(notes);
            }
        }
    }

    fn of(&self, terms: &QuoteTerms) -> Option<&Priced> {
        self.prices.iter().find(|priced| priced.quote_id == terms.quote_id)
    }
}

/// Where the journal says what a receipt states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// When it was written.
    pub at: Unix,
    /// The entry.
    pub seq: JournalSeq,
    /// The journal's head there.
    pub head: JournalHead,
}

impl Position {
    /// No position: to compare what two receipts state.
    pub const NONE: Self =
        Self { at: Unix(0), seq: JournalSeq(0), head: JournalHead::from_bytes([0; 32]) };
}

/// The parts of a receipt in which the two directions differ.
struct Figures {
    outcome: Outcome,
    fiat_minor: u64,
    prices: Vec<Price>,
    sources: Origins,
    principal: Sats,
    platform: Sats,
    operator: Sats,
    reference: Option<Reference>,
    notes: BTreeMap<Denomination, u16>,
    besides_minor: u64,
    owed_minor: u64,
    owed_sats: Option<Sats>,
}

impl Txn {
    /// What the transaction's receipt states in this state, if there is anything to state.
    #[must_use]
    pub fn receipt(&self, vault: PubKey, position: Position) -> Option<Receipt> {
        let (deal, direction, spire, figures) = match self {
            Self::CashOut(txn) => {
                let (spire, figures) = txn.figures()?;
                (txn.deal(), Direction::CashOut, spire, figures)
            }
            Self::CashIn(txn) => {
                let (spire, figures) = txn.figures()?;
                (txn.deal(), Direction::CashIn, spire, figures)
            }
        };
        Some(receipt((spire, vault), deal, direction, figures, position))
    }
}

/// The receipt of a transaction as of the last of its entries, given in order. Its position is the
/// entry by which the transaction first stood so.
#[must_use]
pub fn receipt_of(entries: &[StoredEntry], vault: PubKey) -> Option<Receipt> {
    let mut last: Option<(Receipt, Position)> = None;
    for entry in entries {
        let Some(txn) = state_in(entry) else { continue };
        let position = Position { at: entry.at, seq: entry.seq, head: entry.hash };
        last = match (txn.receipt(vault, Position::NONE), last) {
            (None, _) => None,
            (Some(figures), Some((known, since))) if figures == known => Some((known, since)),
            (Some(figures), _) => Some((figures, position)),
        };
    }
    let (figures, Position { at, seq, head }) = last?;
    Some(Receipt { ended_at: at, journal_seq: seq, journal_head: head, ..figures })
}

/// The state that an entry brings; one of another version brings none.
fn state_in(entry: &StoredEntry) -> Option<Txn> {
    let body: Value = serde_json::from_str(&entry.body).ok()?;
    let txn = body.get("txn").or_else(|| body.get("intent")?.get("txn"))?;
    Txn::deserialize(txn.get("state")?).ok()
}

fn receipt(
    (spire, vault): (PubKey, PubKey),
    deal: &Deal,
    direction: Direction,
    figures: Figures,
    position: Position,
) -> Receipt {
    let Figures { outcome, fiat_minor, prices, sources, reference, notes, .. } = figures;
    let txid: TxnId = deal.txid;
    Receipt {
        spire,
        vault,
        txid,
        direction,
        outcome,
        currency: deal.fiat.currency,
        fiat_minor,
        prices,
        sources,
        principal_sats: figures.principal,
        platform_fee_sats: figures.platform,
        operator_fee_sats: figures.operator,
        reference,
        notes,
        besides_minor: figures.besides_minor,
        owed_minor: figures.owed_minor,
        owed_sats: figures.owed_sats,
        opened_at: deal.opened_at,
        ended_at: position.at,
        journal_seq: position.seq,
        journal_head: position.head,
    }
}

fn minor(amount: i64) -> Option<u64> {
    u64::try_from(amount).ok()
}

fn counted(notes: &BTreeMap<Denomination, u32>) -> Option<BTreeMap<Denomination, u16>> {
    notes.iter().map(|(note, count)| Some((*note, u16::try_from(*count).ok()?))).collect()
}

/// The platform's leg and the rest, as every settlement is split.
fn legs(fee: Sats, principal: Sats, priced: Option<&Priced>) -> (Sats, Sats) {
    let platform = priced.map_or(Sats::ZERO, |priced| priced.platform.of(principal)).min(fee);
    (platform, fee.minus(platform).unwrap_or_default())
}

impl CashOut {
    fn figures(&self) -> Option<(PubKey, Figures)> {
        use cash_out::State;
        let fiat = self.deal.fiat;
        let (sale, outcome, owed, owed_sats) = match &self.state {
            State::Settled { sale, .. } => (*sale, Outcome::Done, 0, None),
            State::ShortDispensed { sale, owed_minor, .. } => {
                (*sale, Outcome::Owed, *owed_minor, None)
            }
            State::Uncertain { sale, given, .. } => {
                (*sale, Outcome::Uncertain, given.rest(fiat), None)
            }
            State::PaidWaiting { sale, given } => (*sale, Outcome::Waiting, given.rest(fiat), None),
            State::Late { owed } => {
                let sale = self.paper.sale?;
                (sale, Outcome::Late, 0, Some(owed.unwrap_or(sale.terms.wire_sats)))
            }
            _ => return None,
        };
        let terms = sale.terms;
        let priced = self.paper.of(&terms);
        let (platform, operator) = legs(terms.fee_sats, terms.principal_sats, priced);
        let whole = minor(fiat.minor)?;
        let figures = Figures {
            outcome,
            fiat_minor: whole,
            prices: vec![Price { fiat_minor: whole, rate: terms.exchange_rate }],
            sources: priced.map(|priced| priced.origins).unwrap_or_default(),
            principal: terms.principal_sats,
            platform,
            operator,
            reference: Some(Reference::PaymentHash(sale.payment_hash)),
            notes: counted(&self.paper.given)?,
            besides_minor: minor(self.state.given().map_or(0, |given| given.by_verdict))?,
            owed_minor: minor(owed)?,
            owed_sats,
        };
        Some((terms.spire, figures))
    }
}

impl CashIn {
    fn figures(&self) -> Option<(PubKey, Figures)> {
        use cash_in::State;
        let spire = self.locks.first()?.spire;
        let (prices, sources, principal, fee) = self.priced()?;
        let unknown = self.notes().iter().filter(|note| matches!(note.fate, Fate::Unknown { .. }));
        let unknown = unknown.filter_map(|note| note.denomination);
        let unknown = unknown.fold(0u64, |sum, note| sum.saturating_add(note.minor().into()));
        let computed = wire_of(Direction::CashIn, principal, fee).ok();
        let (outcome, facts, owed_minor, owed_sats) = match &self.state {
            State::Offered { withdraw } => {
                let net = withdraw.map(|withdraw| withdraw.net_sats).or(computed);
                (Outcome::Waiting, *withdraw, 0, net)
            }
            State::Claimed { withdraw } => {
                (Outcome::Waiting, Some(*withdraw), 0, Some(withdraw.net_sats))
            }
            State::PayUnknown { withdraw } => {
                (Outcome::Unknown, Some(*withdraw), 0, Some(withdraw.net_sats))
            }
            State::Redeemed { withdraw } => (Outcome::Done, Some(*withdraw), 0, None),
            State::Expired { owed } => (Outcome::Owed, None, 0, owed.net_sats.or(computed)),
            State::Uncertain { .. } => (Outcome::Uncertain, None, unknown, None),
            _ => return None,
        };
        // what the service promised is what counts
        let (principal, fee) = match facts {
            Some(facts) => (facts.net_sats.plus(facts.fee_sats).ok()?, facts.fee_sats),
            None => (principal, fee),
        };
        let last = self.locks.last().and_then(|lock| self.paper.of(lock));
        let (platform, operator) = legs(fee, principal, last);
        let mut notes: BTreeMap<Denomination, u32> = BTreeMap::new();
        for note in self.notes().iter().filter(|note| note.is_ours()) {
            let count = notes.entry(note.denomination?).or_default();
            *count = count.saturating_add(1);
        }
        let figures = Figures {
            outcome,
            fiat_minor: minor(self.total().minor)?,
            prices,
            sources,
            principal,
            platform,
            operator,
            reference: facts.map(|facts| Reference::WithdrawId(facts.withdraw_id)),
            notes: counted(&notes)?,
            besides_minor: 0,
            owed_minor,
            owed_sats,
        };
        Some((spire, figures))
    }

    /// The rates under which notes count, where they came from, and what the notes are worth by
    /// them, with the fee on that.
    fn priced(&self) -> Option<(Vec<Price>, Origins, Sats, Sats)> {
        let (mut prices, mut sources) = (Vec::new(), Origins::default());
        let mut principal = Sats::ZERO;
        for lock in &self.locks {
            let under = |note: &Note| note.is_ours() && note.lock == Some(lock.quote_id);
            let part: Fiat = self.worth(under);
            if part.minor <= 0 {
                continue;
            }
            let sats = lock.exchange_rate.principal(part, Direction::CashIn).ok()?;
            principal = principal.plus(sats).ok()?;
            if let Some(priced) = self.paper.of(lock) {
                sources = sources.with(&priced.origins);
            }
            if prices.len() < MAX_PRICES {
                prices.push(Price { fiat_minor: minor(part.minor)?, rate: lock.exchange_rate });
            }
        }
        let last = self.locks.last().and_then(|lock| self.paper.of(lock));
        let fees = last.and_then(|last| FeePair::new(last.platform, last.operator).ok());
        let charge = fees.unwrap_or_default().charge(Direction::CashIn, principal).ok()?;
        Some((prices, sources, principal, charge.fee()))
    }
}
