//! The whole of bitSpire on simulated devices, for whoever wants to see it, and for CI.
//!
//! Promise: with `--once`, standard output holds one JSON object, and the exit code is 0 only if
//! every check of it holds; what happens meanwhile goes to standard error. Without, it stays up
//! until Ctrl-C and does by hand what the customer's lines say.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bitspire_agent::config::{AcceptorKind, DispenserKind, RecyclerKind};
use bitspire_shared::canonical::sha256;
use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::customer::Customer;
use crate::report::{Before, Report, report};
use crate::sale::{MINOR, buy, pays, sell, steps_up};
use crate::screen::qr_text;
use crate::shop;
use crate::wallet::CustomerWallet;
use crate::world::{Parts, World};

/// Notes that a recycler is fed, in units of the currency, and what it then sells, in minor units.
const FED: [u32; 4] = [10, 10, 20, 20];
const GIVEN: i64 = 5_000;
/// Notes that the scripted customer has, in units of the currency.
const NOTES: [u32; 4] = [5, 10, 20, 50];
/// How many of them are fed at most.
const MOST_NOTES: u64 = 4;

/// Runs relay, bunker, operator, a simulated cash machine and its agent; pairs them and publishes
/// fees and cassettes
#[derive(Debug, Parser)]
#[command(name = "demo")]
pub struct Demo {
    /// One sale in each direction by a scripted customer, one JSON object, then the end
    #[arg(long)]
    once: bool,
    /// Makes the customer's choices repeatable
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leave databases and logs in this folder, which must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The note validator
    #[arg(long, value_enum, value_name = "DEVICE", default_value = "id003")]
    acceptor: AcceptorKind,
    /// The dispenser
    #[arg(long, value_enum, value_name = "DEVICE", default_value = "f56")]
    dispenser: DispenserKind,
    /// A recycler in place of both: it gives again what it was fed
    #[arg(long, value_enum, value_name = "DEVICE", conflicts_with_all = ["acceptor", "dispenser"])]
    recycler: Option<RecyclerKind>,
}

impl Demo {
    /// Runs it; whether every check held.
    ///
    /// # Errors
    /// At the first step that does not succeed.
    pub fn run(&self) -> Result<bool> {
        let (acceptor, dispenser, recycler) = (self.acceptor, self.dispenser, self.recycler);
        let parts = Parts { acceptor, dispenser, recycler, ..Parts::default() };
        let mut world = World::of(parts, &std::env::current_exe()?, self.keep.as_deref())?;
        let began = Instant::now();
        let mut tell = |step: &str| {
            eprintln!("{:>5.1} s  {step}", began.elapsed().as_secs_f32());
        };
        shop::open(&mut world, &mut tell)?;
        if self.once {
            let seed = match self.seed {
                Some(seed) => seed,
                None => getrandom::u64().map_err(|error| anyhow::anyhow!("{error}"))?,
            };
            let report = once(&world, seed, &mut tell)?;
            world.close();
            writeln!(std::io::stdout(), "{}", report.figures)?;
            for failed in &report.failed {
                eprintln!("failed: {failed}");
            }
            return Ok(report.failed.is_empty());
        }
        tell("open");
        stay(world)?;
        Ok(true)
    }
}

/// A choice among `many`, the same for the same seed.
pub(crate) fn choice(seed: u64, name: &str, many: u64) -> u64 {
    let digest = sha256(&format!("{seed}:{name}"));
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_be_bytes(first) % many.max(1)
}

/// One sale in each direction.
fn once(world: &World, seed: u64, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    tell(&format!("a customer steps up, choices by --seed {seed}"));
    let customer = world.customer()?;
    let wallet = CustomerWallet::new()?;
    let amounts = steps_up(&customer)?;
    let before = Before::look(world)?;
    if world.parts.recycler.is_some() {
        return recycled(world, seed, (&customer, &wallet), before, tell);
    }
    let pick = usize::try_from(choice(seed, "amount", amounts.len().try_into()?))?;
    let amount = *amounts.get(pick).context("the machine sells nothing")?;
    tell(&format!("cash_out: {}.00 in notes, paid over Lightning", amount / MINOR));
    let bought = buy(world, &customer, amount)?;
    let many = 1 + choice(seed, "many", MOST_NOTES);
    let note = |n| NOTES[usize::try_from(choice(seed, &format!("note {n}"), 4)).unwrap_or(0)];
    let notes: Vec<u32> = (0..many).map(note).collect();
    tell(&format!("cash_in: notes of {notes:?}, redeemed by LNURL-withdraw"));
    let sold = sell(world, &customer, &wallet, &notes)?;
    tell("looking at every part's books");
    report(world, &before, &bought, &sold)
}

/// One sale in each direction on a recycler: notes in first, of which some go out again.
fn recycled(
    world: &World,
    seed: u64,
    (customer, wallet): (&Customer, &CustomerWallet),
    before: Before,
    tell: &mut dyn FnMut(&str),
) -> Result<Report> {
    // each of two kinds twice, in any order: with the one note of each kind that may be sold before,
    // nothing else makes the amount
    let mut notes = FED.to_vec();
    for at in (1..notes.len()).rev() {
        let other = choice(seed, &format!("note {at}"), at as u64 + 1);
        notes.swap(at, usize::try_from(other)?);
    }
    tell(&format!("cash_in: notes of {notes:?}, redeemed by LNURL-withdraw"));
    let sold = sell(world, customer, wallet, &notes)?;
    tell(&format!("cash_out: {}.00 in notes that were fed, paid over Lightning", GIVEN / MINOR));
    let bought = buy(world, customer, GIVEN)?;
    tell("looking at every part's books");
    report(world, &before, &bought, &sold)
}

const HELP: &str =
    "  insert N   feed a note of N to the validator (choose \"Sell notes\" on the kiosk first)
  redeem     scan the LNURL on the kiosk's screen and be paid
  pay        pay the invoice on the kiosk's screen
  take       take the notes at the dispenser's exit
  quit       the end, like Ctrl-C";

/// What ends the wait of a demo that stays up.
enum Said {
    Line(String),
    Stop,
}

/// Stays up until Ctrl-C or `quit`, and does what the lines say.
fn stay(mut world: World) -> Result<()> {
    println!("\nThe customer's screen:  {}", world.kiosk_address()?);
    println!("The operator's page:    {}", world.page_address()?);
    println!("Everything it writes:   {}", world.folder().display());
    println!(
        "\nOpen both pages, buy or sell on the first, and type here what hands and wallet do:"
    );
    println!("{HELP}\n");
    let said = listen()?;
    let eyes = Customer::beside(world.folder().join("run/kiosk.url"))?;
    let hands = Hands { eyes, wallet: CustomerWallet::new()? };
    while let Ok(Said::Line(line)) = said.recv() {
        if line == "quit" {
            break;
        }
        match hands.work(&world, &line) {
            Ok(done) => println!("{done}"),
            Err(error) => println!("{error:#}"),
        }
    }
    eprintln!("stopping");
    drop(hands);
    world.close();
    Ok(())
}

/// Lines of standard input, and the signals that end the demo.
fn listen() -> Result<Receiver<Said>> {
    let (tell, said) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = tell.clone();
    // both end with the process: a read of a terminal cannot be taken back
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                },
                (Err(error), _) | (_, Err(error)) => eprintln!("no signals: {error}"),
            }
        });
        // nobody listens where `quit` came first
        let _ = stop.send(Said::Stop);
    })?;
    thread::Builder::new().name("lines".to_owned()).spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.send(Said::Line(line.trim().to_owned())).is_err() {
                return;
            }
        }
    })?;
    Ok(said)
}

/// What the customer does beside the screen.
struct Hands {
    eyes: Customer,
    wallet: CustomerWallet,
}

impl Hands {
    fn work(&self, world: &World, line: &str) -> Result<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let code = || qr_text(&self.eyes.screen());
        match verb {
            "insert" => {
                let note: u32 = rest.trim().parse().context("insert: expected a value, as 20")?;
                let insert = json!({"action": "insert", "denomination": note});
                world.act(&world.acceptor, &insert)?;
                Ok(format!("the validator draws in {note}"))
            }
            "take" => {
                world.act(world.giver(), &json!({"action": "take"}))?;
                Ok("the exit is empty".to_owned())
            }
            "pay" => Ok(format!("paid {} msat", pays(world, &code()?.to_lowercase())?)),
            "redeem" => {
                let accepted = self.wallet.scan(&code()?)?;
                Ok(format!("the service will pay {} sats", accepted.sats))
            }
            "" => Ok(HELP.to_owned()),
            _ => bail!("{verb:?} is none of these:\n{HELP}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a failure that nobody can repeat, or a demo that always sells the same.
    #[test]
    fn a_seed_repeats_the_customers_choices() {
        let choices = |seed| (0..20).map(|n| choice(seed, &n.to_string(), 4)).collect::<Vec<_>>();
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
        assert!((0..4).all(|wanted| choices(7).contains(&wanted)));
    }
}
