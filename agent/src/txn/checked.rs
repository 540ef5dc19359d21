//! What the service signed, checked against a transaction of our own.
//!
//! Promise: an [`Authorised`] or [`CheckedWithdraw`] exists only where the pinned service key signed
//! the text that the vault built from its own open transaction.

use bitspire_shared::canonical::{CanonicalError, Sig};
use bitspire_shared::clink::{DebitPointer, Ndebit, OfferPointer, PriceType};
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{PaymentHash, PubKey, TxnId, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::rpc::{DispenseAuthorisation, Lnurl, QuoteTerms, SignedText as _, Withdraw};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CashIn, CashOut};

/// Why a signed message is of no use to this transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The transaction has no invoice, or no notes, that it could be about.
    #[error("expected a transaction that waits for it, got {state}")]
    NotWaiting {
        /// The transaction's state.
        state: &'static str,
    },
    /// The signature is not the service's over what this transaction says.
    #[error("not signed by the pinned service for this transaction")]
    Signature(#[from] CanonicalError),
}

impl Classified for CheckError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Leave to dispense one transaction's notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorised {
    pub(super) txid: TxnId,
    pub(super) payment_hash: PaymentHash,
}

impl CashOut {
    /// Checks the service's leave to dispense against this transaction.
    ///
    /// # Errors
    /// [`CheckError`]: nothing is dispensed.
    pub fn check_authorisation(
        &self,
        sig: &Sig,
        vault: &PubKey,
        service: &PubKey,
    ) -> Result<Authorised, CheckError> {
        let state = self.state.name();
        let sale = self.state.sale().ok_or(CheckError::NotWaiting { state })?;
        let authorisation = DispenseAuthorisation {
            spire: sale.terms.spire,
            vault: *vault,
            txid: self.deal.txid,
            quote_id: sale.terms.quote_id,
            payment_hash: sale.payment_hash,
            wire_sats: sale.terms.wire_sats,
            fiat: self.deal.fiat,
        };
        authorisation.verify(sig, service)?;
        Ok(Authorised { txid: self.deal.txid, payment_hash: sale.payment_hash })
    }
}

/// A withdraw without its secret, as it is journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawFacts {
    /// The withdraw.
    pub withdraw_id: WithdrawId,
    /// What the customer gets.
    pub net_sats: Sats,
    /// The commission.
    pub fee_sats: Sats,
    /// Until when its LNURL can be used.
    pub expires_at: Unix,
}

/// The service's promise to pay one transaction's notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedWithdraw {
    pub(super) txid: TxnId,
    pub(super) facts: WithdrawFacts,
    pub(super) lnurl: Lnurl,
    pub(super) ndebit: Option<Ndebit>,
}

impl CashIn {
    /// Checks the service's promise to pay against this transaction. It names the machine by its key
    /// at the time: `spire`, which is another than the locks' where the machine was paired anew while
    /// its notes waited.
    ///
    /// # Errors
    /// [`CheckError`]: it is shown to nobody.
    pub fn check_withdraw(
        &self,
        withdraw: Withdraw,
        spire: &PubKey,
        vault: &PubKey,
        service: &PubKey,
    ) -> Result<CheckedWithdraw, CheckError> {
        let state = self.state.name();
        let lock = self.locks.first().ok_or(CheckError::NotWaiting { state })?;
        let signed = |spire| {
            let terms = withdraw.terms(spire, *vault, self.deal.txid);
            terms.verify(&withdraw.withdraw_sig, service)
        };
        signed(*spire).or_else(|_| signed(lock.spire))?;
        let facts = WithdrawFacts {
            withdraw_id: withdraw.withdraw_id,
            net_sats: withdraw.net_sats,
            fee_sats: withdraw.fee_sats,
            expires_at: withdraw.expires_at,
        };
        // the second way is shown only where it leads to the same place
        let pays = |code: &Ndebit| {
            DebitPointer::decode(code.expose()).is_ok_and(|debit| {
                debit.pubkey == *service
                    && debit.pointer == Some(withdraw.withdraw_id.to_string())
                    && debit.k1.is_some()
            })
        };
        let ndebit = withdraw.ndebit.clone().filter(pays);
        Ok(CheckedWithdraw { txid: self.deal.txid, facts, lnurl: withdraw.lnurl.clone(), ndebit })
    }
}

/// Whether a CLINK offer is of this very price: a second code that asks for more is not shown.
pub(super) fn is_offer_of(code: &str, terms: &QuoteTerms) -> bool {
    OfferPointer::decode(code).is_ok_and(|offer| {
        offer.offer == terms.quote_id.to_string()
            && offer.price_type == PriceType::Fixed
            && offer.price == Some(terms.wire_sats)
    })
}
