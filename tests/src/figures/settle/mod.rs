//! Settlements: from a wallet's word to a durable row with its entries, debts and messages.
//!
//! Each payment goes the service's own way: the hint, the wallet's look-up, the acceptance with
//! everything that it reads, split, ledger and outbox, one commit for all that wait at that moment.
//! One after the other means that the next customer pays when the last one's settlement is durable.
//! Wallets are in memory, so that what is measured is the service and its disk. Behind each payment
//! stand rows as sales leave them: a signed quote, a request that was encrypted and signed, the stamp.

mod lnbits;
mod pages;
mod rows;
mod shop;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_operator::app::Ring;
use bitspire_operator::{audit, settle};
use tokio::sync::broadcast::error::RecvError;

use super::rpc::runtime;
use super::sale::flush_ms;
use super::{Figure, percentile};
use pages::Pages;
use shop::Shop;

/// Wallets that are paid at once.
const WALLETS: usize = 64;
/// Payments of a rate.
const SALES: u64 = 20_000;
/// Payments of the same rate with one row a commit.
const NAIVE: u64 = 2_000;
/// Requests that are verified and decrypted with nothing around it.
const CHECKED: u32 = 5_000;
/// Settlements whose rows are written with nothing around them.
const ROWS: u32 = 2_000;
/// Payments inside LNbits.
const BESIDE: u64 = 300;
/// Payments of which each is waited for.
const ACKS: u64 = 1_000;
/// Payments that are made ready at a time.
const AT_A_TIME: u64 = 10_000;
/// The long past.
const MILLION: u64 = 1_000_000;
/// Payments while the service was away.
const AWAY: u64 = 100_000;

fn whole(count: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(count)?))
}

/// Settlements a second, and the same one by one.
pub(super) fn rates() -> Result<Vec<Figure>> {
    let (many, one, flush, each) = runtime()?.block_on(async {
        let many = rate(WALLETS, SALES).await?;
        let (one, flush) = (one_by_one(NAIVE).await?, many.1);
        let shop = Shop::open(1).await?;
        let (checked, rows) = (shop.checked_per_s(CHECKED)?, rows::per_s(&shop, ROWS).await?);
        Ok::<_, anyhow::Error>((many.0, one, flush, 1.0 / (1.0 / checked + 1.0 / rows)))
    })?;
    let beside = lnbits::rate(BESIDE)?;
    let (unit, peer) = ("settlements/s", Some(beside));
    Ok(vec![
        Figure {
            name: "settlements_per_s",
            value: many,
            unit,
            bound: each.min(whole(u64::try_from(WALLETS)?)? * 1_000.0 / flush),
            bound_is: "a payment of each of 64 wallets for each flush of this disk, or as many as \
                       one core verifies, decrypts and writes the bare rows of, whichever is less",
            peer,
            runs: usize::try_from(SALES)?,
        },
        Figure {
            name: "settlements_naive_per_s",
            value: one,
            unit,
            bound: 1_000.0 / flush,
            bound_is: "one payment for each flush of this disk",
            peer,
            runs: usize::try_from(NAIVE)?,
        },
        Figure {
            name: "settlements_to_naive",
            value: many / one,
            unit: "times",
            bound: 20.0,
            bound_is: "the bar where a flush takes 2 ms or more",
            peer: None,
            runs: 1,
        },
        Figure {
            name: "lnbits_create_pay_per_s",
            value: beside,
            unit: "payments/s",
            bound: 1_000.0 / flush,
            bound_is: "one payment for each flush of this disk",
            peer: None,
            runs: usize::try_from(BESIDE)?,
        },
    ])
}

/// Settlements a second of payments that all come at once, and what a flush takes.
async fn rate(wallets: usize, sales: u64) -> Result<(f64, f64)> {
    let mut shop = Shop::open(wallets).await?;
    let flush = flush_ms(shop.folder())?;
    let payments = shop.sales(sales).await?;
    settle::start(&shop.app);
    shop.until_listening().await?;
    let started = Instant::now();
    for (till, payment) in payments {
        shop.pay(till, payment)?;
    }
    shop.until_settled(sales, Duration::from_secs(600)).await?;
    let rate = whole(sales)? / started.elapsed().as_secs_f64();
    shop.stop().await;
    Ok((rate, flush))
}

/// The same of one wallet, each payment after the last one is settled: one a commit.
async fn one_by_one(sales: u64) -> Result<f64> {
    let mut shop = Shop::open(1).await?;
    settle::start(&shop.app);
    shop.until_listening().await?;
    let waits = waits(&mut shop, sales).await?;
    shop.stop().await;
    Ok(whole(sales)? * 1_000.0 / waits.iter().sum::<f64>())
}

/// From the wallet's word to the durable settlement, what a page takes, with 10,000 and with a
/// million of them; and what an audit of the million takes.
pub(super) fn acks() -> Result<Vec<Figure>> {
    runtime()?.block_on(long_past(AT_A_TIME, MILLION, ACKS))
}

async fn long_past(short: u64, long: u64, acks: u64) -> Result<Vec<Figure>> {
    let mut shop = Shop::open(WALLETS).await?;
    let flush = flush_ms(shop.folder())?;
    settle::start(&shop.app);
    shop.until_listening().await?;
    let pages = Pages::open(&shop.app).await?;
    let mut figures: Vec<Figure> = Vec::new();
    for settled in [short, long] {
        while shop.settled().await? < settled {
            let due = AT_A_TIME.min(settled - shop.settled().await?);
            for (till, payment) in shop.sales(due).await? {
                shop.pay(till, payment)?;
            }
            let all = shop.made();
            shop.until_settled(all, Duration::from_secs(600)).await?;
        }
        let mut waits = waits(&mut shop, acks).await?;
        let ack = percentile(&mut waits, 99)?;
        let page = pages.slowest(settled).await?;
        let figure = |name, value, bound, bound_is| Figure {
            name,
            value,
            unit: "ms",
            bound,
            bound_is,
            peer: None,
            runs: waits.len(),
        };
        if let Some(before) = figures.first().map(|before| before.value) {
            let often = "1.5 times the same with 10,000";
            figures.push(figure("settlement_ack_p99_ms_at_1m", ack, 1.5 * before, often));
            figures.push(figure("page_p99_ms_at_1m", page, 50.0, "the bar"));
        } else {
            let flushes = "three flushes of this disk: the bar where a flush takes 2 ms or more";
            figures.push(figure("settlement_ack_p99_ms", ack, 3.0 * flush, flushes));
            figures.push(figure("page_p99_ms", page, 50.0, "the bar"));
        }
    }
    // what came by hints is in the wallets' lists, too, which the service reads every few minutes
    for wallet in shop.app.wallets.values() {
        settle::reconcile(&shop.app, &**wallet).await?;
    }
    let started = Instant::now();
    let audit = audit::run(&shop.app).await?;
    let took = started.elapsed().as_secs_f64();
    if let Some(first) = audit.differences.first() {
        bail!("the audit found a difference where none is: {first:?}");
    }
    figures.push(Figure {
        name: "audit_1m_s",
        value: took,
        unit: "s",
        bound: 60.0,
        bound_is: "the bar: everything derived again from a million settlements",
        peer: None,
        runs: 1,
    });
    shop.stop().await;
    Ok(figures)
}

/// How long each of so many payments takes, one after the other, in milliseconds.
async fn waits(shop: &mut Shop, count: u64) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    for (till, payment) in shop.sales(count).await? {
        let (hash, mut bell) = (payment.payment_hash, shop.app.listen());
        let started = Instant::now();
        shop.pay(till, payment)?;
        let heard = async {
            loop {
                match bell.recv().await {
                    Ok(Ring::Settled { payment_hash }) if payment_hash == hash => return Ok(()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => bail!("the bell rang too often"),
                    Err(RecvError::Closed) => bail!("the service has stopped"),
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(30), heard).await;
        heard.context("a payment was not settled")??;
        waits.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(waits)
}

/// A wallet with 100,000 payments that came while the service was away.
pub(super) fn reconciled() -> Result<Vec<Figure>> {
    let value = runtime()?.block_on(away(AWAY))?;
    Ok(vec![Figure {
        name: "reconcile_100k_s",
        value,
        unit: "s",
        bound: 30.0,
        bound_is: "the bar",
        peer: None,
        runs: 1,
    }])
}

async fn away(count: u64) -> Result<f64> {
    let mut shop = Shop::open(1).await?;
    for (till, payment) in shop.sales(count).await? {
        shop.pay(till, payment)?;
    }
    let started = Instant::now();
    settle::start(&shop.app);
    shop.until_settled(count, Duration::from_secs(3_600)).await?;
    let took = started.elapsed().as_secs_f64();
    shop.stop().await;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use bitspire_operator::store::StoreError;

    use super::*;

    /// Loss prevented: payments of many machines that come at once take a flush each, or are written
    /// twice, or read what is of other machines.
    #[test]
    fn payments_of_many_wallets_share_their_flushes() {
        const MANY: u64 = 40;
        let wallets = usize::try_from(MANY).unwrap();
        let settled = async {
            let mut shop = Shop::open(wallets).await?;
            settle::start(&shop.app);
            shop.until_listening().await?;
            let payments = shop.sales(MANY).await?;
            let (release, held) = std::sync::mpsc::channel::<()>();
            let first = shop.app.store.write::<_, StoreError, _>(move |_| {
                // gone with the test, where it fails
                let _ = held.recv();
                Ok(())
            });
            while shop.app.store.stats().waiting > 0 {
                tokio::task::yield_now().await;
            }
            let before = shop.app.store.stats();
            for (till, payment) in payments {
                shop.pay(till, payment)?;
            }
            while shop.app.store.stats().waiting < MANY {
                tokio::task::yield_now().await;
            }
            release.send(())?;
            first.await?;
            shop.until_settled(MANY, Duration::from_secs(60)).await?;
            let after = shop.app.store.stats();
            assert_eq!(after.jobs - before.jobs, MANY, "a job each");
            assert!(after.commits - before.commits <= 2, "{before:?} {after:?}");
            shop.stop().await;
            Ok::<_, anyhow::Error>(())
        };
        let all = async { tokio::time::timeout(Duration::from_secs(60), settled).await };
        runtime().unwrap().block_on(all).unwrap().unwrap();
    }

    /// Loss prevented: a rate of payments that were refused, or of rows that an audit would not take.
    #[test]
    fn what_is_measured_is_settled_and_audited() {
        runtime()
            .unwrap()
            .block_on(async {
                assert!(rate(2, 20).await?.0 > 0.0);
                assert!(one_by_one(5).await? > 0.0);
                assert!(away(20).await? > 0.0);
                assert!(rows::per_s(&Shop::open(1).await?, 5).await? > 0.0);
                let figures = long_past(10, 20, 5).await?;
                assert_eq!(figures.len(), 5);
                Ok::<_, anyhow::Error>(())
            })
            .unwrap();
    }
}
