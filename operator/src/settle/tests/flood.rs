//! Very many payments at once: what each costs the one thread that writes, and whom they keep waiting.

use std::sync::mpsc;
use std::task::Poll;

use futures_util::future::join_all;

use super::odd::{Odd, Told, landed};
use super::record::{Landed, record};
use super::watch::HINTS;
use super::*;
use crate::ledger::suspended;
use crate::store::unrecorded::{self, Unrecorded};
use crate::store::{QUEUE, Tx, counted, ledger};
use crate::testing::Death;

/// Payments of the till that nobody asked for.
async fn strays(world: &World, count: usize) -> Vec<PaymentHash> {
    let mut hashes = Vec::new();
    for _ in 0..count {
        let invoice = invoice_in(world, "till", 700, json!({})).await;
        pay(world, &invoice.bolt11);
        hashes.push(invoice.payment_hash);
    }
    hashes
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + crate::rpc::tests::PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "it does not come to that");
        tokio::task::yield_now().await;
    }
}

/// Loss prevented: customers who wait for their notes because each payment of another machine reads again
/// what it has read, or decides again what it has decided.
#[tokio::test]
async fn a_payment_is_few_statements_and_one_when_it_is_told_again() {
    let (world, mut machine) = serving().await;
    let till = world.app.wallets["till"].clone();
    let (_, sale) = sold(&mut machine).await;
    pay(&world, &sale.bolt11);
    let payment = till.lookup(sale.payment_hash).await.unwrap().unwrap();
    let facts = Facts {
        wallet_id: "till".into(),
        payment,
        now: world.app.clock.now(),
        enforce_fee_match: true,
        push_id: PushId::from_bytes(id()),
    };
    let counts = world.write(move |tx| {
        let (first, new) = counted(|| record(tx, &facts).unwrap());
        let (again, known) = counted(|| record(tx, &facts).unwrap());
        assert!(matches!((first, again), (Landed::New(_), Landed::Known)));
        Ok((new, known))
    });
    // read: the payment, the wallet's machine, invoice, quote, fees. Written: settlement, entry, push,
    // invoice
    assert_eq!(counts.await, (9, 1));
}

/// Loss prevented: a wallet that was away for a day fills the writer's queue and the memory, and requests
/// of machines, and payments that customers wait for, are refused meanwhile; or what is held back at the
/// bound is never recorded.
#[tokio::test]
async fn lists_of_all_wallets_take_a_fraction_of_the_writers_queue() {
    let (world, _machine) = serving().await;
    let hashes = strays(&world, 8).await;
    let till = world.app.wallets["till"].clone();
    let (payments, _) = till.list(Cursor(0)).await.unwrap();
    // a list may tell a payment many times: each is a job of the writer
    let payments: Vec<_> = payments.into_iter().cycle().take(2 * TOGETHER).collect();
    let (release, held) = mpsc::channel::<()>();
    let first = world.app.store.write(move |_| held.recv().map_err(|_| StoreError::Busy));
    until(|| world.app.store.stats().waiting == 0).await;

    // as two lists: each of them alone has as many as are let through
    let lists = payments.chunks(TOGETHER).map(<[_]>::to_vec).collect::<Vec<_>>();
    assert!(lists.len() >= 2);
    let recorded = join_all(lists.into_iter().map(|list| consider_all(&world.app, &*till, list)));
    let mut recorded = std::pin::pin!(recorded);
    // a task takes so much at a turn
    for _ in 0..TOGETHER {
        assert!(matches!(futures_util::poll!(&mut recorded), Poll::Pending));
        tokio::task::yield_now().await;
    }
    let waiting = |world: &World| usize::try_from(world.app.store.stats().waiting).unwrap();
    assert_eq!(waiting(&world), TOGETHER, "of two lists together");
    assert_eq!(world.app.recording.available_permits(), 0);

    // all other places are for others, and not one of their writes is refused
    let others: Vec<_> =
        (TOGETHER..QUEUE).map(|_| world.app.store.write::<_, StoreError, _>(|_| Ok(()))).collect();
    let refused = world.app.store.write::<_, StoreError, _>(|_| Ok(())).await;
    assert!(matches!(refused, Err(StoreError::QueueFull { .. })), "{refused:?}");
    assert_eq!(waiting(&world), QUEUE);
    release.send(()).unwrap();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    for list in recorded.await {
        list.unwrap();
    }
    assert_eq!(world.app.recording.available_permits(), TOGETHER);
    for hash in hashes {
        assert!(settlement(&world, hash).await.is_some());
    }
    world.books_hold().await;
}

/// Loss prevented: customers at one wallet who pay in the same moment wait for a flush each, one after
/// the other, or for the lists of all other wallets; or hints take more of the writer's queue than those.
#[tokio::test]
async fn hints_of_one_wallet_share_a_flush_and_take_a_place_each() {
    let world = World::new().await;
    let till = world.app.wallets["till"].clone();
    world.app.tasks.spawn(watch(world.app.clone(), till));
    until(|| !world.app.wallet_answers().is_empty()).await;
    let mut bolts = Vec::new();
    for _ in 0..HINTS {
        bolts.push(invoice_in(&world, "till", 700, json!({})).await);
    }
    // lists have all of their places, and more wait for one: a hint waits for none of them
    let lists = world.app.recording.acquire_many(TOGETHER.try_into().unwrap()).await.unwrap();
    let (release, held) = mpsc::channel::<()>();
    let first = world.app.store.write(move |_| held.recv().map_err(|_| StoreError::Busy));
    until(|| world.app.store.stats().waiting == 0).await;
    let before = world.app.store.stats();

    bolts.iter().for_each(|invoice| pay(&world, &invoice.bolt11));
    until(|| world.app.store.stats().waiting == HINTS as u64).await;
    assert_eq!(world.app.hinted.available_permits(), TOGETHER - HINTS);
    release.send(()).unwrap();
    first.await.unwrap();
    for invoice in bolts {
        landed(&world, invoice.payment_hash).await;
    }
    let after = world.app.store.stats();
    assert!(after.commits - before.commits <= 3, "{before:?} {after:?}");
    until(|| world.app.hinted.available_permits() == TOGETHER).await;
    drop(lists);
}

/// The books have something else under the names of these payments, so that they cannot be recorded.
async fn in_the_way(world: &World, hashes: &[PaymentHash]) {
    let (machine, now, hashes) = (world.machine_id, world.app.clock.now(), hashes.to_vec());
    let book = move |tx: &Tx<'_>| {
        hashes.iter().try_for_each(|hash| {
            let other = suspended(machine, *hash, Direction::CashOut, Sats(1), false);
            ledger::append(tx, &other.unwrap(), now).map(drop)
        })
    };
    world.write(book).await;
}

async fn unrecorded(world: &World) -> Vec<Unrecorded> {
    world.read(|read| unrecorded::to_try(read, "till", Unix(0), 999)).await
}

/// Loss prevented: a payment that could not be recorded is behind the cursor and nowhere else, since the
/// service died in between; or is told again after each start.
#[tokio::test]
async fn what_cannot_be_recorded_is_kept_before_the_cursor_goes_past_it() {
    // nobody else writes: who waits for a dead writer never ends
    let mut world = World::new().await;
    let (count, mut bad, mut cut_off) = (5, Vec::new(), 0);
    for commits in 0..8 {
        let all = strays(&world, count).await;
        let place = bad.len() * count + 2;
        bad.push(all[2]);
        in_the_way(&world, &all[2..3]).await;
        let death = Death::never();
        world.app.store.dies_by(death.clone());
        death.after(commits);
        let till = Odd::by_pages(&world, 2);
        tokio::select! {
            read = reconcile(&world.app, &till) => read.unwrap(),
            () = death.came() => cut_off += 1,
        }
        death.spares();
        drop(till);
        world.restart().await;

        let from = world.read(|read| settlements::cursor(read, "till")).await.unwrap_or(0);
        let kept = unrecorded(&world).await.len();
        let is_kept = kept == bad.len();
        assert!(is_kept || from <= place as u64, "after {commits} commits: {from}, {kept}");
        reconcile(&world.app, &Odd::by_pages(&world, 2)).await.unwrap();
        for hash in all {
            let recorded = settlement(&world, hash).await.is_some();
            assert_eq!(recorded, !bad.contains(&hash), "after {commits} commits");
        }
        assert_eq!(unrecorded(&world).await.len(), bad.len());
        assert_eq!(world.audited("settlement.unrecorded").await, bad.len());
    }
    assert!(cut_off > 4, "{cut_off}");
}

/// Loss prevented: a payment that its wallet tells in its list only is never recorded, since the list is
/// not read from there again; and one of which the wallet does not answer keeps all others from it.
#[tokio::test]
async fn what_is_kept_waits_for_no_look_up_and_holds_no_list() {
    let world = World::new().await;
    let bad = strays(&world, 2).await;
    in_the_way(&world, &bad).await;
    let till = Odd::over(&world);
    reconcile(&world.app, &till).await.unwrap();
    assert_eq!(unrecorded(&world).await.len(), 2);
    till.say(bad[0], Told::NoAnswer);
    till.say(bad[1], Told::InListOnly);

    let later = strays(&world, 1).await;
    world.advance(180);
    reconcile(&world.app, &till).await.unwrap();
    assert!(settlement(&world, later[0]).await.is_some(), "the list is read all the same");
    let mended = [
        "DELETE FROM ledger_postings WHERE entry_id <= 2",
        "DELETE FROM ledger_entries WHERE id <= 2",
    ];
    world.write(move |tx| damage(tx, &mended)).await;
    for _ in 0..2 {
        world.advance(180);
        reconcile(&world.app, &till).await.unwrap();
    }
    assert!(settlement(&world, bad[1]).await.is_some(), "by what its list has told");
    let left: Vec<_> = unrecorded(&world).await.iter().map(|kept| kept.payment_hash).collect();
    assert_eq!(left, bad[..1], "the other one waits for an answer");
}

/// Loss prevented: readings of a list that take the longer, and ask the wallet the more, the more payments
/// a fault of this program has kept from being recorded; or that bring them on record a few in three
/// minutes when it is mended.
#[tokio::test]
async fn what_is_kept_is_tried_a_few_at_a_time_and_all_of_it_once_that_helps() {
    let world = World::new().await;
    let hashes = strays(&world, 40).await;
    in_the_way(&world, &hashes).await;
    read_list(&world, "till").await.unwrap();
    for round in 0..4 {
        let kept = unrecorded(&world).await;
        let untried = kept.iter().filter(|kept| kept.tried_at == kept.first_at).count();
        assert_eq!((kept.len(), untried), (40, 40_usize.saturating_sub(round * 16)));
        world.advance(180);
        read_list(&world, "till").await.unwrap();
    }
    let mended = ["DELETE FROM ledger_postings", "DELETE FROM ledger_entries"];
    world.write(move |tx| damage(tx, &mended)).await;
    world.advance(180);
    read_list(&world, "till").await.unwrap();
    assert_eq!(unrecorded(&world).await, []);
    for hash in hashes {
        assert!(settlement(&world, hash).await.is_some());
    }
    assert_eq!(world.audited("settlement.recorded").await, 40);
}

/// Loss prevented: a service that dies while it reads a long list begins at its start each time, and
/// never comes to its end; or goes on past payments that it had not recorded.
#[tokio::test]
async fn a_list_that_is_cut_off_goes_on_at_its_cursor() {
    // nobody else writes: who waits for a dead writer never ends
    let mut world = World::new().await;
    let page = 10;
    let mut all = Vec::new();
    let mut cut_off: usize = 0;
    for commits in 0..9 {
        all.extend(strays(&world, 3 * page).await);
        let death = Death::never();
        world.app.store.dies_by(death.clone());
        death.after(commits);
        let till = Odd::by_pages(&world, page);
        tokio::select! {
            read = reconcile(&world.app, &till) => read.unwrap(),
            () = death.came() => cut_off += 1,
        }
        death.spares();
        drop(till);
        world.restart().await;

        let from = world.read(|read| settlements::cursor(read, "till")).await.unwrap_or(0);
        for hash in all.iter().take(usize::try_from(from).unwrap()) {
            assert!(settlement(&world, *hash).await.is_some(), "behind the cursor at {from}");
        }
        let till = Odd::by_pages(&world, page);
        reconcile(&world.app, &till).await.unwrap();
        assert_eq!(till.asked.lock().unwrap().first(), Some(&from));
        for hash in &all {
            assert!(settlement(&world, *hash).await.is_some());
        }
        let paid = i64::try_from(all.len()).unwrap() * 700;
        assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, paid, "once each");
    }
    // three pages: the cursor of one shares its commit with the next one
    assert!(cut_off > 2, "{cut_off}");
    world.books_hold().await;
}
