//! The claim page: whatever is owed on one transaction, for whoever has its code.
//!
//! Promise: one LNURL-withdraw at a time for one claim; a new k1 is issued only when no payment
//! under the old one can succeed any more. A code that is unknown and one on which nothing is owed
//! get the same answer. Whatever protocol a wallet reads (LNURL as a code or as a link; CLINK, where it
//! is served), it is the same k1.
//!
//! Failure policy: look-ups are limited for each address and counted; the page has no script, keeps
//! nothing and passes nothing on.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bitspire_shared::clink::Ndebit;
use bitspire_shared::ids::{ClaimCode, ClaimHash, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::rpc::Lnurl;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use maud::{Markup, PreEscaped, html};
use qrcode::{QrCode, render::svg};

use super::client::Client;
use super::page::{self, Forms};
use super::{Public, Refused, encode, link};
use crate::clink::Codes;
use crate::ledger::{LedgerError, liability_to_owed};
use crate::payout::PayoutError;
use crate::store::claims::{self, NewOwed, OwedReason};
use crate::store::payments::{self, PaymentState};
use crate::store::withdraws::{self, K1, Purpose, Withdraw, WithdrawState};
use crate::store::{StoreError, Tx, ledger};

/// What a code brings now.
enum Due {
    /// Nothing is owed, or the code is unknown.
    Nothing,
    /// This withdraw can be fetched.
    Fetch { withdraw: WithdrawId, sats: Sats, k1: K1 },
    /// A wallet has named its invoice; the payment is under way.
    Paying { sats: Sats },
}

/// Fresh ids for a withdraw that may have to be made.
struct Fresh {
    withdraw_id: WithdrawId,
    k1: K1,
    expires_at: Unix,
}

/// The ways to fetch a withdraw: each leads to its one k1.
struct Ways {
    lnurl: Lnurl,
    /// For a wallet on the device that shows the page.
    link: Option<Lnurl>,
    /// Where CLINK is served.
    clink: Option<Ndebit>,
}

impl Ways {
    /// `None` where our address is too long for a code.
    fn of(public: &Public, withdraw: WithdrawId, k1: &K1) -> Option<Self> {
        let base_url = &public.app.config.public_base_url;
        Some(Self {
            lnurl: encode(base_url, k1)?,
            link: link(base_url, k1),
            clink: Codes::of(&public.app).debit(withdraw, k1),
        })
    }
}

/// `GET /c/{code}`.
pub(super) async fn claim(
    State(public): State<Public>,
    from: Client,
    Path(code): Path<String>,
) -> Response {
    match look(&public, from, &code).await {
        Ok(Due::Nothing) => shown(StatusCode::OK, nothing()),
        Ok(Due::Paying { sats }) => shown(StatusCode::OK, paying(sats)),
        Ok(Due::Fetch { withdraw, sats, k1 }) => match Ways::of(&public, withdraw, &k1) {
            Some(ways) => shown(StatusCode::OK, fetch(sats, &ways)),
            None => shown(StatusCode::INTERNAL_SERVER_ERROR, words("The address is too long.")),
        },
        Err(Refused::TooMany) => {
            shown(StatusCode::TOO_MANY_REQUESTS, words("Too many tries: wait a minute."))
        }
        Err(refused) => {
            tracing::error!(event = "claim_unavailable", error = ?refused);
            shown(StatusCode::SERVICE_UNAVAILABLE, words("Out of service: try again in a minute."))
        }
    }
}

async fn look(public: &Public, from: Client, code: &str) -> Result<Due, Refused> {
    public.may_claim(from)?;
    let Ok(code) = code.parse::<ClaimCode>() else { return Ok(Due::Nothing) };
    let hash = code.hash();
    let app = &public.app;
    let now = app.clock.now();
    let (Ok(id), Ok(k1)) = (random(), random()) else {
        return Err(StoreError::Stopped { reason: "no random bytes".into() }.into());
    };
    // who guesses costs a look, not a write
    let known = app.store.read(move |read| {
        let promised = !withdraws::unpaid_under(read, hash)?.is_empty();
        Ok::<_, StoreError>(promised || claims::by_hash(read, hash)?.is_some())
    });
    if !known.await? {
        return Ok(Due::Nothing);
    }
    let fresh = Fresh {
        withdraw_id: WithdrawId::from_bytes(id),
        k1: K1::from_bytes(k1),
        expires_at: now.after(app.config.withdraw_expiry_s.into()),
    };
    app.store.write(move |tx| due(tx, hash, fresh, now)).await
}

/// In one transaction, so that two look-ups at once issue one k1.
fn due(tx: &Tx<'_>, hash: ClaimHash, fresh: Fresh, now: Unix) -> Result<Due, Refused> {
    for withdraw in withdraws::unpaid_under(tx, hash)? {
        if let Some(due) = of_withdraw(tx, &withdraw, &fresh, now)? {
            return Ok(due);
        }
    }
    let Some(claim) = claims::by_hash(tx, hash)? else { return Ok(Due::Nothing) };
    let made = withdraws::insert_for_claim(tx, claim.id, fresh.withdraw_id, fresh.expires_at, now)?;
    let Some(sats) = made else { return Ok(Due::Nothing) };
    withdraws::issue(tx, fresh.withdraw_id, &fresh.k1, fresh.expires_at, now)?;
    Ok(Due::Fetch { withdraw: fresh.withdraw_id, sats, k1: fresh.k1 })
}

/// What an unpaid withdraw brings; `None` where its time is over, and what it promised is a debt
/// from now on.
fn of_withdraw(
    tx: &Tx<'_>,
    withdraw: &Withdraw,
    fresh: &Fresh,
    now: Unix,
) -> Result<Option<Due>, Refused> {
    let (id, sats) = (withdraw.withdraw_id, withdraw.net_sats);
    let over = is_over(withdraw, now);
    if let Some(session) = withdraws::live_session(tx, withdraw.withdraw_id)? {
        match session.bound_hash {
            None if session.expires_at >= now && !over => {
                return Ok(Some(Due::Fetch { withdraw: id, sats, k1: session.k1 }));
            }
            None => {}
            Some(bound) => {
                let payment = payments::by_hash(tx, bound)?;
                let dead = payment.is_some_and(|payment| {
                    payment.state == PaymentState::Failed && payment.invoice_expires_at <= now
                });
                if !dead {
                    return Ok(Some(Due::Paying { sats }));
                }
            }
        }
    }
    if over {
        to_debt::<Refused>(tx, withdraw, now)?;
        return Ok(None);
    }
    withdraws::issue(tx, id, &fresh.k1, fresh.expires_at, now)?;
    withdraws::set_state(tx, id, WithdrawState::Offered)?;
    Ok(Some(Due::Fetch { withdraw: id, sats, k1: fresh.k1.clone() }))
}

/// Whether the promise for a customer's notes has ended; the payout of a debt stays payable.
fn is_over(withdraw: &Withdraw, now: Unix) -> bool {
    withdraw.purpose == Purpose::CashIn && withdraw.expires_at < now
}

/// Makes a withdraw of notes that nobody fetched in time a debt: the claim code brings it.
///
/// # Errors
/// [`PayoutError`]; nothing is written then.
pub(crate) fn expire(tx: &Tx<'_>, id: WithdrawId, now: Unix) -> Result<(), PayoutError> {
    let withdraw = withdraws::find(tx, id)?;
    // a wallet may have named its invoice since it was listed
    let offered = withdraw.filter(|w| w.state == WithdrawState::Offered && is_over(w, now));
    offered.map_or(Ok(()), |withdraw| to_debt(tx, &withdraw, now))
}

/// The caller makes sure that no payment of the withdraw can succeed.
fn to_debt<E>(tx: &Tx<'_>, withdraw: &Withdraw, now: Unix) -> Result<(), E>
where
    E: From<StoreError> + From<LedgerError>,
{
    let (machine, id) = (withdraw.machine_id, withdraw.withdraw_id);
    withdraws::set_state(tx, id, WithdrawState::Expired)?;
    let entry = liability_to_owed(machine, id, withdraw.txid, withdraw.net_sats)?;
    ledger::append(tx, &entry, now)?;
    let debt = NewOwed {
        claim_hash: withdraw.claim_hash,
        machine_id: machine,
        txid: withdraw.txid,
        reason: OwedReason::Unclaimed,
        source: id.to_string(),
        sats: withdraw.net_sats,
    };
    claims::owe(tx, &debt, now)?;
    tracing::info!(event = "withdraw_expired", machine = %machine, txn = %withdraw.txid);
    Ok(())
}

fn shown(status: StatusCode, content: Markup) -> Response {
    page::page(status, "bitSpire claim", Forms::None, &content)
}

fn words(text: &str) -> Markup {
    html! { h1 { "Claim" } p { (text) } }
}

fn nothing() -> Markup {
    words(
        "Nothing is owed under this code, or it was paid. Compare it with your receipt, character \
        by character.",
    )
}

fn paying(sats: Sats) -> Markup {
    html! {
        h1 { "On its way" }
        p.amount { (sats) " sats" }
        p { "A wallet has asked for them. If they do not arrive, come back: this code stays good." }
    }
}

fn image(text: &str) -> Markup {
    html! {
        @if let Ok(code) = QrCode::new(text) {
            @let image = code.render::<svg::Color>().min_dimensions(300, 300).build();
            (PreEscaped(image.split_once("?>").map_or(image.as_str(), |(_, image)| image)))
        }
    }
}

fn fetch(sats: Sats, ways: &Ways) -> Markup {
    let Ways { lnurl, link, clink } = ways;
    html! {
        h1 { "These are yours" }
        p.amount { (sats) " sats" }
        (image(lnurl.expose()))
        @if clink.is_some() { p.soft { "Lightning" } }
        p {
            "Scan with a Lightning wallet, or open "
            a href={ "lightning:" (lnurl.expose()) } { "the link" }
            @if let Some(link) = link {
                " (" a href=(link.expose()) { "lnurlw" } ", if your wallet does not open it)"
            }
            "."
        }
        p { code { (lnurl.expose()) } }
        @if let Some(clink) = clink {
            (image(clink.expose()))
            p.soft { "CLINK" }
            p { code { (clink.expose()) } }
        }
    }
}
