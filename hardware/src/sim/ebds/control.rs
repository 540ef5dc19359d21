//! What people do to the device.

use super::path::TroubleKind;
use super::*;

const EXPECTED: &str = "insert{denomination}, reject_next, classify_next{class}, \
    misread{denomination}, leave, take, power_off, power_off_at{byte}, power_on, stacker_out, stacker_in, collect, \
    stacker_full, jam, cheat, fail, pause, status{code}, clear, silence{replies}, deaf{frames}, \
    damage{replies}, set{option,on}, state";

impl EbdsSim {
    pub(super) fn act(&mut self, action: &Value, now: Mono) -> Result<(), SimError> {
        let wrong = || SimError::Action { expected: EXPECTED, got: action.to_string() };
        let text = |name: &str| action.get(name).and_then(Value::as_str).ok_or_else(wrong);
        let number = |name: &str| action.get(name).and_then(Value::as_u64).ok_or_else(wrong);
        let code = |name: &str| u8::from_str_radix(text(name)?, 16).map_err(|_| wrong());
        match text("action")? {
            "insert" => self.insert(number("denomination")?, now)?,
            "reject_next" => self.reject_next = true,
            "classify_next" => self.class_next = Classification::from_code(code("class")?),
            "misread" => self.misread = Some(self.index_of(number("denomination")?)?),
            "leave" => self.customer_takes = false,
            "take" => self.take(now),
            "power_off" => self.power_off(),
            "power_off_at" => self.mishaps.bytes_left = Some(number("byte")?),
            "power_on" => self.power_on(now)?,
            "stacker_out" => self.phase = Phase::Open(self.powered()?),
            "stacker_in" => self.stacker_in(now)?,
            "collect" => self.collect()?,
            "stacker_full" => self.cashbox_full = true,
            "jam" => self.halt(TroubleKind::Jam)?,
            "cheat" => self.halt(TroubleKind::Cheated)?,
            "fail" => self.halt(TroubleKind::Failure)?,
            "pause" => self.trouble = Some(Trouble { kind: TroubleKind::Pause, present: true }),
            "status" => {
                let kind = TroubleKind::Code(code("code")?);
                self.trouble = Some(Trouble { kind, present: true });
            }
            "clear" => self.clear(now),
            "silence" => self.mishaps.silent_replies = number("replies")?,
            "deaf" => self.mishaps.deaf_frames = number("frames")?,
            "damage" => self.mishaps.damaged_replies = number("replies")?,
            "set" => {
                let on = action.get("on").and_then(Value::as_bool).ok_or_else(wrong)?;
                let option = match text("option")? {
                    "extended" => &mut self.options.extended,
                    "long_inhibits" => &mut self.options.long_inhibits,
                    "reports_once" => &mut self.options.reports_once,
                    "says_value" => &mut self.options.says_value,
                    "stale_value" => &mut self.options.stale_value,
                    "blank_stack" => &mut self.options.blank_stack,
                    "repeats" => &mut self.options.repeats,
                    "remembers" => &mut self.options.remembers,
                    "closed_is_zero" => &mut self.options.closed_is_zero,
                    "returns_unpolled" => &mut self.options.returns_unpolled,
                    _ => return Err(wrong()),
                };
                *option = on;
            }
            "state" => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn index_of(&self, value: u64) -> Result<u8, SimError> {
        let fits = |report: &&NoteReport| self.major(report.index()).map(u64::from) == Some(value);
        let known = self.table.iter().find(fits).map(NoteReport::index);
        let (expected, got) = ("a note of the note table", format!("a note of {value}"));
        known.ok_or(SimError::Action { expected, got })
    }

    fn insert(&mut self, value: u64, now: Mono) -> Result<(), SimError> {
        let index = self.index_of(value)?;
        if !self.is_open(now) {
            return Err(SimError::State(format!("the inlet is closed: {}", self.in_words())));
        }
        self.tally.inserted = self.tally.inserted.saturating_add(1);
        self.phase = Phase::Accepting { index, until: now.after(self.timing.accept) };
        Ok(())
    }

    fn take(&mut self, now: Mono) {
        self.customer_takes = true;
        if let Phase::GivingBack { until, .. } = &mut self.phase {
            *until = Some(now);
        }
    }

    /// What the running device has inside.
    fn powered(&self) -> Result<Option<Inside>, SimError> {
        match self.phase {
            Phase::Off(_) => Err(SimError::State("the device is off".to_owned())),
            _ => Ok(self.left_behind()),
        }
    }

    pub(super) fn power_off(&mut self) {
        self.phase = Phase::Off(self.left_behind());
        self.mishaps.bytes_left = None;
    }

    fn power_on(&mut self, now: Mono) -> Result<(), SimError> {
        let Phase::Off(inside) = self.phase else {
            return Err(SimError::State("the device is on".to_owned()));
        };
        self.boot(inside, now);
        Ok(())
    }

    fn stacker_in(&mut self, now: Mono) -> Result<(), SimError> {
        let Phase::Open(inside) = self.phase else {
            return Err(SimError::State("the cashbox is in".to_owned()));
        };
        if self.options.blank_stack && self.once.stacked.is_none() {
            self.once.stacked = Some((None, false));
        }
        self.go_on(inside, now);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), SimError> {
        if !matches!(self.phase, Phase::Open(_)) {
            return Err(SimError::State("the cashbox is in: stacker_out first".to_owned()));
        }
        self.cashbox_full = false;
        for (index, count) in std::mem::take(&mut self.tally.cashbox) {
            let collected = self.tally.collected.entry(index).or_default();
            *collected = collected.saturating_add(count);
        }
        Ok(())
    }

    fn halt(&mut self, kind: TroubleKind) -> Result<(), SimError> {
        let inside = self.powered()?;
        self.trouble = Some(Trouble { kind, present: true });
        self.phase = Phase::Halted(inside);
        Ok(())
    }

    fn clear(&mut self, now: Mono) {
        let Some(trouble) = &mut self.trouble else { return };
        trouble.present = false;
        let Trouble { kind, .. } = *trouble;
        let mut inside = match self.phase {
            Phase::Halted(inside) => inside,
            _ => None,
        };
        if kind == TroubleKind::Jam && self.inside().is_some() {
            self.tally.removed = self.tally.removed.saturating_add(1);
            inside = None;
            self.phase = Phase::Halted(None);
        }
        if kind == TroubleKind::Failure {
            return;
        }
        self.trouble = None;
        if matches!(self.phase, Phase::Halted(_)) {
            self.go_on(inside, now);
        }
    }
}
