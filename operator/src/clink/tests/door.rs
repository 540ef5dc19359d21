//! What strangers at the door cost.

use bitspire_shared::admit::Rules;
use nostr::JsonUtil as _;

use super::super::door::REPLIES;
use super::*;

fn request(author: &Keys, service: &Keys, kind: u16, at: u64) -> Event {
    EventBuilder::new(Kind::from(kind), "x")
        .tag(Tag::public_key(service.public_key()))
        .custom_created_at(Timestamp::from(at))
        .sign_with_keys(author)
        .unwrap()
}

fn frame(event: &Event) -> String {
    format!("[\"EVENT\",\"clink\",{}]", event.as_json())
}

/// Loss prevented: strangers who have signatures checked, replies signed or memory filled without end;
/// a wallet whose reply was lost and that never gets it again.
#[tokio::test]
async fn strangers_cost_what_the_budgets_say() {
    let (service, author) = (Keys::generate(), Keys::generate());
    let (again, mut asked_again) = mpsc::channel(2);
    let clock = bitspire_shell::clock::Clock::new(|| Unix(1_800_000_000));
    let tally: Arc<crate::rpc::tally::Tally> = Arc::default();
    let door = Arc::new(Door::new(key(&service), 2, clock, tally.clone(), again));
    let (filter, other_relay) = (door.filter(), door.filter());
    let now = 1_800_000_000;
    let good = request(&author, &service, DEBIT_KIND, now);
    let other_service = request(&author, &Keys::generate(), DEBIT_KIND, now);
    let long = "x".repeat(Rules::CLINK.max_frame + 1);
    for (text, why) in [
        (frame(&request(&author, &service, 21_000, now)), "kind"),
        (frame(&other_service), "wrong_recipient"),
        (frame(&request(&author, &service, OFFER_KIND, now - 601)), "stale"),
        (long, "too_large"),
        ("[\"EVENT\"]".to_owned(), "malformed"),
    ] {
        assert!(!filter.keeps(&text), "{text}");
        assert_eq!(tally.total(why), 1, "{why}: {:?}", tally.totals());
    }
    let passed = (0..1_000).filter(|_| filter.keeps(&frame(&good))).count();
    assert!((100..120).contains(&passed), "{passed} checks for one relay");
    assert!(other_relay.keeps(&frame(&good)), "the other relay has its own");

    assert_eq!(door.event(&good), Ok(()));
    let reply = request(&service, &author, DEBIT_KIND, now);
    door.keep(&good, reply.clone());
    for _ in 0..100 {
        assert!(!other_relay.keeps(&frame(&good)), "seen");
    }
    assert_eq!(asked_again.recv().await, Some(good.id.to_bytes()));
    let sent = std::iter::from_fn(|| door.again(good.id.as_bytes())).take(100);
    assert_eq!(sent.map(|again| assert_eq!(again, reply)).count(), 8, "the same, a few times");
    assert_eq!(door.again(&[7; 32]), None);
    // a request that is replied to, and as many after it as are kept: the first reply is forgotten
    let first = request(&author, &service, DEBIT_KIND, now - 1_000);
    door.keep(&first, reply.clone());
    assert_eq!(door.again(first.id.as_bytes()), Some(reply.clone()));
    for n in 1..=u64::try_from(REPLIES).unwrap() {
        door.keep(&request(&author, &service, DEBIT_KIND, now - 1_000 - n), reply.clone());
    }
    assert_eq!(door.again(first.id.as_bytes()), None);

    let verified = (1..=100).map(|n| door.event(&request(&author, &service, DEBIT_KIND, now - n)));
    let verified: Vec<_> = verified.collect();
    let served = verified.iter().filter(|event| event.is_ok()).count();
    let told = verified.iter().filter(|event| matches!(event, Err(Turned { told_ms: Some(_) })));
    assert!((9..12).contains(&served), "{served} of one author at once");
    assert!((10..12).contains(&told.count()), "a reply costs too");
    assert_eq!(door.event(&request(&Keys::generate(), &service, OFFER_KIND, now)), Ok(()));
}
