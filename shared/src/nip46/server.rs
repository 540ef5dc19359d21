//! The signer's end: a decrypted request becomes a typed call, and a call gets one reply.
//!
//! Promise: pure; one [`Server`] serves any number of keys. Whether a call is allowed is for
//! [`policy`](super::policy) to say, signing and encryption are the shell's.
//!
//! Failure policy: what is no request, or came before, is [`Dropped`] and never answered. A request
//! whose method or params are wrong is a call, too ([`Call::Unknown`], [`Call::Invalid`]), and its
//! reply is an error: the client would otherwise wait for its timeout.

use nostr::{Event, Kind as EventKind, Tag, Timestamp, UnsignedEvent};
use serde::Deserialize;
use thiserror::Error;

use super::message::{MessageId, Method, Plain, Request, Response};
use super::seen::Seen;
use crate::ids::{EventId, PubKey};
use crate::seed::BunkerSecret;

/// Event ids that are remembered: minutes of a busy bunker, a quarter of a megabyte.
const REMEMBERED: usize = 4_096;
/// Longest part of a client's text that an answer repeats, in characters.
const MAX_QUOTE: usize = 40;
/// Permissions that are read from one `connect`.
const MAX_PERMS: usize = 64;

/// Why a message gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Dropped {
    /// This event was handled before.
    #[error("NIP-46: this event was handled before")]
    Duplicate,
    /// Not a request.
    #[error("NIP-46: expected a request")]
    Malformed,
}

/// One entry of `connect`'s third param, such as `sign_event:21000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perm {
    /// The method.
    pub method: Method,
    /// The event kind, for `sign_event`.
    pub kind: Option<u16>,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// To be let in. The first param, the signer's key, is not looked at: the event named it.
    Connect {
        /// What it shows for it.
        secret: Option<BunkerSecret>,
        /// What it would like; what it gets, the policy of its token says.
        perms: Vec<Perm>,
    },
    /// A signature over this event, whose author is the key that was asked.
    SignEvent(Box<UnsignedEvent>),
    /// A sign of life.
    Ping,
    /// The key that signs.
    GetPublicKey,
    /// NIP-44 to `peer`.
    Nip44Encrypt {
        /// The other key.
        peer: PubKey,
        /// The text.
        plaintext: Plain,
    },
    /// NIP-44 from `peer`.
    Nip44Decrypt {
        /// The other key.
        peer: PubKey,
        /// The payload.
        payload: String,
    },
    /// NIP-04 to `peer`; our own client never asks for it.
    Nip04Encrypt {
        /// The other key.
        peer: PubKey,
        /// The text.
        plaintext: Plain,
    },
    /// NIP-04 from `peer`; our own client never asks for it.
    Nip04Decrypt {
        /// The other key.
        peer: PubKey,
        /// The payload.
        payload: String,
    },
    /// Whether other relays would be better; they would not.
    SwitchRelays,
    /// To be forgotten.
    Logout,
    /// A method that this signer does not have.
    Unknown {
        /// At most 40 characters of its name.
        method: String,
    },
    /// Params that do not fit the method.
    Invalid {
        /// The method.
        method: Method,
        /// What it expects.
        expected: &'static str,
    },
}

impl Call {
    fn read(request: &Request, user: &PubKey) -> Self {
        let Ok(method) = request.method.parse() else {
            return Self::Unknown { method: request.method.chars().take(MAX_QUOTE).collect() };
        };
        let params = Params(&request.params);
        let call = match method {
            Method::Connect => params.connect(),
            Method::SignEvent => params.event(user),
            Method::Ping => Ok(Self::Ping),
            Method::GetPublicKey => Ok(Self::GetPublicKey),
            Method::Nip44Encrypt => {
                params.plaintext().map(|(peer, plaintext)| Self::Nip44Encrypt { peer, plaintext })
            }
            Method::Nip44Decrypt => {
                params.peer().map(|(peer, payload)| Self::Nip44Decrypt { peer, payload })
            }
            Method::Nip04Encrypt => {
                params.plaintext().map(|(peer, plaintext)| Self::Nip04Encrypt { peer, plaintext })
            }
            Method::Nip04Decrypt => {
                params.peer().map(|(peer, payload)| Self::Nip04Decrypt { peer, payload })
            }
            Method::SwitchRelays => Ok(Self::SwitchRelays),
            Method::Logout => Ok(Self::Logout),
        };
        call.unwrap_or_else(|expected| Self::Invalid { method, expected })
    }
}

/// A request that is to be decided on and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Comes back in the reply.
    pub id: MessageId,
    /// Who asks: the author of the event.
    pub client: PubKey,
    /// What for.
    pub call: Call,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `connect` and `logout` worked.
    Ack,
    /// To a ping.
    Pong,
    /// To `get_public_key`.
    PublicKey(PubKey),
    /// To `sign_event`.
    Signed(Box<Event>),
    /// To encryption and decryption.
    Text(Plain),
    /// To `switch_relays`: stay.
    Null,
    /// No; in words that a person can act on.
    Error(String),
}

impl Incoming {
    /// The response to encrypt for [`client`](Self::client).
    #[must_use]
    pub fn respond(&self, reply: Reply) -> Response {
        let id = self.id.clone();
        match reply {
            Reply::Ack => Response::result(id, "ack".into()),
            Reply::Pong => Response::result(id, "pong".into()),
            Reply::PublicKey(key) => Response::result(id, key.to_string()),
            Reply::Signed(event) => match serde_json::to_string(&event) {
                Ok(json) => Response::result(id, json),
                Err(_) => Response::error(id, "the signed event cannot be written".into()),
            },
            Reply::Text(text) => Response::result(id, text.expose().to_owned()),
            Reply::Null => Response::null(id),
            Reply::Error(text) => Response::error(id, text),
        }
    }

    /// The reply that needs no key and no permission: to what is unknown or unreadable.
    #[must_use]
    pub fn refusal(&self) -> Option<Reply> {
        match &self.call {
            Call::Unknown { method } => Some(Reply::Error(format!("unknown method {method:?}"))),
            Call::Invalid { method, expected } => {
                Some(Reply::Error(format!("{method}: expected {expected}")))
            }
            _ => None,
        }
    }
}

/// What a signer remembers between messages.
#[derive(Clone, Debug)]
pub struct Server {
    seen: Seen,
}

impl Default for Server {
    fn default() -> Self {
        Self { seen: Seen::new(REMEMBERED) }
    }
}

impl Server {
    /// Takes the plaintext of an event by `client` for the key `user`. The shell has verified the
    /// event: a forged copy must not burn the id of a real one.
    ///
    /// # Errors
    /// [`Dropped`]: no answer.
    pub fn receive(
        &mut self,
        event: EventId,
        client: PubKey,
        user: &PubKey,
        plaintext: &str,
    ) -> Result<Incoming, Dropped> {
        if !self.seen.insert(event) {
            return Err(Dropped::Duplicate);
        }
        let request = Request::parse(plaintext).map_err(|_| Dropped::Malformed)?;
        let call = Call::read(&request, user);
        Ok(Incoming { id: request.id, client, call })
    }
}

/// Params by position; an error is what was expected.
struct Params<'a>(&'a [Option<String>]);

impl Params<'_> {
    /// `null`, an empty string and nothing at all are the same: clients use all three.
    fn get(&self, at: usize) -> Option<&str> {
        self.0.get(at)?.as_deref().filter(|text| !text.is_empty())
    }

    fn connect(&self) -> Result<Call, &'static str> {
        let secret = self.get(1).map(BunkerSecret::new).transpose();
        let secret = secret.map_err(|_| "a secret of at most 512 characters")?;
        let perms = self.get(2).unwrap_or_default().split(',').filter_map(perm);
        Ok(Call::Connect { secret, perms: perms.take(MAX_PERMS).collect() })
    }

    fn event(&self, user: &PubKey) -> Result<Call, &'static str> {
        /// What the NIP asks for, and the author that some clients add; the rest is not looked at.
        #[derive(Deserialize)]
        struct Wire {
            kind: u16,
            content: String,
            #[serde(default)]
            tags: Vec<Vec<String>>,
            created_at: u64,
            #[serde(default)]
            pubkey: Option<PubKey>,
        }
        let json = self.get(0).ok_or("an event")?;
        let wire: Wire = serde_json::from_str(json)
            .map_err(|_| "an event with kind, content, tags and created_at")?;
        if wire.pubkey.is_some_and(|pubkey| pubkey != *user) {
            return Err("an event by the key of this connection");
        }
        let tags = wire.tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>();
        let event = UnsignedEvent::new(
            user.nostr(),
            Timestamp::from(wire.created_at),
            EventKind::from(wire.kind),
            tags.map_err(|_| "tags that are not empty")?,
            wire.content,
        );
        Ok(Call::SignEvent(Box::new(event)))
    }

    fn peer(&self) -> Result<(PubKey, String), &'static str> {
        let peer = self.get(0).and_then(|text| text.parse().ok());
        let peer = peer.ok_or("the other side's public key in hex")?;
        Ok((peer, self.get(1).ok_or("a text that is not empty")?.to_owned()))
    }

    fn plaintext(&self) -> Result<(PubKey, Plain), &'static str> {
        self.peer().map(|(peer, text)| (peer, Plain::new(text)))
    }
}

/// `method` or `method:kind`; what cannot be read is not asked for.
fn perm(text: &str) -> Option<Perm> {
    let (method, kind) = match text.trim().split_once(':') {
        Some((method, kind)) => (method, Some(kind.parse().ok()?)),
        None => (text.trim(), None),
    };
    Some(Perm { method: method.parse().ok()?, kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::test_keys::{key, keys};

    fn receive(plaintext: &str) -> Result<Incoming, Dropped> {
        Server::default().receive(EventId::from_bytes([1; 32]), key(9), &key(1), plaintext)
    }

    fn call(method: &str, params: Value) -> Call {
        receive(&json!({"id": "a", "method": method, "params": params}).to_string()).unwrap().call
    }

    /// Loss prevented: a request that is read as another one, signed by mistake.
    #[test]
    fn each_method_is_its_own_call() {
        let peer = key(2);
        let hex = peer.to_string();
        let plain = |text: &str| Plain::new(text.to_owned());
        assert_eq!(call("ping", json!([])), Call::Ping);
        assert_eq!(call("get_public_key", json!(null)), Call::GetPublicKey);
        assert_eq!(call("switch_relays", json!([])), Call::SwitchRelays);
        assert_eq!(call("logout", json!([])), Call::Logout);
        let plaintext = plain("hi");
        assert_eq!(
            call("nip44_encrypt", json!([hex, "hi"])),
            Call::Nip44Encrypt { peer, plaintext: plaintext.clone() }
        );
        assert_eq!(
            call("nip04_encrypt", json!([hex, "hi"])),
            Call::Nip04Encrypt { peer, plaintext }
        );
        let payload = String::from("hi");
        assert_eq!(
            call("nip44_decrypt", json!([hex, "hi"])),
            Call::Nip44Decrypt { peer, payload: payload.clone() }
        );
        assert_eq!(call("nip04_decrypt", json!([hex, "hi"])), Call::Nip04Decrypt { peer, payload });
        assert_eq!(
            call("connect", json!([hex, "hush", "sign_event:21000, nip44_encrypt,what,ping:x"])),
            Call::Connect {
                secret: Some(BunkerSecret::new("hush").unwrap()),
                perms: vec![
                    Perm { method: Method::SignEvent, kind: Some(21_000) },
                    Perm { method: Method::Nip44Encrypt, kind: None },
                ],
            }
        );
        for params in [json!([]), json!([hex, null]), json!([hex, ""])] {
            assert_eq!(call("connect", params), Call::Connect { secret: None, perms: vec![] });
        }
    }

    /// Loss prevented: a signature by one machine's key over an event of another author.
    #[test]
    fn an_event_is_by_the_key_that_was_asked() {
        let wire = json!({"kind": 21_000, "content": "x", "tags": [["p", "q"]], "created_at": 5});
        let expected = UnsignedEvent::new(
            key(1).nostr(),
            Timestamp::from(5),
            EventKind::from(21_000),
            [Tag::parse(["p", "q"]).unwrap()],
            "x",
        );
        let signed = Call::SignEvent(Box::new(expected));
        assert_eq!(call("sign_event", json!([wire.to_string()])), signed);
        assert_eq!(call("sign_event", json!([wire])), signed);
        let with = |field: &str, value: Value| {
            let mut wire = wire.clone();
            wire[field] = value;
            call("sign_event", json!([wire.to_string()]))
        };
        assert_eq!(with("pubkey", key(1).to_string().into()), signed);
        assert_eq!(with("id", "00".into()), signed);
        for (field, value) in [
            ("pubkey", json!(key(2).to_string())),
            ("pubkey", json!("f".repeat(64))),
            ("kind", json!(70_000)),
            ("kind", json!(-1)),
            ("created_at", json!("now")),
            ("tags", json!([[]])),
            ("content", json!(null)),
        ] {
            let got = with(field, value.clone());
            assert!(
                matches!(got, Call::Invalid { method: Method::SignEvent, .. }),
                "{field} {value}: {got:?}"
            );
        }
    }

    /// Loss prevented: an answer to garbage lets anybody make the bunker talk.
    #[test]
    fn garbage_and_repeats_get_no_answer() {
        for garbage in ["", "hello", "{}", "[]", r#"{"id":"a","result":"ack"}"#] {
            assert_eq!(receive(garbage), Err(Dropped::Malformed), "{garbage}");
        }
        let mut server = Server::default();
        let ping = r#"{"id":"a","method":"ping","params":[]}"#;
        let mut receive = |n| server.receive(EventId::from_bytes([n; 32]), key(9), &key(1), ping);
        assert!(receive(1).is_ok());
        assert_eq!(receive(1), Err(Dropped::Duplicate));
        assert!(receive(2).is_ok());
    }

    /// Loss prevented: a client that waits for its timeout after a call that cannot work.
    #[test]
    fn what_cannot_work_is_refused_at_once() {
        let ask = |method: &str| {
            let json = json!({"id": 7, "method": method, "params": []}).to_string();
            let incoming = receive(&json).unwrap();
            incoming.refusal().map(|reply| incoming.respond(reply).to_json().expose().to_owned())
        };
        assert_eq!(ask("ping"), None);
        assert_eq!(
            ask("make_coffee").unwrap(),
            r#"{"error":"unknown method \"make_coffee\"","id":7,"result":null}"#
        );
        assert_eq!(
            ask("nip44_encrypt").unwrap(),
            r#"{"error":"nip44_encrypt: expected the other side's public key in hex","id":7,"result":null}"#
        );
        assert!(ask(&"x".repeat(900)).unwrap().len() < 120);
    }

    /// Loss prevented: a reply that other software does not read.
    #[test]
    fn replies_are_those_of_the_nip() {
        let incoming = receive(r#"{"id":"a","method":"ping","params":[]}"#).unwrap();
        let wire = |reply| incoming.respond(reply).to_json().expose().to_owned();
        assert_eq!(wire(Reply::Ack), r#"{"id":"a","result":"ack"}"#);
        assert_eq!(wire(Reply::Pong), r#"{"id":"a","result":"pong"}"#);
        assert_eq!(wire(Reply::Null), r#"{"id":"a","result":null}"#);
        let expected = format!(r#"{{"id":"a","result":"{}"}}"#, key(1));
        assert_eq!(wire(Reply::PublicKey(key(1))), expected);
        let event = nostr::EventBuilder::text_note("x").sign_with_keys(&keys(1).0).unwrap();
        let value: Value =
            serde_json::from_str(&wire(Reply::Signed(Box::new(event.clone())))).unwrap();
        let back: Event = serde_json::from_str(value["result"].as_str().unwrap()).unwrap();
        assert_eq!(back, event);
    }

    proptest! {
        /// Loss prevented: one odd request stops the bunker for every machine.
        #[test]
        fn no_request_panics(
            at in 0usize..10, id: u64,
            params in proptest::collection::vec(proptest::option::of("\\PC*"), 0..4),
        ) {
            let method = ["connect", "sign_event", "ping", "get_public_key", "nip04_encrypt",
                "nip04_decrypt", "nip44_encrypt", "nip44_decrypt", "logout", "x"][at];
            let json = json!({"id": id, "method": method, "params": params}).to_string();
            let incoming = receive(&json).unwrap();
            prop_assert_eq!(&incoming.id, &MessageId::Number(id));
            if let Some(reply) = incoming.refusal() {
                prop_assert!(incoming.respond(reply).error.is_some());
            }
        }
    }
}
