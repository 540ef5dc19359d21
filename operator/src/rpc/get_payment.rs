//! `get_payment`: how an invoice or a withdraw of the caller's own machine stands.
//!
//! Promise: a settled cash_out carries the leave to dispense, signed in a transaction that found
//! the machine in service. A pending one is looked up at the wallet first, so that a lost
//! notification costs one question.

use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{PaymentHash, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::rpc::{ErrorCode, GetPayment, Payment, PaymentState, Reply};

use super::Rpc;
use super::desk::Call;
use super::failure::{Failure, refusal};
use super::roster::Route;
use crate::settle::{self, Looked};
use crate::store::Read;
use crate::store::invoices::{self, InvoiceState};
use crate::store::payments::{self, PaymentState as AttemptState, Subject};
use crate::store::settlements::{self, SettlementStatus};
use crate::store::withdraws::{self, WithdrawState};

pub(super) async fn answer(rpc: &Arc<Rpc>, call: Call, body: GetPayment) -> Result<Reply, Failure> {
    let id = call.request_id;
    let mut found = look(rpc, &call, body).await?;
    if let (GetPayment::PaymentHash(hash), PaymentState::Pending) = (body, found.payment.state) {
        match settle::look(&rpc.app, &found.wallet_id, hash).await {
            Ok(Looked::Landed) => found = look(rpc, &call, body).await?,
            Ok(Looked::Nothing | Looked::Kept) => {}
            Err(error) => {
                if error.kind() != Kind::Transient {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(event = "payment_look_up_failed", %hash, error);
                }
                found.payment.state = PaymentState::Unknown;
            }
        }
    }
    let mut payment = found.payment;
    if let (GetPayment::PaymentHash(hash), PaymentState::Settled) = (body, payment.state) {
        let leave = settle::authorise(&rpc.app, hash).await?;
        payment.authorisation = leave.map(|leave| leave.authorisation);
    }
    Ok(Reply::ok::<GetPayment>(id, &payment)?)
}

struct Found {
    wallet_id: String,
    payment: Payment,
}

async fn look(rpc: &Rpc, call: &Call, body: GetPayment) -> Result<Found, Failure> {
    let (desk, call) = (rpc.desk.clone(), call.clone());
    rpc.app
        .store
        .read(move |read| {
            let route = desk.route(read, &call)?;
            let payment = match body {
                GetPayment::PaymentHash(hash) => of_invoice(read, &route, hash)?,
                GetPayment::WithdrawId(id) => of_withdraw(read, &route, id)?,
            };
            Ok(Found { wallet_id: route.hit.wallet_id, payment })
        })
        .await
}

fn stands(state: PaymentState, wire_sats: Option<Sats>) -> Payment {
    Payment { state, wire_sats, authorisation: None }
}

fn not_yours(what: &str) -> Failure {
    refusal(ErrorCode::Invalid, format!("no such {what} of this machine")).into()
}

fn of_invoice(read: &Read<'_>, route: &Route, hash: PaymentHash) -> Result<Payment, Failure> {
    let invoice = invoices::by_hash(read, hash)?;
    let invoice = invoice.filter(|invoice| invoice.machine_id == route.machine.id);
    let invoice = invoice.ok_or_else(|| not_yours("invoice"))?;
    if let Some(settlement) = settlements::by_hash(read, hash)? {
        let state = match settlement.status {
            SettlementStatus::Accepted => PaymentState::Settled,
            // each of them was paid, buys nothing and is the customer's
            SettlementStatus::Late
            | SettlementStatus::Under
            | SettlementStatus::Rejected
            | SettlementStatus::Misrouted => PaymentState::Late,
        };
        return Ok(stands(state, Some(settlement.wire_sats)));
    }
    let state = match invoice.state {
        InvoiceState::Expired | InvoiceState::Cancelled => PaymentState::Expired,
        _ => PaymentState::Pending,
    };
    Ok(stands(state, None))
}

fn of_withdraw(read: &Read<'_>, route: &Route, id: WithdrawId) -> Result<Payment, Failure> {
    let withdraw = withdraws::find(read, id)?;
    let withdraw = withdraw.filter(|withdraw| withdraw.machine_id == route.machine.id);
    let withdraw = withdraw.ok_or_else(|| not_yours("withdraw"))?;
    let state = match withdraw.state {
        WithdrawState::Paid => return Ok(stands(PaymentState::Settled, Some(withdraw.net_sats))),
        WithdrawState::Offered => PaymentState::Pending,
        WithdrawState::Expired => PaymentState::Expired,
        WithdrawState::Bound => {
            let attempts = payments::of_subject(read, Subject::Withdraw(id))?;
            match attempts.last().map(|attempt| attempt.state) {
                Some(AttemptState::Unknown) => PaymentState::Unknown,
                Some(AttemptState::Failed) => PaymentState::Failed,
                _ => PaymentState::Pending,
            }
        }
    };
    Ok(stands(state, None))
}
