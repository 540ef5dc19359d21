//! The fleet: machines, their pairing, who is who.
pub mod roster;
