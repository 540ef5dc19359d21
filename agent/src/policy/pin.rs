//! The PIN that opens service mode: what may be one, and how often it may be tried.
//!
//! Promise: no default and no weak one. A try is counted, durably, before it is looked at; after
//! five wrong ones in a row nothing is looked at for fifteen minutes, on the monotonic clock, and a
//! restart in that time begins them again.
//!
//! States: open -> locked (fifth wrong try) -> open, counting from nothing.

use bitspire_shared::time::Mono;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Wrong tries before it is locked.
pub const TRIES: u32 = 5;
/// How long it is locked, in milliseconds.
pub const LOCKED_MS: u64 = 15 * 60 * 1_000;
/// Fewest and most digits.
const DIGITS: std::ops::RangeInclusive<usize> = 6..=16;

/// Why a PIN is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WeakPin {
    /// Too short, too long, or not of digits.
    #[error("expected 6 to 16 digits")]
    NotDigits,
    /// One of those that are tried first.
    #[error("expected another PIN: this one is guessed first")]
    Guessed,
}

/// Checks a new PIN.
///
/// # Errors
/// [`WeakPin`].
pub fn check_new(pin: &str) -> Result<(), WeakPin> {
    if !DIGITS.contains(&pin.len()) || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WeakPin::NotDigits);
    }
    let steps = || pin.bytes().zip(pin.bytes().skip(1));
    let same = steps().all(|(a, b)| a == b);
    let next = |a: u8, b: u8| if a == b'9' { b == b'0' } else { a.wrapping_add(1) == b };
    let (up, down) = (steps().all(|(a, b)| next(a, b)), steps().all(|(a, b)| next(b, a)));
    if same || up || down { Err(WeakPin::Guessed) } else { Ok(()) }
}

/// What outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTries {
    /// Tries since the last right one.
    pub failed: u32,
}

/// It may not be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many wrong PINs: it is locked for {} more minutes", .left_ms.div_ceil(60_000))]
pub struct Locked {
    /// For so long.
    pub left_ms: u64,
}

/// Counts tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    kept: KeptTries,
    until: Option<Mono>,
}

impl Tries {
    /// As they were kept, at a start.
    #[must_use]
    pub fn new(kept: KeptTries, now: Mono) -> Self {
        let until = (kept.failed >= TRIES).then(|| now.after(LOCKED_MS));
        Self { kept, until }
    }

    /// Whether it is locked.
    #[must_use]
    pub fn locked(&self, now: Mono) -> Option<Locked> {
        let left_ms = self.until?.since(now);
        (left_ms > 0).then_some(Locked { left_ms })
    }

    /// A try begins: what must be kept before the PIN is looked at.
    ///
    /// # Errors
    /// [`Locked`]: it is not looked at.
    pub fn begin(&mut self, now: Mono) -> Result<KeptTries, Locked> {
        if let Some(locked) = self.locked(now) {
            return Err(locked);
        }
        if self.until.take().is_some() {
            self.kept.failed = 0;
        }
        self.kept.failed = self.kept.failed.saturating_add(1);
        Ok(self.kept)
    }

    /// It was right: what must be kept.
    pub fn right(&mut self) -> KeptTries {
        *self = Self::default();
        self.kept
    }

    /// It was wrong; whether that locked it.
    pub fn wrong(&mut self, now: Mono) -> bool {
        let locks = self.kept.failed >= TRIES;
        self.until = locks.then(|| now.after(LOCKED_MS));
        locks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a machine that opens to the PIN that everybody tries first.
    #[test]
    fn a_weak_pin_is_none() {
        for pin in ["", "12345", "12345678901234567", "12345a", "１２３４５６"] {
            assert_eq!(check_new(pin), Err(WeakPin::NotDigits), "{pin}");
        }
        for pin in ["000000", "123456", "654321", "34567890", "999999999"] {
            assert_eq!(check_new(pin), Err(WeakPin::Guessed), "{pin}");
        }
        for pin in ["271828", "112233", "1234567891234567"] {
            assert_eq!(check_new(pin), Ok(()), "{pin}");
        }
    }

    /// Loss prevented: a PIN that is found by trying, with a restart now and then.
    #[test]
    fn five_wrong_tries_lock_it_over_restarts() {
        let mut tries = Tries::default();
        for n in 1..=TRIES {
            assert_eq!(tries.begin(Mono(0)), Ok(KeptTries { failed: n }));
            if n == 3 {
                // the power goes before anybody has looked at it
                tries = Tries::new(KeptTries { failed: n }, Mono(0));
            }
            assert_eq!(tries.wrong(Mono(0)), n == TRIES);
        }
        let left_ms = LOCKED_MS - 1;
        assert_eq!(tries.begin(Mono(1)), Err(Locked { left_ms }));
        let mut again = Tries::new(KeptTries { failed: TRIES }, Mono(7));
        assert_eq!(again.begin(Mono(LOCKED_MS)), Err(Locked { left_ms: 7 }), "from the start");
        assert_eq!(again.begin(Mono(LOCKED_MS + 7)), Ok(KeptTries { failed: 1 }));
        assert_eq!(again.right(), KeptTries::default());
        assert_eq!(again.begin(Mono(0)), Ok(KeptTries { failed: 1 }));
    }
}
