//! The proof that an intent is durable.
//!
//! Promise: a [`Committed`] exists only for a value whose intent entry has been flushed, and only
//! [`Journal::commit`] makes one. It cannot be copied, made of parts or given another value, and
//! the device takes it by value: one proof, one movement.

use bitspire_hardware::Authority;
use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::ids::JournalSeq;
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::Journal;
use super::entry::{Body, TxnEntry};
use super::error::{JournalError, Refusal};
use super::holdings::Holdings;

/// A value whose intent is on the disk.
#[must_use = "the intent is on the disk: give the proof to the device"]
#[derive(Debug)]
pub struct Committed<T> {
    value: T,
    seq: JournalSeq,
}

impl<T> Committed<T> {
    /// The entry of the intent.
    #[must_use]
    pub const fn seq(&self) -> JournalSeq {
        self.seq
    }
}

impl<T> AsRef<T> for Committed<T> {
    fn as_ref(&self) -> &T {
        &self.value
    }
}

/// The one authority of the machine: its journal.
#[derive(Debug)]
pub enum ByJournal {}

impl Authority for ByJournal {
    type Committed<T: Send + 'static> = Committed<T>;
}

/// Something that cannot be taken back once a device was told: a plan to dispense, a bill to stack.
pub trait Intent: sealed::Sealed + Send + 'static {
    /// Its name in the journal.
    const WHAT: &'static str;

    /// The value as the journal keeps it.
    fn record(&self) -> Value;

    /// What must hold before it may be committed.
    ///
    /// # Errors
    /// The [`Refusal`] that says what does not hold.
    fn check(&self, held: &Holdings) -> Result<(), Refusal>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::DispensePlan {}
    impl Sealed for super::EscrowedBill {}
}

impl Intent for DispensePlan {
    const WHAT: &'static str = "dispense";

    fn record(&self) -> Value {
        let bays = self.notes.iter().map(|(bay, count)| (bay.to_string(), (*count).into()));
        Value::Object(bays.collect())
    }

    fn check(&self, held: &Holdings) -> Result<(), Refusal> {
        held.check_plan(self)
    }
}

impl Intent for EscrowedBill {
    const WHAT: &'static str = "stack";

    fn record(&self) -> Value {
        let Self { serial, denomination, currency } = self;
        json!({ "serial": serial, "denomination": denomination, "currency": currency })
    }

    fn check(&self, _held: &Holdings) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Journal {
    /// Writes the intent to move `value` for good, number `no` of its transaction, together with
    /// the state `txn` that goes with it, and returns the proof after the flush.
    ///
    /// # Errors
    /// [`JournalError::Refused`] where a rule forbids it: the transaction has ended, its intent
    /// before this one has no result, the number was used, the bays do not hold enough. Any other
    /// error closes the journal for writing, for good: the intent may or may not be on the disk.
    pub fn commit<T: Intent>(
        &mut self,
        at: Unix,
        txn: TxnEntry,
        no: u32,
        value: T,
    ) -> Result<Committed<T>, JournalError> {
        value.check(self.holdings())?;
        let what = T::WHAT.to_owned();
        let body = Body::Intent { txn, no, what, value: value.record() };
        let seq = self.write(at, &body)?;
        self.remember_intent()?;
        Ok(Committed { value, seq })
    }
}
