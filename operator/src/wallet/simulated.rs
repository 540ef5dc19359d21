//! A Lightning node for demos and tests: real BOLT11 invoices, signed with a test key on regtest.
//!
//! Promise: what it did is durable before it answers, like a real wallet's, so that the service may
//! be killed at any moment and look the truth up afterwards. Wallets of one node pay each other.
//!
//! On command it is unreachable, refuses, loses its answer after paying, leaves a payment pending
//! or pays another amount. The default is to do what it is asked.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use futures_util::future::BoxFuture;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash as _, sha256};
use nostr::secp256k1::SecretKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::bolt11::Head;
use super::{
    Cursor, FailureRule, Flow, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet,
    WalletError, WalletResult,
};
use bitspire_shell::clock::Clock;

/// What the node does with the next payment that it is asked to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Pays.
    Succeed,
    /// Fails for good, and says so.
    Fail,
    /// Pays, but the answer is lost.
    LoseAnswer,
    /// Takes it and leaves it pending until [`SimulatedNode::resolve`].
    Pend,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    wallet: String,
    bolt11: String,
    payment: Payment,
    changed: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Books {
    /// Counts changes: the cursor of [`Wallet::list`].
    changes: u64,
    /// By wallet and hash: an internal payment has one record on each side.
    records: BTreeMap<String, Record>,
    funded: BTreeMap<String, u64>,
}

impl Books {
    fn key(wallet: &str, hash: PaymentHash) -> String {
        format!("{wallet}:{hash}")
    }

    fn get(&self, wallet: &str, hash: PaymentHash) -> Option<&Record> {
        self.records.get(&Self::key(wallet, hash))
    }

    fn put(&mut self, mut record: Record) {
        self.changes += 1;
        record.changed = self.changes;
        let key = Self::key(&record.wallet, record.payment.payment_hash);
        self.records.insert(key, record);
    }

    /// What `wallet` can spend, in msat: pending payments are gone until they fail.
    fn balance(&self, wallet: &str) -> u64 {
        let funded = self.funded.get(wallet).copied().unwrap_or(0);
        let (mut incoming, mut outgoing) = (funded, 0);
        for record in self.records.values().filter(|record| record.wallet == wallet) {
            match (record.payment.flow, record.payment.state) {
                (Flow::Inbound, PayState::Succeeded { amount, .. }) => incoming += amount.0,
                (Flow::Outbound, PayState::Succeeded { amount, fee, .. }) => {
                    outgoing += amount.0 + fee.0;
                }
                (Flow::Outbound, PayState::Pending) => outgoing += invoice_msat(&record.bolt11),
                _ => {}
            }
        }
        incoming.saturating_sub(outgoing)
    }
}

fn invoice_msat(bolt11: &str) -> u64 {
    Head::read(bolt11).ok().and_then(|head| head.amount).unwrap_or_default().0
}

struct Inner {
    books: Books,
    script: VecDeque<Behaviour>,
    reachable: bool,
}

struct Shared {
    file: Option<PathBuf>,
    key: SecretKey,
    clock: Clock,
    fee: Sats,
    inner: Mutex<Inner>,
    hints: broadcast::Sender<Hint>,
}

/// A node with any number of wallets.
#[derive(Clone)]
pub struct SimulatedNode(Arc<Shared>);

impl SimulatedNode {
    /// A node whose books live in `file` (or in memory only), that signs invoices with `key` and
    /// charges `fee` for each payment to another node.
    ///
    /// # Errors
    /// When the file is there but cannot be read as a node's books.
    pub fn open(
        file: Option<PathBuf>,
        key: SecretKey,
        fee: Sats,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let books = match file.as_deref().map(fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes)?,
            Some(Err(e)) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => Books::default(),
        };
        let inner = Mutex::new(Inner { books, script: VecDeque::new(), reachable: true });
        let hints = broadcast::channel(1_024).0;
        Ok(Self(Arc::new(Shared { file, key, clock, fee, inner, hints })))
    }

    /// A handle to one of its wallets; a wallet exists by being named.
    #[must_use]
    pub fn wallet(&self, id: &str) -> SimulatedWallet {
        SimulatedWallet { node: self.clone(), id: id.to_owned() }
    }

    /// Gives a wallet its opening balance, once: a wallet that has one keeps it.
    ///
    /// # Errors
    /// When the books cannot be written.
    pub fn open_wallet(&self, wallet: &str, opening: Msat) -> std::io::Result<()> {
        let mut inner = self.lock();
        inner.books.funded.entry(wallet.to_owned()).or_insert(opening.0);
        self.save(&inner.books)
    }

    /// What a wallet held before its first payment; `None` where nothing was given to it.
    #[must_use]
    pub fn opening(&self, wallet: &str) -> Option<Msat> {
        self.lock().books.funded.get(wallet).copied().map(Msat)
    }

    /// What the next payments do, in order; after the last one they succeed again.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.lock().script.extend(behaviours);
    }

    /// Whether the node answers at all.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
    }

    /// A customer elsewhere pays one of our invoices, `amount` where it is not the invoice's own
    /// (some nodes let a payer send more). An expired invoice can still be settled: a payment may
    /// have been in flight.
    ///
    /// # Errors
    /// In words, when the invoice is not ours or was paid.
    pub fn customer_pays(&self, bolt11: &str, amount: Option<Msat>) -> Result<Msat, String> {
        let Head { payment_hash: hash, amount: asked, .. } = Head::read(bolt11)?;
        let amount = amount.or(asked).unwrap_or_default();
        let mut inner = self.lock();
        let owner = Self::inbound(&inner.books, hash).ok_or("this invoice is not one of ours")?;
        let mut record = owner.clone();
        if record.payment.state != PayState::Pending {
            return Err("this invoice was paid or has failed".into());
        }
        record.payment.state =
            PayState::Succeeded { amount, fee: Msat::ZERO, at: self.0.clock.now() };
        inner.books.put(record);
        self.save(&inner.books).map_err(|e| e.to_string())?;
        drop(inner);
        self.hint(hash);
        Ok(amount)
    }

    /// Ends a payment that was left pending.
    ///
    /// # Errors
    /// In words, when no such payment is pending.
    pub fn resolve(&self, wallet: &str, hash: PaymentHash, succeed: bool) -> Result<(), String> {
        let mut inner = self.lock();
        let record = inner.books.get(wallet, hash).cloned().filter(|record| {
            record.payment.flow == Flow::Outbound && record.payment.state == PayState::Pending
        });
        let mut record = record.ok_or("no such payment is pending")?;
        let internal = Self::inbound(&inner.books, hash).cloned();
        record.payment.state = if succeed {
            let amount = Msat(invoice_msat(&record.bolt11));
            let fee = if internal.is_some() { Msat::ZERO } else { self.fee_msat() };
            PayState::Succeeded { amount, fee, at: self.0.clock.now() }
        } else {
            PayState::Failed
        };
        if let (Some(mut theirs), PayState::Succeeded { .. }) = (internal, record.payment.state) {
            theirs.payment.state = record.payment.state;
            inner.books.put(theirs);
        }
        inner.books.put(record);
        self.save(&inner.books).map_err(|e| e.to_string())?;
        drop(inner);
        self.hint(hash);
        Ok(())
    }

    fn inbound(books: &Books, hash: PaymentHash) -> Option<&Record> {
        books.records.values().find(|record| {
            record.payment.payment_hash == hash && record.payment.flow == Flow::Inbound
        })
    }

    fn fee_msat(&self) -> Msat {
        Msat(self.0.fee.0.saturating_mul(1_000))
    }

    fn hint(&self, hash: PaymentHash) {
        // nobody listening is no failure: hints are only hints
        let _ = self.0.hints.send(Hint::Payment(hash));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the books beside the old ones, flushes, and puts them in their place.
    fn save(&self, books: &Books) -> std::io::Result<()> {
        let Some(file) = &self.0.file else { return Ok(()) };
        let beside = file.with_extension("new");
        let mut out = File::create(&beside)?;
        out.write_all(&serde_json::to_vec(books)?)?;
        out.sync_all()?;
        fs::rename(&beside, file)?;
        File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// One wallet of a [`SimulatedNode`].
#[derive(Clone)]
pub struct SimulatedWallet {
    node: SimulatedNode,
    id: String,
}

impl SimulatedWallet {
    fn unreachable(&self) -> WalletError {
        let reason = "simulated outage".into();
        WalletError::Unreachable { wallet: self.id.clone(), reason }
    }

    fn refused(&self, reason: impl ToString) -> WalletError {
        WalletError::Refused { wallet: self.id.clone(), reason: reason.to_string() }
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>, WalletError> {
        let inner = self.node.lock();
        if inner.reachable { Ok(inner) } else { Err(self.unreachable()) }
    }

    fn invoice(&self, request: InvoiceRequest) -> Result<Invoice, WalletError> {
        let mut inner = self.open()?;
        let mut random = [0u8; 64];
        getrandom::fill(&mut random).map_err(|e| self.refused(e))?;
        let (preimage, secret) = random.split_at(32);
        let hash = sha256::Hash::hash(preimage);
        let mut payment_secret = [0u8; 32];
        payment_secret.copy_from_slice(secret);
        let msat = request.amount.to_msat().map_err(|e| self.refused(e))?;
        let now = self.node.0.clock.now();
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description(request.memo)
            .payment_hash(hash)
            .payment_secret(PaymentSecret(payment_secret))
            .duration_since_epoch(std::time::Duration::from_secs(now.0))
            .min_final_cltv_expiry_delta(18)
            .expiry_time(std::time::Duration::from_secs(request.expiry_s.into()))
            .amount_milli_satoshis(msat.0)
            .build_signed(|digest| {
                nostr::SECP256K1.sign_ecdsa_recoverable(digest, &self.node.0.key)
            })
            .map_err(|e| self.refused(e))?;
        let payment_hash = PaymentHash::from_bytes(hash.to_byte_array());
        let expires_at = now.after(request.expiry_s.into());
        let bolt11 = invoice.to_string();
        inner.books.put(Record {
            wallet: self.id.clone(),
            bolt11: bolt11.clone(),
            payment: Payment {
                payment_hash,
                flow: Flow::Inbound,
                state: PayState::Pending,
                extra: request.extra,
            },
            changed: 0,
        });
        self.node.save(&inner.books).map_err(|e| self.refused(e))?;
        Ok(Invoice { payment_hash, bolt11, expires_at })
    }

    fn send(&self, bolt11: &str, fee_limit: Sats, extra: Value) -> Result<PayState, WalletError> {
        let mut inner = self.open()?;
        let Head { payment_hash, amount, .. } = Head::read(bolt11).map_err(|e| self.refused(e))?;
        if let Some(earlier) = inner.books.get(&self.id, payment_hash) {
            return match earlier.payment.flow {
                Flow::Outbound => Ok(earlier.payment.state),
                Flow::Inbound => Err(self.refused("this invoice is the wallet's own")),
            };
        }
        let amount = amount.unwrap_or_default();
        let at = self.node.0.clock.now();
        let internal = SimulatedNode::inbound(&inner.books, payment_hash).cloned();
        let fee = if internal.is_some() { Msat::ZERO } else { self.node.fee_msat() };
        if internal.as_ref().is_some_and(|theirs| theirs.payment.state != PayState::Pending) {
            return Err(self.refused("Internal invoice already paid."));
        }
        if fee.0 > fee_limit.0.saturating_mul(1_000) {
            return Err(self.refused(format!("no route within {fee_limit} sat of fees")));
        }
        if inner.books.balance(&self.id) < amount.0.saturating_add(fee.0) {
            return Err(self.refused("Insufficient balance."));
        }
        let behaviour = inner.script.pop_front().unwrap_or(Behaviour::Succeed);
        let state = match behaviour {
            Behaviour::Succeed | Behaviour::LoseAnswer => PayState::Succeeded { amount, fee, at },
            Behaviour::Fail => PayState::Failed,
            Behaviour::Pend => PayState::Pending,
        };
        inner.books.put(Record {
            wallet: self.id.clone(),
            bolt11: bolt11.to_owned(),
            payment: Payment { payment_hash, flow: Flow::Outbound, state, extra },
            changed: 0,
        });
        if let (Some(mut theirs), PayState::Succeeded { .. }) = (internal, state) {
            theirs.payment.state = PayState::Succeeded { amount, fee: Msat::ZERO, at };
            inner.books.put(theirs);
        }
        self.node
            .save(&inner.books)
            .map_err(|e| WalletError::Unknown { wallet: self.id.clone(), reason: e.to_string() })?;
        drop(inner);
        self.node.hint(payment_hash);
        if behaviour == Behaviour::LoseAnswer {
            let reason = "simulated: the connection dropped".into();
            return Err(WalletError::Unknown { wallet: self.id.clone(), reason });
        }
        Ok(state)
    }

    fn find(&self, hash: PaymentHash, flow: Flow) -> Result<Option<Payment>, WalletError> {
        let inner = self.open()?;
        let record = inner.books.get(&self.id, hash).map(|record| record.payment.clone());
        Ok(record.filter(|payment| payment.flow == flow))
    }

    fn since(&self, cursor: Cursor) -> Result<(Vec<Payment>, Cursor), WalletError> {
        let inner = self.open()?;
        let mut changed: Vec<_> = inner
            .books
            .records
            .values()
            .filter(|record| record.wallet == self.id && record.changed > cursor.0)
            .collect();
        changed.sort_by_key(|record| record.changed);
        let next = changed.last().map_or(cursor, |record| Cursor(record.changed));
        Ok((changed.into_iter().map(|record| record.payment.clone()).collect(), next))
    }
}

/// The node's work is a small file: it is done at once, on a thread where blocking is allowed.
fn blocking<'a, T: Send + 'static>(
    wallet: &SimulatedWallet,
    work: impl FnOnce(&SimulatedWallet) -> Result<T, WalletError> + Send + 'static,
) -> WalletResult<'a, T> {
    let wallet = wallet.clone();
    Box::pin(async move {
        let id = wallet.id.clone();
        tokio::task::spawn_blocking(move || work(&wallet))
            .await
            .unwrap_or_else(|e| Err(WalletError::Unknown { wallet: id, reason: e.to_string() }))
    })
}

impl Wallet for SimulatedWallet {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> Currency {
        Currency::Regtest
    }

    fn failures(&self) -> FailureRule {
        FailureRule::AtOnce
    }

    fn absence_is_final(&self) -> bool {
        true
    }

    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        blocking(self, |wallet| wallet.invoice(request))
    }

    fn pay(&self, bolt11: String, fee_limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        blocking(self, move |wallet| wallet.send(&bolt11, fee_limit, extra))
    }

    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        blocking(self, move |wallet| wallet.find(hash, Flow::Inbound))
    }

    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        blocking(self, move |wallet| wallet.find(hash, Flow::Outbound))
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        blocking(self, move |wallet| wallet.since(since))
    }

    fn cursor_at(&self, _: Unix) -> Option<Cursor> {
        None
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        blocking(self, |wallet| Ok(Msat(wallet.open()?.books.balance(&wallet.id))))
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.node.0.hints.subscribe()
    }

    /// The node hints by itself.
    fn listen(&self, _: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
