//! What the device answers.

use super::path::Place;
use super::*;
use crate::frame::id003::{CommMode, ConfigKind, Frame, Request};

impl Id003Sim {
    pub(super) fn on_frame(&mut self, frame: &Frame, now: Mono, out: &mut Vec<u8>) {
        if self.mishaps.is_deaf() {
            return;
        }
        let request = Request::parse(frame);
        if matches!(self.phase, Phase::Off(_)) || (self.is_stuck(now) && request != Request::Reset)
        {
            return;
        }
        match request {
            Request::StatusRequest => self.on_poll(now, out),
            Request::Version => self.tell(&Reply::Version(self.version.clone().as_bytes()), out),
            Request::BootVersion => self.tell(&Reply::BootVersion(b"B01"), out),
            Request::UnitInformation => self.tell(&Reply::UnitInformation(b"SIM"), out),
            Request::CurrencyAssign => self.tell_table(out),
            Request::Get(kind) => {
                let value = self.value(kind);
                self.send(&Reply::ReadBack(value), out);
            }
            Request::Ack => self.on_ack(now),
            Request::Set(config) => {
                let taken = self.set(config);
                self.send(&if taken { Reply::Echo(config) } else { Reply::InvalidCommand }, out);
            }
            Request::Unknown { raw } if self.boxes.is_some() && raw.op() == 0xf0 => {
                self.on_extension(raw, now, out);
            }
            Request::Unknown { .. } => self.send(&Reply::InvalidCommand, out),
            Request::Reset
            | Request::Stack1
            | Request::Stack2
            | Request::Stack3
            | Request::Return
            | Request::Hold
            | Request::Wait => {
                let taken = self.obey(request, now);
                self.send(if taken { &Reply::Ack } else { &Reply::InvalidCommand }, out);
            }
        }
    }

    fn on_poll(&mut self, now: Mono, out: &mut Vec<u8>) {
        self.last_poll = now;
        let Some(status) = self.status() else { return };
        self.announced = status;
        if let Some(state) = self.pay_state() {
            return self.send_frame(&state.frame(), out);
        }
        let open = self.escrow.as_ref().is_some_and(|escrow| escrow.decided_at.is_none());
        match (status, open) {
            (Status::Escrow(_), false) => {
                self.escrow = Some(Decision { told_at: now, decided_at: None });
            }
            (Status::Escrow(_) | Status::Holding, true) | (_, false) => {}
            // it was given back before anything was decided
            (_, true) => self.escrow = None,
        }
        match self.trouble {
            Some(Trouble { kind: path::TroubleKind::Code(code), .. }) => {
                let raw = Frame::new(code, &[]);
                self.send(&Reply::Unknown { raw: &raw }, out);
            }
            _ => self.send(&Reply::Status(status), out),
        }
    }

    /// An answer that strict firmware gives only while no note moves.
    fn tell(&mut self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let moves =
            !matches!(self.phase, Phase::PowerUp(_) | Phase::Initializing { .. } | Phase::Idle);
        let refused = self.options.strict && moves;
        self.send(if refused { &Reply::InvalidCommand } else { reply }, out);
    }

    fn tell_table(&mut self, out: &mut Vec<u8>) {
        let slots = self.table.iter().flat_map(|s| [s.code, s.country, s.value, s.exponent]);
        let frame = Frame::new(0x8a, &slots.collect::<Vec<u8>>());
        self.tell(&Reply::parse(&frame), out);
    }

    pub(super) fn send(&mut self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        self.send_frame(&reply.frame(), out);
    }

    pub(super) fn send_frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        if !self.mishaps.say(out, |out| frame.write_to(out)) {
            self.power_off();
        }
    }

    fn on_ack(&mut self, now: Mono) {
        if let Phase::Out(out) = self.phase {
            return self.out_acknowledged(out, now);
        }
        let Phase::VendValid { code, boxed, .. } = self.phase else { return };
        if !boxed {
            self.store(code);
        }
        self.tally.acknowledged = self.tally.acknowledged.saturating_add(1);
        let to = self.boxes.as_ref().map_or(0, |boxes| boxes.last);
        self.phase = Phase::Stacked { until: now.after(self.timing.stacked), to };
    }

    fn obey(&mut self, request: Request<'_>, now: Mono) -> bool {
        if let (Phase::Escrow { .. }, Some(boxes)) = (self.phase, &mut self.boxes) {
            boxes.bypassed = request == Request::Stack3;
        }
        self.phase = match (request, self.phase) {
            (Request::Reset, _) => return self.reset(now),
            (Request::Stack1, Phase::Escrow { code, .. }) => {
                let until = now.after(self.timing.stack / 2);
                Phase::Stacking { code, until, lever: true }
            }
            (Request::Stack2 | Request::Stack3, Phase::Escrow { code, .. }) => {
                Phase::Stacking { code, until: now.after(self.timing.stack), lever: false }
            }
            (Request::Return, Phase::Escrow { code, .. }) => self.give_back(code, None, true, now),
            (Request::Hold, Phase::Escrow { code, .. }) => {
                Phase::Escrow { code, until: now.after(ESCROW_MS), held: true }
            }
            (Request::Wait, Phase::Escrow { code, until, held }) => {
                Phase::Escrow { code, until: until.after(WAIT_MS), held }
            }
            _ => return false,
        };
        let decides = !matches!(request, Request::Hold | Request::Wait);
        if let Some(escrow) = self.escrow.as_mut().filter(|_| decides) {
            escrow.decided_at = Some(now);
        }
        true
    }

    /// RESET during VEND VALID forgets the credit: the note stays in the cashbox.
    fn reset(&mut self, now: Mono) -> bool {
        let jammed = self.is_jammed();
        let inside = match self.phase {
            Phase::Open(_) => return true,
            Phase::VendValid { code, boxed: false, .. } => {
                self.store(code);
                None
            }
            Phase::Out(_) if jammed => return true,
            Phase::Out(out) => {
                self.break_off(out);
                None
            }
            Phase::VendValid { .. } => None,
            _ => self.left_behind(),
        };
        self.initialize(inside, now);
        true
    }

    pub(super) fn initialize(&mut self, inside: Option<Inside>, now: Mono) {
        self.settings = Settings::default();
        self.phase = Phase::Initializing { inside, until: now.after(self.timing.initialize) };
    }

    fn set(&mut self, config: Config) -> bool {
        let kind = config.kind();
        let only_early =
            matches!(kind, ConfigKind::Security | ConfigKind::Direction | ConfigKind::Optional);
        match self.phase {
            Phase::Initializing { .. } => {}
            Phase::Idle if !self.options.strict && !only_early => {}
            _ => return false,
        }
        match config {
            Config::Denominations { disabled } => self.settings.disabled = disabled,
            Config::Inhibit(inhibit) => self.settings.inhibit = inhibit,
            Config::Optional(bits) => self.settings.optional = bits,
            Config::Mode(mode) => self.settings.polled = mode == CommMode::Poll,
            _ => {}
        }
        self.settings.echoed.retain(|known| known.kind() != kind);
        self.settings.echoed.push(config);
        true
    }

    fn value(&self, kind: ConfigKind) -> Config {
        let echoed = self.settings.echoed.iter().find(|known| known.kind() == kind);
        echoed.copied().unwrap_or(match kind {
            ConfigKind::Denominations => Config::Denominations { disabled: self.settings.disabled },
            ConfigKind::Security => Config::Security(0),
            ConfigKind::Mode => Config::Mode(CommMode::Poll),
            ConfigKind::Inhibit => Config::Inhibit(self.settings.inhibit),
            ConfigKind::Direction => Config::Direction(0),
            ConfigKind::Optional => Config::Optional(0),
            ConfigKind::Barcode => Config::Barcode([0, 0]),
            ConfigKind::BarcodeInhibit => Config::BarcodeInhibit(0),
        })
    }

    /// In interrupt mode: a state that no poll and no ENQ has shown yet.
    pub(super) fn to_announce(&self) -> Option<Status> {
        self.status().filter(|status| !self.settings.polled && *status != self.announced)
    }

    /// A note that a person takes out of the stopped device.
    pub(super) fn remove_jammed(&mut self) {
        if let Phase::Halted(Some(Inside { place, .. })) = self.phase {
            if place != Place::Unacknowledged {
                self.tally.removed = self.tally.removed.saturating_add(1);
            }
            self.phase = Phase::Halted(None);
        }
    }
}
