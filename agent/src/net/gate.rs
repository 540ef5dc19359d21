//! What comes in from relays before a signature is checked.
//!
//! Promise: an event costs a signature check only if its head names the one key that may author its
//! kind: the bunker's signer, the service, the operator. Whether it is addressed to us, fresh and
//! an answer is decided later, on a verified event.
//!
//! Failure policy: a frame that cannot be read is dropped; relay messages other than events pass.

use std::sync::Arc;

use bitspire_shared::admit::Frame;
use bitspire_shared::document::DOCUMENT_KIND;
use bitspire_shared::ids::PubKey;
use bitspire_shared::{nip46, rpc};
use bitspire_shell::pool::FrameFilter;

use crate::ipc::NetPins;

/// The filter of a machine: `signer` is the bunker's; before the pairing nobody else is heard.
pub(super) fn filter(signer: &PubKey, pins: Option<&NetPins>) -> FrameFilter {
    let mut known = vec![(nip46::KIND, signer.to_string())];
    if let Some(pins) = pins {
        known.push((rpc::KIND, pins.service.to_string()));
        known.push((DOCUMENT_KIND, pins.operator.to_string()));
    }
    Arc::new(move |text: &str| match Frame::parse(text) {
        Ok(Frame::Event(head)) => {
            known.iter().any(|(kind, key)| *kind == head.kind && key == head.pubkey)
        }
        Ok(Frame::Other) => true,
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, JsonUtil as _, Keys, Kind};

    use super::*;

    /// Loss prevented: strangers on a public relay make the machine check signatures all day.
    #[test]
    fn only_the_known_authors_of_each_kind_pass() {
        let keys: Vec<Keys> = (0..4).map(|_| Keys::generate()).collect();
        let key = |n: usize| PubKey::new(keys[n].public_key()).unwrap();
        let pins = NetPins { spire: key(3), operator: key(1), service: key(2) };
        let frame = |author: usize, kind: u16| {
            let event = EventBuilder::new(Kind::from(kind), "x").sign_with_keys(&keys[author]);
            format!("[\"EVENT\",\"sub\",{}]", event.unwrap().as_json())
        };
        let paired = filter(&key(0), Some(&pins));
        let pairing = filter(&key(0), None);
        for (author, kind, after, before) in [
            (0, nip46::KIND, true, true),
            (1, DOCUMENT_KIND, true, false),
            (2, rpc::KIND, true, false),
            (2, DOCUMENT_KIND, false, false),
            (1, rpc::KIND, false, false),
            (3, nip46::KIND, false, false),
            (3, rpc::KIND, false, false),
        ] {
            let frame = frame(author, kind);
            assert_eq!(paired.keeps(&frame), after, "author {author} kind {kind}");
            assert_eq!(pairing.keeps(&frame), before, "author {author} kind {kind}");
        }
        for other in ["[\"AUTH\",\"x\"]", "[\"OK\",\"ab\",true,\"\"]", "[\"EOSE\",\"s\"]"] {
            assert!(paired.keeps(other), "{other}");
        }
        assert!(!paired.keeps("[\"EVENT\",\"sub\"]"));
    }
}
