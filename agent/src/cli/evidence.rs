//! `evidence`: what happened around one transaction, as one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitspire_shared::ids::TxnId;
use bitspire_shell::config::Shown;
use clap::Args;

use super::journal::{Which, write_out};
use crate::config::VaultConfig;
use crate::evidence::{About, bundle};

#[derive(Debug, Args)]
pub(super) struct Evidence {
    #[command(flatten)]
    which: Which,
    /// The transaction
    txid: TxnId,
    /// Where to; a new file. Without it: standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Evidence {
    /// Does it.
    pub(super) fn run(
        self,
        config: &VaultConfig,
        configuration: &BTreeMap<String, Shown>,
    ) -> anyhow::Result<()> {
        let reader = self.which.open(&config.journal())?;
        // a copied journal has its traces beside it
        let folder = self.which.file().and_then(Path::parent).map(|folder| folder.join("faults"));
        let faults = folder.unwrap_or_else(|| config.faults());
        let about = About { txid: self.txid, faults: &faults, configuration };
        let bundle = bundle(&reader, &about)?;
        if bundle["journal"]["holds"] != true {
            eprintln!("the journal does not hold: the bundle says where it breaks");
        }
        write_out(self.out.as_deref(), |to| Ok(writeln!(to, "{bundle}")?))
    }
}
