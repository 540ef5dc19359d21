//! What must hold at the end: notes, wallet and both sides' books against each other.
//!
//! Promise: nothing lost, nothing twice, every gap named: uncertain, owed, or waiting for its claim
//! code. Each line of an answer names the invariant that it breaks.

use std::collections::BTreeMap;

use bitspire_agent::journal::{Holdings, Journal, StoredEntry};
use bitspire_agent::txn::{Txn, cash_in, cash_out};
use bitspire_agent::vault::is_trial;
use bitspire_shared::ids::TxnId;
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::Value;

use super::operator::note_of;
use super::service::Drawn;
use super::watch::TRIAL;
use super::world::World;

/// What the journal says in the end.
pub(super) struct Books {
    pub(super) txns: BTreeMap<TxnId, Txn>,
    /// Intents to dispense, by entry.
    pub(super) dispenses: BTreeMap<u64, TxnId>,
    /// What was in the cashbox each time that somebody emptied it, in minor units.
    pub(super) emptied: i64,
    pub(super) stacks: u64,
    pub(super) holdings: Holdings,
    pub(super) entries: usize,
}

impl Books {
    pub(super) fn read(journal: &Journal, entries: &[StoredEntry]) -> Result<Self, String> {
        let mut books = Self {
            txns: BTreeMap::new(),
            dispenses: BTreeMap::new(),
            emptied: 0,
            stacks: 0,
            holdings: journal.holdings().clone(),
            entries: entries.len(),
        };
        for entry in entries {
            let body: Value = serde_json::from_str(&entry.body).map_err(|e| e.to_string())?;
            let body = body.get(&entry.kind).unwrap_or(&Value::Null);
            let txn = match entry.kind.as_str() {
                "txn" => body,
                "intent" => &body["txn"],
                "setting" => {
                    books.emptied += emptied(body);
                    continue;
                }
                _ => continue,
            };
            if is_trial(txn["name"].as_str().unwrap_or_default()) {
                if body["what"] == "dispense" {
                    books.dispenses.insert(entry.seq.0, TRIAL);
                }
                continue;
            }
            let state = txn["state"].clone();
            let state: Txn = serde_json::from_value(state).map_err(|e| e.to_string())?;
            let txid = state.txid();
            match body["what"].as_str() {
                Some("dispense") => drop(books.dispenses.insert(entry.seq.0, txid)),
                Some("stack") => books.stacks = books.stacks.saturating_add(1),
                _ => {}
            }
            books.txns.insert(txid, state);
        }
        Ok(books)
    }
}

/// What the books had of a cashbox that an entry empties, in minor units.
fn emptied(setting: &Value) -> i64 {
    let moves = setting["cash"].as_array().into_iter().flatten();
    let empties = moves.filter(|one| one.get("cashbox_emptied").is_some()).count();
    let events = setting["value"]["events"].as_array().into_iter().flatten();
    let last = events.filter_map(|event| event["action"].get("cashbox_emptied")).next_back();
    match last {
        Some(action) if empties > 0 => piles_minor(&action["notes"]),
        _ => 0,
    }
}

/// Notes by the books, in minor units.
fn piles_minor(notes: &Value) -> i64 {
    let pile = |(minor, pile): (&String, &Value)| {
        minor.parse::<i64>().unwrap_or(0) * pile["expected"].as_i64().unwrap_or(0)
    };
    notes.as_object().into_iter().flatten().map(pile).sum()
}

/// Everything that does not hold.
pub(super) fn judge(world: &World, books: &Books) -> Vec<String> {
    let mut wrong = world.broken.clone();
    wrong.extend(world.service.broken.iter().cloned());
    let mut judge = Judge { world, books, wrong };
    judge.devices();
    judge.bays();
    judge.cashbox();
    for (txid, txn) in &books.txns {
        match txn {
            Txn::CashOut(sale) => judge.sale(*txid, sale),
            Txn::CashIn(session) => judge.session(*txid, session),
        }
    }
    judge.wallet();
    judge.wrong
}

struct Judge<'a> {
    world: &'a World,
    books: &'a Books,
    wrong: Vec<String>,
}

impl Judge<'_> {
    fn holds(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// The simulators themselves lose nothing; every movement had its intent.
    fn devices(&mut self) {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let counters = self.world.dispenser.counters();
        for bay in counters["bays"].as_array().into_iter().flatten() {
            let parts = ["cassette", "path", "exit", "taken", "rejected", "collected"];
            let sum: u64 = parts.iter().map(|part| count(&bay[part])).sum();
            self.holds(count(&bay["loaded"]) == sum, || {
                format!("the simulator lost a note: {bay}")
            });
        }
        let told = u64::try_from(self.world.told.len()).unwrap_or(u64::MAX);
        let dispenses = count(&counters["dispenses"]);
        self.holds(dispenses <= told, || format!("B3: {dispenses} dispenses for {told} proofs"));
        let unknown: Vec<u64> = self
            .world
            .told
            .iter()
            .filter(|told| self.books.dispenses.get(&told.seq.0) != Some(&told.txid))
            .map(|told| told.seq.0)
            .collect();
        self.holds(unknown.is_empty(), || format!("B3: no intent in the journal for {unknown:?}"));
        let acceptor = self.world.acceptor.counters();
        let heap = |name: &str| {
            let notes = acceptor[name].as_object().cloned().unwrap_or_default();
            notes.values().map(count).sum::<u64>()
        };
        let boxed = heap("cashbox") + heap("collected");
        let out: u64 = ["in_path", "returned", "rejected", "removed"]
            .iter()
            .map(|n| count(&acceptor[n]))
            .sum();
        let inserted = count(&acceptor["inserted"]);
        self.holds(inserted == boxed + out, || format!("the simulator lost a note: {acceptor}"));
        let stacks = self.world.stacks;
        self.holds(boxed <= stacks, || format!("B3: {boxed} notes stacked by {stacks} proofs"));
        self.holds(stacks <= self.books.stacks, || {
            format!("B3: {stacks} proofs to stack, {} intents", self.books.stacks)
        });
    }

    /// What the books say lies in a bay lies there, unless they say that somebody must count.
    fn bays(&mut self) {
        let there = self.world.bays(|bay| bay["cassette"].as_u64().unwrap_or(0));
        for (id, bay) in &self.books.holdings.bays {
            let there = i64::try_from(there[&id.get()]).unwrap_or(i64::MAX);
            let booked = bay.on_hand();
            // notes that a fault left in the path are counted by nobody until somebody counts the
            // bay: the books say how many that may be
            let fits = (bay.sure()..=booked).contains(&there);
            self.holds(bay.doubts != 0 || fits, || {
                let sure = bay.sure();
                format!("B1: bay {id} holds {there} notes, the books say {booked}, {sure} for sure")
            });
        }
    }

    /// Each stacked note counts once, or is in doubt.
    fn cashbox(&mut self) {
        let there = self.world.cashbox_minor();
        let mut booked = self.world.operator.cashbox_slack + self.books.emptied;
        let mut doubts = 0i64;
        for (note, heap) in &self.books.holdings.cashbox {
            let minor = i64::from(note.minor());
            booked += minor * heap.count;
            doubts += minor * heap.doubts;
        }
        let removed = self.world.acceptor.counters()["removed"].as_i64().unwrap_or(0);
        // a jammed note that a person took out: its value is not told
        let least = booked - removed * 10_000;
        self.holds(doubts >= 0, || format!("B4: {doubts} minor units in doubt"));
        self.holds((least..=booked + doubts).contains(&there), || {
            format!("B4: {there} in the cashbox, the books say {booked} and {doubts} in doubt")
        });
    }

    fn sale(&mut self, txid: TxnId, sale: &bitspire_agent::txn::CashOut) {
        use cash_out::State;
        let promised = sale.deal().fiat.minor;
        let moved = self.world.given_for(txid);
        let bills: Vec<_> =
            self.world.service.bills.values().filter(|bill| bill.terms.txid == txid).collect();
        let settled = bills.iter().filter(|bill| bill.settled()).count();
        self.holds(settled <= 1, || format!("S4: {txid} was paid for {settled} times"));
        let state = sale.state();
        let name = state.name();
        self.holds(moved <= promised, || format!("B2: {txid} gave {moved} of {promised}"));
        let given = match state {
            State::Settled { given, .. }
            | State::ShortDispensed { given, .. }
            | State::PaidWaiting { given, .. } => given,
            State::Uncertain { given, batch, .. } => {
                let lots = batch.lots.iter();
                let most: i64 =
                    lots.map(|(bay, lot)| note_of(bay.get()) * i64::from(lot.count)).sum();
                let sure = given.minor + given.by_verdict;
                self.holds((sure..=sure + most).contains(&moved), || {
                    format!("B2: {txid} gave {moved}, uncertain between {sure} and {most} more")
                });
                return;
            }
            State::Cancelled { .. }
            | State::Expired
            | State::Late { .. }
            | State::Quoted { .. } => {
                self.holds(moved == 0, || format!("B2: {txid} is {name} and gave {moved}"));
                self.holds(settled == 0, || format!("S5: {txid} is {name} and was paid in time"));
                return;
            }
            State::Invoiced { .. } => {
                self.holds(moved == 0 && settled == 0, || format!("L1: {txid} rests in {name}"));
                return;
            }
            State::Paid { .. } | State::DispenseCommitted { .. } | State::Dispensing { .. } => {
                self.wrong.push(format!("L1: {txid} rests in {name}"));
                return;
            }
        };
        let has = given.minor + given.by_verdict;
        self.holds(has == moved, || {
            format!("B2: {txid} {name}: the books say {has}, gave {moved}")
        });
        self.holds(settled == 1, || format!("S5: {txid} is {name} and was not paid for"));
        let owed = match state {
            State::ShortDispensed { owed_minor, .. } => *owed_minor,
            State::PaidWaiting { given, .. } => given.rest(sale.deal().fiat),
            _ => 0,
        };
        self.holds(has + owed == promised, || {
            format!("B2: {txid} {name}: {has} given and {owed} owed of {promised}")
        });
        self.reported(txid, state, owed);
    }

    /// The service was told the same.
    fn reported(&mut self, txid: TxnId, state: &cash_out::State, owed: i64) {
        use cash_out::State;
        let (State::Settled { told, .. } | State::ShortDispensed { told, .. }) = state else {
            return;
        };
        let last = self.world.service.reports.get(&txid).and_then(|reports| reports.last());
        self.holds(*told, || format!("L1: {txid} was never reported"));
        self.holds(last.is_some_and(|report| report.owed_minor == owed), || {
            format!("S13: {txid} owes {owed}, the service heard {last:?}")
        });
        let uncertain = last.is_some_and(|report| report.outcome == DispenseOutcome::Uncertain);
        self.holds(!uncertain, || format!("S13: {txid} ended, the service holds it uncertain"));
    }

    fn session(&mut self, txid: TxnId, session: &bitspire_agent::txn::CashIn) {
        use cash_in::State;
        let total = session.total().minor;
        let draws: Vec<_> =
            self.world.service.draws.values().filter(|draw| draw.claim.txid == txid).collect();
        self.holds(draws.len() <= 1, || format!("S12: {txid} has {} withdraws", draws.len()));
        let claimed: i64 = draws
            .iter()
            .flat_map(|draw| {
                draw.claim.earlier.iter().map(|lot| &lot.notes).chain([&draw.claim.notes])
            })
            .flatten()
            .map(|(note, count)| i64::from(note.minor()) * i64::from(*count))
            .sum();
        let (state, drawn) = (session.state(), draws.first().map(|draw| draw.state));
        let name = state.name();
        self.holds(draws.is_empty() || claimed == total, || {
            format!("S12: {txid} {name}: claimed {claimed}, its notes are worth {total}")
        });
        match state {
            State::Returned => {
                self.holds(total == 0 && draws.is_empty(), || format!("B4: {txid} kept {total}"));
            }
            State::Redeemed { .. } => {
                self.holds(drawn == Some(Drawn::Paid), || format!("S12: {txid} {name}: {drawn:?}"));
            }
            State::Expired { .. } => {
                self.holds(drawn == Some(Drawn::Over), || format!("S12: {txid} {name}: {drawn:?}"));
            }
            State::Offered { withdraw } => {
                let open = matches!(drawn, Some(Drawn::Open | Drawn::Over));
                self.holds(withdraw.is_some() && open, || format!("L1: {txid} {name}: {drawn:?}"));
            }
            State::Uncertain { .. } => {}
            State::Open
            | State::Escrowed { .. }
            | State::StackCommitted { .. }
            | State::Credited
            | State::Claimed { .. }
            | State::PayUnknown { .. } => self.wrong.push(format!("L1: {txid} rests in {name}")),
        }
    }

    /// Nothing is promised for notes that do not lie there; nothing paid is forgotten.
    fn wallet(&mut self) {
        let draws = self.world.service.draws.values();
        let notes = draws.flat_map(|draw| {
            draw.claim.earlier.iter().map(|lot| &lot.notes).chain([&draw.claim.notes])
        });
        let claimed: i64 =
            notes.flatten().map(|(note, count)| i64::from(note.minor()) * i64::from(*count)).sum();
        let removed = self.world.acceptor.counters()["removed"].as_i64().unwrap_or(0);
        let there = self.world.cashbox_minor() + removed * 10_000;
        self.holds(claimed <= there, || {
            format!("S12: withdraws for {claimed}, in the cashbox lie {there}")
        });
        let unknown: Vec<TxnId> = self
            .world
            .service
            .bills
            .values()
            .filter(|bill| bill.settled() && !self.books.txns.contains_key(&bill.terms.txid))
            .map(|bill| bill.terms.txid)
            .collect();
        self.holds(unknown.is_empty(), || format!("S5: paid, and not in the journal: {unknown:?}"));
    }
}
