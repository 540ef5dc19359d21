//! The envelopes: request, reply, push; and the table of methods.
//!
//! Promise: a request that parsed has a known name, a body of that name's type and values that can
//! be served. Plaintexts are canonical JSON, so one message has one text.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::canonical::{CanonicalError, canonical_text, sha256, to_canonical};
use crate::error::{Classified, Kind};
use crate::ids::{Digest, PushId, RequestId};
use crate::rpc::body::{
    Ack, CreateInvoice, GetPayment, GetQuote, Invoice, Payment, Quote, SignedDispense,
    SignedWithdraw, Withdraw,
};
use crate::rpc::code::{ErrorCode, RpcError};
use crate::rpc::push::{ConfigChanged, PaymentSettled, VerdictPush, WithdrawClaimed, WithdrawPaid};
use crate::rpc::session::{OpenSession, SessionOpened};
use crate::rpc::signed::VaultSigned;
use crate::rpc::state::StateReport;

/// Most characters of a reason: it is for a log line.
const MAX_REASON: usize = 200;

/// One RPC: its body is the implementing type.
pub trait Method: Serialize + DeserializeOwned + Into<RpcRequest> {
    /// Its name.
    const NAME: RpcName;
    /// What the service answers.
    type Reply: Serialize + DeserializeOwned;

    /// Checks values that the types allow but nobody can serve.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn validate(&self) -> Result<(), String>;
}

macro_rules! methods {
    ($($name:ident = $text:literal, $body:ty => $reply:ty, $validate:expr;)*) => {
        /// Names of the RPCs.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum RpcName {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl RpcName {
            /// Every name, for tables and counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The wire name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// A request's body, by its name.
        #[derive(Clone, Debug, PartialEq)]
        pub enum RpcRequest {
            $(#[doc = concat!("`", $text, "`")] $name(Box<$body>),)*
        }

        impl RpcRequest {
            /// Its name.
            #[must_use]
            pub const fn name(&self) -> RpcName {
                match self {
                    $(Self::$name(_) => RpcName::$name,)*
                }
            }

            fn body(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$name(body) => serde_json::to_value(body),)*
                }
            }

            /// Reads the body of the RPC `rpc_name`.
            ///
            /// # Errors
            /// The code and the reason: `unknown_rpc`; `malformed` where the shape is wrong;
            /// `invalid` where a value cannot be served.
            pub fn parse(rpc_name: &str, body: Value) -> Result<Self, RpcError> {
                match rpc_name {
                    $($text => read::<$body>(body).map(Self::from),)*
                    other => {
                        let reason = format!("no rpc {:?}", cut(other));
                        Err(RpcError { code: ErrorCode::UnknownRpc, reason })
                    }
                }
            }
        }

        $(
            impl From<$body> for RpcRequest {
                fn from(body: $body) -> Self {
                    Self::$name(Box::new(body))
                }
            }

            impl Method for $body {
                const NAME: RpcName = RpcName::$name;
                type Reply = $reply;
                fn validate(&self) -> Result<(), String> {
                    let validate: fn(&Self) -> Result<(), String> = $validate;
                    validate(self)
                }
            }
        )*
    };
}

methods! {
    OpenSession = "open_session", OpenSession => SessionOpened, |_| Ok(());
    GetQuote = "get_quote", GetQuote => Quote, |body| body.validate();
    CreateInvoice = "create_invoice", CreateInvoice => Invoice, |_| Ok(());
    CreateWithdraw = "create_withdraw", SignedWithdraw => Withdraw, |body| body.unchecked().validate();
    GetPayment = "get_payment", GetPayment => Payment, |_| Ok(());
    ReportDispense = "report_dispense", SignedDispense => Ack, |body| body.unchecked().validate();
    ReportState = "report_state", VaultSigned<StateReport> => Ack, |body| body.unchecked().validate();
}

fn read<M: Method>(body: Value) -> Result<M, RpcError> {
    let malformed = |e: serde_json::Error| (ErrorCode::Malformed, e.to_string());
    let refused = |(code, reason): (ErrorCode, String)| {
        let reason = format!("{}: {}", M::NAME, cut(&reason));
        RpcError { code, reason }
    };
    let body = M::deserialize(body).map_err(malformed).map_err(refused)?;
    body.validate().map_err(|reason| refused((ErrorCode::Invalid, reason)))?;
    Ok(body)
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

impl RpcName {
    /// Whether the service keeps the reply, by machine, request id and SHA-256 of the body, and
    /// answers a repeat from it.
    #[must_use]
    pub const fn keeps_reply(self) -> bool {
        !matches!(self, Self::GetQuote | Self::GetPayment | Self::ReportState)
    }

    /// Whether it is answered before the operator has confirmed the pairing's digits.
    #[must_use]
    pub const fn before_confirmation(self) -> bool {
        matches!(self, Self::OpenSession | Self::ReportState)
    }

    /// Whether it must be signed by the spire key itself, not by a session's.
    #[must_use]
    pub const fn by_spire_only(self) -> bool {
        matches!(self, Self::OpenSession)
    }
}

impl fmt::Display for RpcName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("request refused: {}: {}", .error.code, .error.reason)]
pub struct BadRequest {
    /// The request's id, where it could be read.
    pub request_id: Option<RequestId>,
    /// Code and reason for the reply.
    pub error: RpcError,
}

impl Classified for BadRequest {
    fn kind(&self) -> Kind {
        self.error.kind()
    }
}

/// A request of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    request_id: RequestId,
    call: RpcRequest,
    body_sha256: Digest,
}

impl Request {
    /// A request to be sent; the same id and body again is the same request.
    ///
    /// # Errors
    /// [`CanonicalError`] where a number is beyond what JSON readers keep exact.
    pub fn new(request_id: RequestId, call: impl Into<RpcRequest>) -> Result<Self, CanonicalError> {
        let call = call.into();
        let body = call.body().map_err(|e| CanonicalError::Json(e.to_string()))?;
        let body_sha256 = sha256(&canonical_text(&body)?);
        Ok(Self { request_id, call, body_sha256 })
    }

    /// Reads a decrypted request.
    ///
    /// # Errors
    /// [`BadRequest`] with the code `malformed`, `unknown_rpc` or `invalid`.
    pub fn parse(plaintext: &str) -> Result<Self, BadRequest> {
        let malformed = |request_id, reason: &str| {
            let error = RpcError { code: ErrorCode::Malformed, reason: cut(reason) };
            BadRequest { request_id, error }
        };
        let mut fields: Map<String, Value> =
            serde_json::from_str(plaintext).map_err(|e| malformed(None, &e.to_string()))?;
        let request_id = fields.get("request_id").and_then(Value::as_str);
        let request_id = request_id.and_then(|text| text.parse::<RequestId>().ok());
        let Some(id) = request_id else {
            return Err(malformed(None, "request_id: expected 32 lower-case hex characters"));
        };
        let Some(body) = fields.remove("body") else {
            return Err(malformed(request_id, "body: missing"));
        };
        let Some(name) = fields.get("rpc_name").and_then(Value::as_str) else {
            return Err(malformed(request_id, "rpc_name: expected a string"));
        };
        // the text first, since the body is taken apart; a body of the wrong shape is told before
        let text = canonical_text(&body);
        let call =
            RpcRequest::parse(name, body).map_err(|error| BadRequest { request_id, error })?;
        let text = text.map_err(|e| malformed(request_id, &e.to_string()))?;
        Ok(Self { request_id: id, call, body_sha256: sha256(&text) })
    }

    /// Its id.
    #[must_use]
    pub const fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// What is asked for.
    #[must_use]
    pub const fn call(&self) -> &RpcRequest {
        &self.call
    }

    /// What is asked for, taken out.
    #[must_use]
    pub fn into_call(self) -> RpcRequest {
        self.call
    }

    /// SHA-256 of the body's canonical JSON, as it came.
    #[must_use]
    pub const fn body_sha256(&self) -> Digest {
        self.body_sha256
    }

    /// The text to encrypt.
    ///
    /// # Errors
    /// [`CanonicalError`] where a number is beyond what JSON readers keep exact.
    pub fn to_plaintext(&self) -> Result<String, CanonicalError> {
        let body = self.call.body().map_err(|e| CanonicalError::Json(e.to_string()))?;
        let name = self.call.name();
        canonical_text(&json!({"rpc_name": name, "request_id": self.request_id, "body": body}))
    }
}

/// A reply of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status")]
pub enum Reply {
    /// It was done, now or before.
    #[serde(rename = "OK")]
    Ok {
        /// The request.
        request_id: RequestId,
        /// The method's reply.
        body: Value,
    },
    /// It was refused.
    #[serde(rename = "ERROR")]
    Error {
        /// The request; null where its id could not be read, or was not yet decrypted: the event's
        /// `e` tag names it then.
        request_id: Option<RequestId>,
        /// Why.
        code: ErrorCode,
        /// In words.
        reason: String,
    },
}

impl Reply {
    /// A reply to a request of the type `M`.
    ///
    /// # Errors
    /// [`CanonicalError::Json`].
    pub fn ok<M: Method>(request_id: RequestId, body: &M::Reply) -> Result<Self, CanonicalError> {
        let body = serde_json::to_value(body).map_err(|e| CanonicalError::Json(e.to_string()))?;
        Ok(Self::Ok { request_id, body })
    }

    /// A refusal.
    #[must_use]
    pub fn error(request_id: Option<RequestId>, code: ErrorCode, reason: &str) -> Self {
        Self::Error { request_id, code, reason: cut(reason) }
    }

    /// The request that it answers, where it says.
    #[must_use]
    pub const fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::Ok { request_id, .. } => Some(*request_id),
            Self::Error { request_id, .. } => *request_id,
        }
    }

    /// The reply to a request of the type `M`, or the refusal.
    ///
    /// # Errors
    /// [`BadMessage`] where the body is not `M`'s reply.
    pub fn read<M: Method>(self) -> Result<Result<M::Reply, RpcError>, BadMessage> {
        match self {
            Self::Ok { body, .. } => {
                serde_json::from_value(body).map(Ok).map_err(|e| BadMessage::new(&e))
            }
            Self::Error { code, reason, .. } => Ok(Err(RpcError { code, reason })),
        }
    }
}

impl From<BadRequest> for Reply {
    fn from(bad: BadRequest) -> Self {
        Self::Error { request_id: bad.request_id, code: bad.error.code, reason: bad.error.reason }
    }
}

/// What the service tells a machine unasked; a hint, never an order by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "push", content = "body", rename_all = "snake_case")]
pub enum Push {
    /// An invoice was paid.
    PaymentSettled(PaymentSettled),
    /// A wallet has asked for a withdraw.
    WithdrawClaimed(WithdrawClaimed),
    /// A withdraw was paid.
    WithdrawPaid(WithdrawPaid),
    /// A configuration document was published.
    ConfigChanged(ConfigChanged),
    /// The operator has decided.
    Verdict(Box<VerdictPush>),
}

/// What a machine receives from its service.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceMessage {
    /// The answer to a request.
    Reply(Reply),
    /// Said unasked.
    Push {
        /// The same id again is the same push.
        push_id: PushId,
        /// What.
        push: Push,
    },
}

/// The push as it travels.
#[derive(Serialize, Deserialize)]
struct PushEnvelope {
    push_id: PushId,
    #[serde(flatten)]
    push: Push,
}

impl ServiceMessage {
    /// Reads a decrypted reply or push.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn parse(plaintext: &str) -> Result<Self, BadMessage> {
        let value: Value = serde_json::from_str(plaintext).map_err(|e| BadMessage::new(&e))?;
        if value.get("push").is_some() {
            let read: Result<PushEnvelope, _> = serde_json::from_value(value);
            let PushEnvelope { push_id, push } = read.map_err(|e| BadMessage::new(&e))?;
            return Ok(Self::Push { push_id, push });
        }
        serde_json::from_value(value).map(Self::Reply).map_err(|e| BadMessage::new(&e))
    }

    /// The text to encrypt.
    ///
    /// # Errors
    /// [`CanonicalError`] where a number is beyond what JSON readers keep exact.
    pub fn to_plaintext(&self) -> Result<String, CanonicalError> {
        match self {
            Self::Reply(reply) => to_canonical(reply),
            Self::Push { push_id, push } => {
                to_canonical(&PushEnvelope { push_id: *push_id, push: push.clone() })
            }
        }
    }
}

/// A message of the service that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a reply or a push of this protocol version: {0}")]
pub struct BadMessage(String);

impl BadMessage {
    fn new(cause: &serde_json::Error) -> Self {
        Self(cut(&cause.to_string()))
    }
}

impl Classified for BadMessage {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}
