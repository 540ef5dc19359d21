//! Opens the keys that a bunker's restart has locked.
//!
//! Promise: only keys of this fleet are unlocked, each once; our own bunker opens its keys itself and
//! is not asked. Without a passphrase the log says which keys wait for somebody to unlock them; sales
//! go on by session meanwhile.
//!
//! Failure policy: a bunker that does not answer is asked again in the next round.

use std::collections::BTreeSet;

use bitspire_shared::error::Classified as _;

use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::signer::{BunkerAdmin, SignerError, trial};
use crate::store::{Read, StoreError, canaries, machines, operators};

/// Names of the keys that are in use here.
fn in_use(read: &Read<'_>) -> Result<BTreeSet<String>, StoreError> {
    let operators = operators::list(read)?.into_iter().filter_map(|o| o.row.bunker_key_name);
    let machines = machines::list(read, None)?.into_iter();
    let machines = machines.filter(|machine| machine.revoked_at.is_none());
    let machines = machines.filter_map(|m| m.row.bunker_spire_key_name);
    let trials = canaries::newest(read, 1)?.into_iter().map(|one| trial::name(one.id));
    Ok(operators.chain(machines).chain(trials).collect())
}

/// Unlocks what is locked and in use.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn unlock(app: &App, admin: &dyn BunkerAdmin) -> Result<(), StoreError> {
    let locked = match locked(admin).await {
        Ok(locked) if locked.is_empty() => return Ok(()),
        Ok(locked) => locked,
        Err(error) => {
            tracing::info!(event = "bunker_keys_unread", error = %in_words(&error));
            return Ok(());
        }
    };
    let ours = app.store.read(in_use).await?;
    for name in locked.iter().filter(|name| ours.contains(*name)) {
        match admin.unlock(name.clone()).await {
            Ok(()) => {
                tracing::info!(event = "bunker_key_unlocked", key = name);
                // what waited for a signature
                app.ring(Ring::Outbox);
            }
            Err(error) => tracing::warn!(
                event = "bunker_key_locked", key = name, error = %in_words(&error),
                kind = ?error.kind(),
                "unlock it in the bunker: documents wait for it, sales go on"
            ),
        }
    }
    Ok(())
}

async fn locked(admin: &dyn BunkerAdmin) -> Result<Vec<String>, SignerError> {
    if admin.abilities().await?.software.is_some() {
        return Ok(Vec::new());
    }
    let keys = admin.keys().await?.into_iter();
    Ok(keys.filter(|key| key.key.is_none()).map(|key| key.name).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Site;
    use super::*;

    /// Loss prevented: a fleet whose documents stand still after the bunker's restart, until somebody
    /// finds out; a key of somebody else that is opened.
    #[tokio::test]
    async fn what_a_restart_has_locked_is_opened_again() {
        let site = Site::new().await;
        site.pair().await.map_err(|failed| failed.error).unwrap();
        let lock_all = || {
            let mut state = site.bunker.state();
            let mut locked = Vec::new();
            for key in &mut state.keys {
                locked.extend(key.key.take().map(|open| (key.name.clone(), open)));
            }
            state.locked.extend(locked);
        };
        site.bunker.state().keys.push(crate::signer::BunkerKey {
            name: "somebody-elses".into(),
            key: Some(crate::testing::key()),
        });
        lock_all();
        unlock(site.app(), &*site.bunker).await.unwrap();
        assert!(site.bunker.state().keys.iter().all(|key| key.key.is_none()), "ours opens itself");
        site.bunker.state().foreign = true;
        unlock(site.app(), &*site.bunker).await.unwrap();
        let open: Vec<_> = site.bunker.state().keys.iter().map(|key| key.key.is_some()).collect();
        assert_eq!(open, [true, true, false], "the operator's, the machine's, somebody else's");
        let calls = site.bunker.state().calls.iter().filter(|call| **call == "unlock").count();
        unlock(site.app(), &*site.bunker).await.unwrap();
        assert_eq!(calls, 2);
        assert_eq!(site.bunker.state().calls.iter().filter(|call| **call == "unlock").count(), 2);
    }
}
