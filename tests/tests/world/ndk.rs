//! A machine whose bunker is made of NDK's signer backend, from npm, as it is.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use bitspire_shared::ids::PubKey;
use bitspire_shared::seed::{BunkerSecret, BunkerUri, Loopback, Pins, Seed, parse_relay};
use bitspire_shared::time::Unix;
use bitspire_tests::process::Process;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::{CURRENCY, World, free_ports};
use nostr::{Event, JsonUtil as _, Keys};
use serde_json::Value;

use crate::installed::installed;

/// A seed's secret.
const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";

/// The first request of the machine `spire` that a relay was sent.
fn request(seen: &Path, spire: &PubKey) -> Option<Event> {
    let lines = fs::read_to_string(seen).unwrap();
    let mut events = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        Event::from_json(line["event"].to_string()).ok()
    });
    events.find(|event| event.kind.as_u16() == 21_000 && event.pubkey == spire.nostr())
}

/// Loss prevented: an operator whose bunker is built on the most common library for one, and whose
/// machines understand no other than ours; one that cannot encrypt, found out at the first sale.
#[test]
fn a_machine_pairs_with_ndks_signer_backend() {
    let folder = installed();
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None).unwrap();
    let (logs, seen) = (world.folder().join("logs"), world.folder().join("seen.jsonl"));
    let [port] = free_ports().unwrap();
    let relay = format!("ws://127.0.0.1:{port}");
    let arguments = ["relay", "--open", "--port", &port.to_string(), "--seen"].map(OsString::from);
    let arguments = arguments.into_iter().chain([seen.clone().into()]).collect();
    let mut open_relay = Process::new("open-relay", program, arguments, &logs);
    open_relay.start().unwrap();
    let [machine, operator, service] = [(); 3].map(|()| Keys::generate());
    let public = |keys: &Keys| PubKey::new(keys.public_key()).unwrap();
    let ndk = |name, without: &[&str]| {
        let mut arguments: Vec<OsString> = vec![folder.join("backend.mjs").into()];
        let key = machine.secret_key().to_secret_hex();
        arguments.extend([relay.as_str(), &key, SECRET].map(OsString::from));
        arguments.extend(without.iter().map(OsString::from));
        Process::new(name, Path::new("node"), arguments, &logs)
    };
    world.acceptor.start().unwrap();
    world.dispenser.start().unwrap();
    world.start_vault().unwrap();
    world.net.start().unwrap();
    let (spire, operator, service) = (public(&machine), public(&operator), public(&service));
    let pins = Pins { spire, operator, service, currency: CURRENCY.parse().unwrap() };
    let there = parse_relay(&relay).unwrap();
    let bunker = BunkerUri::new(spire, vec![there.clone()]).unwrap();
    let secret = BunkerSecret::new(SECRET).unwrap();
    let until = Unix(4_000_000_000);
    let seed = Seed::issue(&pins, bunker, secret, vec![there], until, Loopback::Allowed).unwrap();
    let seed = seed.expose().to_string();

    let mut lesser = ndk("ndk-without-nip44", &["nip44_encrypt", "nip44_decrypt"]);
    lesser.start().unwrap();
    let said = world.offer_seed(&seed).unwrap();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.error.contains("nip44_encrypt"), "{said:?}");
    assert_eq!(world.status().unwrap()["pins"], Value::Null);
    lesser.kill9().unwrap();

    // connects, is told the key, encrypts and decrypts
    let mut whole = ndk("ndk", &[]);
    whole.start().unwrap();
    world.give_seed(&seed).unwrap();
    assert_eq!(world.status().unwrap()["pins"]["spire"], spire.to_string());
    let asked = wait_for("a request of the machine", PATIENCE, || {
        request(&seen, &spire).ok_or_else(|| "none".to_owned())
    });
    asked.unwrap().verify().unwrap();
    let bunker = wait_for("a bunker that is there", PATIENCE, || {
        let shown = world.status().map_err(|error| format!("{error:#}"))?;
        if shown["net"]["bunker"] == "ready" { Ok(()) } else { Err(shown.to_string()) }
    });
    bunker.unwrap();
    world.close();
}
