//! The cassettes of a Bill-to-Bill unit: notes that come in, are kept, and go out again.
//!
//! The count that the unit tells (3B) is its own memory; the notes are told apart by where they lie.
//! Notes that wait at the exit when the power goes stay there: whoever stands there takes them. What
//! was on its way is told after the next start (66): credits until their ACK or ENABLE, notes in the
//! dispenser until they were brought out (67).

use serde_json::Map;

use super::path::TroubleKind;
use super::*;
use crate::frame::ccnet::unit::{CASSETTES, Command, MOST_NOTES, Recovery, UNASSIGNED, UnitState};
use crate::frame::ccnet::{BILL_TO_BILL, UnitFailure, UnitJam};

/// Cassettes of the usual unit.
const FITTED: usize = 3;
/// From a cassette to the dispenser or the drop cassette, for each note.
const NOTE_MS: u64 = 700;
/// To give a cassette its type.
const TYPE_MS: u64 = 800;
/// Notes that a cassette keeps.
const CAPACITY: u8 = 100;

/// The cassettes, and what the unit is at.
pub(super) struct Unit {
    stores: Vec<Store>,
    /// Taken at the exit.
    given: BTreeMap<u8, u32>,
    job: Option<Job>,
    /// Credits that the next POWER RECOVERY tells, (type, destination).
    packing: Vec<[u8; 2]>,
    /// POWER RECOVERY was answered since the last start.
    asked: bool,
    /// Where the last note went; 0 is the drop cassette.
    last_to: u8,
    /// DISPENSEs that were taken.
    payouts: u32,
    /// The next DISPENSE or UNLOAD begins so late.
    pub(super) starts_after: u64,
    /// The next note goes to the drop cassette, whatever the cassettes keep.
    pub(super) divert_next: bool,
}

/// A cassette.
struct Store {
    kind: u8,
    present: bool,
    /// As the unit counts them.
    told: u8,
    /// The notes themselves, by bill type.
    notes: BTreeMap<u8, u32>,
}

/// What notes move for.
struct Job {
    what: What,
    /// Cassettes that notes are still to come from, by their places.
    left: Vec<usize>,
    /// Types of notes between cassette and exit, or drop cassette.
    path: Vec<u8>,
    /// Types of notes at the exit.
    exit: Vec<u8>,
    /// Notes that arrived, by type.
    moved: BTreeMap<u8, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Dispense,
    Unload { cassette: u8, notes: u8 },
    SetType { at: usize, kind: u8 },
}

/// What a poll shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It was taken and has not begun.
    Taken,
    Moving,
    /// Notes wait at the exit.
    Waiting,
    /// Said until it is acknowledged.
    Done,
    /// Likewise: it has fewer notes than were asked for.
    Invalid,
}

impl Unit {
    fn new() -> Self {
        let store = || Store { kind: UNASSIGNED, present: true, told: 0, notes: BTreeMap::new() };
        Self {
            stores: (0..FITTED).map(|_| store()).collect(),
            given: BTreeMap::new(),
            job: None,
            packing: Vec::new(),
            asked: false,
            last_to: 0,
            payouts: 0,
            starts_after: 0,
            divert_next: false,
        }
    }

    /// Place of a cassette.
    fn at(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_sub(1).filter(|at| *at < self.stores.len())
    }

    /// The cassette that a note goes to; 0 is the drop cassette.
    fn destination(&self, kind: u8) -> u8 {
        let fits = |store: &Store| store.present && store.kind == kind && store.told < CAPACITY;
        (1..=CASSETTES).zip(&self.stores).find(|(_, store)| fits(store)).map_or(0, |(n, _)| n)
    }

    fn add(&mut self, number: u8, kind: u8) {
        let at = self.at(number);
        if let Some(store) = at.and_then(|at| self.stores.get_mut(at)) {
            count(&mut store.notes, kind);
            store.told = store.told.saturating_add(1);
        }
    }

    /// Takes a note out of a cassette.
    fn pick(&mut self, at: usize) -> Option<u8> {
        let store = self.stores.get_mut(at).filter(|store| store.present)?;
        let (kind, left) = store.notes.iter_mut().find(|(_, left)| **left > 0)?;
        *left = left.saturating_sub(1);
        store.told = store.told.saturating_sub(1);
        Some(*kind)
    }

    /// Notes at the exit are taken there.
    fn take_exit(&mut self) {
        let Some(job) = &mut self.job else { return };
        for kind in job.exit.drain(..) {
            count(&mut self.given, kind);
            count(&mut job.moved, kind);
        }
    }
}

impl CcnetSim {
    /// A Bill-to-Bill unit with three recycling cassettes; they keep no notes until the host has said
    /// which.
    #[must_use]
    pub fn unit(table: Vec<BillSlot>, options: Options, timing: Timing) -> Self {
        let identity = *b"BB-SIM       A 21KB00000001\0\0\0\0\0\0\x01";
        let unit = Some(Unit::new());
        Self { address: BILL_TO_BILL, identity, unit, ..Self::new(table, options, timing) }
    }

    /// A note arrives in a cassette or in the drop cassette.
    pub(super) fn store(&mut self, kind: u8) {
        let to = self.unit.as_mut().map_or(0, |unit| {
            if std::mem::take(&mut unit.divert_next) { 0 } else { unit.destination(kind) }
        });
        match &mut self.unit {
            Some(unit) if to > 0 => unit.add(to, kind),
            _ => count(&mut self.tally.cashbox, kind),
        }
        if let Some(unit) = &mut self.unit {
            unit.last_to = to;
        }
    }

    /// What BILL STACKED says.
    pub(super) fn stacked(&self, kind: u8) -> State {
        let kind = self.misread_next.unwrap_or(kind);
        match &self.unit {
            Some(unit) => State::Packed { kind, to: unit.last_to },
            None => State::Stacked(kind),
        }
    }

    /// What a failure is called.
    pub(super) fn failure(&self, code: u8) -> State {
        match self.unit {
            Some(_) => State::UnitFailure(UnitFailure::from_code(code)),
            None => State::Failure(crate::frame::ccnet::FailureCode::from_code(code)),
        }
    }

    /// Notes lie in the dispenser.
    pub(super) fn in_dispenser(&self) -> bool {
        let job = self.unit.as_ref().and_then(|unit| unit.job.as_ref());
        job.is_some_and(|job| job.what == What::Dispense && !job.path.is_empty())
    }

    /// What a poll shows while notes go out.
    pub(super) fn moving_frame(&self) -> Option<Frame> {
        let Phase::Out { step, .. } = self.phase else { return None };
        let job = self.unit.as_ref()?.job.as_ref();
        let moved = job.map(|job| &job.moved);
        let pairs: Vec<[u8; 2]> =
            moved.into_iter().flatten().map(|(kind, n)| [*kind, byte(*n)]).collect();
        let said = if self.options.tells_counts { pairs.as_slice() } else { &[] };
        let state = match (step, job.map(|job| job.what)) {
            (Step::Taken, _) => return None,
            (Step::Invalid, _) | (_, None) => UnitState::InvalidNumber,
            (Step::Waiting, _) => UnitState::Dispensing(Some(1)),
            (Step::Moving, Some(What::Dispense)) => UnitState::Dispensing(Some(0)),
            (Step::Moving, Some(What::Unload { .. })) => UnitState::Unloading(Some(0)),
            (Step::Moving, Some(What::SetType { .. })) => UnitState::SettingType,
            (Step::Done, Some(What::Dispense)) => UnitState::Dispensed(said),
            (Step::Done, Some(What::Unload { .. })) => {
                let all = pairs.iter().fold(0u8, |sum, [_, n]| sum.saturating_add(*n));
                UnitState::Unloaded(Some(all))
            }
            (Step::Done, Some(What::SetType { .. })) => UnitState::TypeSet,
        };
        Some(state.frame())
    }

    /// A command that no validator knows; the answer is ACK, if it is taken, or data.
    pub(super) fn on_command(&mut self, command: Command<'_>, now: Mono) -> Option<Frame> {
        let rests = self.state() == Some(State::Disabled) && self.moving_frame().is_none();
        let in_dispenser = self.in_dispenser();
        let unit = self.unit.as_mut()?;
        let free = rests && unit.job.is_none();
        let job =
            |what, left| Job { what, left, path: vec![], exit: vec![], moved: BTreeMap::new() };
        let (next, time) = match command {
            Command::CassetteStatus => {
                let told: Vec<u8> = unit.stores.iter().flat_map(status).collect();
                let (first, rest) = told.split_first()?;
                return Some(Frame::new(BILL_TO_BILL, *first, rest));
            }
            Command::PowerRecovery if !matches!(self.phase, Phase::Idle) => return None,
            Command::PowerRecovery => {
                unit.asked = true;
                return Some(unit.recovery());
            }
            Command::EmptyDispenser if rests && in_dispenser => {
                self.phase = Phase::Out { step: Step::Moving, until: Some(now.after(NOTE_MS)) };
                return Some(ack());
            }
            Command::Dispense(notes) if free => {
                let mut left = Vec::new();
                for [kind, wanted] in notes {
                    let holds = |(at, store): (usize, &Store)| {
                        let told =
                            if store.present && store.kind == *kind { store.told } else { 0 };
                        std::iter::repeat_n(at, usize::from(told))
                    };
                    let from = unit.stores.iter().enumerate().flat_map(holds);
                    left.extend(from.take(usize::from(*wanted)));
                }
                let wanted =
                    notes.iter().fold(0u32, |sum, [_, n]| sum.saturating_add(u32::from(*n)));
                if wanted == 0 || wanted > MOST_NOTES {
                    return None;
                }
                if byte(wanted) > byte(u32::try_from(left.len()).unwrap_or(u32::MAX)) {
                    self.phase = Phase::Out { step: Step::Invalid, until: None };
                    return Some(ack());
                }
                unit.payouts = unit.payouts.saturating_add(1);
                (job(What::Dispense, left), NOTE_MS)
            }
            Command::Unload { cassette, notes } if free => {
                let at = unit.at(cassette)?;
                let told = unit.stores.get(at).filter(|store| store.present)?.told;
                let left = vec![at; usize::from(notes.min(told))];
                (job(What::Unload { cassette, notes }, left), NOTE_MS)
            }
            Command::SetCassetteType { cassette, kind } if free => {
                let at = unit.at(cassette)?;
                (job(What::SetType { at, kind: kind & 0x1f }, Vec::new()), TYPE_MS)
            }
            _ => return None,
        };
        unit.job = Some(next);
        self.phase = match std::mem::take(&mut unit.starts_after) {
            0 => Phase::Out { step: Step::Moving, until: Some(now.after(time)) },
            late => Phase::Out { step: Step::Taken, until: Some(now.after(late)) },
        };
        Some(ack())
    }

    /// What time brings to notes on their way out.
    pub(super) fn move_out(&mut self, step: Step, at: Mono) -> Phase {
        let take = self.customer_takes.then(|| at.after(self.timing.take));
        let Some(unit) = &mut self.unit else { return Phase::Idle };
        let Some(mut job) = unit.job.take() else { return Phase::Out { step, until: None } };
        let mut next = Phase::Out { step: Step::Done, until: None };
        let more = Phase::Out { step: Step::Moving, until: Some(at.after(NOTE_MS)) };
        match (step, job.what) {
            (Step::Taken, _) => next = more,
            (Step::Moving, What::SetType { at, kind }) => {
                // what it keeps is not of this type: it goes to the drop cassette
                while let Some(note) = unit.pick(at) {
                    count(&mut self.tally.cashbox, note);
                }
                if let Some(store) = unit.stores.get_mut(at) {
                    store.kind = kind;
                }
            }
            (Step::Moving, What::Unload { .. }) => {
                for note in job.path.drain(..) {
                    count(&mut self.tally.cashbox, note);
                    count(&mut job.moved, note);
                }
                if let Some(from) = job.left.pop() {
                    job.path.extend(unit.pick(from));
                    next = more;
                }
            }
            (Step::Moving, What::Dispense) => match job.left.pop() {
                Some(from) => {
                    job.path.extend(unit.pick(from));
                    next = more;
                }
                None => {
                    job.exit.append(&mut job.path);
                    next = Phase::Out { step: Step::Waiting, until: take };
                }
            },
            (Step::Waiting, _) => {
                unit.job = Some(job);
                unit.take_exit();
                return next;
            }
            (Step::Done | Step::Invalid, _) => next = Phase::Out { step, until: None },
        }
        unit.job = Some(job);
        next
    }

    /// What is confirmed is over: the end of a movement, or the answer to POWER RECOVERY.
    pub(super) fn out_acknowledged(&mut self, frame: &Frame) {
        let shown = self.moving_frame().as_ref() == Some(frame);
        let done = matches!(self.phase, Phase::Out { step: Step::Done | Step::Invalid, .. });
        let Some(unit) = &mut self.unit else { return };
        if done && shown {
            unit.job = None;
            return self.after_note();
        }
        match Recovery::parse(frame.content()) {
            Some(Recovery::Packing(_)) if unit.recovery() == *frame => {
                let credits = u32::try_from(std::mem::take(&mut unit.packing).len());
                let all = self.tally.acknowledged.saturating_add(credits.unwrap_or(0));
                self.tally.acknowledged = all;
            }
            Some(Recovery::Unloading { .. }) if unit.recovery() == *frame => unit.job = None,
            _ => {}
        }
    }

    /// RESET, power or a hand has ended a movement: notes at the exit are taken there.
    pub(super) fn stop_out(&mut self) {
        let was_out = matches!(self.phase, Phase::Out { .. });
        let Some(unit) = self.unit.as_mut().filter(|_| was_out) else { return };
        unit.take_exit();
        let Some(job) = &mut unit.job else { return };
        job.left.clear();
        if job.path.is_empty() && !matches!(job.what, What::Unload { .. }) {
            unit.job = None;
        }
    }

    /// The unit has been initialised: what was on its way to the drop cassette is there. `credit`: a
    /// note that was coming in, and is where it was put last.
    pub(super) fn unit_initialized(&mut self, credit: Option<u8>) {
        let Some(unit) = &mut self.unit else { return };
        unit.asked = false;
        if let Some(kind) = credit {
            unit.packing.push([self.misread_next.take().unwrap_or(kind), unit.last_to]);
        }
        if let Some(Job { what: What::Unload { .. }, path, moved, .. }) = &mut unit.job {
            for note in path.drain(..) {
                count(&mut self.tally.cashbox, note);
                count(moved, note);
            }
        }
    }

    /// ENABLE before POWER RECOVERY forgets the credits; with notes in the dispenser it is a failure.
    pub(super) fn unit_enabled(&mut self) {
        let stuck = self.in_dispenser();
        let Some(unit) = &mut self.unit else { return };
        unit.packing.clear();
        if stuck {
            self.trouble = Some(Trouble { kind: TroubleKind::Failure(0x5d), present: false });
            self.phase = Phase::Halted(None);
        }
    }

    /// A person takes out what is stuck between cassettes and exit.
    pub(super) fn clear_unit(&mut self) {
        let Some(job) = self.unit.as_mut().and_then(|unit| unit.job.take()) else { return };
        let notes = u32::try_from(job.path.len()).unwrap_or(u32::MAX);
        self.tally.removed = self.tally.removed.saturating_add(notes);
    }

    pub(super) fn load(&mut self, number: u64, notes: u64) -> Result<(), SimError> {
        let wrong =
            || SimError::State("no such cassette, or it was not told what to keep".to_owned());
        let number = u8::try_from(number).map_err(|_| wrong())?;
        let unit = self.unit.as_mut().ok_or_else(wrong)?;
        let store = unit.at(number).and_then(|at| unit.stores.get(at)).ok_or_else(wrong)?;
        let kind = Some(store.kind).filter(|kind| *kind < 24).ok_or_else(wrong)?;
        for _ in 0..notes {
            unit.add(number, kind);
        }
        Ok(())
    }

    /// Another host has given a cassette this type.
    pub(super) fn retype(&mut self, number: u64, kind: u8) -> Result<(), SimError> {
        let wrong = || SimError::State("no such cassette".to_owned());
        let number = u8::try_from(number).map_err(|_| wrong())?;
        let unit = self.unit.as_mut().ok_or_else(wrong)?;
        let at = unit.at(number).ok_or_else(wrong)?;
        unit.stores.get_mut(at).ok_or_else(wrong)?.kind = kind & 0x1f;
        Ok(())
    }

    /// A recycling cassette is taken out, or put back; taken out while notes come from it, it jams.
    pub(super) fn pull(&mut self, number: u64, present: bool) -> Result<(), SimError> {
        let wrong = || SimError::State("no such cassette".to_owned());
        let number = u8::try_from(number).map_err(|_| wrong())?;
        let unit = self.unit.as_mut().ok_or_else(wrong)?;
        let at = unit.at(number).ok_or_else(wrong)?;
        if let Some(store) = unit.stores.get_mut(at) {
            store.present = present;
        }
        let used = unit.job.as_ref().is_some_and(|job| job.left.contains(&at));
        if used && !present {
            self.halt(TroubleKind::UnitJam(UnitJam::from_code(0x6f_u8.saturating_add(number))))?;
        }
        Ok(())
    }

    /// The unit draws notes that nobody took back, into the drop cassette.
    pub(super) fn retract(&mut self) -> Result<(), SimError> {
        let waits = matches!(self.phase, Phase::Out { step: Step::Waiting, .. });
        let job = self.unit.as_mut().filter(|_| waits).and_then(|unit| unit.job.as_mut());
        let none = || SimError::State("no notes wait at the exit".to_owned());
        for note in job.ok_or_else(none)?.exit.drain(..) {
            count(&mut self.tally.cashbox, note);
        }
        self.halt(TroubleKind::Failure(0xca))
    }

    /// The customer takes the notes at the exit.
    pub(super) fn take_out(&mut self, now: Mono) {
        if let Phase::Out { step: Step::Waiting, until } = &mut self.phase {
            *until = Some(now);
        }
    }

    pub(super) fn unit_counters(&self) -> Option<(usize, Map<String, Value>)> {
        let unit = self.unit.as_ref()?;
        let mut own = Map::new();
        let boxes = unit.stores.iter().map(|store| self.by_value(&store.notes));
        own.insert("boxes".to_owned(), boxes.collect());
        let told: Vec<u8> = unit.stores.iter().map(|store| store.told).collect();
        own.insert("told".to_owned(), told.into());
        own.insert("given".to_owned(), self.by_value(&unit.given));
        own.insert("payouts".to_owned(), unit.payouts.into());
        own.insert("at_bezel".to_owned(), unit.job.as_ref().map_or(0, |job| job.exit.len()).into());
        Some((unit.job.as_ref().map_or(0, |job| job.path.len()), own))
    }
}

impl Unit {
    /// The answer to POWER RECOVERY.
    fn recovery(&self) -> Frame {
        let words =
            |job: &Job, bit: u8| job.path.iter().map(|kind| [bit | *kind, 0]).collect::<Vec<_>>();
        match &self.job {
            _ if !self.packing.is_empty() => Recovery::Packing(&self.packing).frame(),
            Some(job) if job.what == What::Dispense && !job.path.is_empty() => {
                Recovery::Dispensing(&words(job, 0x80)).frame()
            }
            Some(job @ Job { what: What::Unload { cassette, notes }, .. }) => {
                let (cassette, notes) = (*cassette, *notes);
                Recovery::Unloading { cassette, notes, words: &words(job, 0) }.frame()
            }
            _ => Recovery::None.frame(),
        }
    }
}

fn status(store: &Store) -> [u8; 2] {
    let Store { kind, present, told, .. } = store;
    let full = if *told >= CAPACITY { 0x40 } else { 0 };
    [if *present { 0x80 | full | kind } else { UNASSIGNED }, if *present { *told } else { 0 }]
}

fn ack() -> Frame {
    Frame::new(BILL_TO_BILL, 0x00, &[])
}

fn byte(notes: u32) -> u8 {
    u8::try_from(notes).unwrap_or(u8::MAX)
}
