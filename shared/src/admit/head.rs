//! What is read of an event before anything in it is believed.
//!
//! Promise: a [`EventHead`] borrows from the frame and allocates nothing: strings that matter here
//! never need escapes, and content and signature are skipped. What is said twice (a field, a `p` or
//! an `expiration` tag) is refused, so that no two readers of one event see two different heads.
//!
//! Failure policy: what is no event at all is [`Refusal::Malformed`]; other relay messages
//! (NIP-01: EOSE, OK, NOTICE, CLOSED, AUTH) are [`Frame::Other`].

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::admit::Refusal;
use crate::ids::from_hex;
use crate::time::Unix;

/// One message of a relay or client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `["EVENT", subscription, event]`, `["EVENT", event]` or a bare event.
    Event(EventHead<'a>),
    /// Any other message.
    Other,
}

/// The head of an event, as it stands in the frame; nothing in it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct EventHead<'a> {
    /// Its id, 64 hex characters if it is right.
    pub id: &'a str,
    /// Its author, likewise.
    pub pubkey: &'a str,
    /// Its kind.
    pub kind: u16,
    /// When its author says that it was made.
    pub created_at: Unix,
    /// The tags that matter.
    #[serde(borrow)]
    pub tags: HeadTags<'a>,
}

/// The tags of an event that matter before its signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadTags<'a> {
    /// The value of its `p` tag.
    pub p: Option<&'a str>,
    /// The value of its `expiration` tag (NIP-40).
    pub expiration: Option<&'a str>,
}

/// A head whose fields have their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its id; not known to be right before it was verified.
    pub id: [u8; 32],
    /// Its author; likewise, and maybe no point on the curve.
    pub pubkey: [u8; 32],
    /// Its kind.
    pub kind: u16,
    /// When its author says that it was made.
    pub created_at: Unix,
    /// Whom it is for.
    pub recipient: Option<[u8; 32]>,
    /// When it is void.
    pub expiration: Option<Unix>,
}

impl<'a> Frame<'a> {
    /// Reads a text message.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        serde_json::from_str(text).map_err(|_| Refusal::Malformed)
    }
}

impl EventHead<'_> {
    /// Checks the form of the fields.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(&self) -> Result<Head, Refusal> {
        decode(
            from_hex("event id", self.id).map_err(|_| Refusal::Malformed)?,
            from_hex("public key", self.pubkey).map_err(|_| Refusal::Malformed)?,
            self.kind,
            self.created_at,
            self.tags,
        )
    }
}

impl Head {
    /// The head of an event that the `nostr` crate has read.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn of(event: &nostr::Event) -> Result<Self, Refusal> {
        let mut tags = HeadTags::default();
        for tag in event.tags.iter() {
            if let [name, value, ..] = tag.as_slice() {
                tags.take(name, value)?;
            }
        }
        let (id, pubkey) = (event.id.to_bytes(), event.pubkey.to_bytes());
        decode(id, pubkey, event.kind.as_u16(), Unix(event.created_at.as_secs()), tags)
    }
}

fn decode(
    id: [u8; 32],
    pubkey: [u8; 32],
    kind: u16,
    created_at: Unix,
    tags: HeadTags<'_>,
) -> Result<Head, Refusal> {
    let recipient = match tags.p {
        Some(hex) => Some(from_hex("public key", hex).map_err(|_| Refusal::Malformed)?),
        None => None,
    };
    let expiration = match tags.expiration {
        Some(digits) if digits.starts_with('+') => return Err(Refusal::Malformed),
        Some(digits) => Some(Unix(digits.parse().map_err(|_| Refusal::Malformed)?)),
        None => None,
    };
    Ok(Head { id, pubkey, kind, created_at, recipient, expiration })
}

impl<'a> HeadTags<'a> {
    /// Takes a tag if it matters; a second of its name is refused.
    fn take(&mut self, name: &str, value: &'a str) -> Result<(), Refusal> {
        let slot = match name {
            "p" => &mut self.p,
            "expiration" => &mut self.expiration,
            _ => return Ok(()),
        };
        if slot.replace(value).is_some() { Err(Refusal::Malformed) } else { Ok(()) }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Message;
        impl<'de> Visitor<'de> for Message {
            type Value = Frame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message of a relay or client, or an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                EventHead::deserialize(MapAccessDeserializer::new(map)).map(Frame::Event)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let name: &str = seq.next_element()?.ok_or_else(|| missing("a name"))?;
                let frame = if name == "EVENT" {
                    let part = seq.next_element()?.ok_or_else(|| missing("an event"))?;
                    match part {
                        Part::Event(head) => Frame::Event(head),
                        Part::Subscription => {
                            Frame::Event(seq.next_element()?.ok_or_else(|| missing("an event"))?)
                        }
                    }
                } else {
                    Frame::Other
                };
                while let Some(IgnoredAny) = seq.next_element()? {
                    if frame != Frame::Other {
                        return Err(de::Error::custom("expected one event"));
                    }
                }
                Ok(frame)
            }
        }
        d.deserialize_any(Message)
    }
}

fn missing<E: de::Error>(what: &'static str) -> E {
    de::Error::custom(format_args!("expected {what}"))
}

/// What stands second in an EVENT message.
enum Part<'a> {
    Subscription,
    Event(EventHead<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Second;
        impl<'de> Visitor<'de> for Second {
            type Value = Part<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a subscription id or an event")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Part::Subscription)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                EventHead::deserialize(MapAccessDeserializer::new(map)).map(Part::Event)
            }
        }
        d.deserialize_any(Second)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for HeadTags<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = HeadTags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut tags = HeadTags::default();
                while let Some(Tag { name, value }) = seq.next_element()? {
                    tags.take(name, value).map_err(de::Error::custom)?;
                }
                Ok(tags)
            }
        }
        d.deserialize_seq(List)
    }
}

/// Name and value of one tag, without their quotes; escapes stay as they are, so an escaped name
/// is another name and an escaped value has no form.
struct Tag<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'de: 'a, 'a> Deserialize<'de> for Tag<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Tag<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut next = || -> Result<&'de str, A::Error> {
                    let raw: Option<&'de RawValue> = seq.next_element()?;
                    let text = raw.map_or("", RawValue::get);
                    Ok(text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(""))
                };
                let tag = Tag { name: next()?, value: next()? };
                while let Some(IgnoredAny) = seq.next_element()? {}
                Ok(tag)
            }
        }
        d.deserialize_seq(Strings)
    }
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag as NostrTag, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn event(content: &str, tags: Vec<Vec<String>>, at: u64) -> nostr::Event {
        let keys = Keys::parse(&"01".repeat(32)).unwrap();
        EventBuilder::new(Kind::from(21_000), content)
            .tags(tags.into_iter().map(|tag| NostrTag::parse(tag).unwrap()))
            .custom_created_at(Timestamp::from(at))
            .sign_with_keys(&keys)
            .unwrap()
    }

    fn head(text: &str) -> Result<Head, Refusal> {
        match Frame::parse(text)? {
            Frame::Event(head) => head.decode(),
            Frame::Other => panic!("not an event: {text}"),
        }
    }

    /// Loss prevented: an allocation for each frame of a flood.
    #[test]
    fn the_head_borrows_from_the_frame() {
        let p = vec!["p".into(), "ab".repeat(32)];
        let json = event("a \"quoted\" text", vec![p], 1_000).as_json();
        let frame = format!("[\"EVENT\",\"sub\",{json}]");
        let Ok(Frame::Event(head)) = Frame::parse(&frame) else { panic!("{frame}") };
        let inside = frame.as_bytes().as_ptr_range();
        for field in [head.id, head.pubkey, head.tags.p.unwrap()] {
            assert!(inside.contains(&field.as_ptr()), "{field} was copied");
        }
    }

    /// Loss prevented: an event that one of the three forms hides from the checks.
    #[test]
    fn each_form_of_a_message_is_read() {
        let p = vec!["p".into(), "ab".repeat(32)];
        let event = event("text", vec![p], 1_000);
        let json = event.as_json();
        let expected = Head::of(&event);
        for text in [
            json.clone(),
            format!("[\"EVENT\",{json}]"),
            format!(" [ \"EVENT\" , \"s\\u0041b\" , {json} ] "),
        ] {
            assert_eq!(head(&text), expected, "{text}");
        }
        for other in ["[\"EOSE\",\"sub\"]", "[\"OK\",\"ab\",false,\"x\"]", "[\"NEW\",[{}],1]"] {
            assert_eq!(Frame::parse(other), Ok(Frame::Other), "{other}");
        }
        for bad in ["", "[]", "{}", "1", "null", "[1]", "[\"EVENT\"]", "[\"EVENT\",\"sub\"]"] {
            assert_eq!(Frame::parse(bad), Err(Refusal::Malformed), "{bad}");
        }
        let two = format!("[\"EVENT\",\"sub\",{json},{json}]");
        assert_eq!(Frame::parse(&two), Err(Refusal::Malformed));
    }

    /// Loss prevented: a head that shows the gate a rostered author and the verifier another.
    #[test]
    fn what_is_said_twice_is_refused() {
        let tag = |name: &str, value: &str| vec![name.to_string(), value.to_string()];
        let (a, b) = ("ab".repeat(32), "cd".repeat(32));
        let json = event("text", vec![tag("p", &a)], 1_000).as_json();
        let twice = json.replacen('{', &format!("{{\"pubkey\":\"{b}\","), 1);
        assert_eq!(head(&twice), Err(Refusal::Malformed));
        for tags in [
            vec![tag("p", &a), tag("p", &b)],
            vec![tag("expiration", "5"), tag("expiration", "5000")],
            vec![tag("expiration", "+5")],
            vec![tag("expiration", "soon")],
            vec![tag("p", "ab")],
            vec![tag("p", &a.to_uppercase())],
        ] {
            let event = event("text", tags, 1_000);
            assert_eq!(head(&event.as_json()), Err(Refusal::Malformed), "{event:?}");
            assert_eq!(Head::of(&event), Err(Refusal::Malformed));
        }
    }

    proptest! {
        /// Loss prevented: the gate and the verifier read one event in two ways.
        #[test]
        fn agrees_with_the_full_reader(
            content in ".{0,200}", at in 0u64..4_000_000_000, expiration in any::<Option<u64>>(),
            extra in prop::collection::vec(prop::collection::vec("[a-z\"\\\\\u{e9}]{1,8}", 1..4), 0..4),
        ) {
            let mut tags: Vec<Vec<String>> =
                extra.into_iter().filter(|tag| tag[0] != "p").collect();
            tags.push(vec!["p".into(), "ab".repeat(32)]);
            tags.extend(expiration.map(|at| vec!["expiration".into(), at.to_string()]));
            let event = event(&content, tags, at);
            let read = head(&event.as_json());
            prop_assert!(read.is_ok());
            prop_assert_eq!(read, Head::of(&event));
        }

        /// Loss prevented: bytes from the wire that stop the gate.
        #[test]
        fn no_text_panics(text in ".{0,200}", inner in "[\\[\\]{}\",:a-z0-9]{0,60}") {
            let _ = Frame::parse(&text);
            let _ = Frame::parse(&format!("[\"EVENT\",{inner}]"));
        }
    }
}
