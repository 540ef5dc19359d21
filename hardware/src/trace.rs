//! The last frames of each device.
//!
//! Promise: a ring of what went over the line last, with direction and time, small enough to run
//! always; it is written to the log when a fault comes (each record once) and can be read at any
//! time. A device that is polled idly fills two records, not the ring: a repeated exchange is
//! counted in place.
//!
//! Failure policy: none needed; the oldest record is forgotten, a record's length is limited.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::time::Mono;

use crate::frame::hex;

/// Records that the runner keeps per device.
pub const RECORDS: usize = 64;
/// Bytes kept of one record; longer ones are cut.
const MAX_RECORD: usize = 512;
/// Bytes of the device that come closer together than this are one record.
const SAME_RECORD_MS: u64 = 50;

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Host to device.
    Sent,
    /// Device to host.
    Received,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "->",
            Self::Received => "<-",
        })
    }
}

/// What went over the line in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which way.
    pub direction: Direction,
    /// When its first byte went, the first time.
    pub first: Mono,
    /// When its last byte went, the last time.
    pub last: Mono,
    /// How often the same exchange went in a row.
    pub times: u32,
    /// The bytes, at most 512 of them.
    pub bytes: Vec<u8>,
}

/// The ring of one device; shared between the runner and whoever wants to look.
pub struct Trace {
    device: String,
    in_words: fn(Direction, &[u8]) -> String,
    ring: Mutex<Ring>,
}

struct Ring {
    records: VecDeque<Record>,
    capacity: usize,
    /// Records at the back that no dump has shown yet.
    fresh: usize,
    /// Received bytes that may still grow.
    open: bool,
}

impl Trace {
    /// An empty ring of `capacity` records (at least 4) for the device of this name;
    /// `in_words` explains the bytes of its protocol.
    #[must_use]
    pub fn new(
        device: impl Into<String>,
        capacity: usize,
        in_words: fn(Direction, &[u8]) -> String,
    ) -> Self {
        let capacity = capacity.max(4);
        let records = VecDeque::with_capacity(capacity);
        let ring = Ring { records, capacity, fresh: 0, open: false };
        Self { device: device.into(), in_words, ring: Mutex::new(ring) }
    }

    /// Remembers bytes.
    pub fn record(&self, direction: Direction, bytes: &[u8], now: Mono) {
        self.lock().record(direction, bytes, now);
    }

    /// The records, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.iter().cloned().collect()
    }

    /// The records as text, oldest first: time, direction, hex, words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.records().iter().map(|record| self.line(record)).collect()
    }

    /// Writes the records that no earlier dump has written to the log, as warnings.
    pub fn dump(&self, reason: &str) {
        let records: Vec<Record> = {
            let mut ring = self.lock();
            let fresh = std::mem::take(&mut ring.fresh);
            let known = ring.records.len().saturating_sub(fresh);
            ring.records.iter().skip(known).cloned().collect()
        };
        tracing::warn!(device = %self.device, records = records.len(), "frames before: {reason}");
        for record in records {
            tracing::warn!(device = %self.device, "{}", self.line(&record));
        }
    }

    fn line(&self, record: &Record) -> String {
        let Record { direction, first, last, times, bytes } = record;
        let words = (self.in_words)(*direction, bytes);
        let repeated = if *times > 1 {
            format!(" ({times} times until {} ms)", last.0)
        } else {
            String::new()
        };
        format!("{} ms {direction} {} {words}{repeated}", first.0, hex(bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn record(&mut self, direction: Direction, bytes: &[u8], now: Mono) {
        if direction == Direction::Received
            && self.open
            && let Some(last) = self.records.back_mut()
            && now.since(last.last) < SAME_RECORD_MS
        {
            let room = MAX_RECORD.saturating_sub(last.bytes.len());
            last.bytes.extend(bytes.iter().take(room));
            last.last = now;
            return;
        }
        self.fold_repeated();
        self.open = direction == Direction::Received;
        let bytes = bytes.iter().take(MAX_RECORD).copied().collect();
        self.push(Record { direction, first: now, last: now, times: 1, bytes });
    }

    fn push(&mut self, record: Record) {
        if self.records.len() >= self.capacity {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.fresh = self.fresh.saturating_add(1).min(self.records.len());
    }

    /// Counts the last two records in the two before them where they are the same exchange.
    fn fold_repeated(&mut self) {
        let same = |a: &Record, b: &Record| a.direction == b.direction && a.bytes == b.bytes;
        let mut back = self.records.iter().rev();
        let (Some(d), Some(c), Some(b), Some(a)) =
            (back.next(), back.next(), back.next(), back.next())
        else {
            return;
        };
        // each record is looked at once it can no longer grow, and only as the end of an exchange
        if !(same(a, c) && same(b, d) && d.direction == Direction::Received) {
            return;
        }
        let ends = [d.last, c.last];
        self.records.truncate(self.records.len().saturating_sub(2));
        self.fresh = self.fresh.saturating_sub(2);
        for (record, end) in self.records.iter_mut().rev().zip(ends) {
            record.times = record.times.saturating_add(1);
            record.last = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(_: Direction, bytes: &[u8]) -> String {
        format!("[{} bytes]", bytes.len())
    }

    /// Loss prevented: ten seconds of idle polls would push the frames of the jam out of the ring.
    #[test]
    fn idle_polls_do_not_fill_the_ring() {
        let trace = Trace::new("validator", 8, words);
        trace.record(Direction::Sent, &[9], Mono(0));
        for i in 0..100 {
            let now = Mono(100 + i * 200);
            trace.record(Direction::Sent, &[1, 2], now);
            trace.record(Direction::Received, &[3], now.after(10));
            trace.record(Direction::Received, &[4], now.after(12));
        }
        trace.record(Direction::Sent, &[7], Mono(50_000));
        let records = trace.records();
        let bytes: Vec<&[u8]> = records.iter().map(|r| r.bytes.as_slice()).collect();
        assert_eq!(bytes, [&[9][..], &[1, 2], &[3, 4], &[7]]);
        assert_eq!((records[1].times, records[2].times), (100, 100));
        assert_eq!((records[2].first, records[2].last), (Mono(110), Mono(100 + 99 * 200 + 12)));
        assert_eq!(trace.lines()[2], "110 ms <- 03 04 [2 bytes] (100 times until 19912 ms)");
    }

    /// Loss prevented: a device that floods the line must not eat the machine's memory.
    #[test]
    fn ring_and_records_are_limited() {
        let trace = Trace::new("validator", 4, words);
        for i in 0..10u8 {
            trace.record(Direction::Sent, &[i], Mono(u64::from(i)));
        }
        assert_eq!(trace.records().len(), 4);
        for _ in 0..100 {
            trace.record(Direction::Received, &[0; 64], Mono(20));
        }
        assert_eq!(trace.records().last().map(|r| r.bytes.len()), Some(MAX_RECORD));
    }

    /// Loss prevented: a flapping device would write the same frames to the log without end.
    #[test]
    fn a_record_is_dumped_once() {
        let trace = Trace::new("validator", 4, words);
        trace.record(Direction::Sent, &[1], Mono(0));
        trace.record(Direction::Received, &[2], Mono(1));
        trace.dump("a test");
        assert_eq!(trace.lock().fresh, 0);
        trace.record(Direction::Sent, &[3], Mono(2));
        assert_eq!(trace.lock().fresh, 1);
    }
}
