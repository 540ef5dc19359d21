//! The simulated machine: seeds, the crash matrix, and that both are what they say.

use bitspire_tests::sim::bite::{BUGS, root};
use bitspire_tests::sim::{Ask, digest, matrix, seeds};

/// Loss prevented: notes or sats lost or given twice by a course of events that nobody thought of.
#[test]
fn two_hundred_seeds_hold() {
    let sums = seeds(1, 200, false, None).unwrap();
    eprintln!("{}", sums.report());
    let again: Vec<_> = sums.failed.iter().map(|(seed, wrong)| (seed, wrong)).collect();
    assert!(again.is_empty(), "play one again with `cargo sim --seed N`: {again:#?}");
}

/// Loss prevented: a failure that is found once and never again.
#[test]
fn a_seed_is_the_same_story_each_time() {
    for seed in [3, 44, 103] {
        assert_eq!(digest(seed).unwrap(), digest(seed).unwrap(), "seed {seed}");
    }
}

/// Loss prevented: a power cut at one moment of one sale, with one answer of a device afterwards,
/// that loses notes or gives them twice.
#[test]
fn every_single_death_leaves_nothing_lost_and_nothing_twice() {
    let matrix = matrix(Ask::default()).unwrap();
    eprintln!("{}", matrix.report());
    assert!(matrix.failed.is_empty(), "{:#?}", matrix.failed);
    assert!(matrix.run >= 576, "{}", matrix.run);
    assert!(matrix.unseen.is_empty(), "no story comes to {:?}", matrix.unseen);
    assert!(matrix.machines.values().all(|cells| *cells > 0), "{:?}", matrix.machines);
}

/// Loss prevented: a proof that the harness bites, with bugs that cannot be planted any more.
#[test]
fn each_planted_bug_has_its_place() {
    for bug in BUGS {
        let text = std::fs::read_to_string(root().join(bug.file)).unwrap();
        assert_eq!(text.matches(bug.good).count(), 1, "{}: {}", bug.file, bug.what);
        assert_ne!(bug.good, bug.bad);
    }
}
