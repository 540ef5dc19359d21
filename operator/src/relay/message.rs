//! Frames between client and relay (NIP-01, NIP-42), read on borrowed text.
//!
//! Promise: reading a frame copies nothing of an event and checks no signature. What comes out is
//! the verb and the raw parts; what an event or a filter holds is read by whoever needs it.
//!
//! Failure policy: anything else than a known verb with its parts is `None`, and one NOTICE.

use nostr::{EventId, JsonUtil, RelayMessage, SubscriptionId};
use serde_json::value::RawValue;

use super::stats::Refusal;

/// One message of a client.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// `["EVENT", event]`
    Event(&'a str),
    /// `["AUTH", event]`
    Auth(&'a str),
    /// `["REQ", id, filter...]`
    Req { id: String, filters: Vec<&'a str> },
    /// `["CLOSE", id]`
    Close { id: String },
    /// `["COUNT", id, ...]` (NIP-45)
    Count { id: String },
    /// `["NEG-OPEN" | "NEG-MSG" | "NEG-CLOSE", ...]` (NIP-77)
    Negentropy,
}

impl<'a> Frame<'a> {
    /// Reads one text message; `longest_id` bounds the subscription id in bytes.
    pub(super) fn parse(text: &'a str, longest_id: usize) -> Option<Self> {
        let parts: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
        let (verb, rest) = parts.split_first()?;
        let id = || {
            let id: String = serde_json::from_str(rest.first()?.get()).ok()?;
            (!id.is_empty() && id.len() <= longest_id).then_some(id)
        };
        Some(match (verb.get(), rest) {
            (r#""EVENT""#, [event]) => Self::Event(event.get()),
            (r#""AUTH""#, [event]) => Self::Auth(event.get()),
            (r#""REQ""#, [_, filters @ ..]) if !filters.is_empty() => {
                Self::Req { id: id()?, filters: filters.iter().map(|f| f.get()).collect() }
            }
            (r#""CLOSE""#, [_]) => Self::Close { id: id()? },
            (r#""COUNT""#, [_, ..]) => Self::Count { id: id()? },
            (r#""NEG-OPEN""# | r#""NEG-MSG""# | r#""NEG-CLOSE""#, _) => Self::Negentropy,
            _ => return None,
        })
    }
}

/// `["AUTH", challenge]`
pub(super) fn challenge(text: &str) -> String {
    RelayMessage::auth(text).as_json()
}

/// `["OK", id, true, text]`
pub(super) fn taken(id: EventId, text: &str) -> String {
    RelayMessage::ok(id, true, text).as_json()
}

/// `["OK", id, false, reason]`
pub(super) fn refused(id: EventId, refusal: Refusal) -> String {
    RelayMessage::ok(id, false, refusal.message()).as_json()
}

/// `["CLOSED", subscription, reason]`
pub(super) fn closed(id: &str, refusal: Refusal) -> String {
    RelayMessage::closed(SubscriptionId::new(id), refusal.message()).as_json()
}

/// `["EOSE", subscription]`
pub(super) fn end_of_stored(id: &str) -> String {
    RelayMessage::eose(SubscriptionId::new(id)).as_json()
}

/// `["NOTICE", text]`
pub(super) fn notice(text: &str) -> String {
    RelayMessage::notice(text).as_json()
}

/// `["EVENT", subscription, event]` of two texts that are JSON already: one event goes to many.
pub(super) fn event(id_json: &str, event_json: &str) -> String {
    format!(r#"["EVENT",{id_json},{event_json}]"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a frame that is half understood is answered as another one.
    #[test]
    fn only_whole_frames_are_read() {
        let parse = |text| Frame::parse(text, 4);
        assert!(matches!(parse(r#" [ "EVENT" , {"a":1} ] "#), Some(Frame::Event(r#"{"a":1}"#))));
        assert!(matches!(parse(r#"["AUTH",{}]"#), Some(Frame::Auth("{}"))));
        let Some(Frame::Req { id, filters }) = parse(r#"["REQ","\u0061",{},{"limit":1}]"#) else {
            panic!("a REQ with two filters");
        };
        assert_eq!((id.as_str(), filters), ("a", vec!["{}", r#"{"limit":1}"#]));
        assert!(matches!(parse(r#"["CLOSE","a"]"#), Some(Frame::Close { .. })));
        assert!(matches!(parse(r#"["COUNT","a",{}]"#), Some(Frame::Count { .. })));
        assert!(matches!(parse(r#"["NEG-OPEN","a",{},"61"]"#), Some(Frame::Negentropy)));
        for text in [
            "",
            "[]",
            "{}",
            "[1]",
            r#"["EVENT"]"#,
            r#"["EVENT",{},{}]"#,
            r#"["event",{}]"#,
            r#"["REQ","a"]"#,
            r#"["REQ","",{}]"#,
            r#"["REQ","12345",{}]"#,
            r#"["REQ",1,{}]"#,
            r#"["CLOSE"]"#,
            r#"["OK","a",true,""]"#,
            r#"["EVENT",{}"#,
            r#"["EVENT",{}] x"#,
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    /// Loss prevented: a client that waits for an OK of another shape resends for ever.
    #[test]
    fn answers_are_those_of_nip_01() {
        let id = EventId::all_zeros();
        let zeros = "0".repeat(64);
        assert_eq!(taken(id, ""), format!(r#"["OK","{zeros}",true,""]"#));
        assert!(refused(id, Refusal::AuthRequired).contains(r#"false,"auth-required: "#));
        assert!(closed("s", Refusal::Outside).starts_with(r#"["CLOSED","s","restricted: "#));
        assert_eq!(end_of_stored("s"), r#"["EOSE","s"]"#);
        assert_eq!(notice("x"), r#"["NOTICE","x"]"#);
        assert_eq!(challenge("c"), r#"["AUTH","c"]"#);
        assert_eq!(event(r#""s""#, "{}"), r#"["EVENT","s",{}]"#);
    }
}
