//! Receipts: what a machine states about one transaction, for anybody to check.
//!
//! Promise: a receipt is one text for a QR code, at most [`MAX_TEXT`] characters, that needs nothing
//! else to be checked: the vault key's signature over the transaction's figures, and beside it the
//! machine's own statement that named this vault. One receipt has one text: a changed byte is
//! refused, and so is another spelling of the same. It holds no secret: whoever photographs it
//! learns the deal and can take nothing that is owed on it. Format and a worked example:
//! `docs/receipt.md`.
//!
//! The figures follow from the machine's journal alone, so a receipt can be made again at any time;
//! signature and statement may then be other ones over the same figures.
//!
//! Failure policy: each way in which a text is no good receipt is a [`ReceiptError`]; figures come
//! out of [`SignedReceipt::check`] only. A transaction with more parts than fit is refused when the
//! receipt is made, never cut short in silence: what has a bound by its nature is bounded here, and
//! rates beyond the third are named as such.

mod code;
mod naming;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use thiserror::Error;

pub use self::naming::VaultNaming;
pub use self::words::Line;
use crate::canonical::{CanonicalError, Sig};
use crate::error::{Classified, Kind};
use crate::ids::{
    Digest, IdError, JournalHead, JournalSeq, PaymentHash, PubKey, TxnId, WithdrawId,
};
use crate::money::{Currency, Denomination, Direction, MoneyError, Origins, Rate, Sats};
use crate::split::{SplitError, wire_of};
use crate::statement::StatementError;
use crate::time::Unix;

/// Stands before the base45 text; the digit is the version.
pub const PREFIX: &str = "BSR1:";
/// Longest text, in characters; all of them are in the alphanumeric set of QR codes.
pub const MAX_TEXT: usize = 1_000;
/// Most values of notes on one receipt: no currency has as many in circulation.
pub const MAX_VALUES: usize = 12;
/// Most rates that are listed one by one.
pub const MAX_PRICES: usize = 3;

/// Why a text is no good receipt, or figures make none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Another text, or one of a later version.
    #[error("receipt: expected a text that begins with {PREFIX}, got {got:?}")]
    Prefix {
        /// How it begins.
        got: String,
    },
    /// Longer than any receipt.
    #[error("receipt: expected at most {MAX_TEXT} characters, got {got}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// Not base45 (RFC 9285).
    #[error("receipt: a character is missing or wrong: scan it again")]
    Text,
    /// Not the one encoding of a receipt.
    #[error("receipt: not as a machine writes it: {0}")]
    Form(String),
    /// A figure outside of what fits.
    #[error("receipt: {what}: expected {expected}, got {got}")]
    Figure {
        /// Which one.
        what: &'static str,
        /// What fits.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The vault did not sign these figures.
    #[error("receipt: its figures are not what the machine signed")]
    Signature(#[from] CanonicalError),
    /// The machine never named this vault.
    #[error("receipt: the machine did not name the vault that signed it")]
    Naming(#[from] StatementError),
    /// Of another machine than the one that was asked for.
    #[error("receipt: expected one of the machine {expected}, got one of {got}")]
    OtherMachine {
        /// The machine that was asked for, as an npub.
        expected: String,
        /// The receipt's.
        got: String,
    },
}

impl Classified for ReceiptError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

impl From<MoneyError> for ReceiptError {
    fn from(error: MoneyError) -> Self {
        Self::Form(error.to_string())
    }
}

impl From<IdError> for ReceiptError {
    fn from(error: IdError) -> Self {
        Self::Form(error.to_string())
    }
}

/// How the transaction stands, as of the receipt's journal position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was delivered.
    Done,
    /// What is named as owed was not delivered; the claim code brings it.
    Owed,
    /// Nobody knows what was delivered; what is named as owed is the most that it can be.
    Uncertain,
    /// Paid after its time: nothing was delivered, the payment is owed back.
    Late,
    /// Notes or sats wait for the customer.
    Waiting,
    /// Sats went out, and whether they arrived is not known.
    Unknown,
}

/// What ties a receipt to Lightning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// The invoice that the customer paid.
    PaymentHash(PaymentHash),
    /// The withdraw that the customer was promised.
    WithdrawId(WithdrawId),
}

/// A rate, and the part of the amount that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Price {
    /// The part, in minor units.
    pub fiat_minor: u64,
    /// Sats per major unit times 10^9.
    pub rate: Rate,
}

/// What a machine states about one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The machine.
    pub spire: PubKey,
    /// Its vault, which signs.
    pub vault: PubKey,
    /// The transaction.
    pub txid: TxnId,
    /// Which way the cash went.
    pub direction: Direction,
    /// How it stands.
    pub outcome: Outcome,
    /// The currency of all amounts of cash.
    pub currency: Currency,
    /// cash_out: what was bought; cash_in: what the machine took. In minor units.
    pub fiat_minor: u64,
    /// The rates. Where they do not add up to `fiat_minor`, the rest had further rates.
    pub prices: Vec<Price>,
    /// Who said the rates, and how long before.
    pub sources: Origins,
    /// Market value, before fees.
    pub principal_sats: Sats,
    /// The platform's part of the fee.
    pub platform_fee_sats: Sats,
    /// The operator's part of the fee.
    pub operator_fee_sats: Sats,
    /// The payment.
    pub reference: Option<Reference>,
    /// Notes given (cash_out) or taken (cash_in), by value in minor units.
    #[serde(serialize_with = "by_value")]
    pub notes: BTreeMap<Denomination, u16>,
    /// cash_out: delivered besides the counted notes, as the operator decided; in minor units.
    pub besides_minor: u64,
    /// Cash that was not delivered, in minor units; the most that it can be where nobody knows.
    pub owed_minor: u64,
    /// Sats that are owed or wait, where the amount is known in sats.
    pub owed_sats: Option<Sats>,
    /// When the transaction was opened.
    pub opened_at: Unix,
    /// When it came to stand so.
    pub ended_at: Unix,
    /// The journal entry that says so.
    pub journal_seq: JournalSeq,
    /// The journal's head there.
    pub journal_head: JournalHead,
}

/// JSON has no keys but texts.
fn by_value<S: Serializer>(notes: &BTreeMap<Denomination, u16>, s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(notes.iter().map(|(note, count)| (note.minor().to_string(), count)))
}

impl Receipt {
    /// What moved on Lightning by the deal: what the customer paid (cash_out) or was promised
    /// (cash_in).
    ///
    /// # Errors
    /// [`SplitError`] where the figures make no such amount.
    pub fn wire_sats(&self) -> Result<Sats, SplitError> {
        let fee = self.platform_fee_sats.plus(self.operator_fee_sats)?;
        wire_of(self.direction, self.principal_sats, fee)
    }

    /// Whether the claim code of the transaction brings something, or may.
    #[must_use]
    pub const fn is_claimable(&self) -> bool {
        !matches!(self.outcome, Outcome::Done)
    }

    /// Signs the receipt with the vault's key.
    ///
    /// # Errors
    /// [`ReceiptError`] where a figure does not fit, `vault` is another key, or `naming` is about
    /// another machine or vault.
    pub fn sign(
        &self,
        naming: VaultNaming,
        vault: &nostr::Keys,
    ) -> Result<SignedReceipt, ReceiptError> {
        let body = code::encode(self)?;
        let signed = SignedReceipt {
            receipt: self.clone(),
            sig: Sig::over(&signed_text(&body), vault),
            body,
            naming,
        };
        signed.check()?;
        Ok(signed)
    }
}

/// What the vault signs: the digest of the encoded figures, with their purpose.
fn signed_text(body: &[u8]) -> String {
    format!("bitspire-receipt:v1:{}", digest(body))
}

fn digest(body: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(body).into())
}

/// A receipt with its signature and the statement that names its signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    receipt: Receipt,
    body: Vec<u8>,
    sig: Sig,
    naming: VaultNaming,
}

impl SignedReceipt {
    /// Reads the text of a QR code. Line breaks and tabs in it, as pasting makes them, are passed
    /// over; spaces count, but for those around it.
    ///
    /// # Errors
    /// [`ReceiptError`]; nothing is checked yet but the form.
    pub fn read(text: &str) -> Result<Self, ReceiptError> {
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n' | '\t')).collect();
        let text = text.trim_matches(' ');
        let Some(coded) = text.strip_prefix(PREFIX) else {
            return Err(ReceiptError::Prefix { got: text.chars().take(8).collect() });
        };
        if text.len() > MAX_TEXT {
            return Err(ReceiptError::TooLong { got: text.len() });
        }
        let bytes = base45::decode(coded).map_err(|_| ReceiptError::Text)?;
        let read = code::open(&bytes)?;
        if read.text() != text {
            return Err(ReceiptError::Form("the same can be written shorter".to_owned()));
        }
        Ok(read)
    }

    /// The text for a QR code.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", base45::encode(code::seal(self)))
    }

    /// The receipt, if the vault signed it and the machine named that vault. That the machine is
    /// the one that is meant is the caller's to know, or [`check_of`](Self::check_of)'s.
    ///
    /// # Errors
    /// [`ReceiptError::Naming`], [`ReceiptError::Signature`].
    pub fn check(&self) -> Result<&Receipt, ReceiptError> {
        let Receipt { spire, vault, .. } = &self.receipt;
        self.naming.check(spire, vault)?;
        self.sig.verify("the receipt", &signed_text(&self.body), vault)?;
        Ok(&self.receipt)
    }

    /// The same, for a receipt of this machine.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`ReceiptError::OtherMachine`].
    pub fn check_of(&self, spire: &PubKey) -> Result<&Receipt, ReceiptError> {
        let receipt = self.check()?;
        if receipt.spire == *spire {
            return Ok(receipt);
        }
        Err(ReceiptError::OtherMachine { expected: spire.npub(), got: receipt.spire.npub() })
    }

    /// The statement that names the vault.
    #[must_use]
    pub const fn naming(&self) -> &VaultNaming {
        &self.naming
    }

    /// What identifies these figures: the digest that the vault signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.body)
    }
}
