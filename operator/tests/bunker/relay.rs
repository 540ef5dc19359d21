//! The bunker on the operator's own relay, which lets in only whom it knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bitspire_operator::relay::{Access, Config, Relay, Role, serve};
use bitspire_operator::signer::provision::Wiring;
use bitspire_operator::signer::service::{Manner, ServiceBunker};
use bitspire_operator::signer::{Bunker as _, BunkerAdmin as _, RemoteSigner as _};
use bitspire_operator::store::relay_docs::RelayDocs;
use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::Keyring;
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

    let mut world = World::on(None, vec![url]).await;
    roster.set(world.id, Role::Bunker);
    roster.set(public(&world.admin_keys), Role::Service);
    let spire = Keys::generate();
    let key = public(&spire);
    // who has the key awaits its pairing; others the roster does not know, as after one that failed
    roster.held.lock().unwrap().push(key.to_bytes());
    world.key("left-over").await;
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

    // the service's own end: an operator key, set up and used over the same relay
    let folder = tempfile::tempdir().unwrap();
    let wiring = Wiring {
        keyring: Keyring::open(folder.path(), None).unwrap(),
        relays: world.relays.clone(),
        clock: world.time.clock(),
        tasks: world.tasks.clone(),
        stop: world.stop.clone(),
    };
    let service = ServiceBunker::start(world.id, wiring, Manner::default()).await.unwrap();
    let [admin] = service.own_keys()[..] else { panic!() };
    world.restart_with(vec![public(&world.admin_keys), admin]).await;
    service.prepare("operator-1").unwrap();
    assert_eq!(service.own_keys().len(), 2);
    for own in service.own_keys() {
        roster.set(own, Role::Service);
    }
    // the roster cannot know the operator's key before the bunker has it
    let signer = service.provision("operator-1".into()).await.unwrap();
    let key = signer.key();
    signer.sign(world.event(key, 30_078, "x")).await.unwrap();
    let again = service.reopen(key, "operator-1".into()).await.unwrap();
    again.sign(world.event(key, 30_078, "y")).await.unwrap();
    drop(world);
    token.cancel();
    server.await.unwrap();
}
