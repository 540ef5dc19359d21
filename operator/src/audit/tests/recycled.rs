//! Notes that customers fed and the machine sells again: in one place of the books each.

use bitspire_shared::document::Action;
use bitspire_shared::ids::ChangeId;
use bitspire_shared::rpc::{BayChange, DispenseOutcome, ServiceAction, ServiceEvent};
use bitspire_shared::time::Unix;

use super::super::report::Check;
use super::shop::{Shop, bay};
use super::waits;
use crate::ledger::{Account, Unit};
use crate::rpc::tests::cash_out::note;
use crate::store::ledger;

impl Shop {
    /// So many of the notes in the cashbox lie in the bay.
    fn recycles(&mut self, notes: u32) {
        self.counts.cashbox -= notes;
        self.counts.bay += notes;
        self.counts.recycled += notes;
    }

    /// Notes of 20 by the ledger: in the bay, in the cashbox, missing.
    async fn held(&self) -> [i64; 3] {
        let (id, unit) = (self.world.machine_id, Unit::Fiat("EUR".parse().unwrap()));
        let note = note(2_000);
        let accounts = [
            Account::Bay(id, bay(), note),
            Account::Cashbox(id, note),
            Account::CashDifference(id),
        ];
        let mut held = [0; 3];
        for (held, account) in held.iter_mut().zip(accounts) {
            let value = self.world.read(move |read| ledger::balance(read, account, unit)).await;
            *held = value / 2_000;
        }
        held
    }

    async fn agrees(&self) {
        let audit = self.audit().await;
        assert!(audit.ok, "{:#?}", audit.differences);
        assert!(!waits(&audit, Check::Cash, ""), "{:#?}", audit.waiting);
    }
}

/// Loss prevented: a recycled note that stands in cashbox and bay, or in neither, because its
/// heartbeat came twice, late, or not at all; or one that a later count makes up.
#[tokio::test]
async fn a_recycled_note_moves_from_the_cashbox_to_its_bay_once() {
    let mut shop = Shop::open().await;
    for _ in 0..3 {
        shop.fed().await;
    }
    shop.recycles(1);
    let older = shop.state(&[], &[]);
    shop.recycles(1);
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [122, 1, 0]);
    shop.machine.ask(older).await.unwrap();
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [122, 1, 0], "each once");
    shop.agrees().await;
    // they are sold again
    let sale = shop.paid().await;
    shop.dispensed(&sale, DispenseOutcome::Full, 2).await;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [120, 1, 0]);
    shop.agrees().await;
    // a journal that begins to count anew, after another pairing: its first note is one more
    shop.fed().await;
    shop.recycles(1);
    (shop.counts.recycled, shop.counts.since) = (1, 90);
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [121, 1, 0]);
    shop.agrees().await;
    // one is missing when somebody counts: it is that, not a refill
    let (journal_seq, _) = shop.machine.journal();
    let action = ServiceAction::BayChanged {
        bay: bay(),
        denomination_minor: note(2_000),
        change: BayChange::Set(120),
        expected: Some(121),
        reason: "one is missing".into(),
    };
    let id = ChangeId::from_bytes([77; 16]);
    shop.events.push(ServiceEvent { id, journal_seq, at: Unix(9), action });
    shop.counts.bay = 120;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [120, 1, 1]);
    shop.agrees().await;
}

/// Loss prevented: a count of a bay that nobody ever filled by hand, booked as the operator's refill:
/// a missing note would be one that the operator took.
#[tokio::test]
async fn a_bay_that_customers_filled_is_not_counted_as_a_first_load() {
    let mut shop = Shop::empty().await;
    shop.fed().await;
    shop.fed().await;
    shop.recycles(2);
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [2, 0, 0]);
    let (journal_seq, _) = shop.machine.journal();
    let action = ServiceAction::BayChanged {
        bay: bay(),
        denomination_minor: note(2_000),
        change: BayChange::Set(1),
        expected: Some(2),
        reason: "one is missing".into(),
    };
    let id = ChangeId::from_bytes([78; 16]);
    shop.events.push(ServiceEvent { id, journal_seq, at: Unix(9), action });
    shop.counts.bay = 1;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [1, 0, 1]);
    shop.agrees().await;
}

/// Loss prevented: the notes that a machine began with, shown as money that was found, because a
/// customer's note came into the same bay before the heartbeat that tells of both.
#[tokio::test]
async fn a_first_load_stays_the_operators_whatever_customers_add_to_it() {
    // by a document, and at the machine
    for by_document in [true, false] {
        let mut shop = Shop::empty().await;
        let mut filled = None;
        if by_document {
            filled = Some(shop.wish(Some(20), Action::Set(100)).await);
        } else {
            shop.changed(BayChange::Set(100), Some(0));
        }
        shop.counts.bay = 100;
        shop.fed().await;
        shop.recycles(1);
        let filled: Vec<_> = filled.into_iter().collect();
        shop.heartbeat(&filled, &[]).await;
        assert_eq!(shop.held().await, [101, 0, 0], "by document: {by_document}");
        shop.agrees().await;
        // what is counted later is missing, or found
        shop.world.advance(60);
        shop.changed(BayChange::Set(99), Some(101));
        shop.counts.bay = 99;
        shop.heartbeat(&filled, &[]).await;
        assert_eq!(shop.held().await, [99, 0, 2], "by document: {by_document}");
        shop.agrees().await;
    }
    // here the customers' notes were first, though one heartbeat tells of both: one is missing
    let mut shop = Shop::empty().await;
    shop.fed().await;
    shop.fed().await;
    shop.recycles(2);
    shop.changed(BayChange::Set(1), Some(2));
    shop.counts.bay = 1;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.held().await, [1, 0, 1]);
    shop.agrees().await;
}

/// Loss prevented: books that somebody has changed so that a recycled note is nowhere, or twice.
#[tokio::test]
async fn a_recycled_note_that_is_planted_is_found() {
    let mut shop = Shop::open().await;
    shop.fed().await;
    shop.fed().await;
    shop.recycles(2);
    shop.heartbeat(&[], &[]).await;
    shop.agrees().await;
    let given = shop.given().await;
    let planted: [&'static [&'static str]; 3] = [
        // more is on record than was booked and told
        &["UPDATE recycled SET notes = notes + 1"],
        // another bay has it
        &["INSERT INTO ledger_entries (at, kind, reference, lines)
           SELECT at, kind, replace(reference, ':1:2000:', ':2:2000:'),
             replace(lines, 'bay:1:1:', 'bay:1:2:') FROM ledger_entries WHERE kind = 'recycled'"],
        // and it moves twice
        &["INSERT INTO ledger_entries (at, kind, reference, lines)
           SELECT at, kind, reference || '0', lines FROM ledger_entries WHERE kind = 'recycled'"],
    ];
    for statements in planted {
        let audit = shop.damaged(&given, statements).await;
        assert!(!audit.ok, "{statements:?}");
        let found = audit.differences.iter().any(|one| one.subject.contains("recycled notes"));
        assert!(found, "{statements:?}: {:#?}", audit.differences);
    }
    // the machine says that a third note lies in the bay, and nobody fed one
    shop.counts.bay += 1;
    shop.counts.recycled += 1;
    shop.heartbeat(&[], &[]).await;
    assert!(!shop.audit().await.ok);
}
