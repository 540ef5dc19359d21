//! What a transaction wants done. The shell does it, in this order, and feeds the results back.

use std::collections::BTreeSet;

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::{ClaimHash, PaymentHash, QuoteId, RequestId, TxnId};
use bitspire_shared::money::{Currency, Denomination, Fiat};
use bitspire_shared::rpc::{
    CreateInvoice, DispenseOutcome, ErrorCode, GetPayment, GetQuote, LockedNotes, Notes,
};

use super::record::Record;
use super::screen::Screen;

/// One thing to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the record ([`Record::to_entry`], `Journal::append`). Always the first effect of a
    /// step that changed anything; nothing after it may begin before it is flushed.
    Journal(Box<Record>),
    /// Commit the plan together with the record (`Journal::commit`) and give the proof to the
    /// dispenser; then say [`DispenseSent`](super::Input::DispenseSent), or, where the port took
    /// nothing, [`Dispensed`](super::Input::Dispensed) with `NotStarted`.
    Dispense {
        /// What is journaled with the intent.
        record: Box<Record>,
        /// The intent's number.
        no: u32,
        /// The notes.
        plan: DispensePlan,
    },
    /// Commit the stacking together with the record and give the proof to the acceptor.
    Stack {
        /// What is journaled with the intent.
        record: Box<Record>,
        /// The intent's number.
        no: u32,
        /// The bill in escrow.
        bill: EscrowedBill,
    },
    /// Choose notes worth at most `rest` from what the bays hold and the dispenser takes at once;
    /// answer with [`Planned`](super::Input::Planned).
    Plan {
        /// What is still to be given.
        rest: Fiat,
    },
    /// Give the bill in escrow back.
    ReturnBill,
    /// The credit is durable: tell the acceptor.
    AcknowledgeCredit,
    /// Take notes of these values; none closes the inlet.
    Inlet(BTreeSet<Denomination>),
    /// Ask the service, again and again, until it answers or the request is forgotten.
    Request(Request),
    /// Nobody waits for this request any more.
    Forget(RequestId),
    /// Show this, where this transaction is the one on the screen.
    Show(Screen),
    /// Tell the operator.
    Alert(Alert),
    /// The input does not fit the state; nothing has changed.
    Ignored {
        /// The input's name.
        input: &'static str,
        /// The state's name.
        state: &'static str,
    },
}

named! {
    Effect {
        Journal => "journal",
        Dispense => "dispense",
        Stack => "stack",
        Plan => "plan",
        ReturnBill => "return_bill",
        AcknowledgeCredit => "acknowledge_credit",
        Inlet => "inlet",
        Request => "request",
        Forget => "forget",
        Show => "show",
        Alert => "alert",
        Ignored => "ignored",
    }
}

/// A request with its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The same whenever it is asked again.
    pub id: RequestId,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of the service. Drafts lack what only the shell has: the journal's position and
/// the vault's signature.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// `get_quote`.
    GetQuote(GetQuote),
    /// `create_invoice`.
    CreateInvoice(CreateInvoice),
    /// `get_payment`.
    GetPayment(GetPayment),
    /// `create_withdraw`.
    CreateWithdraw(WithdrawDraft),
    /// `report_dispense`.
    ReportDispense(ReportDraft),
}

impl Ask {
    /// The name of the call.
    #[must_use]
    pub const fn rpc(&self) -> &'static str {
        match self {
            Self::GetQuote(_) => "get_quote",
            Self::CreateInvoice(_) => "create_invoice",
            Self::GetPayment(_) => "get_payment",
            Self::CreateWithdraw(_) => "create_withdraw",
            Self::ReportDispense(_) => "report_dispense",
        }
    }

    /// Whether money hangs on it: its finished body is journaled (`Entry::Request`) before the
    /// first sending, and every repeat sends the journaled body.
    #[must_use]
    pub const fn binding(&self) -> bool {
        match self {
            Self::GetQuote(_) | Self::GetPayment(_) => false,
            Self::CreateInvoice(_) | Self::CreateWithdraw(_) | Self::ReportDispense(_) => true,
        }
    }
}

/// `create_withdraw` before position and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawDraft {
    /// The last lock under which notes were credited.
    pub quote_id: QuoteId,
    /// The transaction.
    pub txid: TxnId,
    /// The notes credited under that lock.
    pub notes: Notes,
    /// Earlier locks with their notes.
    pub earlier: Vec<LockedNotes>,
    /// The notes' currency.
    pub fiat_code: Currency,
    /// Hash of the claim code.
    pub claim_hash: ClaimHash,
}

/// `report_dispense` before position and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportDraft {
    /// The transaction.
    pub txid: TxnId,
    /// The invoice that was paid.
    pub payment_hash: PaymentHash,
    /// How it ended.
    pub outcome: DispenseOutcome,
    /// Each bay's notes.
    pub bays: BayResults,
    /// What the customer did not get, in minor units; for an uncertain end the most that it can
    /// be.
    pub owed_minor: i64,
}

/// What a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    /// A transaction cannot decide itself: device counters or a verdict must.
    Uncertain {
        /// What is known.
        evidence: String,
    },
    /// The customer got more than was promised.
    Overpaid {
        /// By this much, in minor units.
        by_minor: i64,
    },
    /// Money is owed to the customer.
    Owed {
        /// This much, in minor units.
        owed_minor: i64,
    },
    /// The acceptor credited a bill that nobody told it to stack.
    UnexplainedCredit {
        /// Its value, if the device says one.
        denomination: Option<Denomination>,
    },
    /// A dispense did not begin or ended short.
    DispenseFault {
        /// The device's words.
        detail: String,
    },
    /// The service refuses, for good, something that money hangs on.
    Refused {
        /// The call.
        rpc: &'static str,
        /// The code.
        code: ErrorCode,
    },
    /// The service names another withdraw for this transaction than before.
    WithdrawChanged,
}
