//! What ten thousand paired machines cost: the operator's start, and cutting one of them off.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bitspire_operator::app::App;
use bitspire_operator::config;
use bitspire_operator::fleet;
use bitspire_operator::ids::OperatorId;
use bitspire_operator::signer::admin::{AdminClient, AdminConfig};
use bitspire_operator::signer::{BunkerAdmin as _, BunkerRule};
use bitspire_operator::store::machines::{self, Confirmation, Machine};
use bitspire_operator::store::pairing::{self, Pairing, PairingStep};
use bitspire_operator::store::{Json, StoreError};
use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::Purpose;
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::Keyring;
use nostr::Keys;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Figure, percentile};
use crate::wait::{PATIENCE, wait_for};
use crate::world::{CURRENCY, World};

/// Machines that are paired.
const MACHINES: u64 = 10_000;
/// Keys that are made at once.
const AT_ONCE: usize = 32;
/// Starts that are measured.
const STARTS: usize = 5;
/// Machines that are cut off: spread over all.
const REVOKED: u64 = 20;
/// The bars, in milliseconds.
const START_MS: f64 = 2_000.0;
const REVOKE_MS: f64 = 1_000.0;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let mut world = World::new(&std::env::current_exe()?, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys = runtime.block_on(pair_all(world.folder()))?;
    let keys = keys.into_iter().map(|paired| paired.spire).collect();
    let mut starts = Vec::new();
    for run in 0..STARTS {
        let started = Instant::now();
        world.operator.start()?;
        starts.push(started.elapsed().as_secs_f64() * 1_000.0);
        if run + 1 < STARTS {
            world.operator.stop()?;
        }
    }
    let operator = world.operator_says(&["operator", "show"])?;
    let admin = operator["bunker_admin_npub"].as_str().context("the bunker's administrator")?;
    world.bunker.start_with(&["--admin", admin])?;
    let bunker = wait_for("the operator finds its bunker", PATIENCE, || {
        let shown = world.operator_says(&["operator", "show"]);
        let shown = shown.map_err(|error| format!("{error:#}"))?;
        shown["bunker_npub"].as_str().map(str::to_owned).ok_or_else(|| "none".to_owned())
    })?;
    let relay = operator["relays"][0].as_str().context("the relay")?.to_owned();
    let bunker = PubKey::from_hex_or_npub(&bunker)?;
    runtime.block_on(hand_over(world.folder(), bunker, relay, keys))?;
    let mut revokes = Vec::new();
    for n in 0..REVOKED {
        let id = 1 + n * (MACHINES / REVOKED);
        let started = Instant::now();
        let said = world.api("POST", &format!("/dca/machines/{id}/revoke"), Some(&json!({})))?;
        revokes.push(started.elapsed().as_secs_f64() * 1_000.0);
        let steps = said["steps"].as_array().context("what was done")?;
        let there = steps.iter().any(|step| step["step"] == "revoke_token");
        if !there || steps.iter().any(|step| step["ok"] != true) {
            bail!("machine {id} was not cut off whole: {said}");
        }
    }
    world.bunker.stop()?;
    world.operator.stop()?;
    let runs = revokes.len();
    let figure = |name, value, bound, bound_is, runs| Figure {
        name,
        value,
        unit: "ms",
        bound,
        bound_is,
        peer: None,
        runs,
    };
    Ok(vec![
        figure(
            "operator_ready_at_10k_ms",
            percentile(&mut starts, 50)?,
            START_MS,
            "the bar",
            STARTS,
        ),
        figure(
            "revoke_at_10k_ms",
            percentile(&mut revokes, 100)?,
            REVOKE_MS,
            "the bar, the slowest one",
            runs,
        ),
        figure("revoke_at_10k_ms_p50", percentile(&mut revokes, 50)?, REVOKE_MS, "the bar", runs),
    ])
}

fn name(id: u64) -> String {
    format!("spire-{id}")
}

/// A machine's keys.
pub(super) struct Paired {
    /// Its own, which the bunker has.
    pub(super) spire: Keys,
    /// The one that it has itself, for relays.
    pub(super) client: Keys,
}

/// Every machine in the operator's books, and its keys.
pub(super) async fn pair_all(folder: &Path) -> Result<Vec<Paired>> {
    let (config, _) = config::load(Some(&folder.join("operator.toml")), &BTreeMap::new(), &[])?;
    let app = App::open(config, Clock::system())?;
    fleet::first_operator(&app).await?;
    let made = || Paired { spire: Keys::generate(), client: Keys::generate() };
    let keys: Vec<Paired> = (0..MACHINES).map(|_| made()).collect();
    let mut rows = Vec::new();
    let now = app.clock.now();
    let currency = CURRENCY.parse()?;
    for (id, Paired { spire, client }) in (1..).zip(&keys) {
        let base =
            Machine::new(OperatorId(1), &format!("m{id}"), "", currency, &format!("w{id}"), now);
        rows.push(Machine {
            machine_npub: Some(PubKey::new(spire.public_key())?),
            bunker_spire_key_name: Some(name(id)),
            bunker_token_expires_at: Some(now.after(720 * 3_600)),
            paired_at: Some(now),
            client_key: Some(PubKey::new(client.public_key())?),
            vault_key: Some(PubKey::new(Keys::generate().public_key())?),
            confirmation: Confirmation::Confirmed,
            confirmed_at: Some(now),
            ..base
        });
    }
    let written = app.store.write::<_, StoreError, _>(move |tx| {
        for (id, row) in (1..).zip(&rows) {
            let machine_id = machines::insert(tx, row)?;
            let attempt = Pairing {
                machine_id,
                number: 1,
                key_name: name(id),
                requested_by: "figures".into(),
                relays: Json(vec![]),
                duration_hours: 720,
                step: PairingStep::OldRevoked,
                spire_key: row.machine_npub,
                policy_id: None,
                token_id: None,
                token_expires_at: row.bunker_token_expires_at,
                error: None,
                started_at: now,
                updated_at: now,
            };
            pairing::insert(tx, &attempt)?;
        }
        Ok(())
    });
    written.await?;
    app.stop.cancel();
    app.tasks.close();
    app.tasks.wait().await;
    Ok(keys)
}

/// Every key in the bunker, and a token for those that are cut off.
async fn hand_over(folder: &Path, bunker: PubKey, relay: String, keys: Vec<Keys>) -> Result<()> {
    let ring = Keyring::open(&folder.join("operator"), None)?;
    let own = ring.load("admin", Purpose::AdminKey)?.context("the admin key")?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let config = AdminConfig::new(bunker, vec![relay], own);
    let admin = AdminClient::start(config, Clock::system(), &tasks, stop.clone()).await?;
    let admin = Arc::new(admin);
    let mut working = JoinSet::new();
    for (id, keys) in (1..).zip(keys) {
        if working.len() >= AT_ONCE
            && let Some(made) = working.join_next().await
        {
            made??;
        }
        let admin = admin.clone();
        working.spawn(async move { admin.create_key(name(id), keys).await });
    }
    while let Some(made) = working.join_next().await {
        made??;
    }
    let rule = BunkerRule { method: "sign_event".into(), kind: Some(21_000) };
    admin.create_policy("figures".into(), vec![rule.into()], None).await?;
    let policy = admin.policies().await?.first().context("the policy")?.id;
    for n in 0..REVOKED {
        let name = name(1 + n * (MACHINES / REVOKED));
        admin.create_token(name.clone(), name, policy, 720).await?;
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}
