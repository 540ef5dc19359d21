//! What waits for an engine's thread.
//!
//! Promise: whoever puts something in never waits, a stop and a lost line always arrive, and the
//! engine's thread wakes for each, once: it is woken when the lock is free, or it would sleep again
//! for the lock. Bounded: 4096 bytes, 64 commands.
//!
//! Failure policy: what does not fit is refused, counted, and logged at powers of two of the count.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Unread bytes kept; all protocols here are half duplex with frames of at most 255 bytes.
const MAX_BYTES: usize = 4096;
/// Commands kept.
const MAX_COMMANDS: usize = 64;

/// The inbox is full, or nobody reads it any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

pub(super) struct Inbox<C> {
    name: String,
    waiting: Mutex<Waiting<C>>,
    wake: Condvar,
}

struct Waiting<C> {
    link: u64,
    bytes: Vec<u8>,
    lost: Option<String>,
    commands: VecDeque<C>,
    stop: bool,
    ended: bool,
    refused: u64,
}

/// What was there.
pub(super) struct Taken<C> {
    pub(super) lost: Option<String>,
    pub(super) commands: VecDeque<C>,
    pub(super) stop: bool,
}

impl<C> Inbox<C> {
    pub(super) fn new(name: &str) -> Self {
        let waiting = Waiting {
            link: 0,
            bytes: Vec::new(),
            lost: None,
            commands: VecDeque::new(),
            stop: false,
            ended: false,
            refused: 0,
        };
        Self { name: name.to_owned(), waiting: Mutex::new(waiting), wake: Condvar::new() }
    }

    /// The number of a new link; what readers of older ones bring is not taken any more.
    pub(super) fn new_link(&self) -> u64 {
        let mut waiting = self.lock();
        waiting.link = waiting.link.saturating_add(1);
        waiting.bytes.clear();
        waiting.lost = None;
        waiting.link
    }

    pub(super) fn is_current(&self, link: u64) -> bool {
        let waiting = self.lock();
        waiting.link == link && !waiting.stop
    }

    pub(super) fn bytes(&self, link: u64, bytes: &[u8]) {
        let mut waiting = self.lock();
        if waiting.link != link {
            return;
        }
        let room = MAX_BYTES.saturating_sub(waiting.bytes.len());
        waiting.bytes.extend(bytes.iter().take(room));
        if let Some(over @ 1..) = bytes.len().checked_sub(room) {
            self.refuse(&mut waiting, over, "bytes");
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(super) fn lost(&self, link: u64, why: String) {
        let mut waiting = self.lock();
        if waiting.link == link {
            waiting.lost = Some(why);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    pub(super) fn command(&self, command: C) -> Result<(), Refused> {
        let mut waiting = self.lock();
        if waiting.ended || waiting.stop {
            return Err(Refused);
        }
        if waiting.commands.len() >= MAX_COMMANDS {
            self.refuse(&mut waiting, 1, "commands");
            return Err(Refused);
        }
        waiting.commands.push_back(command);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Nobody reads any more.
    pub(super) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.commands.clear();
    }

    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// Waits until something is there, at most this long (`None` = for ever); the bytes go into
    /// `bytes`, which is emptied before.
    pub(super) fn take(&self, wait: Option<Duration>, bytes: &mut Vec<u8>) -> Taken<C> {
        let start = Instant::now();
        let mut waiting = self.lock();
        while waiting.is_empty() {
            waiting = match wait {
                None => self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let left = wait.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    let woken = self.wake.wait_timeout(waiting, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        bytes.clear();
        std::mem::swap(bytes, &mut waiting.bytes);
        Taken {
            lost: waiting.lost.take(),
            commands: std::mem::take(&mut waiting.commands),
            stop: waiting.stop,
        }
    }

    fn refuse(&self, waiting: &mut Waiting<C>, count: usize, what: &'static str) {
        let before = waiting.refused;
        waiting.refused = before.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if before.checked_ilog2() != waiting.refused.checked_ilog2() {
            tracing::warn!(device = %self.name, refused = waiting.refused, "inbox full: {what}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<C>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Waiting<C> {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.lost.is_none() && self.commands.is_empty() && !self.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a device that floods the line must not eat the machine's memory, and must
    /// not keep a lost line or a stop from being seen.
    #[test]
    fn a_flood_is_cut_and_counted_and_a_loss_still_arrives() {
        let inbox: Inbox<u8> = Inbox::new("validator");
        let link = inbox.new_link();
        for _ in 0..20 {
            inbox.bytes(link, &[0; 512]);
        }
        inbox.lost(link, "gone".into());
        let mut bytes = Vec::new();
        let taken = inbox.take(None, &mut bytes);
        assert_eq!((bytes.len(), inbox.refused()), (MAX_BYTES, 20 * 512 - 4096));
        assert_eq!(taken.lost.as_deref(), Some("gone"));
        inbox.stop();
        assert!(inbox.take(None, &mut bytes).stop);
        assert!(bytes.is_empty());
    }

    /// Loss prevented: the last bytes of an unplugged device taken for an answer of the new one.
    #[test]
    fn an_old_link_is_not_heard() {
        let inbox: Inbox<u8> = Inbox::new("validator");
        let old = inbox.new_link();
        inbox.bytes(old, &[1]);
        let new = inbox.new_link();
        inbox.bytes(old, &[2]);
        inbox.lost(old, "gone".into());
        inbox.bytes(new, &[3]);
        let mut bytes = Vec::new();
        let taken = inbox.take(None, &mut bytes);
        assert_eq!((bytes.as_slice(), taken.lost), (&[3u8][..], None));
        assert!(!inbox.is_current(old) && inbox.is_current(new));
    }

    /// Loss prevented: a stuck engine thread must not let commands (each a proof of an intent) pile
    /// up and go out all at once later.
    #[test]
    fn commands_past_the_limit_are_refused() {
        let inbox = Inbox::new("validator");
        for i in 0..MAX_COMMANDS {
            assert_eq!(inbox.command(i), Ok(()));
        }
        assert_eq!(inbox.command(99), Err(Refused));
        assert_eq!(inbox.refused(), 1);
        let taken = inbox.take(Some(Duration::ZERO), &mut Vec::new());
        assert_eq!(taken.commands.len(), MAX_COMMANDS);
        inbox.end();
        assert_eq!(inbox.command(1), Err(Refused));
    }
}
