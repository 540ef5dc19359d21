use nostr::{Event, EventBuilder, Kind as EventKind, Tag, Timestamp, UnsignedEvent};
use serde_json::{Value, json};

use super::*;
use crate::seed::parse_relay;
use crate::test_keys::{key, keys};

pub(super) const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const END: Mono = Mono(10_000);

/// A client of signer 2 for user 1, and a counter that makes each reply an event of its own.
pub(super) struct World {
    pub(super) client: Client,
    events: u8,
}

pub(super) fn world(secret: Option<&str>) -> World {
    let secret = secret.map(|text| BunkerSecret::new(text).unwrap());
    let (signer, user, perms) = (key(2), key(1), "sign_event:21000".to_owned());
    let config = Config { signer, user, secret, perms, auth_wait_ms: 60_000 };
    World { client: Client::new(config), events: 0 }
}

impl World {
    fn reply(&mut self, json: Value) -> Vec<Action> {
        self.events += 1;
        let event = EventId::from_bytes([self.events; 32]);
        self.client.receive(event, &key(2), &json.to_string(), Mono(100))
    }

    fn ask(&mut self, id: &str, ask: Ask) {
        let actions = self.client.ask(id, ask, END).unwrap();
        assert!(matches!(&actions[..], [Action::Send { id: sent, .. }] if sent == id));
    }

    /// Asks, answers with `result`, and gives what it is resolved with.
    pub(super) fn answer(&mut self, ask: Ask, result: Value) -> Result<Answer, CallError> {
        self.ask("q", ask);
        resolved(&self.reply(json!({"id": "q", "result": result})), "q")
    }

    fn fail(&mut self, ask: Ask, error: &str) -> Result<Answer, CallError> {
        self.ask("q", ask);
        resolved(&self.reply(json!({"id": "q", "result": null, "error": error})), "q")
    }

    /// Connects under c1 with the spare c2; the params that went out.
    fn connect(&mut self) -> Vec<String> {
        params(&self.client.connect("c1", "c2", END).unwrap(), "c1")
    }
}

fn resolved(actions: &[Action], want: &str) -> Result<Answer, CallError> {
    let results: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Resolve { id, result } if id == want => Some(result.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(results.len(), 1, "{actions:?}");
    results.into_iter().next().unwrap()
}

/// The params of the request that is sent under `want`.
fn params(actions: &[Action], want: &str) -> Vec<String> {
    let [.., Action::Send { id, json }] = actions else { panic!("{actions:?}") };
    let request: Value = serde_json::from_str(json.expose()).unwrap();
    assert_eq!((id.as_str(), &request["id"]), (want, &json!(want)));
    serde_json::from_value(request["params"].clone()).unwrap()
}

pub(super) fn unsigned(kind: u16, content: &str) -> UnsignedEvent {
    let tags = [Tag::parse(["p", "q"]).unwrap()];
    UnsignedEvent::new(key(1).nostr(), Timestamp::from(5), EventKind::from(kind), tags, content)
}

fn signed(event: UnsignedEvent) -> Event {
    event.sign_with_keys(&keys(1).0).unwrap()
}

fn ack(id: &str) -> Value {
    json!({"id": id, "result": "ack"})
}

/// Loss prevented: a machine that cannot pair with a signer that echoes, or that takes any word
/// for a yes.
#[test]
fn connect_takes_ack_or_the_secret_itself() {
    for result in ["ack", SECRET] {
        let mut world = world(Some(SECRET));
        let sent = world.connect();
        assert_eq!(sent, [key(2).to_string(), SECRET.into(), "sign_event:21000".into()]);
        let actions = world.reply(json!({"id": "c1", "result": result}));
        assert_eq!(resolved(&actions, "c1"), Ok(Answer::Connected));
        assert_eq!(world.client.state(), SignerState::Ready);
        assert_eq!(world.connect()[1], "", "the burned secret is not sent again");
    }
    for result in [json!("yes"), json!(null), json!("0".repeat(64)), json!("")] {
        let mut world = world(Some(SECRET));
        world.connect();
        let actions = world.reply(json!({"id": "c1", "result": result}));
        assert!(resolved(&actions, "c1").is_err());
        assert_eq!(world.client.state(), SignerState::Refused);
    }
    let mut world = world(None);
    assert_eq!(world.connect()[1], "");
    assert!(resolved(&world.reply(json!({"id": "c1", "result": ""})), "c1").is_err());
}

/// Loss prevented: a machine that must be paired anew after every start, because its bunker burned
/// the secret while the `ack` was lost.
#[test]
fn a_redeemed_secret_is_left_out_once() {
    let mut world = world(Some(SECRET));
    world.connect();
    let again = world.reply(json!({"id": "c1", "error": "Token already redeemed"}));
    assert_eq!(params(&again, "c2")[1], "");
    assert_eq!(resolved(&world.reply(ack("c2")), "c1"), Ok(Answer::Connected));
    assert_eq!(world.connect()[1], "");
}

/// Loss prevented: a seed that somebody else used first, reported as a bunker that is down.
#[test]
fn a_seed_redeemed_by_another_is_called_that() {
    let refused = |world: &mut World| {
        world.connect();
        world.reply(json!({"id": "c1", "error": "Token already redeemed"}));
    };
    let mut world_1 = world(Some(SECRET));
    refused(&mut world_1);
    let actions = world_1.reply(json!({"id": "c2", "error": "Not authorized"}));
    assert_eq!(resolved(&actions, "c1"), Err(CallError::AlreadyRedeemed));
    let mut world_2 = world(Some(SECRET));
    refused(&mut world_2);
    world_2.client.published("c2");
    let actions = world_2.client.tick(END);
    assert_eq!(resolved(&actions, "c1"), Err(CallError::AlreadyRedeemed));
    assert_eq!(world_2.client.state(), SignerState::Refused);
}

/// Loss prevented: a signer that wants the secret each time, and is never given it again.
#[test]
fn a_missing_secret_is_sent_again_once() {
    let mismatch = |id: &str| json!({"id": id, "error": "Secret not match"});
    let mut with = world(Some(SECRET));
    with.connect();
    with.reply(ack("c1"));
    assert_eq!(with.connect()[1], "");
    assert_eq!(params(&with.reply(mismatch("c1")), "c2")[1], SECRET);
    assert_eq!(resolved(&with.reply(ack("c2")), "c1"), Ok(Answer::Connected));
    with.connect();
    with.reply(mismatch("c1"));
    assert_eq!(resolved(&with.reply(mismatch("c2")), "c1"), Err(CallError::WrongSecret));

    let mut without = world(None);
    without.connect();
    assert_eq!(resolved(&without.reply(mismatch("c1")), "c1"), Err(CallError::SecretNeeded));

    let mut wrong = world(Some(SECRET));
    wrong.connect();
    assert_eq!(resolved(&wrong.reply(mismatch("c1")), "c1"), Err(CallError::WrongSecret));
}

/// Loss prevented: a seed of another bunker, or one that was taken back, that has another name with
/// each make of bunker, so that whoever waits for the one never hears of the other.
#[test]
fn a_secret_that_the_signer_does_not_know_has_one_name() {
    for words in ["Secret not match", "Token not found"] {
        let mut world = world(Some(SECRET));
        world.connect();
        let actions = world.reply(json!({"id": "c1", "result": "error", "error": words}));
        let wrong = resolved(&actions, "c1").unwrap_err();
        assert_eq!((&wrong, wrong.code()), (&CallError::WrongSecret, "seed_unknown"), "{words}");
    }
}

/// Loss prevented: a machine that works under another machine's identity.
#[test]
fn the_user_key_must_be_the_expected_one() {
    let mut world = world(None);
    let own = key(1).to_string();
    assert_eq!(world.answer(Ask::GetPublicKey, own.into()), Ok(Answer::PublicKey(key(1))));
    let (expected, got) = (key(1), key(3).to_string());
    let wrong = world.answer(Ask::GetPublicKey, got.clone().into());
    assert_eq!(wrong, Err(CallError::WrongUser { expected, got }));
    assert_eq!(world.client.state(), SignerState::Refused);
    assert_eq!(world.answer(Ask::Ping, "pong".into()), Ok(Answer::Pong));
    assert_eq!(world.client.state(), SignerState::Refused, "until a connect succeeds");
    world.connect();
    world.reply(ack("c1"));
    assert_eq!(world.client.state(), SignerState::Ready);
}

/// Loss prevented: a signer, or whoever speaks for it, that has another document signed than the
/// one that the operator wrote.
#[test]
fn only_the_event_that_was_asked_for_is_taken() {
    let asked = unsigned(30_078, "fees");
    let ask = || Ask::SignEvent(Box::new(asked.clone()));
    let good = signed(asked.clone());
    for result in
        [serde_json::to_value(&good).unwrap(), serde_json::to_string(&good).unwrap().into()]
    {
        let answer = world(None).answer(ask(), result);
        assert_eq!(answer, Ok(Answer::Signed(Box::new(good.clone()))));
    }
    let time = |mut event: UnsignedEvent| {
        event.created_at = Timestamp::from(6);
        event
    };
    let tags = |event: UnsignedEvent| {
        let (kind, at) = (event.kind, event.created_at);
        UnsignedEvent::new(event.pubkey, at, kind, [], event.content)
    };
    let stranger = EventBuilder::new(EventKind::from(30_078), "fees")
        .tag(Tag::parse(["p", "q"]).unwrap())
        .custom_created_at(Timestamp::from(5))
        .sign_with_keys(&keys(3).0)
        .unwrap();
    for (field, event) in [
        ("pubkey", stranger),
        ("kind", signed(unsigned(30_079, "fees"))),
        ("content", signed(unsigned(30_078, "Fees"))),
        ("created_at", signed(time(asked.clone()))),
        ("tags", signed(tags(asked.clone()))),
    ] {
        let answer = world(None).answer(ask(), serde_json::to_value(&event).unwrap());
        assert_eq!(answer, Err(CallError::OtherEvent { field }));
    }
    for (field, value) in
        [("id", "0".repeat(64)), ("sig", signed(unsigned(1, "x")).sig.to_string())]
    {
        let mut event = serde_json::to_value(&good).unwrap();
        event[field] = value.into();
        assert_eq!(world(None).answer(ask(), event), Err(CallError::BadSignature), "{field}");
    }
    for result in [json!(null), json!("ack"), json!({})] {
        let (method, expected) = (Method::SignEvent, "a signed event");
        let answer = world(None).answer(ask(), result);
        assert_eq!(answer, Err(CallError::Unexpected { method, expected }));
    }
}

/// Loss prevented: an event without author, to which some signers give no reply at all; or one of
/// another author, which would be signed under a false name.
#[test]
fn the_author_is_always_in_the_request() {
    let mut world = world(None);
    let event = signed(unsigned(21_000, "x")).into();
    let sent = world.client.ask("q", Ask::SignEvent(Box::new(event)), END).unwrap();
    let wire: Value = serde_json::from_str(&params(&sent, "q")[0]).unwrap();
    let expected = json!({"pubkey": key(1).to_string(), "kind": 21_000, "created_at": 5,
        "tags": [["p", "q"]], "content": "x"});
    assert_eq!(wire, expected);
    let mut foreign = unsigned(21_000, "x");
    foreign.pubkey = key(3).nostr();
    let refused = world.client.ask("r", Ask::SignEvent(Box::new(foreign)), END);
    assert!(matches!(refused, Err(AskError::ForeignEvent { .. })));
}

/// Loss prevented: a reply by a stranger, or an old one, taken for the signer's.
#[test]
fn strangers_repeats_and_garbage_end_no_wait() {
    let mut world = world(None);
    world.ask("q", Ask::Ping);
    let pong = json!({"id": "q", "result": "pong"}).to_string();
    let mut receive = |event: u8, author: u8, text: &str| {
        let event = EventId::from_bytes([event; 32]);
        world.client.receive(event, &key(author), text, Mono(1))
    };
    assert_eq!(receive(1, 3, &pong), [Action::Ignored(Ignored::Author)]);
    assert_eq!(receive(2, 2, "garbage"), [Action::Ignored(Ignored::Malformed)]);
    let other = pong.replace("\"q\"", "\"x\"");
    assert!(receive(3, 2, &other).contains(&Action::Ignored(Ignored::NoWaiter)));
    assert_eq!(receive(3, 2, &pong), [Action::Ignored(Ignored::Duplicate)]);
    assert_eq!(resolved(&receive(1, 2, &pong), "q"), Ok(Answer::Pong));
    assert_eq!(receive(4, 2, &pong), [Action::Ignored(Ignored::NoWaiter)]);
}

/// Loss prevented: a call that ends while the operator is still logging in, or an address that
/// makes a page run code.
#[test]
fn an_address_is_shown_once_and_the_wait_goes_on() {
    let mut world = world(None);
    world.ask("q", Ask::Ping);
    let auth = |url: &str| json!({"id": "q", "result": "auth_url", "error": url});
    let url = Plain::new("https://bunker.example/a".into());
    let shown = world.reply(auth(url.expose()));
    assert!(shown.contains(&Action::AuthUrl { id: "q".into(), url }));
    assert!(world.reply(auth("https://bunker.example/a")).is_empty());
    for bad in ["javascript:alert(1)", "https://a b", &format!("https://{}", "a".repeat(3_000))] {
        assert_eq!(world.reply(auth(bad)), [Action::Ignored(Ignored::AuthUrl)], "{bad}");
    }
    assert_eq!(world.client.next_deadline(), Some(Mono(60_100)));
    assert!(world.client.tick(END).is_empty());
    let pong = world.reply(json!({"id": "q", "result": "pong"}));
    assert_eq!(resolved(&pong, "q"), Ok(Answer::Pong));
}

/// Loss prevented: "relay down" on the screen where somebody has to unlock the key, or the other
/// way round.
#[test]
fn silence_is_told_from_a_dead_line() {
    let state_after = |published: bool, heard: bool| {
        let mut world = world(None);
        world.answer(Ask::Ping, "pong".into()).unwrap();
        world.ask("a", Ask::GetPublicKey);
        if published {
            world.client.published("a");
        }
        if heard {
            world.ask("b", Ask::Ping);
            world.reply(json!({"id": "b", "result": "pong"}));
        }
        assert!(world.client.tick(Mono(END.0 - 1)).is_empty());
        let Err(CallError::NoReply { method: Method::GetPublicKey, state }) =
            resolved(&world.client.tick(END), "a")
        else {
            panic!("no reply came");
        };
        (state, world.client.state())
    };
    use SignerState::{Locked, Ready, Unavailable};
    assert_eq!(state_after(true, false), (Locked, Locked));
    assert_eq!(state_after(false, false), (Unavailable, Unavailable));
    assert_eq!(state_after(true, true), (Unavailable, Ready));

    let mut world = world(None);
    world.ask("a", Ask::Ping);
    world.client.published("a");
    let _ = world.client.tick(END);
    assert_eq!(world.client.state(), Locked);
    let late = world.reply(json!({"id": "a", "result": "pong"}));
    assert_eq!(late, [Action::State(Ready), Action::Ignored(Ignored::NoWaiter)]);
}

/// Loss prevented: a second signature, or none, because a request changed its id on the way.
#[test]
fn what_waits_goes_out_again_as_it_was() {
    let mut world = world(Some(SECRET));
    let first = world.client.connect("c1", "c2", END).unwrap();
    world.ask("q", Ask::Ping);
    world.client.published("c1");
    let again = world.client.reconnected();
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], first[0]);
    world.client.cancel("q");
    assert_eq!(world.client.reconnected(), first);
    let ended = world.client.tick(END);
    let state = SignerState::Unavailable;
    let method = Method::Connect;
    assert_eq!(resolved(&ended, "c1"), Err(CallError::NoReply { method, state }));
}

/// Loss prevented: two questions under one name, of which one gets the other's answer.
#[test]
fn an_id_is_used_once_and_waits_are_bounded() {
    let mut world = world(None);
    world.connect();
    for id in ["c1", "c2"] {
        assert!(matches!(world.client.ask(id, Ask::Ping, END), Err(AskError::IdInUse(_))), "{id}");
    }
    assert!(world.client.connect("d", "d", END).is_err());
    assert!(world.client.connect("d", "c2", END).is_err());
    for n in 1..MAX_WAITERS {
        world.ask(&format!("q{n}"), Ask::Ping);
    }
    assert!(matches!(world.client.ask("more", Ask::Ping, END), Err(AskError::Full)));
}

/// Loss prevented: a signer that lacks a method, reported as one that refuses; or a pairing that
/// fails over a method that it can do without.
#[test]
fn a_missing_method_is_named_and_sometimes_does_not_matter() {
    let decrypt = || Ask::Nip44Decrypt { peer: key(3), payload: "x".into() };
    for words in ["Unknown method: nip44_decrypt", "unsupported method", "invalid method nip44"] {
        let (method, reply) = (Method::Nip44Decrypt, words.to_owned());
        let answer = world(None).fail(decrypt(), words);
        assert_eq!(answer, Err(CallError::Unsupported { method, reply }));
        assert_eq!(world(None).fail(Ask::SwitchRelays, words), Ok(Answer::Relays(None)));
        assert_eq!(world(None).fail(Ask::Logout, words), Ok(Answer::LoggedOut));
        assert_eq!(world(None).fail(Ask::Ping, words), Ok(Answer::Pong));
    }
    let (method, reply) = (Method::Nip44Decrypt, "Not authorized".to_owned());
    let answer = world(None).fail(decrypt(), "Not authorized");
    assert_eq!(answer, Err(CallError::Rejected { method, reply }));
}

/// Loss prevented: an answer to `switch_relays` that leaves the machine without relays.
#[test]
fn other_relays_are_a_list_or_nothing() {
    let relay = parse_relay("wss://a.example").unwrap();
    for (result, expected) in [
        (json!(null), Some(None)),
        (json!("null"), Some(None)),
        (json!([]), Some(None)),
        (json!(["wss://a.example"]), Some(Some(vec![relay.clone()]))),
        (json!("[\"wss://a.example\"]"), Some(Some(vec![relay]))),
        (json!(["https://a.example"]), None),
        (json!("soon"), None),
    ] {
        let answer = world(None).answer(Ask::SwitchRelays, result.clone());
        assert_eq!(answer.ok(), expected.map(Answer::Relays), "{result}");
    }
}

/// Loss prevented: the pairing secret, or the text of a document, in a log.
#[test]
fn neither_actions_nor_errors_show_secrets() {
    let mut world = world(Some(SECRET));
    let sent = world.client.connect("c1", "c2", END).unwrap();
    let said = format!("no such secret: {SECRET}\n{}", "x".repeat(500));
    let actions = world.reply(json!({"id": "c1", "error": said}));
    let Err(error) = resolved(&actions, "c1") else { panic!("it was refused") };
    let plaintext = Plain::new("hush hush".into());
    let ask = world.client.ask("e", Ask::Nip44Encrypt { peer: key(3), plaintext }, END).unwrap();
    let text = world.reply(json!({"id": "e", "result": "hush hush"}));
    let shown = format!("{sent:?} {actions:?} {error} {ask:?} {text:?} {:?}", world.client);
    assert!(!shown.contains("5e5e") && !shown.contains("hush"), "{shown}");
    assert!(error.to_string().len() < 300 && !error.to_string().contains('\n'));
}
