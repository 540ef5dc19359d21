//! Administrators' requests as typed calls.
//!
//! Promise: what is read is what nsecbunkerd's clients write, params by position, numbers as numbers
//! or as text. Nothing is guessed that would grant more: a rule for `sign_event` names its kind, or
//! `"all"`.
//!
//! Failure policy: an error says what was expected of which param, and never repeats a param that
//! may be a secret.

use bitspire_shared::nip46::message::{Method, Request};
use bitspire_shared::time::Unix;
use nostr::{Keys, SecretKey};
use serde::Deserialize;
use serde_json::Value;

use crate::ids::{BunkerTokenId, GrantId, PolicyId};
use crate::signer::iso;

/// Longest name of a key or policy, in characters.
const MAX_NAME: usize = 100;
/// Longest name of a client, in characters.
const MAX_CLIENT: usize = 200;
/// Most rules of one policy.
const MAX_RULES: usize = 100;
/// Longest life of a token: a hundred years.
const MAX_HOURS: u32 = 876_000;
/// Most entries of each log in one answer, which must fit into 64 kB.
const MAX_AUDIT: u32 = 40;

/// A rule that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewRule {
    pub(super) method: Method,
    pub(super) kind: Option<u16>,
    pub(super) max: Option<u64>,
}

/// What an administrator wants.
#[derive(Debug)]
pub(super) enum Call {
    Ping,
    Describe,
    Keys { skip: u32, name: Option<String> },
    CreateKey { name: String, given: Option<Keys> },
    UnlockKey { name: String },
    Users { key: String },
    RevokeUser { id: GrantId },
    ExtendUser { id: GrantId, until: Unix },
    CreatePolicy { name: String, expires_at: Option<Unix>, rules: Vec<NewRule> },
    Policies,
    CreateToken { key: String, client: String, policy: PolicyId, hours: Option<u32> },
    Tokens { key: String },
    AddRule { policy: PolicyId, rule: NewRule },
    EndPolicy { policy: PolicyId, expires_at: Option<Unix> },
    CapRule { policy: PolicyId, rule: NewRule, most: u64 },
    RevokeToken { id: BunkerTokenId },
    Audit { limit: u32 },
}

impl Call {
    /// Reads a request.
    pub(super) fn read(request: &Request) -> Result<Self, String> {
        let params = Params(request);
        Ok(match request.method.as_str() {
            "ping" => Self::Ping,
            "describe" => Self::Describe,
            "get_keys" => Self::Keys {
                skip: params.number(0, "how many to skip")?.unwrap_or(0),
                name: params.get(1).map(str::to_owned),
            },
            "create_new_key" => params.create_key()?,
            "unlock_key" => Self::UnlockKey { name: params.name(0, "a key's name")? },
            "get_key_users" => Self::Users { key: params.name(0, "a key's name")? },
            "revoke_user" => {
                let id = params.number(0, "the id of a key's user")?;
                Self::RevokeUser { id: GrantId(id.ok_or("expected the id of a key's user")?) }
            }
            "extend_user" => params.extend_user()?,
            "create_new_policy" => params.create_policy()?,
            "get_policies" => Self::Policies,
            "create_new_token" => params.create_token()?,
            "get_key_tokens" => Self::Tokens { key: params.name(0, "a key's name")? },
            "add_policy_rule" => {
                let (policy, rule) =
                    params.rule("{policyId, rule: {method, kind?, maxUsageCount?}}")?;
                Self::AddRule { policy, rule }
            }
            "end_policy" => params.end_policy()?,
            "cap_policy_rule" => {
                let what = "{policyId, rule: {method, kind?, maxUsageCount}}";
                let (policy, rule) = params.rule(what)?;
                let most = rule.max.ok_or_else(|| params.expected(what))?;
                Self::CapRule { policy, rule, most }
            }
            "revoke_token" => Self::RevokeToken { id: params.token()? },
            "get_audit" => {
                let limit = params.number(0, "how many entries")?.unwrap_or(MAX_AUDIT);
                Self::Audit { limit: limit.min(MAX_AUDIT) }
            }
            other => {
                let name: String = other.chars().take(40).collect();
                return Err(format!("unknown method {name:?}"));
            }
        })
    }
}

/// Params by position; an empty text is none.
struct Params<'a>(&'a Request);

impl Params<'_> {
    fn get(&self, at: usize) -> Option<&str> {
        self.0.params.get(at)?.as_deref().filter(|text| !text.is_empty())
    }

    fn expected(&self, what: &str) -> String {
        format!("{}: expected {what}", self.0.method.chars().take(40).collect::<String>())
    }

    fn number<T: std::str::FromStr>(&self, at: usize, what: &str) -> Result<Option<T>, String> {
        self.get(at).map(str::parse).transpose().map_err(|_| self.expected(what))
    }

    fn name(&self, at: usize, what: &str) -> Result<String, String> {
        self.get(at).map(str::to_owned).ok_or_else(|| self.expected(what))
    }

    fn create_key(&self) -> Result<Call, String> {
        let name = self.name(0, "a name for the key")?;
        if !is_name(&name) {
            return Err(self.expected("a name of 1 to 100 visible ASCII characters"));
        }
        if self.get(1).is_some() {
            return Err(self.expected(
                "no passphrase: this bunker seals its keys with the machine secret and needs no \
                 unlocking",
            ));
        }
        let given = self.get(2).map(SecretKey::parse).transpose();
        let given = given.map_err(|_| self.expected("an nsec or 64 hex characters"))?;
        Ok(Call::CreateKey { name, given: given.map(Keys::new) })
    }

    fn create_policy(&self) -> Result<Call, String> {
        #[derive(Deserialize)]
        struct Wire {
            name: String,
            #[serde(default)]
            expires_at: Option<Value>,
            rules: Vec<WireRule>,
        }
        let what = "a policy as JSON: {name, expires_at?, rules: [{method, kind, use_count?}]}";
        let json = self.get(0).ok_or_else(|| self.expected(what))?;
        let wire: Wire = serde_json::from_str(json).map_err(|_| self.expected(what))?;
        if !is_name(&wire.name) {
            return Err(self.expected("a name of 1 to 100 visible ASCII characters"));
        }
        if wire.rules.is_empty() || wire.rules.len() > MAX_RULES {
            return Err(self.expected(&format!("1 to {MAX_RULES} rules")));
        }
        let expires_at = match wire.expires_at {
            None | Some(Value::Null) => None,
            Some(value) => {
                let time = value.as_str().and_then(iso::parse);
                Some(time.ok_or_else(|| self.expected("expires_at like 2026-12-31T00:00:00Z"))?)
            }
        };
        let rules = wire.rules.into_iter().map(WireRule::read).collect::<Result<_, _>>();
        let rules = rules.map_err(|what| self.expected(what))?;
        Ok(Call::CreatePolicy { name: wire.name, expires_at, rules })
    }

    fn create_token(&self) -> Result<Call, String> {
        let key = self.name(0, "a key's name")?;
        let client: String = self.name(1, "a name for the client")?;
        if client.chars().count() > MAX_CLIENT || client.chars().any(char::is_control) {
            return Err(self.expected("a client's name of at most 200 characters"));
        }
        let what = "a policy's id";
        let policy = self.number(2, what)?.ok_or_else(|| self.expected(what))?;
        let hours: Option<u32> = self.number(3, "hours")?;
        if hours.is_some_and(|hours| hours == 0 || hours > MAX_HOURS) {
            return Err(self.expected(&format!("1 to {MAX_HOURS} hours")));
        }
        Ok(Call::CreateToken { key, client, policy: PolicyId(policy), hours })
    }

    fn rule(&self, form: &str) -> Result<(PolicyId, NewRule), String> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(rename = "policyId")]
            policy: i64,
            rule: WireRule,
        }
        let what = || self.expected(&format!("JSON: {form}"));
        let json = self.get(0).ok_or_else(what)?;
        let wire: Wire = serde_json::from_str(json).map_err(|_| what())?;
        let rule = wire.rule.read().map_err(|what| self.expected(what))?;
        Ok((PolicyId(wire.policy), rule))
    }

    /// No end is said as `null`: one that was left out would grant more.
    fn end_policy(&self) -> Result<Call, String> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(rename = "policyId")]
            policy: i64,
            expires_at: Value,
        }
        let what = "JSON: {policyId, expires_at: null, or such as 2026-12-31T00:00:00Z}";
        let wire = self.get(0).and_then(|json| serde_json::from_str::<Wire>(json).ok());
        let Wire { policy, expires_at } = wire.ok_or_else(|| self.expected(what))?;
        let expires_at = match expires_at {
            Value::Null => None,
            Value::String(text) => Some(iso::parse(&text).ok_or_else(|| self.expected(what))?),
            _ => return Err(self.expected(what)),
        };
        Ok(Call::EndPolicy { policy: PolicyId(policy), expires_at })
    }

    fn extend_user(&self) -> Result<Call, String> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(rename = "userId")]
            id: i64,
            expires_at: String,
        }
        let what = "JSON: {userId, expires_at: such as 2026-12-31T00:00:00Z}";
        let wire = self.get(0).and_then(|json| serde_json::from_str::<Wire>(json).ok());
        let read = |wire: Wire| {
            Some(Call::ExtendUser { id: GrantId(wire.id), until: iso::parse(&wire.expires_at)? })
        };
        wire.and_then(read).ok_or_else(|| self.expected(what))
    }

    fn token(&self) -> Result<BunkerTokenId, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Id(i64),
            Named {
                #[serde(rename = "tokenId")]
                id: i64,
            },
        }
        let what = "a token's id, or {tokenId} as JSON";
        let json = self.get(0).ok_or_else(|| self.expected(what))?;
        match serde_json::from_str(json).map_err(|_| self.expected(what))? {
            Wire::Id(id) | Wire::Named { id } => Ok(BunkerTokenId(id)),
        }
    }
}

/// A rule as it is written; the use count has two names.
#[derive(Deserialize)]
struct WireRule {
    method: String,
    #[serde(default)]
    kind: Option<Value>,
    #[serde(default, alias = "maxUsageCount", alias = "max_usage_count")]
    use_count: Option<u64>,
}

impl WireRule {
    fn read(self) -> Result<NewRule, &'static str> {
        let method = match self.method.parse() {
            Ok(method @ (Method::SignEvent | Method::Nip44Encrypt | Method::Nip44Decrypt)) => {
                method
            }
            _ => return Err("rules for sign_event, nip44_encrypt or nip44_decrypt"),
        };
        let kind = match (method, &self.kind) {
            (Method::SignEvent, Some(Value::String(text))) if text == "all" => None,
            (Method::SignEvent, Some(value)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Some(text.parse().map_err(|_| "a kind from 0 to 65535, or \"all\"")?)
            }
            (Method::SignEvent, None) => return Err("a kind, or \"all\", for sign_event"),
            // some clients write a kind into every rule, since upstream does not take one without
            _ => None,
        };
        Ok(NewRule { method, kind, max: self.use_count })
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(method: &str, params: Value) -> Result<Call, String> {
        let json = json!({"id": "a", "method": method, "params": params}).to_string();
        Call::read(&Request::parse(&json).unwrap())
    }

    /// Loss prevented: a client of other software cannot administer this bunker, or gets something
    /// else than it asked for.
    #[test]
    fn what_the_clients_of_nsecbunkerd_write_is_read() {
        let policy = json!({"name": "p", "expires_at": "2026-01-01T00:00:00.000Z", "rules": [
            {"method": "sign_event", "kind": 1, "use_count": 3},
            {"method": "sign_event", "kind": "30078"},
            {"method": "sign_event", "kind": "all"},
            {"method": "nip44_encrypt", "kind": 4},
        ]});
        let rule = |method, kind, max| NewRule { method, kind, max };
        match read("create_new_policy", json!([policy.to_string()])) {
            Ok(Call::CreatePolicy { name, expires_at, rules }) => {
                assert_eq!((name.as_str(), expires_at), ("p", Some(Unix(1_767_225_600))));
                assert_eq!(
                    rules,
                    [
                        rule(Method::SignEvent, Some(1), Some(3)),
                        rule(Method::SignEvent, Some(30_078), None),
                        rule(Method::SignEvent, None, None),
                        rule(Method::Nip44Encrypt, None, None),
                    ]
                );
            }
            other => panic!("{other:?}"),
        }
        for id in [json!(7), json!("7")] {
            let token = read("create_new_token", json!(["k", "c", id, 720]));
            assert!(matches!(
                token,
                Ok(Call::CreateToken { policy: PolicyId(7), hours: Some(720), .. })
            ));
            assert!(matches!(
                read("revoke_user", json!([id])),
                Ok(Call::RevokeUser { id: GrantId(7) })
            ));
            assert!(matches!(
                read("revoke_token", json!([id])),
                Ok(Call::RevokeToken { id: BunkerTokenId(7) })
            ));
        }
        let named = json!([json!({"tokenId": 7}).to_string()]);
        assert!(matches!(
            read("revoke_token", named),
            Ok(Call::RevokeToken { id: BunkerTokenId(7) })
        ));
        let rule =
            json!({"policyId": 3, "rule": {"method": "sign_event", "kind": 1, "maxUsageCount": 2}});
        match read("add_policy_rule", json!([rule.to_string()])) {
            Ok(Call::AddRule { policy: PolicyId(3), rule }) => assert_eq!(rule.max, Some(2)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(read("get_keys", json!([])), Ok(Call::Keys { skip: 0, name: None })));
    }

    /// Loss prevented: a policy that allows more than its maker wrote, or an error that shows a
    /// private key in a log.
    #[test]
    fn what_is_unclear_is_refused_without_repeating_it() {
        let policy = |rule: Value| json!([json!({"name": "p", "rules": [rule]}).to_string()]);
        let nsec = "5e".repeat(31);
        for (method, params) in [
            ("create_new_policy", policy(json!({"method": "sign_event"}))),
            ("create_new_policy", policy(json!({"method": "sign_event", "kind": null}))),
            ("create_new_policy", policy(json!({"method": "sign_event", "kind": 65_536}))),
            ("create_new_policy", policy(json!({"method": "nip04_decrypt"}))),
            ("create_new_policy", policy(json!({"method": "connect"}))),
            ("create_new_policy", json!([json!({"name": "p", "rules": []}).to_string()])),
            (
                "create_new_policy",
                json!([json!({"name": "a b", "rules": [{"method": "sign_event", "kind": 1}]})
                    .to_string()]),
            ),
            ("create_new_policy", json!([])),
            ("create_new_key", json!(["a b"])),
            ("create_new_key", json!(["k", "passphrase"])),
            ("create_new_key", json!(["k", "", nsec.clone()])),
            ("create_new_token", json!(["k", "c", 1, 0])),
            ("create_new_token", json!(["k", "c", 1, 876_001])),
            ("create_new_token", json!(["k", "c", "x"])),
            ("create_new_token", json!(["k", "c\n", 1])),
            ("revoke_user", json!([])),
            ("extend_user", json!([1])),
            ("extend_user", json!([json!({"userId": 1, "expires_at": "soon"}).to_string()])),
            ("end_policy", json!([json!({"policyId": 1}).to_string()])),
            ("end_policy", json!([json!({"policyId": 1, "expires_at": "soon"}).to_string()])),
            ("end_policy", json!([json!({"policyId": 1, "expires_at": 5}).to_string()])),
            (
                "cap_policy_rule",
                json!([
                    json!({"policyId": 1, "rule": {"method": "sign_event", "kind": 1}}).to_string()
                ]),
            ),
            ("revoke_token", json!(["x"])),
            ("make_coffee", json!([])),
        ] {
            let refused = read(method, params.clone());
            let why = refused.expect_err(&format!("{method} {params}"));
            assert!(!why.contains(&nsec) && !why.contains("passphrase\""), "{why}");
        }
    }
}
