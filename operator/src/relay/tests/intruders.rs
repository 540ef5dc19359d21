//! Strangers, liars and the curious.

use super::*;

/// Loss prevented: a stranger with a fresh key reads a machine's traffic: quotes, invoices, claims.
#[tokio::test]
async fn a_stranger_reads_nobodys_mail() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut stranger = world.login(&cast.stranger).await;
    for filter in [
        to(&cast.spire),
        to(&cast.service),
        to(&cast.stranger).pubkey(cast.spire.public_key()),
        Filter::new().author(cast.spire.public_key()),
        Filter::new().kind(Kind::from(rules::RPC)),
        Filter::new(),
    ] {
        let refused = stranger.req("s", filter.clone()).await.unwrap_err();
        assert!(refused.starts_with("restricted: "), "{refused} {filter:?}");
    }
    assert_eq!(world.refused(Refusal::Outside), 6);
    let mut machine = world.login(&cast.client).await;
    assert!(machine.req("s", to(&cast.other_spire)).await.is_err());
    let open = world.event(rules::RPC, &cast.spire, &cast.service, vec![]);
    assert!(machine.publish(&open).await.0);
    assert_eq!(world.count(Count::Delivered), 0);
}

/// Loss prevented: a new machine cannot be paired through this relay, or a stranger who knows the
/// key floods the bunker with requests.
#[tokio::test]
async fn a_stranger_asks_to_be_paired_slowly_and_nothing_else() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut bunker = world.login(&cast.bunker).await;
    assert_eq!(bunker.req("b", to(&cast.unpaired)).await, Ok(vec![]));
    let mut stranger = world.login(&cast.stranger).await;
    assert_eq!(stranger.req("s", to(&cast.stranger)).await, Ok(vec![]));
    let ask = |size| {
        world.sized_event(rules::NOSTR_CONNECT, &cast.stranger, &cast.unpaired, vec![], size)
    };
    let (taken, text) =
        stranger.publish(&world.event(21000, &cast.stranger, &cast.service, vec![])).await;
    assert!(!taken && text.starts_with("blocked: "), "{text}");
    let paired = world.event(rules::NOSTR_CONNECT, &cast.stranger, &cast.spire, vec![]);
    let (taken, text) = stranger.publish(&paired).await;
    assert!(!taken && text.starts_with("restricted: "), "{text}");
    stranger.send(format!(r#"["EVENT",{}]"#, ask(4000).as_json())).await;
    assert_eq!(stranger.next().await[0], "NOTICE", "over 4 kB");
    for n in 0..5 {
        let request = ask(n);
        assert_eq!(stranger.publish(&request).await, (true, String::new()));
        assert_eq!(bunker.received().await, request.id);
        let reply = world.event(rules::NOSTR_CONNECT, &cast.unpaired, &cast.stranger, vec![]);
        assert_eq!(bunker.publish(&reply).await, (true, String::new()));
        assert_eq!(stranger.received().await, reply.id);
    }
    let checks = world.count(Count::SignatureChecks);
    let (taken, text) = stranger.publish(&ask(5)).await;
    assert!(!taken && text.starts_with("rate-limited: "), "{text}");
    let mut again = world.login(&cast.stranger).await;
    let (taken, text) = again.publish(&ask(6)).await;
    assert!(
        !taken && text.starts_with("rate-limited: "),
        "a new connection is no new minute: {text}"
    );
    assert_eq!(world.count(Count::SignatureChecks), checks + 1, "the second login alone");
}

/// Loss prevented: junk that costs a signature check each stops the sales.
#[tokio::test]
async fn what_may_not_be_published_costs_no_signature_check() {
    let world = World::new().await;
    let cast = &world.cast;
    let mut machine = world.login(&cast.client).await;
    let checks = world.count(Count::SignatureChecks);
    let rpc = |author: &Keys, tags| world.event(rules::RPC, author, &cast.service, tags);
    let future = EventBuilder::new(Kind::from(rules::RPC), "")
        .custom_created_at(Timestamp::from(world.now() + 901))
        .sign_with_keys(&cast.spire)
        .unwrap();
    let good = rpc(&cast.spire, vec![]);
    let many = (0..65).map(|n| Tag::hashtag(n.to_string())).collect();
    let changed = altered(&good, "content", "changed");
    for (event, refusal) in [
        (rpc(&cast.other_spire, vec![]), Refusal::Author),
        (rpc(&cast.client, vec![]), Refusal::Author),
        (world.event(1, &cast.spire, &cast.service, vec![]), Refusal::Kind),
        (world.event(24134, &cast.client, &cast.service, vec![]), Refusal::Kind),
        (rpc(&cast.spire, vec![expires(world.now() - 1)]), Refusal::Expired),
        (future, Refusal::Future),
        (rpc(&cast.spire, many), Refusal::TooManyTags),
        (changed, Refusal::Id),
    ] {
        let (taken, text) = machine.publish(&event).await;
        assert_eq!((taken, text.as_str()), (false, refusal.message()));
        assert!(world.refused(refusal) > 0);
    }
    assert_eq!(world.count(Count::SignatureChecks), checks);
    let forged =
        altered(&good, "sig", rpc(&cast.spire, vec![expires(world.now())]).sig.to_string());
    assert_eq!(machine.publish(&forged).await, (false, Refusal::Signature.message().to_owned()));
    assert_eq!(machine.publish(&good).await, (true, String::new()));
    assert_eq!(world.count(Count::SignatureChecks), checks + 2);
    assert_eq!(world.count(Count::Routed), 1);
}

/// Loss prevented: a side door: counts and negentropy answer what a REQ would not.
#[tokio::test]
async fn count_and_negentropy_are_refused() {
    let world = World::new().await;
    let mut machine = world.login(&world.cast.client).await;
    machine.send(format!(r#"["COUNT","c",{}]"#, to(&world.cast.spire).as_json())).await;
    let answer = machine.next().await;
    assert_eq!((&answer[0], &answer[1]), (&json!("CLOSED"), &json!("c")));
    assert!(answer[2].as_str().unwrap().starts_with("unsupported: "));
    machine.send(r#"["NEG-OPEN","n",{},"61"]"#).await;
    let answer = machine.next().await;
    assert_eq!(answer[0], "NOTICE");
    assert!(answer[1].as_str().unwrap().starts_with("unsupported: "));
    let search = to(&world.cast.spire).search("x");
    assert!(machine.req("s", search).await.unwrap_err().starts_with("unsupported: "));
    assert_eq!(world.refused(Refusal::Unsupported), 3);
}

/// Loss prevented: one client's garbage is a crash, an unbounded answer or an endless connection.
#[tokio::test]
async fn malformed_frames_get_a_notice_and_then_the_door() {
    let world = World::with(|limits| limits.bad_frames = config::per_minute(1, 4)).await;
    let mut client = world.login(&world.cast.client).await;
    for junk in ["", "[]", r#"["EVENT",{"id":1}]"#, "\u{0}"] {
        client.send(junk).await;
        assert_eq!(client.next().await[0], "NOTICE", "{junk:?}");
    }
    client.send("[[[[").await;
    let frame = client.closed().await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1008);
    assert_eq!((world.count(Count::Abusive), world.refused(Refusal::Malformed)), (1, 5));
}
