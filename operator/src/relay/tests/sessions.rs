//! Who gets in, and how one is put out.

use super::*;

/// Loss prevented: an unauthenticated client reads or writes a fleet's traffic.
#[tokio::test]
async fn nothing_happens_before_authentication() {
    let world = World::new().await;
    let mut client = world.connect().await;
    let event = world.event(rules::RPC, &world.cast.spire, &world.cast.service, vec![]);
    let (taken, text) = client.publish(&event).await;
    assert!(!taken && text.starts_with("auth-required: "), "{text}");
    let refused = client.req("s", to(&world.cast.spire)).await.unwrap_err();
    assert!(refused.starts_with("auth-required: "), "{refused}");
    assert_eq!(world.count(Count::SignatureChecks), 0);
    assert_eq!(world.refused(Refusal::AuthRequired), 2);
}

/// Loss prevented: an AUTH event that another relay has seen, or that was made for another
/// connection, opens this one.
#[tokio::test]
async fn an_auth_event_is_good_for_one_connection_of_this_relay() {
    let world = World::new().await;
    let (keys, now) = (&world.cast.client, world.now());
    let mut client = world.connect().await;
    let (taken, text) = client.auth(keys, "wss://relay.example", now).await;
    assert!(!taken && text.contains("relay tag"), "{text}");
    let (taken, text) = client.auth(keys, &world.url, now - 601).await;
    assert!(!taken && text.contains("created_at"), "{text}");
    let own = client.challenge.clone();
    client.challenge = world.connect().await.challenge;
    let (taken, text) = client.auth(keys, &world.url, now).await;
    assert!(!taken && text.contains("challenge"), "{text}");
    assert_eq!(world.count(Count::SignatureChecks), 0, "all of that is seen without a check");
    client.challenge = own;
    assert!(client.auth(keys, &world.url, now).await.0);
    assert_eq!(client.req("s", to(&world.cast.spire)).await, Ok(vec![]));
}

/// Loss prevented: an AUTH event whose signature does not hold opens the relay.
#[tokio::test]
async fn an_auth_event_must_be_signed() {
    let world = World::new().await;
    let mut client = world.connect().await;
    let builder = EventBuilder::auth(&client.challenge, RelayUrl::parse(&world.url).unwrap());
    let good = builder.sign_with_keys(&world.cast.client).unwrap();
    let other = EventBuilder::text_note("").sign_with_keys(&world.cast.stranger).unwrap();
    let forged = altered(&good, "sig", other.sig.to_string());
    let (taken, text) = client.answer("AUTH", &forged.as_json(), forged.id).await;
    assert!(!taken && text.contains("signature"), "{text}");
    let refused = client.req("s", to(&world.cast.spire)).await.unwrap_err();
    assert!(refused.starts_with("auth-required: "), "{refused}");
    assert!(client.answer("AUTH", &good.as_json(), good.id).await.0);
}

/// Loss prevented: a service that speaks for two keys cannot use the relay as NIP-42 has it, or one
/// that piles up keys without end fills the memory.
#[tokio::test]
async fn a_connection_holds_several_keys_but_few() {
    let world = World::with(|limits| limits.keys = 2).await;
    let mut client = world.login(&world.cast.client).await;
    assert!(client.auth(&world.cast.other_client, &world.url, world.now()).await.0);
    assert!(client.auth(&world.cast.client, &world.url, world.now()).await.0, "known already");
    assert_eq!(client.req("a", to(&world.cast.spire)).await, Ok(vec![]));
    assert_eq!(client.req("b", to(&world.cast.other_spire)).await, Ok(vec![]));
    let (taken, text) = client.auth(&world.cast.service, &world.url, world.now()).await;
    assert!(!taken && text.starts_with("restricted: "), "{text}");
}

/// Loss prevented: a stolen machine stays on the line after it was revoked.
#[tokio::test]
async fn revocation_closes_the_socket_at_once() {
    let world = World::new().await;
    let client_key = PubKey::new(world.cast.client.public_key()).unwrap();
    let mut stolen = world.login(&world.cast.client).await;
    let mut healthy = world.login(&world.cast.other_client).await;
    assert_eq!(stolen.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    world.roster.set(bytes(&world.cast.client), Role::Unknown);
    assert_eq!(world.relay.close_client(&client_key), 1);
    let frame = stolen.closed().await.expect("a close frame");
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "revoked"));
    until(|| world.relay.stats().connections() == 1).await;
    assert_eq!(world.count(Count::Revoked), 1);
    assert_eq!(world.relay.close_client(&client_key), 0);
    assert_eq!(healthy.req("s", to(&world.cast.other_spire)).await, Ok(vec![]));
    let mut again = world.login(&world.cast.client).await;
    assert!(again.req("s", to(&world.cast.spire)).await.unwrap_err().starts_with("restricted: "));
}

/// Loss prevented: a client that does not read keeps its revoked connection for ever.
#[tokio::test]
async fn revocation_does_not_wait_for_a_client_that_does_not_read() {
    let world = World::with(|limits| limits.queue = 10_000).await;
    let mut stalled = Client::connect(&world.url, Some(4096)).await.unwrap();
    assert!(stalled.auth(&world.cast.client, &world.url, world.now()).await.0);
    assert_eq!(stalled.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    let (service, spire) = (&world.cast.service, &world.cast.spire);
    let event = world.sized_event(rules::RPC, service, spire, vec![], 60_000);
    // more than the sockets' buffers hold: the writer stands in the middle of a write
    for _ in 0..500 {
        world.relay.route(&event, &Head::of(&event).unwrap());
        tokio::task::yield_now().await;
    }
    let client_key = PubKey::new(world.cast.client.public_key()).unwrap();
    assert_eq!(world.relay.close_client(&client_key), 1);
    until(|| world.relay.stats().connections() == 0).await;
}

/// Loss prevented: every connection that ever was leaves its subscriptions in memory.
#[tokio::test]
async fn a_connection_leaves_nothing_behind() {
    let world = World::new().await;
    let mut client = world.login(&world.cast.client).await;
    assert_eq!(client.req("a", to(&world.cast.session)).await, Ok(vec![]));
    let from = Filter::new().author(world.cast.spire.public_key());
    assert_eq!(client.req("b", from).await, Ok(vec![]));
    let event = world.event(rules::RPC, &world.cast.spire, &world.cast.session, vec![]);
    let head = Head::of(&event).unwrap();
    let found = || world.relay.0.index.read().unwrap().candidates(&head).len();
    assert_eq!(found(), 2);
    drop(client);
    until(|| world.relay.stats().connections() == 0).await;
    assert_eq!(found(), 0);
}

/// Loss prevented: half-open connections use up the file descriptors that machines need.
#[tokio::test]
async fn who_does_not_authenticate_in_time_is_closed() {
    let world = World::with(|limits| limits.auth_deadline = Duration::from_millis(20)).await;
    let mut client = world.connect().await;
    let frame = client.closed().await.expect("a close frame");
    assert!(frame.reason.starts_with("auth-required: "), "{frame:?}");
    assert_eq!(world.count(Count::NeverAuthenticated), 1);
}

/// Loss prevented: a machine whose network died silently is thought to be connected.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let world = World::with(|limits| limits.ping = Duration::from_millis(20)).await;
    // reads nothing, so it never answers a ping
    let _silent = world.login(&world.cast.client).await;
    until(|| world.count(Count::Idle) == 1 && world.relay.stats().connections() == 0).await;
}

/// Loss prevented: a shutdown that hangs on its clients, or leaves a task behind.
#[tokio::test]
async fn the_token_ends_everything() {
    let world = World::new().await;
    let mut client = world.login(&world.cast.client).await;
    assert_eq!(client.req("s", to(&world.cast.spire)).await, Ok(vec![]));
    world.token.cancel();
    let frame = client.closed().await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1001);
    patiently(world.server).await.unwrap();
    assert_eq!(world.relay.stats().connections(), 0);
}

/// Loss prevented: a client cannot learn the limits, and a browser cannot read them.
#[tokio::test]
async fn nip_11_tells_the_limits() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let ask = async |accept: &str| {
        let mut stream = TcpStream::connect(world.url.trim_start_matches("ws://")).await.unwrap();
        let request =
            format!("GET / HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        patiently(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let answer = ask("application/nostr+json").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    assert!(head.contains("content-type: application/nostr+json"), "{head}");
    let mut document: Value = serde_json::from_str(body).unwrap();
    document["version"] = json!("[version]");
    insta::assert_json_snapshot!(document);
    assert!(ask("text/html").await.starts_with("HTTP/1.1 4"));
}
