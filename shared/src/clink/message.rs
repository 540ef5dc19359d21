//! Requests, replies and the events around them.
//!
//! Promise: a request is what CLINK asks for and we serve: an invoice for an offer, or the payment of
//! an invoice under a session. Budgets, zaps and requests without a session read as what they are, so
//! that each gets its own refusal. Replies carry the codes of the specification.

use std::fmt;

use nostr::{Event, EventBuilder, Kind, Tag, TagKind, Timestamp, UnsignedEvent};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::{self, Classified};
use crate::ids::{EventId, PubKey, from_hex};
use crate::money::Sats;
use crate::time::Unix;

/// Kind of requests and replies of CLINK Offers; ephemeral (NIP-01).
pub const OFFER_KIND: u16 = 21_001;
/// Kind of requests and replies of CLINK Debits; ephemeral.
pub const DEBIT_KIND: u16 = 21_002;

/// The tag that each event carries, and our version.
const VERSION_TAG: &str = "clink_version";
const VERSION: &str = "1";

/// Why a plaintext is no request that is served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No JSON object, or a field of another type.
    #[error("expected a JSON object with the fields of CLINK")]
    Malformed,
    /// A kind without requests.
    #[error("expected kind 21001 or 21002, got {got}")]
    Kind {
        /// Its kind.
        got: u16,
    },
    /// Nothing to pay.
    #[error("expected bolt11, an invoice: no budgets are given here")]
    NoInvoice,
    /// Nothing that it is paid for.
    #[error("expected k1, the 64 hex characters of the scanned code's session")]
    NoSession,
    /// Something that is not done here.
    #[error("{what} are not served here")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
}

impl Classified for RequestError {
    fn kind(&self) -> error::Kind {
        error::Kind::Permanent
    }
}

/// Asks for the invoice of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferRequest {
    /// TLV 2 of the code.
    pub offer: String,
    /// What the payer thinks that it costs, where it says so.
    pub amount: Option<Sats>,
}

/// Names the invoice that is to be paid under a session.
#[derive(Clone, PartialEq, Eq)]
pub struct DebitRequest {
    /// TLV 2 of the code, where the wallet repeats it.
    pub pointer: Option<String>,
    /// What the wallet expects, where it says so.
    pub amount: Option<Sats>,
    /// The invoice (BOLT 11).
    pub bolt11: String,
    /// TLV 3 of the code. A bearer secret.
    pub k1: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for DebitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebitRequest").field("amount", &self.amount).finish_non_exhaustive()
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Kind 21001.
    Offer(OfferRequest),
    /// Kind 21002.
    Debit(DebitRequest),
}

#[derive(Deserialize)]
struct RawOffer {
    offer: String,
    /// The specification's word.
    amount: Option<u64>,
    /// The reference SDK's.
    amount_sats: Option<u64>,
    zap: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDebit {
    pointer: Option<String>,
    amount_sats: Option<u64>,
    bolt11: Option<String>,
    k1: Option<Zeroizing<String>>,
}

impl Asked {
    /// Reads the decrypted content of an event of this kind.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(kind: u16, plaintext: &str) -> Result<Self, RequestError> {
        match kind {
            OFFER_KIND => {
                let raw: RawOffer =
                    serde_json::from_str(plaintext).map_err(|_| RequestError::Malformed)?;
                if raw.zap.is_some() {
                    return Err(RequestError::Unsupported { what: "zaps" });
                }
                let amount = raw.amount.or(raw.amount_sats).map(Sats);
                Ok(Self::Offer(OfferRequest { offer: raw.offer, amount }))
            }
            DEBIT_KIND => {
                let raw: RawDebit =
                    serde_json::from_str(plaintext).map_err(|_| RequestError::Malformed)?;
                let bolt11 = raw.bolt11.ok_or(RequestError::NoInvoice)?;
                let k1 = raw.k1.ok_or(RequestError::NoSession)?;
                let k1 = from_hex("k1", &k1).map_err(|_| RequestError::NoSession)?;
                Ok(Self::Debit(DebitRequest {
                    pointer: raw.pointer,
                    amount: raw.amount_sats.map(Sats),
                    bolt11,
                    k1: Zeroizing::new(k1),
                }))
            }
            got => Err(RequestError::Kind { got }),
        }
    }
}

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $code:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(into = "u8")]
        pub enum $name { $($(#[$doc])* $code,)* }

        impl From<$name> for u8 {
            fn from(code: $name) -> Self {
                match code { $($name::$code => $number,)* }
            }
        }
    };
}

codes! {
    /// Why an offer brings no invoice.
    OfferErrorCode {
        /// Unknown, or not any more.
        Invalid = 1,
        /// Our side cannot answer now.
        Temporary = 2,
        /// Its time is over.
        Expired = 3,
        /// It asks for something that is not done here.
        Unsupported = 4,
        /// Another amount than the offer's.
        Amount = 5,
    }
}

codes! {
    /// Why nothing is paid ("general failure to yield").
    GfyCode {
        /// Paid before, or promised to another invoice.
        Denied = 1,
        /// Our side cannot answer now.
        Temporary = 2,
        /// The request's or the session's time is over.
        Expired = 3,
        /// Too many requests.
        RateLimited = 4,
        /// Another amount than the promise.
        Amount = 5,
        /// No request that can be served.
        Invalid = 6,
    }
}

/// The amounts that are taken, in sats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The least.
    pub min: Sats,
    /// The most.
    pub max: Sats,
}

impl Range {
    /// One amount.
    #[must_use]
    pub const fn only(sats: Sats) -> Self {
        Self { min: sats, max: sats }
    }
}

/// How far a request's clock is off ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// Milliseconds that are taken.
    pub max_delta_ms: u64,
    /// Milliseconds that it was.
    pub actual_delta_ms: u64,
}

/// What a payer is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OfferReply {
    /// The invoice.
    Invoice {
        /// BOLT 11.
        bolt11: String,
    },
    /// None.
    Error {
        /// For people.
        error: String,
        /// For programs.
        code: OfferErrorCode,
        /// With code 5: what is taken.
        #[serde(skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
    },
}

/// What a payee is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "res")]
pub enum DebitReply {
    /// The invoice is accepted and will be paid; its payee sees it arrive.
    #[serde(rename = "ok")]
    Ok,
    /// It is not.
    #[serde(rename = "GFY")]
    Gfy {
        /// For programs.
        code: GfyCode,
        /// For people.
        error: String,
        /// With code 5: what is taken.
        #[serde(skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
        /// With code 3, for a request's clock: how far it is off.
        #[serde(skip_serializing_if = "Option::is_none")]
        delta: Option<Deviation>,
        /// With code 4: from when on it may be tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<Unix>,
    },
}

impl DebitReply {
    /// A refusal with nothing but its words.
    #[must_use]
    pub fn gfy(code: GfyCode, error: &str) -> Self {
        let (range, delta, retry_after) = (None, None, None);
        Self::Gfy { code, error: error.to_owned(), range, delta, retry_after }
    }
}

impl OfferReply {
    /// A refusal with nothing but its words.
    #[must_use]
    pub fn error(code: OfferErrorCode, error: &str) -> Self {
        Self::Error { error: error.to_owned(), code, range: None }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of kind 21001.
    Offer(OfferReply),
    /// Of kind 21002.
    Debit(DebitReply),
}

impl Answer {
    /// The kind of its event.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Offer(_) => OFFER_KIND,
            Self::Debit(_) => DEBIT_KIND,
        }
    }

    /// The text to be encrypted.
    ///
    /// # Errors
    /// None that its fields can cause.
    pub fn to_plaintext(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Whether an event says that it speaks our version.
#[must_use]
pub fn speaks_version(event: &Event) -> bool {
    let tag = event.tags.find(TagKind::custom(VERSION_TAG));
    tag.and_then(Tag::content) == Some(VERSION)
}

/// A reply of the service to the event `request` of `reader`.
#[must_use]
pub fn reply_event(
    (service, reader): (&PubKey, &PubKey),
    request: &EventId,
    kind: u16,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    EventBuilder::new(Kind::from(kind), ciphertext)
        .tag(Tag::public_key(reader.nostr()))
        .tag(Tag::event(nostr::EventId::from_byte_array(*request.as_bytes())))
        .tag(Tag::custom(TagKind::custom(VERSION_TAG), [VERSION]))
        .custom_created_at(Timestamp::from(created_at.0))
        .build(service.nostr())
}

#[cfg(test)]
mod tests {
    use nostr::JsonUtil as _;

    use super::*;
    use crate::test_keys::keys;

    const K1: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Loss prevented: a wallet's good request that is refused for a field that we do not know; a
    /// budget or a session-less invoice that is taken for a customer's claim.
    #[test]
    fn requests_of_wallets_are_read() {
        let offer = |text: &str| Asked::parse(OFFER_KIND, text);
        let asked = |offer: &str, amount: Option<u64>| {
            Ok(Asked::Offer(OfferRequest { offer: offer.into(), amount: amount.map(Sats) }))
        };
        assert_eq!(offer(r#"{"offer":"a"}"#), asked("a", None));
        assert_eq!(
            offer(r#"{"offer":"a","amount":7,"payer_data":{"x":[1]}}"#),
            asked("a", Some(7))
        );
        assert_eq!(offer(r#"{"offer":"a","amount_sats":7,"zap":null}"#), asked("a", Some(7)));
        let zap = offer(r#"{"offer":"a","zap":"{}"}"#);
        assert!(matches!(zap, Err(RequestError::Unsupported { .. })), "{zap:?}");
        for wrong in ["", "[]", r#"{"offer":1}"#, r#"{"offer":"a","amount":-1}"#, r#"{"amount":1}"#]
        {
            assert_eq!(offer(wrong), Err(RequestError::Malformed), "{wrong}");
        }
        let debit = |text: &str| Asked::parse(DEBIT_KIND, text);
        let good =
            format!(r#"{{"pointer":"p","amount_sats":9,"bolt11":"lnbc1","k1":"{K1}","x":1}}"#);
        let Ok(Asked::Debit(read)) = debit(&good) else { panic!("{good}") };
        assert_eq!((read.pointer.as_deref(), read.amount), (Some("p"), Some(Sats(9))));
        assert_eq!((&*read.bolt11, *read.k1), ("lnbc1", from_hex::<32>("k1", K1).unwrap()));
        assert!(!format!("{read:?}").contains("lnbc1"));
        let budget = r#"{"amount_sats":9,"frequency":{"number":1,"unit":"day"}}"#;
        assert_eq!(debit(budget), Err(RequestError::NoInvoice));
        assert_eq!(debit(r#"{"bolt11":"lnbc1"}"#), Err(RequestError::NoSession));
        let short = r#"{"bolt11":"lnbc1","k1":"0123"}"#;
        assert_eq!(debit(short), Err(RequestError::NoSession));
        assert_eq!(Asked::parse(1, "{}"), Err(RequestError::Kind { got: 1 }));
    }

    /// Loss prevented: replies that the wallets out there do not understand.
    #[test]
    fn replies_are_as_the_specification_has_them() {
        let text = |answer: Answer| answer.to_plaintext().unwrap();
        let range = Some(Range::only(Sats(75_795)));
        let invoice = OfferReply::Invoice { bolt11: "lnbc1".into() };
        assert_eq!(text(Answer::Offer(invoice)), r#"{"bolt11":"lnbc1"}"#);
        let (error, code) = ("Invalid Amount".to_owned(), OfferErrorCode::Amount);
        assert_eq!(
            text(Answer::Offer(OfferReply::Error { error, code, range })),
            r#"{"error":"Invalid Amount","code":5,"range":{"min":75795,"max":75795}}"#
        );
        assert_eq!(text(Answer::Debit(DebitReply::Ok)), r#"{"res":"ok"}"#);
        let denied = DebitReply::gfy(GfyCode::Denied, "Request Denied");
        assert_eq!(
            text(Answer::Debit(denied)),
            r#"{"res":"GFY","code":1,"error":"Request Denied"}"#
        );
        let late = DebitReply::Gfy {
            code: GfyCode::Expired,
            error: "Expired Request".into(),
            range: None,
            delta: Some(Deviation { max_delta_ms: 1, actual_delta_ms: 2 }),
            retry_after: None,
        };
        assert_eq!(
            text(Answer::Debit(late)),
            r#"{"res":"GFY","code":3,"error":"Expired Request","delta":{"max_delta_ms":1,"actual_delta_ms":2}}"#
        );
    }

    /// Loss prevented: a tag too few, and a wallet waits for a reply that its relay never brings.
    #[test]
    fn a_reply_names_reader_request_and_version() {
        let ((service_keys, service), (_, reader)) = (keys(2), keys(1));
        let request = EventId::from_bytes([8; 32]);
        let at = Unix(1_800_000_000);
        let reply = reply_event((&service, &reader), &request, DEBIT_KIND, at, "cipher".into());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&reply.as_json()).unwrap()["tags"],
            serde_json::json!([["p", reader], ["e", request], ["clink_version", "1"]])
        );
        let signed = reply.sign_with_keys(&service_keys).unwrap();
        assert!(speaks_version(&signed));
        let silent = EventBuilder::new(Kind::from(DEBIT_KIND), "").sign_with_keys(&service_keys);
        assert!(!speaks_version(&silent.unwrap()));
    }
}
