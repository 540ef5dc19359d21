//! Other people's clients, from npm: nostr-tools and NDK, as they are.

mod installed;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bitspire_operator::signer::BunkerAdmin as _;
use bitspire_shared::ids::PubKey;
use tokio::process::Command;

use self::installed::installed;
use crate::world::World;

/// A minute of a client's own time-outs, and a busy computer.
const PATIENCE: Duration = Duration::from_secs(180);

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.expect("it takes too long").unwrap_or_else(|error| panic!("{program}: {error}"))
}

async fn url(world: &World, name: &str, policy: i64) -> (PubKey, String) {
    let key = world.key(name).await;
    let secret = world.token(name, policy).await;
    let relay: String =
        nostr::types::url::form_urlencoded::byte_serialize(world.relays[0].as_bytes()).collect();
    (key, format!("bunker://{key}?relay={relay}&secret={}", secret.expose()))
}

/// Loss prevented: an operator who is locked into our own software, because our bunker serves nobody
/// else's.
#[tokio::test]
async fn clients_of_nostr_tools_and_ndk_connect_sign_encrypt_and_decrypt() {
    let folder = installed();
    let world = World::new().await;
    let policy = world.spire_policy().await;
    let (_, tools) = url(&world, "nostr-tools", policy).await;
    let (key, ndk) = url(&world, "ndk", policy).await;
    let done = run(&folder, "node", &["clients.mjs", &tools, &ndk]).await;
    let (out, error) = (&done.stdout, &done.stderr);
    let said = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error));
    assert!(done.status.success(), "{said}");
    assert!(said.contains(&format!("\"ndk\":\"{key}\"")), "{said}");
    let users = world.admin.users("nostr-tools".into()).await.unwrap();
    assert_eq!(users.len(), 1, "one client, and no thief");
}
