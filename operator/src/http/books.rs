//! The books in the API: entries, closing balances, what customers have a right to.
//!
//! Promise: all of it is of the whole instance, so it is for whoever may see all of it.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{Caller, Role};
use super::error::ApiError;
use super::reports;
use crate::ids::{EntryId, MachineId, SettlementId};
use crate::ledger::{Account, Unit};
use crate::store::{Read, StoreError, claims, ledger, machines, operators, settlements, withdraws};

/// Seconds of a day.
pub(crate) const DAY_S: u64 = 86_400;
/// The most rows of one answer.
const MAX_ROWS: u32 = 1_000;
/// The most days of one answer.
pub(crate) const MAX_DAYS: u64 = 31;

/// Refuses whoever may see a part of the instance only.
async fn whole(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    caller.needs(Role::Operator)?;
    if caller.operator.is_some() {
        let all: Result<_, StoreError> = api.app.store.read(operators::list).await;
        if all?.len() > 1 {
            caller.needs(Role::Super)?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

pub(super) async fn entries(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    whole(&api, &caller).await?;
    let (after, limit) = (EntryId(page.after), page.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
    let rows: Result<_, StoreError> =
        api.app.store.read(move |read| ledger::page(read, after, limit)).await;
    let shown = |booked: &ledger::Booked| {
        let lines = booked.entry.postings().iter().map(|line| {
            let (account, unit) = (line.account.to_string(), line.unit.to_string());
            json!({ "account": account, "unit": unit, "amount": line.amount })
        });
        json!({
            "id": booked.id, "at": booked.at, "kind": booked.entry.kind().as_str(),
            "reference": booked.entry.reference(), "txid": booked.entry.txid(),
            "corrects": booked.entry.corrects(), "reason": booked.entry.reason(),
            "postings": lines.collect::<Vec<_>>(),
        })
    };
    Ok(Json(rows?.iter().map(shown).collect()))
}

/// Every settlement, oldest first: for exports.
pub(super) async fn settlements(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    whole(&api, &caller).await?;
    let (after, limit) = (SettlementId(page.after), page.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
    let rows: Result<_, StoreError> =
        api.app.store.read(move |read| settlements::page(read, after, limit)).await;
    Ok(Json(rows?.iter().map(reports::shown).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Days {
    from: Option<String>,
    until: Option<String>,
}

/// The date of a day that is counted from 1970-01-01, such as 2026-01-31.
pub(crate) fn date(day: u64) -> String {
    Unix(day.saturating_mul(DAY_S)).to_iso().chars().take(10).collect()
}

/// The day of a date, counted from 1970-01-01; in words where it is none.
pub(crate) fn day_of(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a day such as 2026-01-31 from 1970 on, got {text}");
    // by the calendar that writes dates here: the day whose date it is
    let year: u64 = text.get(..4).and_then(|year| year.parse().ok()).ok_or_else(wrong)?;
    let first = year.checked_sub(1_970).ok_or_else(wrong)?.saturating_mul(365);
    let leap = year.saturating_sub(1_969) / 4;
    let near = first.saturating_add(leap).saturating_sub(30);
    (near..near.saturating_add(430)).find(|day| date(*day) == text).ok_or_else(wrong)
}

fn day(field: &'static str, text: &str) -> Result<u64, ApiError> {
    day_of(text).map_err(|words| {
        let words = format!("{field}: {words}");
        ApiError::new(StatusCode::BAD_REQUEST, words).with("field", field.into())
    })
}

/// Whose machine's an account is, where it is one's.
const fn machine_of(account: Account) -> Option<MachineId> {
    match account {
        Account::Wallet(id)
        | Account::StrayWallet(id)
        | Account::CustomerLiability(id)
        | Account::Owed(id)
        | Account::RoutingFees(id)
        | Account::Suspense(id)
        | Account::Exchange(id)
        | Account::Bay(id, ..)
        | Account::RejectBin(id, _)
        | Account::Cashbox(id, _)
        | Account::InTransit(id)
        | Account::CashDifference(id) => Some(id),
        Account::Super | Account::Operator(_) | Account::Lp(_) | Account::Deposits(_) => None,
    }
}

/// What each account held at the end of each day, also of those in which it did not move.
fn each_day(closings: &[ledger::Closing], from: u64, until: u64) -> Vec<Value> {
    let mut balances: BTreeMap<(Account, Unit), i64> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut closings = closings.iter().peekable();
    for day in from..=until {
        while let Some(one) = closings.next_if(|one| one.day <= day) {
            balances.insert((one.account, one.unit), one.balance);
        }
        let date = date(day);
        for ((account, unit), balance) in balances.iter().filter(|(_, balance)| **balance != 0) {
            rows.push(json!({
                "day": date, "account": account.to_string(), "machine_id": machine_of(*account),
                "unit": unit.to_string(), "balance": balance,
            }));
        }
    }
    rows
}

pub(super) async fn balances(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(days): Query<Days>,
) -> Result<Json<Value>, ApiError> {
    whole(&api, &caller).await?;
    let from = days.from.as_deref().map(|text| day("from", text)).transpose()?;
    let until = days.until.as_deref().map(|text| day("until", text)).transpose()?;
    let until = until.unwrap_or(api.app.clock.now().0 / DAY_S);
    // without a first day: as many as one answer has
    let last = MAX_DAYS.saturating_sub(1);
    let from = from.unwrap_or(until.saturating_sub(last));
    if until.saturating_sub(from) > last {
        let words = format!("from: expected at most {MAX_DAYS} days at once");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, words).with("field", "from".into()));
    }
    let rows: Result<Vec<Value>, StoreError> = api
        .app
        .store
        .read(move |read| Ok(each_day(&ledger::closings(read, from, until)?, from, until)))
        .await;
    Ok(Json(rows?.into()))
}

/// What customers were promised or are owed, oldest first.
fn owed(read: &Read<'_>, now: Unix) -> Result<Vec<Value>, StoreError> {
    let mut rows = Vec::new();
    for (claim, owed) in claims::open_debts(read)? {
        rows.push((
            owed.at,
            json!({
                "machine_id": claim.machine_id, "txid": claim.txid, "sats": owed.sats,
                "what": format!("owed: {}", owed.reason), "since": owed.at,
                "age_s": now.since(owed.at), "state": "unclaimed",
            }),
        ));
    }
    for open in withdraws::open(read)? {
        rows.push((
            open.created_at,
            json!({
                "machine_id": open.machine_id, "txid": open.txid, "sats": open.net_sats,
                "what": format!("promised: {}", open.purpose), "since": open.created_at,
                "age_s": now.since(open.created_at), "state": open.state,
            }),
        ));
    }
    rows.sort_by_key(|(since, _)| *since);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

pub(super) async fn liabilities(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let (now, operator) = (api.app.clock.now(), caller.operator);
    let rows: Result<Vec<Value>, StoreError> = api
        .app
        .store
        .read(move |read| {
            let own = machines::list(read, operator)?;
            let mut rows = owed(read, now)?;
            rows.retain(|row| own.iter().any(|machine| row["machine_id"] == machine.id.0));
            Ok(rows)
        })
        .await;
    Ok(Json(rows?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a day that is another one, so that books are closed a day off.
    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1970-12-31", 364),
            ("2000-02-29", 11_016),
            ("2026-11-21", 20_778),
            ("2100-03-01", 47_541),
        ] {
            assert_eq!(day("from", text).unwrap(), days, "{text}");
        }
        for wrong in
            ["", "2026", "2026-13-01", "2026-02-30", "1969-12-31", "26-01-01", "x026-01-01"]
        {
            assert!(day("from", wrong).is_err(), "{wrong}");
        }
    }

    /// Loss prevented: closing balances that leave out what was there before, or a day without trade.
    #[test]
    fn a_balance_stays_until_it_moves() {
        let wallet = Account::Wallet(MachineId(3));
        let held =
            |day, balance| ledger::Closing { day, account: wallet, unit: Unit::Sats, balance };
        let rows = each_day(&[held(2, 5), held(3, 7), held(5, 0)], 2, 5);
        let told: Vec<_> =
            rows.iter().map(|row| (row["day"].clone(), row["balance"].clone())).collect();
        let expected = [("1970-01-03", 5), ("1970-01-04", 7), ("1970-01-05", 7)];
        assert_eq!(told, expected.map(|(day, sats)| (json!(day), json!(sats))));
        assert_eq!(rows[0]["machine_id"], 3);
    }
}
