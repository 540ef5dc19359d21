//! A policy in a bunker, found by its name each time, made or mended where that is possible.
//!
//! Promise: what is found allows exactly what was asked for. A policy that allows more is left alone
//! and refused; one that lacks rules (some bunkers stop half-way at a rule without a kind) gets them
//! where the bunker can add rules.
//!
//! Failure policy: [`PolicyError`] names the rules; a call that got no reply is looked up.

use bitspire_shared::error::{Classified, Kind};
use thiserror::Error;

use super::{BunkerAdmin, BunkerRule, NewRule, SignerError};

/// Why there is no such policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The bunker did not do its part.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// What has the name is something else.
    #[error(
        "the bunker's policy {name:?} allows other things than it should (missing: {missing:?}, too \
         much: {beyond:?}): remove it there and try again. A bunker that takes no rules for NIP-44 \
         cannot serve machines: use the embedded one, or a version of nsecbunkerd that has \
         nip44_encrypt, nip44_decrypt and add_policy_rule"
    )]
    Differs {
        /// The policy.
        name: &'static str,
        /// Rules that it lacks.
        missing: String,
        /// Rules that it has and must not have.
        beyond: String,
    },
}

impl Classified for PolicyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Signer(error) => error.kind(),
            Self::Differs { .. } => Kind::Permanent,
        }
    }
}

/// A policy as it was found.
enum Found {
    Same(i64),
    Lacks(i64, Vec<BunkerRule>),
}

/// The id of the policy `name`, which allows exactly `rules`.
///
/// # Errors
/// [`PolicyError`].
pub async fn ensure_policy(
    admin: &dyn BunkerAdmin,
    name: &'static str,
    rules: &[BunkerRule],
) -> Result<i64, PolicyError> {
    let found = match find(admin, name, rules).await? {
        Some(found) => found,
        None => {
            let made = admin.create_policy(name.to_owned(), new_rules(rules), None).await;
            // half of it may be there all the same
            match (find(admin, name, rules).await?, made) {
                (Some(found), _) => found,
                (None, Err(error)) => return Err(error.into()),
                (None, Ok(())) => return Err(not_there().into()),
            }
        }
    };
    let (id, missing) = match found {
        Found::Same(id) => return Ok(id),
        Found::Lacks(id, missing) => (id, missing),
    };
    for rule in &missing {
        match admin.add_rule(id, rule.clone().into()).await {
            Err(error) if error.unknown_method() => {
                let missing = named(&missing);
                return Err(PolicyError::Differs { name, missing, beyond: String::new() });
            }
            // whether it was added shows below
            Err(error) if error.kind() == Kind::Uncertain => {}
            added => added?,
        }
    }
    match find(admin, name, rules).await? {
        Some(Found::Same(id)) => Ok(id),
        Some(Found::Lacks(_, missing)) => {
            let missing = named(&missing);
            Err(PolicyError::Differs { name, missing, beyond: String::new() })
        }
        None => Err(not_there().into()),
    }
}

fn new_rules(rules: &[BunkerRule]) -> Vec<NewRule> {
    rules.iter().cloned().map(NewRule::from).collect()
}

const fn not_there() -> SignerError {
    let (method, expected) = ("get_policies", "the policy that it was told to make");
    SignerError::Unexpected { method, expected }
}

async fn find(
    admin: &dyn BunkerAdmin,
    name: &'static str,
    rules: &[BunkerRule],
) -> Result<Option<Found>, PolicyError> {
    let policies = admin.policies().await?;
    // of several with one name, which nsecbunkerd allows, the one that was made last
    let named_so = policies.into_iter().filter(|policy| policy.name == name);
    let Some(policy) = named_so.max_by_key(|policy| policy.id) else { return Ok(None) };
    let without = |these: &[BunkerRule], those: &[BunkerRule]| -> Vec<BunkerRule> {
        these.iter().filter(|rule| !those.contains(rule)).cloned().collect()
    };
    let missing = without(rules, &policy.rules);
    let beyond = without(&policy.rules, rules);
    if !beyond.is_empty() {
        let (missing, beyond) = (named(&missing), named(&beyond));
        return Err(PolicyError::Differs { name, missing, beyond });
    }
    Ok(Some(match missing.is_empty() {
        true => Found::Same(policy.id),
        false => Found::Lacks(policy.id, missing),
    }))
}

fn named(rules: &[BunkerRule]) -> String {
    let name = |rule: &BunkerRule| match rule.kind {
        Some(kind) => format!("{} {kind}", rule.method),
        None => rule.method.clone(),
    };
    rules.iter().map(name).collect::<Vec<_>>().join(", ")
}
