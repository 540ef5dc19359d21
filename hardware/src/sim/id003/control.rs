//! What people do to the device.

use super::path::TroubleKind;
use super::*;
use crate::frame::id003::FailureCode;

const EXPECTED: &str = "insert{denomination}, reject_next{reason}, leave, take, power_off, \
    power_off_at{byte}, power_on, stacker_out, stacker_in, collect, stacker_full, jam{where}, cheat, comm_error, \
    fail{code}, pause, status{code}, clear, silence{replies}, deaf{frames}, damage{replies}, \
    set{option,on}, load{box,notes}, recycler_jam, state";

impl Id003Sim {
    pub(super) fn act(&mut self, action: &Value, now: Mono) -> Result<(), SimError> {
        let wrong = || SimError::Action { expected: EXPECTED, got: action.to_string() };
        let text = |name: &str| action.get(name).and_then(Value::as_str).ok_or_else(wrong);
        let number = |name: &str| action.get(name).and_then(Value::as_u64).ok_or_else(wrong);
        let code = |name: &str| u8::from_str_radix(text(name)?, 16).map_err(|_| wrong());
        match text("action")? {
            "insert" => self.insert(number("denomination")?, now)?,
            "reject_next" => self.reject_next = Some(RejectReason::from_code(code("reason")?)),
            "leave" => self.customer_takes = false,
            "take" => self.take(now),
            "power_off" => self.power_off(),
            "power_off_at" => self.mishaps.bytes_left = Some(number("byte")?),
            "power_on" => self.power_on()?,
            "stacker_out" => {
                let inside = self.powered()?;
                self.stop_out();
                self.phase = Phase::Open(inside);
            }
            "load" => self.load(number("box")?, number("notes")?)?,
            "recycler_jam" => self.recycler_jam()?,
            "stacker_in" => self.stacker_in(now)?,
            "collect" => self.collect()?,
            "stacker_full" => self.cashbox_full = true,
            "jam" => match text("where")? {
                "acceptor" => self.halt(TroubleKind::JamInAcceptor)?,
                "stacker" => self.halt(TroubleKind::JamInStacker)?,
                _ => return Err(wrong()),
            },
            "cheat" => self.halt(TroubleKind::Cheated)?,
            "comm_error" => self.halt(TroubleKind::CommError)?,
            "fail" => self.halt(TroubleKind::Failure(FailureCode::from_code(code("code")?)))?,
            "pause" => self.trouble = Some(Trouble { kind: TroubleKind::Pause, present: true }),
            "status" => {
                let kind = TroubleKind::Code(code("code")?);
                self.trouble = Some(Trouble { kind, present: true });
            }
            "clear" => self.clear(),
            "silence" => self.mishaps.silent_replies = number("replies")?,
            "deaf" => self.mishaps.deaf_frames = number("frames")?,
            "damage" => self.mishaps.damaged_replies = number("replies")?,
            "set" => {
                let on = action.get("on").and_then(Value::as_bool).ok_or_else(wrong)?;
                let option = match text("option")? {
                    "strict" => &mut self.options.strict,
                    "says_note" => &mut self.options.says_note,
                    "power_recovery" => &mut self.options.power_recovery,
                    "remembers" => &mut self.options.remembers,
                    "closes_after_note" => &mut self.options.closes_after_note,
                    _ => return Err(wrong()),
                };
                *option = on;
            }
            "state" => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn insert(&mut self, value: u64, now: Mono) -> Result<(), SimError> {
        let slot = self.table.iter().find(|s| self.major(s.code).map(u64::from) == Some(value));
        let Some(code) = slot.map(|s| s.code) else {
            let got = format!("a note of {value}");
            return Err(SimError::Action { expected: "a note of the currency table", got });
        };
        match self.status() {
            Some(Status::Idling) => {}
            status => {
                let state = status.map_or("OFF".to_owned(), |s| s.to_string());
                return Err(SimError::State(format!("the inlet is closed: {state}")));
            }
        }
        self.tally.inserted = self.tally.inserted.saturating_add(1);
        // the device watches for polls from here on
        self.last_poll = now;
        self.phase = Phase::Accepting { code, until: now.after(self.timing.accept) };
        Ok(())
    }

    fn take(&mut self, now: Mono) {
        self.customer_takes = true;
        if let Phase::GivingBack { until, .. } = &mut self.phase {
            *until = Some(now);
        }
        self.take_out(now);
    }

    /// What the running device has inside.
    fn powered(&self) -> Result<Option<Inside>, SimError> {
        match self.phase {
            Phase::Off(_) => Err(SimError::State("the device is off".to_owned())),
            _ => Ok(self.left_behind()),
        }
    }

    pub(super) fn power_off(&mut self) {
        let inside = self.left_behind();
        self.stop_out();
        self.phase = Phase::Off(inside);
        self.mishaps.bytes_left = None;
    }

    fn power_on(&mut self) -> Result<(), SimError> {
        let Phase::Off(inside) = self.phase else {
            return Err(SimError::State("the device is on".to_owned()));
        };
        self.settings = Settings::default();
        self.decoder.clear();
        self.phase = Phase::PowerUp(inside);
        Ok(())
    }

    fn stacker_in(&mut self, now: Mono) -> Result<(), SimError> {
        let Phase::Open(inside) = self.phase else {
            return Err(SimError::State("the cashbox is in".to_owned()));
        };
        self.initialize(inside, now);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), SimError> {
        if !matches!(self.phase, Phase::Open(_)) {
            return Err(SimError::State("the cashbox is in: stacker_out first".to_owned()));
        }
        self.cashbox_full = false;
        for (code, count) in std::mem::take(&mut self.tally.cashbox) {
            let collected = self.tally.collected.entry(code).or_default();
            *collected = collected.saturating_add(count);
        }
        Ok(())
    }

    fn halt(&mut self, kind: TroubleKind) -> Result<(), SimError> {
        let inside = self.powered()?;
        self.stop_out();
        self.trouble = Some(Trouble { kind, present: true });
        self.phase = Phase::Halted(inside);
        Ok(())
    }

    fn clear(&mut self) {
        match &mut self.trouble {
            Some(trouble) if trouble.kind.stops() => {
                trouble.present = false;
                let jam =
                    matches!(trouble.kind, TroubleKind::JamInAcceptor | TroubleKind::JamInStacker);
                if jam {
                    self.remove_jammed();
                }
            }
            _ => self.trouble = None,
        }
        self.clear_recycler();
    }
}
