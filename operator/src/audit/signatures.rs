//! The signatures of sales, which are looked at many at a time.
//!
//! Promise: of every signature that was put in, [`Gather::signatures_hold`] tells each one that does not
//! hold, in the order in which they came; some thousands are in memory, and each part of the work is over
//! when its own were looked at.
//!
//! Failure policy: where there are no random numbers the audit ends with an error.

use bitspire_shared::batch::{Signed, failing};
use bitspire_shared::ids::{PaymentHash, QuoteId};

use super::gather::Gather;
use super::signed;
use crate::store::{StoreError, quotes};

/// As many as are looked at together.
const TOGETHER: usize = 4_096;

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A quote, by the service.
    Quote(QuoteId),
    /// The request for the invoice of a quote, by its author.
    Request(PaymentHash, QuoteId),
}

/// Signatures that were not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    all: Vec<Signed>,
    what: Vec<What>,
}

impl Signatures {
    /// Looks at it later.
    pub(super) fn put(&mut self, signed: Signed, what: What) {
        self.all.push(signed);
        self.what.push(what);
    }

    pub(super) fn are_many(&self) -> bool {
        self.all.len() >= TOGETHER
    }

    /// Those that do not hold; none are left.
    pub(super) fn failing(&mut self) -> Result<Vec<What>, StoreError> {
        let (all, what) = (std::mem::take(&mut self.all), std::mem::take(&mut self.what));
        let mut random = vec![0; all.len().saturating_mul(8)];
        getrandom::fill(&mut random).map_err(|e| StoreError::Stopped { reason: e.to_string() })?;
        let mut numbers = random.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let failing = failing(&all, || numbers.next().unwrap_or_default());
        Ok(failing.into_iter().filter_map(|place| what.get(place).copied()).collect())
    }
}

impl Gather<'_> {
    /// Tells the signatures that do not hold, of those that were put in.
    pub(super) fn signatures_hold(&mut self) -> Result<(), StoreError> {
        for what in self.signatures.failing()? {
            match what {
                What::Request(hash, quote) => {
                    signed::request_fails(&mut self.findings, hash, quote);
                }
                What::Quote(id) => {
                    let quote = quotes::find(self.read, id)?;
                    let machine = quote.as_ref().and_then(|row| self.machines.get(&row.machine_id));
                    // it may be of another pairing than the one that it was held against
                    let holds = quote.as_ref().zip(machine).is_some_and(|(quote, machine)| {
                        let at_once = &mut |one: Signed| one.holds();
                        signed::is_by_service(&machine.keys, quote, None, at_once)
                    });
                    if !holds {
                        signed::not_by_service(&mut self.findings, id);
                    }
                }
            }
        }
        Ok(())
    }
}
