//! What goes wrong, how often, and how it is put right.

use bitspire_hardware::sim::SimError;
use bitspire_hardware::sim::faulty::{FaultRates, SplitMix64};
use bitspire_hardware::sim::id003::Options;
use bitspire_shared::rpc::ErrorCode;
use serde_json::{Value, json};

use super::deaths::DeathRates;
use super::parts::{Parts, ROLL};
use super::world::{Thing, World};

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Acceptor,
    Dispenser,
}

/// Something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    CutCable(Which),
    Replug(Which),
    Power(Which),
    /// The device loses its power and its memory of it.
    Forgets,
    Jam,
    Cashbox,
    Pause,
    Reject,
    Silence,
    Deaf,
    Damage,
    LeftInInlet,
    Trap(&'static str),
    Bay(u8),
    NetGone,
    Parted,
    SaidAgain,
    PageStuck,
    PageReloaded,
    Refused(ErrorCode),
    WalletAway,
    VaultStops,
    VaultDies,
    SlowDisk,
    /// The system's clock is so many seconds off.
    Clock(i64),
    NoPaper,
    Cover,
    Cutter,
    PrinterDead,
}

/// All sorts, for the schedule of a seed.
const SORTS: [Fault; 44] = [
    Fault::CutCable(Which::Acceptor),
    Fault::CutCable(Which::Dispenser),
    Fault::Replug(Which::Acceptor),
    Fault::Replug(Which::Dispenser),
    Fault::Power(Which::Acceptor),
    Fault::Power(Which::Dispenser),
    Fault::Forgets,
    Fault::Jam,
    Fault::Cashbox,
    Fault::Pause,
    Fault::Reject,
    Fault::Silence,
    Fault::Deaf,
    Fault::Damage,
    Fault::LeftInInlet,
    Fault::Trap("reject"),
    Fault::Trap("jam"),
    Fault::Trap("pull"),
    Fault::Trap("power_cut"),
    Fault::Trap("mute_reply"),
    Fault::Trap("mute_all"),
    Fault::Trap("damage_reply"),
    Fault::Trap("nak_frame"),
    Fault::Bay(1),
    Fault::Bay(2),
    Fault::NetGone,
    Fault::Parted,
    Fault::SaidAgain,
    Fault::PageStuck,
    Fault::PageReloaded,
    Fault::Refused(ErrorCode::WalletUnavailable),
    Fault::Refused(ErrorCode::QuoteExpired),
    Fault::WalletAway,
    Fault::VaultStops,
    Fault::VaultDies,
    Fault::SlowDisk,
    Fault::Clock(-31_536_000),
    Fault::Clock(31_536_000),
    Fault::Clock(-1_000),
    Fault::Clock(300),
    Fault::NoPaper,
    Fault::Cover,
    Fault::Cutter,
    Fault::PrinterDead,
];

/// Those that last until they are put right.
pub(super) const LASTING: [Fault; 9] = [
    Fault::CutCable(Which::Acceptor),
    Fault::CutCable(Which::Dispenser),
    Fault::Power(Which::Acceptor),
    Fault::Trap("power_cut"),
    Fault::Jam,
    Fault::Cashbox,
    Fault::LeftInInlet,
    Fault::Silence,
    Fault::Clock(0),
];

/// How the relay treats messages, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relay {
    pub(super) lost: u32,
    pub(super) late: u32,
    pub(super) doubled: u32,
}

/// How a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) cable: FaultRates,
    pub(super) relay: Relay,
    pub(super) deaths: DeathRates,
    /// Percent of customers with each odd habit.
    pub(super) customers: u32,
    /// Percent of those who come that have the PIN.
    pub(super) service: u32,
    pub(super) parts: Parts,
    pub(super) options: Options,
    pub(super) invoice_s: u64,
    /// Minutes with faults.
    pub(super) minutes: u64,
    /// Mean seconds between two faults; 0 = none.
    pub(super) gap_s: u64,
    /// Which sorts there are, a bit each.
    pub(super) sorts: u64,
}

impl Rates {
    /// Nothing goes wrong.
    pub(super) fn good() -> Self {
        Self {
            cable: FaultRates::default(),
            relay: Relay::default(),
            deaths: DeathRates::default(),
            customers: 0,
            service: 0,
            parts: Parts::default(),
            options: Options::default(),
            invoice_s: 600,
            minutes: 0,
            gap_s: 0,
            sorts: 0,
        }
    }

    /// A world by its seed: some sorts of faults, at some rates.
    pub(super) fn by(chance: &mut SplitMix64) -> Self {
        let mut one_of = |all: &[u32]| {
            let len = u64::try_from(all.len()).unwrap_or(1);
            all[usize::try_from(chance.below(len)).unwrap_or(0)]
        };
        let cable = FaultRates::spread(one_of(&[0, 0, 100, 1_000, 5_000]));
        let relay = Relay {
            lost: one_of(&[0, 0, 2, 10, 30]),
            late: one_of(&[0, 0, 2, 10, 30]),
            doubled: one_of(&[0, 0, 2, 10, 30]),
        };
        let deaths = DeathRates {
            per_million: one_of(&[0, 500, 2_000, 8_000]),
            torn_percent: one_of(&[0, 30]),
        };
        let customers = one_of(&[0, 5, 15, 30]);
        let invoice_s = u64::from(one_of(&[600, 600, 90, 30]));
        let minutes = u64::from(one_of(&[4, 6, 8, 12]));
        let gap_s = u64::from(one_of(&[0, 60, 20, 8]));
        let options = Options {
            says_note: one_of(&[1, 1, 1, 0]) == 1,
            power_recovery: one_of(&[1, 1, 1, 0]) == 1,
            closes_after_note: one_of(&[0, 0, 1]) == 1,
            ..Options::default()
        };
        let sorts = chance.next_u64() | chance.next_u64();
        let sorts = if chance.chance(300_000) { u64::MAX } else { sorts };
        let parts = Parts::by(chance);
        let service = if chance.chance(400_000) { 8 } else { 0 };
        Self {
            cable,
            relay,
            deaths,
            customers,
            service,
            parts,
            options,
            invoice_s,
            minutes,
            gap_s,
            sorts,
        }
    }
}

impl World {
    /// Plans all faults of the world, and their end.
    pub(super) fn plan_faults(&mut self) {
        let end = self.rates.minutes.saturating_mul(60_000);
        self.plan(end, Thing::Quiet);
        let sorts: Vec<Fault> = SORTS
            .iter()
            .enumerate()
            .filter(|(at, _)| self.rates.sorts >> at & 1 == 1)
            .map(|(_, fault)| *fault)
            .collect();
        if self.rates.gap_s == 0 || sorts.is_empty() {
            return;
        }
        let mut at = 0u64;
        loop {
            at = at.saturating_add(self.between(500, self.rates.gap_s.saturating_mul(2_000)));
            if at >= end {
                return;
            }
            let len = u64::try_from(sorts.len()).unwrap_or(1);
            let fault = sorts[usize::try_from(self.chance.below(len)).unwrap_or(0)];
            self.plan(at, Thing::Break(fault));
        }
    }

    /// Somebody does something to a device; that it does not fit just now is fine.
    fn tries(&mut self, which: Which, action: &Value) {
        let done = match which {
            Which::Acceptor => self.acceptor.act(action, self.now),
            Which::Dispenser => self.dispenser.act(action, self.now),
        };
        self.understood(done);
    }

    /// Somebody does something to the printer.
    fn at_printer(&mut self, action: &Value) {
        let done = self.printer.act(action, self.now);
        self.understood(done);
    }

    /// A fault that a simulator does not know would be none.
    fn understood(&mut self, done: Result<Value, SimError>) {
        if let Err(error @ SimError::Action { .. }) = done {
            self.broken.push(format!("a fault that no simulator has: {error}"));
        }
    }

    pub(super) fn goes_wrong(&mut self, fault: Fault) {
        self.trace.line(self.now, || format!("fault {fault:?}"));
        self.deaths.faults = self.deaths.faults.saturating_add(1);
        let acts = |name: &str| json!({ "action": name });
        let mut lasts = self.between(500, 60_000);
        match fault {
            Fault::CutCable(which) => self.tries(which, &acts("cut_cable")),
            Fault::Replug(Which::Acceptor) => {
                let events = self.acceptor.replug(self.now);
                self.heard_acceptor(events);
            }
            Fault::Replug(Which::Dispenser) => {
                let events = self.dispenser.replug(self.now);
                self.heard_dispenser(events);
            }
            Fault::Power(which) => self.tries(which, &acts("power_off")),
            Fault::Forgets => {
                let forget = json!({ "action": "set", "option": "remembers", "on": false });
                self.tries(Which::Acceptor, &forget);
                self.tries(Which::Acceptor, &acts("power_off"));
            }
            Fault::Jam => {
                let jam = json!({ "action": "jam", "where": "acceptor" });
                self.tries(Which::Acceptor, &jam);
            }
            Fault::Cashbox => self.tries(Which::Acceptor, &acts("stacker_out")),
            Fault::Pause => self.tries(Which::Acceptor, &acts("pause")),
            Fault::Reject => {
                let reason = self.rates.parts.refusal();
                self.tries(Which::Acceptor, &json!({ "action": "reject_next", "reason": reason }));
            }
            Fault::Silence => {
                let replies = self.between(1, 40);
                self.tries(Which::Acceptor, &json!({ "action": "silence", "replies": replies }));
            }
            Fault::Deaf => {
                let frames = self.between(1, 40);
                self.tries(Which::Acceptor, &json!({ "action": "deaf", "frames": frames }));
            }
            Fault::Damage => {
                let replies = self.between(1, 40);
                self.tries(Which::Acceptor, &json!({ "action": "damage", "replies": replies }));
            }
            Fault::LeftInInlet => self.tries(Which::Acceptor, &acts("leave")),
            Fault::Trap(trap) => {
                let at_note = self.between(1, 4);
                let times = self.between(1, 3);
                let arm = match trap {
                    "reject" | "jam" | "pull" | "power_cut" => json!({
                        "action": "arm", "trap": trap, "at_note": at_note, "times": times,
                    }),
                    _ => json!({ "action": "arm", "trap": trap, "times": times }),
                };
                self.tries(Which::Dispenser, &arm);
                lasts = self.between(10_000, 120_000);
            }
            Fault::Bay(bay) => {
                self.tries(Which::Dispenser, &json!({ "action": "pull", "bay": bay }));
            }
            Fault::NetGone => self.restart_net(),
            Fault::Parted => {
                self.net.parted = true;
                self.tell_state();
                lasts = self.between(2_000, 180_000);
            }
            Fault::SaidAgain => self.say_it_again(),
            Fault::PageStuck => self.crowd.stuck = true,
            Fault::PageReloaded => self.reload_page(),
            Fault::Refused(code) => self.service.refuse.push(code),
            Fault::WalletAway => self.service.wallet_away = true,
            Fault::VaultStops => self.put(bitspire_agent::vault::Event::Stop),
            Fault::VaultDies => self.deaths.at_once(self.now),
            Fault::SlowDisk => self.slow_disk = self.between(50, 7_000),
            Fault::Clock(off) => {
                self.wall_off = off;
                lasts = self.between(2_000, 180_000);
            }
            Fault::NoPaper => self.at_printer(&json!({ "action": "paper", "lines": 0 })),
            Fault::Cover => self.at_printer(&json!({ "action": "cover", "open": true })),
            Fault::Cutter => self.at_printer(&json!({ "action": "cutter", "stuck": true })),
            Fault::PrinterDead => self.at_printer(&json!({ "action": "power", "on": false })),
        }
        self.plan(lasts, Thing::Mend(fault));
    }

    pub(super) fn put_right(&mut self, fault: Fault) {
        let acts = |name: &str| json!({ "action": name });
        match fault {
            Fault::CutCable(which) => self.tries(which, &acts("mend_cable")),
            Fault::Power(which) => self.tries(which, &acts("power_on")),
            Fault::Forgets => {
                self.tries(Which::Acceptor, &acts("power_on"));
                // the next loss of power is an ordinary one
                self.plan(20_000, Thing::Mend(Fault::Reject));
            }
            Fault::Reject => {
                let remember = json!({ "action": "set", "option": "remembers", "on": true });
                self.tries(Which::Acceptor, &remember);
            }
            Fault::Jam | Fault::Pause => self.tries(Which::Acceptor, &acts("clear")),
            Fault::Cashbox => self.tries(Which::Acceptor, &acts("stacker_in")),
            Fault::Silence => {
                self.tries(Which::Acceptor, &json!({ "action": "silence", "replies": 0 }));
            }
            Fault::Deaf => self.tries(Which::Acceptor, &json!({ "action": "deaf", "frames": 0 })),
            Fault::Damage => {
                self.tries(Which::Acceptor, &json!({ "action": "damage", "replies": 0 }));
            }
            Fault::LeftInInlet => self.tries(Which::Acceptor, &acts("take")),
            Fault::Trap(trap) => {
                self.tries(Which::Dispenser, &acts("disarm"));
                if trap == "power_cut" {
                    self.tries(Which::Dispenser, &acts("power_on"));
                }
                for bay in [1, 2] {
                    self.put_right(Fault::Bay(bay));
                }
            }
            Fault::Bay(bay) => {
                self.tries(Which::Dispenser, &json!({ "action": "insert", "bay": bay }));
            }
            Fault::Parted => {
                self.net.parted = false;
                self.tell_state();
            }
            Fault::PageStuck => {
                self.crowd.stuck = false;
                self.reload_page();
            }
            Fault::WalletAway => self.service.wallet_away = false,
            Fault::Clock(_) => self.wall_off = 0,
            Fault::NoPaper => self.at_printer(&json!({ "action": "paper", "lines": ROLL })),
            Fault::Cover => self.at_printer(&json!({ "action": "cover", "open": false })),
            Fault::Cutter => self.at_printer(&json!({ "action": "cutter", "stuck": false })),
            Fault::PrinterDead => self.at_printer(&json!({ "action": "power", "on": true })),
            Fault::Replug(_)
            | Fault::NetGone
            | Fault::SaidAgain
            | Fault::PageReloaded
            | Fault::Refused(_)
            | Fault::VaultStops
            | Fault::VaultDies
            | Fault::SlowDisk => {}
        }
    }

    /// The faults are over: everything is put right.
    pub(super) fn be_quiet(&mut self) {
        self.trace.line(self.now, || "quiet".to_owned());
        self.quiet = true;
        self.slow_disk = 0;
        self.service.refuse.clear();
        for fault in SORTS {
            self.put_right(fault);
        }
        self.acceptor.mend(self.now);
        self.dispenser.mend(self.now);
        self.printer.mend(self.now);
        self.deaths.end();
    }
}
