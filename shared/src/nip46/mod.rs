//! Remote signing (NIP-46): messages, and the pure state of both ends.
//!
//! Promise: nothing here encrypts, publishes, reads a clock or draws random numbers. The shell
//! verifies the event (kind 24133), decrypts it (NIP-44), and hands over event id, author and
//! plaintext; ids of requests and the time are arguments; what is to be done comes back as data.
//!
//! - [`message`]: requests and responses as they are found in the wild.
//! - [`client`]: who waits for what, what to send again, and whether what came back is what was
//!   asked for.
//! - [`server`]: a request as a typed call, and its reply.
//! - [`policy`]: what a client may have signed, decided anew at every request.
//!
//! Failure policy: a message that cannot be read is ignored and never answered; a reply that is not
//! what was asked for is an error for the one who asked; silence is a state of the signer.

pub mod client;
pub mod message;
pub mod policy;
mod seen;
pub mod server;

/// Kind of the events that carry requests and responses (NIP-46).
pub const KIND: u16 = 24_133;
