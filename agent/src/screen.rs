//! What the machine shows: a transaction's screen, or its own.
//!
//! Promise: everything that the kiosk draws stands in here; the vault makes it from its state, and
//! `net` passes it on without knowing what it means.

use bitspire_shared::money::{Currency, Fiat};
use serde::{Deserialize, Serialize};

use crate::ipc::SecretText;
use crate::refused::Refused;
use crate::service::ServiceView;
use crate::txn::Screen;

/// A screen with its place in the row of screens of this run of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Counts from 1; [`Seen`](crate::ipc::CustomerAction::Seen) repeats it.
    pub number: u64,
    /// The screen.
    pub screen: MachineScreen,
}

/// What the machine shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "screen")]
pub enum MachineScreen {
    /// Devices and network are coming up.
    Starting,
    /// Nobody's machine.
    Unpaired {
        /// What it does about a seed.
        seed: SeedView,
    },
    /// Paired; the operator compares these digits with the pairing page.
    AwaitingConfirmation {
        /// Eight decimal digits.
        digits: String,
    },
    /// Nothing can be bought or sold now.
    OutOfService {
        /// For the customer and the operator, in words.
        reasons: Vec<String>,
    },
    /// Waiting for a customer.
    Idle {
        /// The machine's currency.
        currency: Currency,
        /// Whether notes can be sold to the machine.
        cash_in: bool,
        /// The amounts that the bays can make now.
        cash_out: Vec<Fiat>,
        /// Whether somebody's paid sale waits for its claim code.
        waiting: bool,
    },
    /// A transaction.
    Txn(Screen),
    /// A transaction at its end, whose notes nobody has taken.
    NotesLeft(Screen),
    /// Service mode.
    Service(ServiceView),
}

/// What a machine that is not paired does about a seed; the seed itself stands on no screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum SeedView {
    /// A machine that was never paired: one can be scanned or pasted here.
    Wanted {
        /// Why the last one was refused.
        refused: Option<Refused>,
    },
    /// One is on its way through its bunker.
    Connecting {
        /// Where the bunker waits for a person; it may log in.
        auth_url: Option<SecretText>,
    },
    /// The machine was paired before: only the vault's own user brings one, on the command line.
    CommandLine {
        /// Why the last one was refused.
        refused: Option<Refused>,
    },
}
