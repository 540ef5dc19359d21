//! `bunker ...`: what the bunker holds, who may use it, what was asked of it.

use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use bitspire_shared::time::Unix;
use clap::{ArgGroup, Args, Subcommand};
use nostr::types::url::form_urlencoded::byte_serialize;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::show::{cell, fields, table};
use super::verbs::ended;
use super::{CliError, End};
use crate::signer::iso;

/// Verbs of the bunker that the running daemon carries out.
#[derive(Debug, Subcommand)]
pub(super) enum BunkerAsk {
    /// What it is, and in plain words what it cannot do
    Status,
    /// Its keys, and which of them are locked
    Keys,
    /// Unlock a key, with the passphrase of bunker.passphrase_file
    Unlock {
        /// The key's name
        key: String,
    },
    /// What clients may do: rules, and how often they were used
    Policies,
    /// The tokens of a key: for whom they were made, and whether they were used; never their text
    Tokens {
        /// The key's name
        key: String,
    },
    /// The clients of a key
    Users {
        /// The key's name
        key: String,
    },
    /// Make a key in it, under a name that no key has
    CreateKey {
        /// Its name: 1 to 100 visible characters
        key: String,
    },
    /// Make a policy: what clients may do
    CreatePolicy {
        /// Its name
        name: String,
        /// A rule; may be repeated
        #[arg(long = "rule", value_name = RULE, required = true)]
        rules: Vec<RuleArg>,
        /// The last second at which it allows anything [default: none]
        #[arg(long, value_name = TIME, value_parser = time)]
        ends: Option<Unix>,
    },
    /// Allow one thing more by a policy
    AddRule {
        /// The policy, by its id in `bunker policies`
        policy: i64,
        /// The rule
        #[arg(value_name = RULE)]
        rule: RuleArg,
    },
    /// Change how often a rule may be used, from the next request on; what was used counts
    CapRule {
        /// The policy, by its id in `bunker policies`
        policy: i64,
        /// The rule, with its cap
        #[arg(value_name = RULE)]
        rule: RuleArg,
    },
    /// Change the end of a policy, from the next request on
    #[command(group = ArgGroup::new("when").required(true))]
    EndPolicy {
        /// The policy, by its id in `bunker policies`
        policy: i64,
        /// The last second at which it allows anything
        #[arg(long, group = "when", value_name = TIME, value_parser = time)]
        at: Option<Unix>,
        /// It has no end
        #[arg(long, group = "when")]
        never: bool,
    },
    /// Make a token for one client, and print the bunker's address with it, once: a secret
    CreateToken {
        /// The key's name
        key: String,
        /// Whom it is for
        #[arg(long, value_name = "NAME")]
        client: String,
        /// What the client may do: a policy's id in `bunker policies`
        #[arg(long, value_name = "ID")]
        policy: i64,
        /// How long it can be used, and the client with it
        #[arg(long, value_name = "N")]
        hours: u32,
    },
    /// Cut a client off, take a token back, or both for everything of one key
    ///
    /// It counts at the next request. The machine stays in the fleet: `revoke MACHINE` takes it out.
    /// Exit code 1 where the bunker did not do all of it.
    Revoke(Revoke),
    /// What was asked of it and what came of it, the newest first: by clients, refused, by
    /// administrators
    Audit {
        /// Entries of each kind, at most 40
        #[arg(long, default_value_t = 40)]
        limit: u32,
    },
}

const RULE: &str = "METHOD[:KIND][=CAP]";
const TIME: &str = "2026-12-31T00:00:00Z";

/// `sign_event:21000=100`, `sign_event:all`, `nip44_encrypt`: method, kind, how often at most.
#[derive(Clone, Debug)]
pub(super) struct RuleArg(Value);

impl FromStr for RuleArg {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, cap) = match text.split_once('=') {
            Some((what, cap)) => (what, Some(cap)),
            None => (text, None),
        };
        let (method, kind) = match what.split_once(':') {
            Some((method, "all")) => (method, Some(json!("all"))),
            Some((method, kind)) => {
                let kind: u16 = kind.parse().map_err(|_| "expected a kind, 0 to 65535, or all")?;
                (method, Some(json!(kind)))
            }
            None => (what, None),
        };
        match (method, &kind) {
            ("sign_event", Some(_)) | ("nip44_encrypt" | "nip44_decrypt", None) => {}
            _ => return Err("expected sign_event:KIND, nip44_encrypt or nip44_decrypt"),
        }
        let cap: Option<u64> =
            cap.map(str::parse).transpose().map_err(|_| "expected a number behind =")?;
        let mut rule = json!({ "method": method });
        if let Some(kind) = kind {
            rule["kind"] = kind;
        }
        if let Some(cap) = cap {
            rule["max_usage_count"] = cap.into();
        }
        Ok(Self(rule))
    }
}

fn time(text: &str) -> Result<Unix, &'static str> {
    iso::parse(text).ok_or("expected a time in UTC such as 2026-12-31T00:00:00Z")
}

/// What is revoked.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(super) struct Revoke {
    /// A client, by its id in `bunker users`
    #[arg(long, group = "what", value_name = "ID")]
    pub(super) user: Option<String>,
    /// A token, by its id in `bunker tokens`
    #[arg(long, group = "what", value_name = "ID")]
    pub(super) token: Option<i64>,
    /// Every client and every unused token of this key
    #[arg(long, group = "what", value_name = "NAME")]
    pub(super) key: Option<String>,
}

const KEYS: &[(&str, &str)] = &[("name", "name"), ("key", "npub"), ("locked", "locked")];
const TOKENS: &[(&str, &str)] = &[
    ("id", "id"),
    ("for", "client_name"),
    ("policy", "policy"),
    ("ends", "expires_at"),
    ("used", "redeemed_at"),
    ("by", "redeemed_by"),
];
const USERS: &[(&str, &str)] = &[
    ("id", "id"),
    ("name", "name"),
    ("client", "npub"),
    ("since", "created_at"),
    ("last used", "last_used_at"),
    ("revoked", "revoked_at"),
];
const POLICIES: &[(&str, &str)] =
    &[("id", "id"), ("name", "name"), ("ends", "expires_at"), ("allows", "allows")];
const REQUESTS: &[(&str, &str)] = &[
    ("at", "at"),
    ("key", "key"),
    ("client", "client"),
    ("method", "method"),
    ("kind", "kind"),
    ("outcome", "outcome"),
    ("detail", "detail"),
];
const ADMINISTRATORS: &[(&str, &str)] = &[
    ("at", "at"),
    ("administrator", "admin"),
    ("method", "method"),
    ("subject", "subject"),
    ("outcome", "outcome"),
    ("detail", "detail"),
];

/// Runs a verb.
pub(super) fn run(data_dir: &Path, raw: bool, verb: BunkerAsk) -> Result<End, CliError> {
    let client = Client::new(data_dir)?;
    let (answer, text) = ask(&client, verb)?;
    let mut out = std::io::stdout();
    match raw {
        true => writeln!(out, "{:#}", answer.body)?,
        false => write!(out, "{}", text(&answer.body))?,
    }
    Ok(ended(answer.status.as_u16(), &answer.body))
}

type Words = fn(&Value) -> String;

fn ask(client: &Client, verb: BunkerAsk) -> Result<(Answer, Words), CliError> {
    let of = |key: &str, what: &str| {
        let key = byte_serialize(key.as_bytes()).collect::<String>();
        format!("/bunker/keys/{key}/{what}")
    };
    Ok(match verb {
        BunkerAsk::Status => (client.get("/bunker")?, fields),
        BunkerAsk::Keys => (client.get("/bunker/keys")?, |body| table(body, KEYS)),
        BunkerAsk::Unlock { key } => (client.post(&of(&key, "unlock"), &json!({}))?, fields),
        BunkerAsk::Policies => (client.get("/bunker/policies")?, policies),
        BunkerAsk::CreateKey { key } => {
            (client.post("/bunker/keys", &json!({ "name": key }))?, fields)
        }
        BunkerAsk::CreatePolicy { name, rules, ends } => {
            let rules: Value = rules.into_iter().map(|RuleArg(rule)| rule).collect();
            let body = json!({ "name": name, "rules": rules, "expires_at": ends });
            (client.post("/bunker/policies", &body)?, fields)
        }
        BunkerAsk::AddRule { policy, rule: RuleArg(rule) } => {
            (client.post(&format!("/bunker/policies/{policy}/rules"), &rule)?, fields)
        }
        BunkerAsk::CapRule { policy, rule: RuleArg(rule) } => {
            (client.post(&format!("/bunker/policies/{policy}/cap"), &rule)?, fields)
        }
        BunkerAsk::EndPolicy { policy, at, .. } => {
            let body = json!({ "expires_at": at });
            (client.post(&format!("/bunker/policies/{policy}/end"), &body)?, fields)
        }
        BunkerAsk::CreateToken { key, client: name, policy, hours } => {
            let body = json!({ "client_name": name, "policy": policy, "hours": hours });
            (client.post(&of(&key, "tokens"), &body)?, fields)
        }
        BunkerAsk::Tokens { key } => (client.get(&of(&key, "tokens"))?, |body| table(body, TOKENS)),
        BunkerAsk::Users { key } => (client.get(&of(&key, "users"))?, |body| table(body, USERS)),
        BunkerAsk::Revoke(Revoke { user, token, key }) => {
            let what = match (user, token, key) {
                (Some(user), _, _) => json!({ "user": user }),
                (_, Some(token), _) => json!({ "token": token }),
                (_, _, key) => json!({ "key": key }),
            };
            (client.post("/bunker/revoke", &what)?, fields)
        }
        BunkerAsk::Audit { limit } => (client.get(&format!("/bunker/audit?limit={limit}"))?, audit),
    })
}

/// A policy on a line: `sign_event 21000 (3 of 10), nip44_encrypt (0)`.
fn policies(body: &Value) -> String {
    let rule = |rule: &Value| {
        let kind = rule["kind"].as_u64().map(|kind| format!(" {kind}")).unwrap_or_default();
        let most = rule["max_usage_count"].as_u64().map(|most| format!(" of {most}"));
        let (method, used) = (cell(&rule["method"]), cell(&rule["current_usage_count"]));
        format!("{method}{kind} ({used}{})", most.unwrap_or_default())
    };
    let rows = body.as_array().into_iter().flatten().map(|policy| {
        let rules = policy["rules"].as_array().into_iter().flatten().map(rule);
        let allows = rules.collect::<Vec<_>>().join(", ");
        json!({
            "id": policy["id"], "name": policy["name"], "expires_at": policy["expires_at"],
            "allows": allows,
        })
    });
    table(&rows.collect(), POLICIES)
}

fn audit(body: &Value) -> String {
    format!(
        "requests\n{}\nrefused\n{}\nadministrators\n{}",
        table(&body["requests"], REQUESTS),
        table(&body["refused"], REQUESTS),
        table(&body["admin"], ADMINISTRATORS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a rule that allows more than whoever typed it meant.
    #[test]
    fn a_rule_says_its_kind_and_its_cap() {
        let read = |text: &str| text.parse().map(|RuleArg(rule)| rule);
        assert_eq!(
            read("sign_event:21000=100"),
            Ok(json!({"method": "sign_event", "kind": 21_000, "max_usage_count": 100}))
        );
        assert_eq!(read("sign_event:all"), Ok(json!({"method": "sign_event", "kind": "all"})));
        assert_eq!(read("nip44_decrypt"), Ok(json!({"method": "nip44_decrypt"})));
        for unclear in [
            "sign_event",
            "sign_event:",
            "sign_event:65536",
            "nip44_encrypt:1",
            "connect",
            "sign_event:1=x",
        ] {
            assert!(read(unclear).is_err(), "{unclear}");
        }
    }

    /// Loss prevented: an operator who cannot see that a policy allows more than it should, or that
    /// it is used up.
    #[test]
    fn a_policy_is_one_line_with_its_uses() {
        let policies = policies(&json!([{
            "id": 2, "name": "spirekeeper-spire", "expires_at": null,
            "rules": [
                {"method": "sign_event", "kind": 21000, "max_usage_count": 10, "current_usage_count": 3},
                {"method": "nip44_encrypt", "kind": null, "max_usage_count": null,
                 "current_usage_count": 0},
            ],
        }]));
        let lines: Vec<_> = policies.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["id", "name", "ends", "allows"]
        );
        assert!(lines[1].ends_with("sign_event 21000 (3 of 10), nip44_encrypt (0)"), "{policies}");
    }
}
