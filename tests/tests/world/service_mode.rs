//! Somebody empties and refills the machine between customers, with their fingers on the screen.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{MINOR, buy, sell, steps_up};
use bitspire_tests::secrets::Hunt;
use bitspire_tests::shop;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::wallet::CustomerWallet;
use bitspire_tests::world::World;
use nostr::Keys;
use serde_json::{Value, json};

/// Long enough to stand nowhere by chance.
const PIN: &str = "2718281828459045";

/// A world that sells, whose machine has a PIN.
fn world() -> Result<World> {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None)?;
    let tell = &mut |step: &str| eprintln!("{step}");
    shop::start(&mut world, tell)?;
    shop::found(&world, tell)?;
    let file = world.folder().join("pin");
    std::fs::write(&file, PIN)?;
    let machine = world.folder().join("machine.toml");
    let mut set = Command::new(program);
    set.args(["agent", "--config"]).arg(machine).args(["service-pin", "--new-file"]).arg(&file);
    assert!(set.status()?.success());
    shop::pair(&world, &shop::invite(&world)?)?;
    shop::stock(&world)?;
    Ok(world)
}

fn touches(customer: &Customer, mut touch: Value) -> Result<()> {
    touch["action"] = json!("service");
    customer.touches(&touch)
}

/// Goes through the door and types the PIN.
fn enters(customer: &Customer) -> Result<()> {
    steps_up(customer)?;
    touches(customer, json!({"do": "open"}))?;
    customer.sees(&["Service PIN"], PATIENCE)?;
    touches(customer, json!({"do": "enter", "pin": PIN}))?;
    customer.sees(&["Service"], PATIENCE)?;
    // the heading of the pad holds the same word
    customer.looks("the menu", PATIENCE, |html| html.contains("Leave service").then_some(()))
}

/// Turns to a page and sends its form; what comes of it, or why not.
fn does(customer: &Customer, page: Value, mut touch: Value) -> Result<String> {
    // from the menu, which has no form: what stands there next is the page's own
    touches(customer, json!({"do": "go", "to": "menu"}))?;
    customer.looks("the menu", PATIENCE, |html| {
        let fresh = html.contains("Leave service") && !html.contains("role=\"status\"");
        fresh.then_some(())
    })?;
    touches(customer, json!({"do": "go", "to": page}))?;
    let form = customer.looks("a form", PATIENCE, |html| {
        let (_, rest) = html.split_once("&quot;form&quot;:")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    })?;
    touch["form"] = json!(form);
    touches(customer, touch)?;
    let (said, done) = customer.looks("what came of it", PATIENCE, |html| {
        let (_, rest) = html.split_once("role=\"status\">")?;
        let (said, _) = rest.split_once('<')?;
        Some((said.to_owned(), html.contains("Leave service")))
    })?;
    if done { Ok(said) } else { Err(anyhow!("not done: {said}")) }
}

/// What the operator knows of it, once so many things are in its books.
fn booked(world: &World, many: usize) -> Result<Value> {
    wait_for("events in the books", PATIENCE, || {
        let shown = world.api("GET", "/dca/machines/1/service", None);
        let shown = shown.map_err(|error| format!("{error:#}"))?;
        let events = shown["events"].as_array().ok_or("no events")?;
        let done = events.iter().filter(|event| !event["booked_at"].is_null()).count();
        if done == many { Ok(shown) } else { Err(shown.to_string()) }
    })
}

/// The audit, once nothing of the notes is under way.
fn clean(world: &World) -> Result<()> {
    wait_for("a clean audit", PATIENCE, || {
        let audit = world.api("POST", "/audit", None).map_err(|error| format!("{error:#}"))?;
        let waiting = audit["waiting"].as_array().ok_or("no list")?;
        let notes = waiting.iter().any(|one| one["check"] == "cash");
        match audit["ok"] == true && !notes {
            true => Ok(()),
            false => Err(audit.to_string()),
        }
    })
}

/// Loss prevented: a cashbox from which a note was taken on the way, and books in which nobody sees
/// it; an emptying or a refill that breaks the books of the sales around it.
#[test]
fn a_machine_is_emptied_and_refilled_and_a_missing_note_is_shown() -> Result<()> {
    let world = world()?;
    let customer = world.customer()?;
    let wallet = CustomerWallet::new()?;
    sell(&world, &customer, &wallet, &[20, 10])?;
    buy(&world, &customer, 20 * MINOR)?;
    steps_up(&customer)?;

    enters(&customer)?;
    let counted = json!([{"minor": 2_000, "count": 0}, {"minor": 1_000, "count": 1}]);
    let reason = "damaged or false notes";
    let empty = json!({"do": "empty_cashbox", "counted": counted, "reason": reason});
    let said = does(&customer, json!("cashbox"), empty)?;
    assert!(said.contains("on record"), "{said}");
    let refill = json!({"do": "refill", "count": 50, "reason": ""});
    does(&customer, json!({"bay": "1"}), refill)?;
    // notes that were put in are looked at by the dispenser first
    wait_for("a dispenser that was set up", PATIENCE, || {
        does(&customer, json!("test"), json!({"do": "test"})).map_err(|error| error.to_string())
    })?;
    let shown = booked(&world, 3)?;
    world.act(&world.dispenser, &json!({"action": "take"}))?;
    touches(&customer, json!({"do": "leave"}))?;

    assert_eq!(shown["cash_difference"], "-20.00 EUR", "{shown}");
    let emptied = shown["events"].as_array().context("events")?.last().context("the first")?;
    assert_eq!(
        (&emptied["expected"], &emptied["counted"], &emptied["difference"]),
        (&json!("30.00 EUR"), &json!("10.00 EUR"), &json!("-20.00 EUR")),
    );
    assert_eq!(emptied["action"]["cashbox_emptied"]["reason"], reason);
    clean(&world)?;

    sell(&world, &customer, &wallet, &[20])?;
    buy(&world, &customer, 50 * MINOR)?;
    steps_up(&customer)?;
    clean(&world)?;
    let machine = world.api("GET", "/dca/machines/1", None)?;
    let reported = &machine["reported"]["cashbox"];
    assert_eq!((&reported["count"], &reported["value"]), (&json!(1), &json!("20.00 EUR")));
    moves(&world)?;
    keeps_no_pin(&world)
}

/// Loss prevented: whoever reads a disk or a log of the machine opens its service mode.
fn keeps_no_pin(world: &World) -> Result<()> {
    let mut hunt = Hunt::default();
    hunt.text("PIN", PIN);
    let places = ["machine", "run", "logs", "operator"].map(|place| world.folder().join(place));
    let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    let (files, found) = hunt.look(&places)?;
    assert!(files > 20, "{files} files");
    assert_eq!(found, [], "the PIN lies where it must not");
    Ok(())
}

/// Loss prevented: a fleet whose service is lost, and a statement of its operator that no machine
/// reads: what the one command prints, the other takes, and the machine goes by it.
fn moves(world: &World) -> Result<()> {
    let keys = |status: &Value| {
        let pins = &status["pins"];
        (pins["service"].clone(), pins["operator"].clone(), pins["spire"].clone())
    };
    let before = world.status()?;
    let (service, operator, spire) = keys(&before);
    // whoever has only the machine's own words, and another service's key
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a key");
    let (its, vault) = (text(&spire)?, text(&before["vault"])?);
    let new = Keys::generate().public_key().to_hex();
    let words = ["rekey", "--spire", &its, "--vault", &vault, "--service", &new];
    let mut asks = Command::new(world.program());
    asks.args(["operator", "--config"]).arg(world.folder().join("operator.toml")).args(words);
    let printed = String::from_utf8(asks.output()?.stdout)?;
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let (file, pin) = (world.folder().join("rekey.json"), world.folder().join("pin"));
    std::fs::write(&file, &printed)?;
    let takes = || -> Result<bool> {
        let mut take = Command::new(world.program());
        take.args(["agent", "--config"]).arg(world.folder().join("machine.toml"));
        take.args(["rekey", "--statement"]).arg(&file).arg("--service-pin-file").arg(&pin);
        Ok(take.status()?.success())
    };
    assert!(takes()?);
    let after = keys(&world.status()?);
    assert_eq!(after, (json!(new), operator, spire), "it was {service}");
    assert!(!takes()?, "a second time");
    Ok(())
}
