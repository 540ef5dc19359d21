//! Fees for many machines: what would change where, and stage after stage.
//!
//! Promise: what a roll-out does is shown before it begins, whole, by the same function that begins
//! it, and is written down before the first machine changes. A stage begins when each machine of the
//! one before has said that it applies its fees. A machine with a key that does not say so in its
//! time, one whose fees somebody changed meanwhile, and one that cannot take them halt the roll-out:
//! what lies behind stays as it is, what lies ahead is not touched. Fees that are published anew as
//! they were are followed. It goes on over restarts, after which machines are heard first.
//!
//! States: running -> done | halted | stopped (by a person).
//!
//! Failure policy: [`FleetError`]; nothing was written. A halt is an error in the log and a row in the
//! audit log, with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::money::{Direction, FeePpm};
use bitspire_shared::time::Unix;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;

use super::{fees, wake};
use crate::app::{App, Ring};
use crate::fleet::machines::find;
use crate::fleet::{FleetError, audit, pair_fees};
use crate::http::error::in_words;
use crate::ids::{DocumentId, MachineId, OperatorId, RolloutId};
use crate::store::documents::{self, KeptDocument};
use crate::store::machines::{self, KeptMachine};
use crate::store::rollouts::{self, Rollout, RolloutState, Staged};
use crate::store::{Kept, Read, StoreError, Tx, log, operators};

/// Between two looks at what is on its way: machines say what they apply when they report.
const LOOK: Duration = Duration::from_secs(5);
/// Seconds after a start in which no machine is late: each has its heartbeat to say what it applied
/// while nobody listened.
const HEARD_S: u64 = 120;
/// The most stages of one roll-out.
const MAX_STAGES: usize = 20;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The tags, one stage each, in order; a machine with several is in the first.
    pub stages: Vec<String>,
    /// Whether all other machines follow as the last stage.
    pub rest: bool,
    /// The operator's fee on cash_in; `None` stays.
    pub cash_in: Option<FeePpm>,
    /// The operator's fee on cash_out; `None` stays.
    pub cash_out: Option<FeePpm>,
    /// Seconds that each machine has to apply it.
    pub wait_s: u32,
}

/// What would become of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The machine.
    pub machine: KeptMachine,
    /// Its stage, from 0.
    pub stage: u32,
    /// Its fee on cash_in then.
    pub cash_in: FeePpm,
    /// Its fee on cash_out then.
    pub cash_out: FeePpm,
    /// Whether it is waited for: one without a key applies nothing.
    pub waits: bool,
    /// Why it cannot be.
    pub refused: Option<String>,
}

/// What would change where. Machines whose fees are so already are left out.
///
/// # Errors
/// [`FleetError::Invalid`] for a wish that means nothing.
pub fn plan(
    read: &Read<'_>,
    operator: OperatorId,
    wish: &Wish,
) -> Result<Vec<Planned>, FleetError> {
    let bad = |field, expected: &str, got: String| FleetError::Invalid {
        field,
        expected: expected.to_owned(),
        got,
    };
    if wish.cash_in.is_none() && wish.cash_out.is_none() {
        return Err(bad("fees", "one of the two fees, or both", "neither".into()));
    }
    if wish.stages.len() > MAX_STAGES || (wish.stages.is_empty() && !wish.rest) {
        let expected = "1 to 20 tags, or all machines";
        return Err(bad("stages", expected, wish.stages.len().to_string()));
    }
    let mut tags: BTreeMap<MachineId, Vec<String>> = BTreeMap::new();
    for (machine, tag) in rollouts::tags(read)? {
        tags.entry(machine).or_default().push(tag);
    }
    let all = machines::list(read, Some(operator))?;
    let has = |machine: &KeptMachine, tag: &String| {
        tags.get(&machine.id).is_some_and(|tags| tags.contains(tag))
    };
    if let Some(tag) = wish.stages.iter().find(|tag| !all.iter().any(|one| has(one, tag))) {
        return Err(bad("stages", "tags that machines have", tag.clone()));
    }
    let platform = operators::super_config(read)?;
    let mut planned = Vec::new();
    for machine in all {
        let tagged = wish.stages.iter().position(|tag| has(&machine, tag));
        let Some(stage) = tagged.or_else(|| wish.rest.then_some(wish.stages.len())) else {
            continue;
        };
        let cash_in = wish.cash_in.unwrap_or(machine.cash_in_fee_ppm);
        let cash_out = wish.cash_out.unwrap_or(machine.cash_out_fee_ppm);
        if (cash_in, cash_out) == (machine.cash_in_fee_ppm, machine.cash_out_fee_ppm) {
            continue;
        }
        let name = fees::named(&machine);
        let fits =
            pair_fees(Direction::CashIn, &name, platform.cash_in_fee_ppm, cash_in).and_then(|_| {
                pair_fees(Direction::CashOut, &name, platform.cash_out_fee_ppm, cash_out)
            });
        planned.push(Planned {
            stage: u32::try_from(stage).unwrap_or(u32::MAX),
            cash_in,
            cash_out,
            waits: machine.machine_npub.is_some() && machine.revoked_at.is_none(),
            refused: fits.err().map(|error| in_words(&error)),
            machine,
        });
    }
    planned.sort_by_key(|one| (one.stage, one.machine.id));
    Ok(planned)
}

/// Begins a roll-out.
///
/// # Errors
/// [`FleetError::Breaches`] naming each machine that cannot take the fees; [`FleetError::Invalid`]
/// where nothing would change, or one is on its way. Nothing was written.
pub async fn begin(
    app: &App,
    actor: &str,
    operator: OperatorId,
    wish: Wish,
) -> Result<RolloutId, FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let begun = app.store.write(move |tx| {
        let planned = plan(tx, operator, &wish)?;
        let refused: Vec<_> = planned.iter().filter_map(|one| one.refused.clone()).collect();
        if !refused.is_empty() {
            return Err(FleetError::Breaches(refused.join("; ")));
        }
        if planned.is_empty() {
            let expected = "fees that some machine does not have yet".to_owned();
            let got = "those that they have".to_owned();
            return Err(FleetError::Invalid { field: "fees", expected, got });
        }
        if let Some(other) = rollouts::running(tx)?.iter().find(|it| it.operator_id == operator) {
            let expected = "no other roll-out on its way: wait for its end, or stop it".to_owned();
            return Err(FleetError::Invalid {
                field: "roll-out",
                expected,
                got: other.id.to_string(),
            });
        }
        let row = Rollout {
            operator_id: operator,
            cash_in_fee_ppm: wish.cash_in,
            cash_out_fee_ppm: wish.cash_out,
            wait_s: wish.wait_s.max(1),
            actor: actor.clone(),
            state: RolloutState::Running,
            reason: None,
            created_at: now,
            ended_at: None,
        };
        let staged = |rollout_id| {
            let one = |one: &Planned| Staged {
                rollout_id,
                machine_id: one.machine.id,
                stage: one.stage,
                cash_in_from: one.machine.cash_in_fee_ppm,
                cash_out_from: one.machine.cash_out_fee_ppm,
                waits: one.waits,
                document_id: None,
                written_at: None,
            };
            planned.iter().map(one).collect()
        };
        let id = rollouts::begin(tx, &row, staged)?;
        let detail = json!({
            "stages": wish.stages, "rest": wish.rest, "machines": planned.len(),
            "cash_in_fee_ppm": wish.cash_in, "cash_out_fee_ppm": wish.cash_out,
        });
        audit(tx, now, &actor, "rollout.begin", &subject(id), detail)?;
        Ok(id)
    });
    let begun: Result<_, FleetError> = begun.await;
    app.ring(Ring::Outbox);
    begun
}

/// Stops a roll-out where it is.
///
/// # Errors
/// [`FleetError::Invalid`] where there is none of the caller's on its way.
pub async fn stop(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: RolloutId,
) -> Result<(), FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    app.store
        .write(move |tx| {
            let mine = |one: &Kept<_, Rollout>| {
                one.state == RolloutState::Running
                    && operator.is_none_or(|operator| operator == one.operator_id)
            };
            if !rollouts::find(tx, id)?.as_ref().is_some_and(mine) {
                let expected = "a roll-out of yours that is on its way".to_owned();
                let got = id.to_string();
                return Err(FleetError::Invalid { field: "roll-out", expected, got });
            }
            rollouts::end(tx, id, RolloutState::Stopped, None, now)?;
            Ok(audit(tx, now, &actor, "rollout.stop", &subject(id), json!({}))?)
        })
        .await
}

fn subject(id: RolloutId) -> String {
    format!("rollout:{id}")
}

/// What a look brings.
enum Step {
    /// Machines are waited for.
    Waits,
    /// The stage with this number is written now.
    Wrote,
    /// Nothing is left to do.
    Done,
    /// It cannot go on.
    Halt(String),
}

/// One look at one roll-out, and what follows from it.
fn step(
    tx: &Tx<'_>,
    rollout: &Kept<RolloutId, Rollout>,
    (started, now): (Unix, Unix),
) -> Result<Step, FleetError> {
    let staged = rollouts::machines(tx, rollout.id)?;
    for one in staged.iter().filter(|one| one.waits) {
        if let Some(why) = trouble(tx, rollout, one, (started, now))? {
            return Ok(Step::Halt(why));
        }
    }
    for one in &staged {
        let Some(document) = one.document_id else {
            return write(tx, rollout, staged.iter().filter(|it| it.stage == one.stage), now);
        };
        let applied = stands(tx, document)?.is_some_and(|it| it.applied_at.is_some());
        if one.waits && !applied {
            return Ok(Step::Waits);
        }
    }
    Ok(Step::Done)
}

/// A stage's document, or what took its place with the same fees of the operator: it was published
/// anew, or the platform's changed.
fn stands(read: &Read<'_>, document: DocumentId) -> Result<Option<KeptDocument>, StoreError> {
    let Some(was) = documents::find(read, document)? else { return Ok(None) };
    if was.applied_at.is_some() || was.superseded_at.is_none() {
        return Ok(Some(was));
    }
    let own =
        |it: &KeptDocument| it.fees().map(|fees| (fees.cash_in_operator, fees.cash_out_operator));
    let wanted = documents::wanted(read, was.machine_id, was.kind)?;
    Ok(Some(wanted.filter(|wanted| own(wanted) == own(&was)).unwrap_or(was)))
}

/// Why a machine whose fees are written will not come to them.
fn trouble(
    read: &Read<'_>,
    rollout: &Rollout,
    one: &Staged,
    (started, now): (Unix, Unix),
) -> Result<Option<String>, FleetError> {
    let (Some(document), Some(at)) = (one.document_id, one.written_at) else { return Ok(None) };
    let name = fees::named(&find(read, one.machine_id, None)?);
    let Some(document) = stands(read, document)? else {
        return Ok(Some(format!("{name}: its document is not there any more")));
    };
    if document.applied_at.is_some() {
        return Ok(None);
    }
    if document.superseded_at.is_some() {
        return Ok(Some(format!("{name}: its fees were changed again before it applied these")));
    }
    let late = now.since(at) > u64::from(rollout.wait_s) && now.since(started) > HEARD_S;
    Ok(late.then(|| format!("{name}: it did not say within {} s that it applies", rollout.wait_s)))
}

/// Writes the fees of one stage.
fn write<'a>(
    tx: &Tx<'_>,
    rollout: &Kept<RolloutId, Rollout>,
    stage: impl Iterator<Item = &'a Staged>,
    now: Unix,
) -> Result<Step, FleetError> {
    let stage: Vec<_> = stage.collect();
    // all of it is looked at before anything of it is written
    let platform = operators::super_config(tx)?;
    for one in &stage {
        let machine = find(tx, one.machine_id, None)?;
        let name = fees::named(&machine);
        if (machine.cash_in_fee_ppm, machine.cash_out_fee_ppm)
            != (one.cash_in_from, one.cash_out_from)
        {
            return Ok(Step::Halt(format!(
                "{name}: its fees are others than they were planned with"
            )));
        }
        let cash_in = rollout.cash_in_fee_ppm.unwrap_or(machine.cash_in_fee_ppm);
        let cash_out = rollout.cash_out_fee_ppm.unwrap_or(machine.cash_out_fee_ppm);
        let fits =
            pair_fees(Direction::CashIn, &name, platform.cash_in_fee_ppm, cash_in).and_then(|_| {
                pair_fees(Direction::CashOut, &name, platform.cash_out_fee_ppm, cash_out)
            });
        if let Err(error) = fits {
            return Ok(Step::Halt(in_words(&error)));
        }
    }
    for one in stage {
        let machine = find(tx, one.machine_id, None)?;
        let to = (rollout.cash_in_fee_ppm, rollout.cash_out_fee_ppm);
        let Some(document) = fees::change(tx, &machine, to, (&rollout.actor, now))? else {
            return Ok(Step::Halt(format!("{}: its fees are so already", fees::named(&machine))));
        };
        rollouts::wrote(tx, rollout.id, one.machine_id, document, now)?;
    }
    Ok(Step::Wrote)
}

/// Looks at every roll-out on its way, until each waits.
///
/// # Errors
/// [`FleetError`]; what was not done is done at the next look.
pub(super) async fn look(app: &App) -> Result<(), FleetError> {
    loop {
        let (started, now) = (app.started_at, app.clock.now());
        let moved = app.store.write(move |tx| {
            let mut moved = false;
            for rollout in rollouts::running(tx)? {
                let (state, reason) = match step(tx, &rollout, (started, now))? {
                    Step::Waits => continue,
                    Step::Wrote => {
                        moved = true;
                        continue;
                    }
                    Step::Done => (RolloutState::Done, None),
                    Step::Halt(why) => (RolloutState::Halted, Some(why)),
                };
                rollouts::end(tx, rollout.id, state, reason.as_deref(), now)?;
                let action = format!("rollout.{state}");
                let detail = json!({ "reason": reason });
                log::by_service(tx, &action, &subject(rollout.id), detail, now)?;
                if let Some(reason) = reason {
                    tracing::error!(event = "rollout_halted", rollout = %rollout.id, reason);
                }
            }
            Ok::<_, FleetError>(moved)
        });
        if !moved.await? {
            return Ok(());
        }
        wake(app);
    }
}

/// Goes on with what is on its way until the daemon stops.
pub(super) async fn run(app: Arc<App>, mut bell: broadcast::Receiver<Ring>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = app.store.read(rollouts::running).await;
        let due: Result<_, StoreError> = due;
        if due.map_or(true, |running| !running.is_empty())
            && let Err(error) = look(&app).await
        {
            tracing::error!(event = "rollout_failed", error = %in_words(&error));
        }
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return,
                _ = tick.tick() => break,
                rung = bell.recv() => match rung {
                    Ok(Ring::Outbox) | Err(RecvError::Lagged(_)) => {
                        bell = bell.resubscribe();
                        break;
                    }
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }
}
