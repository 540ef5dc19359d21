//! Wallets that do not behave, over a simulated one.

use std::sync::atomic::{AtomicU64, Ordering};

use bitspire_shared::time::Unix;
use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::wallet::{FailureRule, Invoice as Made, WalletResult};

/// The till with a fault.
struct Odd {
    inner: Arc<dyn Wallet>,
    /// What it does not look up.
    refused: Option<PaymentHash>,
    /// Its list goes by seconds, from this one on, and is one further at each look.
    seconds: Option<u64>,
    looks: AtomicU64,
}

impl Odd {
    fn over(world: &World) -> Self {
        Self {
            inner: world.app.wallets["till"].clone(),
            refused: None,
            seconds: None,
            looks: AtomicU64::new(0),
        }
    }
}

impl Wallet for Odd {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn network(&self) -> Currency {
        self.inner.network()
    }
    fn failures(&self) -> FailureRule {
        self.inner.failures()
    }
    fn absence_is_final(&self) -> bool {
        self.inner.absence_is_final()
    }
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Made> {
        self.inner.make_invoice(request)
    }
    fn pay(&self, bolt11: String, limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        self.inner.pay(bolt11, limit, extra)
    }
    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        if self.refused == Some(hash) {
            let (wallet, reason) = (self.id().to_owned(), "its record does not read".into());
            return Box::pin(async { Err(WalletError::Refused { wallet, reason }) });
        }
        self.inner.lookup(hash)
    }
    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        self.inner.lookup_payment(hash)
    }
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        let Some(now) = self.seconds else { return self.inner.list(since) };
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        assert!(look < 5, "the list is read for ever");
        Box::pin(async move {
            if since.0 > now + look {
                return Ok((Vec::new(), since));
            }
            let (payments, _) = self.inner.list(Cursor(0)).await?;
            Ok((payments, Cursor(now + look)))
        })
    }
    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        self.seconds.map(|_| Cursor(at.0))
    }
    fn balance(&self) -> WalletResult<'_, Msat> {
        self.inner.balance()
    }
    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.inner.watch()
    }
    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        self.inner.listen(stop)
    }
}

/// Loss prevented: one record that the wallet does not tell hides each invoice after it, and their
/// customers wait for their notes.
#[tokio::test]
async fn an_invoice_that_is_not_told_hides_no_other() {
    let (world, mut machine) = serving().await;
    let (_, first) = sold(&mut machine).await;
    // the earlier it ends, the earlier it is looked up
    world.advance(5);
    let (_, second) = sold(&mut machine).await;
    pay(&world, &first.bolt11);
    pay(&world, &second.bolt11);
    let till = Odd { refused: Some(first.payment_hash), ..Odd::over(&world) };
    let error = poll_open(&world.app, &till).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert_eq!(settlement(&world, first.payment_hash).await, None);
    assert!(settlement(&world, second.payment_hash).await.is_some());
}

/// Loss prevented: a wallet whose time lies ahead of ours is read for ever, and no hint and no open
/// invoice of it is looked at again.
#[tokio::test]
async fn a_list_that_always_has_more_is_read_up_to_now() {
    let (world, mut machine) = serving().await;
    let (_, sale) = sold(&mut machine).await;
    pay(&world, &sale.bolt11);
    let now = world.app.clock.now().0;
    let till = Odd { seconds: Some(now), ..Odd::over(&world) };
    reconcile(&world.app, &till).await.unwrap();
    assert!(settlement(&world, sale.payment_hash).await.is_some());
    assert_eq!(world.read(|read| settlements::cursor(read, "till")).await, Some(now));
}

/// Loss prevented: a wallet is exchanged for one of another kind under its old name, whose list is
/// never read again because the cursor is of a smaller unit.
#[tokio::test]
async fn a_cursor_of_another_unit_is_forgotten() {
    let (world, mut machine) = serving().await;
    let (_, sale) = sold(&mut machine).await;
    pay(&world, &sale.bolt11);
    let now = world.app.clock.now();
    let micros = now.0 * 1_000_000;
    world.write(move |tx| settlements::set_cursor(tx, "till", micros, now)).await;
    let till = Odd { seconds: Some(now.0), ..Odd::over(&world) };
    reconcile(&world.app, &till).await.unwrap();
    assert!(settlement(&world, sale.payment_hash).await.is_some());
    assert_eq!(world.read(|read| settlements::cursor(read, "till")).await, Some(now.0));
    // a clock that was set back a little is no other unit
    let ahead = now.0 + 3_600;
    world.write(move |tx| settlements::set_cursor(tx, "till", ahead, now)).await;
    reconcile(&world.app, &till).await.unwrap();
    assert_eq!(world.read(|read| settlements::cursor(read, "till")).await, Some(ahead));
}
