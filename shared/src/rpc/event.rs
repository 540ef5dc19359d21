//! The kind-21000 event around an encrypted message.
//!
//! Promise: tags are `p` (the reader), `e` (replies only: the request) and `expiration` (NIP-40),
//! 180 s after `created_at`; nothing else is in the clear. Time and ciphertext are arguments.

use nostr::{Kind, Tag, Timestamp, UnsignedEvent};

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

fn event(
    author: &PubKey,
    reader: &PubKey,
    request: Option<&EventId>,
    created_at: Unix,
    ciphertext: String,
) -> UnsignedEvent {
    let request = request.map(|id| Tag::event(nostr::EventId::from_byte_array(*id.as_bytes())));
    let expires = Tag::expiration(Timestamp::from(created_at.after(LIFETIME_S).0));
    let tags = [Some(Tag::public_key(reader.nostr())), request, Some(expires)];
    UnsignedEvent {
        id: None,
        pubkey: author.nostr(),
        created_at: Timestamp::from(created_at.0),
        kind: Kind::from(KIND),
        tags: tags.into_iter().flatten().collect(),
        content: ciphertext,
    }
}

#[cfg(test)]
mod tests {
    use nostr::JsonUtil;

    use super::*;
    use crate::rpc::fixtures::key;

    /// Loss prevented: a tag too few and the other side refuses every request as misaddressed.
    #[test]
    fn tags_are_reader_request_and_expiration() {
        let request = EventId::from_bytes([8; 32]);
        let at = Unix(1_800_000_000);
        let mut events = [
            request_event(&key(1), &key(2), at, "cipher".into()),
            reply_event(&key(2), &key(1), &request, at, "cipher".into()),
            push_event(&key(2), &key(1), at, "cipher".into()),
        ];
        events.iter_mut().for_each(UnsignedEvent::ensure_id);
        insta::assert_snapshot!(events.map(|event| event.as_json()).join("\n"));
    }
}
