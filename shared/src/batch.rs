//! Many BIP-340 signatures at once.
//!
//! Promise: [`failing`] names the signatures that the library's check refuses, in a fourth of its time.
//! One holds if `s*G = R + e*P`. Many hold if the sum of all these does, each times a number that nobody
//! could know when it was made; in the sum, `G` and each key are multiplied once, and what remains for
//! each is to find its `R` and to add it a few times. A sum that does not hold is halved, until a few
//! signatures are left, which the library looks at one by one. A wrong one passes less than
//! once in 2^60 times.
//!
//! Failure policy: what is no number or no point, or adds up to nothing, is left to the library's check.
//!
//! Source: BIP-340, "Batch Verification".

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nostr::secp256k1::{Message, PublicKey, Scalar, SecretKey};
use nostr::{Event, SECP256K1};
use sha2::{Digest as _, Sha256};

use crate::canonical::{Sig, sha256};
use crate::ids::PubKey;

/// Signatures that are not worth a sum.
const FEW: usize = 64;
/// Bits of a factor that are looked at together.
const DIGIT: u32 = 6;

/// SHA-256 that has taken in the tag of a challenge, twice.
static CHALLENGE: LazyLock<Sha256> = LazyLock::new(|| {
    let tag = Sha256::digest("BIP0340/challenge");
    Sha256::new().chain_update(tag).chain_update(tag)
});

/// A signature, with whose it should be and what it should be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    key: PubKey,
    message: [u8; 32],
    sig: Sig,
}

impl Signed {
    /// That of SHA-256 of `text`.
    #[must_use]
    pub fn text(text: &str, key: PubKey, sig: Sig) -> Self {
        Self { key, message: *sha256(text).as_bytes(), sig }
    }

    /// That of an event by `author`, over the id that it names.
    #[must_use]
    pub fn event(event: &Event, author: PubKey) -> Self {
        Self { key: author, message: event.id.to_bytes(), sig: Sig::of(event) }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        let message = Message::from_digest(self.message);
        let check = |key| SECP256K1.verify_schnorr(&self.sig.to_nostr(), &message, &key);
        self.key.point().is_ok_and(|key| check(key).is_ok())
    }
}

/// The places of those that do not hold. `random` gives numbers that nobody else knows.
#[must_use]
pub fn failing(all: &[Signed], mut random: impl FnMut() -> u64) -> Vec<usize> {
    let (mut terms, mut unclear) = (Vec::with_capacity(all.len()), Vec::new());
    for (place, one) in all.iter().enumerate() {
        match Term::of(place, one, random().max(1)) {
            Some(term) => terms.push(term),
            None => unclear.push(place),
        }
    }
    sift(&terms, &mut unclear);
    unclear.retain(|place| !all.get(*place).is_some_and(Signed::holds));
    unclear.sort_unstable();
    unclear
}

/// Finds the terms that keep a sum from holding, and some beside them.
fn sift(terms: &[Term], unclear: &mut Vec<usize>) {
    if terms.len() <= FEW {
        unclear.extend(terms.iter().map(|term| term.place));
    } else if !hold(terms).unwrap_or(false) {
        let (left, right) = terms.split_at(terms.len() / 2);
        sift(left, unclear);
        sift(right, unclear);
    }
}

/// One signature in a sum.
struct Term {
    place: usize,
    key: PubKey,
    factor: u64,
    /// `R`
    nonce: PublicKey,
    /// `s`, times the factor.
    answer: SecretKey,
    /// `e`, times the factor.
    challenge: SecretKey,
}

impl Term {
    /// `None` where the library has to tell.
    fn of(place: usize, signed: &Signed, factor: u64) -> Option<Self> {
        let bytes = signed.sig.to_bytes();
        let (r, s) = bytes.split_first_chunk::<32>()?;
        let mut wide = [0; 32];
        *wide.last_chunk_mut()? = factor.to_be_bytes();
        let times = Scalar::from_be_bytes(wide).ok()?;
        let e = CHALLENGE.clone().chain_update(r).chain_update(signed.key.to_bytes());
        let e = e.chain_update(signed.message).finalize();
        Some(Self {
            place,
            key: signed.key,
            factor,
            nonce: even(r)?,
            answer: SecretKey::from_slice(s).ok()?.mul_tweak(&times).ok()?,
            challenge: SecretKey::from_slice(&e).ok()?.mul_tweak(&times).ok()?,
        })
    }

    /// The digit of its factor at this place.
    fn digit(&self, place: u32) -> u64 {
        let shift = place.saturating_mul(DIGIT);
        self.factor.checked_shr(shift).unwrap_or(0) & ((1 << DIGIT) - 1)
    }
}

/// The point with this `x` and an even `y`.
fn even(x: &[u8; 32]) -> Option<PublicKey> {
    let mut bytes = [2; 33];
    *bytes.last_chunk_mut()? = *x;
    PublicKey::from_slice(&bytes).ok()
}

/// Whether they hold as a sum; `None` where there is none.
fn hold(terms: &[Term]) -> Option<bool> {
    let mut answer = None;
    let mut challenges = BTreeMap::new();
    for term in terms {
        answer = Some(plus(answer, term.answer)?);
        let of_key = plus(challenges.get(&term.key).copied(), term.challenge)?;
        challenges.insert(term.key, of_key);
    }
    let mut points = vec![nonces(terms)?];
    for (key, challenge) in challenges {
        let point = even(&key.to_bytes())?.mul_tweak(SECP256K1, &Scalar::from(challenge));
        points.push(point.ok()?);
    }
    Some(sum(points.iter())? == PublicKey::from_secret_key(SECP256K1, &answer?))
}

fn plus(sum: Option<SecretKey>, more: SecretKey) -> Option<SecretKey> {
    match sum {
        None => Some(more),
        Some(sum) => sum.add_tweak(&Scalar::from(more)).ok(),
    }
}

fn sum<'a>(points: impl Iterator<Item = &'a PublicKey>) -> Option<PublicKey> {
    PublicKey::combine_keys(&points.collect::<Vec<_>>()).ok()
}

/// The sum of all `R`, each times its factor. Those with the same digit lie on a pile, and a pile counts
/// once for each digit up to its own.
fn nonces(terms: &[Term]) -> Option<PublicKey> {
    let mut total: Option<PublicKey> = None;
    for place in (0..u64::BITS.div_ceil(DIGIT)).rev() {
        if let Some(mut point) = total {
            for _ in 0..DIGIT {
                point = sum([point, point].iter())?;
            }
            total = Some(point);
        }
        let mut piles: BTreeMap<u64, Vec<&PublicKey>> = BTreeMap::new();
        for term in terms {
            piles.entry(term.digit(place)).or_default().push(&term.nonce);
        }
        let (mut down_to, mut counted) = (None, Vec::new());
        for digit in (1..1 << DIGIT).rev() {
            let pile = piles.remove(&digit).unwrap_or_default();
            if !pile.is_empty() {
                down_to = Some(sum(down_to.iter().chain(pile))?);
            }
            counted.extend(down_to);
        }
        if !counted.is_empty() {
            total = Some(sum(total.iter().chain(&counted))?);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys};
    use proptest::prelude::*;

    use super::*;

    /// Numbers as nobody knows them, the same each time.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 27)
        }
    }

    fn signed(count: usize, signers: &[Keys]) -> Vec<Signed> {
        let one = |n: usize| {
            let (keys, text) = (&signers[n % signers.len()], format!("text {n}"));
            let key = PubKey::new(keys.public_key()).unwrap();
            Signed::text(&text, key, Sig::over(&text, keys))
        };
        (0..count).map(one).collect()
    }

    /// The place of a signature's two halves, or of what was signed.
    #[derive(Clone, Copy, Debug)]
    enum Where {
        Nonce,
        Answer,
        Message,
        Key,
    }

    fn spoil(all: &mut [Signed], place: usize, at: Where, bit: usize) {
        let other = all[(place + 1) % all.len()].key;
        let one = &mut all[place];
        let mut bytes = one.sig.to_bytes();
        match at {
            Where::Nonce => bytes[bit / 8] ^= 1 << (bit % 8),
            Where::Answer => bytes[32 + bit / 8] ^= 1 << (bit % 8),
            Where::Message => one.message[bit / 8] ^= 1 << (bit % 8),
            Where::Key => one.key = other,
        }
        one.sig = Sig::from_bytes(&bytes).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Loss prevented: a quote or a request that was changed in the database passes an audit among
        /// thousands that hold; or one that holds is told as forged.
        #[test]
        fn those_that_fail_are_those_that_the_library_refuses(
            count in 0usize..400,
            spoilt in prop::collection::vec((0usize..400, 0usize..256, prop::sample::select(vec![
                Where::Nonce, Where::Answer, Where::Message, Where::Key,
            ])), 0..6),
            seed: u64,
        ) {
            let signers: Vec<_> = (0..3).map(|_| Keys::generate()).collect();
            let mut all = signed(count, &signers);
            for (place, bit, at) in spoilt.into_iter().filter(|(place, ..)| *place < count) {
                spoil(&mut all, place, at, bit);
            }
            let one_by_one: Vec<_> = (0..count).filter(|place| !all[*place].holds()).collect();
            prop_assert_eq!(failing(&all, numbers(seed)), one_by_one);
        }
    }

    /// Loss prevented: two wrong signatures that make up for each other pass together, as they do where
    /// each counts the same.
    #[test]
    fn what_adds_up_by_itself_does_not_hold() {
        let mut all = signed(200, &[Keys::generate()]);
        let mut answers: Vec<[u8; 64]> = all.iter().map(|one| one.sig.to_bytes()).collect();
        // one more here and one less there: the sum of all is what it was
        let (more, less) = (SecretKey::from_slice(&answers[7][32..]), Scalar::ONE);
        let more = more.unwrap().add_tweak(&less).unwrap();
        let minus_one = SecretKey::from_slice(&less.to_be_bytes()).unwrap().negate();
        let less = SecretKey::from_slice(&answers[9][32..]).unwrap();
        let less = less.add_tweak(&Scalar::from(minus_one)).unwrap();
        answers[7][32..].copy_from_slice(&more.secret_bytes());
        answers[9][32..].copy_from_slice(&less.secret_bytes());
        for place in [7, 9] {
            all[place].sig = Sig::from_bytes(&answers[place]).unwrap();
        }
        let the_same: Vec<_> =
            all.iter().enumerate().map(|(n, one)| Term::of(n, one, 1).unwrap()).collect();
        assert_eq!(hold(&the_same), Some(true), "so it is without a factor each");
        assert_eq!(failing(&all, numbers(1)), [7, 9]);
    }

    /// Loss prevented: a signature that ends the audit, or counts, since it is no number or no point; one
    /// that is there many times, or whose factor is nothing, and therefore is in no sum.
    #[test]
    fn what_is_no_term_is_left_to_the_library() {
        let keys = Keys::generate();
        let mut all = signed(130, std::slice::from_ref(&keys));
        for (place, half) in [(3, 0..32), (64, 32..64), (129, 0..64)] {
            let mut bytes = all[place].sig.to_bytes();
            bytes[half].fill(0xff);
            all[place].sig = Sig::from_bytes(&bytes).unwrap();
        }
        assert_eq!(failing(&all, numbers(2)), [3, 64, 129]);
        assert_eq!(failing(&all, || 0), [3, 64, 129]);

        let mut the_same = vec![all[0]; 100];
        assert_eq!(failing(&the_same, numbers(3)), Vec::<usize>::new());
        spoil(&mut the_same, 50, Where::Message, 0);
        assert_eq!(failing(&the_same, numbers(3)), [50]);
        let event = EventBuilder::text_note("hi").sign_with_keys(&keys).unwrap();
        let event = Signed::event(&event, PubKey::new(keys.public_key()).unwrap());
        assert!(event.holds() && failing(&[event; 70], numbers(4)).is_empty());
    }
}
