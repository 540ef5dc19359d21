//! Notes as EBDS names them: the extended note report and the value table.

use std::fmt;

use bitspire_shared::money::{Currency, Denomination};

use crate::frame::codes::codes;

/// Bytes of a note report.
const REPORT: usize = 18;
/// Bytes of one entry of the value table.
const ENTRY: usize = 10;
/// Entries of the value table.
const ENTRIES: usize = 7;

codes!(
    /// What the device holds of a note (the last byte of its report that is used).
    Classification {
        0x00 None "not classified, or disabled",
        0x01 Unidentified "not identified",
        0x02 Counterfeit "suspected counterfeit",
        0x03 ZeroValue "suspected to be without value",
        0x04 Genuine "genuine",
    }
);

/// Value and kind of one note: sent at escrow and when it is stacked, and for each entry of the
/// device's table that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteReport(pub(super) [u8; REPORT]);

impl NoteReport {
    /// A report without a note: the table has no such entry, or a value is not told.
    pub const BLANK: Self = Self([0; REPORT]);

    /// A report of `base * 10^exponent` units of a currency (three capital letters).
    #[must_use]
    pub fn new(
        index: u8,
        currency: Currency,
        (base, exponent): (u16, u8),
        class: Classification,
    ) -> Self {
        let mut bytes = [0; REPORT];
        let text = format!("{}{:03}+{:02}", currency.code(), base % 1_000, exponent % 100);
        let rest = [0, b'A', b'A', b'A', b'A', class.code()];
        let whole = std::iter::once(index).chain(text.bytes()).chain(rest);
        for (slot, byte) in bytes.iter_mut().zip(whole) {
            *slot = byte;
        }
        Self(bytes)
    }

    /// Place in the device's table, from 1; many units say 0 at escrow.
    #[must_use]
    pub const fn index(&self) -> u8 {
        let [index, ..] = self.0;
        index
    }

    /// The note; `None` for a blank report, an unknown currency or an absurd value.
    #[must_use]
    pub fn note(&self) -> Option<(Denomination, Currency)> {
        let [_, text @ ..] = &self.0;
        worth(text.first_chunk()?)
    }

    /// It names no note, or one without a value.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let [_, _, _, _, base @ ..] = &self.0;
        base.iter().take(3).all(|digit| matches!(digit, 0 | b'0'))
    }

    /// What the device holds of it.
    #[must_use]
    pub const fn classification(&self) -> Classification {
        let [.., class, _, _] = self.0;
        Classification::from_code(class)
    }
}

impl fmt::Display for NoteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [index, text @ ..] = &self.0;
        match self.note() {
            Some((note, currency)) => {
                write!(f, "{} minor units of {currency}", note.minor())?;
            }
            None => {
                let text: &[u8; 9] = text.first_chunk().unwrap_or(&[0; 9]);
                write!(f, "note {}", text.escape_ascii())?;
            }
        }
        write!(f, " at index {index}, {}", self.classification())
    }
}

/// `CCCbbbsee`: currency, base, sign, exponent, in ASCII.
fn worth(text: &[u8; 9]) -> Option<(Denomination, Currency)> {
    let text = std::str::from_utf8(text).ok()?;
    let (currency, rest) = text.split_at_checked(3)?;
    let (base, rest) = rest.split_at_checked(3)?;
    let (sign, exponent) = rest.split_at_checked(1)?;
    let digits = |text: &str| -> Option<u32> {
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let currency: Currency = currency.parse().ok()?;
    let base = digits(base)?;
    let scale = 10u32.checked_pow(digits(exponent)?)?;
    let major = match sign {
        "+" => base.checked_mul(scale)?,
        "-" if base.checked_rem(scale)? == 0 => base.checked_div(scale)?,
        _ => return None,
    };
    Some((Denomination::from_major(major, currency).ok()?, currency))
}

/// The notes that the value index 1 to 7 stands for, where notes are not reported at length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueTable<'a>(pub(super) &'a [u8]);

impl<'a> ValueTable<'a> {
    /// Bytes of the table.
    pub(super) const LEN: usize = ENTRY * ENTRIES;

    /// Each index that has a note, and the note.
    pub fn notes(&self) -> impl Iterator<Item = (u8, (Denomination, Currency))> + use<'a> {
        let entries = self.0.as_chunks::<ENTRY>().0;
        entries.iter().filter_map(|[index, text @ ..]| Some((*index, worth(text)?)))
    }

    /// The table as it goes over the line, of these notes at the indexes from 1.
    #[must_use]
    pub fn bytes(notes: &[NoteReport]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        for index in 1..=7u8 {
            bytes.push(index);
            let report = notes.iter().find(|note| note.index() == index);
            let [_, text @ ..] = &report.unwrap_or(&NoteReport::BLANK).0;
            bytes.extend_from_slice(text.first_chunk::<9>().unwrap_or(&[0; 9]));
        }
        bytes
    }
}
