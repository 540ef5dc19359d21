//! `lp ...`: liquidity providers, their fiat, and what it became.

use std::str::FromStr as _;

use bitspire_shared::money::{Currency, Fiat};
use clap::{Args, Subcommand};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde_json::{Value, json};

use super::CliError;
use super::client::{Answer, Client};
use crate::ids::{DepositId, LpId, MachineId, OperatorId};

#[derive(Debug, Subcommand)]
pub(super) enum LpVerb {
    /// Register a provider: someone whose fiat becomes sats with each cash-out of your machines
    ///
    /// They take no part before they are enrolled, and with no more than is deposited and confirmed.
    Add {
        /// What you call them
        #[arg(long)]
        name: String,
        /// Currency of all their fiat; it never changes
        #[arg(long, value_name = "CODE")]
        currency: String,
        #[command(flatten)]
        terms: Limit,
        /// Whose provider, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
    /// List the providers: what they have left, what is kept for them, where it goes
    List,
    /// Show a provider with deposits, enrolments, newest shares of sales and rule sets
    Show {
        /// Their number
        lp: LpId,
    },
    /// Set how much of their fiat may become sats, from the next sale on
    Terms {
        /// Their number
        lp: LpId,
        #[command(flatten)]
        terms: Limit,
    },
    /// Enrol a provider: they take part in the sales from now on
    Enrol(Where),
    /// End an enrolment; what they have left stays theirs
    Leave(Where),
    /// Record fiat that a provider hands over; it counts once it is confirmed
    ///
    /// The same reference again is the same deposit.
    Deposit(Cash),
    /// Confirm a deposit: you have it, and sats are paid for it from now on
    Confirm {
        /// The deposit, as `lp show` shows it
        deposit: DepositId,
    },
    /// Cancel a deposit that never came
    Cancel {
        /// The deposit, as `lp show` shows it
        deposit: DepositId,
    },
    /// Record fiat that a provider was given back, of what they have left
    ///
    /// The same reference again is the same payment.
    Return(Cash),
    /// Settle by hand what is kept for a provider without a destination: you have paid it
    ///
    /// The sats in the machines' wallets are then yours in the books. What a sale has added since you
    /// looked stays kept for them.
    Settle {
        /// Their number
        lp: LpId,
        /// What you have paid: all that `lp show` showed as kept, or the sum of its oldest parts
        #[arg(long)]
        sats: u64,
        /// How it was paid, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// Let a provider take no part in sales; what they have left stays theirs
    Disable {
        /// Their number
        lp: LpId,
    },
    /// Let a provider take part again
    Enable {
        /// Their number
        lp: LpId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Limit {
    /// At most so much a day, UTC, such as 50.00; without it as much as there is
    #[arg(long, value_name = "AMOUNT")]
    daily_limit: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true))]
pub(super) struct Where {
    /// Their number
    lp: LpId,
    /// At one machine
    #[arg(long, group = "where")]
    machine: Option<MachineId>,
    /// At every machine of their currency, now and later
    #[arg(long, group = "where")]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Cash {
    /// Their number
    lp: LpId,
    /// How much, such as 1000.00
    #[arg(long)]
    amount: String,
    /// Its currency, which is the provider's
    #[arg(long, value_name = "CODE")]
    currency: String,
    /// What you call it, such as a receipt's number
    #[arg(long)]
    reference: String,
}

/// A currency as it is typed.
fn currency(typed: &str) -> Result<Currency, CliError> {
    let read = typed.trim().to_uppercase().parse::<Currency>();
    read.map_err(|error| CliError::Typed(format!("--currency: {error}")))
}

/// An amount as it is typed, in minor units: exact, or refused.
fn amount(option: &str, typed: &str, currency: Currency) -> Result<Fiat, CliError> {
    let refused = || {
        let places = currency.exponent();
        let words = format!("expected an amount of {currency} with at most {places} decimals");
        CliError::Typed(format!("{option}: {words}, got {typed}"))
    };
    let read = Decimal::from_str(typed.trim()).map_err(|_| refused())?;
    let minor = read.checked_mul(Decimal::from(currency.minor_per_major()));
    let minor = minor.filter(|minor| minor.fract().is_zero()).ok_or_else(refused)?;
    Ok(Fiat::new(minor.to_i64().ok_or_else(refused)?, currency))
}

fn wanted(terms: &Limit, currency: Currency) -> Result<Value, CliError> {
    let limit = terms.daily_limit.as_deref();
    let limit = limit.map(|typed| amount("--daily-limit", typed, currency)).transpose()?;
    let mode = if limit.is_some() { "fixed" } else { "flow" };
    Ok(json!({ "mode": mode, "daily_limit_minor": limit.map(|fiat| fiat.minor) }))
}

fn cash(cash: &Cash) -> Result<Value, CliError> {
    let fiat = amount("--amount", &cash.amount, currency(&cash.currency)?)?;
    Ok(json!({
        "amount_minor": fiat.minor, "currency": fiat.currency, "reference": cash.reference,
    }))
}

/// Asks for it.
pub(super) fn lp(client: &Client, verb: LpVerb) -> Result<Answer, CliError> {
    let at = |lp: LpId, what: &str| format!("/dca/lps/{lp}{what}");
    let (path, body) = match verb {
        LpVerb::List => return Ok(client.get("/dca/lps")?),
        LpVerb::Show { lp } => return Ok(client.get(&at(lp, ""))?),
        LpVerb::Add { name, currency: typed, terms, operator } => {
            let currency = currency(&typed)?;
            let mut body = wanted(&terms, currency)?;
            body["name"] = name.into();
            body["currency"] = json!(currency);
            body["operator_id"] = json!(operator);
            ("/dca/lps".to_owned(), body)
        }
        LpVerb::Terms { lp, terms } => {
            let path = at(lp, "");
            let told = client.get(&path)?;
            let own = told.body["currency"].as_str().ok_or(CliError::Answer { path })?;
            let body = wanted(&terms, currency(own)?)?;
            return Ok(client.put(&at(lp, "/terms"), &body)?);
        }
        LpVerb::Enrol(of) => (at(of.lp, "/enrol"), json!({ "machine_id": of.machine })),
        LpVerb::Leave(of) => (at(of.lp, "/leave"), json!({ "machine_id": of.machine })),
        LpVerb::Deposit(of) => (at(of.lp, "/deposits"), cash(&of)?),
        LpVerb::Return(of) => (at(of.lp, "/return"), cash(&of)?),
        LpVerb::Confirm { deposit } => (format!("/dca/lp-deposits/{deposit}/confirm"), json!({})),
        LpVerb::Cancel { deposit } => (format!("/dca/lp-deposits/{deposit}/cancel"), json!({})),
        LpVerb::Settle { lp, sats, reason } => {
            (at(lp, "/settle"), json!({ "sats": sats, "reason": reason }))
        }
        LpVerb::Disable { lp } => (at(lp, "/disable"), json!({})),
        LpVerb::Enable { lp } => (at(lp, "/enable"), json!({})),
    };
    Ok(client.post(&path, &body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a thousand that is recorded as ten, or as a hundred thousand.
    #[test]
    fn an_amount_is_exact_or_refused() {
        let read = |typed: &str, code: &str| {
            amount("--amount", typed, code.parse().unwrap()).map(|fiat| fiat.minor).ok()
        };
        for (typed, code, minor) in [
            ("1000", "EUR", 100_000),
            ("0.05", "EUR", 5),
            ("1000", "JPY", 1_000),
            ("1.5", "KWD", 1_500),
        ] {
            assert_eq!(read(typed, code), Some(minor), "{typed} {code}");
        }
        for (typed, code) in
            [("0.001", "EUR"), ("1.5", "JPY"), ("1,5", "EUR"), ("1e3x", "EUR"), ("", "EUR")]
        {
            assert_eq!(read(typed, code), None, "{typed} {code}");
        }
    }
}
