//! Fiat that providers hand over, and are given back.
//!
//! Promise: a deposit counts from the moment in which it is confirmed, once, and is in the books in
//! that transaction; the same reference again is the same deposit, or refused where that was cancelled; nobody is given back more than they
//! have left; another currency than the provider's is refused in words.
//!
//! Failure policy: as of [`super`].

use bitspire_shared::money::Fiat;
use serde_json::json;

use super::{Asker, LpError, find, invalid, log, some_text};
use crate::app::App;
use crate::ids::{DepositId, LpId};
use crate::ledger::{self as books, Entry, LedgerError};
use crate::store::lps::{self, Deposit, DepositKind, DepositState, KeptDeposit, KeptLp};
use crate::store::{Read, ledger};

/// Fiat that goes to the operator, or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cash {
    /// How much, of which currency.
    pub fiat: Fiat,
    /// What the operator calls it, such as a receipt's number: the same one again is the same deposit.
    pub reference: String,
}

/// The most minor units of one deposit: thousands of these can be summed.
const MOST: i64 = 1_000_000_000_000_000;

fn checked(lp: &KeptLp, cash: &Cash) -> Result<String, LpError> {
    if cash.fiat.currency != lp.currency {
        let expected = format!("{}, the currency of the provider and their machines", lp.currency);
        return Err(invalid("currency", expected, cash.fiat.currency));
    }
    if !(1..=MOST).contains(&cash.fiat.minor) {
        let expected = format!("more than 0, and at most {}", Fiat::new(MOST, lp.currency));
        return Err(invalid("amount", expected, cash.fiat));
    }
    some_text("reference", &cash.reference)
}

/// What was recorded under the same reference: itself, where it is the same and was not cancelled.
fn known(
    read: &Read<'_>,
    lp: LpId,
    kind: DepositKind,
    cash: &Cash,
) -> Result<Option<DepositId>, LpError> {
    match lps::by_reference(read, lp, cash.reference.trim())? {
        Some(known) if known.state == DepositState::Cancelled => {
            let words = format!(
                "reference: deposit {} under it was cancelled: record it under another one",
                known.id
            );
            Err(LpError::Already(words))
        }
        Some(known) if known.kind == kind && known.amount_minor == cash.fiat.minor => {
            Ok(Some(known.id))
        }
        Some(known) => {
            let fiat = Fiat::new(known.amount_minor, known.currency);
            let words = format!("reference: {} {fiat} is recorded under it already", known.kind);
            Err(LpError::Already(words))
        }
        None => Ok(None),
    }
}

/// Records fiat that a provider hands over; it counts once it is confirmed.
///
/// # Errors
/// [`LpError`]: another currency than the provider's.
pub async fn deposit(app: &App, who: Asker, id: LpId, cash: Cash) -> Result<DepositId, LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            let lp = find(tx, id, who.operator)?;
            let reference = checked(&lp, &cash)?;
            if let Some(known) = known(tx, id, DepositKind::Deposit, &cash)? {
                return Ok(known);
            }
            let row = Deposit {
                lp_id: id,
                kind: DepositKind::Deposit,
                reference,
                amount_minor: cash.fiat.minor,
                currency: lp.currency,
                state: DepositState::Pending,
                actor: who.actor.clone(),
                created_at: now,
                ended_at: None,
                ended_by: None,
            };
            let made = lps::insert_deposit(tx, &row)?;
            let detail = json!({ "deposit": made, "amount": cash.fiat.to_string() });
            log(tx, &who, "lp.deposit", id, detail, now)?;
            Ok(made)
        })
        .await
}

/// Ends a pending deposit: the operator has it and it counts, or it never came.
///
/// # Errors
/// [`LpError`].
pub async fn end_deposit(
    app: &App,
    who: Asker,
    id: DepositId,
    came: bool,
) -> Result<LpId, LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            let found = lps::find_deposit(tx, id)?.ok_or(LpError::NoDeposit(id))?;
            find(tx, found.lp_id, who.operator).map_err(|error| match error {
                LpError::None(_) => LpError::NoDeposit(id),
                other => other,
            })?;
            if found.state != DepositState::Pending {
                return Err(LpError::Ended { id, state: found.state });
            }
            let (state, action) = match came {
                true => (DepositState::Confirmed, "lp.deposit.confirm"),
                false => (DepositState::Cancelled, "lp.deposit.cancel"),
            };
            lps::end_deposit(tx, id, state, &who.actor, now)?;
            if came {
                ledger::append(tx, &entry_of(&found)?, now)?;
            }
            let fiat = Fiat::new(found.amount_minor, found.currency).to_string();
            let before = json!({ "state": found.state });
            let detail = json!({ "deposit": id, "amount": fiat, "state": state, "before": before });
            log(tx, &who, action, found.lp_id, detail, now)?;
            Ok(found.lp_id)
        })
        .await
}

/// What is booked of a confirmed deposit, or of what was given back.
///
/// # Errors
/// [`LedgerError`].
pub(crate) fn entry_of(kept: &KeptDeposit) -> Result<Entry, LedgerError> {
    let fiat = Fiat::new(kept.amount_minor, kept.currency);
    match kept.kind {
        DepositKind::Deposit => books::deposited(kept.lp_id, kept.id, fiat),
        DepositKind::Return => books::returned(kept.lp_id, kept.id, fiat),
    }
}

/// Records fiat that a provider was given back, of what they have left.
///
/// # Errors
/// [`LpError`]: more than they have left; another currency.
pub async fn give_back(app: &App, who: Asker, id: LpId, cash: Cash) -> Result<DepositId, LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            let lp = find(tx, id, who.operator)?;
            let reference = checked(&lp, &cash)?;
            if let Some(known) = known(tx, id, DepositKind::Return, &cash)? {
                return Ok(known);
            }
            let left = Fiat::new(lps::left(tx, &lp)?, lp.currency);
            if cash.fiat.minor > left.minor {
                return Err(LpError::TooMuch { left, asked: cash.fiat });
            }
            let row = Deposit {
                lp_id: id,
                kind: DepositKind::Return,
                reference,
                amount_minor: cash.fiat.minor,
                currency: lp.currency,
                state: DepositState::Confirmed,
                actor: who.actor.clone(),
                created_at: now,
                ended_at: Some(now),
                ended_by: Some(who.actor.clone()),
            };
            let made = lps::insert_deposit(tx, &row)?;
            let kept = lps::find_deposit(tx, made)?.ok_or(LpError::NoDeposit(made))?;
            ledger::append(tx, &entry_of(&kept)?, now)?;
            let detail = json!({ "deposit": made, "amount": cash.fiat.to_string() });
            log(tx, &who, "lp.return", id, detail, now)?;
            Ok(made)
        })
        .await
}
