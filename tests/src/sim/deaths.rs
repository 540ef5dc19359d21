//! Where the vault's power goes, and what is left on the disk then.
//!
//! A death between writing and flushing leaves the file as it was, or torn: the first half of what
//! changed. The files are taken at the moment of death and put back afterwards, since a database
//! that is let go of in good order would tidy up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bitspire_agent::txn::Txn;
use bitspire_agent::vault::{Event, Point};
use bitspire_hardware::sim::faulty::SplitMix64;
use bitspire_shared::money::Direction;
use bitspire_shared::time::Mono;

/// How often the power goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeathRates {
    /// At each place of the vault.
    pub(super) per_million: u32,
    /// Of the deaths at a record, those before it was flushed.
    pub(super) torn_percent: u32,
}

/// An effect in a state of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) direction: Direction,
    /// The state's name, after the step.
    pub(super) state: &'static str,
    /// The effect's name.
    pub(super) effect: &'static str,
}

impl Spot {
    fn of(txn: &Txn, effect: &'static str) -> Self {
        let direction = match txn {
            Txn::CashOut(_) => Direction::CashOut,
            Txn::CashIn(_) => Direction::CashIn,
        };
        Self { direction, state: txn.name(), effect }
    }
}

/// When the power goes, within an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// Before anything of it.
    Before,
    /// Its record was half written.
    Torn,
    /// Its record was written and not flushed.
    Unsynced,
    /// Its record is on the disk.
    Recorded,
    /// It was told.
    Told,
    /// Whoever was told is at work.
    UnderWay,
    /// Whoever was told has answered, and nobody heard it.
    Done,
}

impl When {
    pub(super) const ALL: [Self; 7] = [
        Self::Before,
        Self::Torn,
        Self::Unsynced,
        Self::Recorded,
        Self::Told,
        Self::UnderWay,
        Self::Done,
    ];
}

/// Whose answer ends an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answers {
    Acceptor,
    Dispenser,
    Service,
}

/// Who answers an effect, if anybody does.
pub(super) fn who_answers(effect: &str) -> Option<Answers> {
    match effect {
        "dispense" => Some(Answers::Dispenser),
        "stack" | "return_bill" | "acknowledge_credit" | "inlet" => Some(Answers::Acceptor),
        "request" => Some(Answers::Service),
        _ => None,
    }
}

fn comes_from(event: &Event) -> Option<Answers> {
    match event {
        Event::Acceptor(_) => Some(Answers::Acceptor),
        Event::Dispenser(_) => Some(Answers::Dispenser),
        Event::Said(_, message)
            if matches!(**message, bitspire_agent::ipc::ToVault::Reply { .. }) =>
        {
            Some(Answers::Service)
        }
        _ => None,
    }
}

/// One death, at the `nth` time that the vault is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) spot: Spot,
    pub(super) nth: u32,
    pub(super) when: When,
    /// Half the time that the answer takes.
    pub(super) half_ms: u64,
}

/// What a run without a death passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    /// Each spot with each point, how often.
    pub(super) points: BTreeMap<(Spot, Point), u32>,
    /// How long the answer to a spot took at most, in milliseconds.
    pub(super) answered: BTreeMap<(Spot, u32), u64>,
    /// What was passed after the first death, in order, each with how often before.
    pub(super) after_death: Vec<(Spot, Point, u32)>,
    open: Vec<(Spot, u32, Answers, Mono)>,
}

/// Journal, log and mark, as they lie on the disk.
#[derive(Clone, Default)]
struct Files(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Files {
    fn take(folder: &Path) -> Self {
        let names =
            ["journal.db", "journal.db-wal", "journal.db.mark"].map(|name| folder.join(name));
        Self(names.into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect())
    }

    /// Half of what changed since; the mark is written only after the flush.
    fn torn(&self, now: &Self) -> Self {
        let half = |old: &[u8], new: &[u8]| {
            let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
            let kept = same.saturating_add(new.len().saturating_sub(same) / 2);
            let mut torn = new[..kept].to_vec();
            torn.extend(old.iter().skip(kept));
            torn
        };
        let both = self.0.iter().zip(&now.0);
        let mix = both.map(|((path, old), (_, new))| {
            let torn = match (old, new) {
                (old, _) if path.extension().is_some_and(|end| end == "mark") => old.clone(),
                (Some(old), Some(new)) => Some(half(old, new)),
                (None, Some(new)) => Some(half(&[], new)),
                (old, None) => old.clone(),
            };
            (path.clone(), torn)
        });
        Self(mix.collect())
    }

    fn put_back(&self, folder: &Path) -> std::io::Result<()> {
        let gone = fs::remove_file(folder.join("journal.db-shm"));
        if let Err(error) = gone
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        for (path, bytes) in &self.0 {
            match bytes {
                Some(bytes) => fs::write(path, bytes)?,
                None if path.exists() => fs::remove_file(path)?,
                None => {}
            }
        }
        Ok(())
    }
}

pub(super) struct Deaths {
    chance: SplitMix64,
    rates: DeathRates,
    folder: PathBuf,
    at: Option<Mono>,
    on_event: Option<Answers>,
    pub(super) aims: Vec<Aim>,
    counts: BTreeMap<(Spot, Point), u32>,
    pub(super) passed: Option<Passed>,
    /// The files before a record, where it will be torn or lost.
    before: Option<(Files, When)>,
    left: Option<Files>,
    pub(super) faults: u64,
    pub(super) deaths: u64,
}

impl Deaths {
    pub(super) fn new(seed: u64, rates: DeathRates) -> Self {
        Self {
            chance: SplitMix64::new(seed),
            rates,
            folder: PathBuf::new(),
            at: None,
            on_event: None,
            aims: Vec::new(),
            counts: BTreeMap::new(),
            passed: None,
            before: None,
            left: None,
            faults: 0,
            deaths: 0,
        }
    }

    pub(super) fn set_folder(&mut self, folder: &Path) {
        self.folder = folder.to_owned();
    }

    pub(super) const fn at(&self) -> Option<Mono> {
        self.at
    }

    pub(super) fn at_once(&mut self, now: Mono) {
        self.at = Some(now);
    }

    /// No more of them.
    pub(super) fn end(&mut self) {
        self.rates = DeathRates::default();
        self.at = None;
    }

    pub(super) fn is_due(&mut self, now: Mono) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.die(None);
        }
        due
    }

    /// Something is about to reach the vault; `true` where it never does.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let from = comes_from(event);
        let dies = from.is_some() && self.on_event == from;
        if dies {
            self.die(None);
        }
        dies
    }

    /// The same, for whoever looks how long answers take.
    pub(super) fn answered(&mut self, event: &Event, now: Mono) {
        let (Some(passed), Some(from)) = (&mut self.passed, comes_from(event)) else { return };
        for (spot, nth, _, since) in passed.open.extract_if(.., |(_, _, who, _)| *who == from) {
            passed.answered.insert((spot, nth), now.since(since));
        }
    }

    fn die(&mut self, left: Option<Files>) {
        self.left = Some(left.unwrap_or_else(|| Files::take(&self.folder)));
        self.deaths = self.deaths.saturating_add(1);
        (self.at, self.on_event, self.before) = (None, None, None);
    }

    /// The vault has ended: the disk is as it was at that moment.
    pub(super) fn bury(&mut self) -> std::io::Result<()> {
        match self.left.take() {
            Some(files) => files.put_back(&self.folder),
            None => Ok(()),
        }
    }

    /// The vault is at an effect; `false` where that is its end.
    pub(super) fn lives(
        &mut self,
        txn: &Txn,
        effect: &'static str,
        point: Point,
        now: Mono,
    ) -> bool {
        let spot = Spot::of(txn, effect);
        let count = self.counts.entry((spot, point)).or_default();
        *count = count.saturating_add(1);
        let nth = *count;
        if let Some(passed) = &mut self.passed {
            passed.points.insert((spot, point), nth);
            if self.deaths > 0 {
                passed.after_death.push((spot, point, nth));
            }
            if let (Some(who), Point::After) = (who_answers(effect), point) {
                passed.open.push((spot, nth, who, now));
            }
        }
        if let (Some((before, when)), Point::Recorded) = (self.before.take(), point) {
            let after = Files::take(&self.folder);
            let left = if when == When::Torn { before.torn(&after) } else { before };
            self.die(Some(left));
            return false;
        }
        let aimed = self.aims.first().copied().filter(|aim| (aim.spot, aim.nth) == (spot, nth));
        if let Some(aim) = aimed {
            let hit = match (aim.when, point) {
                (When::Before, Point::Before)
                | (When::Recorded, Point::Recorded)
                | (When::Told, Point::After) => true,
                (When::Torn | When::Unsynced, Point::Before) => {
                    self.before = Some((Files::take(&self.folder), aim.when));
                    self.aims.remove(0);
                    false
                }
                (When::UnderWay, Point::After) => {
                    self.at = Some(now.after(aim.half_ms));
                    self.aims.remove(0);
                    false
                }
                (When::Done, Point::After) => {
                    self.on_event = who_answers(effect);
                    self.aims.remove(0);
                    false
                }
                _ => false,
            };
            if hit {
                self.aims.remove(0);
                self.die(None);
                return false;
            }
        }
        if !self.chance.chance(self.rates.per_million) {
            return true;
        }
        if point == Point::Before && self.chance.below(100) < u64::from(self.rates.torn_percent) {
            let when = if self.chance.chance(500_000) { When::Torn } else { When::Unsynced };
            self.before = Some((Files::take(&self.folder), when));
            return true;
        }
        self.die(None);
        false
    }

    /// An entry is on the disk; `false` where that is the vault's end.
    pub(super) fn lives_after_flush(&mut self) -> bool {
        if self.before.is_some() || !self.chance.chance(self.rates.per_million) {
            return true;
        }
        self.die(None);
        false
    }

    /// Somebody may have noted the files for a record that never came.
    pub(super) fn forget_record(&mut self) {
        self.before = None;
    }
}
