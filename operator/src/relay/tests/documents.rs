//! Kind 30078 on the wire.

use super::*;
use crate::store::relay_docs::Put;

fn document(world: &World, d: &str, tags: Vec<Tag>) -> Event {
    let tags = [vec![Tag::identifier(d)], tags].concat();
    world.event(rules::DOCUMENT, &world.cast.operator, &world.cast.spire, tags)
}

/// Loss prevented: two publishers in one second, and machine and relay disagree on who won.
#[tokio::test]
async fn of_two_documents_of_one_second_the_lower_id_stays() {
    let world = World::new().await;
    let mut service = world.login(&world.cast.service).await;
    let mut machine = world.login(&world.cast.client).await;
    let mut pair = [document(&world, "d", vec![]), document(&world, "d", vec![Tag::hashtag("x")])];
    pair.sort_by_key(|event| event.id);
    let [low, high] = pair;
    assert_eq!(service.publish(&high).await, (true, String::new()));
    assert_eq!(service.publish(&low).await, (true, String::new()));
    for late in [&high, &low] {
        let (taken, text) = service.publish(late).await;
        assert!(taken && text.starts_with("duplicate: "), "{text}");
    }
    assert_eq!(machine.req("s", to(&world.cast.spire)).await, Ok(vec![low.id]));
    assert_eq!((world.count(Count::Stored), world.count(Count::Duplicate)), (2, 2));
}

/// Loss prevented: a document that was acknowledged is gone after the relay was killed.
#[tokio::test]
async fn a_restart_keeps_documents() {
    let world = World::new().await;
    let event = document(&world, "d", vec![]);
    let mut service = world.login(&world.cast.service).await;
    assert!(service.publish(&event).await.0);
    let world = world.restarted().await;
    let mut machine = world.login(&world.cast.client).await;
    assert_eq!(machine.req("s", to(&world.cast.spire)).await, Ok(vec![event.id]));
}

/// Loss prevented: a machine applies what its operator had limited in time.
#[tokio::test]
async fn the_expired_is_neither_taken_nor_given_out() {
    let world = World::new().await;
    let mut service = world.login(&world.cast.service).await;
    let mut machine = world.login(&world.cast.client).await;
    let gone = document(&world, "gone", vec![expires(world.now() - 1)]);
    let (taken, text) = service.publish(&gone).await;
    assert!(!taken && text.starts_with("invalid: expired"), "{text}");
    let unclear = Tag::parse(["expiration", "tomorrow"]).unwrap();
    let (taken, text) = service.publish(&document(&world, "unclear", vec![unclear])).await;
    assert!(!taken && text.starts_with("invalid: "), "{text}");
    let brief = document(&world, "brief", vec![expires(world.now() + 5)]);
    assert!(service.publish(&brief).await.0);
    assert_eq!(machine.req("a", to(&world.cast.spire)).await, Ok(vec![brief.id]));
    world.forward(5);
    assert_eq!(machine.req("b", to(&world.cast.spire)).await, Ok(vec![brief.id]));
    world.forward(1);
    assert_eq!(machine.req("c", to(&world.cast.spire)).await, Ok(vec![]));
}

/// Loss prevented: a filter that finds too little (a machine without its fees) or too much.
#[tokio::test]
async fn filters_work_on_stored_documents() {
    let world = World::with(|limits| limits.limit = 40).await;
    let cast = &world.cast;
    let mut service = world.login(&cast.service).await;
    let mut machine = world.login(&cast.client).await;
    let mut stored = Vec::new();
    for n in 0..45u64 {
        world.forward(1);
        let event = document(&world, &format!("d{n}"), vec![Tag::event(EventId::all_zeros())]);
        assert!(service.publish(&event).await.0);
        stored.insert(0, event);
    }
    let elsewhere = Tag::identifier("d0");
    let elsewhere =
        world.event(rules::DOCUMENT, &cast.operator, &cast.other_spire, vec![elsewhere]);
    assert!(service.publish(&elsewhere).await.0);
    let ids: Vec<_> = stored.iter().map(|event| event.id).collect();
    let mine = to(&cast.spire);
    let at = |n: usize| stored[n].created_at;
    let zeros = EventId::all_zeros();
    for (filter, expected) in [
        (mine.clone(), &ids[..40]),
        (mine.clone().limit(35), &ids[..35]),
        (mine.clone().limit(0), &[]),
        (mine.clone().limit(99), &ids[..40]),
        (mine.clone().kind(Kind::from(rules::DOCUMENT)).limit(1), &ids[..1]),
        (mine.clone().kind(Kind::from(rules::RPC)), &[]),
        (mine.clone().identifier("d44").author(cast.operator.public_key()), &ids[..1]),
        (mine.clone().identifier("d44").author(cast.service.public_key()), &[]),
        (mine.clone().event(zeros).limit(2), &ids[..2]),
        (mine.clone().event(ids[0]), &[]),
        (mine.clone().ids([ids[3], ids[1]]), &[ids[1], ids[3]][..]),
        (mine.clone().since(at(1)), &ids[..2]),
        (mine.clone().since(at(4)).until(at(3)), &ids[3..5]),
    ] {
        assert_eq!(machine.req("s", filter.clone()).await.unwrap(), expected, "{filter:?}");
    }
    machine.send(format!(r#"["REQ","s",{0},{0}]"#, mine.limit(1).as_json())).await;
    assert_eq!(machine.received().await, ids[0]);
    assert_eq!(machine.next().await[0], "EOSE", "an event comes once, by however many filters");
}

/// Loss prevented: a machine whose key is stolen fills the operator's disk.
#[tokio::test]
async fn a_machine_stores_few_documents_the_service_many() {
    let world = World::with(|limits| limits.documents = 1).await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let own = |d: &str| {
        world.event(rules::DOCUMENT, &cast.spire, &cast.operator, vec![Tag::identifier(d)])
    };
    assert!(machine.publish(&own("a")).await.0);
    let (taken, text) = machine.publish(&own("b")).await;
    assert!(!taken && text.starts_with("blocked: "), "{text}");
    let mut service = world.login(&cast.service).await;
    for d in ["a", "b", "c"] {
        assert!(service.publish(&document(&world, d, vec![])).await.0);
    }
    let seen = service.req("s", to(&cast.operator)).await.unwrap();
    assert_eq!(seen.len(), 1, "the operator's service reads the machine's document");
}

/// Loss prevented: a machine that is revoked while it reads slowly gets the rest all the same.
#[tokio::test]
async fn stored_documents_stop_with_the_right_to_read() {
    let world = World::new().await;
    for n in 0..160 {
        let tag = Tag::identifier(n.to_string());
        let (author, reader) = (&world.cast.operator, &world.cast.spire);
        let event = world.sized_event(rules::DOCUMENT, author, reader, vec![tag], 90_000);
        let head = Head::of(&event).unwrap();
        assert_eq!(world.relay.documents().put(&event, head, None).await.unwrap(), Put::Stored);
    }
    let mut slow = Client::connect(&world.url, Some(4096)).await.unwrap();
    assert!(slow.auth(&world.cast.client, &world.url, world.now()).await.0);
    let filter = to(&world.cast.spire).as_json();
    slow.send(format!(r#"["REQ","s",{filter}]"#)).await;
    slow.received().await;
    // the rest is more than the sockets' buffers hold
    world.roster.set(bytes(&world.cast.client), Role::Unknown);
    let mut received = 1;
    while slow.next().await[0] == "EVENT" {
        received += 1;
    }
    assert!(received < 160, "all came");
}

/// Loss prevented: one slow flush stops a publisher's whole queue, and a subscriber misses what was
/// published by a client that left at once.
#[tokio::test]
async fn documents_are_passed_on_although_their_sender_left() {
    let world = World::new().await;
    let mut machine = world.login(&world.cast.client).await;
    assert_eq!(machine.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    let mut service = world.login(&world.cast.service).await;
    let mut expected = Vec::new();
    for n in 0..100 {
        let event = document(&world, &format!("d{n}"), vec![]);
        service.send(format!(r#"["EVENT",{}]"#, event.as_json())).await;
        expected.push(event.id);
    }
    patiently(service.socket.close(None)).await.unwrap();
    // until the relay has let it go: what it sent is read, but not all of it is stored yet
    service.closed().await;
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.push(machine.received().await);
    }
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
}
