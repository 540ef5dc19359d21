//! `replay`: the machine after any entry of a journal.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bitspire_shared::ids::{JournalSeq, TxnId};
use clap::Args;

use crate::journal::Reader;
use crate::replay::replay;

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The journal's file; without it: this machine's
    #[arg(value_name = "JOURNAL")]
    journal: Option<PathBuf>,
    /// Up to this position
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// Only the steps of this transaction
    #[arg(long)]
    txid: Option<TxnId>,
    /// A line of JSON for each step: the entry, the transaction's state and screen, all open
    /// transactions, bays, cashbox and reject bin
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Does it; `own` is this machine's journal.
    pub(super) fn run(self, own: &Path) -> anyhow::Result<()> {
        let path = self.journal.as_deref().unwrap_or(own);
        let reader = Reader::open(path).with_context(|| format!("{}", path.display()))?;
        let to = JournalSeq(self.to.unwrap_or(u64::MAX).min(reader.head().seq.0));
        let mut out = BufWriter::new(io::stdout().lock());
        let (mut last, mut told) = (None, Ok(()));
        let stepped = replay(&reader, to, self.txid, |moment| {
            if told.is_ok() {
                told = match self.json {
                    true => serde_json::to_string(moment)
                        .map_err(io::Error::from)
                        .and_then(|line| writeln!(out, "{line}")),
                    false => write!(out, "{}", moment.in_words()),
                };
            }
            last = Some(moment.clone());
            Ok(())
        });
        told?;
        match last {
            Some(last) if !self.json => write!(out, "{}", last.summary())?,
            Some(_) => {}
            None => writeln!(io::stderr(), "no entry of that transaction up to there")?,
        }
        out.flush()?;
        Ok(stepped?)
    }
}
