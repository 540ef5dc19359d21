//! An event out of a relay's message, all of it.
//!
//! Promise: what is read is what the `nostr` crate reads of it, in less time: nothing is copied that is
//! only decoded, and each message goes through here on its way to the check of its signature. Not read
//! is what NIP-01 does not have: hex in upper case, keys in another spelling, kinds above 65535.
//!
//! Failure policy: what is not read is `None`; whoever reads counts it where it matters.

use nostr::secp256k1::schnorr::Signature;
use nostr::{Event, EventId, Kind, PublicKey, Tag, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::ids::from_hex;

/// The whole event of a relay's message `["EVENT", subscription, event]`, not verified; `None` for
/// any other text, and for hex that is not in lower case.
#[must_use]
pub fn whole_event(text: &str) -> Option<Event> {
    let (name, _, event): (&str, IgnoredAny, Whole<'_>) = serde_json::from_str(text).ok()?;
    if name != "EVENT" {
        return None;
    }
    let tags: Result<Vec<_>, _> = event.tags.into_iter().map(Tag::parse).collect();
    Some(Event::new(
        EventId::from_byte_array(from_hex("event id", event.id).ok()?),
        PublicKey::from_byte_array(from_hex("public key", event.pubkey).ok()?),
        Timestamp::from_secs(event.created_at),
        Kind::from_u16(event.kind),
        tags.ok()?,
        event.content,
        Signature::from_slice(&from_hex::<64>("signature", event.sig).ok()?).ok()?,
    ))
}

/// The fields of an event, as they stand in the frame.
#[derive(Deserialize)]
struct Whole<'a> {
    id: &'a str,
    pubkey: &'a str,
    created_at: u64,
    kind: u16,
    tags: Vec<Vec<String>>,
    content: String,
    sig: &'a str,
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, JsonUtil as _, Keys};
    use proptest::prelude::*;

    use super::*;

    fn event(kind: u16, content: &str, tags: Vec<Vec<String>>, at: u64) -> Event {
        EventBuilder::new(Kind::from(kind), content)
            .tags(tags.into_iter().map(|tag| Tag::parse(tag).unwrap()))
            .custom_created_at(Timestamp::from(at))
            .sign_with_keys(&Keys::parse(&"01".repeat(32)).unwrap())
            .unwrap()
    }

    fn whole(json: &str) -> Option<Event> {
        whole_event(&format!("[\"EVENT\",\"sub\",{json}]"))
    }

    /// Loss prevented: an event that is read by a rule that other programs do not have, so that it is
    /// there for one of them and not for another.
    #[test]
    fn what_is_no_event_to_all_is_none() {
        let event = event(21_000, "text", vec![vec!["p".into(), "ab".repeat(32)]], 1_000);
        let json = event.as_json();
        assert_eq!(whole(&json), Some(event.clone()));
        for (part, other) in [
            (event.id.to_hex(), event.id.to_hex().to_uppercase()),
            (event.pubkey.to_hex(), event.pubkey.to_hex().to_uppercase()),
            (event.sig.to_string(), event.sig.to_string().to_uppercase()),
            (event.sig.to_string(), "ab".into()),
            ("\"kind\":21000".into(), "\"kind\":70000".into()),
            ("\"tags\":[".into(), "\"tags\":[[],".into()),
            ("\"content\"".into(), "\"kontent\"".into()),
        ] {
            let changed = json.replacen(&part, &other, 1);
            assert_ne!(changed, json);
            assert_eq!(whole(&changed), None, "{changed}");
        }
        assert_eq!(whole_event(&format!("[\"EVENT\",{json}]")), None);
        assert_eq!(whole_event(&format!("[\"COUNT\",\"sub\",{json}]")), None);
    }

    proptest! {
        /// Loss prevented: an event whose text needs escapes is read as another one, does not hold, and
        /// is lost.
        #[test]
        fn what_is_read_is_what_was_written(
            kind: u16, content: String, at in 0..=u64::from(u32::MAX),
            tags in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
        ) {
            let event = event(kind, &content, tags, at);
            prop_assert_eq!(whole(&event.as_json()), Some(event));
        }
    }
}
