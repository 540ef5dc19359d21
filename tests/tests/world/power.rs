//! The journal after a power cut, wherever it comes.

use std::path::Path;

use bitspire_tests::power::Power;

/// Power cuts; `cargo power --cuts N` tries more.
const CUTS: u32 = 300;

/// Loss prevented: an entry that was told to be durable, or an intent whose proof was given out, lost
/// with the power; a journal that does not open after it, so that somebody has to travel.
#[test]
fn the_journal_comes_back_from_a_power_cut_anywhere() {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let tally = Power::new(CUTS, 7).cut(program).unwrap();
    assert_eq!(tally.cuts, CUTS);
    assert!(tally.ops > 1_000 && tally.told > 150 && tally.lies_found > 10, "{tally:?}");
}
