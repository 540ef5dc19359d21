//! `trace`: what the devices of a running vault said last.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::bail;
use clap::Args;

use super::control;
use crate::ipc::{self, DeviceFrames, ToNet, ToVault};

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// Only this device: acceptor, dispenser, recycler or printer
    device: Option<String>,
}

impl Trace {
    /// Asks the vault behind `socket`.
    pub(super) fn run(self, socket: &Path) -> anyhow::Result<()> {
        let (mut stream, _) = control(socket)?;
        ipc::write(&mut stream, &ToVault::Trace)?;
        let devices = loop {
            match ipc::read(&mut stream)? {
                Some(ToNet::Frames { devices }) => break devices,
                Some(_) => {}
                None => bail!("the vault closed the connection: look at its log"),
            }
        };
        let wanted =
            |one: &&DeviceFrames| self.device.as_ref().is_none_or(|own| *own == one.device);
        let wanted: Vec<_> = devices.iter().filter(wanted).collect();
        if wanted.is_empty() {
            let names: Vec<_> = devices.iter().map(|one| one.device.as_str()).collect();
            bail!("no such device; this machine has: {}", names.join(", "));
        }
        let mut out = BufWriter::new(io::stdout().lock());
        for DeviceFrames { device, frames } in wanted {
            writeln!(out, "{device}: {} records, time in ms since it was opened", frames.len())?;
            for frame in frames {
                writeln!(out, "  {frame}")?;
            }
        }
        Ok(out.flush()?)
    }
}
