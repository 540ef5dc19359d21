//! `rekey`: the statement that moves a machine to other keys.

use bitspire_shared::ids::PubKey;
use clap::Args;
use serde_json::json;

use super::CliError;
use super::client::{Answer, Client};
use crate::config::public_key;
use crate::ids::{MachineId, OperatorId};

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct Rekey {
    /// The machine's number, where this service has paired it
    #[arg(long, required_unless_present = "spire")]
    machine: Option<MachineId>,
    /// Its key (npub or hex), where another service has: as its `bitspire-agent status` says it
    #[arg(long, value_name = "KEY", requires = "vault", conflicts_with = "machine")]
    spire: Option<String>,
    /// The key of its vault, from the same place
    #[arg(long, value_name = "KEY", requires = "spire")]
    vault: Option<String>,
    /// The service that it is to go by (npub or hex) [default: this one]
    #[arg(long, value_name = "KEY")]
    service: Option<String>,
    /// The operator key that it is to go by (npub or hex) [default: the one it has]
    #[arg(long, value_name = "KEY")]
    operator_key: Option<String>,
    /// Hours until it is of no use, up to 720 [default: 24]
    #[arg(long, value_name = "N")]
    hours: Option<u32>,
    /// Whose machine it is, where there are several operators; with --spire only
    #[arg(long, requires = "spire")]
    operator: Option<OperatorId>,
}

/// Asks for it.
pub(super) fn rekey(client: &Client, asked: Rekey) -> Result<Answer, CliError> {
    let key = |flag: &str, text: Option<String>| -> Result<Option<PubKey>, CliError> {
        Ok(text.map(|text| public_key(flag, &text)).transpose()?)
    };
    let body = json!({
        "machine_id": asked.machine,
        "operator_id": asked.operator,
        "spire": key("--spire", asked.spire)?,
        "vault": key("--vault", asked.vault)?,
        "service": key("--service", asked.service)?,
        "operator": key("--operator-key", asked.operator_key)?,
        "hours": asked.hours,
    });
    Ok(client.post("/dca/rekey", &body)?)
}
