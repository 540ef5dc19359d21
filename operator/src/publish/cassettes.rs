//! Cassettes: refills and counts, as the machine is to apply them.
//!
//! Promise: each refill or count is a change with an id of its own, written once, together with the
//! version that carries it; every version carries all changes that the machine has not
//! acknowledged, so that one that was offline loses none.
//!
//! Failure policy: [`FleetError`]; nothing was written. Whether a change holds is the machine's to
//! decide; what cannot hold in any case is refused here.

use bitspire_shared::document::{Action, Cassettes, Change, DocumentError, Position};
use bitspire_shared::ids::{BayId, ChangeId, JournalSeq};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use serde_json::json;

use super::{fees, published_at, wake};
use crate::app::App;
use crate::fleet::machines::{find, subject};
use crate::fleet::{FleetError, audit};
use crate::ids::{DocumentId, MachineId, OperatorId};
use crate::store::cassettes::{self as rows, Cassette};
use crate::store::documents::{self, DocumentKind, NewDocument};
use crate::store::machines::KeptMachine;
use crate::store::{Read, Tx};

/// Changes that a machine may have left open: they all travel in one document of 64 kB.
const MAX_OPEN: usize = 64;
/// The longest reason in bytes, as documents carry it.
const MAX_REASON: usize = 200;

/// A refill or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which bay.
    pub bay: BayId,
    /// Face value of its notes in whole major units; `None` stays.
    pub denomination: Option<u32>,
    /// What changes.
    pub action: Action,
}

/// Wishes of one person at one time.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Each bay's.
    pub bays: Vec<Wish>,
    /// Why.
    pub reason: String,
    /// The machine's journal position that the person had seen; `None` is the newest known.
    pub base_seq: Option<JournalSeq>,
}

fn invalid(field: &'static str, expected: impl Into<String>, got: impl Into<String>) -> FleetError {
    FleetError::Invalid { field, expected: expected.into(), got: got.into() }
}

/// What a machine's document says now.
fn document(read: &Read<'_>, id: MachineId, at: Unix) -> Result<Cassettes, FleetError> {
    let positions = rows::list(read, id)?
        .into_iter()
        .map(|bay| (bay.bay, Position { denomination: bay.denomination, count: bay.count }));
    let change = |row: rows::Change| {
        let neither = || invalid("change", "a count or a difference of 32 bits", "another one");
        let action = match (row.delta, row.set_count) {
            (Some(delta), None) => Action::Delta(i32::try_from(delta).map_err(|_| neither())?),
            (None, Some(count)) => Action::Set(count),
            _ => return Err(neither()),
        };
        let rows::Change { change_id: id, bay, reason, base_seq, .. } = row;
        Ok(Change { id, bay, action, reason, base_seq })
    };
    let positions = positions.collect();
    let changes: Result<_, FleetError> =
        rows::open_changes(read, id)?.into_iter().map(change).collect();
    Ok(Cassettes { positions, published_at: Some(at), changes: Some(changes?), attest: None })
}

/// Wants the machine's cassettes as they stand, with every open change.
///
/// # Errors
/// [`FleetError`].
pub fn want(tx: &Tx<'_>, machine: &KeptMachine, now: Unix) -> Result<DocumentId, FleetError> {
    let last = documents::wanted(tx, machine.id, DocumentKind::Cassettes)?;
    let at = published_at(last.map(|last| last.published_at), now);
    let text = document(tx, machine.id, at)?.to_json(machine.currency)?;
    let new = NewDocument {
        machine_id: machine.id,
        kind: DocumentKind::Cassettes,
        body: fees::json(&text)?,
        published_at: at,
        fees: None,
    };
    Ok(documents::want(tx, &new, now)?)
}

/// Writes refills and counts down and wants them on the machine.
///
/// # Errors
/// [`FleetError::Invalid`]: an unknown bay without a denomination, a position that the machine has
/// not reached or that is before the bay's last count, too many open changes; nothing was written.
pub async fn change(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    wishes: Wishes,
) -> Result<(Vec<ChangeId>, DocumentId), FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let reason = wishes.reason.trim().to_owned();
    if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
        let expected = format!("at most {MAX_REASON} bytes without control characters");
        return Err(invalid("reason", expected, format!("{} bytes", reason.len())));
    }
    if wishes.bays.is_empty() {
        return Err(invalid("bays", "at least one bay", "none"));
    }
    let mut ids = Vec::new();
    for _ in &wishes.bays {
        let id = random().map_err(|error| FleetError::NotPublished(error.to_string()))?;
        ids.push(ChangeId::from_bytes(id));
    }
    let written = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let open = rows::open_changes(tx, id)?.len().saturating_add(wishes.bays.len());
        if open > MAX_OPEN {
            let expected = format!("at most {MAX_OPEN} changes that the machine has not applied");
            return Err(invalid("bays", expected, format!("{open} with these")));
        }
        let seen = machine.journal_seq;
        let base = wishes.base_seq.unwrap_or(seen);
        if base > seen {
            let expected = format!("a journal position that was seen, up to {}", seen.0);
            return Err(invalid("base_seq", expected, base.0.to_string()));
        }
        for (change_id, wish) in ids.iter().zip(&wishes.bays) {
            let (before, after) = write(tx, &machine, wish, base, now)?;
            let (delta, set_count) = match wish.action {
                Action::Delta(delta) => (Some(i64::from(delta)), None),
                Action::Set(count) => (None, Some(count)),
            };
            let change = rows::Change {
                change_id: *change_id,
                machine_id: id,
                number: rows::next_number(tx, id)?,
                bay: wish.bay,
                delta,
                set_count,
                reason: reason.clone(),
                base_seq: base,
                actor: actor.clone(),
                created_at: now,
                acked_at: None,
                booked_at: None,
            };
            rows::insert_change(tx, &change)?;
            let detail = json!({
                "change_id": change_id, "bay": wish.bay, "denomination": wish.denomination,
                "delta": delta, "set": set_count, "reason": reason, "base_seq": base,
                "count": after.count,
                "before": before.map(|was| {
                    let denomination = was.denomination.major(machine.currency);
                    json!({ "denomination": denomination, "count": was.count })
                }),
            });
            audit(tx, now, &actor, "machine.cassettes", &subject(id), detail)?;
        }
        let document = want(tx, &machine, now)?;
        Ok((ids, document))
    });
    let written: Result<_, FleetError> = written.await;
    wake(app);
    written
}

/// Writes what a bay holds after a wish; what it held before, if anything was known, and holds now.
fn write(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    wish: &Wish,
    base: JournalSeq,
    now: Unix,
) -> Result<(Option<Cassette>, Cassette), FleetError> {
    let (id, bay) = (machine.id, wish.bay);
    // the machine refuses what was decided before the bay's last count, and so do we
    let since = machine.paired_at.unwrap_or(Unix(0));
    if let Some(counted) = rows::last_count(tx, id, bay, since)?.filter(|last| base < *last) {
        let expected = format!("a position of {} or later, where bay {bay} was counted", counted.0);
        return Err(invalid("base_seq", expected, base.0.to_string()));
    }
    let known = rows::list(tx, id)?.into_iter().find(|known| known.bay == bay);
    let denomination = match (wish.denomination, &known) {
        (Some(major), _) => Denomination::from_major(major, machine.currency)
            .map_err(DocumentError::Denomination)?,
        (None, Some(known)) => known.denomination,
        (None, None) => {
            let got = format!("bay {bay}, of which nothing is known");
            return Err(invalid("denomination", "one for a new bay", got));
        }
    };
    let before = known.as_ref().map_or(0, |known| known.count);
    let count = match wish.action {
        Action::Set(count) => count,
        // the machine's own count decides; this one is what readers without `changes` go by
        Action::Delta(delta) => before.saturating_add_signed(delta),
    };
    let cassette = Cassette { machine_id: id, bay, denomination, count, updated_at: now };
    rows::set(tx, &cassette)?;
    Ok((known, cassette))
}
