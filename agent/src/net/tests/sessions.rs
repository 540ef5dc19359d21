//! Sessions and the requests that they carry.

use bitspire_shared::ids::RequestId;
use bitspire_shared::rpc::{ErrorCode, Reply, ServiceMessage, push_event, reply_event};
use serde_json::json;

use super::service::now;
use super::*;

fn up(message: &ToVault) -> Option<()> {
    matches!(message, ToVault::State(state) if state.session).then_some(())
}

/// A paired machine with an open session.
async fn in_session() -> (World, Talk, PubKey) {
    let (world, mut talk) = World::paired(Manner::Good).await;
    let session = world.session(&mut talk, 3_600).await;
    (world, talk, session)
}

/// Loss prevented: a sale that waits for the bunker.
#[tokio::test]
async fn in_a_session_no_request_needs_the_bunker() {
    let (world, mut talk, session) = in_session().await;
    world.bunker.behave(Manner::Silent);
    let calls = world.bunker.calls("sign_event");
    let id = talk.request(1).await;
    let came = world.service.next().await;
    assert_eq!((came.author, came.id), (session, id));
    let sent = world.service.ok(&came).await;
    let ToVault::Reply { request_id, event, envelope } = talk.delivered().await else { panic!() };
    assert_eq!((request_id, event.id), (id, sent.id));
    assert_eq!(envelope["status"], "OK");
    assert_eq!(world.bunker.calls("sign_event"), calls);
}

/// Loss prevented: a machine without a session after half a day.
#[tokio::test]
async fn a_session_is_renewed_before_its_end() {
    let (world, mut talk) = World::paired(Manner::Good).await;
    let spire = world.pins().spire;
    let first = world.session(&mut talk, 4).await;
    let second = world.service.open_session(&spire, 3_600);
    let listen = async {
        loop {
            talk.next().await;
        }
    };
    let second = tokio::select! {
        second = second => second,
        () = listen => unreachable!(),
    };
    assert_ne!(second, first);
}

/// Loss prevented: what the machine never asked for goes out in its name; one lie of its bunker that
/// it does not get over; or a bunker that was taken over, of which nobody hears.
#[tokio::test]
async fn what_the_bunker_signs_beside_the_question_goes_to_nobody() {
    for (manner, words) in [
        (Manner::OtherEvent, "signed another event than the one asked for: its content differs"),
        (Manner::BadSignature, "the signer's event does not hold: wrong id or signature"),
    ] {
        let (mut world, mut talk) = World::paired(manner).await;
        let told = talk.wait(|message| {
            assert_eq!(up(message), None, "a session by {manner:?}");
            let ToVault::State(state) = message else { return None };
            state.bunker_trouble.clone()
        });
        // as `status` tells it
        let told = tokio::select! {
            came = world.service.next() => panic!("{manner:?}: {came:?}"),
            told = told => told,
        };
        assert_eq!(told.code.as_str(), "bunker_lied", "{manner:?}");
        assert!(told.words.contains(words), "{manner:?}: {}", told.words);
        assert!(told.words.ends_with("do not use this bunker, look at what runs there"));
        let session = talk.wait(|message| match message {
            ToVault::State(state) if state.session => Some(state.bunker_trouble.clone()),
            _ => None,
        });
        tokio::pin!(session);
        tokio::select! {
            came = world.service.next() => panic!("{manner:?}: {came:?}"),
            () = world.bunker.called("sign_event", 2) => {}
            _ = &mut session => panic!("a session by {manner:?}"),
        }
        world.bunker.behave(Manner::Good);
        let spire = world.pins().spire;
        let opened = tokio::join!(world.service.open_session(&spire, 3_600), session);
        assert_eq!(opened.1, None, "and is over with it");
    }
}

/// Loss prevented: a service that lost its sessions leaves every machine mute.
#[tokio::test]
async fn a_session_that_the_service_does_not_know_is_opened_again() {
    let (world, mut talk, first) = in_session().await;
    let id = talk.request(1).await;
    let came = world.service.next().await;
    world.service.refuse(&came, ErrorCode::NotInRoster).await;
    let service = async {
        let second = world.service.open_session(&world.pins().spire, 3_600).await;
        assert_ne!(second, first);
        loop {
            let came = world.service.next().await;
            if came.author == second {
                assert_eq!(came.id, id);
                return world.service.ok(&came).await;
            }
        }
    };
    let (_, delivered) = tokio::join!(service, talk.delivered());
    assert!(matches!(delivered, ToVault::Reply { request_id, .. } if request_id == id));
}

/// Loss prevented: a machine that the service gives no session stops selling for ever.
#[tokio::test]
async fn without_a_session_the_bunker_signs() {
    let (mut world, mut talk) = World::paired(Manner::Good).await;
    let spire = world.pins().spire;
    let refusing = async {
        let (came, body) = world.service.session_request(&spire).await;
        world.service.refuse(&came, ErrorCode::Invalid).await;
        body
    };
    let id = talk.request(1).await;
    let listen = async {
        let service = async {
            let body = refusing.await;
            let came = world.service.next().await;
            assert_eq!((came.author, came.id), (spire, id));
            world.service.ok(&came).await;
            body
        };
        tokio::join!(service, talk.delivered())
    };
    let (body, delivered) = listen.await;
    assert_eq!(body.vault_pubkey, talk.key());
    assert!(matches!(delivered, ToVault::Reply { request_id, .. } if request_id == id));
    world.bunker.called("nip44_decrypt", 2).await;
}

/// Loss prevented: a second invoice, because the relay was away when the first was asked for.
#[tokio::test]
async fn a_request_is_repeated_over_a_relays_restart_under_one_id() {
    let (mut world, mut talk, session) = in_session().await;
    let id = talk.request(1).await;
    let first = world.service.next().await;
    world.restart_relay().await;
    let second = loop {
        let came = world.service.next().await;
        if came.author == session {
            break came;
        }
    };
    assert_eq!((first.id, second.id), (id, id));
    assert_eq!(first.plaintext, second.plaintext);
    assert_ne!(first.event, second.event, "a freshly signed event");
    world.service.ok(&second).await;
    let delivered = talk.delivered().await;
    assert!(matches!(delivered, ToVault::Reply { request_id, .. } if request_id == id));
}

/// Loss prevented: a stranger, or a confused service, settles a request of somebody else.
#[tokio::test]
async fn hostile_replies_change_nothing() {
    let (world, mut talk, session) = in_session().await;
    let id = talk.request(1).await;
    let came = world.service.next().await;
    let Service { keys, .. } = &world.service;
    let body = |id| {
        let reply = Reply::Ok { request_id: id, body: json!({"state": "forged"}) };
        ServiceMessage::Reply(reply).to_plaintext().unwrap()
    };
    let say = |keys: Keys, text: String, of| {
        let service = &world.service;
        async move {
            let make =
                |author: PubKey, content| reply_event(&author, &session, &of, now(), content);
            service.say(&keys, &session, &text, make).await
        }
    };
    let other_event = bitspire_shared::ids::EventId::from_bytes([9; 32]);
    let other_id = RequestId::from_bytes([9; 16]);
    say(Keys::generate(), body(id), came.event).await;
    say(keys.clone(), body(id), other_event).await;
    say(keys.clone(), body(other_id), came.event).await;
    let old = json!({"push": "config_changed", "push_id": "10".repeat(16),
        "body": {"d": "x", "event_id": "22".repeat(32)}});
    let long_ago = bitspire_shared::time::Unix(now().0 - 600);
    let make = |service, content| push_event(&service, &session, long_ago, content);
    world.service.say(keys, &session, &old.to_string(), make).await;
    say(keys.clone(), "no json".into(), came.event).await;
    world.service.push(&session, &body(id)).await;
    let good = world.service.ok(&came).await;
    let ToVault::Reply { event, .. } = talk.delivered().await else { panic!() };
    assert_eq!(event.id, good.id);
    // the same again, in another event, is to nothing that waits
    world.service.ok(&came).await;
    let push = json!({"push": "config_changed", "push_id": "11".repeat(16),
        "body": {"d": "x", "event_id": "22".repeat(32)}});
    let pushed = world.service.push(&session, &push.to_string()).await;
    let ToVault::Push { event, .. } = talk.delivered().await else { panic!() };
    assert_eq!(event.id, pushed.id);
}

/// Loss prevented: a rate limit or a slow clock taken for the service's final word.
#[tokio::test]
async fn a_refusal_of_the_event_leads_to_a_fresh_one() {
    let (world, mut talk, session) = in_session().await;
    let id = talk.request(1).await;
    let came = world.service.next().await;
    world.service.refuse(&came, ErrorCode::Stale).await;
    let again = world.service.next().await;
    assert_eq!((again.id, again.author), (id, session));
    world.service.refuse(&again, ErrorCode::WalletUnavailable).await;
    let ToVault::Reply { envelope, .. } = talk.delivered().await else { panic!() };
    assert_eq!(envelope["code"], "wallet_unavailable");
}

/// Loss prevented: a machine whose clock runs wrong is stale to its service for ever.
#[tokio::test]
async fn a_wrong_clock_is_set_by_the_first_reply() {
    let mut world = World::new(Manner::Good).await;
    world.clock = Clock::new(|| now().after(3_600));
    let (world, mut talk) = world.pair().await;
    let spire = world.pins().spire;
    let service = async {
        let (came, _) = world.service.session_request(&spire).await;
        assert!(came.created_at.since(now()) > 3_000, "the machine's clock is wrong");
        world.service.refuse(&came, ErrorCode::Stale).await;
        let (again, _) = world.service.session_request(&spire).await;
        assert_eq!(again.id, came.id);
        assert!(again.created_at.distance(now()) < 60, "{again:?}");
    };
    let listen = async {
        loop {
            talk.next().await;
        }
    };
    tokio::select! {
        () = service => {}
        () = listen => unreachable!(),
    }
}

/// Loss prevented: a vault that starts again gets the answer to a question of its former life, or
/// none to the one it repeats.
#[tokio::test]
async fn either_process_may_start_again() {
    let (world, mut talk, session) = in_session().await;
    talk.request(1).await;
    let came = world.service.next().await;
    drop(talk);
    let mut talk = world.vault.accept(Some(world.pins())).await;
    talk.wait(up).await;
    world.service.ok(&came).await;
    let id = talk.request(2).await;
    let second = world.service.next().await;
    assert_eq!((second.id, second.author), (id, session), "nothing of the former life is asked");
    world.service.ok(&second).await;
    let delivered = talk.delivered().await;
    assert!(matches!(delivered, ToVault::Reply { request_id, .. } if request_id == id));
}
