//! From "stack" decided to its first byte on the validator's line, while a dispenser gives notes and
//! another validator is polled: what the runner's threads and queues cost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bitspire_hardware::Authority;
use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, ebds};
use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::{DispensePlan, DispenserCommand, DispenserEvent};
use bitspire_hardware::frame::id003::Request;
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::sim;
use bitspire_hardware::sim::ebds::EbdsSim;
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use serde_json::json;

use super::stamped::{Stamped, until};
use super::{Figure, percentile};
use crate::wait::PATIENCE;

/// Notes that are stacked.
const RUNS: usize = 100;
/// Milliseconds that it may take.
const BAR_MS: f64 = 2.0;
const BAUD: u32 = 9_600;

/// Whoever stacks and gives here: no money hangs on it.
enum Bench {}

struct Proof<T>(T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for Bench {
    type Committed<T: Send + 'static> = Proof<T>;
}

pub(super) fn measure() -> Result<Vec<Figure>> {
    let currency: Currency = "USD".parse()?;
    let over = AtomicBool::new(false);
    let mut millis = thread::scope(|scope| -> Result<Vec<f64>> {
        let busy = scope.spawn(|| busy(currency, &over));
        let millis = stacks(currency);
        over.store(true, Ordering::SeqCst);
        busy.join().map_err(|_| anyhow::anyhow!("the dispenser's thread has panicked"))??;
        millis
    })?;
    let figure = |name, percent, millis: &mut Vec<f64>| -> Result<Figure> {
        let (value, bound_is) = (percentile(millis, percent)?, "the bar, other devices busy");
        Ok(Figure { name, value, unit: "ms", bound: BAR_MS, bound_is, peer: None, runs: RUNS })
    };
    Ok(vec![
        figure("stack_to_byte_ms_p50", 50, &mut millis)?,
        figure("stack_to_byte_ms_p99", 99, &mut millis)?,
    ])
}

/// How long each STACK took from the decision to the line.
fn stacks(currency: Currency) -> Result<Vec<f64>> {
    let timing = Timing { initialize: 20, accept: 10, stack: 10, stacked: 10, take: 10 };
    let (tell, told) = mpsc::sync_channel(1);
    let stack = Request::Stack2.frame().to_bytes();
    let device = Id003Sim::new(Id003Sim::usd(), Options::default(), timing);
    let host = Host::start(Box::new(Stamped { device, tell, only: Some(stack) }), None)?;
    let path = host.path()?.context("no terminal")?.display().to_string();
    let (say, events) = mpsc::channel();
    // a measurement that has ended hears no more
    let sink = Box::new(move |event| drop(say.send(event)));
    let engine = Id003::<Bench>::new(Settings { currency, baud: BAUD });
    let device = Device::start("acceptor", engine, serial(&path), sink)?;
    let note = Denomination::from_major(20, currency)?;
    device.send(AcceptorCommand::Accept([note].into()))?;
    let mut millis = Vec::new();
    while millis.len() < RUNS {
        until(&events, |event| matches!(event, AcceptorEvent::Accepting))?;
        host.control(json!({ "action": "insert", "denomination": 20 }))?;
        let escrowed = until(&events, |event| matches!(event, AcceptorEvent::Escrowed(_)))?;
        let AcceptorEvent::Escrowed(bill) = escrowed else { bail!("expected a note in escrow") };
        let decided = Instant::now();
        device.send(AcceptorCommand::Stack(Proof(bill)))?;
        let written = told.recv_timeout(PATIENCE).context("STACK did not come")?;
        millis.push(written.duration_since(decided).as_secs_f64() * 1_000.0);
        until(&events, |event| matches!(event, AcceptorEvent::Credit { .. }))?;
        device.send(AcceptorCommand::AcknowledgeCredit)?;
    }
    Ok(millis)
}

/// A dispenser that gives all the time, and a validator that is polled.
fn busy(currency: Currency, over: &AtomicBool) -> Result<()> {
    let policy = bitspire_hardware::frame::ebds::PowerUpPolicy::default();
    let polled =
        EbdsSim::new(EbdsSim::usd(), sim::ebds::Options::default(), sim::ebds::Timing::default());
    let polled = Host::start(Box::new(polled), None)?;
    let path = polled.path()?.context("no terminal")?.display().to_string();
    let engine = ebds::Ebds::<Bench>::new(ebds::Settings { currency, baud: BAUD, policy });
    let _other = Device::start("other", engine, serial(&path), Box::new(|_| ()))?;

    let host = Host::start(Box::new(F56Sim::new(Fit { note_ms: 1, ..Fit::default() })), None)?;
    let path = host.path()?.context("no terminal")?.display().to_string();
    let (say, events) = mpsc::channel();
    let sink = Box::new(move |event| drop(say.send(event)));
    let engine = F56::<Bench>::new(currency);
    let device = Device::start("dispenser", engine, serial(&path), sink)?;
    let bay = BayId::new(1).context("bays are numbered from 1")?;
    let bays = BTreeMap::from([(bay, Denomination::from_major(20, currency)?)]);
    device.send(DispenserCommand::Configure(bays))?;
    until(&events, |event| matches!(event, DispenserEvent::Ready { .. }))?;
    while !over.load(Ordering::SeqCst) {
        host.control(json!({ "action": "refill", "bay": 1, "notes": 10 }))?;
        let notes = BTreeMap::from([(bay, 10)]);
        device.send(DispenserCommand::Dispense(Proof(DispensePlan { notes })))?;
        until(&events, |event| matches!(event, DispenserEvent::Dispensed(_)))?;
        host.control(json!({ "action": "take" }))?;
        until(&events, |event| matches!(event, DispenserEvent::Taken))?;
    }
    Ok(())
}
