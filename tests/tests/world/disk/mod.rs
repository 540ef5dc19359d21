//! The real vault on a disk that is full, cannot be written, does not flush, or has lost something:
//! what people see, how the process ends, and what is still there afterwards.

mod place;

use std::fs::{self, File};
use std::path::Path;

use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{IDLE, orders, pays, steps_up};
use bitspire_tests::screen::{amounts, claim_code};
use bitspire_tests::shop;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::World;
use serde_json::json;

use place::{Disk, ends_for_its_journal, inject, status_says};

/// What anybody reads at a machine whose journal cannot be used.
const CLOSED: &str = "Out of service";

/// The disk, in KiB.
const KIB: u32 = 1_024;

/// A machine that sells, its journal on a disk of its own.
fn open(kib: u32, floor: u32) -> (World, Disk, Customer) {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None).unwrap();
    let floor = format!("vault.disk_floor_bytes={floor}");
    let disk = Disk::of(&mut world, kib, &["--set", &floor]);
    shop::open(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    let customer = world.customer().unwrap();
    (world, disk, customer)
}

/// Notes that have left the bays so far.
fn given(world: &World) -> i64 {
    let counters = world.counters(&world.dispenser).unwrap();
    let bays = counters["bays"].as_array().unwrap();
    bays.iter().map(|bay| bay["exit"].as_i64().unwrap() + bay["taken"].as_i64().unwrap()).sum()
}

/// Asks for a note as soon as it is for sale; the invoice.
fn wants_notes(customer: &Customer) -> String {
    steps_up(customer).unwrap();
    let offered = |html: &str| amounts(html).contains(&2_000).then_some(());
    customer.looks("a note for sale", PATIENCE, offered).unwrap();
    orders(customer, 2_000).unwrap()
}

/// The screen without a vault, with these words on it.
fn closed(customer: &Customer, words: &str) {
    let shows = |html: &str| (html.contains(CLOSED) && html.contains(words)).then_some(());
    customer.looks(words, PATIENCE, shows).unwrap();
}

/// The journal as a whole, by the machine's own command.
fn verify(world: &World, disk: &Disk) -> (Option<i32>, String) {
    let program = world.program().display().to_string();
    let file = world.folder().join("machine.toml").display().to_string();
    disk.run(&[&program, "agent", "--config", &file, "journal", "verify"])
}

/// The vault does not start, for its journal's sake.
fn refuses(world: &mut World) {
    assert!(world.start_vault().is_err());
    ends_for_its_journal(&mut world.vault);
}

fn position(world: &World) -> u64 {
    world.status().unwrap()["journal_seq"].as_u64().unwrap()
}

/// The operator reads that in the machine's last report.
fn operator_hears(world: &World, code: &str, words: &str) {
    wait_for(&format!("the operator hears of {code}"), PATIENCE, || {
        let machines = world.api("GET", "/dca/machines", None).map_err(|e| format!("{e:#}"))?;
        let machines = machines.to_string();
        match machines.contains(code) && machines.contains(words) {
            true => Ok(()),
            false => Err(machines),
        }
    })
    .unwrap();
}

/// Loss prevented: a disk that fills up in the middle of a sale, so that nobody knows what was paid;
/// or a machine that stays closed although there is room again.
#[test]
fn sales_end_before_the_disk_is_full_and_the_running_one_is_finished() {
    let (world, disk, customer) = open(KIB, 300_000);
    let bolt11 = wants_notes(&customer);
    disk.fill_up_to(250_000);
    status_says(&world, "nearly full");
    pays(&world, &bolt11).unwrap();
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
    assert_eq!(given(&world), 1);
    closed(&customer, "nearly full");
    assert!(customer.touches(&json!({"action": "start_cash_in"})).is_ok(), "it has no effect");
    operator_hears(&world, "disk_low", "make room");
    disk.make_room();
    customer.sees(&[IDLE], PATIENCE).unwrap();
    assert_eq!(verify(&world, &disk).0, Some(0));
}

/// Loss prevented: an acknowledged entry that a full or failing disk loses, a note given without a
/// record, a screen that says to wait where nobody is coming.
#[test]
fn a_disk_that_takes_nothing_more_ends_trade_and_loses_nothing() {
    let (mut world, disk, customer) = open(KIB, 0);
    let bolt11 = wants_notes(&customer);
    let code = claim_code(&customer.screen()).unwrap().to_owned();
    let before = position(&world);
    disk.fill_up_to(0);
    pays(&world, &bolt11).unwrap();
    let said = ends_for_its_journal(&mut world.vault);
    assert!(said.contains("make room"), "{said}");
    closed(&customer, "is full: make room");
    assert_eq!(given(&world), 0);
    // started again without room, it says the same
    refuses(&mut world);
    closed(&customer, "is full: make room");
    disk.make_room();
    world.start_vault().unwrap();
    assert!(position(&world) >= before);
    assert_eq!(verify(&world, &disk).0, Some(0));
    operator_hears(&world, "vault_had_ended", "is full: make room");
    customer.sees(&[IDLE], PATIENCE).unwrap();
    let enter = json!({"action": "claim_code", "code": code});
    wait_for("the notes that were paid for", PATIENCE, || {
        customer.touches(&enter).map_err(|error| format!("{error:#}"))?;
        if given(&world) == 1 { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .unwrap();
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();

    // the disk is there, and does not flush
    let bolt11 = wants_notes(&customer);
    let before = position(&world);
    let injected = inject(&mut world.vault, "fdatasync,fsync", "EIO");
    pays(&world, &bolt11).unwrap();
    let said = ends_for_its_journal(&mut world.vault);
    drop(injected);
    assert!(said.contains("vault_cannot_go_on") && said.contains("check it before"), "{said}");
    closed(&customer, "fails or may not be written");
    assert_eq!(given(&world), 1, "nothing was given for what could not be flushed");
    world.start_vault().unwrap();
    assert!(position(&world) >= before);
    assert_eq!(verify(&world, &disk).0, Some(0));
    operator_hears(&world, "vault_had_ended", "fails or may not be written");
}

/// Loss prevented: a machine that trades on a journal that is damaged, cut off or behind what it has
/// done already, and pays somebody twice.
#[test]
fn a_damaged_or_shortened_journal_is_not_traded_on() {
    let (mut world, disk, customer) = open(KIB, 0);
    let bolt11 = wants_notes(&customer);
    let log = fs::metadata(disk.file("journal.db-wal")).unwrap().len();
    pays(&world, &bolt11).unwrap();
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
    world.vault.kill9().unwrap();

    // the log of the last run loses its end: the sale would be paid again
    let whole = fs::read(disk.file("journal.db-wal")).unwrap();
    let file = File::options().write(true).open(disk.file("journal.db-wal")).unwrap();
    file.set_len(log).unwrap();
    drop(file);
    refuses(&mut world);
    closed(&customer, "it has lost entries");
    assert_eq!(given(&world), 1);

    // put back, it goes on; a stop leaves all of it in the database
    fs::write(disk.file("journal.db-wal"), &whole).unwrap();
    // its index is another log's
    let _ = fs::remove_file(disk.file("journal.db-shm"));
    world.start_vault().unwrap();
    operator_hears(&world, "vault_had_ended", "it has lost entries");
    world.vault.stop().unwrap();
    let good = fs::read(disk.file("journal.db")).unwrap();

    // a page is damaged: what an entry says, or what SQLite needs to find it
    disk.damage("\"started\":{\"epoch\"");
    refuses(&mut world);
    closed(&customer, "does not hold");
    let (code, said) = verify(&world, &disk);
    assert!(code == Some(1) && said.contains("broken at entry"), "{said}");
    fs::write(disk.file("journal.db"), &good).unwrap();
    let mut bad = good.clone();
    bad[4_096..4_100].fill(0xff);
    fs::write(disk.file("journal.db"), &bad).unwrap();
    refuses(&mut world);
    closed(&customer, "does not hold");
    assert_eq!(verify(&world, &disk).0, Some(1));
    fs::write(disk.file("journal.db"), &good).unwrap();
    world.start_vault().unwrap();
    operator_hears(&world, "vault_had_ended", "does not hold");
    world.vault.stop().unwrap();

    // a disk that may not be written: nothing is sold, and everything can be read
    let folder = world.folder().join("machine/vault").display().to_string();
    assert_eq!(disk.run(&["mount", "-o", "remount,ro", &folder]).0, Some(0));
    refuses(&mut world);
    closed(&customer, "fails or may not be written");
    let (code, said) = verify(&world, &disk);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(disk.run(&["mount", "-o", "remount,rw", &folder]).0, Some(0));
    world.start_vault().unwrap();
    customer.sees(&[IDLE], PATIENCE).unwrap();
    operator_hears(&world, "vault_had_ended", "fails or may not be written");
}
