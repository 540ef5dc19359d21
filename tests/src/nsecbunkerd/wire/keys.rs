//! What a key of its does for clients.

use bitspire_shared::time::Unix;
use nostr::nips::nip44;
use nostr::{Event, PublicKey, UnsignedEvent};
use serde_json::{Value, json};

use super::{State, Token, User, Wire, opened, sealed, text};

impl Wire {
    /// A client's request to a key.
    pub(super) fn sign(
        &self,
        state: &mut State,
        name: &str,
        event: &Event,
        now: Unix,
    ) -> Vec<Event> {
        let keys = state.keys[name].keys();
        let Some(request) = opened(&keys, event) else { return vec![] };
        let request: Value = serde_json::from_str(&request).unwrap();
        let (id, params) = (&request["id"], &request["params"]);
        let method = request["method"].as_str().unwrap_or_default();
        let reply = |body: Value| sealed(&keys, event, 24_133, &body);
        let error = |why: &str| reply(json!({"id": id, "result": "error", "error": why}));
        // whoever asks gets it, so it proves nothing
        if method == "get_public_key" {
            return vec![reply(json!({"id": id, "result": keys.public_key().to_hex()}))];
        }
        let client = event.pubkey.to_hex();
        if method == "connect"
            && !text(params, 1).is_empty()
            && let Err(why) = redeem(state, name, (&client, text(params, 1)), now)
        {
            // the reason, and then the end of its own rope
            return vec![error(why), error("Not authorized")];
        }
        if !allowed(state, name, &client, method, params) {
            // it asks its administrators by a request of its own; none of them answers
            return vec![self.acl(name, &client, method), error("Not authorized")];
        }
        let result = match method {
            "connect" => "ack".to_owned(),
            "ping" => "pong".to_owned(),
            "sign_event" => {
                let mut wanted: Value = serde_json::from_str(text(params, 0)).unwrap();
                wanted["pubkey"] = keys.public_key().to_hex().into();
                let unsigned: UnsignedEvent = serde_json::from_value(wanted).unwrap();
                serde_json::to_string(&unsigned.sign_with_keys(&keys).unwrap()).unwrap()
            }
            "nip44_encrypt" | "nip44_decrypt" if self.habits.nip44_methods => {
                let peer = PublicKey::from_hex(text(params, 0)).unwrap();
                let (secret, of) = (keys.secret_key(), text(params, 1));
                match method {
                    "nip44_encrypt" => {
                        nip44::encrypt(secret, &peer, of, nip44::Version::V2).unwrap()
                    }
                    _ => match nip44::decrypt(secret, &peer, of) {
                        Ok(text) => text,
                        Err(why) => return vec![error(&why.to_string())],
                    },
                }
            }
            _ => return vec![error("unsupported method")],
        };
        vec![reply(json!({"id": id, "result": result}))]
    }
}

fn redeem(
    state: &mut State,
    name: &str,
    (client, secret): (&str, &str),
    now: Unix,
) -> Result<(), &'static str> {
    let live = |token: &&mut Token| token.secret == secret && !token.revoked;
    let token = state.tokens.iter_mut().find(live).ok_or("Token not found")?;
    if token.redeemed {
        return Err("Token already redeemed");
    }
    // it looks at the end here, and never again
    if token.ends.is_some_and(|ends| ends < now) {
        return Err("Token expired");
    }
    token.redeemed = true;
    let policy = state.policies.iter().find(|policy| policy.id == token.policy).unwrap();
    let mut conditions = vec![("connect".to_owned(), None), ("ping".to_owned(), None)];
    conditions.extend(policy.rules.iter().cloned());
    let known = state.users.iter_mut().find(|u| u.key_name == name && u.client == client);
    match known {
        // a client that was revoked stays dead whatever it brings
        Some(user) => user.conditions.extend(conditions),
        None => {
            let id = i64::try_from(state.users.len()).unwrap() + 1;
            let (key_name, client) = (name.to_owned(), client.to_owned());
            let (name, revoked) = (token.client_name.clone(), false);
            state.users.push(User { id, key_name, client, name, revoked, conditions });
        }
    }
    Ok(())
}

fn allowed(state: &State, name: &str, client: &str, method: &str, params: &Value) -> bool {
    let user = state.users.iter().find(|user| user.key_name == name && user.client == client);
    let Some(user) = user.filter(|user| !user.revoked) else { return false };
    let event: Value = serde_json::from_str(text(params, 0)).unwrap_or_default();
    user.conditions.iter().any(|(of, kind)| {
        let wanted = event["kind"].to_string();
        let kind_fits = kind.as_ref().is_none_or(|kind| *kind == wanted);
        of == method && (method != "sign_event" || kind_fits)
    })
}
