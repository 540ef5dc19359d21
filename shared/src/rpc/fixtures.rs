//! One good message of each sort, for the tests of this module.

use crate::canonical::Sig;
use crate::cash::BayResult;
use crate::ids::{
    BayId, ChangeId, ClaimHash, EventId, JournalHead, JournalSeq, Nonce, PaymentHash, PubKey,
    QuoteId, TxnId,
};
use crate::money::{Denomination, Direction, FeePpm, Fiat, Origin, Origins, Rate};
use crate::rpc::*;
use crate::split::FeePair;
use crate::statement::{SignedStatement, Statement};
use crate::time::Unix;

/// 1 spire, 2 service, 3 session, 4 vault, 5 operator.
pub(super) fn keys(n: u8) -> nostr::Keys {
    nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

pub(super) fn key(n: u8) -> PubKey {
    PubKey::new(keys(n).public_key()).unwrap()
}

/// A signature that is the same in each run (our signing uses fresh auxiliary randomness).
pub(super) fn sig() -> Sig {
    serde_json::from_value(crate::ids::to_hex(&[0x5a; 64]).into()).unwrap()
}

pub(super) fn fees() -> FeesInForce {
    let ppm = |ppm| FeePpm::new(ppm).unwrap();
    FeesInForce {
        event_id: EventId::from_bytes([6; 32]),
        fees: FeePair::new(ppm(30_000), ppm(50_000)).unwrap(),
    }
}

/// Two sources.
pub(super) fn origins() -> Origins {
    let origin = |source: &str, age_s| Origin { source: source.parse().unwrap(), age_s };
    Origins::new([origin("kraken", 2), origin("bitstamp", 11)]).unwrap()
}

/// 20 EUR.
pub(super) fn quote_terms(direction: Direction) -> QuoteTerms {
    let fiat = Fiat::new(2_000, "EUR".parse().unwrap());
    terms_of(direction, fiat, Rate::from_nano(1_063_829_787_234).unwrap())
}

pub(super) fn terms_of(direction: Direction, fiat: Fiat, exchange_rate: Rate) -> QuoteTerms {
    let FeesInForce { event_id, fees } = fees();
    let principal = exchange_rate.principal(fiat, direction).unwrap();
    let charge = fees.charge(direction, principal).unwrap();
    QuoteTerms {
        spire: key(1),
        quote_id: QuoteId::from_bytes([3; 16]),
        direction,
        txid: TxnId::from_bytes([1; 16]),
        fiat,
        exchange_rate,
        principal_sats: charge.principal(),
        fee_sats: charge.fee(),
        wire_sats: charge.wire(),
        fees_event_id: event_id,
        ttl_s: 120,
    }
}

fn notes(pairs: &[(u32, u32)]) -> Notes {
    pairs.iter().map(|(minor, n)| (Denomination::from_minor(*minor).unwrap(), *n)).collect()
}

pub(super) fn statement(statement: &Statement, author: u8) -> SignedStatement {
    let event = statement.to_unsigned(&key(author), Unix(1_800_000_000)).unwrap();
    SignedStatement::new(event.sign_with_keys(&keys(author)).unwrap())
}

pub(super) fn open_session() -> OpenSession {
    let expires_at = Unix(1_800_080_000);
    let (spire, service, session, vault) = (key(1), key(2), key(3), key(4));
    let proof = SessionProof { spire, service, session, vault, expires_at };
    let (nonce, not_after) = (Nonce::from_bytes([9; 16]), Unix(1_800_000_600));
    OpenSession {
        session_pubkey: session,
        vault_pubkey: vault,
        expires_at,
        proof: proof.sign(&keys(3)),
        vault_proof: proof.sign(&keys(4)),
        vault_statement: statement(&Statement::Vault { spire, vault, nonce, not_after }, 1),
        journal_seq: JournalSeq(41),
        journal_head: JournalHead::from_bytes([5; 32]),
    }
}

pub(super) fn get_quote() -> GetQuote {
    GetQuote {
        direction: Direction::CashOut,
        txid: TxnId::from_bytes([1; 16]),
        fiat_minor: 2_000,
        fiat_code: "EUR".parse().unwrap(),
        claim_hash: ClaimHash::from_bytes([2; 32]),
    }
}

pub(super) fn create_withdraw() -> VaultSigned<CreateWithdraw> {
    let earlier = LockedNotes { quote_id: QuoteId::from_bytes([8; 16]), notes: notes(&[(500, 1)]) };
    let body = CreateWithdraw {
        quote_id: QuoteId::from_bytes([3; 16]),
        txid: TxnId::from_bytes([1; 16]),
        notes: notes(&[(1_000, 2), (2_000, 3)]),
        earlier: vec![earlier],
        fiat_code: "EUR".parse().unwrap(),
        journal_seq: JournalSeq(42),
        journal_head: JournalHead::from_bytes([5; 32]),
        claim_hash: ClaimHash::from_bytes([2; 32]),
    };
    VaultSigned::sign(body, &keys(4)).unwrap()
}

pub(super) fn dispense_report() -> VaultSigned<DispenseReport> {
    let bay = BayResult {
        requested: 2,
        picked: Some(2),
        presented: 1,
        taken: None,
        retracted: Some(0),
        rejected: Some(1),
    };
    let body = DispenseReport {
        txid: TxnId::from_bytes([1; 16]),
        payment_hash: PaymentHash::from_bytes([7; 32]),
        outcome: DispenseOutcome::Partial,
        bays: [(BayId::new(1).unwrap(), bay)].into(),
        owed_minor: 1_000,
        journal_seq: JournalSeq(43),
        journal_head: JournalHead::from_bytes([5; 32]),
    };
    VaultSigned::sign(body, &keys(4)).unwrap()
}

/// One event of each kind.
fn service_events() -> Vec<ServiceEvent> {
    let bay = BayId::new(1).unwrap();
    let denomination_minor = Denomination::from_minor(2_000).unwrap();
    let notes: Piles = [(denomination_minor, Pile { expected: 12, counted: 11 })].into();
    let changed = |change, expected| ServiceAction::BayChanged {
        bay,
        denomination_minor,
        change,
        expected,
        reason: "monday".into(),
    };
    let result = BayResult { requested: 1, picked: Some(1), presented: 1, ..BayResult::default() };
    let tested = Tested { denomination_minor, result };
    let reason = String::from("one was torn");
    let actions = [
        changed(BayChange::Delta(-20), Some(480)),
        changed(BayChange::Set(459), None),
        ServiceAction::CashboxEmptied { notes: notes.clone(), reason: reason.clone() },
        ServiceAction::RejectBinEmptied { notes, reason },
        ServiceAction::TestDispense {
            outcome: DispenseOutcome::Full,
            bays: [(bay, tested)].into(),
        },
    ];
    let event = |(n, action): (u8, ServiceAction)| ServiceEvent {
        id: ChangeId::from_bytes([n; 16]),
        journal_seq: JournalSeq(30 + u64::from(n)),
        at: Unix(1_800_000_000),
        action,
    };
    (1..).zip(actions).map(event).collect()
}

pub(super) fn state_report() -> VaultSigned<StateReport> {
    let device = |role, protocol: &str, status, fault: Option<&str>| Device {
        role,
        protocol: protocol.into(),
        version: Some("1.2".into()),
        status,
        fault: fault.map(Into::into),
    };
    let acceptor = device(DeviceRole::Acceptor, "id003", DeviceStatus::Ready, None);
    let jam = Some("jam at the exit (0x43)");
    let dispenser = device(DeviceRole::Dispenser, "f56", DeviceStatus::Fault, jam);
    let bay = BayCount {
        denomination_minor: Denomination::from_minor(2_000).unwrap(),
        count: 480,
        unsure: 0,
    };
    let body = StateReport {
        versions: [("agent".into(), "0.1.0".into())].into(),
        devices: [("acceptor".into(), acceptor), ("dispenser".into(), dispenser)].into(),
        cassettes: [(BayId::new(1).unwrap(), bay)].into(),
        cashbox: Some(Cashbox {
            notes: notes(&[(1_000, 12)]),
            capacity: 600,
            emptied_seq: JournalSeq(7),
        }),
        reject_bin: Some(RejectBin { notes: notes(&[(2_000, 1)]), emptied_seq: JournalSeq(0) }),
        recycled: None,
        service_events: service_events(),
        applied_documents: [("bitspire-fees:ab".into(), EventId::from_bytes([6; 32]))].into(),
        applied_changes: [ChangeId::from_bytes([4; 16])].into(),
        open_transactions: vec![OpenTxn {
            txid: TxnId::from_bytes([1; 16]),
            direction: Direction::CashOut,
            state: "paid_waiting".into(),
            fiat_minor: Some(2_000),
            since: Unix(1_800_000_000),
            doubt: Some(Doubt {
                rest_minor: 2_000,
                unknown_minor: 0,
                evidence: "paid; nobody was seen at the machine since".into(),
            }),
        }],
        alerts: vec![Alert {
            code: "dispenser_jam".into(),
            detail: "open the dispenser and clear the exit".into(),
            since: Unix(1_800_000_000),
        }],
        used_nonces: vec![Nonce::from_bytes([3; 16])],
        journal_seq: JournalSeq(44),
        journal_head: JournalHead::from_bytes([5; 32]),
    };
    VaultSigned::sign(body, &keys(4)).unwrap()
}
