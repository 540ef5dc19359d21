//! From a seed to pins.
//!
//! Promise: operator, service and currency are pinned once; a paired machine takes no seed of others,
//! whoever brings it, until somebody with the PIN lets go of them at the machine, where its bays then
//! count as empty. A seed of the same operator and service (the machine was revoked, or its pairing
//! has ended) changes its spire key alone, on the word of the vault's own user: journal, open sales,
//! bays and PIN are those of before. The seed's secret goes to the bunker through `net` and to no
//! disk. Until the service answers as to a confirmed machine, the screen shows the digits to compare.
//!
//! Failure policy: a seed that cannot be used is refused in words; nothing is stored of it.

use bitspire_shared::ids::{ChangeId, PaymentHash, PubKey, RequestId};
use bitspire_shared::rpc::{GetPayment, SessionProof, SignedText as _};
use bitspire_shared::seed::{BunkerLink, Pins, Seed, confirmation_digits};
use bitspire_shared::time::Unix;

use super::VaultError;
use super::core::Vault;
use super::receipts::{Named, Receipts};
use super::report::Reports;
use super::requests::Owner;
use super::seed::SeedRefused;
use super::server::PeerId;
use super::service::Done;
use super::settings::{CassettesInForce, FeesInForce, Pairing, Setting as _};
use super::time::TrustedTime;
use crate::ipc::{NetPins, SecretText, ToNet};
use crate::journal::{CashMove, CountChange, Entry, Stage};
use crate::policy::price::Rates;
use crate::refused::Refused;
use crate::screen::SeedView;
use crate::txn::Input;

/// The longest session, and how far trusted time may stand behind, in seconds.
const MAX_SESSION_S: u64 = 86_400 + 3_600;

/// A file in the vault's folder: while it lies there, a machine that was paired before takes a seed.
/// `net`, which brings seeds too and may have seen the PIN, has no way to put it there.
pub(crate) const LEAVE: &str = "may-pair";

/// A seed on its way through the bunker.
pub(super) struct Attempt {
    pub(super) from: PeerId,
    pins: Pins,
    bunker_url: SecretText,
    relays: Vec<String>,
    /// Where the bunker waits for a person.
    auth_url: Option<SecretText>,
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

/// Whether a machine with the pins `before` takes a seed with `new` without a reset: another key of
/// the same operator, for the same service and currency.
fn may_follow(before: &Pins, new: &Pins) -> Result<(), SeedRefused> {
    if new.spire == before.spire {
        return Err(SeedRefused::ThisPairing(before.spire));
    }
    match *new == (Pins { spire: new.spire, ..*before }) {
        true => Ok(()),
        false => Err(SeedRefused::AnotherOperator(before.spire)),
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
                let attempt = Attempt { from, pins, bunker_url, relays, auth_url: None };
                tracing::info!(event = "seed_taken", spire = %pins.spire);
                self.seed_refused = None;
                self.to_net(attempt.message());
                if let Some(before) = self.attempt.replace(attempt).filter(|one| one.from != from) {
                    let refused = SeedRefused::Replaced.into();
                    self.peers.send(before.from, ToNet::SeedRefused(refused));
                }
            }
            Err(error) => self.refuse_seed(from, error.into()),
        }
    }

    fn checked_seed(&self, seed_url: &SecretText) -> Result<(Seed, Pins), SeedRefused> {
        let by_own_user = self.config.dir.join(LEAVE).exists();
        if let Some(pairing) = self.pairing.as_ref().filter(|_| !by_own_user) {
            return Err(SeedRefused::Paired(pairing.pins.spire));
        }
        if self.let_go && !by_own_user {
            return Err(SeedRefused::PairedBefore);
        }
        // before anything was signed for us, the system's clock is all there is
        let now = self.time.known(self.mono()).unwrap_or_else(|| self.clock.now());
        let seed = Seed::parse(seed_url.expose(), now, self.config.loopback)?;
        let pins = seed.pins()?;
        if let Some(pairing) = &self.pairing {
            may_follow(&pairing.pins, &pins)?;
        }
        if let Some(own) = self.config.currency.filter(|own| *own != pins.currency) {
            return Err(SeedRefused::Currency { own, got: pins.currency });
        }
        if !self.peers.has_net() {
            return Err(SeedRefused::NoNet);
        }
        Ok((seed, pins))
    }

    fn refuse_seed(&mut self, to: PeerId, refused: Refused) {
        let Refused { code, words } = &refused;
        tracing::warn!(event = "seed_refused", code = code.as_str(), words);
        if self.pairing.is_none() {
            self.seed_refused = Some(refused.clone());
        }
        self.peers.send(to, ToNet::SeedRefused(refused));
    }

    /// What the screen of a machine that is not paired says.
    pub(super) fn seed_view(&self) -> SeedView {
        let refused = self.seed_refused.clone();
        match &self.attempt {
            Some(attempt) => SeedView::Connecting { auth_url: attempt.auth_url.clone() },
            None if self.let_go => SeedView::CommandLine { refused },
            None => SeedView::Wanted { refused },
        }
    }

    /// The bunker did not take the secret.
    pub(super) fn connect_failed(&mut self, refused: Refused) {
        if let Some(attempt) = self.attempt.take() {
            self.refuse_seed(attempt.from, refused);
        }
    }

    /// The bunker waits for a person.
    pub(super) fn auth_url(&mut self, url: SecretText) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.auth_url = Some(url.clone());
        let from = attempt.from;
        // the screen shows it to who stands there
        if !self.peers.is_net(from) {
            self.peers.send(from, ToNet::AuthUrl { url });
        }
    }

    /// The bunker took the secret and holds the seed's key: the pins are written.
    pub(super) fn connected(&mut self, client: PubKey, spire: PubKey) -> Result<(), VaultError> {
        let before = self.pairing.as_ref();
        let waits = |attempt: &mut Attempt| {
            // the operator may have moved the machine to other keys in the meantime
            let follows = before.is_none_or(|now| may_follow(&now.pins, &attempt.pins).is_ok());
            attempt.pins.spire == spire && follows
        };
        let Some(attempt) = self.attempt.take_if(waits) else {
            tracing::warn!(event = "connected_to_nothing", %spire);
            return Ok(());
        };
        let pins = attempt.pins;
        let again = before.is_some();
        let settled = before.is_some_and(Pairing::was_confirmed);
        let pairing = Pairing { pins, client, confirmed: false, state_published: false, settled };
        self.keep(&pairing)?;
        self.pairing = Some(pairing);
        self.seed_refused = None;
        if again {
            self.forget_the_spire();
        }
        if std::mem::take(&mut self.let_go) || again {
            // good for one pairing; whoever gave it takes it back as well
            let _ = std::fs::remove_file(self.config.dir.join(LEAVE));
        }
        tracing::info!(event = "paired", spire = %pins.spire, again);
        let pins = net_pins(&pins);
        self.to_net(ToNet::Paired { pins });
        if !self.peers.is_net(attempt.from) {
            self.peers.send(attempt.from, ToNet::Paired { pins });
        }
        // what waits was asked in the name of another key, if at all
        self.ask_all_again();
        Ok(())
    }

    /// What was for the spire key of before, or said by it: documents begin from nothing, the bays are
    /// told again. On the disk it stands beside the key that it was for, and counts no more.
    fn forget_the_spire(&mut self) {
        (self.fees, self.cassettes) = (None, None);
        self.early.clear();
        self.receipts = Receipts::of(None);
        self.reports = Reports::new(self.pace);
        self.requests.forget_the_vaults_own();
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
        // what an earlier pairing has left open was refused until now
        self.queue.extend(self.txns.keys().map(|txid| (*txid, Input::NetworkBack)));
        Ok(())
    }

    /// Somebody with the PIN lets go of the pairing: the machine knows nobody any more, and its bays
    /// count as empty until somebody counts them. Not while somebody may be owed something by it.
    pub(super) fn reset_pairing(&mut self) -> Result<Done, VaultError> {
        if let Some(txn) = self.txns.values().find(|txn| txn.stage() != Stage::Closed) {
            return Ok(Err(format!(
                "sale {} has not ended: only this operator can end it, by a verdict",
                txn.txid()
            )));
        }
        if self.dispensing.is_some() {
            return Ok(Err("the dispenser is at work".to_owned()));
        }
        let untold: Vec<ChangeId> = self.untold().iter().map(|event| event.id).collect();
        if !untold.is_empty() && self.reachable {
            return Ok(Err("the operator's service is being told of what was done here before: \
                           try again in a minute"
                .to_owned()));
        }
        // of a service that is not there any more nobody else hears what was for it
        self.told(&untold)?;
        self.rates = Rates::default();
        self.keep(&Rates::default())?;
        self.forget_setting::<FeesInForce>()?;
        self.forget_setting::<CassettesInForce>()?;
        self.forget_setting::<Named>()?;
        let (base_seq, held) = (self.next_entry(), self.journal.holdings());
        let (bays, unsorted): (Vec<_>, Vec<_>) =
            (held.bays.keys().copied().collect(), held.unsorted.keys().copied().collect());
        let mut cash = Vec::new();
        for bay in bays {
            cash.push(CashMove::Change {
                bay,
                change_id: ChangeId::from_bytes(self.random()?),
                change: CountChange::Set(0),
                base_seq,
                reason: "the pairing was reset".to_owned(),
            });
        }
        // what was fed under the old pairing is not booked under the next one
        cash.extend(unsorted.into_iter().map(|denomination| CashMove::Sorted { denomination }));
        cash.push(CashMove::RecycledAnew);
        // from here on it is unpaired, whatever comes
        let (key, value) = (Pairing::KEY.to_owned(), serde_json::Value::Null);
        self.append(Entry::Setting { key, value, cash })?;
        let (now, unix) = (self.mono(), self.now().unix);
        (self.pairing, self.attempt, self.seed_refused) = (None, None, None);
        self.let_go = true;
        (self.fees, self.cassettes) = (None, None);
        self.early.clear();
        self.held.clear();
        self.requests = Default::default();
        self.reports = Reports::new(self.pace);
        self.receipts = Receipts::of(None);
        // what time it is was the service's word
        self.time = TrustedTime::new(unix, now);
        self.end_service();
        // it comes back to an unpaired vault
        self.peers.cut_net();
        tracing::warn!(event = "pairing_reset");
        Ok(Ok("The machine is not paired any more.".to_owned()))
    }
}
