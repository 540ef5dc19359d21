//! Power cuts: what a disk may hold after one, and whether the machine's journal opens from it.
//!
//! Promise: a process lives a journal's life (sales, marks of intents, checkpoints, the archive, a
//! second start) under strace, and says after each entry that it was told to be durable. Its writes
//! are then played onto a disk that is cut off anywhere: of what was written to a file and not
//! flushed since, each block of 4 KiB has reached the disk or not, for itself, and of the names in the
//! folder the first so many. From each such disk the journal opens, every entry that was told is
//! there, the chain is the one of the whole life as far as it goes, and the mark knows each intent
//! whose proof was given out.
//!
//! The same cuts on a disk that does not keep to flushes must be found out, or nothing was tried.
//!
//! Failure policy: the first disk that breaks this is an error that names cut and seed.

mod disk;
mod life;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bitspire_agent::journal::{Journal, JournalError, Reader, verify_file};
use bitspire_hardware::sim::faulty::SplitMix64;
use clap::Parser;

use self::disk::Disk;
use self::life::{BINDING, FILE, NOW};
use self::trace::{Op, Said};

/// Of so many opened journals one is looked through as a whole.
const WHOLE: u32 = 16;
/// Cuts on a disk that lies, of which at least one must be found out.
const LIES: u32 = 100;

/// Cuts the power of a disk that a journal is written to, anywhere, and opens what is left
#[derive(Debug, Parser)]
#[command(name = "power")]
pub struct Power {
    /// How many power cuts
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    cuts: u32,
    /// What decides which
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Live the journal's life in this folder: what is recorded
    #[arg(long, value_name = "DIR", hide = true)]
    life: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes, flushes and changes of names that were recorded.
    pub ops: usize,
    /// Entries that were told to be durable.
    pub told: u64,
    /// Power cuts that were survived.
    pub cuts: u32,
    /// Cuts of a disk that lies about its flushes which were found out.
    pub lies_found: u32,
}

impl Power {
    /// So many cuts.
    #[must_use]
    pub const fn new(cuts: u32, seed: u64) -> Self {
        Self { cuts, seed, life: None }
    }

    /// Does what the command line says.
    ///
    /// # Errors
    /// At the first disk from which the journal does not come back as it must.
    pub fn run(&self) -> Result<()> {
        if let Some(folder) = &self.life {
            return life::live(folder);
        }
        let Tally { ops, told, cuts, lies_found } = self.cut(&std::env::current_exe()?)?;
        println!(
            "{ops} writes and flushes, {told} entries told, {cuts} power cuts: nothing is lost"
        );
        println!("a disk that lies about its flushes is found out by {lies_found} of {LIES}");
        Ok(())
    }

    /// Records a life of `program` (`bitspire-world`) and cuts its disk's power.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn cut(&self, program: &Path) -> Result<Tally> {
        let place = tempfile::tempdir()?;
        let (folder, file) = (place.path().join("life"), place.path().join("trace"));
        fs::create_dir(&folder)?;
        let ops = trace::record(program, &folder, &file)?;
        let life = Life::read(&folder)?;
        // nothing of this needs to outlive a power cut of this computer
        let memory = Path::new("/dev/shm");
        let at = if memory.is_dir() { memory } else { place.path() };
        let after = tempfile::tempdir_in(at)?;
        let mut chance = SplitMix64::new(self.seed);
        let mut tally = Tally { ops: ops.len(), told: life.told(&ops).0, ..Tally::default() };
        for no in 0..self.cuts {
            let (at, state) = state(&ops, &mut chance, true)?;
            let checked = life.holds(&ops[..at], &state, after.path(), no % WHOLE == 0);
            checked.with_context(|| {
                format!(
                    "power cut {no} of seed {}, before operation {at}: {:?}",
                    self.seed,
                    ops.get(at)
                )
            })?;
            tally.cuts += 1;
        }
        for _ in 0..LIES {
            let (at, state) = state(&ops, &mut chance, false)?;
            let found = life.holds(&ops[..at], &state, after.path(), false).is_err();
            tally.lies_found += u32::from(found);
        }
        ensure!(
            tally.lies_found > 0,
            "a disk that does not flush is not found out: nothing is tried"
        );
        Ok(tally)
    }
}

/// What may lie on the disk, by name.
type State = BTreeMap<String, Vec<u8>>;

/// The disk after a power cut somewhere, with where it was cut.
fn state(ops: &[Op], chance: &mut SplitMix64, flushes: bool) -> Result<(usize, State)> {
    let mut below = |end: usize| -> Result<usize> {
        let end = u64::try_from(end)?.max(1);
        Ok(usize::try_from(chance.next_u64() % end)?)
    };
    let at = below(ops.len() + 1)?;
    let mut disk = Disk::default();
    for op in &ops[..at] {
        match op {
            // its names are as sure as ever: what is found out is content
            Op::Sync { .. } if !flushes => {}
            op => disk.apply(op)?,
        }
    }
    // nothing of what is not flushed, all of it, or any of it
    let state = match below(4)? {
        0 => disk.after(&mut |_| 0),
        1 => disk.after(&mut |most| most),
        _ => disk.after(&mut |most| below(most + 1).unwrap_or(0)),
    };
    Ok((at, state))
}

/// A whole life, as it ended.
struct Life {
    lines: Vec<String>,
}

impl Life {
    fn read(folder: &Path) -> Result<Self> {
        Ok(Self { lines: lines(&folder.join(FILE))? })
    }

    /// The last entry and the last intent that the life was told of.
    fn told(&self, ops: &[Op]) -> (u64, u64) {
        ops.iter().fold((0, 0), |(entry, intent), op| match op {
            Op::Said(Said::Told(seq)) => (*seq, intent),
            Op::Said(Said::Proof(seq)) => (*seq, *seq),
            _ => (entry, intent),
        })
    }

    /// The journal comes back from this disk with all that was told before.
    fn holds(&self, before: &[Op], state: &State, at: &Path, whole: bool) -> Result<()> {
        let folder = at.join("machine");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        for (name, bytes) in state {
            fs::write(folder.join(name), bytes)?;
        }
        let (told, proved) = self.told(before);
        let path = folder.join(FILE);
        let marked = life::marked(&path)?;
        ensure!(marked >= proved, "intent {proved} was proved, the mark knows {marked}");
        let journal = Journal::open(&path, BINDING, NOW).map_err(|error| match error {
            JournalError::Broken { .. } => anyhow::anyhow!("it says that it is damaged: {error}"),
            error => anyhow::Error::from(error).context("it does not open"),
        })?;
        // the start itself is an entry, the first start two
        let added = if told == 0 && journal.head().seq.0 == 2 { 2 } else { 1 };
        let found = journal.head().seq.0 - added;
        drop(journal);
        if found < told {
            bail!("entry {told} was told to be durable, the journal ends at {found}");
        }
        let kept = usize::try_from(found)?;
        ensure!(
            lines(&path)?.get(..kept) == self.lines.get(..kept),
            "the entries up to {found} are not those of the life"
        );
        if whole {
            verify_file(&path)?;
        }
        Ok(())
    }
}

/// The entries of a journal and its archive, a line each.
fn lines(path: &Path) -> Result<Vec<String>> {
    let mut text = Vec::new();
    Reader::open(path)?.export(&mut text)?;
    // the first line is the chain's end
    Ok(String::from_utf8(text)?.lines().skip(1).map(ToOwned::to_owned).collect())
}
