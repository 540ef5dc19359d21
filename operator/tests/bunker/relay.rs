//! The bunker on the operator's own relay, which lets in only whom it knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bitspire_operator::relay::{Access, Config, Relay, Role, serve};
use bitspire_operator::signer::{BunkerAdmin as _, RemoteSigner as _};
use bitspire_operator::store::relay_docs::RelayDocs;
use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use nostr::{Keys, RelayUrl};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::{World, public};

/// What the operator service tells its relay.
#[derive(Default)]
struct Roster {
    roles: Mutex<HashMap<[u8; 32], Role>>,
    held: Mutex<Vec<[u8; 32]>>,
}

impl Roster {
    fn set(&self, key: PubKey, role: Role) {
        self.roles.lock().unwrap().insert(key.to_bytes(), role);
    }
}

impl Access for Roster {
    fn role(&self, key: &[u8; 32]) -> Role {
        self.roles.lock().unwrap().get(key).copied().unwrap_or(Role::Unknown)
    }
    fn session_of(&self, _: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }
    fn held_by_bunker(&self, key: &[u8; 32]) -> bool {
        self.held.lock().unwrap().contains(key)
    }
    fn awaits_pairing(&self, key: &[u8; 32]) -> bool {
        self.held_by_bunker(key)
    }
}

/// Loss prevented: bunker and relay that each work alone and not together, so that no machine pairs.
#[tokio::test]
async fn a_machine_pairs_and_signs_over_the_embedded_relay() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let roster = Arc::new(Roster::default());
    let documents = RelayDocs::open(&folder.path().join("relay.db"), Unix(1)).unwrap();
    let config = Config::new(vec![RelayUrl::parse(&url).unwrap()]);
    let token = CancellationToken::new();
    let relay = Relay::new(config, roster.clone(), documents, token.clone());
    let server = tokio::spawn(serve(listener, relay));

    let world = World::on(None, vec![url]).await;
    roster.set(world.id, Role::Bunker);
    roster.set(public(&world.admin_keys), Role::Service);
    let spire = Keys::generate();
    let key = public(&spire);
    // the roster knows a key before the bunker asks for its mail
    roster.held.lock().unwrap().push(key.to_bytes());
    world.admin.create_key("spire".into(), spire).await.unwrap();
    let policy = world.spire_policy().await;
    let secret = world.token("spire", policy).await;
    let client = Keys::generate();
    let remote = world.remote(key, &client, Some(secret)).await;
    remote.connect().await.unwrap();
    roster.set(public(&client), Role::Machine { spire: key.to_bytes() });
    for n in 0..20 {
        remote.sign(world.event(key, 30_078, &n.to_string())).await.unwrap();
    }
    drop(world);
    token.cancel();
    server.await.unwrap();
}
