//! Where the note is, and how time moves it.

use super::unit::Step;
use super::*;
use crate::frame::ccnet::UnitJam;

/// A note in the path that power, RESET or a fault has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) kind: u8,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between inlet and escrow: it will be given back. `true`: it had been in escrow.
    Validator(bool),
    /// Past escrow: it will go into the cassette.
    Transport,
    /// In the cassette, BILL STACKED not acknowledged.
    Unacknowledged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Off(Option<Inside>),
    PowerUp(Option<Inside>),
    Initializing {
        inside: Option<Inside>,
        until: Mono,
    },
    Idle,
    Accepting {
        kind: u8,
        until: Mono,
    },
    Escrow {
        kind: u8,
        until: Mono,
        held: bool,
    },
    Stacking {
        kind: u8,
        until: Mono,
    },
    /// In the cassette; said until it is acknowledged.
    Stacked {
        kind: u8,
    },
    /// Refused before escrow; in the inlet until it is taken.
    Rejecting {
        kind: u8,
        reason: RejectReason,
        until: Option<Mono>,
    },
    /// Out of escrow; in the inlet until it is taken.
    Returning {
        kind: u8,
        until: Option<Mono>,
    },
    /// Taken; said until it is acknowledged.
    Returned {
        kind: u8,
    },
    /// Notes of a unit move other than in.
    Out {
        step: Step,
        until: Option<Mono>,
    },
    /// Stopped by a trouble; only RESET goes on.
    Halted(Option<Inside>),
    /// The cassette is out.
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
    JamInValidator,
    JamInCassette,
    Cheated,
    Failure(u8),
    UnitJam(UnitJam),
    /// Does not stop the device: it only hides its state.
    Pause,
    /// Likewise.
    Code(u8),
}

impl TroubleKind {
    pub(super) const fn stops(self) -> bool {
        !matches!(self, Self::Pause | Self::Code(_))
    }
}

impl CcnetSim {
    /// The state that a poll shows; `None` while off.
    pub(super) fn state(&self) -> Option<State> {
        let halted = self.trouble.map(|trouble| match trouble.kind {
            TroubleKind::JamInValidator => State::ValidatorJammed,
            TroubleKind::JamInCassette => State::CassetteJammed,
            TroubleKind::Cheated => State::Cheated,
            TroubleKind::Failure(code) => self.failure(code),
            TroubleKind::UnitJam(place) => State::UnitJammed(place),
            TroubleKind::Pause | TroubleKind::Code(_) => State::Pause,
        });
        Some(match self.phase {
            Phase::Off(_) => return None,
            Phase::Halted(_) => halted.unwrap_or(State::Cheated),
            _ if self.trouble.is_some_and(|t| t.kind == TroubleKind::Pause) => State::Pause,
            Phase::PowerUp(None) if self.options.remembers && self.in_dispenser() => {
                State::PowerUpBillInUnit(1)
            }
            Phase::PowerUp(Some(inside)) if self.options.remembers => match inside.place {
                Place::Validator(_) => State::PowerUpBillInValidator,
                Place::Transport | Place::Unacknowledged if self.unit.is_some() => {
                    State::PowerUpBillInUnit(0)
                }
                Place::Transport | Place::Unacknowledged => State::PowerUpBillInStacker,
            },
            Phase::PowerUp(_) => State::PowerUp,
            Phase::Initializing { .. } => State::Initialize,
            Phase::Open(_) => State::CassetteOut,
            Phase::Idle if self.cassette_full => State::CassetteFull,
            Phase::Idle if self.is_open() => State::Idling,
            Phase::Idle | Phase::Out { .. } => State::Disabled,
            Phase::Accepting { .. } => State::Accepting,
            Phase::Escrow { held: true, .. } => State::Holding,
            Phase::Escrow { kind, .. } => State::Escrow(kind),
            Phase::Stacking { .. } => State::Stacking,
            Phase::Stacked { kind } => self.stacked(kind),
            Phase::Rejecting { reason, .. } => State::Rejecting(reason),
            Phase::Returning { .. } => State::Returning,
            Phase::Returned { kind } => State::Returned(kind),
        })
    }

    fn is_open(&self) -> bool {
        self.table.iter().any(|slot| slot.note().is_some() && self.enabled.has(slot.kind))
    }

    /// The note that would be stopped if the device were stopped now.
    pub(super) fn inside(&self) -> Option<Inside> {
        let (kind, place) = match self.phase {
            Phase::Off(inside)
            | Phase::PowerUp(inside)
            | Phase::Initializing { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => return inside.filter(|i| i.place != Place::Unacknowledged),
            Phase::Idle | Phase::Out { .. } | Phase::Stacked { .. } | Phase::Returned { .. } => {
                return None;
            }
            Phase::Accepting { kind, .. } | Phase::Rejecting { kind, .. } => {
                (kind, Place::Validator(false))
            }
            Phase::Escrow { kind, .. } | Phase::Returning { kind, .. } => {
                (kind, Place::Validator(true))
            }
            Phase::Stacking { kind, .. } => (kind, Place::Transport),
        };
        Some(Inside { kind, place })
    }

    /// What a power loss leaves behind: also a credit that nobody has acknowledged. That a note was
    /// given back is forgotten.
    pub(super) fn left_behind(&self) -> Option<Inside> {
        match self.phase {
            Phase::Stacked { kind } => Some(Inside { kind, place: Place::Unacknowledged }),
            Phase::Off(inside)
            | Phase::PowerUp(inside)
            | Phase::Initializing { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => inside,
            _ => self.inside(),
        }
    }

    /// When something happens next by itself.
    pub(super) const fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Initializing { until, .. }
            | Phase::Stacking { until, .. }
            | Phase::Accepting { until, .. }
            | Phase::Escrow { until, .. } => Some(until),
            Phase::Rejecting { until, .. }
            | Phase::Returning { until, .. }
            | Phase::Out { until, .. } => until,
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
            Phase::Initializing { inside, .. } => self.initialized(inside),
            Phase::Accepting { kind, .. } => {
                let late = self.options.closes_late;
                let refused = (!late && !self.enabled.has(kind)).then_some(RejectReason::Inhibited);
                match self.reject_next.take().or(refused) {
                    Some(reason) => Phase::Rejecting { kind, reason, until: self.taken(at) },
                    None if late || self.escrow.has(kind) => {
                        Phase::Escrow { kind, until: at.after(ESCROW_MS), held: false }
                    }
                    None => Phase::Stacking { kind, until: at.after(self.timing.stack) },
                }
            }
            Phase::Escrow { kind, .. } => Phase::Returning { kind, until: self.taken(at) },
            Phase::Out { step, .. } => self.move_out(step, at),
            Phase::Stacking { kind, .. } => {
                self.store(kind);
                Phase::Stacked { kind }
            }
            Phase::Rejecting { .. } => {
                self.tally.rejected = self.tally.rejected.saturating_add(1);
                Phase::Idle
            }
            Phase::Returning { kind, .. } => self.give_back(kind),
            other => other,
        };
    }

    /// When the customer takes what lies in the inlet.
    pub(super) fn taken(&self, at: Mono) -> Option<Mono> {
        self.customer_takes.then(|| at.after(self.timing.take))
    }

    fn give_back(&mut self, kind: u8) -> Phase {
        self.tally.returned = self.tally.returned.saturating_add(1);
        Phase::Returned { kind }
    }

    fn initialized(&mut self, inside: Option<Inside>) -> Phase {
        if self.trouble.is_some_and(|t| t.present && t.kind.stops()) {
            return Phase::Halted(inside);
        }
        self.trouble = self.trouble.filter(|t| t.present);
        self.unit_initialized(None);
        let Some(Inside { kind, place }) = inside else { return Phase::Idle };
        match place {
            Place::Validator(true) => {
                let told = self.give_back(kind);
                return if self.options.remembers { told } else { Phase::Idle };
            }
            Place::Validator(false) => {
                self.tally.rejected = self.tally.rejected.saturating_add(1);
                return Phase::Idle;
            }
            Place::Transport => self.store(kind),
            Place::Unacknowledged => {}
        }
        let tells = self.options.power_recovery && self.options.remembers;
        if tells && self.unit.is_some() && !self.options.late_credit {
            self.unit_initialized(Some(kind));
            Phase::Idle
        } else if tells {
            Phase::Stacked { kind }
        } else {
            Phase::Idle
        }
    }
}
