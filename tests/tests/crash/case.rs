//! One death at one entry, and what must hold afterwards.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bitspire_shared::money::Direction;
use bitspire_tests::books::Journal;
use bitspire_tests::customer::Customer;
use bitspire_tests::process::Process;
use bitspire_tests::report::{Report, ledger_balanced, notes_balanced};
use bitspire_tests::sale::{IDLE, settlements};
use bitspire_tests::screen::heading;
use bitspire_tests::shop::{self, MACHINE, sells};
use bitspire_tests::shopper::{Habit, Shopper, Wish, in_box};
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::wallet::CustomerWallet;
use bitspire_tests::world::{RelayKind, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub(crate) type Part = fn(&mut World) -> &mut Process;

/// The states in which a sale ends that nothing disturbs.
const ENDS: [&str; 2] = ["settled", "redeemed"];
/// How long a sale may take in all, a death in the middle included.
const SALE: Duration = Duration::from_secs(90);
/// What is bought, in minor units: one note.
const AMOUNT: i64 = 2_000;
/// The note that is fed, in units of the currency.
const NOTE: u32 = 20;
/// How long a sale has been over when nothing more is written in it.
const REST: Duration = Duration::from_secs(3);
/// Between two looks at journal and screen.
const LOOK: Duration = Duration::from_millis(2);
/// Between two looks of whoever ends the part: much shorter than an entry takes.
const GLANCE: Duration = Duration::from_micros(100);

/// A place in the programs, and how often it is passed before.
pub(crate) type Place = (&'static str, u32);

/// How the part dies in a sale.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// It does not.
    Never,
    /// By SIGKILL from outside, when the sale's so manyth entry is seen in the journal.
    Entry(i64),
    /// By itself, there.
    Place(Place),
}

/// A world in which a part dies.
struct Scene {
    name: &'static str,
    part: Part,
    world: World,
    customer: Customer,
    wallet: CustomerWallet,
}

/// Worlds beside each other for each direction, with a share of its deaths each: they wait more than
/// they work.
const WORLDS: usize = 2;

/// Sells in each direction, once undisturbed and once for each entry of that journal with the part
/// dying there.
pub(crate) fn dies_at_each_entry(name: &'static str, kind: RelayKind, part: Part) {
    std::thread::scope(|scope| {
        for direction in [Direction::CashOut, Direction::CashIn] {
            for share in 0..WORLDS {
                scope.spawn(move || {
                    Scene::open(name, kind, part).dies_at_each_entry(direction, share);
                });
            }
        }
    });
}

/// Sells in each direction once for each of its places, with the part dying there.
pub(crate) fn dies_at_each_place(
    name: &'static str,
    part: Part,
    places: [(Direction, &'static [Place]); 2],
) {
    std::thread::scope(|scope| {
        for (direction, places) in places {
            for share in places.chunks(places.len().div_ceil(WORLDS)) {
                scope.spawn(move || {
                    let scene = Scene::open(name, RelayKind::Embedded, part);
                    scene.dies_at_each_place(direction, share);
                });
            }
        }
    });
}

impl Scene {
    fn open(name: &'static str, kind: RelayKind, part: Part) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
        let keep = std::env::var_os("KEEP");
        let keep = keep.map(|keep| tempfile::tempdir_in(keep).unwrap().keep());
        let mut world = World::on(kind, program, keep.as_deref()).unwrap();
        shop::open(&mut world, &mut |_| ()).unwrap();
        let customer = world.customer().unwrap();
        let wallet = CustomerWallet::new().unwrap();
        Self { name, part, world, customer, wallet }
    }

    /// Dies at the entries of its share.
    fn dies_at_each_entry(mut self, direction: Direction, share: usize) {
        let entries = self.undisturbed(direction);
        let mut uncertain = 0;
        for entry in (1..=entries).skip(share).step_by(WORLDS) {
            let state = self.death(direction, Death::Entry(entry));
            uncertain += usize::from(state == "uncertain");
        }
        let name = self.name;
        eprintln!(
            "{name} died at each {WORLDS}th of {entries} entries of {direction} from {share} on; \
             {uncertain} left uncertain"
        );
    }

    fn dies_at_each_place(mut self, direction: Direction, places: &[Place]) {
        let mut uncertain = 0;
        for place in places {
            let state = self.death(direction, Death::Place(*place));
            uncertain += usize::from(state == "uncertain");
        }
        let (name, many) = (self.name, places.len());
        eprintln!("{name} died at {many} places of {direction}; {uncertain} left uncertain");
    }

    /// The state in which a sale ended in which the part died so.
    fn death(&mut self, direction: Direction, death: Death) -> String {
        // one that ended before, as when a device had trouble, says nothing of this death
        let mut whole = false;
        let reached = (0..5).find_map(|_| {
            let (entries, state, fell) = self.sale(direction, death);
            let shorter = matches!(death, Death::Entry(entry) if entries < entry);
            whole |= shorter && ENDS.contains(&state.as_str());
            fell.then_some(state)
        });
        match reached {
            Some(state) => state,
            // the undisturbed one had an entry more, of what the death before it left to be written
            None if whole => "no such entry".to_owned(),
            None => panic!("{direction}: no sale comes to {death:?}"),
        }
    }

    /// The entries that a sale writes when nothing happens.
    fn undisturbed(&mut self, direction: Direction) -> i64 {
        // the machine may still hear of the last death while it begins
        for _ in 0..5 {
            let (entries, state, _) = self.sale(direction, Death::Never);
            if ENDS.contains(&state.as_str()) {
                return entries;
            }
        }
        panic!("{direction}: no sale comes to its end");
    }

    /// One sale; the entries that it wrote, the state that it ended in, and whether the part died.
    fn sale(&mut self, direction: Direction, death: Death) -> (i64, String, bool) {
        let what = format!("{direction}, {}: {death:?}", self.name);
        let Self { part, world, customer, wallet, .. } = self;
        if let Death::Place(place) = death {
            part(world).stop().unwrap();
            part(world).dies_at(Some(place));
            start(world, *part);
            part(world).dies_at(None);
        }
        let mut early = false;
        wait_for(&format!("{what}: a machine that sells"), PATIENCE, || {
            if matches!(death, Death::Place(_)) && !early && !part(world).running() {
                // what the sale before left to be done came to the place first
                collect(world, *part, death);
                start(world, *part);
                early = true;
            }
            let status = world.status().map_err(|error| format!("{error:#}"))?;
            let idle = heading(&customer.screen()).contains(IDLE);
            if !idle {
                let _ = customer.touches(&json!({"action": "finish"}));
            }
            if sells(&status) && idle { Ok(()) } else { Err(status.to_string()) }
        })
        .unwrap();
        if early {
            return (0, "not begun".to_owned(), false);
        }
        let journal = Journal::of(world.folder()).unwrap();
        let base = journal.seq().unwrap();
        let (settled, given) = (settlements(world).unwrap().len(), given(world));
        let boxed = in_box(world).unwrap().0;
        let mut shopper = Shopper::new(world, customer, wallet, wish(direction)).unwrap();
        let id = part(world).id().unwrap();
        let (fell, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut raised = false;
        let mut at_start = None;
        let mut ended_at = None;
        std::thread::scope(|scope| {
            let folder = world.folder().to_owned();
            if let Death::Entry(entry) = death {
                scope.spawn({
                    let (fell, over) = (&fell, &over);
                    move || {
                        let journal = Journal::of(&folder).unwrap();
                        while journal.seq().unwrap() < base + entry {
                            if over.load(Ordering::SeqCst) {
                                return;
                            }
                            std::thread::sleep(GLANCE);
                        }
                        kill(Pid::from_raw(i32::try_from(id).unwrap()), Signal::SIGKILL).unwrap();
                        fell.store(true, Ordering::SeqCst);
                    }
                });
            }
            let deadline = Instant::now() + SALE;
            loop {
                if matches!(death, Death::Place(_)) && !raised && !part(world).running() {
                    fell.store(true, Ordering::SeqCst);
                }
                if fell.load(Ordering::SeqCst) && !raised {
                    collect(world, *part, death);
                    at_start = Some((dispenses(world), shopper.codes_entered));
                    start(world, *part);
                    raised = true;
                }
                shopper.look(world, &journal).unwrap();
                let last = shopper.last(&journal).unwrap();
                let txn = last.as_ref().map(|entry| entry.txn().clone()).unwrap_or_default();
                // an invoice that nobody has seen is paid by nobody: it waits for its end
                let unseen = txn["name"] == "invoiced"
                    && shopper.bolt11.is_none()
                    && heading(&customer.screen()).contains(IDLE);
                let ended = txn["stage"] == "closed" || txn["name"] == "uncertain" || unseen;
                if ended && (raised || matches!(death, Death::Never)) {
                    break;
                }
                let long = ended && ended_at.get_or_insert_with(Instant::now).elapsed() > REST;
                if long && !fell.load(Ordering::SeqCst) {
                    break;
                }
                if Instant::now() > deadline {
                    over.store(true, Ordering::SeqCst);
                    panic!(
                        "{what}: stuck in {} before {:?}: paid {}, accepted {:?}\n{}",
                        txn,
                        heading(&customer.screen()),
                        shopper.paid,
                        shopper.accepted,
                        part(world).trouble("log"),
                    );
                }
                std::thread::sleep(LOOK);
            }
            over.store(true, Ordering::SeqCst);
        });
        if fell.load(Ordering::SeqCst) && !raised {
            // at the very end
            collect(world, *part, death);
            start(world, *part);
        }
        if world.counters(&world.dispenser).unwrap()["notes_at_exit"] == true {
            // nobody leaves without their notes
            world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
        }
        let sold = shopper.last(&journal).unwrap().unwrap();
        let mut txn = sold.txn().clone();
        let mut state = txn["name"].as_str().unwrap().to_owned();
        eprintln!("{what}: {state}");
        if self.name == "vault"
            && let Some((before, codes)) = at_start
            && shopper.codes_entered == codes
        {
            assert_eq!(dispenses(world), before, "{what}: dispensed on a start, now {state}");
        }
        let entries = journal.seq().unwrap() - base;
        let given = self::given(world) - given;
        let boxed = in_box(world).unwrap().0 - boxed;
        let doubted = state == "uncertain";
        if doubted {
            // the person who counts finds what the devices hold, and decides by it
            let moved = if direction == Direction::CashOut { given == AMOUNT } else { boxed > 0 };
            decide(world, direction, sold.txid.as_deref().unwrap(), moved);
            let ended = || {
                // what is offered for a note is claimed
                shopper.look(world, &journal).unwrap();
                let last = shopper.last(&journal).unwrap().unwrap().txn().clone();
                match last["stage"] == "closed" {
                    true => Ok(last),
                    false => Err(last.to_string()),
                }
            };
            txn = wait_for(&format!("{what}: its end by a verdict"), PATIENCE, ended).unwrap();
            state = txn["name"].as_str().unwrap().to_owned();
            eprintln!("{what}: uncertain, by verdict {state}");
        }
        match direction {
            Direction::CashOut => {
                let owed = txn["state"].to_string().contains("owed");
                match state.as_str() {
                    "settled" => assert!(shopper.paid && given == AMOUNT, "{what}: {given} given"),
                    "short_dispensed" if doubted => assert_eq!(given, 0, "{what}: paid twice"),
                    "short_dispensed" | "late" => assert!(shopper.paid && owed, "{what}: {txn}"),
                    _ => assert!(!shopper.paid && given == 0, "{what}: {state}, {given} given"),
                }
            }
            Direction::CashIn => match state.as_str() {
                "redeemed" => {
                    assert!(shopper.accepted.is_some() && boxed == 1, "{what}: {boxed} boxed");
                }
                "expired" => assert_eq!(boxed, 1, "{what}"),
                _ => assert_eq!(boxed, 0, "{what}: {state}, {NOTE} is lost"),
            },
        }
        let money = ["settled", "redeemed", "short_dispensed"].contains(&state.as_str());
        wait_for(&format!("{what}: its settlement"), PATIENCE, || {
            let rows = settlements(world).map_err(|error| format!("{error:#}"))?;
            let done = rows.len() == settled + usize::from(money);
            if done { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .unwrap();
        let mut report = Report { figures: Value::Null, failed: Vec::new() };
        notes_balanced(world, &mut report, &journal).unwrap();
        ledger_balanced(world, &mut report);
        assert!(report.failed.is_empty(), "{what}: {:#?}", report.failed);
        let state = if doubted { "uncertain".to_owned() } else { state };
        (entries, state, fell.into_inner())
    }
}

/// One note, by somebody who does what the screen asks for.
fn wish(direction: Direction) -> Wish {
    Wish { direction, fiat_minor: AMOUNT, notes: vec![NOTE], habit: Habit::Plain }
}

/// Ends a doubt as the operator does: what moved is settled, what did not is owed to the customer
/// (a note that the machine has, too).
fn decide(world: &World, direction: Direction, txid: &str, moved: bool) {
    let which = ["--machine", MACHINE, "--txid", txid];
    let amount = AMOUNT.to_string();
    let words = match (direction, moved) {
        (Direction::CashOut, true) | (Direction::CashIn, false) => vec!["verdict", "settled"],
        (Direction::CashOut, false) => vec!["verdict", "owed", "--amount", &amount],
        (Direction::CashIn, true) => vec!["verdict", "owed"],
    };
    let words = [words.as_slice(), &which].concat();
    // the machine's next report shows the doubt
    wait_for(&format!("a verdict about {txid}"), PATIENCE, || {
        world.operator_says(&words).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
}

/// Commands to dispense that the device has carried out.
fn dispenses(world: &World) -> i64 {
    world.counters(&world.dispenser).unwrap()["dispenses"].as_i64().unwrap()
}

/// What the device has given out, in minor units.
fn given(world: &World) -> i64 {
    let notes = bitspire_tests::report::given(world).unwrap();
    notes.iter().map(|(value, many)| value * many * bitspire_tests::sale::MINOR).sum()
}

/// The dead part is dead as it should be.
fn collect(world: &mut World, part: Part, death: Death) {
    match death {
        Death::Place((place, _)) => part(world).died_at(place).unwrap(),
        Death::Never | Death::Entry(_) => part(world).kill9().unwrap(),
    }
}

/// Starts the part.
fn start(world: &mut World, part: Part) {
    if part(world).name() == "vault" {
        world.start_vault().unwrap();
    } else {
        part(world).start().unwrap();
    }
}
