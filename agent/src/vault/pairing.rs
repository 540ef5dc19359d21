//! From a seed to pins.
//!
//! Promise: the pins are written once; a paired machine takes no other seed, whoever brings it. The
//! seed's secret goes to the bunker through `net` and to no disk. Until the service answers as to a
//! confirmed machine, the screen shows the digits to compare.
//!
//! Failure policy: a seed that cannot be used is refused in words; nothing is stored of it.

use bitspire_shared::ids::{PaymentHash, PubKey, RequestId};
use bitspire_shared::rpc::{GetPayment, SessionProof, SignedText as _};
use bitspire_shared::seed::{BunkerLink, Pins, Seed, confirmation_digits};
use bitspire_shared::time::Unix;

use super::VaultError;
use super::core::Vault;
use super::requests::Owner;
use super::server::PeerId;
use super::settings::Pairing;
use crate::ipc::{NetPins, SecretText, ToNet};

/// The longest session, and how far trusted time may stand behind, in seconds.
const MAX_SESSION_S: u64 = 86_400 + 3_600;

/// A seed on its way through the bunker.
pub(super) struct Attempt {
    pub(super) from: PeerId,
    pins: Pins,
    bunker_url: SecretText,
    relays: Vec<String>,
}

impl Attempt {
    pub(super) fn message(&self) -> ToNet {
        ToNet::Connect {
            bunker_url: self.bunker_url.clone(),
            relays: self.relays.clone(),
            pins: net_pins(&self.pins),
        }
    }
}

const fn net_pins(pins: &Pins) -> NetPins {
    let Pins { spire, operator, service, .. } = *pins;
    NetPins { spire, operator, service }
}

impl Vault {
    /// The keys that `net` must know.
    pub(super) fn net_pins(&self) -> Option<NetPins> {
        self.pairing.as_ref().map(|pairing| net_pins(&pairing.pins))
    }

    /// The digits to compare, for as long as that is needed.
    pub(super) fn digits(&self) -> Option<String> {
        let pairing = self.pairing.as_ref().filter(|pairing| !pairing.confirmed)?;
        let Pins { spire, service, .. } = &pairing.pins;
        Some(confirmation_digits(spire, &pairing.client, &self.key, service))
    }

    /// A seed came.
    pub(super) fn seed(&mut self, from: PeerId, seed_url: &SecretText) {
        match self.checked_seed(seed_url) {
            Ok((seed, pins)) => {
                let secret = Some(seed.secret().clone());
                let link = BunkerLink { uri: seed.bunker().clone(), secret };
                let bunker_url = SecretText::new(link.expose().to_string());
                let relays = seed.relays().iter().map(ToString::to_string).collect();
                let attempt = Attempt { from, pins, bunker_url, relays };
                tracing::info!(event = "seed_taken", spire = %pins.spire);
                self.seed_words = None;
                self.to_net(attempt.message());
                self.attempt = Some(attempt);
            }
            Err(reason) => self.refuse_seed(from, reason),
        }
    }

    fn checked_seed(&self, seed_url: &SecretText) -> Result<(Seed, Pins), String> {
        if let Some(pairing) = &self.pairing {
            return Err(format!(
                "this machine is paired already, as {}: reset the pairing at the machine first",
                pairing.pins.spire.npub()
            ));
        }
        // before anything was signed for us, the system's clock is all there is
        let now = self.time.known(self.mono()).unwrap_or_else(|| self.clock.now());
        let seed = Seed::parse(seed_url.expose(), now, self.config.loopback);
        let seed = seed.map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })?;
        let pins = seed.pins().map_err(|missing| missing.to_string())?;
        if let Some(own) = self.config.currency.filter(|own| *own != pins.currency) {
            let got = pins.currency;
            return Err(format!("expected a seed for {own}, as this machine is set up, got {got}"));
        }
        if !self.peers.has_net() {
            return Err("the network process is not running: start it, then pair again".to_owned());
        }
        Ok((seed, pins))
    }

    fn refuse_seed(&mut self, to: PeerId, reason: String) {
        tracing::warn!(event = "seed_refused", reason);
        if self.pairing.is_none() {
            self.seed_words = Some(reason.clone());
        }
        self.peers.send(to, ToNet::SeedRefused { reason });
    }

    /// The bunker did not take the secret.
    pub(super) fn connect_failed(&mut self, reason: String) {
        if let Some(attempt) = self.attempt.take() {
            self.refuse_seed(attempt.from, reason);
        }
    }

    /// The bunker waits for a person.
    pub(super) fn auth_url(&mut self, url: &SecretText) {
        if self.attempt.is_some() {
            self.seed_words = Some(format!("the bunker waits for you at {}", url.expose()));
        }
    }

    /// The bunker took the secret and holds the seed's key: the pins are written, once.
    pub(super) fn connected(&mut self, client: PubKey, spire: PubKey) -> Result<(), VaultError> {
        let waits = self.attempt.as_ref().is_some_and(|attempt| attempt.pins.spire == spire);
        let Some(attempt) = self.attempt.take_if(|_| waits && self.pairing.is_none()) else {
            tracing::warn!(event = "connected_to_nothing", %spire);
            return Ok(());
        };
        let pins = attempt.pins;
        let pairing = Pairing { pins, client, confirmed: false, state_published: false };
        self.keep(&pairing)?;
        self.pairing = Some(pairing);
        self.seed_words = None;
        tracing::info!(event = "paired", spire = %pins.spire);
        let pins = net_pins(&pins);
        self.to_net(ToNet::Paired { pins });
        if !self.peers.is_net(attempt.from) {
            self.peers.send(attempt.from, ToNet::Paired { pins });
        }
        self.reports.soon(self.mono());
        Ok(())
    }

    /// `net` opens a session.
    pub(super) fn prove_session(&mut self, session: PubKey, expires_at: Unix) {
        let Some(pins) = self.pairing.as_ref().map(|pairing| pairing.pins) else { return };
        let known = self.time.known(self.mono());
        if known.is_some_and(|now| expires_at.since(now) > MAX_SESSION_S) {
            tracing::warn!(event = "session_too_long", expires_at = expires_at.0);
            return;
        }
        let (spire, service, vault) = (pins.spire, pins.service, self.key);
        let proof = SessionProof { spire, service, session, vault, expires_at };
        let head = self.journal.head();
        self.to_net(ToNet::SessionProof {
            session,
            vault,
            vault_proof: proof.sign(&self.keys),
            journal_seq: head.seq,
            journal_head: head.hash,
        });
    }

    /// Asks the service something that it answers confirmed machines only.
    pub(super) fn ask_whether_confirmed(&mut self) -> Result<(), VaultError> {
        let id = RequestId::from_bytes(self.random()?);
        let nobodys = GetPayment::PaymentHash(PaymentHash::from_bytes(self.random()?));
        let body = serde_json::to_value(nobodys)?;
        self.request(id, Owner::Confirmed, "get_payment", body);
        Ok(())
    }

    /// The operator has compared the digits.
    pub(super) fn confirmed(&mut self) -> Result<(), VaultError> {
        let Some(mut pairing) = self.pairing.clone().filter(|pairing| !pairing.confirmed) else {
            return Ok(());
        };
        pairing.confirmed = true;
        self.keep(&pairing)?;
        self.pairing = Some(pairing);
        tracing::info!(event = "pairing_confirmed");
        Ok(())
    }
}
