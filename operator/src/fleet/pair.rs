//! Pairing: a fresh key in the bunker, a token for it, and the seed that a machine redeems.
//!
//! Promise: every step stands in its attempt's row before the next one is asked for. The machine's
//! own row changes in one transaction, after the bunker has done all of its part and the seed has
//! been made; until then the old pairing works, whatever fails. Only afterwards the old key's
//! clients and tokens are revoked. The seed is in one answer and nowhere else.
//!
//! States: those of [`pairing`].
//!
//! Failure policy: a call that got no reply may have had its effect: it is looked up, not repeated.
//! What failed attempts leave in the bunker (a key that no machine has, a token that nobody saw) is
//! revoked with the next pairing that succeeds. A restart gives up what had not been switched, and
//! finishes what had.

use std::sync::Arc;

use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::policy::Policy;
use bitspire_shared::seed::{BunkerUri, Loopback, Pins, Seed, parse_relay};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use nostr::{Keys, RelayUrl, SecretKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::revoke::revoke_earlier;
use super::{FleetError, Step, audit, bunker, guard_key, machines};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::{MachineId, OperatorId, PairingId};
use crate::publish::key_known;
use crate::signer::policy::ensure_policy;
use crate::signer::{BunkerAdmin, BunkerRule, BunkerToken, SignerError};
use crate::store::machines as rows;
use crate::store::pairing::{self, Pairing, PairingStep, Progress};
use crate::store::{Json, Read, StoreError, operators, sessions};

/// How long a token is good for where nobody says.
pub const HOURS: u32 = 720;
/// The longest that may be asked for: ten years.
const MAX_HOURS: u32 = 87_600;
const HOUR_S: u64 = 3_600;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Relays of machine and service; at least one.
    pub relays: Vec<String>,
    /// Hours for which the token is good; [`HOURS`] without it.
    pub hours: Option<u32>,
    /// The relay where the machine reaches the bunker; the first of `relays` without it.
    pub bunker_relay: Option<String>,
    /// Whether relays on this computer make sense: machine and service share it.
    pub loopback: Loopback,
}

/// A pairing that was switched to.
#[derive(Debug)]
pub struct Paired {
    /// The machine.
    pub machine_id: MachineId,
    /// The seed URL: a bearer secret, to be shown once.
    pub seed_url: Zeroizing<String>,
    /// The machine's new key.
    pub spire: PubKey,
    /// Its name in the bunker.
    pub bunker_key_name: String,
    /// End of the token and of the pairing.
    pub token_expires_at: Unix,
    /// When it was switched to.
    pub paired_at: Unix,
    /// What was done; the revocation of the old key may have failed.
    pub steps: Vec<Step>,
}

/// A pairing that did not happen.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: FleetError,
    /// What was done until then.
    pub steps: Vec<Step>,
}

impl From<FleetError> for Failed {
    fn from(error: FleetError) -> Self {
        Self { error, steps: Vec::new() }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        FleetError::from(error).into()
    }
}

/// A checked [`Request`].
struct Terms {
    relays: Vec<RelayUrl>,
    bunker_relay: RelayUrl,
    hours: u32,
    loopback: Loopback,
}

fn terms(request: &Request) -> Result<Terms, FleetError> {
    let read = |field, text: &str| {
        let relay = parse_relay(text);
        let checked = relay
            .and_then(|relay| request.loopback.check(std::slice::from_ref(&relay)).map(|()| relay));
        checked.map_err(|source| FleetError::Relay { field, source })
    };
    let relays: Result<Vec<_>, _> = request.relays.iter().map(|r| read("relays", r)).collect();
    let relays = relays?;
    let first = relays.first().cloned().ok_or(FleetError::Relay {
        field: "relays",
        source: bitspire_shared::seed::BunkerError::NoRelays,
    })?;
    let bunker_relay = match &request.bunker_relay {
        Some(relay) => read("bunker_relay", relay)?,
        None => first,
    };
    let hours = request.hours.unwrap_or(HOURS);
    if !(1..=MAX_HOURS).contains(&hours) {
        let expected = format!("1 to {MAX_HOURS}");
        return Err(FleetError::Invalid {
            field: "duration_hours",
            expected,
            got: hours.to_string(),
        });
    }
    Ok(Terms { relays, bunker_relay, hours, loopback: request.loopback })
}

/// Pairs a machine. Goes on to its end though nobody waits for the answer any more.
///
/// # Errors
/// [`Failed`]: the machine is as it was.
pub async fn pair(
    app: &Arc<App>,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    request: &Request,
) -> Result<Paired, Failed> {
    let terms = terms(request)?;
    let bunker = bunker(app)?.clone();
    let of = app.clone();
    let actor = actor.to_owned();
    // what the bunker has begun must not hang on a browser's patience
    let work = async move {
        let _turn = match of.pairing.try_lock() {
            Ok(turn) => turn,
            Err(_) if is_open(&of, id).await? => return Err(FleetError::Busy(id).into()),
            Err(_) => of.pairing.lock().await,
        };
        Attempt::begin(&of, &actor, operator, id, terms).await?.run(bunker.admin()).await
    };
    app.tasks.spawn(work).await.unwrap_or_else(|_| Err(FleetError::CutOff.into()))
}

/// Whether an attempt of this machine is under way.
async fn is_open(app: &App, id: MachineId) -> Result<bool, StoreError> {
    let open: Vec<_> = app.store.read::<_, StoreError, _>(pairing::open).await?;
    Ok(open.iter().any(|attempt| attempt.machine_id == id))
}

/// Gives up what a stop cut off before it was switched to; what was switched to is finished by
/// [`upkeep`](super::upkeep).
///
/// # Errors
/// [`StoreError`].
pub async fn recover(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            for attempt in pairing::open(tx)? {
                if attempt.step != PairingStep::Switched {
                    pairing::fail(tx, attempt.id, "the service stopped in the middle", now)?;
                }
            }
            Ok(())
        })
        .await
}

/// One attempt under way.
struct Attempt<'a> {
    app: &'a App,
    actor: &'a str,
    operator: Option<OperatorId>,
    id: PairingId,
    row: Pairing,
    keys: Keys,
    pins: Pins,
    /// The client key of the pairing in force, whose connection ends with it.
    old_client: Option<PubKey>,
    terms: Terms,
    steps: Vec<Step>,
}

impl<'a> Attempt<'a> {
    /// Writes the attempt's row.
    async fn begin(
        app: &'a App,
        actor: &'a str,
        operator: Option<OperatorId>,
        machine: MachineId,
        terms: Terms,
    ) -> Result<Self, FleetError> {
        let now = app.clock.now();
        let (requested_by, hours) = (actor.to_owned(), terms.hours);
        let relays: Vec<_> = terms.relays.iter().map(ToString::to_string).collect();
        let begun = app.store.write(move |tx| {
            let row = machines::find(tx, machine, operator)?;
            let operator = operators::find(tx, row.operator_id)?.and_then(|o| o.pubkey);
            let operator = operator.ok_or(FleetError::NoIdentity)?;
            // whoever holds the turn is alone: what is open here has nobody who goes on with it
            for left in pairing::open(tx)?.iter().filter(|open| open.machine_id == machine) {
                pairing::fail(tx, left.id, "left in the middle; paired anew", now)?;
            }
            let number = pairing::next_number(tx, machine)?;
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let attempt = Pairing {
                machine_id: machine,
                number,
                key_name: format!("spire-{machine}{suffix}"),
                requested_by,
                relays: Json(relays),
                duration_hours: u64::from(hours),
                step: PairingStep::Started,
                spire_key: None,
                policy_id: None,
                token_id: None,
                token_expires_at: None,
                error: None,
                started_at: now,
                updated_at: now,
            };
            let id = pairing::insert(tx, &attempt)?;
            Ok::<_, FleetError>((id, attempt, operator, row.row))
        });
        let (id, row, operator_key, machine) = begun.await?;
        let keys = fresh_keys()?;
        let spire = PubKey::new(keys.public_key()).map_err(|_| FleetError::CutOff)?;
        let (service, currency) = (app.service_key, machine.currency);
        let pins = Pins { spire, operator: operator_key, service, currency };
        let old_client = machine.client_key;
        let steps = Vec::new();
        Ok(Self { app, actor, operator, id, row, keys, pins, old_client, terms, steps })
    }

    async fn run(mut self, admin: &dyn BunkerAdmin) -> Result<Paired, Failed> {
        let made = match self.make(admin).await {
            Ok((seed, ends)) => self.switch(ends).await.map(|at| (seed, ends, at)),
            Err(error) => Err(error),
        };
        let (seed, token_expires_at, paired_at) = match made {
            Ok(made) => made,
            Err(error) => return Err(self.give_up(error).await),
        };
        self.end_old(admin).await;
        tracing::info!(event = "machine_paired", machine = %self.row.machine_id);
        Ok(Paired {
            machine_id: self.row.machine_id,
            seed_url: seed.expose(),
            spire: self.pins.spire,
            bunker_key_name: self.row.key_name,
            token_expires_at,
            paired_at,
            steps: self.steps,
        })
    }

    async fn record(&self, step: PairingStep, progress: Progress) -> Result<(), StoreError> {
        let (id, now) = (self.id, self.app.clock.now());
        self.app.store.write(move |tx| pairing::advance(tx, id, step, &progress, now)).await
    }

    fn done(&mut self, step: &'static str, detail: String) {
        self.steps.push(Step::done(step, detail));
    }

    /// All that the bunker has to do, and the seed of it; the machine is not touched.
    async fn make(&mut self, admin: &dyn BunkerAdmin) -> Result<(Seed, Unix), FleetError> {
        let spire = self.create_key(admin).await?;
        let progress = Progress { spire_key: Some(spire), ..Progress::default() };
        self.record(PairingStep::KeyCreated, progress).await?;
        self.done("create_key", format!("{} is {}", self.row.key_name, spire.npub()));

        let policy_id = ensure_policy(admin, Policy::SPIRE, &rules()).await?;
        let progress = Progress { policy_id: Some(policy_id), ..Progress::default() };
        self.record(PairingStep::PolicyReady, progress).await?;
        self.done("policy", format!("{} has the number {policy_id}", Policy::SPIRE));

        self.create_token(admin, policy_id).await?;
        self.record(PairingStep::TokenCreated, Progress::default()).await?;
        self.done("create_token", format!("good for {} hours", self.terms.hours));

        let token = self.read_token(admin).await?;
        let asked = self.app.clock.now().after(u64::from(self.terms.hours).saturating_mul(HOUR_S));
        // what the bunker does not end, our roster does
        let ends = token.expires_at.map_or(asked, |ends| ends.min(asked));
        let (token_id, token_expires_at) = (Some(token.id), Some(ends));
        let progress = Progress { token_id, token_expires_at, ..Progress::default() };
        self.record(PairingStep::TokenRead, progress).await?;
        self.done("read_token", format!("token {}", token.id));

        let failed = |source| FleetError::Bunker { step: "read_token", source };
        let secret = token.secret().map_err(failed)?.clone();
        let uri = BunkerUri::new(spire, vec![self.terms.bunker_relay.clone()]);
        let uri = uri.map_err(|source| FleetError::Relay { field: "bunker_relay", source })?;
        let relays = self.terms.relays.clone();
        let seed = Seed::issue(&self.pins, uri, secret, relays, ends, self.terms.loopback);
        Ok((seed.map_err(FleetError::Seed)?, ends))
    }

    async fn create_key(&self, admin: &dyn BunkerAdmin) -> Result<PubKey, FleetError> {
        let failed = |source| FleetError::Bunker { step: "create_key", source };
        let name = &self.row.key_name;
        let got = match admin.create_key(name.clone(), self.keys.clone()).await {
            Ok(key) => key,
            Err(error) if error.kind() == Kind::Uncertain => {
                let there = admin.key(name.clone()).await.map_err(failed)?;
                there.and_then(|key| key.key).ok_or_else(|| failed(error))?
            }
            Err(error) => return Err(failed(error)),
        };
        let (machine, service) = (self.row.machine_id, self.app.service_key);
        let guard = move |read: &Read<'_>| guard_key(read, got, Some(machine), service);
        self.app.store.read(guard).await?;
        if got == self.pins.spire {
            return Ok(got);
        }
        let (method, expected) = ("create_new_key", "the key that it was given");
        Err(failed(SignerError::Unexpected { method, expected }))
    }

    async fn create_token(&self, admin: &dyn BunkerAdmin, policy: i64) -> Result<(), FleetError> {
        let (key, client) = (self.row.key_name.clone(), self.row.key_name.clone());
        match admin.create_token(key, client, policy, self.terms.hours).await {
            // whether it was made shows when it is read
            Err(error) if error.kind() == Kind::Uncertain => Ok(()),
            made => made.map_err(|source| FleetError::Bunker { step: "create_token", source }),
        }
    }

    async fn read_token(&self, admin: &dyn BunkerAdmin) -> Result<BunkerToken, FleetError> {
        let failed = |source| FleetError::Bunker { step: "read_token", source };
        let name = &self.row.key_name;
        let tokens = admin.tokens(name.clone()).await.map_err(failed)?;
        let ours = tokens
            .into_iter()
            .filter(|token| token.client_name == *name && token.redeemed_at.is_none());
        let (method, expected) = ("get_key_tokens", "the token that it was told to make");
        let missing = || failed(SignerError::Unexpected { method, expected });
        ours.max_by_key(|token| token.id).ok_or_else(missing)
    }

    /// The machine has the new key from this commit on, and the old one is nobody's.
    async fn switch(&mut self, ends: Unix) -> Result<Unix, FleetError> {
        let now = self.app.clock.now();
        let (id, machine, operator) = (self.id, self.row.machine_id, self.operator);
        let (spire, service, name) =
            (self.pins.spire, self.app.service_key, self.row.key_name.clone());
        let actor = self.actor.to_owned();
        let mut detail = json!({
            "machine_npub": spire, "bunker_key_name": name, "token_expires_at": ends,
            "relays": self.row.relays.0,
        });
        let written = self.app.store.write(move |tx| {
            let was = machines::find(tx, machine, operator)?;
            // what a pairing takes the place of: its pins, and that it was in service
            detail["before"] = json!({
                "machine_npub": was.machine_npub, "bunker_key_name": was.bunker_spire_key_name,
                "token_expires_at": was.bunker_token_expires_at, "client": was.client_key,
                "vault": was.vault_key, "confirmation": was.confirmation,
            });
            guard_key(tx, spire, Some(machine), service)?;
            // refused where the machine was revoked in the meantime, which ends the attempt
            pairing::advance(tx, id, PairingStep::Switched, &Progress::default(), now)?;
            sessions::close_all(tx, machine, now)?;
            rows::set_paired(tx, machine, spire, &name, ends, now)?;
            key_known(tx, machine, now)?;
            audit(tx, now, &actor, "machine.pair", &machines::subject(machine), detail)
                .map_err(FleetError::from)
        });
        written.await?;
        let npub = spire.npub();
        self.done("switch", format!("machine {machine} is {npub} from now on"));
        // before the seed is shown: the relay has to know whom strangers may ask
        if let Err(error) = self.app.roster.refresh(self.app).await {
            tracing::error!(event = "roster_not_read", %error);
        }
        if let (Some(relay), Some(client)) = (self.app.relay.get(), self.old_client) {
            relay.close_client(&client);
        }
        self.app.ring(Ring::Roster);
        self.app.ring(Ring::Outbox);
        Ok(now)
    }

    /// Revokes what earlier attempts left; what fails is tried again by [`upkeep`](super::upkeep).
    async fn end_old(&mut self, admin: &dyn BunkerAdmin) {
        match finish(self.app, admin, self.id, &self.row).await {
            Ok(steps) => self.steps.extend(steps),
            Err(error) => self.steps.push(Step::failed("revoke_old", error.to_string())),
        }
    }

    async fn give_up(self, error: FleetError) -> Failed {
        let (id, now, words) = (self.id, self.app.clock.now(), in_words(&error));
        tracing::warn!(event = "pairing_failed", machine = %self.row.machine_id, error = %words);
        let written = self.app.store.write(move |tx| pairing::fail(tx, id, &words, now)).await;
        match written {
            // a revocation has ended it already
            Ok(()) | Err(StoreError::NotOneRow { .. }) => {}
            Err(error) => tracing::error!(event = "pairing_not_ended", %error),
        }
        Failed { error, steps: self.steps }
    }
}

/// Revokes the keys of earlier attempts and ends this one, if all of that was done.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn finish(
    app: &App,
    admin: &dyn BunkerAdmin,
    id: PairingId,
    attempt: &Pairing,
) -> Result<Vec<Step>, StoreError> {
    let steps = revoke_earlier(app, admin, attempt.machine_id, attempt.number).await?;
    if steps.iter().all(|step| step.ok) {
        let (step, now) = (PairingStep::OldRevoked, app.clock.now());
        let none = Progress::default();
        app.store.write(move |tx| pairing::advance(tx, id, step, &none, now)).await?;
    }
    Ok(steps)
}

fn fresh_keys() -> Result<Keys, FleetError> {
    loop {
        // all but one in 2^128 texts of 32 bytes are a key
        if let Ok(key) = SecretKey::from_slice(Zeroizing::new(random::<32>()?).as_slice()) {
            return Ok(Keys::new(key));
        }
    }
}

/// What a machine may have signed.
pub(super) fn rules() -> Vec<BunkerRule> {
    let rules = Policy::spire().rules.into_iter();
    rules.map(|rule| BunkerRule { method: rule.method.as_str().into(), kind: rule.kind }).collect()
}
