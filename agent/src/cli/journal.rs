//! `journal show|verify|export`: the record, looked at beside a running vault, of a stopped machine,
//! or of a copied file. Nothing of it is changed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bitspire_shared::ids::{JournalHead, JournalSeq, TxnId};
use clap::{Args, Subcommand};

use crate::evidence;
use crate::journal::{Compared, Reader, SeenHead, StoredEntry, Verified, compare, verify_export};

#[derive(Debug, Subcommand)]
pub(super) enum JournalVerb {
    /// Show entries, oldest first
    Show(Show),
    /// Check every entry, every link of the chain and everything derived from them; exit code 1 with
    /// the entry at which it breaks
    Verify(Verify),
    /// Write all entries as lines of canonical JSON, with hashes and head: whoever has them can
    /// check the chain
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Another journal than this machine's: a copied file, its -wal beside it if there was one
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    which: Which,
    /// Only this transaction's
    #[arg(long)]
    txid: Option<TxnId>,
    /// From this position on
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Up to this position
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// Only the last so many of them
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// As lines of canonical JSON, bodies and hashes included
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    which: Which,
    /// Check an export, or an evidence bundle, instead: without any database
    #[arg(long, value_name = "FILE", conflicts_with = "journal")]
    file: Option<PathBuf>,
    /// Hold it against what the operator's service has seen, too: the lines that
    /// `bitspire-operator machine journal` prints
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    which: Which,
    /// Where to; a new file. Without it: standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Which {
    /// The file that was named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.journal.as_deref()
    }

    pub(super) fn open(&self, own: &Path) -> anyhow::Result<Reader> {
        let path = self.journal.as_deref().unwrap_or(own);
        Reader::open(path).with_context(|| format!("{}", path.display()))
    }
}

/// Does it; `own` is this machine's journal.
pub(super) fn run(verb: JournalVerb, own: &Path) -> anyhow::Result<()> {
    match verb {
        JournalVerb::Show(show) => show.run(own),
        JournalVerb::Verify(Verify { which, file, heads }) => {
            let seen = heads.as_deref().map(read_heads).transpose()?;
            match file {
                Some(file) => verify_text(&file, seen),
                None => {
                    let reader = which.open(own)?;
                    says_it_holds(reader.verify()?);
                    let wanted = seen.iter().flatten().map(|seen| seen.seq).collect();
                    let hashes = reader.hashes(&wanted)?;
                    agrees(seen, |seq| hashes.get(&seq).copied())
                }
            }
        }
        JournalVerb::Export(Export { which, out }) => {
            let reader = which.open(own)?;
            write_out(out.as_deref(), |to| Ok(reader.export(to)?))
        }
    }
}

/// What the operator's service has seen of the journal.
fn read_heads(path: &Path) -> anyhow::Result<Vec<SeenHead>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let read = |(no, line): (usize, &str)| {
        let place = format!("{}: line {}", path.display(), no.saturating_add(1));
        serde_json::from_str(line).with_context(|| {
            format!("{place}: expected one of `bitspire-operator machine journal`")
        })
    };
    text.lines().enumerate().map(read).collect()
}

/// Holds a journal that holds by itself against what was `seen` of it.
fn agrees(
    seen: Option<Vec<SeenHead>>,
    here: impl FnMut(JournalSeq) -> Option<JournalHead>,
) -> anyhow::Result<()> {
    let Some(seen) = seen else { return Ok(()) };
    match compare(seen, here) {
        Compared::Agrees { positions, last } => {
            println!("it is what the operator has seen: {positions} positions up to {}", last.0);
            Ok(())
        }
        Compared::Parts { agreed, differs } => bail!(
            "the operator has seen another journal of this vault: both agree at entry {}, and have \
             parted by entry {}. Look at the entries between; one of the two is a copy",
            agreed.0,
            differs.0
        ),
        Compared::Behind { agreed, missing } => bail!(
            "the operator has seen entry {}, which this journal does not reach (both agree at entry \
             {}): its end is lost, or it is an old copy. Do not trade on it",
            missing.0,
            agreed.0
        ),
    }
}

/// Checks an export, or the chain in an evidence bundle.
fn verify_text(path: &Path, seen: Option<Vec<SeenHead>>) -> anyhow::Result<()> {
    let opened = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut lines = BufReader::new(opened);
    let beginning = lines.fill_buf().with_context(|| format!("{}", path.display()))?;
    if beginning.starts_with(b"{\"bitspire_evidence\"") {
        let mut text = String::new();
        lines.read_to_string(&mut text)?;
        let head = evidence::verify(&text)?;
        println!("the evidence leads to entry {}, head {}", head.seq.0, head.hash);
        let last = |seq| (seq == head.seq).then_some(head.hash);
        // of a bundle only its end is known
        let seen = seen.map(|seen| seen.into_iter().filter(|seen| seen.seq == head.seq).collect());
        agrees(seen, last)
    } else {
        let mut hashes = BTreeMap::new();
        let keep = |entry: &StoredEntry| {
            hashes.insert(entry.seq, entry.hash);
        };
        says_it_holds(verify_export(lines, keep)?);
        agrees(seen, |seq| hashes.get(&seq).copied())
    }
}

fn says_it_holds(Verified { head, open }: Verified) {
    let (seq, hash) = (head.seq.0, head.hash);
    println!("the journal holds: {seq} entries, {open} transactions open, head {hash}");
}

impl Show {
    fn run(self, own: &Path) -> anyhow::Result<()> {
        let reader = self.which.open(own)?;
        let (from, to) = (self.from.unwrap_or(1), self.to.unwrap_or(u64::MAX));
        let to = to.min(reader.head().seq.0);
        let wanted = |seq: JournalSeq| (from..=to).contains(&seq.0);
        let mut out = BufWriter::new(io::stdout().lock());
        let mut tell = |entry: &StoredEntry| -> anyhow::Result<()> {
            match self.json {
                true => write!(out, "{}", entry.to_line()?)?,
                false => writeln!(out, "{}", entry.in_words())?,
            }
            Ok(())
        };
        // the last ones can only be told once the end is known
        let mut kept = VecDeque::new();
        let mut failed = Ok(());
        let mut take = |entry: StoredEntry| match self.last {
            Some(last) => {
                kept.push_back(entry);
                while kept.len() > last {
                    kept.pop_front();
                }
            }
            None if failed.is_ok() => failed = tell(&entry),
            None => {}
        };
        match (self.txid, self.last) {
            (Some(txid), _) => {
                let all = reader.entries_of(txid)?;
                if all.is_empty() {
                    bail!("transaction {txid} is not in this journal");
                }
                all.into_iter().filter(|entry| wanted(entry.seq)).for_each(take);
            }
            (None, last) => {
                // no need to read what is not shown
                let last = last.and_then(|last| u64::try_from(last).ok()).unwrap_or(u64::MAX);
                let from = from.max(to.saturating_add(1).saturating_sub(last));
                reader.each(JournalSeq(from), JournalSeq(to), |entry| {
                    take(entry);
                    Ok(())
                })?;
            }
        }
        failed?;
        for entry in &kept {
            tell(entry)?;
        }
        Ok(out.flush()?)
    }
}

/// Writes to a new file that only its owner reads, durable at the end, or to standard output.
pub(super) fn write_out(
    out: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(path) = out else { return write(&mut BufWriter::new(io::stdout().lock())) };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = BufWriter::new(file.with_context(|| format!("{}", path.display()))?);
    write(&mut file)?;
    Ok(file.into_inner()?.sync_all()?)
}
