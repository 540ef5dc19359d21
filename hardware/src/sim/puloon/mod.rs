//! Simulated Puloon LCDM dispensers: cassettes, a reject tray, an exit.
//!
//! Promise: they speak the link of [`crate::frame::puloon`] as the device's side does, count every
//! note ([`SimDevice::counters`]) and never lose one. A frame is taken with `ACK` and carried out
//! once; its reply is sent until it is acknowledged, three times at most, or until a new frame
//! replaces it; `EOT` ends the exchange. While one works it hears nothing.
//!
//! States: `Idle -frame, we say ACK-> Working -done, reply-> Answering -ACK, we say EOT-> Idle`;
//! `Answering -NAK or 500 ms-> Answering`.
//!
//! Actions ([`SimDevice::control`]), as JSON objects: `take`, `refill {bay, notes}`, `pull {bay}`,
//! `insert {bay}`, `collect_rejects`, `power_off`, `power_on`, `arm {trap, bay?, at_note?, at_byte?,
//! times?}` with a [`Trap`], `disarm`, `set {note_ms?, tray?, keeps_last?, strict_serial?, resets?}`.
//! The counters: per bay `loaded == cassette + path + exit + taken + rejected + collected`, and
//! `dispenses` carried out, the last one begun at `dispense_at_ms` of the simulator's clock.
//!
//! Failure policy: an action that does not fit is a [`SimError`] and changes nothing. What public
//! sources do not say is an option: whether an LCDM-4000 refuses a serial number that it has had,
//! whether its last result outlives a power cut, how often it answers a reset, whether the exit
//! sensor sees notes until they are taken.

mod control;
mod mechanism;
mod replies;
#[cfg(test)]
mod tests;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

pub use self::control::Trap;
use self::control::{ACTIONS, Set};
use self::mechanism::{Mechanism, Run, Step, Trouble};
pub use super::bays::Cassette;
use super::bays::SLOTS;
use super::hands::{self, Armed, Rest};
use super::{Key, SimDevice, SimError};
pub use crate::dispenser::puloon::Model;
use crate::frame::puloon::lcdm4000::Form;
use crate::frame::puloon::{ACK, Decoder, EOT, Frame, NAK, Side, Token, lcdm1000, lcdm4000};

/// How long it waits for `ACK` to its reply.
const ACK_MS: u64 = 500;
const IN_FRAME_MS: u64 = 200;
const TRIES: u8 = 3;
const MOTOR_MS: u64 = 300;
const STATUS_MS: u64 = 20;
/// `01 9C 38` (skewed) and `01 8D 30`, which an LCDM-2000 sends while it works.
const REJECTED: [u8; 3] = [0x01, 0x9c, 0x38];
const DISPENSING: [u8; 3] = [0x01, 0x8d, 0x30];

/// What the simulated device starts with.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// The cassettes.
    pub cassettes: [Option<Cassette>; SLOTS],
    /// Milliseconds that one note takes.
    pub note_ms: u64,
}

impl Default for Fit {
    /// 100 notes of USD 20 in bay 1, 100 of USD 50 in bay 2.
    fn default() -> Self {
        Self { cassettes: Cassette::usual(), note_ms: 120 }
    }
}

#[derive(Debug)]
enum Role {
    Idle,
    Working { due: Mono, work: Work },
    Answering { due: Mono, tries: u8, reply: Frame, next: Option<Work> },
}

#[derive(Debug)]
enum Work {
    Dispense { request: Frame, run: Run },
    Reset { replies: u8 },
    Other { request: Frame },
}

/// The result of an LCDM-4000's last motion.
#[derive(Clone, Copy, Debug)]
struct Last {
    command: u8,
    error: crate::frame::puloon::ErrorCode,
    bays: [lcdm4000::BayCount; SLOTS],
}

/// The device.
#[derive(Debug)]
pub struct PuloonSim {
    model: Model,
    mechanism: Mechanism,
    armed: Armed<Trap>,
    role: Role,
    decoder: Decoder,
    /// When a frame that has begun and got stuck is given up.
    frame_due: Option<Mono>,
    powered: bool,
    mute: bool,
    last: Option<Last>,
    keeps_last: bool,
    serial: u8,
    strict_serial: bool,
    resets: u8,
    opacities: [u8; SLOTS],
    order: [u8; SLOTS],
    dispenses: u32,
    dispense_at: Option<Mono>,
}

impl PuloonSim {
    /// A device that has just been switched on. Cassettes that the model has no place for are left
    /// out.
    #[must_use]
    pub fn new(model: Model, fit: Fit) -> Self {
        let mut cassettes = fit.cassettes;
        for cassette in cassettes.iter_mut().skip(model.limits().bays.into()) {
            *cassette = None;
        }
        Self {
            model,
            mechanism: Mechanism::new(model, cassettes, fit.note_ms),
            armed: Armed::default(),
            role: Role::Idle,
            decoder: Decoder::new(Side::Host),
            frame_due: None,
            powered: true,
            mute: false,
            last: None,
            keeps_last: false,
            serial: 0,
            strict_serial: false,
            resets: 2,
            opacities: [0x50; SLOTS],
            order: [1, 2, 3, 4],
            dispenses: 0,
            dispense_at: None,
        }
    }

    fn power_cut(&mut self) {
        self.powered = false;
        self.role = Role::Idle;
        self.mute = false;
        self.decoder.reset();
        self.frame_due = None;
        self.last = self.last.filter(|_| self.keeps_last);
    }

    fn on_frame(&mut self, request: Frame, now: Mono) -> Vec<u8> {
        if request.id() != self.model.id() || matches!(self.role, Role::Working { .. }) {
            return Vec::new();
        }
        if self.armed.springs(Trap::NakFrame) {
            return vec![NAK];
        }
        let silent = self.armed.springs(Trap::MuteAll);
        self.mute = silent || self.armed.springs(Trap::MuteReply);
        let mut out = if silent { Vec::new() } else { vec![ACK] };
        out.extend(self.begin(request, now));
        out
    }

    /// The notes that a request is about, and whether they go to the reject tray.
    fn wanted(&self, request: &Frame) -> Option<([u8; SLOTS], bool)> {
        use lcdm1000::Request as Small;
        use lcdm4000::Request as Big;
        match self.model {
            Model::Lcdm4000 => match Big::parse(request) {
                Big::Dispense(counts) => Some((counts.notes, false)),
                Big::TestDispense(counts) => Some((counts.notes, true)),
                Big::Diagnostics(bay) => {
                    let mut notes = [0; SLOTS];
                    let place = usize::from(bay).checked_sub(1).and_then(|at| notes.get_mut(at));
                    *place? = 5;
                    Some((notes, true))
                }
                _ => None,
            },
            Model::Lcdm2000 | Model::Lcdm1000 => match Small::parse(request) {
                Small::Upper(notes) => Some(([notes, 0, 0, 0], false)),
                Small::Lower(notes) => Some(([0, notes, 0, 0], false)),
                Small::Both(upper, lower) => Some(([upper, lower, 0, 0], false)),
                Small::TestUpper(notes) => Some(([notes, 0, 0, 0], true)),
                Small::TestLower(notes) => Some(([0, notes, 0, 0], true)),
                _ => None,
            },
        }
    }

    fn begin(&mut self, request: Frame, now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        let big = self.model == Model::Lcdm4000;
        let asked = lcdm4000::Request::parse(&request);
        let (ms, work) = if let Some((notes, test)) = self.wanted(&request) {
            let run = Run::new(notes, test);
            let again = self.strict_serial
                && matches!(asked, lcdm4000::Request::Dispense(counts)
                    if counts.form == Form::Serial(self.serial));
            if let Some(last) = self.last.filter(|_| again) {
                let Last { command, error, bays } = last;
                let reply = lcdm4000::Reply::Counted { command, error, bays }.frame();
                return self.answer(reply, None, out, now);
            }
            let refusal = self.mechanism.refusal(self.model, &run);
            if refusal != Trouble::None {
                let reply = self.counted(&request, &run, refusal);
                return self.answer(reply, None, out, now);
            }
            if !test {
                self.dispenses = self.dispenses.saturating_add(1);
                self.dispense_at = Some(now);
            }
            if self.model == Model::Lcdm2000 {
                out.extend(DISPENSING);
            }
            (self.mechanism.note_ms, Work::Dispense { request, run })
        } else if big && asked == lcdm4000::Request::Reset {
            (MOTOR_MS, Work::Reset { replies: self.resets })
        } else if asked == lcdm4000::Request::Purge
            || lcdm1000::Request::parse(&request) == lcdm1000::Request::Purge
        {
            (MOTOR_MS, Work::Other { request })
        } else {
            (STATUS_MS, Work::Other { request })
        };
        self.role = Role::Working { due: now.after(ms), work };
        out
    }

    fn work(&mut self, work: Work, now: Mono) -> Vec<u8> {
        match work {
            Work::Dispense { request, mut run } => {
                match self.mechanism.step(&mut run, &mut self.armed) {
                    Step::More { ms, rejected } => {
                        let work = Work::Dispense { request, run };
                        self.role = Role::Working { due: now.after(ms), work };
                        let tells = rejected && self.model == Model::Lcdm2000;
                        if tells { REJECTED.to_vec() } else { Vec::new() }
                    }
                    Step::PowerCut => {
                        self.power_cut();
                        Vec::new()
                    }
                    Step::Done(trouble) => {
                        if let lcdm4000::Request::Dispense(counts) =
                            lcdm4000::Request::parse(&request)
                            && let Form::Serial(serial) = counts.form
                        {
                            self.serial = serial;
                        }
                        let reply = self.counted(&request, &run, trouble);
                        self.answer(reply, None, Vec::new(), now)
                    }
                }
            }
            Work::Reset { replies: 0 } => Vec::new(),
            Work::Reset { replies } => {
                let reply = lcdm4000::Reply::Done { command: 0x44, error: lcdm4000::error(0) };
                let left = replies.saturating_sub(1);
                let next = (left > 0).then_some(Work::Reset { replies: left });
                self.answer(reply.frame(), next, Vec::new(), now)
            }
            Work::Other { request } => {
                let reply = match self.model {
                    Model::Lcdm4000 => self.big_reply(&request),
                    Model::Lcdm2000 | Model::Lcdm1000 => self.small_reply(&request),
                };
                self.answer(reply, None, Vec::new(), now)
            }
        }
    }

    fn answer(&mut self, reply: Frame, next: Option<Work>, out: Vec<u8>, now: Mono) -> Vec<u8> {
        if std::mem::take(&mut self.mute) {
            self.role = Role::Idle;
            return out;
        }
        self.say(reply, next, 1, out, now)
    }

    fn say(
        &mut self,
        reply: Frame,
        next: Option<Work>,
        tries: u8,
        mut out: Vec<u8>,
        now: Mono,
    ) -> Vec<u8> {
        self.role = Role::Answering { due: now.after(ACK_MS), tries, reply, next };
        let start = out.len();
        reply.write(Side::Device, &mut out);
        if self.armed.springs(Trap::DamageReply)
            && let Some(last) = out.last_mut()
        {
            *last ^= 0xff;
        }
        if let Some(at) = self.armed.in_reply(Trap::PowerCut) {
            out.truncate(start.saturating_add(at));
            self.power_cut();
        }
        out
    }

    /// Nobody acknowledged the reply, or somebody asks for it again.
    fn again(&mut self, now: Mono) -> Vec<u8> {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Answering { tries, reply, next, .. } if tries < TRIES => {
                self.say(reply, next, tries.saturating_add(1), Vec::new(), now)
            }
            Role::Answering { .. } | Role::Idle => Vec::new(),
            working @ Role::Working { .. } => {
                self.role = working;
                Vec::new()
            }
        }
    }

    fn on_ack(&mut self, now: Mono) -> Vec<u8> {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Answering { next, .. } => {
                if let Some(work) = next {
                    self.role = Role::Working { due: now.after(MOTOR_MS), work };
                }
                vec![EOT]
            }
            other => {
                self.role = other;
                Vec::new()
            }
        }
    }

    const fn role_due(&self) -> Option<Mono> {
        match &self.role {
            Role::Idle => None,
            Role::Working { due, .. } | Role::Answering { due, .. } => Some(*due),
        }
    }

    fn on_damaged(&self) -> Vec<u8> {
        if matches!(self.role, Role::Working { .. }) { Vec::new() } else { vec![NAK] }
    }
}

impl SimDevice for PuloonSim {
    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        while self.powered
            && let Some(token) = self.decoder.push(&mut bytes)
        {
            out.extend(match token {
                Token::Frame(request) => self.on_frame(request, now),
                Token::Ack => self.on_ack(now),
                Token::Nak => self.again(now),
                Token::Damaged(_) => self.on_damaged(),
                Token::Eot | Token::Item { .. } | Token::Noise(_) => Vec::new(),
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
            out = self.on_damaged();
        }
        if self.role_due().is_some_and(|due| now >= due) {
            out.extend(match std::mem::replace(&mut self.role, Role::Idle) {
                Role::Working { work, .. } => self.work(work, now),
                other => {
                    self.role = other;
                    self.again(now)
                }
            });
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
            Err(Rest::Set(Set { note_ms, tray, keeps_last, strict_serial, resets })) => {
                self.mechanism.note_ms = note_ms.unwrap_or(self.mechanism.note_ms);
                self.mechanism.tray = tray.unwrap_or(self.mechanism.tray);
                self.keeps_last = keeps_last.unwrap_or(self.keeps_last);
                self.strict_serial = strict_serial.unwrap_or(self.strict_serial);
                self.resets = resets.unwrap_or(self.resets);
                return Ok(json!({ "now": now.0 }));
            }
        }
        Ok(json!({}))
    }

    fn counters(&self) -> Value {
        let mut counters = self.mechanism.bays.counters();
        if let Some(fields) = counters.as_object_mut() {
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
