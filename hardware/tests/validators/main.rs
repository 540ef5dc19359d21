//! Engines of note validators against their simulators, byte by byte, in virtual time.

mod cable;
mod ccnet;
mod common;
mod crash;
mod id003;
mod journal;
#[path = "../support/mod.rs"]
mod support;
mod world;
