//! What the customer sees, as data.
//!
//! Promise: a screen follows from the transaction's state alone ([`CashOut::screen`],
//! [`CashIn::screen`](super::CashIn::screen)); the kiosk only renders it. Amounts are integers: fiat
//! in minor units, sats.

use bitspire_shared::clink::Ndebit;
use bitspire_shared::ids::ClaimCode;
use bitspire_shared::money::{Direction, Fiat, Rate, Sats};
use bitspire_shared::rpc::{ErrorCode, Lnurl, QuoteTerms};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::cash_out::{CashOut, GaveUp, State};
use crate::ipc::SecretText;

/// One screen of a transaction. The claim code stands on it only while the screen has been up
/// without a break: after that the next passer-by might read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// The customer's right to whatever is owed.
    pub claim: Option<SecretText>,
    /// What it shows.
    pub view: View,
    /// The transaction's receipt, once it has one.
    #[serde(default)]
    pub receipt: Option<Box<OnPaper>>,
}

/// A receipt for the customer to take along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPaper {
    /// The text of its QR code; it holds no secret.
    pub text: String,
    /// Whether the customer looks at it.
    pub open: bool,
    /// What becomes of it on paper.
    pub slip: SlipState,
    /// Where claim codes are entered: the code is put behind it.
    pub claim_url: Option<String>,
}

/// What becomes of a receipt on paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlipState {
    /// The machine has no printer.
    #[default]
    None,
    /// The customer may ask for it.
    Offered,
    /// It is being printed.
    Printing,
    /// It is there.
    Printed,
    /// It could not be printed: the customer photographs the screen.
    Failed,
}

/// What a screen shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "view")]
pub enum View {
    /// Waiting for a price.
    Asking {
        /// Which way the cash goes.
        direction: Direction,
    },
    /// cash_out: the price, to be agreed to.
    Offer {
        /// The notes.
        fiat: Fiat,
        /// Sats per major unit times 10^9.
        rate: Rate,
        /// Market value.
        principal_sats: Sats,
        /// The commission.
        fee_sats: Sats,
        /// What the customer pays.
        wire_sats: Sats,
    },
    /// Waiting for the invoice.
    Preparing {
        /// The notes.
        fiat: Fiat,
    },
    /// The invoice, to be paid.
    Invoice {
        /// BOLT 11.
        bolt11: String,
        /// The CLINK offer of the same invoice, for wallets that speak it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noffer: Option<String>,
        /// What the customer pays.
        wire_sats: Sats,
        /// The notes.
        fiat: Fiat,
        /// The invoice's end.
        expires_at: Unix,
    },
    /// Notes are being given out.
    Dispensing {
        /// The notes.
        fiat: Fiat,
        /// What was given so far, in minor units.
        given_minor: i64,
    },
    /// The customer must take the notes before the next ones come.
    TakeNotes {
        /// The notes.
        fiat: Fiat,
        /// What was given so far, in minor units.
        given_minor: i64,
    },
    /// Paid; the claim code brings the notes.
    PaidWaiting {
        /// What is still to be given.
        rest: Fiat,
    },
    /// Everything was given.
    Settled {
        /// The notes.
        fiat: Fiat,
    },
    /// Not everything was given: the claim code brings the rest in sats.
    Short {
        /// What is owed.
        owed: Fiat,
    },
    /// A person must look: the claim code stays good.
    Uncertain,
    /// The payment came too late: the claim code brings it back.
    Late {
        /// What came.
        sats: Option<Sats>,
    },
    /// Given up; nothing was paid.
    Cancelled {
        /// Why.
        why: Why,
    },
    /// Not paid in time.
    Expired,
    /// cash_in: notes may be fed.
    Feed {
        /// Taken so far.
        total: Fiat,
        /// The most that is taken now, in minor units; 0 while the rate is being locked again.
        room_minor: i64,
        /// Sats per major unit times 10^9.
        rate: Option<Rate>,
    },
    /// A note is on its way.
    Counting {
        /// Taken so far, without it.
        total: Fiat,
        /// Its value in minor units.
        note_minor: u32,
    },
    /// Waiting for the withdraw.
    PreparingWithdraw {
        /// Taken in all.
        total: Fiat,
    },
    /// The withdraw, to be claimed.
    Claim {
        /// For the QR code; none after a restart, until the claim code was entered.
        lnurl: Option<Lnurl>,
        /// The CLINK debit of the same withdraw, for wallets that speak it; likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ndebit: Option<Ndebit>,
        /// What the customer gets.
        net_sats: Sats,
        /// The commission.
        fee_sats: Sats,
        /// Taken in all.
        total: Fiat,
    },
    /// A wallet has asked for it.
    Paying {
        /// What the customer gets.
        net_sats: Sats,
    },
    /// The payment went out; whether it arrived is being found out.
    PayUnknown {
        /// What the customer gets.
        net_sats: Sats,
    },
    /// Paid.
    Redeemed {
        /// What the customer got.
        net_sats: Sats,
    },
    /// Not claimed in time: the claim code brings it.
    Unclaimed {
        /// Taken in all.
        total: Fiat,
    },
    /// Nothing was taken.
    Returned {
        /// Why.
        why: Why,
    },
}

/// Why a sale ended before anything was paid for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The customer wanted it so.
    Customer,
    /// Nobody did anything for a while.
    Idle,
    /// The service did not answer in time.
    NoAnswer,
    /// The service said no.
    Refused(ErrorCode),
    /// The way to the service is gone.
    NetworkLost,
    /// The screen was gone.
    ScreenBroken,
    /// A device needs a hand.
    Fault,
    /// The vault was restarted.
    Restarted,
}

impl Why {
    /// An answer that did not come, where `refusal` is the last one that did.
    pub(super) fn unanswered(refusal: Option<ErrorCode>) -> Self {
        refusal.map_or(Self::NoAnswer, Self::Refused)
    }
}

pub(super) fn claim(code: Option<&ClaimCode>, watched: bool) -> Option<SecretText> {
    code.filter(|_| watched).map(|code| SecretText::new(code.expose()))
}

impl CashOut {
    /// What the customer sees in this state.
    #[must_use]
    pub fn screen(&self) -> Screen {
        let fiat = self.deal.fiat;
        let view = match &self.state {
            State::Quoted { quote: None, .. } => View::Asking { direction: Direction::CashOut },
            State::Quoted { quote: Some(terms), accepted: false, .. } => offer(terms),
            State::Quoted { quote: Some(_), accepted: true, .. } => View::Preparing { fiat },
            State::Invoiced { sale, gave_up: None } => match &self.live.bolt11 {
                Some(bolt11) => View::Invoice {
                    bolt11: bolt11.clone(),
                    noffer: self.live.noffer.clone(),
                    wire_sats: sale.terms.wire_sats,
                    fiat,
                    expires_at: sale.expires_at,
                },
                None => View::Cancelled { why: Why::Restarted },
            },
            State::Invoiced { gave_up: Some(gave_up), .. } => match gave_up {
                GaveUp::Cancelled => View::Cancelled { why: Why::Customer },
                GaveUp::Expired => View::Expired,
                GaveUp::ScreenBroken => View::Cancelled { why: Why::ScreenBroken },
                GaveUp::Restarted => View::Cancelled { why: Why::Restarted },
            },
            State::Cancelled { why } => View::Cancelled { why: *why },
            State::Paid { given, exit: true, .. } => {
                View::TakeNotes { fiat, given_minor: given.minor }
            }
            State::Paid { given, .. }
            | State::DispenseCommitted { given, .. }
            | State::Dispensing { given, .. } => {
                View::Dispensing { fiat, given_minor: given.minor }
            }
            State::PaidWaiting { given, .. } => {
                let rest = Fiat { minor: given.rest(fiat), ..fiat };
                View::PaidWaiting { rest }
            }
            State::Settled { .. } => View::Settled { fiat },
            State::ShortDispensed { owed_minor, .. } => {
                View::Short { owed: Fiat { minor: *owed_minor, ..fiat } }
            }
            State::Uncertain { .. } => View::Uncertain,
            State::Expired => View::Expired,
            State::Late { owed } => View::Late { sats: *owed },
        };
        Screen { claim: self.shown_code(), view, receipt: None }
    }
}

const fn offer(terms: &QuoteTerms) -> View {
    View::Offer {
        fiat: terms.fiat,
        rate: terms.exchange_rate,
        principal_sats: terms.principal_sats,
        fee_sats: terms.fee_sats,
        wire_sats: terms.wire_sats,
    }
}
