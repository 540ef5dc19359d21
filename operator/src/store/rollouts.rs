//! Groups of machines, and changes of fees that go out to one after the other.
//!
//! Promise: of one operator at most one roll-out runs; which machine is in which stage, and with which
//! fees it was planned, is written before the first machine changes.

use bitspire_shared::money::FeePpm;
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{DocumentId, MachineId, OperatorId, RolloutId};

text_enum! {
    /// How a roll-out stands.
    pub enum RolloutState {
        /// On its way.
        Running = "running",
        /// Each machine has it.
        Done = "done",
        /// A machine did not come to it.
        Halted = "halted",
        /// Somebody stopped it.
        Stopped = "stopped",
    }
}

record! {
    /// A roll-out.
    pub struct Rollout in "rollouts", id: RolloutId {
        /// Whose machines.
        pub operator_id: OperatorId,
        /// The operator's fee on cash_in, where it changes.
        pub cash_in_fee_ppm: Option<FeePpm>,
        /// The operator's fee on cash_out, where it changes.
        pub cash_out_fee_ppm: Option<FeePpm>,
        /// Seconds that each machine has to apply it.
        pub wait_s: u32,
        /// Who began it.
        pub actor: String,
        /// How it stands.
        pub state: RolloutState,
        /// Why it was halted.
        pub reason: Option<String>,
        /// When it began.
        pub created_at: Unix,
        /// When it ended.
        pub ended_at: Option<Unix>,
    }
}

record! {
    /// A machine of a roll-out.
    pub struct Staged in "rollout_machines" {
        /// Of which one.
        pub rollout_id: RolloutId,
        /// The machine.
        pub machine_id: MachineId,
        /// Its stage, from 0.
        pub stage: u32,
        /// The fee on cash_in that it was planned with.
        pub cash_in_from: FeePpm,
        /// The fee on cash_out that it was planned with.
        pub cash_out_from: FeePpm,
        /// Whether it is waited for.
        pub waits: bool,
        /// Its fees as they were written.
        pub document_id: Option<DocumentId>,
        /// When.
        pub written_at: Option<Unix>,
    }
}

/// Every machine's tags, machine by machine.
///
/// # Errors
/// [`StoreError`].
pub fn tags(read: &Read<'_>) -> Result<Vec<(MachineId, String)>, StoreError> {
    let sql = "SELECT machine_id, tag FROM machine_tags ORDER BY machine_id, tag";
    read.all(sql, &[], |row| Ok((row.get("machine_id")?, row.get("tag")?)))
}

/// One machine's tags.
///
/// # Errors
/// [`StoreError`].
pub fn tags_of(read: &Read<'_>, machine: MachineId) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT tag FROM machine_tags WHERE machine_id = ?1 ORDER BY tag";
    read.all(sql, &[&machine], |row| row.get("tag"))
}

/// Gives a machine these tags and no others.
///
/// # Errors
/// [`StoreError`].
pub fn set_tags(tx: &Tx<'_>, machine: MachineId, tags: &[String]) -> Result<(), StoreError> {
    tx.run("DELETE FROM machine_tags WHERE machine_id = ?1", &[&machine])?;
    for tag in tags {
        tx.run("INSERT INTO machine_tags (machine_id, tag) VALUES (?1, ?2)", &[&machine, tag])?;
    }
    Ok(())
}

/// Begins a roll-out over these machines.
///
/// # Errors
/// [`StoreError`]; unique on `operator_id` where one runs.
pub fn begin(
    tx: &Tx<'_>,
    rollout: &Rollout,
    machines: impl FnOnce(RolloutId) -> Vec<Staged>,
) -> Result<RolloutId, StoreError> {
    let id = rollout.insert_into(tx)?;
    for machine in machines(id) {
        machine.insert_into(tx)?;
    }
    Ok(id)
}

/// One roll-out.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    id: RolloutId,
) -> Result<Option<Kept<RolloutId, Rollout>>, StoreError> {
    read.one("SELECT * FROM rollouts WHERE id = ?1", &[&id], Rollout::kept)
}

/// The newest roll-outs of one operator, or of all.
///
/// # Errors
/// [`StoreError`].
pub fn newest(
    read: &Read<'_>,
    operator: Option<OperatorId>,
    limit: u32,
) -> Result<Vec<Kept<RolloutId, Rollout>>, StoreError> {
    let sql = "SELECT * FROM rollouts WHERE ?1 IS NULL OR operator_id = ?1
               ORDER BY id DESC LIMIT ?2";
    read.all(sql, &[&operator, &limit], Rollout::kept)
}

/// Those on their way.
///
/// # Errors
/// [`StoreError`].
pub fn running(read: &Read<'_>) -> Result<Vec<Kept<RolloutId, Rollout>>, StoreError> {
    read.all("SELECT * FROM rollouts WHERE state = 'running' ORDER BY id", &[], Rollout::kept)
}

/// The machines of one, stage by stage.
///
/// # Errors
/// [`StoreError`].
pub fn machines(read: &Read<'_>, id: RolloutId) -> Result<Vec<Staged>, StoreError> {
    let sql = "SELECT * FROM rollout_machines WHERE rollout_id = ?1 ORDER BY stage, machine_id";
    read.all(sql, &[&id], Staged::from_row)
}

/// A machine's fees are written.
///
/// # Errors
/// [`StoreError::NotOneRow`] where they were.
pub fn wrote(
    tx: &Tx<'_>,
    id: RolloutId,
    machine: MachineId,
    document: DocumentId,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "rollout_machines",
        "UPDATE rollout_machines SET document_id = ?3, written_at = ?4
         WHERE rollout_id = ?1 AND machine_id = ?2 AND document_id IS NULL",
        &[&id, &machine, &document, &now],
    )
}

/// Ends one.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not on its way.
pub fn end(
    tx: &Tx<'_>,
    id: RolloutId,
    state: RolloutState,
    reason: Option<&str>,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "rollouts",
        "UPDATE rollouts SET state = ?2, reason = ?3, ended_at = ?4
         WHERE id = ?1 AND state = 'running'",
        &[&id, &state, &reason, &now],
    )
}
