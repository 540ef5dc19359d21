//! One operator with one paired machine, and one sale on it.

use std::sync::OnceLock;

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{
    ClaimHash, Digest, EventId, JournalHead, JournalSeq, PaymentHash, PubKey, QuoteId, RequestId,
    TxnId, WithdrawId,
};
use bitspire_shared::money::{Direction, FeePpm, Rate, Sats};
use bitspire_shared::rpc::Notes;
use bitspire_shared::time::Unix;
use serde_json::json;

use super::{Folder, folder, open};
use crate::ids::{MachineId, OperatorId};
use crate::store::invoices::{self, Invoice, InvoiceState};
use crate::store::machines::{self, Machine};
use crate::store::operators::{self, Operator};
use crate::store::quotes::{self, Quote};
use crate::store::requests::Request;
use crate::store::settlements::{Distribution, Settlement, SettlementStatus};
use crate::store::withdraws::{Purpose, Withdraw, WithdrawState};
use crate::store::{ConstraintKind, JsonText, Store, StoreError, Tx};

pub(super) struct World {
    pub(super) store: Store,
    pub(super) operator: OperatorId,
    pub(super) machine: MachineId,
    pub(super) folder: Folder,
}

impl World {
    /// Writes, and gives the error as it came.
    pub(super) fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.store.write_blocking(job)
    }

    pub(super) fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&crate::store::Read<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.read_blocking(query).unwrap()
    }
}

/// Which rule of the schema refused.
pub(super) fn kind_of<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ConstraintKind {
    match result {
        Err(StoreError::Constraint { kind, .. }) => kind,
        other => panic!("expected a constraint, got {other:?}"),
    }
}

pub(super) fn key(n: u8) -> PubKey {
    PubKey::new(keys(n).public_key()).unwrap()
}

pub(super) fn keys(n: u8) -> nostr::Keys {
    nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

/// One signature: signing again would give another one.
pub(super) fn sig() -> Sig {
    static SIG: OnceLock<Sig> = OnceLock::new();
    *SIG.get_or_init(|| Sig::over("test", &keys(1)))
}

pub(super) fn machine(operator: OperatorId, wallet: &str) -> Machine {
    Machine::new(operator, "Café", "Sintra", "EUR".parse().unwrap(), wallet, Unix(1))
}

pub(super) fn world() -> World {
    let folder = folder();
    let store = open(&folder);
    let (operator, machine) = store
        .write_blocking::<_, StoreError, _>(|tx| {
            let operator = Operator {
                name: "Test".into(),
                pubkey: Some(key(9)),
                signer: Some(operators::SignerKind::Local),
                bunker_key_name: None,
                created_at: Unix(1),
            };
            let operator = operators::insert(tx, &operator)?;
            let id = machines::insert(tx, &machine(operator, "wallet-1"))?;
            machines::set_paired(tx, id, key(2), "spire-1", Unix(9_999), Unix(2))?;
            Ok((operator, id))
        })
        .unwrap();
    World { store, operator, machine, folder }
}

pub(super) fn txid(n: u8) -> TxnId {
    TxnId::from_bytes([n; 16])
}

pub(super) fn quote_id(n: u8) -> QuoteId {
    QuoteId::from_bytes([n; 16])
}

pub(super) fn hash(n: u8) -> PaymentHash {
    PaymentHash::from_bytes([n; 32])
}

pub(super) fn claim(n: u8) -> ClaimHash {
    ClaimHash::from_bytes([n; 32])
}

pub(super) fn event_id(n: u8) -> EventId {
    EventId::from_bytes([n; 32])
}

pub(super) fn head(n: u8) -> JournalHead {
    JournalHead::from_bytes([n; 32])
}

pub(super) fn request(machine: MachineId, n: u8, body: u8) -> Request {
    Request {
        machine_id: machine,
        request_id: RequestId::from_bytes([n; 16]),
        rpc_name: "get_quote".into(),
        body_sha256: Digest::from_bytes([body; 32]),
        txid: Some(txid(n)),
        event: "{}".into(),
        received_at: Unix(100),
        reply: None,
        replied_at: None,
    }
}

/// Principal 100 000, 2 % for the platform, 3 % for the operator.
pub(super) fn quote(machine: MachineId, n: u8, direction: Direction) -> Quote {
    let (wire, reserved) = match direction {
        Direction::CashOut => (105_000, 0),
        Direction::CashIn => (95_000, 95_000),
    };
    Quote {
        quote_id: quote_id(n),
        machine_id: machine,
        request_id: RequestId::from_bytes([n; 16]),
        txid: txid(n),
        claim_hash: claim(n),
        direction,
        fiat_minor: 9_000,
        fiat_code: "EUR".parse().unwrap(),
        rate_nano: Rate::from_nano(1_111_111_111_111).unwrap(),
        sources: JsonText::of(&json!([{"source": "test", "age_s": 3}])),
        platform_fee_ppm: FeePpm::new(20_000).unwrap(),
        operator_fee_ppm: FeePpm::new(30_000).unwrap(),
        fees_event_id: event_id(7),
        principal_sats: Sats(100_000),
        fee_sats: Sats(5_000),
        wire_sats: Sats(wire),
        ttl_s: 60,
        quote_sig: sig(),
        created_at: Unix(100),
        expires_at: Unix(160),
        reserved_sats: Sats(reserved),
        reservation_ended_at: None,
    }
}

pub(super) fn invoice(machine: MachineId, n: u8) -> Invoice {
    Invoice {
        quote_id: quote_id(n),
        machine_id: machine,
        txid: txid(n),
        payment_hash: hash(n),
        bolt11: format!("lnbcrt1{n}"),
        wire_sats: Sats(105_000),
        stamp: JsonText::of(&json!({"source": "bitspire"})),
        request_event_id: event_id(n),
        request_event: "{}".into(),
        created_at: Unix(101),
        expires_at: Unix(160),
        state: InvoiceState::Open,
    }
}

/// A quoted cash_out with its invoice.
pub(super) fn invoiced(world: &World, n: u8) {
    let machine = world.machine;
    world
        .write(move |tx| {
            quotes::insert(tx, &quote(machine, n, Direction::CashOut))?;
            invoices::insert(tx, &invoice(machine, n))
        })
        .unwrap();
}

pub(super) fn settlement(machine: MachineId, n: u8) -> Settlement {
    Settlement {
        payment_hash: hash(n),
        machine_id: machine,
        wallet_id: "wallet-1".into(),
        direction: Direction::CashOut,
        status: SettlementStatus::Accepted,
        wire_sats: Sats(105_000),
        extra: JsonText::of(&json!({"source": "bitspire"})),
        reason: None,
        txid: Some(txid(n)),
        quote_id: Some(quote_id(n)),
        withdraw_id: None,
        principal_sats: Some(Sats(100_000)),
        platform_fee_sats: Some(Sats(2_000)),
        operator_fee_sats: Some(Sats(3_000)),
        owed_sats: Some(Sats(0)),
        exchange_rate: Some("1111.111111111".parse().unwrap()),
        fiat_minor: Some(9_000),
        fiat_code: Some("EUR".parse().unwrap()),
        fees_event_id: Some(event_id(7)),
        request_event_id: Some(event_id(n)),
        fee_mismatch_sats: None,
        short: false,
        settled_at: Unix(120),
        recorded_at: Unix(121),
        dispense_outcome: None,
        reported_at: None,
        distribution: Distribution::Held,
        hold_reason: Some("no_report".into()),
        claim_token: None,
        lease_until: None,
    }
}

pub(super) fn withdraw_id(n: u8) -> WithdrawId {
    WithdrawId::from_bytes([n; 16])
}

pub(super) fn notes(count: u32) -> Notes {
    Notes::from([(bitspire_shared::money::Denomination::from_minor(1_000).unwrap(), count)])
}

pub(super) fn withdraw(machine: MachineId, n: u8) -> Withdraw {
    Withdraw {
        withdraw_id: withdraw_id(n),
        machine_id: machine,
        txid: txid(n),
        purpose: Purpose::CashIn,
        claim_id: None,
        claim_hash: claim(n),
        net_sats: Sats(95_000),
        state: WithdrawState::Offered,
        created_at: Unix(130),
        expires_at: Unix(900),
        fiat_minor: Some(9_000),
        fiat_code: Some("EUR".parse().unwrap()),
        principal_sats: Some(Sats(100_000)),
        platform_fee_sats: Some(Sats(2_000)),
        operator_fee_sats: Some(Sats(3_000)),
        journal_seq: Some(JournalSeq(5)),
        journal_head: Some(head(5)),
        vault_sig: Some(sig()),
        withdraw_sig: Some(sig()),
        request_event: Some("{}".into()),
    }
}

/// A rate lock with the withdraw for its notes.
pub(super) fn offered(world: &World, n: u8) {
    let machine = world.machine;
    world
        .write(move |tx| {
            quotes::insert(tx, &quote(machine, n, Direction::CashIn))?;
            let lot = crate::store::withdraws::Lot { quote_id: quote_id(n), notes: notes(9) };
            crate::store::withdraws::insert(tx, &withdraw(machine, n), &[lot])
        })
        .unwrap();
}
