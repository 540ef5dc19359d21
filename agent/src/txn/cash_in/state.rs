//! The states of a cash-in, as they are journaled.

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_shared::ids::QuoteId;
use bitspire_shared::money::{Currency, Denomination, Sats};
use bitspire_shared::rpc::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::journal::Stage;
use crate::txn::checked::WithdrawFacts;

/// Where a cash-in stands. The notes themselves are listed beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No note is on its way.
    Open,
    /// A note is in escrow; nothing has been told to the acceptor, or to give it back.
    Escrowed {
        /// The note.
        bill: Bill,
    },
    /// The intent to stack is on the disk; nobody knows what the acceptor has done.
    StackCommitted {
        /// The note.
        bill: Bill,
        /// Its number in the list of notes, and of the intent.
        no: u32,
    },
    /// A note is past the point of no return and counted; it may still be on its way to the
    /// cashbox.
    Credited,
    /// Nobody knows whether a note is ours.
    Uncertain {
        /// What is known.
        evidence: String,
        /// Whether the acceptor may still explain it; not once another note was in its path, of
        /// which it may be speaking.
        device: bool,
    },
    /// Notes are ours and the customer gets a withdraw for them.
    Offered {
        /// The withdraw, once it came.
        withdraw: Option<WithdrawFacts>,
    },
    /// A wallet has asked for the withdraw.
    Claimed {
        /// The withdraw.
        withdraw: WithdrawFacts,
    },
    /// The service cannot say whether the withdraw was paid.
    PayUnknown {
        /// The withdraw.
        withdraw: WithdrawFacts,
    },
    /// Paid.
    Redeemed {
        /// The withdraw.
        withdraw: WithdrawFacts,
    },
    /// Not paid through this withdraw: owed, through the claim code.
    Expired {
        /// What is owed.
        owed: Owed,
    },
    /// Over without a note taken.
    Returned,
}

named! {
    State {
        Open => "open",
        Escrowed => "escrowed",
        StackCommitted => "stack_committed",
        Credited => "credited",
        Uncertain => "uncertain",
        Offered => "offered",
        Claimed => "claimed",
        PayUnknown => "pay_unknown",
        Redeemed => "redeemed",
        Expired => "expired",
        Returned => "returned",
    }
}

impl State {
    /// How far it is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Open
            | Self::Escrowed { .. }
            | Self::StackCommitted { .. }
            | Self::Credited
            | Self::Uncertain { .. } => Stage::Open,
            Self::Offered { .. } | Self::Claimed { .. } | Self::PayUnknown { .. } => Stage::Ended,
            Self::Redeemed { .. } | Self::Expired { .. } | Self::Returned => Stage::Closed,
        }
    }

    /// The withdraw, once there is one.
    #[must_use]
    pub const fn withdraw(&self) -> Option<&WithdrawFacts> {
        match self {
            Self::Offered { withdraw: Some(withdraw) }
            | Self::Claimed { withdraw }
            | Self::PayUnknown { withdraw }
            | Self::Redeemed { withdraw } => Some(withdraw),
            _ => None,
        }
    }
}

/// A note in escrow, as it is journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The acceptor's own count in that run.
    pub serial: u32,
    /// Its value.
    pub denomination: Denomination,
    /// Its currency.
    pub currency: Currency,
}

impl From<EscrowedBill> for Bill {
    fn from(EscrowedBill { serial, denomination, currency }: EscrowedBill) -> Self {
        Self { serial, denomination, currency }
    }
}

impl From<Bill> for EscrowedBill {
    fn from(Bill { serial, denomination, currency }: Bill) -> Self {
        Self { serial, denomination, currency }
    }
}

/// A note that was told to stack, or that the acceptor took unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its number, from 1.
    pub no: u32,
    /// Its value; absent where the acceptor took it unasked and does not say.
    pub denomination: Option<Denomination>,
    /// The rate lock under which it was taken; absent where it was taken unasked.
    pub lock: Option<QuoteId>,
    /// What became of it.
    pub fate: Fate,
}

impl Note {
    /// Whether it counts for the customer.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self.fate, Fate::Credited { .. })
    }
}

/// What became of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was told to stack.
    Stacking,
    /// It is ours and counts for the customer.
    Credited {
        /// Whether the acceptor's credit was heard: a repeat is the same note.
        heard: bool,
    },
    /// It was given back, or is not ours as the operator says.
    NotOurs,
    /// Nobody knows.
    Unknown {
        /// Whether its intent to stack still has no result.
        open: bool,
    },
}

/// Why a session takes no more notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// The customer is done.
    Finished,
    /// Nothing came for a while.
    Idle,
    /// The way to the service is gone.
    NetworkLost,
    /// The customer cannot see what happens.
    ScreenBroken,
    /// The acceptor needs a hand.
    Fault,
    /// The service gives no rate.
    NoRate {
        /// What it said, if anything.
        refusal: Option<ErrorCode>,
    },
    /// The vault was restarted.
    Restarted,
    /// A note was uncertain.
    Uncertain,
}

/// What a customer is owed for notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// The notes' value in minor units.
    pub minor: i64,
    /// What the withdraw was worth, where there was one.
    pub net_sats: Option<Sats>,
}
