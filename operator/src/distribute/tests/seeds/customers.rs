//! Customers who fetch what is theirs: at the code on the screen, by their claim code, with wallets that
//! ask twice, at once, and for something else.
//!
//! What they hear is held against what the wallet did, at once: a k1 takes one invoice for ever; a new
//! one is given out only when nothing that was named before can be paid any more; "nothing is owed" is
//! said to those who were paid.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::connect_info::MockConnectInfo;
use bitspire_shared::ids::ClaimHash;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash as _, sha256};

use super::*;
use crate::lnurl;
use crate::store::withdraws::{self, K1};
use crate::wallet::PayState;

/// Whoever was promised sats.
#[derive(Debug)]
pub(super) struct Customer {
    code: [u8; 16],
    pub(super) sats: Sats,
    /// Every k1 that they were shown; the newest is the last.
    k1s: Vec<String>,
    /// Each invoice for their sats that somebody has named.
    pub(super) named: Vec<Invoice>,
    /// What was answered with OK, by k1.
    accepted: BTreeMap<String, PaymentHash>,
}

#[derive(Clone, Debug)]
pub(super) struct Invoice {
    pub(super) hash: PaymentHash,
    bolt11: String,
}

/// What a wallet asks for.
struct Asked {
    msat: Option<u64>,
    network: Currency,
    made_at: Unix,
    expiry_s: u64,
}

impl Asked {
    fn of(sats: Sats, made_at: Unix) -> Self {
        let msat = Some(sats.to_msat().unwrap().0);
        Self { msat, network: Currency::Regtest, made_at, expiry_s: 3_600 }
    }

    /// Nobody has the preimage: the payer's node is the one that says what was paid.
    fn invoice(self, dice: &mut Dice) -> Invoice {
        let key = nostr::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
        let hash: [u8; 32] = dice.bytes();
        let builder = InvoiceBuilder::new(self.network)
            .description("wallet".into())
            .payment_hash(sha256::Hash::from_byte_array(hash))
            .payment_secret(PaymentSecret([7; 32]))
            .duration_since_epoch(Duration::from_secs(self.made_at.0))
            .min_final_cltv_expiry_delta(18)
            .expiry_time(Duration::from_secs(self.expiry_s));
        let builder = match self.msat {
            Some(msat) => builder.amount_milli_satoshis(msat),
            None => builder,
        };
        let sign = |digest: &_| nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key);
        let bolt11 = builder.build_signed(sign).unwrap().to_string();
        Invoice { hash: PaymentHash::from_bytes(hash), bolt11 }
    }
}

impl Customer {
    pub(super) fn new(code: [u8; 16], sats: Sats, k1: Option<String>) -> Self {
        let k1s = k1.into_iter().collect();
        Self { code, sats, k1s, named: Vec::new(), accepted: BTreeMap::new() }
    }

    pub(super) fn claim(&self) -> ClaimHash {
        ClaimCode::from_bytes(self.code).hash()
    }

    fn hears(&mut self, k1: &str, invoice: &Invoice, answer: &str) {
        if answer.contains("\"OK\"") {
            let first = *self.accepted.entry(k1.to_owned()).or_insert(invoice.hash);
            assert_eq!(first, invoice.hash, "a second invoice was accepted for one k1");
        } else {
            assert!(answer.contains("\"ERROR\""), "{answer}");
        }
    }
}

impl Bench {
    /// One thing that a customer does, or whoever looked over their shoulder.
    pub(super) async fn customer_acts(&mut self, dice: &mut Dice) {
        let count = u64::try_from(self.customers.len()).unwrap();
        if count == 0 {
            return;
        }
        let who = usize::try_from(dice.below(count)).unwrap();
        match dice.below(10) {
            0..=3 => self.fetches(who, dice).await,
            4 => self.repeats(who).await,
            5 => self.two_at_once(who, dice).await,
            6 | 7 => self.asks_for_another(who, dice).await,
            8 => {
                let Some(k1) = self.customers[who].k1s.first().cloned() else { return };
                let invoice = self.good(who, dice);
                self.names(who, &k1, &invoice).await;
            }
            _ => drop(self.looks(who).await),
        }
    }

    /// A wallet names its invoice at the newest k1.
    pub(super) async fn fetches(&mut self, who: usize, dice: &mut Dice) {
        let Some(k1) = self.newest(who).await else { return };
        let invoice = self.good(who, dice);
        self.names(who, &k1, &invoice).await;
    }

    /// A wallet that has had no answer asks again.
    async fn repeats(&mut self, who: usize) {
        let customer = &self.customers[who];
        let (Some(k1), Some(last)) = (customer.k1s.last().cloned(), customer.named.last().cloned())
        else {
            return;
        };
        self.names(who, &k1, &last).await;
    }

    async fn two_at_once(&mut self, who: usize, dice: &mut Dice) {
        let Some(k1) = self.newest(who).await else { return };
        let (first, second) = (self.good(who, dice), self.good(who, dice));
        let one = self.get(payout::tests::callback(&k1, &first.bolt11));
        let other = self.get(payout::tests::callback(&k1, &second.bolt11));
        let both = self.lives(async move { tokio::join!(one, other) }).await;
        let Some((one, other)) = both else { return };
        let customer = &mut self.customers[who];
        customer.hears(&k1, &first, &one);
        customer.hears(&k1, &second, &other);
    }

    /// A wallet names an invoice that must not be paid; the k1 is as it was before.
    async fn asks_for_another(&mut self, who: usize, dice: &mut Dice) {
        let Some(k1) = self.newest(who).await else { return };
        let (sats, now) = (self.customers[who].sats, self.world.app().clock.now());
        let good = Asked::of(sats, now);
        let msat = sats.0 * 1_000;
        let bad = match dice.below(9) {
            0 => Asked { msat: Some(msat + 1_000), ..good },
            1 => Asked { msat: Some(msat + 1), ..good },
            2 => Asked { msat: Some(msat - 1), ..good },
            3 => Asked { msat: None, ..good },
            4 => Asked { network: Currency::Bitcoin, ..good },
            5 => Asked { made_at: Unix(now.0 - 3_600), ..good },
            6 => Asked { expiry_s: 59, ..good },
            7 => Asked { expiry_s: lnurl::invoice::MAX_LEFT_S + 1, ..good },
            _ => Asked { msat: Some(msat * 2), ..good },
        };
        let bad = bad.invoice(dice);
        let before = self.bound(&k1).await;
        let asked = self.get(payout::tests::callback(&k1, &bad.bolt11));
        if let Some(answer) = self.lives(asked).await {
            assert!(answer.contains("\"ERROR\""), "{answer}");
        }
        assert_eq!(self.bound(&k1).await, before, "a refused invoice changed its k1");
    }

    async fn names(&mut self, who: usize, k1: &str, invoice: &Invoice) {
        let asked = self.get(payout::tests::callback(k1, &invoice.bolt11));
        if let Some(answer) = self.lives(asked).await {
            self.customers[who].hears(k1, invoice, &answer);
        }
    }

    /// An invoice as it must be.
    fn good(&mut self, who: usize, dice: &mut Dice) -> Invoice {
        let customer = &mut self.customers[who];
        let asked = Asked::of(customer.sats, self.world.app().clock.now());
        let expiry_s = [600, 3_600, 7_200][usize::try_from(dice.below(3)).unwrap()];
        let invoice = Asked { expiry_s, ..asked }.invoice(dice);
        customer.named.push(invoice.clone());
        invoice
    }

    async fn newest(&mut self, who: usize) -> Option<String> {
        match self.customers[who].k1s.last().cloned() {
            Some(k1) => Some(k1),
            None => self.looks(who).await,
        }
    }

    /// The claim page; the k1 that it shows.
    async fn looks(&mut self, who: usize) -> Option<String> {
        let code = ClaimCode::from_bytes(self.customers[who].code);
        let asked = self.get(format!("/c/{}", code.expose()));
        let page = self.lives(asked).await?;
        let paid = self.paid(who).await;
        if page.contains("Nothing is owed") {
            assert!(paid, "a customer who was not paid is owed nothing");
            return None;
        }
        let named = self.customers[who].named.clone();
        if page.contains("On its way") {
            assert!(!named.is_empty(), "nobody has named an invoice");
            return None;
        }
        let lnurl = page.split("LNURL1").nth(1).map(|rest| rest.split(['"', '<']).next().unwrap());
        let (_, url) = bech32::decode(&format!("LNURL1{}", lnurl.unwrap_or(&page))).unwrap();
        let k1 = String::from_utf8(url).unwrap().rsplit('/').next().unwrap().to_owned();
        for invoice in named {
            let state = self.truth(invoice.hash).await;
            let over = matches!(state, None | Some(PayState::Failed));
            assert!(over, "a second way to be paid beside {}: {state:?}", invoice.hash);
        }
        let customer = &mut self.customers[who];
        if !customer.k1s.contains(&k1) {
            self.again += u64::from(!customer.accepted.is_empty());
            customer.k1s.push(k1.clone());
        }
        Some(k1)
    }

    /// Who was not paid fetches.
    pub(super) async fn all_fetch(&mut self, dice: &mut Dice) {
        for who in 0..self.customers.len() {
            if self.paid(who).await {
                continue;
            }
            let k1 = match self.customers[who].named.is_empty() {
                true => self.newest(who).await,
                false => self.looks(who).await,
            };
            if let Some(k1) = k1 {
                let invoice = self.good(who, dice);
                self.names(who, &k1, &invoice).await;
            }
        }
    }

    pub(super) async fn all_paid(&mut self) -> bool {
        let mut all = true;
        for who in 0..self.customers.len() {
            all &= self.paid(who).await;
        }
        all
    }

    /// Whether the wallet has paid a customer.
    async fn paid(&mut self, who: usize) -> bool {
        let mut paid = 0;
        for invoice in self.customers[who].named.clone() {
            let state = self.truth(invoice.hash).await;
            paid += usize::from(matches!(state, Some(PayState::Succeeded { .. })));
        }
        assert!(paid <= 1, "a customer was paid {paid} times");
        paid == 1
    }

    /// What the till itself knows of a payment that it made, whoever can reach it.
    pub(super) async fn truth(&self, hash: PaymentHash) -> Option<PayState> {
        let node = self.world.node();
        node.set_reachable(true);
        let known = node.wallet("till").lookup_payment(hash).await.unwrap();
        node.set_reachable(!self.away);
        known.map(|payment| payment.state)
    }

    /// The invoice that is bound to a k1.
    async fn bound(&self, k1: &str) -> Option<PaymentHash> {
        let k1 = K1::parse(k1).unwrap();
        let session = self.world.read(move |read| withdraws::session(read, &k1)).await;
        session.unwrap().bound_hash
    }

    /// Asks the public listener.
    fn get(&self, path: String) -> impl Future<Output = String> + use<> {
        let address = SocketAddr::from(([192, 0, 2, 7], 1));
        let routes = lnurl::router(self.world.app()).layer(MockConnectInfo(address));
        async move { payout::tests::get(routes, &path).await.1 }
    }
}
