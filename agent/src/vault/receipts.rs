//! Receipts: made from the journal, shown, and printed where there is a printer.
//!
//! Promise: what the receipt of the transaction on the screen states is read from the journal, so
//! that it is the same whenever it is made: its position is the entry by which the transaction first
//! stood so. It is signed by the vault's key and carries the machine's statement that named this
//! vault, which `net` brings with each session and which is kept once.
//!
//! A receipt holds no secret. On paper and on the screen the claim code stands beside it, where
//! something is owed or may be, and only while the customer is known to be there.
//!
//! Failure policy: no sale waits for a receipt or for a printer. What cannot be made is an alert;
//! what cannot be printed is on the screen, to be photographed, and in the report.

use bitspire_hardware::acceptor::DeviceFault;
use bitspire_hardware::printer::{Printer, PrinterCommand, PrinterEvent};
use bitspire_shared::ids::{JournalSeq, PubKey, TxnId};
use bitspire_shared::receipt::{Outcome, Receipt, VaultNaming};
use bitspire_shared::rpc::DeviceStatus;
use bitspire_shared::statement::SignedStatement;
use bitspire_shared::time::Mono;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::VaultError;
use super::core::Vault;
use super::devices::status_of;
use super::settings::Setting;
use super::slip::slip;
use crate::config::PrintWhen;
use crate::journal::{JournalError, Reader};
use crate::txn::{OnPaper, Position, SlipState, Txn, receipt_of};

/// The machine's statement that names this vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    /// The machine: another pairing begins from nothing.
    pub(super) spire: PubKey,
    naming: VaultNaming,
}

impl Setting for Named {
    const KEY: &'static str = "vault_named";
}

/// The printer.
pub(super) struct Press {
    device: Box<dyn Printer>,
    pub(super) status: DeviceStatus,
    pub(super) fault: Option<String>,
}

impl Press {
    /// Nothing is known of it yet.
    pub(super) fn new(device: Box<dyn Printer>) -> Self {
        Self { device, status: DeviceStatus::Starting, fault: None }
    }

    /// What went over its line last.
    pub(super) fn frames(&self) -> Vec<String> {
        self.device.frames()
    }
}

/// The receipt of the transaction on the screen.
#[derive(Debug)]
struct Made {
    txid: TxnId,
    /// What it states but for its position: another one is made when this changes.
    figures: Receipt,
    /// The text of its code; none where it could not be made.
    text: Option<String>,
    receipt: Receipt,
    open: bool,
    slip: SlipState,
}

/// What is kept about receipts.
#[derive(Debug)]
pub(super) struct Receipts {
    named: Option<Named>,
    /// That of an earlier pairing, of which a receipt was made in this run.
    earlier: Option<Named>,
    made: Option<Made>,
}

impl Receipts {
    /// With what an earlier run has kept.
    pub(super) const fn of(named: Option<Named>) -> Self {
        Self { named, earlier: None, made: None }
    }
}

/// The statement about this machine that a journal holds, if there is one.
///
/// # Errors
/// [`JournalError`] where the file cannot be read.
pub fn named_in(journal: &Reader, spire: PubKey) -> Result<Option<VaultNaming>, JournalError> {
    let mut last = None;
    journal.each(JournalSeq(1), journal.head().seq, |entry| {
        if entry.kind == "setting" && entry.body.contains(Named::KEY) {
            let body: Value = serde_json::from_str(&entry.body).unwrap_or_default();
            let setting =
                body.get("setting").filter(|it| it.get("key") == Some(&Named::KEY.into()));
            let value = setting.and_then(|setting| setting.get("value"));
            let named = value.and_then(|value| Named::deserialize(value).ok());
            last = named.filter(|named| named.spire == spire).or(last.take());
        }
        Ok(())
    })?;
    Ok(last.map(|named: Named| named.naming))
}

impl Vault {
    /// `net` brings the statement by which the machine names this vault.
    pub(super) fn named(&mut self, statement: &SignedStatement) -> Result<(), VaultError> {
        let Some(spire) = self.pairing.as_ref().map(|pairing| pairing.pins.spire) else {
            return Ok(());
        };
        if self.receipts.named.as_ref().is_some_and(|named| named.spire == spire) {
            return Ok(());
        }
        match VaultNaming::of(statement, &spire, &self.key) {
            Ok(naming) => {
                let named = Named { spire, naming };
                self.keep(&named)?;
                self.receipts.named = Some(named);
            }
            Err(error) => tracing::warn!(event = "vault_not_named", %error),
        }
        Ok(())
    }

    /// Makes the receipt of the transaction on the screen, once it has one, and again when what it
    /// states has changed.
    pub(super) fn make_receipt(&mut self) -> Result<(), VaultError> {
        let Some(txn) = self.on_screen.and_then(|txid| self.txns.get(&txid)) else {
            self.receipts.made = None;
            return Ok(());
        };
        let txid = txn.txid();
        let Some(figures) = txn.receipt(self.key, Position::NONE) else {
            self.receipts.made = None;
            return Ok(());
        };
        let before =
            self.receipts.made.take_if(|made| made.txid != txid || made.figures != figures);
        if self.receipts.made.is_some() {
            return Ok(());
        }
        let entries = self.journal.entries_of(txid)?;
        let Some(receipt) = receipt_of(&entries, self.key) else { return Ok(()) };
        let text = self.sign_receipt(&receipt);
        let open = before.is_some_and(|before| before.txid == txid && before.open);
        let slip = if self.press.is_some() { SlipState::Offered } else { SlipState::None };
        self.receipts.made = Some(Made { txid, figures, text, receipt, open, slip });
        let when = self.config.printer.as_ref().map(|printer| printer.print);
        if when == Some(PrintWhen::Always) && self.is_an_end() {
            self.print_receipt();
        }
        Ok(())
    }

    /// Whether the receipt's transaction goes no further by itself: sats that wait on the screen do.
    fn is_an_end(&self) -> bool {
        let made = self.receipts.made.as_ref();
        made.is_some_and(|made| !matches!(made.receipt.outcome, Outcome::Waiting))
    }

    fn sign_receipt(&mut self, receipt: &Receipt) -> Option<String> {
        let signed = match self.naming(receipt.spire) {
            Ok(Some(naming)) => receipt.sign(naming, &self.keys).map_err(|e| e.to_string()),
            Ok(None) => {
                tracing::warn!(event = "receipt_without_a_named_vault", txn = %receipt.txid);
                return None;
            }
            Err(error) => Err(error.to_string()),
        };
        match signed {
            Ok(signed) => Some(signed.text()),
            Err(error) => {
                self.raise("receipt_not_made", format!("{}: {error}", receipt.txid));
                None
            }
        }
    }

    /// The statement of the machine that a receipt is of. A sale of an earlier pairing keeps its key,
    /// and only the journal has what was said under that.
    fn naming(&mut self, spire: PubKey) -> Result<Option<VaultNaming>, JournalError> {
        let Receipts { named, earlier, .. } = &self.receipts;
        let mut known = named.iter().chain(earlier);
        if let Some(known) = known.find(|known| known.spire == spire) {
            return Ok(Some(known.naming));
        }
        if self.pairing.as_ref().is_some_and(|pairing| pairing.pins.spire == spire) {
            // it comes with the next session
            return Ok(None);
        }
        let found = named_in(&Reader::open(&self.config.journal())?, spire)?;
        self.receipts.earlier = found.map(|naming| Named { spire, naming });
        Ok(found)
    }

    /// The receipt as the screen has it.
    pub(super) fn on_paper(&self) -> Option<Box<OnPaper>> {
        let made = self.receipts.made.as_ref()?;
        let (text, open, slip) = (made.text.clone()?, made.open, made.slip);
        let claim_url = self.config.claim_url.clone();
        Some(Box::new(OnPaper { text, open, slip, claim_url }))
    }

    /// Whether the customer looks at the receipt: an end stays on the screen longer then.
    pub(super) fn reads_receipt(&self) -> bool {
        self.receipts.made.as_ref().is_some_and(|made| made.open)
    }

    /// The customer opens or closes the receipt.
    pub(super) fn open_receipt(&mut self, open: bool) {
        if let Some(made) = self.receipts.made.as_mut().filter(|made| made.text.is_some()) {
            made.open = open;
        }
    }

    /// Prints the receipt on the screen, unless it is printed or being printed.
    pub(super) fn print_receipt(&mut self) {
        let shown = self.on_screen.and_then(|txid| self.txns.get(&txid)).map(Txn::screen);
        let (Some(made), Some(press), Some(config)) =
            (&mut self.receipts.made, &mut self.press, &self.config.printer)
        else {
            return;
        };
        let Some(text) = &made.text else { return };
        if matches!(made.slip, SlipState::Printing | SlipState::Printed) {
            return;
        }
        let claim = shown.and_then(|screen| screen.claim).filter(|_| made.receipt.is_claimable());
        let url = self.config.claim_url.as_deref();
        let slip = slip(&made.receipt, text, claim.as_ref(), url, config.columns);
        made.slip = match press.device.send(PrinterCommand::Print(slip)) {
            Ok(()) => SlipState::Printing,
            Err(error) => {
                press.status = DeviceStatus::Fault;
                press.fault = Some(error.to_string());
                SlipState::Failed
            }
        };
    }

    /// The printer says something.
    pub(super) fn printer_says(&mut self, event: PrinterEvent) {
        let Some(press) = &mut self.press else { return };
        let mut slip = None;
        match event {
            PrinterEvent::Ready { paper_low } => {
                tracing::info!(event = "printer_ready", paper_low);
                (press.status, press.fault) = (DeviceStatus::Ready, None);
                self.reports.soon(Mono(0));
                if paper_low {
                    self.raise("printer_paper_low", "the roll is nearly used up".to_owned());
                }
            }
            PrinterEvent::Fault(DeviceFault { kind, detail }) => {
                tracing::error!(event = "printer_fault", ?kind, detail);
                (press.status, press.fault) = (status_of(kind), Some(detail));
                self.reports.soon(Mono(0));
            }
            PrinterEvent::Printed => slip = Some(SlipState::Printed),
            PrinterEvent::NotPrinted { why } => {
                slip = Some(SlipState::Failed);
                self.raise("receipt_not_printed", why);
            }
        }
        // of a slip that is no longer on the screen nobody waits to hear
        let waits = self.receipts.made.as_mut().filter(|made| made.slip == SlipState::Printing);
        if let (Some(made), Some(slip)) = (waits, slip) {
            made.slip = slip;
        }
    }
}
