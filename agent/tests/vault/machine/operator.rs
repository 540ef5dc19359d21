//! The operator: pairing, documents, verdicts.

use std::os::unix::net::UnixStream;

use bitspire_agent::ipc::{self, MachineStatus, Role, SecretText, ToNet, ToVault, VERSION};
use bitspire_shared::document::attest;
use bitspire_shared::document::{
    Action, Cassettes, Change, DTag, DirectionFees, DocumentKind, FeesDocument, Position,
};
use bitspire_shared::ids::{ChangeId, EventId, JournalSeq, Nonce, PubKey, TxnId};
use bitspire_shared::seed::{BunkerSecret, BunkerUri, Loopback, Pins, Seed, parse_relay};
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use nostr::{Event, Keys};
use serde_json::json;

use super::service::fee_pair;
use super::{Machine, PATIENCE, bay, note, public, usd};

impl Machine {
    pub(crate) fn pins(&self) -> Pins {
        Pins {
            spire: public(&self.parties.spire),
            operator: public(&self.parties.operator),
            service: public(&self.parties.service),
            currency: usd(),
        }
    }

    pub(crate) fn seed_of(pins: &Pins) -> SecretText {
        let relay = parse_relay("ws://127.0.0.1:7777").unwrap();
        let bunker = BunkerUri::new(pins.spire, vec![relay.clone()]).unwrap();
        let secret = BunkerSecret::new(&"5a".repeat(32)).unwrap();
        let (until, loopback) = (Unix(4_000_000_000), Loopback::Allowed);
        let seed = Seed::issue(pins, bunker, secret, vec![relay], until, loopback).unwrap();
        SecretText::new(seed.expose().to_string())
    }

    /// A connection as the command line makes it.
    pub(crate) fn control(&self) -> UnixStream {
        let mut stream = UnixStream::connect(&self.config.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ipc::write(&mut stream, &ToVault::Hello { version: VERSION, role: Role::Control }).unwrap();
        let hello = ipc::read::<ToNet>(&mut stream).unwrap();
        assert!(matches!(hello, Some(ToNet::Hello { version: VERSION, .. })), "{hello:?}");
        stream
    }

    pub(crate) fn status(&self) -> MachineStatus {
        let mut stream = self.control();
        ipc::write(&mut stream, &ToVault::Status).unwrap();
        match ipc::read::<ToNet>(&mut stream).unwrap() {
            Some(ToNet::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Brings a seed; the operator has confirmed the digits before they could be read.
    pub(crate) fn pair(&mut self) {
        self.service.confirmed = true;
        self.pair_unconfirmed();
    }

    /// Brings a seed.
    pub(crate) fn pair_unconfirmed(&mut self) {
        let mut stream = self.control();
        let seed_url = Self::seed_of(&self.pins());
        ipc::write(&mut stream, &ToVault::Seed { seed_url }).unwrap();
        self.until("a pairing", |machine| {
            machine.sent.iter().any(|message| matches!(message, ToNet::Paired { .. }))
        });
        let paired = ipc::read::<ToNet>(&mut stream).unwrap();
        assert!(matches!(paired, Some(ToNet::Paired { .. })), "{paired:?}");
        self.learn_vault();
    }

    /// The service pins the vault's key, as at the first `open_session`.
    pub(crate) fn learn_vault(&mut self) {
        let session = public(&self.parties.client);
        self.service.vault = Some(self.prove(session));
    }

    /// Waits until the vault has taken all that was said so far.
    pub(crate) fn all_heard(&mut self) {
        self.prove(public(&Keys::generate()));
    }

    fn prove(&mut self, wanted: PubKey) -> PubKey {
        self.say(&ToVault::ProveSession { session: wanted, expires_at: Unix(1_800_010_000) });
        let mut by = None;
        self.until("a session proof", |machine| {
            by = machine.sent.iter().find_map(|message| match message {
                ToNet::SessionProof { session, vault, .. } if *session == wanted => Some(*vault),
                _ => None,
            });
            by.is_some()
        });
        by.unwrap()
    }

    pub(crate) fn document_event(&self, kind: DocumentKind, author: &Keys) -> Event {
        let spire = public(&self.parties.spire);
        let address = DTag { kind, spire };
        let created_at = Unix(self.service.clock);
        address
            .to_unsigned(&public(author), &spire, "encrypted".to_owned(), created_at)
            .sign_with_keys(author)
            .unwrap()
    }

    pub(crate) fn publish(&mut self, kind: DocumentKind, plaintext: String) -> EventId {
        self.service.clock += 1;
        let event = self.document_event(kind, &self.parties.operator);
        let id = EventId::from_bytes(event.id.to_bytes());
        self.say(&ToVault::Document { event: Box::new(event), plaintext });
        id
    }

    pub(crate) fn publish_fees(&mut self) {
        let document = FeesDocument {
            cash_in: DirectionFees::new(fee_pair()),
            cash_out: DirectionFees::new(fee_pair()),
            published_at: Unix(self.service.clock),
            attest: None,
        };
        let id = self.publish(DocumentKind::Fees, document.to_json().unwrap());
        self.service.fees = Some(id);
    }

    /// The cassette document for bays of (bay, note, count), each counted anew.
    pub(crate) fn cassettes(&self, bays: &[(u8, u32, u32)]) -> Cassettes {
        let position = |(number, major, count): &(u8, u32, u32)| {
            (bay(*number), Position { denomination: note(*major), count: *count })
        };
        let change = |(number, _, count): &(u8, u32, u32)| Change {
            id: ChangeId::from_bytes(random().unwrap()),
            bay: bay(*number),
            action: Action::Set(*count),
            reason: "refill".to_owned(),
            base_seq: JournalSeq(1_000_000),
        };
        Cassettes {
            positions: bays.iter().map(position).collect(),
            published_at: Some(Unix(self.service.clock)),
            changes: Some(bays.iter().map(change).collect()),
            attest: None,
        }
    }

    pub(crate) fn attested(&self, mut document: Cassettes) -> String {
        let sha256 = attest::digest(&document.to_json(usd()).unwrap()).unwrap();
        document.attest = Some(self.statement(&Statement::Document {
            spire: public(&self.parties.spire),
            sha256,
            nonce: Nonce::from_bytes(random().unwrap()),
            not_after: Unix(1_900_000_000),
        }));
        document.to_json(usd()).unwrap()
    }

    pub(crate) fn publish_cassettes(&mut self, bays: &[(u8, u32, u32)]) -> EventId {
        let text = self.attested(self.cassettes(bays));
        self.publish(DocumentKind::Cassettes, text)
    }

    /// Fees and cassettes, until the machine says that it goes by them.
    pub(crate) fn publish_all(&mut self, bays: &[(u8, u32, u32)]) {
        self.publish_fees();
        let fees = self.service.fees.unwrap();
        let cassettes = self.publish_cassettes(bays);
        self.until("both documents", |machine| machine.applied(fees) && machine.applied(cassettes));
    }

    /// The operator decides.
    pub(crate) fn verdict(&mut self, txid: Option<TxnId>, verdict: VerdictKind, amount_minor: i64) {
        let statement = Statement::Verdict {
            spire: public(&self.parties.spire),
            vault: self.service.vault.unwrap(),
            txid,
            journal_seq: JournalSeq(1_000_000),
            verdict,
            amount_minor,
            nonce: Nonce::from_bytes(random().unwrap()),
            not_after: Unix(1_900_000_000),
        };
        let statement = self.statement(&statement);
        self.push("verdict", json!({ "statement": statement }));
    }

    pub(crate) fn statement(&self, statement: &Statement) -> SignedStatement {
        let operator = &self.parties.operator;
        let event = statement.to_unsigned(&public(operator), Unix(self.service.clock)).unwrap();
        SignedStatement::new(event.sign_with_keys(operator).unwrap())
    }
}
