//! Relays: the pool of connections to them.

pub mod pool;
