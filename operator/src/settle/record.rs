//! One payment: what is known of it, what it becomes, and what is written.
//!
//! Promise: everything that the decision depends on is read in the transaction that writes its
//! result. An invoice of a machine that was revoked is late whenever it is paid.

use bitspire_shared::ids::{EventId, PaymentHash, PushId, TxnId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::settlement::{
    Accepted, Distribution as Step8, FeesInForce, Hold, LookUp, Machine as Owner, Moved, Observed,
    Outcome, Owed, Rejected, Request, Settled, Stamp, StampMaker, Why, accept, claimed_sender,
};
use bitspire_shared::split::Parts;
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::{SettleError, withdraw};
use crate::ids::MachineId;
use crate::ledger::{owed_whole, settled, suspended};
use crate::rpc::push;
use crate::store::claims::{NewOwed, OwedReason};
use crate::store::documents;
use crate::store::invoices::{self, InvoiceState};
use crate::store::machines::{self, KeptMachine};
use crate::store::payments;
use crate::store::quotes::{self, Quote};
use crate::store::settlements::{self, Consequences, Distribution, Settlement, SettlementStatus};
use crate::store::{JsonText, Recorded, Tx, log};
use crate::wallet::{Flow, PayState, Payment};

/// Why the distribution of a cash_out waits: the machine has not said where the notes went.
pub const AWAITS_REPORT: &str = "awaits_report";

/// A payment as a wallet told it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) wallet_id: String,
    pub(super) payment: Payment,
    pub(super) now: Unix,
    pub(super) enforce_fee_match: bool,
    /// For the push that may follow.
    pub(super) push_id: PushId,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Landed {
    /// Not paid, or none of our business.
    Nothing,
    /// On record before.
    Known,
    /// On record now.
    New(Box<Settlement>),
}

/// Our side of a payment: the request that made it.
struct Ours {
    request: Request,
    /// What stands in for it where the wallet keeps nothing beside a payment.
    stamp: JsonText,
    machine: MachineId,
    quote: Option<Quote>,
    withdraw: Option<withdraw::Promised>,
    settled_before: bool,
}

/// Decides on a payment and records it.
pub(super) fn record(tx: &Tx<'_>, facts: &Facts) -> Result<Landed, SettleError> {
    let PayState::Succeeded { amount, at, .. } = facts.payment.state else {
        return Ok(Landed::Nothing);
    };
    let hash = facts.payment.payment_hash;
    let direction = match facts.payment.flow {
        Flow::Inbound => Direction::CashOut,
        Flow::Outbound => Direction::CashIn,
    };
    // told before, by a hint, a poll or a list: nothing is read or decided again
    let known = settlements::by_hash(tx, hash)?;
    let kept = JsonText::of(&facts.payment.extra);
    let moved = Moved { direction, amount, at: at.min(facts.now) };
    let again = |known: &Settlement| {
        known.wallet_id == facts.wallet_id
            && known.direction == direction
            && known.wire_sats == moved.wire()
            && known.extra == kept
    };
    if known.is_some_and(|kept| again(&kept)) {
        return Ok(Landed::Known);
    }
    let owner = machines::by_wallet(tx, &facts.wallet_id)?;
    let ours = match direction {
        Direction::CashOut => of_invoice(tx, hash, owner.as_ref())?,
        Direction::CashIn => match payments::by_hash(tx, hash)? {
            None => None,
            Some(attempt) => match withdraw::of_payment(tx, &attempt, hash)? {
                Some(asked) => Some(Ours::from(asked)),
                // a leg, or a debt that is being paid: booked by whoever pays it
                None => return Ok(Landed::Nothing),
            },
        },
    };
    let extra = match (&facts.payment.extra, &ours) {
        (Value::Null, Some(ours)) => ours.stamp.as_str(),
        _ => kept.as_str(),
    };
    let likely = owner.as_ref().and_then(|owner| owner.machine_npub);
    let sender = match (claimed_sender(extra, likely.as_slice()), &owner) {
        (Some(key), Some(owner)) if owner.machine_npub == Some(key) => Some(owner.clone()),
        (Some(key), _) => machines::by_spire(tx, key)?,
        (None, _) => None,
    };
    let named = match &ours {
        Some(ours) => Some(ours.request.fees_event_id),
        None => Stamp::parse(extra).ok().and_then(|stamp| stamp.fees_event_id),
    };
    let observed = Observed {
        payment_hash: hash,
        // the wallet says when; ours is the later bound, whatever its clock says
        look_up: LookUp::Settled(moved),
        extra,
        machine: owner.as_ref().map(|owner| {
            // of the pairing that asked: a machine that was paired again has another key
            let asked = ours.as_ref().filter(|ours| ours.machine == owner.id);
            let spire = asked.map(|ours| ours.request.spire).or(owner.machine_npub);
            Owner { spire, stamps: StampMaker::Here }
        }),
        sender_is_ours: sender.is_some(),
        request: ours.as_ref().map(|ours| &ours.request),
        fees: fees(tx, named, direction)?,
        settled_before: ours.as_ref().is_some_and(|ours| ours.settled_before),
        enforce_fee_match: facts.enforce_fee_match,
    };
    // what a wallet took in before it was a machine's is not of this business
    let earlier = owner.as_ref().is_some_and(|owner| at < owner.created_at);
    if earlier && ours.is_none() && direction == Direction::CashOut {
        return Ok(Landed::Nothing);
    }
    let outcome = accept(&observed);
    let about = About { tx, facts, kept: &kept, direction, ours: ours.as_ref(), owner, sender };
    match outcome {
        Outcome::NotSettled | Outcome::NotOurs => Ok(Landed::Nothing),
        Outcome::Accepted(accepted) => about.accepted(&accepted),
        Outcome::Owed(owed) => about.owed(&owed),
        Outcome::Rejected(rejected) => about.rejected(&rejected),
        Outcome::Misrouted { wire, txid, .. } => about.misrouted(wire, txid),
    }
}

fn fees(
    tx: &Tx<'_>,
    event_id: Option<EventId>,
    direction: Direction,
) -> Result<Option<FeesInForce>, SettleError> {
    let Some(event_id) = event_id else { return Ok(None) };
    let Some(fees) = documents::fees_of(tx, event_id)? else { return Ok(None) };
    Ok(Some(FeesInForce { event_id, fees: fees.of(direction)? }))
}

/// The request behind an invoice; `owner` is the machine of the wallet that was paid, mostly its own.
fn of_invoice(
    tx: &Tx<'_>,
    hash: PaymentHash,
    owner: Option<&KeptMachine>,
) -> Result<Option<Ours>, SettleError> {
    let Some(invoice) = invoices::by_hash(tx, hash)? else { return Ok(None) };
    let quote = quotes::find(tx, invoice.quote_id)?;
    let other;
    let machine = match owner {
        Some(owner) if owner.id == invoice.machine_id => Some(owner),
        _ => {
            other = machines::find(tx, invoice.machine_id)?;
            other.as_ref()
        }
    };
    let (Some(quote), Some(machine)) = (quote, machine) else {
        return Err(SettleError::Broken(format!("invoice {hash} has no quote or machine")));
    };
    let spire = claimed_sender(invoice.stamp.as_str(), machine.machine_npub.as_slice())
        .ok_or_else(|| SettleError::Broken(format!("invoice {hash}: its stamp has no sender")))?;
    // nothing is dispensed for a machine that was revoked or paired again: paid now, it is late
    let over = invoice.state == InvoiceState::Cancelled
        || machine.revoked_at.is_some()
        || machine.machine_npub != Some(spire);
    let request = Request {
        spire,
        txid: invoice.txid,
        quote_id: quote.quote_id,
        direction: quote.direction,
        principal: quote.principal_sats,
        fee: quote.fee_sats,
        wire: quote.wire_sats,
        rate: quote.rate_nano,
        fiat: Fiat::new(quote.fiat_minor, quote.fiat_code),
        fees_event_id: quote.fees_event_id,
        request_event_id: invoice.request_event_id,
        expires_at: if over { Unix(0) } else { invoice.expires_at },
    };
    let (machine, stamp) = (invoice.machine_id, invoice.stamp);
    let quote = Some(quote);
    Ok(Some(Ours { request, stamp, machine, quote, withdraw: None, settled_before: false }))
}

impl From<withdraw::Asked> for Ours {
    fn from(asked: withdraw::Asked) -> Self {
        let withdraw::Asked { request, stamp, machine, promised, settled_before } = asked;
        Self { request, stamp, machine, quote: None, withdraw: Some(promised), settled_before }
    }
}

/// A payment with everything that is known about it.
struct About<'a> {
    tx: &'a Tx<'a>,
    facts: &'a Facts,
    /// What the wallet keeps beside it.
    kept: &'a JsonText,
    direction: Direction,
    ours: Option<&'a Ours>,
    /// The machine that owns the wallet.
    owner: Option<KeptMachine>,
    /// The machine that the stamp names.
    sender: Option<KeptMachine>,
}

impl About<'_> {
    fn hash(&self) -> PaymentHash {
        self.facts.payment.payment_hash
    }

    fn row(&self, machine: MachineId, status: SettlementStatus, wire: Sats) -> Settlement {
        let at = match self.facts.payment.state {
            PayState::Succeeded { at, .. } => at.min(self.facts.now),
            _ => self.facts.now,
        };
        Settlement {
            payment_hash: self.hash(),
            machine_id: machine,
            wallet_id: self.facts.wallet_id.clone(),
            direction: self.direction,
            status,
            wire_sats: wire,
            extra: self.kept.clone(),
            reason: None,
            txid: self.ours.map(|ours| ours.request.txid),
            quote_id: self.ours.and_then(|ours| ours.quote.as_ref()).map(|quote| quote.quote_id),
            withdraw_id: self
                .ours
                .and_then(|ours| ours.withdraw.as_ref())
                .map(|promised| promised.id),
            principal_sats: None,
            platform_fee_sats: None,
            operator_fee_sats: None,
            owed_sats: None,
            exchange_rate: None,
            fiat_minor: None,
            fiat_code: None,
            fees_event_id: None,
            request_event_id: None,
            fee_mismatch_sats: None,
            short: false,
            settled_at: at,
            recorded_at: self.facts.now,
            dispense_outcome: None,
            reported_at: None,
            distribution: Distribution::Held,
            hold_reason: None,
            claim_token: None,
            lease_until: None,
        }
    }

    /// The row of a payment that passed, with where its sats belong.
    fn passed(
        &self,
        machine: MachineId,
        status: SettlementStatus,
        settled: &Settled,
        parts: Parts,
        short: bool,
    ) -> Settlement {
        Settlement {
            principal_sats: Some(parts.principal),
            platform_fee_sats: Some(parts.platform_fee),
            operator_fee_sats: Some(parts.operator_fee),
            owed_sats: Some(parts.owed),
            exchange_rate: Some(settled.exchange_rate),
            fiat_minor: Some(settled.fiat.minor),
            fiat_code: Some(settled.fiat.currency),
            fees_event_id: settled.fees_event_id,
            request_event_id: Some(settled.request_event_id),
            short,
            ..self.row(machine, status, settled.wire)
        }
    }

    fn owe(&self, machine: MachineId, txid: TxnId, reason: OwedReason, sats: Sats) -> Vec<NewOwed> {
        let quote = self.ours.and_then(|ours| ours.quote.as_ref());
        let source = self.hash().to_string();
        let owed = quote.filter(|_| sats > Sats::ZERO).map(|quote| NewOwed {
            claim_hash: quote.claim_hash,
            machine_id: machine,
            txid,
            reason,
            source,
            sats,
        });
        owed.into_iter().collect()
    }

    /// Writes it, moves the invoice on, and says so once.
    fn write(
        &self,
        settlement: &Settlement,
        with: &Consequences,
        invoice: Option<InvoiceState>,
    ) -> Result<Landed, SettleError> {
        if let Recorded::Known(_) = settlements::record(self.tx, settlement, with)? {
            return Ok(Landed::Known);
        }
        let ours = self.ours.filter(|ours| ours.quote.is_some());
        if let (Some(state), Some(_)) = (invoice, ours) {
            invoices::set_state(self.tx, self.hash(), state)?;
        }
        let Settlement { machine_id, status, wire_sats, reason, txid, .. } = settlement;
        if *status != SettlementStatus::Accepted {
            let detail = json!({
                "payment_hash": self.hash(), "direction": self.direction,
                "wire_sats": wire_sats, "txid": txid, "wallet": settlement.wallet_id,
                "reason": reason,
            });
            let subject = format!("machine:{machine_id}");
            let action = format!("settlement.{status}");
            log::by_service(self.tx, &action, &subject, detail, self.facts.now)?;
        }
        Ok(Landed::New(Box::new(settlement.clone())))
    }

    fn accepted(&self, accepted: &Accepted) -> Result<Landed, SettleError> {
        let (Some(ours), Some(owner)) = (self.ours, &self.owner) else {
            return Err(SettleError::Broken("accepted without a request of ours".into()));
        };
        let values = accepted.settled();
        let status = SettlementStatus::Accepted;
        let txid = ours.request.txid;
        let (mut row, with) = match (&ours.quote, &ours.withdraw) {
            (Some(quote), _) => {
                let split = accepted.split(quote.platform_fee_ppm)?;
                let row = self.passed(owner.id, status, values, split.parts(), split.is_short());
                let (hash, operator) = (self.hash(), owner.operator_id);
                let with = Consequences {
                    entries: vec![settled(owner.id, operator, hash, Some(txid), &split)?],
                    owed: self.owe(owner.id, txid, OwedReason::Surplus, accepted.surplus()),
                    pushes: vec![push::settled(
                        owner.id,
                        txid,
                        self.facts.push_id,
                        values,
                        self.facts.now,
                    )],
                };
                (row, with)
            }
            (None, Some(promised)) => {
                let row = self.passed(owner.id, status, values, promised.parts, false);
                (row, Consequences::default())
            }
            (None, None) => {
                return Err(SettleError::Broken("a request without quote or withdraw".into()));
            }
        };
        let hold = match accepted.distribution() {
            Step8::Free => None,
            Step8::Warned { fee_mismatch_sats } => {
                row.fee_mismatch_sats = Some(fee_mismatch_sats);
                None
            }
            Step8::Held(Hold::FeeMismatch { fee_mismatch_sats }) => {
                row.fee_mismatch_sats = Some(fee_mismatch_sats);
                Some("fee_mismatch")
            }
            Step8::Held(Hold::FeesUnknown) => Some("fees_unknown"),
        };
        let hold = match self.direction {
            Direction::CashOut => Some(hold.unwrap_or(AWAITS_REPORT)),
            Direction::CashIn => hold,
        };
        row.distribution = if hold.is_some() { Distribution::Held } else { Distribution::Pending };
        row.hold_reason = hold.map(ToOwned::to_owned);
        self.write(&row, &with, Some(InvoiceState::Settled))
    }

    fn owed(&self, owed: &Owed) -> Result<Landed, SettleError> {
        let (Some(ours), Some(owner)) = (self.ours, &self.owner) else {
            return Err(SettleError::Broken("owed without a request of ours".into()));
        };
        let (status, reason, state) = match owed.why {
            Why::Under => (SettlementStatus::Under, OwedReason::Under, InvoiceState::Under),
            // the port has one payment a hash, so that a second one shows as a conflict
            Why::Late | Why::Twice => {
                (SettlementStatus::Late, OwedReason::Late, InvoiceState::Late)
            }
        };
        let wire = owed.settled.wire;
        let mut row = self.passed(owner.id, status, &owed.settled, owed.split()?.parts(), false);
        row.distribution = Distribution::Processed;
        let txid = ours.request.txid;
        let with = Consequences {
            entries: match wire {
                Sats::ZERO => Vec::new(),
                _ => vec![owed_whole(owner.id, &self.hash().to_string(), txid, wire)?],
            },
            owed: self.owe(owner.id, txid, reason, wire),
            pushes: Vec::new(),
        };
        self.write(&row, &with, Some(state))
    }

    fn rejected(&self, rejected: &Rejected) -> Result<Landed, SettleError> {
        let named = self.owner.as_ref().or(self.sender.as_ref()).map(|machine| machine.id);
        let machine = named.or(self.ours.map(|ours| ours.machine));
        let machine =
            machine.ok_or_else(|| SettleError::Broken("rejected without a machine".into()))?;
        let Rejected { wire, direction, reason, owed_to } = rejected;
        let (wire, direction) = (*wire, *direction);
        let mut row = self.row(machine, SettlementStatus::Rejected, wire);
        row.distribution = Distribution::Rejected;
        row.reason = Some(format!("{}: {reason}", reason.code()));
        // an outbound payment of our own is booked by whoever made it
        let booked_elsewhere = direction == Direction::CashIn && self.ours.is_some();
        let stray = self.owner.is_none();
        let reference = self.hash().to_string();
        let entry = match owed_to {
            _ if wire == Sats::ZERO || booked_elsewhere => None,
            Some(txid) if !stray => Some(owed_whole(machine, &reference, *txid, wire)?),
            _ => Some(suspended(machine, self.hash(), direction, wire, stray)?),
        };
        let owed = match owed_to {
            Some(txid) if !stray => self.owe(machine, *txid, OwedReason::Rejected, wire),
            _ => Vec::new(),
        };
        let with = Consequences { entries: entry.into_iter().collect(), owed, pushes: Vec::new() };
        // paid, and buys nothing
        self.write(&row, &with, Some(InvoiceState::Late))
    }

    fn misrouted(&self, wire: Sats, txid: TxnId) -> Result<Landed, SettleError> {
        let ours = self.ours.ok_or_else(|| SettleError::Broken("misrouted, not ours".into()))?;
        let mut row = self.row(ours.machine, SettlementStatus::Misrouted, wire);
        row.hold_reason = Some("misrouted".into());
        row.reason = Some(format!(
            "misrouted: transaction {txid} was paid into wallet {}, which is no machine's",
            self.facts.wallet_id
        ));
        let entry = match wire {
            Sats::ZERO => None,
            _ => Some(suspended(ours.machine, self.hash(), self.direction, wire, true)?),
        };
        let entries = entry.into_iter().collect();
        let with = Consequences { entries, owed: Vec::new(), pushes: Vec::new() };
        self.write(&row, &with, Some(InvoiceState::Late))
    }
}
