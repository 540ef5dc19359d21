//! Seeds that must not pair a machine, and what a machine keeps of the one that did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use bitspire_shared::ids::{PubKey, from_hex};
use bitspire_shared::seed::{Loopback, Seed};
use bitspire_shared::time::Unix;
use bitspire_tests::books::{Journal, Ledger};
use bitspire_tests::sale::{feeds, offered, orders, pays, steps_up};
use bitspire_tests::screen::claim_code;
use bitspire_tests::secrets::Hunt;
use bitspire_tests::spare::Spare;
use bitspire_tests::wait::PATIENCE;
use bitspire_tests::wallet::{CustomerWallet, decode};
use bitspire_tests::world::{Said, World};
use bitspire_tests::{keys, shop};
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nostr::{Keys, ToBech32 as _};
use serde_json::{Value, json};

const PREFIX: &str = "spire-seed:v1:";

fn payload(seed: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(seed.strip_prefix(PREFIX).unwrap()).unwrap()
}

/// A seed with another value in a field.
fn changed(seed: &str, field: &str, value: Value) -> String {
    let mut json: Value = serde_json::from_slice(&payload(seed)).unwrap();
    assert_ne!(json[field], value);
    json[field] = value;
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string()))
}

/// Seeds that are wrong in themselves, what is to be said to each, and the reason's name.
fn wrong(seed: &str) -> Vec<(String, &'static str, &'static str)> {
    let other = Keys::generate();
    let npub = other.public_key().to_bech32().unwrap();
    let early = "the seed URL ends too early: copy it again, whole";
    let over = "the seed was valid until 1700000000";
    let euros = "expected a seed for EUR, as this machine is";
    let version = "seed version v2 is not known here, expected v1";
    vec![
        (seed[..5].to_owned(), early, "seed_truncated"),
        (PREFIX.to_owned(), early, "seed_truncated"),
        (seed[..seed.len() / 2].to_owned(), early, "seed_truncated"),
        (seed[..seed.len() - 1].to_owned(), early, "seed_truncated"),
        (seed.replace(":v1:", ":v2:"), version, "seed_version"),
        (changed(seed, "spire_npub", json!(npub)), "are two different keys", "seed_invalid"),
        (changed(seed, "expires_at", json!(1_700_000_000)), over, "seed_expired"),
        (changed(seed, "fiat_code", json!("USD")), euros, "seed_currency"),
        (other.secret_key().to_bech32().unwrap(), "this is a private key", "private_key"),
    ]
}

/// What a seed is redeemed with.
fn secret_of(seed: &str) -> String {
    Seed::parse(seed, Unix(0), Loopback::Allowed).unwrap().secret().expose().to_owned()
}

/// Refused, by this name and in these words, and nothing of the seed repeated.
fn refused(said: &Said, (words, code): (&str, &str), seed: &str) {
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.error.contains(words), "expected {words:?}: {}", said.error);
    let name = format!("error[{code}]: ");
    assert!(said.error.contains(&name), "expected {name:?}: {}", said.error);
    let secret = secret_of(seed);
    for hidden in [secret.as_str(), &seed[PREFIX.len()..PREFIX.len() + 40]] {
        assert!(!said.error.contains(hidden), "{}", said.error);
    }
}

/// What a machine has written: its files with what is in them, and where its journal stands. The
/// journal's own files move by themselves.
fn written(data: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, i64) {
    fn files(folder: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, all);
            } else if !path.to_string_lossy().contains("journal.db") {
                all.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    files(data, &mut all);
    (all, Journal::in_data(data).unwrap().seq().unwrap())
}

/// What the customers of a sale in each direction could read, and nobody else should.
struct Bearer {
    codes: [String; 2],
    lnurl: String,
    k1: String,
}

/// One sale in each direction.
fn sells(world: &World) -> Bearer {
    let customer = world.customer().unwrap();
    steps_up(&customer).unwrap();
    let bolt11 = orders(&customer, 2_000).unwrap();
    let bought = claim_code(&customer.screen()).unwrap().to_owned();
    pays(world, &bolt11).unwrap();
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
    steps_up(&customer).unwrap();
    customer.touches(&json!({"action": "start_cash_in"})).unwrap();
    customer.sees(&["Feed your notes"], PATIENCE).unwrap();
    feeds(world, &customer, 20, 2_000).unwrap();
    customer.touches(&json!({"action": "finish"})).unwrap();
    let lnurl = offered(&customer).unwrap();
    let sold = claim_code(&customer.screen()).unwrap().to_owned();
    CustomerWallet::new().unwrap().scan(&lnurl).unwrap();
    customer.sees(&["Paid"], PATIENCE).unwrap();
    let k1 = decode(&lnurl).unwrap().rsplit('/').next().unwrap().to_owned();
    Bearer { codes: [bought, sold], lnurl, k1 }
}

/// Loss prevented: a machine that is half paired, or paired with somebody else, by a bad seed; a
/// stolen disk or a log that pairs another machine, signs in this one's name, or is paid its
/// customers' money.
#[test]
fn a_bad_seed_pairs_nothing_and_a_good_one_leaves_no_secret() {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None).unwrap();
    let mut tell = |step: &str| eprintln!("{step}");
    shop::start(&mut world, &mut tell).unwrap();
    shop::found(&world, &mut tell).unwrap();
    let seed = shop::invite(&world).unwrap();
    let mut spare = Spare::start(&world).unwrap();

    let before = written(spare.data());
    for (bad, words, code) in wrong(&seed) {
        refused(&spare.offer_seed(&bad).unwrap(), (words, code), &seed);
    }
    assert_eq!(written(spare.data()), before, "no trace of any of them");
    shop::pair(&world, &seed).unwrap();
    shop::stock(&world).unwrap();

    let machine = world.folder().join("machine");
    let pairing = written(&machine).0;
    let bearer = thread::scope(|scope| {
        // the bunker's relay carries nothing from it, which it finds out by waiting
        let late = scope.spawn(|| spare.offer_seed(&seed).unwrap());
        for (bad, ..) in wrong(&seed) {
            let said = world.offer_seed(&bad).unwrap();
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        }
        let other = changed(&seed, "expires_at", json!(4_000_000_000u64));
        for good in [&other, &seed] {
            let said = world.offer_seed(good).unwrap();
            let paired = ("this machine is paired already, as npub1", "seed_of_this_pairing");
            refused(&said, paired, &seed);
        }
        let bearer = sells(&world);
        assert_eq!(written(&machine).0, pairing, "the pairing that was there is there");
        // nobody but the bunker knows which of the two it is, and it is not to be reached
        let turned_away = ("the seed was redeemed already, or its time", "seed_turned_away");
        refused(&late.join().unwrap(), turned_away, &seed);
        bearer
    });
    assert_eq!(written(spare.data()), before, "nor of the one that was good once");
    assert_eq!(spare.status().unwrap()["pins"], Value::Null);
    spare.stop().unwrap();

    let sessions = Ledger::of(world.folder()).unwrap().sessions().unwrap();
    let lnurl = decode(&bearer.lnurl).unwrap();
    says_how_it_is_set_up(&world, lnurl.split("/lnurl").next().unwrap());
    // a daemon that runs has a log of its database beside it, with what was there before
    operator_keeps_no_secret(world.folder(), &seed_and_keys(world.folder(), &seed));
    let boot = [world.kiosk_address().unwrap(), world.page_address().unwrap()];
    world.close();
    leaves_no_secret(world.folder(), &seed, &bearer, &sessions, &boot);
}

/// What a command of a part says; it goes well.
fn says(world: &World, program: &str, words: &[&str]) -> Vec<u8> {
    let file = if program == "agent" { "machine.toml" } else { "operator.toml" };
    let mut command = Command::new(world.program());
    command.args([program, "--config"]).arg(world.folder().join(file)).args(words);
    let said = command.output().unwrap();
    assert!(said.status.success(), "{program} {words:?}: {said:?}");
    assert!(!said.stdout.is_empty(), "{program} {words:?}");
    [said.stdout, said.stderr].concat()
}

/// What the commands that tell of configuration, keys, requests and sales say, and the page that checks
/// receipts, among the logs.
fn says_how_it_is_set_up(world: &World, public: &str) {
    let logs = world.folder().join("logs");
    for (program, words) in [
        ("agent", ["config", "show"].as_slice()),
        ("agent", &["audit", "keys"]),
        ("operator", &["config", "show"]),
        ("operator", &["audit", "keys"]),
        ("operator", &["bunker", "audit"]),
        ("operator", &["bunker", "tokens", keys::SPIRE]),
    ] {
        let name = format!("{program} {}.out", words[..2].join(" "));
        fs::write(logs.join(name), says(world, program, words)).unwrap();
    }
    let entries = Journal::of(world.folder()).unwrap().after(0).unwrap();
    // a sale that was begun and left moves no notes, and has no receipt
    let sales = entries.into_iter().filter(|entry| entry.kind == "intent");
    let sales: BTreeSet<String> = sales.filter_map(|entry| entry.txid).collect();
    assert_eq!(sales.len(), 2, "one in each direction: {sales:?}");
    for txid in sales {
        let evidence = says(world, "agent", &["evidence", &txid]);
        fs::write(logs.join(format!("evidence {txid}.out")), evidence).unwrap();
        let receipt = String::from_utf8(says(world, "agent", &["receipt", &txid])).unwrap();
        let text = receipt.lines().next().unwrap();
        let page = ureq::post(format!("{public}/receipt")).send_form([("receipt", text)]);
        let page = page.unwrap().body_mut().read_to_string().unwrap();
        assert!(page.contains("Good receipt"), "{page}");
        fs::write(logs.join(format!("receipt {txid}.out")), receipt + &page).unwrap();
    }
}

/// Looks for what pairs a machine or signs for somebody.
fn seed_and_keys(folder: &Path, seed: &str) -> Hunt {
    let mut hunt = Hunt::default();
    let secret = secret_of(seed);
    hunt.text("seed URL", seed);
    hunt.bytes("seed's JSON", &payload(seed));
    hunt.text("bunker secret", &secret);
    hunt.bytes("bunker secret's bytes", &from_hex::<32>("secret", &secret).unwrap());
    let keys = keys::all(folder).unwrap();
    assert!(keys.len() >= 8, "{:?}", keys.keys());
    for (name, keys) in &keys {
        hunt.bytes(name, &keys.secret_key().to_secret_bytes());
        hunt.text(name, &keys.secret_key().to_bech32().unwrap());
    }
    hunt
}

/// The operator keeps what its customers may still bring, but no seed and no key in the clear.
fn operator_keeps_no_secret(folder: &Path, hunt: &Hunt) {
    let places = ["operator", "bunker"].map(|place| folder.join(place));
    let (files, found) = hunt.look(&[&places[0], &places[1]]).unwrap();
    assert!(files > 8, "{files} files");
    assert_eq!(found, [], "a secret lies where it must not");
}

fn leaves_no_secret(
    folder: &Path,
    seed: &str,
    bearer: &Bearer,
    sessions: &[String],
    boot: &[String],
) {
    let places = ["machine", "run", "logs", "spare", "spare-run"].map(|place| folder.join(place));
    let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    let mut hunt = seed_and_keys(folder, seed);
    // keys that nobody but their process knows, and the others once more
    let keys = keys::all(folder).unwrap();
    for (name, keys) in &keys {
        hunt.key(name, &PubKey::new(keys.public_key()).unwrap());
    }
    assert!(!sessions.is_empty());
    for session in sessions {
        hunt.key("session", &session.parse().unwrap());
    }
    operator_keeps_no_secret(folder, &hunt);
    for code in &bearer.codes {
        hunt.text("claim code", code);
        hunt.bytes("claim code's bytes", &from_hex::<16>("claim code", code).unwrap());
    }
    hunt.text("LNURL", &bearer.lnurl);
    hunt.text("LNURL's address", &decode(&bearer.lnurl).unwrap());
    hunt.text("k1", &bearer.k1);
    let (files, found) = hunt.look(&places).unwrap();
    assert!(files > 20, "{files} files");
    assert_eq!(found, [], "a secret lies where it must not");

    // what lets somebody in as the kiosk's page or the operator's lies in its file and in no log
    let mut hunt_logs = Hunt::default();
    for address in boot {
        let (_, token) = address.split_once('#').unwrap();
        hunt_logs.text("token", token.rsplit('=').next().unwrap());
    }
    for place in ["machine/net", "machine/vault", "operator", "bunker"] {
        let secret = fs::read(folder.join(place).join("machine-secret")).unwrap();
        hunt_logs.bytes("machine secret", &secret);
    }
    let logs = folder.join("logs");
    assert_eq!(hunt_logs.look(&[&logs]).unwrap().1, []);
    let runtime = folder.join("run");
    assert!(!hunt_logs.look(&[&runtime]).unwrap().1.is_empty(), "the kiosk's address is there");

    // each of them would have been found, between the lines of a real log
    let around = fs::read_to_string(logs.join("net.log")).unwrap();
    assert_eq!(hunt.look(&[&logs.join("net.log")]).unwrap().1, []);
    let (spire, secret) = (keys[keys::SPIRE].secret_key(), secret_of(seed));
    for planted in [
        seed.to_owned(),
        format!("connect {secret}"),
        format!("pairing failed: {}", String::from_utf8(payload(seed)).unwrap()),
        spire.to_bech32().unwrap(),
        keys["vault"].secret_key().to_secret_hex(),
        format!("GET /c/{}", bearer.codes[1]),
        format!("GET /lnurl/w/{}", bearer.k1),
        bearer.lnurl.clone(),
    ] {
        let file = logs.join("planted.log");
        fs::write(&file, format!("{around}{planted}\n{around}")).unwrap();
        assert!(!hunt.look(&[&file]).unwrap().1.is_empty(), "not found: {planted}");
    }
}
