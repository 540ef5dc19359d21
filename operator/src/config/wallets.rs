//! Which wallet stands behind each id, and what it takes to reach it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bitspire_shared::money::Sats;
use bitspire_shell::config::ConfigError;
use lightning_invoice::Currency;
use serde::{Deserialize, Serialize};

use super::wrong;

/// Which wallet stands behind an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletKind {
    /// A node of our own on regtest, for demos and tests: no real money.
    Simulated,
    /// A wallet of an LNbits instance, 1.6 or later.
    Lnbits,
    /// Any wallet that speaks Nostr Wallet Connect (NIP-47).
    Nwc,
    /// A phoenixd node, 0.4 or later.
    Phoenixd,
    /// An LND node, by its REST API.
    Lnd,
}

/// One table under `[wallets]`; which keys it may have is up to its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked type documents each value")]
pub struct RawWallet {
    pub kind: WalletKind,
    pub operator: Option<String>,
    pub opening_sats: Option<u64>,
    pub routing_fee_sats: Option<u64>,
    pub url: Option<String>,
    pub key_file: Option<PathBuf>,
    pub invoice_key_file: Option<PathBuf>,
    pub network: Option<String>,
}

/// One wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wallet {
    /// See [`WalletKind::Simulated`].
    Simulated {
        /// What it holds at first.
        opening: Sats,
        /// What each payment to another node costs.
        routing_fee: Sats,
    },
    /// See [`WalletKind::Lnbits`].
    Lnbits {
        /// The instance's address.
        url: String,
        /// The file with the wallet's admin key.
        key_file: PathBuf,
        /// The file with its invoice key, for hints; without one payments are seen by polls.
        invoice_key_file: Option<PathBuf>,
        /// The chain of the node behind it.
        network: Currency,
    },
    /// See [`WalletKind::Lnd`].
    Lnd {
        /// Its REST address.
        url: String,
        /// The file with its macaroon in hex.
        key_file: PathBuf,
        /// Its chain.
        network: Currency,
    },
    /// See [`WalletKind::Phoenixd`].
    Phoenixd {
        /// Its address.
        url: String,
        /// The file with its `http-password`.
        key_file: PathBuf,
        /// Its chain.
        network: Currency,
    },
    /// See [`WalletKind::Nwc`].
    Nwc {
        /// The file with the connection string.
        key_file: PathBuf,
        /// The chain of the node behind it.
        network: Currency,
    },
}

impl Wallet {
    /// Whether what one pays to the other never leaves their node, so that nothing is routed: LNbits
    /// settles between the wallets of an instance by itself, without a reserve, and without a fee
    /// unless its administrator has set one for that.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Simulated { .. }, Self::Simulated { .. }) => true,
            (Self::Lnbits { url: one, .. }, Self::Lnbits { url: two, .. }) => one == two,
            _ => false,
        }
    }
}

fn network(key: &str, name: Option<&str>) -> Result<Currency, ConfigError> {
    match name {
        None | Some("bitcoin") => Ok(Currency::Bitcoin),
        Some("testnet") => Ok(Currency::BitcoinTestnet),
        Some("signet") => Ok(Currency::Signet),
        Some("regtest") => Ok(Currency::Regtest),
        Some(other) => Err(wrong(key, "bitcoin, testnet, signet or regtest", other)),
    }
}

/// The wallets that one operator alone may give to its machines, with that operator's name.
pub(super) fn operators(
    raw: &BTreeMap<String, RawWallet>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let named = raw.iter().filter_map(|(id, wallet)| Some((id, wallet.operator.as_deref()?)));
    named
        .map(|(id, name)| match name.trim() {
            "" => Err(wrong(&format!("wallets.{id}.operator"), "an operator's name", "nothing")),
            name => Ok((id.clone(), name.to_owned())),
        })
        .collect()
}

pub(super) fn check(
    raw: &BTreeMap<String, RawWallet>,
) -> Result<BTreeMap<String, Wallet>, ConfigError> {
    raw.iter().map(|(id, wallet)| Ok((id.clone(), one(id, wallet)?))).collect()
}

fn one(id: &str, raw: &RawWallet) -> Result<Wallet, ConfigError> {
    let key = |name: &str| format!("wallets.{id}.{name}");
    let given = [
        ("opening_sats", raw.opening_sats.is_some()),
        ("routing_fee_sats", raw.routing_fee_sats.is_some()),
        ("url", raw.url.is_some()),
        ("key_file", raw.key_file.is_some()),
        ("invoice_key_file", raw.invoice_key_file.is_some()),
        ("network", raw.network.is_some()),
    ];
    let fits: &[&str] = match raw.kind {
        WalletKind::Simulated => &["opening_sats", "routing_fee_sats"],
        WalletKind::Lnbits => &["url", "key_file", "invoice_key_file", "network"],
        WalletKind::Nwc => &["key_file", "network"],
        WalletKind::Phoenixd | WalletKind::Lnd => &["url", "key_file", "network"],
    };
    if let Some((name, _)) = given.iter().find(|(name, given)| *given && !fits.contains(name)) {
        let expected = format!("one of {} for this kind", fits.join(", "));
        return Err(wrong(&key(name), &expected, name));
    }
    let missing = |name: &str| wrong(&key(name), "a value, which this kind needs", "nothing");
    let key_file = || raw.key_file.clone().ok_or_else(|| missing("key_file"));
    let url = || {
        let url = raw.url.as_deref().ok_or_else(|| missing("url"))?;
        super::base_url(&key("url"), url)
    };
    let network = || network(&key("network"), raw.network.as_deref());
    match raw.kind {
        WalletKind::Simulated => Ok(Wallet::Simulated {
            opening: Sats(raw.opening_sats.unwrap_or(0)),
            routing_fee: Sats(raw.routing_fee_sats.unwrap_or(0)),
        }),
        WalletKind::Lnbits => Ok(Wallet::Lnbits {
            url: url()?,
            key_file: key_file()?,
            invoice_key_file: raw.invoice_key_file.clone(),
            network: network()?,
        }),
        WalletKind::Phoenixd => {
            Ok(Wallet::Phoenixd { url: url()?, key_file: key_file()?, network: network()? })
        }
        WalletKind::Lnd => {
            Ok(Wallet::Lnd { url: url()?, key_file: key_file()?, network: network()? })
        }
        WalletKind::Nwc => Ok(Wallet::Nwc { key_file: key_file()?, network: network()? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wallet, String> {
        let raw: RawWallet = toml::from_str(text).map_err(|e| e.to_string())?;
        one("till", &raw).map_err(|e| e.to_string())
    }

    /// Loss prevented: a wallet that is reached otherwise than the operator meant, found out at the
    /// first sale.
    #[test]
    fn a_wallet_has_what_its_kind_needs_and_nothing_else() {
        let good = "kind = 'lnbits'\nurl = 'https://ln.example/'\nkey_file = '/k'\n";
        let expected = Wallet::Lnbits {
            url: "https://ln.example".into(),
            key_file: "/k".into(),
            invoice_key_file: None,
            network: Currency::Bitcoin,
        };
        assert_eq!(read(good), Ok(expected));
        for (text, named) in [
            ("kind = 'lnbits'\nkey_file = '/k'", "wallets.till.url"),
            ("kind = 'lnbits'\nurl = 'https://ln.example'", "wallets.till.key_file"),
            ("kind = 'nwc'\nurl = 'wss://relay.example'\nkey_file = '/k'", "wallets.till.url"),
            ("kind = 'simulated'\nkey_file = '/k'", "wallets.till.key_file"),
            (&format!("{good}opening_sats = 5"), "wallets.till.opening_sats"),
            (&format!("{good}network = 'mainnet'"), "wallets.till.network"),
            ("kind = 'lnbits'\nurl = 'ln.example'\nkey_file = '/k'", "wallets.till.url"),
            ("kind = 'cash'", "kind"),
            (&format!("{good}admin_key = 'hush'"), "admin_key"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
