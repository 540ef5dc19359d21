//! Notes on their way out of the store.
//!
//! A note that waits in the bezel when the power goes, or when a jam stops everything, stays there:
//! whoever stands there takes it.

use super::*;

/// Between two notes.
const NEXT_MS: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pay,
    Float,
    SmartEmpty,
    Empty,
}

impl Kind {
    /// What is told while it goes on, and at its end.
    const fn codes(self) -> [EventCode; 2] {
        match self {
            Self::Pay => [EventCode::Dispensing, EventCode::Dispensed],
            Self::Float => [EventCode::Floating, EventCode::Floated],
            Self::SmartEmpty => [EventCode::SmartEmptying, EventCode::SmartEmptied],
            Self::Empty => [EventCode::Emptying, EventCode::Emptied],
        }
    }
}

/// A movement.
pub(super) struct Out {
    kind: Kind,
    /// Notes still to come, by channel.
    left: BTreeMap<u8, u16>,
    /// Paid or moved so far, and wanted.
    done: u32,
    wanted: u32,
    stage: Stage,
    pub(super) until: Option<Mono>,
    stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before a note has left the store.
    Fetch,
    Carry(u8),
    Bezel(u8),
}

impl Out {
    pub(super) fn carries(&self) -> bool {
        matches!(self.stage, Stage::Carry(_))
    }
}

/// What a power loss has cut off.
pub(super) struct Cut {
    kind: Kind,
    done: u32,
    wanted: u32,
    stage: Stage,
}

impl Cut {
    pub(super) fn holds_note(&self) -> bool {
        matches!(self.stage, Stage::Carry(_))
    }
}

impl SmartPayoutSim {
    /// Begins a movement of these notes.
    pub(super) fn begin_out(&mut self, kind: Kind, left: BTreeMap<u8, u16>, now: Mono) {
        let worth = |(channel, notes): (&u8, &u16)| {
            self.note(*channel).value.saturating_mul(u32::from(*notes))
        };
        let wanted = left.iter().map(worth).fold(0, u32::saturating_add);
        if kind == Kind::Pay {
            self.payouts = self.payouts.saturating_add(1);
        }
        self.moved.clear();
        let until = Some(now.after(NEXT_MS));
        self.out =
            Some(Out { kind, left, done: 0, wanted, stage: Stage::Fetch, until, stalled: false });
        self.phase = Phase::Out;
    }

    fn sums(&self, value: u32) -> Vec<u8> {
        let country = self.note(1).country;
        [&[1][..], &value.to_le_bytes(), &country].concat()
    }

    fn one(&self, channel: u8) -> Vec<u8> {
        let note = self.note(channel);
        [&note.value.to_le_bytes()[..], &note.country].concat()
    }

    /// What polls tell while notes move.
    pub(super) fn out_events(&self) -> Vec<u8> {
        let Some(out) = &self.out else { return Vec::new() };
        let [goes_on, _] = out.kind.codes();
        let mut events = vec![goes_on.code()];
        if out.kind != Kind::Empty {
            events.extend(self.sums(out.done));
        }
        if let Stage::Bezel(channel) = out.stage {
            events.push(EventCode::InBezel.code());
            events.extend(self.one(channel));
        }
        events
    }

    pub(super) fn at_bezel(&self) -> Option<u8> {
        match self.out.as_ref()?.stage {
            Stage::Bezel(channel) => Some(channel),
            _ => None,
        }
    }

    /// The next thing that time brings.
    pub(super) fn move_out(&mut self, at: Mono) {
        let Some(mut out) = self.out.take() else { return };
        let next = out.left.iter().find(|(_, notes)| **notes > 0).map(|(channel, _)| *channel);
        match out.stage {
            Stage::Fetch => {
                let Some(channel) = next else {
                    let [_, end] = out.kind.codes();
                    return self.finish(&out, end);
                };
                let value = self.note(channel).value;
                let held = self.tally.store.entry(channel).or_default();
                let Some(left) = held.checked_sub(1) else {
                    return self.finish(&out, EventCode::TimeOut);
                };
                *held = left;
                let level = self.levels.entry(value).or_default();
                *level = level.saturating_sub(1);
                out.stage = Stage::Carry(channel);
                out.until = Some(at.after(self.timing.carry));
            }
            Stage::Carry(channel) if std::mem::take(&mut self.misread) => {
                let mut error = self.sums(out.done);
                error.push(0);
                self.announce(EventCode::PayoutError, &error);
                self.put_aside(channel);
                out.stage = Stage::Fetch;
                out.until = Some(at.after(NEXT_MS));
            }
            Stage::Carry(channel) if out.kind == Kind::Pay => {
                out.stage = Stage::Bezel(channel);
                out.until = self.customer_takes.then(|| at.after(self.timing.take));
            }
            Stage::Carry(channel) | Stage::Bezel(channel) => {
                let moved = self.note(channel).value;
                out.done = out.done.saturating_add(moved);
                if out.kind == Kind::Pay {
                    count(&mut self.tally.given, channel);
                } else {
                    count(&mut self.tally.cashbox, channel);
                    let notes = self.moved.entry(moved).or_default();
                    *notes = notes.saturating_add(1);
                }
                if let Some(notes) = out.left.get_mut(&channel) {
                    *notes = notes.saturating_sub(1);
                }
                out.stage = Stage::Fetch;
                out.until = Some(at.after(NEXT_MS));
            }
        }
        self.out = Some(out);
    }

    fn finish(&mut self, out: &Out, end: EventCode) {
        let sums = if end == EventCode::Emptied { Vec::new() } else { self.sums(out.done) };
        self.announce(end, &sums);
        self.phase = Phase::Idle;
        if self.options.closes_after_payout {
            self.settings.enabled = false;
        }
    }

    fn put_aside(&mut self, channel: u8) {
        count(&mut self.tally.cashbox, channel);
        let one = self.one(channel);
        self.announce(EventCode::Transferred, &one);
    }

    /// HALT: what is on its way, or waits in the bezel, goes to the cashbox.
    pub(super) fn halt_out(&mut self) -> bool {
        let Some(out) = self.out.take_if(|out| !out.stalled) else { return false };
        if let Stage::Carry(channel) | Stage::Bezel(channel) = out.stage {
            self.put_aside(channel);
        }
        self.finish(&out, EventCode::Halted);
        true
    }

    /// Nothing moves on.
    pub(super) fn stall(&mut self) -> Result<(), SimError> {
        let nothing = || SimError::State("no notes are on their way out".to_owned());
        let out = self.out.as_mut().ok_or_else(nothing)?;
        (out.until, out.stalled) = (None, true);
        Ok(())
    }

    pub(super) fn go_on(&mut self, now: Mono) {
        if let Some(out) = self.out.as_mut().filter(|out| out.stalled) {
            (out.until, out.stalled) = (Some(now), false);
        }
    }

    /// The customer takes the note in the bezel.
    pub(super) fn take_out(&mut self, now: Mono) {
        if let Some(Out { stage: Stage::Bezel(_), until, .. }) = &mut self.out {
            *until = Some(now);
        }
    }

    /// Power or RESET ends a movement.
    pub(super) fn cut_off(&mut self) {
        let Some(Out { kind, done, wanted, stage, .. }) = self.out.take() else { return };
        if let Stage::Bezel(channel) = stage {
            count(&mut self.tally.given, channel);
        }
        self.cut = Some(Cut { kind, done, wanted, stage });
        if !self.options.remembers
            && let Stage::Carry(channel) = stage
        {
            count(&mut self.tally.cashbox, channel);
        }
    }

    /// What a power loss has cut off is told at the next start.
    pub(super) fn tell_cut(&mut self) {
        let Some(Cut { kind, done, wanted, stage }) = self.cut.take() else { return };
        match stage {
            Stage::Fetch => {}
            Stage::Carry(channel) => {
                count(&mut self.tally.cashbox, channel);
                let one = self.one(channel);
                self.announce(EventCode::IntoCashboxAtReset, &one);
            }
            Stage::Bezel(channel) => {
                let one = self.one(channel);
                self.announce(EventCode::DispensedAtReset, &one);
            }
        }
        let [_, amount @ ..] = &*self.sums(done) else { return };
        let (done, country) = amount.split_at_checked(4).unwrap_or((amount, &[]));
        let pair = [&[1][..], done, &wanted.to_le_bytes(), country].concat();
        let code = match kind {
            Kind::Pay => EventCode::IncompletePayout,
            _ => EventCode::IncompleteFloat,
        };
        self.announce(code, &pair);
    }

    /// A jam in the payout: a note on its way is stuck there.
    pub(super) fn jam_out(&mut self) {
        let Some(out) = self.out.take() else { return };
        let inside = match out.stage {
            Stage::Fetch => None,
            Stage::Carry(channel) => Some(path::Inside { channel, place: path::Place::Transport }),
            Stage::Bezel(channel) => {
                count(&mut self.tally.given, channel);
                None
            }
        };
        self.finish(&out, EventCode::Jammed);
        self.phase = Phase::Halted(inside);
    }
}
