//! ESC/POS: the commands of receipt printers (Epson TM and those that follow it), and their status.
//!
//! Promise: only commands that Epson documents as common to the TM series are written; a status byte
//! is told from anything else by its fixed bits, and one that is none stays [`Status::Unknown`] with
//! its value.
//!
//! A status asked for with `DLE EOT` is answered at once, whatever the printer is doing. One asked
//! for with `GS r` stands in the buffer behind what was sent before it: its answer says that all of
//! that was carried out.
//!
//! Source: Epson, "ESC/POS Command Reference": `ESC @`, `ESC !`, `ESC a`, `ESC d`, `LF`, `GS V`
//! (function B), `GS ( k` (QR Code: functions 165, 167, 169, 180, 181), `DLE EOT`, `DLE DC4` (fn =
//! 8), `GS a`, `GS r`.

/// `ESC @`: initialise; forgets what is in the print buffer and every setting.
pub const INITIALISE: [u8; 2] = [0x1b, b'@'];
/// `GS a` n = 0: no status unless it is asked for; some printers send it by their settings.
pub const NO_AUTO_STATUS: [u8; 3] = [0x1d, b'a', 0];
/// `DLE DC4` fn = 8: clears the receive and print buffers at once; what was not printed never is.
pub const CLEAR: [u8; 10] = [0x10, 0x14, 0x08, 0x01, 0x03, 0x14, 0x01, 0x06, 0x02, 0x08];
/// `GS r` n = 1: the paper sensor, asked behind everything that was sent before.
pub const FENCE: [u8; 3] = [0x1d, b'r', 1];
/// `GS V` function B, m = 66: feeds to the cutter and cuts, leaving a point.
pub const CUT: [u8; 4] = [0x1d, b'V', 66, 0];
/// Longest text of a QR code that we print; the command itself holds 7 089 digits.
pub const MAX_QR: usize = 1_200;

/// Which status `DLE EOT` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// n = 2: why it is off line.
    Offline,
    /// n = 3: what is broken.
    Error,
    /// n = 4: the roll of paper.
    Paper,
}

impl Ask {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Offline, Self::Error, Self::Paper];

    /// `DLE EOT n`.
    #[must_use]
    pub const fn bytes(self) -> [u8; 3] {
        [0x10, 0x04, self.number()]
    }

    /// The n of the command.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Offline => 2,
            Self::Error => 3,
            Self::Paper => 4,
        }
    }

    /// The request of this number.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::Offline),
            3 => Some(Self::Error),
            4 => Some(Self::Paper),
            _ => None,
        }
    }

    /// What the answer says about it, as far as it is in the way of printing.
    #[must_use]
    pub fn troubles(self, byte: u8) -> Vec<Trouble> {
        let bits: &[(u8, Trouble)] = match self {
            // bit 5: stopped at the end of the paper; bit 6 is told by n = 3 in detail
            Self::Offline => &[(0x04, Trouble::CoverOpen), (0x20, Trouble::NoPaper)],
            Self::Error => &[
                (0x04, Trouble::Mechanism),
                (0x08, Trouble::Cutter),
                (0x20, Trouble::Broken),
                (0x40, Trouble::TooHot),
            ],
            Self::Paper => &[(0x60, Trouble::NoPaper)],
        };
        bits.iter().filter(|(bit, _)| byte & bit != 0).map(|(_, trouble)| *trouble).collect()
    }

    /// Whether the answer says that the roll is nearly used up.
    #[must_use]
    pub const fn is_near_end(self, byte: u8) -> bool {
        matches!(self, Self::Paper) && byte & 0x0c != 0
    }
}

/// What keeps a printer from printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// No paper.
    NoPaper,
    /// The cover is open.
    CoverOpen,
    /// The cutter is stuck.
    Cutter,
    /// Paper or carriage is stuck; goes on once that is mended.
    Mechanism,
    /// The head is too hot; goes on by itself.
    TooHot,
    /// Broken for good.
    Broken,
}

impl Trouble {
    /// For a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NoPaper => "no paper: put in a roll",
            Self::CoverOpen => "the cover is open: close it",
            Self::Cutter => "the cutter is stuck: open the cover and clear it",
            Self::Mechanism => "paper is stuck: open the cover and clear it",
            Self::TooHot => "the print head is too hot: it goes on by itself",
            Self::Broken => "an error that only a technician mends",
        }
    }
}

/// One byte from the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// An answer to `DLE EOT`: bits 0 and 7 are 0, bits 1 and 4 are 1.
    RealTime(u8),
    /// An answer to `GS r`: bits 4 and 7 are 0.
    Fence(u8),
    /// Neither.
    Unknown(u8),
}

impl Status {
    /// Tells what a byte is.
    #[must_use]
    pub const fn of(byte: u8) -> Self {
        if byte & 0x93 == 0x12 {
            Self::RealTime(byte)
        } else if byte & 0x90 == 0 {
            Self::Fence(byte)
        } else {
            Self::Unknown(byte)
        }
    }
}

/// A slip of paper on its way to bytes.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    columns: usize,
}

impl Writer {
    /// Begins a slip for paper of this many characters a line (at least 16).
    #[must_use]
    pub fn new(columns: usize) -> Self {
        // in its full size at once: a buffer that grows leaves copies behind
        let mut bytes = Vec::with_capacity(8 * 1024);
        bytes.extend_from_slice(&INITIALISE);
        bytes.extend_from_slice(&NO_AUTO_STATUS);
        Self { bytes, columns: columns.max(16) }
    }

    /// A heading: centred, twice as high, bold.
    pub fn heading(&mut self, text: &str) {
        // ESC a 1, ESC ! 0x18
        self.bytes.extend_from_slice(&[0x1b, b'a', 1, 0x1b, b'!', 0x18]);
        self.text(text);
        self.bytes.extend_from_slice(&[0x1b, b'!', 0, 0x1b, b'a', 0]);
    }

    /// Text, broken between words where one fits a line, and within one where none does.
    pub fn text(&mut self, text: &str) {
        for line in broken(text, self.columns) {
            self.bytes.extend(line.chars().map(printable));
            self.bytes.push(b'\n');
        }
    }

    /// A QR code, centred, of dots small enough for a receipt on paper of 58 mm; a text that is too
    /// long is printed as such.
    pub fn qr(&mut self, text: &str) {
        let data = text.as_bytes();
        let stored = u16::try_from(data.len().saturating_add(3)).ok();
        let Some([low, high]) = stored.filter(|_| data.len() <= MAX_QR).map(u16::to_le_bytes)
        else {
            self.text(text);
            return;
        };
        // a code of some 1 000 characters has 105 modules: 3 dots each fit 384 dots of paper
        let dots = if data.len() > 100 { 3 } else { 5 };
        self.bytes.extend_from_slice(&[0x1b, b'a', 1]);
        self.bytes.extend_from_slice(&[0x1d, b'(', b'k', 4, 0, 49, 65, 50, 0]);
        self.bytes.extend_from_slice(&[0x1d, b'(', b'k', 3, 0, 49, 67, dots]);
        self.bytes.extend_from_slice(&[0x1d, b'(', b'k', 3, 0, 49, 69, 48]);
        self.bytes.extend_from_slice(&[0x1d, b'(', b'k', low, high, 49, 80, 48]);
        self.bytes.extend_from_slice(data);
        self.bytes.extend_from_slice(&[0x1d, b'(', b'k', 3, 0, 49, 81, 48]);
        self.bytes.extend_from_slice(&[0x1b, b'a', 0, b'\n']);
    }

    /// An empty line.
    pub fn space(&mut self) {
        self.bytes.push(b'\n');
    }

    /// The slip, cut off at its end.
    #[must_use]
    pub fn cut(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&CUT);
        std::mem::take(&mut self.bytes)
    }
}

/// Code pages differ between printers beyond ASCII; a control character would be a command.
const fn printable(c: char) -> u8 {
    match c {
        ' '..='~' => c as u8,
        _ => b'?',
    }
}

fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        let used = lines.last().map_or(0, |line| line.chars().count());
        let gap = usize::from(used > 0);
        if used.saturating_add(gap).saturating_add(rest.len()) <= columns {
            if let Some(line) = lines.last_mut() {
                line.extend((gap > 0).then_some(' '));
                line.extend(rest);
            }
            continue;
        }
        while rest.len() > columns {
            let tail = rest.split_off(columns);
            lines.push(rest.into_iter().collect());
            rest = tail;
        }
        lines.push(rest.into_iter().collect());
    }
    if lines.len() > 1 && lines.first().is_some_and(String::is_empty) {
        lines.remove(0);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Loss prevented: a command that a printer takes for another, and a claim code on no paper.
    #[test]
    fn the_bytes_are_those_of_the_reference() {
        let mut slip = Writer::new(32);
        slip.text("ab");
        slip.qr("HI");
        let bytes = slip.cut();
        let expected: [&[u8]; 9] = [
            b"\x1b@\x1da\x00ab\n",
            b"\x1ba\x01",
            b"\x1d(k\x04\x00\x31\x41\x32\x00",
            b"\x1d(k\x03\x00\x31\x43\x05",
            b"\x1d(k\x03\x00\x31\x45\x30",
            b"\x1d(k\x05\x00\x31\x50\x30HI",
            b"\x1d(k\x03\x00\x31\x51\x30",
            b"\x1ba\x00\n",
            b"\x1dVB\x00",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(Ask::Paper.bytes(), [0x10, 0x04, 4]);
    }

    /// Loss prevented: a printer without paper that is told as ready, so that no slip comes.
    #[test]
    fn each_status_bit_is_known() {
        let of = |ask: Ask, byte| ask.troubles(byte);
        for ask in Ask::ALL {
            assert_eq!(of(ask, 0x12), [], "{ask:?}: all is well");
            assert_eq!(Ask::of(ask.number()), Some(ask));
        }
        assert_eq!(of(Ask::Offline, 0x16), [Trouble::CoverOpen]);
        assert_eq!(of(Ask::Offline, 0x32), [Trouble::NoPaper]);
        assert_eq!(of(Ask::Error, 0x1a), [Trouble::Cutter]);
        assert_eq!(of(Ask::Error, 0x36), [Trouble::Mechanism, Trouble::Broken]);
        assert_eq!(of(Ask::Paper, 0x72), [Trouble::NoPaper]);
        assert!(Ask::Paper.is_near_end(0x1e) && of(Ask::Paper, 0x1e).is_empty());
        assert_eq!(Status::of(0x12), Status::RealTime(0x12));
        assert_eq!(Status::of(0x0f), Status::Fence(0x0f));
        assert_eq!(Status::of(0xff), Status::Unknown(0xff));
    }

    /// Loss prevented: a text that is cut at the edge of the paper: half of a claim code is none.
    #[test]
    fn long_words_go_on_in_the_next_line() {
        assert_eq!(broken("one two", 16), ["one two"]);
        assert_eq!(broken("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(broken("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(broken("", 5), [""]);
    }

    proptest! {
        /// Loss prevented: a name from elsewhere that commands the printer, or words that are lost.
        #[test]
        fn texts_hold_no_commands_and_lose_nothing(text in "\\PC{0,60}", columns in 16usize..48) {
            let mut slip = Writer::new(columns);
            slip.text(&text);
            let bytes = slip.cut();
            let head = INITIALISE.len() + NO_AUTO_STATUS.len();
            let body = &bytes[head..bytes.len() - CUT.len()];
            prop_assert!(body.iter().all(|b| *b == b'\n' || (b' '..=b'~').contains(b)));
            prop_assert!(body.split(|b| *b == b'\n').all(|line| line.len() <= columns));
            let letters = |bytes: &[u8]| bytes.iter().filter(|b| !b" \n".contains(b)).count();
            let given = text.chars().filter(|c| *c != ' ').count();
            prop_assert_eq!(letters(body), given);
        }

        /// Loss prevented: a byte on a bad line that ends the driver.
        #[test]
        fn no_byte_panics(byte in any::<u8>()) {
            let _ = Status::of(byte);
            for ask in Ask::ALL {
                let _ = (ask.troubles(byte), ask.is_near_end(byte));
            }
        }
    }
}
