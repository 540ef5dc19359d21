//! Its administrators' methods.

use bitspire_shared::time::Unix;
use nostr::{Keys, SecretKey, ToBech32 as _};
use serde_json::{Value, json};

use super::{Held, Policy, State, Token, Wire, text};

impl Wire {
    pub(super) fn call(
        &self,
        state: &mut State,
        method: &str,
        params: &Value,
        now: Unix,
    ) -> Result<Value, String> {
        let ok = || Ok(json!(["ok"]));
        match method {
            "ping" => Ok(self.habits.pong.into()),
            "get_keys" => Ok(state
                .keys
                .iter()
                .map(|(name, held)| match state.open.contains(name) {
                    true => json!({
                        "name": name, "npub": held.keys().public_key().to_bech32().unwrap(),
                        "userCount": 0, "tokenCount": 0,
                    }),
                    false => json!({"name": name}),
                })
                .collect()),
            "create_new_key" => {
                let (name, passphrase) = (text(params, 0), text(params, 1));
                if name.is_empty() || passphrase.is_empty() {
                    return Err("Invalid params".into());
                }
                let keys = match params[2].as_str() {
                    Some(nsec) => Keys::new(SecretKey::parse(nsec).unwrap()),
                    None => {
                        state.published.push(name.to_owned());
                        Keys::generate()
                    }
                };
                let npub = keys.public_key().to_bech32().unwrap();
                // whoever had the name has nothing any more
                let secret = keys.secret_key().to_secret_hex();
                let held = Held { secret, passphrase: passphrase.to_owned() };
                state.keys.insert(name.to_owned(), held);
                start(state, name);
                Ok(json!({"npub": npub}))
            }
            "unlock_key" => {
                let (name, passphrase) = (text(params, 0), text(params, 1));
                let known = state.keys.get(name).ok_or("Cannot read properties of undefined")?;
                if known.passphrase != passphrase {
                    return Err("bad decrypt".into());
                }
                start(state, name);
                Ok(json!({"success": true}))
            }
            "get_key_users" => Ok(state
                .users
                .iter()
                .filter(|user| user.key_name == text(params, 0))
                .map(|user| {
                    let conditions = user.conditions.iter().map(|(method, kind)| {
                        json!({"id": 1, "method": method, "kind": kind, "allowed": true})
                    });
                    let mut shown = json!({
                        "id": user.id, "name": user.key_name, "pubkey": user.client,
                        "description": user.name, "createdAt": "2026-01-01T00:00:00.000Z",
                        "signingConditions": conditions.collect::<Value>(),
                    });
                    if user.revoked {
                        shown["revokedAt"] = "2026-01-02T00:00:00.000Z".into();
                    }
                    shown
                })
                .collect()),
            "revoke_user" => {
                let id: i64 = text(params, 0).parse().map_err(|_| "Invalid params")?;
                let user = state.users.iter_mut().find(|user| user.id == id);
                user.ok_or("Record to update not found.")?.revoked = true;
                ok()
            }
            "create_new_policy" => self.new_policy(state, params),
            "get_policies" => Ok(state
                .policies
                .iter()
                .map(|policy| {
                    let rules = policy.rules.iter().map(|(method, kind)| {
                        json!({
                            "method": method, "kind": kind, "max_usage_count": null,
                            "current_usage_count": 0,
                        })
                    });
                    json!({
                        "id": policy.id, "name": policy.name, "description": null,
                        "created_at": "2026-01-01T00:00:00.000Z", "updated_at": null,
                        "expires_at": null, "rules": rules.collect::<Value>(),
                    })
                })
                .collect()),
            "create_new_token" => {
                let policy = params[2].as_i64().ok_or("Invalid params")?;
                if !state.policies.iter().any(|known| known.id == policy) {
                    return Err("Policy not found".into());
                }
                let secret = Keys::generate().secret_key().to_secret_hex();
                let id = i64::try_from(state.tokens.len()).unwrap() + 1;
                let (key_name, client_name) = (text(params, 0).into(), text(params, 1).into());
                let ends = params[3].as_u64().map(|hours| now.after(hours * 3_600));
                state.tokens.push(Token {
                    id,
                    key_name,
                    client_name,
                    secret,
                    policy,
                    ends,
                    redeemed: false,
                    revoked: false,
                });
                ok()
            }
            "get_key_tokens" => {
                let name = text(params, 0);
                if !state.open.iter().any(|open| open == name) {
                    return Ok(json!([]));
                }
                let npub = state.keys[name].keys().public_key().to_bech32().unwrap();
                let tokens = state.tokens.iter().rev();
                Ok(tokens
                    .filter(|token| token.key_name == name && !token.revoked)
                    .map(|token| {
                        let at = token.redeemed.then_some("2026-01-01T00:00:00.000Z");
                        json!({
                            "id": token.id, "key_name": name, "client_name": token.client_name,
                            // shown for ever
                            "token": format!("{npub}#{}", token.secret),
                            "policy_id": token.policy, "policy_name": "p",
                            "created_at": "2026-01-01T00:00:00.000Z", "updated_at": null,
                            "expires_at": token.ends.map(Unix::to_iso), "redeemed_at": at,
                            "redeemed_by": at.map(|_| &token.client_name),
                            "time_until_expiration": 1.5,
                        })
                    })
                    .collect())
            }
            "add_policy_rule" if self.habits.additions => {
                let wanted: Value = serde_json::from_str(text(params, 0)).unwrap();
                let policy = state.policies.iter_mut().find(|p| wanted["policyId"] == p.id);
                let rule = &wanted["rule"];
                let kind = rule.get("kind").map(|kind| kind.to_string());
                let rule = (rule["method"].as_str().unwrap().to_owned(), kind);
                policy.ok_or("Policy not found")?.rules.push(rule);
                ok()
            }
            "revoke_token" if self.habits.additions => {
                let wanted: Value = serde_json::from_str(text(params, 0)).unwrap();
                let token = state.tokens.iter_mut().find(|token| wanted["tokenId"] == token.id);
                token.ok_or("Token not found")?.revoked = true;
                ok()
            }
            other => Ok(json!(["error", format!("Unknown method {other}")])),
        }
    }

    fn new_policy(&self, state: &mut State, params: &Value) -> Result<Value, String> {
        let wanted: Value = serde_json::from_str(text(params, 0)).map_err(|e| e.to_string())?;
        let id = i64::try_from(state.policies.len()).unwrap() + 1;
        let name = wanted["name"].as_str().unwrap().to_owned();
        state.policies.push(Policy { id, name, rules: vec![] });
        for rule in wanted["rules"].as_array().unwrap() {
            let kind = match &rule["kind"] {
                Value::Null if !self.habits.kindless_rules => {
                    return Err("Cannot read properties of undefined (reading 'toString')".into());
                }
                Value::Null => None,
                kind => Some(kind.to_string()),
            };
            let rule = (rule["method"].as_str().unwrap().to_owned(), kind);
            state.policies.last_mut().unwrap().rules.push(rule);
        }
        Ok(json!(["ok"]))
    }
}

fn start(state: &mut State, name: &str) {
    if !state.open.iter().any(|open| open == name) {
        state.open.push(name.to_owned());
    }
    *state.responders.entry(name.to_owned()).or_default() += 1;
}
