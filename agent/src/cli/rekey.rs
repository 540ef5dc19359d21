//! `rekey`: the operator's statement, brought to the machine by hand.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bitspire_shared::statement::SignedStatement;
use clap::Args;

use super::{control, pin};
use crate::ipc::{self, ToNet, ToVault};

#[derive(Debug, Args)]
pub(super) struct Rekey {
    /// A file that holds the statement: the signed event as JSON
    #[arg(long, value_name = "FILE")]
    statement: PathBuf,
    /// A file that holds the PIN of service mode; it is asked for otherwise
    #[arg(long, value_name = "FILE")]
    service_pin_file: Option<PathBuf>,
}

impl Rekey {
    pub(super) fn run(self, socket: &Path) -> anyhow::Result<()> {
        let place = self.statement.display();
        let text = std::fs::read_to_string(&self.statement)
            .with_context(|| format!("{place}: cannot be read"))?;
        let statement: SignedStatement = serde_json::from_str(&text)
            .with_context(|| format!("{place}: expected a signed event as JSON"))?;
        let pin = pin::current(self.service_pin_file.as_deref())?;
        let (mut stream, _) = control(socket)?;
        ipc::write(&mut stream, &ToVault::Rekey { statement: Box::new(statement), pin })?;
        loop {
            match ipc::read(&mut stream)? {
                Some(ToNet::Rekeyed { refused: None }) => break,
                Some(ToNet::Rekeyed { refused: Some(why) }) => bail!("nothing is changed: {why}"),
                Some(_) => {}
                None => bail!("the vault closed the connection: look at its log, then try again"),
            }
        }
        println!("the machine goes by the new keys");
        Ok(())
    }
}
