//! What each verb asks of the daemon, and how the answer is printed.

use std::io::Write as _;
use std::path::Path;

use nostr::types::url::form_urlencoded::byte_serialize;
use serde_json::{Value, json};

use super::account::{AuditWhat, account, secrets};
use super::args::{Ask, BayArg, CassettesVerb, MachineVerb, OperatorVerb, TokenVerb, UserVerb};
use super::client::{Answer, Client};
use super::distribution::{DistributionVerb, PayoutVerb, distribution, payout};
use super::fees::{FeesVerb, wanted};
use super::lps::{LpVerb, lp};
use super::rekey::rekey;
use super::relays::relays;
use super::show::{audit, fields, table};
use super::verdict::verdict;
use super::{CliError, End};
use crate::ids::MachineId;

const MACHINES: &[(&str, &str)] = &[
    ("id", "id"),
    ("name", "name"),
    ("place", "place"),
    ("fiat", "fiat_code"),
    ("wallet", "wallet_id"),
    ("tags", "tags"),
    ("pairing", "confirmation"),
    ("cash-in", "cash_in_fee_fraction"),
    ("cash-out", "cash_out_fee_fraction"),
    ("token ends", "bunker_token_expires_at"),
    ("to do", "pairing_warning"),
    ("last seen", "last_seen_at"),
];

const PREVIEW: &[(&str, &str)] = &[
    ("stage", "stage"),
    ("id", "machine_id"),
    ("name", "name"),
    ("place", "place"),
    ("from", "from"),
    ("to", "to"),
    ("waits", "waits"),
    ("refused", "refused"),
];

const ROLLOUTS: &[(&str, &str)] = &[
    ("id", "id"),
    ("state", "state"),
    ("cash-in", "cash_in_fee_fraction"),
    ("cash-out", "cash_out_fee_fraction"),
    ("began", "created_at"),
    ("ended", "ended_at"),
    ("reason", "reason"),
];

const SETTLEMENTS: &[(&str, &str)] = &[
    ("id", "id"),
    ("machine", "machine_id"),
    ("direction", "direction"),
    ("status", "status"),
    ("wire", "wire_sats"),
    ("principal", "principal_sats"),
    ("platform", "platform_fee_sats"),
    ("operator", "operator_fee_sats"),
    ("owed", "owed_sats"),
    ("dispense", "dispense_outcome"),
    ("distribution", "distribution"),
    ("reason", "reason"),
];

const OPEN: &[(&str, &str)] = &[
    ("id", "id"),
    ("machine", "machine_id"),
    ("direction", "direction"),
    ("settled", "settled_at"),
    ("distribution", "distribution"),
    ("why", "hold_reason"),
    ("platform", "platform_fee_sats"),
    ("operator", "operator_fee_sats"),
];

const PROVIDERS: &[(&str, &str)] = &[
    ("id", "id"),
    ("name", "name"),
    ("left", "left"),
    ("mode", "mode"),
    ("a day at most", "daily_limit_minor"),
    ("sats", "sats"),
    ("kept", "kept_sats"),
    ("machines", "machines"),
    ("all", "everywhere"),
    ("to", "to"),
    ("disabled", "disabled_at"),
];

const PAYOUTS: &[(&str, &str)] = &[
    ("payment", "payment_hash"),
    ("machine", "machine_id"),
    ("wallet", "wallet_id"),
    ("pays", "pays"),
    ("sats", "amount_sats"),
    ("state", "state"),
    ("since", "started_at"),
    ("detail", "detail"),
];

const TOKENS: &[(&str, &str)] = &[
    ("id", "id"),
    ("name", "name"),
    ("role", "role"),
    ("operator", "operator_id"),
    ("ends", "expires_at"),
    ("revoked", "revoked_at"),
];

const USERS: &[(&str, &str)] = &[
    ("id", "id"),
    ("name", "name"),
    ("role", "role"),
    ("operator", "operator_id"),
    ("npub", "npub"),
    ("disabled", "disabled_at"),
];

const REJECTED: &[(&str, &str)] = &[
    ("reason", "reason"),
    ("how often", "count"),
    ("first", "first_at"),
    ("last", "last_at"),
    ("sender", "sender"),
    ("signed", "verified"),
    ("relay", "relay"),
    ("detail", "detail"),
];

const LOG: &[(&str, &str)] = &[
    ("id", "id"),
    ("at", "at"),
    ("who", "actor"),
    ("what", "action"),
    ("subject", "subject"),
    ("detail", "detail"),
];

/// How an answer is printed.
enum As {
    Table(&'static [(&'static str, &'static str)]),
    Fields,
    /// Each element of a list as [`As::Fields`].
    Each,
    /// An audit.
    Audit,
    /// Every secret at rest.
    Secrets,
    /// Each relay.
    Relays,
    /// On one line, as JSON.
    Line,
    /// Each element on a line of its own, as JSON.
    Lines,
}

/// Runs a verb that talks to the daemon.
pub(super) fn run(data_dir: &Path, raw: bool, verb: Ask) -> Result<End, CliError> {
    let client = Client::new(data_dir)?;
    let (answer, how) = ask(&client, verb)?;
    let mut out = std::io::stdout();
    match how {
        _ if raw => writeln!(out, "{:#}", answer.body)?,
        As::Table(columns) => write!(out, "{}", table(&answer.body, columns))?,
        As::Fields => write!(out, "{}", fields(&answer.body))?,
        As::Each => {
            for one in answer.body.as_array().into_iter().flatten() {
                writeln!(out, "{}", fields(one))?;
            }
        }
        As::Audit => write!(out, "{}", audit(&answer.body))?,
        As::Secrets => write!(out, "{}", secrets(&answer.body))?,
        As::Relays => write!(out, "{}", relays(&answer.body))?,
        As::Line => writeln!(out, "{}", answer.body)?,
        As::Lines => {
            for line in answer.body.as_array().into_iter().flatten() {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(ended(answer.status.as_u16(), &answer.body))
}

/// How a verb ended that the daemon did: 207 is done in part, and what has an "ok" says it itself.
pub(super) fn ended(status: u16, body: &Value) -> End {
    if status == 207 || body["ok"] == false { End::Found } else { End::Done }
}

fn ask(client: &Client, verb: Ask) -> Result<(Answer, As), CliError> {
    Ok(match verb {
        Ask::Machine { verb } => machine(client, verb)?,
        Ask::Fees { verb: FeesVerb::Super } => (client.get("/dca/super-config")?, As::Fields),
        Ask::Fees { verb: FeesVerb::Preview(many) } => {
            let mut answer = client.post("/dca/fees/preview", &wanted(&many))?;
            answer.body = answer.body["machines"].take();
            (answer, As::Table(PREVIEW))
        }
        Ask::Fees { verb: FeesVerb::RollOut(many) } => {
            (client.post("/dca/rollouts", &wanted(&many))?, As::Fields)
        }
        Ask::Fees { verb: FeesVerb::RollOuts } => {
            (client.get("/dca/rollouts")?, As::Table(ROLLOUTS))
        }
        Ask::Fees { verb: FeesVerb::Stop { rollout } } => {
            (client.post(&format!("/dca/rollouts/{rollout}/stop"), &json!({}))?, As::Fields)
        }
        Ask::Fees { verb: FeesVerb::Set(set) } => {
            let path = match set.machine {
                Some(machine) => format!("/dca/machines/{machine}/fees"),
                None => "/dca/super-config".into(),
            };
            let body = json!({
                "cash_in_fee_fraction": set.cash_in, "cash_out_fee_fraction": set.cash_out,
            });
            (client.put(&path, &body)?, As::Fields)
        }
        Ask::Cassettes { verb: CassettesVerb::Show { machine } } => {
            (client.get(&format!("/dca/machines/{machine}/cassettes"))?, As::Fields)
        }
        Ask::Cassettes { verb: CassettesVerb::Set(set) } => {
            let bay = |bay: &BayArg| {
                let BayArg { bay, denomination, set, delta } = bay;
                json!({"bay": bay, "denomination": denomination, "set": set, "delta": delta})
            };
            let bays: Vec<_> = set.bays.iter().map(bay).collect();
            let body = json!({"bays": bays, "reason": set.reason, "base_seq": set.base_seq});
            (client.post(&format!("/dca/machines/{}/cassettes", set.machine), &body)?, As::Fields)
        }
        Ask::Confirm { machine, digits } => {
            let path = format!("/dca/machines/{machine}/confirm");
            (client.post(&path, &json!({ "digits": digits }))?, As::Fields)
        }
        Ask::Renew { machine, hours } => {
            let path = format!("/dca/machines/{machine}/renew");
            (client.post(&path, &json!({ "hours": hours }))?, As::Fields)
        }
        Ask::Revoke { machine } => {
            (client.post(&format!("/dca/machines/{machine}/revoke"), &json!({}))?, As::Fields)
        }
        Ask::Verdict { verb } => (verdict(client, verb)?, As::Fields),
        Ask::Rekey(asked) => (rekey(client, asked)?, As::Line),
        Ask::Republish { machine } => {
            let path = format!("/dca/machines/{machine}/republish");
            (client.post(&path, &json!({}))?, As::Fields)
        }
        Ask::Token { verb } => match verb {
            TokenVerb::Add { name, role, days, operator } => {
                let body = json!({
                    "name": name, "role": role.name(), "days": days, "operator_id": operator,
                });
                (client.post("/tokens", &body)?, As::Fields)
            }
            TokenVerb::List => (client.get("/tokens")?, As::Table(TOKENS)),
            TokenVerb::Revoke { token } => {
                (client.post(&format!("/tokens/{token}/revoke"), &json!({}))?, As::Fields)
            }
        },
        Ask::User { verb } => match verb {
            UserVerb::Add { npub, name, role, operator } => {
                let body = json!({
                    "npub": npub, "name": name, "role": role.name(), "operator_id": operator,
                });
                (client.post("/users", &body)?, As::Fields)
            }
            UserVerb::List => (client.get("/users")?, As::Table(USERS)),
            UserVerb::Disable { user } => {
                (client.post(&format!("/users/{user}/disable"), &json!({}))?, As::Fields)
            }
        },
        Ask::Operator { verb: OperatorVerb::Show } => (client.get("/operators")?, As::Fields),
        Ask::Operator { verb: OperatorVerb::Init { operator } } => {
            let body = json!({ "operator_id": operator });
            (client.post("/operators/init", &body)?, As::Fields)
        }
        Ask::Audit { what: None } => (client.post("/audit", &json!({}))?, As::Audit),
        Ask::Audit { what: Some(AuditWhat::Keys) } => (client.get("/audit/keys")?, As::Secrets),
        Ask::Account { verb } => (account(client, verb)?, As::Fields),
        Ask::Relays => (client.get("/relays")?, As::Relays),
        Ask::Webhook => (client.get("/webhook")?, As::Fields),
        Ask::Settlements(asked) => {
            let machine = asked.machine.map(|id| format!("&machine={id}")).unwrap_or_default();
            let path = format!("/dca/settlements?limit={}{machine}", asked.limit);
            (client.get(&path)?, As::Table(SETTLEMENTS))
        }
        Ask::Payout { verb } => {
            let how =
                if matches!(verb, PayoutVerb::List) { As::Table(PAYOUTS) } else { As::Fields };
            (payout(client, verb)?, how)
        }
        Ask::Distribution { verb } => {
            let how = match verb {
                DistributionVerb::List => As::Table(OPEN),
                DistributionVerb::Rules => As::Each,
                DistributionVerb::Verify { .. } => As::Audit,
                _ => As::Fields,
            };
            (distribution(client, verb)?, how)
        }
        Ask::Lp { verb } => {
            let how = if matches!(verb, LpVerb::List) { As::Table(PROVIDERS) } else { As::Fields };
            (lp(client, verb)?, how)
        }
        Ask::Rejected(asked) => {
            (client.get(&format!("/dca/rejected?limit={}", asked.limit))?, As::Table(REJECTED))
        }
        Ask::Log(asked) => {
            let encode = |s: &str| byte_serialize(s.as_bytes()).collect::<String>();
            let subject = asked.subject.map(|s| format!("&subject={}", encode(&s)));
            let subject = subject.unwrap_or_default();
            let path = format!("/audit-log?limit={}{subject}", asked.limit);
            (client.get(&path)?, As::Table(LOG))
        }
    })
}

fn machine(client: &Client, verb: MachineVerb) -> Result<(Answer, As), CliError> {
    Ok(match verb {
        MachineVerb::Add(add) => {
            let body: Value = json!({
                "name": add.name,
                "place": add.place,
                "fiat_code": add.currency.to_uppercase(),
                "wallet_id": add.wallet,
                "npub": add.npub,
                "cash_in_fee_fraction": add.cash_in_fee,
                "cash_out_fee_fraction": add.cash_out_fee,
                "operator_id": add.operator,
            });
            (client.post("/dca/machines", &body)?, As::Fields)
        }
        MachineVerb::List => (client.get("/dca/machines")?, As::Table(MACHINES)),
        MachineVerb::Show { machine } => {
            (client.get(&format!("/dca/machines/{machine}"))?, As::Fields)
        }
        MachineVerb::Disable { machine, reason } => {
            let path = format!("/dca/machines/{machine}/disable");
            (client.post(&path, &json!({ "reason": reason }))?, As::Fields)
        }
        MachineVerb::Enable { machine } => {
            (client.post(&format!("/dca/machines/{machine}/enable"), &json!({}))?, As::Fields)
        }
        MachineVerb::Tag { machine, tags } => {
            let path = format!("/dca/machines/{machine}/tags");
            (client.put(&path, &json!({ "tags": tags }))?, As::Fields)
        }
        MachineVerb::Journal { machine } => (heads(client, machine)?, As::Lines),
    })
}

/// All heads of a machine, page by page.
fn heads(client: &Client, machine: MachineId) -> Result<Answer, CliError> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/dca/machines/{machine}/journal?after={after}");
        let mut answer = client.get(&path)?;
        let Value::Array(page) = answer.body["heads"].take() else {
            return Err(CliError::Answer { path });
        };
        let Some(last) = page.last().and_then(|head| head["seq"].as_u64()) else {
            return Ok(Answer { body: Value::Array(all), ..answer });
        };
        after = last;
        all.extend(page);
    }
}
