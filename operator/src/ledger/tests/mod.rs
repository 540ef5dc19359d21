//! Each booking by itself; `world` puts them together.

mod world;

use std::collections::BTreeMap;

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::{BayId, ChangeId, JournalSeq, PaymentHash, TxnId};
use bitspire_shared::money::{Currency, Denomination, Direction, FeePpm, Fiat, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::{FeePair, Split, Terms};
use proptest::prelude::*;

use super::*;
use crate::ids::{EntryId, LpId, MachineId, OperatorId};

const M: MachineId = MachineId(3);
const OP: OperatorId = OperatorId(1);

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn note(minor: u32) -> Denomination {
    Denomination::from_minor(minor).unwrap()
}

fn bay(n: u8) -> BayId {
    BayId::new(n).unwrap()
}

fn hash(n: u64) -> PaymentHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    PaymentHash::from_bytes(bytes)
}

fn txid(n: u64) -> TxnId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    TxnId::from_bytes(bytes)
}

fn change(n: u64) -> ChangeId {
    ChangeId::from_bytes(*txid(n).as_bytes())
}

fn cassettes() -> BTreeMap<BayId, Denomination> {
    BTreeMap::from([(bay(1), note(2_000)), (bay(2), note(5_000))])
}

/// A cash_out with 2 % for the platform, 3 % for the operator.
fn paid(principal: u64, surplus: u64) -> Split {
    let (platform, operator) = (FeePpm::new(20_000).unwrap(), FeePpm::new(30_000).unwrap());
    let charge = FeePair::new(platform, operator)
        .unwrap()
        .charge(Direction::CashOut, Sats(principal))
        .unwrap();
    Split::new(Terms {
        direction: Direction::CashOut,
        wire: Sats(charge.wire().0 + surplus),
        principal: charge.principal(),
        fee: charge.fee(),
        owed: Sats(surplus),
        platform,
    })
    .unwrap()
}

static NONE: BayResults = BayResults::new();

fn report<'a>(
    split: &Split,
    owed_minor: i64,
    outcome: DispenseOutcome,
    bays: &'a BayResults,
    notes: &'a BTreeMap<BayId, Denomination>,
) -> DispenseBooking<'a> {
    let (promised, owed) = (Fiat::new(9_000, usd()), Fiat::new(owed_minor, usd()));
    let after = match outcome {
        DispenseOutcome::Uncertain => split.parts(),
        _ => split.dispensed(promised, owed).unwrap().parts(),
    };
    DispenseBooking {
        earlier: &NONE,
        machine: M,
        operator: OP,
        txid: txid(1),
        journal_seq: JournalSeq(9),
        currency: usd(),
        outcome,
        bays,
        notes,
        before: split.parts(),
        after,
    }
}

fn amount(entry: &Entry, account: Account) -> i64 {
    entry.postings().iter().filter(|p| p.account == account).map(|p| p.amount).sum()
}

/// Loss prevented: an entry that makes sats out of nothing.
#[test]
fn only_balanced_entries_exist() {
    let line = |account, unit, amount| Posting { account, unit, amount };
    let (wallet, owed) = (Account::Wallet(M), Account::Owed(M));
    let make = |lines: &[Posting]| Entry::new(EntryKind::Settled, "x", None, lines.iter().copied());
    let off = make(&[line(wallet, Unit::Sats, 10), line(owed, Unit::Sats, -9)]);
    assert_eq!(off, Err(LedgerError::Unbalanced { unit: Unit::Sats, sum: 1 }));
    let (exchange, usd) = (Account::Exchange(M), Unit::Fiat(usd()));
    let across = make(&[line(exchange, Unit::Sats, 10), line(exchange, usd, -10)]);
    assert!(matches!(across, Err(LedgerError::Unbalanced { .. })), "units are not one another");
    let wrong = make(&[line(wallet, usd, 10), line(exchange, usd, -10)]);
    assert_eq!(wrong, Err(LedgerError::Unit { account: wallet, unit: usd }));
    assert_eq!(make(&[]), Err(LedgerError::Empty));
    let nothing = make(&[line(wallet, Unit::Sats, 5), line(wallet, Unit::Sats, -5)]);
    assert_eq!(nothing, Err(LedgerError::Empty));
    let huge = make(&[line(wallet, Unit::Sats, i64::MAX), line(wallet, Unit::Sats, 1)]);
    assert!(matches!(huge, Err(LedgerError::Money(_))));
}

/// Loss prevented: an account read back as another one, or not at all.
#[test]
fn an_account_has_one_spelling() {
    let accounts = [
        (Account::Wallet(M), "wallet:3"),
        (Account::StrayWallet(M), "stray_wallet:3"),
        (Account::Super, "super"),
        (Account::Operator(OP), "operator:1"),
        (Account::Lp(LpId(7)), "lp:7"),
        (Account::Deposits(LpId(7)), "deposits:7"),
        (Account::CustomerLiability(M), "customer_liability:3"),
        (Account::Owed(M), "owed:3"),
        (Account::RoutingFees(M), "routing_fees:3"),
        (Account::Suspense(M), "suspense:3"),
        (Account::Exchange(M), "exchange:3"),
        (Account::Bay(M, bay(2), note(5_000)), "bay:3:2:5000"),
        (Account::RejectBin(M, note(5_000)), "reject_bin:3:5000"),
        (Account::Cashbox(M, note(500)), "cashbox:3:500"),
        (Account::InTransit(M), "in_transit:3"),
        (Account::CashDifference(M), "cash_difference:3"),
    ];
    for (account, text) in accounts {
        assert_eq!(account.to_string(), text);
        assert_eq!(text.parse(), Ok(account));
    }
    for bad in ["wallet", "wallet:03", "wallet:3:4", "bay:3:1:0", "bay:3:01:5", "super:1", "x:1"] {
        assert!(bad.parse::<Account>().is_err(), "{bad}");
    }
    for kind in EntryKind::ALL {
        assert_eq!(EntryKind::ALL.iter().filter(|k| k.as_str() == kind.as_str()).count(), 1);
    }
}

/// Loss prevented: the operator's ledger says another thing than the sale.
#[test]
fn a_whole_sale_moves_each_sat_and_note_once() {
    let split = paid(100_000, 7);
    let sale = settled(M, OP, hash(1), Some(txid(1)), &split).unwrap();
    assert_eq!(amount(&sale, Account::Wallet(M)), 105_007);
    assert_eq!(amount(&sale, Account::Exchange(M)), -100_000);
    assert_eq!(amount(&sale, Account::Super), -2_000);
    assert_eq!(amount(&sale, Account::Operator(OP)), -3_000);
    assert_eq!(amount(&sale, Account::Owed(M)), -7);

    let full = BayResult { requested: 2, picked: Some(2), presented: 2, ..BayResult::default() };
    let one = BayResult { requested: 1, picked: Some(2), presented: 1, rejected: Some(1), ..full };
    let bays = BayResults::from([(bay(1), full), (bay(2), one)]);
    let notes = cassettes();
    let entry =
        dispensed(&report(&split, 0, DispenseOutcome::Full, &bays, &notes)).unwrap().unwrap();
    assert_eq!(amount(&entry, Account::Bay(M, bay(1), note(2_000))), -4_000);
    assert_eq!(amount(&entry, Account::Bay(M, bay(2), note(5_000))), -10_000);
    assert_eq!(amount(&entry, Account::RejectBin(M, note(5_000))), 5_000);
    assert_eq!(amount(&entry, Account::Exchange(M)), 9_000);
    assert_eq!(amount(&entry, Account::Owed(M)), 0, "nothing more is owed");
}

/// Loss prevented: notes that stayed out of the customer's hands and are owed by nobody.
#[test]
fn what_did_not_come_out_is_owed() {
    let split = paid(90_000, 0);
    let notes = cassettes();
    let came = BayResult { requested: 2, picked: Some(2), presented: 2, ..BayResult::default() };
    let back = BayResult { requested: 1, presented: 1, retracted: Some(1), ..BayResult::default() };
    let bays = BayResults::from([(bay(1), came), (bay(2), back)]);
    let booking = report(&split, 5_000, DispenseOutcome::Partial, &bays, &notes);
    let short = dispensed(&booking).unwrap().unwrap();
    assert_eq!(amount(&short, Account::RejectBin(M, note(5_000))), 5_000, "retracted");
    assert_eq!(amount(&short, Account::Owed(M)), -52_500, "5/9 of 94 500, with its fee share");
    assert_eq!(
        short.postings().iter().filter(|p| p.unit == Unit::Sats).map(|p| p.amount).sum::<i64>(),
        0
    );

    let none = BayResults::from([(bay(1), BayResult { requested: 2, ..BayResult::default() })]);
    let nothing = dispensed(&report(&split, 9_000, DispenseOutcome::None, &none, &notes));
    let nothing = nothing.unwrap().unwrap();
    assert_eq!(amount(&nothing, Account::Owed(M)), -94_500, "all of it, no fee");
    assert_eq!(amount(&nothing, Account::Super), 1_800);
    assert!(nothing.postings().iter().all(|p| p.unit == Unit::Sats), "no note moved");

    let full = report(&split, 0, DispenseOutcome::Full, &none, &notes);
    assert_eq!(dispensed(&full), Ok(None), "nothing moved at all");
}

/// Loss prevented: notes that nobody can find counted as delivered, or as still there.
#[test]
fn notes_in_doubt_stand_in_suspense_until_a_verdict() {
    let split = paid(90_000, 0);
    let notes = cassettes();
    let dark = BayResult { requested: 2, presented: 1, ..BayResult::default() };
    let bays = BayResults::from([(bay(1), dark)]);
    let booking = report(&split, 0, DispenseOutcome::Uncertain, &bays, &notes);
    let entry = dispensed(&booking).unwrap().unwrap();
    assert_eq!(amount(&entry, Account::Bay(M, bay(1), note(2_000))), -4_000);
    assert_eq!(amount(&entry, Account::Exchange(M)), 2_000);
    assert_eq!(amount(&entry, Account::Suspense(M)), 2_000);
    assert!(entry.postings().iter().all(|p| p.unit != Unit::Sats), "sats wait for the verdict");

    let doubt = Doubt {
        machine: M,
        txid: txid(1),
        journal_seq: JournalSeq(9),
        currency: usd(),
        in_doubt: 2_000,
        delivered: 0,
    };
    let verdict = doubt_resolved(&doubt).unwrap();
    assert_eq!(amount(&verdict, Account::CashDifference(M)), 2_000);
    let had = doubt_resolved(&Doubt { delivered: 2_000, ..doubt }).unwrap();
    assert_eq!(amount(&had, Account::Exchange(M)), 2_000);
    for delivered in [2_001, -1] {
        let refused = doubt_resolved(&Doubt { delivered, ..doubt });
        assert!(matches!(refused, Err(LedgerError::TooMuch { .. })), "{delivered}");
    }
}

/// Loss prevented: a note that a jam left in the path, which purging puts into the reject bin, and
/// that no book expects there when the bin is emptied.
#[test]
fn what_a_final_answer_leaves_in_the_path_lies_in_the_reject_bin() {
    let split = paid(90_000, 0);
    let notes = cassettes();
    let jam = BayResult {
        requested: 4,
        picked: Some(4),
        presented: 2,
        retracted: Some(1),
        rejected: Some(1),
        ..BayResult::default()
    };
    let bays = BayResults::from([(bay(1), jam)]);
    let entry = dispensed(&report(&split, 6_000, DispenseOutcome::Partial, &bays, &notes));
    let entry = entry.unwrap().unwrap();
    assert_eq!(amount(&entry, Account::Bay(M, bay(1), note(2_000))), -8_000);
    assert_eq!(amount(&entry, Account::RejectBin(M, note(2_000))), 6_000);
    assert_eq!(amount(&entry, Account::Suspense(M)), 0);
}

/// Loss prevented: a report that cannot be true booked as if it were.
#[test]
fn a_contradicting_report_is_refused() {
    let split = paid(90_000, 0);
    let notes = cassettes();
    let fewer = BayResult { requested: 2, picked: Some(1), presented: 2, ..BayResult::default() };
    let bays = BayResults::from([(bay(1), fewer)]);
    let refused = dispensed(&report(&split, 0, DispenseOutcome::Full, &bays, &notes));
    assert_eq!(refused, Err(LedgerError::Contradiction { bay: bay(1), expected: 2, got: 1 }));
    let bays = BayResults::from([(bay(7), BayResult { requested: 1, ..BayResult::default() })]);
    let refused = dispensed(&report(&split, 0, DispenseOutcome::None, &bays, &notes));
    assert_eq!(refused, Err(LedgerError::UnknownBay { bay: bay(7) }));
    let bays = BayResults::from([(bay(7), BayResult::default())]);
    assert_eq!(dispensed(&report(&split, 0, DispenseOutcome::Full, &bays, &notes)), Ok(None));
}

/// Loss prevented: a break in the books that nobody sees, or that names the wrong entry.
#[test]
fn the_check_names_what_broke() {
    let (wallet, owed) = (Account::Wallet(M), Account::Owed(M));
    let line = |n, account, amount| (EntryId(n), Posting { account, unit: Unit::Sats, amount });
    let good = [line(1, wallet, 100), line(1, owed, -100)];
    assert_eq!(check(good), []);
    let leak = [line(1, wallet, 100), line(1, owed, -99)];
    let unbalanced = Finding::Unbalanced { entry: EntryId(1), unit: Unit::Sats, sum: 1 };
    assert_eq!(check(leak), [unbalanced]);
    let overpaid = [
        line(1, wallet, 100),
        line(1, owed, -100),
        line(2, wallet, -150),
        line(2, owed, 150),
        line(3, wallet, 10),
        line(3, owed, -10),
    ];
    let sign =
        |account, balance| Finding::Sign { account, unit: Unit::Sats, balance, since: EntryId(2) };
    assert_eq!(check(overpaid), [sign(wallet, -40), sign(owed, 40)]);
    let healed = overpaid.into_iter().chain([line(4, wallet, 40), line(4, owed, -40)]);
    assert_eq!(check(healed), [], "it stands right at the end");
    let cash = Posting { account: wallet, unit: Unit::Fiat(usd()), amount: 0 };
    assert!(matches!(check([(EntryId(1), cash)])[..], [Finding::Unit { .. }]));
}

/// Loss prevented: a correction that hides what it corrects.
#[test]
fn a_reversal_takes_an_entry_back_and_names_it() {
    let sale = settled(M, OP, hash(1), Some(txid(1)), &paid(1_000, 0)).unwrap();
    let back = sale.reversal(EntryId(5), "booked for the wrong machine").unwrap();
    assert_eq!(back.corrects(), Some(EntryId(5)));
    assert_eq!(back.reason(), Some("booked for the wrong machine"));
    let balances: Balances = sale.postings().iter().chain(back.postings()).collect();
    assert!(balances.iter().all(|(_, _, balance)| balance == 0));
}

proptest! {
    /// Loss prevented: postings that do not sum to zero slip through for some amounts.
    #[test]
    fn an_entry_exists_exactly_if_it_balances(
        lines in prop::collection::vec((0i64..6, -1_000i64..1_000), 0..8),
    ) {
        let postings: Vec<Posting> = lines
            .iter()
            .map(|(n, amount)| Posting {
                account: Account::Exchange(MachineId(*n)),
                unit: if n % 2 == 0 { Unit::Sats } else { Unit::Fiat(usd()) },
                amount: *amount,
            })
            .collect();
        let sum = |unit| postings.iter().filter(|p| p.unit == unit).map(|p| p.amount).sum::<i64>();
        let balanced = sum(Unit::Sats) == 0 && sum(Unit::Fiat(usd())) == 0;
        let entry = Entry::new(EntryKind::Settled, "x", None, postings.iter().copied());
        match entry {
            Ok(entry) => {
                prop_assert!(balanced);
                let (before, after): (Balances, Balances) =
                    (postings.iter().collect(), entry.postings().iter().collect());
                for (account, unit, balance) in before.iter() {
                    prop_assert_eq!(after.of(account, unit), balance);
                }
            }
            Err(LedgerError::Empty) => prop_assert!(balanced),
            Err(_) => prop_assert!(!balanced),
        }
    }
}
