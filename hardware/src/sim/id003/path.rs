//! Where the note is, and how time moves it.

use super::recycler::Out;
use super::*;
use crate::frame::id003::{FailureCode, Held};

/// A note in the path that power, RESET or a fault has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) code: u8,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between inlet and escrow: it will be given back. `true`: it had been in escrow.
    Acceptor(bool),
    /// Past escrow: it will go into the cashbox.
    Transport,
    /// In the cashbox, VEND VALID not acknowledged.
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
        code: u8,
        until: Mono,
    },
    Escrow {
        code: u8,
        until: Mono,
        held: bool,
    },
    /// `lever`: VEND VALID comes at the lever (STACK-1), before the note lies in the cashbox.
    Stacking {
        code: u8,
        until: Mono,
        lever: bool,
    },
    VendValid {
        code: u8,
        since: Mono,
        boxed: bool,
    },
    Stacked {
        until: Mono,
        /// The box, or 0 for the cashbox.
        to: u8,
    },
    /// A recycler moves notes out of its boxes.
    Out(Out),
    /// The note lies in the inlet; `reason` = 17, without it 18.
    GivingBack {
        code: u8,
        reason: Option<RejectReason>,
        was_escrow: bool,
        until: Option<Mono>,
    },
    /// Stopped by a trouble; only RESET goes on.
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
    JamInAcceptor,
    JamInStacker,
    Cheated,
    CommError,
    Failure(FailureCode),
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

impl Id003Sim {
    /// The state that a poll shows; `None` while off.
    pub(super) fn status(&self) -> Option<Status> {
        let halted = self.trouble.map(|trouble| match trouble.kind {
            TroubleKind::JamInAcceptor => Status::JamInAcceptor,
            TroubleKind::JamInStacker => Status::JamInStacker,
            TroubleKind::Cheated => Status::Cheated,
            TroubleKind::CommError | TroubleKind::Code(_) => Status::CommError,
            TroubleKind::Failure(code) => Status::Failure(code),
            TroubleKind::Pause => Status::Pause,
        });
        let says = |code: u8| self.options.says_note.then_some(code);
        Some(match self.phase {
            Phase::Off(_) => return None,
            Phase::Halted(_) => halted.unwrap_or(Status::CommError),
            _ if self.trouble.is_some_and(|t| t.kind == TroubleKind::Pause) => Status::Pause,
            Phase::PowerUp(Some(inside)) if self.options.remembers => match inside.place {
                Place::Acceptor(_) => Status::PowerUpBillInAcceptor,
                Place::Transport | Place::Unacknowledged => Status::PowerUpBillInStacker,
            },
            Phase::PowerUp(_) => Status::PowerUp,
            Phase::Initializing { .. } => Status::Initializing,
            Phase::Open(_) => Status::StackerOpen,
            Phase::Idle if self.cashbox_full => Status::StackerFull,
            Phase::Idle if self.is_open() => Status::Idling,
            Phase::Idle => Status::Disabled,
            Phase::Accepting { .. } => Status::Accepting,
            Phase::Escrow { held: true, .. } => Status::Holding,
            Phase::Escrow { code, .. } => Status::Escrow(Held::Note(code)),
            Phase::Stacking { code, .. } => Status::Stacking(self.destination(code)),
            Phase::VendValid { code, .. } => Status::VendValid(says(code)),
            Phase::Stacked { to, .. } => Status::Stacked(self.boxes.is_some().then_some(to)),
            // told by the recycler itself
            Phase::Out(_) => Status::Disabled,
            Phase::GivingBack { reason: Some(reason), .. } => Status::Rejecting(reason),
            Phase::GivingBack { .. } => Status::Returning,
        })
    }

    fn is_open(&self) -> bool {
        let enabled = |slot: &CurrencySlot| slot.note().is_some() && !self.is_disabled(slot.code);
        !self.settings.inhibit && self.table.iter().any(enabled)
    }

    pub(super) fn is_disabled(&self, code: u8) -> bool {
        let bit = code.checked_sub(0x61).and_then(|n| 1u16.checked_shl(u32::from(n)));
        bit.is_none_or(|bit| self.settings.disabled & bit != 0)
    }

    /// VEND VALID has waited too long for its ACK.
    pub(super) fn is_stuck(&self, now: Mono) -> bool {
        matches!(self.phase, Phase::VendValid { since, .. } if now.since(since) >= UNACKED_MS)
    }

    /// The note that would be stopped if the device were stopped now.
    pub(super) fn inside(&self) -> Option<Inside> {
        let (code, place) = match self.phase {
            Phase::Off(inside)
            | Phase::PowerUp(inside)
            | Phase::Initializing { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => return inside.filter(|i| i.place != Place::Unacknowledged),
            Phase::Idle | Phase::Stacked { .. } | Phase::Out(_) => return None,
            Phase::VendValid { boxed: true, .. } => return None,
            Phase::Accepting { code, .. } => (code, Place::Acceptor(false)),
            Phase::Escrow { code, .. } => (code, Place::Acceptor(true)),
            Phase::GivingBack { code, was_escrow, .. } => (code, Place::Acceptor(was_escrow)),
            Phase::Stacking { code, .. } | Phase::VendValid { code, .. } => {
                (code, Place::Transport)
            }
        };
        Some(Inside { code, place })
    }

    /// What a power loss leaves behind: also a credit that nobody has acknowledged.
    pub(super) fn left_behind(&self) -> Option<Inside> {
        match self.phase {
            Phase::VendValid { code, boxed: true, .. } => {
                Some(Inside { code, place: Place::Unacknowledged })
            }
            Phase::Off(inside)
            | Phase::PowerUp(inside)
            | Phase::Initializing { inside, .. }
            | Phase::Halted(inside)
            | Phase::Open(inside) => inside,
            _ => self.inside(),
        }
    }

    /// When something happens next by itself.
    pub(super) fn due(&self) -> Option<Mono> {
        let unpolled = self.last_poll.after(UNPOLLED_MS).after(1);
        match self.phase {
            Phase::Initializing { until, .. }
            | Phase::Stacking { until, .. }
            | Phase::Stacked { until, .. } => Some(until),
            Phase::Out(out) => out.until,
            Phase::Accepting { until, .. } | Phase::Escrow { until, .. } => {
                Some(until.min(unpolled))
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
        let unpolled = at.since(self.last_poll) > UNPOLLED_MS;
        self.phase = match self.phase {
            Phase::Initializing { inside, .. } => self.initialized(inside, at),
            Phase::Accepting { code, .. } if unpolled => self.give_back(code, None, false, at),
            Phase::Escrow { code, .. } if unpolled => self.give_back(code, None, true, at),
            Phase::Accepting { code, .. } => {
                let disabled = self.is_disabled(code).then_some(RejectReason::Inhibited);
                match self.reject_next.take().or(disabled) {
                    Some(reason) => self.give_back(code, Some(reason), false, at),
                    None => Phase::Escrow { code, until: at.after(ESCROW_MS), held: false },
                }
            }
            Phase::Escrow { code, .. } => {
                self.give_back(code, Some(RejectReason::Inhibited), true, at)
            }
            Phase::Stacking { code, lever, .. } => {
                if !lever {
                    self.store(code);
                }
                Phase::VendValid { code, since: at, boxed: !lever }
            }
            Phase::Stacked { .. } => {
                self.settings.inhibit |= self.options.closes_after_note;
                Phase::Idle
            }
            Phase::GivingBack { was_escrow, .. } => {
                self.given_back(was_escrow);
                Phase::Idle
            }
            Phase::Out(out) => self.move_out(out, at),
            other => other,
        };
    }

    pub(super) fn give_back(
        &self,
        code: u8,
        reason: Option<RejectReason>,
        was_escrow: bool,
        at: Mono,
    ) -> Phase {
        let until = self.customer_takes.then(|| at.after(self.timing.take));
        Phase::GivingBack { code, reason, was_escrow, until }
    }

    fn given_back(&mut self, was_escrow: bool) {
        let tally = if was_escrow { &mut self.tally.returned } else { &mut self.tally.rejected };
        *tally = tally.saturating_add(1);
    }

    fn initialized(&mut self, inside: Option<Inside>, at: Mono) -> Phase {
        if self.trouble.is_some_and(|t| t.present && t.kind.stops()) {
            return Phase::Halted(inside);
        }
        self.trouble = self.trouble.filter(|t| t.present);
        let Some(Inside { code, place }) = inside else { return Phase::Idle };
        match place {
            Place::Acceptor(was_escrow) => {
                self.given_back(was_escrow);
                return Phase::Idle;
            }
            Place::Transport => self.store(code),
            Place::Unacknowledged => {}
        }
        let asked_for = self.settings.optional & crate::frame::id003::POWER_RECOVERY != 0;
        if self.options.power_recovery && self.options.remembers && asked_for {
            Phase::VendValid { code, since: at, boxed: true }
        } else {
            Phase::Idle
        }
    }
}
