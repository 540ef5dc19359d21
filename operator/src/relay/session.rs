//! What a client's frames do: EVENT, REQ, CLOSE, AUTH.
//!
//! Promise: an event is refused for the cheapest reason first, and no signature is checked of an
//! event that its connection may not publish anyway. Every EVENT and AUTH is answered by an OK with
//! its id, every REQ by EOSE or CLOSED; what names no id or subscription, by a NOTICE.
//!
//! Failure policy: a document that the disk did not take is answered `error:` and not passed on.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::ws::WebSocket;
use bitspire_shared::admit::{EventHead, Head};
use nostr::filter::MatchEventOptions;
use nostr::{Event, EventId, Filter, JsonUtil, Kind};

use super::auth::Expected;
use super::connection::{Connection, Gone};
use super::index::Subscription;
use super::message::{self, Frame};
use super::peer::Outgoing;
use super::rules::{self, Writer};
use super::stats::{Count, Refusal};
use crate::store::relay_docs::Put;

/// Stored events that are read at once: bounds the memory of one REQ.
const PAGE: u32 = 32;

/// The head of an event and its id, unverified: enough to answer it.
fn head_of(json: &str) -> Option<(EventHead<'_>, EventId)> {
    let head: EventHead<'_> = serde_json::from_str(json).ok()?;
    Some((head, EventId::from_hex(head.id).ok()?))
}

/// The answer to a frame that is not even looked into.
fn refusal_of(frame: Option<&Frame<'_>>, refusal: Refusal) -> String {
    match frame {
        Some(Frame::Event(json) | Frame::Auth(json)) => head_of(json).map_or_else(
            || message::notice(refusal.message()),
            |(_, id)| message::refused(id, refusal),
        ),
        Some(Frame::Req { id, .. } | Frame::Count { id }) => message::closed(id, refusal),
        Some(Frame::Close { .. } | Frame::Negentropy) | None => message::notice(refusal.message()),
    }
}

impl Connection {
    /// Does what one text message says.
    pub(super) async fn on_text(&mut self, socket: &mut WebSocket, text: &str) -> Result<(), Gone> {
        let relay = self.relay.clone();
        let limits = &relay.config().limits;
        let keys = self.peer.keys();
        if !rules::is_rostered(relay.access(), &keys) && text.len() > limits.stranger_bytes {
            return self.complain(socket, Refusal::TooLarge).await;
        }
        let frame = Frame::parse(text, limits.subscription_id);
        let server = rules::is_server(relay.access(), &keys);
        if !server && !self.buckets.allows_frame(relay.mono()) {
            self.refuse(Refusal::RateLimited);
            let answer = refusal_of(frame.as_ref(), Refusal::RateLimited);
            return self.say(socket, answer).await;
        }
        match frame {
            Some(Frame::Event(event)) => self.on_event(socket, event).await,
            Some(Frame::Req { id, filters }) => self.on_req(socket, id, &filters).await,
            Some(Frame::Close { id }) => {
                self.unsubscribe(&id);
                Ok(())
            }
            Some(Frame::Auth(event)) => self.on_auth(socket, event).await,
            Some(Frame::Count { id }) => {
                self.refuse(Refusal::Unsupported);
                self.say(socket, message::closed(&id, Refusal::Unsupported)).await
            }
            Some(Frame::Negentropy) => self.complain(socket, Refusal::Unsupported).await,
            None => self.complain(socket, Refusal::Malformed).await,
        }
    }

    async fn on_event(&mut self, socket: &mut WebSocket, json: &str) -> Result<(), Gone> {
        let Some((head, id)) = head_of(json) else {
            return self.complain(socket, Refusal::Malformed).await;
        };
        let admitted = head.decode().map_err(|_| Refusal::Malformed).and_then(|head| {
            let writer = self.admit(&head)?;
            Ok((self.verified(json, &head)?, head, writer))
        });
        let (event, head, writer) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.refuse(refusal);
                return self.say(socket, message::refused(id, refusal)).await;
            }
        };
        if head.kind == rules::DOCUMENT {
            return self.store(event, head, writer).await;
        }
        self.relay.route(&event, &head);
        self.relay.count(Count::Routed);
        self.say(socket, message::taken(id, "")).await
    }

    /// What can be told from the head alone, the cheapest first.
    fn admit(&mut self, head: &Head) -> Result<Writer, Refusal> {
        let keys = self.peer.keys();
        let limits = &self.relay.config().limits;
        let writer = rules::may_write(self.relay.access(), &keys, head)?;
        let now = self.relay.now();
        if head.expiration.is_some_and(|last| last < now) {
            return Err(Refusal::Expired);
        }
        if head.created_at > now.after(limits.future_secs) {
            return Err(Refusal::Future);
        }
        let mono = self.relay.mono();
        if writer == Writer::Wallet && !self.buckets.allows_wallet_event(mono) {
            return Err(Refusal::RateLimited);
        }
        // the author is bound to this authenticated connection: nobody else can use its rate up,
        // so it may be counted before the signature is checked; wallets share one rate
        if !self.relay.buckets().allows_event(writer, mono) {
            return Err(Refusal::RateLimited);
        }
        Ok(writer)
    }

    /// The whole event, once it is known to be the one of the head and to be signed.
    fn verified(&self, json: &str, head: &Head) -> Result<Event, Refusal> {
        let event = Event::from_json(json).map_err(|_| Refusal::Malformed)?;
        if Head::of(&event).as_ref() != Ok(head) {
            return Err(Refusal::Malformed);
        }
        if event.tags.len() > self.relay.config().limits.tags {
            return Err(Refusal::TooManyTags);
        }
        self.relay.verify(&event)?;
        Ok(event)
    }

    /// Hands a document to the disk; the answer comes through the queue once it is durable, and
    /// other frames are served meanwhile. What happens to the document does not depend on this
    /// connection any more.
    async fn store(&mut self, event: Event, head: Head, writer: Writer) -> Result<(), Gone> {
        let Ok(place) = self.writes.clone().acquire_owned().await else {
            return Err(Gone);
        };
        let quota = match writer {
            Writer::Machine(_) | Writer::Stranger(_) | Writer::Wallet => {
                Some(self.relay.config().limits.documents)
            }
            Writer::Staff => None,
        };
        let put = self.relay.documents().put(&event, head, quota);
        let (relay, peer) = (self.relay.clone(), self.peer.clone());
        self.relay.tasks().spawn(async move {
            let id = event.id;
            let answer = match put.await {
                Ok(Put::Stored) => {
                    relay.count(Count::Stored);
                    relay.route(&event, &head);
                    message::taken(id, "")
                }
                Ok(Put::Known) => {
                    relay.count(Count::Duplicate);
                    message::taken(id, "duplicate: this event is stored already")
                }
                Ok(Put::Older) => {
                    relay.count(Count::Duplicate);
                    message::taken(id, "duplicate: a newer event of this address is stored")
                }
                Ok(Put::Quota) => {
                    relay.refuse(Refusal::Quota, &peer);
                    message::refused(id, Refusal::Quota)
                }
                Err(error) => {
                    tracing::error!(event = "relay_document_not_stored", %error);
                    relay.refuse(Refusal::Store, &peer);
                    message::refused(id, Refusal::Store)
                }
            };
            relay.push(&peer, Outgoing::Text(answer));
            drop(place);
        });
        Ok(())
    }

    async fn on_req(
        &mut self,
        socket: &mut WebSocket,
        id: String,
        filters: &[&str],
    ) -> Result<(), Gone> {
        // a REQ replaces the one of the same id, also when it is refused
        self.unsubscribe(&id);
        let filters = match self.may_subscribe(filters) {
            Ok(filters) => filters,
            Err(refusal) => {
                self.refuse(refusal);
                return self.say(socket, message::closed(&id, refusal)).await;
            }
        };
        let id_json = serde_json::Value::from(id.as_str()).to_string();
        let subscription = Arc::new(Subscription { peer: self.peer.clone(), id_json, filters });
        // before the stored events are read: one that is stored meanwhile may come twice, but
        // none is missed
        self.relay.subscribe(&subscription);
        self.subscriptions.insert(id.clone(), subscription.clone());
        if let Err(refusal) = self.send_stored(socket, &subscription).await? {
            self.unsubscribe(&id);
            self.refuse(refusal);
            return self.say(socket, message::closed(&id, refusal)).await;
        }
        self.say(socket, message::end_of_stored(&id)).await
    }

    fn may_subscribe(&self, filters: &[&str]) -> Result<Vec<Filter>, Refusal> {
        let (keys, access) = (self.peer.keys(), self.relay.access());
        let limits = &self.relay.config().limits;
        let most = match (keys.is_empty(), access.clink()) {
            (true, None) => return Err(Refusal::AuthRequired),
            (true, Some(_)) => limits.wallet_subscriptions,
            (false, _) => limits.subscriptions,
        };
        if filters.len() > limits.filters || self.subscriptions.len() >= most {
            return Err(Refusal::TooManySubscriptions);
        }
        let filters = filters.iter().map(Filter::from_json);
        let filters: Vec<_> = filters.collect::<Result<_, _>>().map_err(|_| Refusal::Malformed)?;
        if filters.iter().any(|filter| filter.search.is_some()) {
            return Err(Refusal::Unsupported);
        }
        if !filters.is_empty() && filters.iter().all(|filter| rules::is_wallets(access, filter)) {
            return Ok(filters);
        }
        if keys.is_empty() {
            return Err(Refusal::AuthRequired);
        }
        if !filters.iter().all(|filter| rules::may_ask(access, &keys, filter)) {
            return Err(Refusal::Outside);
        }
        Ok(filters)
    }

    /// Sends the stored events of a subscription, newest first for each filter.
    async fn send_stored(
        &mut self,
        socket: &mut WebSocket,
        subscription: &Subscription,
    ) -> Result<Result<(), Refusal>, Gone> {
        let document = Kind::from(rules::DOCUMENT);
        let most = self.relay.config().limits.limit;
        let mut sent: HashSet<EventId> = HashSet::new();
        for filter in &subscription.filters {
            let kinds = filter.kinds.as_ref().filter(|kinds| !kinds.is_empty());
            if kinds.is_some_and(|kinds| !kinds.contains(&document)) {
                continue;
            }
            let mut left = filter.limit.map_or(most, |limit| limit.min(most));
            let mut after = None;
            while left > 0 {
                let page =
                    self.relay.documents().page(filter, self.relay.now(), after.take(), PAGE).await;
                let page = match page {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::error!(event = "relay_documents_not_read", %error);
                        return Ok(Err(Refusal::Store));
                    }
                };
                for json in page.events {
                    let Ok(event) = Event::from_json(&json) else {
                        tracing::error!(event = "relay_document_unreadable");
                        return Ok(Err(Refusal::Store));
                    };
                    let takes = filter.match_event(&event, MatchEventOptions::new());
                    if takes && left > 0 && self.relay.may_read(&self.peer, &event) {
                        left -= 1;
                        if sent.insert(event.id) {
                            let text = message::event(&subscription.id_json, &json);
                            self.say(socket, text).await?;
                            self.relay.count(Count::Delivered);
                        }
                    }
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(Ok(()))
    }

    fn unsubscribe(&mut self, id: &str) {
        if let Some(subscription) = self.subscriptions.remove(id) {
            self.relay.unsubscribe(&subscription);
        }
    }

    async fn on_auth(&mut self, socket: &mut WebSocket, json: &str) -> Result<(), Gone> {
        let Ok(event) = Event::from_json(json) else {
            return self.complain(socket, Refusal::Malformed).await;
        };
        if let Err(refusal) = self.authenticate(&event) {
            self.refuse(refusal);
            return self.say(socket, message::refused(event.id, refusal)).await;
        }
        self.relay.count(Count::Authenticated);
        self.say(socket, message::taken(event.id, "")).await
    }

    fn authenticate(&self, event: &Event) -> Result<(), Refusal> {
        let config = self.relay.config();
        let expected = Expected {
            challenge: &self.challenge,
            urls: &config.urls,
            now: self.relay.now(),
            window: config.limits.auth_secs,
        };
        expected.check(event)?;
        let keys = self.peer.keys();
        if keys.len() >= config.limits.keys && !keys.contains(event.pubkey.as_bytes()) {
            return Err(Refusal::AuthKeys);
        }
        self.relay.verify(event)?;
        self.peer.add_key(event.pubkey.to_bytes());
        self.relay.authenticated(&self.peer);
        Ok(())
    }
}
