//! The simulated `net`, and the relay between it and the service.
//!
//! Messages are late, lost, doubled and overtake each other; `net` repeats what is not answered, as
//! the real one does.

use std::collections::BTreeMap;

use bitspire_agent::ipc::{ToNet, ToVault};
use bitspire_agent::vault::Event;
use bitspire_shared::ids::RequestId;
use serde_json::Value;

use super::world::{Thing, World};

/// Between two sendings of a request.
const AGAIN_MS: u64 = 5_000;
/// Messages that are remembered, to be said again.
const REMEMBERED: usize = 32;

#[derive(Default)]
pub(super) struct Net {
    connected: Option<u64>,
    last: u64,
    /// No relay is reached.
    pub(super) parted: bool,
    waiting: BTreeMap<RequestId, (String, Value)>,
    /// What was said to the vault, for a `net` that says it again.
    said: Vec<(Box<nostr::Event>, Option<RequestId>, Value)>,
    pub(super) lost: u64,
    pub(super) doubled: u64,
}

impl Net {
    /// A vault has started.
    pub(super) fn begin_anew(&mut self) {
        self.connected = None;
        self.waiting.clear();
    }

    pub(super) fn join(&mut self) -> u64 {
        self.last = self.last.saturating_add(1);
        self.connected = Some(self.last);
        self.last
    }

    pub(super) const fn id(&self) -> Option<u64> {
        self.connected
    }

    pub(super) fn cut(&mut self) {
        self.connected = None;
    }
}

impl World {
    /// Something goes over the relay: it arrives late, never, or twice.
    pub(super) fn over_the_relay(&mut self, thing: impl Fn(&Self) -> Thing) {
        let rates = self.rates.relay;
        if self.net.parted || (!self.quiet && self.percent(rates.lost)) {
            self.net.lost = self.net.lost.saturating_add(1);
            return;
        }
        let late = !self.quiet && self.percent(rates.late);
        let ms = if late { self.between(500, 20_000) } else { self.between(20, 250) };
        let first = thing(self);
        self.plan(ms, first);
        if !self.quiet && self.percent(rates.doubled) {
            self.net.doubled = self.net.doubled.saturating_add(1);
            let ms = self.between(20, 15_000);
            let second = thing(self);
            self.plan(ms, second);
        }
    }

    pub(super) fn net_hears(&mut self, message: ToNet) {
        match message {
            ToNet::Request { request_id, rpc_name, body } => {
                self.trace.line(self.now, || format!("asks {rpc_name}"));
                let known = self.net.waiting.insert(request_id, (rpc_name, body)).is_some();
                self.over_the_relay(|_| Thing::Asked(request_id));
                if !known {
                    self.plan(AGAIN_MS, Thing::AskAgain(request_id));
                }
            }
            ToNet::Forget { request_id } => {
                self.net.waiting.remove(&request_id);
            }
            ToNet::Screen { number, screen } => self.page_shows(number, screen),
            ToNet::Connect { pins, .. } => {
                let client = super::service::public(&self.service.parties.client);
                self.say(ToVault::Connected { client, spire: pins.spire });
            }
            ToNet::SessionProof { vault, .. } => self.service.vault = Some(vault),
            ToNet::AuthUrl { .. }
            | ToNet::PublishState { .. }
            | ToNet::Hello { .. }
            | ToNet::SeedRefused { .. }
            | ToNet::Paired { .. }
            | ToNet::ServicePin { .. }
            | ToNet::Rekeyed { .. }
            | ToNet::Status(_)
            | ToNet::Frames { .. } => {}
        }
    }

    pub(super) fn asked(&mut self, id: RequestId) {
        let Some((rpc, body)) = self.net.waiting.get(&id).cloned() else { return };
        let now = self.unix();
        let answer = self.service.answer(id, &rpc, &body, now, &mut self.chance);
        let envelope = serde_json::to_value(&answer).expect("an answer has a JSON form");
        let event = self.event();
        self.over_the_relay(|_| Thing::Answered(id, event.clone(), envelope.clone()));
    }

    pub(super) fn answered(&mut self, id: RequestId, event: Box<nostr::Event>, envelope: Value) {
        if self.net.waiting.remove(&id).is_none() || self.net.id().is_none() {
            return;
        }
        let withdraw = envelope["body"]["withdraw_id"].as_str().unwrap_or_default();
        for (id, draw) in &mut self.service.draws {
            draw.told |= id.to_string() == withdraw;
        }
        self.remember(event.clone(), Some(id), envelope.clone());
        self.say(ToVault::Reply { request_id: id, event, envelope });
    }

    pub(super) fn ask_again(&mut self, id: RequestId) {
        if self.net.waiting.contains_key(&id) {
            self.over_the_relay(|_| Thing::Asked(id));
            self.plan(AGAIN_MS, Thing::AskAgain(id));
        }
    }

    pub(super) fn pushed(&mut self, event: Box<nostr::Event>, envelope: Value) {
        self.remember(event.clone(), None, envelope.clone());
        self.say(ToVault::Push { event, envelope });
    }

    fn remember(&mut self, event: Box<nostr::Event>, id: Option<RequestId>, envelope: Value) {
        if self.net.said.len() >= REMEMBERED {
            self.net.said.remove(0);
        }
        self.net.said.push((event, id, envelope));
    }

    /// A `net` that was broken into says something again that was said before.
    pub(super) fn say_it_again(&mut self) {
        let len = u64::try_from(self.net.said.len()).unwrap_or(0);
        let at = usize::try_from(self.chance.below(len)).unwrap_or(0);
        let Some((event, id, envelope)) = self.net.said.get(at).cloned() else { return };
        self.say(match id {
            Some(request_id) => ToVault::Reply { request_id, event, envelope },
            None => ToVault::Push { event, envelope },
        });
    }

    /// `net` ends, and is started again.
    pub(super) fn restart_net(&mut self) {
        if let Some(id) = self.net.id() {
            self.net.begin_anew();
            self.crowd.page_is_gone();
            self.put(Event::Gone(id));
            let wait = self.between(100, 5_000);
            self.plan(wait, Thing::Join);
        }
    }
}
