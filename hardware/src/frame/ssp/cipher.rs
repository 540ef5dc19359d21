//! eSSP: the keys that host and device agree on, and what goes encrypted under them.
//!
//! Promise: a data field is `7E` and AES-128 in blocks (ECB, as the protocol has it) over
//! `LEN COUNT DATA PAD CRC`. The key is the fixed key that both have and a key that is agreed on by
//! Diffie-Hellman over 64-bit primes. COUNT rises with each packet, and a packet with any other count
//! is refused, so that neither side takes an old one for a new one. Key, secret and seed show nothing
//! of themselves in `Debug` and are wiped when dropped.
//!
//! 64-bit primes, and a fixed key that most units keep as the maker has set it, stop nobody who
//! listens from the first byte: the cipher guards against mistakes, not against a wire tap. The cable
//! must be out of reach.
//!
//! Failure policy: what cannot be opened is a [`SealError`] and changes no count.
//!
//! Source: GA138, encryption layer. The device's answer carries the count that the host's next command
//! will carry, as the maker's own host library has it.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Data, MAX_DATA, STEX, crc16_ssp};

/// Bytes of a block.
const BLOCK: usize = 16;
/// LEN, COUNT and check around the data.
const AROUND: usize = 7;
/// Longest data that can go encrypted: fifteen blocks.
pub const MAX_SEALED: usize = 15 * BLOCK - AROUND;

/// Why a packet, or a key, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// Not `7E` and whole blocks.
    #[error("expected 7E and blocks of 16 bytes, got {0} bytes: look at the cable")]
    Form(usize),
    /// The check inside does not hold: another key, or damage.
    #[error("the check of the encrypted data does not hold: the keys must be agreed on again")]
    Check,
    /// Another packet than the next one.
    #[error("expected packet {expected}, got {got}: the keys must be agreed on again")]
    Count {
        /// The next one's count.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// A number that no key can come of.
    #[error("the device's part of the key exchange is {0}: expected a number above 1")]
    Key(u64),
    /// Generator and modulus do not do.
    #[error("expected two primes, the generator above the modulus, got {0} and {1}")]
    Primes(u64, u64),
}

/// The key that host and device have without agreeing on it; `60h` sets another one.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct FixedKey(u64);

impl FixedKey {
    /// A key that is not the maker's.
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self(key)
    }
}

/// The maker's: 0123456701234567h.
impl Default for FixedKey {
    fn default() -> Self {
        Self(0x0123_4567_0123_4567)
    }
}

impl fmt::Debug for FixedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FixedKey(hidden)")
    }
}

/// Generator and modulus of the key exchange: public, both prime, the generator above the modulus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primes {
    generator: u64,
    modulus: u64,
}

impl Primes {
    /// The largest prime below 2^64 over a safe prime.
    pub const USUAL: Self =
        Self { generator: 0xffff_ffff_ffff_ffc5, modulus: 0xffff_ff17_2b5a_e66f };

    /// Other ones.
    ///
    /// # Errors
    /// [`SealError::Primes`].
    pub fn new(generator: u64, modulus: u64) -> Result<Self, SealError> {
        if generator > modulus && is_prime(generator) && is_prime(modulus) {
            Ok(Self { generator, modulus })
        } else {
            Err(SealError::Primes(generator, modulus))
        }
    }

    /// The generator.
    #[must_use]
    pub const fn generator(self) -> u64 {
        self.generator
    }

    /// The modulus.
    #[must_use]
    pub const fn modulus(self) -> u64 {
        self.modulus
    }
}

/// One side's part of a key exchange.
#[derive(ZeroizeOnDrop)]
pub struct Exchange {
    modulus: u64,
    generator: u64,
    secret: u64,
}

impl Exchange {
    /// With a secret that nobody can guess. The device knows of the primes only what it was told.
    #[must_use]
    pub const fn new(generator: u64, modulus: u64, secret: u64) -> Self {
        Self { modulus, generator, secret }
    }

    /// What the other side is sent.
    #[must_use]
    pub fn public(&self) -> u64 {
        power(self.generator, self.secret, self.modulus)
    }

    /// The session that comes of what the other side has sent.
    ///
    /// # Errors
    /// [`SealError::Key`], where its part leaves no secret.
    pub fn finish(&self, theirs: u64, fixed: &FixedKey) -> Result<Session, SealError> {
        if theirs < 2 || theirs >= self.modulus {
            return Err(SealError::Key(theirs));
        }
        Ok(Session::new(fixed, power(theirs, self.secret, self.modulus)))
    }
}

/// What goes encrypted between one host and one device, from the exchange of keys on.
pub struct Session {
    cipher: Aes128,
    /// Of the host's next command, and of the answer to its last.
    count: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session(hidden, packet {})", self.count)
    }
}

impl Session {
    /// Under the fixed key and the one that was agreed on.
    #[must_use]
    pub fn new(fixed: &FixedKey, agreed: u64) -> Self {
        let mut key = [0; BLOCK];
        let halves = fixed.0.to_le_bytes().into_iter().chain(agreed.to_le_bytes());
        for (to, from) in key.iter_mut().zip(halves) {
            *to = from;
        }
        let cipher = Aes128::new(&key.into());
        key.zeroize();
        Self { cipher, count: 0 }
    }

    /// The host's next command as the data of a frame; `None` where it is too long.
    pub fn seal_command(&mut self, data: &[u8], pad: [u8; BLOCK]) -> Option<Vec<u8>> {
        let sealed = self.seal(data, pad)?;
        self.count = self.count.wrapping_add(1);
        Some(sealed)
    }

    /// The device's answer to the command that was opened last.
    #[must_use]
    pub fn seal_reply(&self, data: &[u8], pad: [u8; BLOCK]) -> Option<Vec<u8>> {
        self.seal(data, pad)
    }

    /// What the host says, for the device.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open_command(&mut self, data: &[u8]) -> Result<Opened, SealError> {
        let opened = self.open(data)?;
        self.count = self.count.wrapping_add(1);
        Ok(opened)
    }

    /// What the device answers to the last command, for the host.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open_reply(&self, data: &[u8]) -> Result<Opened, SealError> {
        self.open(data)
    }

    fn seal(&self, data: &[u8], pad: [u8; BLOCK]) -> Option<Vec<u8>> {
        let len = u8::try_from(data.len()).ok().filter(|_| data.len() <= MAX_SEALED)?;
        let mut plain = vec![len];
        plain.extend(self.count.to_le_bytes());
        plain.extend(data);
        let covered = data.len().saturating_add(AROUND).next_multiple_of(BLOCK).saturating_sub(2);
        plain.extend(pad.iter().take(covered.saturating_sub(plain.len())));
        plain.extend(crc16_ssp(&plain).to_le_bytes());
        let mut out = Vec::with_capacity(plain.len().saturating_add(1));
        out.push(STEX);
        for block in plain.as_chunks::<BLOCK>().0 {
            let mut block = (*block).into();
            self.cipher.encrypt_block(&mut block);
            out.extend(block);
        }
        plain.zeroize();
        Some(out)
    }

    fn open(&self, data: &[u8]) -> Result<Opened, SealError> {
        let form = SealError::Form(data.len());
        let Some((&STEX, blocks)) = data.split_first() else { return Err(form) };
        let (blocks, []) = blocks.as_chunks::<BLOCK>() else { return Err(form) };
        let mut plain = Data::<MAX_DATA>::new(&[]);
        for block in blocks {
            let mut block = (*block).into();
            self.cipher.decrypt_block(&mut block);
            plain.extend(&block);
        }
        let (covered, check) = plain.get().split_last_chunk::<2>().ok_or(form)?;
        if crc16_ssp(covered) != u16::from_le_bytes(*check) {
            return Err(SealError::Check);
        }
        let (len, rest) = covered.split_first().ok_or(form)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(form)?;
        let data = rest.get(..usize::from(*len)).ok_or(form)?;
        let (expected, got) = (self.count, u32::from_le_bytes(*count));
        if got != expected {
            return Err(SealError::Count { expected, got });
        }
        Ok(Opened(Data::new(data)))
    }
}

/// Data that were encrypted.
#[derive(Clone, Copy)]
pub struct Opened(Data<MAX_DATA>);

impl Opened {
    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.0.get()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({})", self.0)
    }
}

/// What secrets and padding are drawn from: random bytes, given once.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; BLOCK]);

impl Seed {
    /// From the system's random numbers; the same seed never twice.
    #[must_use]
    pub const fn new(random: [u8; BLOCK]) -> Self {
        Self(random)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

/// Numbers that nobody can guess who has not the seed: AES-128 over a counter.
pub struct Draw {
    cipher: Aes128,
    drawn: u128,
}

impl Draw {
    /// The numbers of a seed, from the first.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { cipher: Aes128::new(&seed.0.into()), drawn: 0 }
    }

    /// The next sixteen bytes.
    pub fn block(&mut self) -> [u8; BLOCK] {
        self.drawn = self.drawn.wrapping_add(1);
        let mut block = self.drawn.to_le_bytes().into();
        self.cipher.encrypt_block(&mut block);
        block.into()
    }

    /// The next secret of a key exchange.
    pub fn secret(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        // 0 and 1 would be no secrets
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(2)
    }
}

/// `base` to the power of `exponent`, modulo `modulus`; 0 modulo 0.
fn power(base: u64, exponent: u64, modulus: u64) -> u64 {
    let times = |a: u64, b: u64| {
        let product = u128::from(a).saturating_mul(u128::from(b));
        let rest = product.checked_rem(u128::from(modulus)).unwrap_or(0);
        u64::try_from(rest).unwrap_or(0)
    };
    let mut result = times(1, 1);
    for bit in (0..u64::BITS).rev() {
        result = times(result, result);
        if exponent.checked_shr(bit).unwrap_or(0) & 1 == 1 {
            result = times(result, base);
        }
    }
    result
}

/// Miller and Rabin's test with the twelve bases that decide it below 2^64.
fn is_prime(number: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if number < 2 {
        return false;
    }
    if let Some(divisor) = BASES.iter().find(|base| number.checked_rem(**base) == Some(0)) {
        return *divisor == number;
    }
    let minus_one = number.saturating_sub(1);
    let twos = minus_one.trailing_zeros();
    let odd = minus_one.checked_shr(twos).unwrap_or(0);
    BASES.iter().all(|base| {
        let mut x = power(*base, odd, number);
        let mut passes = x == 1;
        for _ in 0..twos {
            passes |= x == minus_one;
            x = power(x, 2, number);
        }
        passes
    })
}
