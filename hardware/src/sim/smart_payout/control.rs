//! What people do to the device.

use super::*;

const EXPECTED: &str = "insert{denomination}, reject_next{reason}, leave, take, \
    power_off, power_off_at{byte}, power_on, stacker_out, stacker_in, collect, stacker_full, jam{where}, \
    cheat, misread, clear, silence{replies}, deaf{frames}, damage{replies}, set{option,on}, \
    load{box,notes}, short{box,notes}, code{code}, odd_order{code}, stall, \
    rekey{on}, replace, state";

/// A fixed key that nobody told the host.
const OTHER_KEY: u64 = 0x7654_3210_7654_3210;

impl SmartPayoutSim {
    pub(super) fn act(&mut self, action: &Value, now: Mono) -> Result<(), SimError> {
        let wrong = || SimError::Action { expected: EXPECTED, got: action.to_string() };
        let text = |name: &str| action.get(name).and_then(Value::as_str).ok_or_else(wrong);
        let number = |name: &str| action.get(name).and_then(Value::as_u64).ok_or_else(wrong);
        let code = |name: &str| u8::from_str_radix(text(name)?, 16).map_err(|_| wrong());
        match text("action")? {
            "insert" => self.insert(number("denomination")?, now)?,
            "reject_next" => self.reject_next = Some(RejectReason::from_code(code("reason")?)),
            "leave" => self.customer_takes = false,
            "take" => {
                self.customer_takes = true;
                self.take_out(now);
            }
            "power_off" => self.lose_power(),
            "power_off_at" => self.link.mishaps.bytes_left = Some(number("byte")?),
            "power_on" => {
                if !matches!(self.phase, Phase::Off(_)) {
                    return Err(SimError::State("the device is on".to_owned()));
                }
                self.start(now);
            }
            "stacker_out" => self.stacker_out()?,
            "stacker_in" => self.stacker_in(now)?,
            "collect" => self.collect()?,
            "stacker_full" => self.cashbox_full = true,
            "jam" => match text("where")? {
                "acceptor" => self.jam_inlet()?,
                "payout" => self.jam_payout()?,
                _ => return Err(wrong()),
            },
            "cheat" => {
                self.powered()?;
                self.announce(EventCode::Fraud, &[0]);
            }
            "misread" => self.misread = true,
            "clear" => self.clear(now),
            "silence" => self.link.mishaps.silent_replies = number("replies")?,
            "deaf" => self.link.mishaps.deaf_frames = number("frames")?,
            "damage" => self.link.mishaps.damaged_replies = number("replies")?,
            "set" => {
                let on = action.get("on").and_then(Value::as_bool).ok_or_else(wrong)?;
                let option = match text("option")? {
                    "remembers" => &mut self.options.remembers,
                    "flaky_levels" => &mut self.options.flaky_levels,
                    "closes_after_payout" => &mut self.options.closes_after_payout,
                    "says_starting" => &mut self.options.says_starting,
                    "old_protocol" => &mut self.options.old_protocol,
                    "says_unread" => &mut self.options.says_unread,
                    _ => return Err(wrong()),
                };
                *option = on;
            }
            "load" => {
                let (channel, notes) = (self.boxed(number("box")?)?, number("notes")?);
                for _ in 0..notes {
                    count(&mut self.tally.store, channel);
                    let level = self.levels.entry(self.note(channel).value).or_default();
                    *level = level.saturating_add(1);
                }
            }
            "short" => {
                let (channel, notes) = (self.boxed(number("box")?)?, number("notes")?);
                let notes = u32::try_from(notes).map_err(|_| wrong())?;
                let held = self.tally.store.entry(channel).or_default();
                let gone = notes.min(*held);
                *held = held.saturating_sub(gone);
                self.tally.removed = self.tally.removed.saturating_add(gone);
            }
            "code" => self.extra_code = Some(code("code")?),
            "odd_order" => self.odd_order = Some(code("code")?),
            "stall" => self.stall()?,
            "rekey" => {
                let on = action.get("on").and_then(Value::as_bool).ok_or_else(wrong)?;
                self.fixed = if on { FixedKey::new(OTHER_KEY) } else { FixedKey::default() };
                // it starts with it
                self.link.forget();
            }
            "replace" => {
                if !matches!(self.phase, Phase::Off(_)) {
                    return Err(SimError::State("the device is on: power_off first".to_owned()));
                }
                self.replaced = self.replaced.wrapping_add(1);
            }
            "state" => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn powered(&self) -> Result<(), SimError> {
        match self.phase {
            Phase::Off(_) => Err(SimError::State("the device is off".to_owned())),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, value: u64, now: Mono) -> Result<(), SimError> {
        let known = (1..).zip(&self.notes).map(|(channel, _)| channel);
        let channel = { known }.find(|c| self.major(*c).map(u64::from) == Some(value));
        let Some(channel) = channel else {
            let got = format!("a note of {value}");
            return Err(SimError::Action { expected: "a note of the table", got });
        };
        let open = self.settings.enabled && self.settings.inhibits != 0 && !self.cashbox_out;
        if self.phase != Phase::Idle || !open {
            let state = self.phase.name();
            return Err(SimError::State(format!("the inlet is closed: {state}")));
        }
        self.tally.inserted = self.tally.inserted.saturating_add(1);
        self.phase = Phase::Reading { channel, until: now.after(self.timing.read) };
        Ok(())
    }

    /// The channel of a kind that the store keeps.
    fn boxed(&self, number: u64) -> Result<u8, SimError> {
        let wrong = || SimError::State("the store was not told to keep so many kinds".to_owned());
        let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).ok_or_else(wrong)?;
        self.kept().get(at).copied().ok_or_else(wrong)
    }

    fn stacker_out(&mut self) -> Result<(), SimError> {
        self.powered()?;
        self.cashbox_out = true;
        if matches!(
            self.phase,
            Phase::Reading { .. } | Phase::Escrow { .. } | Phase::Stacking { .. }
        ) {
            self.phase = Phase::Halted(self.left_behind());
        }
        Ok(())
    }

    fn stacker_in(&mut self, now: Mono) -> Result<(), SimError> {
        if !std::mem::take(&mut self.cashbox_out) {
            return Err(SimError::State("the cashbox is in".to_owned()));
        }
        if matches!(self.phase, Phase::Halted(_)) {
            // it begins anew by itself
            self.forget();
            self.start(now);
        }
        self.told.push(EventCode::CashboxReplaced.code());
        Ok(())
    }

    fn collect(&mut self) -> Result<(), SimError> {
        if !self.cashbox_out {
            return Err(SimError::State("the cashbox is in: stacker_out first".to_owned()));
        }
        self.cashbox_full = false;
        for (channel, count) in std::mem::take(&mut self.tally.cashbox) {
            let collected = self.tally.collected.entry(channel).or_default();
            *collected = collected.saturating_add(count);
        }
        Ok(())
    }

    fn jam_inlet(&mut self) -> Result<(), SimError> {
        let code = match self.phase {
            Phase::Reading { .. } | Phase::Escrow { .. } | Phase::Rejecting { .. } => {
                EventCode::UnsafeJam
            }
            Phase::Stacking { .. } | Phase::Idle => EventCode::SafeJam,
            _ => return Err(SimError::State("no note can be stuck in the acceptor".to_owned())),
        };
        self.trouble = Some(Trouble { code, present: true });
        self.phase = Phase::Halted(self.left_behind());
        Ok(())
    }

    fn jam_payout(&mut self) -> Result<(), SimError> {
        if !matches!(self.phase, Phase::Idle | Phase::Out) {
            return Err(SimError::State("a note is in the acceptor".to_owned()));
        }
        self.phase = Phase::Halted(None);
        self.jam_out();
        self.trouble = Some(Trouble { code: EventCode::OutOfService, present: true });
        Ok(())
    }

    fn clear(&mut self, now: Mono) {
        self.extra_code = None;
        self.go_on(now);
        if let Some(trouble) = &mut self.trouble {
            trouble.present = false;
        }
        if let Phase::Halted(inside) = &mut self.phase
            && inside.take().is_some()
        {
            self.tally.removed = self.tally.removed.saturating_add(1);
        }
    }
}
