//! What the bunker at the other end can do, found out without changing anything.
//!
//! Promise: our own bunker tells it itself (`describe`); of any other, methods that only some have
//! are called for ids that no row has, and count as there unless the bunker says that it does not
//! know them.

use serde_json::{Value, json};

use super::super::{Abilities, SignerError};
use super::{AdminClient, Effect};

/// An id of no row: databases count from one.
const NOBODY: i64 = -1;

impl AdminClient {
    /// What the bunker can do; asked once for each time that its dialect is settled.
    pub(super) async fn find_abilities(&self) -> Result<Abilities, SignerError> {
        if let Some(known) = self.0.abilities() {
            return Ok(known);
        }
        let found = match self.call(Effect::Reads, "describe", vec![]).await {
            Ok(text) => ours(&text)?,
            Err(SignerError::Refused { .. }) => Abilities {
                software: None,
                revokes_tokens: self.has("revoke_token", json!({"tokenId": NOBODY})).await?,
                adds_rules: self
                    .has(
                        "add_policy_rule",
                        json!({"policyId": NOBODY, "rule": {"method": "nip44_encrypt"}}),
                    )
                    .await?,
                ends_grants: false,
                enforces_policies: false,
                keeps_audit: false,
            },
            Err(error) => return Err(error),
        };
        self.0.set_abilities(&found);
        Ok(found)
    }

    async fn has(&self, method: &'static str, param: Value) -> Result<bool, SignerError> {
        match self.call(Effect::Changes, method, vec![param.to_string().into()]).await {
            Ok(_) => Ok(true),
            Err(error) => match error.unknown_method() {
                true => Ok(false),
                false if matches!(error, SignerError::Refused { .. }) => Ok(true),
                false => Err(error),
            },
        }
    }
}

fn ours(text: &str) -> Result<Abilities, SignerError> {
    serde_json::from_str(text).map_err(|_| SignerError::Unexpected {
        method: "describe",
        expected: "the bunker's abilities",
    })
}
