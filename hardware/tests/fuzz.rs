//! The fuzz targets on a stable compiler: each over its committed corpus and seeded changes of it.

#[path = "../../tests/fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own, for cargo-fuzz")]
mod fuzz;

use std::path::{Path, PathBuf};

use bitspire_hardware::sim::faulty::SplitMix64;

/// Changed inputs for each target.
const ROUNDS: u64 = 1_500;

/// The committed inputs of a target, each with its name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), std::fs::read(file).unwrap())).collect()
}

fn below(random: &mut SplitMix64, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap()
}

/// A few bytes changed, put in, left out, said twice or taken from another input.
fn changed(random: &mut SplitMix64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[below(random, corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let at = below(random, input.len() + 1);
        let to = (at + below(random, 12)).min(input.len());
        match random.below(5) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => input.insert(at, random.next_u64().to_le_bytes()[0]),
            2 => drop(input.drain(at..to)),
            3 => {
                let again = input[at..to].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = &corpus[below(random, corpus.len())];
                let from = below(random, other.len() + 1);
                let piece = &other[from..(from + 40).min(other.len())];
                input.splice(at..to, piece.iter().copied());
            }
        }
        input.truncate(4_000);
    }
    input
}

/// Loss prevented: bytes of a broken or hostile device that stop the machine, swell it, or make it
/// take or give a note that nobody allowed.
#[test]
fn arbitrary_input_breaks_no_codec_and_no_engine() {
    for (no, (name, target)) in (0..).zip(fuzz::TARGETS) {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for (input, bytes) in &corpus {
            // a sale goes through to the note in the cashbox, and to the open inlet after it
            let least = if input == "sale" { 7 } else { 1 };
            let told = fuzz::run(name, bytes);
            assert!(told >= least, "{name}/{input} comes to {told} only");
        }
        let corpus: Vec<_> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
        let mut random = SplitMix64::new(no);
        for round in 0..ROUNDS {
            let input = changed(&mut random, &corpus);
            let seen = std::panic::catch_unwind(|| target(&input));
            assert!(seen.is_ok(), "{name}, round {round}: {input:02x?}");
        }
    }
}
