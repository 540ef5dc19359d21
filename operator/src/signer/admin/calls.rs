//! nsecbunkerd's methods: params by position, results as JSON inside of a string.
//!
//! Failure policy: a result of another shape than the method's is [`SignerError::Unexpected`], never
//! an empty list: a revoked client must not look like a live one, nor a key that is there like none.

use bitspire_shared::ids::PubKey;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use nostr::Keys;
use nostr::nips::nip19::ToBech32 as _;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::{
    Abilities, BunkerAdmin, BunkerKey, BunkerPolicy, BunkerRule, BunkerToken, BunkerUser, NewRule,
    PolicyChange, SignerError, SignerResult, Uses, iso,
};
use super::{AdminClient, Effect};

/// A time as ISO text or in seconds.
fn time(value: &Value) -> Option<Unix> {
    value.as_str().and_then(iso::parse).or_else(|| value.as_u64().map(Unix))
}

/// A number as a number or as text.
fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

#[derive(Deserialize)]
struct WireUser {
    id: Value,
    pubkey: PubKey,
    /// The key's name on nsecbunkerd, which has the client's in the description.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, rename = "createdAt")]
    created_at: Value,
    #[serde(default, rename = "lastUsedAt")]
    last_used_at: Value,
    #[serde(default, rename = "revokedAt")]
    revoked_at: Value,
}

#[derive(Deserialize)]
struct WirePolicy {
    id: i64,
    name: String,
    #[serde(default)]
    expires_at: Value,
    #[serde(default)]
    rules: Vec<WireRule>,
}

#[derive(Deserialize)]
struct WireRule {
    method: String,
    #[serde(default)]
    kind: Value,
    #[serde(default)]
    max_usage_count: Option<u64>,
    #[serde(default)]
    current_usage_count: Option<u64>,
}

#[derive(Deserialize)]
struct WireToken {
    id: i64,
    #[serde(default)]
    client_name: String,
    #[serde(default)]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    policy_name: Option<String>,
    #[serde(default)]
    expires_at: Value,
    #[serde(default)]
    redeemed_at: Value,
    #[serde(default)]
    redeemed_by: Option<String>,
}

impl WireToken {
    /// The secret is what stands behind `#`.
    fn checked(self) -> Option<BunkerToken> {
        let secret = match self.token.as_deref() {
            None => None,
            Some(text) => {
                let (_, secret) = text.split_once('#')?;
                Some(BunkerSecret::new(secret).ok()?)
            }
        };
        let known = |value: &Value| value.is_null() || time(value).is_some();
        if !known(&self.expires_at) || !known(&self.redeemed_at) {
            return None;
        }
        Some(BunkerToken {
            id: self.id,
            client_name: self.client_name,
            secret,
            policy: self.policy_name,
            expires_at: time(&self.expires_at),
            redeemed_at: time(&self.redeemed_at),
            redeemed_by: self.redeemed_by,
        })
    }
}

/// A rule as it goes out; the name of its cap differs from call to call. A rule for every kind is
/// said, never left to be understood.
fn written(NewRule { rule, most }: &NewRule, cap: &str) -> Value {
    let mut written = json!(rule);
    if rule.method == "sign_event" && rule.kind.is_none() {
        written["kind"] = "all".into();
    }
    if let Some(most) = most {
        written[cap] = (*most).into();
    }
    written
}

impl BunkerAdmin for AdminClient {
    fn ping(&self) -> SignerResult<'_, ()> {
        Box::pin(async move { self.call(Effect::Reads, "ping", vec![]).await.map(|_| ()) })
    }

    fn keys(&self) -> SignerResult<'_, Vec<BunkerKey>> {
        Box::pin(self.all_keys())
    }

    fn key(&self, name: String) -> SignerResult<'_, Option<BunkerKey>> {
        Box::pin(async move { self.one_key(&name).await })
    }

    fn create_key(&self, name: String, key: Keys) -> SignerResult<'_, PubKey> {
        Box::pin(async move {
            #[derive(Deserialize)]
            struct Wire {
                npub: String,
            }
            let (method, expected) = ("create_new_key", "the key's npub");
            let unexpected = SignerError::Unexpected { method, expected };
            // nsecbunkerd overwrites in silence
            if self.one_key(&name).await?.is_some() {
                let reason = format!("key {name} exists already: take another name");
                return Err(SignerError::Refused { method, reason });
            }
            let nsec =
                Zeroizing::new(key.secret_key().to_bech32().map_err(|_| unexpected.clone())?);
            let passphrase = self.0.passphrase.as_ref().map_or("", |word| word.as_str());
            let params = vec![name.into(), passphrase.into(), nsec.as_str().into()];
            let text = self.call(Effect::Changes, method, params).await?;
            let wire: Wire = serde_json::from_str(&text).map_err(|_| unexpected.clone())?;
            let got = PubKey::from_hex_or_npub(&wire.npub).map_err(|_| unexpected.clone())?;
            if got.nostr() == key.public_key() { Ok(got) } else { Err(unexpected) }
        })
    }

    fn users(&self, key_name: String) -> SignerResult<'_, Vec<BunkerUser>> {
        Box::pin(async move {
            let (method, expected) = ("get_key_users", "a list of users");
            let users: Vec<WireUser> = self.read(method, vec![key_name.into()], expected).await?;
            let users = users.into_iter().map(|user| {
                let revoked_at = time(&user.revoked_at);
                // a time that cannot be read must not make a revoked client a live one
                if !user.revoked_at.is_null() && revoked_at.is_none() {
                    return None;
                }
                Some(BunkerUser {
                    id: text_of(&user.id)?,
                    key: user.pubkey,
                    name: user.description.or(user.name),
                    created_at: time(&user.created_at),
                    last_used_at: time(&user.last_used_at),
                    revoked_at,
                })
            });
            users.collect::<Option<_>>().ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn unlock(&self, name: String) -> SignerResult<'_, ()> {
        Box::pin(async move {
            let method = "unlock_key";
            let refused = |reason: &str| SignerError::Refused { method, reason: reason.into() };
            // a second call would start a second responder for the same key
            match self.one_key(&name).await? {
                None => return Err(refused("there is no such key")),
                Some(BunkerKey { key: Some(_), .. }) => return Ok(()),
                Some(_) => {}
            }
            let Some(passphrase) = &self.0.passphrase else {
                return Err(refused(
                    "its passphrase is not known here: set bunker.passphrase_file, or unlock it by \
                     hand",
                ));
            };
            let params = vec![name.as_str().into(), passphrase.as_str().into()];
            let asked = self.change(method, params).await;
            match self.one_key(&name).await? {
                Some(BunkerKey { key: Some(_), .. }) => Ok(()),
                _ => asked.and(Err(refused("the key is as locked as before"))),
            }
        })
    }

    fn revoke_user(&self, id: String) -> SignerResult<'_, ()> {
        Box::pin(self.change("revoke_user", vec![id.into()]))
    }

    fn policies(&self) -> SignerResult<'_, Vec<BunkerPolicy>> {
        Box::pin(async move {
            let (method, expected) = ("get_policies", "a list of policies");
            let policies: Vec<WirePolicy> = self.read(method, vec![], expected).await?;
            let rule = |rule: WireRule| {
                let kind = match text_of(&rule.kind).filter(|kind| kind != "all") {
                    Some(kind) => Some(kind.parse().ok()?),
                    None => None,
                };
                Some(BunkerRule { method: rule.method, kind })
            };
            let policy = |policy: WirePolicy| {
                let uses = policy.rules.iter().map(|rule| Uses {
                    so_far: rule.current_usage_count.unwrap_or(0),
                    most: rule.max_usage_count,
                });
                let (uses, expires_at) = (uses.collect(), time(&policy.expires_at));
                let rules = policy.rules.into_iter().map(rule).collect::<Option<_>>()?;
                Some(BunkerPolicy { id: policy.id, name: policy.name, rules, uses, expires_at })
            };
            let policies = policies.into_iter().map(policy).collect::<Option<_>>();
            policies.ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn create_policy(
        &self,
        name: String,
        rules: Vec<NewRule>,
        expires_at: Option<Unix>,
    ) -> SignerResult<'_, ()> {
        let rules: Value = rules.iter().map(|rule| written(rule, "use_count")).collect();
        let mut policy = json!({"name": name, "rules": rules});
        if let Some(end) = expires_at {
            policy["expires_at"] = end.to_iso().into();
        }
        Box::pin(self.change("create_new_policy", vec![policy.to_string().into()]))
    }

    fn add_rule(&self, policy_id: i64, rule: NewRule) -> SignerResult<'_, ()> {
        let param = json!({"policyId": policy_id, "rule": written(&rule, "maxUsageCount")});
        Box::pin(self.change("add_policy_rule", vec![param.to_string().into()]))
    }

    fn change_policy(&self, policy_id: i64, change: PolicyChange) -> SignerResult<'_, ()> {
        let (method, param) = match change {
            PolicyChange::Ends(end) => {
                let end = end.map(Unix::to_iso);
                ("end_policy", json!({"policyId": policy_id, "expires_at": end}))
            }
            PolicyChange::Cap { rule, most } => {
                let rule = written(&NewRule { rule, most: Some(most) }, "maxUsageCount");
                ("cap_policy_rule", json!({"policyId": policy_id, "rule": rule}))
            }
        };
        Box::pin(self.change(method, vec![param.to_string().into()]))
    }

    fn create_token(
        &self,
        key_name: String,
        client_name: String,
        policy_id: i64,
        hours: u32,
    ) -> SignerResult<'_, ()> {
        let params = vec![key_name.into(), client_name.into(), policy_id.into(), hours.into()];
        Box::pin(self.change("create_new_token", params))
    }

    fn tokens(&self, key_name: String) -> SignerResult<'_, Vec<BunkerToken>> {
        Box::pin(async move {
            let (method, expected) = ("get_key_tokens", "a list of tokens");
            let tokens: Vec<WireToken> = self.read(method, vec![key_name.into()], expected).await?;
            let tokens = tokens.into_iter().map(WireToken::checked).collect::<Option<_>>();
            tokens.ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn revoke_token(&self, id: i64) -> SignerResult<'_, ()> {
        Box::pin(self.change("revoke_token", vec![json!({"tokenId": id}).to_string().into()]))
    }

    fn extend_user(&self, id: String, until: Unix) -> SignerResult<'_, ()> {
        Box::pin(async move {
            if !self.find_abilities().await?.ends_grants {
                return Ok(());
            }
            let method = "extend_user";
            let refused = |_| SignerError::Refused { method, reason: format!("no user {id}") };
            let id: i64 = id.parse().map_err(refused)?;
            let param = json!({"userId": id, "expires_at": until.to_iso()});
            self.change(method, vec![param.to_string().into()]).await
        })
    }

    fn audit(&self, limit: u32) -> SignerResult<'_, Value> {
        Box::pin(self.read("get_audit", vec![limit.into()], "the logs"))
    }

    fn abilities(&self) -> SignerResult<'_, Abilities> {
        Box::pin(self.find_abilities())
    }
}
