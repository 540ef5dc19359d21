//! Sessions, vaults, journals, heartbeats.

use super::*;
use crate::store::machines::Confirmation;
use crate::store::{cassettes, heads};

pub(super) fn state(machine: &mut Peer, open: &[TxnId]) -> VaultSigned<StateReport> {
    let (journal_seq, journal_head) = machine.journal();
    let note = bitspire_shared::money::Denomination::from_minor(2_000).unwrap();
    machine.signed(StateReport {
        versions: [("agent".into(), "0.1.0".into())].into(),
        devices: BTreeMap::new(),
        cassettes: [(
            BayId::new(1).unwrap(),
            BayCount { denomination_minor: note, count: 500, unsure: 0 },
        )]
        .into(),
        cashbox: None,
        reject_bin: None,
        recycled: None,
        service_events: vec![],
        applied_documents: [("bitspire-fees:x".into(), fees_event())].into(),
        applied_changes: Default::default(),
        open_transactions: open
            .iter()
            .map(|txid| OpenTxn {
                txid: *txid,
                direction: Direction::CashIn,
                state: "open".into(),
                fiat_minor: None,
                since: Unix(1),
                doubt: None,
            })
            .collect(),
        alerts: vec![],
        used_nonces: vec![],
        journal_seq,
        journal_head,
    })
}

async fn row(world: &World) -> machines::KeptMachine {
    let id = world.machine_id;
    world.read(move |read| machines::find(read, id)).await.unwrap()
}

/// Loss prevented: a machine whose vault nobody compared sells notes; a second vault slips in.
#[tokio::test]
async fn the_first_session_pins_the_vault() {
    let world = World::new().await;
    let _rpc = world.serve().await;
    let mut machine = world.machine().await;
    let opened = machine.open_session().await.unwrap();
    let expected = world.app.clock.now().after(3_600);
    assert!(opened.expires_at <= expected && expected.since(opened.expires_at) < 60);
    let kept = row(&world).await;
    assert_eq!(kept.vault_key, Some(key(&machine.vault)));
    assert_eq!(kept.confirmation, Confirmation::AwaitingConfirmation);
    world.confirm().await;

    let mut other = world.machine().await;
    other.vault = Keys::generate();
    other.journal = 5;
    assert_eq!(other.open_session().await, Err(ErrorCode::Invalid), "another vault");
    assert_eq!(world.audited("machine.other_vault").await, 1);
    assert_eq!(row(&world).await.vault_key, Some(key(&machine.vault)));
}

/// Loss prevented: a restored disk image takes notes that its journal no longer knows of.
#[tokio::test]
async fn a_journal_that_goes_back_disables_the_machine() {
    for beside in [false, true] {
        let world = World::new().await;
        let _rpc = world.serve().await;
        let mut machine = world.machine().await;
        machine.journal = 7;
        machine.open_session().await.unwrap();
        world.confirm().await;
        world.advance(2);
        machine.journal = if beside { 7 } else { 3 };
        machine.session = Keys::generate();
        let mut body = machine.opening();
        if beside {
            body.journal_head = JournalHead::from_bytes([0xee; 32]);
        }
        assert_eq!(machine.open(body).await, Err(ErrorCode::Disabled));
        assert!(row(&world).await.disabled_at.is_some());
        assert_eq!(world.audited("machine.journal_fork").await, 1);
    }
}

/// Loss prevented: a machine switched off because a relay brought the older of two requests last.
#[tokio::test]
async fn an_older_request_that_comes_late_is_no_fork() {
    let world = World::new().await;
    let _rpc = world.serve().await;
    let mut machine = world.machine().await;
    let request_id = RequestId::from_bytes(id());
    let old = Request::new(request_id, machine.opening()).unwrap().to_plaintext().unwrap();
    let old = machine.event(&machine.spire, &old);
    world.advance(2);
    machine.session = Keys::generate();
    let opened = machine.spire.clone();
    let body = machine.opening();
    let new = Request::new(RequestId::from_bytes(id()), body).unwrap();
    let reply = machine.request(&opened, &new).await.read::<OpenSession>().unwrap();
    assert!(reply.is_ok());
    machine.send(&old).await;
    let (_, message) = machine.next(&opened).await;
    let stale =
        matches!(message, ServiceMessage::Reply(Reply::Error { code: ErrorCode::Stale, .. }));
    assert!(stale, "{message:?}");
    assert_eq!(row(&world).await.disabled_at, None);
}

/// Loss prevented: a session for a key that never agreed, or one that a session made for itself.
#[tokio::test]
async fn a_session_needs_every_proof() {
    let world = World::new().await;
    let _rpc = world.serve().await;
    let mut machine = world.machine().await;
    let stranger = Keys::generate();
    type Change = fn(&mut OpenSession, &Keys);
    let changes: [(Change, ErrorCode); 4] = [
        (|body, _| body.proof = body.vault_proof, ErrorCode::BadSignature),
        (|body, _| body.vault_proof = body.proof, ErrorCode::BadSignature),
        (|body, other| body.session_pubkey = key(other), ErrorCode::BadSignature),
        (|body, _| body.expires_at = body.expires_at.after(86_400), ErrorCode::Invalid),
    ];
    for (n, (change, code)) in changes.into_iter().enumerate() {
        let mut body = machine.opening();
        change(&mut body, &stranger);
        assert_eq!(machine.open(body).await, Err(code), "case {n}");
    }
    assert_eq!(row(&world).await.vault_key, None, "nothing was pinned");
    machine.open_session().await.unwrap();
    let body = machine.opening();
    assert_eq!(machine.ask(body).await, Err(ErrorCode::Invalid), "by a session");
}

/// Loss prevented: a page that shows what somebody else says of a machine, or an old report.
#[tokio::test]
async fn the_newest_report_of_the_vault_stays() {
    let (world, mut machine) = serving().await;
    let (old, new) = (state(&mut machine, &[]), state(&mut machine, &[]));
    let seq = new.check(&key(&machine.vault)).unwrap().journal_seq;
    assert_eq!(machine.ask(new).await, Ok(Ack {}));
    assert_eq!(machine.ask(old).await, Ok(Ack {}), "out of order is no fault");
    let id = world.machine_id;
    let kept = world.read(move |read| cassettes::heartbeat(read, id)).await.unwrap();
    assert_eq!(kept.journal_seq, seq);
    assert_eq!(row(&world).await.journal_seq, seq);
    let kept: VaultSigned<StateReport> = serde_json::from_value(kept.body.0).unwrap();
    assert!(kept.check(&key(&machine.vault)).is_ok(), "it is kept as it was signed");
    let applied =
        world.read(move |read| documents::last_applied(read, id, DocumentKind::Fees)).await;
    assert!(applied.is_some());
    let vault = std::mem::replace(&mut machine.vault, Keys::generate());
    let forged = state(&mut machine, &[]);
    assert_eq!(machine.ask(forged).await, Err(ErrorCode::BadSignature));
    machine.vault = vault;
}

/// Loss prevented: a machine that sells from two journals, of which each hides what the other gave.
#[tokio::test]
async fn a_journal_beside_a_position_that_is_known_disables_the_machine() {
    let (world, mut machine) = serving().await;
    let known = machine.journal + 1;
    for _ in 0..3 {
        let report = state(&mut machine, &[]);
        assert_eq!(machine.ask(report).await, Ok(Ack {}));
    }
    let (id, vault) = (world.machine_id, key(&machine.vault));
    let shown = move |after| heads::Head {
        machine_id: id,
        vault_key: vault,
        seq: JournalSeq(after),
        head: JournalHead::from_bytes([after as u8; 32]),
        at: Unix(0),
    };
    let kept = world.read(move |read| heads::page(read, id, vault, JournalSeq(known - 1), 9)).await;
    let kept: Vec<_> = kept.into_iter().map(|head| heads::Head { at: Unix(0), ..head }).collect();
    assert_eq!(kept, [shown(known), shown(known + 1), shown(known + 2)]);
    // an older position is not the last one: only what was kept shows that it is another
    machine.journal = known - 1;
    let mut beside = state(&mut machine, &[]).check(&vault).unwrap().clone();
    beside.journal_head = JournalHead::from_bytes([0xee; 32]);
    let beside = machine.signed(beside);
    assert_eq!(machine.ask(beside).await, Err(ErrorCode::Disabled));
    assert!(row(&world).await.disabled_at.is_some());
    assert_eq!(world.audited("machine.journal_fork").await, 1);
}
