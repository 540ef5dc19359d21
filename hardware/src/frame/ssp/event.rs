//! What a poll tells: events, one behind the other.
//!
//! As of protocol version 8: amounts come per currency, a note that a start has moved with its value, an
//! error of a payout with amounts. Where units differ in how long an event is
//! (fraud with a channel or with amounts, a single note with or without a count before it), the bytes
//! tell which it is.

use std::fmt;

use super::{COUNTRY, Money};
use crate::frame::codes::codes;
use crate::frame::hex;

codes! {
    /// Code of an event.
    EventCode {
        0xb0 JamRecovery "jam recovery",
        0xb1 PayoutError "error during payout",
        0xb3 SmartEmptying "SMART emptying",
        0xb4 SmartEmptied "SMART emptied",
        0xb5 ChannelsDisabled "all channels inhibited",
        0xb6 Initialising "initialising",
        0xc2 Emptying "emptying",
        0xc3 Emptied "emptied",
        0xc6 OutOfService "payout out of service",
        0xc9 Transferred "note transferred to the cashbox",
        0xca IntoCashboxAtReset "note put into the cashbox at reset",
        0xcb IntoStoreAtReset "note put into the store at reset",
        0xcc Stacking "stacking",
        0xcd DispensedAtReset "note dispensed at reset",
        0xce InBezel "note held in the bezel",
        0xcf DeviceFull "device full",
        0xd1 TicketStacked "ticket stacked",
        0xd2 Dispensed "dispensed",
        0xd5 Jammed "jammed",
        0xd6 Halted "halted",
        0xd7 Floating "floating",
        0xd8 Floated "floated",
        0xd9 TimeOut "time-out",
        0xda Dispensing "dispensing",
        0xdb Stored "note stored",
        0xdc IncompletePayout "incomplete payout",
        0xdd IncompleteFloat "incomplete float",
        0xe0 PathOpen "note path open",
        0xe1 ClearedFromFront "note cleared from the front at reset",
        0xe2 ClearedIntoCashbox "note cleared into the cashbox at reset",
        0xe3 CashboxRemoved "cashbox removed",
        0xe4 CashboxReplaced "cashbox replaced",
        0xe5 TicketRead "ticket in escrow",
        0xe6 Fraud "fraud attempt",
        0xe7 CashboxFull "cashbox full",
        0xe8 Disabled "disabled",
        0xe9 UnsafeJam "note jammed within reach",
        0xea SafeJam "note jammed out of reach",
        0xeb Stacked "stacked",
        0xec Rejected "rejected",
        0xed Rejecting "rejecting",
        0xee Credit "credit",
        0xef Read "read",
        0xf1 Reset "device reset",
    }
}

impl EventCode {
    /// Whether it is said again until it is acknowledged, where the host polls with ack.
    #[must_use]
    pub const fn wants_ack(self) -> bool {
        matches!(
            self,
            Self::Credit
                | Self::ClearedFromFront
                | Self::ClearedIntoCashbox
                | Self::Fraud
                | Self::Dispensed
                | Self::Jammed
                | Self::Halted
                | Self::Floated
                | Self::TimeOut
                | Self::IncompletePayout
                | Self::IncompleteFloat
                | Self::Emptied
                | Self::SmartEmptied
                | Self::Transferred
                | Self::IntoCashboxAtReset
                | Self::IntoStoreAtReset
                | Self::DispensedAtReset
                | Self::PayoutError
        )
    }
}

/// One event with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What it is.
    pub code: EventCode,
    /// What belongs to it.
    pub detail: Detail<'a>,
    /// Its bytes, the code first.
    pub raw: &'a [u8],
}

/// What belongs to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail<'a> {
    /// Nothing.
    None,
    /// The number of a channel; 0 where it is not known (yet).
    Channel(u8),
    /// A note.
    Note(Money),
    /// Amounts per currency.
    Sums(Sums<'a>),
    /// Amounts per currency, and what stopped it.
    Error(Sums<'a>, u8),
    /// Amounts done and wanted per currency.
    Pairs(Pairs<'a>),
}

/// The cause of [`EventCode::PayoutError`]: the note was not the one that it should have been.
pub const CAUSE_WRONG_NOTE: u8 = 0;

/// An amount of one currency, and for an event of two amounts the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// What was done.
    pub done: Money,
    /// What was wanted.
    pub wanted: u32,
}

/// Amounts per currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums<'a>(&'a [u8]);

impl Sums<'_> {
    /// The amount of one currency, in minor units.
    #[must_use]
    pub fn of(self, country: [u8; COUNTRY]) -> u64 {
        let sums = self.0.chunks_exact(SUM).filter_map(money);
        sums.filter(|sum| sum.country == country).map(|sum| u64::from(sum.value)).sum()
    }
}

/// Amounts done and wanted per currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs<'a>(&'a [u8]);

impl Pairs<'_> {
    /// The amounts.
    pub fn iter(self) -> impl Iterator<Item = Amount> {
        self.0.chunks_exact(PAIR).filter_map(|pair| {
            let (done, rest) = pair.split_first_chunk::<4>()?;
            let (wanted, country) = rest.split_first_chunk::<4>()?;
            let country = *country.first_chunk::<COUNTRY>()?;
            let done = Money { value: u32::from_le_bytes(*done), country };
            Some(Amount { done, wanted: u32::from_le_bytes(*wanted) })
        })
    }
}

/// Bytes of an amount, and of two.
const SUM: usize = 7;
const PAIR: usize = 11;

fn money(bytes: &[u8]) -> Option<Money> {
    let (value, rest) = bytes.split_first_chunk::<4>()?;
    Some(Money { value: u32::from_le_bytes(*value), country: *rest.first_chunk::<COUNTRY>()? })
}

/// Whether these are letters of a currency.
fn is_country(bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| bytes.iter().all(u8::is_ascii_uppercase))
}

/// A count and so many blocks of `size`.
fn blocks(data: &[u8], size: usize) -> Option<&[u8]> {
    let (count, rest) = data.split_first()?;
    rest.get(..usize::from(*count).saturating_mul(size))
}

impl<'a> Event<'a> {
    /// The event at the front, and how long it is; `None` where its bytes are cut off.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        use EventCode as C;
        let (code, data) = bytes.split_first()?;
        let code = EventCode::from_code(*code);
        let (detail, size) = match code {
            C::Read | C::Credit | C::ClearedFromFront | C::ClearedIntoCashbox => {
                (Detail::Channel(*data.first()?), 1)
            }
            C::Fraud => match blocks(data, SUM) {
                Some(sums) if !sums.is_empty() && is_country(sums.get(4..SUM)) => {
                    (Detail::Sums(Sums(sums)), sums.len().saturating_add(1))
                }
                _ => (Detail::Channel(*data.first()?), 1),
            },
            C::Transferred
            | C::InBezel
            | C::IntoCashboxAtReset
            | C::IntoStoreAtReset
            | C::DispensedAtReset => {
                if is_country(data.get(4..SUM)) {
                    (Detail::Note(money(data)?), SUM)
                } else {
                    let sums = blocks(data, SUM)?;
                    (Detail::Note(money(sums)?), sums.len().saturating_add(1))
                }
            }
            C::Dispensing
            | C::Dispensed
            | C::Jammed
            | C::Halted
            | C::Floating
            | C::Floated
            | C::TimeOut
            | C::SmartEmptying
            | C::SmartEmptied => {
                let sums = blocks(data, SUM)?;
                (Detail::Sums(Sums(sums)), sums.len().saturating_add(1))
            }
            C::PayoutError => {
                let sums = blocks(data, SUM)?;
                let at = sums.len().saturating_add(1);
                (Detail::Error(Sums(sums), *data.get(at)?), at.saturating_add(1))
            }
            C::IncompletePayout | C::IncompleteFloat => {
                let pairs = blocks(data, PAIR)?;
                (Detail::Pairs(Pairs(pairs)), pairs.len().saturating_add(1))
            }
            // nobody knows how long it is: the rest belongs to it
            C::Unknown { .. } => (Detail::None, data.len()),
            _ => (Detail::None, 0),
        };
        let raw = bytes.get(..size.saturating_add(1))?;
        Some(Self { code, detail, raw })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((_, data)) = self.raw.split_first()
            && !data.is_empty()
        {
            write!(f, " {}", hex(data))?;
        }
        Ok(())
    }
}

/// The events of a poll's answer, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a>(&'a [u8]);

impl<'a> Events<'a> {
    /// The events in these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let (first, _) = self.0.split_first()?;
        // one that is cut off is nothing that we know
        let cut =
            Event { code: EventCode::Unknown { raw: *first }, detail: Detail::None, raw: self.0 };
        let event = Event::first(self.0).unwrap_or(cut);
        self.0 = self.0.get(event.raw.len()..).unwrap_or_default();
        Some(event)
    }
}
