//! Entries that the vault moves to the archive by itself.

use std::fs;
use std::path::PathBuf;

use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::journal::{Entry, Journal, Keeping, Reader, StoredEntry, verify_file};
use bitspire_agent::txn::View;
use bitspire_agent::vault::Pace;
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use serde_json::json;

use crate::machine::{EPOCH, Machine, QUICK};

const DAY: u64 = 86_400;

impl Machine {
    fn archive(&self) -> PathBuf {
        let mut name = self.config.vault.journal().into_os_string();
        name.push(".archive.jsonl");
        name.into()
    }

    /// The last entry that has moved.
    fn moved_upto(&self) -> i64 {
        let asked = "SELECT coalesce(max(upto), 0) FROM archive";
        self.database().query_row(asked, [], |row| row.get(0)).unwrap()
    }

    /// All entries, wherever they lie.
    fn all_entries(&self) -> Vec<StoredEntry> {
        let reader = Reader::open(&self.config.vault.journal()).unwrap();
        let mut all = Vec::new();
        let keep = |entry| {
            all.push(entry);
            Ok(())
        };
        reader.each(JournalSeq(1), reader.head().seq, keep).unwrap();
        all
    }

    /// Entries of no transaction, of which the youngest stay in the journal.
    fn grow(&self) {
        let path = self.config.vault.journal();
        let binding = sha256(&format!("bitspire-journal-of:v1:{}", self.service.vault.unwrap()));
        let mut journal = Journal::open(&path, binding, Unix(1)).unwrap();
        for n in 0..200 {
            let entry = Entry::Setting { key: "beat".into(), value: json!(n), cash: Vec::new() };
            journal.append(Unix(self.service.clock), entry).unwrap();
        }
    }

    /// Stops it, and starts it so many days later.
    fn days_later(&mut self, days: u64) {
        self.stop();
        self.service.clock += days * DAY;
        let now = Unix(self.service.clock);
        self.wall = Clock::new(move || now);
        self.start();
    }

    /// A sale to its end.
    fn one_sale(&mut self) -> TxnId {
        let given = self.given();
        self.service.reports.clear();
        self.sell(2_000);
        let txid = self.last_txn();
        self.pay();
        self.until("the notes", |machine| machine.given() == given + 2_000);
        assert!(self.take());
        self.until("the report", |machine| !machine.service.reports.is_empty());
        self.service.paid = false;
        self.until_view("the end", |view| matches!(view, View::Settled { .. }));
        self.touch(CustomerAction::Finish);
        self.wait_for_sale();
        txid
    }
}

/// Loss prevented: a disk that fills in a few years of trade; or a machine that loses an entry, pays
/// a sale again, or stops selling, because its old entries have moved or cannot.
#[test]
fn old_entries_move_while_nobody_is_there_and_the_machine_sells_on() {
    let mut machine = Machine::ready();
    machine.config.vault.keeping =
        Keeping { older_than_s: 2 * DAY, least: 1, ..Keeping::default() };
    machine.pace = Pace { checkpoint: 50, ..QUICK };
    let sold = machine.one_sale();
    machine.stop();
    machine.grow();
    let before = machine.all_entries();
    assert_eq!(machine.moved_upto(), 0, "nothing of today moves");

    // where the archive cannot be made, that is said, and the machine trades
    fs::create_dir(machine.archive()).unwrap();
    machine.days_later(3);
    machine.until("the alert", |machine| machine.alerts().contains("not_archived"));
    machine.wait_for_sale();
    assert_eq!(machine.moved_upto(), 0);
    fs::remove_dir(machine.archive()).unwrap();
    let last_of_sale = before.iter().rposition(|entry| entry.txid == Some(sold)).unwrap();
    let last_of_sale = i64::try_from(last_of_sale).unwrap();
    machine.until("the move", |machine| machine.moved_upto() > last_of_sale);

    machine.one_sale();
    machine.days_later(0);
    machine.wait_for_sale();
    machine.one_sale();
    machine.stop();
    assert_eq!(machine.all_entries()[..before.len()], before[..]);
    let verified = verify_file(&machine.config.vault.journal()).unwrap();
    assert_eq!(verified.open, 0);
    assert!(machine.service.clock >= EPOCH + 3 * DAY);
    let holdings = machine.database();
    let given: i64 =
        holdings.query_row("SELECT sum(presented) FROM bays", [], |row| row.get(0)).unwrap();
    assert_eq!(given, 3, "each sale counts once");
}
