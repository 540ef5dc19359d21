//! Where the note is, and how time moves it.

use super::*;
use crate::frame::ebds::bits;

/// A note in the path that power, a reset or a fault has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) index: u8,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between inlet and escrow, or on its way back; `true`: it had been in escrow.
    Inlet(bool),
    Escrow,
    /// Past escrow: it will go into the cashbox.
    Transport,
    /// In the cashbox, and the host has not heard of it.
    Untold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Off(Option<Inside>),
    Booting {
        inside: Option<Inside>,
        until: Mono,
    },
    Idle,
    Accepting {
        index: u8,
        until: Mono,
    },
    Escrow {
        index: u8,
    },
    /// `value`: the event will carry it.
    Stacking {
        index: u8,
        until: Mono,
        value: bool,
    },
    /// The note lies in the inlet.
    GivingBack {
        index: u8,
        was_escrow: bool,
        until: Option<Mono>,
    },
    /// Stopped by a trouble.
    Halted(Option<Inside>),
    /// The cashbox is out.
    Open(Option<Inside>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: TroubleKind,
    /// Its cause is still there.
    pub(super) present: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TroubleKind {
    Jam,
    Cheated,
    Failure,
    /// Does not stop the device.
    Pause,
    /// Likewise; every answer is of a type that nobody knows.
    Code(u8),
}

impl TroubleKind {
    pub(super) const fn stops(self) -> bool {
        !matches!(self, Self::Pause | Self::Code(_))
    }
}

impl EbdsSim {
    /// What an answer says of the moment, without what is said once; `None` while it is silent.
    pub(super) fn status(&self) -> Option<Status> {
        let state = match self.phase {
            Phase::Off(_) | Phase::Booting { .. } => return None,
            Phase::Idle if self.cashbox_full => 0,
            Phase::Idle if self.options.closed_is_zero && self.own.notes == 0 => 0,
            Phase::Idle => bits::IDLING,
            Phase::Accepting { .. } => bits::ACCEPTING,
            Phase::Escrow { .. } => bits::ESCROWED,
            Phase::Stacking { .. } => bits::STACKING,
            Phase::GivingBack { was_escrow: true, .. } => bits::RETURNING,
            Phase::GivingBack { .. } => bits::ACCEPTING,
            Phase::Halted(_) | Phase::Open(_) => 0,
        };
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let trouble = |kind| self.trouble.is_some_and(|trouble| trouble.kind == kind);
        let event = bit(!matches!(self.phase, Phase::Open(_)), bits::CASSETTE)
            | bit(self.cashbox_full, bits::STACKER_FULL)
            | bit(trouble(TroubleKind::Jam), bits::JAMMED)
            | bit(trouble(TroubleKind::Cheated), bits::CHEATED)
            | bit(trouble(TroubleKind::Pause), bits::PAUSED);
        let exception = bit(self.power_up > 0, bits::POWER_UP)
            | bit(self.invalid, bits::INVALID)
            | bit(trouble(TroubleKind::Failure), bits::FAILURE);
        let misc = bit(self.own.notes == 0, bits::DISABLED);
        Some(Status { state, event, exception, misc, model: b'T', revision: 0x10 })
    }

    /// For a person: the state, and the control's answer.
    pub(super) fn in_words(&self) -> String {
        match (self.phase, self.status()) {
            (Phase::Off(_), _) => "OFF".to_owned(),
            (Phase::Booting { .. }, _) => "BOOTING".to_owned(),
            (_, Some(status)) if self.once.stacked.is_some() => format!("STACKED, {status}"),
            (_, status) => status.unwrap_or_default().to_string(),
        }
    }

    /// Notes are reported at length.
    pub(super) const fn at_length(&self) -> bool {
        self.options.extended && self.own.extended
    }

    pub(super) fn is_enabled(&self, index: u8) -> bool {
        let bit = index.checked_sub(1).and_then(|bit| 1u8.checked_shl(bit.into()));
        if self.at_length() {
            self.own.notes != 0 && self.inhibits.is_none_or(|notes| notes.contains(index))
        } else {
            bit.is_some_and(|bit| self.own.notes & bit != 0)
        }
    }

    pub(super) fn is_open(&self, now: Mono) -> bool {
        self.phase == Phase::Idle
            && self.own.notes != 0
            && !self.cashbox_full
            && now.since(self.last_poll) <= UNPOLLED_MS
    }

    /// The note that would be stopped if the device were stopped now.
    pub(super) fn inside(&self) -> Option<Inside> {
        let (index, place) = match self.phase {
            Phase::Off(inside)
            | Phase::Booting { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => return inside.filter(|i| i.place != Place::Untold),
            Phase::Idle => return None,
            Phase::Accepting { index, .. } => (index, Place::Inlet(false)),
            Phase::GivingBack { index, was_escrow, .. } => (index, Place::Inlet(was_escrow)),
            Phase::Escrow { index } => (index, Place::Escrow),
            Phase::Stacking { index, .. } => (index, Place::Transport),
        };
        Some(Inside { index, place })
    }

    /// What a power loss leaves behind: also a note that the host has not heard of.
    pub(super) fn left_behind(&self) -> Option<Inside> {
        match self.phase {
            Phase::Off(inside)
            | Phase::Booting { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => inside,
            Phase::Idle => {
                let unsaid = self.once.stacked.and_then(|(note, _)| note);
                unsaid.or(self.told).map(|index| Inside { index, place: Place::Untold })
            }
            _ => self.inside(),
        }
    }

    /// When something happens next by itself.
    pub(super) fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Booting { until, .. }
            | Phase::Stacking { until, .. }
            | Phase::Accepting { until, .. } => Some(until),
            Phase::Escrow { .. } if self.options.returns_unpolled => {
                Some(self.last_poll.after(UNPOLLED_MS).after(1))
            }
            Phase::GivingBack { until, .. } => until,
            _ => None,
        }
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Mono) {
        while let Some(at) = self.due().filter(|due| *due <= now) {
            self.step(at);
        }
    }

    fn step(&mut self, at: Mono) {
        self.phase = match self.phase {
            Phase::Booting { inside, .. } => self.booted(inside, at),
            Phase::Accepting { index, .. } => {
                let refused = std::mem::take(&mut self.reject_next) || !self.is_enabled(index);
                if refused {
                    self.give_back(index, false, at)
                } else if self.own.escrow {
                    self.reported = false;
                    Phase::Escrow { index }
                } else {
                    self.stacking(index, true, at)
                }
            }
            Phase::Escrow { index } => self.give_back(index, true, at),
            Phase::Stacking { index, value, .. } => {
                count(&mut self.tally.cashbox, index);
                self.once.stacked = Some((Some(index), value));
                Phase::Idle
            }
            Phase::GivingBack { was_escrow, .. } => {
                if was_escrow {
                    self.tally.returned = self.tally.returned.saturating_add(1);
                    self.once.returned = true;
                } else {
                    self.tally.rejected = self.tally.rejected.saturating_add(1);
                    self.once.rejected = true;
                }
                self.misread = None;
                Phase::Idle
            }
            other => other,
        };
    }

    pub(super) const fn stacking(&self, index: u8, value: bool, at: Mono) -> Phase {
        Phase::Stacking { index, until: at.after(self.timing.stack), value }
    }

    pub(super) fn give_back(&self, index: u8, was_escrow: bool, at: Mono) -> Phase {
        let until = self.customer_takes.then(|| at.after(self.timing.take));
        Phase::GivingBack { index, was_escrow, until }
    }

    /// Starts anew: after the power came, or a reset.
    pub(super) fn boot(&mut self, inside: Option<Inside>, now: Mono) {
        self.decoder.clear();
        self.last = None;
        self.told = None;
        self.once = Once::default();
        self.invalid = false;
        self.inhibits = None;
        self.power_up = POWER_UP_ANSWERS;
        self.own.notes = 0;
        self.trouble = self.trouble.filter(|trouble| trouble.present);
        self.phase = Phase::Booting { inside, until: now.after(self.timing.boot) };
    }

    fn booted(&mut self, inside: Option<Inside>, at: Mono) -> Phase {
        if self.trouble.is_some_and(|trouble| trouble.kind.stops()) {
            return Phase::Halted(inside);
        }
        if self.options.blank_stack && inside.is_none() {
            self.once.stacked = Some((None, false));
        }
        let with_value = self.own.policy == PowerUpPolicy::B;
        match inside {
            None => Phase::Idle,
            Some(Inside { index, place: Place::Inlet(was_escrow) }) => {
                self.give_back(index, was_escrow, at)
            }
            Some(Inside { index, place: Place::Escrow }) => {
                self.reported = false;
                match self.own.policy {
                    PowerUpPolicy::A => self.give_back(index, true, at),
                    PowerUpPolicy::B | PowerUpPolicy::C => Phase::Escrow { index },
                }
            }
            Some(Inside { index, place: Place::Transport }) => self.stacking(index, with_value, at),
            Some(Inside { index, place: Place::Untold }) => {
                if self.options.remembers && with_value {
                    self.once.stacked = Some((Some(index), true));
                } else if self.options.blank_stack {
                    self.once.stacked = Some((None, false));
                }
                Phase::Idle
            }
        }
    }

    /// A trouble is over, without a new start.
    pub(super) fn go_on(&mut self, inside: Option<Inside>, now: Mono) {
        self.phase = match inside {
            Some(Inside { index, place: Place::Inlet(was_escrow) }) => {
                self.give_back(index, was_escrow, now)
            }
            Some(Inside { index, place: Place::Escrow }) => self.give_back(index, true, now),
            Some(Inside { index, place: Place::Transport }) => self.stacking(index, true, now),
            Some(Inside { place: Place::Untold, .. }) | None => Phase::Idle,
        };
    }
}
