//! Conservation: whatever happens, no unit gains or loses anything, and the books say where the
//! notes and sats really are.

use std::collections::BTreeMap;

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::WithdrawId;
use bitspire_shared::money::{Direction, FeePpm, Fiat, Sats};
use bitspire_shared::rpc::{DispenseOutcome, Notes};
use bitspire_shared::split::{FeePair, Split, Terms};
use proptest::prelude::*;

use super::super::*;
use super::{M, OP, bay, cassettes, change, hash, note, paid, report, txid, usd};
use crate::ids::EntryId;

fn all(entries: &[Entry]) -> Vec<(EntryId, Posting)> {
    (1..)
        .zip(entries)
        .flat_map(|(n, entry)| entry.postings().iter().map(move |p| (EntryId(n), *p)))
        .collect()
}

/// One thing that happens to a machine; numbers are cut to what can happen.
#[derive(Clone, Debug)]
enum Event {
    CashOut { principal: u64, surplus: u64, twenties: u32, came: u32, bad: u32 },
    CashIn { notes: u32, rate: u64, routing: u64, claimed: bool },
    Late { wire: u64, paid: bool },
    Suspended { wire: u64, stray: bool, customer: bool },
    Refill { count: u32 },
    Count { off: i32 },
    Empty { off: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u64..10_000_000, 0u64..50, 1u32..20, 0u32..=20, 0u32..4).prop_map(
            |(principal, surplus, twenties, came, bad)| Event::CashOut {
                principal,
                surplus,
                twenties,
                came: came.min(twenties),
                bad,
            }
        ),
        (1u32..50, 1u64..1_000, 0u64..200, any::<bool>()).prop_map(
            |(notes, rate, routing, claimed)| Event::CashIn { notes, rate, routing, claimed }
        ),
        (1u64..1_000_000, any::<bool>()).prop_map(|(wire, paid)| Event::Late { wire, paid }),
        (1u64..1_000_000, any::<bool>(), any::<bool>())
            .prop_map(|(wire, stray, customer)| Event::Suspended { wire, stray, customer }),
        (1u32..500).prop_map(|count| Event::Refill { count }),
        (-5i32..5).prop_map(|off| Event::Count { off }),
        (-5_000i64..5_000).prop_map(|off| Event::Empty { off }),
    ]
}

/// A machine's books, and beside them what is physically there.
#[derive(Default)]
struct World {
    entries: Vec<Entry>,
    bay: u32,
    bin: u32,
    cashbox: u32,
    wallet: i64,
    owed: i64,
    n: u64,
}

impl World {
    fn book(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    fn cash_out(&mut self, principal: u64, surplus: u64, plan: u32, came: u32, bad: u32) {
        let split = paid(principal, surplus);
        self.book(settled(M, OP, hash(self.n), Some(txid(self.n)), &split).unwrap());
        self.wallet += i64::try_from(split.wire().0).unwrap();
        let plan = plan.min(self.bay);
        let came = came.min(plan);
        let bad = bad.min(self.bay - came);
        let promised = Fiat::new(i64::from(plan.max(1)) * 2_000, usd());
        let owed = Fiat::new(i64::from(plan.max(1) - came) * 2_000, usd());
        let result = BayResult {
            requested: plan,
            picked: Some(came + bad),
            presented: came,
            rejected: Some(bad),
            ..BayResult::default()
        };
        let (bays, notes) = (BayResults::from([(bay(1), result)]), cassettes());
        let after = split.dispensed(promised, owed).unwrap().parts();
        self.owed += i64::try_from(after.owed.0).unwrap();
        let booking = DispenseBooking {
            earlier: &BayResults::new(),
            txid: txid(self.n),
            after,
            ..report(&split, 0, DispenseOutcome::Partial, &bays, &notes)
        };
        if let Some(entry) = dispensed(&booking).unwrap() {
            self.book(entry);
        }
        self.bay -= came + bad;
        self.bin += bad;
    }

    fn cash_in(&mut self, count: u32, rate: u64, routing: u64, claimed: bool) {
        let notes = Notes::from([(note(2_000), count)]);
        let principal = Sats(u64::from(count) * rate * 100);
        let pair = FeePair::new(FeePpm::new(30_000).unwrap(), FeePpm::new(50_000).unwrap());
        let charge = pair.unwrap().charge(Direction::CashIn, principal).unwrap();
        let split = Split::new(Terms {
            direction: Direction::CashIn,
            wire: charge.wire(),
            principal,
            fee: charge.fee(),
            owed: Sats::ZERO,
            platform: FeePpm::new(30_000).unwrap(),
        })
        .unwrap();
        let withdraw = WithdrawId::from_bytes(*txid(self.n).as_bytes());
        let booking = StackBooking {
            machine: M,
            operator: OP,
            txid: txid(self.n),
            withdraw,
            currency: usd(),
            notes: &notes,
            net: split.wire(),
            parts: split.parts(),
        };
        self.book(stacked(&booking).unwrap());
        self.cashbox += count;
        let customer = if claimed { Customer::Withdraw } else { Customer::Claim };
        if !claimed {
            self.book(liability_to_owed(M, withdraw, txid(self.n), split.wire()).unwrap());
        }
        self.pay(customer, split.wire(), Sats(routing));
    }

    fn pay(&mut self, customer: Customer, wire: Sats, routing: Sats) {
        let total = i64::try_from(wire.0 + routing.0).unwrap();
        if total > self.wallet {
            self.book(wallet_moved(M, OP, hash(self.n), total).unwrap());
            self.wallet += total;
        }
        let (n, id) = (self.n, hash(self.n));
        self.book(paid_out(M, customer, id, txid(n), wire, routing).unwrap());
        self.wallet -= total;
    }

    fn step(&mut self, event: &Event) {
        self.n += 1;
        let n = self.n;
        match *event {
            Event::CashOut { principal, surplus, twenties, came, bad } => {
                self.cash_out(principal, surplus, twenties, came, bad);
            }
            Event::CashIn { notes, rate, routing, claimed } => {
                self.cash_in(notes, rate, routing, claimed);
            }
            Event::Late { wire, paid } => {
                self.book(owed_whole(M, &hash(n).to_string(), txid(n), Sats(wire)).unwrap());
                self.wallet += i64::try_from(wire).unwrap();
                if paid {
                    self.pay(Customer::Claim, Sats(wire), Sats(3));
                } else {
                    self.owed += i64::try_from(wire).unwrap();
                }
            }
            Event::Suspended { wire, stray, customer } => {
                let (id, sats) = (hash(n), Sats(wire));
                self.book(suspended(M, id, Direction::CashOut, sats, stray).unwrap());
                let to = if customer { SuspenseTo::Customer } else { SuspenseTo::Operator(OP) };
                self.book(suspense_resolved(M, id, sats, to).unwrap());
                if stray {
                    self.book(stray_recovered(M, id, sats).unwrap());
                }
                self.wallet += i64::try_from(wire).unwrap();
                if customer {
                    self.owed += i64::try_from(wire).unwrap();
                }
            }
            Event::Refill { count } => {
                let notes = (note(2_000), i64::from(count));
                self.book(refilled(M, OP, change(n), bay(1), notes, usd()).unwrap());
                self.bay += count;
            }
            Event::Count { off } => {
                let counted = self.bay.saturating_add_signed(off);
                let counts = Counted { expected: i64::from(self.bay), counted };
                let entry = bay_counted(M, change(n), bay(1), note(2_000), counts, usd()).unwrap();
                assert_eq!(entry.is_none(), counted == self.bay);
                self.entries.extend(entry);
                self.bay = counted;
            }
            Event::Empty { off } => {
                let places = [
                    Emptied::Cashbox(note(2_000), self.cashbox.into()),
                    Emptied::RejectBin(note(2_000), self.bin.into()),
                ];
                let expected = i64::from(self.cashbox + self.bin) * 2_000;
                if expected == 0 {
                    return;
                }
                self.book(emptied(M, change(n), &places, usd()).unwrap());
                let counted = (expected + off).max(0);
                self.book(transit_counted(M, OP, change(n), expected, counted, usd()).unwrap());
                (self.cashbox, self.bin) = (0, 0);
            }
        }
    }
}

proptest! {
    /// Loss prevented: any order of sales, debts and counts that makes or loses a sat or a note.
    #[test]
    fn whatever_happens_is_conserved(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::default();
        for event in &events {
            world.step(event);
        }
        prop_assert_eq!(check(all(&world.entries)), []);
        let balances: Balances = world.entries.iter().flat_map(Entry::postings).collect();
        let mut totals: BTreeMap<Unit, i128> = BTreeMap::new();
        for (_, unit, balance) in balances.iter() {
            *totals.entry(unit).or_default() += balance;
        }
        prop_assert!(totals.values().all(|sum| *sum == 0), "{:?}", totals);
        let notes = |count: u32| i128::from(count) * 2_000;
        let cash = Unit::Fiat(usd());
        prop_assert_eq!(balances.of(Account::Bay(M, bay(1), note(2_000)), cash), notes(world.bay));
        prop_assert_eq!(balances.of(Account::RejectBin(M, note(2_000)), cash), notes(world.bin));
        prop_assert_eq!(balances.of(Account::Cashbox(M, note(2_000)), cash), notes(world.cashbox));
        prop_assert_eq!(balances.of(Account::InTransit(M), cash), 0);
        prop_assert_eq!(balances.of(Account::Wallet(M), Unit::Sats), i128::from(world.wallet));
        prop_assert_eq!(balances.of(Account::CustomerLiability(M), Unit::Sats), 0);
        prop_assert_eq!(balances.of(Account::Suspense(M), Unit::Sats), 0);
        prop_assert_eq!(balances.of(Account::Owed(M), Unit::Sats), -i128::from(world.owed));
    }
}
