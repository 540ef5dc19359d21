//! Bodies and replies, a type for each.
//!
//! Promise: amounts that a machine sends are fiat and counts of notes; sats come from the service
//! alone. Which bodies are strict about unknown fields is said at the top of [`crate::rpc`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::canonical::Sig;
use crate::cash::BayResults;
use crate::clink::Ndebit;
use crate::ids::{
    ClaimHash, EventId, JournalHead, JournalSeq, PaymentHash, PubKey, QuoteId, TxnId, WithdrawId,
};
use crate::money::{Currency, Denomination, Direction, Fiat, MoneyError, Origins, Rate, Sats};
use crate::rpc::signed::{QuoteTerms, SignedText, VaultBody, VaultSigned, WithdrawTerms};
use crate::time::Unix;

/// Notes by denomination; the key on the wire is the denomination in minor units, as a string.
pub type Notes = BTreeMap<Denomination, u32>;

/// What `notes` are worth, in minor units.
///
/// # Errors
/// [`MoneyError::Overflow`].
pub fn notes_value(notes: &Notes) -> Result<i64, MoneyError> {
    notes.iter().try_fold(0i64, |sum, (note, count)| {
        let more = note.times(*count)?;
        sum.checked_add(more).ok_or(MoneyError::Overflow { what: "value of notes" })
    })
}

/// `get_quote`: a price for one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetQuote {
    /// Which way the cash goes.
    pub direction: Direction,
    /// The vault's transaction.
    pub txid: TxnId,
    /// cash_out: the amount. cash_in: the most that the machine would take under this lock.
    pub fiat_minor: i64,
    /// Its currency.
    pub fiat_code: Currency,
    /// Hash of the claim code that screen and receipt will carry.
    pub claim_hash: ClaimHash,
}

impl GetQuote {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.fiat_minor > 0 {
            return Ok(());
        }
        Err(format!("fiat_minor: expected more than 0, got {}", self.fiat_minor))
    }
}

/// Reply to `get_quote`.
///
/// For cash_in it locks a rate: `fiat_minor` is then what the service reserved, at most what was
/// asked for, `max_fiat_minor` repeats it, and the sats are those of that whole amount. So the
/// signature covers the maximum too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The stored quote.
    pub quote_id: QuoteId,
    /// Which way the cash goes.
    pub direction: Direction,
    /// The vault's transaction.
    pub txid: TxnId,
    /// The amount; for cash_in the most that may be taken under this lock.
    pub fiat_minor: i64,
    /// Its currency.
    pub fiat_code: Currency,
    /// Sats per major unit times 10^9.
    pub exchange_rate: Rate,
    /// Market value, before fees.
    pub principal_sats: Sats,
    /// The commission.
    pub fee_sats: Sats,
    /// What moves on Lightning.
    pub wire_sats: Sats,
    /// The fee document in force.
    pub fees_event_id: EventId,
    /// Seconds for which it holds, from the request on.
    pub ttl_s: u32,
    /// cash_in only: equal to `fiat_minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fiat_minor: Option<i64>,
    /// The service key's signature over the [`QuoteTerms`].
    pub quote_sig: Sig,
    /// Where the price came from; an older service does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<SignedOrigins>,
}

/// The sources of a price, as the service signed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrigins {
    /// The sources with the ages of their answers.
    pub sources: Origins,
    /// The service key's signature over the [`OriginTerms`](crate::rpc::OriginTerms).
    pub sig: Sig,
}

impl Quote {
    /// The reply that promises `terms` at a price of these sources, signed by the service.
    #[must_use]
    pub fn sign(terms: &QuoteTerms, sources: Origins, service: &nostr::Keys) -> Self {
        let sig = terms.origins(sources).sign(service);
        Self {
            origins: Some(SignedOrigins { sources, sig }),
            quote_id: terms.quote_id,
            direction: terms.direction,
            txid: terms.txid,
            fiat_minor: terms.fiat.minor,
            fiat_code: terms.fiat.currency,
            exchange_rate: terms.exchange_rate,
            principal_sats: terms.principal_sats,
            fee_sats: terms.fee_sats,
            wire_sats: terms.wire_sats,
            fees_event_id: terms.fees_event_id,
            ttl_s: terms.ttl_s,
            max_fiat_minor: match terms.direction {
                Direction::CashIn => Some(terms.fiat.minor),
                Direction::CashOut => None,
            },
            quote_sig: terms.sign(service),
        }
    }

    /// What it promises to the machine `spire`.
    #[must_use]
    pub const fn terms(&self, spire: PubKey) -> QuoteTerms {
        QuoteTerms {
            spire,
            quote_id: self.quote_id,
            direction: self.direction,
            txid: self.txid,
            fiat: Fiat::new(self.fiat_minor, self.fiat_code),
            exchange_rate: self.exchange_rate,
            principal_sats: self.principal_sats,
            fee_sats: self.fee_sats,
            wire_sats: self.wire_sats,
            fees_event_id: self.fees_event_id,
            ttl_s: self.ttl_s,
        }
    }
}

/// `create_invoice`: the service makes everything from the stored quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInvoice {
    /// The quote; it gets one invoice.
    pub quote_id: QuoteId,
}

/// Reply to `create_invoice`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// The invoice's payment hash.
    pub payment_hash: PaymentHash,
    /// The invoice (BOLT 11).
    pub bolt11: String,
    /// Its end.
    pub expires_at: Unix,
    /// The CLINK offer that brings the same invoice (`noffer1...`); absent where the service does not
    /// speak CLINK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noffer: Option<String>,
}

/// Notes credited under a lock that ended while the customer was still feeding notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNotes {
    /// The lock.
    pub quote_id: QuoteId,
    /// The notes credited under it.
    pub notes: Notes,
}

/// `create_withdraw`: the notes of one cash-in, claimed by the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateWithdraw {
    /// The lock under which `notes` were credited.
    pub quote_id: QuoteId,
    /// The vault's transaction; it gets one withdraw, for ever.
    pub txid: TxnId,
    /// The stacked notes.
    pub notes: Notes,
    /// Earlier locks of the same transaction with the notes that keep their rate; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<LockedNotes>,
    /// The notes' currency.
    pub fiat_code: Currency,
    /// The journal position of the claim.
    pub journal_seq: JournalSeq,
    /// The journal's head there.
    pub journal_head: JournalHead,
    /// Hash of the claim code on screen and receipt.
    pub claim_hash: ClaimHash,
}

impl VaultBody for CreateWithdraw {
    const PREFIX: &'static str = "bitspire-cashin:v1:";
    const WHAT: &'static str = "the cash-in claim";
}

impl CreateWithdraw {
    pub(super) fn validate(&self) -> Result<(), String> {
        let mut locks = vec![self.quote_id];
        let mut value = 0i64;
        let all = self.earlier.iter().map(|lot| &lot.notes).chain([&self.notes]);
        for notes in all {
            if notes.is_empty() || notes.values().any(|count| *count == 0) {
                return Err("notes: expected at least one note of each denomination named".into());
            }
            let lot = notes_value(notes).map_err(|e| e.to_string())?;
            value = value.checked_add(lot).ok_or("notes: their value does not fit")?;
        }
        for lot in &self.earlier {
            if locks.contains(&lot.quote_id) {
                return Err(format!("earlier: quote {} is named twice", lot.quote_id));
            }
            locks.push(lot.quote_id);
        }
        Ok(())
    }
}

/// An LNURL: whoever has it can claim the withdraw. Wiped when dropped; `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Zeroize, Serialize, Deserialize)]
#[zeroize(drop)]
#[serde(transparent)]
pub struct Lnurl(String);

impl Lnurl {
    /// Takes an encoded LNURL (LUD-01 or LUD-17).
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

impl fmt::Debug for Lnurl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lnurl(redacted)")
    }
}

/// Reply to `create_withdraw`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// The withdraw.
    pub withdraw_id: WithdrawId,
    /// Where the customer claims it.
    pub lnurl: Lnurl,
    /// The CLINK debit that claims the same, with the same session (`ndebit1...`); absent where the
    /// service does not speak CLINK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndebit: Option<Ndebit>,
    /// What the customer gets.
    pub net_sats: Sats,
    /// The commission.
    pub fee_sats: Sats,
    /// Until when the LNURL can be used.
    pub expires_at: Unix,
    /// The service key's signature over the [`WithdrawTerms`].
    pub withdraw_sig: Sig,
}

impl Withdraw {
    /// What it promises for the transaction `txid` of the vault `vault`.
    #[must_use]
    pub const fn terms(&self, spire: PubKey, vault: PubKey, txid: TxnId) -> WithdrawTerms {
        WithdrawTerms {
            spire,
            vault,
            txid,
            withdraw_id: self.withdraw_id,
            net_sats: self.net_sats,
            expires_at: self.expires_at,
        }
    }
}

/// `get_payment`: how an invoice or a withdraw of the caller's own machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GetPayment {
    /// An invoice, by its payment hash.
    PaymentHash(PaymentHash),
    /// A withdraw.
    WithdrawId(WithdrawId),
}

/// How a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Not paid, may still be.
    Pending,
    /// Paid in time and recorded.
    Settled,
    /// Paid after its time: never dispensed, owed to the customer.
    Late,
    /// Finally not paid.
    Failed,
    /// Its time is over, unpaid.
    Expired,
    /// The wallet cannot say.
    Unknown,
}

/// Reply to `get_payment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// How it stands.
    pub state: PaymentState,
    /// What moved on Lightning; null while nothing is known to have moved.
    pub wire_sats: Option<Sats>,
    /// A settled cash_out: the service key's signature over the
    /// [`DispenseAuthorisation`](crate::rpc::DispenseAuthorisation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorisation: Option<Sig>,
}

/// How a dispense ended, as the vault states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DispenseOutcome {
    /// Everything was delivered.
    Full,
    /// A part; the rest is owed.
    Partial,
    /// Nothing.
    None,
    /// Nobody knows; a person decides.
    Uncertain,
}

/// `report_dispense`: where the notes of one paid cash-out went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispenseReport {
    /// The vault's transaction.
    pub txid: TxnId,
    /// The invoice that was paid.
    pub payment_hash: PaymentHash,
    /// How it ended.
    pub outcome: DispenseOutcome,
    /// Each bay's notes; null where the device cannot tell.
    pub bays: BayResults,
    /// What the customer did not get, in minor units of the quote's currency.
    pub owed_minor: i64,
    /// The journal position of the end.
    pub journal_seq: JournalSeq,
    /// The journal's head there.
    pub journal_head: JournalHead,
}

impl VaultBody for DispenseReport {
    const PREFIX: &'static str = "bitspire-dispensed:v1:";
    const WHAT: &'static str = "the dispense report";
}

impl DispenseReport {
    /// Refuses only what contradicts itself: a report is evidence and must get through.
    pub(super) fn validate(&self) -> Result<(), String> {
        let (outcome, owed) = (self.outcome, self.owed_minor);
        if owed < 0 || (owed > 0 && outcome == DispenseOutcome::Full) {
            return Err(format!("owed_minor: {owed} cannot be, with the outcome {outcome:?}"));
        }
        Ok(())
    }
}

/// Reply where there is nothing to say but OK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {}

/// The strict bodies with a vault signature, as they travel.
pub(super) type SignedWithdraw = VaultSigned<CreateWithdraw>;
/// See [`SignedWithdraw`].
pub(super) type SignedDispense = VaultSigned<DispenseReport>;
