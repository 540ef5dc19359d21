//! What a customer does.
//!
//! Promise: an action is data, and says nothing about what is shown: whether it fits is the vault's
//! to know, which believes none of it.
//!
//! Failure policy: what is no action does not read.

use serde::{Deserialize, Serialize};

use super::SecretText;
use crate::service::Touch;

/// What a customer does at the kiosk. Whether it fits the screen is the vault's to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum CustomerAction {
    /// Wants to sell notes for sats.
    StartCashIn,
    /// Wants notes for sats, to this amount in minor units.
    StartCashOut {
        /// One of the amounts on the screen.
        fiat_minor: i64,
    },
    /// Agrees to what the screen shows.
    Confirm,
    /// No more notes: asks for the withdraw.
    Finish,
    /// Changes their mind.
    Cancel,
    /// Types or scans a claim code, to resume a paid sale that waits.
    ClaimCode {
        /// As typed.
        code: SecretText,
    },
    /// Wants no notes any more of a paid sale that waits: what was not given is owed in sats. The code
    /// shows that it is the one who paid.
    GiveBack {
        /// As typed.
        code: SecretText,
    },
    /// The kiosk's page is up and shows the given screen: its number as it came with the screen.
    Seen {
        /// The screen's number.
        screen: u64,
    },
    /// Opens or closes the receipt of the transaction on the screen.
    Receipt {
        /// Whether it is opened.
        open: bool,
    },
    /// Wants that receipt on paper.
    PrintReceipt,
    /// Somebody touches the screen for service.
    Service(Touch),
    /// A page of the kiosk has gone: nobody knows what the customer sees.
    Gone,
}

named! {
    CustomerAction {
        StartCashIn => "StartCashIn",
        StartCashOut => "StartCashOut",
        Confirm => "Confirm",
        Finish => "Finish",
        Cancel => "Cancel",
        ClaimCode => "ClaimCode",
        GiveBack => "GiveBack",
        Seen => "Seen",
        Receipt => "Receipt",
        PrintReceipt => "PrintReceipt",
        Service => "Service",
        Gone => "Gone",
    }
}
