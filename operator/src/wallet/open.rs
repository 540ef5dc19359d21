//! From the configuration to wallets.
//!
//! Failure policy: a key that cannot be read, or that others may read, stops the start; whether a
//! wallet answers is seen later, by whoever asks it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::{SecretError, credential};
use thiserror::Error;

use super::Wallet;
use super::lnbits::{Access, Lnbits};
use super::lnd::Lnd;
use super::nwc::{Nwc, Uri, UriError};
use super::phoenixd::Phoenixd;
use super::simulated::SimulatedNode;
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
}

/// Opens every wallet; nothing is asked of them yet.
pub(crate) fn open(
    wallets: &BTreeMap<String, config::Wallet>,
    simulated: Option<&SimulatedNode>,
    clock: &Clock,
) -> Result<BTreeMap<String, Arc<dyn Wallet>>, OpenError> {
    let mut opened: BTreeMap<String, Arc<dyn Wallet>> = BTreeMap::new();
    for (id, wallet) in wallets {
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
                let wallet = Lnbits::new(id, server(url)?, access, clock.clone());
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Phoenixd { url, key_file, network } => {
                let (server, password, clock) = (server(url)?, key(key_file)?, clock.clone());
                let wallet = Phoenixd::new(id, server, &password, network.clone(), clock);
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Lnd { url, key_file, network } => {
                let (server, macaroon, clock) = (server(url)?, key(key_file)?, clock.clone());
                let wallet = Lnd::new(id, server, macaroon, network.clone(), clock);
                opened.insert(id.clone(), Arc::new(wallet));
            }
            config::Wallet::Nwc { key_file, network } => {
                let uri = Uri::parse(key(key_file)?.expose());
                let uri = uri.map_err(|source| OpenError::Uri { wallet: id.clone(), source })?;
                let wallet = Nwc::new(id, uri, network.clone(), clock.clone());
                opened.insert(id.clone(), Arc::new(wallet));
            }
        }
    }
    Ok(opened)
}
