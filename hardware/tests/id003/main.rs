//! The ID-003 engine against the ID-003 simulator, byte by byte, in virtual time.

mod cable;
mod crash;
mod defects;
mod journal;
mod sequences;
#[path = "../support/mod.rs"]
mod support;
mod world;
