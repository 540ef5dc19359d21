//! A simulated Fujitsu F53/F56: four cassettes, a reject bin, an exit.
//!
//! Promise: it speaks the link of [`crate::frame::f56`] as the device's side does, counts every
//! note ([`SimDevice::counters`]) and never loses one. It takes a frame only after its own `ACK` to
//! an `ENQ`, executes it once, and forgets a reply that has been acknowledged or replaced by a new
//! command: no command repeats a result.
//!
//! States: `Idle -ENQ-> Receiving -frame-> Working -done-> Asking -ACK-> Answering -ACK-> Idle`;
//! an `ENQ` of the host in `Asking` or `Answering` is let through, the unacknowledged reply is kept
//! and offered again if no new command follows. While it works it answers `ENQ` with `NAK`.
//!
//! Actions ([`SimDevice::control`]), as JSON objects: `take`, `refill {bay, notes}`, `pull {bay}`,
//! `insert {bay}`, `collect_rejects`, `power_off`, `power_on`, `arm {trap, bay?, at_note?, at_byte?,
//! times?}` with a [`Trap`], `disarm`, `set {note_ms?, short_reply?}`. The counters: per bay `loaded
//! == cassette + path + exit + taken + rejected + collected`, and `dispenses` carried out, the last one
//! begun at `dispense_at_ms` of the simulator's clock.
//!
//! Failure policy: an action that does not fit is a [`SimError`] and changes nothing. What public
//! sources do not say (error codes but the empty cassettes', where cassette registers lie) is the
//! simulator's own and marked so.

mod control;
mod mechanism;
#[cfg(test)]
mod tests;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

pub use self::control::Trap;
use self::control::{ACTIONS, Set};
use self::mechanism::{Ended, Mechanism, Run, Step, code};
pub use super::bays::Cassette;
use super::hands::{self, Armed, Rest};
use super::{Key, SimDevice, SimError};
use crate::frame::f56::{ACK, Decoder, ENQ, NAK, Reply, Request, SLOTS, Token, encode};

const STEP_MS: u64 = 5_000;
const IN_FRAME_MS: u64 = 1_000;
const TRIES: u8 = 3;
const INIT_MS: u64 = 300;
const STATUS_MS: u64 = 20;
/// Data bytes of the reply to a count (157 with head and end), of every other one.
const COUNT_DATA: u8 = 153;
const OTHER_DATA: u8 = 52;
/// Length of the count reply of an older unit.
const SHORT_REPLY: usize = 139;
/// Magnet ids of the four cassettes: two of four magnets each.
const MAGNETS: [u8; SLOTS] = [0x0c, 0x0a, 0x09, 0x06];

/// What the simulated device starts with.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// The cassettes.
    pub cassettes: [Option<Cassette>; SLOTS],
    /// Milliseconds that one note takes.
    pub note_ms: u64,
    /// Count replies of 139 bytes, as one older unit sends them.
    pub short_reply: bool,
}

impl Default for Fit {
    /// 100 notes of USD 20 in bay 1, 100 of USD 50 in bay 2.
    fn default() -> Self {
        Self { cassettes: Cassette::usual(), note_ms: 120, short_reply: false }
    }
}

#[derive(Debug)]
enum Role {
    Idle,
    Receiving { due: Mono },
    Working { due: Mono, work: Work },
    Asking { due: Mono, tries: u8 },
    Answering { due: Mono, tries: u8 },
}

#[derive(Debug)]
enum Work {
    Dispense { request: Request, run: Run },
    Other { request: Request },
}

/// The device.
#[derive(Debug)]
pub struct F56Sim {
    mechanism: Mechanism,
    armed: Armed<Trap>,
    role: Role,
    decoder: Decoder,
    /// When a frame that has begun and got stuck is given up.
    frame_due: Option<Mono>,
    powered: bool,
    short_reply: bool,
    /// The frame of the reply that has not been acknowledged.
    pending: Option<Vec<u8>>,
    mute: bool,
    dispenses: u32,
    dispense_at: Option<Mono>,
}

impl F56Sim {
    /// A device that has just been switched on.
    #[must_use]
    pub fn new(fit: Fit) -> Self {
        Self {
            mechanism: Mechanism::new(fit.cassettes, fit.note_ms),
            armed: Armed::default(),
            role: Role::Idle,
            decoder: Decoder::default(),
            frame_due: None,
            powered: true,
            short_reply: fit.short_reply,
            pending: None,
            mute: false,
            dispenses: 0,
            dispense_at: None,
        }
    }

    fn power_cut(&mut self) {
        self.powered = false;
        self.role = Role::Idle;
        self.pending = None;
        self.mute = false;
        self.decoder.reset();
        self.frame_due = None;
        self.mechanism.unset();
    }

    fn on_enq(&mut self, now: Mono) -> Vec<u8> {
        if matches!(self.role, Role::Working { .. }) || self.armed.springs(Trap::NakEnq) {
            return NAK.to_vec();
        }
        if self.armed.springs(Trap::Collide) {
            return ENQ.to_vec();
        }
        self.role = Role::Receiving { due: now.after(STEP_MS) };
        ACK.to_vec()
    }

    fn on_ack(&mut self, now: Mono) -> Vec<u8> {
        match self.role {
            Role::Asking { .. } => self.answer(1, now),
            Role::Answering { .. } => {
                self.pending = None;
                self.role = Role::Idle;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn on_nak(&mut self, now: Mono) -> Vec<u8> {
        match self.role {
            Role::Answering { tries, .. } if tries < TRIES => {
                self.answer(tries.saturating_add(1), now)
            }
            Role::Answering { .. } => {
                self.pending = None;
                self.role = Role::Idle;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn on_payload(&mut self, payload: &[u8], now: Mono) -> Vec<u8> {
        if !matches!(self.role, Role::Receiving { .. }) {
            return Vec::new();
        }
        if self.armed.springs(Trap::NakFrame) {
            self.role = Role::Receiving { due: now.after(STEP_MS) };
            return NAK.to_vec();
        }
        self.pending = None;
        let silent = self.armed.springs(Trap::MuteAll);
        self.mute = silent || self.armed.springs(Trap::MuteReply);
        self.begin(Request::parse(payload), now);
        if silent { Vec::new() } else { ACK.to_vec() }
    }

    fn on_damaged(&mut self, now: Mono) -> Vec<u8> {
        if !matches!(self.role, Role::Receiving { .. }) {
            return Vec::new();
        }
        self.role = Role::Receiving { due: now.after(STEP_MS) };
        NAK.to_vec()
    }

    fn begin(&mut self, request: Request, now: Mono) {
        let ready = self.mechanism.ready();
        let (ms, work) = match request {
            Request::Count(counts) if ready => {
                self.dispenses = self.dispenses.saturating_add(1);
                self.dispense_at = Some(now);
                (self.mechanism.note_ms, Work::Dispense { request, run: Run::new(counts) })
            }
            Request::Init(_) | Request::InitExtended(_) => (INIT_MS, Work::Other { request }),
            _ => (STATUS_MS, Work::Other { request }),
        };
        self.role = Role::Working { due: now.after(ms), work };
    }

    fn work(&mut self, work: Work, now: Mono) -> Vec<u8> {
        match work {
            Work::Dispense { request, mut run } => {
                match self.mechanism.step(&mut run, &mut self.armed) {
                    Step::More(ms) => {
                        let work = Work::Dispense { request, run };
                        self.role = Role::Working { due: now.after(ms), work };
                        Vec::new()
                    }
                    Step::PowerCut => {
                        self.power_cut();
                        Vec::new()
                    }
                    Step::Done(ended) => {
                        let reply = match ended {
                            Ended::Well => Reply::draft(&request, true, COUNT_DATA),
                            Ended::Error { code, address } => {
                                // what is left in the path must be purged first
                                self.mechanism.unset();
                                Reply::draft(&request, false, COUNT_DATA).with_error(code, address)
                            }
                        };
                        let reply = reply.with_counts(run.report());
                        let short = self.short_reply;
                        self.offer(reply, short.then_some(SHORT_REPLY), now)
                    }
                }
            }
            Work::Other { request } => {
                let reply = match &request {
                    Request::Init(setup) | Request::InitExtended(setup) => {
                        self.mechanism.init(*setup);
                        Reply::draft(&request, true, OTHER_DATA)
                    }
                    Request::SensorLevels => {
                        Reply::draft(&request, true, OTHER_DATA).with_levels([4; 15])
                    }
                    Request::Status | Request::Status2 | Request::Cancel | Request::ClearLog(_) => {
                        Reply::draft(&request, true, OTHER_DATA)
                    }
                    Request::Count(_) => Reply::draft(&request, false, COUNT_DATA)
                        .with_error(code::NOT_INITIALISED, [0, 0])
                        .with_counts(Default::default()),
                    // this unit delivers with the count; it knows no separate transport
                    Request::CountAndTransport(_)
                    | Request::Transport
                    | Request::Unknown { .. } => Reply::draft(&request, false, OTHER_DATA)
                        .with_error(code::UNKNOWN_REQUEST, [0, 0]),
                };
                self.offer(reply, None, now)
            }
        }
    }

    fn offer(&mut self, reply: Reply, cut: Option<usize>, now: Mono) -> Vec<u8> {
        if std::mem::take(&mut self.mute) {
            self.role = Role::Idle;
            return Vec::new();
        }
        let mut magnets = MAGNETS.map(Some);
        for (magnet, present) in magnets.iter_mut().zip(self.mechanism.bays.present()) {
            *magnet = magnet.filter(|_| present);
        }
        let reply = reply.with_exit(self.mechanism.bays.notes_at_exit()).with_cassettes(magnets);
        let reply = match cut {
            Some(length) => reply.cut_to(length),
            None => reply,
        };
        self.pending = Some(encode(reply.payload()));
        self.ask(1, now)
    }

    fn ask(&mut self, tries: u8, now: Mono) -> Vec<u8> {
        self.role = Role::Asking { due: now.after(STEP_MS), tries };
        ENQ.to_vec()
    }

    fn answer(&mut self, tries: u8, now: Mono) -> Vec<u8> {
        let Some(mut frame) = self.pending.clone() else {
            self.role = Role::Idle;
            return Vec::new();
        };
        self.role = Role::Answering { due: now.after(STEP_MS), tries };
        if self.armed.springs(Trap::DamageReply)
            && let Some(last) = frame.last_mut()
        {
            *last ^= 0xff;
        }
        if let Some(at) = self.armed.in_reply(Trap::PowerCut) {
            frame.truncate(at);
            self.power_cut();
        }
        frame
    }

    const fn role_due(&self) -> Option<Mono> {
        match &self.role {
            Role::Idle => None,
            Role::Receiving { due }
            | Role::Working { due, .. }
            | Role::Asking { due, .. }
            | Role::Answering { due, .. } => Some(*due),
        }
    }

    /// Nobody answered in time.
    fn overdue(&mut self, now: Mono) -> Vec<u8> {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Working { work, .. } => self.work(work, now),
            // no command came: the old reply is offered again
            Role::Receiving { .. } if self.pending.is_some() => self.ask(1, now),
            Role::Asking { tries, .. } | Role::Answering { tries, .. } if tries < TRIES => {
                self.ask(tries.saturating_add(1), now)
            }
            Role::Asking { .. } | Role::Answering { .. } => {
                self.pending = None;
                Vec::new()
            }
            Role::Idle | Role::Receiving { .. } => Vec::new(),
        }
    }
}

impl SimDevice for F56Sim {
    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.powered {
            return out;
        }
        while let Some(token) = self.decoder.push(&mut bytes) {
            out.extend(match token {
                Token::Enq => self.on_enq(now),
                Token::Ack => self.on_ack(now),
                Token::Nak => self.on_nak(now),
                Token::Payload(payload) => self.on_payload(&payload, now),
                Token::Damaged(_) => self.on_damaged(now),
            });
        }
        self.frame_due = self.decoder.in_frame().then(|| now.after(IN_FRAME_MS));
        out
    }

    fn on_tick(&mut self, now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        if self.frame_due.is_some_and(|due| now >= due) {
            self.frame_due = None;
            self.decoder.reset();
            out = self.on_damaged(now);
        }
        if self.role_due().is_some_and(|due| now >= due) {
            out.extend(self.overdue(now));
        }
        out
    }

    fn wake_at(&self) -> Option<Mono> {
        [self.role_due(), self.frame_due].into_iter().flatten().min()
    }

    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        match hands::act(action, ACTIONS, &mut self.mechanism.bays, &mut self.armed)? {
            Ok(done) => return Ok(done),
            Err(Rest::PowerOff) => self.power_cut(),
            Err(Rest::PowerOn) => {
                if std::mem::replace(&mut self.powered, true) {
                    return Err(SimError::State("the power is on".to_owned()));
                }
            }
            Err(Rest::Set(Set { note_ms, short_reply })) => {
                self.mechanism.note_ms = note_ms.unwrap_or(self.mechanism.note_ms);
                self.short_reply = short_reply.unwrap_or(self.short_reply);
                return Ok(json!({ "now": now.0 }));
            }
        }
        Ok(json!({}))
    }

    fn counters(&self) -> Value {
        let mut counters = self.mechanism.bays.counters();
        if let Some(fields) = counters.as_object_mut() {
            fields.insert("ready".to_owned(), self.mechanism.ready().into());
            fields.insert("powered".to_owned(), self.powered.into());
            fields.insert("dispenses".to_owned(), self.dispenses.into());
            fields.insert("dispense_at_ms".to_owned(), self.dispense_at.map(|at| at.0).into());
        }
        counters
    }

    fn keys(&self) -> &'static [Key] {
        hands::KEYS
    }
}
