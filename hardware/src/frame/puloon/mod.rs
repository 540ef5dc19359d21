//! Puloon LCDM dispensers: the frames on the line.
//!
//! Promise: bytes become tokens ([`Token`]) in any split, nothing panics, and nothing is allocated:
//! a frame holds at most [`MAX_DATA`] bytes of data in itself. The host sends `04 ID 02 CMD data 03
//! BCC`, the device `01 ID 02 CMD data 03 BCC`; the BCC is the XOR of everything before it. The id
//! is 30 (LCDM-4000, [`lcdm4000`]) or 50 (LCDM-1000 and LCDM-2000, [`lcdm1000`]). Each side answers
//! a frame with `06` or `15`; the device ends an exchange with `04`. There is no length: data bytes
//! are 20 or above, so `03` ends them, but for the two sensor bytes of the status of id 50.
//!
//! Failure policy: a frame that does not add up is [`Token::Damaged`] with the reason, and the bytes
//! held are looked through for another start, so that garbage costs one frame at most. A BCC finds
//! every single wrong byte, not every two: whoever reads counts must hold them against the rest of
//! the frame. `FF` outside of frames is line noise that field units show, and is skipped.
//!
//! Sources: the public Lamassu driver (lamassu-machine `lib/puloon`), the PyPI package `puloon`, the
//! interface specification LCDM-1 v3.3 and its driver puloon-cxx, TerminalClient.

mod codes;
pub mod lcdm1000;
pub mod lcdm4000;
#[cfg(test)]
mod tests;

pub use codes::{ErrorCode, Nature};

/// `ACK`: received.
pub const ACK: u8 = 0x06;
/// `NAK`: send it again.
pub const NAK: u8 = 0x15;
/// `EOT`: the exchange is over. Host frames begin with the same byte.
pub const EOT: u8 = 0x04;

/// Most bytes of data in a frame; the longest known one has 23.
pub const MAX_DATA: usize = 24;

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// Start, id, `STX` and command in front of the data, `ETX` and BCC behind it.
const MAX_FRAME: usize = MAX_DATA + 6;
/// A byte below 20 that a request may hold: it says that a timeout follows.
const TIMEOUT: u8 = 0x1c;

/// Which family a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// 30: LCDM-4000.
    Lcdm4000,
    /// 50: LCDM-1000 and LCDM-2000.
    Lcdm1000,
}

impl Id {
    /// The byte on the line.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Lcdm4000 => 0x30,
            Self::Lcdm1000 => 0x50,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0x30 => Some(Self::Lcdm4000),
            0x50 => Some(Self::Lcdm1000),
            _ => None,
        }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The machine.
    Host,
    /// The dispenser.
    Device,
}

impl Side {
    const fn start(self) -> u8 {
        match self {
            Self::Host => EOT,
            Self::Device => SOH,
        }
    }
}

/// What a frame says: its command and the data behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    id: Id,
    command: u8,
    data: [u8; MAX_DATA],
    len: usize,
}

impl Frame {
    /// A frame; data beyond [`MAX_DATA`] bytes is left out (no [`lcdm4000`] or [`lcdm1000`] message
    /// has more).
    #[must_use]
    pub fn new(id: Id, command: u8, data: &[u8]) -> Self {
        let len = data.len().min(MAX_DATA);
        let mut frame = Self { id, command, data: [0; MAX_DATA], len };
        if let (Some(to), Some(from)) = (frame.data.get_mut(..len), data.get(..len)) {
            to.copy_from_slice(from);
        }
        frame
    }

    /// Its family.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.id
    }

    /// Its command.
    #[must_use]
    pub const fn command(&self) -> u8 {
        self.command
    }

    /// The bytes between command and `03`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..self.len).unwrap_or_default()
    }

    /// Puts the frame, as `side` sends it, behind `out`.
    pub fn write(&self, side: Side, out: &mut Vec<u8>) {
        let body = || {
            let head = [side.start(), self.id.byte(), STX, self.command];
            head.into_iter().chain(self.data().iter().copied()).chain([ETX])
        };
        out.extend(body().chain([body().fold(0, |bcc, byte| bcc ^ byte)]));
    }
}

/// What came over the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `06`.
    Ack,
    /// `15`.
    Nak,
    /// `04`, from the device only.
    Eot,
    /// A frame whose check is right.
    Frame(Frame),
    /// `01 9C xx` (a note was rejected, for this reason) or `01 8D xx` (dispensing), which an
    /// LCDM-2000 sends while it works.
    Item {
        /// `9C` or `8D`.
        kind: u8,
        /// The byte behind it.
        value: u8,
    },
    /// A frame began and did not add up.
    Damaged(Damage),
    /// A byte outside of frames that means nothing.
    Noise(u8),
}

/// Why a frame was no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A byte that cannot stand where it stood.
    #[error("expected {expected}, got byte {got:02X}")]
    Byte {
        /// What may stand there.
        expected: &'static str,
        /// The byte that came.
        got: u8,
    },
    /// The check is another.
    #[error("expected check {expected:02X}, got {got:02X}")]
    Check {
        /// Computed from the frame.
        expected: u8,
        /// As it came.
        got: u8,
    },
}

/// Reads one side's bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    side: Side,
    /// The frame being read, from its first byte on.
    held: [u8; MAX_FRAME],
    len: usize,
}

impl Decoder {
    /// A decoder of what `side` sends.
    #[must_use]
    pub const fn new(side: Side) -> Self {
        Self { side, held: [0; MAX_FRAME], len: 0 }
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub const fn in_frame(&self) -> bool {
        self.len > 0
    }

    /// Forgets a frame that has begun.
    pub const fn reset(&mut self) {
        self.len = 0;
    }

    /// Takes bytes off the front until there is a token or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        if self.len == 0
            && let Some((frame, rest)) = whole(self.side, bytes)
        {
            *bytes = rest;
            return Some(Token::Frame(frame));
        }
        loop {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            if let Some(token) = self.byte(*first) {
                return Some(token);
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Option<Token> {
        if self.len > 0 {
            return self.inside(byte);
        }
        if byte == self.side.start() {
            // the device's first byte is no control; the host's is EOT, which no host sends alone
            self.keep(byte);
            return None;
        }
        match byte {
            ACK => Some(Token::Ack),
            NAK => Some(Token::Nak),
            EOT => Some(Token::Eot),
            0xff => None,
            noise => Some(Token::Noise(noise)),
        }
    }

    fn inside(&mut self, byte: u8) -> Option<Token> {
        let at = self.len;
        let held = self.held.get(1).copied().unwrap_or(0);
        let item = self.side == Side::Device && matches!(held, 0x8d | 0x9c);
        if at == 2 && item {
            self.reset();
            return Some(Token::Item { kind: held, value: byte });
        }
        let wrong = |expected| Damage::Byte { expected, got: byte };
        let fits = match at {
            1 if self.side == Side::Device && matches!(byte, 0x8d | 0x9c) => Ok(()),
            1 => Id::of(byte).map(|_| ()).ok_or(wrong("id 30 or 50")),
            2 => (byte == STX).then_some(()).ok_or(wrong("02")),
            3 => (byte >= 0x20).then_some(()).ok_or(wrong("a command")),
            _ if self.ended() => return self.checked(byte),
            _ if self.at_fixed_end() => (byte == ETX).then_some(()).ok_or(wrong("03")),
            _ if byte == ETX && self.fixed().is_none() => Ok(()),
            _ if at.saturating_sub(4) >= MAX_DATA => Err(wrong("03 after 24 bytes of data")),
            _ if byte >= 0x20 || byte == TIMEOUT || self.is_sensor() => Ok(()),
            _ => Err(wrong("data or 03")),
        };
        self.keep(byte);
        fits.err().and_then(|why| self.damaged(why))
    }

    fn keep(&mut self, byte: u8) {
        if let Some(place) = self.held.get_mut(self.len) {
            *place = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    /// Bytes of data where their number is fixed: the status of id 50, whose sensor bytes may be
    /// anything.
    fn fixed(&self) -> Option<usize> {
        let status = [SOH, Id::Lcdm1000.byte(), STX, lcdm1000::STATUS];
        (self.side == Side::Device && self.held.starts_with(&status)).then_some(4)
    }

    fn at_fixed_end(&self) -> bool {
        self.fixed().is_some_and(|data| self.len == data.saturating_add(4))
    }

    fn is_sensor(&self) -> bool {
        self.fixed().is_some() && self.len >= 6
    }

    /// Whether all but the check is there.
    fn ended(&self) -> bool {
        let last = self.len.checked_sub(1).and_then(|last| self.held.get(last)).copied();
        let fixed_over = self.fixed().is_none_or(|data| self.len > data.saturating_add(4));
        self.len > 4 && last == Some(ETX) && fixed_over
    }

    fn checked(&mut self, got: u8) -> Option<Token> {
        let body = self.held.get(..self.len).unwrap_or_default();
        let expected = body.iter().fold(0, |bcc, byte| bcc ^ byte);
        let [_, id, _, command, data @ .., _] = body else { return None };
        let frame = Id::of(*id).map(|id| Frame::new(id, *command, data));
        self.keep(got);
        match frame {
            Some(frame) if got == expected => {
                self.reset();
                Some(Token::Frame(frame))
            }
            _ => self.damaged(Damage::Check { expected, got }),
        }
    }

    /// Looks for another start in what is held. What stands between is no control: it was data.
    fn damaged(&mut self, why: Damage) -> Option<Token> {
        let (held, len) = (self.held, self.len);
        self.reset();
        let mut found = None;
        for byte in held.get(1..len).unwrap_or_default() {
            let token = self.byte(*byte);
            found = token.filter(|token| matches!(token, Token::Frame(_))).or(found);
        }
        found.or(Some(Token::Damaged(why)))
    }
}

/// A good frame at the very front of the bytes, and what follows it: what [`Decoder::byte`] comes to
/// byte by byte, at once.
fn whole(side: Side, bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let [start, id, STX, command, rest @ ..] = bytes else { return None };
    let id = Id::of(*id).filter(|_| *start == side.start() && *command >= 0x20)?;
    let is_data = |byte: u8| byte >= 0x20 || byte == TIMEOUT;
    let len = if side == Side::Device && id == Id::Lcdm1000 && *command == lcdm1000::STATUS {
        // two bytes, and two of sensors that may be anything
        rest.first_chunk::<2>().filter(|first| first.iter().all(|byte| is_data(*byte)))?;
        4
    } else {
        rest.iter().position(|byte| !is_data(*byte)).filter(|len| *len <= MAX_DATA)?
    };
    let (data, tail) = rest.split_at_checked(len)?;
    let [ETX, check, after @ ..] = tail else { return None };
    let sum = data.iter().fold(start ^ id.byte() ^ STX ^ command ^ ETX, |sum, byte| sum ^ byte);
    (sum == *check).then(|| (Frame::new(id, *command, data), after))
}

/// Two ASCII digits.
const fn two_digits(bytes: [u8; 2]) -> Option<u8> {
    match bytes {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            // at most 99
            Some((tens & 0x0f).saturating_mul(10).saturating_add(ones & 0x0f))
        }
        _ => None,
    }
}

/// A number as two ASCII digits; 99 is the most that they can say.
const fn digits(number: u8) -> [u8; 2] {
    let number = if number > 99 { 99 } else { number };
    [b'0' | (number / 10), b'0' | (number % 10)]
}
