//! `verdict ...`: what is decided about a sale that cannot end by itself.

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliError;
use super::client::{Answer, Client};
use crate::ids::MachineId;

#[derive(Debug, Subcommand)]
pub(super) enum VerdictVerb {
    /// Show which sales are undecided, with what the machine knows, and the verdicts so far
    List {
        /// The machine's number
        #[arg(long)]
        machine: MachineId,
    },
    /// The customer did not get everything, and gets no more notes: the rest is owed to them in sats
    ///
    /// A cash-out: what is missing, with its share of the fee, becomes a debt that the customer
    /// claims with their code; the notes in doubt which are not missing count as given out, the
    /// others as still in their bays. A cash-in: the note in doubt counts as taken and is paid for.
    /// WARNING: whoever has the notes and is owed them as well is paid twice. The machine takes it
    /// for seven days.
    Owed(VerdictOf),
    /// The customer has everything: nothing is owed
    ///
    /// A cash-out: the notes in doubt count as given out, principal and fees are distributed. A
    /// cash-in: the note in doubt is not ours and is not paid for. WARNING: a customer who got
    /// nothing has no claim after this. The machine takes it for seven days.
    Settled {
        #[command(flatten)]
        which: Which,
    },
    /// The machine gives what is missing, now: the customer must stand at it
    ///
    /// WARNING: the notes come out at once, for whoever stands there; notes in doubt that did come
    /// out are given a second time. It moves nothing while the machine serves somebody else. The
    /// machine takes it for ten minutes.
    DispenseRest(VerdictOf),
    /// A paid sale that waits for its customer goes on, now: the customer must stand at it
    ///
    /// The same as the customer's claim code at the machine. WARNING: the notes come out at once,
    /// for whoever stands there. The machine takes it for ten minutes.
    Resume {
        #[command(flatten)]
        which: Which,
    },
    /// Close the breaker of a machine that has given out more notes than its limits allow
    ///
    /// WARNING: an open breaker may mean that somebody is emptying the machine. It closes at most
    /// twice a day. The machine takes it for an hour.
    CloseBreaker {
        /// The machine's number
        #[arg(long)]
        machine: MachineId,
    },
}

/// Which sale.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The machine's number
    #[arg(long)]
    pub(super) machine: MachineId,
    /// The sale, as `verdict list` shows it
    #[arg(long)]
    pub(super) txid: String,
}

#[derive(Debug, Args)]
pub(super) struct VerdictOf {
    #[command(flatten)]
    pub(super) which: Which,
    /// What the customer did not get, in minor units: 2000 is 20.00. Needed where notes are in doubt
    #[arg(long, value_name = "MINOR")]
    pub(super) amount: Option<i64>,
}

/// Asks for it.
pub(super) fn verdict(client: &Client, verb: VerdictVerb) -> Result<Answer, CliError> {
    let (machine, body) = match verb {
        VerdictVerb::List { machine } => {
            return Ok(client.get(&format!("/dca/machines/{machine}/verdicts"))?);
        }
        VerdictVerb::Owed(VerdictOf { which, amount }) => (
            which.machine,
            json!({ "verdict": "owed", "txid": which.txid, "amount_minor": amount }),
        ),
        VerdictVerb::DispenseRest(VerdictOf { which, amount }) => (
            which.machine,
            json!({ "verdict": "dispense_rest", "txid": which.txid, "amount_minor": amount }),
        ),
        VerdictVerb::Settled { which } => {
            (which.machine, json!({ "verdict": "settled", "txid": which.txid }))
        }
        VerdictVerb::Resume { which } => {
            (which.machine, json!({ "verdict": "resume", "txid": which.txid }))
        }
        VerdictVerb::CloseBreaker { machine } => (machine, json!({ "verdict": "close_breaker" })),
    };
    Ok(client.post(&format!("/dca/machines/{machine}/verdict"), &body)?)
}
