//! What a caller may do about an error.
//!
//! Promise: each error that crosses a crate boundary answers one question, "what now?", with a
//! [`Kind`], so that no caller has to read texts to decide whether to try again.

/// What may be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It may go away by itself: try again later, with backoff.
    Transient,
    /// Trying the same again gives the same answer: report it, do not retry.
    Permanent,
    /// Nobody knows whether the effect happened: look it up, never repeat it blindly.
    Uncertain,
    /// The caller broke a rule of the interface: a bug on our side.
    Misuse,
}

/// An error that says what may be done about it.
pub trait Classified: std::error::Error {
    /// What the caller may do.
    fn kind(&self) -> Kind;
}
