//! What the host says.

use std::fmt;

use bitspire_shared::money::{Currency, Denomination};

use super::{Data, Frame, MAX_DATA};
use crate::frame::hex;

/// Letters of a currency.
pub const COUNTRY: usize = 3;
/// Kinds of notes that one command names at most.
pub const MAX_COUNTED: usize = 20;
/// An amount is moved.
const REAL: u8 = 0x58;
/// It is only found out whether it could be.
const TEST: u8 = 0x19;

/// An amount as the device has it: real value (minor units) and ISO 4217 code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units.
    pub value: u32,
    /// The currency's letters.
    pub country: [u8; COUNTRY],
}

impl Money {
    /// One note.
    #[must_use]
    pub fn of(note: Denomination, currency: Currency) -> Self {
        let mut country = [0; COUNTRY];
        for (to, from) in country.iter_mut().zip(currency.code().bytes()) {
            *to = from;
        }
        Self { value: note.minor(), country }
    }

    /// The note that is worth so much, if there is one.
    #[must_use]
    pub fn note(self) -> Option<(Denomination, Currency)> {
        let currency = std::str::from_utf8(&self.country).ok()?.parse().ok()?;
        Some((Denomination::from_minor(self.value).ok()?, currency))
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (value, rest) = bytes.split_first_chunk::<4>()?;
        let (country, rest) = rest.split_first_chunk::<COUNTRY>()?;
        Some((Self { value: u32::from_le_bytes(*value), country: *country }, rest))
    }

    fn write(self, out: &mut Data<MAX_DATA>) {
        out.extend(&self.value.to_le_bytes());
        out.extend(&self.country);
    }
}

/// `1000 EUR`, in minor units.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.country.escape_ascii())
    }
}

/// Notes of several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    notes: [(u16, Money); MAX_COUNTED],
    len: usize,
}

impl Counted {
    /// These notes, of at most twenty kinds; those past them are cut.
    #[must_use]
    pub fn new(from: impl IntoIterator<Item = (u16, Money)>) -> Self {
        let nothing = (0, Money { value: 0, country: [0; COUNTRY] });
        let mut counted = Self { notes: [nothing; MAX_COUNTED], len: 0 };
        for (to, from) in counted.notes.iter_mut().zip(from) {
            *to = from;
            counted.len = counted.len.saturating_add(1);
        }
        counted
    }

    /// How many of which.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Money)> + '_ {
        self.notes.iter().take(self.len).copied()
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (len, mut rest) = bytes.split_first()?;
        if usize::from(*len) > MAX_COUNTED {
            return None;
        }
        let mut counted = Self::new([]);
        for place in counted.notes.iter_mut().take(usize::from(*len)) {
            let (number, after) = rest.split_first_chunk::<2>()?;
            let (money, after) = Money::read(after)?;
            *place = (u16::from_le_bytes(*number), money);
            rest = after;
        }
        counted.len = usize::from(*len);
        Some((counted, rest))
    }

    fn write(&self, out: &mut Data<MAX_DATA>) {
        out.extend(&[u8::try_from(self.len).unwrap_or(u8::MAX)]);
        for (number, money) in self.iter() {
            out.extend(&number.to_le_bytes());
            money.write(out);
        }
    }
}

/// `2 x 1000 EUR, 1 x 2000 EUR`.
impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (number, money)) in self.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{number} x {money}")?;
        }
        Ok(())
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $code:literal $name:ident $words:literal
        $(($($field:ident: $kind:ident),+))?,)*) => {
        /// A command; all of them are in GA138.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Request<'a> {
            $($(#[$doc])* #[doc = concat!("`", stringify!($code), "` ", $words, ".")]
                $name $({ $(
                    #[doc = stringify!($field)]
                    $field: $kind
                ),+ })?,)*
            /// A command that is in no table of ours, or whose parameters do not fit.
            Unknown {
                /// Its data.
                raw: &'a [u8],
            },
        }

        impl<'a> Request<'a> {
            /// What data mean.
            #[must_use]
            pub fn parse(data: &'a [u8]) -> Self {
                Self::read(data).unwrap_or(Self::Unknown { raw: data })
            }

            fn read(data: &'a [u8]) -> Option<Self> {
                let (code, rest) = data.split_first()?;
                let (request, rest) = match code {
                    $($code => {
                        $($(let ($field, rest) = $kind::take(rest)?;)+)?
                        (Self::$name $({ $($field),+ })?, rest)
                    })*
                    _ => return None,
                };
                rest.is_empty().then_some(request)
            }

            fn put(&self, out: &mut Data<MAX_DATA>) {
                match self {
                    $(Self::$name $({ $($field),+ })? => {
                        out.extend(&[$code]);
                        $($($field.give(out);)+)?
                    })*
                    Self::Unknown { raw } => out.extend(raw),
                }
            }
        }

        impl fmt::Display for Request<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name $({ $($field),+ })? => {
                        f.write_str($words)?;
                        $($(write!(f, ", {} {}", stringify!($field), $field.show())?;)+)?
                        Ok(())
                    })*
                    Self::Unknown { raw } => write!(f, "unknown command {}", hex(raw)),
                }
            }
        }
    };
}

requests! {
    0x01 Reset "reset",
    /// Which channels take notes, a bit each from the lowest; 1 takes them.
    0x02 SetInhibits "set inhibits" (channels: u16),
    0x05 SetupRequest "setup request",
    0x06 HostProtocol "host protocol version" (version: u8),
    /// Accepts the note in escrow, if one was told.
    0x07 Poll "poll",
    0x08 Reject "reject",
    0x09 Disable "disable",
    0x0a Enable "enable",
    0x0c Serial "get serial number",
    0x11 Sync "sync",
    0x17 LastReject "last reject code",
    0x18 Hold "hold",
    0x20 Firmware "get firmware version",
    0x21 Dataset "get dataset version",
    0x22 AllLevels "get all levels",
    0x33 Payout "payout" (amount: Money, how: How),
    0x34 SetLevel "set level" (number: u16, note: Money),
    0x35 GetLevel "get level" (note: Money),
    0x38 Halt "halt payout",
    0x3b SetRoute "set route" (route: Route, note: Money),
    0x3c GetRoute "get route" (note: Money),
    /// `least` is the smallest payout that must stay possible.
    0x3d Float "float" (least: u32, amount: Money, how: How),
    0x3f Empty "empty",
    /// The notes that are to stay.
    0x44 FloatByDenomination "float by denomination" (notes: Counted, how: How),
    0x46 PayoutByDenomination "payout by denomination" (notes: Counted, how: How),
    0x4a SetGenerator "set generator" (generator: u64),
    0x4b SetModulus "set modulus" (modulus: u64),
    0x4c KeyExchange "request key exchange" (public: u64),
    0x52 SmartEmpty "SMART empty",
    0x53 CashboxData "cashbox payout operation data",
    0x5b DisablePayout "disable payout",
    0x5c EnablePayout "enable payout" (options: u8),
    /// Events that count are said again until they are acknowledged. Accepts like a poll.
    0x56 PollWithAck "poll with ack",
    0x57 EventAck "event ack",
    0x60 SetFixedKey "set fixed key" (key: Hidden),
    0x61 ResetFixedKey "reset fixed key",
}

impl Request<'_> {
    /// The data of its frame.
    #[must_use]
    pub fn frame(&self, seq: bool, address: u8) -> Frame {
        let mut frame = Frame::new(seq, address, &[]);
        self.put(&mut frame.data);
        frame
    }

    /// Whether the device takes it in encrypted data only.
    #[must_use]
    pub const fn needs_keys(&self) -> bool {
        matches!(
            self,
            Self::Payout { .. }
                | Self::SetLevel { .. }
                | Self::Halt
                | Self::SetRoute { .. }
                | Self::Float { .. }
                | Self::Empty
                | Self::FloatByDenomination { .. }
                | Self::PayoutByDenomination { .. }
                | Self::SmartEmpty
                | Self::DisablePayout
                | Self::EnablePayout { .. }
                | Self::SetFixedKey { .. }
                | Self::ResetFixedKey
        )
    }
}

/// Whether an amount is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is.
    Real,
    /// It is only found out whether it could be.
    Test,
}

/// Where notes of a kind go when they are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into the store, from where they can be paid out.
    Store,
    /// Into the cashbox.
    Cashbox,
}

/// A key that nobody is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden(pub u64);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How a parameter stands in a command.
trait Parameter: Sized {
    fn take(bytes: &[u8]) -> Option<(Self, &[u8])>;
    fn give(&self, out: &mut Data<MAX_DATA>);
    fn show(&self) -> String;
}

macro_rules! number {
    ($($kind:ident $bytes:literal)*) => {
        $(impl Parameter for $kind {
            fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (number, rest) = bytes.split_first_chunk::<$bytes>()?;
                Some((Self::from_le_bytes(*number), rest))
            }
            fn give(&self, out: &mut Data<MAX_DATA>) {
                out.extend(&self.to_le_bytes());
            }
            fn show(&self) -> String {
                format!("{self:X}h")
            }
        })*
    };
}

number!(u8 1 u16 2 u32 4 u64 8);

macro_rules! either {
    ($kind:ident: $($code:path => $variant:ident $words:literal),*) => {
        impl Parameter for $kind {
            fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let (code, rest) = bytes.split_first()?;
                match *code {
                    $($code => Some((Self::$variant, rest)),)*
                    _ => None,
                }
            }
            fn give(&self, out: &mut Data<MAX_DATA>) {
                out.extend(&[match self { $(Self::$variant => $code),* }]);
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $words),* }.to_owned()
            }
        }
    };
}

const TO_STORE: u8 = 0;
const TO_CASHBOX: u8 = 1;
either!(How: REAL => Real "real", TEST => Test "test");
either!(Route: TO_STORE => Store "store", TO_CASHBOX => Cashbox "cashbox");

impl Parameter for Money {
    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Self::read(bytes)
    }
    fn give(&self, out: &mut Data<MAX_DATA>) {
        self.write(out);
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Parameter for Counted {
    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Self::read(bytes)
    }
    fn give(&self, out: &mut Data<MAX_DATA>) {
        self.write(out);
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Parameter for Hidden {
    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (key, rest) = u64::take(bytes)?;
        Some((Self(key), rest))
    }
    fn give(&self, out: &mut Data<MAX_DATA>) {
        self.0.give(out);
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}
