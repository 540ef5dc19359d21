//! Notes on their way out of the store: what the device says of them.

use super::*;
use crate::frame::ssp::{CAUSE_WRONG_NOTE, Detail, Event, EventCode};

/// A note that nobody takes is called back after this.
const STAY_MS: u64 = 60_000;
/// Without an answer, or without a word of the notes, for so long: nobody knows.
pub(super) const LOST_MS: u64 = 60_000;
/// How long a device that answers may say nothing after an order that it did not answer, before that
/// counts as not taken; and how long after a start it may say nothing of what it was doing.
const TAKEN_MS: u64 = 3_000;
/// A device that does not say so starts for so long after it has told its reset.
const START_MS: u64 = 10_000;
/// A movement that goes on for so long without moving a note is halted.
const STUCK_MS: u64 = 180_000;
/// Before a busy device is asked again whether it could pay.
pub(super) const TEST_AGAIN_MS: u64 = 500;

/// How far a movement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The levels are read.
    Before,
    /// It is found out whether it could be.
    Test,
    /// It is ordered.
    Order,
    /// The device is polled until it tells the end.
    Watch,
    /// The levels are read again.
    After,
}

/// What became known of a movement.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) stage: Stage,
    pub(super) begun_at: Mono,
    pub(super) again_at: Mono,
    /// The levels before the order.
    pub(super) before: Option<BTreeMap<u32, u16>>,
    /// The device has answered that it carries the order out.
    pub(super) acked: bool,
    /// When it last said something of the notes.
    pub(super) known_at: Mono,
    /// When a note last moved, by what it said.
    progress_at: Mono,
    /// Notes go from the store to the cashbox: none of them is taken by anybody.
    pub(super) emptying: bool,
    /// What it said that it has paid, or moved to the cashbox: of our currency, in minor units.
    pub(super) done: u64,
    /// An amount was told; it has risen so often since.
    pub(super) told: bool,
    pub(super) rises: u32,
    /// Notes that went to the cashbox instead, by value: from the bezel, and before it.
    pub(super) retracted: BTreeMap<u32, u16>,
    pub(super) rejected: BTreeMap<u32, u16>,
    /// The device gave a note out at its start, by itself: it may be with anybody.
    pub(super) strewn: bool,
    bezel_since: Option<Mono>,
    bezel_seen: bool,
    /// The note at the bezel was called back.
    recalled_at: Option<Mono>,
    /// The device has told how it ended.
    pub(super) ended: Option<EventCode>,
    pub(super) power_lost: bool,
    /// It starts until then, whether it says so or not.
    starts_until: Mono,
    /// What stopped it.
    pub(super) fault: Option<DeviceFault>,
    /// The last thing that it said of the notes, in words.
    pub(super) last_word: String,
}

impl Moving {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            stage: Stage::Before,
            begun_at: now,
            again_at: now,
            before: None,
            acked: false,
            known_at: now,
            progress_at: now,
            emptying: false,
            done: 0,
            told: false,
            rises: 0,
            retracted: BTreeMap::new(),
            rejected: BTreeMap::new(),
            strewn: false,
            bezel_since: None,
            bezel_seen: false,
            recalled_at: None,
            ended: None,
            power_lost: false,
            starts_until: now,
            fault: None,
            last_word: "nothing".to_owned(),
        }
    }

    /// One that is met running.
    pub(super) fn met(now: Mono) -> Self {
        Self { stage: Stage::Watch, ..Self::new(now) }
    }

    /// One whose outcome was told as unknown, and that may go on all the same.
    pub(super) fn followed_on(&self, now: Mono) -> Self {
        let Self { emptying, done, told, ended, bezel_since, recalled_at, .. } = *self;
        let last_word = self.last_word.clone();
        let met = Self::met(now);
        // what was called back has its time once more
        let recalled_at = recalled_at.map(|_| now);
        Self { emptying, done, told, ended, bezel_since, recalled_at, last_word, ..met }
    }

    pub(super) fn is_ordered(&self) -> bool {
        matches!(self.stage, Stage::Watch | Stage::After)
    }

    pub(super) fn ordered(&mut self, now: Mono) {
        self.stage = Stage::Watch;
        (self.known_at, self.progress_at) = (now, now);
    }

    pub(super) fn recalled(&mut self, now: Mono) {
        self.recalled_at = Some(now);
    }

    /// Whether the note at the bezel is to be called back now, or all that goes on without an end.
    pub(super) fn wants_back(&self, now: Mono) -> bool {
        let stays = self.bezel_since.is_some_and(|since| now.since(since) >= STAY_MS);
        let stuck = now.since(self.progress_at) >= STUCK_MS;
        (stays || stuck) && self.recalled_at.is_none()
    }

    /// The line begins anew: what was not ordered is asked for again, what was is looked for.
    pub(super) fn out_of_sight(&mut self, now: Mono) {
        match self.stage {
            Stage::Before | Stage::Test | Stage::Order => self.stage = Stage::Before,
            Stage::Watch | Stage::After => {}
        }
        self.again_at = now;
    }

    pub(super) fn power_lost(&mut self, now: Mono) {
        if self.stage == Stage::Watch {
            // what it said nothing of while it was off, it may say yet
            (self.known_at, self.starts_until) = (now, now.after(START_MS));
            self.power_lost = true;
            self.fail(FaultKind::ServiceNeeded, "it has lost power".to_owned());
        }
    }

    pub(super) fn begin_poll(&mut self) {
        self.bezel_seen = false;
    }

    pub(super) fn on_event(&mut self, event: &Event<'_>, country: [u8; 3], now: Mono) {
        use EventCode as C;
        self.last_word = event.to_string();
        self.known_at = now;
        self.emptying |= matches!(
            event.code,
            C::Floating
                | C::Floated
                | C::SmartEmptying
                | C::SmartEmptied
                | C::Emptying
                | C::Emptied
                | C::IncompleteFloat
        );
        let done = self.done;
        match event.detail {
            Detail::Sums(sums) => self.amount(sums.of(country)),
            Detail::Pairs(pairs) => {
                let ours = pairs.iter().find(|amount| amount.done.country == country);
                self.amount(ours.map_or(0, |amount| u64::from(amount.done.value)));
            }
            Detail::Note(note) => self.on_note(event.code, note.value, now),
            // its sum is of what was paid until then
            Detail::Error(sums, cause) => {
                self.amount(sums.of(country));
                if cause != CAUSE_WRONG_NOTE {
                    self.fail(FaultKind::Jam, event.to_string());
                }
            }
            Detail::None | Detail::Channel(_) => {}
        }
        if self.done != done {
            self.progress_at = now;
        }
        match event.code {
            C::Dispensed | C::Floated | C::SmartEmptied | C::Emptied => {}
            C::Jammed => self.fail(FaultKind::Jam, event.to_string()),
            C::Halted if self.recalled_at.is_some() => {
                let why = format!("nobody took the note at the bezel: {event}");
                self.fail(FaultKind::ServiceNeeded, why);
            }
            C::Halted | C::TimeOut | C::IncompletePayout | C::IncompleteFloat => {
                self.fail(FaultKind::ServiceNeeded, event.to_string());
            }
            _ => return,
        }
        self.ended = Some(event.code);
        self.progress_at = now;
    }

    /// What was paid, or moved, until now.
    fn amount(&mut self, done: u64) {
        if done > self.done && self.told {
            self.rises = self.rises.saturating_add(1);
        }
        self.told = true;
        self.done = done;
    }

    fn on_note(&mut self, code: EventCode, value: u32, now: Mono) {
        let to = match code {
            EventCode::InBezel => {
                if self.bezel_since.is_none() {
                    (self.bezel_since, self.progress_at) = (Some(now), now);
                }
                self.bezel_seen = true;
                return;
            }
            EventCode::DispensedAtReset => {
                self.strewn = true;
                return;
            }
            EventCode::Transferred if self.bezel_since.is_some() => &mut self.retracted,
            EventCode::Transferred | EventCode::IntoCashboxAtReset => &mut self.rejected,
            _ => return,
        };
        let notes = to.entry(value).or_default();
        *notes = notes.saturating_add(1);
        self.progress_at = now;
    }

    /// A poll is over; whether the device has told all that it will.
    pub(super) fn is_over(&mut self, starting: bool, now: Mono) -> bool {
        if !self.bezel_seen && self.ended.is_none() {
            self.bezel_since = None;
        }
        if starting || now < self.starts_until {
            self.known_at = now;
        }
        let quiet = now.since(self.known_at) >= TAKEN_MS;
        self.ended.is_some() || quiet && (self.power_lost || !self.acked)
    }

    /// Without a word of the notes for a minute, or of the one that was called back.
    pub(super) fn is_lost(&self, now: Mono) -> bool {
        let since = self.recalled_at.map_or(self.known_at, |at| self.known_at.min(at));
        now.since(since) >= LOST_MS
    }

    pub(super) fn fail(&mut self, kind: FaultKind, detail: String) {
        self.fault.get_or_insert(DeviceFault { kind, detail });
    }
}
