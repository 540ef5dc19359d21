//! The boxes of a recycler: notes that come in, are kept, and go out again.
//!
//! The count that the device tells (A2) is its own memory; the notes are told apart by where they
//! lie. A note that waits at the bezel when the power goes stays there: whoever stands there takes it.

use serde_json::Map;

use super::*;
use crate::frame::id003::Frame;
use crate::frame::id003::recycler::{BOXES, COUNTS, CURRENCIES, Condition, Extension, PayState};

/// From the box to the bezel.
const PAY_MS: u64 = 1_500;
/// From the box to the cashbox, for each note.
const COLLECT_MS: u64 = 700;
/// COLLECTED is shown for so long.
const COLLECTED_MS: u64 = 300;
/// A note that nobody takes goes back into its box after this.
const RETURN_MS: u64 = 120_000;
/// Notes that a box keeps unless it was told less.
const CAPACITY: u16 = 30;

/// The boxes, and what is known of them.
pub(super) struct Boxes {
    /// Which notes each keeps, a bit each.
    masks: [u16; BOXES],
    limits: [u16; BOXES],
    /// As the device counts them.
    counts: [u16; BOXES],
    /// The notes themselves, by escrow code.
    notes: [BTreeMap<u8, u32>; BOXES],
    /// Taken at the bezel.
    given: BTreeMap<u8, u32>,
    /// Where the last note went; 0 is the cashbox.
    pub(super) last: u8,
    /// The note in escrow is to go to the cashbox, whatever it is (STACK-3).
    pub(super) bypassed: bool,
    /// In trouble; `true` while its cause is there.
    jam: Option<bool>,
    /// PAY OUT commands that were taken.
    payouts: u32,
}

impl Boxes {
    const fn new() -> Self {
        Self {
            masks: [0; BOXES],
            limits: [CAPACITY; BOXES],
            counts: [0; BOXES],
            notes: [BTreeMap::new(), BTreeMap::new()],
            given: BTreeMap::new(),
            last: 0,
            bypassed: false,
            jam: None,
            payouts: 0,
        }
    }

    /// Place of a box in these tables.
    fn at(number: u8) -> Option<usize> {
        usize::from(number).checked_sub(1).filter(|at| *at < BOXES)
    }

    fn count(&self, number: u8) -> u16 {
        Self::at(number).and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }

    /// The number of the box that a note of this code goes to; 0 is the cashbox.
    fn destination(&self, code: u8) -> u8 {
        let bit = code.checked_sub(0x61).and_then(|n| 1u16.checked_shl(u32::from(n)));
        let boxes = self.masks.iter().zip(self.limits).zip(self.counts);
        let fits = (1..).zip(boxes).find(|(_, ((mask, limit), count))| {
            bit.is_some_and(|bit| **mask & bit != 0) && count < limit
        });
        fits.filter(|_| !self.bypassed).map_or(0, |(number, _)| number)
    }

    fn add(&mut self, number: u8, code: u8) {
        let Some(at) = Self::at(number) else { return };
        if let (Some(notes), Some(told)) = (self.notes.get_mut(at), self.counts.get_mut(at)) {
            count(notes, code);
            *told = told.saturating_add(1);
        }
    }

    /// Takes a note out of a box.
    fn pick(&mut self, number: u8) -> Option<u8> {
        let at = Self::at(number)?;
        let (notes, told) = (self.notes.get_mut(at)?, self.counts.get_mut(at)?);
        let (code, left) = notes.iter_mut().find(|(_, left)| **left > 0)?;
        *left = left.saturating_sub(1);
        *told = told.saturating_sub(1);
        Some(*code)
    }
}

/// Notes on their way out of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    from: u8,
    /// Notes still to come, this one left out.
    left: u8,
    stage: Stage,
    pub(super) until: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Paying,
    /// A note of this code waits at the bezel.
    Bezel(u8),
    Taken,
    /// It went back and waits for the ACK.
    Returned(PayState),
    Collecting,
    Collected,
    /// Broken off: what follows says so until it has been cleared.
    Trouble,
}

impl Id003Sim {
    /// The same device with two boxes that keep notes for customers to come; they keep none until
    /// the host has said which.
    #[must_use]
    pub fn recycler(table: Vec<CurrencySlot>, options: Options, timing: Timing) -> Self {
        let version = "i(SIM)RC-100-SS ID003-05V300-45 28JUN23 7F23".to_owned();
        Self { boxes: Some(Boxes::new()), version, ..Self::new(table, options, timing) }
    }

    /// What STACKING says of where the note goes.
    pub(super) fn destination(&self, code: u8) -> Option<u8> {
        self.boxes.as_ref().map(|boxes| boxes.destination(code))
    }

    /// A note arrives in a box or in the cashbox.
    pub(super) fn store(&mut self, code: u8) {
        let to = self.destination(code).unwrap_or(0);
        match &mut self.boxes {
            Some(boxes) if to > 0 => boxes.add(to, code),
            _ => count(&mut self.tally.cashbox, code),
        }
        if let Some(boxes) = &mut self.boxes {
            boxes.last = to;
        }
    }

    /// What a poll shows while notes go out.
    pub(super) fn pay_state(&self) -> Option<PayState> {
        let Phase::Out(out) = self.phase else { return None };
        Some(match out.stage {
            Stage::Paying => PayState::Paying,
            Stage::Bezel(_) => PayState::PayStay,
            Stage::Taken => PayState::PayValid,
            Stage::Returned(state) => state,
            Stage::Collecting => PayState::Collecting,
            Stage::Collected => PayState::Collected(Some(out.from)),
            Stage::Trouble => PayState::Error,
        })
    }

    pub(super) fn on_extension(&mut self, raw: &Frame, now: Mono, out: &mut Vec<u8>) {
        let Some(asked) = Extension::parse(raw) else {
            return self.send(&Reply::InvalidCommand, out);
        };
        let closed = self.status() == Some(Status::Disabled) && self.pay_state().is_none();
        let Some(boxes) = &mut self.boxes else { return };
        let condition = || match boxes.jam {
            Some(_) => Condition::Jam,
            None if boxes.counts == [0; BOXES] => Condition::Empty,
            None => Condition::Normal,
        };
        let answer = match asked {
            Extension::StatusRequest => Some(Extension::Condition(condition())),
            Extension::Question(COUNTS) => Some(Extension::Counts(boxes.counts)),
            Extension::Question(CURRENCIES) => Some(Extension::Currencies(boxes.masks)),
            Extension::SetCurrencies(masks) if closed => {
                boxes.masks = masks;
                Some(asked)
            }
            Extension::SetLimit { notes, of } if closed => {
                let limit = Boxes::at(of).and_then(|at| boxes.limits.get_mut(at));
                limit.map(|limit| {
                    *limit = notes;
                    asked
                })
            }
            Extension::SetCount { notes, of } if closed => {
                let told = Boxes::at(of).and_then(|at| boxes.counts.get_mut(at));
                told.map(|told| {
                    *told = notes;
                    asked
                })
            }
            _ => None,
        };
        if let Some(answer) = answer {
            return self.send_frame(&answer.frame(), out);
        }
        let taken = self.command(asked, closed, now);
        self.send(if taken { &Reply::Ack } else { &Reply::InvalidCommand }, out);
    }

    fn command(&mut self, asked: Extension<'_>, closed: bool, now: Mono) -> bool {
        let Some(boxes) = &mut self.boxes else { return false };
        let out = |from, left, stage, ms| {
            Phase::Out(Out { from, left, stage, until: Some(now.after(ms)) })
        };
        match (asked, self.phase) {
            (Extension::PayOut { notes, from }, _) if closed && notes > 0 => {
                if u16::from(notes) > boxes.count(from) {
                    return false;
                }
                boxes.payouts = boxes.payouts.saturating_add(1);
                self.phase = out(from, notes.saturating_sub(1), Stage::Paying, PAY_MS);
            }
            (Extension::Collect { notes, from }, _) if closed => {
                let held = u8::try_from(boxes.count(from)).unwrap_or(u8::MAX);
                let notes = if notes == 0 { held } else { notes.min(held) };
                self.phase = out(from, notes, Stage::Collecting, COLLECT_MS);
            }
            (Extension::Clear, _) if boxes.jam == Some(false) => {
                boxes.jam = None;
                if matches!(self.phase, Phase::Out(Out { stage: Stage::Trouble, .. })) {
                    self.phase = Phase::Idle;
                }
            }
            (
                Extension::EmergencyStop,
                Phase::Out(Out { from, stage: stage @ (Stage::Paying | Stage::Bezel(_)), .. }),
            ) => {
                if let Stage::Bezel(code) = stage {
                    count(&mut self.tally.cashbox, code);
                }
                let state = PayState::ReturnPayOutNote(Some(0));
                self.phase =
                    Phase::Out(Out { from, left: 0, stage: Stage::Returned(state), until: None });
            }
            _ => return false,
        }
        true
    }

    /// What time brings to notes on their way out.
    pub(super) fn move_out(&mut self, out: Out, at: Mono) -> Phase {
        let Some(boxes) = &mut self.boxes else { return Phase::Idle };
        let take = self.customer_takes.then_some(self.timing.take);
        let stage = match out.stage {
            Stage::Paying => match boxes.pick(out.from) {
                Some(code) => {
                    let until = Some(at.after(take.unwrap_or(RETURN_MS)));
                    return Phase::Out(Out { stage: Stage::Bezel(code), until, ..out });
                }
                None => {
                    boxes.jam = Some(false);
                    Stage::Trouble
                }
            },
            Stage::Bezel(code) if take.is_some() => {
                count(&mut boxes.given, code);
                Stage::Taken
            }
            Stage::Bezel(code) => {
                boxes.add(out.from, code);
                let stage = Stage::Returned(PayState::ReturnToBox);
                return Phase::Out(Out { left: 0, stage, until: None, ..out });
            }
            Stage::Collecting => match out.left.checked_sub(1) {
                Some(left) => {
                    if let Some(code) = boxes.pick(out.from) {
                        count(&mut self.tally.cashbox, code);
                    }
                    return Phase::Out(Out { left, until: Some(at.after(COLLECT_MS)), ..out });
                }
                None => {
                    let until = Some(at.after(COLLECTED_MS));
                    return Phase::Out(Out { stage: Stage::Collected, until, ..out });
                }
            },
            Stage::Collected => return Phase::Idle,
            waiting @ (Stage::Taken | Stage::Returned(_) | Stage::Trouble) => waiting,
        };
        Phase::Out(Out { stage, until: None, ..out })
    }

    /// PAY VALID or a return has been understood.
    pub(super) fn out_acknowledged(&mut self, out: Out, now: Mono) {
        if !matches!(out.stage, Stage::Taken | Stage::Returned(_)) {
            return;
        }
        self.phase = match out.left.checked_sub(1) {
            Some(left) => {
                let until = Some(now.after(PAY_MS));
                Phase::Out(Out { left, stage: Stage::Paying, until, ..out })
            }
            None => Phase::Idle,
        };
    }

    /// RESET, power or a hand has ended a payout: a note at the bezel is taken there.
    pub(super) fn break_off(&mut self, out: Out) {
        if let (Stage::Bezel(code), Some(boxes)) = (out.stage, &mut self.boxes) {
            count(&mut boxes.given, code);
        }
    }

    pub(super) fn stop_out(&mut self) {
        if let Phase::Out(out) = self.phase {
            self.break_off(out);
        }
    }

    /// The customer takes the note at the bezel.
    pub(super) fn take_out(&mut self, now: Mono) {
        if let Phase::Out(Out { stage: Stage::Bezel(_), until, .. }) = &mut self.phase {
            *until = Some(now);
        }
    }

    pub(super) fn load(&mut self, number: u64, notes: u64) -> Result<(), SimError> {
        let wrong = || SimError::State("no such box, or it was not told what to keep".to_owned());
        let number = u8::try_from(number).map_err(|_| wrong())?;
        let boxes = self.boxes.as_mut().ok_or_else(wrong)?;
        let mask = Boxes::at(number).and_then(|at| boxes.masks.get(at)).ok_or_else(wrong)?;
        // the lowest of the notes that it keeps
        let code = u8::try_from(mask.trailing_zeros()).ok().and_then(|n| n.checked_add(0x61));
        let code = code.filter(|_| *mask != 0).ok_or_else(wrong)?;
        for _ in 0..notes {
            boxes.add(number, code);
        }
        Ok(())
    }

    pub(super) fn recycler_jam(&mut self) -> Result<(), SimError> {
        let stopped = |out: Out| Out { stage: Stage::Trouble, left: 0, until: None, ..out };
        let out = match self.phase {
            Phase::Out(out) => stopped(out),
            Phase::Idle => stopped(Out { from: 0, left: 0, stage: Stage::Trouble, until: None }),
            _ => return Err(SimError::State("a note is in the acceptor".to_owned())),
        };
        let boxes = self.boxes.as_mut();
        let Some(boxes) = boxes else { return Err(SimError::State("no recycler".to_owned())) };
        boxes.jam = Some(true);
        self.stop_out();
        self.phase = Phase::Out(out);
        Ok(())
    }

    /// The cause of the trouble is still there; if it is not, the trouble is over.
    pub(super) fn is_jammed(&mut self) -> bool {
        let Some(boxes) = &mut self.boxes else { return false };
        boxes.jam = boxes.jam.filter(|present| *present);
        boxes.jam.is_some()
    }

    /// A person has put the recycler right; CLEAR or RESET goes on.
    pub(super) fn clear_recycler(&mut self) {
        if let Some(Boxes { jam: Some(present), .. }) = &mut self.boxes {
            *present = false;
        }
    }

    pub(super) fn box_counters(&self) -> Option<Map<String, Value>> {
        let boxes = self.boxes.as_ref()?;
        let mut own = Map::new();
        let notes = |at: &BTreeMap<u8, u32>| self.by_value(at);
        own.insert("boxes".to_owned(), boxes.notes.iter().map(notes).collect());
        own.insert("told".to_owned(), boxes.counts.to_vec().into());
        own.insert("given".to_owned(), self.by_value(&boxes.given));
        own.insert("payouts".to_owned(), boxes.payouts.into());
        let at_bezel = matches!(self.phase, Phase::Out(Out { stage: Stage::Bezel(_), .. }));
        own.insert("at_bezel".to_owned(), u8::from(at_bezel).into());
        Some(own)
    }
}
