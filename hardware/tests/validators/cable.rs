//! A bad cable: bytes dropped, doubled, changed, delayed, by seed.

use bitspire_hardware::sim::faulty::seeds;
use serde_json::json;

use crate::ccnet::CcnetLine;
use crate::id003::Id003Line;
use crate::journal::Journal;
use crate::world::{Protocol, World};

/// Notes pass through a cable with so many faults per million bytes.
fn notes_over_a_bad_cable<P: Protocol>(seed: u64, per_million: u32) -> Journal {
    let what = format!("seed {seed}, {per_million} per million");
    let mut world = World::<P>::with_cable(P::Options::default(), seed);
    let mut journal = Journal::default();
    world.accept(&[20]);
    let each = per_million / 4;
    let rates = json!({"drop": each, "duplicate": each, "corrupt": each, "delay": each,
                       "max_delay_ms": 300});
    let mut inserted = 0;
    world.act(json!({"action": "rates", "rates": rates}));
    for _ in 0..100 {
        if inserted < 5 && world.status().starts_with("IDLING") {
            world.act(json!({"action": "insert", "denomination": 20}));
            inserted += 1;
        }
        for event in world.during(500) {
            journal.on_event(&mut world, &event, &what);
        }
    }
    world.act(json!({"action": "rates", "rates": {}}));
    for event in world.during(30_000) {
        journal.on_event(&mut world, &event, &what);
    }
    // where the cable was too bad even for the set-up, there is no note to lose
    journal.balance(&world, &what);
    journal
}

/// How many notes were credited, of at most how many, and where one stayed unknown.
fn noise<P: Protocol>(rates: [u32; 2]) -> (u64, u64, Vec<String>) {
    let seeds = seeds(50);
    let mut sum = (0, 10 * (seeds.end - seeds.start), Vec::new());
    for seed in seeds {
        for per_million in rates {
            let journal = notes_over_a_bad_cable::<P>(seed, per_million);
            sum.0 += journal.credits;
            if journal.unknown > 0 {
                sum.2.push(format!("seed {seed}, {per_million} per million"));
            }
        }
    }
    sum
}

/// Loss prevented: noise on the line that doubles, loses or invents a credit.
#[test]
fn noise_changes_no_credit() {
    let (credits, most, unknown) = noise::<Id003Line>([10_000, 60_000]);
    // half of all frames are damaged: once in ten thousand notes nothing of a note's way back is heard,
    // and it is told as unknown, since the power may have gone
    assert!(unknown.len() as u64 * 10_000 <= credits, "{credits} credits, unknown: {unknown:?}");
    // noise costs time, not business
    assert!(credits * 10 > most * 6, "{credits} of at most {most} notes");
}

/// Loss prevented: the same on a line whose answers do not name their questions and whose credits
/// are confirmed by the host.
#[test]
fn noise_changes_no_ccnet_credit() {
    // its bill table is one answer of 125 bytes, which must come whole once
    let (credits, most, unknown) = noise::<CcnetLine>([5_000, 20_000]);
    assert_eq!(unknown, [""; 0], "the power never went");
    assert!(credits * 10 > most * 6, "{credits} of at most {most} notes");
}
