//! A vault on a real socket: it proves sessions by itself, the rest is the test's.

use std::path::Path;

use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey, RequestId};
use bitspire_shared::receipt::VaultNaming;
use bitspire_shared::rpc::{SessionProof, SignedText as _};
use nostr::Keys;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::{PATIENCE, public};
use crate::ipc::{self, NetPins, ToNet, ToVault, VERSION};

/// The listening end.
pub(super) struct Vault {
    listener: UnixListener,
    keys: Keys,
}

/// One connection.
pub(super) struct Talk {
    stream: UnixStream,
    keys: Keys,
    pins: Option<NetPins>,
}

impl Vault {
    pub(super) fn listen(path: &Path) -> Self {
        Self { listener: UnixListener::bind(path).unwrap(), keys: Keys::generate() }
    }

    pub(super) async fn accept(&self, pins: Option<NetPins>) -> Talk {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accepted.await.expect("net does not connect").unwrap();
        let mut talk = Talk { stream, keys: self.keys.clone(), pins };
        let hello = talk.read().await;
        assert!(matches!(hello, ToVault::Hello { version: VERSION, .. }), "{hello:?}");
        talk.send(ToNet::Hello { version: VERSION, pins }).await;
        talk
    }
}

impl Talk {
    pub(super) async fn send(&mut self, message: ToNet) {
        if let ToNet::Paired { pins } = &message {
            self.pins = Some(*pins);
        }
        self.stream.write_all(&ipc::encode(&message).unwrap()).await.unwrap();
    }

    async fn read(&mut self) -> ToVault {
        let mut length = [0u8; 4];
        let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut length));
        read.await.expect("net says nothing").unwrap();
        let mut body = vec![0u8; ipc::body_length(length).unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        ipc::decode(&body).unwrap()
    }

    /// The next message, after proving the sessions that are asked for and taking the vault's naming.
    pub(super) async fn next(&mut self) -> ToVault {
        loop {
            match self.read().await {
                ToVault::ProveSession { session, expires_at } => {
                    let NetPins { spire, service, .. } = self.pins.unwrap();
                    let vault = public(&self.keys);
                    let proof = SessionProof { spire, service, session, vault, expires_at };
                    let vault_proof = proof.sign(&self.keys);
                    let journal_head = JournalHead::from_bytes([3; 32]);
                    let journal_seq = JournalSeq(3);
                    let proof = ToNet::SessionProof {
                        session,
                        vault,
                        vault_proof,
                        journal_seq,
                        journal_head,
                    };
                    self.send(proof).await;
                }
                // what it brings, receipts can be made with
                ToVault::Named { statement } => {
                    let NetPins { spire, .. } = self.pins.unwrap();
                    VaultNaming::of(&statement, &spire, &public(&self.keys)).unwrap();
                }
                other => return other,
            }
        }
    }

    /// The first message that `pick` picks.
    pub(super) async fn wait<T>(&mut self, mut pick: impl FnMut(&ToVault) -> Option<T>) -> T {
        loop {
            let message = self.next().await;
            if let Some(picked) = pick(&message) {
                return picked;
            }
        }
    }

    /// The next reply, push or document, past words about the state.
    pub(super) async fn delivered(&mut self) -> ToVault {
        self.wait(|message| match message {
            ToVault::State(_) => None,
            other => Some(other.clone()),
        })
        .await
    }

    pub(super) async fn request(&mut self, n: u8) -> RequestId {
        let request_id = RequestId::from_bytes([n; 16]);
        let (rpc_name, body) = ("get_payment".to_owned(), payment(n));
        self.send(ToNet::Request { request_id, rpc_name, body }).await;
        request_id
    }

    pub(super) fn key(&self) -> PubKey {
        public(&self.keys)
    }
}

/// A body of `get_payment`.
fn payment(n: u8) -> Value {
    json!({"payment_hash": format!("{n:02x}").repeat(32)})
}
