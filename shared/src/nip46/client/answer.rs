//! What is asked of a signer, and whether what comes back is what was asked for.

use nostr::{Event, RelayUrl, UnsignedEvent};
use thiserror::Error;

use super::SignerState;
use crate::error::{Classified, Kind};
use crate::ids::PubKey;
use crate::nip46::message::{Method, Plain, Request};
use crate::seed::parse_relay;

/// A reply: a result, or the signer's words for a failure.
pub(super) type Said = Result<Option<Plain>, Plain>;

/// A question to the signer, after `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Are you there?
    Ping,
    /// Which key do you sign with? Must be the expected one.
    GetPublicKey,
    /// Sign this; its author must be the expected key.
    SignEvent(Box<UnsignedEvent>),
    /// Encrypt for `peer`.
    Nip44Encrypt {
        /// The other key.
        peer: PubKey,
        /// The text.
        plaintext: Plain,
    },
    /// Decrypt what `peer` wrote.
    Nip44Decrypt {
        /// The other key.
        peer: PubKey,
        /// The payload.
        payload: String,
    },
    /// Do you prefer other relays?
    SwitchRelays,
    /// Forget me.
    Logout,
}

/// What the signer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `connect`.
    Connected,
    /// To a ping.
    Pong,
    /// The expected key.
    PublicKey(PubKey),
    /// The event that was asked for, id and signature verified.
    Signed(Box<Event>),
    /// Encrypted or decrypted.
    Text(Plain),
    /// The relays to go to; `None` is to stay.
    Relays(Option<Vec<RelayUrl>>),
    /// To `logout`.
    LoggedOut,
}

/// Why a question has no answer. What the signer said is quoted at 200 characters at most, without
/// control characters and without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nothing came back in time; asking again is safe, a signature is no effect.
    #[error("the signer did not answer {method}: {}", .state.advice())]
    NoReply {
        /// What was asked.
        method: Method,
        /// What that says of the signer.
        state: SignerState,
    },
    /// The signer refused.
    #[error("the signer refused {method}: {reply}")]
    Rejected {
        /// What was asked.
        method: Method,
        /// Its words.
        reply: String,
    },
    /// The signer does not have the method.
    #[error("the signer does not know {method} ({reply}): use a bunker that has it")]
    Unsupported {
        /// What was asked.
        method: Method,
        /// Its words.
        reply: String,
    },
    /// The secret was used before, and not by this client.
    #[error("the seed was redeemed already, by another client: make a new seed and pair again")]
    AlreadyRedeemed,
    /// The signer does not know the secret.
    #[error("the signer does not know this secret: make a new seed and pair again")]
    WrongSecret,
    /// The signer wants the secret at every start, and it is not kept.
    #[error("the signer wants the secret again, which is not stored: pair again")]
    SecretNeeded,
    /// The signer holds another key.
    #[error("expected a signer for {expected}, got one for {got}: pair again with its own seed")]
    WrongUser {
        /// The key of this pairing.
        expected: PubKey,
        /// What the signer says.
        got: String,
    },
    /// A result that is none for this method.
    #[error("the signer answered {method} with something else: expected {expected}")]
    Unexpected {
        /// What was asked.
        method: Method,
        /// What the result must be.
        expected: &'static str,
    },
    /// A signed event, but another one.
    #[error("the signer signed another event than the one asked for: its {field} differs")]
    OtherEvent {
        /// The first field that differs.
        field: &'static str,
    },
    /// The event asked for, not signed.
    #[error("the signer's event does not hold: wrong id or signature")]
    BadSignature,
}

impl Classified for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoReply { .. } => Kind::Transient,
            _ => Kind::Permanent,
        }
    }
}

impl CallError {
    /// The same, with the signer's words passed through `quote`.
    pub(super) fn quoted(self, quote: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Rejected { method, reply } => Self::Rejected { method, reply: quote(&reply) },
            Self::Unsupported { method, reply } => {
                Self::Unsupported { method, reply: quote(&reply) }
            }
            other => other,
        }
    }
}

impl Ask {
    /// Its method.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Ping => Method::Ping,
            Self::GetPublicKey => Method::GetPublicKey,
            Self::SignEvent(_) => Method::SignEvent,
            Self::Nip44Encrypt { .. } => Method::Nip44Encrypt,
            Self::Nip44Decrypt { .. } => Method::Nip44Decrypt,
            Self::SwitchRelays => Method::SwitchRelays,
            Self::Logout => Method::Logout,
        }
    }

    pub(super) fn request(&self, id: &str) -> Result<Request, serde_json::Error> {
        let params = match self {
            Self::Ping | Self::GetPublicKey | Self::SwitchRelays | Self::Logout => vec![],
            Self::SignEvent(event) => vec![Some(unsigned_json(event)?)],
            Self::Nip44Encrypt { peer, plaintext } => {
                vec![Some(peer.to_string()), Some(plaintext.expose().to_owned())]
            }
            Self::Nip44Decrypt { peer, payload } => {
                vec![Some(peer.to_string()), Some(payload.clone())]
            }
        };
        Ok(Request::new(id, self.method(), params))
    }

    /// Holds the signer's reply against the question. `Answer::Relays(None)`, `LoggedOut` and
    /// `Pong` also follow from "unknown method": there is nothing to switch, nothing to forget, and
    /// somebody spoke.
    pub(super) fn check(&self, said: Said, user: &PubKey) -> Result<Answer, CallError> {
        let method = self.method();
        let unexpected = |expected| CallError::Unexpected { method, expected };
        let result = match said {
            Ok(result) => result,
            Err(reply) => {
                let reply = reply.expose().to_owned();
                if !says_unknown_method(&reply) {
                    return Err(CallError::Rejected { method, reply });
                }
                return match self {
                    Self::SwitchRelays => Ok(Answer::Relays(None)),
                    Self::Logout => Ok(Answer::LoggedOut),
                    Self::Ping => Ok(Answer::Pong),
                    _ => Err(CallError::Unsupported { method, reply }),
                };
            }
        };
        let text = result.as_ref().map(Plain::expose);
        match self {
            Self::Ping => match text {
                Some("pong" | "ok") => Ok(Answer::Pong),
                _ => Err(unexpected("pong")),
            },
            Self::GetPublicKey => {
                let text = text.ok_or(unexpected("a public key"))?;
                let got = PubKey::from_hex_or_npub(text);
                let got = got.map_err(|_| unexpected("a public key"))?;
                if got == *user {
                    return Ok(Answer::PublicKey(got));
                }
                Err(CallError::WrongUser { expected: *user, got: got.to_string() })
            }
            Self::SignEvent(asked) => {
                let expected = "a signed event";
                let event = serde_json::from_str(text.ok_or(unexpected(expected))?);
                verified(asked, event.map_err(|_| unexpected(expected))?)
            }
            Self::Nip44Encrypt { .. } | Self::Nip44Decrypt { .. } => match result {
                Some(text) if !text.expose().is_empty() => Ok(Answer::Text(text)),
                _ => Err(unexpected("a text")),
            },
            Self::SwitchRelays => match text {
                None | Some("null") => Ok(Answer::Relays(None)),
                Some(json) => relays(json).ok_or(unexpected("null or a list of relay URLs")),
            },
            Self::Logout => Ok(Answer::LoggedOut),
        }
    }
}

/// The event as `sign_event` sends it: with its author, since some signers give no reply at all to
/// one without; without id, which the signer makes.
fn unsigned_json(event: &UnsignedEvent) -> Result<String, serde_json::Error> {
    serde_json::to_string(&UnsignedEvent { id: None, ..event.clone() })
}

fn verified(asked: &UnsignedEvent, event: Event) -> Result<Answer, CallError> {
    let fields = [
        ("pubkey", event.pubkey == asked.pubkey),
        ("kind", event.kind == asked.kind),
        ("created_at", event.created_at == asked.created_at),
        ("tags", event.tags == asked.tags),
        ("content", event.content == asked.content),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, same)| !same) {
        return Err(CallError::OtherEvent { field });
    }
    // both: a changed field fails the id, a forged signature the signature
    event.verify().map_err(|_| CallError::BadSignature)?;
    Ok(Answer::Signed(Box::new(event)))
}

fn relays(json: &str) -> Option<Answer> {
    let urls: Vec<String> = serde_json::from_str(json).ok()?;
    let relays = urls.iter().map(|url| parse_relay(url)).collect::<Result<Vec<_>, _>>().ok()?;
    Some(Answer::Relays((!relays.is_empty()).then_some(relays)))
}

/// What signers say of a method that they do not have; there is no code for it in the NIP.
fn says_unknown_method(reply: &str) -> bool {
    let reply = reply.to_ascii_lowercase();
    let names_it = ["method", "command", "request"].iter().any(|word| reply.contains(word));
    let denies_it = ["unknown", "unsupported", "not supported", "not implemented", "not found"];
    (names_it && denies_it.iter().any(|word| reply.contains(word)))
        || reply.contains("invalid method")
}
