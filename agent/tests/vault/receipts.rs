//! Receipts: from the journal to the screen and to paper.

use bitspire_agent::ipc::{CustomerAction, ToVault};
use bitspire_agent::journal::Reader;
use bitspire_agent::txn::{OnPaper, SlipState, View, receipt_of};
use bitspire_agent::vault::named_in;
use bitspire_hardware::sim::escpos::EscPosSim;
use bitspire_hardware::sim::host::Host;
use bitspire_shared::ids::Nonce;
use bitspire_shared::receipt::{Outcome, Receipt, Reference, SignedReceipt};
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use serde_json::json;

use crate::machine::{Machine, note, public};

impl Machine {
    /// `net` brings the statement that goes to the service with a session.
    pub(crate) fn name_vault(&mut self) {
        let (spire, vault) = (public(&self.parties.spire), self.service.vault.unwrap());
        let nonce = Nonce::from_bytes([5; 16]);
        let said = Statement::Vault { spire, vault, nonce, not_after: Unix(1_800_000_600) };
        let event = said.to_unsigned(&spire, Unix(1_800_000_000)).unwrap();
        let statement = SignedStatement::new(event.sign_with_keys(&self.parties.spire).unwrap());
        self.say(&ToVault::Named { statement: Box::new(statement) });
        self.all_heard();
    }

    pub(crate) fn on_paper(&self) -> Option<&OnPaper> {
        self.txn_screen().and_then(|screen| screen.receipt.as_deref())
    }

    fn until_slip(&mut self, state: SlipState) {
        self.until("the slip's fate", |machine| {
            machine.on_paper().is_some_and(|paper| paper.slip == state)
        });
    }

    /// The receipt on the screen, checked as anybody would.
    fn receipt(&mut self) -> Receipt {
        self.until("a receipt", |machine| machine.on_paper().is_some());
        let text = self.on_paper().unwrap().text.clone();
        let signed = SignedReceipt::read(&text).unwrap();
        signed.check_of(&public(&self.parties.spire)).unwrap().clone()
    }
}

/// Loss prevented: a receipt that says something else than the journal, so that it proves nothing.
#[test]
fn a_receipt_states_what_the_journal_says() {
    let mut machine = Machine::ready();
    machine.name_vault();
    let hash = machine.sell(20_000);
    assert_eq!(machine.on_paper(), None, "nothing was paid yet");
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    let receipt = machine.receipt();
    assert_eq!((receipt.outcome, receipt.fiat_minor), (Outcome::Done, 20_000));
    assert_eq!(receipt.reference, Some(Reference::PaymentHash(hash)));
    let notes = receipt.notes.iter().map(|(note, n)| u64::from(note.minor()) * u64::from(*n));
    assert_eq!(notes.sum::<u64>(), machine.given());
    assert_eq!(receipt.sources.iter().next().unwrap().source.as_str(), "kraken");
    assert_eq!(receipt.vault, machine.service.vault.unwrap());

    // the service has the report by now or soon: the sale stands as it did
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    machine.all_heard();
    assert_eq!(machine.receipt(), receipt);
    machine.touch(CustomerAction::Receipt { open: true });
    machine.until("the open receipt", |machine| machine.on_paper().is_some_and(|paper| paper.open));
    assert_eq!(machine.on_paper().unwrap().slip, SlipState::None, "there is no printer");
    machine.touch(CustomerAction::Receipt { open: false });
    machine.until("the end", |machine| machine.on_paper().is_some_and(|paper| !paper.open));

    machine.stop();
    let journal = machine.journal();
    let entry = journal.iter().find(|entry| entry.seq == receipt.journal_seq).unwrap();
    assert_eq!((entry.hash, entry.at), (receipt.journal_head, receipt.ended_at));
    assert_eq!(entry.txid, Some(receipt.txid));
    assert!(entry.body.contains("\"name\":\"settled\""), "{}", entry.body);
    let entries: Vec<_> =
        journal.iter().filter(|e| e.txid == Some(receipt.txid)).cloned().collect();
    assert_eq!(receipt_of(&entries, receipt.vault), Some(receipt.clone()), "made again");
    let reader = Reader::open(&machine.config.vault.journal()).unwrap();
    let naming = named_in(&reader, receipt.spire).unwrap().unwrap();
    naming.check(&receipt.spire, &receipt.vault).unwrap();
    assert_eq!(named_in(&reader, receipt.vault).unwrap(), None, "of another machine");
}

/// Loss prevented: whoever fed notes leaves with nothing that says so, or with a receipt that still
/// says that sats wait when they were paid; a vault that was restarted names itself no more.
#[test]
fn a_cash_in_has_a_receipt_from_the_offer_on_over_a_restart() {
    let mut machine = Machine::ready();
    machine.name_vault();
    machine.restart_at(crate::machine::QUICK);
    machine.wait_for_sale();
    machine.open_inlet();
    machine.feed_to(20, 2_000);
    machine.touch(CustomerAction::Finish);
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { lnurl: Some(_), .. }));
    machine.until("the withdraw's receipt", |machine| machine.receipt().reference.is_some());
    let waiting = machine.receipt();
    assert_eq!((waiting.outcome, waiting.fiat_minor), (Outcome::Waiting, 2_000));
    assert_eq!(waiting.notes, [(note(20), 1)].into());
    let claim = machine.txn_screen().unwrap().claim.clone().unwrap();
    let text = machine.on_paper().unwrap().text.to_lowercase();
    assert!(!text.contains(claim.expose()));
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
    let paid = machine.receipt();
    assert_eq!((paid.outcome, paid.owed_sats, paid.txid), (Outcome::Done, None, waiting.txid));
    assert!(paid.journal_seq > waiting.journal_seq);
}

/// Loss prevented: a sale that waits for a printer, or a customer who is not told to photograph the
/// screen; a slip that nobody can have once there is paper again.
#[test]
fn a_printer_in_trouble_holds_no_sale_up() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("printer");
    let printer = Host::start(Box::new(EscPosSim::new(0)), Some(&link)).unwrap();
    let mut machine = Machine::ready_with(&format!(
        "[vault]\nclaim_url = 'https://atm.example'\n\
         [vault.printer]\nport = 'serial'\npath = '{}'\nprint = 'always'\n",
        link.display()
    ));
    machine.name_vault();
    machine.sell(20_000);
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    machine.until_slip(SlipState::Failed);
    machine.until("the report", |machine| {
        let fault = machine.last_report()["devices"]["printer"]["fault"].clone();
        fault.as_str().is_some_and(|fault| fault.contains("no paper"))
            && machine.alerts().contains("receipt_not_printed")
    });
    machine.take();
    printer.control(json!({"action": "paper", "lines": 2_000})).unwrap();
    // the printer is looked at now and then; who touches too early is told so again
    machine.until("the slip", |machine| {
        machine.touch_once(CustomerAction::PrintReceipt);
        machine.on_paper().is_some_and(|paper| paper.slip == SlipState::Printed)
    });
    let first = machine.on_paper().unwrap().text.clone();
    machine.touch(CustomerAction::Finish);
    machine.wait_for_sale();

    machine.sell(20_000);
    machine.pay();
    machine.until_slip(SlipState::Printed);
    let second = machine.on_paper().unwrap().text.clone();
    let taken = printer.control(json!({"action": "take"})).unwrap();
    let slips = taken["slips"].as_array().unwrap();
    assert_eq!(slips.len(), 2, "nothing came out by itself, and nothing twice: {slips:?}");
    for (slip, text) in slips.iter().zip([first, second]) {
        let slip = slip.as_str().unwrap();
        assert!(slip.contains(&format!("[QR {text}]")), "{slip}");
        assert!(!slip.contains("/c/"), "nothing is owed: {slip}");
    }
}
