//! Customers' wallets, which know nothing of NIP-42.

use bitspire_shared::clink::{DEBIT_KIND, OFFER_KIND};

use super::*;

fn replies(keys: &Keys) -> Filter {
    to(keys).kinds([OFFER_KIND, DEBIT_KIND].map(Kind::from))
}

/// Loss prevented: a customer whose wallet cannot ask by CLINK, because it does not authenticate.
#[tokio::test]
async fn a_wallet_asks_the_service_and_reads_its_reply() {
    let world = World::new().await;
    let (cast, wallet) = (&world.cast, Keys::generate());
    let mut client = world.connect().await;
    let asks = world.event(DEBIT_KIND, &wallet, &cast.service, vec![]);
    let (taken, text) = client.publish(&asks).await;
    assert!(!taken && text.starts_with("auth-required: "), "the door is shut: {text}");
    assert!(client.req("r", replies(&wallet)).await.unwrap_err().starts_with("auth-required: "));

    world.roster.open_clink(bytes(&cast.service));
    let mut service = world.login(&cast.service).await;
    assert_eq!(service.req("s", replies(&cast.service)).await, Ok(vec![]));
    let mut client = world.connect().await;
    assert_eq!(client.req("r", replies(&wallet)).await, Ok(vec![]));
    assert!(client.publish(&asks).await.0);
    assert_eq!(service.received().await, asks.id);
    let reply = world.event(DEBIT_KIND, &cast.service, &wallet, vec![]);
    assert!(service.publish(&reply).await.0);
    assert_eq!(client.received().await, reply.id);
}

/// Loss prevented: the open door is used to read a fleet's traffic, to write to its machines, or to
/// have signatures checked without end.
#[tokio::test]
async fn the_door_for_wallets_leads_nowhere_else() {
    let world = World::new().await;
    let (cast, wallet) = (&world.cast, Keys::generate());
    world.roster.open_clink(bytes(&cast.service));
    let mut client = world.connect().await;
    for (kind, reader) in [
        (rules::RPC, &cast.service),
        (rules::NOSTR_CONNECT, &cast.unpaired),
        (rules::DOCUMENT, &cast.service),
        (DEBIT_KIND, &cast.spire),
    ] {
        let (taken, text) = client.publish(&world.event(kind, &wallet, reader, vec![])).await;
        assert!(!taken && text.starts_with("auth-required: "), "kind {kind}: {text}");
    }
    for filter in [
        replies(&cast.service),
        replies(&cast.spire),
        to(&wallet),
        replies(&wallet).kind(Kind::from(rules::RPC)),
        Filter::new().kind(Kind::from(DEBIT_KIND)),
    ] {
        let refused = client.req("r", filter.clone()).await.unwrap_err();
        assert!(refused.starts_with("auth-required: "), "{filter:?}: {refused}");
    }
    for n in 0..4 {
        assert_eq!(client.req(&format!("{n}"), replies(&wallet)).await, Ok(vec![]));
    }
    let refused = client.req("more", replies(&wallet)).await.unwrap_err();
    assert!(refused.starts_with("restricted: "), "{refused}");
    assert_eq!(world.count(Count::SignatureChecks), 0);

    let mut client = world.connect().await;
    let mut checked = 0;
    for _ in 0..20 {
        let asks = world.event(OFFER_KIND, &Keys::generate(), &cast.service, vec![]);
        checked += u64::from(client.publish(&asks).await.0);
    }
    assert!((10..13).contains(&checked), "{checked} of one connection at once");
    assert_eq!(world.count(Count::SignatureChecks), checked);
    let mut machine = world.login(&cast.client).await;
    let asks = world.event(rules::RPC, &cast.spire, &cast.service, vec![]);
    assert!(machine.publish(&asks).await.0, "the machine is not held up");
}
