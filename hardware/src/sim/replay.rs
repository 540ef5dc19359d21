//! A device that says again what a recorded trace has it say.
//!
//! Promise: what the host says is held against the recording: the next thing said there goes on with
//! it, the last one again (a poll that was folded in the trace) gets the same answer, and anything
//! else the answer that it had later in the recording, if it ever had one. Answers come after the
//! time that they took then. So a fault that a machine had once meets a driver as often as is wanted.
//!
//! Failure policy: what the recording does not know is counted and not answered; a text that is no
//! trace is refused with the line ([`TraceText`]).

use std::collections::VecDeque;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};
use thiserror::Error;

use super::{Key, SimDevice, SimError};
use crate::frame::hex;
use crate::trace::Direction;

const KEYS: &[Key] = &[Key::new('w', "from the beginning", r#"{"action":"rewind"}"#)];
/// Longest time that an answer waits: a recording may have a pause of hours in it.
const LONGEST_MS: u64 = 60_000;
/// What the host says, until it is known: no frame is longer.
const HELD: usize = 1_024;
/// Bytes that come closer together than this are one thing said.
const TOGETHER_MS: u64 = 20;

/// Why a text is no recording.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TraceText {
    /// Nothing of it reads as a frame.
    #[error(
        "no frames in it: expected what `bitspire-agent trace DEVICE` prints, or a file of the \
         machine's folder of faults"
    )]
    Empty,
    /// Frames of more than one device.
    #[error("frames of more than one device: expected those of one, as `trace acceptor` has them")]
    Several,
    /// A line that begins as a frame and is none.
    #[error("expected `TIME ms -> HEX words`, got {0:?}")]
    Line(String),
}

/// A frame as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recorded {
    at: u64,
    direction: Direction,
    bytes: Vec<u8>,
}

/// What the host said once, and all that the device said to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exchange {
    said: Vec<u8>,
    /// Bytes, and how long after the host's words.
    answers: Vec<(u64, Vec<u8>)>,
}

/// The device.
pub struct ReplaySim {
    exchanges: Vec<Exchange>,
    /// The one that comes next.
    next: usize,
    said: Vec<u8>,
    said_at: Option<Mono>,
    due: VecDeque<(Mono, Vec<u8>)>,
    repeated: u64,
    unknown: u64,
    last_unknown: Option<String>,
}

impl ReplaySim {
    /// Reads a recording: the lines of `bitspire-agent trace DEVICE`, or the JSON of a kept fault.
    ///
    /// # Errors
    /// [`TraceText`].
    pub fn read(text: &str) -> Result<Self, TraceText> {
        let kept: Option<Vec<String>> = serde_json::from_str::<Value>(text).ok().and_then(|kept| {
            let frames = kept.get("frames")?.as_array()?;
            frames.iter().map(|frame| frame.as_str().map(str::to_owned)).collect()
        });
        let lines = kept.unwrap_or_else(|| text.lines().map(str::to_owned).collect());
        let mut frames = Vec::new();
        let mut devices = 0u32;
        for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
            match recorded(line) {
                Some(frame) => frames.push(frame),
                None if line.contains(" records, time in ms") => {
                    devices = devices.saturating_add(1);
                }
                None => return Err(TraceText::Line(line.chars().take(60).collect())),
            }
        }
        if devices > 1 {
            return Err(TraceText::Several);
        }
        let exchanges = exchanges(&frames);
        if exchanges.is_empty() {
            return Err(TraceText::Empty);
        }
        Ok(Self {
            exchanges,
            next: 0,
            said: Vec::new(),
            said_at: None,
            due: VecDeque::new(),
            repeated: 0,
            unknown: 0,
            last_unknown: None,
        })
    }

    /// What the host has said is whole: nothing came behind it for a while.
    fn heard(&mut self, now: Mono) {
        let said = std::mem::take(&mut self.said);
        self.said_at = None;
        let is = |at: usize| self.exchanges.get(at).is_some_and(|one| one.said == said);
        let last = self.next.checked_sub(1);
        let found = if is(self.next) {
            Some(self.next)
        } else if let Some(again) = last.filter(|last| is(*last)) {
            self.repeated = self.repeated.saturating_add(1);
            Some(again)
        } else {
            (self.next..self.exchanges.len()).find(|at| is(*at))
        };
        let Some((at, exchange)) = found.and_then(|at| Some((at, self.exchanges.get(at)?))) else {
            self.unknown = self.unknown.saturating_add(1);
            self.last_unknown = Some(hex(&said));
            return;
        };
        // what it was about to say belongs to what the host has left behind
        self.due.clear();
        self.due.extend(exchange.answers.iter().map(|(ms, bytes)| (now.after(*ms), bytes.clone())));
        self.next = at.saturating_add(1);
    }
}

impl SimDevice for ReplaySim {
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Vec<u8> {
        let room = HELD.saturating_sub(self.said.len());
        self.said.extend(bytes.iter().take(room));
        self.said_at = Some(now);
        // a whole thing of the recording needs no pause behind it
        let whole = |one: &Exchange| one.said == self.said;
        let last = self.next.saturating_sub(1);
        if self.exchanges.iter().skip(last).take(2).any(whole) {
            self.heard(now);
        }
        self.on_tick(now)
    }

    fn on_tick(&mut self, now: Mono) -> Vec<u8> {
        if self.said_at.is_some_and(|at| now.since(at) >= TOGETHER_MS) {
            self.heard(now);
        }
        let mut out = Vec::new();
        while self.due.front().is_some_and(|(at, _)| *at <= now) {
            out.extend(self.due.pop_front().map(|(_, bytes)| bytes).unwrap_or_default());
        }
        out
    }

    fn wake_at(&self) -> Option<Mono> {
        let whole = self.said_at.map(|at| at.after(TOGETHER_MS));
        [whole, self.due.front().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    fn control(&mut self, action: &Value, _: Mono) -> Result<Value, SimError> {
        match action.get("action").and_then(Value::as_str) {
            Some("rewind") => {
                (self.next, self.said_at) = (0, None);
                self.said.clear();
                self.due.clear();
                Ok(json!({}))
            }
            _ => Err(SimError::Action {
                expected: r#"{"action":"rewind"}"#,
                got: action.to_string(),
            }),
        }
    }

    fn counters(&self) -> Value {
        json!({
            "exchanges": self.exchanges.len(), "next": self.next, "repeated": self.repeated,
            "unknown": self.unknown, "last_unknown": self.last_unknown,
        })
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }
}

fn exchanges(frames: &[Recorded]) -> Vec<Exchange> {
    let mut all: Vec<(u64, Exchange)> = Vec::new();
    for Recorded { at, direction, bytes } in frames {
        match (direction, all.last_mut()) {
            (Direction::Sent, _) => {
                let exchange = Exchange { said: bytes.clone(), answers: Vec::new() };
                all.push((*at, exchange));
            }
            (Direction::Received, Some((since, exchange))) => {
                let ms = at.saturating_sub(*since).min(LONGEST_MS);
                exchange.answers.push((ms, bytes.clone()));
            }
            // said before anybody asked: the recording begins in the middle
            (Direction::Received, None) => {}
        }
    }
    all.into_iter().map(|(_, exchange)| exchange).collect()
}

/// `110 ms <- 03 04 words`, as a trace prints it.
fn recorded(line: &str) -> Option<Recorded> {
    let mut words = line.split(' ');
    let at = words.next()?.parse().ok()?;
    let direction = match (words.next()?, words.next()?) {
        ("ms", "->") => Direction::Sent,
        ("ms", "<-") => Direction::Received,
        _ => return None,
    };
    let byte = |word: &str| {
        let digits =
            word.len() == 2 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        digits.then(|| u8::from_str_radix(word, 16).ok()).flatten()
    };
    let bytes: Vec<u8> = words.map_while(byte).collect();
    (!bytes.is_empty()).then_some(Recorded { at, direction, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::id003;
    use crate::trace::Trace;

    /// A recording as the runner makes it: polls, a jam, polls.
    fn trace() -> Trace {
        let trace = Trace::new("acceptor", 64, id003::in_words);
        let ask = id003::Request::StatusRequest.frame().to_bytes();
        let mut at = 1_000;
        let mut say = |status: id003::Status, times: u64| {
            for _ in 0..times {
                trace.record(Direction::Sent, &ask, Mono(at));
                trace.record(Direction::Received, &status.frame().to_bytes(), Mono(at + 30));
                at += 200;
            }
        };
        say(id003::Status::Disabled, 5);
        say(id003::Status::JamInAcceptor, 1);
        say(id003::Status::Disabled, 2);
        trace
    }

    fn ask(sim: &mut ReplaySim, bytes: &[u8], now: &mut u64) -> Vec<u8> {
        let mut out = sim.on_bytes(bytes, Mono(*now));
        while let Some(at) = sim.wake_at() {
            *now = (*now).max(at.0);
            out.extend(sim.on_tick(Mono(*now)));
        }
        out
    }

    /// Loss prevented: a fault from the field that nobody can show to a driver a second time.
    #[test]
    fn a_recorded_jam_comes_again() {
        let text = trace().lines().join("\n");
        let mut sim = ReplaySim::read(&text).unwrap();
        let poll = id003::Request::StatusRequest.frame().to_bytes();
        let mut now = 7;
        let said: Vec<_> = (0..4).map(|_| ask(&mut sim, &poll, &mut now)).collect();
        let jam = id003::Status::JamInAcceptor.frame().to_bytes();
        assert!(said.contains(&jam), "{said:?} of {text}");
        assert!(now >= 7 + 4 * 30, "answers take their time: {now}");
        // what the recording does not know
        assert_eq!(ask(&mut sim, &[1, 2, 3], &mut now), Vec::<u8>::new());
        assert_eq!(sim.counters()["last_unknown"], "01 02 03");
        // and byte by byte, as a slow host says it
        sim.control(&json!({"action": "rewind"}), Mono(now)).unwrap();
        let (last, first) = poll.split_last().unwrap();
        assert!(first.iter().all(|byte| sim.on_bytes(&[*byte], Mono(now)).is_empty()));
        assert_eq!(ask(&mut sim, &[*last], &mut now), id003::Status::Disabled.frame().to_bytes());
        super::super::testing::every_key_is_an_action(sim);
    }

    /// Loss prevented: a bench that believes it replays what it has not understood.
    #[test]
    fn what_is_no_recording_is_refused() {
        let lines = trace().lines();
        let kept = json!({ "device": "acceptor", "fault": "x", "frames": lines }).to_string();
        assert_eq!(ReplaySim::read(&kept).unwrap().exchanges.len(), 4);
        let printed =
            format!("acceptor: 8 records, time in ms since it was opened\n  {}", lines[0]);
        assert_eq!(ReplaySim::read(&printed).unwrap().exchanges.len(), 1);
        let two = format!("{printed}\ndispenser: 0 records, time in ms since it was opened\n");
        assert_eq!(ReplaySim::read(&two).map(drop), Err(TraceText::Several));
        assert_eq!(ReplaySim::read("").map(drop), Err(TraceText::Empty));
        let noise = ReplaySim::read("12 ms -> twelve").map(drop);
        assert_eq!(noise, Err(TraceText::Line("12 ms -> twelve".to_owned())));
    }
}
