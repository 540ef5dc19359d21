//! When fees are published, by the names that the promise had before this program.

use bitspire_shared::document::FeesDocument;
use bitspire_shared::money::{Direction, FeePpm};
use serde_json::{Value, json};

use super::*;
use crate::fleet::machines::{Edit, NewMachine, add, edit};
use crate::publish::fees;
use crate::publish::status::State;

fn ppm(ppm: u32) -> FeePpm {
    FeePpm::new(ppm).unwrap()
}

/// The fees that a machine reads next.
async fn read(site: &Site, reader: &Pool, peer: &Peer) -> FeesDocument {
    let (_, text) = open(site, peer, Address::Fees, &next(reader).await);
    FeesDocument::from_json(&text).unwrap()
}

async fn set(site: &Site, id: MachineId, cash_in: u32, cash_out: u32) {
    let (cash_in, cash_out) = (Some(ppm(cash_in)), Some(ppm(cash_out)));
    fees::set(site.app(), "cli", None, id, cash_in, cash_out).await.unwrap();
}

/// Loss prevented: a new machine that sells without a fee until somebody changes one.
#[tokio::test]
async fn test_publish_fee_config_on_machine_create() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let operator = site.read(|read| Ok(operators::list(read)?.remove(0).id)).await;
    let spire = Keys::generate();
    let new = NewMachine {
        operator,
        name: "Bar".into(),
        place: String::new(),
        currency: "EUR".parse().unwrap(),
        wallet_id: "bar".into(),
        npub: Some(PubKey::new(spire.public_key()).unwrap()),
        cash_in_fee: ppm(50_000),
        cash_out_fee: ppm(40_000),
    };
    let id = add(site.app(), "cli", new).await.unwrap().id;
    let peer = Peer { id, spire, vault: Keys::generate() };
    let told = read(&site, &reader, &peer).await;
    assert_eq!(told.of(Direction::CashIn).total(), ppm(50_000));
    assert_eq!(told.of(Direction::CashOut).total(), ppm(40_000));
}

/// Loss prevented: a fee that the operator set and the machine never heard of; a signature for each
/// letter of a name.
#[tokio::test]
async fn test_publish_fee_config_on_machine_update_fee_change() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    let named = Edit { name: Some("Bar".into()), place: Some("Hall".into()), ..Edit::default() };
    edit(site.app(), "cli", None, peer.id, named).await.unwrap();
    set(&site, peer.id, 10_000, 20_000).await;
    let told = read(&site, &reader, &peer).await;
    assert_eq!(told.of(Direction::CashOut).total(), ppm(20_000), "the name was not published");
    let named = Edit { place: Some("Corner".into()), ..Edit::default() };
    edit(site.app(), "cli", None, peer.id, named).await.unwrap();
    set(&site, peer.id, 10_000, 30_000).await;
    let told = read(&site, &reader, &peer).await;
    assert_eq!(told.of(Direction::CashOut).total(), ppm(30_000), "nor was the place");
}

/// Loss prevented: customers who meet two prices, since some machines never heard of the platform's
/// fee; fees signed for a machine that was revoked.
#[tokio::test]
async fn test_publish_fee_config_on_super_config_update() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let (till, bar) = (site.paired("till").await, site.paired("bar").await);
    let gone = site.paired("kiosk").await;
    let now = site.app().clock.now();
    site.write(move |tx| machines::revoke(tx, gone.id, now)).await;
    fees::set_platform(site.app(), "cli", Some(ppm(30_000)), None).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..2 {
        let event = next(&reader).await;
        readers.push(event.tags.public_keys().next().copied().unwrap());
        let peer = if readers.ends_with(&[till.spire.public_key()]) { &till } else { &bar };
        let (_, text) = open(&site, peer, Address::Fees, &event);
        assert_eq!(FeesDocument::from_json(&text).unwrap().cash_in.total(), ppm(30_000));
    }
    readers.sort();
    let mut both = vec![till.spire.public_key(), bar.spire.public_key()];
    both.sort();
    assert_eq!(readers, both, "one for each");
    assert_eq!(site.documents(gone.id).await.fees, None);
}

/// Loss prevented: a document that a reader takes for one of another version.
#[tokio::test]
async fn test_publish_payload_shape_includes_schema_version() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    set(&site, peer.id, 50_000, 77_700).await;
    let (_, text) = open(&site, &peer, Address::Fees, &next(&reader).await);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema_version"], json!(1));
    assert_eq!(value["cash_in_fee_fraction"], json!(0.05));
    assert_eq!(value["cash_out_fee_fraction"], json!(0.0777));
    assert!(value["published_at"].is_u64(), "{value}");
}

/// Loss prevented: a fee that cannot be set because a relay is away, or one that was set and is
/// forgotten.
#[tokio::test]
async fn test_publish_soft_fails_when_relay_missing() {
    let site = Site::new().await;
    let peer = site.paired("till").await;
    let set = fees::set(site.app(), "cli", None, peer.id, Some(ppm(10_000)), None).await;
    let (machine, document) = set.unwrap();
    assert_eq!(machine.cash_in_fee_ppm, ppm(10_000), "the write holds");
    let came = publish::outcome(site.app(), document.as_slice()).await.unwrap();
    assert_eq!(came.state, State::Queued);
    assert!(came.reason.is_some_and(|reason| !reason.is_empty()));
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let acked = async || site.documents(peer.id).await.fees.filter(|f| f.relay_acked_at.is_some());
    site.until("a relay has it", acked).await;
    assert_eq!(read(&site, &reader, &peer).await.cash_in.total(), ppm(10_000), "once it is there");
}

/// Loss prevented: a fee above what the law of the place, and every machine, allows.
#[tokio::test]
async fn test_total_fee_cap_validation_per_direction() {
    let site = Site::new().await;
    let peer = site.paired("till").await;
    fees::set_platform(site.app(), "cli", Some(ppm(50_000)), Some(ppm(20_000))).await.unwrap();
    for (cash_in, cash_out, over) in [
        (Some(ppm(100_000)), Some(ppm(130_000)), None),
        (Some(ppm(100_001)), None, Some("cash_in")),
        (None, Some(ppm(130_001)), Some("cash_out")),
    ] {
        let set = fees::set(site.app(), "cli", None, peer.id, cash_in, cash_out).await;
        let words = set.err().map(|error| crate::http::error::in_words(&error));
        assert_eq!(words.is_some(), over.is_some(), "{words:?}");
        if let (Some(words), Some(direction)) = (words, over) {
            assert!(words.contains(direction) && words.contains("150000"), "{words}");
        }
    }
    let fees = site.documents(peer.id).await.fees.unwrap();
    assert_eq!(fees.body["components"]["cash_in"]["operator"], json!(0.1), "nothing was written");
}
