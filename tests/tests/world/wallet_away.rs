//! A Lightning wallet that answers nothing: the customer is told, nothing moves that cannot be paid
//! for, and what was paid meanwhile is found.

use std::fs;
use std::path::Path;

use bitspire_tests::books::{Ledger, Settled, node_balance};
use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{feeds, offered, orders, pays, steps_up};
use bitspire_tests::screen::claim_code;
use bitspire_tests::shop;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::wallet::CustomerWallet;
use bitspire_tests::world::{OPENING_SATS, World};
use serde_json::{Value, json};

/// How long the machine lets a customer wait for a price or an invoice, in seconds.
const ANSWER_S: u32 = 5;
/// How long a rate lock lives, in seconds; the machine closes its inlet 10 s before.
const LOCK_S: u32 = 18;

/// What a customer reads who cannot be served.
const WHY: &str = "The operator's Lightning wallet does not answer";

/// A world that sells, with short waits.
fn world() -> World {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None).unwrap();
    for (file, more) in [
        ("machine.toml", format!("\n[vault.policy]\nanswer_s = {ANSWER_S}\n")),
        ("operator.toml", format!("\n[quotes]\nttl_s = {LOCK_S}\n")),
    ] {
        let path = world.folder().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + &more).unwrap();
    }
    shop::open(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    world
}

fn wallet_answers(world: &World, reachable: bool) {
    let body = json!({ "reachable": reachable });
    world.api("POST", "/simulator/reachable", Some(&body)).unwrap();
    let balances = world.api("GET", "/simulator/balances", None).unwrap();
    assert_eq!(balances["machine"]["msat"].is_u64(), reachable, "{balances}");
}

/// Notes that have left the bays so far.
pub(super) fn given(world: &World) -> i64 {
    let counters = world.counters(&world.dispenser).unwrap();
    let bays = counters["bays"].as_array().unwrap();
    bays.iter().map(|bay| bay["exit"].as_i64().unwrap() + bay["taken"].as_i64().unwrap()).sum()
}

pub(super) fn settled(world: &World) -> Vec<Settled> {
    Ledger::of(world.folder()).unwrap().settlements().unwrap()
}

/// The settlements, once there are so many and each cash-out is reported.
pub(super) fn settled_and_reported(world: &World, many: usize) -> Vec<Settled> {
    let found = wait_for("settlements and their reports", PATIENCE, || {
        let all = settled(world);
        let done = |s: &Settled| s.direction == "cash_in" || s.outcome.as_deref() == Some("full");
        if all.len() == many && all.iter().all(done) { Ok(all) } else { Err(format!("{all:?}")) }
    });
    found.unwrap()
}

/// The ledger and the node agree on what the wallet holds, and the operator's own audit finds nothing.
pub(super) fn books_agree(world: &World) {
    let audit = wait_for("an audit that finds nothing", PATIENCE, || {
        world.operator_says(&["audit"]).map_err(|error| format!("{error:#}"))
    });
    audit.unwrap();
    let ledger = Ledger::of(world.folder()).unwrap();
    let booked = ledger.balance("wallet:1", "sats").unwrap();
    let opening = i64::try_from(OPENING_SATS).unwrap();
    assert_eq!(node_balance(world.folder(), "machine").unwrap(), (opening + booked) * 1_000);
    for nothing in ["owed:1", "customer_liability:1", "suspense:1"] {
        assert_eq!(ledger.balance(nothing, "sats").unwrap(), 0, "{nothing}");
    }
}

fn takes(world: &World, customer: &Customer) {
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
}

/// Loss prevented: a customer who pays a machine that cannot know it, and is forgotten; notes for a
/// payment that nobody looked up.
#[test]
fn a_cash_out_waits_for_the_wallets_word() {
    let world = world();
    let customer = world.customer().unwrap();

    // no invoice: told so, nothing given
    steps_up(&customer).unwrap();
    wallet_answers(&world, false);
    customer.touches(&json!({"action": "start_cash_out", "fiat_minor": 2_000})).unwrap();
    customer.sees(&["Buy "], PATIENCE).unwrap();
    customer.touches(&json!({"action": "confirm"})).unwrap();
    customer.sees(&["One moment"], PATIENCE).unwrap();
    let (_, html) = customer.sees(&["Cancelled"], PATIENCE).unwrap();
    assert!(html.contains("Nothing was given.") && html.contains(WHY), "{html}");
    assert_eq!((given(&world), settled(&world)), (0, Vec::new()));

    // paid while the wallet is away: found once it is back, and given to whoever waits there
    wallet_answers(&world, true);
    steps_up(&customer).unwrap();
    let bolt11 = orders(&customer, 2_000).unwrap();
    wallet_answers(&world, false);
    let paid = pays(&world, &bolt11).unwrap();
    the_service_looked_in_vain(&world);
    assert!(customer.sees(&["Pay "], PATIENCE).is_ok(), "still to be paid, as far as it knows");
    assert_eq!((given(&world), settled(&world)), (0, Vec::new()));
    wallet_answers(&world, true);
    takes(&world, &customer);
    let all = settled_and_reported(&world, 1);
    assert_eq!((given(&world), all[0].wire * 1_000), (1, i64::try_from(paid).unwrap()));

    // paid after the customer gave up: kept for the one who has the code
    steps_up(&customer).unwrap();
    let bolt11 = orders(&customer, 5_000).unwrap();
    let code = claim_code(&customer.screen()).unwrap().to_owned();
    wallet_answers(&world, false);
    customer.touches(&json!({"action": "cancel"})).unwrap();
    pays(&world, &bolt11).unwrap();
    the_service_looked_in_vain(&world);
    wallet_answers(&world, true);
    let waits = |html: &str| html.contains("A paid sale waits").then_some(());
    customer.looks("a sale that waits for its code", PATIENCE, waits).unwrap();
    assert_eq!(given(&world), 1, "nobody is known to stand there");
    customer.touches(&json!({"action": "claim_code", "code": code})).unwrap();
    takes(&world, &customer);
    let all = settled_and_reported(&world, 2);
    assert_eq!((given(&world), all[1].fiat_minor), (2, 5_000));
    books_agree(&world);
}

/// Waits until the service has asked the wallet once more, and got no answer.
fn the_service_looked_in_vain(world: &World) {
    let log = world.folder().join("logs/operator.log");
    let count = || fs::read_to_string(&log).unwrap().matches("event=\"wallet_away\"").count();
    let before = count();
    let looked = wait_for("the service looks for the payment", PATIENCE, || match count() {
        now if now > before => Ok(()),
        now => Err(format!("{now} times in vain")),
    });
    looked.unwrap();
}

/// Loss prevented: notes swallowed that nobody can pay for, or a promise that dies with the wallet's
/// connection.
#[test]
fn a_cash_in_takes_no_note_without_the_wallets_word_and_keeps_its_promises() {
    let world = world();
    let customer = world.customer().unwrap();
    let insert = json!({"action": "insert", "denomination": 20});
    let notes = |name: &str| world.counters(&world.acceptor).unwrap()[name].clone();

    // no rate lock: the inlet stays shut
    steps_up(&customer).unwrap();
    wallet_answers(&world, false);
    customer.touches(&json!({"action": "start_cash_in"})).unwrap();
    customer.sees(&["One moment"], PATIENCE).unwrap();
    assert!(world.act(&world.acceptor, &insert).is_err(), "a note goes in");
    let (_, html) = customer.sees(&["Cancelled"], PATIENCE).unwrap();
    assert!(html.contains("Nothing was taken.") && html.contains(WHY), "{html}");
    assert_eq!((notes("inserted"), notes("cashbox")), (json!(0), json!({})));

    // the wallet goes away between two notes: what lies in the box is promised, no more is taken
    wallet_answers(&world, true);
    steps_up(&customer).unwrap();
    customer.touches(&json!({"action": "start_cash_in"})).unwrap();
    customer.sees(&["Feed your notes"], PATIENCE).unwrap();
    feeds(&world, &customer, 20, 2_000).unwrap();
    wallet_answers(&world, false);
    let lnurl = offered(&customer).unwrap();
    assert!(world.act(&world.acceptor, &insert).is_err(), "a note goes in");
    assert_eq!((notes("inserted"), notes("cashbox")), (json!(1), json!({"20": 1})));
    let wallet = CustomerWallet::new().unwrap();
    let refused = wallet.scan(&lnurl).unwrap_err().to_string();
    assert!(refused.contains("try again in a minute"), "{refused}");
    let (_, html) = customer.sees(&["Claim "], PATIENCE).unwrap();
    assert!(claim_code(&html).is_some(), "{html}");
    assert_eq!(paid_out(&world), 0);
    wallet_answers(&world, true);
    let accepted = wallet.scan(&lnurl).unwrap();
    customer.sees(&["Paid"], PATIENCE).unwrap();
    let all = settled_and_reported(&world, 1);
    assert_eq!((all[0].wire, all[0].fiat_minor), (i64::try_from(accepted.sats).unwrap(), 2_000));
    assert_eq!(paid_out(&world), all[0].wire * 1_000);
    books_agree(&world);
}

/// What has left the machine's wallet, in msat, as its node says.
fn paid_out(world: &World) -> i64 {
    let balances: Value = serde_json::from_slice(
        &fs::read(world.folder().join("operator/simulated-node.json")).unwrap(),
    )
    .unwrap();
    let records = balances["records"].as_object().unwrap().values();
    let sent = records.filter(|record| record["payment"]["flow"] == "outbound");
    sent.map(|record| record["payment"]["state"]["amount"].as_i64().unwrap()).sum()
}
