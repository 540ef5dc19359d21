//! The Lightning wallet port: what the service needs of any wallet, and nothing more.
//!
//! Promise: amounts are integers in millisats; a payment has a state and "unknown" is one of them.
//! A push from a wallet is a hint: what it says is looked up before anything is believed. An invoice
//! of ours and a payment that we make are looked up apart, since both may have one hash.
//!
//! Failure policy: a timeout or a dropped connection while paying is [`WalletError::Unknown`],
//! never "failed". Only [`PayState::Failed`], given for that very payment hash, allows another
//! attempt.

#[cfg(test)]
mod battery;
pub(crate) mod bolt11;
mod identity;
mod lnbits;
mod lnd;
mod node;
mod nwc;
mod open;
mod phoenixd;
pub mod simulated;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Direction, Msat, Sats};
use bitspire_shared::time::Unix;
use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use nostr::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(crate) use identity::{Identity, compare};
pub use nwc::UriError;
pub use open::OpenError;
pub(crate) use open::{Opened, open};

/// What a wallet answers.
pub type WalletResult<'a, T> = BoxFuture<'a, Result<T, WalletError>>;

/// Why a wallet did not do it, and whether it might have.
#[derive(Debug, Error)]
pub enum WalletError {
    /// It was not reached, and the request had no effect.
    #[error("wallet {wallet} cannot be reached: {reason}; nothing was done, try again later")]
    Unreachable {
        /// Which wallet.
        wallet: String,
        /// What was seen.
        reason: String,
    },
    /// It refused.
    #[error("wallet {wallet} refused: {reason}")]
    Refused {
        /// Which wallet.
        wallet: String,
        /// Its own words.
        reason: String,
    },
    /// The request may have had its effect: look the payment up by its hash.
    #[error("wallet {wallet} gave no answer: {reason}; the payment may have gone out")]
    Unknown {
        /// Which wallet.
        wallet: String,
        /// What was seen.
        reason: String,
    },
}

impl Classified for WalletError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } => Kind::Transient,
            Self::Refused { .. } => Kind::Permanent,
            Self::Unknown { .. } => Kind::Uncertain,
        }
    }
}

/// An invoice that the service wants.
#[derive(Clone, Debug)]
pub struct InvoiceRequest {
    /// Its exact amount.
    pub amount: Sats,
    /// The text that the payer sees.
    pub memo: String,
    /// Seconds until it expires.
    pub expiry_s: u32,
    /// The settlement stamp, kept by the wallet beside the payment.
    pub extra: Value,
}

/// An invoice that the wallet made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// What identifies the payment.
    pub payment_hash: PaymentHash,
    /// The BOLT11 text.
    pub bolt11: String,
    /// When it expires by the wallet's own word.
    pub expires_at: Unix,
}

/// Which way a payment went, from the wallet's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Into the wallet.
    Inbound,
    /// Out of the wallet.
    Outbound,
}

impl Flow {
    /// The protocol's direction of a sale that is paid so.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Inbound => Direction::CashOut,
            Self::Outbound => Direction::CashIn,
        }
    }
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PayState {
    /// Not final yet.
    Pending,
    /// It moved.
    Succeeded {
        /// What moved, without the routing fee; a magnitude.
        amount: Msat,
        /// What routing cost (outbound only).
        fee: Msat,
        /// When, by the wallet's clock.
        at: Unix,
    },
    /// It did not and will not move: final.
    Failed,
}

/// A payment as the wallet itself tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// What identifies it.
    pub payment_hash: PaymentHash,
    /// Which way it goes.
    pub flow: Flow,
    /// Where it stands.
    pub state: PayState,
    /// What was given when the invoice was made or the payment was asked for; null from a wallet
    /// that keeps none, for which our own request stands in.
    pub extra: Value,
}

/// How far a list of payments has been read; the wallet's own counting.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cursor(pub u64);

/// Something that a wallet may have to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A payment of this hash may have changed.
    Payment(PaymentHash),
    /// Hints may have been missed: the list tells what.
    Missed,
}

/// How final a wallet's "failed" is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureRule {
    /// As soon as it says so.
    AtOnce,
    /// Only when it said so twice, ten minutes apart, after the invoice's expiry: some wallets mark
    /// a payment failed when the connection to their node dropped after the node took it.
    TwiceAfterExpiry,
}

/// A Lightning wallet.
pub trait Wallet: Send + Sync + 'static {
    /// The wallet's id in our configuration.
    fn id(&self) -> &str;

    /// The chain that its invoices are for.
    fn network(&self) -> Currency;

    /// How final its "failed" is.
    fn failures(&self) -> FailureRule;

    /// Whether [`Wallet::lookup_payment`] tells each payment that the wallet made, so that one it
    /// does not know some time after the last request was never made. False for a wallet that may
    /// look up invoices only: what it does not know it may have paid.
    fn absence_is_final(&self) -> bool;

    /// The node whose invoices this wallet cannot pay: its own, where that does not pay itself. `None`
    /// where it pays any (wallets of one host pay each other), or where nobody says.
    fn own_node(&self) -> BoxFuture<'_, Option<PublicKey>> {
        Box::pin(std::future::ready(None))
    }

    /// Makes an invoice.
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice>;

    /// Pays an invoice with at most `fee_limit` of routing fees. Paying a hash that was paid, or is
    /// under way, never pays again: its state is answered. Callers rely on it: after a lost answer
    /// the same invoice is asked for again as long as the wallet's books do not show it, though the
    /// first request may still be on its way into them.
    fn pay(&self, bolt11: String, fee_limit: Sats, extra: Value) -> WalletResult<'_, PayState>;

    /// The wallet's own invoice of this hash, as it stands; `None` where it made none.
    fn lookup(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>>;

    /// The payment of this hash that the wallet made or is making; `None` where it knows none,
    /// which is no failure: see [`PayState::Failed`].
    fn lookup_payment(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>>;

    /// Payments that changed after `since`, oldest first, and where to go on from: the same place
    /// again when there is no more. What changed shortly before may be told again, and an invoice
    /// that nobody has paid may be left out.
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)>;

    /// What a list that was read to its end at `at` leads to, or less; `None` where the wallet does
    /// not count by time.
    fn cursor_at(&self, at: Unix) -> Option<Cursor>;

    /// What can be spent.
    fn balance(&self) -> WalletResult<'_, Msat>;

    /// Hints, as long as somebody runs [`Wallet::listen`]. Lost ones cost seconds, never a payment.
    fn watch(&self) -> broadcast::Receiver<Hint>;

    /// Keeps hints coming until `stop`, over lost connections.
    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()>;
}
