//! Nostr Wallet Connect (NIP-47): any wallet, through a relay.
//!
//! Promise: a reply counts only if the wallet's key signed it for the very request; a payment is
//! taken for made when its preimage hashes to its payment hash, or when the wallet's own record says
//! so. What is to be kept beside an invoice stays with us: the relay's and the wallet's owner need
//! not know what is sold.
//!
//! States: `settled` and `failed` are ours, `expired` is failed for an invoice, everything else is
//! pending. "Failed" is final only when it was read twice, ten minutes apart, after the invoice's
//! end: the protocol does not say what a wallet knows when it says so. A payment that it does not
//! know, or knows as an incoming one, is unknown and never failed: `lookup_invoice` of some wallets
//! knows their own invoices only.
//!
//! Failure policy: without a connected relay nothing was sent: [`WalletError::Unreachable`]. A
//! request that was handed to a relay and has no reply that can be read is, for a payment,
//! [`WalletError::Unknown`]. The protocol has no fee limit: what routing may cost is set in the
//! wallet.

#[cfg(test)]
mod double;
mod line;
mod record;
#[cfg(test)]
mod tests;
mod uri;

use bitspire_shared::ids::{PaymentHash, from_hex};
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use nostr::hashes::{Hash as _, sha256};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::bolt11::Head;
use super::{
    Cursor, FailureRule, Flow, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet,
    WalletError, WalletResult,
};
use line::{CallError, Line};
use record::{Page, Record};
pub(crate) use uri::Uri;
pub use uri::UriError;

/// Records of one answer: relays carry small events.
const PAGE: usize = 20;
/// Pages of one reading of the list.
const PAGES: usize = 500;
/// How far back a list is read again, in seconds: wallets list by when an invoice was made, and it
/// is paid later.
const OVERLAP_S: u64 = 86_400;

/// What a wallet says of itself that nothing was done.
const DECLINED: [&str; 7] = [
    "INSUFFICIENT_BALANCE",
    "QUOTA_EXCEEDED",
    "RATE_LIMITED",
    "RESTRICTED",
    "UNAUTHORIZED",
    "NOT_IMPLEMENTED",
    "UNSUPPORTED_ENCRYPTION",
];

/// A wallet at the other end of a relay.
pub(crate) struct Nwc {
    id: String,
    network: Currency,
    clock: Clock,
    line: Line,
}

#[derive(Deserialize)]
struct Paid {
    preimage: String,
    #[serde(default)]
    fees_paid: u64,
}

#[derive(Deserialize)]
struct Balance {
    balance: u64,
}

impl Nwc {
    pub(crate) fn new(id: &str, uri: Uri, network: Currency, clock: Clock) -> Self {
        Self { id: id.to_owned(), network, line: Line::new(uri, clock.clone()), clock }
    }

    fn unreachable(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Unreachable { wallet: self.id.clone(), reason: reason.into() }
    }

    fn refused(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Refused { wallet: self.id.clone(), reason: reason.into() }
    }

    fn unknown(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Unknown { wallet: self.id.clone(), reason: reason.into() }
    }

    /// Asks for something that moves nothing.
    async fn read<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, WalletError> {
        match self.line.call(method, params).await {
            Ok(result) => serde_json::from_value(result)
                .map_err(|e| self.refused(format!("unexpected answer to {method}: {e}"))),
            Err(CallError::NotSent(words) | CallError::Lost(words)) => Err(self.unreachable(words)),
            Err(CallError::Said { code, words }) => Err(self.refused(format!("{code}: {words}"))),
        }
    }

    async fn make(&self, request: InvoiceRequest) -> Result<Invoice, WalletError> {
        let amount = request.amount.to_msat().map_err(|e| self.refused(e.to_string()))?;
        let params = json!({
            "amount": amount.0, "description": request.memo, "expiry": request.expiry_s,
        });
        let record: Record = self.read("make_invoice", params).await?;
        let bolt11 = record.invoice.unwrap_or_default();
        let head = Head::read(&bolt11).map_err(|e| self.refused(e))?;
        if head.amount != Some(amount) || head.network != self.network {
            let expected = format!("{} sat on {:?}", request.amount, self.network);
            return Err(self.refused(format!("expected an invoice of {expected}, got another")));
        }
        let Head { payment_hash, expires_at, .. } = head;
        Ok(Invoice { payment_hash, bolt11, expires_at })
    }

    async fn record(&self, hash: PaymentHash, flow: Flow) -> Result<Option<Payment>, WalletError> {
        let params = json!({"payment_hash": hash});
        let found = match self.line.call("lookup_invoice", params).await {
            Ok(found) => found,
            Err(CallError::Said { code, .. }) if code == "NOT_FOUND" => return Ok(None),
            Err(CallError::Said { code, words }) => {
                return Err(self.refused(format!("{code}: {words}")));
            }
            Err(CallError::NotSent(words) | CallError::Lost(words)) => {
                return Err(self.unreachable(words));
            }
        };
        let record: Record = serde_json::from_value(found)
            .map_err(|e| self.refused(format!("unexpected answer to lookup_invoice: {e}")))?;
        let payment = record.payment().map_err(|e| self.refused(e))?;
        if payment.payment_hash != hash {
            return Err(self.refused("it answered with another payment"));
        }
        match (payment.flow, flow) {
            (told, asked) if told == asked => Ok(Some(payment)),
            // some wallets type each record incoming: this may be our payment all the same
            (Flow::Inbound, Flow::Outbound) => {
                Err(self.unknown("it knows this payment as an incoming one"))
            }
            _ => Ok(None),
        }
    }

    async fn send(&self, bolt11: &str) -> Result<PayState, WalletError> {
        let head = Head::read(bolt11).map_err(|e| self.refused(e))?;
        let Some(amount) = head.amount else {
            return Err(self.refused("expected an invoice with an amount"));
        };
        let hash = head.payment_hash;
        let said = match self.line.call("pay_invoice", json!({"invoice": bolt11})).await {
            Ok(said) => said,
            Err(CallError::NotSent(words)) => return Err(self.unreachable(words)),
            Err(CallError::Lost(words)) => return Err(self.unknown(words)),
            // the words may be about this request and not about this payment
            Err(CallError::Said { code, words }) => {
                let words = format!("{code}: {words}");
                return match self.record(hash, Flow::Outbound).await {
                    Ok(Some(payment)) => Ok(payment.state),
                    Ok(None) if DECLINED.contains(&code.as_str()) => Err(self.refused(words)),
                    Ok(None) => Err(self.unknown(words)),
                    Err(error) => Err(self.unknown(format!("{words}; then {error}"))),
                };
            }
        };
        let paid: Paid = serde_json::from_value(said)
            .map_err(|e| self.unknown(format!("unexpected answer to pay_invoice: {e}")))?;
        match from_hex::<32>("preimage", &paid.preimage) {
            Ok(preimage) if sha256::Hash::hash(&preimage).to_byte_array() == *hash.as_bytes() => {
                let (fee, at) = (Msat(paid.fees_paid), self.clock.now());
                Ok(PayState::Succeeded { amount, fee, at })
            }
            _ => match self.record(hash, Flow::Outbound).await {
                Ok(Some(payment)) => Ok(payment.state),
                _ => Err(self.unknown("its preimage is not this payment's")),
            },
        }
    }

    async fn since(&self, cursor: Cursor) -> Result<(Vec<Payment>, Cursor), WalletError> {
        let from = cursor.0.saturating_sub(OVERLAP_S);
        let now = self.clock.now().0;
        let (mut payments, mut newest) = (Vec::new(), cursor.0);
        for page in 0..PAGES {
            let offset = page.saturating_mul(PAGE);
            let params = json!({"from": from, "limit": PAGE, "offset": offset, "unpaid": false});
            let page: Page = self.read("list_transactions", params).await?;
            let end = page.transactions.len() < PAGE;
            for record in page.transactions {
                // a wallet's clock that ran ahead must not hide what follows
                newest = newest.max(record.created_at.unwrap_or(0).min(now));
                match record.payment() {
                    Ok(payment) => payments.push(payment),
                    // it would stop the list for ever
                    Err(reason) => {
                        tracing::error!(event = "wallet_record", wallet = self.id, reason);
                    }
                }
            }
            if end {
                payments.reverse();
                return Ok((payments, Cursor(newest)));
            }
        }
        Err(self.refused(format!("expected the list to end after {PAGES} pages")))
    }
}

impl Wallet for Nwc {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> Currency {
        self.network.clone()
    }

    fn failures(&self) -> FailureRule {
        FailureRule::TwiceAfterExpiry
    }

    fn absence_is_final(&self) -> bool {
        // NIP-47 has one look-up, and some wallets know only their own invoices by it
        false
    }

    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        Box::pin(self.make(request))
    }

    fn pay(&self, bolt11: String, _: Sats, _: Value) -> WalletResult<'_, PayState> {
        Box::pin(async move { self.send(&bolt11).await })
    }

    fn lookup(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.record(payment_hash, Flow::Inbound))
    }

    fn lookup_payment(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.record(payment_hash, Flow::Outbound))
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        Box::pin(self.since(since))
    }

    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        Some(Cursor(at.0))
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        Box::pin(async move {
            let Balance { balance } = self.read("get_balance", json!({})).await?;
            Ok(Msat(balance))
        })
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.line.hints.subscribe()
    }

    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(self.line.listen(stop))
    }
}
