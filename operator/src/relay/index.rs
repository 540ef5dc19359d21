//! Which subscriptions an event may concern: an index by recipient and author.
//!
//! Promise: the cost of an event follows the subscriptions that name its `p` tag or its author,
//! not the number of connections. Every admitted filter names one or the other (see `rules`), so
//! none is missed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitspire_shared::admit::Head;
use nostr::{Event, Filter, filter::MatchEventOptions};

use super::peer::Peer;
use super::rules;

/// One REQ that is open.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) peer: Arc<Peer>,
    /// The subscription id as a JSON string.
    pub(super) id_json: String,
    pub(super) filters: Vec<Filter>,
}

impl Subscription {
    /// Whether one of the filters takes the event.
    pub(super) fn takes(&self, event: &Event) -> bool {
        let options = MatchEventOptions::new();
        self.filters.iter().any(|filter| filter.match_event(event, options))
    }

    /// The keys under which each filter is found: its readers, or else its authors. A filter that
    /// has both is found by its readers, which are fewer.
    fn keys(&self) -> (HashSet<[u8; 32]>, HashSet<[u8; 32]>) {
        let (mut readers, mut authors) = (HashSet::new(), HashSet::new());
        for filter in &self.filters {
            match filter.generic_tags.get(&rules::P) {
                Some(values) => readers.extend(values.iter().filter_map(|v| rules::key(v))),
                None => authors.extend(filter.authors.iter().flatten().map(|key| key.to_bytes())),
            }
        }
        (readers, authors)
    }
}

type Bucket = HashMap<[u8; 32], Vec<Arc<Subscription>>>;

/// All open subscriptions.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_reader: Bucket,
    by_author: Bucket,
}

impl Index {
    /// Adds a subscription.
    pub(super) fn insert(&mut self, subscription: &Arc<Subscription>) {
        let (readers, authors) = subscription.keys();
        for (bucket, keys) in [(&mut self.by_reader, readers), (&mut self.by_author, authors)] {
            for key in keys {
                bucket.entry(key).or_default().push(subscription.clone());
            }
        }
    }

    /// Takes a subscription out.
    pub(super) fn remove(&mut self, subscription: &Arc<Subscription>) {
        let (readers, authors) = subscription.keys();
        for (bucket, keys) in [(&mut self.by_reader, readers), (&mut self.by_author, authors)] {
            for key in keys {
                if let Some(found) = bucket.get_mut(&key) {
                    found.retain(|other| !Arc::ptr_eq(other, subscription));
                    if found.is_empty() {
                        bucket.remove(&key);
                    }
                }
            }
        }
    }

    /// The subscriptions that name the event's recipient or its author, each once.
    pub(super) fn candidates(&self, head: &Head) -> Vec<Arc<Subscription>> {
        let mut seen = HashSet::new();
        let to = head.recipient.and_then(|key| self.by_reader.get(&key));
        to.into_iter()
            .chain(self.by_author.get(&head.pubkey))
            .flatten()
            .filter(|subscription| seen.insert(Arc::as_ptr(subscription)))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bitspire_shared::time::Unix;
    use nostr::PublicKey;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_byte_array([n; 32])
    }

    fn subscription(filters: Vec<Filter>) -> Arc<Subscription> {
        let (peer, _queue) = Peer::new(1, 1, CancellationToken::new());
        Arc::new(Subscription { peer: Arc::new(peer), id_json: "\"s\"".to_owned(), filters })
    }

    fn found(index: &Index, author: u8, recipient: Option<u8>) -> usize {
        let head = Head {
            id: [0; 32],
            pubkey: [author; 32],
            kind: 21000,
            created_at: Unix(1),
            recipient: recipient.map(|n| [n; 32]),
            expiration: None,
        };
        index.candidates(&head).len()
    }

    /// Loss prevented: an event that a subscription asked for never reaches it, or comes twice; a
    /// closed subscription that stays in the index is memory lost for ever.
    #[test]
    fn a_subscription_is_found_by_each_of_its_keys_and_once() {
        let mut index = Index::default();
        let to = subscription(vec![Filter::new().pubkeys([key(1), key(2)]).author(key(3))]);
        let from = subscription(vec![Filter::new().author(key(3)), Filter::new().pubkey(key(1))]);
        index.insert(&to);
        index.insert(&from);
        assert_eq!(found(&index, 9, Some(2)), 1);
        assert_eq!(found(&index, 3, Some(1)), 2);
        assert_eq!(found(&index, 3, None), 1);
        assert_eq!(found(&index, 9, Some(3)), 0);
        index.remove(&to);
        assert_eq!(found(&index, 9, Some(1)), 1);
        assert_eq!(found(&index, 9, Some(2)), 0);
        index.remove(&from);
        assert!(index.by_reader.is_empty() && index.by_author.is_empty());
    }
}
