//! What a customer's wallet is told.
//!
//! Promise: an offer brings the invoice that its quote has already, so asking costs a look and changes
//! nothing. A debit binds the wallet's invoice by the same function and the same row as LNURL-withdraw
//! does ([`lnurl::accept`]): one k1 is spent once, whatever is spoken, and a request that is refused for
//! what it says leaves it as it was. `ok` means accepted, not paid: the payee sees its invoice paid, and
//! the wallets behind our port show us no preimage to pass on.
//!
//! Failure policy: what our side cannot do now is code 2, whatever the reason; the log has it.

use std::sync::Arc;

use bitspire_shared::clink::{
    DebitReply, DebitRequest, Deviation, GfyCode, OfferErrorCode, OfferReply, OfferRequest, Range,
};
use bitspire_shared::ids::{QuoteId, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use crate::app::App;
use crate::lnurl::invoice::InvoiceRefusal;
use crate::lnurl::{self, Refused};
use crate::store::StoreError;
use crate::store::invoices::{self, InvoiceState};
use crate::store::withdraws::{self, K1};

/// Seconds that a debit's `created_at` may be off our clock.
const MAX_SKEW_S: u64 = 120;

fn not_now(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(event = "clink_unavailable", error);
}

/// The invoice of an offer.
pub(super) async fn offer(app: &Arc<App>, asked: &OfferRequest) -> OfferReply {
    let refuse = OfferReply::error;
    let unknown = || refuse(OfferErrorCode::Invalid, "Invalid Offer");
    let Ok(quote) = asked.offer.parse::<QuoteId>() else { return unknown() };
    let found = app.store.read(move |read| invoices::by_quote(read, quote));
    let invoice = match found.await {
        Ok(Some(invoice)) => invoice,
        Ok(None) => return unknown(),
        Err(error) => {
            not_now(&error);
            return refuse(OfferErrorCode::Temporary, "Temporary Failure");
        }
    };
    let over = invoice.expires_at <= app.clock.now();
    match invoice.state {
        InvoiceState::Open if !over => {}
        InvoiceState::Open | InvoiceState::Expired | InvoiceState::Cancelled => {
            return refuse(OfferErrorCode::Expired, "Offer has expired.");
        }
        InvoiceState::Settled | InvoiceState::Late | InvoiceState::Under => return unknown(),
    }
    if asked.amount.is_some_and(|amount| amount != invoice.wire_sats) {
        let range = Some(Range::only(invoice.wire_sats));
        let (error, code) = ("Invalid Amount".to_owned(), OfferErrorCode::Amount);
        return OfferReply::Error { error, code, range };
    }
    OfferReply::Invoice { bolt11: invoice.bolt11 }
}

fn amount(net: Sats, error: String) -> DebitReply {
    let (code, range) = (GfyCode::Amount, Some(Range::only(net)));
    DebitReply::Gfy { code, error, range, delta: None, retry_after: None }
}

/// A request that was made too long ago, or by a clock that is wrong.
fn late(now: Unix, created_at: Unix) -> Option<DebitReply> {
    let off_s = now.distance(created_at);
    (off_s > MAX_SKEW_S).then(|| DebitReply::Gfy {
        code: GfyCode::Expired,
        error: "Expired Request".to_owned(),
        range: None,
        delta: Some(Deviation {
            max_delta_ms: MAX_SKEW_S.saturating_mul(1_000),
            actual_delta_ms: off_s.saturating_mul(1_000),
        }),
        retry_after: None,
    })
}

/// Accepts the wallet's invoice for the withdraw of its session.
pub(super) async fn debit(app: &Arc<App>, asked: &DebitRequest, created_at: Unix) -> DebitReply {
    if let Some(late) = late(app.clock.now(), created_at) {
        return late;
    }
    let k1 = K1::from_bytes(*asked.k1);
    let wanted = k1.clone();
    let promised = app.store.read(move |read| {
        let Some(session) = withdraws::session(read, &wanted)? else { return Ok(None) };
        let withdraw = withdraws::find(read, session.withdraw_id)?;
        Ok(withdraw.map(|withdraw| (withdraw.withdraw_id, withdraw.net_sats)))
    });
    let promised: Result<Option<(WithdrawId, Sats)>, StoreError> = promised.await;
    let (id, net) = match promised {
        Ok(Some(promised)) => promised,
        Ok(None) => return told(&Refused::Gone, Sats::ZERO),
        Err(error) => return told(&error.into(), Sats::ZERO),
    };
    if asked.pointer.as_ref().is_some_and(|pointer| *pointer != id.to_string()) {
        let error = "Invalid Request: the pointer is of another code than the session";
        return DebitReply::gfy(GfyCode::Invalid, error);
    }
    if asked.amount.is_some_and(|asked| asked != net) {
        return amount(net, "Invalid Amount".to_owned());
    }
    match lnurl::accept(app, k1, &asked.bolt11).await {
        Ok(()) => DebitReply::Ok,
        Err(refused) => told(&refused, net),
    }
}

/// A refusal in CLINK's words.
fn told(refused: &Refused, net: Sats) -> DebitReply {
    let words = refused.to_string();
    let code = match refused {
        Refused::Gone => GfyCode::Expired,
        Refused::Paid | Refused::OtherInvoice | Refused::SeenHash => GfyCode::Denied,
        Refused::Invoice(InvoiceRefusal::NoAmount { .. } | InvoiceRefusal::Amount { .. }) => {
            return amount(net, format!("Invalid Amount: {words}"));
        }
        Refused::Invoice(_) | Refused::OtherK1 | Refused::Query => GfyCode::Invalid,
        Refused::TooMany => GfyCode::RateLimited,
        Refused::Unavailable(_) | Refused::Wallet(_) | Refused::Books(_) => {
            not_now(refused);
            GfyCode::Temporary
        }
    };
    let error = match code {
        GfyCode::Denied => format!("Request Denied: {words}"),
        GfyCode::Invalid => format!("Invalid Request: {words}"),
        GfyCode::Temporary => format!("Temporary Failure: {words}"),
        _ => words,
    };
    DebitReply::gfy(code, &error)
}
