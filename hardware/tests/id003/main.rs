//! The ID-003 engine against the ID-003 simulator, byte by byte, in virtual time.

mod crash;
mod defects;
mod sequences;
#[path = "../support/mod.rs"]
mod support;
mod world;
