//! Replies that may be asked for again.
//!
//! Promise: while a request is being worked on, its repeats are left to the first one's reply; for
//! two minutes after it, a repeat gets the same reply. Bounded; texts are wiped when forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::ids::{Digest, PubKey};
use bitspire_shared::nip46::message::Plain;
use bitspire_shared::time::Mono;

/// How long a reply is kept, in milliseconds: clients send again within seconds.
const KEPT_MS: u64 = 120_000;
/// Replies in memory.
const CAPACITY: usize = 1_024;

/// A request by its key, client and text.
pub(super) type Asked = (PubKey, PubKey, Digest);

/// The replies.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// `None` while it is being worked on.
    replies: HashMap<Asked, Option<Plain>>,
    /// Finished ones, oldest first.
    order: VecDeque<(Mono, Asked)>,
}

/// How a request begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Another copy is being worked on.
    Busy,
    /// It is ours; the reply that it had before, if that is still here.
    Ours(Option<Plain>),
}

impl Replies {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to work on a request; [`finish`](Self::finish) has to follow where it is ours.
    pub(super) fn begin(&self, asked: &Asked, now: Mono) -> Begin {
        let mut inner = self.inner();
        inner.forget(now);
        match inner.replies.get(asked).cloned() {
            Some(None) => Begin::Busy,
            Some(reply) => Begin::Ours(reply),
            None => {
                inner.replies.insert(*asked, None);
                Begin::Ours(None)
            }
        }
    }

    /// Ends the work; without a reply a repeat is a request like any other.
    pub(super) fn finish(&self, asked: &Asked, reply: Option<Plain>, now: Mono) {
        let mut inner = self.inner();
        match reply {
            Some(reply) => {
                let before = inner.replies.insert(*asked, Some(reply));
                if !matches!(before, Some(Some(_))) {
                    inner.order.push_back((now, *asked));
                }
            }
            None => inner.drop_unfinished(asked),
        }
        while inner.order.len() > CAPACITY {
            inner.drop_oldest();
        }
    }

    /// Forgets what is old.
    pub(super) fn forget(&self, now: Mono) {
        self.inner().forget(now);
    }
}

impl Inner {
    fn forget(&mut self, now: Mono) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > KEPT_MS) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, asked)) = self.order.pop_front() {
            self.replies.remove(&asked);
        }
    }

    fn drop_unfinished(&mut self, asked: &Asked) {
        if let Some(None) = self.replies.get(asked) {
            self.replies.remove(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use bitspire_shared::canonical::sha256;
    use nostr::Keys;

    use super::*;

    fn asked(text: &str, key: PubKey) -> Asked {
        (key, key, sha256(text))
    }

    /// Loss prevented: two copies of a request over two relays are signed and counted twice, or a
    /// lost reply can never be had again.
    #[test]
    fn one_copy_is_worked_on_and_its_reply_is_kept_for_a_while() {
        let key = PubKey::new(Keys::generate().public_key()).unwrap();
        let (one, replies) = (asked("one", key), Replies::default());
        let start = Mono(1_000);
        assert_eq!(replies.begin(&one, start), Begin::Ours(None));
        assert_eq!(replies.begin(&one, start), Begin::Busy);
        let reply = Plain::new("reply".into());
        replies.finish(&one, Some(reply.clone()), start);
        assert_eq!(replies.begin(&one, start.after(KEPT_MS)), Begin::Ours(Some(reply)));
        assert_eq!(replies.begin(&one, start.after(KEPT_MS + 1)), Begin::Ours(None));
        replies.finish(&one, None, start);
        assert_eq!(replies.begin(&one, start), Begin::Ours(None), "a failure can be tried again");
    }

    /// Loss prevented: a memory that grows with every request until the bunker is killed.
    #[test]
    fn memory_is_bounded() {
        let key = PubKey::new(Keys::generate().public_key()).unwrap();
        let replies = Replies::default();
        for n in 0..CAPACITY + 10 {
            let asked = asked(&n.to_string(), key);
            assert_eq!(replies.begin(&asked, Mono(1)), Begin::Ours(None));
            replies.finish(&asked, Some(Plain::new("x".into())), Mono(1));
        }
        let inner = replies.inner();
        assert_eq!((inner.replies.len(), inner.order.len()), (CAPACITY, CAPACITY));
    }
}
