//! What the dispensers' error codes mean.
//!
//! Promise: each code of the public lists has its words and says whether the counts beside it can
//! be believed; any other code is [`Nature::Unknown`] and means "service needed".

use std::fmt;

use super::Id;

/// An error code: id 30 without its 20h, id 50 as on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// Whose list it is from.
    pub id: Id,
    /// The code.
    pub raw: u8,
}

/// What a code says about the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// All is well.
    Fine,
    /// The device refused before it picked a note.
    Refused,
    /// A cassette is missing or nearly empty, seen before a note was picked; its number, if said.
    Cassette(Option<u8>),
    /// The next note of a cassette could not be picked; its number, if said.
    Pick(Option<u8>),
    /// A note is stuck; the counts hold.
    Jam,
    /// It stopped for another reason; the counts hold.
    Stopped,
    /// It is not sure of its own counts.
    Miscounted,
    /// In no public list.
    Unknown,
}

impl ErrorCode {
    /// Whether all is well.
    #[must_use]
    pub fn is_ok(self) -> bool {
        self.nature() == Nature::Fine
    }

    /// What it says about the notes.
    #[must_use]
    pub fn nature(self) -> Nature {
        self.row().map_or(Nature::Unknown, |(_, nature, _)| *nature)
    }

    fn row(self) -> Option<&'static (u8, Nature, &'static str)> {
        let table = match self.id {
            Id::Lcdm4000 => LCDM_4000,
            Id::Lcdm1000 => LCDM_1000,
        };
        table.iter().find(|(raw, ..)| *raw == self.raw)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.row().map_or("in no public list", |(.., words)| words);
        write!(f, "error {:02X}: {words}", self.raw)
    }
}

/// Id 30: the list of the PyPI package `puloon`, 27 to 2C from a public Java driver. 50 to 53 are
/// the codes that Lamassu's support pages name 80 and 81 (in decimal), taken to be one a cassette.
#[rustfmt::skip]
const LCDM_4000: &[(u8, Nature, &str)] = &[
    (0x00, Nature::Fine, "none"),
    (0x01, Nature::Pick(None), "a note could not be picked"),
    (0x02, Nature::Jam, "jam between check sensor and diverter"),
    (0x03, Nature::Jam, "jam between diverter and eject sensor"),
    (0x04, Nature::Jam, "jam between eject sensor and exit"),
    (0x05, Nature::Stopped, "a note stays at the exit sensor"),
    (0x06, Nature::Miscounted, "a note that should be rejected may have been ejected"),
    (0x07, Nature::Miscounted, "the count at the eject sensor does not agree"),
    (0x08, Nature::Miscounted, "a note that should be rejected passed the eject sensor"),
    (0x09, Nature::Miscounted, "a note was too long at the eject sensor"),
    (0x0a, Nature::Miscounted, "a note was too long at the exit sensor"),
    (0x0b, Nature::Refused, "notes in the path before the start"),
    (0x0c, Nature::Stopped, "too many notes in one command (100)"),
    (0x0d, Nature::Stopped, "too many rejected notes in one command (10)"),
    (0x0e, Nature::Jam, "the purge ended abnormally"),
    (0x20, Nature::Refused, "a sensor is in trouble or covered before the start"),
    (0x21, Nature::Refused, "a sensor is in trouble or covered before the start"),
    (0x22, Nature::Stopped, "the solenoid is in trouble"),
    (0x23, Nature::Stopped, "the motor or its slit sensor is in trouble"),
    (0x24, Nature::Cassette(None), "a cassette that is asked for is missing"),
    (0x25, Nature::Cassette(None), "a cassette that is asked for is nearly empty"),
    (0x26, Nature::Refused, "the reject tray is missing"),
    (0x27, Nature::Refused, "the sensors could not be calibrated"),
    (0x28, Nature::Jam, "jam or sensor trouble in the cassette"),
    (0x29, Nature::Miscounted, "more notes were dispensed than asked for"),
    (0x2a, Nature::Jam, "jam in front of the diverter"),
    (0x2b, Nature::Stopped, "not finished within 90 seconds"),
    (0x2c, Nature::Cassette(None), "a cassette that is asked for is missing"),
    (0x30, Nature::Refused, "a command that it does not know"),
    (0x31, Nature::Refused, "a parameter that it does not take"),
    (0x32, Nature::Refused, "no verify after a download"),
    (0x33, Nature::Refused, "its program could not be written"),
    (0x34, Nature::Refused, "its program does not verify"),
    (0x35, Nature::Refused, "its settings could not be written"),
    (0x36, Nature::Refused, "the check sum of its settings is wrong"),
    (0x40, Nature::Miscounted, "a note of cassette 1 came while another dispensed"),
    (0x41, Nature::Miscounted, "a note of cassette 2 came while another dispensed"),
    (0x42, Nature::Miscounted, "a note of cassette 3 came while another dispensed"),
    (0x43, Nature::Miscounted, "a note of cassette 4 came while another dispensed"),
    (0x50, Nature::Pick(Some(1)), "the next note of cassette 1 could not be picked"),
    (0x51, Nature::Pick(Some(2)), "the next note of cassette 2 could not be picked"),
    (0x52, Nature::Pick(Some(3)), "the next note of cassette 3 could not be picked"),
    (0x53, Nature::Pick(Some(4)), "the next note of cassette 4 could not be picked"),
];

/// Id 50: the interface specification LCDM-1 v3.3 and TerminalClient.
#[rustfmt::skip]
const LCDM_1000: &[(u8, Nature, &str)] = &[
    (0x30, Nature::Fine, "none"),
    (0x31, Nature::Fine, "normal stop"),
    (0x32, Nature::Pick(None), "a note could not be picked"),
    (0x33, Nature::Jam, "jam at check sensor 1 or 2"),
    (0x34, Nature::Miscounted, "more notes than asked for"),
    (0x35, Nature::Jam, "jam at the exit or eject sensor"),
    (0x36, Nature::Jam, "jam at the diverter"),
    (0x37, Nature::Refused, "a command that it does not know"),
    (0x38, Nature::Pick(Some(1)), "the upper cassette is empty"),
    (0x3a, Nature::Miscounted, "the counts at check sensors 3, 4 and diverter do not agree"),
    (0x3b, Nature::Refused, "a number of notes that it does not take"),
    (0x3c, Nature::Miscounted, "the counts at diverter and eject sensor do not agree"),
    (0x3d, Nature::Miscounted, "the counts at eject and exit sensor do not agree"),
    (0x3f, Nature::Stopped, "the reject tray is missing"),
    (0x40, Nature::Pick(Some(2)), "the lower cassette is empty"),
    (0x41, Nature::Stopped, "the motor stands still"),
    (0x42, Nature::Jam, "jam at the diverter"),
    (0x43, Nature::Jam, "a note did not come from the diverter to the eject sensor"),
    (0x44, Nature::Stopped, "too many rejected notes"),
    (0x45, Nature::Cassette(Some(1)), "the upper cassette is missing"),
    (0x46, Nature::Cassette(Some(2)), "the lower cassette is missing"),
    (0x47, Nature::Stopped, "the dispense took too long"),
    (0x48, Nature::Jam, "jam at the eject sensor"),
    (0x49, Nature::Stopped, "the diverter's solenoid or its sensor is in trouble"),
    (0x4a, Nature::Stopped, "the solenoid's sensor is in trouble"),
    (0x4b, Nature::Miscounted, "the counts at check sensor and diverter do not agree"),
    (0x4c, Nature::Jam, "jam at check sensor 3 or 4"),
    (0x4e, Nature::Jam, "the purge ended with a jam at the diverter"),
    (0x4f, Nature::Miscounted, "a sensor of the other cassette saw a note"),
    (0x50, Nature::Jam, "a note did not come from the check sensor to the diverter"),
];
