//! The key of the node behind a wallet, where that node does not pay itself.
//!
//! Promise: it is asked for until it was answered once; a node keeps its key.
//!
//! Failure policy: a node that does not say it is one without a key: what depends on it is a refusal in
//! better words, since an invoice of a wallet's own is found by its hash as well.

use bitspire_shared::error::{Classified as _, Kind};
use nostr::secp256k1::PublicKey;
use tokio::sync::OnceCell;

use super::WalletError;

/// The key, once it is known.
#[derive(Debug, Default)]
pub(super) struct NodeKey(OnceCell<PublicKey>);

impl NodeKey {
    /// The key as `asked` tells it, in hex, where it is not known yet.
    pub(super) async fn get(
        &self,
        wallet: &str,
        asked: impl Future<Output = Result<String, WalletError>>,
    ) -> Option<PublicKey> {
        let known = self.0.get_or_try_init(|| async {
            let text = asked.await?;
            text.parse().map_err(|_| WalletError::Refused {
                wallet: wallet.to_owned(),
                reason: "expected its node's key as 66 hex characters".into(),
            })
        });
        match known.await {
            Ok(key) => Some(*key),
            Err(error) => {
                // one that is away is told elsewhere
                if error.kind() != Kind::Transient {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(event = "wallet_node_unknown", wallet, error);
                }
                None
            }
        }
    }
}
