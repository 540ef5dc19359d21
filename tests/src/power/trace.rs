//! What a process did to the journal's files, as strace saw it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The calls that change what is on the disk, or say what was told.
const CALLS: &str = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,rename";

/// What the process said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This entry is durable.
    Told(u64),
    /// This intent is durable, and its proof given out.
    Proof(u64),
}

/// One thing that it did, in order.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// A file that was not there is.
    Made { name: String },
    /// Bytes at a place of a file.
    Write { name: String, at: usize, bytes: Vec<u8> },
    /// A file has this length.
    Length { name: String, length: usize },
    /// A file's content is on the disk.
    Sync { name: String },
    /// The folder's names are on the disk.
    SyncFolder,
    /// A file is gone.
    Gone { name: String },
    /// It said something.
    Said(Said),
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Made { name } => write!(f, "{name} is made"),
            Self::Write { name, at, bytes } => write!(f, "{} bytes to {name} at {at}", bytes.len()),
            Self::Length { name, length } => write!(f, "{name} is {length} long"),
            Self::Sync { name } => write!(f, "{name} is flushed"),
            Self::SyncFolder => write!(f, "the names are flushed"),
            Self::Gone { name } => write!(f, "{name} is gone"),
            Self::Said(said) => write!(f, "it says {said:?}"),
        }
    }
}

/// Records the life that `program` lives in `folder`.
pub(super) fn record(program: &Path, folder: &Path, trace: &Path) -> Result<Vec<Op>> {
    let lived = Command::new("strace")
        .args(["-y", "-xx", "-s", "1000000", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(trace)
        .arg(program)
        .args(["power", "--life"])
        .arg(folder)
        .output()
        .context("strace cannot be started")?;
    ensure!(lived.status.success(), "{}", String::from_utf8_lossy(&lived.stderr));
    let text = fs::read_to_string(trace)?;
    let folder = fs::canonicalize(folder)?;
    let folder = folder.to_str().context("the folder's name is no text")?;
    let mut there = BTreeSet::new();
    let mut ops = Vec::new();
    for line in text.lines() {
        let read = op(line, folder, &mut there);
        ops.extend(read.with_context(|| format!("strace: {}", &line[..line.len().min(200)]))?);
    }
    ensure!(ops.iter().any(|op| matches!(op, Op::Said(_))), "nothing was told: {text:.200}");
    Ok(ops)
}

/// What a line says, where it is about the journal's files.
fn op(line: &str, folder: &str, there: &mut BTreeSet<String>) -> Result<Option<Op>> {
    let Some((call, rest)) = line.split_once('(') else { return Ok(None) };
    let Some((arguments, answer)) = rest.rsplit_once(" = ") else { return Ok(None) };
    if answer.starts_with('-') {
        return Ok(None);
    }
    let arguments = arguments.trim_end().strip_suffix(')').context("a call without an end")?;
    let words: Vec<&str> = arguments.split(", ").collect();
    // a descriptor with its path, or a path
    let path = match call {
        "openat" => decoded(inside(answer, '<', '>')?)?,
        "unlink" => decoded(inside(words[0], '"', '"')?)?,
        "rename" => bail!("a file changes its name: nothing here knows what that means"),
        _ => decoded(inside(words[0], '<', '>')?)?,
    };
    let path = String::from_utf8_lossy(&path).into_owned();
    if call == "write" && words[0].starts_with("1<") {
        return said(&decoded(inside(words[1], '"', '"')?)?).map(Some);
    }
    let name = match path.strip_prefix(folder) {
        Some("") if matches!(call, "fsync" | "fdatasync") => return Ok(Some(Op::SyncFolder)),
        Some(name) => name.trim_start_matches('/').to_owned(),
        None => return Ok(None),
    };
    // an index that is made again, and a lock
    if name.is_empty() || name.ends_with("-shm") || name.ends_with(".lock") {
        return Ok(None);
    }
    Ok(Some(match call {
        "openat" if there.insert(name.clone()) => Op::Made { name },
        "openat" => return Ok(None),
        "pwrite64" => {
            let bytes = decoded(inside(words[1], '"', '"')?)?;
            ensure!(bytes.len().to_string() == answer, "only a part was written");
            Op::Write { name, at: words[3].parse()?, bytes }
        }
        "ftruncate" => Op::Length { name, length: words[1].parse()? },
        "fsync" | "fdatasync" => Op::Sync { name },
        "unlink" => {
            there.remove(&name);
            Op::Gone { name }
        }
        other => bail!("{other} on {name}: nothing here knows where it writes"),
    }))
}

fn said(text: &[u8]) -> Result<Op> {
    let text = std::str::from_utf8(text)?;
    let (what, seq) = text.trim_end().split_once(' ').context("expected what and which")?;
    let seq = seq.parse()?;
    match what {
        "told" => Ok(Op::Said(Said::Told(seq))),
        "proof" => Ok(Op::Said(Said::Proof(seq))),
        other => bail!("it says {other}"),
    }
}

/// What stands between the first `begin` and the last `end`.
fn inside(text: &str, begin: char, end: char) -> Result<&str> {
    let inside = text.split_once(begin).and_then(|(_, rest)| rest.rsplit_once(end));
    Ok(inside.with_context(|| format!("expected {begin}...{end}"))?.0)
}

/// Bytes, of which strace writes all or some as `\x00`.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'\\', [b'x', high, low, more @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?);
                rest = more;
            }
            (b'\\', _) => bail!("expected \\x and two digits"),
            (byte, more) => {
                bytes.push(*byte);
                rest = more;
            }
        }
    }
    Ok(bytes)
}
