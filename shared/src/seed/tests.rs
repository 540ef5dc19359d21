use nostr::base64::engine::general_purpose::URL_SAFE;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::test_keys::key;

const NOW: Unix = Unix(1_800_000_000);

fn token() -> BunkerSecret {
    BunkerSecret::new(&"5e".repeat(32)).unwrap()
}

fn pins() -> Pins {
    let currency = "EUR".parse().unwrap();
    Pins { spire: key(1), operator: key(2), service: key(3), currency }
}

fn relays(urls: &[&str]) -> Vec<RelayUrl> {
    urls.iter().map(|url| parse_relay(url).unwrap()).collect()
}

fn seed() -> Seed {
    let relays = relays(&["wss://relay.example.com", "wss://two.example.com/path"]);
    let bunker = BunkerUri::new(key(1), relays.clone()).unwrap();
    Seed::issue(&pins(), bunker, token(), relays, NOW, Loopback::Refused).unwrap()
}

fn parse(text: &str) -> Result<Seed, SeedError> {
    Seed::parse(text, NOW, Loopback::Refused)
}

/// The seed with its JSON changed.
fn with(change: impl FnOnce(&mut Value)) -> String {
    let text = seed().expose();
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut value);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(value.to_string()))
}

/// Loss prevented: a machine that cannot read our seed stays unpaired on the shop floor.
#[test]
fn what_is_written_is_read_with_and_without_padding() {
    let text = seed().expose();
    assert_eq!(parse(&text), Ok(seed()));
    assert_eq!(parse(&format!("  {}\n", *text)), Ok(seed()));
    assert_eq!(parse(&with(|v| v["anything"] = json!({"new": [1]}))), Ok(seed()));
    for filler in ["", "a", "ab"] {
        let json = with(|v| v["filler"] = filler.into());
        let bytes = URL_SAFE_NO_PAD.decode(json.strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(parse(&format!("{PREFIX}{}", URL_SAFE.encode(bytes))), Ok(seed()));
    }
    assert!(!text.contains('='));
    assert_eq!(seed().pins(), Ok(pins()));
}

/// Loss prevented: a changed field name makes every machine in the field refuse new seeds.
#[test]
fn the_json_inside_is_the_one_agreed_on() {
    let text = seed().expose();
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let spire = key(1);
    let bunker = format!(
        "bunker://{spire}?relay=wss%3A%2F%2Frelay.example.com&\
         relay=wss%3A%2F%2Ftwo.example.com%2Fpath&secret={}",
        "5e".repeat(32)
    );
    let expected = json!({
        "spire_npub": spire.npub(),
        "spire_pubkey": spire.to_string(),
        "bunker_url": bunker,
        "relays": ["wss://relay.example.com", "wss://two.example.com/path"],
        "operator_pubkey": key(2).to_string(),
        "service_pubkey": key(3).to_string(),
        "fiat_code": "EUR",
        "expires_at": NOW.0,
    });
    assert_eq!(value, expected);
}

/// Loss prevented: one message for every defect leaves the technician guessing in the shop.
#[test]
fn each_defect_has_its_own_error() {
    let whole = seed().expose();
    for (text, expected) in [
        ("", SeedError::NotASeed),
        ("https://example.com", SeedError::NotASeed),
        ("spire-seed:eyJhIjoxfQ", SeedError::NotASeed),
        ("nsec1qqqqqqqq", SeedError::PrivateKey),
        (&"5e".repeat(32), SeedError::PrivateKey),
        ("spire-seed:v1", SeedError::Truncated),
        ("spire-seed:v2:eyJhIjoxfQ", SeedError::Version { got: "v2".into() }),
        ("spire-seed:v1:a+b/", SeedError::NotBase64),
        ("spire-seed:v1:WzFd", SeedError::NotJson),
        ("spire-seed:v1:bm9wZQ", SeedError::NotJson),
        (&"x".repeat(20_000), SeedError::TooLong { got: 20_000 }),
        (&whole.replace(PREFIX, "spire-seed:v12:"), SeedError::Version { got: "v12".into() }),
    ] {
        assert_eq!(parse(text), Err(expected), "{text:?}");
    }
    let key_2 = key(2).npub();
    let hex = "64 lower-case hex characters";
    let invalid = |field, expected| SeedError::InvalidField { field, expected };
    let cases: [(String, SeedError); 9] = [
        (with(|v| v["spire_npub"] = key_2.into()), SeedError::NpubMismatch),
        (with(|v| v["spire_npub"] = v["spire_pubkey"].clone()), invalid("spire_npub", "an npub")),
        (with(|v| v["spire_pubkey"] = "f".repeat(64).into()), invalid("spire_pubkey", hex)),
        (with(|v| v["operator_pubkey"] = 7.into()), invalid("operator_pubkey", hex)),
        (with(|v| v["fiat_code"] = "EURO".into()), invalid("fiat_code", "an ISO-4217 code")),
        (with(|v| v["expires_at"] = "soon".into()), invalid("expires_at", "whole Unix seconds")),
        (with(|v| v["relays"] = "wss://a".into()), invalid("relays", "a list of relay URLs")),
        (
            with(|v| v["relays"] = json!([])),
            SeedError::Address { field: "relays", source: BunkerError::NoRelays },
        ),
        (
            with(|v| v["relays"] = json!(["https://a.example"])),
            SeedError::Address { field: "relays", source: BunkerError::Relay },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&text), Err(expected));
    }
    for field in ["spire_npub", "spire_pubkey", "bunker_url", "relays"] {
        for text in [
            with(|v| drop(v.as_object_mut().unwrap().remove(field))),
            with(|v| v[field] = Value::Null),
        ] {
            assert_eq!(parse(&text), Err(SeedError::MissingField { field }));
        }
    }
}

/// Loss prevented: an old seed from a drawer pairs a stranger's machine.
#[test]
fn a_seed_ends_after_its_last_second() {
    let text = seed().expose();
    assert!(Seed::parse(&text, NOW, Loopback::Refused).is_ok());
    let now = NOW.after(1);
    assert_eq!(
        Seed::parse(&text, now, Loopback::Refused),
        Err(SeedError::Expired { expires_at: NOW, now })
    );
    let endless = with(|v| drop(v.as_object_mut().unwrap().remove("expires_at")));
    assert_eq!(Seed::parse(&endless, now, Loopback::Refused).unwrap().expires_at(), None);
}

/// Loss prevented: a key trusted because it came first, where the seed named none.
#[test]
fn a_seed_without_keys_says_what_is_missing() {
    let text = with(|v| {
        let map = v.as_object_mut().unwrap();
        map.remove("service_pubkey");
        map.insert("fiat_code".into(), Value::Null);
    });
    let missing = parse(&text).unwrap().pins().unwrap_err();
    let expected =
        MissingPins { spire: key(1), operator: Some(key(2)), service: None, currency: None };
    assert_eq!(missing, expected);
    let said = missing.to_string();
    assert!(said.contains("make one with the operator's service"), "{said}");
    assert!(said.contains("does not name the service key, the currency"), "{said}");
    assert!(!said.contains("operator key"), "{said}");
}

/// Loss prevented: a seed with the server's own loopback address, which no machine can reach.
#[test]
fn a_relay_on_loopback_is_refused_unless_allowed() {
    for relay in [
        "ws://127.0.0.1:7777",
        "ws://127.9.9.9",
        "ws://localhost:80",
        "wss://a.localhost",
        "ws://[::1]:7",
        "ws://[::ffff:127.0.0.1]",
        "ws://0.0.0.0:7777",
    ] {
        let bunker = BunkerUri::new(key(1), relays(&[relay])).unwrap();
        let public = relays(&["wss://relay.example.com"]);
        let issue =
            |policy| Seed::issue(&pins(), bunker.clone(), token(), public.clone(), NOW, policy);
        let refused = issue(Loopback::Refused).unwrap_err();
        let SeedError::Address { field: "bunker_url", source: BunkerError::Loopback { .. } } =
            refused
        else {
            panic!("{relay}: {refused:?}");
        };
        let text = issue(Loopback::Allowed).unwrap().expose();
        assert!(parse(&text).is_err(), "{relay}");
        assert!(Seed::parse(&text, NOW, Loopback::Allowed).is_ok(), "{relay}");
    }
    assert_eq!(Loopback::Refused.check(&relays(&["ws://192.168.1.5:7777"])), Ok(()));
}

/// Loss prevented: a relay password that ends up in logs and on screens.
#[test]
fn a_relay_is_an_address_and_nothing_else() {
    for bad in [
        "https://a.example",
        "wss://user@a.example",
        "wss://user:pw@a.example",
        "wss://a.example#x",
        "wss://",
        "a.example",
        "",
    ] {
        assert_eq!(parse_relay(bad), Err(BunkerError::Relay), "{bad:?}");
    }
    assert!(parse_relay("wss://a.example/path?x=1").is_ok());
}

/// Loss prevented: a bunker URI on disk with the secret that pairs another machine.
#[test]
fn a_stored_bunker_uri_has_no_secret() {
    let text = format!("bunker://{}?secret=abc&relay=wss%3A%2F%2Fa.example&x=1", key(1));
    let link = BunkerLink::parse(&text).unwrap();
    assert_eq!(link.secret.as_ref().unwrap().expose(), "abc");
    assert_eq!(text.parse::<BunkerUri>(), Err(BunkerError::SecretPresent));
    let stored = serde_json::to_string(&link.uri).unwrap();
    assert!(!stored.contains("secret") && !stored.contains("abc"), "{stored}");
    assert_eq!(serde_json::from_str::<BunkerUri>(&stored).unwrap(), link.uri);
    assert_eq!(BunkerLink::parse(&link.expose()), Ok(link));

    let hex = key(1);
    for (bad, expected) in [
        (format!("nostrconnect://{hex}?relay=wss://a.example"), BunkerError::Scheme),
        (format!("bunker://{}?relay=wss://a.example", "f".repeat(64)), BunkerError::Signer),
        (format!("bunker://{hex}"), BunkerError::NoRelays),
        (format!("bunker://{hex}?relay=nope"), BunkerError::Relay),
        (format!("bunker://{hex}?secret=a&secret=b"), BunkerError::SeveralSecrets),
        (format!("bunker://{hex}?secret="), BunkerError::SecretLength { got: 0 }),
    ] {
        assert_eq!(BunkerLink::parse(&bad), Err(expected), "{bad}");
    }
}

/// Loss prevented: a seed whose secret no bunker takes is found out in the shop.
#[test]
fn a_seed_has_a_secret_of_64_hex_characters() {
    let bunker_url = |secret: &str| {
        with(|v| {
            v["bunker_url"] = format!("bunker://{}?relay=wss://a.example{secret}", key(1)).into()
        })
    };
    let expected = "a secret of 64 lower-case hex characters";
    let field = "bunker_url";
    assert_eq!(parse(&bunker_url("&secret=abc")), Err(SeedError::InvalidField { field, expected }));
    let field = "bunker_url's secret";
    assert_eq!(parse(&bunker_url("")), Err(SeedError::MissingField { field }));
}

/// Loss prevented: a bearer secret in a log file.
#[test]
fn neither_debug_nor_errors_show_the_secret() {
    let seed = seed();
    let link = BunkerLink { uri: seed.bunker().clone(), secret: Some(token()) };
    let shown = format!("{seed:?} {link:?} {:?}", seed.secret());
    assert!(!shown.contains("5e5e"), "{shown}");
    let broken = with(|v| {
        v["bunker_url"] = v["bunker_url"].as_str().unwrap().replace("relay=", "rely=").into();
    });
    let error = parse(&broken).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("5e5e"), "{error:?}");
}

/// Loss prevented: screen and page that show different digits for the same keys, so that nobody
/// can confirm; or the same digits for swapped keys.
#[test]
fn the_digits_are_those_of_the_four_keys_in_order() {
    let digits = confirmation_digits(&key(1), &key(2), &key(3), &key(4));
    assert_eq!(digits, "91084470");
    assert_ne!(digits, confirmation_digits(&key(1), &key(3), &key(2), &key(4)));
    assert_ne!(digits, confirmation_digits(&key(1), &key(2), &key(3), &key(5)));
}

/// Loss prevented: a machine that looks for its bunker at another address than the seed named.
#[test]
fn a_relay_is_printed_as_the_address_that_it_is() {
    for path in ["", "/", "/.", "//.", "/..", "/a/", "/a/.", "///./", "/a//."] {
        let relay = parse_relay(&format!("wss://relay.example{path}")).unwrap();
        assert_eq!(parse_relay(relay.as_str()), Ok(relay), "{path}");
    }
}

proptest! {
    /// Loss prevented: half a seed that pairs with half of its keys.
    #[test]
    fn every_prefix_is_called_truncated(cut in 1usize..2_000) {
        let text = seed().expose();
        prop_assume!(cut < text.len());
        prop_assert_eq!(parse(&text[..cut]), Err(SeedError::Truncated));
    }

    /// Loss prevented: a crash of the pairing screen by whatever a QR code holds.
    #[test]
    fn no_text_panics(text in "\\PC*", tail in "(spire-seed:v1:)?[A-Za-z0-9_=-]{0,80}") {
        prop_assert!(parse(&text).is_err());
        prop_assert!(parse(&tail).is_err());
        let _ = BunkerLink::parse(&format!("bunker://{}?{text}", key(1)));
    }

    /// Loss prevented: a relay address or secret that changes between writing and reading.
    #[test]
    fn links_survive_the_round_trip(
        hosts in proptest::collection::vec("[a-z]{1,8}", 1..4),
        path in "[a-zA-Z0-9/._~-]{0,12}",
        secret in "\\PC{1,40}",
    ) {
        let relays = hosts.iter().map(|h| parse_relay(&format!("wss://{h}.example/{path}")));
        let uri = BunkerUri::new(key(1), relays.map(Result::unwrap).collect()).unwrap();
        let link = BunkerLink { uri, secret: Some(BunkerSecret::new(&secret).unwrap()) };
        prop_assert_eq!(BunkerLink::parse(&link.expose()), Ok(link));
    }
}
