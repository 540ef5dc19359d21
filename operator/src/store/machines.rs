//! Machines: the roster, and what is known of each.
//!
//! States of `confirmation`: unpaired -> awaiting_session (seed redeemed or not, no vault key yet)
//! -> awaiting_confirmation (vault key pinned, the digits are on both screens) -> confirmed;
//! revoked from any of them; a new pairing starts again at awaiting_session.

use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey};
use bitspire_shared::money::{Currency, FeePpm, Sats};
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::{MachineId, OperatorId};

text_enum! {
    /// How far a machine's pairing has come.
    pub enum Confirmation {
        /// Never paired.
        Unpaired = "unpaired",
        /// Paired; has not opened a session yet.
        AwaitingSession = "awaiting_session",
        /// Its vault key is pinned; the operator has not compared the digits yet.
        AwaitingConfirmation = "awaiting_confirmation",
        /// In service.
        Confirmed = "confirmed",
        /// Revoked.
        Revoked = "revoked",
    }
}

text_enum! {
    /// Who switched a machine off.
    pub enum DisabledBy {
        /// Its operator: what has begun comes to its end.
        Operator = "operator",
        /// The service, because something cannot be right: a person looks first.
        Alarm = "alarm",
    }
}

record! {
    /// A machine.
    pub struct Machine in "machines", id: MachineId {
        /// Whose it is.
        pub operator_id: OperatorId,
        /// For pages and receipts.
        pub name: String,
        /// Where it stands.
        pub place: String,
        /// Of its notes and of everything that is said in fiat; never changes.
        pub currency: Currency,
        /// Its Lightning wallet; no other machine's.
        pub wallet_id: String,
        /// The spire key.
        pub machine_npub: Option<PubKey>,
        /// Name of the spire key in the bunker.
        pub bunker_spire_key_name: Option<String>,
        /// The bunker's id of the redeemed token or key user, where it tells one.
        pub bunker_connection_id: Option<String>,
        /// End of the bunker's grant; held by our roster, since bunkers do not.
        pub bunker_token_expires_at: Option<Unix>,
        /// Last pairing.
        pub paired_at: Option<Unix>,
        /// The key of its NIP-46 traffic and NIP-42 AUTH, once seen.
        pub client_key: Option<PubKey>,
        /// The pinned key of its vault.
        pub vault_key: Option<PubKey>,
        /// How far the pairing has come.
        pub confirmation: Confirmation,
        /// When the operator confirmed the digits.
        pub confirmed_at: Option<Unix>,
        /// When it was revoked.
        pub revoked_at: Option<Unix>,
        /// Since when it may not trade.
        pub disabled_at: Option<Unix>,
        /// Why.
        pub disabled_reason: Option<String>,
        /// Who switched it off.
        pub disabled_by: Option<DisabledBy>,
        /// The operator's fee on cash_in.
        pub cash_in_fee_ppm: FeePpm,
        /// The operator's fee on cash_out.
        pub cash_out_fee_ppm: FeePpm,
        /// Cap of one cash_in; `None` is the default, 0 allows none.
        pub max_cash_in_sats: Option<Sats>,
        /// Cap of all cash_in within an hour.
        pub max_cash_in_hour_sats: Option<Sats>,
        /// Cap of all cash_in within a day.
        pub max_cash_in_day_sats: Option<Sats>,
        /// Notes that the cashbox holds.
        pub cashbox_capacity: Option<u64>,
        /// The highest journal position seen; 0 is "none".
        pub journal_seq: JournalSeq,
        /// The journal's head at that position.
        pub journal_head: Option<JournalHead>,
        /// Last accepted request.
        pub last_seen_at: Option<Unix>,
        /// When the row was made.
        pub created_at: Unix,
    }
}

impl Machine {
    /// A machine that was only just added: not paired, no fees, default caps.
    #[must_use]
    pub fn new(
        operator_id: OperatorId,
        name: &str,
        place: &str,
        currency: Currency,
        wallet_id: &str,
        now: Unix,
    ) -> Self {
        Self {
            operator_id,
            name: name.to_owned(),
            place: place.to_owned(),
            currency,
            wallet_id: wallet_id.to_owned(),
            machine_npub: None,
            bunker_spire_key_name: None,
            bunker_connection_id: None,
            bunker_token_expires_at: None,
            paired_at: None,
            client_key: None,
            vault_key: None,
            confirmation: Confirmation::Unpaired,
            confirmed_at: None,
            revoked_at: None,
            disabled_at: None,
            disabled_reason: None,
            disabled_by: None,
            cash_in_fee_ppm: FeePpm::ZERO,
            cash_out_fee_ppm: FeePpm::ZERO,
            max_cash_in_sats: None,
            max_cash_in_hour_sats: None,
            max_cash_in_day_sats: None,
            cashbox_capacity: None,
            journal_seq: JournalSeq(0),
            journal_head: None,
            last_seen_at: None,
            created_at: now,
        }
    }
}

/// A machine with its id.
pub type KeptMachine = Kept<MachineId, Machine>;

fn one(
    read: &Read<'_>,
    sql: &str,
    value: &dyn super::column::ToColumn,
) -> Result<Option<KeptMachine>, StoreError> {
    read.one(sql, &[value], Machine::kept)
}

/// Adds a machine.
///
/// # Errors
/// [`StoreError`]; unique on `wallet_id` or `machine_npub` (another machine has it).
pub fn insert(tx: &Tx<'_>, machine: &Machine) -> Result<MachineId, StoreError> {
    machine.insert_into(tx)
}

/// The machine with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: MachineId) -> Result<Option<KeptMachine>, StoreError> {
    one(read, "SELECT * FROM machines WHERE id = ?1", &id)
}

/// The machine whose spire key this is.
///
/// # Errors
/// [`StoreError`].
pub fn by_spire(read: &Read<'_>, spire: PubKey) -> Result<Option<KeptMachine>, StoreError> {
    one(read, "SELECT * FROM machines WHERE machine_npub = ?1", &spire)
}

/// The machine that this wallet belongs to.
///
/// # Errors
/// [`StoreError`].
pub fn by_wallet(read: &Read<'_>, wallet_id: &str) -> Result<Option<KeptMachine>, StoreError> {
    one(read, "SELECT * FROM machines WHERE wallet_id = ?1", &wallet_id)
}

/// Every machine, or every machine of one operator.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, operator: Option<OperatorId>) -> Result<Vec<KeptMachine>, StoreError> {
    let sql = "SELECT * FROM machines WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY id";
    read.all(sql, &[&operator], Machine::kept)
}

/// A paired machine as rosters and subscriptions keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paired {
    /// The machine.
    pub id: MachineId,
    /// Whose it is.
    pub operator_id: OperatorId,
    /// Of its notes.
    pub currency: Currency,
    /// The spire key.
    pub spire: PubKey,
    /// The key that it authenticates with, once seen.
    pub client: Option<PubKey>,
    /// End of the bunker's grant.
    pub token_expires_at: Option<Unix>,
    /// When it was revoked.
    pub revoked_at: Option<Unix>,
}

/// Every machine that is paired and has a key, the revoked ones included: of each what a roster
/// needs, since rosters are read again and again.
///
/// # Errors
/// [`StoreError`].
pub fn roster(read: &Read<'_>) -> Result<Vec<Paired>, StoreError> {
    read.all(
        "SELECT id, operator_id, currency, machine_npub, bunker_token_expires_at, client_key,
             revoked_at
         FROM machines WHERE paired_at IS NOT NULL AND machine_npub IS NOT NULL ORDER BY id",
        &[],
        |row: &Row<'_>| {
            Ok(Paired {
                id: row.get("id")?,
                operator_id: row.get("operator_id")?,
                currency: row.get("currency")?,
                spire: row.get("machine_npub")?,
                token_expires_at: row.get("bunker_token_expires_at")?,
                client: row.get("client_key")?,
                revoked_at: row.get("revoked_at")?,
            })
        },
    )
}

/// Machines in service whose pairing has ended or ends by `until`.
///
/// # Errors
/// [`StoreError`].
pub fn ending(read: &Read<'_>, until: Unix) -> Result<Vec<KeptMachine>, StoreError> {
    let sql = "SELECT * FROM machines WHERE confirmation = 'confirmed' AND revoked_at IS NULL
               AND bunker_token_expires_at <= ?1 ORDER BY id";
    read.all(sql, &[&until], Machine::kept)
}

/// Machines whose seed can still be redeemed at `now`, and was not that we know of.
///
/// # Errors
/// [`StoreError`].
pub fn unredeemed(read: &Read<'_>, now: Unix) -> Result<Vec<KeptMachine>, StoreError> {
    let sql = "SELECT * FROM machines WHERE paired_at IS NOT NULL AND revoked_at IS NULL
               AND client_key IS NULL AND bunker_token_expires_at >= ?1 ORDER BY id";
    read.all(sql, &[&now], Machine::kept)
}

/// Name, place, fees and caps as an operator edits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For pages and receipts.
    pub name: String,
    /// Where it stands.
    pub place: String,
    /// The operator's fee on cash_in.
    pub cash_in_fee_ppm: FeePpm,
    /// The operator's fee on cash_out.
    pub cash_out_fee_ppm: FeePpm,
    /// Cap of one cash_in.
    pub max_cash_in_sats: Option<Sats>,
    /// Cap of all cash_in within an hour.
    pub max_cash_in_hour_sats: Option<Sats>,
    /// Cap of all cash_in within a day.
    pub max_cash_in_day_sats: Option<Sats>,
    /// Notes that the cashbox holds.
    pub cashbox_capacity: Option<u64>,
}

/// Changes what an operator edits.
///
/// # Errors
/// [`StoreError`]; a check where a fee is above the cap.
pub fn set_settings(tx: &Tx<'_>, id: MachineId, to: &Settings) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET name = ?2, place = ?3, cash_in_fee_ppm = ?4, cash_out_fee_ppm = ?5,
            max_cash_in_sats = ?6, max_cash_in_hour_sats = ?7, max_cash_in_day_sats = ?8,
            cashbox_capacity = ?9 WHERE id = ?1",
        &[
            &id,
            &to.name,
            &to.place,
            &to.cash_in_fee_ppm,
            &to.cash_out_fee_ppm,
            &to.max_cash_in_sats,
            &to.max_cash_in_hour_sats,
            &to.max_cash_in_day_sats,
            &to.cashbox_capacity,
        ],
    )
}

/// Switches a machine to a new pairing: the pins of the old one are gone, a session comes next.
///
/// # Errors
/// [`StoreError`]; unique on `machine_npub` where another machine has that key.
pub fn set_paired(
    tx: &Tx<'_>,
    id: MachineId,
    spire: PubKey,
    key_name: &str,
    token_expires_at: Unix,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET machine_npub = ?2, bunker_spire_key_name = ?3,
            bunker_token_expires_at = ?4, paired_at = ?5, bunker_connection_id = NULL,
            client_key = NULL, vault_key = NULL, confirmation = 'awaiting_session',
            confirmed_at = NULL, revoked_at = NULL, journal_seq = 0, journal_head = NULL
         WHERE id = ?1",
        &[&id, &spire, &key_name, &token_expires_at, &now],
    )
}

/// Moves the end of a pairing that is in force; never to an earlier time.
///
/// # Errors
/// [`StoreError::NotOneRow`] where the machine has another key by now, or was revoked.
pub fn extend_token(
    tx: &Tx<'_>,
    id: MachineId,
    spire: PubKey,
    until: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET bunker_token_expires_at = max(bunker_token_expires_at, ?3)
         WHERE id = ?1 AND machine_npub = ?2 AND revoked_at IS NULL",
        &[&id, &spire, &until],
    )
}

/// Records who redeemed the seed.
///
/// # Errors
/// [`StoreError`]; unique on `client_key`.
pub fn set_client(
    tx: &Tx<'_>,
    id: MachineId,
    client_key: PubKey,
    connection_id: Option<&str>,
) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET client_key = ?2, bunker_connection_id = ?3
         WHERE id = ?1 AND paired_at IS NOT NULL AND revoked_at IS NULL",
        &[&id, &client_key, &connection_id],
    )
}

/// Pins the vault's key at the first session after a pairing.
///
/// # Errors
/// [`StoreError::NotOneRow`] where a key is pinned already, or the machine is not paired.
pub fn pin_vault(tx: &Tx<'_>, id: MachineId, vault_key: PubKey) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET vault_key = ?2, confirmation = 'awaiting_confirmation'
         WHERE id = ?1 AND vault_key IS NULL AND confirmation = 'awaiting_session'",
        &[&id, &vault_key],
    )
}

/// Puts a machine in service, once its digits were compared.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it does not wait for that.
pub fn confirm(tx: &Tx<'_>, id: MachineId, now: Unix) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET confirmation = 'confirmed', confirmed_at = ?2
         WHERE id = ?1 AND confirmation = 'awaiting_confirmation'",
        &[&id, &now],
    )
}

/// Revokes a machine and closes its sessions: from the commit on, nothing is signed for it.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not paired.
pub fn revoke(tx: &Tx<'_>, id: MachineId, now: Unix) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET confirmation = 'revoked', revoked_at = ?2
         WHERE id = ?1 AND paired_at IS NOT NULL AND revoked_at IS NULL",
        &[&id, &now],
    )?;
    super::sessions::close_all(tx, id, now)
}

/// Stops a machine's trade for its operator, with the reason that its page shows; the first reason
/// stays.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is disabled already.
pub fn disable(tx: &Tx<'_>, id: MachineId, reason: &str, now: Unix) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET disabled_at = ?3, disabled_reason = ?2, disabled_by = 'operator'
         WHERE id = ?1 AND disabled_at IS NULL",
        &[&id, &reason, &now],
    )
}

/// Stops all that a machine does, for an alarm, also where its operator has switched it off already;
/// nothing changes where an alarm has.
///
/// # Errors
/// [`StoreError`].
pub fn suspect(tx: &Tx<'_>, id: MachineId, reason: &str, now: Unix) -> Result<(), StoreError> {
    tx.run(
        "UPDATE machines SET disabled_at = coalesce(disabled_at, ?3), disabled_reason = ?2,
             disabled_by = 'alarm'
         WHERE id = ?1 AND coalesce(disabled_by, '') <> 'alarm'",
        &[&id, &reason, &now],
    )?;
    Ok(())
}

/// Lets a disabled machine trade again.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not disabled.
pub fn enable(tx: &Tx<'_>, id: MachineId) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET disabled_at = NULL, disabled_reason = NULL, disabled_by = NULL
         WHERE id = ?1 AND disabled_at IS NOT NULL",
        &[&id],
    )
}

/// Records the journal position that a machine has shown. It never goes back: a lower position is
/// the caller's alarm.
///
/// # Errors
/// [`StoreError::NotOneRow`] for a position below the last one, or the same one with another head.
pub fn saw_journal(
    tx: &Tx<'_>,
    id: MachineId,
    seq: JournalSeq,
    head: JournalHead,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "machines",
        "UPDATE machines SET journal_seq = ?2, journal_head = ?3, last_seen_at = ?4
         WHERE id = ?1 AND (journal_seq < ?2 OR (journal_seq = ?2 AND journal_head = ?3))",
        &[&id, &seq, &head, &now],
    )
}

/// Records that a machine was heard.
///
/// # Errors
/// [`StoreError::NotOneRow`] where there is none.
pub fn saw(tx: &Tx<'_>, id: MachineId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE machines SET last_seen_at = ?2 WHERE id = ?1";
    tx.run_one("machines", sql, &[&id, &now])
}
