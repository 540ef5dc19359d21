//! Fees on the command line: of one machine, of the platform, of many machines.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::http::Fraction;
use crate::ids::{MachineId, OperatorId, RolloutId};

#[derive(Debug, Subcommand)]
pub(super) enum FeesVerb {
    /// Set fees; they are published at once, or as soon as a relay can be reached
    Set(FeesSet),
    /// Show the platform's fees
    Super,
    /// Show what a change of your fees on many machines would change where; changes nothing
    Preview(FeesMany),
    /// Change your fees on many machines, tag by tag
    ///
    /// The next stage begins when every machine of the one before has said that it applies its fees.
    /// A machine that does not say so in its time halts the rest.
    RollOut(FeesMany),
    /// Show the newest roll-outs: how each stands, and why one was halted
    RollOuts,
    /// Stop a roll-out where it is; what lies behind it stays
    Stop {
        /// Its number, as `fees roll-outs` shows it
        rollout: RolloutId,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
#[command(group = clap::ArgGroup::new("fees").required(true).multiple(true))]
pub(super) struct FeesMany {
    /// Machines with this tag; may be repeated: a stage each, in this order
    #[arg(long, group = "which", value_name = "TAG")]
    pub(super) stage: Vec<String>,
    /// All other machines, as the last stage
    #[arg(long, group = "which")]
    pub(super) rest: bool,
    /// Where customers feed notes, as a fraction: 0.05 is 5 %
    #[arg(long, group = "fees", value_name = "FRACTION")]
    pub(super) cash_in: Option<Fraction>,
    /// Where customers get notes, as a fraction
    #[arg(long, group = "fees", value_name = "FRACTION")]
    pub(super) cash_out: Option<Fraction>,
    /// Minutes that each machine has to apply them [default: 15]
    #[arg(long, value_name = "N")]
    pub(super) wait_minutes: Option<u32>,
    /// Whose machines, where there are several operators
    #[arg(long)]
    pub(super) operator: Option<OperatorId>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
#[command(group = clap::ArgGroup::new("fee").required(true).multiple(true))]
pub(super) struct FeesSet {
    /// Your fees for this machine
    #[arg(long, group = "whose")]
    pub(super) machine: Option<MachineId>,
    /// The platform's fees for all machines
    #[arg(long = "super", group = "whose")]
    pub(super) platform: bool,
    /// Where customers feed notes, as a fraction: 0.05 is 5 %
    #[arg(long, group = "fee", value_name = "FRACTION")]
    pub(super) cash_in: Option<Fraction>,
    /// Where customers get notes, as a fraction
    #[arg(long, group = "fee", value_name = "FRACTION")]
    pub(super) cash_out: Option<Fraction>,
}

/// A change of fees on many machines, as the API takes it.
pub(super) fn wanted(many: &FeesMany) -> Value {
    json!({
        "stages": many.stage, "rest": many.rest, "operator_id": many.operator,
        "cash_in_fee_fraction": many.cash_in, "cash_out_fee_fraction": many.cash_out,
        "wait_minutes": many.wait_minutes,
    })
}
