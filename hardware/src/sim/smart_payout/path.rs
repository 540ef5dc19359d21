//! A note on its way in, and how time moves everything.

use super::*;

/// The host decides about a note in escrow within this time, or says HOLD.
const ESCROW_MS: u64 = 10_000;

/// A note in the path that power, RESET or a fault has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) channel: u8,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the point of no return: it is given back.
    Inlet,
    /// Past it: it goes into the cashbox.
    Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Off(Option<Inside>),
    Starting {
        inside: Option<Inside>,
        until: Mono,
    },
    Idle,
    Reading {
        channel: u8,
        until: Mono,
    },
    /// `told`: the next poll accepts it.
    Escrow {
        channel: u8,
        told: bool,
        until: Mono,
    },
    Stacking {
        channel: u8,
        credited: bool,
        until: Mono,
    },
    Rejecting {
        was_escrow: bool,
        until: Mono,
    },
    /// Notes go out.
    Out,
    /// Stopped by a trouble; only RESET goes on.
    Halted(Option<Inside>),
}

impl Phase {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Off(_) => "OFF",
            Self::Starting { .. } => "STARTING",
            Self::Idle => "IDLE",
            Self::Reading { .. } => "READING",
            Self::Escrow { .. } => "ESCROW",
            Self::Stacking { .. } => "STACKING",
            Self::Rejecting { .. } => "REJECTING",
            Self::Out => "MOVING",
            Self::Halted(_) => "HALTED",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What polls tell of it.
    pub(super) code: EventCode,
    /// Its cause is still there.
    pub(super) present: bool,
}

impl SmartPayoutSim {
    /// When time brings the next thing.
    pub(super) fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Starting { until, .. }
            | Phase::Reading { until, .. }
            | Phase::Escrow { until, .. }
            | Phase::Stacking { until, .. }
            | Phase::Rejecting { until, .. } => Some(until),
            Phase::Out => self.out.as_ref().and_then(|out| out.until),
            Phase::Off(_) | Phase::Idle | Phase::Halted(_) => None,
        }
    }

    pub(super) fn advance(&mut self, now: Mono) {
        while let Some(at) = self.due().filter(|at| *at <= now) {
            self.phase = match self.phase {
                Phase::Starting { inside, .. } => self.started(inside),
                Phase::Reading { channel, .. } => self.was_read(channel, at),
                // nobody has decided
                Phase::Escrow { .. } => self.reject(RejectReason::TimeOut, true, at),
                Phase::Stacking { channel, credited: false, .. } => {
                    self.announce(EventCode::Credit, &[channel]);
                    let until = at.after(self.timing.stack.div_ceil(2));
                    Phase::Stacking { channel, credited: true, until }
                }
                Phase::Stacking { channel, .. } => {
                    self.put_away(channel);
                    Phase::Idle
                }
                Phase::Rejecting { was_escrow, .. } => {
                    let place = if was_escrow {
                        &mut self.tally.returned
                    } else {
                        &mut self.tally.rejected
                    };
                    *place = place.saturating_add(1);
                    self.told.push(EventCode::Rejected.code());
                    Phase::Idle
                }
                Phase::Out => {
                    self.move_out(at);
                    continue;
                }
                other => other,
            };
        }
    }

    fn was_read(&mut self, channel: u8, at: Mono) -> Phase {
        let bit = 1u16.checked_shl(u32::from(channel.saturating_sub(1))).unwrap_or(0);
        let stores = self.routes.get(&self.note(channel).value) == Some(&Route::Store);
        let refused = self.reject_next.take().or_else(|| {
            let inhibited = self.settings.inhibits & bit == 0;
            let full = self.cashbox_full && !stores;
            if inhibited {
                Some(RejectReason::Channel)
            } else {
                full.then_some(RejectReason::Unable)
            }
        });
        match refused {
            Some(reason) => self.reject(reason, false, at),
            None => Phase::Escrow { channel, told: false, until: at.after(ESCROW_MS) },
        }
    }

    pub(super) fn reject(&mut self, reason: RejectReason, was_escrow: bool, at: Mono) -> Phase {
        self.last_reject = reason;
        Phase::Rejecting { was_escrow, until: at.after(self.timing.take) }
    }

    /// The host keeps the note in escrow.
    pub(super) fn hold(&mut self, now: Mono) -> bool {
        if let Phase::Escrow { until, .. } = &mut self.phase {
            *until = now.after(ESCROW_MS);
            return true;
        }
        false
    }

    /// A poll that comes after a note in escrow was told accepts it.
    pub(super) fn accept(&mut self, now: Mono) {
        if let Phase::Escrow { channel, told: true, .. } = self.phase {
            let until = now.after(self.timing.stack / 2);
            self.phase = Phase::Stacking { channel, credited: false, until };
        }
    }

    /// The note arrives in the store or in the cashbox.
    fn put_away(&mut self, channel: u8) {
        let value = self.note(channel).value;
        if self.routes.get(&value) == Some(&Route::Store) && self.settings.payout_on {
            count(&mut self.tally.store, channel);
            let level = self.levels.entry(value).or_default();
            *level = level.saturating_add(1);
            self.told.push(EventCode::Stored.code());
        } else {
            count(&mut self.tally.cashbox, channel);
            self.told.push(EventCode::Stacked.code());
        }
    }

    /// What power, RESET or a fault leaves in the path of notes that come in.
    pub(super) fn left_behind(&self) -> Option<Inside> {
        let (channel, place) = match self.phase {
            Phase::Off(inside) | Phase::Starting { inside, .. } | Phase::Halted(inside) => {
                return inside;
            }
            Phase::Reading { channel, .. } | Phase::Escrow { channel, .. } => {
                (channel, Place::Inlet)
            }
            Phase::Stacking { channel, .. } => (channel, Place::Transport),
            Phase::Rejecting { .. } => (0, Place::Inlet),
            Phase::Idle | Phase::Out => return None,
        };
        Some(Inside { channel, place })
    }

    /// It comes up: what was inside goes where it must, and that is told.
    fn started(&mut self, inside: Option<Inside>) -> Phase {
        match inside {
            Some(Inside { channel, .. }) if self.trouble.is_some_and(|t| t.present) => {
                return Phase::Halted(Some(Inside { channel, place: Place::Inlet }));
            }
            Some(Inside { channel, place: Place::Inlet }) => {
                self.tally.returned = self.tally.returned.saturating_add(1);
                self.announce(EventCode::ClearedFromFront, &[channel]);
            }
            Some(Inside { channel, place: Place::Transport }) => {
                count(&mut self.tally.cashbox, channel);
                self.announce(EventCode::ClearedIntoCashbox, &[channel]);
            }
            None => {}
        }
        if self.trouble.is_some_and(|trouble| trouble.present) {
            return Phase::Halted(None);
        }
        self.trouble = None;
        self.tell_cut();
        Phase::Idle
    }

    /// Power or RESET begins it anew.
    pub(super) fn start(&mut self, now: Mono) {
        let inside = self.left_behind();
        self.phase = Phase::Starting { inside, until: now.after(self.timing.start) };
    }

    pub(super) fn in_path(&self) -> u8 {
        let carried = self.out.as_ref().is_some_and(Out::carries);
        let cut = self.cut.as_ref().is_some_and(Cut::holds_note);
        [self.left_behind().is_some(), carried, cut].into_iter().map(u8::from).sum()
    }
}
