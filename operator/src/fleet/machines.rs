//! Adding machines and changing what an operator edits.
//!
//! Promise: a machine that exists has a wallet of this instance, a currency with an exponent, fees
//! within the cap, and no key that belongs to somebody else.

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::{Currency, Direction, FeePpm, Sats};
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::{FleetError, audit, guard_key, pair_fees};
use crate::app::{App, Ring};
use crate::ids::{MachineId, OperatorId};
use crate::publish;
use crate::store::machines::{self as rows, KeptMachine, Machine, Settings};
use crate::store::rules::{Destination, KeptRules};
use crate::store::{Read, StoreError, cassettes, operators, rollouts, rules};

/// The longest name or place, in characters.
const MAX_TEXT: usize = 200;
/// The longest tag.
const MAX_TAG: usize = 40;
/// The most tags of one machine.
const MAX_TAGS: usize = 20;

/// A machine to be added.
#[derive(Clone, Debug)]
pub struct NewMachine {
    /// Whose it is.
    pub operator: OperatorId,
    /// For pages and receipts.
    pub name: String,
    /// Where it stands.
    pub place: String,
    /// Of its notes; never changes.
    pub currency: Currency,
    /// Its wallet in this instance's configuration.
    pub wallet_id: String,
    /// Its key, where it has one already; pairing replaces it.
    pub npub: Option<PubKey>,
    /// The operator's fee on cash_in.
    pub cash_in_fee: FeePpm,
    /// The operator's fee on cash_out.
    pub cash_out_fee: FeePpm,
}

/// What an operator changes; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// For pages and receipts.
    pub name: Option<String>,
    /// Where it stands.
    pub place: Option<String>,
    /// Cap of one cash_in; `Some(None)` is the default.
    pub max_cash_in: Option<Option<Sats>>,
    /// Cap of all cash_in within an hour.
    pub max_cash_in_hour: Option<Option<Sats>>,
    /// Cap of all cash_in within a day.
    pub max_cash_in_day: Option<Option<Sats>>,
    /// Notes that the cashbox holds.
    pub cashbox_capacity: Option<Option<u64>>,
}

/// The machine, if it is one that an operator (`None`: anybody) may see.
///
/// # Errors
/// [`FleetError::NoMachine`], [`StoreError`].
pub fn find(
    read: &Read<'_>,
    id: MachineId,
    operator: Option<OperatorId>,
) -> Result<KeptMachine, FleetError> {
    let machine = rows::find(read, id)?.ok_or(FleetError::NoMachine(id))?;
    // somebody else's machine is told apart from none by nobody
    if operator.is_some_and(|operator| operator != machine.operator_id) {
        return Err(FleetError::NoMachine(id));
    }
    Ok(machine)
}

/// A machine's last heartbeat since it was paired.
///
/// # Errors
/// [`StoreError`].
pub fn last_report(
    read: &Read<'_>,
    machine: &KeptMachine,
) -> Result<Option<(Unix, StateReport)>, StoreError> {
    let last = cassettes::heartbeat(read, machine.id)?;
    let last = last.filter(|last| Some(last.received_at) >= machine.paired_at);
    Ok(last.and_then(|last| Some((last.received_at, last.report()?))))
}

/// What an operator edits of a machine, as it is.
#[must_use]
pub fn settings(machine: &Machine) -> Settings {
    Settings {
        name: machine.name.clone(),
        place: machine.place.clone(),
        cash_in_fee_ppm: machine.cash_in_fee_ppm,
        cash_out_fee_ppm: machine.cash_out_fee_ppm,
        max_cash_in_sats: machine.max_cash_in_sats,
        max_cash_in_hour_sats: machine.max_cash_in_hour_sats,
        max_cash_in_day_sats: machine.max_cash_in_day_sats,
        cashbox_capacity: machine.cashbox_capacity,
    }
}

fn text(field: &'static str, text: &str, least: usize) -> Result<String, FleetError> {
    let text = text.trim();
    let length = text.chars().count();
    let plain = !text.chars().any(char::is_control);
    if plain && (least..=MAX_TEXT).contains(&length) {
        return Ok(text.to_owned());
    }
    let expected = format!("{least} to {MAX_TEXT} characters without control characters");
    Err(FleetError::Invalid { field, expected, got: format!("{length} characters") })
}

/// Adds a machine.
///
/// # Errors
/// [`FleetError`]; nothing was written.
pub async fn add(app: &App, actor: &str, new: NewMachine) -> Result<KeptMachine, FleetError> {
    let now = app.clock.now();
    let service = app.service_key;
    if !app.wallets.contains_key(&new.wallet_id) {
        let known: Vec<_> = app.wallets.keys().map(String::as_str).collect();
        return Err(FleetError::Invalid {
            field: "wallet_id",
            expected: format!("a wallet of the configuration ({})", known.join(", ")),
            got: new.wallet_id,
        });
    }
    let name = text("name", &new.name, 1)?;
    let place = text("place", &new.place, 0)?;
    let mut machine = Machine::new(new.operator, &name, &place, new.currency, &new.wallet_id, now);
    machine.machine_npub = new.npub;
    machine.cash_in_fee_ppm = new.cash_in_fee;
    machine.cash_out_fee_ppm = new.cash_out_fee;
    let owner = app.config.wallet_operators.get(&new.wallet_id).cloned();
    let actor = actor.to_owned();
    let added = app.store.write(move |tx| {
        let Some(operator) = operators::find(tx, machine.operator_id)? else {
            return Err(FleetError::NoOperator(machine.operator_id));
        };
        if owner.is_some_and(|owner| owner != operator.name) {
            return Err(FleetError::Invalid {
                field: "wallet_id",
                expected: format!("a wallet of {:?} or of nobody in particular", operator.name),
                got: format!("{:?}, which is another operator's", machine.wallet_id),
            });
        }
        if let Some(key) = machine.machine_npub {
            guard_key(tx, key, None, service)?;
        }
        if rows::by_wallet(tx, &machine.wallet_id)?.is_some() {
            return Err(FleetError::WalletTaken(machine.wallet_id));
        }
        // what rules send there would be taken for a sale's
        let paid = Destination::Wallet(machine.wallet_id.clone());
        let named = |set: &KeptRules| {
            set.cancelled_at.is_none() && set.shares.0.iter().any(|share| share.to == paid)
        };
        if rules::list(tx, None)?.iter().any(named) {
            return Err(FleetError::Invalid {
                field: "wallet_id",
                expected: "a wallet that no rules of distribution name".into(),
                got: machine.wallet_id,
            });
        }
        let platform = operators::super_config(tx)?;
        let whom = format!("machine {name:?}");
        let (fee_in, fee_out) = (machine.cash_in_fee_ppm, machine.cash_out_fee_ppm);
        pair_fees(Direction::CashIn, &whom, platform.cash_in_fee_ppm, fee_in)?;
        pair_fees(Direction::CashOut, &whom, platform.cash_out_fee_ppm, fee_out)?;
        let id = rows::insert(tx, &machine)?;
        let detail = json!({
            "name": machine.name, "place": machine.place, "fiat_code": machine.currency,
            "wallet_id": machine.wallet_id, "machine_npub": machine.machine_npub,
            "cash_in_fee_ppm": fee_in, "cash_out_fee_ppm": fee_out,
        });
        audit(tx, now, &actor, "machine.add", &subject(id), detail)?;
        if machine.machine_npub.is_some() {
            publish::key_known(tx, id, now)?;
        }
        find(tx, id, None)
    });
    let added = added.await?;
    app.ring(Ring::Roster);
    app.ring(Ring::Outbox);
    Ok(added)
}

/// Changes name, place and caps. Fees change by their own function, since they are published.
///
/// # Errors
/// [`FleetError`]; nothing was written.
pub async fn edit(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    edit: Edit,
) -> Result<KeptMachine, FleetError> {
    let now = app.clock.now();
    let name = edit.name.as_deref().map(|name| text("name", name, 1)).transpose()?;
    let place = edit.place.as_deref().map(|place| text("place", place, 0)).transpose()?;
    let actor = actor.to_owned();
    app.store
        .write(move |tx| {
            let machine = find(tx, id, operator)?;
            let was = settings(&machine);
            let mut to = was.clone();
            to.name = name.unwrap_or(to.name);
            to.place = place.unwrap_or(to.place);
            to.max_cash_in_sats = edit.max_cash_in.unwrap_or(to.max_cash_in_sats);
            to.max_cash_in_hour_sats = edit.max_cash_in_hour.unwrap_or(to.max_cash_in_hour_sats);
            to.max_cash_in_day_sats = edit.max_cash_in_day.unwrap_or(to.max_cash_in_day_sats);
            to.cashbox_capacity = edit.cashbox_capacity.unwrap_or(to.cashbox_capacity);
            rows::set_settings(tx, id, &to)?;
            let mut detail = edited(&to);
            detail["before"] = edited(&was);
            audit(tx, now, &actor, "machine.edit", &subject(id), detail)?;
            find(tx, id, operator)
        })
        .await
}

/// What the audit log tells of an edit.
fn edited(settings: &Settings) -> Value {
    json!({
        "name": settings.name, "place": settings.place,
        "max_cash_in_sats": settings.max_cash_in_sats,
        "max_cash_in_hour_sats": settings.max_cash_in_hour_sats,
        "max_cash_in_day_sats": settings.max_cash_in_day_sats,
        "cashbox_capacity": settings.cashbox_capacity,
    })
}

/// Gives a machine these tags and no others: small letters, digits, `-` and `_`.
///
/// # Errors
/// [`FleetError`]; nothing was written.
pub async fn set_tags(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    mut tags: Vec<String>,
) -> Result<Vec<String>, FleetError> {
    let now = app.clock.now();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let fits = |tag: &&String| (1..=MAX_TAG).contains(&tag.len()) && tag.chars().all(plain);
    if let Some(tag) = tags.iter().find(|tag| !fits(tag)) {
        let expected = format!("1 to {MAX_TAG} small letters, digits, - and _");
        return Err(FleetError::Invalid { field: "tags", expected, got: tag.clone() });
    }
    tags.sort();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        let expected = format!("at most {MAX_TAGS} tags");
        return Err(FleetError::Invalid { field: "tags", expected, got: tags.len().to_string() });
    }
    let actor = actor.to_owned();
    app.store
        .write(move |tx| {
            find(tx, id, operator)?;
            let before = rollouts::tags_of(tx, id)?;
            if before != tags {
                rollouts::set_tags(tx, id, &tags)?;
                let detail = json!({ "tags": tags, "before": { "tags": before } });
                audit(tx, now, &actor, "machine.tags", &subject(id), detail)?;
            }
            Ok(tags)
        })
        .await
}

/// Stops a machine's trade, or lets it trade again (`reason` is `None`).
///
/// # Errors
/// [`FleetError`]; nothing was written.
pub async fn set_disabled(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    reason: Option<String>,
) -> Result<KeptMachine, FleetError> {
    let now = app.clock.now();
    let reason = reason.map(|reason| text("reason", &reason, 1)).transpose()?;
    let actor = actor.to_owned();
    let written = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let action = match (&reason, machine.disabled_at) {
            (Some(reason), None) => {
                rows::disable(tx, id, reason, now)?;
                "machine.disable"
            }
            (None, Some(_)) => {
                rows::enable(tx, id)?;
                "machine.enable"
            }
            (Some(_), Some(_)) | (None, None) => return Ok(machine),
        };
        let before = json!({
            "disabled_at": machine.disabled_at, "reason": machine.disabled_reason,
            "by": machine.disabled_by,
        });
        let detail = json!({ "reason": reason, "before": before });
        audit(tx, now, &actor, action, &subject(id), detail)?;
        find(tx, id, operator)
    });
    let written: Result<_, FleetError> = written.await;
    app.ring(Ring::Roster);
    written
}

/// How the audit log names a machine.
#[must_use]
pub fn subject(id: MachineId) -> String {
    format!("machine:{id}")
}

/// The operator that a request is for: the caller's own, else the one that is named, else the only
/// one.
///
/// # Errors
/// [`FleetError::NoOperator`], or [`FleetError::Invalid`] where there are several.
pub fn operator_for(
    read: &Read<'_>,
    caller: Option<OperatorId>,
    named: Option<OperatorId>,
) -> Result<OperatorId, FleetError> {
    match (caller, named) {
        (Some(own), Some(named)) if own != named => Err(FleetError::NoOperator(named)),
        (Some(own), _) => Ok(own),
        (None, Some(named)) => Ok(named),
        (None, None) => match operators::list(read)?.as_slice() {
            [only] => Ok(only.id),
            all => Err(FleetError::Invalid {
                field: "operator",
                expected: "which one is meant".into(),
                got: format!("none, of {}", all.len()),
            }),
        },
    }
}
