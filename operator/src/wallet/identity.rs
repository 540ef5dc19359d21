//! Whether each wallet of the configuration is still the one that it was.
//!
//! Promise: each start holds the wallets against what the audit log has of the start before. A name that
//! stands for another kind of wallet, another address or another key than before is a row there, which is
//! told like every act of the service, once. Nobody is asked for a signature: whoever edits the
//! configuration of the service is the service. A key stands there as its HMAC-SHA256 (RFC 2104) under
//! the service key: whoever has the log, or a copy of it, cannot try keys against it.
//!
//! Failure policy: a database that does not take it stops the start.

use bitspire_shared::ids::to_hex;
use nostr::SecretKey;
use nostr::hashes::{Hash as _, HashEngine as _, Hmac, HmacEngine, sha256};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::app::App;
use crate::store::{Read, StoreError, log, machines};

/// A name that was not there before.
const SEEN: &str = "wallet.seen";
/// A name that stands for something else.
const CHANGED: &str = "wallet.changed";

/// What makes a wallet the one that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    kind: String,
    /// Where it is; of NIP-47 the wallet's public key.
    address: String,
    /// What opens it, as its HMAC.
    key: String,
}

impl Identity {
    /// Of the wallet `id`, which `key` opens.
    pub(super) fn new(service: &SecretKey, id: &str, kind: &str, address: &str, key: &str) -> Self {
        let secret = Zeroizing::new(service.to_secret_bytes());
        let mut engine = HmacEngine::<sha256::Hash>::new(&*secret);
        // the name: whether two wallets have one key is nobody's business either
        for part in ["bitspire-wallet:v1", id, kind, key] {
            engine.input(&part.len().to_be_bytes());
            engine.input(part.as_bytes());
        }
        let mac = Hmac::<sha256::Hash>::from_engine(engine);
        let (kind, address) = (kind.to_owned(), address.to_owned());
        Self { kind, address, key: to_hex(mac.as_byte_array()) }
    }

    /// What is another than `before`.
    fn changes(&self, before: &Self) -> Vec<&'static str> {
        let same = [
            ("kind", self.kind == before.kind),
            ("address", self.address == before.address),
            ("key", self.key == before.key),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
    }
}

/// What stood behind a name when it was last looked at.
fn before(read: &Read<'_>, subject: &str) -> Result<Option<Identity>, StoreError> {
    let rows = log::audit_tail(read, Some(subject), 1)?;
    let last = rows.into_iter().find(|row| [SEEN, CHANGED].contains(&&*row.action));
    Ok(last.and_then(|row| serde_json::from_value(row.row.detail.0["now"].clone()).ok()))
}

/// Writes down, and tells, which wallets are not what they were at the start before.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn compare(app: &App) -> Result<(), StoreError> {
    let (wallets, now) = (app.identities.clone(), app.clock.now());
    let changed = app.store.write(move |tx| {
        let mut changed = Vec::new();
        for (id, identity) in wallets {
            let subject = format!("wallet:{id}");
            let machine = machines::by_wallet(tx, &id)?.map(|machine| machine.id);
            let (action, detail) = match before(tx, &subject)? {
                Some(before) if before == identity => continue,
                None => (SEEN, json!({ "before": null, "now": identity, "machine": machine })),
                Some(before) => {
                    let what = identity.changes(&before);
                    let detail = json!({
                        "what": what, "before": before, "now": identity, "machine": machine,
                    });
                    changed.push((id, what));
                    (CHANGED, detail)
                }
            };
            log::by_service(tx, action, &subject, detail, now)?;
        }
        Ok::<_, StoreError>(changed)
    });
    for (wallet, what) in changed.await? {
        tracing::error!(event = "wallet_changed", wallet, what = ?what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::store::webhook;
    use crate::testing::World;

    /// A configuration whose wallet `node` is this.
    fn table(url: &str, key: &Path) -> String {
        format!("[wallets.node]\nkind = 'lnd'\nurl = '{url}'\nkey_file = '{}'\n", key.display())
    }

    fn key(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        bitspire_shell::secrets::write_private(&path, text.as_bytes()).unwrap();
        path
    }

    async fn rows(world: &World, action: &'static str) -> Vec<serde_json::Value> {
        let rows = world.app.store.read(move |read| log::of_action(read, action, None));
        let rows: Result<_, StoreError> = rows.await;
        rows.unwrap().into_iter().rev().map(|row| row.row.detail.0).collect()
    }

    /// Loss prevented: somebody puts another wallet behind a name, takes what customers pay, and nobody
    /// hears of it; or an alarm at each start, that nobody listens to any more.
    #[tokio::test]
    async fn another_wallet_under_a_name_is_told_once() {
        let keys = tempfile::tempdir().unwrap();
        let (one, two) = (key(keys.path(), "one", "0201aa"), key(keys.path(), "two", "0201bb"));
        let (here, there) = ("http://127.0.0.1:8080", "http://127.0.0.1:8081");
        let simulated = "[wallets.node]\nkind = 'simulated'\n";
        let mut world = World::in_memory(&table(here, &one)).await;
        let file = world.folder.path().join("operator.toml");
        let base = std::fs::read_to_string(&file).unwrap().replace(&table(here, &one), "");
        let now = world.app.clock.now();
        world.app.store.write(move |tx| webhook::tell(tx, Some(now))).await.unwrap();
        let mut told = 0;
        for (text, what) in [
            (table(here, &one), None),
            (table("http://localhost:8080/", &one), None),
            (table(here, &two), Some(json!(["key"]))),
            (table(there, &two), Some(json!(["address"]))),
            (String::new(), None),
            (table(there, &two), None),
            (table(here, &one), Some(json!(["address", "key"]))),
            (simulated.into(), Some(json!(["kind", "address", "key"]))),
        ] {
            std::fs::write(&file, format!("{base}{text}")).unwrap();
            for _ in 0..2 {
                world = world.restarted().await;
                compare(&world.app).await.unwrap();
            }
            told += usize::from(what.is_some());
            let changed = rows(&world, CHANGED).await;
            assert_eq!(changed.len(), told, "{text}: {changed:?}");
            if let Some(what) = what {
                assert_eq!(changed[told - 1]["what"], what);
            }
        }
        assert_eq!(rows(&world, SEEN).await.len(), 4, "once for each name");
        let alerts = world.app.store.read(webhook::open).await.unwrap().0;
        assert_eq!(alerts, 4 + u64::try_from(told).unwrap());
    }

    /// Loss prevented: a daemon that never looks.
    #[tokio::test]
    async fn a_start_looks_at_each_wallet() {
        let world = World::with("[relay]\nembedded = false\n").await;
        let running = crate::serve::start(world.app.clone()).await.unwrap();
        assert_eq!(rows(&world, SEEN).await.len(), 3);
        running.stop().await;
    }

    /// Loss prevented: whoever reads the audit log, a webhook or a backup tries short keys against it, or
    /// sees that two wallets have one.
    #[test]
    fn a_key_in_the_log_is_no_measure_to_try_keys_by() {
        let (ours, theirs) = (SecretKey::generate(), SecretKey::generate());
        let made =
            |service, id| Identity::new(service, id, "phoenixd", "127.0.0.1:9740", "hush").key;
        let kept = made(&ours, "till");
        assert_eq!(kept, made(&ours, "till"));
        assert_ne!(kept, made(&theirs, "till"));
        assert_ne!(kept, made(&ours, "bar"));
        assert_ne!(kept, sha256::Hash::hash(b"hush").to_string());
    }
}
