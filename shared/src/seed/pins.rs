//! What a machine trusts after pairing, and the digits by which people check it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Classified, Kind};
use crate::ids::PubKey;
use crate::money::Currency;

/// The keys and the currency that a machine pins once, at pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The machine's own identity.
    #[serde(rename = "spire_pubkey")]
    pub spire: PubKey,
    /// Signs configuration and verdicts.
    #[serde(rename = "operator_pubkey")]
    pub operator: PubKey,
    /// Answers requests and authorises a dispense.
    #[serde(rename = "service_pubkey")]
    pub service: PubKey,
    /// The only currency of the machine.
    #[serde(rename = "fiat_code")]
    pub currency: Currency,
}

/// What a seed of another producer did not bring: no machine is paired by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingPins {
    /// The machine's identity, which every seed brings.
    pub spire: PubKey,
    /// The operator key, if it came.
    pub operator: Option<PubKey>,
    /// The service key, if it came.
    pub service: Option<PubKey>,
    /// The currency, if it came.
    pub currency: Option<Currency>,
}

impl fmt::Display for MissingPins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = [
            (self.operator.is_none(), "the operator key"),
            (self.service.is_none(), "the service key"),
            (self.currency.is_none(), "the currency"),
        ];
        let names: Vec<&str> = missing.iter().filter(|(gone, _)| *gone).map(|(_, n)| *n).collect();
        write!(
            f,
            "the seed does not name {}, which a machine has to know before it trusts anybody: make \
             one with the operator's service",
            names.join(", ")
        )
    }
}

impl std::error::Error for MissingPins {}

impl Classified for MissingPins {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// The 8 decimal digits that the machine's screen and the pairing page both show, so that an
/// operator sees that the two ends speak of the same four keys.
///
/// SHA-256 over the 32-byte x-only keys in the order spire, client, vault, service; its first 8
/// bytes as a big-endian integer, modulo 10^8, with leading zeros. The modulo favours some values
/// by less than one part in 10^11, which is nothing against the 26 bits that 8 digits hold.
#[must_use]
pub fn confirmation_digits(
    spire: &PubKey,
    client: &PubKey,
    vault: &PubKey,
    service: &PubKey,
) -> String {
    let mut hash = Sha256::new();
    for key in [spire, client, vault, service] {
        hash.update(key.to_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let number = hash.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    format!("{:08}", number % 100_000_000)
}
