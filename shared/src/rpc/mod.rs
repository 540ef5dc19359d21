//! The RPC between machine and service: kind-21000 events, encrypted with NIP-44.
//!
//! Promise: every message that travels is a type, every text that is signed is built from typed
//! fields, and the codes of refusals are a closed list with stable strings. Requests arrive at
//! least once; the pair of request id and [`Request::body_sha256`] lets the service take effect
//! exactly once: a retry is a freshly signed event with the same id and body.
//!
//! **Unknown fields.** What a machine sends about money (`get_quote`, `create_invoice`,
//! `create_withdraw`, `get_payment`, `report_dispense` and what is nested in them) is read
//! strictly: a field that the service does not know could be a condition that it would ignore, so
//! it is `malformed`. Everything else (envelopes, `open_session`, `report_state`, replies, pushes)
//! ignores unknown fields, so that either side can be upgraded first: what counts there is bound by
//! a signature over named fields. A `vault_sig` is checked over the body as it came, unknown fields
//! included.
//!
//! Failure policy: a request that cannot be read is a [`BadRequest`] with the code for the reply
//! and, where it could be read, the request id. A reply or push that cannot be read is a
//! [`BadMessage`]: counted, ignored; the request goes on waiting.

mod body;
mod code;
mod envelope;
mod event;
mod push;
mod quote;
mod service;
mod session;
mod signed;
mod state;

pub use body::{
    Ack, CreateInvoice, CreateWithdraw, DispenseOutcome, DispenseReport, GetPayment, GetQuote,
    Invoice, Lnurl, LockedNotes, Notes, Payment, PaymentState, Quote, SignedOrigins, Withdraw,
    notes_value,
};
pub use code::{ErrorCode, RpcError};
pub use envelope::{
    BadMessage, BadRequest, Method, Push, Reply, Request, RpcName, RpcRequest, ServiceMessage,
};
pub use event::{KIND, LIFETIME_S, push_event, reply_event, request_event};
pub use push::{ConfigChanged, PaymentSettled, VerdictPush, WithdrawClaimed, WithdrawPaid};
pub use quote::{CheckedQuote, Expectation, FeesInForce, QuoteError, check_quote};
pub use service::{
    BayChange, MAX_REASON, MAX_SERVICE_EVENTS, Pile, Piles, ServiceAction, ServiceEvent, Tested,
};
pub use session::{OpenSession, SessionError, SessionOpened};
pub use signed::{
    DispenseAuthorisation, OriginTerms, QuoteTerms, SessionProof, SignedText, VaultBody,
    VaultSigned, WithdrawTerms,
};
pub use state::{
    Alert, BayCount, Cashbox, Device, DeviceRole, DeviceStatus, Doubt, OpenTxn, Recycled,
    RejectBin, StateReport,
};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod wire_tests;
