//! Whoever may write to the relay: strangers who ask the service, documents that must not count. The
//! relay is somebody else's program and carries them all.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitspire_shared::document::{DOCUMENT_KIND, DTag, DocumentKind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::rpc;
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use bitspire_shell::secrets::random;
use bitspire_tests::sale::{buy, settlements};
use bitspire_tests::screen::between;
use bitspire_tests::shop::MACHINE;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::{RelayKind, World};
use bitspire_tests::{keys, shop};
use nostr::{Event, EventBuilder, EventId, Filter, Keys, Kind, Tag, Timestamp, UnsignedEvent};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Requests of one stranger.
const FLOOD: u64 = 30;

fn now() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn public(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

/// Somebody with a key and a connection to the relay.
struct Outsider {
    keys: Keys,
    runtime: Runtime,
    pool: Pool,
}

impl Outsider {
    /// Listens to everything that is addressed to this key.
    fn new(relay: &str, keys: Keys) -> Self {
        let runtime = Runtime::new().unwrap();
        let pool = runtime.block_on(async {
            let relays = [relay.to_owned()];
            let pool = Pool::connect(keys.clone(), &relays, Arc::new(|_: &str| true)).await;
            let pool = pool.unwrap();
            pool.subscribe("mine", Filter::new().pubkey(keys.public_key())).await;
            pool
        });
        Self { keys, runtime, pool }
    }

    fn sign(&self, event: UnsignedEvent) -> Event {
        event.sign_with_keys(&self.keys).unwrap()
    }

    /// A request to the service.
    fn request(&self, service: &PubKey, no: u64) -> Event {
        let body = json!({
            "direction": "cash_out", "txid": format!("{no:032x}"), "fiat_minor": 2_000,
            "fiat_code": "EUR", "claim_hash": "ab".repeat(32),
        });
        let request_id = format!("{no:032x}");
        let request = json!({"rpc_name": "get_quote", "request_id": request_id, "body": body});
        let content = self.encrypt(service, &request);
        self.sign(rpc::request_event(&public(&self.keys), service, now(), content))
    }

    /// A fee document for a machine.
    fn fees(&self, spire: &PubKey, document: &Value, created_at: Unix) -> Event {
        let content = self.encrypt(spire, document);
        let address = DTag { kind: DocumentKind::Fees, spire: *spire };
        self.sign(address.to_unsigned(&public(&self.keys), spire, content, created_at))
    }

    /// A second version of its fees, as operators will publish them for machines that read those.
    fn second_fees(&self, spire: &PubKey, document: &Value, created_at: Unix) -> Event {
        let content = self.encrypt(spire, document);
        let d = Tag::identifier(format!("bitspire-fees2:{spire}"));
        let event = EventBuilder::new(Kind::from(DOCUMENT_KIND), content)
            .tags([d, Tag::public_key(spire.nostr())])
            .custom_created_at(Timestamp::from(created_at.0));
        event.sign_with_keys(&self.keys).unwrap()
    }

    fn encrypt(&self, to: &PubKey, text: &Value) -> String {
        let key = ConversationKey::derive(self.keys.secret_key(), to).unwrap();
        key.encrypt(&text.to_string(), random().unwrap()).unwrap()
    }

    /// Has the relay store an event.
    fn publish(&self, event: &Event) {
        let published = wait_for("the relay takes the event", PATIENCE, || {
            let taken = self.runtime.block_on(self.pool.publish(event));
            taken.map_err(|error| format!("{error:#}"))
        });
        published.unwrap();
    }

    /// A letter to somebody, which the relay stores.
    fn letter(&self, to: &Keys) -> EventId {
        let letter = EventBuilder::text_note("letter").tag(Tag::public_key(to.public_key()));
        let letter = letter.sign_with_keys(&self.keys).unwrap();
        self.publish(&letter);
        letter.id
    }

    /// Who has written to this key before this letter came.
    fn heard(&self, letter: EventId) -> Vec<String> {
        let mut authors = Vec::new();
        self.runtime.block_on(async {
            loop {
                let event = tokio::time::timeout(PATIENCE, self.pool.next()).await;
                let event = event.unwrap().unwrap();
                if event.id == letter {
                    return;
                }
                authors.push(event.pubkey.to_hex());
            }
        });
        authors
    }
}

/// A world that sells, on somebody else's relay, and the relay's address.
fn world() -> (World, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::on(RelayKind::Apart, program, None).unwrap();
    shop::open(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    let config = std::fs::read_to_string(world.folder().join("operator.toml")).unwrap();
    let relay = between(&config, "url = \"ws://", "\"").unwrap();
    let relay = format!("ws://{relay}");
    (world, relay)
}

fn machine(world: &World) -> Value {
    world.api("GET", &format!("/dca/machines/{MACHINE}"), None).unwrap()
}

/// The event of the fees that the machine applies, once they are others than these.
fn applied_fees(world: &World, before: &Value) -> Value {
    let applied = wait_for("fees applied", PATIENCE, || {
        let fees = &machine(world)["documents"]["fees"];
        match fees["light"] == "applied" && fees["in_force"] != *before {
            true => Ok(fees["in_force"].clone()),
            false => Err(fees.to_string()),
        }
    });
    applied.unwrap()
}

/// How many requests of this sender the operator's page of refused ones tells of.
fn refused(world: &World, sender: &Keys) -> u64 {
    let rows = world.api("GET", "/dca/rejected", None).unwrap();
    let sender = sender.public_key().to_hex();
    let rows = rows.as_array().unwrap().iter().filter(|row| row["sender"] == sender);
    rows.map(|row| {
        assert_eq!(row["reason"], "not_in_roster", "{row}");
        row["count"].as_u64().unwrap()
    })
    .sum()
}

/// What the operator's page shows of documents that the machine refused.
fn complaints(world: &World) -> Vec<String> {
    let machine = machine(world);
    let alerts = machine["reported"]["alerts"].as_array().cloned().unwrap_or_default();
    let alert = |alert: &Value| Some(alert["detail"].as_str()?.to_owned());
    let about = |alert: &&Value| alert["code"].as_str().is_some_and(|it| it.contains("document"));
    alerts.iter().filter(about).filter_map(alert).collect()
}

/// Loss prevented: strangers who are served or answered, or whose flood stops a sale; a seed that is
/// called locked when it was used.
#[test]
fn a_strangers_requests_are_refused_without_a_word_and_listed() {
    let (world, relay) = world();
    let keys = keys::all(world.folder()).unwrap();
    let service = public(&keys[keys::SERVICE]);
    let stranger = Outsider::new(&relay, Keys::generate());
    let friend = Outsider::new(&relay, Keys::generate());
    stranger.letter(&friend.keys);
    let sold = settlements(&world).unwrap().len();
    for no in 0..FLOOD {
        let request = stranger.request(&service, no);
        assert_eq!(stranger.runtime.block_on(stranger.pool.send(&request)), 1);
    }
    let customer = world.customer().unwrap();
    buy(&world, &customer, 2_000).unwrap();
    let listed =
        wait_for("all of them listed", PATIENCE, || match refused(&world, &stranger.keys) {
            FLOOD => Ok(()),
            some => Err(format!("{some} of {FLOOD}")),
        });
    listed.unwrap();
    // the service has spoken to the machine meanwhile, and not to the stranger
    let letter = friend.letter(&stranger.keys);
    assert_eq!(stranger.heard(letter), Vec::<String>::new());
    assert_eq!(settlements(&world).unwrap().len(), sold + 1);
    assert_eq!(machine(&world)["disabled_at"], Value::Null);
}

/// Loss prevented: fees that the operator did not set, or set once and has changed since; a machine
/// that stops selling because somebody sent it rubbish, or because the fleet has newer machines beside
/// it that read a second version.
#[test]
fn documents_that_must_not_count_are_refused_and_shown_and_the_last_good_one_stays() {
    let (mut world, relay) = world();
    let keys = keys::all(world.folder()).unwrap();
    let spire = public(&keys[keys::SPIRE]);
    let fees = |fraction: f64, schema: u32, published_at: u64| {
        json!({
            "cash_in_fee_fraction": fraction, "cash_out_fee_fraction": fraction,
            "schema_version": schema, "published_at": published_at,
        })
    };
    let before = applied_fees(&world, &Value::Null);
    let at = |later: u64| Unix(now().0 + later);
    let soon = at(60).0;
    for by in [Keys::generate(), keys[keys::SERVICE].clone()] {
        let outsider = Outsider::new(&relay, by);
        outsider.publish(&outsider.fees(&spire, &fees(0.01, 1, soon), at(0)));
    }
    let operator = Outsider::new(&relay, keys[keys::OPERATOR].clone());
    // what is under a name that it does not ask for it neither hears nor counts as refused
    let second = json!({
        "schema_version": 2, "published_at": soon,
        "rules": [{"when": {}, "cash_in": {"super": 0.01, "operator": 0.0},
            "cash_out": {"super": 0.01, "operator": 0.0}}],
    });
    let second = operator.second_fees(&spire, &second, at(0));
    operator.publish(&second);
    let bad = [
        (fees(0.01, 1, 1_700_000_000), "it is older than the one in force"),
        (fees(0.2, 1, soon), "at most 150000 ppm together, got platform 0 + operator 200000"),
        (fees(0.01, 2, soon), "expected schema_version 1, got 2"),
    ];
    for (no, (document, words)) in bad.iter().enumerate() {
        operator.publish(&operator.fees(&spire, document, at(no as u64)));
        let shown = wait_for("the refusal on the operator's page", PATIENCE, || {
            let shown = complaints(&world);
            let count = format!("{} since the start", no + 1);
            match shown.contains(&count) && shown.iter().any(|text| text.contains(words)) {
                true => Ok(()),
                false => Err(format!("{shown:?}")),
            }
        });
        shown.unwrap();
        assert_eq!(machine(&world)["documents"]["fees"]["in_force"], before);
    }
    let customer = world.customer().unwrap();
    buy(&world, &customer, 2_000).unwrap();
    world.vault.kill9().unwrap();
    world.net.kill9().unwrap();
    world.start_vault().unwrap();
    world.net.start().unwrap();
    buy(&world, &customer, 5_000).unwrap();
    for sale in settlements(&world).unwrap() {
        assert_eq!(sale["fees_event_id"], before, "{sale}");
    }
    // and the next good one counts
    let set = ["fees", "set", "--machine", MACHINE, "--cash-in", "0.01", "--cash-out", "0.01"];
    world.operator_says(&set).unwrap();
    applied_fees(&world, &before);
    let heard = std::fs::read_to_string(world.folder().join("logs/net.log")).unwrap();
    assert!(!heard.contains(&second.id.to_hex()), "{heard}");
}
