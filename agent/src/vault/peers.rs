//! `net` and the command line.
//!
//! Promise: one `net` at a time, the newest; it is told the pins, the screen and everything that
//! waits as soon as it is there. The command line may bring a seed, and ask how the machine is
//! and what its devices said last, which is told a few times a second at most.
//!
//! Failure policy: without `net` there is no customer and no service: the transaction on the screen
//! is told that its screen is broken. Who asks for the devices' words too soon is cut off.

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;

use super::core::Vault;
use super::{Peer, PeerId, VaultError};
use crate::ipc::{BunkerState, MachineStatus, NetState, Role, ToNet, ToVault, VERSION};
use crate::journal::Stage;

/// Everybody who is connected.
#[derive(Default)]
pub(super) struct Peers {
    all: BTreeMap<PeerId, Peer>,
    net: Option<PeerId>,
    pub(super) state: Option<NetState>,
    /// When the service was last heard.
    pub(super) heard_at: Option<Mono>,
    /// From when on the devices' frames are told again.
    trace_after: Mono,
}

impl Peers {
    pub(super) const fn has_net(&self) -> bool {
        self.net.is_some()
    }

    pub(super) fn is_net(&self, id: PeerId) -> bool {
        self.net == Some(id)
    }

    /// Ends the connection of `net`, which makes a new one.
    pub(super) fn cut_net(&mut self) {
        self.heard_at = None;
        if let Some(net) = self.net {
            self.cut(net);
        }
    }

    fn cut(&self, id: PeerId) {
        if let Some(peer) = self.all.get(&id) {
            peer.out.cut();
        }
    }

    /// Sends to one; one that is gone hears nothing.
    pub(super) fn send(&self, to: PeerId, message: ToNet) {
        if let Some(peer) = self.all.get(&to) {
            peer.out.send(message);
        }
    }
}

impl Vault {
    /// Tells `net`, if it is there.
    pub(super) fn to_net(&self, message: ToNet) {
        if let Some(net) = self.peers.net {
            self.peers.send(net, message);
        }
    }

    pub(super) fn joined(&mut self, id: PeerId, peer: Peer) -> Result<(), VaultError> {
        let is_net = peer.role == Role::Net;
        tracing::info!(event = "peer_joined", peer = id, role = ?peer.role);
        self.peers.all.insert(id, peer);
        self.peers.send(id, ToNet::Hello { version: VERSION, pins: self.net_pins() });
        if !is_net {
            return Ok(());
        }
        if let Some(older) = self.peers.net.replace(id) {
            self.net_is_gone();
            self.peers.net = Some(id);
            self.peers.cut(older);
        }
        self.shown.unsent();
        if let Some(attempt) = &self.attempt {
            self.to_net(attempt.message());
        }
        self.ask_all_again();
        Ok(())
    }

    /// `net` knows of no request: it is new, or has begun anew with other pins.
    pub(super) fn ask_all_again(&mut self) {
        let now = self.mono();
        for message in self.requests.again(now, 0) {
            self.to_net(message);
        }
        self.reports.connected(now);
    }

    /// Repeats what has waited for long: `net` may have taken an answer for good that is none here.
    pub(super) fn ask_again(&mut self) {
        let now = self.mono();
        for message in self.requests.again(now, self.pace.ask_again) {
            self.to_net(message);
        }
    }

    pub(super) fn gone(&mut self, id: PeerId) {
        self.peers.all.remove(&id);
        if self.peers.is_net(id) {
            tracing::warn!(event = "net_is_gone");
            self.net_is_gone();
        }
    }

    fn net_is_gone(&mut self) {
        self.peers.net = None;
        self.peers.state = None;
        self.end_service();
        self.break_screen("the network process is gone");
    }

    pub(super) fn said(&mut self, from: PeerId, message: ToVault) -> Result<(), VaultError> {
        match message {
            ToVault::Seed { seed_url } => self.seed(from, &seed_url),
            ToVault::Status => {
                let status = Box::new(self.status());
                self.peers.send(from, ToNet::Status(status));
            }
            ToVault::Trace if !self.peers.is_net(from) => self.trace(from),
            ToVault::ServicePin { new, old } => self.set_pin(from, &new, old.as_ref())?,
            ToVault::Rekey { statement, pin } if !self.peers.is_net(from) => {
                self.rekey_by_hand(from, &statement, &pin)?;
            }
            _ if !self.peers.is_net(from) => {
                tracing::warn!(event = "not_for_the_command_line", peer = from);
            }
            ToVault::Connected { client, spire } => self.connected(client, spire)?,
            ToVault::ConnectFailed(refused) => self.connect_failed(refused),
            ToVault::AuthUrl { url } => self.auth_url(url),
            ToVault::ProveSession { session, expires_at } => {
                self.prove_session(session, expires_at);
            }
            ToVault::Named { statement } => self.named(&statement)?,
            ToVault::Reply { request_id, event, envelope } => {
                self.replied(request_id, &event, envelope)?;
            }
            ToVault::Push { event, envelope } => self.pushed(&event, &envelope)?,
            ToVault::Document { event, plaintext } => self.document(*event, plaintext)?,
            ToVault::StatePublished { event_id } => self.state_published(event_id)?,
            ToVault::State(state) => self.peers.state = Some(state),
            ToVault::Customer(action) => self.customer(action)?,
            // the socket's own thread has seen to it, and only the command line brings the others
            ToVault::Hello { .. } | ToVault::Rekey { .. } | ToVault::Trace => {}
        }
        Ok(())
    }

    /// Tells the devices' frames, no more often than somebody reads them: they are copied on the
    /// thread that moves the money, and anybody on the socket can ask as the command line.
    fn trace(&mut self, from: PeerId) {
        let now = self.mono();
        if now < self.peers.trace_after {
            tracing::warn!(event = "asked_for_frames_too_soon", peer = from);
            return self.peers.cut(from);
        }
        self.peers.trace_after = now.after(self.pace.trace_gap);
        let devices = self.device_frames();
        self.peers.send(from, ToNet::Frames { devices });
    }

    /// Whether a request would arrive: a way there is, and something was heard not long ago.
    pub(super) fn service_in_reach(&self) -> bool {
        let way = self.peers.state.as_ref().is_some_and(|state| {
            state.relays > 0 && (state.session || state.bunker == BunkerState::Ready)
        });
        let patience = u64::from(self.config.policy.offline_after_s.get()).saturating_mul(1_000);
        let now = self.mono();
        way && self.peers.heard_at.is_some_and(|at| now.since(at) < patience)
    }

    fn status(&self) -> MachineStatus {
        let open = self.txns.values().filter(|txn| txn.stage() != Stage::Closed).count();
        MachineStatus {
            pins: self.net_pins(),
            vault: self.key,
            digits: self.digits(),
            net: self.peers.state.clone(),
            journal_seq: self.journal.head().seq,
            open_txns: u32::try_from(open).unwrap_or(u32::MAX),
            out_of_service: self.shop().reasons,
        }
    }
}
