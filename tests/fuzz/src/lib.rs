//! What arbitrary input may do to codecs and engines: nothing bad.
//!
//! Promise: each target is a plain function that panics if the code under it does, grows past its
//! bounds, does not find the next frame within one frame of garbage, turns without end, or breaks
//! the rule of its device: no note is stacked without its own proof, none is given out without one,
//! and no credit is confirmed before it is durable. A stable test runs each over its committed
//! corpus and seeded changes of it; cargo-fuzz drives the same functions.

mod codecs;
mod engines;
mod smart_payout;

/// Takes any bytes; returns how many frames or events it made of them.
pub type Target = fn(&[u8]) -> usize;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("codec_ccnet", codecs::ccnet),
    ("codec_ebds", codecs::ebds),
    ("codec_escpos", codecs::escpos),
    ("codec_f56", codecs::f56),
    ("codec_id003", codecs::id003),
    ("codec_puloon", codecs::puloon),
    ("codec_ssp", codecs::ssp),
    ("engine_ccnet", engines::ccnet),
    ("engine_ccnet_b2b", engines::ccnet_b2b),
    ("engine_ebds", engines::ebds),
    ("engine_escpos", engines::escpos),
    ("engine_f56", engines::f56),
    ("engine_id003", engines::id003),
    ("engine_id003_rc", engines::id003_rc),
    ("engine_puloon", engines::puloon),
    ("engine_smart_payout", smart_payout::run),
];

/// Runs the target of this name.
///
/// # Panics
/// Where there is none, or where it finds something.
pub fn run(name: &str, input: &[u8]) -> usize {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("a target of this name");
    target(input)
}
