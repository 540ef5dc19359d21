//! What each device costs its machine while nobody is there: the two threads that run it, over a
//! terminal, as machines run it. The simulated device at the other end is not counted.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bitspire_agent::journal::ByJournal;
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent};
use bitspire_hardware::dispenser::{DispenserCommand, DispenserEvent};
use bitspire_hardware::engine::Engine;
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::recycler::{RecyclerCommand, RecyclerEvent};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::host::Host;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;

use super::Figure;
use super::devices::{self, CURRENCY, Visit, figure_of};
use super::stamped::until;

pub(super) const NAMES: [&str; 8] = [
    "device_idle_cpu_pct.ccnet",
    "device_idle_cpu_pct.ccnet_b2b",
    "device_idle_cpu_pct.ebds",
    "device_idle_cpu_pct.f56",
    "device_idle_cpu_pct.id003",
    "device_idle_cpu_pct.id003_rc",
    "device_idle_cpu_pct.puloon",
    "device_idle_cpu_pct.smart_payout",
];

/// How long they rest while their processor time is counted, all in the same seconds.
const REST: Duration = Duration::from_secs(10);
/// Letters that the system keeps of a thread's name.
const KEPT: usize = 15;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let all = running()?;
    let before = all.iter().map(One::spent).collect::<Result<Vec<_>>>()?;
    thread::sleep(REST);
    let figure = |(one, before): (&One, Duration)| {
        let worked = one.spent()?.saturating_sub(before);
        Ok(Figure {
            name: figure_of(&NAMES, &one.name)?,
            value: worked.as_secs_f64() / REST.as_secs_f64() * 100.0,
            unit: "% of a core",
            bound: 0.1,
            bound_is: "the bar",
            peer: None,
            runs: 1,
        })
    };
    all.iter().zip(before).map(figure).collect()
}

/// All of them, set up.
fn running() -> Result<Vec<One>> {
    let mut all = Running(Vec::new());
    devices::each(&mut all)?;
    for one in &mut all.0 {
        (one.ready)().with_context(|| format!("{} is not set up", one.name))?;
        one.threads = threads_of(&one.name)?;
    }
    Ok(all.0)
}

/// A device on its line.
struct One {
    name: String,
    /// Returns when it has been set up.
    ready: Box<dyn Fn() -> Result<()>>,
    /// The ids of the threads that run it.
    threads: Vec<String>,
    // dropped in this order: the driver before the device that it talks to
    _driver: Box<dyn Any>,
    _host: Host,
}

impl One {
    /// Processor time that its threads have used.
    fn spent(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in &self.threads {
            let told = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
            let on_core = told.split_whitespace().next().context("an empty schedstat")?;
            nanos += on_core.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}

struct Running(Vec<One>);

impl Running {
    fn start<E: Engine>(
        &mut self,
        name: &str,
        engine: E,
        device: impl SimDevice,
        commands: impl IntoIterator<Item = E::Command>,
        ready: impl Fn(&Receiver<E::Event>) -> Result<()> + 'static,
    ) -> Result<()> {
        let host = Host::start(Box::new(device), None)?;
        let path = host.path()?.context("no terminal")?.display().to_string();
        let (say, events) = mpsc::channel();
        // a measurement that has ended hears no more
        let sink = Box::new(move |event| drop(say.send(event)));
        let driver = Device::start(name, engine, serial(&path), sink)?;
        for command in commands {
            driver.send(command)?;
        }
        self.0.push(One {
            name: name.to_owned(),
            ready: Box::new(move || ready(&events)),
            threads: Vec::new(),
            _driver: Box::new(driver),
            _host: host,
        });
        Ok(())
    }
}

impl Visit for Running {
    fn acceptor<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = AcceptorCommand<ByJournal>, Event = AcceptorEvent>,
    {
        self.start(name, engine, device, [accept()?], |events| {
            until(events, |event| *event == AcceptorEvent::Accepting).map(drop)
        })
    }

    fn dispenser<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = DispenserCommand<ByJournal>, Event = DispenserEvent>,
    {
        self.start(name, engine, device, [configure()?], |events| {
            until(events, |event| matches!(event, DispenserEvent::Ready { .. })).map(drop)
        })
    }

    fn recycler<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = RecyclerCommand<ByJournal>, Event = RecyclerEvent>,
    {
        let commands = [RecyclerCommand::In(accept()?), RecyclerCommand::Out(configure()?)];
        self.start(name, engine, device, commands, |events| {
            let is_ready = |event: &RecyclerEvent| {
                matches!(event, RecyclerEvent::Out(DispenserEvent::Ready { .. }))
            };
            until(events, is_ready)?;
            // the inlet opens behind the set-up
            until(events, |event| *event == RecyclerEvent::In(AcceptorEvent::Accepting)).map(drop)
        })
    }
}

fn note(major: u32) -> Result<Denomination> {
    Ok(Denomination::from_major(major, CURRENCY.parse()?)?)
}

fn accept() -> Result<AcceptorCommand<ByJournal>> {
    Ok(AcceptorCommand::Accept([note(20)?, note(50)?].into()))
}

/// Bay 1 has 20s, bay 2 has 50s.
fn configure() -> Result<DispenserCommand<ByJournal>> {
    let mut bays = BTreeMap::new();
    for (number, major) in [(1, 20), (2, 50)] {
        bays.insert(BayId::new(number).context("bays are numbered from 1")?, note(major)?);
    }
    Ok(DispenserCommand::Configure(bays))
}

/// The ids of this process's threads that run the device of this name: its engine's and its reader.
fn threads_of(device: &str) -> Result<Vec<String>> {
    let cut = |name: String| name.chars().take(KEPT).collect::<String>();
    let names = [cut(device.to_owned()), cut(format!("{device} reader"))];
    let mut threads = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        // a thread that has just ended is none of them
        let Ok(name) = fs::read_to_string(thread.path().join("comm")) else { continue };
        if names.iter().any(|own| own == name.trim_end()) {
            threads.push(thread.file_name().to_string_lossy().into_owned());
        }
    }
    if threads.len() != names.len() {
        bail!("expected one thread each of {names:?}, got the threads {threads:?}");
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, wait_for};

    /// Loss prevented: a figure of a device that is not polled, or of somebody else's threads.
    #[test]
    fn every_device_is_polled_by_threads_of_its_own() {
        let all = running().unwrap();
        let of_figures = NAMES.map(|name| name.rsplit_once('.').unwrap().1);
        assert!(all.iter().map(|one| one.name.as_str()).eq(of_figures));
        for one in &all {
            let before = one.spent().unwrap();
            let polled = wait_for("a poll", PATIENCE, || match one.spent().unwrap() {
                now if now > before => Ok(()),
                _ => Err(one.name.clone()),
            });
            polled.unwrap();
        }
        assert!(threads_of("nobody").is_err());
    }
}
