//! The codes: `noffer1...` (whoever pays asks it for an invoice) and `ndebit1...` (whoever is paid
//! names an invoice to it).
//!
//! Promise: bech32 of TLVs as NIP-19 and the reference SDK write them, highest type first; unknown
//! types are skipped, of a repeated one the first counts (NIP-19). A session (`k1`) is 32 bytes,
//! wiped when dropped.

use std::fmt;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Classified, Kind};
use crate::ids::{IdError, PubKey};
use crate::money::Sats;

const OFFER: &str = "noffer";
const DEBIT: &str = "ndebit";
/// TLV types; 3 is the price type of an offer and the session of a debit.
const PUBKEY: u8 = 0;
const RELAY: u8 = 1;
const POINTER: u8 = 2;
const PRICE_TYPE: u8 = 3;
const SESSION: u8 = 3;
const PRICE: u8 = 4;
/// Characters of a code, as the reference SDK has it.
const MAX_CODE: usize = 5_000;

/// Why a text is no code, or no code can be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// Longer than any code.
    #[error("expected a code of at most {MAX_CODE} characters, got {got}")]
    TooLong {
        /// Characters that came.
        got: usize,
    },
    /// No bech32, or damaged.
    #[error("expected {expected}1... in bech32")]
    Bech32 {
        /// The prefix.
        expected: &'static str,
    },
    /// Another kind of code.
    #[error("expected {expected}1..., got {got}1...")]
    Prefix {
        /// The prefix that was wanted.
        expected: &'static str,
        /// The one that came.
        got: String,
    },
    /// A TLV that ends before its length.
    #[error("expected a TLV of type {kind} that is as long as it says")]
    Cut {
        /// Its type.
        kind: u8,
    },
    /// A TLV that has to be there.
    #[error("expected a TLV of type {kind} ({what}), got none")]
    Missing {
        /// Its type.
        kind: u8,
        /// What it says.
        what: &'static str,
    },
    /// A TLV that does not read.
    #[error("TLV {kind}: expected {what}")]
    Value {
        /// Its type.
        kind: u8,
        /// What was expected.
        what: &'static str,
    },
    /// The key is none.
    #[error("TLV 0")]
    Key(#[from] IdError),
}

impl Classified for CodeError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// How the amount of an offer comes about (TLV 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceType {
    /// It stands in the code.
    Fixed,
    /// The receiver says it when asked.
    Variable,
    /// The payer says it.
    Spontaneous,
}

/// What a `noffer1...` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferPointer {
    /// Who makes the invoice.
    pub pubkey: PubKey,
    /// Where it listens.
    pub relay: String,
    /// Which offer.
    pub offer: String,
    /// How its amount comes about.
    pub price_type: PriceType,
    /// The amount, where the code has one.
    pub price: Option<Sats>,
}

/// What an `ndebit1...` says.
#[derive(Clone, PartialEq, Eq)]
pub struct DebitPointer {
    /// Who pays.
    pub pubkey: PubKey,
    /// Where it listens.
    pub relay: String,
    /// What it pays for.
    pub pointer: Option<String>,
    /// The session: whoever has it names the invoice that is paid.
    pub k1: Option<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for DebitPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebitPointer").field("pubkey", &self.pubkey).finish_non_exhaustive()
    }
}

/// The text of a debit with a session: whoever has it can claim the withdraw. Wiped when dropped;
/// `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Zeroize, Serialize, Deserialize)]
#[zeroize(drop)]
#[serde(transparent)]
pub struct Ndebit(String);

impl Ndebit {
    /// Takes an encoded `ndebit1...`.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text for the QR code. A bearer secret: never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Ndebit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ndebit(redacted)")
    }
}

/// TLVs on their way into a code.
#[derive(Default)]
struct Tlvs(Zeroizing<Vec<u8>>);

impl Tlvs {
    fn put(&mut self, kind: u8, value: &[u8]) -> Result<(), CodeError> {
        let too_long = CodeError::Value { kind, what: "at most 255 bytes" };
        let length = u8::try_from(value.len()).map_err(|_| too_long)?;
        self.0.extend([kind, length]);
        self.0.extend_from_slice(value);
        Ok(())
    }

    fn encode(&self, prefix: &'static str) -> Result<String, CodeError> {
        let hrp = Hrp::parse_unchecked(prefix);
        let refused = CodeError::Bech32 { expected: prefix };
        bech32::encode::<Bech32>(hrp, &self.0).map_err(|_| refused)
    }
}

/// The bytes of a code and what stands in them.
struct Read(Zeroizing<Vec<u8>>);

impl Read {
    fn new(prefix: &'static str, text: &str) -> Result<Self, CodeError> {
        if text.len() > MAX_CODE {
            return Err(CodeError::TooLong { got: text.len() });
        }
        let parsed = CheckedHrpstring::new::<Bech32>(text)
            .map_err(|_| CodeError::Bech32 { expected: prefix })?;
        let got = parsed.hrp().to_lowercase();
        if got != prefix {
            return Err(CodeError::Prefix { expected: prefix, got });
        }
        let read = Self(Zeroizing::new(parsed.byte_iter().collect()));
        read.all().try_for_each(|tlv| tlv.map(drop))?;
        Ok(read)
    }

    /// Each TLV in its order.
    fn all(&self) -> impl Iterator<Item = Result<(u8, &[u8]), CodeError>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (kind, tail) = rest.split_first()?;
            let cut = CodeError::Cut { kind: *kind };
            let value = tail
                .split_first()
                .and_then(|(length, tail)| tail.split_at_checked(usize::from(*length)));
            let Some((value, tail)) = value else {
                rest = &[];
                return Some(Err(cut));
            };
            rest = tail;
            Some(Ok((*kind, value)))
        })
    }

    fn find(&self, wanted: u8) -> Option<&[u8]> {
        self.all().flatten().find_map(|(kind, value)| (kind == wanted).then_some(value))
    }

    fn text(&self, kind: u8) -> Result<Option<String>, CodeError> {
        let read = |value: &[u8]| String::from_utf8(value.to_vec());
        let text = self.find(kind).map(read).transpose();
        text.map_err(|_| CodeError::Value { kind, what: "UTF-8" })
    }

    fn pubkey(&self) -> Result<PubKey, CodeError> {
        let value = self.find(PUBKEY);
        let value = value.ok_or(CodeError::Missing { kind: PUBKEY, what: "public key" })?;
        let what = "a public key of 32 bytes";
        let bytes: [u8; 32] =
            value.try_into().map_err(|_| CodeError::Value { kind: PUBKEY, what })?;
        Ok(PubKey::new(nostr::PublicKey::from_byte_array(bytes))?)
    }

    fn relay(&self) -> Result<String, CodeError> {
        self.text(RELAY)?.ok_or(CodeError::Missing { kind: RELAY, what: "relay" })
    }
}

/// An amount as the reference SDK writes it, in four bytes, or in eight where it needs them.
fn price(sats: Sats) -> Vec<u8> {
    match u32::try_from(sats.0) {
        Ok(small) => small.to_be_bytes().to_vec(),
        Err(_) => sats.0.to_be_bytes().to_vec(),
    }
}

impl OfferPointer {
    /// The code.
    ///
    /// # Errors
    /// [`CodeError::Value`] where relay or offer is longer than 255 bytes.
    pub fn encode(&self) -> Result<String, CodeError> {
        let mut tlvs = Tlvs::default();
        if let Some(sats) = self.price {
            tlvs.put(PRICE, &price(sats))?;
        }
        let price_type = match self.price_type {
            PriceType::Fixed => 0,
            PriceType::Variable => 1,
            PriceType::Spontaneous => 2,
        };
        tlvs.put(PRICE_TYPE, &[price_type])?;
        tlvs.put(POINTER, self.offer.as_bytes())?;
        tlvs.put(RELAY, self.relay.as_bytes())?;
        tlvs.put(PUBKEY, &self.pubkey.to_bytes())?;
        tlvs.encode(OFFER)
    }

    /// Reads a code.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn decode(text: &str) -> Result<Self, CodeError> {
        let read = Read::new(OFFER, text)?;
        let price = match read.find(PRICE) {
            None => None,
            Some(bytes) => {
                let what = "an amount of 1 to 8 bytes";
                let wrong = CodeError::Value { kind: PRICE, what };
                let mut full = [0; 8];
                let free = full.len().checked_sub(bytes.len()).filter(|free| *free < 8);
                let place = free.and_then(|free| full.get_mut(free..)).ok_or(wrong)?;
                place.copy_from_slice(bytes);
                Some(Sats(u64::from_be_bytes(full)))
            }
        };
        let price_type = match read.find(PRICE_TYPE) {
            Some([0]) => PriceType::Fixed,
            Some([1]) => PriceType::Variable,
            Some([2]) => PriceType::Spontaneous,
            // an amount without a type can only be a fixed one
            None if price.is_some() => PriceType::Fixed,
            None => PriceType::Spontaneous,
            Some(_) => return Err(CodeError::Value { kind: PRICE_TYPE, what: "0, 1 or 2" }),
        };
        let offer = read.text(POINTER)?;
        Ok(Self {
            pubkey: read.pubkey()?,
            relay: read.relay()?,
            offer: offer.ok_or(CodeError::Missing { kind: POINTER, what: "offer" })?,
            price_type,
            price,
        })
    }
}

impl DebitPointer {
    /// The code.
    ///
    /// # Errors
    /// [`CodeError::Value`] where relay or pointer is longer than 255 bytes.
    pub fn encode(&self) -> Result<Ndebit, CodeError> {
        let mut tlvs = Tlvs::default();
        if let Some(k1) = &self.k1 {
            tlvs.put(SESSION, k1.as_slice())?;
        }
        if let Some(pointer) = &self.pointer {
            tlvs.put(POINTER, pointer.as_bytes())?;
        }
        tlvs.put(RELAY, self.relay.as_bytes())?;
        tlvs.put(PUBKEY, &self.pubkey.to_bytes())?;
        tlvs.encode(DEBIT).map(Ndebit::new)
    }

    /// Reads a code.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn decode(text: &str) -> Result<Self, CodeError> {
        let read = Read::new(DEBIT, text)?;
        let k1 = match read.find(SESSION) {
            None => None,
            Some(value) => {
                let what = "a session of 32 bytes";
                let bytes = value.try_into();
                Some(Zeroizing::new(bytes.map_err(|_| CodeError::Value { kind: SESSION, what })?))
            }
        };
        Ok(Self { pubkey: read.pubkey()?, relay: read.relay()?, pointer: read.text(POINTER)?, k1 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_keys;

    fn key(n: u8) -> PubKey {
        test_keys::keys(n).1
    }

    const WALLET: &str = "71b70bace4867c80be6b083d449c37486f33790df0ea4bbe6e9ce617bee34b66";
    const RELAY: &str = "wss://relay.example.com";

    /// Made by the reference SDK and by another implementation of the specification.
    const FIXED: &str = "noffer1qszqqqqraqpszqqzp9hkven9wf0kzcnrqythwumn8ghj7un9d3shjtn90psk6urvv5\
        hxxmmdqqs8rdct4njgvlyqhe4ss02ynsm5smen0yxlp6jthehfeeshhm35kes9yppf9";
    const STATIC: &str = "ndebit1qgy8xar0wfj47dpjqythwumn8ghj7un9d3shjtn90psk6urvv5hxxmmdqqs8rdct4nj\
        gvlyqhe4ss02ynsm5smen0yxlp6jthehfeeshhm35kesh4xxz5";
    const SESSION: &str = "ndebit1qvsqzg69v7y6hn00qy352euf40x77qfrg4ncn27dauqjx3t83x4ummczppehgmmjv40\
        ngvspzamhxue69uhhyetvv9ujuetcv9khqmr99e3k7mgqypcmwzavujr8eq97dvyr63yuxayx7vmephcw5ja7d6wwv9a7\
        ud9kvg6dys8";
    /// A service of the reference implementation, as its SDK's documentation shows it.
    const SPONTANEOUS: &str = "noffer1qvqsyqjqxuurvwpcxc6rvvrxxsurqep5vfjk2wf4v33nsenrxumnyvesxfnrswfk\
        vycrwdp3x93xydf5xg6rzce4vv6xgdfh8quxgct9x5erxvspremhxue69uhhgetnwskhyetvv9ujumrfva58gmnfdenju\
        ur4vgqzpccxc30wpf78wf2q78wg3vq008fd8ygtl4qy06gstpye3h5unc47xmee6z";

    /// Loss prevented: a customer whose wallet reads another code than we write.
    #[test]
    fn the_codes_of_others_read_and_ours_are_the_same() {
        let (pubkey, relay) = (WALLET.parse().unwrap(), RELAY.to_owned());
        let fixed = OfferPointer {
            pubkey,
            relay: relay.clone(),
            offer: "offer_abc".into(),
            price_type: PriceType::Fixed,
            price: Some(Sats(1_000)),
        };
        assert_eq!(OfferPointer::decode(FIXED).unwrap(), fixed);
        assert_eq!(fixed.encode().unwrap(), FIXED);
        let debit = DebitPointer { pubkey, relay, pointer: Some("store_42".into()), k1: None };
        assert_eq!(DebitPointer::decode(STATIC).unwrap(), debit);
        assert_eq!(debit.encode().unwrap().expose(), STATIC);
        let k1 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let k1 = crate::ids::from_hex::<32>("k1", k1).unwrap();
        let session = DebitPointer { k1: Some(Zeroizing::new(k1)), ..debit };
        assert_eq!(DebitPointer::decode(SESSION).unwrap(), session);
        assert_eq!(session.encode().unwrap().expose(), SESSION);
        assert_eq!(DebitPointer::decode(&SESSION.to_uppercase()).unwrap(), session);
        let other = OfferPointer::decode(SPONTANEOUS).unwrap();
        assert_eq!(other.relay, "wss://test-relay.lightning.pub");
        assert_eq!((other.price_type, other.price), (PriceType::Spontaneous, None));
        let debug = format!("{session:?}");
        assert!(!debug.contains("01, 35") && !debug.contains("0123"), "{debug}");
    }

    fn bech32m(prefix: &str, bytes: &[u8]) -> String {
        bech32::encode::<bech32::Bech32m>(Hrp::parse(prefix).unwrap(), bytes).unwrap()
    }

    fn bech32(prefix: &str, bytes: &[u8]) -> String {
        bech32::encode::<Bech32>(Hrp::parse(prefix).unwrap(), bytes).unwrap()
    }

    /// Loss prevented: a damaged code that is read as another offer or session.
    #[test]
    fn each_damage_is_named() {
        let good = [&[0, 32][..], &key(1).to_bytes(), &[1, 1, b'r', 2, 1, b'o']].concat();
        assert!(OfferPointer::decode(&bech32("noffer", &good)).is_ok());
        let with = |more: &[u8]| OfferPointer::decode(&bech32("noffer", &[&good, more].concat()));
        assert!(matches!(with(&[3]), Err(CodeError::Cut { kind: 3 })));
        assert!(matches!(with(&[9, 2, 0]), Err(CodeError::Cut { kind: 9 })));
        assert!(matches!(with(&[3, 1, 9]), Err(CodeError::Value { kind: 3, .. })));
        assert!(matches!(with(&[3, 0]), Err(CodeError::Value { kind: 3, .. })));
        assert!(matches!(with(&[4, 0]), Err(CodeError::Value { kind: 4, .. })));
        let nine = [4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(matches!(with(&nine), Err(CodeError::Value { kind: 4, .. })));
        let unknown = with(&[77, 1, 0, 4, 2, 1, 0]).unwrap();
        assert_eq!((unknown.price_type, unknown.price), (PriceType::Fixed, Some(Sats(256))));
        for (bytes, kind) in [(&good[34..], 0), (&good[..34], 1), (&good[..37], 2)] {
            let refused = OfferPointer::decode(&bech32("noffer", bytes));
            let named = match &refused {
                Err(CodeError::Missing { kind, .. }) => Some(*kind),
                _ => None,
            };
            // the offer is looked for first
            assert!(named == Some(kind) || named == Some(2), "{refused:?}");
        }
        let short = bech32("ndebit", &[&good[..], &[3, 31], &[7; 31]].concat());
        assert!(matches!(DebitPointer::decode(&short), Err(CodeError::Value { kind: 3, .. })));
        let off_curve = bech32("ndebit", &[&[0, 32][..], &[0xff; 32], &[1, 1, b'r']].concat());
        assert!(matches!(DebitPointer::decode(&off_curve), Err(CodeError::Key(_))));
        let wrong = OfferPointer::decode(SESSION);
        assert!(matches!(wrong, Err(CodeError::Prefix { .. })), "{wrong:?}");
        let bech32m = OfferPointer::decode(&bech32m("noffer", &good));
        assert!(matches!(bech32m, Err(CodeError::Bech32 { .. })), "{bech32m:?}");
        let long = OfferPointer::decode(&"q".repeat(5_001));
        assert!(matches!(long, Err(CodeError::TooLong { got: 5_001 })), "{long:?}");
        let long = OfferPointer {
            pubkey: key(1),
            relay: "r".repeat(256),
            offer: "o".into(),
            price_type: PriceType::Fixed,
            price: None,
        };
        assert!(matches!(long.encode(), Err(CodeError::Value { kind: 1, .. })));
    }

    proptest! {
        /// Loss prevented: a code that cannot be read back; a text from a camera that stops a program.
        #[test]
        fn what_is_written_reads_back(
            relay in "[ -~]{0,255}", offer in "\\PC{0,60}", price in any::<Option<u64>>(),
            k1 in any::<Option<[u8; 32]>>(), kind in 0..3usize,
        ) {
            let price_type =
                [PriceType::Fixed, PriceType::Variable, PriceType::Spontaneous][kind];
            let written = OfferPointer {
                pubkey: key(1), relay: relay.clone(), offer: offer.clone(), price_type,
                price: price.map(Sats),
            };
            let code = written.encode().unwrap();
            prop_assert_eq!(OfferPointer::decode(&code).unwrap(), written);
            let written = DebitPointer {
                pubkey: key(2), relay, pointer: Some(offer), k1: k1.map(Zeroizing::new),
            };
            let code = written.encode().unwrap();
            prop_assert_eq!(DebitPointer::decode(code.expose()).unwrap(), written);
        }

        #[test]
        fn anything_else_is_refused_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}",
        ) {
            let _ = OfferPointer::decode(&bech32("noffer", &bytes));
            let _ = DebitPointer::decode(&bech32("ndebit", &bytes));
            prop_assert!(OfferPointer::decode(&text).is_err());
            prop_assert!(DebitPointer::decode(&text).is_err());
        }
    }
}
