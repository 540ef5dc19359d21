//! The canary: once a day, a proof that the bunker refuses a grant that has expired.
//!
//! Promise: the proof is a real one (see [`trial`]), survives a restart in its middle, and its result
//! is kept. Whoever looks is told when the bunker signed for the expired grant, and when nothing
//! could be found out for two days: until then a stolen pairing may be good for ever in the bunker.
//! This service holds the end of each pairing by itself all the same, at each request.
//!
//! States: those of [`CanaryState`]. Failure policy: a bunker that does not answer is asked again
//! every ten minutes, for six hours; then the attempt ends with nothing found out, and the next one
//! begins at its time.

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::time::Unix;
use serde::Serialize;

use crate::app::App;
use crate::http::error::in_words;
use crate::ids::CanaryId;
use crate::signer::{SetupError, SignerError, Tried, trial};
use crate::store::canaries::{self, CanaryState, KeptCanary};
use crate::store::{Read, StoreError};

/// Between two looks, at most.
const LOOK: Duration = Duration::from_secs(600);
/// How long after the first start the first attempt begins, in seconds.
const FIRST_S: u64 = 600;
/// Seconds behind the end of the grant at which it is asked again: clocks differ.
const MARGIN_S: u64 = 300;
/// Seconds for which one attempt is tried.
const GIVE_UP_S: u64 = 6 * 3_600;
/// After so many seconds without a result there is an alert.
const LATE_S: u64 = 2 * 86_400;
const HOUR_S: u64 = 3_600;

/// Starts the worker; it ends with the daemon.
pub fn start(app: &Arc<App>) {
    if app.config.canary_hours == 0 {
        return tracing::warn!(
            event = "canary_off",
            "nobody looks whether the bunker refuses what has expired: canary.every_hours is 0"
        );
    }
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        let mut told = None;
        loop {
            let pause = round(&app).await.unwrap_or_else(|error| {
                tracing::error!(event = "canary_failed", %error);
                LOOK
            });
            tell(&app, &mut told).await;
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// Says once a day what is wrong.
async fn tell(app: &App, told: &mut Option<u64>) {
    let today = app.clock.now().0 / 86_400;
    match standing(app).await {
        Ok(Standing { alert: Some(alert), .. }) if *told != Some(today) => {
            *told = Some(today);
            tracing::error!(event = "canary_alert", code = alert.code, "{}", alert.words);
        }
        Ok(_) => {}
        Err(error) => tracing::error!(event = "canary_failed", %error),
    }
}

/// What is wrong, for whoever looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// `expired_grant_signed` or `canary_late`.
    pub code: &'static str,
    /// The same in words.
    pub words: String,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest attempt that found something out.
    pub found: Option<KeptCanary>,
    /// The newest attempts.
    pub newest: Vec<KeptCanary>,
    /// What is wrong.
    pub alert: Option<Alert>,
}

/// Attempts that are shown.
const SHOWN: u32 = 10;

/// What is known, and what is wrong.
///
/// # Errors
/// [`StoreError`].
pub async fn standing(app: &App) -> Result<Standing, StoreError> {
    let (every, started, now) = (app.config.canary_hours, app.started_at, app.clock.now());
    app.store.read(move |read| stands(read, every, started, now)).await
}

/// As [`standing`], of a database: `every` hours, by a daemon that `started` then.
///
/// # Errors
/// [`StoreError`].
pub fn stands(
    read: &Read<'_>,
    every: u32,
    started: Unix,
    now: Unix,
) -> Result<Standing, StoreError> {
    let (found, newest) = (canaries::last_found(read)?, canaries::newest(read, SHOWN)?);
    let begun = canaries::oldest(read)?.map_or(started, |oldest| oldest.started_at.min(started));
    let alert =
        (every > 0).then(|| alert(&newest, found.as_ref(), (begun, started), every, now)).flatten();
    Ok(Standing { found, newest, alert })
}

fn alert(
    newest: &[KeptCanary],
    found: Option<&KeptCanary>,
    (begun, started): (Unix, Unix),
    every: u32,
    now: Unix,
) -> Option<Alert> {
    if found.is_some_and(|found| found.state == CanaryState::Signed) {
        let words = "the bunker signed under a grant that had expired: what it once granted has no \
                     end there, and whoever has a machine's client key can use the machine's key for \
                     ever; this service serves no pairing beyond its end. Take the embedded bunker, \
                     or a version that holds the end of its grants"
            .into();
        return Some(Alert { code: "expired_grant_signed", words });
    }
    // what nobody tried while the service was off is tried first
    let tried_by = started.after(FIRST_S.saturating_add(2 * HOUR_S));
    if now < tried_by {
        return None;
    }
    let since = found.and_then(|found| found.ended_at).unwrap_or(begun);
    let late = LATE_S.max(u64::from(every).saturating_mul(2 * HOUR_S));
    if now.since(since) <= late {
        return None;
    }
    let open = |one: &&KeptCanary| matches!(one.state, CanaryState::Running | CanaryState::Unknown);
    let mut troubles = newest.iter().filter(open).map(|one| one.detail.as_str());
    let trouble = troubles.find(|detail| !detail.is_empty());
    let words = format!(
        "for {} days nobody could find out whether the bunker refuses what has expired ({})",
        now.since(since) / 86_400,
        trouble.unwrap_or("nothing was tried")
    );
    Some(Alert { code: "canary_late", words })
}

/// Goes one step on, if it is time; how long to rest then.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn round(app: &App) -> Result<Duration, StoreError> {
    let newest = app.store.read::<_, StoreError, _>(|read| canaries::newest(read, 1)).await?;
    let now = app.clock.now();
    let every = u64::from(app.config.canary_hours).saturating_mul(HOUR_S);
    let (id, started_at, ends_at) = match newest.into_iter().next() {
        Some(one) if one.state == CanaryState::Running => (one.id, one.started_at, one.ends_at),
        last => {
            let first = app.started_at.after(FIRST_S);
            let due = last.map_or(first, |last| last.started_at.after(every));
            if now < due {
                return Ok(pause(due.since(now)));
            }
            let id =
                app.store.write::<_, StoreError, _>(move |tx| canaries::begin(tx, now)).await?;
            (id, now, None)
        }
    };
    let step = match ends_at {
        None => granted(app, id).await?,
        Some(ends) if now < ends.after(MARGIN_S) => {
            return Ok(pause(ends.after(MARGIN_S).since(now)));
        }
        Some(_) => asked(app, id).await?,
    };
    if let Err(words) = step {
        let gives_up = now.since(ends_at.unwrap_or(started_at)) > GIVE_UP_S;
        tracing::warn!(event = "canary_not_run", error = words, gives_up);
        let write = app.store.write::<_, StoreError, _>(move |tx| match gives_up {
            true => canaries::end(tx, id, CanaryState::Unknown, &words, now),
            false => canaries::set_trouble(tx, id, &words),
        });
        write.await?;
    }
    Ok(LOOK)
}

fn pause(seconds: u64) -> Duration {
    // by whichever clock: one that is set meanwhile is looked at again
    Duration::from_secs(seconds.max(1)).min(LOOK)
}

fn words(error: &SetupError) -> String {
    in_words(error.as_ref())
}

/// A grant is made, and used once.
async fn granted(app: &App, id: CanaryId) -> Result<Result<(), String>, StoreError> {
    let Some(bunker) = app.bunker.get() else {
        return Ok(Err(SignerError::NotConfigured.to_string()));
    };
    // a client whose grant has ended, or was taken back, is never let in again
    let name = trial::name(id);
    if let Err(error) = bunker.renew(&name) {
        return Ok(Err(words(&error)));
    }
    app.roster.refresh(app).await?;
    if let Err(error) = trial::grant(bunker.as_ref(), &name, app.clock.now()).await {
        return Ok(Err(words(&error)));
    }
    let ends = app.clock.now().after(trial::GOOD_S);
    app.store.write::<_, StoreError, _>(move |tx| canaries::set_granted(tx, id, ends)).await?;
    Ok(Ok(()))
}

/// The grant is asked for a signature after its end.
async fn asked(app: &App, id: CanaryId) -> Result<Result<(), String>, StoreError> {
    let Some(bunker) = app.bunker.get() else {
        return Ok(Err(SignerError::NotConfigured.to_string()));
    };
    // after a restart the relay has to know our end's key again
    let name = trial::name(id);
    if let Err(error) = bunker.prepare(&name) {
        return Ok(Err(words(&error)));
    }
    app.roster.refresh(app).await?;
    let now = app.clock.now();
    let (state, detail) = match trial::ask(bunker.as_ref(), &name, now).await {
        Ok(Tried::Refused(words)) => (CanaryState::Refused, words),
        Ok(Tried::Signed) => (CanaryState::Signed, String::new()),
        Err(error) => return Ok(Err(words(&error))),
    };
    match state {
        CanaryState::Refused => tracing::info!(event = "expired_grant_refused"),
        _ => tracing::error!(event = "expired_grant_signed"),
    }
    let write =
        app.store.write::<_, StoreError, _>(move |tx| canaries::end(tx, id, state, &detail, now));
    write.await?;
    if let Err(error) = trial::tidy(bunker.admin(), &name).await {
        tracing::info!(event = "canary_left_something", error = %in_words(&error));
    }
    Ok(Ok(()))
}
