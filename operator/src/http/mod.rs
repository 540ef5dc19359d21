//! HTTP: the listener, the API behind its gate.

pub mod auth;
pub mod listen;
