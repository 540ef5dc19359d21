//! LNURL-withdraw (LUD-01, LUD-03, LUD-17) for cash_in and for claims, and the check of receipts, on
//! the listener that is open to everybody.
//!
//! Promise: min = max = what was promised; the first valid invoice is bound to its k1 durably before
//! anything is paid, and no other one is ever paid under it. `OK` means accepted, not paid.
//!
//! Failure policy: every answer is HTTP 200 with `{"status":"ERROR","reason"}` as wallets expect it;
//! a refused invoice leaves the k1 as it was. k1 and claim codes are in paths, so nothing here logs
//! a path: only what happened.

pub mod claims;
mod client;
pub mod invoice;
mod page;
mod receipt;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router, middleware};
use bech32::{Bech32, Hrp};
use bitspire_shared::rate::{Keyed, Limiter, Quota};
use bitspire_shared::rpc::{Lnurl, Push, WithdrawClaimed};
use bitspire_shared::time::{Mono, Unix};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;

use self::client::Client;
use self::invoice::{InvoiceRefusal, Payable};
use crate::app::{App, Ring};
use crate::http::listen::{Bounds, listen};
use crate::ledger::LedgerError;
use crate::rpc::push;
use crate::store::withdraws::{self, Bound, K1, K1State, Withdraw, WithdrawState};
use crate::store::{Read, StoreError, Tx, machines};
use crate::wallet::WalletError;

/// Requests of wallets a minute and client, for each of the two steps: wallets that ask again and
/// again for offers, behind one address, would otherwise keep all of them from the second step.
const LOOKUPS_A_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// Claim codes a minute and client: they could be guessed at.
const CLAIMS_A_MINUTE: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// Receipts a minute and client: each costs two signatures.
const CHECKS_A_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// Clients remembered.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Why a wallet gets nothing.
#[derive(Debug, Error)]
pub enum Refused {
    /// No such k1, or not any more. One answer for all cases: a guess learns nothing.
    #[error("this withdraw is unknown, expired or replaced; use the claim code on your receipt")]
    Gone,
    /// It was paid.
    #[error("this withdraw was paid")]
    Paid,
    /// Path and query name different ones.
    #[error("expected the same k1 in path and query")]
    OtherK1,
    /// The invoice cannot be paid.
    #[error("{0}")]
    Invoice(#[from] InvoiceRefusal),
    /// Another invoice came first.
    #[error("another invoice was accepted for this withdraw; use the claim code if it fails")]
    OtherInvoice,
    /// The invoice was used before, here or elsewhere.
    #[error("expected an invoice that was not used before")]
    SeenHash,
    /// Too many requests of one client.
    #[error("too many requests: try again in a minute")]
    TooMany,
    /// Our side cannot answer now.
    #[error("temporarily out of service: try again in a minute")]
    Unavailable(#[from] StoreError),
    /// The wallet that would pay cannot be asked.
    #[error("temporarily out of service: try again in a minute")]
    Wallet(#[from] WalletError),
    /// The query of the second step is not one.
    #[error("expected the query k1=...&pr=<invoice>")]
    Query,
    /// The books refuse it.
    #[error("temporarily out of service: try again in a minute")]
    Books(#[from] LedgerError),
}

impl Refused {
    fn json(&self) -> Json<Value> {
        if matches!(self, Self::Unavailable(_) | Self::Wallet(_) | Self::Books(_)) {
            tracing::error!(event = "lnurl_unavailable", error = ?self);
        }
        Json(json!({ "status": "ERROR", "reason": self.to_string() }))
    }
}

/// The text of a withdraw's QR code: bech32 of its URL in upper case (LUD-01).
#[must_use]
pub fn encode(base_url: &str, k1: &K1) -> Option<Lnurl> {
    let url = format!("{base_url}/lnurl/w/{}", k1.expose());
    let encoded = bech32::encode_upper::<Bech32>(Hrp::parse_unchecked("lnurl"), url.as_bytes());
    encoded.ok().map(Lnurl::new)
}

/// The same for a wallet on the very device that shows it (LUD-17): the URL under `lnurlw:`, which such
/// a wallet asks for by https, or by http at an onion address; `None` where our address is neither.
#[must_use]
pub fn link(base_url: &str, k1: &K1) -> Option<Lnurl> {
    let url: nostr::Url = base_url.parse().ok()?;
    let onion = url.host_str()?.ends_with(".onion");
    let (_, place) = base_url.split_once("://")?;
    let read_as = if onion { "http" } else { "https" };
    let link = || Lnurl::new(format!("lnurlw://{place}/lnurl/w/{}", k1.expose()));
    (url.scheme() == read_as).then(link)
}

/// The public side's state.
#[derive(Clone)]
struct Public {
    app: Arc<App>,
    limits: Arc<Limits>,
}

struct Limits {
    started: Instant,
    offers: Mutex<Keyed<Client>>,
    callbacks: Mutex<Keyed<Client>>,
    claims: Mutex<Keyed<Client>>,
    checks: Mutex<Keyed<Client>>,
    /// Refusals of guesses that are logged: a flood of them is not.
    log: Mutex<Limiter>,
}

impl Limits {
    fn new() -> Self {
        let keyed = |rate| Mutex::new(Keyed::new(Quota::per_minute(rate, rate), CLIENTS));
        Self {
            started: Instant::now(),
            offers: keyed(LOOKUPS_A_MINUTE),
            callbacks: keyed(LOOKUPS_A_MINUTE),
            claims: keyed(CLAIMS_A_MINUTE),
            checks: keyed(CHECKS_A_MINUTE),
            log: Mutex::new(Limiter::new(Quota::per_minute(CLAIMS_A_MINUTE, CLAIMS_A_MINUTE))),
        }
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn take(&self, limit: &Mutex<Keyed<Client>>, from: Client) -> Result<(), Refused> {
        let now = self.now();
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.take(&from, now).map_err(|_| Refused::TooMany)
    }
}

impl Public {
    fn may_claim(&self, from: Client) -> Result<(), Refused> {
        let limits = &self.limits;
        limits.take(&limits.claims, from).inspect_err(|_| {
            let mut log = limits.log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.take(limits.now()).is_ok() {
                tracing::warn!(event = "claim_look_ups_limited", client = %from.0);
            }
        })
    }

    fn may_ask(&self, from: Client) -> Result<(), Refused> {
        self.limits.take(&self.limits.offers, from)
    }

    fn may_check(&self, from: Client) -> Result<(), Refused> {
        self.limits.take(&self.limits.checks, from)
    }

    fn may_name(&self, from: Client) -> Result<(), Refused> {
        self.limits.take(&self.limits.callbacks, from)
    }
}

/// The routes that are open to everybody.
pub fn router(app: &Arc<App>) -> Router {
    let public = Public { app: Arc::clone(app), limits: Arc::new(Limits::new()) };
    Router::new()
        .route("/lnurl/w/{k1}", get(offer))
        .route("/lnurl/w/{k1}/cb", get(callback))
        .route("/c/{code}", get(claims::claim))
        .route("/receipt", get(receipt::form).post(receipt::check))
        .layer(DefaultBodyLimit::max(receipt::MAX_FORM))
        .layer(middleware::map_response(private))
        .with_state(public)
}

/// Secrets stand in the addresses and on the pages: nothing keeps them, nothing passes them on.
async fn private(mut response: axum::response::Response) -> axum::response::Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Serves the public listener until the daemon stops.
///
/// # Errors
/// What the system says to the address.
pub async fn start(app: &Arc<App>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(app.config.public_listen).await?;
    let address = listener.local_addr()?;
    app.tasks.spawn(listen(listener, router(app), Bounds::default(), app.stop.clone()));
    Ok(address)
}

/// First step (LUD-03).
async fn offer(State(public): State<Public>, from: Client, Path(k1): Path<String>) -> Json<Value> {
    let answer = async {
        public.may_ask(from)?;
        let k1 = K1::parse(&k1).ok_or(Refused::Gone)?;
        let now = public.app.clock.now();
        let wanted = k1.clone();
        let withdraw = public.app.store.read(move |read| open(read, &wanted, now)).await?;
        let msat = withdraw.net_sats.0.saturating_mul(1_000);
        let k1 = k1.expose();
        Ok::<_, Refused>(Json(json!({
            "tag": "withdrawRequest",
            "callback": format!("{}/lnurl/w/{k1}/cb", public.app.config.public_base_url),
            "k1": k1,
            "defaultDescription": description(&withdraw),
            "minWithdrawable": msat,
            "maxWithdrawable": msat,
        })))
    };
    answer.await.unwrap_or_else(|refused| refused.json())
}

fn description(withdraw: &Withdraw) -> String {
    let txid = withdraw.txid.to_string();
    format!("bitSpire {}", txid.get(..8).unwrap_or_default())
}

/// The withdraw of a k1 that can still be used.
fn open(read: &Read<'_>, k1: &K1, now: Unix) -> Result<Withdraw, Refused> {
    let session = withdraws::session(read, k1)?.ok_or(Refused::Gone)?;
    let withdraw = withdraws::find(read, session.withdraw_id)?.ok_or(Refused::Gone)?;
    let bound = session.bound_hash.is_some();
    match withdraw.state {
        WithdrawState::Paid => Err(Refused::Paid),
        WithdrawState::Expired => Err(Refused::Gone),
        _ if session.state == K1State::Dead => Err(Refused::Gone),
        _ if !bound && session.expires_at < now => Err(Refused::Gone),
        _ => Ok(withdraw),
    }
}

#[derive(Deserialize)]
struct Callback {
    k1: String,
    pr: String,
}

/// Second step (LUD-03): the wallet names its invoice.
async fn callback(
    State(public): State<Public>,
    from: Client,
    Path(path): Path<String>,
    query: Result<Query<Callback>, QueryRejection>,
) -> Json<Value> {
    let answer = async {
        public.may_name(from)?;
        let Query(query) = query.map_err(|_| Refused::Query)?;
        if path != query.k1 {
            return Err(Refused::OtherK1);
        }
        accept(&public.app, K1::parse(&query.k1).ok_or(Refused::Gone)?, &query.pr).await
    };
    match answer.await {
        Ok(()) => Json(json!({ "status": "OK" })),
        Err(refused) => refused.json(),
    }
}

/// Binds the invoice and wakes the payout worker: the one way to a k1's sats, whatever a wallet speaks.
///
/// # Errors
/// [`Refused`]; the k1 is as it was then.
pub(crate) async fn accept(app: &Arc<App>, k1: K1, pr: &str) -> Result<(), Refused> {
    let now = app.clock.now();
    let wanted = k1.clone();
    let (withdraw, wallet, spire, bound) = app
        .store
        .read(move |read| {
            let session = withdraws::session(read, &wanted)?.ok_or(Refused::Gone)?;
            let withdraw = withdraws::find(read, session.withdraw_id)?.ok_or(Refused::Gone)?;
            let machine = machines::find(read, withdraw.machine_id)?.ok_or(Refused::Gone)?;
            let spire = machine.machine_npub;
            let bound = session.bound_hash.is_some();
            Ok::<_, Refused>((withdraw, machine.wallet_id.clone(), spire, bound))
        })
        .await?;
    let wallet = app.wallets.get(&wallet).ok_or(Refused::Gone)?;
    let payable = invoice::read(pr, withdraw.net_sats, &wallet.network())?;
    // before the wallet is asked: whoever holds a k1 could ask it for ever with what is over
    if !bound {
        payable.in_time(now)?;
    }
    if !bound && wallet.own_node().await == Some(payable.payee) {
        return Err(InvoiceRefusal::OwnNode.into());
    }
    // a hash that the wallet has in its books is its own invoice, or was paid for something else
    let hash = payable.payment_hash;
    let known = !bound
        && (wallet.lookup(hash).await?.is_some() || wallet.lookup_payment(hash).await?.is_some());
    let txid = withdraw.txid;
    let bound = app.store.write(move |tx| bind(tx, &k1, &payable, known, now)).await?;
    if bound == Bound::Now {
        tracing::info!(event = "withdraw_claimed", machine = %withdraw.machine_id, txn = %txid);
        if let Some(spire) = spire {
            app.ring(Ring::Withdraw { spire });
        }
    }
    Ok(())
}

/// One transaction, so that of any number of wallets exactly one is first. An invoice that is bound
/// already is answered OK again, however late the repeat comes.
fn bind(tx: &Tx<'_>, k1: &K1, invoice: &Payable, known: bool, now: Unix) -> Result<Bound, Refused> {
    let session = withdraws::session(tx, k1)?.ok_or(Refused::Gone)?;
    if session.bound_hash == Some(invoice.payment_hash) {
        return Ok(Bound::Before);
    }
    if session.bound_hash.is_some() {
        return Err(Refused::OtherInvoice);
    }
    let withdraw = open(tx, k1, now)?;
    invoice.in_time(now)?;
    if known || withdraws::hash_seen(tx, invoice.payment_hash)? {
        return Err(Refused::SeenHash);
    }
    match withdraws::bind(tx, k1, invoice.payment_hash, &invoice.bolt11, now)? {
        Bound::Other => Err(Refused::OtherInvoice),
        Bound::Refused => Err(Refused::Gone),
        bound => {
            let (txid, withdraw_id) = (withdraw.txid, withdraw.withdraw_id);
            let claimed = Push::WithdrawClaimed(WithdrawClaimed { txid, withdraw_id });
            push::queue(tx, withdraw.machine_id, &claimed, now)?;
            Ok(bound)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a link that a wallet follows to another place than the code beside it, or to
    /// none: it chooses https or http by the host alone.
    #[test]
    fn a_link_is_for_addresses_that_its_reader_would_choose() {
        let k1 = K1::from_bytes([7; 32]);
        let onion = "http://pay4x5hxxnrdgmu3a4nnsmd2zhgvhzupcdkxhbpzqkfnzsyhxoe2aead.onion";
        for (base, as_read) in [
            ("https://pay.example", Some("https")),
            ("https://pay.example:8443/atm", Some("https")),
            (onion, Some("http")),
            ("http://pay.example", None),
            ("http://127.0.0.1:8444", None),
            (&onion.replace("http:", "https:"), None),
        ] {
            let link = link(base, &k1);
            let read = link.as_ref().map(|link| {
                let rest = link.expose().strip_prefix("lnurlw://").unwrap();
                format!("{}://{rest}", as_read.unwrap_or("nothing"))
            });
            let expected = as_read.map(|_| {
                let encoded = encode(base, &k1).unwrap();
                String::from_utf8(bech32::decode(encoded.expose()).unwrap().1).unwrap()
            });
            assert_eq!(read, expected, "{base}");
        }
    }
}
