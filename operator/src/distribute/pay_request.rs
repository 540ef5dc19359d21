//! Invoices of Lightning addresses and of LNURL-pay (LUD-06, LUD-16).
//!
//! Promise: only https to public addresses, but for hosts that the configuration allows; an invoice
//! that comes back is for exactly the leg, on the payer's network, in time, and commits to the very
//! metadata that was shown (LUD-06). Nothing is sent that could be used twice: asking again brings
//! another invoice, and an unpaid one costs nobody anything.
//!
//! Failure policy: [`PayRequestError`]; the leg keeps the words and is tried again later.

use bitspire_shared::canonical::sha256;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::{MoneyError, Msat, Sats};
use bitspire_shared::time::Unix;
use lightning_invoice::Currency;
use nostr::Url;
use serde::Deserialize;
use thiserror::Error;

use crate::lnurl::invoice::{self, InvoiceRefusal, Payable};
use crate::outgoing::{Allowed, Ask, SendError, Server, TargetError};
use crate::store::rules::Destination;

/// Characters of a stranger's reason that are kept.
const WORDS: usize = 200;

/// Why there is no invoice of this destination.
#[derive(Debug, Error)]
pub(crate) enum PayRequestError {
    /// An address that is none.
    #[error(
        "expected a Lightning address such as me@pay.example, or an https LNURL-pay, got {0:?}"
    )]
    Address(String),
    /// A server that is not spoken to.
    #[error("its server is not spoken to")]
    Target(#[from] TargetError),
    /// The server did not answer.
    #[error("its server does not answer")]
    Send(#[from] SendError),
    /// The server's answer is not what LUD-06 says.
    #[error("its server's answer: {0}")]
    Answer(String),
    /// An amount that the receiver does not take.
    #[error("it takes {least} to {most} msat, the leg is {amount} msat")]
    Range {
        /// The least.
        least: Msat,
        /// The most.
        most: Msat,
        /// The leg.
        amount: Msat,
    },
    /// An invoice that is not paid.
    #[error("its invoice is not paid")]
    Invoice(#[from] InvoiceRefusal),
    /// An invoice for something else than was shown.
    #[error("its invoice does not commit to the metadata that it showed (LUD-06)")]
    Metadata,
    /// An amount that does not fit.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Classified for PayRequestError {
    fn kind(&self) -> Kind {
        match self {
            // asking moves nothing
            Self::Send(_) => Kind::Transient,
            _ => Kind::Permanent,
        }
    }
}

/// What the receiver takes (LUD-06).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayRequest {
    tag: String,
    callback: String,
    min_sendable: u64,
    max_sendable: u64,
    metadata: String,
}

#[derive(Deserialize)]
struct Invoice {
    pr: String,
}

/// A refusal (LUD-06), which may stand where either answer is expected.
#[derive(Deserialize)]
struct Refused {
    status: String,
    reason: Option<String>,
}

/// Where a destination is asked: `me@host` at `https://host/.well-known/lnurlp/me` (LUD-16), an
/// LNURL-pay where it leads.
///
/// # Errors
/// [`PayRequestError::Address`]; [`TargetError::Stranger`] for what is not spoken to.
pub(crate) fn place(to: &Destination, allowed: &Allowed) -> Result<Url, PayRequestError> {
    let url = match to {
        Destination::LightningAddress(address) => of_address(address, allowed),
        Destination::LnurlPay(url) => url.parse().ok(),
        Destination::Wallet(_) => None,
    };
    let shown = || to.to_string().chars().take(WORDS).collect();
    let url = url.ok_or_else(|| PayRequestError::Address(shown()))?;
    Server::public(&url, allowed)?;
    Ok(url)
}

fn of_address(address: &str, allowed: &Allowed) -> Option<Url> {
    let (name, host) = address.split_once('@')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.+".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let scheme = if allowed.names(host) { "http" } else { "https" };
    let path = format!("/.well-known/lnurlp/{name}");
    let url: Url = format!("{scheme}://{host}{path}").parse().ok()?;
    // a host that brings a path, a user or a query of its own is none
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    (bare && url.path() == path && url.fragment().is_none()).then_some(url)
}

/// One answer of a server that is asked at `url`.
async fn ask<T: serde::de::DeserializeOwned>(
    url: &Url,
    allowed: &Allowed,
) -> Result<T, PayRequestError> {
    let (server, path) = Server::public(url, allowed)?;
    let answer = server.send(Ask::get(path)).await?;
    if let Ok(Refused { status, reason }) = answer.json::<Refused>()
        && status.eq_ignore_ascii_case("error")
    {
        let words = reason.unwrap_or_default();
        let words: String = words.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        return Err(PayRequestError::Answer(format!("refused: {words}")));
    }
    answer.json().map_err(PayRequestError::Answer)
}

/// An invoice of `amount` from whoever is asked at `url`.
///
/// # Errors
/// [`PayRequestError`].
pub(crate) async fn invoice(
    url: &Url,
    amount: Sats,
    network: &Currency,
    allowed: &Allowed,
    now: Unix,
) -> Result<Payable, PayRequestError> {
    let asked: PayRequest = ask(url, allowed).await?;
    if asked.tag != "payRequest" {
        let tag: String = asked.tag.chars().take(WORDS).collect();
        return Err(PayRequestError::Answer(format!("expected the tag payRequest, got {tag:?}")));
    }
    let (least, most) = (Msat(asked.min_sendable), Msat(asked.max_sendable));
    let msat = amount.to_msat()?;
    if msat < least || msat > most {
        return Err(PayRequestError::Range { least, most, amount: msat });
    }
    let mut callback: Url = asked
        .callback
        .parse()
        .map_err(|_| PayRequestError::Answer("its callback is no address".into()))?;
    callback.query_pairs_mut().append_pair("amount", &msat.to_string());
    let made: Invoice = ask(&callback, allowed).await?;
    let payable = invoice::read(&made.pr, amount, network)?;
    payable.in_time(now)?;
    if invoice::description_hash(&payable.bolt11)? != Some(sha256(&asked.metadata)) {
        return Err(PayRequestError::Metadata);
    }
    Ok(payable)
}
