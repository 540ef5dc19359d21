//! What the gate refuses and lets through, a second and on one core: the bytes of a relay's message
//! are in memory, there is no socket.
//!
//! The junk is distinct and signed as it should be, so that nothing but the roster tells it from what
//! is good; a thousandth of it is rostered, and each of those has to arrive: a gate that refuses
//! everything is just as quick. What is good is parsed and verified as the relay pool does it, and its
//! bound is the check of ids and signatures alone, measured in the same run.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_operator::ids::MachineId;
use bitspire_operator::rpc::gate::Gate;
use bitspire_operator::rpc::roster::Snapshot;
use bitspire_shared::admit::whole_event;
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip01;
use bitspire_shared::rate::Quota;
use bitspire_shared::rpc::request_event;
use bitspire_shell::checked;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::FrameFilter;
use nostr::{Event, JsonUtil as _, Keys};

use super::Figure;

/// Messages of strangers.
const JUNK: u32 = 100_000;
/// Keys that they are signed by.
const STRANGERS: usize = 1_000;
/// One event in so many is a machine's.
const ROSTERED: u32 = 1_000;
/// Requests of machines.
const GOOD: u32 = 10_000;
/// Of those, in turn with as many that are only verified.
const IN_TURN: usize = 500;
/// Machines.
const MACHINES: usize = 64;
/// The bar for junk.
const BAR: f64 = 300_000.0;
/// Whom the messages are from.
const RELAY: &str = "wss://relay.example";

/// A gate and what it reads for.
struct Stand {
    gate: Arc<Gate>,
    filter: FrameFilter,
    service: PubKey,
    machines: Vec<Keys>,
}

impl Stand {
    /// The limits are out of the way: it is the checks that are measured.
    fn new() -> Result<Self> {
        let most = NonZeroU32::MAX;
        let service = PubKey::new(Keys::generate().public_key())?;
        let quota = Quota::per_minute(most, most);
        let gate = Arc::new(Gate::new(service, Clock::system(), quota, Arc::default()));
        let machines: Vec<_> = (0..MACHINES).map(|_| Keys::generate()).collect();
        let mut known = Vec::new();
        for (keys, id) in machines.iter().zip(1..) {
            known.push((PubKey::new(keys.public_key())?, MachineId(id)));
        }
        gate.set_roster(Snapshot::of(service, known));
        Ok(Self { filter: gate.filter(RELAY), gate, service, machines })
    }

    fn event(&self, by: &Keys, n: u32) -> Result<Event> {
        // as long as a sealed heartbeat
        let content = format!("{n:064}").repeat(10);
        let author = PubKey::new(by.public_key())?;
        let event = request_event(&author, &self.service, Clock::system().now(), content);
        Ok(event.sign_with_keys(by)?)
    }

    fn machine(&self, n: u32) -> Result<&Keys> {
        let at = usize::try_from(n)? % self.machines.len();
        self.machines.get(at).context("a machine")
    }
}

fn frame(event: &Event) -> String {
    format!("[\"EVENT\",\"rpc\",{}]", event.as_json())
}

pub(super) fn measure() -> Result<Vec<Figure>> {
    // first: the junk's memory would be given back while this is measured
    let (good, bound) = good()?;
    let junk = junk()?;
    let figure = |name, value, bound, bound_is| Figure {
        name,
        value,
        unit: "events/s",
        bound,
        bound_is,
        peer: None,
        runs: 1,
    };
    Ok(vec![
        figure("gate_junk_per_s", junk, BAR, "the bar"),
        figure(
            "gate_good_per_s",
            good,
            bound,
            "events verified (id and signature) with nothing around them",
        ),
    ])
}

fn junk() -> Result<f64> {
    let stand = Stand::new()?;
    let strangers: Vec<_> = (0..STRANGERS).map(|_| Keys::generate()).collect();
    let mut frames = Vec::new();
    for n in 0..JUNK {
        let stranger = strangers.get(usize::try_from(n)? % STRANGERS).context("a stranger")?;
        let by = if n % ROSTERED == 0 { stand.machine(n)? } else { stranger };
        frames.push(frame(&stand.event(by, n)?));
    }
    let started = Instant::now();
    let passed = frames.iter().filter(|frame| stand.filter.keeps(frame)).count();
    let value = f64::from(JUNK) / started.elapsed().as_secs_f64();
    let refused = stand.gate.tally().totals();
    let expected = (usize::try_from(JUNK / ROSTERED)?, u64::from(JUNK - JUNK / ROSTERED));
    if (passed, refused.get("not_in_roster").copied()) != (expected.0, Some(expected.1)) {
        bail!("expected {expected:?} let through and refused, got {passed}, {refused:?}");
    }
    Ok(value)
}

/// What comes through, and what it cannot beat: in turns, so that both meet the same hour of a machine
/// that is shared with others.
fn good() -> Result<(f64, f64)> {
    let stand = Stand::new()?;
    let mut events = Vec::new();
    for n in 0..GOOD {
        events.push(stand.event(stand.machine(n)?, n)?);
    }
    let frames: Vec<_> = events.iter().map(frame).collect();
    let (mut around, mut alone) = (Duration::ZERO, Duration::ZERO);
    for (events, frames) in events.chunks(IN_TURN).zip(frames.chunks(IN_TURN)) {
        alone += to_verify(events)?;
        let started = Instant::now();
        for frame in frames {
            take_in(&stand, frame)?;
        }
        around += started.elapsed();
    }
    let per_second = |time: Duration| f64::from(GOOD) / time.as_secs_f64();
    Ok((per_second(around), per_second(alone)))
}

/// One good event, from its bytes to what the gate hands on.
fn take_in(stand: &Stand, frame: &str) -> Result<()> {
    if !stand.filter.keeps(frame) {
        bail!("a machine's request was refused: {:?}", stand.gate.tally().totals());
    }
    let event = whole_event(frame).context("an event")?;
    // as the pool checks what comes from relays
    if !checked::holds(&event) {
        bail!("an event that does not hold");
    }
    if let Err(turned) = stand.gate.event(RELAY, &event) {
        bail!("a machine's request was refused: {}", turned.refused);
    }
    Ok(())
}

/// How long it takes to check ids and signatures as the service does it, by keys that it knows, with
/// nothing around them and nothing remembered.
pub(super) fn to_verify(events: &[Event]) -> Result<Duration> {
    let started = Instant::now();
    for event in events {
        if !nip01::id_holds(event) || !nip01::signature_holds(event) {
            bail!("an event that does not hold");
        }
    }
    Ok(started.elapsed())
}
