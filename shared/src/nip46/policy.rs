//! What a client may ask of a key: tokens, grants and policies.
//!
//! Promise: pure, and asked anew at EVERY request: a grant that was revoked, a token or policy that
//! has ended, a rule that is used up stop the next request, not only the next connection. Nothing
//! is allowed that no rule names.
//!
//! A [`Token`] is what the operator hands out, once; its first `connect` turns it into the
//! [`Grant`] of that one client key, which ends when the token does. A revoked client key stays
//! revoked: a new pairing brings a new key.
//!
//! Failure policy: each refusal is a [`Deny`] whose text goes back to the client. The shell counts
//! a use ([`Policy::count`]) durably before it signs.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::Method;
use super::server::Call;
use crate::error::{Classified, Kind};
use crate::ids::{Digest, PubKey};
use crate::seed::BunkerSecret;
use crate::time::Unix;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Deny {
    /// No grant for this client key.
    #[error("Not authorized: this client is not connected; connect with a secret")]
    NotConnected,
    /// Not the secret of any token. The text is rust-nostr's; clients react to it.
    #[error("Secret not match")]
    SecretNotMatch,
    /// Another client was there first. The text is nsecbunkerd's; clients react to it.
    #[error("Token already redeemed")]
    AlreadyRedeemed,
    /// By the operator.
    #[error("Not authorized: this client was revoked")]
    Revoked,
    /// The token, and with it the grant, has ended.
    #[error("Not authorized: the token expired")]
    TokenExpired,
    /// The policy has ended.
    #[error("Not authorized: the policy expired")]
    PolicyExpired,
    /// The grant names another policy than the one at hand.
    #[error("Not authorized: the grant is for another policy")]
    OtherPolicy,
    /// No rule allows it.
    #[error("Not authorized: no rule allows {method}{}", .kind.map(|k| format!(" of kind {k}")).unwrap_or_default())]
    NoRule {
        /// The method.
        method: Method,
        /// The event's kind, for `sign_event`.
        kind: Option<u16>,
    },
    /// Each rule that would allow it is used up.
    #[error("Not authorized: {method} was used {max} times, which is all that the policy allows")]
    UsedUp {
        /// The method.
        method: Method,
        /// The cap of the last such rule.
        max: u64,
    },
    /// Nothing that could be allowed.
    #[error("Not authorized: expected a known method with fitting params")]
    NotACall,
}

impl Classified for Deny {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// One thing that a policy allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The method.
    pub method: Method,
    /// For `sign_event` the event kind; `None` is every kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<u16>,
    /// How often, over all clients of the policy; `None` is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_usage_count: Option<u64>,
    /// How often already.
    #[serde(default)]
    pub current_usage_count: u64,
}

impl Rule {
    const fn new(method: Method, kind: Option<u16>) -> Self {
        Self { method, kind, max_usage_count: None, current_usage_count: 0 }
    }

    fn covers(&self, method: Method, kind: Option<u16>) -> bool {
        self.method == method && (self.kind.is_none() || self.kind == kind)
    }

    fn used_up(&self) -> Option<u64> {
        self.max_usage_count.filter(|max| self.current_usage_count >= *max)
    }
}

/// A named list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name, by which it is found.
    pub name: String,
    /// The last second at which it allows anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Unix>,
    /// What it allows.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// The name of the policy that every machine is paired under.
    pub const SPIRE: &str = "spirekeeper-spire";
    /// The event kinds that a machine signs through its bunker.
    pub const SPIRE_KINDS: [u16; 5] = [21_000, 21_001, 21_002, 21_003, 30_078];

    /// The policy of a machine: its event kinds, NIP-44 both ways, nothing else, no end of its own.
    #[must_use]
    pub fn spire() -> Self {
        let sign = Self::SPIRE_KINDS.map(|kind| Rule::new(Method::SignEvent, Some(kind)));
        let nip44 = [Method::Nip44Encrypt, Method::Nip44Decrypt].map(|m| Rule::new(m, None));
        let rules = sign.into_iter().chain(nip44).collect();
        Self { name: Self::SPIRE.into(), expires_at: None, rules }
    }

    /// Notes one use of the rule that [`authorize`] named; saturating.
    pub fn count(&mut self, allow: Allow) {
        if let Some(rule) = allow.rule.and_then(|at| self.rules.get_mut(at)) {
            rule.current_usage_count = rule.current_usage_count.saturating_add(1);
        }
    }
}

/// A one-shot right to become a client of a key. Holds only the secret's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the secret's text.
    pub hash: Digest,
    /// Name of the policy that its client gets.
    pub policy: String,
    /// The last second at which it, and the grant made of it, hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Unix>,
    /// The client that used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redeemed_by: Option<PubKey>,
}

/// What one client key may do with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The client.
    pub client: PubKey,
    /// Name of its policy.
    pub policy: String,
    /// The last second at which it holds: that of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Unix>,
    /// When it was revoked; it does not matter when, only that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Unix>,
}

impl Grant {
    fn live(&self, client: &PubKey, now: Unix) -> Result<(), Deny> {
        if self.client != *client {
            return Err(Deny::NotConnected);
        }
        if self.revoked_at.is_some() {
            return Err(Deny::Revoked);
        }
        if ended(self.expires_at, now) {
            return Err(Deny::TokenExpired);
        }
        Ok(())
    }
}

/// A request is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Index of the rule that allows it; `None` for what every live grant may do.
    pub rule: Option<usize>,
}

/// Decides on a request of `client`, whose grant for this key and its policy the shell looked up.
///
/// Ping, `get_public_key`, `switch_relays`, `logout` and a repeated `connect` need a live grant
/// alone; the rest needs a rule.
///
/// # Errors
/// The first [`Deny`] that applies: grant, its end, the policy's end, the rules.
pub fn authorize(
    call: &Call,
    client: &PubKey,
    grant: Option<&Grant>,
    policy: &Policy,
    now: Unix,
) -> Result<Allow, Deny> {
    let grant = grant.ok_or(Deny::NotConnected)?;
    grant.live(client, now)?;
    if grant.policy != policy.name {
        return Err(Deny::OtherPolicy);
    }
    if ended(policy.expires_at, now) {
        return Err(Deny::PolicyExpired);
    }
    let (method, kind) = match call {
        Call::Connect { .. }
        | Call::Ping
        | Call::GetPublicKey
        | Call::SwitchRelays
        | Call::Logout => return Ok(Allow { rule: None }),
        Call::SignEvent(event) => (Method::SignEvent, Some(event.kind.as_u16())),
        Call::Nip44Encrypt { .. } => (Method::Nip44Encrypt, None),
        Call::Nip44Decrypt { .. } => (Method::Nip44Decrypt, None),
        Call::Nip04Encrypt { .. } => (Method::Nip04Encrypt, None),
        Call::Nip04Decrypt { .. } => (Method::Nip04Decrypt, None),
        Call::Unknown { .. } | Call::Invalid { .. } => return Err(Deny::NotACall),
    };
    let mut deny = Deny::NoRule { method, kind };
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, r)| r.covers(method, kind)) {
        match rule.used_up() {
            None => return Ok(Allow { rule: Some(index) }),
            Some(max) => deny = Deny::UsedUp { method, max },
        }
    }
    Err(deny)
}

/// What a `connect` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The client is known: nothing changes. So a lost `ack` can be asked for again.
    Known,
    /// The token is used up now, and this is the grant: both are stored before the `ack`.
    Redeemed(Grant),
}

/// Decides on a `connect`. `token` is the one that the shell found by the secret's hash, `grant`
/// the one of this client for this key.
///
/// # Errors
/// The [`Deny`] that applies.
pub fn admit(
    client: &PubKey,
    secret: Option<&BunkerSecret>,
    token: Option<&Token>,
    grant: Option<&Grant>,
    now: Unix,
) -> Result<Admission, Deny> {
    if let Some(grant) = grant {
        return grant.live(client, now).map(|()| Admission::Known);
    }
    let secret = secret.ok_or(Deny::NotConnected)?;
    let token = token.filter(|token| token.hash == secret.hash()).ok_or(Deny::SecretNotMatch)?;
    if token.redeemed_by.is_some() {
        return Err(Deny::AlreadyRedeemed);
    }
    if ended(token.expires_at, now) {
        return Err(Deny::TokenExpired);
    }
    Ok(Admission::Redeemed(Grant {
        client: *client,
        policy: token.policy.clone(),
        expires_at: token.expires_at,
        revoked_at: None,
    }))
}

fn ended(expires_at: Option<Unix>, now: Unix) -> bool {
    expires_at.is_some_and(|end| now > end)
}

#[cfg(test)]
mod tests {
    use nostr::{Kind as EventKind, Timestamp, UnsignedEvent};
    use proptest::prelude::*;

    use super::super::message::Plain;
    use super::*;
    use crate::test_keys::key;

    const NOW: Unix = Unix(1_000);

    fn sign(kind: u16) -> Call {
        let kind = EventKind::from(kind);
        let event = UnsignedEvent::new(key(1).nostr(), Timestamp::from(1), kind, [], "");
        Call::SignEvent(Box::new(event))
    }

    fn grant() -> Grant {
        let policy = Policy::SPIRE.into();
        Grant { client: key(9), policy, expires_at: Some(NOW), revoked_at: None }
    }

    fn decide(call: &Call, grant: &Grant, policy: &Policy, now: Unix) -> Result<Allow, Deny> {
        authorize(call, &key(9), Some(grant), policy, now)
    }

    fn secret() -> BunkerSecret {
        BunkerSecret::new("hush").unwrap()
    }

    fn token() -> Token {
        let policy = Policy::SPIRE.into();
        Token { hash: secret().hash(), policy, expires_at: Some(NOW), redeemed_by: None }
    }

    /// Loss prevented: a machine's connection that signs anything but a machine's events, such as
    /// a profile, a note, or a relay list in the operator's fleet.
    #[test]
    fn a_machine_may_sign_its_own_kinds_and_nothing_else() {
        let policy = Policy::spire();
        for kind in 0..=u16::MAX {
            let allowed = decide(&sign(kind), &grant(), &policy, NOW).is_ok();
            assert_eq!(allowed, [21_000, 21_001, 21_002, 21_003, 30_078].contains(&kind), "{kind}");
        }
        let (peer, payload) = (key(2), String::from("x"));
        let plaintext = Plain::new("x".into());
        for (call, allowed) in [
            (Call::Nip44Encrypt { peer, plaintext: plaintext.clone() }, true),
            (Call::Nip44Decrypt { peer, payload: payload.clone() }, true),
            (Call::Nip04Encrypt { peer, plaintext }, false),
            (Call::Nip04Decrypt { peer, payload }, false),
            (Call::Ping, true),
            (Call::GetPublicKey, true),
            (Call::SwitchRelays, true),
            (Call::Logout, true),
            (Call::Unknown { method: "x".into() }, false),
        ] {
            assert_eq!(decide(&call, &grant(), &policy, NOW).is_ok(), allowed, "{call:?}");
        }
    }

    /// Loss prevented: a stolen machine that goes on signing after its end or its revocation.
    #[test]
    fn end_and_revocation_hold_at_every_request() {
        let policy = Policy::spire();
        let later = NOW.after(1);
        assert_eq!(decide(&Call::Ping, &grant(), &policy, later), Err(Deny::TokenExpired));
        let revoked = Grant { revoked_at: Some(later), ..grant() };
        assert_eq!(decide(&Call::Ping, &revoked, &policy, NOW), Err(Deny::Revoked));
        let endless = Grant { expires_at: None, ..grant() };
        assert!(decide(&sign(21_000), &endless, &policy, Unix(u64::MAX)).is_ok());
        let ended = Policy { expires_at: Some(Unix(NOW.0 - 1)), ..Policy::spire() };
        assert_eq!(decide(&sign(21_000), &grant(), &ended, NOW), Err(Deny::PolicyExpired));
        let other = Policy { name: "other".into(), ..Policy::spire() };
        assert_eq!(decide(&sign(21_000), &grant(), &other, NOW), Err(Deny::OtherPolicy));
        for (client, found) in [(key(9), None), (key(8), Some(grant()))] {
            let got = authorize(&sign(21_000), &client, found.as_ref(), &policy, NOW);
            assert_eq!(got, Err(Deny::NotConnected));
        }
    }

    /// Loss prevented: a seed that is found in the bin and pairs a second machine.
    #[test]
    fn a_token_is_used_once_and_its_client_may_ask_again() {
        let admit = |client: u8, secret: Option<&BunkerSecret>, token: &Token, grant, now| {
            admit(&key(client), secret, Some(token), grant, now)
        };
        let secret = secret();
        let Ok(Admission::Redeemed(made)) = admit(9, Some(&secret), &token(), None, NOW) else {
            panic!("the token is good");
        };
        assert_eq!(made, grant());
        let used = Token { redeemed_by: Some(key(9)), ..token() };
        assert_eq!(admit(9, Some(&secret), &used, Some(&made), NOW), Ok(Admission::Known));
        assert_eq!(admit(9, None, &used, Some(&made), NOW), Ok(Admission::Known));
        assert_eq!(admit(8, Some(&secret), &used, None, NOW), Err(Deny::AlreadyRedeemed));
        assert_eq!(admit(8, None, &used, None, NOW), Err(Deny::NotConnected));
        let later = NOW.after(1);
        assert_eq!(admit(9, Some(&secret), &token(), None, later), Err(Deny::TokenExpired));
        assert_eq!(admit(9, None, &used, Some(&made), later), Err(Deny::TokenExpired));
        let wrong = BunkerSecret::new("other").unwrap();
        assert_eq!(admit(9, Some(&wrong), &token(), None, NOW), Err(Deny::SecretNotMatch));
        let revoked = Grant { revoked_at: Some(NOW), ..grant() };
        assert_eq!(admit(9, Some(&secret), &token(), Some(&revoked), NOW), Err(Deny::Revoked));
    }

    /// Loss prevented: a policy on disk that another version reads as another policy.
    #[test]
    fn the_stored_form_names_what_the_bunkers_name() {
        let rule = Rule { max_usage_count: Some(3), ..Rule::new(Method::SignEvent, Some(1)) };
        let policy = Policy { name: "p".into(), expires_at: Some(NOW), rules: vec![rule] };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(
            json,
            r#"{"name":"p","expires_at":1000,"rules":[{"method":"sign_event","kind":1,"max_usage_count":3,"current_usage_count":0}]}"#
        );
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
    }

    proptest! {
        /// Loss prevented: a cap that is passed by one use, or by a second rule's cap.
        #[test]
        fn a_capped_policy_allows_the_sum_of_its_caps(
            caps in proptest::collection::vec(0u64..5, 1..4), any_kind: bool,
        ) {
            let kind = (!any_kind).then_some(7);
            let rules = caps.iter().map(|max| Rule {
                max_usage_count: Some(*max), ..Rule::new(Method::SignEvent, kind)
            });
            let mut policy =
                Policy { name: Policy::SPIRE.into(), expires_at: None, rules: rules.collect() };
            let mut used = 0u64;
            while let Ok(allow) = decide(&sign(7), &grant(), &policy, NOW) {
                policy.count(allow);
                used += 1;
                prop_assert!(used <= caps.iter().sum());
            }
            prop_assert_eq!(used, caps.iter().sum::<u64>());
            let max = *caps.last().unwrap();
            let method = Method::SignEvent;
            prop_assert_eq!(
                decide(&sign(7), &grant(), &policy, NOW),
                Err(Deny::UsedUp { method, max })
            );
        }
    }
}
