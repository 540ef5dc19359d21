//! A disk that is cut off: what it has for sure, and what it may have.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::State;
use super::trace::Op;

/// What reaches the disk as one.
const BLOCK: usize = 4_096;

/// The disk with what is not flushed.
#[derive(Default)]
pub(super) struct Disk {
    files: Vec<File>,
    /// The names on the disk.
    flushed: BTreeMap<String, usize>,
    /// The names as programs see them.
    seen: BTreeMap<String, usize>,
    /// What has become of names since they were flushed.
    names: Vec<(String, Option<usize>)>,
}

/// One file's content.
#[derive(Default)]
struct File {
    flushed: Vec<u8>,
    since: Vec<Change>,
}

enum Change {
    /// Bytes within one block.
    Piece(usize, Vec<u8>),
    Length(usize),
}

impl Disk {
    /// A program did this.
    pub(super) fn apply(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Made { name } => {
                let no = self.files.len();
                self.files.push(File::default());
                self.seen.insert(name.clone(), no);
                self.names.push((name.clone(), Some(no)));
            }
            Op::Write { name, at, bytes } => {
                let file = self.file(name)?;
                let (mut at, mut rest) = (*at, bytes.as_slice());
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(rest.len().min(BLOCK - at % BLOCK));
                    file.since.push(Change::Piece(at, piece.to_vec()));
                    at += piece.len();
                    rest = more;
                }
            }
            Op::Length { name, length } => self.file(name)?.since.push(Change::Length(*length)),
            Op::Sync { name } => {
                let file = self.file(name)?;
                file.flushed = file.after(&mut |most| most);
                file.since.clear();
            }
            Op::SyncFolder => {
                self.flushed = self.seen.clone();
                self.names.clear();
            }
            Op::Gone { name } => {
                self.seen.remove(name);
                self.names.push((name.clone(), None));
            }
            Op::Said(_) => {}
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> Result<&mut File> {
        let no = self.seen.get(name).with_context(|| format!("{name} was never made"))?;
        self.files.get_mut(*no).context("a file without a number")
    }

    /// What a power cut leaves, where `pick` says how many of so many have reached the disk.
    pub(super) fn after(&self, pick: &mut dyn FnMut(usize) -> usize) -> State {
        let mut names = self.flushed.clone();
        // a file system keeps the order of names
        for (name, no) in self.names.iter().take(pick(self.names.len())) {
            match no {
                Some(no) => names.insert(name.clone(), *no),
                None => names.remove(name),
            };
        }
        names.into_iter().map(|(name, no)| (name, self.files[no].after(pick))).collect()
    }
}

impl File {
    /// Each block for itself, but that nothing of what was written to a file after its length was
    /// set is there without that length.
    fn after(&self, pick: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        let lengths = self.since.iter().filter(|change| matches!(change, Change::Length(_)));
        let (kept, mut passed) = (pick(lengths.count()), 0);
        let mut last = Vec::new();
        for change in &self.since {
            match change {
                Change::Length(_) if passed == kept => break,
                Change::Length(length) => {
                    for (at, piece) in last.drain(..) {
                        put(&mut bytes, at, piece);
                    }
                    bytes.resize(*length, 0);
                    passed += 1;
                }
                Change::Piece(at, piece) => last.push((*at, piece.as_slice())),
            }
        }
        let mut blocks: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for (at, piece) in last {
            blocks.entry(at / BLOCK).or_default().push((at, piece));
        }
        for pieces in blocks.values() {
            for (at, piece) in pieces.iter().take(pick(pieces.len())) {
                put(&mut bytes, *at, piece);
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(ops: &[Op]) -> Disk {
        let mut disk = Disk::default();
        for op in ops {
            disk.apply(op).unwrap();
        }
        disk
    }

    /// Loss prevented: a disk of tests that keeps what a real one may lose, so that nothing is tried.
    #[test]
    fn only_what_is_flushed_is_sure() {
        let name = || "journal".to_owned();
        let write = |at, byte| Op::Write { name: name(), at, bytes: vec![byte; 8] };
        let made = Op::Made { name: name() };
        let (sync, length) = (Op::Sync { name: name() }, Op::Length { name: name(), length: 4 });
        // content without its name is nowhere
        let nameless = disk(&[made.clone(), write(0, 1), sync.clone()]);
        assert_eq!(nameless.after(&mut |_| 0), State::new());
        let flushed = [made, write(0, 1), sync, Op::SyncFolder];
        let sure = State::from([(name(), vec![1; 8])]);
        assert_eq!(disk(&flushed).after(&mut |_| 0), sure);
        // two blocks, each for itself; a write over their border is two
        let mut more = flushed.to_vec();
        more.extend([write(0, 2), write(BLOCK - 4, 3)]);
        assert_eq!(disk(&more).after(&mut |_| 0), sure);
        let all = &disk(&more).after(&mut |most| most)[&name()];
        assert_eq!((all.len(), all[0], all[BLOCK - 4], all[BLOCK + 3]), (BLOCK + 4, 2, 3, 3));
        let mut picks = [0, 0, 0, 1].into_iter();
        let second = &disk(&more).after(&mut |_| picks.next().unwrap())[&name()];
        assert_eq!(
            (second.len(), second[0], second[BLOCK - 4], second[BLOCK]),
            (BLOCK + 4, 1, 0, 3)
        );
        // what comes after a length is not there without it
        let mut cut = flushed.to_vec();
        cut.extend([length, write(4, 5)]);
        assert_eq!(disk(&cut).after(&mut |_| 0), sure);
        let all = disk(&cut).after(&mut |most| most);
        assert_eq!(all[&name()], [1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5]);
    }
}
