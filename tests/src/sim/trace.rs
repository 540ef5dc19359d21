//! What happened, in order: a digest always, the lines themselves on demand.

use bitspire_shared::time::Mono;

/// FNV-1a, 64 bits: tells two runs apart, keeps no secret.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

#[derive(Debug)]
pub(super) struct Trace {
    digest: u64,
    lines: u64,
    shown: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self { digest: OFFSET, lines: 0, shown: false }
    }
}

impl Trace {
    /// Writes each line to standard error from now on.
    pub(super) fn show(&mut self) {
        self.shown = true;
    }

    pub(super) fn line(&mut self, now: Mono, text: impl FnOnce() -> String) {
        let line = format!("{} {}", now.0, text());
        if self.shown {
            eprintln!("{line}");
        }
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        self.lines = self.lines.saturating_add(1);
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }
}
