//! Notes that the vault of a revoked machine claims: kept as it states them, and offered to their
//! customer on a person's word.
//!
//! Promise: what is kept is written once for each transaction, whatever it is worth, and no sats are
//! promised by it. A person who offers it makes the one withdraw that its transaction can have for
//! ever: a second word finds the first one's, and so does the machine, should it be paired again and
//! claim for itself. The customer gets it through the claim code.
//!
//! Failure policy: [`FleetError`] says what does not hold; nothing is written then. A vault that is in
//! service again claims by itself and is not spoken for; one whose machine has another vault by now
//! cannot, and is.

use bitspire_shared::admit::Refusal;
use bitspire_shared::ids::{PubKey, TxnId, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;
use nostr::{Event, JsonUtil as _};
use serde::Serialize;
use serde_json::{Value, json};

use super::create_withdraw::{Asked, Make, Signed, StackedLot, lots, worth};
use super::desk::{Call, not_by_vault, vault};
use super::failure::Failure;
use super::roster::{Machines, Resolver as _, Route};
use crate::app::App;
use crate::fleet::machines::find;
use crate::fleet::{FleetError, audit};
use crate::ids::{AuditId, MachineId, OperatorId};
use crate::store::{Kept, Read, StoreError, Tx, claims, log, machines, withdraws};

/// What is written of a claim.
const ACTION: &str = "withdraw.after_revoke";

fn subject(txid: TxnId) -> String {
    format!("txn:{txid}")
}

/// Keeps what the vault of a revoked machine states about notes under its locks.
pub(super) fn keep(
    tx: &Tx<'_>,
    call: &Call,
    route: &Route,
    body: &Signed,
) -> Result<Refusal, Failure> {
    let vault = vault(route)?;
    let claim = body.check(&vault).map_err(|e| not_by_vault(&e))?;
    let machine = route.machine.id;
    let lots = lots(tx, route, claim)?;
    let kept = of_txn(tx, machine, claim.txid)?.is_some();
    if kept || withdraws::by_txn(tx, machine, claim.txid)?.is_some() {
        return Ok(Refusal::Revoked);
    }
    let worth = worth(lots.iter().map(|lot| (&lot.quote, &lot.notes)))?;
    let detail = json!({
        "machine": machine, "fiat_minor": worth.value, "fiat_code": claim.fiat_code,
        "net_sats": worth.net, "above_lock": lots.iter().any(StackedLot::above), "claim": body,
        "event": call.event_json(), "vault": vault,
    });
    log::by_service(tx, ACTION, &subject(claim.txid), detail, call.now)?;
    claims::open(tx, claim.claim_hash, machine, claim.txid, call.now)?;
    tracing::error!(event = "withdraw_after_revoke", %machine, txid = %claim.txid);
    Ok(Refusal::Revoked)
}

/// The claim that was kept of a transaction.
fn of_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Option<Kept<AuditId, log::Audit>>, StoreError> {
    let rows = log::of_action(read, ACTION, Some(&subject(txid)))?;
    Ok(rows.into_iter().find(|row| row.detail.0["machine"] == machine.0))
}

/// A claim that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptClaim {
    /// The machine.
    pub machine_id: MachineId,
    /// Its transaction.
    pub txid: String,
    /// When the vault claimed.
    pub at: Unix,
    /// What the notes are worth, in minor units.
    pub fiat_minor: Value,
    /// Their currency.
    pub fiat_code: Value,
    /// What their customer gets.
    pub net_sats: Value,
    /// Whether they are worth more than was locked, which is not offered.
    pub above_lock: Value,
    /// Whether it is offered or paid, by a word or by the machine's own claim.
    pub offered: bool,
}

/// Every claim that was kept of the machines of one operator, or of all, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, operator: Option<OperatorId>) -> Result<Vec<KeptClaim>, StoreError> {
    let own = machines::list(read, operator)?;
    let mut kept = Vec::new();
    for row in log::of_action(read, ACTION, None)? {
        let detail = &row.detail.0;
        let machine = own.iter().find(|machine| detail["machine"] == machine.id.0);
        let txid = row.subject.strip_prefix("txn:").and_then(|txid| txid.parse::<TxnId>().ok());
        let (Some(machine), Some(txid)) = (machine, txid) else { continue };
        kept.push(KeptClaim {
            machine_id: machine.id,
            txid: txid.to_string(),
            at: row.at,
            fiat_minor: detail["fiat_minor"].clone(),
            fiat_code: detail["fiat_code"].clone(),
            net_sats: detail["net_sats"].clone(),
            above_lock: detail["above_lock"].clone(),
            offered: withdraws::by_txn(read, machine.id, txid)?.is_some(),
        });
    }
    Ok(kept)
}

/// What a word came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Offered {
    /// The withdraw.
    pub withdraw_id: WithdrawId,
    /// What its customer gets.
    pub net_sats: Sats,
}

/// Offers what was kept of a transaction to its customer, who has the claim code.
///
/// # Errors
/// [`FleetError`].
pub async fn offer(
    app: &App,
    (actor, operator): (&str, Option<OperatorId>),
    machine: MachineId,
    txid: TxnId,
    reason: &str,
) -> Result<Offered, FleetError> {
    let reason = reason.trim().to_owned();
    if reason.is_empty() {
        let (field, expected) = ("reason", "why, in words".to_owned());
        return Err(FleetError::Invalid { field, expected, got: "nothing".into() });
    }
    let (make, now) = (Make::new(app, app.clock.now()), app.clock.now());
    let (make, actor) = (make.map_err(|failure| words(txid, failure))?, actor.to_owned());
    let write = app.store.write(move |tx| {
        let row = find(tx, machine, operator)?;
        if let Some(known) = withdraws::by_txn(tx, machine, txid)? {
            return Ok(Offered { withdraw_id: known.withdraw_id, net_sats: known.net_sats });
        }
        let kept = of_txn(tx, machine, txid)?;
        let vault = kept.as_ref().and_then(|kept| kept.detail.0["vault"].as_str()?.parse().ok());
        if row.revoked_at.is_none() && vault.is_none_or(|vault| row.vault_key == Some(vault)) {
            let needs = "its vault claims these notes by itself: look whether it reports";
            return Err(FleetError::State { machine, state: "not revoked".into(), needs });
        }
        let (Some(kept), Some(vault)) = (kept, vault) else {
            return Err(refused(txid, "a claim that `payout kept` shows"));
        };
        let made = made(tx, &make, (&row, vault), &kept.detail.0, now);
        let offered = made.map_err(|failure| words(txid, failure))?;
        let detail = json!({ "machine": machine, "reason": reason, "withdraw": offered });
        audit(tx, now, &actor, "withdraw.offered", &subject(txid), detail)?;
        Ok(offered)
    });
    write.await
}

fn refused(txid: TxnId, expected: &str) -> FleetError {
    FleetError::Invalid { field: "txid", expected: expected.into(), got: txid.to_string() }
}

fn words(txid: TxnId, failure: Failure) -> FleetError {
    match failure {
        Failure::Store(error) => error.into(),
        other => refused(txid, &format!("a claim that can be served ({other})")),
    }
}

fn made(
    tx: &Tx<'_>,
    make: &Make,
    (machine, vault): (&machines::KeptMachine, PubKey),
    detail: &Value,
    now: Unix,
) -> Result<Offered, Failure> {
    let broken = |what: &str| Failure::Broken(what.to_owned());
    let spire = machine.machine_npub.ok_or_else(|| broken("its machine has no key"))?;
    let route = Machines.resolve(tx, spire, now)?;
    let mut route = route.ok_or_else(|| broken("its machine was never paired"))?;
    // the locks are held against the vault that spoke then, whatever the machine has now
    (route.machine.row.vault_key, route.machine.row.confirmed_at) = (Some(vault), None);
    let body: Signed = serde_json::from_value(detail["claim"].clone())?;
    let event = detail["event"].as_str().map(Event::from_json);
    let Some(Ok(event)) = event else { return Err(broken("its request was not kept")) };
    event.verify().map_err(|error| broken(&error.to_string()))?;
    let claim = body.check(&vault).map_err(|e| not_by_vault(&e))?;
    let asked = Asked { now, event: event.as_json() };
    let withdraw = make.run(tx, &asked, &route, (vault, claim, body.sig()))?;
    Ok(Offered { withdraw_id: withdraw.withdraw_id, net_sats: withdraw.net_sats })
}
