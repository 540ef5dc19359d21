//! An event's id and its signature (NIP-01), as the `nostr` crate has them, in less time.
//!
//! Promise: the id is SHA-256 of `[0,pubkey,created_at,kind,tags,content]` without white space. The
//! text is written at once, not made into a tree first, and whose key's point is known is not put on
//! the curve again: each costs a tenth of the check, which every message goes through.

use nostr::event::Tags;
use nostr::secp256k1::Message;
use nostr::{Event, EventId, Keys, Kind, PublicKey, SECP256K1, Timestamp, UnsignedEvent};
use sha2::{Digest as _, Sha256};

use crate::points;

/// The id of an event with these fields.
#[must_use]
pub fn id_of(
    author: &PublicKey,
    created_at: &Timestamp,
    kind: &Kind,
    tags: &Tags,
    content: &str,
) -> EventId {
    match serde_json::to_vec(&(0, author, created_at, kind, tags, content)) {
        Ok(text) => EventId::from_byte_array(Sha256::digest(text).into()),
        // none of these fields refuses to be written
        Err(_) => EventId::new(author, created_at, kind, tags, content),
    }
}

/// Signs an event, under its id as it is now.
#[must_use]
pub fn signed(event: UnsignedEvent, keys: &Keys) -> Event {
    let UnsignedEvent { id: _, pubkey, created_at, kind, tags, content } = event;
    let id = id_of(&pubkey, &created_at, &kind, &tags, &content);
    let sig = keys.sign_schnorr(&Message::from_digest(id.to_bytes()));
    Event::new(id, pubkey, created_at, kind, tags, content, sig)
}

/// Whether the id is the event's own.
#[must_use]
pub fn id_holds(event: &Event) -> bool {
    let Event { id, pubkey, created_at, kind, tags, content, .. } = event;
    id_of(pubkey, created_at, kind, tags, content) == *id
}

/// Whether the signature is its author's, over the id that the event names; whether that is its own says
/// [`id_holds`].
#[must_use]
pub fn signature_holds(event: &Event) -> bool {
    let Ok(point) = points::of(&event.pubkey) else { return false };
    let message = Message::from_digest(event.id.to_bytes());
    SECP256K1.verify_schnorr(&event.sig, &message, &point).is_ok()
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Tag};
    use proptest::prelude::*;

    use super::*;

    /// Loss prevented: a forged event that is believed.
    #[test]
    fn what_was_changed_or_signed_by_another_does_not_hold() {
        let (keys, other) = (Keys::generate(), Keys::generate());
        let good = EventBuilder::text_note("good").sign_with_keys(&keys).unwrap();
        assert!(id_holds(&good) && signature_holds(&good));
        let foreign = EventBuilder::text_note("good").sign_with_keys(&other).unwrap();
        type Change<'a> = &'a dyn Fn(&mut Event);
        let changed = |change: Change<'_>| {
            let mut event = good.clone();
            change(&mut event);
            event
        };
        let by_other: [Change<'_>; 2] =
            [&|event| event.sig = foreign.sig, &|event| event.pubkey = foreign.pubkey];
        for change in by_other {
            assert!(!signature_holds(&changed(change)));
        }
        let changes: [Change<'_>; 6] = [
            &|event| event.pubkey = foreign.pubkey,
            &|event| event.created_at = Timestamp::from(7),
            &|event| event.kind = Kind::from(7),
            &|event| event.tags.push(Tag::hashtag("more")),
            &|event| event.content.push('!'),
            &|event| event.id = foreign.id,
        ];
        for change in changes {
            assert!(!id_holds(&changed(change)));
        }
    }

    /// Loss prevented: answers that every machine drops, since they are signed under another id.
    #[test]
    fn what_is_signed_holds() {
        let keys = Keys::generate();
        let event = EventBuilder::text_note("one").build(keys.public_key());
        assert_eq!(signed(event, &keys).verify(), Ok(()));
    }

    proptest! {
        /// Loss prevented: an event whose text needs escapes has another id here than everywhere else,
        /// and every relay and machine refuses it.
        #[test]
        fn the_id_is_that_of_the_nostr_crate(
            content in any::<String>(),
            tags in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
            kind: u16,
            at: u64,
        ) {
            let tags: Vec<_> = tags.into_iter().map(|tag| Tag::parse(tag).unwrap()).collect();
            let (author, kind) = (Keys::generate().public_key(), Kind::from(kind));
            let at = Timestamp::from(at);
            let tags = Tags::from_list(tags);
            let expected = EventId::new(&author, &at, &kind, &tags, &content);
            prop_assert_eq!(id_of(&author, &at, &kind, &tags, &content), expected);
        }
    }
}
