//! The roster as the embedded relay sees it.
//!
//! Promise: the relay asks again at each event, so a change of the roster takes effect on live
//! connections without a message; it keeps no copy.
//!
//! Failure policy: there is no error. A roster that cannot tell answers [`Role::Unknown`], `None`
//! or `false`, and the relay then refuses.

/// What a key is to this operator right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client key of a paired machine.
    Machine {
        /// The machine's own key.
        spire: [u8; 32],
    },
    /// The operator service: its service key or its admin key.
    Service,
    /// The key that the bunker authenticates with.
    Bunker,
    /// An operator's key.
    Operator,
    /// None of these, or no longer.
    Unknown,
}

/// Answers what keys are. Asked several times for each event from the connections' own tasks, so
/// an implementation answers from memory and never waits for a disk or another thread's I/O.
///
/// Keys are the bytes that stand on the wire, possibly before any signature was checked and possibly
/// off the curve: they are only to be looked up.
pub trait Access: Send + Sync + 'static {
    /// What `key` is.
    fn role(&self, key: &[u8; 32]) -> Role;

    /// The machine whose live session `key` is; `None` once the session has ended or expired.
    fn session_of(&self, key: &[u8; 32]) -> Option<[u8; 32]>;

    /// Whether the bunker holds the secret of `key` and answers NIP-46 requests to it.
    fn held_by_bunker(&self, key: &[u8; 32]) -> bool;

    /// Whether a pairing token of `key` is out that nobody has redeemed yet.
    fn awaits_pairing(&self, key: &[u8; 32]) -> bool;

    /// The key that customers' wallets may ask by CLINK; `None` where none may.
    fn clink(&self) -> Option<[u8; 32]> {
        None
    }
}
