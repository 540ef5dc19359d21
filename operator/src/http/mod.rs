//! HTTP: the API behind its gate.

pub mod auth;
