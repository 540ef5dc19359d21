//! Both machines as a whole: tables, paths by name, and random sequences against a real journal.

mod cash_in;
mod cash_out;
mod change_of_mind;
mod ledger;
mod random_in;
mod random_out;
mod receipts;
mod said_again;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::{
    BayId, ClaimCode, EventId, Nonce, PaymentHash, PubKey, QuoteId, RequestId, TxnId, WithdrawId,
};
use bitspire_shared::money::{Denomination, Direction, FeePpm, Fiat, Origin, Origins, Rate, Sats};
use bitspire_shared::rpc::{
    CheckedQuote, Expectation, FeesInForce, Invoice, Lnurl, Quote, QuoteTerms, SignedText as _,
    Withdraw, check_quote,
};
use bitspire_shared::split::FeePair;
use bitspire_shared::statement::VerdictKind;
use bitspire_shared::time::{Mono, Unix};

use super::*;
use crate::journal::Stage;

pub(super) const SERVICE: u8 = 2;
const VAULT: u8 = 4;

/// A machine that a test drives by hand.
pub(super) trait Machine: Clone {
    fn next(self, input: Input, now: Now) -> (Self, Vec<Effect>);
    fn state_name(&self) -> &'static str;
}

impl Machine for CashOut {
    fn next(self, input: Input, now: Now) -> (Self, Vec<Effect>) {
        self.step(input, now)
    }

    fn state_name(&self) -> &'static str {
        self.state().name()
    }
}

impl Machine for CashIn {
    fn next(self, input: Input, now: Now) -> (Self, Vec<Effect>) {
        self.step(input, now)
    }

    fn state_name(&self) -> &'static str {
        self.state().name()
    }
}

/// A machine, the effects of its last step, and its clock.
pub(super) struct Driven<M> {
    pub(super) txn: M,
    pub(super) effects: Vec<Effect>,
    now: u64,
}

impl<M: Machine> Driven<M> {
    pub(super) fn new((txn, effects): (M, Vec<Effect>)) -> Self {
        Self { txn, effects, now: 0 }
    }

    pub(super) fn say(&mut self, input: Input) -> &mut Self {
        (self.txn, self.effects) = self.txn.clone().next(input, at(self.now));
        self
    }

    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.txn.state_name()
    }
}

pub(super) fn keys(n: u8) -> nostr::Keys {
    nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

pub(super) fn key(n: u8) -> PubKey {
    PubKey::new(keys(n).public_key()).unwrap()
}

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Mono(1_000_000 + ms), unix: Unix(1_800_000_000 + ms / 1_000) }
}

pub(super) fn eur(minor: i64) -> Fiat {
    Fiat::new(minor, "EUR".parse().unwrap())
}

pub(super) fn note(minor: u32) -> Denomination {
    Denomination::from_minor(minor).unwrap()
}

pub(super) fn bay(n: u8) -> BayId {
    BayId::new(n).unwrap()
}

pub(super) fn txid() -> TxnId {
    TxnId::from_bytes([1; 16])
}

pub(super) fn code() -> ClaimCode {
    ClaimCode::from_bytes([8; 16])
}

pub(super) fn order(minor: i64) -> Order {
    let (txid, seed, code) = (txid(), Nonce::from_bytes([7; 16]), code());
    Order { txid, seed, code, fiat: eur(minor), rules: Rules::default() }
}

/// Where the price of a quote comes from.
pub(super) fn origins() -> Origins {
    Origins::new([Origin { source: "kraken".parse().unwrap(), age_s: 3 }]).unwrap()
}

/// A quote of the service, through the vault's own check.
pub(super) fn quote(direction: Direction, minor: i64, n: u8) -> CheckedQuote {
    let ppm = |ppm| FeePpm::new(ppm).unwrap();
    let fees = FeesInForce {
        event_id: EventId::from_bytes([6; 32]),
        fees: FeePair::new(ppm(30_000), ppm(50_000)).unwrap(),
    };
    let rate = Rate::from_nano(1_000_000_000_000).unwrap();
    let charge =
        fees.fees.charge(direction, rate.principal(eur(minor), direction).unwrap()).unwrap();
    let terms = QuoteTerms {
        spire: key(1),
        quote_id: QuoteId::from_bytes([n; 16]),
        direction,
        txid: txid(),
        fiat: eur(minor),
        exchange_rate: rate,
        principal_sats: charge.principal(),
        fee_sats: charge.fee(),
        wire_sats: charge.wire(),
        fees_event_id: fees.event_id,
        ttl_s: 120,
    };
    let expectation = Expectation {
        spire: &key(1),
        service: &key(SERVICE),
        direction,
        txid: txid(),
        fiat: eur(minor),
        fees,
        recent_rates: &[],
        band_ppm: 50_000,
        max_age_s: 60,
    };
    check_quote(&Quote::sign(&terms, origins(), &keys(SERVICE)), &expectation).unwrap()
}

pub(super) fn invoice(expires_at: Unix) -> Invoice {
    let payment_hash = PaymentHash::from_bytes([9; 32]);
    Invoice { payment_hash, bolt11: "lnbcrt1".into(), expires_at, noffer: None }
}

pub(super) fn leave() -> Authorised {
    Authorised { txid: txid(), payment_hash: PaymentHash::from_bytes([9; 32]) }
}

pub(super) fn withdraw(net: u64) -> CheckedWithdraw {
    let facts = WithdrawFacts {
        withdraw_id: WithdrawId::from_bytes([5; 16]),
        net_sats: Sats(net),
        fee_sats: Sats(1),
        expires_at: Unix(1_900_000_000),
    };
    CheckedWithdraw { txid: txid(), facts, lnurl: Lnurl::new("LNURL1".into()), ndebit: None }
}

pub(super) fn bill(serial: u32, minor: u32) -> EscrowedBill {
    EscrowedBill { serial, denomination: note(minor), currency: "EUR".parse().unwrap() }
}

pub(super) fn verdict(kind: VerdictKind, amount_minor: i64) -> Verdict {
    let (nonce, seen) =
        (Nonce::from_bytes([3; 16]), bitspire_shared::ids::JournalSeq(u64::MAX >> 12));
    Verdict { txid: txid(), kind, amount_minor, nonce, seen }
}

pub(super) fn lots(bays: &[(u8, u32, u32)]) -> Lots {
    let lot = |&(n, minor, count)| (bay(n), Lot { denomination: note(minor), count });
    bays.iter().map(lot).collect()
}

/// A final answer: for each bay what was asked for and what was presented.
pub(super) fn presented(bays: &[(u8, u32, u32)]) -> BayResults {
    let result = |&(n, requested, presented)| {
        let result = BayResult { requested, presented, ..BayResult::default() };
        (bay(n), result)
    };
    bays.iter().map(result).collect()
}

/// The record that a step wrote first, if it did.
pub(super) fn record(effects: &[Effect]) -> Option<&Record> {
    match effects.first()? {
        Effect::Journal(record)
        | Effect::Dispense { record, .. }
        | Effect::Stack { record, .. } => Some(record),
        _ => None,
    }
}

/// The id of the request that a step asked.
pub(super) fn asked(effects: &[Effect], rpc: &str) -> RequestId {
    let mut ids = effects.iter().filter_map(|effect| match effect {
        Effect::Request(request) if request.ask.rpc() == rpc => Some(request.id),
        _ => None,
    });
    ids.next().unwrap_or_else(|| panic!("expected {rpc} in {effects:?}"))
}

/// A transaction as the next run of the vault has it.
pub(super) fn reread(txn: &Txn) -> Txn {
    let text = bitspire_shared::canonical::to_canonical(txn).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn moves(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Dispense { .. } | Effect::Stack { .. }))
}
