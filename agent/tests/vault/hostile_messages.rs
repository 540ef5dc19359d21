//! Each message that `net` can send, said by a `net` that somebody has broken into.
//!
//! The list is the enum's own: a message that is added fails here until it has its case.

use bitspire_agent::ipc::{
    BunkerState, CustomerAction, NetState, Role, SecretText, ToNet, ToVault, VERSION,
};
use bitspire_agent::refused::Refused;
use bitspire_agent::screen::{MachineScreen, SeedView};
use bitspire_agent::service::{Page, Touch};
use bitspire_agent::txn::View;
use bitspire_shared::document::DocumentKind;
use bitspire_shared::ids::{EventId, JournalSeq, Nonce, PaymentHash, RequestId};
use bitspire_shared::rpc::{DispenseAuthorisation, SignedText as _};
use bitspire_shared::seed::Pins;
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};
use bitspire_shared::time::Unix;
use nostr::{Event, EventBuilder, Keys, Kind, Timestamp};
use serde_json::{Value, json};

use crate::machine::{Machine, bay, public};

const LATER: Unix = Unix(1_900_000_000);

fn stranger() -> Keys {
    Keys::parse(&"08".repeat(32)).unwrap()
}

/// An event as the service's, but for its key.
fn by_stranger(machine: &Machine) -> Box<Event> {
    let event = EventBuilder::new(Kind::from(bitspire_shared::rpc::KIND), "x")
        .custom_created_at(Timestamp::from(machine.service.clock + 1_000_000));
    Box::new(event.sign_with_keys(&stranger()).unwrap())
}

fn signed(statement: &Statement) -> Box<SignedStatement> {
    let event = statement.to_unsigned(&public(&stranger()), Unix(1_800_000_000)).unwrap();
    Box::new(SignedStatement::new(event.sign_with_keys(&stranger()).unwrap()))
}

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// Leave to dispense for the invoice on the screen, by somebody else's key.
fn leave(machine: &Machine) -> Value {
    let Some(hash) = machine.service.last_invoice else {
        return json!({ "txid": "00".repeat(16) });
    };
    let terms = machine.service.invoices[&hash];
    let sig = DispenseAuthorisation { ..machine.authorisation(terms, hash) }.sign(&stranger());
    json!({
        "txid": terms.txid, "payment_hash": hash, "wire_sats": terms.wire_sats.0,
        "authorisation": sig,
    })
}

/// The requests that wait for an answer, and one that nobody has made.
fn requests(machine: &Machine) -> Vec<(RequestId, String)> {
    let asked = machine.sent.iter().rev().filter_map(|message| match message {
        ToNet::Request { request_id, rpc_name, .. } => Some((*request_id, rpc_name.clone())),
        _ => None,
    });
    asked.take(3).chain([(RequestId::from_bytes([7; 16]), "get_quote".to_owned())]).collect()
}

type Case = fn(&mut Machine) -> Vec<ToVault>;
type Touches = fn() -> Vec<CustomerAction>;

/// What a hostile `net` says with each message.
const CASES: &[(&str, Case)] = &[
    ("Hello", |_| vec![ToVault::Hello { version: VERSION, role: Role::Control }]),
    ("Status", |_| vec![ToVault::Status]),
    ("Trace", |_| vec![ToVault::Trace]),
    ("Seed", |machine| {
        let pins = machine.pins();
        let other = Pins { service: public(&stranger()), ..pins };
        let seeds = [Machine::seed_of(&other), Machine::seed_of(&pins), text("spire-seed:v1:")];
        seeds.into_iter().map(|seed_url| ToVault::Seed { seed_url }).collect()
    }),
    ("ServicePin", |_| {
        let old = [None, Some(text("739152"))];
        old.into_iter().map(|old| ToVault::ServicePin { new: text("739152"), old }).collect()
    }),
    ("Rekey", |machine| {
        let statement = Statement::Rekey {
            spire: public(&machine.parties.spire),
            vault: machine.service.vault.unwrap(),
            operator: public(&stranger()),
            service: public(&stranger()),
            nonce: Nonce::from_bytes([7; 16]),
            not_after: LATER,
        };
        // the operator's own as well: by hand it wants the command line, and the PIN
        let real = Box::new(machine.statement(&statement));
        let pin = text("739152");
        [signed(&statement), real]
            .into_iter()
            .map(|statement| ToVault::Rekey { statement, pin: pin.clone() })
            .collect()
    }),
    ("Connected", |machine| {
        let spire = public(&machine.parties.spire);
        vec![
            ToVault::Connected { client: public(&stranger()), spire },
            ToVault::Connected { client: public(&stranger()), spire: public(&stranger()) },
        ]
    }),
    ("AuthUrl", |_| vec![ToVault::AuthUrl { url: text("https://give.me/your-pin") }]),
    ("ConnectFailed", |_| vec![refused("https://give.me/notes")]),
    ("ProveSession", |_| {
        let session = public(&stranger());
        vec![ToVault::ProveSession { session, expires_at: LATER }]
    }),
    ("Named", |machine| {
        let statement = signed(&Statement::Vault {
            spire: public(&machine.parties.spire),
            vault: public(&stranger()),
            nonce: Nonce::from_bytes([7; 16]),
            not_after: LATER,
        });
        vec![ToVault::Named { statement }]
    }),
    ("Reply", |machine| {
        let mut all = Vec::new();
        let bodies = [
            json!({}),
            json!({ "state": "settled", "wire_sats": 1 }),
            json!({ "payment_hash": PaymentHash::from_bytes([7; 32]), "bolt11": "lnbc1", "expires_at": 1 }),
        ];
        for (request_id, _) in requests(machine) {
            for body in &bodies {
                let envelope = json!({ "status": "OK", "request_id": request_id, "body": body });
                all.push(ToVault::Reply { request_id, event: by_stranger(machine), envelope });
            }
            let envelope = json!({ "nothing": request_id });
            let event = Box::new(machine.event());
            all.push(ToVault::Reply { request_id, event, envelope });
        }
        all
    }),
    ("Push", |machine| {
        let body = leave(machine);
        let envelope = |push: &str, body: &Value| json!({ "push": push, "push_id": "07".repeat(16), "body": body });
        let verdict = signed(&Statement::Verdict {
            spire: public(&machine.parties.spire),
            vault: machine.service.vault.unwrap(),
            txid: None,
            journal_seq: JournalSeq(1_000_000),
            verdict: VerdictKind::CloseBreaker,
            amount_minor: 0,
            nonce: Nonce::from_bytes([7; 16]),
            not_after: LATER,
        });
        let verdict = envelope("verdict", &json!({ "statement": verdict }));
        // an event of the service says nothing about what `net` says was in it
        let [one, two] = [Box::new(machine.event()), Box::new(machine.event())];
        vec![
            ToVault::Push {
                event: by_stranger(machine),
                envelope: envelope("payment_settled", &body),
            },
            ToVault::Push { event: one, envelope: envelope("payment_settled", &body) },
            ToVault::Push { event: two, envelope: verdict },
            ToVault::Push { event: by_stranger(machine), envelope: json!([]) },
        ]
    }),
    ("Document", |machine| {
        let mut all = Vec::new();
        for kind in [DocumentKind::Fees, DocumentKind::Cassettes] {
            let event = Box::new(machine.document_event(kind, &stranger()));
            for plaintext in ["{}", "", "[1"] {
                let plaintext = plaintext.to_owned();
                all.push(ToVault::Document { event: event.clone(), plaintext });
            }
        }
        all
    }),
    ("StatePublished", |_| {
        vec![ToVault::StatePublished { event_id: EventId::from_bytes([7; 32]) }]
    }),
    ("State", |_| {
        let words = "\u{1b}[2Jlies".to_owned();
        let bunker_trouble = Some(Refused::new("bunker_lied", words));
        let (relays, bunker) = (u32::MAX, BunkerState::Refused);
        let state = NetState { relays, bunker, session: true, bunker_trouble };
        vec![ToVault::State(state)]
    }),
    ("Customer", |_| {
        ACTIONS.iter().flat_map(|(_, actions)| actions()).map(ToVault::Customer).collect()
    }),
];

/// What a hostile `net` touches, in the customer's name. That it may cancel and break the screen is
/// its own: the customer sees it.
const ACTIONS: &[(&str, Touches)] = &[
    ("StartCashIn", || vec![CustomerAction::StartCashIn]),
    ("StartCashOut", || {
        let amounts = [i64::MIN, -2_000, 0, 1, 3_000, i64::MAX];
        amounts.map(|fiat_minor| CustomerAction::StartCashOut { fiat_minor }).to_vec()
    }),
    ("Confirm", || vec![CustomerAction::Confirm]),
    ("Finish", || vec![CustomerAction::Finish]),
    ("ClaimCode", || vec![CustomerAction::ClaimCode { code: text("aaaa-bbbb") }]),
    ("GiveBack", || vec![CustomerAction::GiveBack { code: text("aaaa-bbbb") }]),
    ("Seen", || vec![CustomerAction::Seen { screen: u64::MAX }]),
    ("Receipt", || [true, false].map(|open| CustomerAction::Receipt { open }).to_vec()),
    ("PrintReceipt", || vec![CustomerAction::PrintReceipt]),
    ("Service", || {
        let touches = [
            Touch::Open,
            Touch::Enter { pin: text("739152") },
            Touch::Go { to: Page::Bay(bay(1)) },
            Touch::Recount { form: 0, count: 0, reason: "x".into() },
            Touch::Test { form: 0 },
            Touch::ResetPairing { form: 0 },
            Touch::Leave,
        ];
        touches.map(CustomerAction::Service).to_vec()
    }),
    ("Gone", || vec![CustomerAction::Gone]),
    ("Cancel", || vec![CustomerAction::Cancel]),
];

/// Loss prevented: a message that is added one day, and that nobody has thought of saying with bad
/// intentions.
#[test]
fn each_message_and_each_action_has_its_case() {
    fn sorted(names: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names
    }
    let cases = CASES.iter().map(|(name, _)| *name);
    assert_eq!(sorted(cases), sorted(ToVault::NAMES.iter().copied()));
    let actions = ACTIONS.iter().map(|(name, _)| *name);
    assert_eq!(sorted(actions), sorted(CustomerAction::NAMES.iter().copied()));
}

/// Says it all, one after the other.
fn says_everything(machine: &mut Machine) {
    for (name, case) in CASES {
        for message in case(machine) {
            assert_eq!(message.name(), *name);
            machine.say(&message);
        }
        if *name == "Hello" {
            // that was the end of the connection
            machine.disconnect();
            assert!(machine.connect());
        }
        machine.all_heard();
        assert_eq!(machine.dispenses(), 0, "after {name}");
    }
    let bunker = BunkerState::Ready;
    let state = NetState { relays: 1, bunker, session: true, bunker_trouble: None };
    machine.say(&ToVault::State(state));
    machine.all_heard();
}

/// Loss prevented: any message of a broken-into `net` that makes the machine pay out, claim sats,
/// trust somebody else, or forget what a customer has paid for.
#[test]
fn no_message_of_a_hostile_net_moves_anything() {
    let mut machine = Machine::ready();
    let pins = machine.pins();
    says_everything(&mut machine);
    machine.leave();
    machine.sell(2_000);
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    says_everything(&mut machine);
    let claims = |message: &ToNet| matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "create_withdraw");
    assert!(!machine.sent.iter().any(claims), "sats for no notes");
    let shown = format!("{:?}", machine.screen);
    assert!(!shown.contains("give.me"), "words of its own on the screen: {shown}");
    let status = machine.status();
    let pinned = status.pins.unwrap();
    assert_eq!(
        (pinned.spire, pinned.operator, pinned.service),
        (pins.spire, pins.operator, pins.service)
    );
    // the sale that it has broken is still good for whoever paid for it
    machine.pay();
    machine.until("the paid sale", |machine| {
        if matches!(machine.view(), Some(View::Cancelled { .. })) {
            machine.touch_once(CustomerAction::Finish);
        }
        matches!(&machine.screen, Some(MachineScreen::Idle { waiting: true, .. }))
            || matches!(machine.view(), Some(View::PaidWaiting { .. }))
    });
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
    assert_eq!(machine.dispenses(), 1);
}

fn refused(words: &str) -> ToVault {
    ToVault::ConnectFailed(Refused::new("seed_redeemed", words.into()))
}

/// Loss prevented: a machine that is pinned to whom its bunker has refused, or that shows whoever
/// stands there where to log in for somebody else.
#[test]
fn a_bunker_that_waits_or_refuses_pins_nothing() {
    let words = |machine: &Machine| match &machine.screen {
        Some(MachineScreen::Unpaired { seed: SeedView::Connecting { auth_url } }) => {
            auth_url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default()
        }
        Some(MachineScreen::Unpaired { seed: SeedView::Wanted { refused } }) => {
            refused.as_ref().map(|refused| refused.words.clone()).unwrap_or_default()
        }
        other => panic!("{other:?}"),
    };
    let mut machine = Machine::new();
    machine.bunker = false;
    machine.start();
    machine.until("the first screen", |machine| machine.screen.is_some());
    machine.say(&ToVault::AuthUrl { url: text("https://bunker.example/1") });
    machine.say(&refused("of nothing"));
    assert_eq!((machine.status().pins, words(&machine)), (None, String::new()));
    let pins = machine.pins();
    machine.say(&ToVault::Seed { seed_url: Machine::seed_of(&pins) });
    machine.say(&ToVault::AuthUrl { url: text("https://bunker.example/2") });
    machine.until("where to log in", |machine| words(machine).contains("bunker.example/2"));
    machine.say(&refused("the secret is used up"));
    machine.until("why not", |machine| words(machine).contains("used up"));
    let client = public(&machine.parties.client);
    machine.say(&ToVault::Connected { client, spire: pins.spire });
    assert_eq!(machine.status().pins, None, "what it said before counts no more");
    machine.bunker = true;
    machine.pair();
    assert!(machine.status().pins.is_some());
}
