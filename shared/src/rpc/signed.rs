//! The strings that are signed, built from typed fields.
//!
//! Promise: each text has one purpose (its prefix), one version, and no field that could hold a
//! `:`, so that no two statements share a text. A body that the vault signed cannot be used before
//! its signature was checked.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;

use crate::canonical::{CanonicalError, Sig, canonical_text};
use crate::ids::{EventId, PaymentHash, PubKey, QuoteId, TxnId, WithdrawId};
use crate::money::{Direction, Fiat, Origins, Rate, Sats};
use crate::time::Unix;

/// Fields that make up one signed text.
pub trait SignedText {
    /// What is signed, in the words of an error.
    const WHAT: &'static str;

    /// The exact text.
    fn text(&self) -> String;

    /// Signs the text (BIP-340 over its SHA-256).
    fn sign(&self, keys: &nostr::Keys) -> Sig {
        Sig::over(&self.text(), keys)
    }

    /// Checks that `key` signed the text.
    ///
    /// # Errors
    /// [`CanonicalError::BadSignature`].
    fn verify(&self, sig: &Sig, key: &PubKey) -> Result<(), CanonicalError> {
        sig.verify(Self::WHAT, &self.text(), key)
    }
}

/// What session and vault key both sign when a session is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionProof {
    /// The machine.
    pub spire: PubKey,
    /// The service that it speaks to.
    pub service: PubKey,
    /// The session's key.
    pub session: PubKey,
    /// The vault's key.
    pub vault: PubKey,
    /// The session's end.
    pub expires_at: Unix,
}

impl SignedText for SessionProof {
    const WHAT: &'static str = "the session proof";

    fn text(&self) -> String {
        let Self { spire, service, session, vault, expires_at } = self;
        format!("bitspire-session:v1:{spire}:{service}:{session}:{vault}:{}", expires_at.0)
    }
}

/// Everything that a quote promises; the service signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteTerms {
    /// The machine.
    pub spire: PubKey,
    /// The stored quote.
    pub quote_id: QuoteId,
    /// Which way the cash goes.
    pub direction: Direction,
    /// The vault's transaction.
    pub txid: TxnId,
    /// The amount; for cash_in the most that may be taken under this lock.
    pub fiat: Fiat,
    /// The price.
    pub exchange_rate: Rate,
    /// Market value of `fiat`, before fees.
    pub principal_sats: Sats,
    /// The commission on it.
    pub fee_sats: Sats,
    /// What moves on Lightning.
    pub wire_sats: Sats,
    /// The fee document in force.
    pub fees_event_id: EventId,
    /// Seconds from the request on for which it holds.
    pub ttl_s: u32,
}

impl QuoteTerms {
    /// What is signed about the sources of the price.
    #[must_use]
    pub const fn origins(&self, origins: Origins) -> OriginTerms {
        let Self { spire, quote_id, exchange_rate, .. } = *self;
        OriginTerms { spire, quote_id, exchange_rate, origins }
    }
}

impl SignedText for QuoteTerms {
    const WHAT: &'static str = "the quote";

    fn text(&self) -> String {
        let Self { spire, quote_id, direction, txid, fiat, fees_event_id, ttl_s, .. } = self;
        let Fiat { minor, currency } = fiat;
        let (rate, principal) = (self.exchange_rate.nano(), self.principal_sats);
        let (fee, wire) = (self.fee_sats, self.wire_sats);
        format!(
            "bitspire-quote:v1:{spire}:{quote_id}:{direction}:{txid}:{minor}:{currency}:{rate}:\
             {principal}:{fee}:{wire}:{fees_event_id}:{ttl_s}"
        )
    }
}

/// Where a quote's price came from; the service signs it beside the [`QuoteTerms`], whose text is
/// older than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginTerms {
    /// The machine.
    pub spire: PubKey,
    /// The stored quote.
    pub quote_id: QuoteId,
    /// Its price.
    pub exchange_rate: Rate,
    /// Its sources.
    pub origins: Origins,
}

impl SignedText for OriginTerms {
    const WHAT: &'static str = "the sources of the price";

    fn text(&self) -> String {
        let Self { spire, quote_id, exchange_rate, origins } = self;
        let each = origins.iter().map(|origin| format!(":{}:{}", origin.source, origin.age_s));
        let each: String = each.collect();
        format!("bitspire-origins:v1:{spire}:{quote_id}:{}{each}", exchange_rate.nano())
    }
}

/// The service's promise to pay a withdraw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithdrawTerms {
    /// The machine.
    pub spire: PubKey,
    /// Its vault.
    pub vault: PubKey,
    /// The vault's transaction.
    pub txid: TxnId,
    /// The withdraw.
    pub withdraw_id: WithdrawId,
    /// What the customer gets.
    pub net_sats: Sats,
    /// Until when the LNURL can be used.
    pub expires_at: Unix,
}

impl SignedText for WithdrawTerms {
    const WHAT: &'static str = "the withdraw";

    fn text(&self) -> String {
        let Self { spire, vault, txid, withdraw_id, net_sats, expires_at } = self;
        format!(
            "bitspire-withdraw:v1:{spire}:{vault}:{txid}:{withdraw_id}:{net_sats}:{}",
            expires_at.0
        )
    }
}

/// The service's leave to dispense: the payment is durable and was accepted. The vault fills in
/// what its own open transaction says and checks the signature over that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispenseAuthorisation {
    /// The machine.
    pub spire: PubKey,
    /// Its vault.
    pub vault: PubKey,
    /// The vault's transaction.
    pub txid: TxnId,
    /// Its quote.
    pub quote_id: QuoteId,
    /// The invoice that was paid.
    pub payment_hash: PaymentHash,
    /// What was paid.
    pub wire_sats: Sats,
    /// What to dispense, exactly.
    pub fiat: Fiat,
}

impl SignedText for DispenseAuthorisation {
    const WHAT: &'static str = "the dispense authorisation";

    fn text(&self) -> String {
        let Self { spire, vault, txid, quote_id, payment_hash, wire_sats, fiat } = self;
        let Fiat { minor, currency } = fiat;
        format!(
            "bitspire-dispense:v1:{spire}:{vault}:{txid}:{quote_id}:{payment_hash}:{wire_sats}:\
             {minor}:{currency}"
        )
    }
}

/// A body that the vault signs.
pub trait VaultBody: Serialize + DeserializeOwned {
    /// Stands before the canonical JSON in the signed text.
    const PREFIX: &'static str;
    /// What is signed, in the words of an error.
    const WHAT: &'static str;
}

/// The field that holds the vault's signature.
const VAULT_SIG: &str = "vault_sig";

/// A body with its `vault_sig`, over the canonical JSON of the body without it.
///
/// The body comes out of [`check`](Self::check) only. The JSON is kept as it came, so that fields
/// that this version does not know are signed too.
#[derive(Clone, PartialEq)]
pub struct VaultSigned<T> {
    body: T,
    json: Value,
    sig: Sig,
}

impl<T: VaultBody> VaultSigned<T> {
    /// Signs `body` with the vault's key.
    ///
    /// # Errors
    /// [`CanonicalError`] where a number is beyond what JSON readers keep exact.
    pub fn sign(body: T, vault: &nostr::Keys) -> Result<Self, CanonicalError> {
        let json = serde_json::to_value(&body).map_err(|e| CanonicalError::Json(e.to_string()))?;
        let sig = Sig::over(&signed_text::<T>(&json)?, vault);
        Ok(Self { body, json, sig })
    }

    /// The body, if `vault` signed it.
    ///
    /// # Errors
    /// [`CanonicalError::BadSignature`], or another where the body has no canonical form.
    pub fn check(&self, vault: &PubKey) -> Result<&T, CanonicalError> {
        self.sig.verify(T::WHAT, &signed_text::<T>(&self.json)?, vault)?;
        Ok(&self.body)
    }

    /// The body, if `vault` signed it, and the JSON with its signature, as it came.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn into_checked(self, vault: &PubKey) -> Result<(T, Value), CanonicalError> {
        self.check(vault)?;
        let json = with_sig(self.json, self.sig)?;
        Ok((self.body, json))
    }

    /// The vault's signature, for whoever keeps it as evidence.
    #[must_use]
    pub const fn sig(&self) -> Sig {
        self.sig
    }

    /// The body before anybody checked it, for this module's own checks of values.
    pub(super) const fn unchecked(&self) -> &T {
        &self.body
    }
}

impl<T> VaultSigned<T> {
    /// The body with its signature, as it came.
    ///
    /// # Errors
    /// Never for what was read or signed here: a body is a JSON object.
    pub fn to_json(&self) -> Result<Value, CanonicalError> {
        with_sig(self.json.clone(), self.sig)
    }
}

fn with_sig(mut json: Value, sig: Sig) -> Result<Value, CanonicalError> {
    let fail = |what: String| CanonicalError::Json(what);
    let sig = serde_json::to_value(sig).map_err(|e| fail(e.to_string()))?;
    match &mut json {
        Value::Object(fields) => fields.insert(VAULT_SIG.into(), sig),
        _ => return Err(fail("a signed body is a JSON object".into())),
    };
    Ok(json)
}

fn signed_text<T: VaultBody>(json: &Value) -> Result<String, CanonicalError> {
    Ok(format!("{}{}", T::PREFIX, canonical_text(json)?))
}

impl<T: fmt::Debug> fmt::Debug for VaultSigned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultSigned").field("body", &self.body).field("sig", &self.sig).finish()
    }
}

impl<T> Serialize for VaultSigned<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.to_json().map_err(ser::Error::custom)?.serialize(s)
    }
}

impl<'de, T: VaultBody> Deserialize<'de> for VaultSigned<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(d)?;
        let sig = fields.remove(VAULT_SIG).ok_or_else(|| de::Error::missing_field(VAULT_SIG))?;
        let sig = Sig::deserialize(sig).map_err(de::Error::custom)?;
        let json = Value::Object(fields);
        let body = T::deserialize(&json).map_err(de::Error::custom)?;
        Ok(Self { body, json, sig })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{JournalHead, JournalSeq};
    use crate::rpc::fixtures::{key, keys, quote_terms};
    use crate::rpc::{CreateWithdraw, fixtures};

    fn authorisation() -> DispenseAuthorisation {
        let terms = quote_terms(Direction::CashOut);
        DispenseAuthorisation {
            spire: key(1),
            vault: key(4),
            txid: terms.txid,
            quote_id: terms.quote_id,
            payment_hash: PaymentHash::from_bytes([7; 32]),
            wire_sats: terms.wire_sats,
            fiat: terms.fiat,
        }
    }

    /// Loss prevented: one side builds another text, and every paid sale waits for a person.
    #[test]
    fn the_texts_are_the_contract() {
        let session = SessionProof {
            spire: key(1),
            service: key(2),
            session: key(3),
            vault: key(4),
            expires_at: Unix(1_800_000_000),
        };
        let withdraw = WithdrawTerms {
            spire: key(1),
            vault: key(4),
            txid: TxnId::from_bytes([1; 16]),
            withdraw_id: WithdrawId::from_bytes([2; 16]),
            net_sats: Sats(75_795),
            expires_at: Unix(1_800_000_000),
        };
        let texts = [
            session.text(),
            quote_terms(Direction::CashOut).text(),
            quote_terms(Direction::CashOut).origins(fixtures::origins()).text(),
            withdraw.text(),
            authorisation().text(),
        ];
        insta::assert_snapshot!(texts.join("\n"));
        assert_eq!(session.verify(&session.sign(&keys(3)), &key(3)), Ok(()));
        assert_eq!(withdraw.verify(&withdraw.sign(&keys(2)), &key(2)), Ok(()));
    }

    /// Loss prevented: an authorisation for another transaction, amount or machine pays notes out.
    #[test]
    fn an_authorisation_is_for_one_transaction_only() {
        let good = authorisation();
        let sig = good.sign(&keys(2));
        assert_eq!(good.verify(&sig, &key(2)), Ok(()));
        assert!(good.verify(&sig, &key(3)).is_err(), "by another key");
        let fiat = Fiat { minor: good.fiat.minor + 1, ..good.fiat };
        let others = [
            DispenseAuthorisation { spire: key(9), ..good },
            DispenseAuthorisation { vault: key(9), ..good },
            DispenseAuthorisation { txid: TxnId::from_bytes([9; 16]), ..good },
            DispenseAuthorisation { quote_id: QuoteId::from_bytes([9; 16]), ..good },
            DispenseAuthorisation { payment_hash: PaymentHash::from_bytes([9; 32]), ..good },
            DispenseAuthorisation { wire_sats: Sats(1), ..good },
            DispenseAuthorisation { fiat, ..good },
        ];
        for other in others {
            assert!(other.verify(&sig, &key(2)).is_err(), "{other:?}");
        }
    }

    /// Loss prevented: notes added to a signed cash-in claim on the way mint sats.
    #[test]
    fn a_changed_signed_body_does_not_check() {
        let signed = fixtures::create_withdraw();
        assert!(signed.check(&key(4)).is_ok());
        assert!(signed.check(&key(3)).is_err(), "by another key");
        let mut wire = serde_json::to_value(&signed).unwrap();
        assert!(wire["vault_sig"].is_string());
        let back: VaultSigned<CreateWithdraw> = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(back.check(&key(4)).unwrap(), signed.check(&key(4)).unwrap());
        wire["notes"]["2000"] = json!(99);
        let forged: VaultSigned<CreateWithdraw> = serde_json::from_value(wire.clone()).unwrap();
        assert!(matches!(forged.check(&key(4)), Err(CanonicalError::BadSignature { .. })));
        wire.as_object_mut().unwrap().remove("vault_sig");
        assert!(serde_json::from_value::<VaultSigned<CreateWithdraw>>(wire).is_err());
    }

    /// A later version of a body that may grow: one field more than this version knows.
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Later {
        journal_seq: JournalSeq,
        journal_head: JournalHead,
        more: u32,
    }
    impl VaultBody for Later {
        const PREFIX: &'static str = "bitspire-state:v1:";
        const WHAT: &'static str = "the state report";
    }
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Earlier {
        journal_seq: JournalSeq,
        journal_head: JournalHead,
    }
    impl VaultBody for Earlier {
        const PREFIX: &'static str = Later::PREFIX;
        const WHAT: &'static str = Later::WHAT;
    }

    /// Loss prevented: a machine upgraded before its service looks forged, and is switched off.
    #[test]
    fn a_field_that_this_version_does_not_know_is_signed_too() {
        let (journal_seq, journal_head) = (JournalSeq(7), JournalHead::from_bytes([5; 32]));
        let later = Later { journal_seq, journal_head, more: 1 };
        let signed = VaultSigned::sign(later, &keys(4)).unwrap();
        let wire = serde_json::to_value(&signed).unwrap();
        let read: VaultSigned<Earlier> = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(read.check(&key(4)), Ok(&Earlier { journal_seq, journal_head }));
        assert_eq!(serde_json::to_value(&read).unwrap(), wire);
    }
}
