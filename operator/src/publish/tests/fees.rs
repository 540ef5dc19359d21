//! Fees, from the wish to the relay.

use bitspire_shared::document::watermark::{Decision, decide};
use bitspire_shared::document::{FeesDocument, attest};
use bitspire_shared::money::{Direction, FeePpm};
use serde_json::{Value, json};

use super::*;
use crate::fleet::FleetError;
use crate::fleet::machines::{Edit, edit};
use crate::publish::fees;
use crate::publish::status::{Light, State};
use crate::rpc::push::HINT_S;
use crate::store::outbox;

fn ppm(ppm: u32) -> FeePpm {
    FeePpm::new(ppm).unwrap()
}

async fn set(site: &Site, id: MachineId, cash_out: u32) -> crate::ids::DocumentId {
    let set = fees::set(site.app(), "cli", None, id, None, Some(ppm(cash_out)));
    set.await.unwrap().1.unwrap()
}

/// Loss prevented: fees that a machine cannot read, that are another machine's, or that nobody
/// vouched for.
#[tokio::test]
async fn a_fee_document_is_the_agreed_one() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    fees::set_platform(site.app(), "cli", Some(ppm(30_000)), None).await.unwrap();
    next(&reader).await;
    let document = set(&site, peer.id, 77_700).await;
    let came = publish::outcome(site.app(), &[document]).await.unwrap();
    assert_eq!((came.state, came.reason), (State::Published, None));

    let event = next(&reader).await;
    let tags: Vec<_> = event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect();
    let spire = peer.key().to_string();
    assert_eq!(
        tags,
        [vec!["d".to_owned(), format!("bitspire-fees:{spire}")], vec!["p".into(), spire]]
    );
    let (_, text) = open(&site, &peer, Address::Fees, &event);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["cash_in_fee_fraction"], json!(0.03));
    assert_eq!(value["cash_out_fee_fraction"], json!(0.0777));
    assert_eq!(value["components"]["cash_in"], json!({"super": 0.03, "operator": 0}));
    assert_eq!(value["components"]["cash_out"], json!({"super": 0, "operator": 0.0777}));
    assert_eq!(value["schema_version"], 1);
    let read = FeesDocument::from_json(&text).unwrap();
    assert_eq!(read.of(Direction::CashOut).total(), ppm(77_700));
    let now = site.app().clock.now();
    attest::check(&text, &site.bunker.key, &peer.key(), now.after(300 * 86_400)).unwrap();

    let standing = site.documents(peer.id).await.fees.unwrap();
    assert_eq!((standing.light, standing.on_machine), (Light::RelayAcked, false));
    assert_eq!(standing.signed_by, Some(site.bunker.key), "who says so");
    assert_eq!(standing.in_force_signed_by, None, "the machine goes by nothing yet");
    let told = now.after(HINT_S + 1);
    let pushed = site.read(move |read| outbox::due_pushes(read, told, 9)).await;
    assert_eq!(pushed.len(), 2, "one for each document");
    assert_eq!(pushed[1].body.as_ref().unwrap().0["event_id"], event.id.to_hex());
}

/// Loss prevented: a fee that never reaches the machine because the bunker or the relay was away
/// at the wrong moment, or reaches it twice; a page that says it is there.
#[tokio::test]
async fn what_fails_for_a_while_is_published_once() {
    let site = Site::new().await;
    let peer = site.paired("till").await;
    site.bunker.answers.store(false, Ordering::SeqCst);
    let document = set(&site, peer.id, 10_000).await;
    let came = publish::outcome(site.app(), &[document]).await.unwrap();
    assert_eq!(came.state, State::Queued);
    assert!(came.reason.unwrap().contains("no reply"));
    let fees = site.documents(peer.id).await.fees.unwrap();
    assert_eq!((fees.light, fees.on_machine), (Light::Wanted, false));
    let refused = publish::republish(site.app(), "cli", None, peer.id).await;
    assert!(matches!(refused, Err(FleetError::NotPublished(_))), "{refused:?}");

    // signed, but no relay is there
    site.bunker.answers.store(true, Ordering::SeqCst);
    let light = async || site.documents(peer.id).await.fees.filter(|f| f.event_id.is_some());
    let signed = site.until("it is signed", light).await;
    assert_eq!((signed.light, signed.on_machine), (Light::Published, false));

    let site = site.restarted().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let acked = async || site.documents(peer.id).await.fees.filter(|f| f.relay_acked_at.is_some());
    let acked = site.until("a relay has it", acked).await;
    assert_eq!(next(&reader).await.id.to_hex(), signed.event_id.unwrap().to_string());
    assert_eq!((acked.event_id, acked.reason, acked.attempts), (signed.event_id, None, 0));
    let site = site.restarted().await;
    // the next thing that the operator signs is the next wish, not the same again
    set(&site, peer.id, 20_000).await;
    let (_, text) = open(&site, &peer, Address::Fees, &next(&reader).await);
    assert_eq!(FeesDocument::from_json(&text).unwrap().cash_out.total(), ppm(20_000));
}

/// Loss prevented: of two changes in one second, the first one in force.
#[tokio::test]
async fn the_later_wish_counts() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    let mut marks = Vec::new();
    for cash_out in [10_000, 20_000, 30_000] {
        let document = set(&site, peer.id, cash_out).await;
        let came = publish::outcome(site.app(), &[document]).await.unwrap();
        assert_eq!(came.state, State::Published, "{came:?}");
        let (checked, text) = open(&site, &peer, Address::Fees, &next(&reader).await);
        let read = FeesDocument::from_json(&text).unwrap();
        assert_eq!(read.cash_out.total(), ppm(cash_out));
        marks.push(checked.mark(Some(read.published_at)));
    }
    let now = site.app().clock.now();
    for pair in marks.windows(2) {
        assert_eq!(decide(Some(&pair[0]), &pair[1], now), Decision::Apply);
        assert_eq!(decide(Some(&pair[1]), &pair[0], now), Decision::Stale);
    }
}

/// Loss prevented: a fee above the cap in one direction; a platform's fee that some machines
/// refuse, so that customers meet two prices.
#[tokio::test]
async fn the_cap_holds_for_each_direction_and_machine() {
    let site = Site::new().await;
    let (till, bar) = (site.paired("till").await, site.paired("bar").await);
    let over = fees::set(site.app(), "cli", None, till.id, Some(ppm(150_001)), None).await;
    let words = crate::http::error::in_words(&over.unwrap_err());
    for part in ["cash_in", "till", "150001", "150000"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(site.documents(till.id).await.fees, None, "nothing was written");
    set(&site, till.id, 100_000).await;
    set(&site, bar.id, 50_000).await;

    let wanted = site.documents(bar.id).await;
    let breach = fees::set_platform(site.app(), "cli", None, Some(ppm(60_000))).await;
    let words = breach.unwrap_err().to_string();
    assert!(words.contains("cash_out of machine 1 (till)") && words.contains("160000"), "{words}");
    assert!(!words.contains("bar"), "{words}");
    assert_eq!(site.documents(bar.id).await.fees.unwrap().body, wanted.fees.unwrap().body);
    let (config, told) =
        fees::set_platform(site.app(), "cli", Some(ppm(60_000)), None).await.unwrap();
    assert_eq!((config.cash_in_fee_ppm, told.len()), (ppm(60_000), 2));
}

/// Loss prevented: a signature of the operator for a name; a second document for the same fees.
#[tokio::test]
async fn names_publish_nothing_and_no_key_waits() {
    let site = Site::new().await;
    let peer = site.paired("till").await;
    let named = Edit { name: Some("Bar".into()), place: Some("Hall".into()), ..Edit::default() };
    edit(site.app(), "cli", None, peer.id, named).await.unwrap();
    assert_eq!(site.documents(peer.id).await.fees, None);
    let first = set(&site, peer.id, 10_000).await;
    assert_eq!(set(&site, peer.id, 10_000).await, first);

    let unpaired = site
        .write(|tx| {
            let operator = operators::list(tx)?.remove(0).id;
            let now = Unix(1);
            let row = Machine::new(operator, "new", "", "EUR".parse().unwrap(), "bar", now);
            machines::insert(tx, &row)
        })
        .await;
    let document = set(&site, unpaired, 10_000).await;
    let came = publish::outcome(site.app(), &[document]).await.unwrap();
    assert_eq!(came.state, State::Queued);
    assert!(came.reason.unwrap().contains("paired"));
    let refused = publish::republish(site.app(), "cli", None, unpaired).await;
    assert!(matches!(refused, Err(FleetError::Unpublishable { .. })), "{refused:?}");
    let known = site.app().store.write(move |tx| {
        let now = Unix(2);
        machines::set_paired(tx, unpaired, key(), "new", now.after(9), now)?;
        publish::key_known(tx, unpaired, now)
    });
    known.await.unwrap();
    let first = outbox_of(&site, document).await;
    assert!(first.done_at.is_some(), "the one at the pairing is sent in its place");
}

async fn outbox_of(site: &Site, document: crate::ids::DocumentId) -> outbox::Waiting {
    site.read(move |read| outbox::of_document(read, document)).await.unwrap().row
}
