//! The operator: pairs, publishes, counts what lies there, and decides what the machine cannot.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_agent::ipc::{SecretText, ToVault};
use bitspire_shared::document::{
    Action, Cassettes, Change, DTag, DirectionFees, DocumentKind, FeesDocument, Position, attest,
};
use bitspire_shared::ids::{BayId, ChangeId, EventId, JournalSeq, Nonce, TxnId};
use bitspire_shared::money::{Currency, Denomination, Direction};
use bitspire_shared::rpc::{BayCount, Doubt, OpenTxn};
use bitspire_shared::seed::{BunkerSecret, BunkerUri, Loopback, Pins, Seed, parse_relay};
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::service::{Draw, Drawn, bytes, fee_pair, public};
use super::world::{Thing, World};

/// What the bays hold: number, note in dollars, notes.
const BAYS: [(u8, u32, u32); 2] = [(1, 20, 100), (2, 50, 100)];
/// Before a verdict that changed nothing is given again.
const AGAIN_MS: u64 = 40_000;

#[derive(Default)]
pub(super) struct Operator {
    /// Brings the machine into service, then ends the vault.
    pub(super) sets_up: bool,
    /// Since when a transaction waits, and when it was last decided.
    waits: BTreeMap<TxnId, (u64, u64, u32)>,
    /// Transactions that were told to go on giving notes.
    pub(super) resumed: BTreeSet<TxnId>,
    /// What the books of the cashbox lack by verdicts that could not say it, in minor units.
    pub(super) cashbox_slack: i64,
    counted_at: u64,
    /// The books of the bays may lack what somebody with the PIN has done: they are counted again.
    pub(super) recounts: bool,
    /// The last entry of the machine's journal that was flushed.
    pub(super) written: u64,
    quiet_since: Option<u64>,
    pub(super) verdicts: u64,
}

pub(super) fn usd() -> Currency {
    "USD".parse().expect("a currency")
}

/// A bay's note in minor units.
pub(super) fn note_of(bay: u8) -> i64 {
    let found = BAYS.iter().find(|(number, ..)| *number == bay);
    found.map_or(0, |(_, dollars, _)| i64::from(*dollars) * 100)
}

impl World {
    /// The bays that this machine has.
    fn own_bays(&self) -> impl Iterator<Item = &'static (u8, u32, u32)> + use<> {
        BAYS.iter().take(usize::from(self.rates.parts.bays()))
    }

    pub(super) fn operate(&mut self) {
        if self.operator.sets_up {
            self.plan(300, Thing::Operate);
            self.set_up();
            return;
        }
        let wait = if self.quiet { 3_000 } else { self.between(5_000, 15_000) };
        self.plan(wait, Thing::Operate);
        if self.quiet || self.percent(15) {
            self.take_notes();
        }
        if self.quiet {
            self.mend_all();
        }
        let Some(report) = self.service.state.clone() else { return };
        for txn in &report.open_transactions {
            self.look_at(txn, report.journal_seq);
        }
        let doubted = report.alerts.iter().any(|alert| alert.code == "bay_in_doubt");
        let uncertain = report.open_transactions.iter().any(|txn| txn.state == "uncertain");
        let recently = self.now.0.saturating_sub(self.operator.counted_at) < AGAIN_MS;
        // a note that is under way is missing in the one and not yet in the other
        let moves = |txn: &OpenTxn| {
            ["dispense_committed", "dispensing", "uncertain"].contains(&txn.state.as_str())
        };
        // and an older report says what the books were before somebody with the PIN was there
        let newest = report.journal_seq.0 >= self.operator.written;
        let rests = newest && self.told_is_over() && !report.open_transactions.iter().any(moves);
        if self.operator.recounts && self.quiet && rests {
            let there = self.bays(|bay| bay["cassette"].as_u64().unwrap_or(0));
            let same = |(bay, booked): (&BayId, &BayCount)| {
                there.get(&bay.get()) == Some(&u64::from(booked.count))
            };
            self.operator.recounts = !report.cassettes.iter().all(same);
        }
        let wanted = doubted || (self.operator.recounts && self.quiet);
        if wanted && !uncertain && !recently && self.told_is_over() {
            self.operator.counted_at = self.now.0;
            self.count_bays(report.journal_seq);
        }
        if self.quiet {
            self.is_it_over(&report.open_transactions, wanted);
        }
    }

    /// Nothing that the dispenser was told can still be under way.
    fn told_is_over(&self) -> bool {
        let ms = if self.answer_owed { 60_000 } else { 10_000 };
        self.told.last().is_none_or(|told| self.now.since(told.at) > ms)
    }

    fn is_it_over(&mut self, open: &[OpenTxn], doubted: bool) {
        let since = *self.operator.quiet_since.get_or_insert(self.now.0);
        let quiet_ms = self.now.0.saturating_sub(since);
        // a withdraw that nobody claims waits until its end; that there is one, and that it was paid,
        // is heard of before
        let draws = &self.service.draws;
        let rests = |txn: &OpenTxn| {
            let mine = draws.values().find(|draw| draw.claim.txid == txn.txid);
            let open = |draw: &Draw| draw.told && matches!(draw.state, Drawn::Open | Drawn::Over);
            txn.state == "offered" && mine.is_some_and(open)
        };
        let rest = open.iter().all(rests) && !doubted && self.crowd.is_gone();
        if rest && quiet_ms > 35_000 && self.told_is_over() {
            self.over = true;
        } else if quiet_ms > 3_600_000 {
            let open: Vec<&str> = open.iter().map(|txn| txn.state.as_str()).collect();
            self.broken.push(format!("L1: an hour after the last fault there still are {open:?}"));
            self.over = true;
        }
        if self.over {
            self.put(bitspire_agent::vault::Event::Stop);
        }
    }

    fn look_at(&mut self, txn: &OpenTxn, seen: JournalSeq) {
        let Some(doubt) = &txn.doubt else { return };
        let now = self.now.0;
        let (since, decided, times) = *self.operator.waits.entry(txn.txid).or_insert((now, 0, 0));
        let patience = match (self.quiet, txn.state.as_str()) {
            (true, _) => 4_000,
            (false, "paid_waiting") => 150_000,
            (false, _) => 60_000,
        };
        let again = decided == 0 || now.saturating_sub(decided) > AGAIN_MS;
        if now.saturating_sub(since) < patience || !again || !self.told_is_over() {
            return;
        }
        self.operator.waits.insert(txn.txid, (since, now, times.saturating_add(1)));
        let decision = match txn.direction {
            Direction::CashOut => self.decide_cash_out(txn, doubt, times),
            Direction::CashIn => self.decide_cash_in(txn, doubt, times),
        };
        let Some((kind, amount)) = decision else { return };
        self.operator.verdicts = self.operator.verdicts.saturating_add(1);
        self.trace.line(self.now, || format!("verdict {kind:?} {amount}"));
        let statement = Statement::Verdict {
            spire: self.spire(),
            vault: self.service.vault.expect("it is paired"),
            txid: Some(txn.txid),
            journal_seq: seen,
            verdict: kind,
            amount_minor: amount,
            nonce: Nonce::from_bytes(bytes(&mut self.chance)),
            not_after: self.unix().after(600),
        };
        let signed = self.statement(&statement);
        self.push("verdict", json!({ "statement": signed }));
    }

    /// What of this transaction's plans reached the exit, in minor units.
    pub(super) fn given_for(&self, txid: TxnId) -> i64 {
        let now = self.delivered();
        let ends = self.told.iter().skip(1).map(|told| &told.before).chain([&now]);
        let mine = self.told.iter().zip(ends).filter(|(told, _)| told.txid == txid);
        mine.map(|(told, end)| {
            let more = |bay: &u8| end[bay].saturating_sub(told.before[bay]);
            let bays = end.keys();
            bays.map(|bay| i64::try_from(more(bay)).unwrap_or(0) * note_of(*bay)).sum::<i64>()
        })
        .sum()
    }

    fn decide_cash_out(
        &mut self,
        txn: &OpenTxn,
        doubt: &Doubt,
        times: u32,
    ) -> Option<(VerdictKind, i64)> {
        let promised = txn.fiat_minor?;
        let missing = promised.saturating_sub(self.given_for(txn.txid));
        if missing == 0 {
            return Some((VerdictKind::Settled, 0));
        }
        let resumes = !self.quiet && times == 0 && self.percent(30);
        Some(match (txn.state.as_str(), resumes) {
            ("uncertain", false) => (VerdictKind::Owed, missing),
            ("uncertain", true) => {
                self.operator.resumed.insert(txn.txid);
                (VerdictKind::DispenseRest, missing)
            }
            (_, true) => {
                self.operator.resumed.insert(txn.txid);
                (VerdictKind::Resume, doubt.rest_minor)
            }
            (_, false) => (VerdictKind::Owed, doubt.rest_minor),
        })
    }

    /// Notes in the cashbox, in minor units, as whoever opens it counts.
    pub(super) fn cashbox_minor(&self) -> i64 {
        let counters = self.acceptor.counters();
        let value = |heap: &Value| {
            let notes = heap.as_object().cloned().unwrap_or_default();
            let value = |(dollars, count): (&String, &Value)| {
                dollars.parse::<i64>().unwrap_or(0) * 100 * count.as_i64().unwrap_or(0)
            };
            notes.iter().map(value).sum::<i64>()
        };
        value(&counters["cashbox"]) + value(&counters["collected"])
    }

    fn decide_cash_in(
        &mut self,
        _: &OpenTxn,
        doubt: &Doubt,
        times: u32,
    ) -> Option<(VerdictKind, i64)> {
        let cashbox = self.service.state.as_ref()?.cashbox.as_ref()?;
        let booked =
            cashbox.notes.iter().map(|(note, count)| i64::from(note.minor()) * i64::from(*count));
        let booked: i64 = booked.sum();
        let emptied: i64 = self.service.emptied.values().sum();
        let more = self.cashbox_minor() - booked - emptied - self.operator.cashbox_slack;
        // a verdict speaks of all the notes in doubt at once
        if doubt.unknown_minor > 0 && more >= doubt.unknown_minor && times < 12 {
            return Some((VerdictKind::Owed, doubt.unknown_minor));
        }
        Some((VerdictKind::Settled, 0))
    }

    fn mend_all(&mut self) {
        for fault in super::faults::LASTING {
            self.put_right(fault);
        }
    }

    // ---- documents ----

    fn pins(&self) -> Pins {
        let parties = &self.service.parties;
        Pins {
            spire: public(&parties.spire),
            operator: public(&parties.operator),
            service: public(&parties.service),
            currency: usd(),
        }
    }

    fn set_up(&mut self) {
        if self.net.id().is_none() {
            return;
        }
        if self.service.vault.is_none() {
            let pins = self.pins();
            let relay = parse_relay("ws://127.0.0.1:7777").expect("a relay");
            let bunker = BunkerUri::new(pins.spire, vec![relay.clone()]).expect("a bunker");
            let secret = BunkerSecret::new(&"5a".repeat(32)).expect("a secret");
            let until = Unix(4_000_000_000);
            let seed = Seed::issue(&pins, bunker, secret, vec![relay], until, Loopback::Allowed);
            let seed_url = SecretText::new(seed.expect("a seed").expose().to_string());
            let new = SecretText::new(super::collector::PIN.to_owned());
            self.say(ToVault::ServicePin { new, old: None });
            self.say(ToVault::Seed { seed_url });
            let session = public(&self.service.parties.client);
            let expires_at = self.unix().after(3_600);
            self.say(ToVault::ProveSession { session, expires_at });
        } else if self.service.fees.is_none() {
            let now = self.unix();
            let document = FeesDocument {
                cash_in: DirectionFees::new(fee_pair()),
                cash_out: DirectionFees::new(fee_pair()),
                published_at: now,
                attest: None,
            };
            let text = document.to_json().expect("fees");
            self.service.fees = Some(self.publish(DocumentKind::Fees, text));
            let counts = self.own_bays().map(|(bay, _, count)| (*bay, u64::from(*count)));
            let counts = counts.collect();
            self.name_vault();
            self.publish_counts(&counts, JournalSeq(0));
        } else if self.crowd.is_for_sale() && !self.over {
            self.over = true;
            self.put(bitspire_agent::vault::Event::Stop);
        }
    }

    /// The machine's own word for whom its vault speaks, so that it can give receipts.
    fn name_vault(&mut self) {
        let spire = &self.service.parties.spire;
        let statement = Statement::Vault {
            spire: public(spire),
            vault: self.service.vault.expect("it is paired"),
            nonce: Nonce::from_bytes(bytes(&mut self.chance)),
            not_after: self.unix().after(86_400),
        };
        let event = statement.to_unsigned(&public(spire), self.unix()).expect("a statement");
        let signed = event.sign_with_keys(spire).expect("the machine's key signs");
        self.say(ToVault::Named { statement: Box::new(SignedStatement::new(signed)) });
    }

    fn count_bays(&mut self, base_seq: JournalSeq) {
        self.trace.line(self.now, || "counts the bays".to_owned());
        let counts = self.bays(|bay| bay["cassette"].as_u64().unwrap_or(0));
        self.publish_counts(&counts, base_seq);
    }

    fn publish_counts(&mut self, counts: &BTreeMap<u8, u64>, base_seq: JournalSeq) {
        let bay = |number: u8| BayId::new(number).expect("a bay");
        let count = |number: &u8| {
            counts.get(number).and_then(|count| u32::try_from(*count).ok()).unwrap_or(0)
        };
        let position = |(number, dollars, _): &(u8, u32, u32)| {
            let denomination = Denomination::from_major(*dollars, usd()).expect("a note");
            (bay(*number), Position { denomination, count: count(number) })
        };
        let mut changes = Vec::new();
        for (number, ..) in self.own_bays() {
            changes.push(Change {
                id: ChangeId::from_bytes(bytes(&mut self.chance)),
                bay: bay(*number),
                action: Action::Set(count(number)),
                reason: "counted".to_owned(),
                base_seq,
            });
        }
        let mut document = Cassettes {
            positions: self.own_bays().map(position).collect(),
            published_at: Some(self.unix()),
            changes: Some(changes),
            attest: None,
        };
        let sha256 = attest::digest(&document.to_json(usd()).expect("cassettes"));
        let vouches = Statement::Document {
            spire: self.spire(),
            sha256: sha256.expect("a digest"),
            nonce: Nonce::from_bytes(bytes(&mut self.chance)),
            not_after: self.unix().after(3_600),
        };
        document.attest = Some(self.statement(&vouches));
        let text = document.to_json(usd()).expect("cassettes");
        self.publish(DocumentKind::Cassettes, text);
    }

    fn publish(&mut self, kind: DocumentKind, plaintext: String) -> EventId {
        let (spire, now) = (self.spire(), self.unix());
        let operator = &self.service.parties.operator;
        let event = DTag { kind, spire }
            .to_unsigned(&public(operator), &spire, "encrypted".to_owned(), now)
            .sign_with_keys(operator)
            .expect("the operator's key signs");
        let id = EventId::from_bytes(event.id.to_bytes());
        self.say(ToVault::Document { event: Box::new(event), plaintext });
        id
    }

    fn statement(&self, statement: &Statement) -> SignedStatement {
        let operator = &self.service.parties.operator;
        let event = statement.to_unsigned(&public(operator), self.unix()).expect("a statement");
        SignedStatement::new(event.sign_with_keys(operator).expect("the operator's key signs"))
    }
}
