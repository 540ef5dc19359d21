//! The ledger in the database: what sums to zero, once, for ever; and nothing else.

use bitspire_shared::money::Sats;
use bitspire_shared::split::{Split, Terms};
use bitspire_shared::time::Unix;

use super::fixtures::{World, hash, txid, world};
use crate::ids::EntryId;
use crate::ledger::{
    Account, Customer, Entry, EntryKind, Posting, Unit, owed_whole, paid_out, settled,
};
use crate::store::{ConstraintKind, Recorded, StoreError, ledger};

fn sale(world: &World, n: u8) -> Entry {
    let split = Split::new(Terms {
        direction: bitspire_shared::money::Direction::CashOut,
        wire: Sats(105_000),
        principal: Sats(100_000),
        fee: Sats(5_000),
        owed: Sats::ZERO,
        platform: bitspire_shared::money::FeePpm::new(20_000).unwrap(),
    })
    .unwrap();
    settled(world.machine, world.operator, hash(n), Some(txid(n)), &split).unwrap()
}

fn refused(world: &World, sql: &'static str) -> String {
    match world.write(move |tx| tx.run(sql, &[])) {
        Err(StoreError::Constraint { kind: ConstraintKind::Rule, on }) => on,
        other => panic!("{sql}: {other:?}"),
    }
}

/// Loss prevented: an entry that the program got wrong is in the books all the same.
#[test]
fn the_database_itself_refuses_what_does_not_sum_to_zero() {
    let world = world();
    for lines in [
        r#"[["wallet:1","sats",10],["owed:1","sats",-9]]"#,
        r#"[["exchange:1","sats",10],["exchange:1","EUR",-10]]"#,
        r#"[["wallet:1","sats",10],["owed:1","sats","-10"]]"#,
        r#"[["wallet:1","sats",1.5],["owed:1","sats",-1.5]]"#,
        r#"[["wallet:1","sats",10],["owed:1","sats",-10],["super","sats"]]"#,
        r#"[["wallet:1","sats",10],["owed:1","sats",-10],5]"#,
        r#"[["wallet:1","sats",10],["owed:1",null,-10]]"#,
    ] {
        let sql = format!(
            "INSERT INTO ledger_entries (at, kind, reference, lines)
             VALUES (1, 'settled', 'x', '{lines}')"
        );
        let sql: &'static str = Box::leak(sql.into_boxed_str());
        assert_eq!(refused(&world, sql), "ledger: an entry must sum to zero in each unit");
    }
    for lines in ["[]", r#"[["wallet:1","sats",10]]"#, "{}", "no json"] {
        let sql = format!(
            "INSERT INTO ledger_entries (at, kind, reference, lines)
             VALUES (1, 'settled', 'x', '{lines}')"
        );
        assert!(world.write(move |tx| tx.run(&sql, &[])).is_err(), "{lines}");
    }
    let kind = world.write(|tx| {
        tx.run(
            "INSERT INTO ledger_entries (at, kind, reference, lines) VALUES (1, 'invented', 'x',
                '[[\"wallet:1\",\"sats\",1],[\"owed:1\",\"sats\",-1]]')",
            &[],
        )
    });
    assert!(
        matches!(kind, Err(StoreError::Constraint { kind: ConstraintKind::ForeignKey, .. })),
        "{kind:?}"
    );
    assert_eq!(world.read(ledger::kept_closings), [], "nothing was booked");
}

/// Loss prevented: a posting slipped in or changed after the entry, or history rewritten.
#[test]
fn postings_are_the_lines_of_their_entry_and_stay() {
    let world = world();
    let entry = sale(&world, 1);
    world.write(move |tx| ledger::append(tx, &entry, Unix(5))).unwrap();
    for sql in [
        "INSERT INTO ledger_postings VALUES (1, 9, 'wallet:1', 'sats', 5)",
        "INSERT INTO ledger_postings VALUES (2, 0, 'wallet:1', 'sats', 5)",
        "REPLACE INTO ledger_postings VALUES (1, 0, 'wallet:1', 'sats', 5)",
    ] {
        assert_eq!(refused(&world, sql), "ledger: a posting is a line of its entry", "{sql}");
    }
    for sql in [
        "UPDATE ledger_postings SET amount = amount * 2",
        "DELETE FROM ledger_postings",
        "REPLACE INTO ledger_postings SELECT * FROM ledger_postings",
        "UPDATE ledger_entries SET lines = '[]'",
        "DELETE FROM ledger_entries",
        "REPLACE INTO ledger_entries SELECT * FROM ledger_entries",
    ] {
        assert_eq!(refused(&world, sql), "ledger: append only", "{sql}");
    }
    assert_eq!(world.read(ledger::findings), []);
}

/// Loss prevented: one event booked twice doubles its sats.
#[test]
fn an_event_is_booked_once() {
    let world = world();
    let entry = sale(&world, 1);
    let append = |entry: &Entry, at| {
        let entry = entry.clone();
        world.write(move |tx| ledger::append(tx, &entry, Unix(at)))
    };
    assert_eq!(append(&entry, 5).unwrap(), Recorded::New(EntryId(1)));
    assert_eq!(append(&entry, 6).unwrap(), Recorded::Known(EntryId(1)));
    let other = Entry::new(
        EntryKind::Settled,
        hash(1).to_string(),
        None,
        sale(&world, 1).postings().iter().map(|p| Posting { amount: p.amount * 2, ..*p }),
    )
    .unwrap();
    let conflict = append(&other, 7).unwrap_err();
    assert!(matches!(conflict, StoreError::Conflict { what: "ledger entry", .. }), "{conflict}");

    let booked = world.read(|read| ledger::find(read, EntryKind::Settled, &hash(1).to_string()));
    let booked = booked.unwrap();
    assert_eq!((booked.id, booked.at, &booked.entry), (EntryId(1), Unix(5), &entry));
    let back = entry.reversal(EntryId(1), "test").unwrap();
    append(&back, 8).unwrap();
    let all = world.read(|read| ledger::page(read, EntryId(0), 10));
    assert_eq!(all.iter().map(|b| b.entry.clone()).collect::<Vec<_>>(), [entry, back]);
    assert_eq!(world.read(|read| ledger::of_txid(read, txid(1))).len(), 2);
}

/// Loss prevented: a balance that is not the sum of the postings, or a wrong one that is not found.
#[test]
fn balances_are_sums_and_impossible_ones_are_found() {
    let world = world();
    let (machine, operator) = (world.machine, world.operator);
    let first = sale(&world, 1);
    let late = owed_whole(machine, &hash(2).to_string(), txid(2), Sats(500)).unwrap();
    world
        .write(move |tx| {
            ledger::append(tx, &first, Unix(5))?;
            ledger::append(tx, &late, Unix(6))
        })
        .unwrap();
    let balance = |account| world.read(move |read| ledger::balance(read, account, Unit::Sats));
    assert_eq!(balance(Account::Wallet(machine)), 105_500);
    assert_eq!(balance(Account::Operator(operator)), -3_000);
    assert_eq!(balance(Account::Owed(machine)), -500);
    assert_eq!(balance(Account::RoutingFees(machine)), 0);
    assert_eq!(world.read(ledger::findings), []);

    let more = paid_out(machine, Customer::Claim, hash(3), txid(2), Sats(501), Sats(1)).unwrap();
    let id = world.write(move |tx| ledger::append(tx, &more, Unix(7))).unwrap().id();
    let found = world.read(ledger::findings);
    assert!(
        matches!(found[..], [crate::ledger::Finding::Sign { balance: 1, since, .. }] if since == id),
        "{found:?}"
    );
}

/// Loss prevented: a balance, or the end of a day, that is shown without what was booked after a clock
/// was set back; or a kept sum that loses what it is of.
#[test]
fn kept_sums_are_those_of_the_postings_in_any_order_of_days() {
    const DAY: u64 = 86_400;
    let world = world();
    let machine = world.machine;
    for (n, day) in [(1, 5), (2, 9), (3, 7), (4, 7), (5, 4), (6, 9)] {
        let entry =
            owed_whole(machine, &hash(n).to_string(), txid(n), Sats(10_u64.pow(n.into()))).unwrap();
        world.write(move |tx| ledger::append(tx, &entry, Unix(day * DAY + 1))).unwrap();
    }
    let wallet = |held: Vec<ledger::Closing>| {
        let of = held.iter().filter(|one| one.account == Account::Wallet(machine));
        of.map(|one| (one.day, one.balance)).collect::<Vec<_>>()
    };
    let days = [(4, 100_000), (5, 100_010), (7, 111_010), (9, 1_111_110)];
    assert_eq!(wallet(world.read(ledger::kept_closings)), days);
    let balance =
        world.read(move |read| ledger::balance(read, Account::Wallet(machine), Unit::Sats));
    assert_eq!(balance, 1_111_110);
    for (from, until, expected) in [
        (1, 3, vec![]),
        (1, 5, vec![(4, 100_000), (5, 100_010)]),
        (6, 8, vec![(6, 100_010), (7, 111_010)]),
        (8, 8, vec![(8, 111_010)]),
        (12, 20, vec![(12, 1_111_110)]),
    ] {
        assert_eq!(wallet(world.read(move |read| ledger::closings(read, from, until))), expected);
    }
    assert_eq!(refused(&world, "DELETE FROM ledger_sums"), "ledger: a sum stays");
    let renamed = "UPDATE ledger_sums SET day = day + 1";
    assert_eq!(refused(&world, renamed), "ledger: a sum stays what it is of");
}

/// Loss prevented: an event kind that the program books and the database refuses, in the field.
#[test]
fn the_database_knows_every_kind_of_entry() {
    let world = world();
    let mut known = world.read(|read| {
        read.all("SELECT kind FROM ledger_kinds", &[], |row| row.get::<String>("kind"))
    });
    let mut ours: Vec<_> = EntryKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    known.sort();
    ours.sort();
    assert_eq!(known, ours);
}
