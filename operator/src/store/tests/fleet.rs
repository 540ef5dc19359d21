//! Machines: one key, one wallet, one pairing at a time; a journal that never goes back.

use bitspire_shared::ids::{JournalSeq, PubKey};
use bitspire_shared::money::FeePpm;
use bitspire_shared::time::Unix;
use serde_json::json;

use super::fixtures::{World, head, key, machine, world};
use crate::store::documents::{self, DocumentKind, Fees, NewDocument};
use crate::store::machines::{self, Confirmation};
use crate::store::operators::{self, SuperConfig};
use crate::store::pairing::{self, Pairing, PairingStep, Progress};
use crate::store::sessions::{self, Session};
use crate::store::{ConstraintKind, Json, StoreError, log, outbox};

fn is_unique(error: &StoreError, on: &str) -> bool {
    error.is_unique_on(on)
}

/// Loss prevented: two machines on one wallet or one key: one's payments pay the other's notes.
#[test]
fn a_wallet_and_a_key_belong_to_one_machine() {
    let world = world();
    let operator = world.operator;
    let same = world.write(move |tx| machines::insert(tx, &machine(operator, "wallet-1")));
    assert!(is_unique(&same.unwrap_err(), "machines.wallet_id"));
    let second = world.write(move |tx| machines::insert(tx, &machine(operator, "wallet-2")));
    let second = second.unwrap();
    let pair = world
        .write(move |tx| machines::set_paired(tx, second, key(2), "spire-2", Unix(99), Unix(2)));
    assert!(is_unique(&pair.unwrap_err(), "machines.machine_npub"));
    let by_wallet = world.read(|read| machines::by_wallet(read, "wallet-2")).unwrap();
    assert_eq!(by_wallet.id, second);
    assert_eq!(world.read(|read| machines::by_spire(read, key(2))).unwrap().id, world.machine);
    let listed = world.read(machines::roster);
    assert_eq!(
        listed.iter().map(|m| (m.id, m.spire)).collect::<Vec<_>>(),
        [(world.machine, key(2))]
    );
    assert_eq!(world.read(|read| machines::list(read, None)).len(), 2);
}

/// Loss prevented: a list made short for speed that leaves a machine out: nobody hears it, its pairing
/// ends unsaid, or its client is never learnt.
#[test]
fn each_short_list_has_whom_it_is_for() {
    let world = world();
    let (id, operator) = (world.machine, world.operator);
    world.write(move |tx| machines::insert(tx, &machine(operator, "wallet-2"))).unwrap();
    let ids = |list: Vec<machines::KeptMachine>| list.iter().map(|m| m.id).collect::<Vec<_>>();
    let ending = |at| ids(world.read(move |read| machines::ending(read, Unix(at))));
    let unredeemed = |at| ids(world.read(move |read| machines::unredeemed(read, Unix(at))));
    world
        .write(move |tx| machines::set_paired(tx, id, key(7), "spire", Unix(99), Unix(20)))
        .unwrap();
    assert_eq!((ending(99), unredeemed(99), unredeemed(100)), (vec![], vec![id], vec![]));
    world.write(move |tx| machines::set_client(tx, id, key(6), None)).unwrap();
    world.write(move |tx| machines::pin_vault(tx, id, key(3))).unwrap();
    world.write(move |tx| machines::confirm(tx, id, Unix(20))).unwrap();
    assert_eq!((ending(98), ending(99), unredeemed(99)), (vec![], vec![id], vec![]));
    let [listed] = world.read(machines::roster)[..] else { panic!("one is paired") };
    assert_eq!((listed.id, listed.operator_id, listed.spire), (id, operator, key(7)));
    assert_eq!((listed.client, listed.token_expires_at), (Some(key(6)), Some(Unix(99))));
    assert_eq!(listed.revoked_at, None);
    world.write(move |tx| machines::revoke(tx, id, Unix(21))).unwrap();
    assert_eq!((ending(99), unredeemed(99)), (vec![], vec![]));
    let [listed] = world.read(machines::roster)[..] else { panic!("it is told so") };
    assert_eq!(listed.revoked_at, Some(Unix(21)));
}

/// Loss prevented: a row that is read by another column's value, because columns are looked for from
/// the last one on; or a key that is none, taken for one because another was read before.
#[test]
fn columns_are_found_in_any_order_and_keys_are_checked() {
    let world = world();
    let read = |sql: &'static str, names: [&'static str; 3]| {
        world.store.read_blocking::<_, StoreError, _>(move |read| {
            let values = |row: &crate::store::row::Row<'_>| -> Result<[i64; 3], StoreError> {
                Ok([row.get(names[0])?, row.get(names[1])?, row.get(names[2])?])
            };
            read.one(sql, &[], values)
        })
    };
    let sql = "SELECT 1 AS a, 2 AS b, 3 AS c";
    for (names, expected) in
        [(["a", "b", "c"], [1, 2, 3]), (["c", "a", "b"], [3, 1, 2]), (["b", "b", "a"], [2, 2, 1])]
    {
        assert_eq!(read(sql, names).unwrap(), Some(expected), "{names:?}");
    }
    assert!(read(sql, ["a", "c", "d"]).is_err(), "there is no d");
    let keys = |text: String| {
        world.store.read_blocking::<_, StoreError, _>(move |read| {
            read.one("SELECT ?1 AS key", &[&text], |row| row.get::<PubKey>("key"))
        })
    };
    for _ in 0..2 {
        assert_eq!(keys(key(1).to_string()).unwrap(), Some(key(1)));
        assert!(keys("ff".repeat(32)).is_err(), "no point of the curve");
    }
}

fn open_session(world: &World) {
    let id = world.machine;
    let session = Session {
        session_id: bitspire_shared::ids::SessionId::from_bytes([1; 16]),
        machine_id: id,
        session_pubkey: key(4),
        vault_key: key(3),
        event_id: super::fixtures::event_id(1),
        journal_seq: JournalSeq(1),
        journal_head: head(1),
        opened_at: Unix(10),
        expires_at: Unix(500),
        closed_at: None,
        opening: None,
    };
    world.write(move |tx| sessions::insert(tx, &session)).unwrap();
}

/// Loss prevented: another vault, or a machine that nobody has confirmed, is served.
#[test]
fn a_pairing_goes_step_by_step_and_a_revoke_ends_it() {
    let world = world();
    let id = world.machine;
    let confirm_early = world.write(move |tx| machines::confirm(tx, id, Unix(3)));
    assert!(matches!(confirm_early, Err(StoreError::NotOneRow { changed: 0, .. })));
    world.write(move |tx| machines::pin_vault(tx, id, key(3))).unwrap();
    let other = world.write(move |tx| machines::pin_vault(tx, id, key(4)));
    assert!(other.is_err(), "the first vault key is pinned");
    world.write(move |tx| machines::confirm(tx, id, Unix(3))).unwrap();
    open_session(&world);
    let live = |now| world.read(move |read| sessions::live(read, key(4), Unix(now)));
    assert_eq!(live(499).unwrap().machine_id, id);
    assert_eq!(live(500), None, "expired");

    world.write(move |tx| machines::revoke(tx, id, Unix(20))).unwrap();
    assert_eq!(live(21), None, "closed with the revoke");
    assert_eq!(world.read(machines::roster)[0].revoked_at, Some(Unix(20)), "it is told so");
    let machine = world.read(move |read| machines::find(read, id)).unwrap();
    assert_eq!(machine.confirmation, Confirmation::Revoked);
    world
        .write(move |tx| machines::set_paired(tx, id, key(5), "spire-1-2", Unix(999), Unix(30)))
        .unwrap();
    let again = world.read(move |read| machines::find(read, id)).unwrap();
    assert_eq!(again.confirmation, Confirmation::AwaitingSession);
    assert_eq!((again.vault_key, again.revoked_at, again.journal_seq.0), (None, None, 0));
}

/// Loss prevented: a machine restored from an old disk trades on a journal that has been seen.
#[test]
fn a_journal_never_goes_back() {
    let world = world();
    let id = world.machine;
    let saw = |seq, n| {
        world.write(move |tx| machines::saw_journal(tx, id, JournalSeq(seq), head(n), Unix(9)))
    };
    saw(5, 5).unwrap();
    saw(5, 5).unwrap();
    assert!(saw(5, 6).is_err(), "beside the last one");
    assert!(saw(4, 4).is_err(), "below the last one");
    saw(6, 6).unwrap();
    let gone = world.write(move |tx| tx.run("DELETE FROM machines WHERE id = ?1", &[&id]));
    assert!(matches!(gone, Err(StoreError::Constraint { kind: ConstraintKind::Rule, .. })));
}

fn attempt(world: &World, number: u64, name: &str) -> Pairing {
    Pairing {
        machine_id: world.machine,
        number,
        key_name: name.into(),
        requested_by: "cli".into(),
        relays: Json(vec!["wss://relay.example".into()]),
        duration_hours: 720,
        step: PairingStep::Started,
        spire_key: None,
        policy_id: None,
        token_id: None,
        token_expires_at: None,
        error: None,
        started_at: Unix(5),
        updated_at: Unix(5),
    }
}

/// Loss prevented: two pairings of one machine at once leave two keys that are believed.
#[test]
fn one_pairing_attempt_at_a_time() {
    let world = world();
    let id = world.machine;
    assert_eq!(world.read(move |read| pairing::next_number(read, id)), 1);
    let first = attempt(&world, 1, "spire-1");
    let first = world.write(move |tx| pairing::insert(tx, &first)).unwrap();
    let second = attempt(&world, 2, "spire-1-2");
    let kept = second.clone();
    let refused = world.write(move |tx| pairing::insert(tx, &kept)).unwrap_err();
    assert!(is_unique(&refused, "pairing_attempts.machine_id"), "{refused}");
    let progress = Progress { spire_key: Some(key(6)), ..Progress::default() };
    world
        .write(move |tx| {
            pairing::advance(tx, first, PairingStep::KeyCreated, &progress, Unix(6))?;
            pairing::advance(tx, first, PairingStep::PolicyReady, &Progress::default(), Unix(7))?;
            pairing::fail(tx, first, "the bunker is gone", Unix(8))
        })
        .unwrap();
    let ended = world.read(move |read| pairing::find(read, first)).unwrap();
    assert_eq!((ended.spire_key, ended.step), (Some(key(6)), PairingStep::Failed));
    assert_eq!(world.read(pairing::open), []);
    world.write(move |tx| pairing::insert(tx, &second)).unwrap();
    assert_eq!(world.read(move |read| pairing::next_number(read, id)), 3);
}

/// Loss prevented: a fee above the cap, or an instance without its one configuration row.
#[test]
fn the_super_configuration_is_one_row_within_the_cap() {
    let world = world();
    let first = world.read(operators::super_config);
    assert_eq!((first.cash_in_fee_ppm, first.wallet_id), (FeePpm::ZERO, None));
    let over = SuperConfig {
        cash_in_fee_ppm: FeePpm::new(150_001).unwrap(),
        cash_out_fee_ppm: FeePpm::ZERO,
        wallet_id: None,
        updated_at: Unix(9),
    };
    let refused = world.write(move |tx| operators::set_super_config(tx, &over)).unwrap_err();
    assert!(
        matches!(refused, StoreError::Constraint { kind: ConstraintKind::Check, .. }),
        "{refused}"
    );
    let gone = world.write(|tx| tx.run("DELETE FROM super_config", &[]));
    assert!(gone.is_err());
}

fn fees(world: &World, operator_ppm: u32, at: u64) -> NewDocument {
    let operator = FeePpm::new(operator_ppm).unwrap();
    NewDocument {
        machine_id: world.machine,
        kind: DocumentKind::Fees,
        body: json!({"published_at": at}),
        published_at: Unix(at),
        fees: Some(Fees {
            cash_in_platform: FeePpm::ZERO,
            cash_in_operator: operator,
            cash_out_platform: FeePpm::ZERO,
            cash_out_operator: operator,
        }),
    }
}

/// Loss prevented: an old fee document sent after the new one, or a change that nobody ever sends.
#[test]
fn a_document_waits_in_the_outbox_until_it_is_superseded_or_sent() {
    let world = world();
    let machine = world.machine;
    let want = |ppm, at| {
        let new = fees(&world, ppm, at);
        world.write(move |tx| documents::want(tx, &new, Unix(at)))
    };
    let first = want(10_000, 50).unwrap();
    let second = want(20_000, 60).unwrap();
    assert!(want(150_001, 61).is_err(), "over the cap: nothing changes");
    let due = world.read(|read| outbox::due_documents(read, Unix(60), outbox::START, 10));
    assert_eq!(due.iter().map(|w| w.document_id).collect::<Vec<_>>(), [Some(second)]);
    let wanted = world.read(move |read| documents::wanted(read, machine, DocumentKind::Fees));
    assert_eq!(wanted.unwrap().id, second);
    assert!(world.read(move |read| documents::find(read, first)).unwrap().superseded_at.is_some());

    let id = due[0].id;
    world.write(move |tx| outbox::failed(tx, id, "no relay", Unix(90))).unwrap();
    assert!(world.read(|read| outbox::due_documents(read, Unix(89), outbox::START, 10)).is_empty());
    let due = world.read(|read| outbox::due_documents(read, Unix(90), outbox::START, 10));
    assert_eq!(due.len(), 1);
    let after = (due[0].not_before, due[0].id);
    assert!(world.read(move |read| outbox::due_documents(read, Unix(90), after, 10)).is_empty());
    world.write(move |tx| outbox::hurry(tx, second)).unwrap();
    let due = world.read(|read| outbox::due_documents(read, Unix(1), outbox::START, 10));
    assert!(matches!(&due[..], [due] if due.is_hurried()), "whatever the time: {due:?}");
    let event = super::fixtures::event_id(3);
    world
        .write(move |tx| {
            documents::set_signed(tx, second, (event, "{}"), Unix(70), Unix(71))?;
            documents::set_relay_acked(tx, second, Unix(72))?;
            outbox::done(tx, id, Unix(72))
        })
        .unwrap();
    let sign_again = world.write(move |tx| {
        let other = super::fixtures::event_id(4);
        documents::set_signed(tx, second, (other, "{}"), Unix(80), Unix(80))
    });
    assert!(sign_again.is_err(), "one event a version");
    assert!(world.write(move |tx| documents::set_applied(tx, machine, event, Unix(75))).unwrap());
    let applied =
        world.read(move |read| documents::last_applied(read, machine, DocumentKind::Fees));
    let applied = applied.unwrap();
    assert_eq!(applied.fees().unwrap().cash_out_operator, FeePpm::new(20_000).unwrap());
    assert_eq!((applied.relay_acked_at, applied.applied_at), (Some(Unix(72)), Some(Unix(75))));
    assert!(
        world.read(|read| outbox::due_documents(read, Unix(999), outbox::START, 10)).is_empty()
    );
}

/// Loss prevented: a statement used twice; a page of refusals that fills the disk.
#[test]
fn a_nonce_is_used_once_and_refusals_are_bounded() {
    let world = world();
    let used = |at| world.write(move |tx| log::use_nonce(tx, "verdict", "n", Unix(at)));
    assert!(used(50).unwrap());
    assert!(!used(50).unwrap());
    assert_eq!(world.write(|tx| log::forget_nonces(tx, Unix(50))).unwrap(), 0);
    assert_eq!(world.write(|tx| log::forget_nonces(tx, Unix(51))).unwrap(), 1);

    let row = |n: u64, verified| log::Rejected {
        reason: "not_in_roster".into(),
        sender: Some(format!("{n:064x}")),
        verified,
        count: 2,
        first_at: Unix(n),
        last_at: Unix(n + 1),
        relay: None,
        event_id: None,
        detail: String::new(),
    };
    let machine = row(3, true);
    let known = machine.clone();
    world
        .write(move |tx| {
            log::reject(tx, &known)?;
            (10..520).try_for_each(|n| log::reject(tx, &row(n, false)))?;
            log::reject(
                tx,
                &log::Rejected { first_at: Unix(2), last_at: Unix(600), ..row(15, false) },
            )?;
            log::reject(
                tx,
                &log::Rejected { first_at: Unix(601), last_at: Unix(601), ..row(519, false) },
            )
        })
        .unwrap();
    let kept = world.read(|read| log::rejected(read, 5_000));
    assert_eq!(kept.len(), 501, "500 of strangers, and the machine's");
    assert_eq!((kept[0].count, kept[0].first_at, kept[0].last_at), (4, Unix(519), Unix(601)));
    assert_eq!((kept[1].count, kept[1].first_at), (2, Unix(2)), "one that was pushed out is new");
    assert_eq!(kept.last(), Some(&machine), "strangers push no known sender out");
}
