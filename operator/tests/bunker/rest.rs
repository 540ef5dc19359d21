//! What lies on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use bitspire_operator::bunker;
use bitspire_operator::signer::{BunkerAdmin as _, RemoteSigner as _};
use bitspire_shared::ids::from_hex;
use bitspire_shared::sealed::{MachineSecret, Purpose, Sealed};
use bitspire_shell::secrets::{Rotation, SecretError};
use nostr::Keys;
use nostr::nips::nip19::ToBech32 as _;
use rusqlite::Connection;
use serde_json::json;

use crate::raw::Raw;
use crate::world::{World, public};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Loss prevented: a backup of the bunker's folder is every machine's key, or pairs a machine.
#[tokio::test]
async fn no_key_and_no_token_lies_there_in_the_clear() {
    let mut world = World::new().await;
    let keys = Keys::generate();
    world.admin.create_key("spire".into(), keys.clone()).await.unwrap();
    let policy = world.spire_policy().await;
    let (used, unused) = (world.token("spire", policy).await, world.token("spire", policy).await);
    let remote = world.remote(public(&keys), &Keys::generate(), Some(used.clone())).await;
    remote.connect().await.unwrap();
    remote.sign(world.event(public(&keys), 30_078, "x")).await.unwrap();
    let private = keys.secret_key();
    let mut secrets: Vec<Vec<u8>> = vec![
        private.to_secret_bytes().to_vec(),
        private.to_secret_hex().into_bytes(),
        private.to_bech32().unwrap().into_bytes(),
    ];
    for token in [&used, &unused] {
        secrets.push(token.expose().as_bytes().to_vec());
        secrets.push(from_hex::<32>("token", token.expose()).unwrap().to_vec());
    }
    let scan = |folder: &Path, when: &str| {
        let found = files(folder);
        for name in ["bunker.db", "bunker-transport.sealed", "machine-secret"] {
            assert!(
                found.iter().any(|path| path.ends_with(name)),
                "{when}: no {name} in {found:?}"
            );
        }
        for path in found {
            let bytes = fs::read(&path).unwrap();
            for secret in &secrets {
                let there = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!there, "{when}: {} holds a secret", path.display());
            }
        }
    };
    scan(world.folder.path(), "running");
    world.stop_bunker().await;
    scan(world.folder.path(), "stopped");
}

/// Loss prevented: a key whose envelope was changed or exchanged signs in another one's name, or
/// takes the whole bunker down with it.
#[tokio::test]
async fn a_key_that_does_not_open_is_locked_and_the_others_go_on() {
    let mut world = World::new().await;
    let (good, client, _) = world.paired().await;
    let (swapped, broken) = (world.key("swapped").await, world.key("broken").await);
    world.stop_bunker().await;
    let db = Connection::open(world.folder.path().join("bunker.db")).unwrap();
    let refused = db.execute("UPDATE keys SET name = 'x'", []).unwrap_err();
    assert!(refused.to_string().contains("never overwritten"), "{refused}");
    assert!(db.execute("DELETE FROM keys", []).is_err());
    // another envelope under the same secret would be another key
    let swap = "UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE name = 'spire')
                WHERE name = 'swapped'";
    let refused = db.execute(swap, []).unwrap_err();
    assert!(refused.to_string().contains("never overwritten"), "{refused}");
    assert!(db.execute("UPDATE grants SET revoked_at = 5", []).is_ok());
    assert!(db.execute("UPDATE grants SET revoked_at = NULL", []).is_err(), "revoked for good");
    assert!(
        db.execute("DELETE FROM requests", []).is_err()
            && db.execute("DELETE FROM admin_log", []).is_err()
    );
    assert!(db.execute("UPDATE tokens SET redeemed_by = NULL, redeemed_at = NULL", []).is_err());
    db.execute_batch(
        "DROP TRIGGER keys_no_update;
         UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE name = 'spire') WHERE name = 'swapped';
         UPDATE keys SET sealed = 'bitspire-sealed:v1:bunker-key:x' WHERE name = 'broken';",
    )
    .unwrap();
    drop(db);
    world.start_bunker(vec![]).await;
    let locked: Vec<_> =
        world.admin.keys().await.unwrap().into_iter().map(|key| (key.name, key.key)).collect();
    let expected =
        [("spire".to_owned(), Some(good)), ("swapped".into(), None), ("broken".into(), None)];
    assert_eq!(locked, expected);
    let raw = Raw::new(&world, client).await;
    let now = world.time.now().0;
    let ping = json!({"id": "p", "method": "ping", "params": []});
    for key in [swapped, broken] {
        raw.send(&raw.letter(key, 24_133, &ping.to_string(), now)).await;
    }
    let first = raw.ask(good, 24_133, &ping, now).await;
    assert!(first["error"].as_str().unwrap().contains("revoked"), "of the good key alone: {first}");
    let admin = Raw::new(&world, world.second_admin.clone()).await;
    let unlock = |name: &str| json!({"id": "1", "method": "unlock_key", "params": [name, ""]});
    let refused = admin.ask(world.id, 24_134, &unlock("broken"), now).await;
    assert!(refused["error"].as_str().unwrap().contains("does not open"), "{refused}");
    let open = admin.ask(world.id, 24_134, &unlock("spire"), now).await;
    assert_eq!(open["result"], "{\"success\":true}");
}

/// Loss prevented: a bunker's secret that somebody has read and that cannot be changed; a change that
/// was cut off, after which every machine's key is locked.
#[tokio::test]
async fn the_bunkers_secret_is_changed_and_its_keys_stay() {
    let mut world = World::new().await;
    let (spire, _, remote) = world.paired().await;
    let folder = world.folder.path().to_owned();
    let own = folder.join("machine-secret");
    let now = world.time.now();
    let rotate = |folder: &Path, from: Option<&Path>, to: Option<&Path>| {
        let (folder, from, to) =
            (folder.to_owned(), from.map(Path::to_owned), to.map(Path::to_owned));
        let work = move || bunker::rotate(&folder, from.as_deref(), to.as_deref(), now);
        tokio::task::spawn_blocking(work)
    };
    let running = rotate(&folder, None, None).await.unwrap().unwrap_err();
    assert!(format!("{running:?}").contains("Locked"), "{running:?}");
    let files = Rotation::begin(&folder, None, None);
    assert!(matches!(files, Err(SecretError::InUse { .. })), "{files:?}");
    assert!(!folder.join("machine-secret.next").exists(), "nothing was begun");
    world.stop_bunker().await;
    let before = fs::read(&own).unwrap();
    let envelope = || {
        let db = Connection::open(folder.join("bunker.db")).unwrap();
        let query = "SELECT sealed FROM keys WHERE name = 'spire'";
        db.query_row(query, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let sealed = envelope();
    // cut off right after it began
    drop(Rotation::begin(&folder, None, None).unwrap());
    let next = fs::read(folder.join("machine-secret.next")).unwrap();
    rotate(&folder, None, None).await.unwrap().unwrap();
    assert_eq!(fs::read(&own).unwrap(), next, "it went on where it stopped");
    assert_ne!(next, before);
    assert_ne!(envelope(), sealed);
    world.start_bunker(vec![]).await;
    remote.sign(world.event(spire, 30_078, "x")).await.unwrap();
    world.stop_bunker().await;
    // and once more: nobody who has the first secret opens a thing
    rotate(&folder, None, None).await.unwrap().unwrap();
    let old = MachineSecret::from_slice(&before).unwrap();
    let text: Sealed = envelope().parse().unwrap();
    assert!(old.open(Purpose::BunkerKey, "keys/spire", &text).is_err());
    world.start_bunker(vec![]).await;
    remote.sign(world.event(spire, 30_078, "y")).await.unwrap();
}
