//! The receipt printer's part of the configuration.

use bitspire_shell::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::{RawPrinter, port, wrong};

/// Where a receipt printer (ESC/POS) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrinterPort {
    /// A serial port.
    Serial,
    /// A USB printer port, /dev/usb/lp0 and alike.
    UsbLp,
}

/// When a receipt is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrintWhen {
    /// When the customer asks for it: a slip that nobody takes may carry a claim code.
    #[default]
    Button,
    /// At the end of each transaction, and when asked for.
    Always,
}

/// A receipt printer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrinterConfig {
    /// What it hangs on.
    pub port: PrinterPort,
    /// The port's name.
    pub path: String,
    /// Bits a second of a serial one.
    pub baud: u32,
    /// Characters in a line: 32 on paper of 58 mm, 42 or 48 on 80 mm.
    pub columns: usize,
    /// When it prints.
    pub print: PrintWhen,
}

/// Bits a second where nothing is said: what TM printers come with.
const BAUD: u32 = 38_400;
/// Characters in a line where nothing is said: they fit all paper.
const COLUMNS: u8 = 32;

pub(super) fn checked(raw: &RawPrinter) -> Result<PrinterConfig, ConfigError> {
    let columns = raw.columns.unwrap_or(COLUMNS);
    if !(24..=64).contains(&columns) {
        return Err(wrong("vault.printer.columns", "24 to 64 characters", columns));
    }
    Ok(PrinterConfig {
        port: raw.port,
        path: port("vault.printer.path", &raw.path)?,
        baud: raw.baud.unwrap_or(BAUD),
        columns: columns.into(),
        print: raw.print.unwrap_or_default(),
    })
}

/// The public address of the operator's service.
pub(super) fn claim_url(url: &str) -> Result<String, ConfigError> {
    let good = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#@".contains(&b))
    };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if url.len() > 100 || !host.is_some_and(good) || url.ends_with('/') {
        let expected = "an address like https://atm.example.org, without a slash at its end";
        return Err(wrong("vault.claim_url", expected, url));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Raw, load};

    fn printer(lines: &str) -> Result<Option<PrinterConfig>, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine.toml");
        std::fs::write(&file, lines).unwrap();
        let loaded: Result<(_, bitspire_shell::config::Loaded<Raw>), _> =
            load(Some(&file), &Default::default(), &[]);
        loaded.map(|(config, _)| config.vault.printer)
    }

    /// Loss prevented: a slip with half a claim code a line, or an address that leads nowhere, printed
    /// for days before somebody looks.
    #[test]
    fn a_printer_and_an_address_that_cannot_work_are_refused() {
        let good = "[vault.printer]\nport = 'usb_lp'\npath = '/dev/usb/lp0'\n";
        let read = printer(good).unwrap().unwrap();
        assert_eq!((read.columns, read.baud, read.print), (32, 38_400, PrintWhen::Button));
        assert_eq!(printer("").unwrap(), None);
        for (lines, key) in [
            (format!("{good}columns = 8\n"), "vault.printer.columns"),
            ("[vault.printer]\nport = 'serial'\npath = 'COM1'\n".into(), "vault.printer.path"),
            ("[vault]\nclaim_url = 'atm.example'\n".into(), "vault.claim_url"),
            ("[vault]\nclaim_url = 'https://atm.example/'\n".into(), "vault.claim_url"),
            ("[vault]\nclaim_url = 'https://a b'\n".into(), "vault.claim_url"),
        ] {
            let refused = printer(&lines).unwrap_err().to_string();
            assert!(refused.contains(key), "{lines}: {refused}");
        }
        assert!(printer("[vault]\nclaim_url = 'https://atm.example:8443/till'\n").is_ok());
    }
}
