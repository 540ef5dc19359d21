//! Figures for a monitoring system, in Prometheus' text format (version 0.0.4).
//!
//! Promise: names and labels are stable, counters only grow while the process lives, and no label is
//! made of what a stranger sends. One look reads the database once and asks nobody outside. Whoever
//! may see the whole instance may read it: a viewer's token will do where there is one operator.
//!
//! Failure policy: a database that does not answer is an error of the whole, never a figure of 0.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use bitspire_shared::admit::Standing;
use bitspire_shared::time::Unix;

use super::Api;
use super::auth::{Caller, Role};
use super::error::ApiError;
use crate::app::App;
use crate::fleet::canary;
use crate::relay::{Count, Refusal};
use crate::rpc::roster::standing;
use crate::store::canaries::CanaryState;
use crate::store::outbox::Depth;
use crate::store::{Read, StoreError, cassettes, machines, operators, outbox, webhook};

/// What the text says it is.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text that grows.
#[derive(Default)]
struct Figures(String);

impl Figures {
    /// One figure with its lines, each with its labels.
    fn family<L: fmt::Display, V: fmt::Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        lines: impl IntoIterator<Item = (L, V)>,
    ) {
        let mut text = String::new();
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
        if !text.is_empty() {
            let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{text}");
        }
    }

    /// One figure without labels.
    fn one(&mut self, about: (&str, &str, &str), value: impl fmt::Display) {
        self.family(about, [("", value)]);
    }
}

/// One label.
struct Label<'a>(&'static str, &'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.1.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(f, "{{{}=\"{value}\"}}", self.0)
    }
}

/// What is read of the database.
struct Stored {
    outbox: Vec<Depth>,
    alerts: Vec<(String, u64)>,
    machines: BTreeMap<&'static str, u64>,
    canary: canary::Standing,
    /// What the webhook has still to tell: how much, and how often the oldest was tried.
    webhook: (u64, u32),
}

const fn stands(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Unconfirmed => "unconfirmed",
        Standing::Disabled => "disabled",
        Standing::Suspect => "suspect",
        Standing::Revoked => "revoked",
        Standing::TokenExpired => "token_expired",
    }
}

fn look(read: &Read<'_>, every: u32, started: Unix, now: Unix) -> Result<Stored, StoreError> {
    let mut by_standing = BTreeMap::new();
    for machine in machines::list(read, None)? {
        let name = match machine.paired_at {
            Some(_) => stands(standing(&machine, now)),
            None => "unpaired",
        };
        *by_standing.entry(name).or_default() += 1;
    }
    let (outbox, alerts) = (outbox::depth(read)?, cassettes::alerts(read)?);
    let canary = canary::stands(read, every, started, now)?;
    let (waiting, oldest) = webhook::open(read)?;
    let webhook = (waiting, oldest.map_or(0, |event| event.tries));
    Ok(Stored { outbox, alerts, machines: by_standing, canary, webhook })
}

/// `GET /api/v1/metrics`.
pub(super) async fn metrics(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, ApiError> {
    if caller.operator.is_some() {
        let all: Result<_, StoreError> = api.app.store.read(operators::list).await;
        if all?.len() > 1 {
            caller.needs(Role::Super)?;
        }
    }
    let now = api.app.clock.now();
    let (every, started) = (api.app.config.canary_hours, api.app.started_at);
    let stored: Result<_, StoreError> =
        api.app.store.read(move |read| look(read, every, started, now)).await;
    Ok(([(header::CONTENT_TYPE, FORMAT)], text(&api.app, stored?, now)))
}

fn text(app: &App, stored: Stored, now: Unix) -> String {
    let mut all = Figures::default();
    let refused = app.refusals.totals();
    all.family(
        ("bitspire_rpc_refused_total", "counter", "Requests refused or dropped, by reason."),
        refused.iter().map(|(reason, count)| (Label("reason", reason), count)),
    );
    let clink = app.clink.totals();
    all.family(
        ("bitspire_clink_total", "counter", "Requests of customers' wallets by CLINK, by outcome."),
        clink.iter().map(|(what, count)| (Label("what", what), count)),
    );
    if let Some(relay) = app.relay.get() {
        let stats = relay.stats();
        all.one(
            ("bitspire_relay_connections", "gauge", "Connections open at the embedded relay."),
            stats.connections(),
        );
        all.family(
            ("bitspire_relay_total", "counter", "What happened at the embedded relay."),
            Count::ALL.map(|count| (Label("what", count.label()), stats.get(count))),
        );
        all.family(
            ("bitspire_relay_refused_total", "counter", "Frames that the embedded relay refused."),
            Refusal::ALL.map(|why| (Label("reason", why.label()), stats.refused(why))),
        );
    }
    all.family(
        ("bitspire_outbox_waiting", "gauge", "What waits to be sent, by topic."),
        stored.outbox.iter().map(|depth| (Label("topic", depth.topic.as_str()), depth.waiting)),
    );
    all.family(
        ("bitspire_outbox_oldest_seconds", "gauge", "How long the oldest of it has waited."),
        stored.outbox.iter().map(|depth| {
            (Label("topic", depth.topic.as_str()), depth.oldest.map_or(0, |at| now.since(at)))
        }),
    );
    let (waiting, tries) = stored.webhook;
    all.one(("bitspire_webhook_waiting", "gauge", "What the webhook has not taken yet."), waiting);
    all.one(("bitspire_webhook_tries", "gauge", "How often the oldest of it was tried."), tries);
    all.family(
        ("bitspire_machines", "gauge", "Machines, by how they stand with the service."),
        stored.machines.iter().map(|(name, count)| (Label("standing", name), count)),
    );
    all.family(
        ("bitspire_alerts_open", "gauge", "Alerts in the machines' last reports, by code."),
        stored.alerts.iter().map(|(code, count)| (Label("code", code), count)),
    );
    let found = stored.canary.found.as_ref();
    all.family(
        ("bitspire_canary_refused", "gauge", "Whether the bunker refused the last expired grant."),
        found.map(|found| ("", u8::from(found.state == CanaryState::Refused))),
    );
    all.family(
        ("bitspire_canary_seconds", "gauge", "How long ago that was found out."),
        found.and_then(|found| found.ended_at).map(|at| ("", now.since(at))),
    );
    all.one(
        ("bitspire_canary_alert", "gauge", "Whether it was signed, or not found out for long."),
        u8::from(stored.canary.alert.is_some()),
    );
    let wallets = app.wallet_answers();
    all.family(
        ("bitspire_wallet_up", "gauge", "Whether the wallet answered when it was last asked."),
        wallets.iter().map(|(id, last)| (Label("wallet", id), u8::from(last.answered))),
    );
    all.family(
        ("bitspire_wallet_asked_seconds", "gauge", "How long ago that was."),
        wallets.iter().map(|(id, last)| (Label("wallet", id), now.since(last.at))),
    );
    let stats = app.store.stats();
    let healthy = u8::from(app.store.health().is_ok());
    all.one(("bitspire_store_up", "gauge", "Whether the database takes writes."), healthy);
    let waiting = "Writes that wait for the database now.";
    all.one(("bitspire_store_waiting", "gauge", waiting), stats.waiting);
    all.family(
        ("bitspire_store_total", "counter", "What happened at the database."),
        [
            (Label("what", "commits"), stats.commits),
            (Label("what", "jobs"), stats.jobs),
            (Label("what", "failed"), stats.failed),
            (Label("what", "queue_full"), stats.queue_full),
        ],
    );
    all.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a monitoring system that reads nothing any more, because of one odd name.
    #[test]
    fn a_figure_is_told_as_prometheus_reads_it() {
        let mut all = Figures::default();
        all.family(("a_total", "counter", "Counts."), [(Label("why", "a \"b\" \\ c\nd"), 3)]);
        all.family(("nothing", "gauge", "Not there."), Vec::<(Label<'_>, u64)>::new());
        all.one(("b", "gauge", "One."), 1);
        assert_eq!(
            all.0,
            "# HELP a_total Counts.\n# TYPE a_total counter\n\
             a_total{why=\"a \\\"b\\\" \\\\ c\\nd\"} 3\n\
             # HELP b One.\n# TYPE b gauge\nb 1\n"
        );
    }
}
