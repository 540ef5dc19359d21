//! The demo as whoever tries bitSpire runs it: its figures held against each other and against the
//! files that it leaves.

use std::path::Path;
use std::process::Command;

use bitspire_agent::config::{AcceptorKind, DispenserKind};
use bitspire_tests::books::{Journal, Ledger, Settled, bunker_requests_after, node_balance};
use bitspire_tests::report::Notes;
use bitspire_tests::shop::FEES;
use bitspire_tests::world::{CURRENCY, OPENING_SATS, Parts, RATE};
use serde_json::{Value, json};

/// Minor units of a unit of the currency.
const MINOR: i64 = 100;

/// Runs it to its end; its figures.
fn run(parts: &Parts, keep: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitspire-world"));
    command.args(["demo", "--once", "--seed", "7", "--acceptor", parts.acceptor.protocol()]);
    command.args(["--dispenser", parts.dispenser.protocol(), "--keep"]).arg(keep);
    let output = command.output();
    let output = output.unwrap();
    let (said, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{told}", output.status);
    assert_eq!(said.lines().count(), 1, "one JSON object and nothing else: {said}");
    serde_json::from_str(&said).unwrap()
}

/// A decimal as an integer of so many places, exactly.
fn scaled(text: &str, places: usize) -> i128 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    assert!(rest.len() <= places, "{text} has more than {places} places");
    format!("{whole}{rest:0<places$}").parse().unwrap()
}

/// A fee, rounded half to even: the rule of the published worked example.
fn leg(principal: i64, fraction: &str) -> i64 {
    let (million, product) = (1_000_000, i128::from(principal) * scaled(fraction, 6));
    let (whole, rest) = (product / million, product % million);
    let up = match (rest * 2).cmp(&million) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => whole % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    i64::try_from(whole + i128::from(up)).unwrap()
}

/// What notes are worth at the market rate, in sats: rounded up where the customer pays, down where
/// they are paid.
fn principal(fiat_minor: i64, up: bool) -> i64 {
    let unit = i128::from(MINOR) * 1_000_000_000;
    let product = i128::from(fiat_minor) * scaled(RATE, 9);
    let sats = if up {
        product.div_euclid(unit) + i128::from(product % unit != 0)
    } else {
        product / unit
    };
    i64::try_from(sats).unwrap()
}

fn notes(figure: &Value) -> Notes {
    let notes = figure.as_object().unwrap();
    let entry = |(value, many): (&String, &Value)| (value.parse().unwrap(), many.as_i64().unwrap());
    notes.iter().map(entry).collect()
}

fn worth(notes: &Notes) -> i64 {
    notes.iter().map(|(value, many)| value * many * MINOR).sum()
}

/// The figures of one direction against its settlement, and both against the arithmetic.
fn holds(figures: &Value, name: &str, notes: &Notes, settled: &Settled) {
    let cash_out = name == "cash_out";
    assert_eq!((settled.direction.as_str(), settled.status.as_str()), (name, "accepted"));
    assert_eq!(settled.fiat_minor, worth(notes), "{settled:?} for {notes:?}");
    assert!(settled.fiat_minor > 0);
    assert_eq!(settled.principal, principal(settled.fiat_minor, cash_out), "{settled:?}");
    let (platform, operator) = (leg(settled.principal, FEES.0), leg(settled.principal, FEES.1));
    assert_eq!((settled.platform_fee, settled.operator_fee), (platform, operator), "{settled:?}");
    let fee = platform + operator;
    let wire = if cash_out { settled.principal + fee } else { settled.principal - fee };
    assert_eq!((settled.wire, settled.owed), (wire, 0), "{settled:?}");
    let figures = &figures[name];
    for (figure, number) in
        [("wire_sats", wire), ("principal_sats", settled.principal), ("fee_sats", fee)]
    {
        assert_eq!(figures[figure], number, "{figure} of {figures}");
    }
}

/// Loss prevented: figures that agree with nothing but themselves, and a first impression that is a
/// lie.
#[test]
fn its_figures_are_those_of_the_books() {
    figures_are_those_of_the_books(AcceptorKind::Id003, DispenserKind::F56);
}

/// Loss prevented: a device that works by itself and sells nothing.
#[test]
fn so_they_are_over_ccnet_and_an_lcdm_4000() {
    figures_are_those_of_the_books(AcceptorKind::Ccnet, DispenserKind::Puloon4000);
}

/// Likewise.
#[test]
fn so_they_are_over_ebds_and_an_lcdm_2000() {
    figures_are_those_of_the_books(AcceptorKind::Ebds, DispenserKind::Puloon2000);
}

/// Likewise.
#[test]
fn so_they_are_over_an_lcdm_1000() {
    figures_are_those_of_the_books(AcceptorKind::Id003, DispenserKind::Puloon1000);
}

fn figures_are_those_of_the_books(acceptor: AcceptorKind, dispenser: DispenserKind) {
    let parts = Parts { acceptor, dispenser, ..Parts::default() };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("kept");
    let figures = run(&parts, &folder);
    for check in ["paired", "fees_applied", "ledger_balanced", "notes_balanced"] {
        assert_eq!(figures[check], true, "{check} of {figures}");
    }
    let (given, taken) = (
        notes(&figures["cash_out"]["notes_presented"]),
        notes(&figures["cash_in"]["notes_stacked"]),
    );
    let ledger = Ledger::of(&folder).unwrap();
    let settled = ledger.settlements().unwrap();
    let [out, into] = settled.as_slice() else { panic!("expected two settlements: {settled:?}") };
    holds(&figures, "cash_out", &given, out);
    holds(&figures, "cash_in", &taken, into);
    assert_eq!(out.outcome.as_deref(), Some("full"));
    let shown = |settled: &Settled| {
        json!({
            "tx_type": settled.direction, "status": settled.status,
            "platform_fee_sats": settled.platform_fee, "operator_fee_sats": settled.operator_fee,
        })
    };
    assert_eq!(figures["settlements"], json!([shown(out), shown(into)]));
    assert!(figures["cash_out"]["ms_paid_to_first_dispense_byte"].is_u64(), "{figures}");
    the_ledger_has_it(&folder, &ledger, parts.bays(), out, into);
    the_notes_are_there(&folder, &ledger, parts.bays(), [&given, &taken], out);

    // between the first entry of the first sale and the end, the bunker was not asked
    let journal = Journal::of(&folder).unwrap();
    let entries = journal.after(0).unwrap();
    let first = entries.iter().find(|entry| entry.txid == out.txid).unwrap();
    let opened = first.txn()["state"]["cash_out"]["deal"]["opened_at"].as_i64().unwrap();
    let asked = bunker_requests_after(&folder, opened).unwrap();
    assert_eq!((asked, &figures["bunker_round_trips_on_sale"]), (0, &json!(0)));
    assert!(bunker_requests_after(&folder, 0).unwrap() > 0, "it was asked while pairing");
}

/// A bay's number, its notes, and how many it began with.
type Loaded = (u8, u32, u32);

fn the_ledger_has_it(
    folder: &Path,
    ledger: &Ledger,
    bays: &[Loaded],
    out: &Settled,
    into: &Settled,
) {
    let entries = ledger.entries().unwrap();
    for (entry, unit, sum, postings) in &entries {
        assert!(*sum == 0 && *postings > 1, "entry {entry}: {postings} in {unit} come to {sum}");
    }
    for unit in ["sats", CURRENCY] {
        assert!(entries.iter().any(|(_, of, _, _)| of == unit), "nothing booked in {unit}");
    }
    let sats = |account: &str| ledger.balance(account, "sats").unwrap();
    assert_eq!(sats("wallet:1"), out.wire - into.wire);
    assert_eq!(-sats("super"), out.platform_fee + into.platform_fee);
    assert_eq!(-sats("operator:1"), out.operator_fee + into.operator_fee);
    assert_eq!(-sats("exchange:1"), out.principal - into.principal);
    for nothing in ["customer_liability:1", "owed:1", "suspense:1", "routing_fees:1"] {
        assert_eq!(sats(nothing), 0, "{nothing}");
    }
    let opening = i64::try_from(OPENING_SATS).unwrap();
    let spendable = node_balance(folder, "machine").unwrap();
    assert_eq!(spendable, (opening + sats("wallet:1")) * 1_000, "the node against the ledger");
    let cash = |account: &str| ledger.balance(account, CURRENCY).unwrap();
    let loaded = bays.iter().map(|(_, note, count)| i64::from(*note) * i64::from(*count) * MINOR);
    assert_eq!(cash("bay:1:"), loaded.sum::<i64>() - out.fiat_minor);
    assert_eq!(cash("exchange:1"), out.fiat_minor - into.fiat_minor);
    assert_eq!(cash("cashbox:1:"), into.fiat_minor);
}

fn the_notes_are_there(
    folder: &Path,
    ledger: &Ledger,
    loaded: &[Loaded],
    [given, taken]: [&Notes; 2],
    out: &Settled,
) {
    let journal = Journal::of(folder).unwrap();
    let bays = journal.bays().unwrap();
    assert_eq!(bays.len(), loaded.len());
    let reported = ledger.reported(out.txid.as_deref().unwrap()).unwrap();
    let mut presented = Notes::new();
    for &(bay, note, loaded) in loaded {
        let book = bays[&bay];
        assert_eq!(book.denomination, i64::from(note) * MINOR);
        assert_eq!(book.on_hand + book.presented, i64::from(loaded), "bay {bay}: {book:?}");
        assert_eq!(book.doubts, 0);
        let said = reported[bay.to_string()]["presented"].as_i64().unwrap_or(0);
        assert_eq!(said, book.presented, "bay {bay}: {reported}");
        *presented.entry(i64::from(note)).or_default() += book.presented;
    }
    presented.retain(|_, many| *many != 0);
    assert_eq!(&presented, given);
    let cashbox = journal.cashbox().unwrap();
    assert!(cashbox.values().all(|(_, doubts)| *doubts == 0), "{cashbox:?}");
    let cashbox = cashbox.into_iter().map(|(minor, (many, _))| (minor / MINOR, many));
    assert_eq!(&cashbox.filter(|(_, many)| *many != 0).collect::<Notes>(), taken);
}

/// Loss prevented: a check of the figures that rounds as the figures do, wrong together.
#[test]
fn the_published_example_comes_out() {
    assert_eq!((leg(82_386, "0.03"), leg(82_386, "0.05")), (2_472, 4_119));
    assert_eq!((leg(222_320, "0.05"), leg(50, "0.05"), leg(70, "0.05")), (11_116, 2, 4));
    assert_eq!((principal(2_000, true), principal(2_000, false)), (21_277, 21_276));
}

/// Loss prevented: a demo that overwrites what somebody kept.
#[test]
fn it_writes_into_no_folder_that_holds_something() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let output = command.args(["demo", "--once", "--keep"]).arg(folder.path()).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("expected an empty folder"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
