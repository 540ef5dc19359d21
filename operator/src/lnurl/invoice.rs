//! Whether an invoice that a wallet names can be paid for a withdraw (LUD-03).
//!
//! Promise: pure; each refusal is a variant with the words for the wallet. An invoice that passes
//! is for exactly the promised amount, on our network, payable for at least another minute and
//! without conditions that we do not know. It has a payment secret; that it says so in a feature bit
//! is not asked for: everybody is assumed to know that one (BOLT 9), and some leave it out.

use bitspire_shared::ids::{Digest, PaymentHash};
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescriptionRef, Bolt11SemanticError, Currency,
    DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA, SignedRawBolt11Invoice,
};
use nostr::hashes::Hash as _;
use nostr::secp256k1::PublicKey;
use thiserror::Error;

use crate::wallet::bolt11::Head;

/// Seconds that must be left, or the payment could arrive after the end.
pub const MIN_LEFT_S: u64 = 60;

/// Seconds that may be left: a claim waits so long for a bound invoice that cannot be paid, whoever
/// named it. Wallets ask for an hour, a day or a week.
pub const MAX_LEFT_S: u64 = 31 * 86_400;

/// Blocks that a payee may ask for: more would lock the wallet's funds for more than a day.
pub const MAX_CLTV_DELTA: u64 = 144;

/// An invoice that may be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payable {
    /// The text without a `lightning:` prefix, in lower case.
    pub bolt11: String,
    /// What identifies the payment.
    pub payment_hash: PaymentHash,
    /// When it expires.
    pub expires_at: Unix,
    /// The node that is paid.
    pub payee: PublicKey,
}

/// Why an invoice is not paid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvoiceRefusal {
    /// No BOLT 11 invoice, or a damaged one.
    #[error("expected a BOLT 11 invoice: {0}")]
    Unreadable(String),
    /// For another chain.
    #[error("expected an invoice for {expected:?}, got one for {got:?}")]
    Network {
        /// Where our wallet is.
        expected: Currency,
        /// What the invoice says.
        got: Currency,
    },
    /// The payer would choose the amount.
    #[error("expected an invoice of {expected} sat, got one without an amount")]
    NoAmount {
        /// The promise.
        expected: Sats,
    },
    /// Another amount.
    #[error("expected an invoice of {expected} sat, got {got} msat")]
    Amount {
        /// The promise.
        expected: Sats,
        /// What it asks for.
        got: Msat,
    },
    /// Ended, or about to.
    #[error("expected at least {MIN_LEFT_S} s before the invoice expires, got {left_s} s")]
    Expiring {
        /// Seconds left.
        left_s: u64,
    },
    /// Would block the claim for too long if it cannot be paid.
    #[error("expected an invoice that expires within {MAX_LEFT_S} s, got {left_s} s")]
    Lasting {
        /// Seconds left.
        left_s: u64,
    },
    /// Conditions that we do not know.
    #[error("the invoice requires features that this wallet does not know")]
    Features,
    /// Of the node that would pay it, and that does not pay itself.
    #[error(
        "the invoice is of the very node that would pay it, which cannot pay itself: expected one \
         of a wallet elsewhere"
    )]
    OwnNode,
    /// Would lock our funds too long.
    #[error("expected min_final_cltv_expiry of at most {MAX_CLTV_DELTA} blocks, got {got}")]
    Cltv {
        /// What it asks for.
        got: u64,
    },
}

/// Reads `text` and checks it against what was promised; whether it is in time is
/// [`Payable::in_time`]'s.
///
/// # Errors
/// The first [`InvoiceRefusal`].
pub fn read(text: &str, net: Sats, network: &Currency) -> Result<Payable, InvoiceRefusal> {
    let text = text.trim().to_lowercase();
    let text = text.strip_prefix("lightning:").unwrap_or(&text);
    let signed: SignedRawBolt11Invoice =
        text.parse().map_err(|e| InvoiceRefusal::Unreadable(format!("{e}")))?;
    let unknown = signed.features().is_some_and(|features| features.requires_unknown_bits());
    match Bolt11Invoice::from_signed(signed.clone()) {
        Ok(_) => {}
        Err(Bolt11SemanticError::InvalidFeatures) if unknown => {
            return Err(InvoiceRefusal::Features);
        }
        // no bit for the payment secret, which it has
        Err(Bolt11SemanticError::InvalidFeatures) => {}
        Err(error) => return Err(InvoiceRefusal::Unreadable(error.to_string())),
    }
    let head = Head::of(&signed).map_err(InvoiceRefusal::Unreadable)?;
    let Head { payment_hash, amount, network: got, expires_at, payee } = head;
    if got != *network {
        return Err(InvoiceRefusal::Network { expected: network.clone(), got });
    }
    let got = amount.ok_or(InvoiceRefusal::NoAmount { expected: net })?;
    if got.to_sats_exact() != Some(net) {
        return Err(InvoiceRefusal::Amount { expected: net, got });
    }
    let delta = signed.min_final_cltv_expiry_delta().map(|delta| delta.0);
    let got = delta.unwrap_or(DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA);
    if got > MAX_CLTV_DELTA {
        return Err(InvoiceRefusal::Cltv { got });
    }
    Ok(Payable { bolt11: text.to_owned(), payment_hash, expires_at, payee })
}

impl Payable {
    /// Whether it can be bound now: neither about to expire nor to stay for long.
    ///
    /// # Errors
    /// [`InvoiceRefusal::Expiring`], [`InvoiceRefusal::Lasting`].
    pub fn in_time(&self, now: Unix) -> Result<(), InvoiceRefusal> {
        let left_s = self.expires_at.since(now);
        match left_s {
            0..MIN_LEFT_S => Err(InvoiceRefusal::Expiring { left_s }),
            MIN_LEFT_S..=MAX_LEFT_S => Ok(()),
            _ => Err(InvoiceRefusal::Lasting { left_s }),
        }
    }
}

/// The hash that an invoice carries in place of a description; `None` where it has a text.
///
/// # Errors
/// [`InvoiceRefusal::Unreadable`].
pub fn description_hash(bolt11: &str) -> Result<Option<Digest>, InvoiceRefusal> {
    let invoice: Bolt11Invoice =
        bolt11.parse().map_err(|e| InvoiceRefusal::Unreadable(format!("{e}")))?;
    Ok(match invoice.description() {
        Bolt11InvoiceDescriptionRef::Hash(hash) => Some(Digest::from_bytes(hash.0.to_byte_array())),
        Bolt11InvoiceDescriptionRef::Direct(_) => None,
    })
}

/// When an invoice that was checked before expires.
///
/// # Errors
/// [`InvoiceRefusal::Unreadable`].
pub fn expiry(bolt11: &str) -> Result<Unix, InvoiceRefusal> {
    Head::read(bolt11).map(|head| head.expires_at).map_err(InvoiceRefusal::Unreadable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lightning_invoice::{InvoiceBuilder, PaymentSecret, RawTaggedField, TaggedField};
    use nostr::hashes::sha256;
    use nostr::secp256k1::SecretKey;

    use super::*;

    const NOW: Unix = Unix(1_800_000_000);

    struct Asked {
        msat: Option<u64>,
        network: Currency,
        expiry_s: u64,
        cltv: u64,
    }

    const GOOD: Asked =
        Asked { msat: Some(75_795_000), network: Currency::Regtest, expiry_s: 600, cltv: 18 };

    fn invoice(asked: &Asked) -> String {
        built(asked).to_string()
    }

    fn key() -> SecretKey {
        SecretKey::from_slice(&[3; 32]).unwrap()
    }

    fn built(asked: &Asked) -> Bolt11Invoice {
        let builder = InvoiceBuilder::new(asked.network.clone())
            .description("wallet".into())
            .payment_hash(sha256::Hash::hash(b"preimage"))
            .payment_secret(PaymentSecret([7; 32]))
            .duration_since_epoch(Duration::from_secs(NOW.0))
            .min_final_cltv_expiry_delta(asked.cltv)
            .expiry_time(Duration::from_secs(asked.expiry_s));
        let builder = match asked.msat {
            Some(msat) => builder.amount_milli_satoshis(msat),
            None => builder,
        };
        let sign = |digest: &_| nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key());
        builder.build_signed(sign).unwrap()
    }

    /// The field `9` with these bits (BOLT 11): a tag, a length, and the bits, big-endian.
    fn features(bits: &[usize]) -> RawTaggedField {
        let groups = bits.iter().max().map_or(0, |bit| bit / 5 + 1);
        let mut field = vec![0_u8; 3 + groups];
        field[0] = 5;
        field[1] = u8::try_from(groups / 32).unwrap();
        field[2] = u8::try_from(groups % 32).unwrap();
        for bit in bits {
            field[2 + groups - bit / 5] |= 1 << (bit % 5);
        }
        let field = field.into_iter().map(|five| bech32::Fe32::try_from(five).unwrap());
        RawTaggedField::UnknownSemantics(field.collect())
    }

    /// A good invoice with other features; without its payment secret.
    fn featured(bits: Option<&[usize]>, secret: bool) -> String {
        let (mut raw, _, _) = built(&GOOD).into_signed_raw().into_parts();
        raw.data.tagged_fields.retain(|field| match field {
            RawTaggedField::KnownSemantics(TaggedField::Features(_)) => false,
            RawTaggedField::KnownSemantics(TaggedField::PaymentSecret(_)) => secret,
            _ => true,
        });
        raw.data.tagged_fields.extend(bits.map(features));
        let sign =
            |digest: &_| Ok::<_, ()>(nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key()));
        raw.sign(sign).unwrap().to_string()
    }

    fn verdict(asked: &Asked) -> Result<Payable, InvoiceRefusal> {
        let payable = read(&invoice(asked), Sats(75_795), &Currency::Regtest)?;
        payable.in_time(NOW).map(|()| payable)
    }

    /// Loss prevented: paying more than the notes were worth, or on a chain without value.
    #[test]
    fn only_the_promised_amount_on_our_network_is_paid() {
        let good = verdict(&GOOD).unwrap();
        assert_eq!(good.expires_at, Unix(NOW.0 + 600));
        assert_eq!(
            verdict(&Asked { msat: None, ..GOOD }),
            Err(InvoiceRefusal::NoAmount { expected: Sats(75_795) })
        );
        for msat in [75_794_000, 75_795_001, 75_796_000, 1] {
            let refused = verdict(&Asked { msat: Some(msat), ..GOOD });
            assert!(matches!(refused, Err(InvoiceRefusal::Amount { .. })), "{msat}: {refused:?}");
        }
        let refused = verdict(&Asked { network: Currency::Bitcoin, ..GOOD });
        assert!(matches!(refused, Err(InvoiceRefusal::Network { .. })), "{refused:?}");
    }

    /// Loss prevented: a payment that lands after the invoice's end, or that locks funds for days.
    #[test]
    fn an_invoice_leaves_a_minute_and_locks_nothing_for_long() {
        assert!(verdict(&Asked { expiry_s: 60, ..GOOD }).is_ok());
        let refused = verdict(&Asked { expiry_s: 59, ..GOOD });
        assert_eq!(refused, Err(InvoiceRefusal::Expiring { left_s: 59 }));
        assert!(verdict(&Asked { cltv: 144, ..GOOD }).is_ok());
        let refused = verdict(&Asked { cltv: 145, ..GOOD });
        assert_eq!(refused, Err(InvoiceRefusal::Cltv { got: 145 }));
    }

    /// Loss prevented: whoever sees a QR code binds an invoice without a payee that never expires,
    /// and the customer's claim is blocked for ever.
    #[test]
    fn an_invoice_blocks_a_claim_for_a_month_at_most() {
        assert!(verdict(&Asked { expiry_s: MAX_LEFT_S, ..GOOD }).is_ok());
        for expiry_s in [MAX_LEFT_S + 1, u64::MAX - NOW.0, u64::MAX] {
            let refused = verdict(&Asked { expiry_s, ..GOOD });
            assert!(matches!(refused, Err(InvoiceRefusal::Lasting { .. })), "{refused:?}");
        }
    }

    /// Loss prevented: an invoice is bound that no wallet of ours can pay, since it asks for something
    /// that was invented later, and its customer waits for its end; or a good one is refused.
    #[test]
    fn what_an_invoice_requires_must_be_known() {
        let verdict = |bits: Option<&[usize]>, secret| {
            read(&featured(bits, secret), Sats(75_795), &Currency::Regtest).map(|_| ())
        };
        // 8: onions of variable length; 14: payment secrets
        for bit in [30, 62, 256, 1_000] {
            let required = verdict(Some(&[8, 14, bit]), true);
            assert_eq!(required, Err(InvoiceRefusal::Features), "{bit}");
            assert_eq!(verdict(Some(&[8, 14, bit + 1]), true), Ok(()), "{bit} may be ignored");
        }
        for bits in [None, Some(&[][..]), Some(&[8, 14]), Some(&[9, 15])] {
            assert_eq!(verdict(bits, true), Ok(()), "{bits:?}");
            let refused = verdict(bits, false);
            assert!(matches!(refused, Err(InvoiceRefusal::Unreadable(_))), "{refused:?}");
        }
    }

    /// Loss prevented: a wallet's good invoice that is refused for its spelling; a bad one that is not.
    #[test]
    fn spellings_are_read_and_damage_is_seen() {
        let text = invoice(&GOOD);
        let shouted = format!("LIGHTNING:{}", text.to_uppercase());
        let shouted = read(&shouted, Sats(75_795), &Currency::Regtest).unwrap();
        assert_eq!(shouted.bolt11, text);
        assert_eq!(shouted.payee, key().public_key(nostr::SECP256K1));
        let last = if text.ends_with('q') { 'p' } else { 'q' };
        let damaged = format!("{}{last}", &text[..text.len() - 1]);
        let refused = read(&damaged, Sats(75_795), &Currency::Regtest);
        assert!(matches!(refused, Err(InvoiceRefusal::Unreadable(_))), "{refused:?}");
    }
}
