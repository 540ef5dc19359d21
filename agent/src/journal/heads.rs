//! A journal held against what the operator's service has seen of it.
//!
//! Promise: each position that the vault has ever signed is compared; where the two differ, the
//! entry is named up to which they agree and the one by which they have parted.

use bitspire_shared::ids::{JournalHead, JournalSeq};
use serde::Deserialize;

/// A position as the service keeps it: a line of `bitspire-operator machine journal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct SeenHead {
    /// The position.
    pub seq: JournalSeq,
    /// The hash of the entry there.
    pub head: JournalHead,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// All that was seen is here.
    Agrees {
        /// Positions that were compared.
        positions: usize,
        /// The last of them; 0 without any.
        last: JournalSeq,
    },
    /// Another entry was seen at a position.
    Parts {
        /// The last position on which both agree; 0 without any.
        agreed: JournalSeq,
        /// The first that differs.
        differs: JournalSeq,
    },
    /// A position was seen that this journal does not reach: its end is lost.
    Behind {
        /// The last position on which both agree; 0 without any.
        agreed: JournalSeq,
        /// The first that is missing.
        missing: JournalSeq,
    },
}

/// Compares `seen`, in any order, with the hashes that `here` knows by position.
pub fn compare(
    mut seen: Vec<SeenHead>,
    mut here: impl FnMut(JournalSeq) -> Option<JournalHead>,
) -> Compared {
    seen.sort_unstable_by_key(|head| head.seq);
    let mut agreed = JournalSeq(0);
    for SeenHead { seq, head } in &seen {
        match here(*seq) {
            None => return Compared::Behind { agreed, missing: *seq },
            Some(own) if own != *head => return Compared::Parts { agreed, differs: *seq },
            Some(_) => agreed = *seq,
        }
    }
    Compared::Agrees { positions: seen.len(), last: agreed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> JournalHead {
        JournalHead::from_bytes([n; 32])
    }

    fn compared(seen: &[(u64, u8)]) -> Compared {
        let head = |(seq, n): &(u64, u8)| SeenHead { seq: JournalSeq(*seq), head: hash(*n) };
        let here =
            |seq: JournalSeq| u8::try_from(seq.0).ok().filter(|n| (1..=9).contains(n)).map(hash);
        compare(seen.iter().map(head).collect(), here)
    }

    /// Loss prevented: a journal that was put in another's place passes for the machine's own, or
    /// nobody finds where the two part.
    #[test]
    fn the_first_position_that_differs_is_named() {
        let (agreed, last) = (JournalSeq(4), JournalSeq(9));
        assert_eq!(compared(&[]), Compared::Agrees { positions: 0, last: JournalSeq(0) });
        assert_eq!(compared(&[(9, 9), (2, 2)]), Compared::Agrees { positions: 2, last });
        let differs = JournalSeq(7);
        let parts = compared(&[(8, 0xee), (2, 2), (7, 0xee), (4, 4)]);
        assert_eq!(parts, Compared::Parts { agreed, differs });
        let behind = compared(&[(4, 4), (12, 12)]);
        assert_eq!(behind, Compared::Behind { agreed, missing: JournalSeq(12) });
    }
}
