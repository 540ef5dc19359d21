//! What a story is told with: its dice, and the wallets of a service that may die while it asks them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::wallet::bolt11::Head;
use crate::wallet::{Cursor, FailureRule, Hint, Invoice, PayState, Payment, Wallet, WalletResult};

/// splitmix64: the same dice for a seed each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_be_bytes()[0])
    }
}

/// How far the words of a wallet count.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    failures: FailureRule,
    pub(super) absence_is_final: bool,
}

/// The kinds of wallets that there are: LND's, LNbits', and NIP-47's.
pub(super) const KINDS: [Kind; 3] = [
    Kind { failures: FailureRule::AtOnce, absence_is_final: true },
    Kind { failures: FailureRule::TwiceAfterExpiry, absence_is_final: true },
    Kind { failures: FailureRule::TwiceAfterExpiry, absence_is_final: false },
];

/// When each invoice that a wallet was asked to pay ends.
pub(super) type Ends = Arc<Mutex<BTreeMap<PaymentHash, Unix>>>;

/// A wallet of a service that may die while it asks.
pub(super) struct Mortal {
    pub(super) inner: Arc<dyn Wallet>,
    pub(super) kind: Kind,
    pub(super) clock: Clock,
    pub(super) ends: Ends,
    pub(super) death: Death,
    /// What wallets were asked for, by the living and by the dead.
    pub(super) under_way: TaskTracker,
}

impl Mortal {
    /// What a wallet was asked for it does, whether or not anybody lives to hear of it.
    fn asks<'a, T: Send + 'static>(
        &'a self,
        ask: impl for<'w> FnOnce(&'w dyn Wallet) -> WalletResult<'w, T> + Send + 'static,
    ) -> WalletResult<'a, T> {
        Box::pin(async move {
            self.death.passes().await;
            let wallet = Arc::clone(&self.inner);
            let asked = self.under_way.spawn(async move { ask(wallet.as_ref()).await });
            let answer = asked.await.unwrap();
            self.death.passes().await;
            answer
        })
    }

    /// Whose "failed" counts twice says it, while the invoice lives, of some that are on their way: as
    /// when the connection to its node dropped after the node took it.
    fn says(&self, hash: PaymentHash, state: PayState) -> PayState {
        let ends = self.ends.lock().unwrap().get(&hash).copied();
        let lives = ends.is_some_and(|ends| self.clock.now() < ends);
        let takes_it_back = self.kind.failures == FailureRule::TwiceAfterExpiry;
        match state {
            PayState::Pending if takes_it_back && lives && hash.as_bytes()[0].is_multiple_of(2) => {
                PayState::Failed
            }
            state => state,
        }
    }
}

impl Wallet for Mortal {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn network(&self) -> Currency {
        self.inner.network()
    }
    fn failures(&self) -> FailureRule {
        self.kind.failures
    }
    fn absence_is_final(&self) -> bool {
        self.kind.absence_is_final
    }
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        self.asks(|wallet| wallet.make_invoice(request))
    }
    fn pay(&self, bolt11: String, fee_limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        let head = Head::read(&bolt11).unwrap();
        self.ends.lock().unwrap().insert(head.payment_hash, head.expires_at);
        let asked = self.asks(move |wallet| wallet.pay(bolt11, fee_limit, extra));
        Box::pin(async move { asked.await.map(|state| self.says(head.payment_hash, state)) })
    }
    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        self.asks(move |wallet| wallet.lookup(hash))
    }
    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        let asked = self.asks(move |wallet| wallet.lookup_payment(hash));
        Box::pin(async move {
            let found = asked.await?;
            Ok(found.map(|found| Payment { state: self.says(hash, found.state), ..found }))
        })
    }
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        self.asks(move |wallet| wallet.list(since))
    }
    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        self.inner.cursor_at(at)
    }
    fn balance(&self) -> WalletResult<'_, Msat> {
        self.asks(|wallet| wallet.balance())
    }
    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.inner.watch()
    }
    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        self.inner.listen(stop)
    }
}
