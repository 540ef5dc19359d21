//! A `net` that somebody has broken into.
//!
//! It reads and writes everything on the socket, but has neither the service's nor the operator's
//! key. It may stop the machine from selling; it must not make it pay out or mint sats.

use std::os::unix::net::UnixStream;

use bitspire_agent::ipc::{self, CustomerAction, ToNet, ToVault};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::{View, Why};
use bitspire_agent::vault::Pace;
use bitspire_shared::canonical::Sig;
use bitspire_shared::document::DocumentKind;
use bitspire_shared::ids::{RequestId, WithdrawId};
use bitspire_shared::rpc::{DispenseAuthorisation, ErrorCode, Quote, SignedText as _};
use bitspire_shared::seed::Pins;
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::{Value, json};

use crate::machine::{Machine, QUICK, bay, note, public};

/// Asks for a cash-out and waits for its end without an offer.
fn no_offer(machine: &mut Machine, fiat_minor: i64) {
    machine.choose(fiat_minor);
    machine.until("an end without an offer", |machine| match machine.view() {
        Some(View::Offer { .. }) => panic!("an offer: {:?}", machine.screen),
        Some(View::Cancelled { .. }) => true,
        _ => false,
    });
    machine.leave();
}

/// Loss prevented: notes sold at a price that the service never gave.
#[test]
fn a_forged_quote_is_not_shown() {
    let mut machine = Machine::ready();
    machine.service.reply = Some(|rpc, body| {
        if rpc == "get_quote" {
            body["wire_sats"] = json!(1);
        }
    });
    no_offer(&mut machine, 2_000);
    machine.service.reply = Some(|rpc, body| {
        if rpc == "get_quote" {
            let mut quote: Quote = serde_json::from_value(body.clone()).unwrap();
            let stranger = Keys::parse(&"09".repeat(32)).unwrap();
            let spire = Keys::parse(&"01".repeat(32)).unwrap();
            let terms = quote.terms(public(&spire));
            quote = Quote::sign(&terms, bitspire_shared::money::Origins::default(), &stranger);
            *body = serde_json::to_value(quote).unwrap();
        }
    });
    no_offer(&mut machine, 2_000);
    machine.until("the alert", |machine| machine.alerts().contains("quote_refused"));
    assert!(machine.service.invoices.is_empty());
}

/// Loss prevented: 200 given for the price of 20.
#[test]
fn a_cheap_quote_for_a_dear_amount_is_not_shown() {
    let mut machine = Machine::ready();
    // signed by the service itself, which was asked for another amount in this machine's name
    machine.service.quote = Some(|terms| {
        let rate = terms.exchange_rate;
        terms.fiat.minor = 2_000;
        terms.principal_sats = rate.principal(terms.fiat, terms.direction).unwrap();
        let charge = crate::machine::fee_pair().charge(terms.direction, terms.principal_sats);
        let charge = charge.unwrap();
        (terms.fee_sats, terms.wire_sats) = (charge.fee(), charge.wire());
    });
    no_offer(&mut machine, 20_000);
    // and a price far from the last ones, by a service whose source is broken
    machine.service.quote = None;
    machine.ask(2_000);
    machine.touch(CustomerAction::Cancel);
    machine.until_view("its end", |view| matches!(view, View::Cancelled { .. }));
    machine.leave();
    machine.service.quote = Some(|terms| {
        let tenth = terms.exchange_rate.nano() / 10;
        terms.exchange_rate = bitspire_shared::money::Rate::from_nano(tenth).unwrap();
        let principal = terms.exchange_rate.principal(terms.fiat, terms.direction).unwrap();
        let charge = crate::machine::fee_pair().charge(terms.direction, principal).unwrap();
        terms.principal_sats = charge.principal();
        (terms.fee_sats, terms.wire_sats) = (charge.fee(), charge.wire());
    });
    no_offer(&mut machine, 2_000);
}

/// Loss prevented: notes sold at the price of an hour ago: kept back on the way, freshly signed, by a
/// service whose source stands still; or with its age taken away.
#[test]
fn an_old_price_is_refused_and_said() {
    let mut machine = Machine::ready();
    let too_old = |machine: &mut Machine| {
        machine.choose(2_000);
        machine.until("the end of it", |machine| match machine.view() {
            Some(View::Offer { .. }) => panic!("an offer: {:?}", machine.screen),
            Some(View::Cancelled { why: Why::Refused(code) }) => *code == ErrorCode::Stale,
            _ => false,
        });
        machine.leave();
    };
    machine.service.price_age_s = 121;
    too_old(&mut machine);
    machine.until("the alert", |machine| machine.alerts().contains("quote_refused"));
    machine.open_inlet_refused();
    machine.service.price_age_s = 0;
    machine.service.reply = Some(|rpc, body| {
        if rpc == "get_quote" {
            body.as_object_mut().unwrap().remove("origins").unwrap();
        }
    });
    too_old(&mut machine);
    assert!(machine.service.invoices.is_empty());
    // at the limit it is good
    machine.service.reply = None;
    machine.service.price_age_s = 120;
    machine.sell(2_000);
}

impl Machine {
    /// Asks for a cash-in, of which no note is taken.
    fn open_inlet_refused(&mut self) {
        self.touch(CustomerAction::StartCashIn);
        self.until("the end of it", |machine| match machine.view() {
            Some(View::Feed { room_minor: 1.., .. }) => panic!("a rate: {:?}", machine.screen),
            Some(View::Returned { why: Why::Refused(code) }) => *code == ErrorCode::Stale,
            _ => false,
        });
        self.leave();
    }
}

/// Loss prevented: one paid sale pays out another one, or one of another amount.
#[test]
fn another_transactions_authorisation_gives_nothing() {
    let mut machine = Machine::ready();
    let first = machine.sell(2_000);
    let old = machine.service.invoices[&first];
    let old_leave = machine.authorise(first);
    machine.touch(CustomerAction::Cancel);
    machine.until_view("the first one's end", |view| matches!(view, View::Cancelled { .. }));
    machine.leave();
    let hash = machine.sell(20_000);
    let terms = machine.service.invoices[&hash];
    let leave = machine.authorisation(terms, hash);
    let (service, client) = (&machine.parties.service, &machine.parties.client);
    let none: [Sig; 5] = [
        old_leave,
        // leave of the service for this transaction, but for less
        DispenseAuthorisation { fiat: old.fiat, ..leave }.sign(service),
        // for another invoice, and for another machine
        DispenseAuthorisation { payment_hash: first, ..leave }.sign(service),
        DispenseAuthorisation { vault: public(client), ..leave }.sign(service),
        // and one of our own making
        leave.sign(client),
    ];
    for leave in none {
        machine.push_leave(&terms, hash, leave);
    }
    machine.until("the alert", |machine| machine.alerts().contains("authorisation_refused"));
    // the right one does, and it comes after all the others
    assert_eq!(machine.dispenses(), 0);
    machine.pay();
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!((machine.given(), machine.dispenses()), (20_000, 1));
}

/// Loss prevented: one payment that pays out twice, after a restart or after the end.
#[test]
fn an_authorisation_is_good_for_one_payout() {
    let mut machine = Machine::ready();
    let hash = machine.sell(2_000);
    let terms = machine.service.invoices[&hash];
    let body = json!({
        "txid": terms.txid, "payment_hash": hash, "wire_sats": terms.wire_sats.0,
        "authorisation": machine.authorise(hash),
    });
    machine.push("payment_settled", body.clone());
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!(machine.given(), 2_000);
    assert!(machine.take());
    machine.push("payment_settled", body.clone());
    machine.leave();
    machine.push("payment_settled", body.clone());
    machine.all_heard();
    machine.stop();
    machine.start();
    machine.push("payment_settled", body.clone());
    machine.wait_for_sale();
    machine.push("payment_settled", body);
    machine.all_heard();
    // a sale of its own that the dispenser does after whatever else it was told
    machine.service.reports.clear();
    machine.sell(2_000);
    machine.pay();
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!((machine.given(), machine.dispenses()), (4_000, 2));
}

/// Loss prevented: sats for notes that nobody fed.
#[test]
fn there_is_no_claim_without_notes() {
    let mut machine = Machine::ready();
    machine.open_inlet();
    // news of a withdraw that there is none of, and an answer to what was not asked
    let txid = machine.last_txn();
    let id = WithdrawId::from_bytes([11; 16]);
    for push in ["withdraw_claimed", "withdraw_paid"] {
        machine.push(push, json!({ "txid": txid, "withdraw_id": id, "wire_sats": 1 }));
    }
    let event = Box::new(machine.event());
    let request_id = RequestId::from_bytes([11; 16]);
    let envelope = json!({ "status": "OK", "request_id": request_id, "body": {} });
    machine.say(&ToVault::Reply { request_id, event, envelope });
    machine.all_heard();
    machine.touch(CustomerAction::Finish);
    machine.until_view("its end", |view| matches!(view, View::Returned { .. }));
    machine.leave();
    // a claim is signed by the vault alone, for notes that it counted: nothing that `net` asks for
    // brings another signature than a session's proof
    let claim = |message: &ToNet| matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "create_withdraw");
    assert!(!machine.sent.iter().any(claim));
    assert!(machine.service.withdraws.is_empty());
    // and the claim for notes that were fed names those notes, whatever is said meanwhile
    machine.open_inlet();
    machine.feed_to(5, 500);
    machine.touch(CustomerAction::Finish);
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
    let claims: Vec<_> = machine.service.withdraws.values().cloned().collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].notes, [(note(5), 1)].into());
}

/// Loss prevented: a machine taken over with a seed of somebody else.
#[test]
fn a_paired_machine_takes_no_other_seed() {
    let mut machine = Machine::ready();
    let stranger = Keys::parse(&"08".repeat(32)).unwrap();
    let pins = machine.pins();
    let others = [
        Pins { service: public(&stranger), ..pins },
        Pins { operator: public(&stranger), ..pins },
        Pins { spire: public(&stranger), ..pins },
        pins,
    ];
    for other in &others {
        machine.sent.clear();
        machine.say(&ToVault::Seed { seed_url: Machine::seed_of(other) });
        machine.until("a refusal", |machine| {
            machine.sent.iter().any(|message| matches!(message, ToNet::SeedRefused(_)))
        });
        let mut stream = machine.control();
        ipc::write(&mut stream, &ToVault::Seed { seed_url: Machine::seed_of(other) }).unwrap();
        let answer = ipc::read::<ToNet>(&mut stream).unwrap();
        assert!(matches!(answer, Some(ToNet::SeedRefused(_))), "{answer:?}");
        // nor does a connection that nobody asked for
        let client = public(&stranger);
        machine.say(&ToVault::Connected { client, spire: other.spire });
    }
    machine.stop();
    machine.start();
    let status = machine.status();
    let pinned = status.pins.unwrap();
    assert_eq!((pinned.spire, pinned.operator), (pins.spire, pins.operator));
    assert_eq!((pinned.service, status.digits), (pins.service, None));
}

/// Loss prevented: fifties given out as twenties.
#[test]
fn a_denomination_changes_by_the_operators_own_statement_only() {
    let mut machine = Machine::ready();
    let count = |machine: &Machine| machine.last_report()["cassettes"]["2"].clone();
    let before = count(&machine);
    assert_eq!(before, json!({ "denomination_minor": 5_000, "count": 100 }));
    // the event is the operator's, what it says is the network process's word
    let mut lie = machine.cassettes(&[(1, 20, 100), (2, 50, 100)]);
    lie.positions.get_mut(&bay(2)).unwrap().denomination = note(20);
    lie.published_at = Some(Unix(machine.service.clock + 5));
    let text = lie.to_json(crate::machine::usd()).unwrap();
    machine.publish(DocumentKind::Cassettes, text);
    // an attest of another document does not help
    let mut stolen: Value =
        serde_json::from_str(&machine.attested(machine.cassettes(&[(1, 20, 100)]))).unwrap();
    stolen["positions"]["2"] = json!({ "denomination": 20, "count": 100 });
    machine.publish(DocumentKind::Cassettes, stolen.to_string());
    // nor does an event of somebody else
    let by_client = machine.document_event(DocumentKind::Cassettes, &machine.parties.client);
    let plaintext = machine.attested(machine.cassettes(&[(2, 20, 100)]));
    machine.say(&ToVault::Document { event: Box::new(by_client), plaintext });
    let refused = |machine: &Machine| {
        let alerts = machine.last_report()["alerts"].as_array().cloned().unwrap_or_default();
        let of_all = alerts.into_iter().find(|alert| alert["code"] == "documents_refused");
        of_all.map(|alert| alert["detail"].as_str().unwrap().to_owned())
    };
    machine.until("three refusals", |machine| {
        refused(machine).is_some_and(|detail| detail.starts_with("3 "))
    });
    assert_eq!(count(&machine), before);
    // with the operator's statement it does, and the bay is counted anew
    machine.service.clock += 10;
    machine.publish_cassettes(&[(1, 20, 100), (2, 20, 7)]);
    let after = json!({ "denomination_minor": 2_000, "count": 7 });
    machine.until("the change", |machine| count(machine) == after);
}

/// Loss prevented: a reply by anybody counts, or moves the machine's clock.
#[test]
fn what_the_service_did_not_sign_is_no_answer() {
    let mut machine = Machine::new();
    machine.start();
    machine.pair();
    // the service is made to be silent; its answers are made up
    machine.service.silent = true;
    machine.sent.clear();
    machine.disconnect();
    assert!(machine.connect());
    machine.until("a request", |machine| {
        machine.sent.iter().any(|message| matches!(message, ToNet::Request { .. }))
    });
    let ids: Vec<_> = machine
        .sent
        .iter()
        .filter_map(|message| match message {
            ToNet::Request { request_id, .. } => Some(*request_id),
            _ => None,
        })
        .collect();
    let stranger = machine.parties.client.clone();
    let service = std::mem::replace(&mut machine.parties.service, stranger);
    machine.service.clock += 1_000_000;
    for id in ids {
        let event = Box::new(machine.event());
        let envelope = json!({ "status": "OK", "request_id": id, "body": {} });
        machine.say(&ToVault::Reply { request_id: id, event, envelope });
    }
    machine.parties.service = service;
    machine.service.clock -= 1_000_000;
    machine.service.silent = false;
    machine.disconnect();
    assert!(machine.connect());
    machine.publish_all(&[(1, 20, 100), (2, 50, 100)]);
    // a clock moved by a stranger would have let the statements of today expire
    machine.wait_for_sale();
}

/// Loss prevented: a stolen disk that is a second machine.
#[test]
fn the_data_folder_holds_no_private_key_in_the_clear() {
    let mut machine = Machine::ready();
    machine.sell(2_000);
    machine.stop();
    let sealed = std::fs::read_to_string(machine.data_dir().join("vault.sealed")).unwrap();
    assert!(!sealed.is_empty());
    let ring = bitspire_shell::secrets::Keyring::open(machine.data_dir(), None).unwrap();
    let purpose = bitspire_shared::sealed::Purpose::VaultKey;
    let keys = ring.load("vault", purpose).unwrap().unwrap();
    let secret = keys.secret_key().to_secret_bytes();
    let hex = keys.secret_key().to_secret_hex();
    let mut looked = 0;
    for entry in std::fs::read_dir(machine.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|window| window == secret), "{}", path.display());
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&hex), "{}", path.display());
        assert!(!text.contains(&"5a".repeat(32)), "the seed's secret in {}", path.display());
        looked += 1;
    }
    assert!(looked >= 3, "{looked} files");
}

/// Loss prevented: a document of tomorrow that no later one can replace.
#[test]
fn a_document_from_the_future_is_refused_and_the_last_good_one_stays() {
    let mut machine = Machine::ready();
    let before = machine.service.fees;
    machine.service.clock += 100_000;
    machine.publish_fees();
    machine.service.clock -= 100_000;
    let future = machine.service.fees;
    machine.service.fees = before;
    machine.until("the alert", |machine| machine.alerts().contains("document_refused"));
    assert!(machine.applied(before.unwrap()) && !machine.applied(future.unwrap()));
    machine.sell(2_000);
}

/// Loss prevented: a command line, or a stranger on the socket, that acts as `net`.
#[test]
fn the_command_line_brings_seeds_and_asks_nothing_else() {
    let mut machine = Machine::ready();
    let mut stream = machine.control();
    let start = ToVault::Customer(CustomerAction::StartCashOut { fiat_minor: 2_000 });
    ipc::write(&mut stream, &start).unwrap();
    ipc::write(&mut stream, &ToVault::Status).unwrap();
    let answer = ipc::read::<ToNet>(&mut stream).unwrap();
    assert!(matches!(answer, Some(ToNet::Status(_))), "{answer:?}");
    // what the devices said last, in words
    ipc::write(&mut stream, &ToVault::Trace).unwrap();
    let Some(ToNet::Frames { devices }) = ipc::read::<ToNet>(&mut stream).unwrap() else {
        panic!()
    };
    let names: Vec<_> = devices.iter().map(|one| one.device.as_str()).collect();
    assert_eq!(names, ["acceptor", "dispenser"]);
    assert!(devices[0].frames.iter().any(|line| line.contains("-> FC 05 11 27 56 STATUS REQUEST")));
    assert_eq!(machine.status().open_txns, 0);
    assert!(matches!(&machine.screen, Some(MachineScreen::Idle { .. })));
    // an older `net` that is replaced is cut off
    machine.connect();
    machine.wait_for_sale();
}

/// Loss prevented: a vault that has no time and no memory left for its sale, since a broken `net` asks
/// it for the devices' frames without end, as the command line may.
#[test]
fn frames_are_told_at_a_pace_and_the_impatient_are_cut_off() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { trace_gap: 600_000, ..QUICK });
    machine.wait_for_sale();
    let ask = |stream: &mut UnixStream| {
        ipc::write(stream, &ToVault::Trace).unwrap();
        ipc::read::<ToNet>(stream)
    };
    let mut first = machine.control();
    assert!(matches!(ask(&mut first), Ok(Some(ToNet::Frames { .. }))));
    // on the same connection or on another one
    let mut second = machine.control();
    for stream in [&mut first, &mut second] {
        let answer = ask(stream);
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    }
    assert_eq!(machine.status().open_txns, 0);
    machine.restart_at(Pace { trace_gap: 0, ..QUICK });
    let mut stream = machine.control();
    for _ in 0..3 {
        assert!(matches!(ask(&mut stream), Ok(Some(ToNet::Frames { .. }))));
    }
}
