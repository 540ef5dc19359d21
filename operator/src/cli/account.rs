//! `account ...` and `audit keys`: operators' private keys, and every secret at rest.

use std::path::PathBuf;

use bitspire_shell::secrets::credential;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::CliError;
use super::client::{Answer, Client};
use super::show::{cell, table};
use crate::ids::OperatorId;

/// What is done with a key.
#[derive(Debug, Subcommand)]
pub(super) enum AccountVerb {
    /// Take in an operator's private key that machines have pinned already
    ///
    /// It is sealed in this service, and warned about at each start until `migrate-to-bunker` has
    /// moved it: whoever breaks into the service has it. A new operator needs no such thing: `operator
    /// init` makes the key in the bunker.
    ImportKey {
        /// A file of mode 0600 with the nsec; delete it afterwards
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Whose key, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
    /// Move an operator's private key into the bunker, and erase it here
    ///
    /// It is erased once the bunker has signed and encrypted with it. Machines notice nothing.
    MigrateToBunker {
        /// Whose key, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
}

/// What is audited besides the books.
#[derive(Debug, Subcommand)]
pub(super) enum AuditWhat {
    /// List every secret at rest, and how it is kept
    ///
    /// Exit code 1 while this service holds the private key of an operator that owns machines, others
    /// may read a secret, or a file is there that is not known.
    Keys,
}

const SECRETS: &[(&str, &str)] =
    &[("kept", "kept"), ("mode", "mode"), ("file", "file"), ("what", "what")];

/// The body of an import: borrows the key, so that no copy is made that nobody erases.
#[derive(Serialize)]
struct Import<'a> {
    operator_id: Option<OperatorId>,
    nsec: &'a str,
}

/// Asks for it.
pub(super) fn account(client: &Client, verb: AccountVerb) -> Result<Answer, CliError> {
    Ok(match verb {
        AccountVerb::ImportKey { file, operator } => {
            let nsec: Zeroizing<String> = credential(&file)?;
            client.post("/operators/import", &Import { operator_id: operator, nsec: &nsec })?
        }
        AccountVerb::MigrateToBunker { operator } => {
            client.post("/operators/migrate", &json!({ "operator_id": operator }))?
        }
    })
}

/// A line for each secret, and one for each that is wrong.
pub(super) fn secrets(body: &Value) -> String {
    let mut text = table(&body["secrets"], SECRETS);
    for finding in body["findings"].as_array().into_iter().flatten() {
        text.push_str(&format!("FOUND {}\n", cell(finding)));
    }
    text
}
