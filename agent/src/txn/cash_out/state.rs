//! The states of a cash-out, as they are journaled.

use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Fiat, MoneyError, Sats};
use bitspire_shared::rpc::QuoteTerms;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use crate::journal::Stage;
use crate::txn::input::Lots;
use crate::txn::screen::Why;

/// Where a cash-out stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A price was asked for; then it is shown; then the customer agreed and an invoice was asked
    /// for.
    Quoted {
        /// The price, once it came.
        quote: Option<QuoteTerms>,
        /// Whether the customer agreed.
        accepted: bool,
        /// Counts the prices asked for, from 1.
        no: u32,
    },
    /// The invoice is there and may be paid.
    Invoiced {
        /// Price and invoice.
        sale: Sale,
        /// Why nobody waits for it any more, though it may still be paid.
        gave_up: Option<GaveUp>,
    },
    /// Paid; notes are being chosen for what is still to be given.
    Paid {
        /// Price and invoice.
        sale: Sale,
        /// What was given.
        given: Given,
        /// Whether notes lie at the exit and must be taken first.
        exit: bool,
    },
    /// The intent is on the disk; nobody knows whether the dispenser has heard of it.
    DispenseCommitted {
        /// Price and invoice.
        sale: Sale,
        /// What was given before.
        given: Given,
        /// The open intent.
        batch: Batch,
    },
    /// The dispenser has the command.
    Dispensing {
        /// Price and invoice.
        sale: Sale,
        /// What was given before.
        given: Given,
        /// The open intent.
        batch: Batch,
    },
    /// Paid, but the customer may not be there: the claim code or a verdict brings the rest.
    PaidWaiting {
        /// Price and invoice.
        sale: Sale,
        /// What was given.
        given: Given,
    },
    /// Everything was given.
    Settled {
        /// Price and invoice.
        sale: Sale,
        /// What was given.
        given: Given,
        /// Whether the service has the report.
        told: bool,
    },
    /// It ended short.
    ShortDispensed {
        /// Price and invoice.
        sale: Sale,
        /// What was given.
        given: Given,
        /// What the customer did not get, in minor units.
        owed_minor: i64,
        /// Whether the service has the report.
        told: bool,
    },
    /// Nobody knows what the open intent gave out.
    Uncertain {
        /// Price and invoice.
        sale: Sale,
        /// What was given before.
        given: Given,
        /// The open intent.
        batch: Batch,
        /// What is known.
        evidence: String,
        /// Whether the service has the report.
        told: bool,
    },
    /// Given up before anything was paid.
    Cancelled {
        /// Why.
        why: Why,
    },
    /// Not paid in time.
    Expired,
    /// Paid too late: never dispensed, owed.
    Late {
        /// What came, as the service says.
        owed: Option<Sats>,
    },
}

named! {
    State {
        Quoted => "quoted",
        Invoiced => "invoiced",
        Paid => "paid",
        DispenseCommitted => "dispense_committed",
        Dispensing => "dispensing",
        PaidWaiting => "paid_waiting",
        Settled => "settled",
        ShortDispensed => "short_dispensed",
        Uncertain => "uncertain",
        Cancelled => "cancelled",
        Expired => "expired",
        Late => "late",
    }
}

impl State {
    /// How far it is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Settled { told: false, .. } | Self::ShortDispensed { told: false, .. } => {
                Stage::Ended
            }
            Self::Settled { .. }
            | Self::ShortDispensed { .. }
            | Self::Cancelled { .. }
            | Self::Expired
            | Self::Late { .. } => Stage::Closed,
            _ => Stage::Open,
        }
    }

    /// Price and invoice, once there are both.
    #[must_use]
    pub const fn sale(&self) -> Option<&Sale> {
        match self {
            Self::Invoiced { sale, .. }
            | Self::Paid { sale, .. }
            | Self::DispenseCommitted { sale, .. }
            | Self::Dispensing { sale, .. }
            | Self::PaidWaiting { sale, .. }
            | Self::Settled { sale, .. }
            | Self::ShortDispensed { sale, .. }
            | Self::Uncertain { sale, .. } => Some(sale),
            Self::Quoted { .. } | Self::Cancelled { .. } | Self::Expired | Self::Late { .. } => {
                None
            }
        }
    }

    /// What was given, once it is paid.
    #[must_use]
    pub const fn given(&self) -> Option<&Given> {
        match self {
            Self::Paid { given, .. }
            | Self::DispenseCommitted { given, .. }
            | Self::Dispensing { given, .. }
            | Self::PaidWaiting { given, .. }
            | Self::Settled { given, .. }
            | Self::ShortDispensed { given, .. }
            | Self::Uncertain { given, .. } => Some(given),
            _ => None,
        }
    }
}

/// A price and its invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// The price.
    pub terms: QuoteTerms,
    /// The invoice.
    pub payment_hash: PaymentHash,
    /// The invoice's end.
    pub expires_at: Unix,
}

/// Why nobody waits for a payment any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaveUp {
    /// The customer left.
    Cancelled,
    /// The invoice's time is over.
    Expired,
    /// The screen was gone for a while: the claim code is shown no more, so the invoice must not be
    /// either, or somebody would pay who has no right to what is owed then.
    ScreenBroken,
    /// The vault was restarted.
    Restarted,
}

/// What a paid cash-out has given so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Each bay's notes, all intents with a final answer together.
    pub bays: BayResults,
    /// What the customer has or could have of them, in minor units.
    pub minor: i64,
    /// What the operator's verdict says they have besides, in minor units.
    pub by_verdict: i64,
    /// Intents committed so far; the next one's number is one more.
    pub intents: u32,
    /// Intents in a row that gave nothing.
    pub fruitless: u32,
}

impl Given {
    /// What is still to be given, in minor units; 0 where more was given than promised.
    #[must_use]
    pub fn rest(&self, promised: Fiat) -> i64 {
        promised.minor.saturating_sub(self.minor).saturating_sub(self.by_verdict).max(0)
    }

    /// Adds a final answer.
    pub(super) fn add(&mut self, results: &BayResults, minor: i64) {
        for (bay, result) in results {
            let sum = match self.bays.get(bay) {
                Some(before) => both(before, result),
                None => *result,
            };
            self.bays.insert(*bay, sum);
        }
        self.minor = self.minor.saturating_add(minor);
        self.fruitless = if minor > 0 { 0 } else { self.fruitless.saturating_add(1) };
    }

    /// Each bay's notes with those of an intent that nobody knows the end of: `picked` is absent
    /// then, and `requested` is the most that may have left the bay.
    pub(super) fn doubted(&self, batch: &Batch) -> BayResults {
        let mut bays = self.bays.clone();
        for (bay, lot) in &batch.lots {
            let sure = bays.get(bay).copied().unwrap_or_default();
            let seen = sure.presented.saturating_add(sure.rejected.unwrap_or(0));
            let left = sure.picked.unwrap_or(seen);
            let requested = left.saturating_add(lot.count);
            bays.insert(*bay, BayResult { requested, picked: None, ..sure });
        }
        bays
    }
}

/// What one dispense could not tell, the sum cannot tell either.
fn both(a: &BayResult, b: &BayResult) -> BayResult {
    let sum = |a: Option<u32>, b: Option<u32>| a.zip(b).map(|(a, b)| a.saturating_add(b));
    BayResult {
        requested: a.requested.saturating_add(b.requested),
        picked: sum(a.picked, b.picked),
        presented: a.presented.saturating_add(b.presented),
        taken: sum(a.taken, b.taken),
        retracted: sum(a.retracted, b.retracted),
        rejected: sum(a.rejected, b.rejected),
    }
}

/// One committed plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The intent's number, from 1.
    pub no: u32,
    /// Its notes.
    pub lots: Lots,
}

impl Batch {
    /// The plan for the dispenser.
    #[must_use]
    pub fn plan(&self) -> DispensePlan {
        DispensePlan { notes: self.lots.iter().map(|(bay, lot)| (*bay, lot.count)).collect() }
    }

    /// The bays, and the value of their notes, where the customer has `has` by a verdict: all of the
    /// notes, none, or so many of the one bay that there is; `None` where that leaves open which.
    pub(super) fn allotted(&self, has: i64) -> Option<(BayResults, i64)> {
        let all = worth(&self.lots).ok()?;
        let one = (self.lots.len() == 1).then(|| self.lots.values().next()).flatten();
        let mut bays = BayResults::new();
        for (bay, lot) in &self.lots {
            let count = match (has, one.map(|lot| i64::from(lot.denomination.minor()))) {
                (0, _) => 0,
                (has, _) if has >= all => lot.count,
                (has, Some(note)) if has.checked_rem(note) == Some(0) => {
                    u32::try_from(has.checked_div(note)?).ok()?
                }
                _ => return None,
            };
            let (requested, picked) = (lot.count, Some(count));
            let result = BayResult { requested, picked, presented: count, ..BayResult::default() };
            bays.insert(*bay, result);
        }
        let value = self.value(&bays)?;
        Some((bays, value))
    }

    /// What a final answer gave the customer, in minor units; `None` where the answer is not about
    /// this plan.
    pub(super) fn value(&self, results: &BayResults) -> Option<i64> {
        if !results.keys().all(|bay| self.lots.contains_key(bay)) {
            return None;
        }
        self.lots.iter().try_fold(0i64, |sum, (bay, lot)| {
            let result = results.get(bay)?;
            if result.requested != lot.count {
                return None;
            }
            sum.checked_add(lot.denomination.times(result.delivered()).ok()?)
        })
    }
}

/// What `lots` are worth, in minor units.
pub(super) fn worth(lots: &Lots) -> Result<i64, MoneyError> {
    lots.values().try_fold(0i64, |sum, lot| {
        let more = lot.denomination.times(lot.count)?;
        sum.checked_add(more).ok_or(MoneyError::Overflow { what: "value of a plan" })
    })
}
