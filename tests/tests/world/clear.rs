//! What whoever runs a relay reads of a fleet in a machine's whole life.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bitspire_tests::sale::{buy, settlements};
use bitspire_tests::shop;
use bitspire_tests::world::{CURRENCY, RELAY_SEEN, RelayKind, World};
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Shortest NIP-44 payload: version, nonce, one padded text, MAC.
const SHORTEST: usize = 1 + 32 + 2 + 32 + 32;

/// Whether this is a key, an id, a number, or one of our documents' addresses with a key in it.
fn says_nothing(value: &str) -> bool {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let documents = ["bitspire-cassettes:", "bitspire-cassettes-state:", "bitspire-fees:"];
    hex(value)
        || value.bytes().all(|byte| byte.is_ascii_digit())
        || documents.iter().any(|document| value.strip_prefix(document).is_some_and(hex))
}

/// Loss prevented: a fleet whose machines, places, currencies, amounts and fees anybody can read who
/// runs a relay, or asks one.
#[test]
fn a_relay_reads_nothing_of_the_fleet() {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::on(RelayKind::Apart, program, None).unwrap();
    let mut tell = |step: &str| eprintln!("{step}");
    shop::start(&mut world, &mut tell).unwrap();
    let (name, place, fee) = ("Zanzibar-7781", "Hinterhof-Unterstrasse", "0.051717");
    world.operator_says(&["operator", "init"]).unwrap();
    let of = ["machine", "add", "--name", name, "--place", place, "--currency", CURRENCY];
    let with = ["--wallet", "machine", "--cash-in-fee", fee, "--cash-out-fee", fee];
    world.operator_says(&[of.as_slice(), &with].concat()).unwrap();
    let seed = shop::invite(&world).unwrap();
    shop::pair(&world, &seed).unwrap();
    shop::stock(&world).unwrap();
    let customer = world.customer().unwrap();
    buy(&world, &customer, 2_000).unwrap();
    let sold = settlements(&world).unwrap().pop().unwrap();
    world.operator_says(&["revoke", shop::MACHINE]).unwrap();
    let seen = std::fs::read_to_string(world.folder().join(RELAY_SEEN)).unwrap();
    world.close();

    let (mut kinds, mut tags) = (BTreeMap::<u64, usize>::new(), BTreeSet::new());
    let mut filters = 0;
    for line in seen.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Value::Object(filter) = &line["filter"] {
            filters += 1;
            for (field, values) in filter {
                for value in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    assert!(says_nothing(value), "a filter's {field}: {value}");
                }
            }
            continue;
        }
        let event = &line["event"];
        *kinds.entry(event["kind"].as_u64().unwrap()).or_default() += 1;
        let content = event["content"].as_str().unwrap();
        match content.split_once("?iv=") {
            // the service asks its bunker by a `ping` whether it is one of those that know no other
            Some((text, vector)) => {
                assert!(STANDARD.decode(text).unwrap().len() < 128, "more than a ping: {event}");
                assert_eq!(STANDARD.decode(vector).unwrap().len(), 16);
            }
            None => {
                let content = STANDARD.decode(content).unwrap();
                assert!(content[0] == 2 && content.len() >= SHORTEST, "not NIP-44: {event}");
            }
        }
        for tag in event["tags"].as_array().unwrap() {
            let mut tag = tag.as_array().unwrap().iter().map(|part| part.as_str().unwrap());
            tags.insert(tag.next().unwrap().to_owned());
            for value in tag {
                assert!(says_nothing(value), "{event}");
            }
        }
    }
    for kind in [24_133, 24_134, 21_000, 30_078] {
        assert!(kinds.contains_key(&kind), "nothing of kind {kind} was seen: {kinds:?}");
    }
    let known = ["d", "e", "expiration", "p"];
    assert!(tags.iter().all(|tag| known.contains(&tag.as_str())), "{tags:?}");
    assert!(filters > 0);
    let amount = sold["wire_sats"].as_u64().unwrap().to_string();
    assert!(amount.len() >= 4, "{sold}");
    // ciphertext may hold any few letters, quotes it does not hold
    for secret in [name, place, fee, &format!("\"{amount}\""), "\"EUR\""] {
        assert!(!seen.contains(secret), "{secret} stands in what the relay saw");
    }
}
