//! `create_withdraw`: the sats for the notes of one cash_in.
//!
//! Promise: the service computes principal, fee and net from its own locks; the vault's signature
//! over the notes is what makes them count, and no sats come from a machine. One withdraw for each
//! machine and transaction, for ever. Withdraw, lots, the first k1, the end of the reservations, the
//! books and the reply are one transaction.
//!
//! Notes credited under a lock keep its rate however late the claim comes: they are stacked and
//! cannot be given back. The fee is one charge on all principals of one fee document together.
//!
//! A lock is granted in service only, and counts only for the vault that it was granted to: so a claim
//! starts no sale, and is served for a machine that was switched off, whose pairing has ended, or that
//! was paired again with the same vault, since the lock.
//!
//! Failure policy: notes beyond a lock's maximum, which no vault takes, are refused with an audit
//! row; a person decides. So does a person about what a vault claims after its revoke: see [`after_revoke`](super::after_revoke).

use std::collections::BTreeMap;
use std::sync::Arc;

use bitspire_shared::admit::{Refusal, Standing};
use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{EventId, PubKey, WithdrawId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::{
    CreateWithdraw, ErrorCode, Lnurl, Notes, Reply, SignedText, VaultSigned, Withdraw,
    WithdrawTerms, notes_value,
};
use bitspire_shared::split::{FeePair, Parts, SplitError};
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::json;

use super::desk::{Call, not_by_vault, vault};
use super::failure::{Failure, ensure, refusal};
use super::get_quote::own_quote;
use super::roster::Route;
use super::{Rpc, after_revoke, random};
use crate::app::App;
use crate::clink::Codes;
use crate::ledger::{StackBooking, stacked};
use crate::store::quotes::{self, Quote};
use crate::store::withdraws::{self, K1, Lot, Purpose, WithdrawState};
use crate::store::{Tx, ledger, log, sessions};

pub(super) type Signed = VaultSigned<CreateWithdraw>;

pub(super) async fn answer(rpc: &Arc<Rpc>, call: Call, body: Signed) -> Result<Reply, Failure> {
    let make = Make::new(&rpc.app, call.now)?;
    let desk = rpc.desk.clone();
    let made = rpc.app.store.write(move |tx| {
        let route = desk.whose(tx, &call)?;
        if route.standing == Standing::Revoked {
            // what is kept must stay written
            return after_revoke::keep(tx, &call, &route, &body).map(Err);
        }
        let vault = vault(&desk.route(tx, &call)?)?;
        let claim = body.check(&vault).map_err(|e| not_by_vault(&e))?;
        desk.once::<Signed>(tx, &call, Some(claim.txid), |route| {
            let asked = Asked { now: call.now, event: call.event_json() };
            make.run(tx, &asked, route, (vault, claim, body.sig()))
        })
        .map(Ok)
    });
    let made: Result<Result<Reply, Refusal>, Failure> = made.await;
    made?.map_err(Failure::from)
}

/// When a machine asked, with its signed request.
pub(super) struct Asked {
    pub(super) now: Unix,
    pub(super) event: String,
}

/// What is made outside of the transaction.
pub(super) struct Make {
    service: Keys,
    base_url: String,
    codes: Codes,
    withdraw_id: WithdrawId,
    k1: K1,
    expires_at: Unix,
}

impl Make {
    pub(super) fn new(app: &App, now: Unix) -> Result<Self, Failure> {
        Ok(Self {
            service: app.service.clone(),
            base_url: app.config.public_base_url.clone(),
            codes: Codes::of(app),
            withdraw_id: WithdrawId::from_bytes(random()?),
            k1: K1::from_bytes(random()?),
            expires_at: now.after(app.config.withdraw_expiry_s.into()),
        })
    }

    pub(super) fn run(
        &self,
        tx: &Tx<'_>,
        call: &Asked,
        route: &Route,
        (vault, body, sig): (PubKey, &CreateWithdraw, Sig),
    ) -> Result<Withdraw, Failure> {
        let machine = &route.machine;
        let lots = lots(tx, route, body)?;
        if let Some(known) = withdraws::by_txn(tx, machine.id, body.txid)? {
            let before = withdraws::lots(tx, known.withdraw_id)?;
            let same = known.claim_hash == body.claim_hash
                && before.len() == lots.len()
                && lots.iter().all(|lot| before.contains(&lot.row()));
            ensure(same, ErrorCode::Conflict, || {
                "this transaction has its withdraw already, for other notes".into()
            })?;
            return self.again(tx, &known);
        }
        let claim = worth(lots.iter().map(|lot| (&lot.quote, &lot.notes)))?;
        let subject = format!("machine:{}", machine.id);
        if let Some(lot) = lots.iter().find(|lot| lot.above()) {
            let detail = json!({
                "txid": body.txid, "quote": lot.quote.quote_id,
                "max_minor": lot.quote.fiat_minor, "notes_minor": lot.value,
            });
            log::by_service(tx, "withdraw.above_lock", &subject, detail, call.now)?;
            let reason = format!(
                "lock {}: expected notes worth at most {}, got {}",
                lot.quote.quote_id, lot.quote.fiat_minor, lot.value
            );
            return Err(refusal(ErrorCode::OverLimit, reason).into());
        }
        ensure(claim.net > Sats::ZERO, ErrorCode::Invalid, || {
            "these notes are worth no sat".into()
        })?;
        let row = self.row(call, route, (vault, body, sig), &claim);
        let kept: Vec<_> = lots.iter().map(StackedLot::row).collect();
        withdraws::insert(tx, &row, &kept)?;
        withdraws::issue(tx, row.withdraw_id, &self.k1, row.expires_at, call.now)?;
        // its own locks, and those of the transaction under which nothing was stacked
        for quote in quotes::of_txn(tx, machine.id, body.txid)? {
            quotes::release(tx, quote.quote_id, call.now)?;
        }
        let booking = StackBooking {
            machine: machine.id,
            operator: machine.operator_id,
            txid: body.txid,
            withdraw: row.withdraw_id,
            currency: body.fiat_code,
            notes: &claim.notes,
            net: claim.net,
            parts: claim.parts,
        };
        ledger::append(tx, &stacked(&booking)?, call.now)?;
        self.shown(&row, &self.k1)
    }

    fn row(
        &self,
        call: &Asked,
        route: &Route,
        (vault, body, vault_sig): (PubKey, &CreateWithdraw, Sig),
        claim: &Worth,
    ) -> withdraws::Withdraw {
        let terms = WithdrawTerms {
            spire: route.spire,
            vault,
            txid: body.txid,
            withdraw_id: self.withdraw_id,
            net_sats: claim.net,
            expires_at: self.expires_at,
        };
        withdraws::Withdraw {
            withdraw_id: self.withdraw_id,
            machine_id: route.machine.id,
            txid: body.txid,
            purpose: Purpose::CashIn,
            claim_id: None,
            claim_hash: body.claim_hash,
            net_sats: claim.net,
            state: WithdrawState::Offered,
            created_at: call.now,
            expires_at: self.expires_at,
            fiat_minor: Some(claim.value),
            fiat_code: Some(body.fiat_code),
            principal_sats: Some(claim.parts.principal),
            platform_fee_sats: Some(claim.parts.platform_fee),
            operator_fee_sats: Some(claim.parts.operator_fee),
            journal_seq: Some(body.journal_seq),
            journal_head: Some(body.journal_head),
            vault_sig: Some(vault_sig),
            withdraw_sig: Some(terms.sign(&self.service)),
            request_event: Some(call.event.clone()),
        }
    }

    /// The same claim under another request id: the same withdraw.
    fn again(&self, tx: &Tx<'_>, known: &withdraws::Withdraw) -> Result<Withdraw, Failure> {
        let session = withdraws::live_session(tx, known.withdraw_id)?;
        let session = session.ok_or_else(|| {
            refusal(ErrorCode::Conflict, "this withdraw is claimed through its claim code now")
        })?;
        self.shown(known, &session.k1)
    }

    fn shown(&self, row: &withdraws::Withdraw, k1: &K1) -> Result<Withdraw, Failure> {
        let parts = (row.platform_fee_sats, row.operator_fee_sats, row.withdraw_sig);
        let (Some(platform), Some(operator), Some(withdraw_sig)) = parts else {
            return Err(Failure::Broken(format!("withdraw {} is of no cash_in", row.withdraw_id)));
        };
        Ok(Withdraw {
            withdraw_id: row.withdraw_id,
            lnurl: lnurl(&self.base_url, k1)?,
            ndebit: self.codes.debit(row.withdraw_id, k1),
            net_sats: row.net_sats,
            fee_sats: platform.plus(operator)?,
            expires_at: row.expires_at,
            withdraw_sig,
        })
    }
}

/// The notes under one lock.
pub(super) struct StackedLot {
    pub(super) quote: Quote,
    pub(super) notes: Notes,
    value: i64,
}

impl StackedLot {
    /// Whether it is more than the lock allows.
    pub(super) const fn above(&self) -> bool {
        self.value > self.quote.fiat_minor
    }

    fn row(&self) -> Lot {
        Lot { quote_id: self.quote.quote_id, notes: self.notes.clone() }
    }
}

/// Whether a lock was given to the vault that is pinned now: in this pairing, or in an earlier one of
/// the same vault, which has the notes.
fn is_this_vaults(tx: &Tx<'_>, route: &Route, lock: &Quote) -> Result<bool, Failure> {
    let machine = &route.machine;
    if machine.confirmed_at.is_some_and(|since| since <= lock.created_at) {
        return Ok(true);
    }
    let then = sessions::vault_at(tx, machine.id, lock.created_at)?;
    Ok(then.is_some() && then == machine.vault_key)
}

pub(super) fn lots(
    tx: &Tx<'_>,
    route: &Route,
    body: &CreateWithdraw,
) -> Result<Vec<StackedLot>, Failure> {
    let named = body.earlier.iter().map(|lot| (lot.quote_id, &lot.notes));
    let mut lots = Vec::new();
    for (id, notes) in named.chain([(body.quote_id, &body.notes)]) {
        let quote = own_quote(tx, route, id, Direction::CashIn)?;
        let same = (quote.txid, quote.claim_hash, quote.fiat_code)
            == (body.txid, body.claim_hash, body.fiat_code);
        ensure(same, ErrorCode::Invalid, || {
            format!("lock {id} is of another transaction, claim or currency")
        })?;
        ensure(is_this_vaults(tx, route, &quote)?, ErrorCode::Invalid, || {
            format!("lock {id} is of an earlier pairing, with another vault")
        })?;
        lots.push(StackedLot { value: notes_value(notes)?, notes: notes.clone(), quote });
    }
    Ok(lots)
}

/// What the notes of one cash_in are worth.
pub(crate) struct Worth {
    /// Every note, of all locks together.
    pub(crate) notes: Notes,
    /// Their value in minor units.
    pub(crate) value: i64,
    /// What is promised for them.
    pub(crate) net: Sats,
    /// Principal and fees.
    pub(crate) parts: Parts,
}

/// What notes are worth under the locks of their rates.
pub(crate) fn worth<'a>(
    lots: impl IntoIterator<Item = (&'a Quote, &'a Notes)>,
) -> Result<Worth, SplitError> {
    let mut notes = Notes::new();
    let mut value = 0i64;
    let mut by_document: BTreeMap<EventId, (FeePair, Sats)> = BTreeMap::new();
    for (quote, lot) in lots {
        for (note, count) in lot {
            let sum = notes.entry(*note).or_default();
            *sum = sum.saturating_add(*count);
        }
        let lot = notes_value(lot)?;
        value = value.saturating_add(lot);
        let fiat = Fiat::new(lot, quote.fiat_code);
        let principal = quote.rate_nano.principal(fiat, Direction::CashIn)?;
        let fees = FeePair::new(quote.platform_fee_ppm, quote.operator_fee_ppm)?;
        let entry = by_document.entry(quote.fees_event_id).or_insert((fees, Sats::ZERO));
        entry.1 = entry.1.plus(principal)?;
    }
    let zero = Sats::ZERO;
    let mut parts = Parts { principal: zero, platform_fee: zero, operator_fee: zero, owed: zero };
    let mut net = zero;
    for (fees, principal) in by_document.into_values() {
        let charge = fees.charge(Direction::CashIn, principal)?;
        parts.principal = parts.principal.plus(charge.principal())?;
        parts.platform_fee = parts.platform_fee.plus(charge.platform_fee())?;
        parts.operator_fee = parts.operator_fee.plus(charge.operator_fee())?;
        net = net.plus(charge.wire())?;
    }
    Ok(Worth { notes, value, net, parts })
}

fn lnurl(base_url: &str, k1: &K1) -> Result<Lnurl, Failure> {
    crate::lnurl::encode(base_url, k1)
        .ok_or_else(|| Failure::Broken("public.base_url is too long for an LNURL".into()))
}
