//! The request behind a payment for stacked notes.
//!
//! Promise: the stamp that a payment of a withdraw carries and the request that it is compared with
//! when it comes back are read from the same rows. Notes that nobody claimed in time and that their
//! claim code pays later are the same sale: its fee is distributed then.

use bitspire_shared::ids::{EventId, PaymentHash, WithdrawId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::settlement::{Request, Stamp};
use bitspire_shared::split::Parts;
use nostr::{Event, JsonUtil};
use serde_json::Value;

use super::SettleError;
use crate::ids::MachineId;
use crate::store::claims::OwedReason;
use crate::store::payments::{Payment, SubjectKind};
use crate::store::settlements::{self, SettlementStatus};
use crate::store::withdraws::{self, Purpose, Withdraw};
use crate::store::{JsonText, Read, claims, machines, quotes};

/// What a withdraw promised.
pub(super) struct Promised {
    pub(super) id: WithdrawId,
    pub(super) parts: Parts,
}

/// The request behind a payment of a withdraw.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) stamp: JsonText,
    pub(super) machine: MachineId,
    pub(super) promised: Promised,
    pub(super) settled_before: bool,
}

/// The request behind an attempt to pay; `None` where it pays no notes.
pub(super) fn of_payment(
    read: &Read<'_>,
    attempt: &Payment,
    hash: PaymentHash,
) -> Result<Option<Asked>, SettleError> {
    if attempt.subject != SubjectKind::Withdraw {
        return Ok(None);
    }
    let id: Option<WithdrawId> = attempt.subject_id.parse().ok();
    let withdraw = match id {
        Some(id) => withdraws::find(read, id)?,
        None => None,
    };
    let Some(withdraw) = withdraw else {
        return Err(SettleError::Broken(format!("payment {hash} pays no withdraw on record")));
    };
    let Some(withdraw) = for_notes(read, withdraw)? else { return Ok(None) };
    let (request, parts) = request(read, &withdraw)?;
    let before = settlements::of_txn(read, withdraw.machine_id, withdraw.txid)?;
    let settled_before = before.iter().any(|other| {
        other.withdraw_id == Some(withdraw.withdraw_id)
            && other.payment_hash != hash
            && other.status == SettlementStatus::Accepted
    });
    let stamp = JsonText::of(&stamp_of(&request)?);
    let promised = Promised { id: withdraw.withdraw_id, parts };
    let machine = withdraw.machine_id;
    Ok(Some(Asked { request, stamp, machine, promised, settled_before }))
}

/// The cash_in whose notes this withdraw pays: itself, or the expired one whose promise is the one
/// debt that it pays. `None` where it pays anything else.
fn for_notes(read: &Read<'_>, withdraw: Withdraw) -> Result<Option<Withdraw>, SettleError> {
    if withdraw.purpose == Purpose::CashIn {
        return Ok(Some(withdraw));
    }
    match claims::paid_by(read, withdraw.withdraw_id)?.as_slice() {
        [debt] if debt.reason == OwedReason::Unclaimed => {
            let expired = debt.source.parse().map_err(|_| {
                SettleError::Broken(format!("debt {}: its source is no withdraw", debt.source))
            })?;
            Ok(withdraws::find(read, expired)?.filter(|w| w.net_sats == withdraw.net_sats))
        }
        _ => Ok(None),
    }
}

/// The settlement stamp that a payment of this withdraw carries in its `extra`; `None` where it
/// pays a debt, which is no sale and carries none.
///
/// # Errors
/// [`SettleError`].
pub fn stamp(read: &Read<'_>, id: WithdrawId) -> Result<Option<Value>, SettleError> {
    let Some(withdraw) = withdraws::find(read, id)? else { return Ok(None) };
    let Some(withdraw) = for_notes(read, withdraw)? else { return Ok(None) };
    let (request, _) = request(read, &withdraw)?;
    stamp_of(&request).map(Some)
}

fn stamp_of(request: &Request) -> Result<Value, SettleError> {
    let stamp = Stamp {
        direction: request.direction,
        principal: request.principal,
        fee: request.fee,
        exchange_rate: request.rate.to_decimal(),
        fiat: request.fiat,
        txid: Some(request.txid),
        fees_event_id: Some(request.fees_event_id),
        sender: request.spire,
        request_event_id: request.request_event_id,
    };
    Ok(serde_json::from_str(stamp.to_extra()?.get())?)
}

/// The request of a cash_in. With several locks, rate and fee document are those of the last one:
/// the amounts are the sums.
fn request(read: &Read<'_>, withdraw: &Withdraw) -> Result<(Request, Parts), SettleError> {
    let id = withdraw.withdraw_id;
    let broken = |what: &str| SettleError::Broken(format!("withdraw {id}: {what}"));
    let mut last: Option<quotes::Quote> = None;
    for lot in withdraws::lots(read, id)? {
        let quote = quotes::find(read, lot.quote_id)?.ok_or_else(|| broken("a lock is gone"))?;
        if last.as_ref().is_none_or(|last| last.created_at <= quote.created_at) {
            last = Some(quote);
        }
    }
    let quote = last.ok_or_else(|| broken("no lock"))?;
    let machine = machines::find(read, withdraw.machine_id)?;
    let spire = machine.and_then(|machine| machine.machine_npub);
    let event = withdraw.request_event.as_deref().map(Event::from_json);
    let Some(Ok(event)) = event else { return Err(broken("its request is no event")) };
    let amounts = (
        withdraw.principal_sats,
        withdraw.platform_fee_sats,
        withdraw.operator_fee_sats,
        withdraw.fiat_minor,
    );
    let (Some(principal), Some(platform_fee), Some(operator_fee), Some(minor)) = amounts else {
        return Err(broken("amounts are absent"));
    };
    let fee = platform_fee.plus(operator_fee).map_err(|e| broken(&e.to_string()))?;
    let request = Request {
        spire: spire.ok_or_else(|| broken("its machine has no key"))?,
        txid: withdraw.txid,
        quote_id: quote.quote_id,
        direction: Direction::CashIn,
        principal,
        fee,
        wire: withdraw.net_sats,
        rate: quote.rate_nano,
        fiat: Fiat::new(minor, quote.fiat_code),
        fees_event_id: quote.fees_event_id,
        request_event_id: EventId::from_bytes(event.id.to_bytes()),
        expires_at: withdraw.expires_at,
    };
    Ok((request, Parts { principal, platform_fee, operator_fee, owed: Sats::ZERO }))
}
