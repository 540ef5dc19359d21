//! What people do to the device.

use super::path::{Place, TroubleKind};
use super::*;
use crate::frame::ccnet::UnitJam;

const EXPECTED: &str = "insert{denomination}, reject_next{reason}, misread_next{denomination}, \
    leave, take, power_off, power_on, stacker_out, stacker_in, collect, stacker_full, jam{where}, \
    cheat, fail{code}, pause, status{code}, clear, silence{replies}, deaf{frames}, deny{frames}, \
    busy{polls}, damage{replies}, power_off_at{byte}, set{option,on}, load{box,notes}, \
    cassette_out{box}, cassette_in{box}, unit_jam{where}, retract, divert_next, \
    retype{box,code}, start_late{ms}, state";

impl CcnetSim {
    pub(super) fn act(&mut self, action: &Value, now: Mono) -> Result<(), SimError> {
        let wrong = || SimError::Action { expected: EXPECTED, got: action.to_string() };
        let text = |name: &str| action.get(name).and_then(Value::as_str).ok_or_else(wrong);
        let number = |name: &str| action.get(name).and_then(Value::as_u64).ok_or_else(wrong);
        let code = |name: &str| u8::from_str_radix(text(name)?, 16).map_err(|_| wrong());
        match text("action")? {
            "insert" => self.insert(number("denomination")?, now)?,
            "reject_next" => self.reject_next = Some(RejectReason::from_code(code("reason")?)),
            "misread_next" => self.misread_next = Some(self.kind(number("denomination")?)?),
            "leave" => self.customer_takes = false,
            "take" => self.take(now),
            "power_off" => self.power_off(),
            "power_off_at" => self.mishaps.bytes_left = Some(number("byte")?),
            "load" => self.load(number("box")?, number("notes")?)?,
            "cassette_out" => self.pull(number("box")?, false)?,
            "cassette_in" => self.pull(number("box")?, true)?,
            "unit_jam" if self.unit.is_some() => {
                self.halt(TroubleKind::UnitJam(UnitJam::from_code(code("where")?)))?;
            }
            "retract" => self.retract()?,
            "retype" => self.retype(number("box")?, code("code")?)?,
            "divert_next" => self.unit.as_mut().ok_or_else(wrong)?.divert_next = true,
            "start_late" => self.unit.as_mut().ok_or_else(wrong)?.starts_after = number("ms")?,
            "power_on" => self.power_on()?,
            "stacker_out" => {
                let inside = self.powered()?;
                self.stop_out();
                self.phase = Phase::Open(inside);
            }
            "stacker_in" => match self.phase {
                Phase::Open(inside) => self.initialize(inside, now),
                _ => return Err(SimError::State("the cassette is in".to_owned())),
            },
            "collect" => self.collect()?,
            "stacker_full" => self.cassette_full = true,
            "jam" => match text("where")? {
                "acceptor" => self.halt(TroubleKind::JamInValidator)?,
                "stacker" => self.halt(TroubleKind::JamInCassette)?,
                _ => return Err(wrong()),
            },
            "cheat" => self.halt(TroubleKind::Cheated)?,
            "fail" => self.halt(TroubleKind::Failure(code("code")?))?,
            "pause" => self.trouble = Some(Trouble { kind: TroubleKind::Pause, present: true }),
            "status" => {
                let kind = TroubleKind::Code(code("code")?);
                self.trouble = Some(Trouble { kind, present: true });
            }
            "clear" => self.clear(),
            "silence" => self.mishaps.silent_replies = number("replies")?,
            "deaf" => self.mishaps.deaf_frames = number("frames")?,
            "deny" => self.denied_frames = number("frames")?,
            "busy" => self.busy_polls = number("polls")?,
            "damage" => self.mishaps.damaged_replies = number("replies")?,
            "set" => {
                let on = action.get("on").and_then(Value::as_bool).ok_or_else(wrong)?;
                let option = match text("option")? {
                    "strict" => &mut self.options.strict,
                    "power_recovery" => &mut self.options.power_recovery,
                    "remembers" => &mut self.options.remembers,
                    "closes_after_note" => &mut self.options.closes_after_note,
                    "says_again" => &mut self.options.says_again,
                    "cheat_passes" => &mut self.options.cheat_passes,
                    "late_credit" => &mut self.options.late_credit,
                    "closes_late" => &mut self.options.closes_late,
                    "tells_counts" => &mut self.options.tells_counts,
                    _ => return Err(wrong()),
                };
                *option = on;
            }
            "state" => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// The bill type of this value.
    fn kind(&self, value: u64) -> Result<u8, SimError> {
        let slot = self.table.iter().find(|s| self.major(s.kind).map(u64::from) == Some(value));
        let got = || SimError::Action {
            expected: "a note of the bill table",
            got: format!("a note of {value}"),
        };
        slot.map(|slot| slot.kind).ok_or_else(got)
    }

    fn insert(&mut self, value: u64, now: Mono) -> Result<(), SimError> {
        let kind = self.kind(value)?;
        match self.state() {
            Some(State::Idling) => {}
            state => {
                let state = state.map_or("OFF".to_owned(), |s| s.to_string());
                return Err(SimError::State(format!("the inlet is closed: {state}")));
            }
        }
        self.tally.inserted = self.tally.inserted.saturating_add(1);
        self.phase = Phase::Accepting { kind, until: now.after(self.timing.accept) };
        Ok(())
    }

    fn take(&mut self, now: Mono) {
        self.customer_takes = true;
        self.take_out(now);
        if let Phase::Rejecting { until, .. } | Phase::Returning { until, .. } = &mut self.phase {
            *until = Some(now);
        }
    }

    /// What is inside a device that has its power.
    fn powered(&self) -> Result<Option<Inside>, SimError> {
        match self.phase {
            Phase::Off(_) => Err(SimError::State("the device is off".to_owned())),
            _ => Ok(self.left_behind()),
        }
    }

    fn power_on(&mut self) -> Result<(), SimError> {
        let Phase::Off(inside) = self.phase else {
            return Err(SimError::State("the device is on".to_owned()));
        };
        (self.enabled, self.escrow) = (Bills::NONE, Bills::NONE);
        self.decoder.clear();
        self.phase = Phase::PowerUp(inside);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), SimError> {
        if !matches!(self.phase, Phase::Open(_)) {
            return Err(SimError::State("the cassette is in: stacker_out first".to_owned()));
        }
        self.cassette_full = false;
        for (kind, count) in std::mem::take(&mut self.tally.cashbox) {
            let collected = self.tally.collected.entry(kind).or_default();
            *collected = collected.saturating_add(count);
        }
        Ok(())
    }

    pub(super) fn power_off(&mut self) {
        self.stop_out();
        self.phase = Phase::Off(self.left_behind());
        self.unconfirmed = None;
        self.mishaps.bytes_left = None;
    }

    pub(super) fn halt(&mut self, kind: TroubleKind) -> Result<(), SimError> {
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
                let jam = matches!(
                    trouble.kind,
                    TroubleKind::JamInValidator
                        | TroubleKind::JamInCassette
                        | TroubleKind::UnitJam(_)
                );
                if jam {
                    self.remove_jammed();
                }
            }
            _ => self.trouble = None,
        }
    }

    /// A note that a person takes out of the stopped device.
    fn remove_jammed(&mut self) {
        self.clear_unit();
        if let Phase::Halted(Some(Inside { place, .. })) = self.phase {
            if place != Place::Unacknowledged {
                self.tally.removed = self.tally.removed.saturating_add(1);
            }
            self.phase = Phase::Halted(None);
        }
    }
}
