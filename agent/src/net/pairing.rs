//! The first `connect` to a bunker: the seed's secret is shown once, from memory.
//!
//! Promise: after it the bunker knows the client key, holds the spire key that the seed names, and
//! has the methods that a machine needs. The secret goes to no disk and into no log.
//!
//! Failure policy: each failure ends the try with words for the screen; the pairing in force, if
//! there is one, is untouched, and of a secret that is refused for good nothing stays. Where nobody
//! answers, the client key stays: the bunker may have taken the secret for it.

use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::client::{Ask, CallError};
use bitspire_shared::nip46::message::Method;
use bitspire_shared::seed::{BunkerError, BunkerLink, parse_relay};
use bitspire_shell::pool::{Pool, PoolError};
use nostr::RelayUrl;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::signer::{self, SignerError};
use super::store::{Store, StoreError, all_relays, public};
use super::times::Times;
use super::{Timing, gate};
use crate::ipc::{NetPins, SecretText, ToVault};

/// Why there is no new pairing.
#[derive(Debug, Error)]
pub(super) enum PairError {
    /// The vault handed over something else.
    #[error("the seed's bunker address or relays cannot be used")]
    Address(#[from] BunkerError),
    /// No secret, so nothing to redeem.
    #[error("the seed's bunker address has no secret: make a new seed")]
    NoSecret,
    /// The client key.
    #[error("the client key cannot be made or kept")]
    Store(#[from] StoreError),
    /// A relay address.
    #[error("a relay of the seed cannot be used")]
    Relay(#[from] PoolError),
    /// The bunker.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Nobody answers, and every relay says that it does not carry requests to this bunker.
    #[error(
        "the seed's bunker is not to be reached with it ({relays}): the seed was redeemed already, \
         or its time is over: make a new seed and pair again"
    )]
    TurnedAway {
        /// What each relay said.
        relays: String,
    },
    /// Encryption that does not decrypt again.
    #[error("the bunker's nip44_decrypt does not give back what nip44_encrypt took")]
    NotInverse,
}

impl Classified for PairError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Relay(error) => error.kind(),
            Self::Signer(error) => error.kind(),
            Self::Address(_) | Self::NoSecret | Self::TurnedAway { .. } | Self::NotInverse => {
                Kind::Permanent
            }
        }
    }
}

/// What the vault asks for.
pub(super) struct Wanted {
    pub(super) bunker_url: SecretText,
    pub(super) relays: Vec<String>,
    pub(super) pins: NetPins,
}

/// Connects; the client key that the bunker now knows.
pub(super) async fn connect(
    store: &Store,
    wanted: Wanted,
    to_vault: mpsc::Sender<ToVault>,
    times: Times,
    timing: Timing,
) -> Result<PubKey, PairError> {
    let BunkerLink { uri, secret } = BunkerLink::parse(wanted.bunker_url.expose())?;
    let secret = secret.ok_or(PairError::NoSecret)?;
    let relays = wanted.relays.iter().map(|relay| parse_relay(relay));
    let relays: Vec<RelayUrl> = relays.collect::<Result<_, _>>()?;
    let signer = uri.signer();
    let everywhere = all_relays(&uri, &relays);
    let (pairing, keys) = store.prepare(uri, relays, wanted.pins)?;
    let client = public(&keys).map_err(|_| PairError::NoSecret)?;

    let filter = gate::filter(&signer, None);
    let pool = Arc::new(Pool::connect(keys.clone(), &everywhere, filter).await?);
    pool.subscribe(signer::SUBSCRIPTION, signer::replies(&signer, &client)).await;
    let (events, received) = mpsc::channel(64);
    let config = signer::config(&pairing, Some(secret));
    let (ask, worker) = signer::new(pool.clone(), keys, config, received, to_vault, times, timing)?;

    let stop = CancellationToken::new();
    let reading = async {
        while let Some(event) = pool.next().await {
            if events.send(event).await.is_err() {
                break;
            }
        }
    };
    let mut taken = false;
    let result = tokio::select! {
        result = introduce(&ask, wanted.pins.operator, &mut taken) => result,
        () = reading => Err(SignerError::Closed.into()),
        () = worker.run(stop.clone()) => Err(SignerError::Closed.into()),
    };
    let refusals = pool.refusals().await;
    pool.close().await;
    let result = match result {
        Err(PairError::Signer(SignerError::Call(CallError::NoReply { method, .. })))
            if method == Method::Connect && refusals.len() >= everywhere.len() =>
        {
            let relays = refusals.iter().map(|(relay, said)| format!("{relay}: {said}"));
            Err(PairError::TurnedAway { relays: relays.collect::<Vec<_>>().join("; ") })
        }
        result => result,
    };
    if !taken && result.as_ref().is_err_and(|error| error.kind() == Kind::Permanent) {
        store.give_up()?;
    }
    result.map(|()| client)
}

/// `taken` is set once the bunker has taken the secret: then it knows the client key.
async fn introduce(
    signer: &signer::Signer,
    operator: PubKey,
    taken: &mut bool,
) -> Result<(), PairError> {
    signer.connect().await?;
    *taken = true;
    signer.ask(Ask::GetPublicKey).await?;
    // some bunkers have no nip44 methods: better told now than at the first document
    const TEXT: &str = "bitspire";
    let payload = signer.encrypt(operator, TEXT.to_owned()).await?;
    match signer.decrypt(operator, payload).await? {
        text if text == TEXT => Ok(()),
        _ => Err(PairError::NotInverse),
    }
}
