//! What an EBDS device says: its state in six bytes, notes, and answers to questions.

use std::fmt;

use super::note::{NoteReport, ValueTable};
use super::{Frame, hex, kind};

/// The bits of [`Status`], byte by byte.
pub mod bits {
    /// D0: ready for a note.
    pub const IDLING: u8 = 0x01;
    /// D0: a note is coming in.
    pub const ACCEPTING: u8 = 0x02;
    /// D0: a note waits for the host.
    pub const ESCROWED: u8 = 0x04;
    /// D0: a note is on its way to the cashbox.
    pub const STACKING: u8 = 0x08;
    /// D0, once: a note lies in the cashbox.
    pub const STACKED: u8 = 0x10;
    /// D0: a note is being given back.
    pub const RETURNING: u8 = 0x20;
    /// D0, once: a note was given back.
    pub const RETURNED: u8 = 0x40;
    /// D1.
    pub const CHEATED: u8 = 0x01;
    /// D1, once: a note was refused before escrow.
    pub const REJECTED: u8 = 0x02;
    /// D1.
    pub const JAMMED: u8 = 0x04;
    /// D1.
    pub const STACKER_FULL: u8 = 0x08;
    /// D1: the cashbox is in its place.
    pub const CASSETTE: u8 = 0x10;
    /// D1: a second note lies in the inlet.
    pub const PAUSED: u8 = 0x20;
    /// D1.
    pub const CALIBRATION: u8 = 0x40;
    /// D2: the first words after the power came.
    pub const POWER_UP: u8 = 0x01;
    /// D2: the last command was not understood or does not fit.
    pub const INVALID: u8 = 0x02;
    /// D2.
    pub const FAILURE: u8 = 0x04;
    /// D2: the transport is open.
    pub const OPEN: u8 = 0x40;
    /// D3: a note is stuck, and the host wanted no push (D2 bit 0 of its command).
    pub const STALLED: u8 = 0x01;
    /// D3: it waits for its firmware.
    pub const FLASH: u8 = 0x02;
    /// D3: the inlet is closed.
    pub const DISABLED: u8 = 0x20;
}

/// The six bytes of the device's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// D0: where the note is; nothing at all means out of service.
    pub state: u8,
    /// D1: events and conditions.
    pub event: u8,
    /// D2: exceptions, and the value index in bits 3 to 5.
    pub exception: u8,
    /// D3: more conditions.
    pub misc: u8,
    /// D4: the model as a letter: `T` for SC 83, 85 and SCN 83, `U` for SC 66.
    pub model: u8,
    /// D5: firmware revision.
    pub revision: u8,
}

impl Status {
    fn parse(bytes: [u8; 6]) -> Self {
        let [state, event, exception, misc, model, revision] = bytes;
        Self { state, event, exception, misc, model, revision }
    }

    /// As they go over the line.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 6] {
        [self.state, self.event, self.exception, self.misc, self.model, self.revision]
    }

    /// Whether any of these bits of D0 is set.
    #[must_use]
    pub const fn is(&self, state: u8) -> bool {
        self.state & state != 0
    }

    /// The value index, 1 to 7; 0 where no value is told.
    #[must_use]
    pub const fn value(&self) -> u8 {
        self.exception >> 3 & 7
    }
}

/// The names of what is set, and the bytes.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.state, &STATES),
            (self.event & !bits::CASSETTE, &EVENTS),
            (self.exception, &EXCEPTIONS),
            (self.misc, &MISC),
        ];
        let mut first = true;
        let mut say = |f: &mut fmt::Formatter<'_>, words: &str| {
            let space = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{space}{words}")
        };
        if self.state == 0 {
            say(f, "OUT OF SERVICE")?;
        }
        for (byte, names) in names {
            for (bit, name) in names {
                if byte & bit != 0 {
                    say(f, name)?;
                }
            }
        }
        if self.event & bits::CASSETTE == 0 {
            say(f, "CASSETTE REMOVED")?;
        }
        write!(f, " ({})", hex(&self.bytes()))
    }
}

const STATES: [(u8, &str); 7] = [
    (bits::IDLING, "IDLING"),
    (bits::ACCEPTING, "ACCEPTING"),
    (bits::ESCROWED, "ESCROWED"),
    (bits::STACKING, "STACKING"),
    (bits::STACKED, "STACKED"),
    (bits::RETURNING, "RETURNING"),
    (bits::RETURNED, "RETURNED"),
];
const EVENTS: [(u8, &str); 7] = [
    (bits::CHEATED, "CHEATED"),
    (bits::REJECTED, "REJECTED"),
    (bits::JAMMED, "JAMMED"),
    (bits::STACKER_FULL, "STACKER FULL"),
    (bits::CASSETTE, "CASSETTE"),
    (bits::PAUSED, "PAUSED"),
    (bits::CALIBRATION, "CALIBRATION"),
];
const EXCEPTIONS: [(u8, &str); 7] = [
    (bits::POWER_UP, "POWER UP"),
    (bits::INVALID, "INVALID COMMAND"),
    (bits::FAILURE, "FAILURE"),
    (0x08, "VALUE 1"),
    (0x10, "VALUE 2"),
    (0x20, "VALUE 4"),
    (bits::OPEN, "TRANSPORT OPEN"),
];
const MISC: [(u8, &str); 7] = [
    (bits::STALLED, "STALLED"),
    (bits::FLASH, "FLASH DOWNLOAD"),
    (0x04, "PRE-STACK"),
    (0x08, "RAW BARCODE"),
    (0x10, "CAPABILITIES"),
    (bits::DISABLED, "DISABLED"),
    (0x40, "unknown bit 6"),
];

/// A frame of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Type 2.
    Status(Status),
    /// Type 7, 02: the state, with a note at length.
    Note(Status, NoteReport),
    /// Type 7, 03: the notes that are taken are set; some firmware answers with type 2 instead.
    NoteInhibits(Status),
    /// Type 7, 06.
    ValueTable(Status, ValueTable<'a>),
    /// Type 6: the answer to an auxiliary question; which one is not said.
    Answer(&'a [u8]),
    /// Anything else.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Reply<'a> {
    /// What a frame of the device means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        let unknown = Self::Unknown { raw: frame };
        let parsed = match (frame.kind(), frame.data()) {
            (kind::REPLY, data) => {
                <[u8; 6]>::try_from(data).ok().map(|six| Self::Status(Status::parse(six)))
            }
            (kind::AUXILIARY, data) => Some(Self::Answer(data)),
            (kind::EXTENDED, [subtype, rest @ ..]) => {
                rest.split_first_chunk().and_then(|(six, rest)| {
                    let status = Status::parse(*six);
                    match (subtype, rest) {
                        (0x02, note) => {
                            note.try_into().ok().map(|n| Self::Note(status, NoteReport(n)))
                        }
                        (0x03, []) => Some(Self::NoteInhibits(status)),
                        (0x06, table) if table.len() == ValueTable::LEN => {
                            Some(Self::ValueTable(status, ValueTable(table)))
                        }
                        _ => None,
                    }
                })
            }
            _ => None,
        };
        parsed.unwrap_or(unknown)
    }

    /// The state that comes with it, but for answers.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Status(status)
            | Self::Note(status, _)
            | Self::NoteInhibits(status)
            | Self::ValueTable(status, _) => Some(*status),
            Self::Answer(_) | Self::Unknown { .. } => None,
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self, toggle: bool) -> Frame {
        let extended = |subtype: u8, status: &Status, rest: &[u8]| {
            let head = std::iter::once(subtype).chain(status.bytes());
            let control = kind::EXTENDED << 4 | u8::from(toggle);
            Frame::with_control(control, head.chain(rest.iter().copied()))
        };
        match self {
            Self::Status(status) => Frame::new(kind::REPLY, toggle, &status.bytes()),
            Self::Note(status, note) => extended(0x02, status, &note.0),
            Self::NoteInhibits(status) => extended(0x03, status, &[]),
            Self::ValueTable(status, table) => extended(0x06, status, table.0),
            Self::Answer(text) => Frame::new(kind::AUXILIARY, toggle, text),
            Self::Unknown { raw } => **raw,
        }
    }
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Note(status, note) => write!(f, "{status}: {note}"),
            Self::NoteInhibits(status) => write!(f, "NOTE INHIBITS SET, {status}"),
            Self::ValueTable(status, table) => {
                write!(f, "VALUE TABLE of {} notes, {status}", table.notes().count())
            }
            Self::Answer(text) => write!(f, "ANSWER {}", text.escape_ascii()),
            Self::Unknown { raw } => write!(f, "unknown reply {raw}"),
        }
    }
}
