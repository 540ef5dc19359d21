//! Bounds on what one client, or a crowd of them, may cause.

use super::*;

/// Loss prevented: one machine in a loop takes the relay from all others.
#[tokio::test]
async fn a_machine_has_one_rate_over_all_its_keys_and_connections() {
    let world = World::with(|limits| limits.machine_events = config::per_minute(4, 4)).await;
    let cast = &world.cast;
    let mut first = world.login(&cast.client).await;
    let mut second = world.login(&cast.client).await;
    let from = |author: &Keys| world.event(rules::RPC, author, &cast.service, vec![]);
    for author in [&cast.spire, &cast.session] {
        assert!(first.publish(&from(author)).await.0);
        assert!(second.publish(&from(author)).await.0);
    }
    let checks = world.count(Count::SignatureChecks);
    for client in [&mut first, &mut second] {
        let (taken, text) = client.publish(&from(&cast.session)).await;
        assert!(!taken && text.starts_with("rate-limited: "), "{text}");
    }
    assert_eq!(world.count(Count::SignatureChecks), checks);
    let mut other = world.login(&cast.other_client).await;
    assert!(other.publish(&from(&cast.other_spire)).await.0, "another machine is not touched");
}

/// Loss prevented: REQ, CLOSE and AUTH without end, which no event limit sees.
#[tokio::test]
async fn frames_are_limited_but_not_the_services() {
    let world = World::with(|limits| limits.frames = config::per_minute(3, 3)).await;
    let mut machine = world.login(&world.cast.client).await;
    for _ in 0..2 {
        assert_eq!(machine.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    }
    machine.send(r#"["CLOSE","s"]"#).await;
    let answer = machine.next().await;
    assert_eq!(answer[0], "NOTICE");
    assert!(answer[1].as_str().unwrap().starts_with("rate-limited: "));
    let event = world.event(rules::RPC, &world.cast.spire, &world.cast.service, vec![]);
    let (taken, text) = machine.publish(&event).await;
    assert!(!taken && text.starts_with("rate-limited: "), "{text}");
    let refused = machine.req("s", to(&world.cast.spire)).await.unwrap_err();
    assert!(refused.starts_with("rate-limited: "), "{refused}");
    let mut service = world.login(&world.cast.service).await;
    for _ in 0..20 {
        assert_eq!(service.req("s", to(&world.cast.service)).await, Ok(vec![]));
    }
}

/// Loss prevented: subscriptions and filters without end.
#[tokio::test]
async fn subscriptions_and_filters_are_bounded() {
    let world = World::with(|limits| (limits.subscriptions, limits.filters) = (2, 2)).await;
    let mut machine = world.login(&world.cast.client).await;
    let filter = to(&world.cast.spire);
    for id in ["a", "b", "b"] {
        assert_eq!(machine.req(id, filter.clone()).await, Ok(vec![]));
    }
    let refused = machine.req("c", filter.clone()).await.unwrap_err();
    assert!(refused.contains("too many subscriptions"), "{refused}");
    machine.send(r#"["CLOSE","a"]"#).await;
    assert_eq!(machine.req("c", filter.clone()).await, Ok(vec![]));
    machine.send(format!(r#"["REQ","b",{0},{0},{0}]"#, filter.as_json())).await;
    let answer = machine.next().await;
    assert_eq!((&answer[0], &answer[1]), (&json!("CLOSED"), &json!("b")));
    machine.send(format!(r#"["REQ","{}",{}]"#, "x".repeat(65), filter.as_json())).await;
    assert_eq!(machine.next().await[0], "NOTICE");
}

/// Loss prevented: a frame of megabytes is read, copied and parsed before anybody looks at it.
#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection() {
    let world = World::with(|limits| limits.message_bytes = 100_000).await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let fits = world.sized_event(rules::RPC, &cast.spire, &cast.service, vec![], 99_000);
    assert!(machine.publish(&fits).await.0);
    let _ = machine.socket.send(Message::text("x".repeat(100_001))).await;
    machine.closed().await;
    until(|| world.relay.stats().connections() == 0).await;
    assert_eq!(world.count(Count::Broken), 1);
}

/// Loss prevented: strangers hold all places, and a machine cannot connect.
#[tokio::test]
async fn the_oldest_stranger_makes_room_and_a_full_relay_says_so() {
    let world = World::with(|limits| (limits.strangers, limits.connections) = (2, 4)).await;
    let mut first = world.connect().await;
    let _second = world.connect().await;
    let mut machine = world.login(&world.cast.client).await;
    let frame = first.closed().await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1013);
    assert_eq!(world.count(Count::Evicted), 1);
    assert_eq!(machine.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    until(|| world.relay.stats().connections() == 2).await;
    let _other = world.login(&world.cast.other_client).await;
    let _service = world.login(&world.cast.service).await;
    let Err(WsError::Http(answer)) = Client::connect(&world.url, None).await else {
        panic!("a full relay takes a fifth connection");
    };
    assert_eq!(answer.status(), 503);
    assert_eq!(world.count(Count::Full), 1);
}

/// Loss prevented: a machine that has just been paired is thrown out as a stranger.
#[tokio::test]
async fn who_is_paired_meanwhile_is_no_stranger() {
    let world = World::with(|limits| limits.strangers = 1).await;
    let mut paired = world.login(&world.cast.stranger).await;
    world
        .roster
        .set(bytes(&world.cast.stranger), Role::Machine { spire: bytes(&world.cast.unpaired) });
    let mut newcomer = world.connect().await;
    assert_eq!(paired.req("s", to(&world.cast.unpaired)).await, Ok(vec![]));
    assert!(newcomer.auth(&world.cast.client, &world.url, world.now()).await.0);
    assert_eq!(world.count(Count::Evicted), 0);
}
