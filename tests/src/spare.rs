//! A second machine in a world, without devices: for what must not happen to the first.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::process::Process;
use crate::world::{CURRENCY, Said, World, free_ports, offer_seed, says};

/// The machine.
#[derive(Debug)]
pub struct Spare {
    /// Its vault.
    pub vault: Process,
    /// Its network process.
    pub net: Process,
    program: PathBuf,
    file: PathBuf,
    data: PathBuf,
}

impl Spare {
    /// Starts it in the folder of `world`.
    ///
    /// # Errors
    /// When it does not come up: with the end of its log.
    pub fn start(world: &World) -> Result<Self> {
        let root = world.folder();
        let (data, runtime) = (root.join("spare"), root.join("spare-run"));
        let (file, program) = (root.join("spare.toml"), world.program().to_owned());
        let [kiosk] = free_ports()?;
        fs::create_dir(&runtime)?;
        let text = format!(
            r#"data_dir = {data:?}
runtime_dir = {runtime:?}
currency = "{CURRENCY}"

[kiosk]
listen = "127.0.0.1:{kiosk}"

[pairing]
allow_loopback_relays = true
"#
        );
        fs::write(&file, text)?;
        let part = |name, verb: &str| {
            let arguments = ["agent".into(), "--config".into(), file.clone().into(), verb.into()];
            Process::new(name, &program, arguments.into(), &root.join("logs"))
        };
        let (vault, net) = (part("spare-vault", "vault"), part("spare-net", "net"));
        let mut spare = Self { vault, net, program, file, data };
        let (program, file) = (spare.program.clone(), spare.file.clone());
        spare.vault.start_until(|| status(&program, &file).map(drop))?;
        spare.net.start()?;
        Ok(spare)
    }

    /// What its command line says to a seed.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn offer_seed(&self, seed_url: &str) -> Result<Said> {
        offer_seed(&self.program, &self.file, seed_url)
    }

    /// How it is.
    ///
    /// # Errors
    /// When the vault does not answer.
    pub fn status(&self) -> Result<Value> {
        status(&self.program, &self.file)
    }

    /// Where it keeps what stays.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Ends both processes as a service manager does.
    ///
    /// # Errors
    /// When one had ended already, or not well.
    pub fn stop(&mut self) -> Result<()> {
        self.net.stop()?;
        self.vault.stop()
    }
}

fn status(program: &Path, file: &Path) -> Result<Value> {
    says(program, "agent", file, &["status", "--json"])
}
