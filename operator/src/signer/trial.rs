//! A trial of whether what a bunker grants has an end: a grant for a key that is good for nothing
//! else, and a request after its end.
//!
//! Promise: the key has no machine and no money, and its private half is forgotten as soon as the
//! bunker has it. The grant is used once while it is good, so that a refusal later is of its end and
//! of nothing else. What earlier trials left is taken back first.
//!
//! Failure policy: [`ProvisionError`] says why nothing was found out; a bunker that gives no answer
//! has neither signed nor refused.

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use nostr::{Kind, Tag, Timestamp, UnsignedEvent};

use super::policy::ensure_policy;
use super::provision::{ProvisionError, ensure_key, unless_unknown};
use super::{Bunker, BunkerAdmin, BunkerRule, SetupError, Tried};
use crate::ids::CanaryId;

/// The policy and the client of trials, and how their keys' names begin.
pub const NAME: &str = "bitspire-canary";
/// A key serves so many trials: a bunker lists every client that a key ever had in one message.
const PER_KEY: i64 = 50;
/// For how long the grant is good: the shortest time that every bunker can be told.
const HOURS: u32 = 1;
/// The same in seconds.
pub const GOOD_S: u64 = 3_600;
/// The only kind that may be signed, and that machines have signed too.
const DOCUMENT: u16 = 30_078;

/// The name of the key that serves a trial, and of our end's.
#[must_use]
pub fn name(trial: CanaryId) -> String {
    format!("{NAME}-{}", trial.0.div_euclid(PER_KEY))
}

/// Takes back what earlier trials with this key left; a bunker that cannot, keeps it.
///
/// # Errors
/// [`ProvisionError`] where it cannot be listed.
pub async fn tidy(admin: &dyn BunkerAdmin, name: &str) -> Result<(), ProvisionError> {
    let mut left = Vec::new();
    for user in admin.users(name.into()).await? {
        if user.revoked_at.is_none() {
            left.push(admin.revoke_user(user.id).await);
        }
    }
    for token in admin.tokens(name.into()).await? {
        if token.redeemed_at.is_none() {
            left.push(admin.revoke_token(token.id).await);
        }
    }
    for error in left.into_iter().filter_map(Result::err) {
        tracing::info!(event = "canary_left_something", %error);
    }
    Ok(())
}

/// Makes the key of this [`name`], where it is not there, and a grant of one hour that our end's key of
/// the same name uses once.
///
/// # Errors
/// [`SetupError`], also where the grant is refused from the start.
pub async fn grant(bunker: &dyn Bunker, name: &str, now: Unix) -> Result<(), SetupError> {
    let admin = bunker.admin();
    let key = ensure_key(admin, name).await?;
    tidy(admin, name).await?;
    let rule = BunkerRule { method: "sign_event".into(), kind: Some(DOCUMENT) };
    let policy = ensure_policy(admin, NAME, &[rule]).await?;
    unless_unknown(admin.create_token(name.into(), NAME.into(), policy, HOURS).await)?;
    let tokens = admin.tokens(name.into()).await?.into_iter();
    let token = tokens.filter(|token| token.redeemed_at.is_none()).max_by_key(|token| token.id);
    let token = token.ok_or(ProvisionError::NotThere { what: "the token" })?;
    let secret = token.secret()?.clone();
    match bunker.try_sign(name.into(), Some(secret), event(key, now)).await? {
        Tried::Signed => Ok(()),
        Tried::Refused(words) => {
            Err(format!("the bunker refused a grant that was still good: {words}").into())
        }
    }
}

/// Asks for a signature under the grant of [`grant`].
///
/// # Errors
/// [`SetupError`] where the bunker says neither yes nor no.
pub async fn ask(bunker: &dyn Bunker, name: &str, now: Unix) -> Result<Tried, SetupError> {
    let key = bunker.admin().key(name.into()).await?.and_then(|key| key.key);
    let key = key.ok_or(ProvisionError::NotThere { what: "the key" })?;
    bunker.try_sign(name.into(), None, event(key, now)).await
}

fn event(key: PubKey, now: Unix) -> UnsignedEvent {
    let (at, tag) = (Timestamp::from(now.0), Tag::identifier(NAME));
    UnsignedEvent::new(key.nostr(), at, Kind::from(DOCUMENT), [tag], "")
}
