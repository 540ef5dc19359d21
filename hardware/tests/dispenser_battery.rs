//! What every dispenser must do, through the port that the agent sees: run on each implementation
//! with its real runner, its real line and its simulated device.

#[path = "batteries/recycler.rs"]
mod recycler;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use bitspire_hardware::dispenser::f56::{F56, LIMITS};
use bitspire_hardware::dispenser::puloon::{Model, Puloon, Settings};
use bitspire_hardware::dispenser::{
    BayState, DispenseOutcome, DispensePlan, Dispenser, DispenserCommand, DispenserEvent,
    DispenserLimits, FaultKind,
};
use bitspire_hardware::engine::Engine;
use bitspire_hardware::plan::batches;
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_hardware::sim::puloon::{self, PuloonSim};
use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use serde_json::{Value, json};
use support::{ByTest, Proof};

const PATIENCE: Duration = Duration::from_secs(30);

/// One dispenser with its device: 100 notes of 20 in bay 1, 100 of 50 in bay 2.
struct Rig {
    // dropped first: the driver before the device that it talks to
    dispenser: Box<dyn Dispenser<ByTest>>,
    events: Receiver<DispenserEvent>,
    host: Host,
    limits: DispenserLimits,
    _dir: tempfile::TempDir,
}

fn rig<E>(sim: impl SimDevice, engine: E, limits: DispenserLimits) -> Rig
where
    E: Engine<Command = DispenserCommand<ByTest>, Event = DispenserEvent>,
{
    let dir = tempfile::tempdir().unwrap();
    let link: PathBuf = dir.path().join("dispenser");
    let host = Host::start(Box::new(sim), Some(&link)).unwrap();
    let (tell, events) = mpsc::channel();
    let sink = Box::new(move |event| {
        // the rig may have gone while the last event was on its way
        let _ = tell.send(event);
    });
    let opener = serial(link.to_str().unwrap());
    let device = Device::start("dispenser", engine, opener, sink).unwrap();
    Rig { dispenser: Box::new(device), events, host, limits, _dir: dir }
}

fn f56() -> Rig {
    let sim = F56Sim::new(Fit { note_ms: 4, ..Fit::default() });
    rig(sim, F56::<ByTest>::new(usd()), LIMITS)
}

fn lcdm(model: Model) -> Rig {
    let sim = PuloonSim::new(model, puloon::Fit { note_ms: 4, ..puloon::Fit::default() });
    rig(sim, Puloon::<ByTest>::new(Settings::new(model, usd())), model.limits())
}

fn puloon_4000() -> Rig {
    lcdm(Model::Lcdm4000)
}

fn puloon_2000() -> Rig {
    lcdm(Model::Lcdm2000)
}

fn puloon_1000() -> Rig {
    lcdm(Model::Lcdm1000)
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

fn plan(notes: &[(u8, u32)]) -> DispensePlan {
    DispensePlan { notes: notes.iter().map(|(n, count)| (bay(*n), *count)).collect() }
}

impl Rig {
    /// The bay that the second half of a plan comes from: the first one where there is no other.
    fn second(&self) -> u8 {
        self.limits.bays.min(2)
    }

    /// Notes of the first and of the second bay; of the only one where there is no other.
    fn both(&self, first: u32, second: u32) -> DispensePlan {
        if self.limits.bays == 1 {
            plan(&[(1, first + second)])
        } else {
            plan(&[(1, first), (2, second)])
        }
    }

    fn send(&mut self, command: DispenserCommand<ByTest>) {
        self.dispenser.send(command).unwrap();
    }

    fn event(&self) -> DispenserEvent {
        self.events.recv_timeout(PATIENCE).expect("an event within 30 s")
    }

    fn configure(&mut self) -> BTreeMap<BayId, BayState> {
        let note = |major| Denomination::from_major(major, usd()).unwrap();
        let bays = [(bay(1), note(20)), (bay(2), note(50))].into_iter();
        let bays = bays.take(self.limits.bays.into()).collect();
        self.send(DispenserCommand::Configure(bays));
        match self.event() {
            DispenserEvent::Ready { bays, .. } => bays,
            other => panic!("{other:?}"),
        }
    }

    fn dispense(&mut self, plan: DispensePlan) -> DispenseOutcome {
        self.send(DispenserCommand::Dispense(Proof(plan)));
        self.outcome()
    }

    fn outcome(&self) -> DispenseOutcome {
        match self.event() {
            DispenserEvent::Dispensed(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn act(&self, action: Value) -> Value {
        self.host.control(action).unwrap()
    }

    fn take(&self) {
        self.act(json!({"action": "take"}));
        assert_eq!(self.event(), DispenserEvent::Taken);
    }

    /// One number of one bay.
    fn count(&self, number: u8, what: &str) -> u32 {
        let counters = self.host.counters().unwrap();
        let bays = counters["bays"].as_array().unwrap();
        let found = bays.iter().find(|b| b["bay"] == number).unwrap();
        u32::try_from(found[what].as_u64().unwrap()).unwrap()
    }

    /// Notes that the customer has or can have.
    fn out(&self, number: u8) -> u32 {
        self.count(number, "exit") + self.count(number, "taken")
    }

    /// Until a note of the bay is on its way.
    fn wait_for_motion(&self, number: u8) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(number, "cassette") == self.count(number, "loaded") {
            assert!(Instant::now() < deadline, "no note has moved within 30 s");
            // leaves the processor to the devices that are waited for
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn final_of(outcome: DispenseOutcome) -> (BayResults, Option<FaultKind>) {
    match outcome {
        DispenseOutcome::Final { bays, fault } => (bays, fault.map(|fault| fault.kind)),
        other => panic!("{other:?}"),
    }
}

fn presents_what_it_says(mut rig: Rig) {
    let bays = rig.configure();
    assert_eq!(bays.len(), usize::from(rig.second()));
    assert!(bays.values().all(|state| *state == BayState::Present), "{bays:?}");
    let asked = rig.both(3, 2);
    let (bays, fault) = final_of(rig.dispense(asked.clone()));
    assert_eq!(fault, None);
    for (bay, asked) in asked.notes {
        let said = bays[&bay];
        assert_eq!((said.requested, said.presented, said.delivered()), (asked, asked, asked));
        assert_eq!(rig.out(bay.get()), asked);
    }
    rig.take();
    assert!(rig.count(1, "taken") >= 3);
}

fn a_large_plan_goes_out_in_batches(mut rig: Rig) {
    rig.configure();
    let most = rig.limits.notes_per_bay;
    let whole = rig.both(most + 3, 1);
    let outcome = rig.dispense(whole.clone());
    let DispenseOutcome::NotStarted(fault) = outcome else { panic!("{outcome:?}") };
    assert!(fault.detail.contains("batches"), "{fault:?}");
    for part in batches(&whole, most) {
        let (bays, fault) = final_of(rig.dispense(part.clone()));
        assert_eq!(fault, None);
        for (bay, notes) in &part.notes {
            assert_eq!(bays[bay].presented, *notes);
        }
        rig.take();
    }
    for (bay, notes) in whole.notes {
        assert_eq!(rig.out(bay.get()), notes);
    }
}

fn a_short_dispense_says_how_short(mut rig: Rig) {
    rig.configure();
    rig.act(json!({"action": "arm", "trap": "jam", "at_note": 4}));
    let (bays, fault) = final_of(rig.dispense(rig.both(3, 2)));
    assert!(matches!(fault, Some(FaultKind::ServiceNeeded | FaultKind::Jam)), "{fault:?}");
    assert_eq!(bays[&bay(1)].presented, 3);
    assert_eq!((rig.out(1), bays.values().map(|bay| bay.presented).sum()), (3, 3u32));
    let second = rig.second();
    let outcome = rig.dispense(plan(&[(second, 2)]));
    assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{outcome:?}");
    rig.take();
    rig.configure();
    assert_eq!(rig.count(second, "rejected"), 1, "the stuck note was purged");
    let (bays, _) = final_of(rig.dispense(plan(&[(second, 2)])));
    assert_eq!(bays[&bay(second)].presented, 2);
}

fn rejects_are_told(mut rig: Rig) {
    rig.configure();
    rig.act(json!({"action": "arm", "trap": "reject", "times": 2}));
    let (bays, fault) = final_of(rig.dispense(plan(&[(1, 3)])));
    let said = bays[&bay(1)];
    assert_eq!((fault, said.presented, said.rejected), (None, 3, Some(2)));
    assert!(said.picked.is_none_or(|picked| picked == 5), "right, or not known: {said:?}");
    assert_eq!(rig.count(1, "rejected"), 2);
}

fn an_empty_bay_is_named(mut rig: Rig) {
    rig.configure();
    let second = rig.second();
    rig.act(json!({"action": "pull", "bay": second}));
    let (bays, fault) = final_of(rig.dispense(rig.both(1, 1)));
    assert!(fault.is_some());
    assert_eq!(bays[&bay(second)].presented, 0);
    // the first bay's note went out before, or the device looked first
    assert_eq!(bays[&bay(1)].presented, rig.out(1));
    if rig.out(1) > 0 {
        rig.take();
    }
    assert_eq!(rig.configure()[&bay(second)], BayState::Missing);
}

fn refusals_send_nothing(mut rig: Rig) {
    let refused = |rig: &mut Rig, notes: &[(u8, u32)]| {
        let outcome = rig.dispense(plan(notes));
        assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{outcome:?}");
    };
    refused(&mut rig, &[(1, 1)]);
    rig.configure();
    refused(&mut rig, &[]);
    refused(&mut rig, &[(1, 0)]);
    refused(&mut rig, &[(9, 1)]);
    assert_eq!(rig.host.counters().unwrap()["dispenses"], 0);
}

fn a_line_lost_in_the_middle_is_unknowable(mut rig: Rig) {
    rig.configure();
    rig.act(json!({"action": "set", "note_ms": 50}));
    rig.send(DispenserCommand::Dispense(Proof(plan(&[(1, 20)]))));
    rig.wait_for_motion(1);
    rig.act(json!({"action": "unplug"}));
    let outcome = rig.outcome();
    let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
    assert!(!last_seen.is_empty());
    let event = rig.event();
    let DispenserEvent::Fault(fault) = event else { panic!("{event:?}") };
    assert_eq!(fault.kind, FaultKind::LinkLost);
    let outcome = rig.dispense(plan(&[(1, 1)]));
    assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{outcome:?}");

    rig.act(json!({"action": "plug"}));
    assert_eq!(rig.event(), DispenserEvent::Recovered);
    rig.act(json!({"action": "power_off"}));
    rig.act(json!({"action": "power_on"}));
    // a device that stopped at once may have shown nothing yet
    if rig.host.counters().unwrap()["notes_at_exit"] == true {
        rig.act(json!({"action": "take"}));
    }
    rig.configure();
    let before = rig.out(1);
    let (bays, _) = final_of(rig.dispense(plan(&[(1, 2)])));
    assert_eq!(bays[&bay(1)].presented, 2);
    assert_eq!(rig.out(1), before + 2, "and nothing was sent again");
    assert_eq!(rig.host.counters().unwrap()["dispenses"], 2);
}

type Fitter = fn() -> Rig;

const ALL: [(&str, Fitter); 4] = [
    ("f56", f56),
    ("puloon-4000", puloon_4000),
    ("puloon-2000", puloon_2000),
    ("puloon-1000", puloon_1000),
];

/// `case` on each implementation, at the same time: all of them wait for their devices.
fn on_each(case: fn(Rig)) {
    let start = |(name, rig): (&str, Fitter)| {
        thread::Builder::new().name(name.to_owned()).spawn(move || case(rig())).unwrap()
    };
    let running = ALL.map(start);
    let failed: Vec<_> = ALL.iter().zip(running.map(|case| case.join().is_err())).collect();
    let failed: Vec<_> = failed.iter().filter(|(_, failed)| *failed).map(|((n, _), _)| n).collect();
    assert!(failed.is_empty(), "failed on {failed:?}: their threads say how");
}

macro_rules! battery {
    ($($(#[$doc:meta])* $case:ident),* $(,)?) => {
        mod battery {
            $($(#[$doc])* #[test] fn $case() { super::on_each(super::$case); })*
        }
    };
}

battery! {
    /// Loss prevented: notes out that nobody counted, or counted that are not out.
    presents_what_it_says,
    /// Loss prevented: a payout above the device's limit is cut short in silence.
    a_large_plan_goes_out_in_batches,
    /// Loss prevented: what went out before an error is paid again.
    a_short_dispense_says_how_short,
    /// Loss prevented: rejected notes count as still in the cassette.
    rejects_are_told,
    /// Loss prevented: a missing cassette is planned with again.
    an_empty_bay_is_named,
    /// Loss prevented: a plan that cannot be carried out moves notes.
    refusals_send_nothing,
    /// Loss prevented: a cable pulled in the middle is taken for "nothing went out".
    a_line_lost_in_the_middle_is_unknowable,
}
