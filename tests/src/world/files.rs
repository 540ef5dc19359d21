//! The configuration files of a world.

use std::path::Path;

use anyhow::Result;
use bitspire_shell::secrets::write_private;

use super::{BunkerKind, CURRENCY, OPENING_SATS, Parts, RATE, RelayKind, free_ports};

pub(super) fn operator_toml(root: &Path, relay: u16, parts: Parts) -> Result<String> {
    let [api, public] = free_ports()?;
    let embedded = parts.relay == RelayKind::Embedded;
    let (data, bunker) = (root.join("operator"), root.join("bunker"));
    let bunker = match parts.bunker {
        BunkerKind::Own => format!("data_dir = {bunker:?}"),
        BunkerKind::Nsecbunkerd(_) => {
            let file = root.join("bunker-passphrase");
            write_private(&file, b"open sesame")?;
            format!("passphrase_file = {file:?}")
        }
    };
    Ok(format!(
        r#"data_dir = {data:?}

[log]
filter = "info"
format = "text"

[api]
listen = "127.0.0.1:{api}"
base_url = "http://127.0.0.1:{api}"

[public]
listen = "127.0.0.1:{public}"
base_url = "http://127.0.0.1:{public}"

[relay]
embedded = {embedded}
listen = "127.0.0.1:{relay}"
url = "ws://127.0.0.1:{relay}"

# a machine that is killed again and again asks more often than one that works
[gate]
rate_limit_per_min = 600
burst = 100

[bunker]
embedded = false
{bunker}

[rates.fixed]
{CURRENCY} = "{RATE}"

[wallets.machine]
kind = "simulated"
opening_sats = {OPENING_SATS}
"#
    ))
}

pub(super) fn machine_toml(root: &Path, parts: Parts) -> Result<String> {
    let [kiosk] = free_ports()?;
    let (data, run) = (root.join("machine"), root.join("run"));
    let devices = devices(root, parts);
    Ok(format!(
        r#"data_dir = {data:?}
runtime_dir = {run:?}
currency = "{CURRENCY}"

[log]
filter = "info"
format = "text"

[kiosk]
listen = "127.0.0.1:{kiosk}"

[pairing]
allow_loopback_relays = true

{devices}"#
    ))
}

fn devices(root: &Path, parts: Parts) -> String {
    let line = |device: &str| root.join(format!("{device}.tty"));
    if let Some(kind) = parts.recycler {
        let notes: Vec<u32> = parts.bays().iter().map(|(_, note, _)| note * 100).collect();
        let (kind, path) = (kind.protocol(), line(kind.protocol()));
        return format!(
            "[vault.recycler]\nkind = \"{kind}\"\npath = {path:?}\nbays_minor = {notes:?}\n"
        );
    }
    let (taker, giver) = (parts.acceptor.protocol(), parts.dispenser.protocol());
    let (acceptor, dispenser, bays) = (line(taker), line(giver), parts.bays().len());
    format!(
        "[vault.acceptor]\nkind = \"{taker}\"\npath = {acceptor:?}\n\n\
         [vault.dispenser]\nkind = \"{giver}\"\npath = {dispenser:?}\nbays = {bays}\n"
    )
}
