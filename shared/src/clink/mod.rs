//! CLINK, version 1: payment codes and messages of wallets that speak Nostr instead of HTTP (CLINK
//! Offers, kind 21001; CLINK Debits, kind 21002).
//!
//! Promise: pure. A code is bech32 (BIP-173, not bech32m) around the TLVs of NIP-19; what it says is
//! checked before it is believed, and the session of a debit is a secret that `Debug` hides. A
//! request is the part of it that we serve; fields that we do not know are ignored, as the
//! specification wants of both sides.
//!
//! Failure policy: what does not read is an error that says what was expected; nothing in it is shown
//! that could be a session.

mod code;
mod message;

pub use code::{CodeError, DebitPointer, Ndebit, OfferPointer, PriceType};
pub use message::{
    Answer, Asked, DEBIT_KIND, DebitReply, DebitRequest, Deviation, GfyCode, OFFER_KIND,
    OfferErrorCode, OfferReply, OfferRequest, Range, RequestError, reply_event, speaks_version,
};
