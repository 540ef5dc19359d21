//! Fees, cassettes and where their documents stand, in the API.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::{Extension, Json};
use bitspire_shared::document::Action;
use bitspire_shared::ids::{BayId, ChangeId, JournalSeq};
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::{Caller, Role};
use super::body::{Body, Fraction};
use super::error::ApiError;
use super::machines::View;
use super::{Api, Id, reported};
use crate::fleet::FleetError;
use crate::fleet::machines::{find, last_report};
use crate::ids::MachineId;
use crate::publish::cassettes::{self, Wish, Wishes};
use crate::publish::status::{self, Documents, Publish};
use crate::publish::{self, fees};
use crate::store::cassettes as rows;
use crate::store::operators::SuperConfig;

/// Fees as they are set; what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetFees {
    cash_in_fee_fraction: Option<Fraction>,
    cash_out_fee_fraction: Option<Fraction>,
}

impl SetFees {
    fn checked(&self) -> Result<(), FleetError> {
        if self.cash_in_fee_fraction.is_none() && self.cash_out_fee_fraction.is_none() {
            return Err(FleetError::Invalid {
                field: "fees",
                expected: "cash_in_fee_fraction, cash_out_fee_fraction or both".into(),
                got: "neither".into(),
            });
        }
        Ok(())
    }
}

/// A machine after its fees were set.
#[derive(Serialize)]
pub(super) struct Set {
    #[serde(flatten)]
    machine: View,
    publish: Publish,
}

pub(super) async fn set_fees(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(set): Body<SetFees>,
) -> Result<Json<Set>, ApiError> {
    caller.needs(Role::Operator)?;
    set.checked()?;
    let cash_in = set.cash_in_fee_fraction.map(|fraction| fraction.0);
    let cash_out = set.cash_out_fee_fraction.map(|fraction| fraction.0);
    let (actor, operator) = (&caller.actor, caller.operator);
    let (machine, document) = fees::set(&api.app, actor, operator, id, cash_in, cash_out).await?;
    let publish = publish::outcome(&api.app, document.as_slice()).await?;
    Ok(Json(Set { machine: View::new(&api.app, machine), publish }))
}

/// The platform's fees.
#[derive(Serialize)]
pub(super) struct Platform {
    cash_in_fee_fraction: Fraction,
    cash_out_fee_fraction: Fraction,
    wallet_id: Option<String>,
    updated_at: Unix,
    /// What is wanted on how many machines now; after a change only.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<Publish>,
}

impl Platform {
    fn new(config: SuperConfig) -> Self {
        Self {
            cash_in_fee_fraction: Fraction(config.cash_in_fee_ppm),
            cash_out_fee_fraction: Fraction(config.cash_out_fee_ppm),
            wallet_id: config.wallet_id,
            updated_at: config.updated_at,
            documents: None,
            publish: None,
        }
    }
}

pub(super) async fn platform(State(api): State<Api>) -> Result<Json<Platform>, ApiError> {
    Ok(Json(Platform::new(fees::platform(&api.app).await?)))
}

pub(super) async fn set_platform(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(set): Body<SetFees>,
) -> Result<Json<Platform>, ApiError> {
    caller.needs(Role::Super)?;
    set.checked()?;
    let cash_in = set.cash_in_fee_fraction.map(|fraction| fraction.0);
    let cash_out = set.cash_out_fee_fraction.map(|fraction| fraction.0);
    let (config, documents) =
        fees::set_platform(&api.app, &caller.actor, cash_in, cash_out).await?;
    let mut platform = Platform::new(config);
    platform.documents = Some(documents.len());
    platform.publish = Some(publish::outcome(&api.app, &documents).await?);
    Ok(Json(platform))
}

/// A bay as it is wished: `set` notes or `delta` more, one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bay {
    bay: BayId,
    /// In whole units of the machine's currency; a known bay keeps its own.
    denomination: Option<u32>,
    set: Option<u32>,
    delta: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    bays: Vec<Bay>,
    #[serde(default)]
    reason: String,
    base_seq: Option<JournalSeq>,
}

/// What a change of cassettes became.
#[derive(Serialize)]
pub(super) struct Changed {
    change_ids: Vec<ChangeId>,
    documents: Documents,
    publish: Publish,
}

pub(super) async fn change_cassettes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(change): Body<Change>,
) -> Result<Json<Changed>, ApiError> {
    caller.needs(Role::Collector)?;
    let wish = |bay: Bay| {
        let action = match (bay.set, bay.delta) {
            (Some(count), None) => Action::Set(count),
            (None, Some(delta)) => Action::Delta(delta),
            _ => {
                return Err(FleetError::Invalid {
                    field: "bays",
                    expected: "either set or delta for each bay".into(),
                    got: format!("both or neither for bay {}", bay.bay),
                });
            }
        };
        Ok(Wish { bay: bay.bay, denomination: bay.denomination, action })
    };
    let bays: Result<_, FleetError> = change.bays.into_iter().map(wish).collect();
    let wishes = Wishes { bays: bays?, reason: change.reason, base_seq: change.base_seq };
    let (actor, operator) = (&caller.actor, caller.operator);
    let (change_ids, document) = cassettes::change(&api.app, actor, operator, id, wishes).await?;
    let publish = publish::outcome(&api.app, &[document]).await?;
    let documents = api.app.store.read(move |read| status::of_machine(read, id)).await?;
    Ok(Json(Changed { change_ids, documents, publish }))
}

/// A change that the machine has not acknowledged.
#[derive(Serialize)]
struct Open {
    change_id: ChangeId,
    bay: BayId,
    set: Option<u32>,
    delta: Option<i64>,
    reason: String,
    base_seq: JournalSeq,
    actor: String,
    created_at: Unix,
}

/// A bay as the operator has it.
#[derive(Serialize)]
struct Declared {
    bay: BayId,
    /// In whole units of the machine's currency, as changes name it.
    denomination: Option<u32>,
    denomination_minor: u32,
    count: u32,
    updated_at: Unix,
}

/// A bay of which the two sides say different counts: both numbers stand, nobody's is overwritten.
#[derive(Serialize)]
struct Difference {
    bay: BayId,
    /// As declared here last.
    declared: Option<u32>,
    /// By the machine's own ledger, which knows its sales since.
    reported: Option<u32>,
    /// Whether a refill or count of the bay is on its way to the machine.
    on_its_way: bool,
}

fn differences(declared: &[Declared], open: &[Open], report: &StateReport) -> Vec<Difference> {
    let ours: BTreeMap<_, _> = declared.iter().map(|bay| (bay.bay, bay.count)).collect();
    let its: BTreeMap<_, _> =
        report.cassettes.iter().map(|(bay, held)| (*bay, held.count)).collect();
    let all: BTreeSet<BayId> = ours.keys().chain(its.keys()).copied().collect();
    let one = |bay| Difference {
        bay,
        declared: ours.get(&bay).copied(),
        reported: its.get(&bay).copied(),
        on_its_way: open.iter().any(|change| change.bay == bay),
    };
    all.into_iter().map(one).filter(|bay| bay.declared != bay.reported).collect()
}

/// A machine's cassettes from both sides.
#[derive(Serialize)]
pub(super) struct Cassettes {
    /// As declared on this side.
    declared: Vec<Declared>,
    open_changes: Vec<Open>,
    /// By the machine's own ledger, in its last heartbeat since it was paired.
    reported: Vec<reported::Bay>,
    reported_at: Option<Unix>,
    /// Where the two differ.
    differences: Vec<Difference>,
    /// What the machine itself published last.
    machine: Option<Value>,
    machine_said_at: Option<Unix>,
    /// The journal position to name with a change that was decided from this.
    base_seq: JournalSeq,
}

pub(super) async fn cassettes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Cassettes>, ApiError> {
    let found: Result<_, FleetError> = api
        .app
        .store
        .read(move |read| {
            let machine = find(read, id, caller.operator)?;
            let state = rows::last_state(read, id, machine.paired_at.unwrap_or(Unix(0)))?;
            let declared = rows::list(read, id)?.into_iter();
            let declared = declared.map(|bay| Declared {
                bay: bay.bay,
                denomination: bay.denomination.major(machine.currency),
                denomination_minor: bay.denomination.minor(),
                count: bay.count,
                updated_at: bay.updated_at,
            });
            let declared: Vec<_> = declared.collect();
            let open = rows::open_changes(read, id)?.into_iter().map(|change| Open {
                change_id: change.change_id,
                bay: change.bay,
                set: change.set_count,
                delta: change.delta,
                reason: change.reason,
                base_seq: change.base_seq,
                actor: change.actor,
                created_at: change.created_at,
            });
            let open: Vec<_> = open.collect();
            let last = last_report(read, &machine)?;
            let bays = last.as_ref().map(|(_, report)| reported::bays(report, machine.currency));
            let differences = last.as_ref().map(|(_, it)| differences(&declared, &open, it));
            Ok(Cassettes {
                differences: differences.unwrap_or_default(),
                reported: bays.unwrap_or_default(),
                reported_at: last.map(|(at, _)| at),
                declared,
                open_changes: open,
                machine_said_at: state.as_ref().map(|state| state.received_at),
                machine: state.map(|state| state.body.0),
                base_seq: machine.journal_seq,
            })
        })
        .await;
    Ok(Json(found?))
}

pub(super) async fn republish(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Documents>, ApiError> {
    caller.needs(Role::Operator)?;
    Ok(Json(publish::republish(&api.app, &caller.actor, caller.operator, id).await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bay(number: u8) -> BayId {
        BayId::new(number).unwrap()
    }

    fn ours(number: u8, count: u32) -> Declared {
        Declared {
            bay: bay(number),
            denomination: Some(20),
            denomination_minor: 2_000,
            count,
            updated_at: Unix(1),
        }
    }

    fn underway(number: u8) -> Open {
        Open {
            change_id: ChangeId::from_bytes([number; 16]),
            bay: bay(number),
            set: None,
            delta: Some(5),
            reason: "refill".into(),
            base_seq: JournalSeq(1),
            actor: "somebody".into(),
            created_at: Unix(1),
        }
    }

    fn said(counts: &[(u8, u32)]) -> StateReport {
        let held = |count| json!({ "denomination_minor": 2_000, "count": count });
        let held = counts.iter().map(|(number, count)| (number.to_string(), held(*count)));
        serde_json::from_value(json!({
            "versions": {}, "devices": {}, "cassettes": held.collect::<BTreeMap<_, _>>(),
            "cashbox": null, "applied_documents": {}, "applied_changes": [],
            "open_transactions": [], "alerts": [], "journal_seq": 1,
            "journal_head": "00".repeat(32),
        }))
        .unwrap()
    }

    /// Loss prevented: notes that are missing from a bay, or a bay that only one side knows, and a
    /// page that shows one number and nothing to look into; a refill on its way taken for a theft.
    #[test]
    fn a_bay_that_differs_shows_both_numbers() {
        let found = |declared: &[(u8, u32)], open: &[u8], reported: &[(u8, u32)]| {
            let declared: Vec<_> = declared.iter().map(|(n, count)| ours(*n, *count)).collect();
            let open: Vec<_> = open.iter().copied().map(underway).collect();
            let all = differences(&declared, &open, &said(reported));
            let told = all
                .into_iter()
                .map(|one| (one.bay.get(), one.declared, one.reported, one.on_its_way));
            told.collect::<Vec<_>>()
        };
        assert_eq!(found(&[], &[], &[]), []);
        assert_eq!(found(&[(1, 100), (2, 0)], &[], &[(1, 100), (2, 0)]), [], "the same counts");
        // the machine has more, or fewer, and each side has its own number
        let both = [(1, Some(100), Some(97), false), (2, Some(50), Some(60), false)];
        assert_eq!(found(&[(1, 100), (2, 50)], &[], &[(1, 97), (2, 60)]), both);
        // a bay of one side only, and none is no count of 0
        let one_sided = [(1, Some(0), None, false), (2, None, Some(0), false)];
        assert_eq!(found(&[(1, 0)], &[], &[(2, 0)]), one_sided);
        // what is under way is said of its own bay, and is no difference where the counts agree
        let refilled = [(1, Some(105), Some(100), true), (2, Some(50), Some(49), false)];
        let counts = [(1, 105), (2, 50), (3, 7)];
        assert_eq!(found(&counts, &[1, 3], &[(1, 100), (2, 49), (3, 7)]), refilled);
    }
}
