//! Figures: what is measured on this computer, one JSON line each.
//!
//! Promise: each line carries the bound that physics or the specification sets, and how far the
//! value is from it. Money paths are measured with the journal's real flushes on the real disk.

mod agent;
mod binary;
mod bunker;
mod busy;
mod codec;
mod devices;
mod engine;
mod fees;
mod fleet;
mod gate;
mod heartbeat;
mod history;
mod idle;
mod recovery;
mod relay;
mod rpc;
mod sale;
mod settle;
mod stack;
mod stamped;

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// What it cannot beat, or must not exceed.
    pub bound: f64,
    /// What the bound is.
    pub bound_is: &'static str,
    /// The same of somebody else's program on this computer, where it was measured.
    pub peer: Option<f64>,
    /// How often it was measured.
    pub runs: usize,
}

impl Figure {
    /// The line.
    #[must_use]
    pub fn line(&self) -> Value {
        let Self { name, value, unit, bound, bound_is, peer, runs } = self;
        json!({
            "figure": name,
            "value": rounded(*value),
            "unit": unit,
            "bound": rounded(*bound),
            "bound_is": bound_is,
            "peer": peer.map(rounded),
            "ratio": rounded(value / bound),
            "runs": runs,
        })
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

type Measure = fn() -> Result<Vec<Figure>>;

/// Every measurement, by the names of its figures.
const ALL: [(&[&str], Measure); 21] = [
    // these two first, since they measure this very process: what other measurements leave in its heap
    // (a hundred thousand frames at the gate) would count as the service's, or would be room in which
    // what a flood leaves does not show; the flood leaves little
    (&["flood_p99_ratio", "flood_rss_mb_more"], rpc::flood),
    (&["heartbeat_10k_cpu_pct", "heartbeat_10k_rss_mb"], heartbeat::measure),
    (&["authorised_to_first_byte_ms"], sale::measure),
    (
        &[
            "codec_mb_per_s.ccnet",
            "codec_mb_per_s.ebds",
            "codec_mb_per_s.f56",
            "codec_mb_per_s.id003",
            "codec_mb_per_s.puloon",
            "codec_mb_per_s.ssp",
        ],
        codec::measure,
    ),
    (&engine::NAMES, engine::measure),
    (&idle::NAMES, idle::measure),
    (&["stack_to_byte_ms"], stack::measure),
    (&["agent_binary_mb"], binary::measure),
    (&["agent_rss_mb", "agent_ready_ms", "agent_idle_cpu_pct"], agent::measure),
    (&["agent_ready_1m_ms"], history::measure),
    (&["escrow_decision_ms", "agent_rss_sale_mb", "wakeups_per_s"], busy::measure),
    (&["recovery_ms"], recovery::measure),
    (&["bunker_signs_per_s", "bunker_signs_per_s_of_path", "bunker_sign_p99_ms"], bunker::measure),
    (&["operator_ready_at_10k_ms", "revoke_at_10k_ms", "revoke_at_10k_ms_p50"], fleet::measure),
    (&["fee_change_10k_s"], fees::measure),
    (
        &["relay_10k_delivery_ms_p99", "relay_10k_cpu_us_an_event", "relay_10k_rss_mb"],
        relay::measure,
    ),
    (&["gate_junk_per_s", "gate_good_per_s"], gate::measure),
    (&["rpc_per_s"], rpc::measure),
    (
        &[
            "settlements_per_s",
            "settlements_naive_per_s",
            "settlements_to_naive",
            "lnbits_create_pay_per_s",
        ],
        settle::rates,
    ),
    (
        &[
            "settlement_ack_p99_ms",
            "settlement_ack_p99_ms_at_1m",
            "page_p99_ms",
            "page_p99_ms_at_1m",
            "audit_1m_s",
        ],
        settle::acks,
    ),
    (&["reconcile_100k_s"], settle::reconciled),
];

/// Measures all, or the one called `only` with those of the same measurement; `tell` gets each figure as soon as it is there.
///
/// # Errors
/// When a name is none, and after the last measurement when one of them could not be made.
pub fn run(only: Option<&str>, mut tell: impl FnMut(&Figure) -> Result<()>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name == only);
    let mut known = ALL.iter().flat_map(|(names, _)| names.iter());
    if !known.any(|name| wanted(name)) {
        let names: Vec<_> = ALL.iter().flat_map(|(names, _)| names.iter()).collect();
        bail!("expected one of {names:?}, got {only:?}");
    }
    let mut failed = Vec::new();
    for (names, measure) in ALL {
        if !names.iter().any(|name| wanted(name)) {
            continue;
        }
        let figures = match measure() {
            Ok(figures) => figures,
            Err(error) => {
                failed.push(format!("{}: {error:#}", names.join(", ")));
                continue;
            }
        };
        // what was measured on the way is told, too: it explains the one that was asked for
        for figure in figures {
            tell(&figure)?;
        }
    }
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join("; "));
    }
    Ok(())
}

/// The value below which `percent` of all lie.
fn percentile(values: &mut [f64], percent: usize) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { bail!("nothing was measured") };
    Ok(values[(last * percent).div_ceil(100)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a figure that looks better than what was measured.
    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50).unwrap(), 101.0);
        assert_eq!(percentile(&mut values, 99).unwrap(), 199.0);
        assert_eq!(percentile(&mut values, 100).unwrap(), 200.0);
        assert!(percentile(&mut [], 50).is_err());
        assert!(run(Some("nonsense"), |_| Ok(())).is_err());
    }
}
