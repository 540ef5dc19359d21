//! What can happen to a transaction. Whoever makes an input has checked it: a quote against rate
//! and fees, an authorisation, withdraw or verdict against its pinned key.

use std::collections::BTreeMap;

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::DispenseOutcome;
use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::{
    BayId, ClaimCode, JournalSeq, Nonce, PubKey, RequestId, TxnId, WithdrawId,
};
use bitspire_shared::money::{Denomination, Sats};
use bitspire_shared::rpc::{CheckedQuote, ErrorCode, Invoice, PaymentState};
use bitspire_shared::statement::{Statement, VerdictKind};
use serde::{Deserialize, Serialize};

use super::checked::{Authorised, CheckedWithdraw};

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The customer agrees to the price.
    Accept,
    /// The customer has no more notes.
    Finish,
    /// The customer changes their mind.
    Cancel,
    /// The customer typed or scanned a claim code.
    ClaimEntered(ClaimCode),
    /// The customer wants sats for the notes that they have not got, and typed their claim code.
    GiveBack(ClaimCode),
    /// The transaction's screen is not up any more, or was not for a moment.
    ScreenBroken,
    /// The way to the service is gone.
    NetworkLost,
    /// It is there again.
    NetworkBack,
    /// A quote came, signed and checked.
    Quote {
        /// The request that it answers.
        request: RequestId,
        /// The quote.
        quote: CheckedQuote,
    },
    /// An invoice came.
    Invoice {
        /// The request that it answers.
        request: RequestId,
        /// The invoice.
        invoice: Invoice,
    },
    /// The service's leave to dispense came, by push or reply, and was checked.
    Authorised(Authorised),
    /// `get_payment` was answered, without a good authorisation.
    Payment {
        /// The request that it answers.
        request: RequestId,
        /// How the payment stands.
        state: PaymentState,
        /// What moved on Lightning.
        wire_sats: Option<Sats>,
    },
    /// A withdraw came, signed and checked.
    Withdraw {
        /// The request that it answers.
        request: RequestId,
        /// The withdraw.
        withdraw: CheckedWithdraw,
    },
    /// A wallet asked for the withdraw.
    WithdrawClaimed(WithdrawId),
    /// The withdraw was paid.
    WithdrawPaid(WithdrawId),
    /// A report was received.
    Reported {
        /// The request.
        request: RequestId,
    },
    /// The service refused, or its quote did not hold.
    Refused {
        /// The request.
        request: RequestId,
        /// Why.
        code: ErrorCode,
    },
    /// The operator decided.
    Verdict(Verdict),
    /// Notes were chosen for [`Plan`](super::Effect::Plan); none where the bays or the dispenser
    /// cannot.
    Planned(Option<Lots>),
    /// The proof was given to the dispenser.
    DispenseSent {
        /// The intent's number.
        no: u32,
    },
    /// The dispenser's answer.
    Dispensed {
        /// The intent's number.
        no: u32,
        /// How it ended.
        outcome: DispenseOutcome,
    },
    /// A recycler has seen the end of a movement of unknown outcome; no answer, but evidence.
    Followed {
        /// What it saw.
        detail: String,
    },
    /// The exit is empty: the customer took the notes, or the device has no exit to look at.
    Taken,
    /// A bill is in escrow.
    Escrowed {
        /// The bill.
        bill: EscrowedBill,
        /// Whether policy allows it: breaker, room in the cashbox, trusted time.
        allowed: bool,
    },
    /// The acceptor says that a bill is past the point of no return.
    Credit {
        /// The bill that this run saw in escrow.
        escrowed: Option<EscrowedBill>,
        /// The value that came with the credit.
        denomination: Option<Denomination>,
    },
    /// A bill lies in the cashbox.
    Stacked,
    /// The bill was given back.
    Returned,
    /// The acceptor cannot go on.
    AcceptorFault {
        /// Its words.
        detail: String,
    },
    /// Time went by. Once a second while a transaction is open is enough.
    Tick,
    /// The vault is new; this state came from the journal.
    Restarted(DeviceReport),
}

impl Input {
    /// Its name, for a record or a log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Finish => "finish",
            Self::Cancel => "cancel",
            Self::ClaimEntered(_) => "claim_entered",
            Self::GiveBack(_) => "give_back",
            Self::ScreenBroken => "screen_broken",
            Self::NetworkLost => "network_lost",
            Self::NetworkBack => "network_back",
            Self::Quote { .. } => "quote",
            Self::Invoice { .. } => "invoice",
            Self::Authorised(_) => "authorised",
            Self::Payment { .. } => "payment",
            Self::Withdraw { .. } => "withdraw",
            Self::WithdrawClaimed(_) => "withdraw_claimed",
            Self::WithdrawPaid(_) => "withdraw_paid",
            Self::Reported { .. } => "reported",
            Self::Refused { .. } => "refused",
            Self::Verdict(_) => "verdict",
            Self::Planned(_) => "planned",
            Self::DispenseSent { .. } => "dispense_sent",
            Self::Dispensed { .. } => "dispensed",
            Self::Followed { .. } => "followed",
            Self::Taken => "taken",
            Self::Escrowed { .. } => "escrowed",
            Self::Credit { .. } => "credit",
            Self::Stacked => "stacked",
            Self::Returned => "returned",
            Self::AcceptorFault { .. } => "acceptor_fault",
            Self::Tick => "tick",
            Self::Restarted(_) => "restarted",
        }
    }
}

/// Notes of one bay in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// One note's value.
    pub denomination: Denomination,
    /// How many.
    pub count: u32,
}

/// A plan with what its notes are worth.
pub type Lots = BTreeMap<BayId, Lot>;

/// What the devices can say after a restart about the intents that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// About the open dispense.
    pub dispense: DispenseFate,
    /// About the bill that was in the acceptor.
    pub bill: BillFate,
}

/// What a dispenser knows after a restart. Only what the device itself ties to the last command
/// counts: counters that were reset, or an older command's result, are `Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DispenseFate {
    /// It cannot tell.
    #[default]
    Unknown,
    /// The command never began.
    NothingMoved,
    /// Its own final counts.
    Final(BayResults),
}

/// What an acceptor knows after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BillFate {
    /// It cannot tell.
    #[default]
    Unknown,
    /// Before the point of no return: it gives the bill back.
    InAcceptor,
    /// Past it: it lies in the stacker or will.
    InStacker,
}

/// The operator's decision about this transaction, its signature checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The transaction.
    pub txid: TxnId,
    /// The decision.
    pub kind: VerdictKind,
    /// The amount that it is about, in minor units.
    pub amount_minor: i64,
    /// Makes it single use.
    pub nonce: Nonce,
    /// The journal position that the operator had seen.
    pub seen: JournalSeq,
}

impl Verdict {
    /// The verdict in a checked statement, if it is about a transaction of this machine.
    #[must_use]
    pub fn of(statement: &Statement, spire: &PubKey, vault: &PubKey) -> Option<Self> {
        match statement {
            Statement::Verdict {
                spire: machine,
                vault: own,
                txid: Some(txid),
                journal_seq,
                verdict,
                amount_minor,
                nonce,
                ..
            } if machine == spire && own == vault => Some(Self {
                txid: *txid,
                kind: *verdict,
                amount_minor: *amount_minor,
                nonce: *nonce,
                seen: *journal_seq,
            }),
            _ => None,
        }
    }
}
