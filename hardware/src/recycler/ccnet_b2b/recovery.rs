//! After each start the unit is asked what it was at as its power went (66), before ENABLE makes it
//! forget that.
//!
//! Notes that came in are credits: the answer is confirmed only when each is durable, and said again
//! until then. Notes that were going out lie in the dispenser and go on to the exit (67). An answer
//! of one byte, 00, looks like an ACK that comes late: it counts when it has been said twice.

use super::*;
use crate::frame::ccnet::State as Common;
use crate::frame::ccnet::unit::Recovery;

/// How often the dispenser is told to empty itself, and answers that we do not know are asked for
/// again.
const TRIES: u8 = 3;
/// Before an answer that we do not know is asked for again.
const AGAIN_MS: u64 = 10_000;
/// 00 is an answer when it was said so often.
const NOTHING: u8 = 2;

/// What was told so far.
pub(super) struct Recovering {
    step: Step,
    /// 00s in a row.
    nothing: u8,
    /// Notes that came in, (type, destination).
    bills: Vec<[u8; 2]>,
    /// EMPTY DISPENSERs that were said.
    emptied: u8,
    /// Words of the last answer 3C.
    left_inside: u32,
    /// Told once: notes lie in the drop cassette.
    unloaded: bool,
    odd: u8,
    /// Times that 66 was refused, in a row.
    refused: u8,
    pub(super) moving: Option<Moving>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// 66.
    Ask,
    /// A credit was told and is to become durable.
    Credit,
    /// 67.
    Empty,
    /// Notes go from the dispenser to the customer.
    Watch,
}

/// Whether this is an answer to POWER RECOVERY.
pub(super) fn answers(content: &[u8]) -> bool {
    // ILLEGAL COMMAND, of units that do not know it; else only states are surely none
    content == [0x30] || Recovery::parse(content).is_some() || content.len() > 2
}

impl Recovering {
    pub(super) const fn new() -> Self {
        Self {
            step: Step::Ask,
            nothing: 0,
            bills: Vec::new(),
            emptied: 0,
            left_inside: 0,
            unloaded: false,
            odd: 0,
            refused: 0,
            moving: None,
        }
    }

    pub(super) const fn next(&self) -> Said {
        match self.step {
            _ if matches!(&self.moving, Some(Moving { reset: true, .. })) => Said::Reset,
            Step::Ask => Said::Recovery,
            Step::Empty => Said::EmptyDispenser,
            // units may disable themselves where nobody asks them
            Step::Credit | Step::Watch => Said::Poll,
        }
    }

    /// EMPTY DISPENSER was taken.
    pub(super) fn emptying(&mut self, now: Mono) {
        self.step = Step::Watch;
        let mut moving = Moving::met(now);
        moving.ordered(now);
        moving.acked = true;
        self.moving = Some(moving);
    }
}

impl<A: Authority> CcnetB2b<A> {
    /// The unit has said what it was at.
    pub(super) fn on_recovery(&mut self, content: &[u8], now: Mono) {
        let Work::Recover(recovering) = &mut self.work else { return };
        if content == [0x30] {
            // once, it may be a moment's, and ENABLE makes the unit forget the rest
            recovering.nothing = 0;
            recovering.refused = recovering.refused.saturating_add(1);
            if recovering.refused >= TRIES {
                self.recovery_refused(Said::Recovery, now);
            }
            return;
        }
        recovering.refused = 0;
        let nothing = std::mem::take(&mut recovering.nothing);
        match Recovery::parse(content) {
            // STACKING without a note looks like it
            Some(Recovery::None | Recovery::Packing([])) => {
                recovering.nothing = nothing.saturating_add(1);
                let done = recovering.nothing >= NOTHING;
                self.confirm(now);
                if done {
                    self.recovered(now);
                }
            }
            Some(Recovery::Packing(bills)) => {
                if bills.len() > self.found {
                    recovering.bills = bills.to_vec();
                    recovering.step = Step::Credit;
                    return self.credit_next(now);
                }
                self.confirm(now);
                self.recovered(now);
            }
            Some(Recovery::Dispensing(words)) => {
                recovering.left_inside = u32::try_from(words.len()).unwrap_or(u32::MAX);
                let again = recovering.emptied < TRIES && !words.is_empty();
                recovering.emptied = recovering.emptied.saturating_add(1);
                recovering.step = if again { Step::Empty } else { Step::Ask };
                self.confirm(now);
                if !again {
                    self.recovered(now);
                }
            }
            Some(Recovery::Unloading { .. }) => {
                let again = std::mem::replace(&mut recovering.unloaded, true);
                self.confirm(now);
                if again {
                    return self.recovered(now);
                }
                self.tell_end(0, false, None);
            }
            // not confirmed, and no ENABLE before a person has looked
            None => {
                recovering.odd = recovering.odd.saturating_add(1);
                if recovering.odd >= TRIES {
                    let frame = Frame::new(
                        0,
                        content.first().copied().unwrap_or(0),
                        content.get(1..).unwrap_or_default(),
                    );
                    let detail = format!("unknown answer to POWER RECOVERY (66): {frame}");
                    if !std::mem::replace(&mut self.complained, true) {
                        self.state.fault(FaultKind::ServiceNeeded, detail);
                    }
                    self.again_at = now.after(AGAIN_MS);
                    self.end_work(now);
                }
            }
        }
    }

    /// 66 or 67 is refused.
    pub(super) fn recovery_refused(&mut self, said: Said, now: Mono) {
        let Work::Recover(recovering) = &mut self.work else { return };
        if said == Said::EmptyDispenser && recovering.emptied < TRIES {
            recovering.step = Step::Ask;
            return;
        }
        if said == Said::EmptyDispenser {
            let detail =
                "the unit does not empty its dispenser (67): look for notes in it".to_owned();
            self.state.fault(FaultKind::ServiceNeeded, detail);
        }
        // old units do not know 66
        self.recovered(now);
    }

    /// Tells the next credit, once the one before it is durable.
    pub(super) fn credit_next(&mut self, now: Mono) {
        while let Work::Recover(recovering) = &mut self.work {
            if recovering.step != Step::Credit {
                return;
            }
            let Some([kind, to]) = recovering.bills.get(self.found).copied() else {
                // all are durable: the answer may be confirmed
                recovering.step = Step::Ask;
                return;
            };
            let out = self.validator.credit_found(kind, to, now);
            self.absorb(out);
            if !self.validator.credit_is_kept() {
                return;
            }
            let Work::Recover(recovering) = &mut self.work else { return };
            self.found = self.found.saturating_add(1);
            if self.found < recovering.bills.len() {
                self.validator.next_credit();
            }
        }
    }

    /// A state while the unit's answer is dealt with.
    pub(super) fn on_state_in_recovery(&mut self, state: Common, lost_power: bool, now: Mono) {
        let Work::Recover(recovering) = &mut self.work else { return };
        if lost_power || !matches!(state, Common::Disabled) {
            // it starts again, or it is the validator's: a late BILL STACKED, a fault
            return self.stop_recovering(now);
        }
        let Some(moving) = &mut recovering.moving else { return };
        moving.on_common(state, now);
        let over = moving.stage == Stage::After || now.since(moving.known_at) >= moving::LOST_MS;
        if over {
            recovering.step = Step::Ask;
            self.end_emptying();
        }
    }

    /// What came of notes that were left in the dispenser.
    pub(super) fn end_emptying(&mut self) {
        let Work::Recover(recovering) = &mut self.work else { return };
        let Some(moving) = recovering.moving.take() else { return };
        let taken = match &moving.dispensed {
            Some(counts) if counts.is_empty() => recovering.left_inside,
            Some(_) => moving.taken(),
            None => 0,
        };
        self.state.notes_at_exit = false;
        self.tell_end(taken, moving.gave_back, moving.fault);
    }

    /// Comes back to it when the unit rests again.
    pub(super) fn stop_recovering(&mut self, now: Mono) {
        self.end_emptying();
        self.end_work(now);
    }

    fn recovered(&mut self, now: Mono) {
        self.end_emptying();
        self.found = 0;
        self.recount = true;
        let out = self.validator.recover(now);
        self.absorb(out);
        self.end_work(now);
    }
}
