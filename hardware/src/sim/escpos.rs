//! A simulated ESC/POS receipt printer.
//!
//! Promise: it reads the stream of commands byte by byte, in any split, as a printer does; keeps
//! what it cannot print (no paper, cover open, cutter stuck) in its buffer and goes on with it when
//! it can; answers `DLE EOT` at once and `GS r` in its turn. What comes out is text, QR codes as
//! `[QR <text>]`, one slip for each cut; paper is counted in lines.
//!
//! Failure policy: a command that it does not know is passed over and counted; its parameters are
//! then printed as text, as on a real printer.

use std::collections::VecDeque;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::{Key, SimDevice, SimError};
use crate::frame::escpos::{Ask, CLEAR};

/// Lines of paper that a QR code takes.
const QR_LINES: u32 = 12;
/// Below this many lines the roll is nearly used up.
const NEAR_END: u32 = 50;
/// Bytes that wait at most; a printer has no more memory either.
const MAX_BUFFER: usize = 64 * 1024;

const KEYS: &[Key] = &[
    Key::new('o', "take the paper out", r#"{"action":"paper","lines":0}"#),
    Key::new('p', "put in a roll", r#"{"action":"paper","lines":2000}"#),
    Key::new('v', "open the cover", r#"{"action":"cover","open":true}"#),
    Key::new('V', "close the cover", r#"{"action":"cover","open":false}"#),
    Key::new('j', "jam the cutter", r#"{"action":"cutter","stuck":true}"#),
    Key::new('J', "clear the cutter", r#"{"action":"cutter","stuck":false}"#),
    Key::new('t', "take the slips", r#"{"action":"take"}"#),
];

/// One printer.
#[derive(Debug)]
pub struct EscPosSim {
    buffer: VecDeque<u8>,
    /// A code stored by `GS ( k` function 180.
    stored: Option<String>,
    /// The line that is being set.
    line: String,
    /// Lines of the slip that is not cut off yet.
    slip: Vec<String>,
    /// Slips that hang at the exit.
    exit: Vec<String>,
    paper: u32,
    cover_open: bool,
    cutter_stuck: bool,
    deaf: bool,
    /// Somebody has put something right: it goes on by itself.
    mended: bool,
    printed: u32,
    codes: u32,
    cuts: u32,
    unknown: u32,
    cleared: u32,
}

impl EscPosSim {
    /// A printer with this many lines of paper.
    #[must_use]
    pub const fn new(paper: u32) -> Self {
        Self {
            buffer: VecDeque::new(),
            stored: None,
            line: String::new(),
            slip: Vec::new(),
            exit: Vec::new(),
            paper,
            cover_open: false,
            cutter_stuck: false,
            deaf: false,
            mended: false,
            printed: 0,
            codes: 0,
            cuts: 0,
            unknown: 0,
            cleared: 0,
        }
    }

    const fn stands(&self) -> bool {
        self.cover_open || self.cutter_stuck || self.paper == 0
    }

    fn status(&self, ask: Ask) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let out = self.paper == 0;
        0x12 | match ask {
            Ask::Offline => {
                bit(self.cover_open, 0x04) | bit(out, 0x20) | bit(self.cutter_stuck, 0x40)
            }
            Ask::Error => bit(self.cutter_stuck, 0x08),
            Ask::Paper => bit(self.paper < NEAR_END, 0x0c) | bit(out, 0x60),
        }
    }

    fn end_line(&mut self, lines: u32) {
        self.slip.push(std::mem::take(&mut self.line));
        self.paper = self.paper.saturating_sub(lines);
        self.printed = self.printed.saturating_add(lines);
    }

    /// Takes the bytes of one command out of the buffer, if all of them are there.
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.buffer.len() >= count).then(|| self.buffer.drain(..count).collect())
    }

    /// Carries out the next command; `false` where it is not complete.
    fn next(&mut self, answer: &mut Vec<u8>) -> bool {
        let at = |n: usize| self.buffer.get(n).copied();
        let length = match (at(0), at(1)) {
            (None, _) | (Some(0x1b | 0x1d), None) => return false,
            (Some(0x1b), Some(b'@')) => 2,
            (Some(0x1b), Some(b'a' | b'!' | b'd' | b'E')) => 3,
            (Some(0x1d), Some(b'r' | b'a' | b'!')) => 3,
            (Some(0x1d), Some(b'V')) => match at(2) {
                None => return false,
                Some(65 | 66) => 4,
                Some(_) => 3,
            },
            (Some(0x1d), Some(b'(')) => match (at(3), at(4)) {
                (Some(low), Some(high)) => {
                    usize::from(u16::from_le_bytes([low, high])).saturating_add(5)
                }
                _ => return false,
            },
            (Some(0x1b | 0x1d), Some(_)) => {
                self.unknown = self.unknown.saturating_add(1);
                2
            }
            (Some(_), _) => 1,
        };
        let Some(command) = self.take(length) else { return false };
        match command.as_slice() {
            [0x1b, b'@'] => {
                self.line.clear();
                self.stored = None;
            }
            [0x1d, b'r', _] => {
                let near = if self.paper < NEAR_END { 0x03 } else { 0 };
                let out = if self.paper == 0 { 0x0c } else { 0 };
                answer.push(near | out);
            }
            [0x1d, b'V', ..] => {
                if !self.line.is_empty() {
                    self.end_line(1);
                }
                self.exit.push(self.slip.join("\n"));
                self.slip.clear();
                self.cuts = self.cuts.saturating_add(1);
            }
            [0x1d, b'(', b'k', _, _, 49, 80, 48, data @ ..] => {
                self.stored = Some(String::from_utf8_lossy(data).into_owned());
            }
            [0x1d, b'(', b'k', _, _, 49, 81, 48] => {
                if let Some(text) = &self.stored {
                    self.line = format!("[QR {text}]");
                    self.codes = self.codes.saturating_add(1);
                    self.end_line(QR_LINES);
                }
            }
            [b'\n'] => self.end_line(1),
            [byte @ b' '..=b'~'] => self.line.push(char::from(*byte)),
            _ => {}
        }
        true
    }

    fn work(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        while !self.stands() && self.next(&mut answer) {}
        answer
    }
}

impl SimDevice for EscPosSim {
    fn on_bytes(&mut self, bytes: &[u8], _: Mono) -> Vec<u8> {
        if self.deaf {
            return Vec::new();
        }
        let mut answer = Vec::new();
        for byte in bytes {
            if self.buffer.len() < MAX_BUFFER {
                self.buffer.push_back(*byte);
            }
            // real-time commands are found in the stream as they come, before anything is printed
            let ends = |tail: &[u8]| {
                let skip = self.buffer.len().checked_sub(tail.len());
                skip.is_some_and(|skip| self.buffer.iter().skip(skip).eq(tail))
            };
            if let Some(ask) = Ask::ALL.into_iter().find(|ask| ends(&ask.bytes())) {
                self.buffer.truncate(self.buffer.len().saturating_sub(ask.bytes().len()));
                answer.push(self.status(ask));
            } else if ends(&CLEAR) {
                self.buffer.clear();
                self.line.clear();
                self.slip.clear();
                self.stored = None;
                self.cleared = self.cleared.saturating_add(1);
            }
        }
        answer.extend(self.work());
        answer
    }

    fn on_tick(&mut self, _: Mono) -> Vec<u8> {
        self.mended = false;
        self.work()
    }

    fn wake_at(&self) -> Option<Mono> {
        // what was mended is gone on with at once; half a command waits for its other half
        let waits = self.mended && !self.buffer.is_empty() && !self.stands() && !self.deaf;
        waits.then_some(Mono(0))
    }

    fn control(&mut self, action: &Value, _: Mono) -> Result<Value, SimError> {
        let flag = |name: &str| action.get(name).and_then(Value::as_bool);
        let lines = action.get("lines").and_then(Value::as_u64);
        match (action.get("action").and_then(Value::as_str), lines) {
            (Some("paper"), Some(lines)) => {
                self.paper = u32::try_from(lines).unwrap_or(u32::MAX);
            }
            (Some("cover"), _) if flag("open").is_some() => {
                self.cover_open = flag("open") == Some(true);
            }
            (Some("cutter"), _) if flag("stuck").is_some() => {
                self.cutter_stuck = flag("stuck") == Some(true);
            }
            (Some("power"), _) if flag("on").is_some() => {
                self.deaf = flag("on") == Some(false);
                self.buffer.clear();
                self.line.clear();
            }
            (Some("take"), _) => return Ok(json!({ "slips": std::mem::take(&mut self.exit) })),
            _ => {
                return Err(SimError::Action {
                    expected: "paper {lines}, cover {open}, cutter {stuck}, power {on}, take",
                    got: action.to_string(),
                });
            }
        }
        self.mended = true;
        Ok(json!({}))
    }

    fn counters(&self) -> Value {
        json!({
            "paper_lines": self.paper, "lines": self.printed, "codes": self.codes,
            "cuts": self.cuts, "at_exit": self.exit.len(), "unprinted_bytes": self.buffer.len(),
            "unknown_commands": self.unknown, "cleared": self.cleared,
            "cover_open": self.cover_open, "cutter_stuck": self.cutter_stuck,
        })
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::escpos::{FENCE, Writer};

    fn slip() -> Vec<u8> {
        let mut slip = Writer::new(32);
        slip.heading("Receipt");
        slip.text("40.00 EUR");
        slip.qr("BSR1:ABC");
        [slip.cut(), FENCE.to_vec()].concat()
    }

    /// Loss prevented: a simulator that prints what a printer would not, so that tests prove nothing.
    #[test]
    fn it_prints_what_was_sent_in_any_split() {
        for size in [1, 3, 1_000] {
            let mut sim = EscPosSim::new(100);
            let mut answer = Vec::new();
            for part in slip().chunks(size) {
                answer.extend(sim.on_bytes(part, Mono(0)));
            }
            assert_eq!(answer, [0], "the fence, last");
            let taken = sim.control(&json!({"action": "take"}), Mono(0)).unwrap();
            let text = "Receipt\n40.00 EUR\n[QR BSR1:ABC]\n";
            assert_eq!(taken, json!({ "slips": [text] }));
            assert_eq!(sim.counters()["unknown_commands"], 0);
        }
    }

    /// Loss prevented: a claim code that comes out for the next customer when paper is put in.
    #[test]
    fn what_stands_comes_out_later_unless_it_is_cleared() {
        let mut sim = EscPosSim::new(0);
        assert!(sim.on_bytes(&slip(), Mono(0)).is_empty());
        assert_eq!(sim.on_bytes(&Ask::Paper.bytes(), Mono(0)), [0x7e], "asked all the same");
        let mut cleared = EscPosSim::new(0);
        cleared.on_bytes(&[slip(), CLEAR.to_vec()].concat(), Mono(0));
        for (sim, slips) in [(&mut sim, 1), (&mut cleared, 0)] {
            sim.control(&json!({"action": "paper", "lines": 500}), Mono(0)).unwrap();
            sim.on_tick(Mono(0));
            assert_eq!(sim.counters()["at_exit"], slips);
        }
    }

    /// Loss prevented: a world that goes round in a circle over half a command, which a bad cable has
    /// left in the printer.
    #[test]
    fn half_a_command_wakes_nobody() {
        let mut sim = EscPosSim::new(100);
        sim.on_bytes(&[0x1b], Mono(0));
        assert_eq!(sim.wake_at(), None);
        sim.control(&json!({"action": "paper", "lines": 500}), Mono(0)).unwrap();
        assert!(sim.wake_at().is_some());
        sim.on_tick(Mono(0));
        assert_eq!(sim.wake_at(), None);
    }

    proptest! {
        /// Loss prevented: a simulator that ends in the middle of somebody's test.
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut sim = EscPosSim::new(10);
            sim.on_bytes(&bytes, Mono(0));
            sim.on_tick(Mono(0));
        }
    }
}
