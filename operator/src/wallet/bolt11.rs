//! What an invoice says at its head, whoever made it.
//!
//! Promise: text and signature hold. Its feature bits are not judged, unlike where a customer names
//! an invoice: LNbits' FakeWallet writes none.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Msat;
use bitspire_shared::time::Unix;
use lightning_invoice::{Currency, SignedRawBolt11Invoice};
use nostr::hashes::Hash as _;
use nostr::secp256k1::PublicKey;

/// Seconds until an invoice expires that does not say (BOLT 11).
const EXPIRY_S: u64 = 3_600;

/// What a payment needs of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) payment_hash: PaymentHash,
    /// `None` where the payer chooses.
    pub(crate) amount: Option<Msat>,
    pub(crate) network: Currency,
    pub(crate) expires_at: Unix,
    /// The node that is paid: as the invoice names it, else as its signature does.
    pub(crate) payee: PublicKey,
}

impl Head {
    /// Reads one.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let signed: SignedRawBolt11Invoice =
            text.parse().map_err(|e| format!("expected a BOLT 11 invoice: {e}"))?;
        Self::of(&signed)
    }

    /// Of one whose text was read.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn of(signed: &SignedRawBolt11Invoice) -> Result<Self, String> {
        let unsigned = || "expected a BOLT 11 invoice with its payee's signature".to_owned();
        if !signed.check_signature() {
            return Err(unsigned());
        }
        let raw = signed.raw_invoice();
        let hash = raw.payment_hash().ok_or("expected an invoice with a payment hash")?;
        let amount = match raw.amount_pico_btc() {
            Some(pico) if !pico.is_multiple_of(10) => {
                return Err(format!("expected whole millisats, got {pico} pico-BTC"));
            }
            Some(pico) => Some(Msat(pico / 10)),
            None => None,
        };
        let payee = match raw.payee_pub_key() {
            Some(named) => named.0,
            None => signed.recover_payee_pub_key().map_err(|_| unsigned())?.0,
        };
        let lasts_s = raw.expiry_time().map_or(EXPIRY_S, |lasts| lasts.as_duration().as_secs());
        Ok(Self {
            payment_hash: PaymentHash::from_bytes(hash.0.to_byte_array()),
            amount,
            network: raw.currency(),
            expires_at: Unix(raw.data.timestamp.as_unix_timestamp()).after(lasts_s),
            payee,
        })
    }
}

/// Made by LNbits 1.6.2 with FakeWallet.
#[cfg(test)]
pub(super) const FAKE: &str = "lnbc10u1p4sr8qgdqz0qxqzjcsp52m5p0rmte93jetjuc3hzakrwdelsfm5zw4473kzhehxe22vv343spp5mq054l2dv0ypgxjs3x9ndz9etmgjyhaq48kfrf80lfcepn9qh20sywk6l944sc08jwkqumsf6ax05wrkxfj2e7cw3uk3d6zd9ypvruk94twp26kr8ganccm02vkcypc356fwm435x3yvulrfmgfrepcg4vqqlaepfu";

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a sale that is stuck on an invoice that every wallet can pay; or one that was
    /// changed on its way.
    #[test]
    fn an_invoice_without_features_is_read_and_a_damaged_one_is_not() {
        let head = Head::read(FAKE).unwrap();
        let hash = "d81f4afd4d63c8141a50898b3688b95ed1225fa0a9ec91a4effa7190cca0ba9f";
        assert_eq!(head.payment_hash, hash.parse().unwrap());
        assert_eq!((head.amount, head.network), (Some(Msat(1_000_000)), Currency::Bitcoin));
        // 2026-11-21T13:36:32Z
        assert_eq!(head.expires_at, Unix(1_795_268_192));
        assert!(Head::read(&FAKE.replacen("10u", "20u", 1)).is_err());
        assert!(Head::read("lnbcrt1nonsense").is_err());
    }
}
