//! Signatures that this process has checked, or made, lately.
//!
//! Promise: [`holds`] says what `Event::verify` says. The id is computed from the event each time; an
//! id with a signature that held before is not checked again. An event passes through one process
//! several times where relay, pool and signer share it: what a machine sends is checked by the
//! embedded relay, and needs no second check where the same process reads it from there.
//!
//! Failure policy: what does not hold is remembered nowhere.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use bitspire_shared::nip01;
use nostr::Event;

/// Signatures that are remembered, of about 100 bytes each; a power of two.
const REMEMBERED: usize = 4_096;

/// An id, which binds the author, and a signature.
type Signed = ([u8; 32], [u8; 64]);

/// Each has its place by its id, which is a hash already: whoever takes another's place costs it a
/// second check.
static LATELY: LazyLock<Mutex<Box<[Option<Signed>]>>> =
    LazyLock::new(|| Mutex::new(vec![None; REMEMBERED].into_boxed_slice()));

/// Whether the event's id is its own, and its signature its author's.
#[must_use]
pub fn holds(event: &Event) -> bool {
    nip01::id_holds(event) && signature_holds(event)
}

/// Whether the signature of an event, whose id was found to be its own, is its author's.
#[must_use]
pub fn signature_holds(event: &Event) -> bool {
    let signed = signed(event);
    if lately().get(place(&signed)) == Some(&Some(signed)) {
        return true;
    }
    let holds = nip01::signature_holds(event);
    if holds {
        remember(signed);
    }
    holds
}

/// The event was signed, or its id and signature checked, by this process: [`holds`] is true of it.
pub fn is_known(event: &Event) {
    remember(signed(event));
}

fn remember(signed: Signed) {
    if let Some(place) = lately().get_mut(place(&signed)) {
        *place = Some(signed);
    }
}

fn signed(event: &Event) -> Signed {
    (event.id.to_bytes(), event.sig.serialize())
}

const fn place((id, _): &Signed) -> usize {
    let [a, b, ..] = *id;
    u16::from_le_bytes([a, b]) as usize % REMEMBERED
}

fn lately() -> MutexGuard<'static, Box<[Option<Signed>]>> {
    LATELY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, EventId, Keys};

    use super::*;

    fn note(text: &str) -> Event {
        EventBuilder::text_note(text).sign_with_keys(&Keys::generate()).unwrap()
    }

    /// Loss prevented: a changed event, or one with another signature, that is believed since the true
    /// one was checked before.
    #[test]
    fn what_was_checked_vouches_for_nothing_else() {
        let (good, other) = (note("good"), note("other"));
        assert!(holds(&good) && holds(&good));
        is_known(&other);
        assert!(holds(&other));
        let [mut changed, mut resigned, mut taken_over, mut renamed] =
            [(); 4].map(|()| good.clone());
        changed.content.push('!');
        resigned.sig = other.sig;
        taken_over.pubkey = other.pubkey;
        (renamed.id, renamed.sig) = (other.id, other.sig);
        for forged in [changed, resigned, taken_over, renamed] {
            assert!(!holds(&forged) && !holds(&forged), "{forged:?}");
        }
        let mut in_its_place = other.clone();
        in_its_place.id = EventId::from_byte_array({
            let mut id = good.id.to_bytes();
            id[31] ^= 1;
            id
        });
        is_known(&in_its_place);
        assert!(holds(&good) && holds(&good) && !holds(&in_its_place));
    }
}
