//! Who makes life hard for one sale: kills and holds still, unplugs, arms the devices' traps, takes
//! the wallet away.
//!
//! Promise: what is done, to whom, at which entry of the journal and for how long comes from the
//! seed alone; everything that was done is undone again, at the latest when the sale rests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::books::Ledger;
use crate::customer::Customer;
use crate::demo::choice;
use crate::process::{Frozen, Process};
use crate::world::World;

/// Faults of one sale at most.
const MOST: u64 = 3;
/// The entries of a sale at which they begin.
const ENTRIES: u64 = 13;
/// From that entry until they begin, at most, in ms.
const DELAY_MS: u64 = 400;
/// What a process that was killed stays down at least, in ms: longer than its last bytes take to a
/// device.
const DOWN_MS: u64 = 50;

/// Between two looks for payments that the node holds back.
const RESOLVE: Duration = Duration::from_secs(1);

/// How long a payment stays held back that no fault of this sale holds.
const LEFT_OVER: Duration = Duration::from_secs(5);

/// A part that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Vault,
    Net,
    Operator,
    Bunker,
    Relay,
}

const PARTS: [Part; 5] = [Part::Vault, Part::Net, Part::Operator, Part::Bunker, Part::Relay];

impl Part {
    /// Its process; the operator's, where the relay is in it.
    fn of(self, world: &mut World) -> &mut Process {
        match self {
            Self::Vault => &mut world.vault,
            Self::Net => &mut world.net,
            Self::Bunker => &mut world.bunker,
            Self::Relay if world.relay.is_some() => match &mut world.relay {
                Some(relay) => relay,
                None => &mut world.operator,
            },
            Self::Operator | Self::Relay => &mut world.operator,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Device {
    Acceptor,
    Dispenser,
}
use Device::{Acceptor, Dispenser};

impl Device {
    const fn of(self, world: &World) -> &Process {
        match self {
            Self::Acceptor => &world.acceptor,
            Self::Dispenser => &world.dispenser,
        }
    }
}

#[derive(Clone, Debug)]
enum Fault {
    Kill(Part),
    Freeze(Part),
    NoWallet,
    Payments(&'static str),
    Unplug(Device),
    /// What is done to a device, and what a person does about it afterwards.
    Trap(Device, &'static str, &'static [Hand]),
    /// A second page of the kiosk opens, and goes.
    Page,
}

/// An action for a device, as JSON.
type Hand = &'static str;

impl Fault {
    fn name(&self) -> String {
        match self {
            Self::Kill(part) => format!("kill {part:?}").to_lowercase(),
            Self::Freeze(part) => format!("freeze {part:?}").to_lowercase(),
            Self::NoWallet => "wallet unreachable".to_owned(),
            Self::Payments(how) => format!("payment {how}"),
            Self::Unplug(device) => format!("unplug {device:?}").to_lowercase(),
            Self::Trap(device, name, _) => format!("{device:?} {name}").to_lowercase(),
            Self::Page => "second page".to_owned(),
        }
    }
}

/// A fault that has not begun yet.
#[derive(Debug)]
struct Planned {
    fault: Fault,
    at_entry: i64,
    delay: Duration,
    lasts: Duration,
    due: Option<Instant>,
}

/// What is to be undone.
enum Undo {
    Start(Part),
    Thaw(Frozen),
    Wallet,
    Plug(Device),
    Hands(Device, &'static [Hand]),
    Page(Customer),
}

/// The adversary of one sale.
pub(super) struct Adversary {
    planned: Vec<Planned>,
    under_way: Vec<(Instant, Undo)>,
    down: Vec<Part>,
    /// From when on payments that the node holds back are ended, and whether they succeed.
    resolves: (Instant, bool),
    /// What it has done, by name.
    pub(super) done: BTreeMap<String, u64>,
    /// Commands to dispense before the vault's last start, if it was started.
    pub(super) vault_started_at: Option<i64>,
}

/// Commands to dispense that the device has carried out.
pub(super) fn dispenses(world: &World) -> Result<i64> {
    world.counters(&world.dispenser)?["dispenses"].as_i64().context("no count of dispenses")
}

impl Adversary {
    /// What happens to sale `number` of `seed`.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        let pick = |name: &str, many| choice(seed, &format!("sale {number} {name}"), many);
        let many = pick("faults", MOST + 1);
        let mut planned: Vec<Planned> = Vec::new();
        for n in 0..many {
            let pick = |name: &str, many| pick(&format!("fault {n} {name}"), many);
            let at_entry = i64::try_from(1 + pick("entry", ENTRIES)).unwrap_or(1);
            let delay = Duration::from_millis(pick("delay", DELAY_MS) * pick("late", 2));
            let fault = fault(&|many| pick("kind", many), &|many| pick("which", many));
            let longest = if matches!(fault, Fault::NoWallet) { 12_000 } else { 6_000 };
            let lasts =
                Duration::from_millis(DOWN_MS + pick("lasts", longest) * pick("long", 3) / 2);
            // two at once
            let at_once = planned.last().filter(|_| pick("at once", 3) == 0);
            let (at_entry, delay) = at_once.map_or((at_entry, delay), |p| (p.at_entry, p.delay));
            planned.push(Planned { fault, at_entry, delay, lasts, due: None });
        }
        Self {
            planned,
            under_way: Vec::new(),
            down: Vec::new(),
            // an order of an earlier sale may hold back a payment of this one
            resolves: (Instant::now() + LEFT_OVER, true),
            done: BTreeMap::new(),
            vault_started_at: None,
        }
    }

    /// What it plans, in words.
    pub(super) fn plan(&self) -> String {
        let one = |p: &Planned| {
            let Planned { fault, at_entry, delay, lasts, .. } = p;
            format!("{} at entry {at_entry}+{delay:?} for {lasts:?}", fault.name())
        };
        self.planned.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Whether nothing that it has done goes on.
    pub(super) fn rests(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins what is due after `entries` of the sale, and undoes what is over; `hurry` begins
    /// nothing more and undoes at once.
    pub(super) fn tick(&mut self, world: &mut World, entries: i64, hurry: bool) -> Result<()> {
        let now = Instant::now();
        if hurry {
            self.planned.clear();
        }
        for planned in &mut self.planned {
            if planned.due.is_none() && entries >= planned.at_entry {
                planned.due = Some(now + planned.delay);
            }
        }
        let due = |p: &Planned| p.due.is_some_and(|due| due <= now);
        while let Some(at) = self.planned.iter().position(due) {
            let Planned { fault, lasts, .. } = self.planned.remove(at);
            self.begin(world, &fault, lasts)?;
        }
        while let Some(at) = self.under_way.iter().position(|(until, _)| hurry || *until <= now) {
            let (_, undo) = self.under_way.remove(at);
            self.undo(world, undo)?;
        }
        let (from, succeed) = self.resolves;
        if from <= now {
            self.resolves = (now + RESOLVE, succeed);
            resolve(world, succeed)?;
        }
        for part in PARTS {
            if !self.down.iter().any(|down| down.of(world).name() == part.of(world).name())
                && !part.of(world).running()
            {
                bail!("{}", part.of(world).trouble("has ended by itself"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, world: &mut World, fault: &Fault, lasts: Duration) -> Result<()> {
        let undo = match fault {
            Fault::Kill(part) if part.of(world).running() => {
                part.of(world).kill9()?;
                self.down.push(*part);
                Undo::Start(*part)
            }
            Fault::Freeze(part) if part.of(world).running() => {
                Undo::Thaw(part.of(world).freezes(lasts)?)
            }
            Fault::Kill(_) | Fault::Freeze(_) => return Ok(()),
            Fault::NoWallet => {
                let body = json!({"reachable": false});
                // an operator that is down has no wallet anyhow
                if world.api("POST", "/simulator/reachable", Some(&body)).is_err() {
                    return Ok(());
                }
                Undo::Wallet
            }
            Fault::Payments(how) => {
                let body = json!({"payments": [how]});
                if world.api("POST", "/simulator/script", Some(&body)).is_err() {
                    return Ok(());
                }
                // what was held back comes to its end later, whenever it was asked for
                let succeed = lasts.as_millis().is_multiple_of(2);
                self.resolves = (Instant::now() + lasts, succeed);
                *self.done.entry(fault.name()).or_default() += 1;
                return Ok(());
            }
            Fault::Unplug(device) => {
                if world.act(device.of(world), &json!({"action": "unplug"})).is_err() {
                    return Ok(());
                }
                Undo::Plug(*device)
            }
            Fault::Trap(device, _, hands) => {
                let Some((first, rest)) = hands.split_first() else { return Ok(()) };
                if world.act(device.of(world), &serde_json::from_str(first)?).is_err() {
                    return Ok(());
                }
                Undo::Hands(*device, rest)
            }
            Fault::Page => Undo::Page(world.customer()?),
        };
        *self.done.entry(fault.name()).or_default() += 1;
        eprintln!("        {} for {lasts:?}", fault.name());
        self.under_way.push((Instant::now() + lasts, undo));
        Ok(())
    }

    fn undo(&mut self, world: &mut World, undo: Undo) -> Result<()> {
        match undo {
            Undo::Start(part) => {
                self.down.retain(|down| *down != part);
                if part == Part::Vault {
                    self.vault_started_at = Some(dispenses(world)?);
                    return world.start_vault();
                }
                part.of(world).start()?;
            }
            Undo::Thaw(frozen) => drop(frozen),
            Undo::Wallet => {
                // after a restart it is reachable again
                let _ =
                    world.api("POST", "/simulator/reachable", Some(&json!({"reachable": true})));
            }
            Undo::Plug(device) => {
                world.act(device.of(world), &json!({"action": "plug"}))?;
            }
            Undo::Hands(device, hands) => {
                for hand in hands {
                    // what has not happened needs no hand
                    let _ = world.act(device.of(world), &serde_json::from_str(hand)?);
                }
            }
            Undo::Page(page) => drop(page),
        }
        Ok(())
    }
}

/// Ends the payments that the node holds back.
fn resolve(world: &World, succeed: bool) -> Result<()> {
    for hash in Ledger::of(world.folder())?.open_payments()? {
        let body = json!({"wallet_id": "machine", "payment_hash": hash, "succeed": succeed});
        // not every open payment is held back
        let _ = world.api("POST", "/simulator/resolve", Some(&body));
    }
    Ok(())
}

const DISARM: Hand = r#"{"action":"disarm"}"#;
const ON: Hand = r#"{"action":"power_on"}"#;
const CLEAR: Hand = r#"{"action":"clear"}"#;

/// What can happen to a device: what begins it, then what a person does about it.
const TRAPS: [(Device, &str, &[Hand]); 20] = [
    (Dispenser, "reject", &[r#"{"action":"arm","trap":"reject"}"#, DISARM]),
    (Dispenser, "rejects", &[r#"{"action":"arm","trap":"reject","times":9}"#, DISARM]),
    (Dispenser, "jam", &[r#"{"action":"arm","trap":"jam"}"#, DISARM]),
    (Dispenser, "mute_reply", &[r#"{"action":"arm","trap":"mute_reply"}"#, DISARM]),
    (Dispenser, "mute_all", &[r#"{"action":"arm","trap":"mute_all"}"#, DISARM]),
    (Dispenser, "damage_reply", &[r#"{"action":"arm","trap":"damage_reply"}"#, DISARM]),
    (Dispenser, "nak_enq", &[r#"{"action":"arm","trap":"nak_enq"}"#, DISARM]),
    (Dispenser, "nak_frame", &[r#"{"action":"arm","trap":"nak_frame"}"#, DISARM]),
    (Dispenser, "collide", &[r#"{"action":"arm","trap":"collide"}"#, DISARM]),
    (Dispenser, "power_cut", &[r#"{"action":"arm","trap":"power_cut"}"#, DISARM, ON]),
    (Dispenser, "power", &[r#"{"action":"power_off"}"#, ON]),
    (Dispenser, "pull", &[r#"{"action":"pull","bay":1}"#, r#"{"action":"insert","bay":1}"#]),
    (Acceptor, "reject_next", &[r#"{"action":"reject_next","reason":"76"}"#]),
    (Acceptor, "silence", &[r#"{"action":"silence","replies":3}"#]),
    (Acceptor, "damage", &[r#"{"action":"damage","replies":2}"#]),
    (Acceptor, "deaf", &[r#"{"action":"deaf","frames":3}"#]),
    (Acceptor, "power", &[r#"{"action":"power_off"}"#, ON]),
    (Acceptor, "jam", &[r#"{"action":"jam","where":"acceptor"}"#, CLEAR]),
    (Acceptor, "stacker", &[r#"{"action":"stacker_out"}"#, r#"{"action":"stacker_in"}"#]),
    (Acceptor, "pause", &[r#"{"action":"pause"}"#, CLEAR]),
];

/// A kind, and one of that kind.
fn fault(kind: &dyn Fn(u64) -> u64, which: &dyn Fn(u64) -> u64) -> Fault {
    let at = |many: usize| usize::try_from(which(many as u64)).unwrap_or(0);
    match kind(14) {
        0..=3 => Fault::Kill(PARTS[at(PARTS.len())]),
        4..=5 => Fault::Freeze(PARTS[at(PARTS.len())]),
        6 => Fault::NoWallet,
        7 => Fault::Payments(["fail", "lose_answer", "pend"][at(3)]),
        8 => Fault::Unplug([Acceptor, Dispenser][at(2)]),
        9 => Fault::Page,
        _ => {
            let (device, name, hands) = TRAPS[at(TRAPS.len())];
            Fault::Trap(device, name, hands)
        }
    }
}
