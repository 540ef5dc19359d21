//! An operator's key that was there before: taken in as it is, and moved into the bunker.
//!
//! Promise: a key that comes in is sealed at once, and warned about at each start until it is in the
//! bunker. It is erased here only after the bunker has signed and encrypted with it over the very
//! connection that documents use from then on. Machines have pinned the key: moving it changes nothing
//! for them.
//!
//! Failure policy: [`FleetError`]; an interrupted move is made again and goes on; what it left here is
//! erased at the next start.

use std::sync::Arc;

use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::Purpose;
use nostr::{Keys, SecretKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::{FleetError, audit, bunker, guard_key};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::OperatorId;
use crate::signer::local::LocalSigner;
use crate::signer::{BunkerAdmin, SignerError};
use crate::store::operators::{self, Operator, SignerKind};
use crate::store::{Kept, Read, StoreError};

/// The key's name, in the bunker and in the keyring.
pub(super) fn name(id: OperatorId) -> String {
    format!("operator-{id}")
}

async fn find(app: &App, id: OperatorId) -> Result<Kept<OperatorId, Operator>, FleetError> {
    let found = app.store.read(move |read| operators::find(read, id)).await?;
    found.ok_or(FleetError::NoOperator(id))
}

/// Takes a private key in as an operator's, sealed in this service.
///
/// # Errors
/// [`FleetError`]: nothing was kept.
pub async fn import(
    app: &Arc<App>,
    actor: &str,
    id: OperatorId,
    secret: &str,
) -> Result<PubKey, FleetError> {
    let keys = SecretKey::parse(secret.trim()).map(Keys::new);
    let keys = keys.map_err(|_| FleetError::Invalid {
        field: "nsec",
        expected: "an nsec or 64 hex characters".into(),
        got: "something else".into(),
    })?;
    let key = PubKey::new(keys.public_key()).map_err(|_| FleetError::CutOff)?;
    let _turn = app.pairing.lock().await;
    let operator = find(app, id).await?;
    if let Some(key) = operator.pubkey {
        return Err(FleetError::HasIdentity { operator: id, key: key.npub() });
    }
    let service = app.service_key;
    app.store.read(move |read: &Read<'_>| guard_key(read, key, None, service)).await?;
    let bytes = Zeroizing::new(keys.secret_key().to_secret_bytes());
    app.keyring.seal_bytes(&name(id), Purpose::OperatorKey, bytes.as_slice())?;
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let written = app.store.write(move |tx| {
        operators::set_identity(tx, id, key, SignerKind::Local, None)?;
        let detail = json!({ "operator_pubkey": key });
        audit(tx, now, &actor, "operator.import", &format!("operator:{id}"), detail)
            .map_err(FleetError::from)
    });
    if let Err(error) = written.await {
        app.keyring.forget(&name(id))?;
        return Err(error);
    }
    warn(id, key);
    app.set_signer(Arc::new(LocalSigner::new(keys).map_err(|_| FleetError::CutOff)?));
    app.roster.refresh(app).await?;
    app.ring(Ring::Roster);
    app.ring(Ring::Outbox);
    Ok(key)
}

fn warn(id: OperatorId, key: PubKey) {
    tracing::warn!(
        event = "operator_key_local", operator = %id, key = %key,
        "this service holds an operator's private key: whoever breaks into it can sign as the \
         operator; move it with `account migrate-to-bunker`"
    );
}

/// Moves an operator's key into the bunker, and erases it here.
///
/// # Errors
/// [`FleetError`]: the key is used here as before; to be tried again.
pub async fn migrate(app: &Arc<App>, actor: &str, id: OperatorId) -> Result<PubKey, FleetError> {
    let bunker = bunker(app)?.clone();
    let (of, actor) = (app.clone(), actor.to_owned());
    // what the bunker has begun must not hang on a terminal's patience
    let work = async move {
        let _turn = of.pairing.lock().await;
        let operator = find(&of, id).await?;
        let key = match (operator.pubkey, operator.signer) {
            (None, _) => return Err(FleetError::NoIdentity),
            (Some(key), Some(SignerKind::Local)) => key,
            (Some(key), _) => {
                return Err(FleetError::HasIdentity { operator: id, key: key.npub() });
            }
        };
        let name = name(id);
        let keys = of.keyring.load(&name, Purpose::OperatorKey)?;
        let keys = keys.ok_or(FleetError::LocalKeyGone(id))?;
        bunker.prepare(&name).map_err(FleetError::Setup)?;
        // our end's key is new: the relay has to know it before it is used
        of.roster.refresh(&of).await?;
        hand_over(bunker.admin(), &name, keys, key).await?;
        let signer = bunker.provision(name.clone()).await.map_err(FleetError::Setup)?;
        if signer.key() != key {
            return Err(other_key("get_public_key"));
        }
        let now = of.clock.now();
        let at = nostr::Timestamp::from(now.0);
        let kind = nostr::Kind::from(bitspire_shared::document::DOCUMENT_KIND);
        // never sent to anybody
        let proof = nostr::UnsignedEvent::new(key.nostr(), at, kind, [], "");
        let signed = signer.sign(proof).await;
        signed.map_err(|source| FleetError::Bunker { step: "sign_event", source })?;
        let used = name.clone();
        let written = of.store.write(move |tx| {
            let was = operators::find(tx, id)?.ok_or(FleetError::NoOperator(id))?.signer;
            operators::set_identity(tx, id, key, SignerKind::Bunker, Some(&used))?;
            let detail = json!({
                "operator_pubkey": key, "bunker_key_name": used, "signer": SignerKind::Bunker,
                "before": { "signer": was },
            });
            audit(tx, now, &actor, "operator.migrate", &format!("operator:{id}"), detail)
                .map_err(FleetError::from)
        });
        written.await?;
        of.set_signer(signer);
        of.keyring.forget(&name)?;
        of.ring(Ring::Outbox);
        Ok(key)
    };
    app.tasks.spawn(work).await.unwrap_or(Err(FleetError::CutOff))
}

/// Has the bunker hold `keys`, which it may do already.
async fn hand_over(
    admin: &dyn BunkerAdmin,
    name: &str,
    keys: Keys,
    key: PubKey,
) -> Result<(), FleetError> {
    let step = "create_key";
    let there = async || {
        let there = admin.key(name.to_owned()).await;
        there.map_err(|source| FleetError::Bunker { step, source })
    };
    let held = match there().await? {
        Some(held) => Some(held),
        None => match admin.create_key(name.to_owned(), keys).await {
            Err(source) if source.kind() != Kind::Uncertain => {
                return Err(FleetError::Bunker { step, source });
            }
            // whether it is there shows now
            _ => there().await?,
        },
    };
    match held.and_then(|held| held.key) {
        Some(held) if held == key => Ok(()),
        _ => Err(other_key("create_new_key")),
    }
}

const fn other_key(method: &'static str) -> FleetError {
    let source = SignerError::Unexpected { method, expected: "the operator's own key" };
    FleetError::Bunker { step: "create_key", source }
}

/// Uses the keys that this service holds, with a warning, and erases those that are in the bunker.
///
/// # Errors
/// [`StoreError`]. A key that does not open is logged, and its documents wait.
pub async fn reopen(app: &App) -> Result<(), StoreError> {
    for operator in app.store.read::<_, StoreError, _>(operators::list).await? {
        let (id, name) = (operator.id, name(operator.id));
        let opened = match operator.signer {
            None => continue,
            Some(SignerKind::Bunker) => app.keyring.forget(&name).map(|()| None),
            Some(SignerKind::Local) => app.keyring.load(&name, Purpose::OperatorKey),
        };
        match (opened, operator.pubkey) {
            (Ok(None), _) if operator.signer == Some(SignerKind::Bunker) => {}
            (Ok(Some(keys)), Some(key)) if keys.public_key() == key.nostr() => {
                warn(id, key);
                if let Ok(signer) = LocalSigner::new(keys) {
                    app.set_signer(Arc::new(signer));
                }
            }
            (Ok(_), _) => tracing::error!(
                event = "operator_key_unusable", operator = %id,
                "the private key that this service holds for the operator is gone or another one"
            ),
            (Err(error), _) => tracing::error!(
                event = "operator_key_unusable", operator = %id, error = %in_words(&error)
            ),
        }
    }
    Ok(())
}
