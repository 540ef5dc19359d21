//! Refills and counts, from the wish to the machine.

use bitspire_shared::document::{Action, Cassettes, attest};
use bitspire_shared::ids::{BayId, JournalHead, JournalSeq};
use serde_json::Value;

use super::*;
use crate::fleet::FleetError;
use crate::publish::cassettes::{Wish, Wishes, change};
use crate::store::cassettes as rows;

fn wish(bay: u8, denomination: Option<u32>, action: Action) -> Wish {
    Wish { bay: BayId::new(bay).unwrap(), denomination, action }
}

fn wishes(bays: Vec<Wish>, base_seq: Option<u64>) -> Wishes {
    Wishes { bays, reason: "refill".into(), base_seq: base_seq.map(JournalSeq) }
}

/// Loss prevented: the first of two refills forgotten because the machine was offline for both;
/// notes of 50 in a bay declared as 20.
#[tokio::test]
async fn every_open_change_travels_until_it_is_acknowledged() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let reader = site.reader().await;
    let peer = site.paired("till").await;
    let first = wishes(vec![wish(1, Some(20), Action::Set(100))], None);
    let (first, _) = change(site.app(), "cli", None, peer.id, first).await.unwrap();
    next(&reader).await;
    let second = wishes(vec![wish(1, None, Action::Delta(50))], None);
    let (second, _) = change(site.app(), "cli", None, peer.id, second).await.unwrap();
    let (_, text) = open(&site, &peer, Address::Cassettes, &next(&reader).await);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema_version"], 1);
    assert_eq!(value["positions"], serde_json::json!({"1": {"denomination": 20, "count": 150}}));
    let read = Cassettes::from_json(&text, "EUR".parse().unwrap()).unwrap();
    let changes = read.changes.unwrap();
    assert_eq!(changes.iter().map(|c| c.id).collect::<Vec<_>>(), [first[0], second[0]]);
    assert_eq!((changes[0].action, changes[1].action), (Action::Set(100), Action::Delta(50)));
    attest::check(&text, &site.bunker.key, &peer.key(), site.app().clock.now()).unwrap();

    let (id, acked) = (peer.id, first[0]);
    site.write(move |tx| rows::ack_change(tx, id, acked, Unix(9))).await;
    let third = wishes(vec![wish(2, Some(50), Action::Set(7))], None);
    let (third, _) = change(site.app(), "cli", None, peer.id, third).await.unwrap();
    let (_, text) = open(&site, &peer, Address::Cassettes, &next(&reader).await);
    let read = Cassettes::from_json(&text, "EUR".parse().unwrap()).unwrap();
    let ids: Vec<_> = read.changes.unwrap().iter().map(|c| c.id).collect();
    assert_eq!(ids, [second[0], third[0]], "the acknowledged one is gone, the others are in order");
}

/// Loss prevented: a refill that was decided before a count, applied on top of it.
#[tokio::test]
async fn what_was_decided_before_the_last_count_is_refused() {
    let site = Site::new().await;
    let peer = site.paired("till").await;
    let now = site.app().clock.now();
    let (id, head) = (peer.id, JournalHead::from_bytes([1; 32]));
    site.write(move |tx| machines::saw_journal(tx, id, JournalSeq(40), head, now)).await;
    let count = wishes(vec![wish(1, Some(20), Action::Set(100))], None);
    change(site.app(), "cli", None, id, count).await.unwrap();
    for (base, bay, denomination, part) in [
        (Some(39), 1, None, "40"),
        (Some(41), 1, None, "up to 40"),
        (None, 2, None, "bay 2"),
        (None, 1, Some(0), "denomination"),
    ] {
        let refused = wishes(vec![wish(bay, denomination, Action::Delta(1))], base);
        let refused = change(site.app(), "cli", None, id, refused).await.unwrap_err();
        let words = crate::http::error::in_words(&refused);
        assert!(words.contains(part), "{part}: {words}");
    }
    let many = wishes(vec![wish(1, None, Action::Delta(1)); 64], None);
    let refused = change(site.app(), "cli", None, id, many).await;
    assert!(matches!(refused, Err(FleetError::Invalid { .. })), "they fit no document");
    assert_eq!(site.documents(id).await.open_changes, 1, "nothing of these was written");
    let later = wishes(vec![wish(1, None, Action::Delta(-20))], Some(40));
    change(site.app(), "cli", None, id, later).await.unwrap();
    let bays = site.read(move |read| rows::list(read, id)).await;
    assert_eq!(bays[0].count, 80);
}
