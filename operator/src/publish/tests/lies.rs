//! A bunker that signs something else than the operator's document.

use bitspire_shared::document::FeesDocument;
use bitspire_shared::money::{Direction, FeePpm};

use super::*;
use crate::fleet::FleetError;
use crate::publish::fees;
use crate::publish::lies::LIED;
use crate::publish::status::{Light, State};
use crate::store::{log, outbox};

/// Loss prevented: what a bunker made up goes out as the operator's fees; or a bunker that was taken
/// over keeps fees from the machines for weeks and nobody is told; or the wish is lost with the lie.
#[tokio::test]
async fn a_lie_is_told_and_its_document_waits() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    site.bunker.lies.store(true, Ordering::SeqCst);
    let wish = FeePpm::new(10_000).unwrap();
    let set = fees::set(site.app(), "cli", None, peer.id, None, Some(wish)).await;
    let document = set.unwrap().1.unwrap();
    let came = publish::outcome(site.app(), &[document]).await.unwrap();
    assert_eq!(came.state, State::Queued);
    assert!(came.reason.unwrap().contains("do not use this bunker, look at what runs there"));
    // the operator asks for it once more
    let refused = publish::republish(site.app(), "cli", None, peer.id).await.unwrap_err();
    assert!(matches!(refused, FleetError::NotPublished(_)), "{refused:?}");

    let waits = site.read(move |read| outbox::of_document(read, document)).await.unwrap();
    assert!(waits.done_at.is_none() && waits.attempts >= 2, "{waits:?}");
    assert!(waits.row.last_error.unwrap().contains("bunker lied when asked for sign_event"));
    let standing = site.documents(peer.id).await.fees.unwrap();
    assert_eq!((standing.light, standing.event_id), (Light::Wanted, None));
    let subject = format!("machine:{}", peer.id);
    let told = site.read(move |read| log::of_action(read, LIED, Some(&subject))).await;
    let [told] = &told[..] else { panic!("once: {told:?}") };
    assert_eq!((told.actor.as_str(), &told.detail.0["code"]), ("service", &"bunker_lied".into()));

    // with a bunker that has come to itself, the wish goes out, and nothing went out before it
    site.bunker.lies.store(false, Ordering::SeqCst);
    let acked = async || site.documents(peer.id).await.fees.filter(|f| f.relay_acked_at.is_some());
    let acked = site.until("a relay has it", acked).await;
    let event = next(&reader).await;
    assert_eq!(event.id.to_hex(), acked.event_id.unwrap().to_string());
    let (_, text) = open(&site, &peer, Address::Fees, &event);
    assert_eq!(FeesDocument::from_json(&text).unwrap().of(Direction::CashOut).total(), wish);
}
