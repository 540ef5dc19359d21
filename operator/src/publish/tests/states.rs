//! What machines say about their cassettes.

use bitspire_shared::document::{CassettesState, Position};
use bitspire_shared::ids::{BayId, JournalSeq};
use bitspire_shared::money::Denomination;

use super::*;
use crate::store::cassettes as rows;

/// A state of `count` notes in bay 1, by `author` about `about`, signed by `vault`.
fn state(site: &Site, author: &Keys, about: PubKey, vault: &Keys, seq: u64, count: u32) -> Event {
    let denomination = Denomination::from_minor(2_000).unwrap();
    let now = site.app().clock.now();
    let state = CassettesState {
        positions: [(BayId::new(1).unwrap(), Position { denomination, count })].into(),
        published_at: Some(now),
        base_seq: Some(JournalSeq(seq)),
    };
    let text = state.to_json("EUR".parse().unwrap(), vault).unwrap();
    let cipher = ConversationKey::derive(author.secret_key(), &site.bunker.key).unwrap();
    let address = DTag { kind: Address::CassettesState, spire: about };
    let key = PubKey::new(author.public_key()).unwrap();
    let content = cipher.encrypt(&text, rand()).unwrap();
    let created_at = now.after(seq);
    let event = address.to_unsigned(&key, &site.bunker.key, content, created_at);
    event.sign_with_keys(author).unwrap()
}

async fn publish_to_relay(pool: &Pool, event: &Event) {
    while pool.publish(event).await.is_err() {}
}

async fn last(site: &Site, id: MachineId) -> Option<rows::State> {
    site.read(move |read| rows::last_state(read, id, Unix(0))).await
}

/// Loss prevented: counts that another machine, or anybody, writes into a machine's books; a
/// bootstrap lost because the bunker was down, or applied over later refills.
#[tokio::test]
async fn a_machines_own_state_is_stored_once() {
    let site = Site::new().await;
    let _relay = site.relay().await;
    let pool = site.pool().await;
    let peer = site.paired("till").await;
    let other = site.paired("bar").await;
    let stranger = Keys::generate();
    site.bunker.answers.store(false, Ordering::SeqCst);
    // by a stranger, by another machine, by another vault
    publish_to_relay(&pool, &state(&site, &stranger, peer.key(), &peer.vault, 9, 999)).await;
    publish_to_relay(&pool, &state(&site, &other.spire, peer.key(), &other.vault, 9, 999)).await;
    publish_to_relay(&pool, &state(&site, &other.spire, other.key(), &stranger, 9, 999)).await;
    let first = state(&site, &peer.spire, peer.key(), &peer.vault, 1, 100);
    publish_to_relay(&pool, &first).await;
    site.bunker.answers.store(true, Ordering::SeqCst);
    let kept = site.until("it is stored", async || last(&site, peer.id).await).await;
    assert_eq!(kept.event_id.to_string(), first.id.to_hex());
    let id = peer.id;
    let bays = site.read(move |read| rows::list(read, id)).await;
    assert_eq!((bays.len(), bays[0].count), (1, 100));

    let second = state(&site, &peer.spire, peer.key(), &peer.vault, 2, 40);
    publish_to_relay(&pool, &second).await;
    let newer = async || last(&site, id).await.filter(|kept| kept.base_seq == JournalSeq(2));
    site.until("the second is stored", newer).await;
    let bays = site.read(move |read| rows::list(read, id)).await;
    assert_eq!(bays[0].count, 100, "the table is filled once");
    assert_eq!(last(&site, other.id).await, None);

    // the relay sends it again; a restart knows it, and follows machines that are added later
    let site = site.restarted().await;
    let late = site.paired("kiosk").await;
    publish_to_relay(&pool, &state(&site, &late.spire, late.key(), &late.vault, 1, 5)).await;
    site.until("the new machine is heard", async || last(&site, late.id).await).await;
    assert_eq!(last(&site, id).await.unwrap().event_id.to_string(), second.id.to_hex());
}
