//! From the configuration to wallets.
//!
//! Failure policy: a key that cannot be read, or that others may read, stops the start; whether a
//! wallet answers is seen later, by whoever asks it. Two names for one wallet stop it too: each
//! payment would be seen, and booked, under both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::{SecretError, credential};
use nostr::SecretKey;
use nostr::hashes::{Hash as _, sha256};
use thiserror::Error;

use super::lnbits::{Access, Lnbits};
use super::lnd::Lnd;
use super::nwc::{Nwc, Uri, UriError};
use super::phoenixd::Phoenixd;
use super::simulated::SimulatedNode;
use super::{Identity, Wallet};
use crate::config;
use crate::outgoing::{Secret, Server, TargetError};

/// Why a wallet cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its key.
    #[error("wallet {wallet}: its key")]
    Key {
        /// Its id.
        wallet: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// Its connection string.
    #[error("wallet {wallet}: its connection string")]
    Uri {
        /// Its id.
        wallet: String,
        /// Why.
        #[source]
        source: UriError,
    },
    /// Its address.
    #[error("wallet {wallet}: its address")]
    Target {
        /// Its id.
        wallet: String,
        /// Why.
        #[source]
        source: TargetError,
    },
    /// Two of them are one.
    #[error(
        "wallets {first} and {second} are one and the same: expected a wallet of its own under each \
         [wallets.NAME], or what one machine is paid is booked for the other as well; give one of \
         them another wallet, or remove its table"
    )]
    Shared {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
}

/// Which wallets are open, by what makes each the wallet that it is. Keys are kept as their hash.
#[derive(Default)]
struct Nodes(BTreeMap<(&'static str, String), String>);

impl Nodes {
    fn add(&mut self, kind: &'static str, which: String, id: &str) -> Result<(), OpenError> {
        match self.0.insert((kind, which), id.to_owned()) {
            None => Ok(()),
            Some(first) => Err(OpenError::Shared { first, second: id.to_owned() }),
        }
    }
}

/// The wallets, and what makes each the one that it is, by their names.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) wallets: BTreeMap<String, Arc<dyn Wallet>>,
    pub(crate) identities: BTreeMap<String, Identity>,
}

/// Opens every wallet; nothing is asked of them yet. `service` is the service key.
pub(crate) fn open(
    wallets: &BTreeMap<String, config::Wallet>,
    simulated: Option<&SimulatedNode>,
    service: &SecretKey,
    clock: &Clock,
) -> Result<Opened, OpenError> {
    let mut all = Opened::default();
    let Opened { wallets: opened, identities } = &mut all;
    let mut nodes = Nodes::default();
    for (id, wallet) in wallets {
        let mut is = |kind: &str, address: &str, key: &str| {
            identities.insert(id.clone(), Identity::new(service, id, kind, address, key));
        };
        let key = |path: &Path| {
            let text = credential(path);
            let text = text.map_err(|source| OpenError::Key { wallet: id.clone(), source })?;
            Ok::<_, OpenError>(Secret::new(text))
        };
        let server = |url: &str| {
            let server = Server::configured(url);
            server.map_err(|source| OpenError::Target { wallet: id.clone(), source })
        };
        match wallet {
            config::Wallet::Simulated { .. } => {
                is("simulated", "", "");
                if let Some(node) = simulated {
                    opened.insert(id.clone(), Arc::new(node.wallet(id)));
                }
            }
            config::Wallet::Lnbits { url, key_file, invoice_key_file, network } => {
                let access = Access {
                    admin_key: key(key_file)?,
                    invoice_key: invoice_key_file.as_deref().map(key).transpose()?,
                    network: network.clone(),
                };
                let server = server(url)?;
                let hash = sha256::Hash::hash(access.admin_key.expose().as_bytes());
                nodes.add("lnbits", format!("{} {hash}", server.place()), id)?;
                is("lnbits", &server.place(), access.admin_key.expose());
                let wallet = Lnbits::new(id, server, access, clock.clone());
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Phoenixd { url, key_file, network } => {
                let (server, password, clock) = (server(url)?, key(key_file)?, clock.clone());
                nodes.add("phoenixd", server.place(), id)?;
                is("phoenixd", &server.place(), password.expose());
                let wallet = Phoenixd::new(id, server, &password, network.clone(), clock);
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Lnd { url, key_file, network } => {
                let (server, macaroon, clock) = (server(url)?, key(key_file)?, clock.clone());
                nodes.add("lnd", server.place(), id)?;
                is("lnd", &server.place(), macaroon.expose());
                let wallet = Lnd::new(id, server, macaroon, network.clone(), clock);
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Nwc { key_file, network } => {
                let text = key(key_file)?;
                let uri = Uri::parse(text.expose());
                let uri = uri.map_err(|source| OpenError::Uri { wallet: id.clone(), source })?;
                nodes.add("nwc", uri.wallet.to_string(), id)?;
                is("nwc", &uri.wallet.to_string(), text.expose());
                let wallet = Nwc::new(id, uri, network.clone(), clock.clone());
                opened.insert(id.clone(), Arc::new(wallet));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bitspire_shared::time::Unix;
    use lightning_invoice::Currency::Regtest;

    use super::*;

    /// Loss prevented: one node under two names, so that each payment is booked for two machines.
    #[test]
    fn two_names_for_one_wallet_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str, text: &str| {
            let path = folder.path().join(name);
            bitspire_shell::secrets::write_private(&path, text.as_bytes()).unwrap();
            path
        };
        let (a, b) = (key("a", "aa"), key("b", "bb"));
        let connection = |name: &str, secret: &str| {
            let wallet = nostr::Keys::parse(&"07".repeat(32)).unwrap().public_key();
            let text = format!(
                "nostr+walletconnect://{wallet}?relay=wss://relay.example&secret={}",
                secret.repeat(32)
            );
            key(name, &text)
        };
        let (one, two) = (connection("one", "11"), connection("two", "12"));
        let lnd = |url: &str, key: &Path| config::Wallet::Lnd {
            url: url.into(),
            key_file: key.into(),
            network: Regtest,
        };
        let phoenixd = |url: &str, key: &Path| config::Wallet::Phoenixd {
            url: url.into(),
            key_file: key.into(),
            network: Regtest,
        };
        let lnbits = |url: &str, key: &Path| config::Wallet::Lnbits {
            url: url.into(),
            key_file: key.into(),
            invoice_key_file: None,
            network: Regtest,
        };
        let nwc = |key: &Path| config::Wallet::Nwc { key_file: key.into(), network: Regtest };
        let clock = Clock::new(|| Unix(5));
        let opened = |first, second| {
            let wallets = [("bar".to_owned(), first), ("till".to_owned(), second)].into();
            open(&wallets, None, &SecretKey::generate(), &clock).map(|all| all.wallets.len())
        };
        let (here, there) = ("http://127.0.0.1:8080", "https://ln.example");
        for (first, second) in [
            (lnd(here, &a), lnd("http://localhost:8080/", &b)),
            (lnd(there, &a), lnd("https://LN.example:443", &b)),
            (phoenixd(here, &a), phoenixd("https://127.0.0.1:8080/", &b)),
            (lnbits(there, &a), lnbits("https://ln.example/", &a)),
            (nwc(&one), nwc(&two)),
        ] {
            match opened(first, second) {
                Err(error @ OpenError::Shared { .. }) => {
                    let words = error.to_string();
                    assert!(words.contains("wallets bar and till are one"), "{words}");
                }
                other => panic!("{other:?}"),
            }
        }
        for (first, second) in [
            (lnd(here, &a), lnd("http://127.0.0.1:8081", &a)),
            (lnd(here, &a), phoenixd("http://127.0.0.1:9740", &a)),
            (lnbits(there, &a), lnbits(there, &b)),
            (nwc(&one), lnd(here, &a)),
        ] {
            assert_eq!(opened(first, second).unwrap(), 2);
        }
    }
}
