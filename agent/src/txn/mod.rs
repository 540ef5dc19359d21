//! The two transaction machines: pure functions from state and input to state and effects.
//!
//! Promise: everything that money hangs on is decided here, without a clock, a socket or a file;
//! the same state and input give the same answer in the machine, in a simulation and after a
//! restart. At most one dispense for each committed intent; what was given and what is owed make up
//! what was promised; each stacked note counts once; nothing moves on a restart or after the end.
//!
//! States: [`cash_out::State`], [`cash_in::State`].
//!
//! Failure policy: an input that does not fit the state changes nothing and is answered with
//! [`Effect::Ignored`]. What nobody knows is a state, never a guess.
//!
//! # How the vault drives it
//!
//! One thread owns journal, devices and transactions. For each input:
//!
//! 1. keep the old transaction, call [`Txn::step`], and do the effects in their order, one after
//!    the other. The record, if there is one, comes first: [`Effect::Journal`], or within
//!    [`Effect::Dispense`] and [`Effect::Stack`], whose intent and record `Journal::commit` writes
//!    together. No other effect may begin before the journal has answered.
//! 2. If the journal *refuses* the record (`JournalError::Refused`: a used nonce, a stale verdict,
//!    too few notes), drop the new transaction and all effects and go on with the old one; for a
//!    plan that was refused, say [`Input::Planned`]`(None)`. With any other error of the journal
//!    the process ends; the next one reads what is there.
//! 3. Feed each result back as an input: [`Input::DispenseSent`] when the proof was handed over
//!    (`NotStarted` where the port took nothing), [`Input::Dispensed`], [`Input::Planned`], what
//!    the acceptor says, what the service answers.
//!
//! **Start.** [`CashOut::start`] or [`CashIn::start`] with fresh random bytes; the effects are done
//! in the same way. Say [`Input::Tick`] once a second to every transaction that is not closed.
//!
//! **Restart.** For each of `Journal::open_txns`: [`Txn::from_stored`], then, before anything else,
//! [`Input::Restarted`] with what the devices say. Only the transaction with the open intent gets a
//! device's word about it; the others get `DeviceReport::default()`. The acceptor is told to take
//! nothing until all have been told.
//!
//! **Requests.** A binding request ([`Ask::binding`]) is finished (position, signature) and
//! journaled as `Entry::Request` before its first sending; if `Journal::request` knows the id, that
//! body is sent. The service's answers are checked before they become inputs: quotes by
//! `rpc::check_quote`, the rest by [`CashOut::check_authorisation`], [`CashIn::check_withdraw`],
//! `SignedStatement::check` and [`Verdict::of`]. A quote that does not hold is [`Input::Refused`]
//! with its code. A verdict whose nonce the journal has used is dropped.
//!
//! **Screen.** One transaction is on the screen at a time. [`Input::ScreenBroken`] is said when the
//! kiosk was gone, showed something else, or did not confirm the screen in time; never taken back.
//!
//! **Acceptor.** Its events go to the cash-in on the screen, or the last one that was. A credit
//! while no transaction takes it (ignored, or none is open) is written as
//! `Entry::Cash([StackDoubt])` with an alert, then acknowledged. A note that comes into escrow
//! while there is no cash-in is returned.
//!
//! **Dispenser.** One transaction at a time dispenses; a device that cannot see its exit is
//! answered for with [`Input::Taken`] right after its final answer.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

mod asking;
pub mod cash_in;
pub mod cash_out;
mod checked;
mod deal;
mod effect;
mod input;
mod receipt;
mod record;
mod screen;
#[cfg(test)]
mod tests;
mod turn;

pub use cash_in::CashIn;
pub use cash_out::CashOut;
pub use checked::{Authorised, CheckError, CheckedWithdraw, WithdrawFacts};
pub use deal::{Deal, Now, Order, Rules};
pub use effect::{Alert, Ask, Effect, ReportDraft, Request, WithdrawDraft};
pub use input::{BillFate, DeviceReport, DispenseFate, Input, Lot, Lots, Verdict};
pub use receipt::{Position, receipt_of};
pub use record::{BadState, Record, Txn};
pub use screen::{OnPaper, Screen, SlipState, View, Why};
