//! Events on their way: who gets them, who does not, and who is not held up.

use std::sync::Arc;

use bitspire_shell::pool::Pool;

use super::*;

/// Loss prevented: a sale's RPC does not reach the service, or its reply reaches another machine.
#[tokio::test]
async fn rpc_goes_to_its_addressee_only() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let mut other = world.login(&cast.other_client).await;
    let mut service = world.login(&cast.service).await;
    assert_eq!(
        machine.req("m", to(&cast.spire).pubkey(cast.session.public_key())).await,
        Ok(vec![])
    );
    assert_eq!(other.req("o", to(&cast.other_spire)).await, Ok(vec![]));
    assert_eq!(service.req("s", to(&cast.service).kind(Kind::from(rules::RPC))).await, Ok(vec![]));
    for author in [&cast.spire, &cast.session] {
        let request = world.event(rules::RPC, author, &cast.service, vec![]);
        assert_eq!(machine.publish(&request).await, (true, String::new()));
        assert_eq!(service.received().await, request.id);
        let reply = world.event(rules::RPC, &cast.service, author, vec![Tag::event(request.id)]);
        assert_eq!(service.publish(&reply).await, (true, String::new()));
        assert_eq!(machine.received().await, reply.id);
    }
    let marker = world.event(rules::RPC, &cast.service, &cast.other_spire, vec![]);
    assert!(service.publish(&marker).await.0);
    assert_eq!(other.received().await, marker.id, "nothing came before it");
}

/// Loss prevented: a restart or a reconnect replays old RPC and old bunker commands.
#[tokio::test]
async fn ephemeral_kinds_are_never_stored() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut service = world.login(&cast.service).await;
    for kind in [rules::RPC, rules::NOSTR_CONNECT, rules::BUNKER_ADMIN] {
        let event = world.event(kind, &cast.service, &cast.spire, vec![]);
        assert!(service.publish(&event).await.0);
    }
    assert_eq!(service.req("s", Filter::new().author(cast.service.public_key())).await, Ok(vec![]));
    let mut machine = world.login(&cast.client).await;
    assert_eq!(machine.req("m", to(&cast.spire)).await, Ok(vec![]));
    assert_eq!(world.count(Count::Stored), 0);
    // an event that is sent again, since nobody heard it, is passed on again
    let again = world.event(rules::RPC, &cast.service, &cast.spire, vec![]);
    for _ in 0..2 {
        assert!(service.publish(&again).await.0);
        assert!(matches!(service.next().await[0].as_str(), Some("EVENT")), "its own subscription");
        assert_eq!(machine.received().await, again.id);
    }
}

/// Loss prevented: a subscription outlives the right to read: an ended session, a revoked machine.
#[tokio::test]
async fn a_roster_change_counts_on_live_subscriptions() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let mut service = world.login(&cast.service).await;
    let both = to(&cast.spire).pubkey(cast.session.public_key());
    assert_eq!(machine.req("m", both).await, Ok(vec![]));
    world.roster.close_session(&bytes(&cast.session));
    let late = world.event(rules::RPC, &cast.service, &cast.session, vec![]);
    assert!(service.publish(&late).await.0);
    let good = world.event(rules::RPC, &cast.service, &cast.spire, vec![]);
    assert!(service.publish(&good).await.0);
    assert_eq!(machine.received().await, good.id);
    let stale = world.event(rules::RPC, &cast.session, &cast.service, vec![]);
    let (taken, text) = machine.publish(&stale).await;
    assert!(!taken && text.starts_with("restricted: "), "{text}");
    world.roster.set(bytes(&cast.client), Role::Unknown);
    let delivered = world.count(Count::Delivered);
    let unseen = world.event(rules::RPC, &cast.service, &cast.spire, vec![]);
    assert!(service.publish(&unseen).await.0);
    assert_eq!(world.count(Count::Delivered), delivered);
}

/// Loss prevented: a subscription that was closed or replaced goes on costing and delivering.
#[tokio::test]
async fn close_and_a_second_req_end_the_first() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let mut service = world.login(&cast.service).await;
    assert_eq!(machine.req("a", to(&cast.spire)).await, Ok(vec![]));
    assert_eq!(machine.req("a", to(&cast.client)).await, Ok(vec![]));
    assert_eq!(machine.req("b", to(&cast.spire)).await, Ok(vec![]));
    machine.send(r#"["CLOSE","b"]"#).await;
    assert_eq!(machine.req("c", to(&cast.session)).await, Ok(vec![]));
    let unheard = world.event(rules::RPC, &cast.service, &cast.spire, vec![]);
    assert!(service.publish(&unheard).await.0);
    let heard = world.event(rules::RPC, &cast.service, &cast.session, vec![]);
    assert!(service.publish(&heard).await.0);
    assert_eq!(machine.received().await, heard.id);
}

/// Loss prevented: an authorisation that has expired while it waited is acted upon.
#[tokio::test]
async fn what_expires_in_the_queue_is_not_delivered() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    assert_eq!(machine.req("m", to(&cast.spire)).await, Ok(vec![]));
    let brief = expires(world.now() + 5);
    let brief = world.event(rules::RPC, &cast.service, &cast.spire, vec![brief]);
    let lasting = world.event(rules::RPC, &cast.service, &cast.spire, vec![]);
    // no await in between: the connection's task sees the queue after the clock has moved
    for event in [&brief, &lasting] {
        world.relay.route(event, &Head::of(event).unwrap());
    }
    world.forward(6);
    assert_eq!(machine.received().await, lasting.id);
    assert_eq!(world.count(Count::ExpiredInQueue), 1);
}

/// Loss prevented: one machine with a bad line delays every other, or its queue eats the memory.
#[tokio::test]
async fn a_slow_client_is_closed_and_delays_nobody() {
    let world = World::with(|limits| limits.queue = 8).await;
    let cast = &world.cast;
    let mut slow = Client::connect(&world.url, Some(4096)).await.unwrap();
    assert!(slow.auth(&cast.client, &world.url, world.now()).await.0);
    assert_eq!(slow.req("m", to(&cast.spire)).await, Ok(vec![]));
    let mut fast = world.login(&cast.other_client).await;
    assert_eq!(fast.req("m", to(&cast.other_spire)).await, Ok(vec![]));
    let mut service = world.login(&cast.service).await;
    let mut sent = 0;
    while world.count(Count::Overflows) == 0 {
        let big = world.sized_event(rules::RPC, &cast.service, &cast.spire, vec![], 60_000);
        assert!(service.publish(&big).await.0);
        let small = world.event(rules::RPC, &cast.service, &cast.other_spire, vec![]);
        assert!(service.publish(&small).await.0);
        assert_eq!(fast.received().await, small.id);
        sent += 1;
        assert!(sent < 2_000, "the slow client's buffers never filled");
    }
    until(|| world.relay.stats().connections() == 2).await;
    let after = world.event(rules::RPC, &cast.service, &cast.other_spire, vec![]);
    assert!(service.publish(&after).await.0);
    assert_eq!(fast.received().await, after.id);
}

/// Loss prevented: the client that machines and service really use does not get along with this
/// relay: AUTH, subscriptions, documents, and the way back after the relay was down.
#[tokio::test]
async fn the_pool_of_machine_and_service_works_through_a_restart() {
    let world = World::new().await;
    let urls = vec![world.url.clone()];
    let pool = async |keys: &Keys| {
        Pool::connect(keys.clone(), &urls, Arc::new(|_: &str| true)).await.unwrap()
    };
    let machine = pool(&world.cast.client).await;
    machine.subscribe("mail", to(&world.cast.spire)).await;
    let service = pool(&world.cast.service).await;
    let tag = Tag::identifier("bitspire-fees:x");
    let document = world.event(rules::DOCUMENT, &world.cast.operator, &world.cast.spire, vec![tag]);
    patiently(async { while service.publish(&document).await.is_err() {} }).await;
    assert_eq!(patiently(machine.next()).await.unwrap().id, document.id);

    let world = world.restarted().await;
    let tag = Tag::identifier("bitspire-cassettes:x");
    let second = world.event(rules::DOCUMENT, &world.cast.operator, &world.cast.spire, vec![tag]);
    patiently(async { while service.publish(&second).await.is_err() {} }).await;
    assert_eq!(patiently(machine.next()).await.unwrap().id, second.id);
    service.close().await;
    machine.close().await;
}
