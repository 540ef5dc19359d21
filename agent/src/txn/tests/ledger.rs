//! A real journal under a transaction, for the random sequences.

use bitspire_shared::ids::{ChangeId, Digest};

use super::*;
use crate::journal::{
    CashMove, CountChange, Entry, Journal, JournalError, Refusal, VerdictUse, verify_file,
};

/// A journal and what was asked of the service so far.
pub(super) struct Ledger {
    dir: tempfile::TempDir,
    journal: Option<Journal>,
    asks: BTreeMap<RequestId, Ask>,
    pub(super) waiting: Option<Request>,
    verdicts: u8,
}

impl Ledger {
    pub(super) fn new(bays: &[(u8, u32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger =
            Self { dir, journal: None, asks: BTreeMap::new(), waiting: None, verdicts: 0 };
        ledger.restart();
        for (n, minor) in bays {
            let (bay, denomination) = (bay(*n), note(*minor));
            let assign = CashMove::Assign { bay, denomination, recycles: false };
            let base_seq = ledger.append(Entry::Cash(vec![assign]));
            let (change_id, change) = (ChangeId::from_bytes([*n; 16]), CountChange::Set(1_000));
            let count = CashMove::Change { bay, change_id, change, base_seq, reason: "c".into() };
            ledger.append(Entry::Cash(vec![count]));
        }
        ledger
    }

    fn append(&mut self, entry: Entry) -> bitspire_shared::ids::JournalSeq {
        self.journal.as_mut().unwrap().append(at(0).unix, entry).unwrap()
    }

    /// A new process opens it.
    pub(super) fn restart(&mut self) {
        self.journal = None;
        self.waiting = None;
        let path = self.dir.path().join("journal.db");
        self.journal = Some(Journal::open(&path, Digest::from_bytes([1; 32]), at(0).unix).unwrap());
    }

    /// A verdict by somebody who has read the journal to its end.
    pub(super) fn verdict(&mut self, kind: VerdictKind, amount_minor: i64) -> Verdict {
        self.verdicts += 1;
        let nonce = Nonce::from_bytes([self.verdicts; 16]);
        let seen = self.journal.as_ref().unwrap().head().seq;
        Verdict { txid: txid(), kind, amount_minor, nonce, seen }
    }

    /// Whether the verdict is fresh, as the shell asks before it says it.
    pub(super) fn fresh(&self, verdict: &Verdict) -> bool {
        !self.journal.as_ref().unwrap().nonce_used(&verdict.nonce).unwrap()
    }

    /// Writes and asks what `effects` want, and checks what holds for each step.
    pub(super) fn perform(&mut self, before: &Txn, after: &Txn, effects: &[Effect]) {
        let journal = self.journal.as_mut().unwrap();
        for (n, effect) in effects.iter().enumerate() {
            match effect {
                Effect::Journal(record) => {
                    assert_eq!(n, 0, "a record after an effect: {effects:?}");
                    let entry = Entry::Txn(record.to_entry().unwrap());
                    journal.append(at(0).unix, entry).unwrap();
                }
                Effect::Dispense { record, no, plan } => {
                    assert_eq!(n, 0, "a record after an effect: {effects:?}");
                    let entry = record.to_entry().unwrap();
                    drop(journal.commit(at(0).unix, entry, *no, plan.clone()).unwrap());
                }
                Effect::Stack { record, no, bill } => {
                    assert!(n <= 1, "a record after an effect: {effects:?}");
                    let entry = record.to_entry().unwrap();
                    drop(journal.commit(at(0).unix, entry, *no, *bill).unwrap());
                }
                Effect::Request(request) => {
                    let known = self.asks.entry(request.id).or_insert(request.ask.clone());
                    assert_eq!(*known, request.ask, "one id, two requests");
                    self.waiting = Some(request.clone());
                }
                Effect::Forget(id) => {
                    self.waiting = self.waiting.take().filter(|request| request.id != *id);
                }
                _ => {}
            }
        }
        let stored = journal.txn(txid()).unwrap().unwrap();
        assert_eq!(Txn::from_stored(&stored).unwrap(), reread(after), "after {before:?}");
        super::receipts::hold(after);
        if before.stage() != Stage::Open {
            assert!(!moves(effects), "moves after the end: {effects:?}");
        }
    }

    /// The state as the next run reads it.
    pub(super) fn reread(&self) -> Txn {
        let stored = self.journal.as_ref().unwrap().txn(txid()).unwrap().unwrap();
        Txn::from_stored(&stored).unwrap()
    }

    /// Notes by the books: on hand in each bay, in the cashbox by value, doubts in all.
    pub(super) fn holdings(&self) -> crate::journal::Holdings {
        self.journal.as_ref().unwrap().holdings().clone()
    }

    pub(super) fn verify(&self) {
        verify_file(&self.dir.path().join("journal.db")).unwrap();
    }
}

/// Loss prevented: one verdict used twice by two runs of the vault, or one made before the state
/// that it is about.
#[test]
fn the_journal_refuses_what_the_machine_cannot_know() {
    let mut ledger = Ledger::new(&[(1, 2_000)]);
    let (txn, effects) = CashOut::start(order(10_000), at(0));
    let txn = Txn::CashOut(txn);
    ledger.perform(&txn, &txn, &effects);
    let mut entry = record(&effects).unwrap().to_entry().unwrap();
    let journal = ledger.journal.as_mut().unwrap();
    let seen = bitspire_shared::ids::JournalSeq(1);
    entry.verdict = Some(VerdictUse { nonce: Nonce::from_bytes([1; 16]), seen });
    let stale = journal.append(at(0).unix, Entry::Txn(entry));
    assert!(matches!(stale, Err(JournalError::Refused(Refusal::StaleVerdict { .. }))));
}
