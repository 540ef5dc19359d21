//! The kind-21000 event around an encrypted message.
//!
//! Promise: tags are `p` (the reader), `e` (replies only: the request) and `expiration` (NIP-40),
//! 180 s after `created_at`; nothing else is in the clear. Time and ciphertext are arguments.

use nostr::secp256k1::Message;
use nostr::{Event, EventBuilder, Keys, Kind, Tag, Timestamp, UnsignedEvent};

use crate::ids::{EventId, PubKey};
use crate::time::Unix;

/// Kind of every RPC event: ephemeral (NIP-01), so a relay need not keep it.
pub const KIND: u16 = 21_000;

/// Seconds from `created_at` to `expiration`.
pub const LIFETIME_S: u64 = 180;

/// A request by the machine's spire or session key.
#[must_use]
pub fn request_event(
    author: &PubKey,
    service: &PubKey,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    event(author, service, None, created_at, ciphertext)
}

/// A reply of the service to the event `request` of `reader`.
#[must_use]
pub fn reply_event(
    service: &PubKey,
    reader: &PubKey,
    request: &EventId,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    event(service, reader, Some(request), created_at, ciphertext)
}

/// A push of the service to the machine's spire or session key.
#[must_use]
pub fn push_event(
    service: &PubKey,
    reader: &PubKey,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    event(service, reader, None, created_at, ciphertext)
}

/// Signs an event under the id that it was made with; the `nostr` crate computes it a second time.
#[must_use]
pub fn signed(mut event: UnsignedEvent, keys: &Keys) -> Event {
    let id = event.id();
    let sig = keys.sign_schnorr(&Message::from_digest(id.to_bytes()));
    let UnsignedEvent { pubkey, created_at, kind, tags, content, .. } = event;
    Event::new(id, pubkey, created_at, kind, tags, content, sig)
}

fn event(
    author: &PubKey,
    reader: &PubKey,
    request: Option<&EventId>,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    let request = request.map(|id| Tag::event(nostr::EventId::from_byte_array(*id.as_bytes())));
    EventBuilder::new(Kind::from(KIND), ciphertext)
        .tag(Tag::public_key(reader.nostr()))
        .tag_maybe(request)
        .tag(Tag::expiration(Timestamp::from(created_at.after(LIFETIME_S).0)))
        .custom_created_at(Timestamp::from(created_at.0))
        .build(author.nostr())
}

#[cfg(test)]
mod tests {
    use nostr::JsonUtil;

    use super::*;
    use crate::rpc::fixtures::{key, keys};

    /// Loss prevented: a tag too few and the other side refuses every request as misaddressed.
    #[test]
    fn tags_are_reader_request_and_expiration() {
        let request = EventId::from_bytes([8; 32]);
        let at = Unix(1_800_000_000);
        let events = [
            request_event(&key(1), &key(2), at, "cipher".into()),
            reply_event(&key(2), &key(1), &request, at, "cipher".into()),
            push_event(&key(2), &key(1), at, "cipher".into()),
        ];
        insta::assert_snapshot!(events.map(|event| event.as_json()).join("\n"));
    }

    /// Loss prevented: answers that every machine drops, since they are signed under another id.
    #[test]
    fn what_is_signed_holds() {
        let event = push_event(&key(2), &key(1), Unix(1_800_000_000), "cipher".into());
        assert_eq!(signed(event, &keys(2)).verify(), Ok(()));
    }
}
