//! The operator's own key: made in the bunker, used over NIP-46 to sign documents and statements.
//!
//! Promise: this service never sees the key but once, when it is made. An operator has one key for
//! ever: machines pin it.
//!
//! Failure policy: an interrupted [`init`] is run again and goes on with the key that is there. A
//! bunker that is down at a start is waited for; documents wait with it.

use std::sync::Arc;

use serde_json::json;

use super::{FleetError, audit, bunker};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::OperatorId;
use crate::store::operators::{self, Operator, SignerKind};
use crate::store::{Kept, StoreError};

/// Makes an operator's key in the bunker and connects to it.
///
/// # Errors
/// [`FleetError::HasIdentity`]; [`FleetError::Setup`], to be tried again.
pub async fn init(
    app: &Arc<App>,
    actor: &str,
    id: OperatorId,
) -> Result<Kept<OperatorId, Operator>, FleetError> {
    let bunker = bunker(app)?.clone();
    let of = app.clone();
    let actor = actor.to_owned();
    let work = async move {
        let _turn = of.pairing.lock().await;
        let found = of.store.read(move |read| operators::find(read, id)).await?;
        let operator = found.ok_or(FleetError::NoOperator(id))?;
        if let Some(key) = operator.pubkey {
            return Err(FleetError::HasIdentity { operator: id, key: key.npub() });
        }
        let name = format!("operator-{id}");
        bunker.prepare(&name).map_err(FleetError::Setup)?;
        // our end's key is new: the relay has to know it before it is used
        of.roster.refresh(&of).await?;
        let signer = bunker.provision(name.clone()).await.map_err(FleetError::Setup)?;
        let (key, now) = (signer.key(), of.clock.now());
        let written = of.store.write(move |tx| {
            operators::set_identity(tx, id, key, SignerKind::Bunker, Some(&name))?;
            let detail = json!({ "operator_pubkey": key, "bunker_key_name": name });
            audit(tx, now, &actor, "operator.init", &format!("operator:{id}"), detail)?;
            operators::find(tx, id)?.ok_or(FleetError::NoOperator(id))
        });
        let operator = written.await?;
        of.set_signer(signer);
        of.roster.refresh(&of).await?;
        of.ring(Ring::Roster);
        of.ring(Ring::Outbox);
        Ok(operator)
    };
    app.tasks.spawn(work).await.unwrap_or(Err(FleetError::CutOff))
}

/// Takes every operator's key that was set up before into use again.
///
/// # Errors
/// [`StoreError`]. A key that cannot be used is logged, and its documents wait.
pub async fn reopen(app: &App) -> Result<(), StoreError> {
    let Some(bunker) = app.bunker.get() else { return Ok(()) };
    for operator in app.store.read::<_, StoreError, _>(operators::list).await? {
        let Operator { pubkey: Some(key), bunker_key_name: Some(name), .. } = operator.row else {
            continue;
        };
        match bunker.reopen(key, name).await {
            Ok(signer) => app.set_signer(signer),
            Err(error) => tracing::error!(
                event = "operator_key_unusable", operator = %operator.id,
                error = %in_words(error.as_ref())
            ),
        }
    }
    Ok(())
}
