//! From a seed to a machine in service, and to other keys.

use std::os::unix::fs::PermissionsExt as _;

use bitspire_agent::ipc::{self, CustomerAction, SecretText, ToNet, ToVault};
use bitspire_agent::refused::Refused;
use bitspire_agent::screen::{MachineScreen, SeedView};
use bitspire_agent::txn::View;
use bitspire_shared::document::CassettesState;
use bitspire_shared::ids::{EventId, Nonce};
use bitspire_shared::rpc::ErrorCode;
use bitspire_shared::seed::{Pins, confirmation_digits};
use bitspire_shared::statement::Statement;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use nostr::Keys;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::machine::{Machine, public, usd};

pub(crate) fn refusal(machine: &Machine, seed_url: SecretText) -> Refused {
    let mut stream = machine.control();
    ipc::write(&mut stream, &ToVault::Seed { seed_url }).unwrap();
    match ipc::read::<ToNet>(&mut stream).unwrap() {
        Some(ToNet::SeedRefused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

/// Another producer's seed, which names no keys to pin.
fn without_keys(seed: &SecretText) -> SecretText {
    let (prefix, payload) = seed.expose().rsplit_once(':').unwrap();
    let mut json: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    for field in ["operator_pubkey", "service_pubkey", "fiat_code"] {
        json.as_object_mut().unwrap().remove(field);
    }
    SecretText::new(format!("{prefix}:{}", URL_SAFE_NO_PAD.encode(json.to_string())))
}

/// Loss prevented: a machine that trusts whom it met first, or sells in another currency.
#[test]
fn only_a_whole_seed_for_this_machine_pairs() {
    let mut machine = Machine::new();
    machine.start();
    let pins = machine.pins();
    let euros = Pins { currency: "EUR".parse().unwrap(), ..pins };
    let text = |text: &str| SecretText::new(text.to_owned());
    for (seed, code, words) in [
        (Machine::seed_of(&euros), "seed_currency", "EUR"),
        (without_keys(&Machine::seed_of(&pins)), "seed_without_keys", "the operator's service"),
        (text("spire-seed:v2:x"), "seed_version", "v2"),
        (text("spire-seed:v1:"), "seed_truncated", "copy it again"),
        (text("lightning:lnbc1"), "seed_not_one", "pairing page"),
    ] {
        let refused = refusal(&machine, seed);
        assert_eq!(refused.code.as_str(), code, "{refused}");
        assert!(refused.words.contains(words), "{refused}");
    }
    machine.until("the reason on the screen", |machine| {
        matches!(&machine.screen,
            Some(MachineScreen::Unpaired { seed: SeedView::Wanted { refused: Some(why) } })
                if why.code.as_str() == "seed_not_one")
    });
    // a bunker that was never asked cannot have agreed
    let client = public(&machine.parties.client);
    machine.say(&ToVault::Connected { client, spire: pins.spire });
    assert_eq!(machine.status().pins, None);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // `net` may be another user of the vault's group: who gets there at all, the folder says
    assert_eq!(mode(&machine.config.socket), 0o660);
    assert_eq!(mode(machine.config.socket.parent().unwrap()), 0o700);
    assert_eq!(mode(machine.data_dir()), 0o700);
    machine.pair();
    assert!(machine.status().pins.is_some());
}

/// Loss prevented: an operator in front of a machine that seems to do nothing, who brings one seed
/// after the other until nobody knows which one counts.
#[test]
fn a_seed_under_way_is_shown_and_each_ones_end_is_told() {
    let mut machine = Machine::new();
    machine.start();
    machine.service.silent = true;
    let seed_url = Machine::seed_of(&machine.pins());
    let mut first = machine.control();
    ipc::write(&mut first, &ToVault::Seed { seed_url: seed_url.clone() }).unwrap();
    let is = |machine: &Machine, is: fn(&SeedView) -> bool| match &machine.screen {
        Some(MachineScreen::Unpaired { seed }) => is(seed),
        _ => false,
    };
    let under_way = |seed: &SeedView| matches!(seed, SeedView::Connecting { auth_url: None });
    machine.until("a seed under way", |machine| is(machine, under_way));
    machine.say(&ToVault::AuthUrl { url: SecretText::new("https://bunker.example/1".into()) });
    machine.until("the bunker's address", |machine| {
        is(machine, |seed| matches!(seed, SeedView::Connecting { auth_url: Some(_) }))
    });
    // to whoever brought the seed as well: the screen may be elsewhere
    match ipc::read::<ToNet>(&mut first).unwrap() {
        Some(ToNet::AuthUrl { url }) => assert_eq!(url.expose(), "https://bunker.example/1"),
        other => panic!("{other:?}"),
    }
    // the same at the screen: whoever brought the first one is told
    machine.say(&ToVault::Seed { seed_url });
    match ipc::read::<ToNet>(&mut first).unwrap() {
        Some(ToNet::SeedRefused(refused)) => assert_eq!(refused.code.as_str(), "seed_replaced"),
        other => panic!("{other:?}"),
    }
    machine.until("the second one", |machine| is(machine, under_way));
    let refused = Refused::new("bunker_no_reply", "nobody answers".into());
    machine.say(&ToVault::ConnectFailed(refused));
    machine.until("its end", |machine| {
        is(machine, |seed| {
            matches!(seed, SeedView::Wanted { refused: Some(why) }
                if why.code.as_str() == "bunker_no_reply")
        })
    });
    assert_eq!(machine.status().pins, None);
    machine.service.silent = false;
    machine.pair();
}

/// Loss prevented: sales before a person has compared the two ends' keys.
#[test]
fn nothing_is_sold_before_the_digits_were_compared() {
    let mut machine = Machine::new();
    machine.start();
    machine.pair_unconfirmed();
    machine.publish_all(&[(1, 20, 100), (2, 50, 100)]);
    let key = |keys: &Keys| public(keys);
    let (spire, service) = (key(&machine.parties.spire), key(&machine.parties.service));
    let client = key(&machine.parties.client);
    let digits = confirmation_digits(&spire, &client, &machine.service.vault.unwrap(), &service);
    assert_eq!(machine.status().digits, Some(digits.clone()));
    machine.until("the digits", |machine| {
        matches!(&machine.screen, Some(MachineScreen::AwaitingConfirmation { digits: shown })
            if *shown == digits)
    });
    machine.stop();
    machine.start();
    assert_eq!(machine.status().digits, Some(digits), "a restart confirms nothing");
    for code in [ErrorCode::NotConfirmed, ErrorCode::RateLimited, ErrorCode::Revoked] {
        machine.service.refuses = Some(code);
        machine.sent.clear();
        machine.until("another question after the answer to this one", |machine| {
            let asks = |message: &&ToNet| matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "get_payment");
            machine.sent.iter().filter(asks).count() > 2
        });
        assert!(machine.status().digits.is_some(), "{code} confirms nothing");
    }
    machine.service.confirmed = true;
    machine.wait_for_sale();
    assert_eq!(machine.status().digits, None);
}

/// Loss prevented: an operator who sees no bays, or old ones after every restart.
#[test]
fn the_bays_are_published_once_after_a_pairing() {
    let mut machine = Machine::new();
    machine.start();
    machine.pair();
    let published = |machine: &Machine| {
        machine.sent.iter().find_map(|message| match message {
            ToNet::PublishState { plaintext } => Some(plaintext.clone()),
            _ => None,
        })
    };
    machine.until("the state", |machine| published(machine).is_some());
    let text = published(&machine).unwrap();
    CassettesState::check_vault(&text, &machine.service.vault.unwrap()).unwrap();
    assert!(CassettesState::from_json(&text, usd()).unwrap().positions.is_empty());
    // nobody took it yet: a `net` that comes back hears of it again
    machine.sent.clear();
    machine.disconnect();
    machine.connect();
    machine.until("the state again", |machine| published(machine).is_some());
    machine.say(&ToVault::StatePublished { event_id: EventId::from_bytes([7; 32]) });
    machine.publish_all(&[(1, 20, 100), (2, 50, 100)]);
    machine.wait_for_sale();
    machine.sent.clear();
    machine.stop();
    machine.start();
    machine.wait_for_sale();
    assert_eq!(published(&machine), None);
}

/// Loss prevented: a machine that cannot be saved from a stolen service key.
#[test]
fn the_operator_moves_the_machine_to_another_service() {
    let mut machine = Machine::ready();
    let new = Keys::parse(&"07".repeat(32)).unwrap();
    let rekey = |machine: &Machine| Statement::Rekey {
        spire: public(&machine.parties.spire),
        vault: machine.service.vault.unwrap(),
        operator: public(&machine.parties.operator),
        service: public(&new),
        nonce: Nonce::from_bytes(random().unwrap()),
        not_after: Unix(1_900_000_000),
    };
    // by the service itself it moves nothing
    let service = machine.parties.service.clone();
    let event = rekey(&machine).to_unsigned(&public(&service), Unix(machine.service.clock));
    let event = event.unwrap().sign_with_keys(&service).unwrap();
    machine.push("verdict", json!({ "statement": event }));
    machine.until("the alert", |machine| machine.alerts().contains("verdict_refused"));
    // the old service leaves a customer's notes unanswered
    machine.open_inlet();
    machine.feed_to(5, 500);
    machine.service.silent = true;
    machine.touch(CustomerAction::Finish);
    machine.until_view("the claim", |view| matches!(view, View::PreparingWithdraw { .. }));
    let statement = machine.statement(&rekey(&machine));
    machine.push("verdict", json!({ "statement": statement }));
    machine.until("the new pins", |machine| {
        machine.sent.iter().any(
            |message| matches!(message, ToNet::Paired { pins } if pins.service == public(&new)),
        )
    });
    machine.parties.service = new;
    machine.service.silent = false;
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
    machine.service.paid = false;
    machine.leave();
    machine.publish_fees();
    machine.sell(2_000);
    machine.stop();
    machine.start();
    assert_eq!(machine.status().pins.unwrap().service, public(&machine.parties.service));
}
