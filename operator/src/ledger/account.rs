//! The accounts and their units.
//!
//! Promise: an account has one spelling; it says which units it can hold and which sign its balance
//! may have, so that a balance which cannot be true is found by arithmetic alone.

use std::fmt;
use std::str::FromStr;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use thiserror::Error;

use crate::ids::{LpId, MachineId, OperatorId};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Whole sats.
    Sats,
    /// Minor units of a currency.
    Fiat(Currency),
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sats => f.write_str("sats"),
            Self::Fiat(currency) => fmt::Display::fmt(currency, f),
        }
    }
}

impl FromStr for Unit {
    type Err = AccountError;
    fn from_str(text: &str) -> Result<Self, AccountError> {
        if text == "sats" {
            return Ok(Self::Sats);
        }
        text.parse()
            .map(Self::Fiat)
            .map_err(|_| AccountError { got: text.chars().take(40).collect() })
    }
}

/// A text that names no account or unit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("ledger: expected the name of an account or unit, got {got:?}")]
pub struct AccountError {
    /// The text, at most 40 characters of it.
    pub got: String,
}

/// Where sats or notes are, or whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Sats in the machine's Lightning wallet.
    Wallet(MachineId),
    /// Sats of a sale of this machine that arrived in a wallet which is no machine's.
    StrayWallet(MachineId),
    /// What the whole instance has earned and not been paid.
    Super,
    /// The operator's own: fees earned and not paid out, sats and notes put in or taken out.
    Operator(OperatorId),
    /// A liquidity provider's claim, in fiat and in sats.
    Lp(LpId),
    /// Notes that a liquidity provider has handed to the operator.
    Deposits(LpId),
    /// Promised to customers of cash_in who have not claimed it yet.
    CustomerLiability(MachineId),
    /// Owed to customers whose sale did not go as agreed.
    Owed(MachineId),
    /// Paid to the network for routing.
    RoutingFees(MachineId),
    /// What nobody has decided yet: rejected and misrouted payments in sats, notes whose
    /// whereabouts nobody knows in fiat.
    Suspense(MachineId),
    /// Where a machine's sats and notes meet: principal against face value.
    Exchange(MachineId),
    /// Notes in a bay.
    Bay(MachineId, BayId, Denomination),
    /// Notes in the reject bin.
    RejectBin(MachineId, Denomination),
    /// Notes in the cashbox.
    Cashbox(MachineId, Denomination),
    /// Notes taken out of the machine and not counted yet.
    InTransit(MachineId),
    /// What counting has found missing (debit) or too much (credit).
    CashDifference(MachineId),
}

/// Which sign a balance may have, beside zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Debit,
    Credit,
    Any,
}

impl Account {
    /// Whether the account can hold `unit`.
    #[must_use]
    pub const fn holds(&self, unit: Unit) -> bool {
        match self {
            Self::Wallet(_)
            | Self::StrayWallet(_)
            | Self::Super
            | Self::CustomerLiability(_)
            | Self::Owed(_)
            | Self::RoutingFees(_) => matches!(unit, Unit::Sats),
            Self::Deposits(_)
            | Self::Bay(..)
            | Self::RejectBin(..)
            | Self::Cashbox(..)
            | Self::InTransit(_)
            | Self::CashDifference(_) => matches!(unit, Unit::Fiat(_)),
            Self::Operator(_) | Self::Lp(_) | Self::Suspense(_) | Self::Exchange(_) => true,
        }
    }

    pub(super) const fn sign(&self) -> Sign {
        match self {
            Self::Wallet(_)
            | Self::StrayWallet(_)
            | Self::RoutingFees(_)
            | Self::Deposits(_)
            | Self::Bay(..)
            | Self::RejectBin(..)
            | Self::Cashbox(..)
            | Self::InTransit(_) => Sign::Debit,
            Self::Super | Self::Lp(_) | Self::CustomerLiability(_) | Self::Owed(_) => Sign::Credit,
            Self::Operator(_) | Self::Suspense(_) | Self::Exchange(_) | Self::CashDifference(_) => {
                Sign::Any
            }
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Wallet(_) => "wallet",
            Self::StrayWallet(_) => "stray_wallet",
            Self::Super => "super",
            Self::Operator(_) => "operator",
            Self::Lp(_) => "lp",
            Self::Deposits(_) => "deposits",
            Self::CustomerLiability(_) => "customer_liability",
            Self::Owed(_) => "owed",
            Self::RoutingFees(_) => "routing_fees",
            Self::Suspense(_) => "suspense",
            Self::Exchange(_) => "exchange",
            Self::Bay(..) => "bay",
            Self::RejectBin(..) => "reject_bin",
            Self::Cashbox(..) => "cashbox",
            Self::InTransit(_) => "in_transit",
            Self::CashDifference(_) => "cash_difference",
        }
    }
}

/// The name and its parts, joined by colons: `bay:3:1:2000` is machine 3, bay 1, notes of 2000.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Super => Ok(()),
            Self::Operator(id) => write!(f, ":{id}"),
            Self::Lp(id) | Self::Deposits(id) => write!(f, ":{id}"),
            Self::Wallet(id)
            | Self::StrayWallet(id)
            | Self::CustomerLiability(id)
            | Self::Owed(id)
            | Self::RoutingFees(id)
            | Self::Suspense(id)
            | Self::Exchange(id)
            | Self::InTransit(id)
            | Self::CashDifference(id) => write!(f, ":{id}"),
            Self::Bay(id, bay, note) => write!(f, ":{id}:{bay}:{}", note.minor()),
            Self::RejectBin(id, note) | Self::Cashbox(id, note) => {
                write!(f, ":{id}:{}", note.minor())
            }
        }
    }
}

impl FromStr for Account {
    type Err = AccountError;
    fn from_str(text: &str) -> Result<Self, AccountError> {
        // the round trip refuses a second spelling, such as a leading zero
        read(text)
            .filter(|account| account.to_string() == text)
            .ok_or_else(|| AccountError { got: text.chars().take(40).collect() })
    }
}

fn read(text: &str) -> Option<Account> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, rest) = parts.split_first()?;
    let note = |text: &str| Denomination::from_minor(text.parse().ok()?).ok();
    Some(match (*name, rest) {
        ("super", []) => Account::Super,
        ("operator", [id]) => Account::Operator(id.parse().ok()?),
        ("lp", [id]) => Account::Lp(id.parse().ok()?),
        ("deposits", [id]) => Account::Deposits(id.parse().ok()?),
        ("wallet", [id]) => Account::Wallet(id.parse().ok()?),
        ("stray_wallet", [id]) => Account::StrayWallet(id.parse().ok()?),
        ("customer_liability", [id]) => Account::CustomerLiability(id.parse().ok()?),
        ("owed", [id]) => Account::Owed(id.parse().ok()?),
        ("routing_fees", [id]) => Account::RoutingFees(id.parse().ok()?),
        ("suspense", [id]) => Account::Suspense(id.parse().ok()?),
        ("exchange", [id]) => Account::Exchange(id.parse().ok()?),
        ("in_transit", [id]) => Account::InTransit(id.parse().ok()?),
        ("cash_difference", [id]) => Account::CashDifference(id.parse().ok()?),
        ("bay", [id, bay, minor]) => {
            Account::Bay(id.parse().ok()?, bay.parse().ok()?, note(minor)?)
        }
        ("reject_bin", [id, minor]) => Account::RejectBin(id.parse().ok()?, note(minor)?),
        ("cashbox", [id, minor]) => Account::Cashbox(id.parse().ok()?, note(minor)?),
        _ => return None,
    })
}
