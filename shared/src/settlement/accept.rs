//! The order of acceptance, one function.
//!
//! Promise: the steps run in one fixed order, and the first that fails names the outcome:
//!
//! 1. the wallet's own look-up says that the payment succeeded;
//! 2. a machine owns the wallet; without one, our own request of that hash makes it misrouted, a
//!    sender that claims to be a machine makes it rejected;
//! 3. the sender is the machine's key;
//! 4. the stamp parses;
//! 5. its ranges hold, and principal and fee make the amount;
//! 6. the payment's own direction agrees with the stamp's;
//! 7. the stamp equals the request that made the invoice;
//! 8. the fee is the one of the fee document in force.
//!
//! An [`Accepted`] exists only when 1 to 7 passed, and only it yields a [`Dispense`]; step 8 decides
//! nothing but its [`Distribution`].
//!
//! Failure policy: see the module above.

use rust_decimal::Decimal;

use crate::ids::{EventId, PaymentHash, PubKey, QuoteId, TxnId};
use crate::money::{Direction, Fiat, Msat, PPM, Rate, Sats};
use crate::settlement::outcome::{
    Accepted, Dispense, Distribution, Hold, Outcome, Owed, Reason, Rejected, Settled,
};
use crate::settlement::payment::{Due, Payment, classify};
use crate::settlement::stamp::{Stamp, claimed_sender, claims_our_source};
use crate::split::FeePair;
use crate::time::Unix;

/// What the wallet says when it is asked about a payment itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookUp {
    /// It succeeded.
    Settled(Moved),
    /// It is under way, failed, or the wallet does not know: nothing to settle yet.
    NotSettled,
}

/// A payment that succeeded, in the wallet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moved {
    /// The protocol's direction: inbound is cash_out, outbound cash_in.
    pub direction: Direction,
    /// The magnitude, without routing fees.
    pub amount: Msat,
    /// When it settled, by the service's clock.
    pub at: Unix,
}

impl Moved {
    /// Whole sats, rounded against the payment: inbound down, outbound up.
    #[must_use]
    pub const fn wire(self) -> Sats {
        match self.direction {
            Direction::CashOut => self.amount.to_sats_floor(),
            Direction::CashIn => Sats(self.amount.0.div_ceil(1_000)),
        }
    }
}

/// Who writes the stamps of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StampMaker {
    /// This service: each stamp has a request row.
    Here,
    /// Another stack, by the operator's explicit setting: there is no row to compare with.
    Elsewhere,
}

/// The machine that owns the wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Its key; an unpaired machine has none.
    pub spire: Option<PubKey>,
    /// Who writes its stamps.
    pub stamps: StampMaker,
}

/// Our own row of the request and the quote that made an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The machine that asked.
    pub spire: PubKey,
    /// Its transaction.
    pub txid: TxnId,
    /// The stored quote.
    pub quote_id: QuoteId,
    /// Direction of the cash.
    pub direction: Direction,
    /// Sats at market rate, before fees.
    pub principal: Sats,
    /// Commission in sats.
    pub fee: Sats,
    /// The invoice's amount.
    pub wire: Sats,
    /// The quoted rate.
    pub rate: Rate,
    /// The notes' value.
    pub fiat: Fiat,
    /// The fee document of the quote.
    pub fees_event_id: EventId,
    /// The machine's request event.
    pub request_event_id: EventId,
    /// The invoice's expiry.
    pub expires_at: Unix,
}

/// A fee document with the fees that it set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeesInForce {
    /// The document's event.
    pub event_id: EventId,
    /// Fees of the payment's direction.
    pub fees: FeePair,
}

/// Everything that acceptance depends on.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Hash of the payment.
    pub payment_hash: PaymentHash,
    /// The wallet's own look-up.
    pub look_up: LookUp,
    /// JSON text of the payment's `extra`, as the wallet has it.
    pub extra: &'a str,
    /// The machine that owns the wallet, if one does.
    pub machine: Option<Machine>,
    /// Whether the [`claimed_sender`] is the key of any of our machines.
    pub sender_is_ours: bool,
    /// Our own request of that payment hash, if there is one.
    pub request: Option<&'a Request>,
    /// The fee document that the stamp names, or for stamps made elsewhere the one in force.
    pub fees: Option<FeesInForce>,
    /// Whether another payment of the same invoice is on record.
    pub settled_before: bool,
    /// Whether a wrong fee holds the distribution; on by default.
    pub enforce_fee_match: bool,
}

/// Decides what becomes of a payment.
#[must_use]
pub fn accept(seen: &Observed<'_>) -> Outcome {
    let LookUp::Settled(moved) = seen.look_up else { return Outcome::NotSettled };
    let Moved { direction, at, .. } = moved;
    let wire = moved.wire();
    let reject = |reason| {
        let ours = seen.request.filter(|_| direction == Direction::CashOut);
        let owed_to = ours.filter(|r| r.direction == direction).map(|r| r.txid);
        Outcome::Rejected(Rejected { direction, wire, reason, owed_to })
    };
    // other payments leave these wallets too: an operator's own, and the legs of distributions
    let foreign = seen.request.is_none() && !claims_our_source(seen.extra);
    if direction == Direction::CashIn && foreign {
        return Outcome::NotOurs;
    }
    let Some(machine) = seen.machine else {
        return match seen.request {
            Some(request) => Outcome::Misrouted { direction, wire, txid: request.txid },
            None if seen.sender_is_ours => reject(Reason::Unrequested),
            None => Outcome::NotOurs,
        };
    };
    let stamp = match verified(seen, machine, moved) {
        Ok(stamp) => stamp,
        Err(reason) => return reject(reason),
    };
    let settled = Settled {
        payment_hash: seen.payment_hash,
        direction,
        wire,
        principal: stamp.principal,
        fee: stamp.fee,
        exchange_rate: stamp.exchange_rate,
        fiat: stamp.fiat,
        spire: stamp.sender,
        txid: stamp.txid,
        fees_event_id: stamp.fees_event_id,
        request_event_id: stamp.request_event_id,
        at,
    };
    let surplus = match (direction, classify(due(seen, moved), wire, at, seen.settled_before)) {
        (_, Payment::Serve { surplus }) => surplus,
        (Direction::CashOut, Payment::OweAll(why)) => return Outcome::Owed(Owed { settled, why }),
        (Direction::CashIn, Payment::OweAll(_)) => return reject(Reason::PaidTwice),
    };
    let dispense = seen.request.filter(|_| direction == Direction::CashOut).map(|r| Dispense {
        spire: r.spire,
        txid: r.txid,
        quote_id: r.quote_id,
        payment_hash: seen.payment_hash,
        wire: r.wire,
        fiat: r.fiat,
    });
    let distribution = distribution(seen, &stamp);
    Outcome::Accepted(Accepted { settled, surplus, dispense, distribution })
}

/// What the payment had to be: the invoice of our own cash_out; else what moved, since a withdraw
/// is paid exactly and another stack's invoice is not known.
fn due(seen: &Observed<'_>, moved: Moved) -> Due {
    match (moved.direction, seen.request) {
        (Direction::CashOut, Some(r)) => Due { wire: r.wire, expires_at: r.expires_at },
        _ => Due { wire: moved.wire(), expires_at: Unix(u64::MAX) },
    }
}

/// Steps 3 to 7.
fn verified(seen: &Observed<'_>, machine: Machine, moved: Moved) -> Result<Stamp, Reason> {
    let expected = machine.spire.ok_or(Reason::Unpaired)?;
    let got = claimed_sender(seen.extra, &[expected]);
    if got != Some(expected) {
        return Err(Reason::Sender { expected, got });
    }
    let stamp = Stamp::parse_by(seen.extra, &[expected]).map_err(Reason::Stamp)?;
    if let Some(field) = stamp.out_of_range() {
        return Err(Reason::Range { field });
    }
    let got = stamp.wire().map_err(Reason::NoSum)?;
    let expected = due(seen, moved).wire;
    if got != expected {
        return Err(Reason::Sum { expected, got });
    }
    if stamp.direction != moved.direction {
        return Err(Reason::Direction { expected: moved.direction, got: stamp.direction });
    }
    match (seen.request, machine.stamps) {
        (Some(request), _) => match first_difference(&stamp, request) {
            Some(field) => Err(Reason::Differs { field }),
            None => Ok(stamp),
        },
        (None, StampMaker::Elsewhere) => Ok(stamp),
        (None, StampMaker::Here) => Err(Reason::Unrequested),
    }
}

/// Step 7: the first field of the stamp that is not what we quoted.
fn first_difference(stamp: &Stamp, request: &Request) -> Option<&'static str> {
    let same = [
        ("nostr_sender_pubkey", stamp.sender == request.spire),
        ("type", stamp.direction == request.direction),
        ("txid", stamp.txid == Some(request.txid)),
        ("principal_sats", stamp.principal == request.principal),
        ("fee_sats", stamp.fee == request.fee),
        ("wire_sats", stamp.wire() == Ok(request.wire)),
        ("exchange_rate", same_rate(stamp.exchange_rate, request.rate.to_decimal())),
        ("fiat_amount", stamp.fiat.minor == request.fiat.minor),
        ("fiat_code", stamp.fiat.currency == request.fiat.currency),
        ("fees_event_id", stamp.fees_event_id == Some(request.fees_event_id)),
        ("nostr_event_id", stamp.request_event_id == request.request_event_id),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

/// Equal to 15 significant digits: wallets keep `extra` as JSON of doubles, which hold no more.
fn same_rate(stamped: Decimal, quoted: Decimal) -> bool {
    let digits = Decimal::from(1_000_000_000_000_000_u64);
    let allowed = quoted.checked_div(digits);
    let apart = stamped.checked_sub(quoted).map(|d| d.abs());
    stamped == quoted || matches!((apart, allowed), (Some(a), Some(b)) if a <= b)
}

/// Step 8.
fn distribution(seen: &Observed<'_>, stamp: &Stamp) -> Distribution {
    let own = seen.request.is_some();
    let known = seen.fees.filter(|f| !own || stamp.fees_event_id == Some(f.event_id));
    let charge = known.map(|f| (f.fees, f.fees.charge(stamp.direction, stamp.principal)));
    let Some((fees, Ok(charge))) = charge else { return Distribution::Held(Hold::FeesUnknown) };
    let fits = stamp.fee == charge.fee() || (!own && within_tolerance(stamp, fees));
    if fits {
        return Distribution::Free;
    }
    let signed = |sats: Sats| i64::try_from(sats.0).unwrap_or(i64::MAX);
    let fee_mismatch_sats = signed(stamp.fee).saturating_sub(signed(charge.fee()));
    if seen.enforce_fee_match {
        Distribution::Held(Hold::FeeMismatch { fee_mismatch_sats })
    } else {
        Distribution::Warned { fee_mismatch_sats }
    }
}

/// `|fee - principal * (platform + operator)| <= max(1, principal / 1000)`, times one million.
fn within_tolerance(stamp: &Stamp, fees: FeePair) -> bool {
    let principal = u128::from(stamp.principal.0);
    let stamped = u128::from(stamp.fee.0).saturating_mul(u128::from(PPM));
    let expected = principal.saturating_mul(u128::from(fees.total().ppm()));
    stamped.abs_diff(expected) <= principal.saturating_mul(1_000).max(u128::from(PPM))
}
