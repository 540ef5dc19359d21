//! A service with sales that wait for their payments, and wallets in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_operator::app::App;
use bitspire_operator::ids::{MachineId, OperatorId};
use bitspire_operator::store::documents::{self, DocumentKind, Fees, NewDocument};
use bitspire_operator::store::invoices::{self, InvoiceState};
use bitspire_operator::store::machines::{self, Confirmation, Machine};
use bitspire_operator::store::quotes::{self, Quote};
use bitspire_operator::store::settlements::{self, SettlementStatus};
use bitspire_operator::store::{JsonText, Read, StoreError};
use bitspire_operator::wallet::{
    Cursor, FailureRule, Flow, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet,
    WalletError, WalletResult,
};
use bitspire_operator::{config, fleet};
use bitspire_shared::ids::{ClaimHash, EventId, PaymentHash, PubKey, QuoteId, RequestId, TxnId};
use bitspire_shared::money::{Direction, FeePpm, Fiat, Msat, Rate, Sats};
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::rpc::{CreateInvoice, QuoteTerms, Request, SignedText as _, request_event};
use bitspire_shared::settlement::Stamp;
use bitspire_shared::split::FeePair;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use nostr::{Event, EventBuilder, JsonUtil as _, Keys, Kind};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::world::CURRENCY;

/// Value of each sale's notes, in minor units.
const MINOR: i64 = 4_000;
/// Payments that a wallet's list tells at a time.
const PAGE: usize = 500;
/// Hints that a wallet keeps for whoever is slower.
const HINTS: usize = 1 << 17;

/// A wallet that only ever receives.
pub(super) struct Till {
    id: String,
    books: Mutex<(Vec<Payment>, HashMap<PaymentHash, usize>)>,
    hints: broadcast::Sender<Hint>,
}

impl Till {
    fn new(id: String) -> Self {
        Self { id, books: Mutex::default(), hints: broadcast::channel(HINTS).0 }
    }

    fn receive(&self, payment: Payment) {
        let hash = payment.payment_hash;
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let place = books.0.len();
        books.0.push(payment);
        books.1.insert(hash, place);
        drop(books);
        // nobody listens before the service has started
        let _ = self.hints.send(Hint::Payment(hash));
    }

    fn refused<T: Send + 'static>(&self) -> WalletResult<'_, T> {
        let (wallet, reason) = (self.id.clone(), "it only receives".to_owned());
        Box::pin(async move { Err(WalletError::Refused { wallet, reason }) })
    }
}

impl Wallet for Till {
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

    fn make_invoice(&self, _: InvoiceRequest) -> WalletResult<'_, Invoice> {
        self.refused()
    }

    fn pay(&self, _: String, _: Sats, _: Value) -> WalletResult<'_, PayState> {
        self.refused()
    }

    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let found = books.1.get(&hash).and_then(|place| books.0.get(*place)).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn lookup_payment(&self, _: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(async { Ok(None) })
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(since.0).unwrap_or(usize::MAX).min(books.0.len());
        let page: Vec<_> = books.0.iter().skip(from).take(PAGE).cloned().collect();
        let next = Cursor(u64::try_from(from + page.len()).unwrap_or(u64::MAX));
        Box::pin(async move { Ok((page, next)) })
    }

    fn cursor_at(&self, _: Unix) -> Option<Cursor> {
        None
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let received = books.0.iter().map(|payment| match payment.state {
            PayState::Succeeded { amount, .. } => amount.0,
            _ => 0,
        });
        let received = Msat(received.sum());
        Box::pin(async move { Ok(received) })
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move { stop.cancelled().await })
    }
}

/// A machine's keys and fee document.
struct Seller {
    id: MachineId,
    spire: Keys,
    key: PubKey,
    cipher: ConversationKey,
    fees: EventId,
}

/// The service, and what it sells at.
pub(super) struct Shop {
    pub(super) app: Arc<App>,
    tills: Vec<Arc<Till>>,
    sellers: Vec<Seller>,
    made: u64,
    folder: TempDir,
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn pair() -> Result<FeePair> {
    Ok(FeePair::new(FeePpm::new(20_000)?, FeePpm::new(30_000)?)?)
}

impl Shop {
    /// With so many machines, each with its wallet.
    pub(super) async fn open(wallets: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("operator.toml");
        let text = format!(
            "data_dir = '{}'\n[relay]\nembedded = false\nurl = 'ws://127.0.0.1:9'\n",
            folder.path().display()
        );
        std::fs::write(&file, text)?;
        let (config, _) = config::load(Some(&file), &BTreeMap::new(), &[])?;
        let mut app = App::open(config, Clock::system())?;
        let tills: Vec<_> = (1..=wallets).map(|n| Arc::new(Till::new(format!("w{n}")))).collect();
        let opened = Arc::get_mut(&mut app).context("the service has started already")?;
        for till in &tills {
            opened.wallets.insert(till.id.clone(), till.clone());
        }
        fleet::first_operator(&app).await?;
        let mut sellers = Vec::new();
        for till in &tills {
            sellers.push(seller(&app, &till.id).await?);
        }
        Ok(Self { app, tills, sellers, made: 0, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sales so far.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// So many sales, one after the other at each machine, with an invoice that waits; each payment,
    /// and the wallet that it comes to.
    pub(super) async fn sales(&mut self, count: u64) -> Result<Vec<(usize, Payment)>> {
        let mut payments = Vec::new();
        let mut rows = Vec::new();
        for n in 0..count {
            let place = usize::try_from(n)? % self.sellers.len();
            let seller = self.sellers.get(place).context("a machine")?;
            let (quote, invoice) = sale(&self.app, seller)?;
            let amount = invoice.wire_sats.to_msat()?;
            let at = self.app.clock.now();
            payments.push((
                place,
                Payment {
                    payment_hash: invoice.payment_hash,
                    flow: Flow::Inbound,
                    state: PayState::Succeeded { amount, fee: Msat::ZERO, at },
                    extra: invoice.stamp.as_str().parse()?,
                },
            ));
            rows.push((quote, invoice));
        }
        let written = self.app.store.write::<_, StoreError, _>(move |tx| {
            rows.iter().try_for_each(|(quote, invoice)| {
                quotes::insert(tx, quote)?;
                invoices::insert(tx, invoice)
            })
        });
        written.await?;
        self.made += count;
        Ok(payments)
    }

    /// How many requests of the first machine one core verifies and decrypts a second.
    pub(super) fn checked_per_s(&self, count: u32) -> Result<f64> {
        let seller = self.sellers.first().context("a machine")?;
        let requests = self.unpaid(count)?;
        let events = requests.iter().map(|(_, invoice)| Event::from_json(&invoice.request_event));
        let events: Vec<_> = events.collect::<Result<_, _>>()?;
        let started = Instant::now();
        for event in &events {
            event.verify()?;
            seller.cipher.decrypt(&event.content)?;
        }
        Ok(f64::from(count) / started.elapsed().as_secs_f64())
    }

    /// The rows of so many sales of the first machine, as they stand before they are paid.
    pub(super) fn unpaid(&self, count: u32) -> Result<Vec<(Quote, invoices::Invoice)>> {
        let seller = self.sellers.first().context("a machine")?;
        (0..count).map(|_| sale(&self.app, seller)).collect()
    }

    /// Waits until each wallet's list was read once: from then on payments come by their hints.
    pub(super) async fn until_listening(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(600);
        while self.app.wallet_answers().len() < self.tills.len() {
            if Instant::now() > deadline {
                bail!("the wallets are not watched");
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A customer pays.
    pub(super) fn pay(&self, till: usize, payment: Payment) -> Result<()> {
        self.tills.get(till).context("a wallet")?.receive(payment);
        Ok(())
    }

    /// How many payments are settled: rows are numbered from 1.
    pub(super) async fn settled(&self) -> Result<u64> {
        let newest = |read: &Read<'_>| settlements::newest(read, None, None, None, 1);
        let newest = self.app.store.read::<_, StoreError, _>(newest).await?;
        match newest.first() {
            Some(row) if row.status != SettlementStatus::Accepted => {
                bail!("a payment was refused: {:?}", row.reason)
            }
            newest => Ok(newest.map_or(0, |row| row.id.0).try_into()?),
        }
    }

    /// Waits for so many.
    pub(super) async fn until_settled(&self, count: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.settled().await? < count {
            if Instant::now() > deadline {
                bail!("{} of {count} payments settled", self.settled().await?);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub(super) async fn stop(self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
    }
}

/// A machine that is paired, with its fees published.
async fn seller(app: &App, wallet: &str) -> Result<Seller> {
    let (spire, now) = (Keys::generate(), app.clock.now());
    let key = PubKey::new(spire.public_key())?;
    let vault = PubKey::new(Keys::generate().public_key())?;
    let currency = CURRENCY.parse()?;
    let row = Machine {
        machine_npub: Some(key),
        bunker_spire_key_name: Some(wallet.to_owned()),
        bunker_token_expires_at: Some(now.after(720 * 3_600)),
        client_key: Some(PubKey::new(Keys::generate().public_key())?),
        vault_key: Some(vault),
        confirmation: Confirmation::Confirmed,
        confirmed_at: Some(now),
        paired_at: Some(now),
        ..Machine::new(OperatorId(1), wallet, "", currency, wallet, now)
    };
    let event = EventBuilder::new(Kind::from(30_078), "sealed").sign_with_keys(&Keys::generate())?;
    let fees = EventId::from_bytes(event.id.to_bytes());
    let (platform, operator) = (pair()?.platform(), pair()?.operator());
    let written = app.store.write::<_, StoreError, _>(move |tx| {
        let id = machines::insert(tx, &row)?;
        let set = Fees {
            cash_in_platform: platform,
            cash_in_operator: operator,
            cash_out_platform: platform,
            cash_out_operator: operator,
        };
        let new = NewDocument {
            machine_id: id,
            kind: DocumentKind::Fees,
            body: json!({}),
            published_at: now,
            fees: Some(set),
        };
        let document = documents::want(tx, &new, now)?;
        documents::set_signed(tx, document, (fees, &event.as_json()), now, now)?;
        Ok(id)
    });
    let id = written.await?;
    let cipher = ConversationKey::derive(spire.secret_key(), &app.service_key)?;
    Ok(Seller { id, spire, key, cipher, fees })
}

/// The rows of one sale, as the service writes them.
fn sale(app: &App, seller: &Seller) -> Result<(Quote, invoices::Invoice)> {
    let (now, fiat) = (app.clock.now(), Fiat::new(MINOR, CURRENCY.parse()?));
    let rate = Rate::from_nano(1_000_000_000_000)?;
    let principal = rate.principal(fiat, Direction::CashOut)?;
    let charge = pair()?.charge(Direction::CashOut, principal)?;
    let terms = QuoteTerms {
        spire: seller.key,
        quote_id: QuoteId::from_bytes(random()?),
        direction: Direction::CashOut,
        txid: TxnId::from_bytes(random()?),
        fiat,
        exchange_rate: rate,
        principal_sats: charge.principal(),
        fee_sats: charge.fee(),
        wire_sats: charge.wire(),
        fees_event_id: seller.fees,
        ttl_s: 3_600,
    };
    let quote = Quote {
        quote_id: terms.quote_id,
        machine_id: seller.id,
        request_id: RequestId::from_bytes(random()?),
        txid: terms.txid,
        claim_hash: ClaimHash::from_bytes(random()?),
        direction: terms.direction,
        fiat_minor: fiat.minor,
        fiat_code: fiat.currency,
        rate_nano: rate,
        sources: JsonText::of(&json!([])),
        platform_fee_ppm: pair()?.platform(),
        operator_fee_ppm: pair()?.operator(),
        fees_event_id: seller.fees,
        principal_sats: terms.principal_sats,
        fee_sats: terms.fee_sats,
        wire_sats: terms.wire_sats,
        ttl_s: terms.ttl_s,
        quote_sig: terms.sign(&app.service),
        created_at: now,
        expires_at: now.after(terms.ttl_s.into()),
        reserved_sats: Sats::ZERO,
        reservation_ended_at: None,
    };
    let body = CreateInvoice { quote_id: quote.quote_id };
    let text = Request::new(RequestId::from_bytes(random()?), body)?.to_plaintext()?;
    let content = seller.cipher.encrypt(&text, random()?)?;
    let event = request_event(&seller.key, &app.service_key, now, content);
    let event = event.sign_with_keys(&seller.spire)?;
    let request_event_id = EventId::from_bytes(event.id.to_bytes());
    let stamp = Stamp {
        direction: terms.direction,
        principal: terms.principal_sats,
        fee: terms.fee_sats,
        exchange_rate: rate.to_decimal(),
        fiat,
        txid: Some(terms.txid),
        fees_event_id: Some(seller.fees),
        sender: seller.key,
        request_event_id,
    };
    let invoice = invoices::Invoice {
        quote_id: quote.quote_id,
        machine_id: seller.id,
        txid: quote.txid,
        payment_hash: PaymentHash::from_bytes(random()?),
        bolt11: "lnbcrt".into(),
        wire_sats: quote.wire_sats,
        stamp: JsonText::of(&stamp.to_extra()?.get().parse()?),
        request_event_id,
        request_event: event.as_json(),
        created_at: now,
        expires_at: now.after(3_600),
        state: InvoiceState::Open,
    };
    Ok((quote, invoice))
}
