//! NIP-42: who is at the other end.
//!
//! Promise: an AUTH event counts for this connection and this relay only, and only now. What is
//! cheap is checked first; the signature is the caller's to check last.

use bitspire_shared::time::Unix;
use nostr::{Event, Kind, RelayUrl, TagKind};

use super::stats::Refusal;

/// What an AUTH event must match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) challenge: &'a str,
    pub(super) urls: &'a [RelayUrl],
    pub(super) now: Unix,
    /// Seconds that its created_at may be off.
    pub(super) window: u64,
}

impl Expected<'_> {
    /// Everything about `event` but its id and signature.
    pub(super) fn check(&self, event: &Event) -> Result<(), Refusal> {
        if event.kind != Kind::Authentication {
            return Err(Refusal::AuthKind);
        }
        if Unix(event.created_at.as_secs()).distance(self.now) > self.window {
            return Err(Refusal::AuthTime);
        }
        let content = |kind| event.tags.find(kind).and_then(|tag| tag.content());
        if content(TagKind::Challenge) != Some(self.challenge) {
            return Err(Refusal::AuthChallenge);
        }
        let relay = content(TagKind::Relay).and_then(|text| RelayUrl::parse(text).ok());
        let bare = |url: &RelayUrl| url.as_str_without_trailing_slash().to_owned();
        match relay {
            Some(relay) if self.urls.iter().any(|url| bare(url) == bare(&relay)) => Ok(()),
            _ => Err(Refusal::AuthRelay),
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Timestamp};

    use super::*;

    /// Loss prevented: an AUTH event made for another relay, or another connection, opens this one.
    #[test]
    fn an_auth_event_is_for_this_relay_and_connection_now() {
        let url = |text: &str| RelayUrl::parse(text).unwrap();
        let urls = [url("wss://relay.example/r"), url("ws://127.0.0.1:8443")];
        let expected = Expected { challenge: "c", urls: &urls, now: Unix(1000), window: 60 };
        let event = |builder: EventBuilder, at: u64| {
            let at = Timestamp::from(at);
            builder.custom_created_at(at).sign_with_keys(&Keys::generate()).unwrap()
        };
        let auth = |challenge: &str, relay: &str| EventBuilder::auth(challenge, url(relay));
        for relay in ["wss://relay.example/r", "wss://RELAY.example:443/r/", "ws://127.0.0.1:8443/"]
        {
            assert_eq!(expected.check(&event(auth("c", relay), 940)), Ok(()), "{relay}");
        }
        let ours = "wss://relay.example/r";
        for relay in ["wss://relay.example", "ws://relay.example/r", "wss://evil.example/r"] {
            assert_eq!(expected.check(&event(auth("c", relay), 1000)), Err(Refusal::AuthRelay));
        }
        for at in [939, 1061] {
            assert_eq!(expected.check(&event(auth("c", ours), at)), Err(Refusal::AuthTime));
        }
        let other = event(auth("d", ours), 1000);
        assert_eq!(expected.check(&other), Err(Refusal::AuthChallenge));
        let note = event(EventBuilder::text_note("c"), 1000);
        assert_eq!(expected.check(&note), Err(Refusal::AuthKind));
        let bare = event(EventBuilder::new(Kind::Authentication, ""), 1000);
        assert_eq!(expected.check(&bare), Err(Refusal::AuthChallenge));
    }
}
