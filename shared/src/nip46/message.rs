//! Requests `{id, method, params}` and responses `{id, result, error?}` (NIP-46).
//!
//! Promise: what is written is what the NIP says. What is read may be what signers and clients in
//! the wild write: a numeric id, params that are missing, `null` or no strings, a result that is an
//! object where its JSON text belongs.
//!
//! An empty `error` is no error. The NIP has it "optionally, an error string", and signers whose
//! types cannot leave a string out write `"error": ""` beside a good result; with no result either
//! the reply fails anyway, because nothing that was asked for is in it. Any other `error` that is
//! not `null` is a failure, whatever the result says; except `auth_url`, where it is the address.
//!
//! Failure policy: a text that has no id, or neither shape, is no message: [`NotAMessage`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::{Classified, Kind};

/// Longest id of a request, in characters: ours have 32.
const MAX_ID: usize = 256;

/// A text that is neither a request nor a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("NIP-46: expected a JSON object with an id and {expected}")]
pub struct NotAMessage {
    /// What it should have had.
    expected: &'static str,
}

impl Classified for NotAMessage {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// A plaintext that must not be seen: wiped when dropped, `Debug` shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain(Zeroizing<String>);

impl Plain {
    /// Takes a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plain({} bytes, redacted)", self.0.len())
    }
}

/// The methods of NIP-46 that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `connect [remote signer's key, secret?, perms?, metadata?]` -> `ack`
    Connect,
    /// `sign_event [event]` -> the signed event
    SignEvent,
    /// `ping []` -> `pong`
    Ping,
    /// `get_public_key []` -> the key that signs
    GetPublicKey,
    /// `nip04_encrypt [peer, text]` -> payload
    Nip04Encrypt,
    /// `nip04_decrypt [peer, payload]` -> text
    Nip04Decrypt,
    /// `nip44_encrypt [peer, text]` -> payload
    Nip44Encrypt,
    /// `nip44_decrypt [peer, payload]` -> text
    Nip44Decrypt,
    /// `switch_relays []` -> relays, or `null` to stay
    SwitchRelays,
    /// `logout []` -> `ack`
    Logout,
}

impl Method {
    const ALL: [Self; 10] = [
        Self::Connect,
        Self::SignEvent,
        Self::Ping,
        Self::GetPublicKey,
        Self::Nip04Encrypt,
        Self::Nip04Decrypt,
        Self::Nip44Encrypt,
        Self::Nip44Decrypt,
        Self::SwitchRelays,
        Self::Logout,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::SignEvent => "sign_event",
            Self::Ping => "ping",
            Self::GetPublicKey => "get_public_key",
            Self::Nip04Encrypt => "nip04_encrypt",
            Self::Nip04Decrypt => "nip04_decrypt",
            Self::Nip44Encrypt => "nip44_encrypt",
            Self::Nip44Decrypt => "nip44_decrypt",
            Self::SwitchRelays => "switch_relays",
            Self::Logout => "logout",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A method that is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a method of NIP-46")]
pub struct UnknownMethod;

impl FromStr for Method {
    type Err = UnknownMethod;
    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or(UnknownMethod)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Joins a response to its request. A string by the NIP; a number is kept as one, since a client
/// that sends a number compares with a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessageId {
    /// As the NIP has it.
    Text(String),
    /// As some write it.
    Number(u64),
}

impl MessageId {
    fn read(raw: &RawValue) -> Option<Self> {
        if let Ok(number) = serde_json::from_str(raw.get()) {
            return Some(Self::Number(number));
        }
        let text: String = serde_json::from_str(raw.get()).ok()?;
        (!text.is_empty() && text.chars().count() <= MAX_ID).then_some(Self::Text(text))
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Made by the client.
    pub id: MessageId,
    /// Any text: what is unknown gets an error as its reply.
    pub method: String,
    /// By position; `null` counts as absent.
    pub params: Vec<Option<String>>,
}

impl Request {
    /// Makes a request of a method that is known here.
    #[must_use]
    pub fn new(id: &str, method: Method, params: Vec<Option<String>>) -> Self {
        Self { id: MessageId::Text(id.to_owned()), method: method.as_str().to_owned(), params }
    }

    /// Reads a decrypted request.
    ///
    /// # Errors
    /// [`NotAMessage`].
    pub fn parse(json: &str) -> Result<Self, NotAMessage> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
            method: String,
            #[serde(borrow, default)]
            params: Option<Vec<&'a RawValue>>,
        }
        let wrong = NotAMessage { expected: "a method" };
        let wire: Wire<'_> = serde_json::from_str(json).map_err(|_| wrong)?;
        let id = MessageId::read(wire.id).ok_or(wrong)?;
        let params = wire.params.unwrap_or_default().into_iter().map(text_of).collect();
        Ok(Self { id, method: wire.method, params })
    }

    /// The text to encrypt.
    #[must_use]
    pub fn to_json(&self) -> Plain {
        let params = self.params.iter().map(|p| p.as_deref().map_or(Value::Null, Value::from));
        let mut map = Map::new();
        map.insert("id".into(), self.id.to_value());
        map.insert("method".into(), self.method.as_str().into());
        map.insert("params".into(), params.collect::<Vec<Value>>().into());
        Plain::new(Value::Object(map).to_string())
    }
}

/// Params hold secrets and plaintexts.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, params) = (&self.id, self.params.len());
        write!(f, "Request {{ id: {id:?}, method: {:?}, params: {params} }}", self.method)
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The request's id.
    pub id: MessageId,
    /// The result; `null` is a result for `switch_relays` alone.
    pub result: Option<String>,
    /// Never empty.
    pub error: Option<String>,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A person has to open this address; the real response follows under the same id.
    AuthUrl(Plain),
    /// It failed, in the signer's words.
    Failed(Plain),
    /// It worked; whether the result is what was asked for is the next question.
    Done(Option<Plain>),
}

impl Response {
    /// A result.
    #[must_use]
    pub const fn result(id: MessageId, result: String) -> Self {
        Self { id, result: Some(result), error: None }
    }

    /// The result `null`.
    #[must_use]
    pub const fn null(id: MessageId) -> Self {
        Self { id, result: None, error: None }
    }

    /// A failure.
    #[must_use]
    pub const fn error(id: MessageId, error: String) -> Self {
        Self { id, result: None, error: Some(error) }
    }

    /// Reads a decrypted response.
    ///
    /// # Errors
    /// [`NotAMessage`]; a request is not a response.
    pub fn parse(json: &str) -> Result<Self, NotAMessage> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
            #[serde(borrow, default)]
            method: Option<&'a RawValue>,
            #[serde(borrow, default)]
            result: Option<&'a RawValue>,
            #[serde(borrow, default)]
            error: Option<&'a RawValue>,
        }
        let wrong = NotAMessage { expected: "a result or an error" };
        let wire: Wire<'_> = serde_json::from_str(json).map_err(|_| wrong)?;
        if wire.method.is_some() {
            return Err(wrong);
        }
        let id = MessageId::read(wire.id).ok_or(wrong)?;
        let error = wire.error.and_then(error_text).filter(|text| !text.is_empty());
        Ok(Self { id, result: wire.result.and_then(text_of), error })
    }

    /// What it says.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match (self.result, self.error) {
            (Some(result), Some(url)) if result == "auth_url" => Outcome::AuthUrl(Plain::new(url)),
            (_, Some(error)) => Outcome::Failed(Plain::new(error)),
            (result, None) => Outcome::Done(result.map(Plain::new)),
        }
    }

    /// The text to encrypt.
    #[must_use]
    pub fn to_json(&self) -> Plain {
        let mut map = Map::new();
        map.insert("id".into(), self.id.to_value());
        map.insert("result".into(), self.result.as_deref().map_or(Value::Null, Value::from));
        if let Some(error) = &self.error {
            map.insert("error".into(), error.as_str().into());
        }
        Plain::new(Value::Object(map).to_string())
    }
}

/// Results are plaintexts; an error may be an address that logs in.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, result, error) = (&self.id, self.result.is_some(), self.error.is_some());
        write!(f, "Response {{ id: {id:?}, result: {result}, error: {error} }}")
    }
}

/// A string's text, or the JSON of what is no string; `None` for `null`.
fn text_of(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        json => Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
    }
}

/// An error's text; of an object (JSON-RPC style) its message.
fn error_text(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Rpc {
        message: String,
    }
    match serde_json::from_str::<Rpc>(raw.get()) {
        Ok(error) => Some(error.message),
        Err(_) => text_of(raw).filter(|text| text != "false"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Loss prevented: a signer that is half a standard off leaves every document unsigned.
    #[test]
    fn what_is_found_in_the_wild_is_read() {
        let id = || MessageId::Text("a".into());
        for (json, expected) in [
            (r#"{"id":"a","result":"ack"}"#, Response::result(id(), "ack".into())),
            (r#"{"id":"a","result":"ack","error":null}"#, Response::result(id(), "ack".into())),
            (r#"{"id":"a","result":"ack","error":""}"#, Response::result(id(), "ack".into())),
            (r#"{"id":"a","result":"ack","error":false}"#, Response::result(id(), "ack".into())),
            (r#"{"id":"a","result":null}"#, Response::null(id())),
            (r#"{"id":"a"}"#, Response::null(id())),
            (r#"{"id":"a","error":"no"}"#, Response::error(id(), "no".into())),
            (
                r#"{"id":"a","error":{"code":-1,"message":"no"}}"#,
                Response::error(id(), "no".into()),
            ),
            (r#"{"id":"a","result":{"b":1}}"#, Response::result(id(), r#"{"b":1}"#.into())),
            (r#"{"id":"a","result":["wss://x"]}"#, Response::result(id(), r#"["wss://x"]"#.into())),
            (r#"{"id":7,"result":true}"#, Response::result(MessageId::Number(7), "true".into())),
        ] {
            assert_eq!(Response::parse(json), Ok(expected), "{json}");
        }
        for json in [
            "",
            "[]",
            "null",
            r#"{"result":"ack"}"#,
            r#"{"id":null,"result":"ack"}"#,
            r#"{"id":"","result":"ack"}"#,
            r#"{"id":1.5,"result":"ack"}"#,
            r#"{"id":"a","method":"ping","params":[]}"#,
        ] {
            assert!(Response::parse(json).is_err(), "{json}");
        }
    }

    /// Loss prevented: a client whose `null` or number we do not expect never gets an answer.
    #[test]
    fn requests_are_read_with_odd_params() {
        let request = Request::parse(
            r#"{"id":5,"method":"connect","params":["a",null,7,{"kind":1},["x"]],"more":1}"#,
        );
        let some = |text: &str| Some(text.to_owned());
        let expected = Request {
            id: MessageId::Number(5),
            method: "connect".into(),
            params: vec![some("a"), None, some("7"), some(r#"{"kind":1}"#), some(r#"["x"]"#)],
        };
        assert_eq!(request, Ok(expected.clone()));
        assert_eq!(Request::parse(expected.to_json().expose()), Ok(expected));
        for json in [r#"{"id":"a","method":"ping"}"#, r#"{"id":"a","method":"ping","params":null}"#]
        {
            assert_eq!(Request::parse(json), Ok(Request::new("a", Method::Ping, vec![])), "{json}");
        }
        for json in [r#"{"id":"a","result":"x"}"#, r#"{"method":"ping","params":[]}"#, "7"] {
            assert!(Request::parse(json).is_err(), "{json}");
        }
    }

    /// Loss prevented: a login page that is taken for a failed signature, or for a good one.
    #[test]
    fn an_auth_challenge_is_no_failure_and_no_result() {
        let read = |json| Response::parse(json).unwrap().outcome();
        let plain = |text: &str| Plain::new(text.to_owned());
        assert_eq!(
            read(r#"{"id":"a","result":"auth_url","error":"https://x"}"#),
            Outcome::AuthUrl(plain("https://x"))
        );
        assert_eq!(read(r#"{"id":"a","result":"ack","error":"no"}"#), Outcome::Failed(plain("no")));
        assert_eq!(read(r#"{"id":"a","error":""}"#), Outcome::Done(None));
    }

    /// Loss prevented: secrets and plaintexts in a log.
    #[test]
    fn debug_shows_no_param_and_no_result() {
        let request = Request::new("a", Method::Connect, vec![Some("hush".into())]);
        let response = Response::result(MessageId::Number(1), "hush".into());
        let shown = format!("{request:?} {response:?} {:?} {:?}", request.to_json(), {
            response.clone().outcome()
        });
        assert!(!shown.contains("hush"), "{shown}");
    }

    proptest! {
        /// Loss prevented: a message that changes between writing and reading.
        #[test]
        fn messages_survive_the_round_trip(
            id in "\\PC{1,40}", method in "\\PC{0,20}", text in proptest::option::of("\\PC*"),
            params in proptest::collection::vec(proptest::option::of("\\PC*"), 0..4),
        ) {
            let request = Request { id: MessageId::Text(id), method, params };
            prop_assert_eq!(Request::parse(request.to_json().expose()), Ok(request.clone()));
            let response = Response { id: request.id, result: text, error: None };
            prop_assert_eq!(Response::parse(response.to_json().expose()), Ok(response.clone()));
            let response = Response::error(response.id, "no".into());
            prop_assert_eq!(Response::parse(response.to_json().expose()), Ok(response.clone()));
        }

        /// Loss prevented: one odd message stops the signer for everybody.
        #[test]
        fn no_text_panics(text in "\\PC*", inner in "[\\[\\]{}\",:a-z0-9. -]{0,60}") {
            let _ = (Request::parse(&text), Response::parse(&text));
            let odd = format!("{{\"id\":{inner},\"method\":{inner},\"params\":{inner}}}");
            let _ = (Request::parse(&odd), Response::parse(&odd));
        }
    }
}
