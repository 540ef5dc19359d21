//! What is recorded: a journal with sales, a dispense and a stack each, checkpoints, a move to the
//! archive, and a second start.

use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bitspire_agent::journal::{
    CashMove, CountChange, Entry, Intent, Journal, Keeping, RequestEntry, Stage, TxnEntry,
};
use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::canonical::sha256;
use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{BayId, ChangeId, Digest, JournalSeq, RequestId, TxnId};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Unix;
use serde_json::json;

/// The journal's name in its folder.
pub(super) const FILE: &str = "journal.db";
/// The machine that it is bound to.
pub(super) const BINDING: Digest = Digest::from_bytes([1; 32]);
/// When the life ends.
pub(super) const NOW: Unix = Unix(1_800_000_000);

/// Seconds of a day.
const DAY: u64 = 86_400;
/// Sales of the first days.
const SALES: u8 = 8;
/// Entries of the last day: the archive leaves the last ones in the journal.
const TODAY: u32 = 130;
/// Everything that may move does.
const KEEPING: Keeping =
    Keeping { older_than_s: 3 * DAY, more_than: u64::MAX, least: 1, most: 2_048 };

/// A journal, and who says aloud what it answers.
struct Told {
    journal: Journal,
    at: Unix,
}

/// Lives the life in `folder`; each answer of the journal is a line on standard output.
pub(super) fn live(folder: &Path) -> Result<()> {
    let path = folder.join(FILE);
    let mut told = Told::open(&path, Unix(NOW.0 - 20 * DAY))?;
    let (bay, note) =
        (BayId::new(1).context("bays are numbered from 1")?, Denomination::from_minor(2_000)?);
    let base_seq = told.append(Entry::Cash(vec![CashMove::Assign {
        bay,
        denomination: note,
        recycles: false,
    }]))?;
    let change_id = ChangeId::from_bytes([9; 16]);
    let (change, reason) = (CountChange::Set(100), "count".into());
    told.append(Entry::Cash(vec![CashMove::Change { bay, change_id, change, base_seq, reason }]))?;
    for no in 0..SALES {
        told.sale(no, bay, note)?;
        if no % 3 == 2 {
            told.journal.checkpoint();
        }
    }
    told.at = NOW;
    for no in 0..TODAY {
        let value = json!(no);
        told.append(Entry::Setting { key: "beat".to_owned(), value, cash: Vec::new() })?;
    }
    let moved = told.journal.archive(NOW, &KEEPING)?;
    ensure!(moved > usize::from(SALES), "only {moved} entries went to the archive");
    told.say("told", told.journal.head().seq)?;
    told.sale(SALES, bay, note)?;
    drop(told);
    // a clean end leaves no log; it begins again
    let mut told = Told::open(&path, NOW)?;
    told.sale(SALES + 1, bay, note)?;
    told.journal.checkpoint();
    told.sale(SALES + 2, bay, note)
}

impl Told {
    fn open(path: &Path, at: Unix) -> Result<Self> {
        let journal = Journal::open(path, BINDING, at)?;
        let told = Self { journal, at };
        told.say("told", told.journal.head().seq)?;
        Ok(told)
    }

    /// One line, one write.
    fn say(&self, what: &str, seq: JournalSeq) -> Result<()> {
        Ok(stdout().write_all(format!("{what} {}\n", seq.0).as_bytes())?)
    }

    fn append(&mut self, entry: Entry) -> Result<JournalSeq> {
        let seq = self.journal.append(self.at, entry)?;
        self.say("told", seq)?;
        Ok(seq)
    }

    fn commit<T: Intent>(&mut self, txn: TxnEntry, value: T) -> Result<()> {
        let proof = self.journal.commit(self.at, txn, 1, value)?;
        self.say("proof", proof.seq())
    }

    /// A note out and a note in, in a transaction each.
    fn sale(&mut self, no: u8, bay: BayId, note: Denomination) -> Result<()> {
        let [out, back] = [2 * no + 1, 2 * no + 2].map(|id| TxnId::from_bytes([id; 16]));
        self.append(Entry::Txn(txn(out, "paid", Stage::Open)))?;
        let plan = DispensePlan { notes: [(bay, 1)].into() };
        self.commit(txn(out, "dispense_committed", Stage::Open), plan)?;
        let result = BayResult { requested: 1, presented: 1, ..BayResult::default() };
        let cash = vec![CashMove::Dispensed { bay, denomination: note, result, clears: false }];
        let settled = txn(out, "settled", Stage::Closed);
        self.append(Entry::Txn(TxnEntry { cash, resolves: Some(1), ..settled }))?;
        let request_id = RequestId::from_bytes([no; 16]);
        let (rpc, body) = ("report_dispense".to_owned(), json!({ "memo": "m".repeat(5_000) }));
        self.append(Entry::Request(RequestEntry { request_id, txid: Some(out), rpc, body }))?;

        self.append(Entry::Txn(txn(back, "escrowed", Stage::Open)))?;
        let bill = EscrowedBill { serial: no.into(), denomination: note, currency: "EUR".parse()? };
        self.commit(txn(back, "stack_committed", Stage::Open), bill)?;
        let cash = vec![CashMove::Stacked { denomination: note, clears: false }];
        let redeemed = txn(back, "redeemed", Stage::Closed);
        self.append(Entry::Txn(TxnEntry { cash, resolves: Some(1), ..redeemed }))?;
        Ok(())
    }
}

fn txn(txid: TxnId, name: &str, stage: Stage) -> TxnEntry {
    TxnEntry {
        txid,
        name: name.to_owned(),
        stage,
        cause: "life".to_owned(),
        state: json!({ "name": name, "memo": "x".repeat(600) }),
        cash: Vec::new(),
        resolves: None,
        verdict: None,
    }
}

/// The last intent that the mark beside a journal knows; 0 where it knows none.
pub(super) fn marked(journal: &Path) -> Result<u64> {
    let mut name = journal.as_os_str().to_owned();
    name.push(".mark");
    let path = PathBuf::from(name);
    if !path.exists() {
        return Ok(0);
    }
    let mut last = 0;
    for slot in std::fs::read(path)?.chunks(512) {
        let Ok(text) = std::str::from_utf8(slot) else { continue };
        let Some((said, digest)) = text.trim_end().rsplit_once(' ') else { continue };
        if sha256(said).to_string() == digest {
            let (seq, _) = said.split_once(' ').context("a mark without a hash")?;
            last = last.max(seq.parse()?);
        }
    }
    Ok(last)
}
