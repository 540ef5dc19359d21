//! Who is at the other end of a line: asked before a machine goes into service.
//!
//! Promise: only questions are asked, which move, confirm and change nothing. A credit or a return
//! that waits for its confirmation goes on waiting: no ACK follows a state, and an EBDS unit that
//! speaks of a note hears no other toggle. The one command that moves notes is [`test_dispense`],
//! for units with a reject tray, and it is sent once.
//!
//! Failure policy: a line that does not answer as expected is looked at again with other settings
//! and for other devices, so that the error names the cause ([`ProbeError`]) and what to do.

mod look;
mod talk;
#[cfg(test)]
mod tests;
mod tray;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use thiserror::Error;

use self::look::{knock, look};
use self::talk::Talk;
pub use self::tray::{Tested, test_dispense};
use crate::dispenser::BayState;
use crate::engine::{LineSettings, Parity};
use crate::frame::hex;
use crate::port::{OpenError, Opener};

/// How long a device may take to begin and end an answer: a table of notes takes 150 ms at 9600.
const ANSWER: Duration = Duration::from_millis(800);
/// The same where somebody is only looked for.
const SHORT: Duration = Duration::from_millis(300);
/// Bytes of garbage that an error shows.
const SHOWN: usize = 24;
/// Rates that devices of these kinds can be set to.
const BAUDS: [u32; 3] = [9_600, 19_200, 38_400];

/// What is spoken on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// JCM ID-003, recyclers included.
    Id003,
    /// CashCode CCNET, validators.
    Ccnet,
    /// CashCode Bill-to-Bill units: CCNET at their own address.
    CcnetUnit,
    /// ITL's SSP, of an NV200 with a SMART Payout.
    Ssp,
    /// MEI/CPI EBDS.
    Ebds,
    /// Fujitsu F53 and F56.
    F56,
    /// Puloon LCDM-4000.
    Lcdm4000,
    /// Puloon LCDM-1000 and LCDM-2000.
    Lcdm1000,
    /// ESC/POS receipt printers.
    EscPos,
}

impl Protocol {
    /// All that can be told apart by their answers. A printer's one byte is no proof of one.
    pub const ALL: [Self; 8] = [
        Self::Id003,
        Self::Ccnet,
        Self::CcnetUnit,
        Self::Ssp,
        Self::Ebds,
        Self::F56,
        Self::Lcdm4000,
        Self::Lcdm1000,
    ];

    /// The line as field units have it.
    #[must_use]
    pub const fn line(self) -> LineSettings {
        let (data_bits, parity) = match self {
            Self::Id003 | Self::F56 | Self::Lcdm4000 => (8, Parity::Even),
            Self::Ccnet | Self::CcnetUnit | Self::Ssp | Self::Lcdm1000 | Self::EscPos => {
                (8, Parity::None)
            }
            Self::Ebds => (7, Parity::Even),
        };
        let stop_bits = if matches!(self, Self::Ssp) { 2 } else { 1 };
        LineSettings { baud: 9_600, data_bits, parity, stop_bits }
    }

    /// Other settings that a unit of this kind may have.
    fn elsewhere(self, set: LineSettings) -> Vec<LineSettings> {
        let parities: &[Parity] = match self {
            Self::Lcdm4000 | Self::Lcdm1000 => &[Parity::Even, Parity::None],
            Self::Id003
            | Self::Ccnet
            | Self::CcnetUnit
            | Self::Ssp
            | Self::Ebds
            | Self::F56
            | Self::EscPos => &[set.parity],
        };
        let all = BAUDS.iter().flat_map(|baud| {
            parities.iter().map(|parity| LineSettings { baud: *baud, parity: *parity, ..set })
        });
        all.filter(|line| *line != set).collect()
    }
}

/// For a person.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id003 => "a JCM ID-003 device",
            Self::Ccnet => "a CashCode CCNET validator",
            Self::CcnetUnit => "a CashCode Bill-to-Bill unit",
            Self::Ssp => "an ITL SSP device",
            Self::Ebds => "an MEI/CPI EBDS validator",
            Self::F56 => "a Fujitsu F53/F56 dispenser",
            Self::Lcdm4000 => "a Puloon LCDM-4000 dispenser",
            Self::Lcdm1000 => "a Puloon LCDM-1000 or LCDM-2000 dispenser",
            Self::EscPos => "an ESC/POS printer",
        })
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Model and firmware in its own words; none where its protocol has no question for them, or it
    /// does not say.
    pub identity: Option<String>,
    /// Its currency table, empty slots left out.
    pub notes: Vec<(Denomination, Currency)>,
    /// Its cassettes, as far as it tells.
    pub bays: BTreeMap<BayId, BayState>,
    /// Its state, line by line, with the raw codes.
    pub state: Vec<String>,
    /// What forbids to move a note now, as far as it tells.
    pub forbids: Vec<Forbids>,
}

/// What forbids to move a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbids {
    /// Somebody's notes lie at the exit.
    NotesAtExit,
    /// A note for the reject tray would fall beside it.
    NoRejectTray,
}

/// For a person.
impl fmt::Display for Forbids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotesAtExit => "notes lie at the exit",
            Self::NoRejectTray => "the reject tray is missing",
        })
    }
}

/// Why nobody could be identified, and what to do.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The port.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system gave no thread.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// The port went away.
    #[error("the line was lost while it was asked: look at plug and adapter")]
    Lost(#[source] io::Error),
    /// It is there, with other settings.
    #[error(
        "it answers at {found}, not at {set}: set that in the configuration, or change the unit's \
         switches"
    )]
    WrongLine {
        /// As configured.
        set: LineSettings,
        /// Where it answers.
        found: LineSettings,
    },
    /// Another device is there.
    #[error(
        "expected {expected}, but {found} answers: the cables are swapped, or the configuration \
         names another device"
    )]
    OtherDevice {
        /// As configured.
        expected: Protocol,
        /// Who answers.
        found: Protocol,
    },
    /// The line gives back what it is told.
    #[error("the line gives back what is sent: a loop, or TX and RX touch each other")]
    Echo,
    /// Bytes that are nobody's.
    #[error(
        "no answer can be read, got {bytes}: wrong baud rate or parity, TTL levels on an RS-232 \
         port, or a bad cable"
    )]
    Garbage {
        /// The first of them, in hex.
        bytes: String,
    },
    /// Nothing came.
    #[error(
        "no answer: is it switched on, is the cable in, are TX and RX crossed, is it set to this \
         protocol?"
    )]
    Silent,
    /// Such a device has no test dispense.
    #[error("{0} has no test dispense to a reject tray")]
    NoTest(Protocol),
    /// A test dispense that was not sent.
    #[error("no note was moved: {0}; see to that first")]
    NotNow(Forbids),
    /// A test dispense without an end that we know of.
    #[error(
        "the test dispense was sent and its result did not come: look into the reject tray and at \
         the exit, count the cassette; it is not sent again"
    )]
    Unanswered,
}

impl Classified for ProbeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Thread(_) | Self::Lost(_) | Self::Silent | Self::Garbage { .. } => {
                Kind::Transient
            }
            Self::WrongLine { .. } | Self::OtherDevice { .. } | Self::Echo => Kind::Permanent,
            Self::NoTest(_) | Self::NotNow(_) => Kind::Misuse,
            Self::Unanswered => Kind::Uncertain,
        }
    }
}

/// Asks who is there. Takes about a second of a device that answers, some seconds of one that does
/// not: then other settings of the line and other devices are tried.
///
/// # Errors
/// [`ProbeError`].
pub fn probe(
    opener: &mut Opener,
    protocol: Protocol,
    line: LineSettings,
) -> Result<Found, ProbeError> {
    let mut talk = Talk::open(opener, line)?;
    for _ in 0..2 {
        if let Some(state) = knock(&mut talk, protocol, ANSWER)? {
            return look(&mut talk, protocol, state);
        }
    }
    let (heard, echo) = (talk.heard().to_vec(), talk.is_echo());
    // the port must be free before it is opened again
    drop(talk);
    if echo {
        return Err(ProbeError::Echo);
    }
    for found in protocol.elsewhere(line) {
        if answers(opener, protocol, found)? {
            return Err(ProbeError::WrongLine { set: line, found });
        }
    }
    for found in Protocol::ALL.into_iter().filter(|other| *other != protocol) {
        if answers(opener, found, found.line())? {
            return Err(ProbeError::OtherDevice { expected: protocol, found });
        }
    }
    Err(match heard.get(..heard.len().min(SHOWN)) {
        Some(first) if !first.is_empty() => ProbeError::Garbage { bytes: hex(first) },
        _ => ProbeError::Silent,
    })
}

/// Whether such a device answers there; an adapter that has no such settings has nobody there.
fn answers(
    opener: &mut Opener,
    protocol: Protocol,
    line: LineSettings,
) -> Result<bool, ProbeError> {
    match Talk::open(opener, line) {
        Ok(mut talk) => Ok(knock(&mut talk, protocol, SHORT)?.is_some()),
        Err(ProbeError::Open(OpenError::Settings { .. } | OpenError::Io { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}
