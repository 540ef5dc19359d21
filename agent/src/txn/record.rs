//! What a transaction writes down.

use bitspire_shared::ids::TxnId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::deal::Now;
use super::effect::Effect;
use super::input::Input;
use super::screen::Screen;
use super::{CashIn, CashOut};
use crate::journal::{CashMove, Stage, StoredTxn, TxnEntry, VerdictUse};

/// A transaction of either direction, as it is journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Txn {
    /// Notes out.
    CashOut(CashOut),
    /// Notes in.
    CashIn(CashIn),
}

/// A journaled state that this version cannot go on from.
#[derive(Debug, Error)]
#[error("transaction {txid}: the journaled state is none of this version: {detail}")]
pub struct BadState {
    /// The transaction.
    pub txid: TxnId,
    /// What the reader met.
    pub detail: String,
}

impl Txn {
    /// The transaction as the journal last saw it, to be told
    /// [`Restarted`](super::Input::Restarted) before anything else.
    ///
    /// # Errors
    /// [`BadState`]: the machine must not trade.
    pub fn from_stored(stored: &StoredTxn) -> Result<Self, BadState> {
        let bad = |detail: String| BadState { txid: stored.txid, detail };
        let txn = Self::deserialize(&stored.state).map_err(|e| bad(e.to_string()))?;
        let (txid, name, stage) = (txn.txid(), txn.name(), txn.stage());
        if (txid, name, stage) != (stored.txid, stored.name.as_str(), stored.stage) {
            return Err(bad(format!("expected {}, got {txid} in {name}", stored.name)));
        }
        Ok(txn)
    }

    /// The next state and what is to be done, in order.
    #[must_use]
    pub fn step(self, input: Input, now: Now) -> (Self, Vec<Effect>) {
        match self {
            Self::CashOut(txn) => {
                let (txn, effects) = txn.step(input, now);
                (Self::CashOut(txn), effects)
            }
            Self::CashIn(txn) => {
                let (txn, effects) = txn.step(input, now);
                (Self::CashIn(txn), effects)
            }
        }
    }

    /// What the customer sees.
    #[must_use]
    pub fn screen(&self) -> Screen {
        match self {
            Self::CashOut(txn) => txn.screen(),
            Self::CashIn(txn) => txn.screen(),
        }
    }

    /// Which transaction.
    #[must_use]
    pub const fn txid(&self) -> TxnId {
        match self {
            Self::CashOut(txn) => txn.deal.txid,
            Self::CashIn(txn) => txn.deal.txid,
        }
    }

    /// The name of its state.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CashOut(txn) => txn.state.name(),
            Self::CashIn(txn) => txn.state.name(),
        }
    }

    /// How far it is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::CashOut(txn) => txn.state.stage(),
            Self::CashIn(txn) => txn.state.stage(),
        }
    }
}

/// A new state, with everything that changed together with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The transaction in its new state.
    pub txn: Txn,
    /// What brought it there.
    pub cause: &'static str,
    /// Where notes went.
    pub cash: Vec<CashMove>,
    /// The intent whose result this is.
    pub resolves: Option<u32>,
    /// The verdict that it uses up.
    pub verdict: Option<VerdictUse>,
}

impl Record {
    /// The entry for the journal.
    ///
    /// # Errors
    /// Where the state has no JSON form; none of ours is without.
    pub fn to_entry(&self) -> Result<TxnEntry, serde_json::Error> {
        Ok(TxnEntry {
            txid: self.txn.txid(),
            name: self.txn.name().to_owned(),
            stage: self.txn.stage(),
            cause: self.cause.to_owned(),
            state: serde_json::to_value(&self.txn)?,
            cash: self.cash.clone(),
            resolves: self.resolves,
            verdict: self.verdict,
        })
    }
}
