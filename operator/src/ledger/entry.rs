//! Entries: what was booked, for which event, once.
//!
//! Promise: an entry that exists sums to zero in each unit, has no posting of zero and none twice
//! for one account and unit. (kind, reference) names the event that it books, so that the same
//! event is never booked twice.

use std::collections::BTreeMap;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{BayId, TxnId};
use bitspire_shared::money::{Denomination, MoneyError, Sats};
use thiserror::Error;

use super::account::{Account, Unit};
use crate::ids::EntryId;

/// Why there is no such entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// The postings of one unit do not sum to zero.
    #[error("ledger: expected postings that sum to 0 {unit}, they sum to {sum}")]
    Unbalanced {
        /// The unit.
        unit: Unit,
        /// What they sum to.
        sum: i128,
    },
    /// An account that cannot hold the unit.
    #[error("ledger: account {account} cannot hold {unit}")]
    Unit {
        /// The account.
        account: Account,
        /// The unit.
        unit: Unit,
    },
    /// Nothing moves.
    #[error("ledger: expected at least two postings, nothing moves")]
    Empty,
    /// A report names a bay whose notes are not known.
    #[error("ledger: bay {bay} of the report has no known denomination; enter the cassette first")]
    UnknownBay {
        /// The bay.
        bay: BayId,
    },
    /// A report whose numbers contradict each other.
    #[error("ledger: bay {bay}: expected at least {expected} notes picked, the report says {got}")]
    Contradiction {
        /// The bay.
        bay: BayId,
        /// Notes presented and rejected.
        expected: u32,
        /// Notes picked.
        got: u32,
    },
    /// More notes leave a place than were put there by this booking.
    #[error("ledger: expected at most {expected} minor units, got {got}")]
    TooMuch {
        /// The most.
        expected: i64,
        /// What came.
        got: i64,
    },
    /// A sum that does not fit.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Classified for LedgerError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// Which event an entry books.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EntryKind { $($(#[$doc])* $variant),* }

        impl EntryKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name, in the database and on pages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

kinds! {
    /// A payment bought notes.
    Settled = "settled",
    /// A payment that buys nothing: late, too little, a second one, refused. All of it is owed.
    OwedWhole = "owed_whole",
    /// A payment that nobody can place.
    Suspended = "suspended",
    /// A person decided about a payment in suspense.
    SuspenseResolved = "suspense_resolved",
    /// Sats from a wallet of no machine came to the machine's.
    StrayRecovered = "stray_recovered",
    /// The machine reported where the notes of a sale went.
    Dispensed = "dispensed",
    /// A person decided where notes in doubt are.
    DoubtResolved = "doubt_resolved",
    /// Notes were stacked; the customer was promised sats.
    Stacked = "stacked",
    /// A withdraw ended unclaimed; its sats stay owed.
    LiabilityToOwed = "liability_to_owed",
    /// A customer was paid what was promised in a cash_in.
    WithdrawPaid = "withdraw_paid",
    /// A customer was paid what was owed.
    ClaimPaid = "claim_paid",
    /// A part of a fee was paid to whoever it belongs to.
    LegPaid = "leg_paid",
    /// A person has paid the platform's part of a fee by other means.
    LegByHand = "leg_by_hand",
    /// A liquidity provider's fiat came to the operator.
    LpDeposit = "lp_deposit",
    /// A liquidity provider was given fiat back.
    LpReturn = "lp_return",
    /// A part of a sale's principal became a liquidity provider's, for their fiat.
    LpShare = "lp_share",
    /// That was taken back: its leg was ended without being paid.
    LpShareVoid = "lp_share_void",
    /// The operator put sats into a machine's wallet or took some out.
    WalletMoved = "wallet_moved",
    /// Notes were put into a bay.
    Refilled = "refilled",
    /// Notes that customers fed lie in a bay, not in the cashbox.
    Recycled = "recycled",
    /// A bay was counted.
    BayCounted = "bay_counted",
    /// Notes were taken out of the machine.
    Emptied = "emptied",
    /// Notes taken out were counted.
    TransitCounted = "transit_counted",
    /// One note of each bay was given to whoever stood at the machine in service mode.
    Tested = "tested",
    /// An earlier entry was wrong.
    Reversed = "reversed",
}

/// One line of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Posting {
    /// The account.
    pub account: Account,
    /// Of what.
    pub unit: Unit,
    /// Signed: positive is a debit. Never 0.
    pub amount: i64,
}

/// A balanced entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    kind: EntryKind,
    reference: String,
    txid: Option<TxnId>,
    corrects: Option<EntryId>,
    reason: Option<String>,
    postings: Vec<Posting>,
}

impl Entry {
    /// The entry that books the event (`kind`, `reference`). Postings of one account and unit are
    /// added up; those of zero are left out.
    ///
    /// # Errors
    /// [`LedgerError`]: not balanced, an account without that unit, nothing moves, no fit.
    pub fn new(
        kind: EntryKind,
        reference: impl Into<String>,
        txid: Option<TxnId>,
        postings: impl IntoIterator<Item = Posting>,
    ) -> Result<Self, LedgerError> {
        let overflow = || MoneyError::Overflow { what: "posting" };
        let mut lines: BTreeMap<(Account, Unit), i64> = BTreeMap::new();
        let mut sums: BTreeMap<Unit, i128> = BTreeMap::new();
        for Posting { account, unit, amount } in postings {
            if !account.holds(unit) {
                return Err(LedgerError::Unit { account, unit });
            }
            let line = lines.entry((account, unit)).or_default();
            *line = line.checked_add(amount).ok_or_else(overflow)?;
            let sum = sums.entry(unit).or_default();
            *sum = sum.checked_add(i128::from(amount)).ok_or_else(overflow)?;
        }
        if let Some((unit, sum)) = sums.into_iter().find(|(_, sum)| *sum != 0) {
            return Err(LedgerError::Unbalanced { unit, sum });
        }
        lines.retain(|_, amount| *amount != 0);
        if lines.is_empty() {
            return Err(LedgerError::Empty);
        }
        let postings = lines
            .into_iter()
            .map(|((account, unit), amount)| Posting { account, unit, amount })
            .collect();
        let reference = reference.into();
        Ok(Self { kind, reference, txid, corrects: None, reason: None, postings })
    }

    /// The same entry with a reason that a person gave, for pages and auditors.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    /// The same entry, naming the earlier one that it corrects.
    #[must_use]
    pub fn correcting(self, wrong: EntryId) -> Self {
        Self { corrects: Some(wrong), ..self }
    }

    /// The entry that takes `self`, booked as `id`, back; what is right is booked anew.
    ///
    /// # Errors
    /// [`LedgerError::Money`] for an amount that has no opposite.
    pub fn reversal(&self, id: EntryId, reason: &str) -> Result<Self, LedgerError> {
        let opposite = |posting: &Posting| {
            let amount = posting.amount.checked_neg();
            let amount = amount.ok_or(MoneyError::Overflow { what: "posting" })?;
            Ok(Posting { amount, ..*posting })
        };
        let postings: Result<Vec<_>, MoneyError> = self.postings.iter().map(opposite).collect();
        let entry = Self::new(EntryKind::Reversed, id.to_string(), self.txid, postings?)?;
        Ok(entry.with_reason(reason).correcting(id))
    }

    /// Which event it books.
    #[must_use]
    pub const fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Which one of that kind; unique within it.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The transaction, where it is about one.
    #[must_use]
    pub const fn txid(&self) -> Option<TxnId> {
        self.txid
    }

    /// The earlier entry that it corrects.
    #[must_use]
    pub const fn corrects(&self) -> Option<EntryId> {
        self.corrects
    }

    /// The reason that a person gave.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The lines, sorted by account and unit.
    #[must_use]
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }
}

/// Collects the postings of one entry.
#[derive(Default)]
pub(super) struct Lines(Vec<Posting>);

impl Lines {
    /// Adds sats to an account.
    pub(super) fn debit(&mut self, account: Account, sats: Sats) -> Result<(), LedgerError> {
        let amount = i64::try_from(sats.0);
        let amount = amount.map_err(|_| MoneyError::Overflow { what: "sats of a posting" })?;
        self.0.push(Posting { account, unit: Unit::Sats, amount });
        Ok(())
    }

    /// Takes sats from an account.
    pub(super) fn credit(&mut self, account: Account, sats: Sats) -> Result<(), LedgerError> {
        let amount = i64::try_from(sats.0).ok().and_then(i64::checked_neg);
        let amount = amount.ok_or(MoneyError::Overflow { what: "sats of a posting" })?;
        self.0.push(Posting { account, unit: Unit::Sats, amount });
        Ok(())
    }

    /// Moves minor units of `unit` from one account to another.
    pub(super) fn carry(
        &mut self,
        unit: Unit,
        minor: i64,
        from: Account,
        to: Account,
    ) -> Result<(), LedgerError> {
        let taken = minor.checked_neg().ok_or(MoneyError::Overflow { what: "posting" })?;
        self.0.push(Posting { account: from, unit, amount: taken });
        self.0.push(Posting { account: to, unit, amount: minor });
        Ok(())
    }

    /// Moves `count` notes from one account to another.
    pub(super) fn carry_notes(
        &mut self,
        unit: Unit,
        (note, count): (Denomination, u32),
        from: Account,
        to: Account,
    ) -> Result<(), LedgerError> {
        self.carry(unit, note.times(count)?, from, to)
    }

    /// The entry, if the lines balance.
    pub(super) fn book(
        self,
        kind: EntryKind,
        reference: impl Into<String>,
        txid: Option<TxnId>,
    ) -> Result<Entry, LedgerError> {
        Entry::new(kind, reference, txid, self.0)
    }
}
