//! The rows that belong to a settlement, each by its own key.
//!
//! Promise: a row is handed out as it is in the snapshot; see [`Ahead`] for how it is read. Some two
//! thousand of each kind are in memory, of each thread.
//!
//! Failure policy: an entry of the ledger that does not read is as one that is not there: the look at all
//! entries finds it; any other row that was asked for and does not read ends the audit. What only lies
//! beside such a row does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bitspire_shared::ids::{EventId, PaymentHash, QuoteId};

use super::ahead::Ahead;
use super::signed::FeeDocument;
use crate::ids::SettlementId;
use crate::ledger::{Entry, EntryKind};
use crate::store::invoices::Invoice;
use crate::store::ledger::Booked;
use crate::store::quotes::Quote;
use crate::store::settlements::Settlement;
use crate::store::{Kept, Read, StoreError, documents, invoices, ledger, quotes, settlements};

/// Fee documents that are kept at a time.
const DOCUMENTS: usize = 4_096;

/// Rows of one snapshot.
pub(super) struct Rows<'a> {
    read: &'a Read<'a>,
    /// Fee documents that were looked at already.
    documents: RefCell<BTreeMap<EventId, Rc<FeeDocument>>>,
    quotes: Ahead<QuoteId, Quote>,
    invoices: Ahead<PaymentHash, Invoice>,
    settlements: Ahead<PaymentHash, Kept<SettlementId, Settlement>>,
    ledger: Ahead<(EntryKind, String), Booked>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(read: &'a Read<'a>) -> Self {
        Self {
            read,
            documents: RefCell::default(),
            quotes: Ahead::default(),
            invoices: Ahead::default(),
            settlements: Ahead::default(),
            ledger: Ahead::default(),
        }
    }

    /// The fee document of an event.
    pub(super) fn document(&self, id: EventId) -> Result<Rc<FeeDocument>, StoreError> {
        let mut documents = self.documents.borrow_mut();
        if let Some(known) = documents.get(&id) {
            return Ok(known.clone());
        }
        let document = documents::by_event(self.read, id)?;
        let document = document.map(|kept| FeeDocument::new(&kept.row)).unwrap_or_default();
        let document = Rc::new(document);
        if documents.len() >= DOCUMENTS {
            documents.clear();
        }
        documents.insert(id, document.clone());
        Ok(document)
    }

    /// An entry of the ledger.
    pub(super) fn entry(
        &self,
        kind: EntryKind,
        reference: &str,
    ) -> Result<Option<Entry>, StoreError> {
        Ok(self.in_ledger(kind, reference)?.map(|booked| booked.entry.clone()))
    }

    /// The same with its number.
    pub(super) fn in_ledger(
        &self,
        kind: EntryKind,
        reference: &str,
    ) -> Result<Option<Rc<Booked>>, StoreError> {
        let key = |booked: &Booked| (booked.entry.kind(), booked.entry.reference().to_owned());
        self.ledger.get(&(kind, reference.to_owned()), |around| {
            let near = ledger::around(self.read, (kind, reference), around)?;
            Ok(near.into_iter().map(|booked| (key(&booked), booked)).collect())
        })
    }

    /// The quote of a settlement.
    pub(super) fn quote(&self, settlement: &Settlement) -> Result<Option<Rc<Quote>>, StoreError> {
        let Some(id) = settlement.quote_id else { return Ok(None) };
        let quote = self.quotes.get(&id, |around| {
            let near = quotes::around(self.read, id, around)?;
            Ok(near.into_iter().map(|quote| (quote.quote_id, quote)).collect())
        })?;
        // by itself, it says what is wrong with it
        Ok(match quote {
            None => quotes::find(self.read, id)?.map(Rc::new),
            known => known,
        })
    }

    /// The invoice of a payment.
    pub(super) fn invoice(&self, hash: PaymentHash) -> Result<Option<Rc<Invoice>>, StoreError> {
        let invoice = self.invoices.get(&hash, |around| {
            let near = invoices::around(self.read, hash, around)?;
            Ok(near.into_iter().map(|invoice| (invoice.payment_hash, invoice)).collect())
        })?;
        Ok(match invoice {
            None => invoices::by_hash(self.read, hash)?.map(Rc::new),
            known => known,
        })
    }

    /// The settlement of a payment.
    pub(super) fn settlement(
        &self,
        hash: PaymentHash,
    ) -> Result<Option<Rc<Kept<SettlementId, Settlement>>>, StoreError> {
        let settlement = self.settlements.get(&hash, |around| {
            let near = settlements::around(self.read, hash, around)?;
            Ok(near.into_iter().map(|kept| (kept.payment_hash, kept)).collect())
        })?;
        Ok(match settlement {
            None => settlements::by_hash(self.read, hash)?.map(Rc::new),
            known => known,
        })
    }
}
