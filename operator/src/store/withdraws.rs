//! Withdraws: sats promised to a customer, and the k1 sessions under which a wallet fetches them.
//!
//! Promise: one withdraw for the notes of a transaction, for ever; the first valid invoice is bound
//! to a k1 durably, before any payment, and no other one is ever paid under it. A new k1 is written
//! only when no payment of the withdraw can succeed any more.
//!
//! States of a withdraw: offered -> bound -> paid (final); offered, or bound to an invoice whose
//! payment has finally failed, -> expired (what it promised is owed by claim). Of a k1: live (bound or not) -> dead.
//!
//! Statements about open withdraws say `state <> 'paid'` first: it is the condition of the index over
//! them, without which each reads every withdraw that ever was.

use std::fmt;

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{
    ClaimHash, JournalHead, JournalSeq, PaymentHash, QuoteId, TxnId, WithdrawId, from_hex, to_hex,
};
use bitspire_shared::money::{Currency, Sats};
use bitspire_shared::rpc::Notes;
use bitspire_shared::time::Unix;
use rusqlite::types::{Value, ValueRef};
use zeroize::{Zeroize, Zeroizing};

use super::column::{FromColumn, Json, ToColumn, text_enum, text_of};
use super::row::record;
use super::{Read, StoreError, Tx, claims};
use crate::ids::{ClaimId, MachineId};

/// One LNURL-withdraw session (LUD-03): whoever has it can name the invoice. Wiped when dropped;
/// `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Zeroize)]
#[zeroize(drop)]
pub struct K1([u8; 32]);

impl K1 {
    /// Makes a k1 of 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the 64 hex characters of a URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_hex("k1", text).ok().map(Self)
    }

    /// The bytes for a code. A bearer secret: never log them.
    #[must_use]
    pub fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The text for the URL. A bearer secret: never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Debug for K1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("K1(redacted)")
    }
}

impl ToColumn for K1 {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Text(self.expose()))
    }
}

impl FromColumn for K1 {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        text_of(value).and_then(Self::parse).ok_or("a k1")
    }
}

text_enum! {
    /// Why sats are promised.
    pub enum Purpose {
        /// For stacked notes.
        CashIn = "cash_in",
        /// To pay what is owed.
        Owed = "owed",
    }
}

text_enum! {
    /// Where a withdraw stands.
    pub enum WithdrawState {
        /// Nobody has named an invoice.
        Offered = "offered",
        /// An invoice is bound; its payment is under way, unknown or failed.
        Bound = "bound",
        /// Paid.
        Paid = "paid",
        /// Ended unclaimed.
        Expired = "expired",
    }
}

text_enum! {
    /// Whether a k1 can be used.
    pub enum K1State {
        /// It can: to bind an invoice, or for the one that is bound.
        Live = "live",
        /// Never again.
        Dead = "dead",
    }
}

record! {
    /// A withdraw.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Withdraw in "withdraws" {
        /// Its id.
        pub withdraw_id: WithdrawId,
        /// The machine whose wallet pays.
        pub machine_id: MachineId,
        /// The transaction.
        pub txid: TxnId,
        /// Why sats are promised.
        pub purpose: Purpose,
        /// The claim that it pays.
        pub claim_id: Option<ClaimId>,
        /// Hash of the claim code.
        pub claim_hash: ClaimHash,
        /// What the customer gets.
        pub net_sats: Sats,
        /// Where it stands.
        pub state: WithdrawState,
        /// When it was made.
        pub created_at: Unix,
        /// Until when its LNURL can be used.
        pub expires_at: Unix,
        /// cash_in: value of the notes in minor units.
        pub fiat_minor: Option<i64>,
        /// cash_in: their currency.
        pub fiat_code: Option<Currency>,
        /// cash_in: sats at market rate.
        pub principal_sats: Option<Sats>,
        /// cash_in: the platform's leg.
        pub platform_fee_sats: Option<Sats>,
        /// cash_in: the operator's leg.
        pub operator_fee_sats: Option<Sats>,
        /// cash_in: journal position of the vault's claim.
        pub journal_seq: Option<JournalSeq>,
        /// cash_in: the journal's head there.
        pub journal_head: Option<JournalHead>,
        /// cash_in: the vault's signature over its claim.
        pub vault_sig: Option<Sig>,
        /// cash_in: the service's signature over the promise.
        pub withdraw_sig: Option<Sig>,
        /// cash_in: the request's event as JSON, whole.
        pub request_event: Option<String>,
    }
}

record! {
    /// A k1 and what is bound to it.
    pub struct Session in "withdraw_k1s" {
        /// The k1.
        pub k1: K1,
        /// Its withdraw.
        pub withdraw_id: WithdrawId,
        /// Whether it can be used.
        pub state: K1State,
        /// When it was made.
        pub created_at: Unix,
        /// Until when an invoice can be bound.
        pub expires_at: Unix,
        /// The bound invoice's hash.
        pub bound_hash: Option<PaymentHash>,
        /// The bound invoice.
        pub bound_bolt11: Option<String>,
        /// When it was bound.
        pub bound_at: Option<Unix>,
    }
}

/// Notes of a cash_in under one locked rate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lot {
    /// The quote that locked the rate.
    pub quote_id: QuoteId,
    /// The notes.
    pub notes: Notes,
}

/// Writes the withdraw of a cash_in with its lots. The caller ends the quotes' reservations.
///
/// # Errors
/// [`StoreError`]; unique on `withdraws.machine_id` where the transaction has one, on
/// `withdraw_lots.quote_id` where a quote was used before; a check where the amounts do not sum.
pub fn insert(tx: &Tx<'_>, withdraw: &Withdraw, lots: &[Lot]) -> Result<(), StoreError> {
    withdraw.insert_into(tx)?;
    for lot in lots {
        let notes = Json(&lot.notes);
        tx.insert(
            "withdraw_lots",
            &[
                ("quote_id", &lot.quote_id),
                ("withdraw_id", &withdraw.withdraw_id),
                ("notes", &notes),
            ],
        )?;
    }
    Ok(())
}

/// Writes a withdraw that pays every open debt of a claim; its amount, `None` where nothing is open.
///
/// # Errors
/// [`StoreError`]; unique on `withdraws.claim_id` while another payout of the claim is under way.
pub fn insert_for_claim(
    tx: &Tx<'_>,
    claim: ClaimId,
    withdraw_id: WithdrawId,
    expires_at: Unix,
    now: Unix,
) -> Result<Option<Sats>, StoreError> {
    let sats = claims::open_sats(tx, claim)?;
    if sats == Sats::ZERO {
        return Ok(None);
    }
    tx.run_one(
        "claims",
        "INSERT INTO withdraws (withdraw_id, machine_id, txid, purpose, claim_id, claim_hash,
            net_sats, state, created_at, expires_at)
         SELECT ?2, machine_id, txid, 'owed', id, claim_hash, ?3, 'offered', ?4, ?5
         FROM claims WHERE id = ?1",
        &[&claim, &withdraw_id, &sats, &now, &expires_at],
    )?;
    claims::assign(tx, claim, withdraw_id)?;
    Ok(Some(sats))
}

/// The withdraw with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: WithdrawId) -> Result<Option<Withdraw>, StoreError> {
    read.one("SELECT * FROM withdraws WHERE withdraw_id = ?1", &[&id], Withdraw::from_row)
}

/// The withdraw for the notes of this transaction.
///
/// # Errors
/// [`StoreError`].
pub fn by_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Option<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE machine_id = ?1 AND txid = ?2
               AND purpose = 'cash_in'";
    read.one(sql, &[&machine, &txid], Withdraw::from_row)
}

/// The unpaid withdraws of a claim code: of its notes and of its debts.
///
/// # Errors
/// [`StoreError`].
pub fn unpaid_of_claim(
    read: &Read<'_>,
    machine: MachineId,
    hash: ClaimHash,
) -> Result<Vec<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE machine_id = ?1 AND claim_hash = ?2
               AND state <> 'paid' AND state IN ('offered', 'bound') ORDER BY created_at";
    read.all(sql, &[&machine, &hash], Withdraw::from_row)
}

/// The notes of a withdraw by lot.
///
/// # Errors
/// [`StoreError`].
pub fn lots(read: &Read<'_>, id: WithdrawId) -> Result<Vec<Lot>, StoreError> {
    let sql = "SELECT quote_id, notes FROM withdraw_lots WHERE withdraw_id = ?1 ORDER BY quote_id";
    read.all(sql, &[&id], |row| {
        let notes: Json<Notes> = row.get("notes")?;
        Ok(Lot { quote_id: row.get("quote_id")?, notes: notes.0 })
    })
}

/// What is promised to customers of a machine and not paid: liabilities beside what
/// [`claims::unassigned`] says.
///
/// # Errors
/// [`StoreError`].
pub fn unpaid(read: &Read<'_>, machine: MachineId) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(net_sats), 0) AS sats FROM withdraws
               WHERE machine_id = ?1 AND state <> 'paid' AND state IN ('offered', 'bound')";
    Ok(read.one(sql, &[&machine], |row| row.get("sats"))?.unwrap_or_default())
}

/// Withdraws with a bound invoice whose payment is not final, oldest first: what the payout worker
/// goes on with.
///
/// # Errors
/// [`StoreError`].
pub fn bound(read: &Read<'_>) -> Result<Vec<WithdrawId>, StoreError> {
    let sql = "SELECT withdraws.withdraw_id FROM withdraws
        JOIN withdraw_k1s ON withdraw_k1s.withdraw_id = withdraws.withdraw_id
            AND withdraw_k1s.state = 'live'
        LEFT JOIN payments ON payments.payment_hash = bound_hash
        WHERE withdraws.state <> 'paid' AND withdraws.state = 'bound' AND bound_hash IS NOT NULL
            AND (payments.state IS NULL OR payments.state IN ('pending', 'unknown'))
        ORDER BY bound_at";
    read.all(sql, &[], |row| row.get("withdraw_id"))
}

/// The unpaid withdraws under this claim code, whatever the machine.
///
/// # Errors
/// [`StoreError`].
pub fn unpaid_under(read: &Read<'_>, hash: ClaimHash) -> Result<Vec<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE claim_hash = ?1 AND state <> 'paid'
               AND state IN ('offered', 'bound') ORDER BY created_at";
    read.all(sql, &[&hash], Withdraw::from_row)
}

/// Withdraws of notes that nobody claimed in time.
///
/// # Errors
/// [`StoreError`].
pub fn overdue(read: &Read<'_>, now: Unix) -> Result<Vec<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE state <> 'paid' AND purpose = 'cash_in'
               AND state = 'offered' AND expires_at < ?1 ORDER BY expires_at";
    read.all(sql, &[&now], Withdraw::from_row)
}

/// What is promised and not paid, of all machines, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn open(read: &Read<'_>) -> Result<Vec<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE state <> 'paid' AND state IN ('offered', 'bound')
               ORDER BY created_at";
    read.all(sql, &[], Withdraw::from_row)
}

/// At most `limit` withdraws after `after`, by id: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    after: Option<WithdrawId>,
    limit: u32,
) -> Result<Vec<Withdraw>, StoreError> {
    let sql = "SELECT * FROM withdraws WHERE ?1 IS NULL OR withdraw_id > ?1
               ORDER BY withdraw_id LIMIT ?2";
    read.all(sql, &[&after, &limit], Withdraw::from_row)
}

/// What is promised to a machine's customers for `purpose` and not paid.
///
/// # Errors
/// [`StoreError`].
pub fn unpaid_for(
    read: &Read<'_>,
    machine: MachineId,
    purpose: Purpose,
) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(net_sats), 0) AS sats FROM withdraws
               WHERE machine_id = ?1 AND state <> 'paid' AND purpose = ?2
                   AND state IN ('offered', 'bound')";
    Ok(read.one(sql, &[&machine, &purpose], |row| row.get("sats"))?.unwrap_or_default())
}

/// Moves a withdraw on.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it; a rule where it is paid.
pub fn set_state(tx: &Tx<'_>, id: WithdrawId, state: WithdrawState) -> Result<(), StoreError> {
    let sql = "UPDATE withdraws SET state = ?2 WHERE withdraw_id = ?1";
    tx.run_one("withdraws", sql, &[&id, &state])
}

/// Gives a withdraw a new k1; the one before is dead from then on. The caller makes sure that a
/// bound invoice has expired.
///
/// # Errors
/// [`StoreError`]; a rule while a payment of the withdraw may still succeed.
pub fn issue(
    tx: &Tx<'_>,
    id: WithdrawId,
    k1: &K1,
    expires_at: Unix,
    now: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE withdraw_k1s SET state = 'dead' WHERE withdraw_id = ?1 AND state = 'live'";
    tx.run(sql, &[&id])?;
    let (bound_hash, bound_bolt11, bound_at) = (None, None, None);
    Session {
        k1: k1.clone(),
        withdraw_id: id,
        state: K1State::Live,
        created_at: now,
        expires_at,
        bound_hash,
        bound_bolt11,
        bound_at,
    }
    .insert_into(tx)
}

/// The session of this k1.
///
/// # Errors
/// [`StoreError`].
pub fn session(read: &Read<'_>, k1: &K1) -> Result<Option<Session>, StoreError> {
    read.one("SELECT * FROM withdraw_k1s WHERE k1 = ?1", &[k1], Session::from_row)
}

/// The live session of a withdraw.
///
/// # Errors
/// [`StoreError`].
pub fn live_session(read: &Read<'_>, id: WithdrawId) -> Result<Option<Session>, StoreError> {
    let sql = "SELECT * FROM withdraw_k1s WHERE withdraw_id = ?1 AND state = 'live'";
    read.one(sql, &[&id], Session::from_row)
}

/// What came of an invoice that a wallet named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is bound now: pay it.
    Now,
    /// It was bound before: the answer is OK again.
    Before,
    /// Another invoice is bound, for ever.
    Other,
    /// The k1 is unknown, dead or expired.
    Refused,
}

/// Binds an invoice to a k1, durably, before anything is paid.
///
/// # Errors
/// [`StoreError`]; unique on `withdraw_k1s.bound_hash` where the hash is bound elsewhere.
pub fn bind(
    tx: &Tx<'_>,
    k1: &K1,
    hash: PaymentHash,
    bolt11: &str,
    now: Unix,
) -> Result<Bound, StoreError> {
    let Some(session) = session(tx, k1)? else { return Ok(Bound::Refused) };
    match session.bound_hash {
        Some(bound) if bound == hash => return Ok(Bound::Before),
        Some(_) => return Ok(Bound::Other),
        None if session.state == K1State::Dead || session.expires_at < now => {
            return Ok(Bound::Refused);
        }
        None => {}
    }
    tx.run_one(
        "withdraw_k1s",
        "UPDATE withdraw_k1s SET bound_hash = ?2, bound_bolt11 = ?3, bound_at = ?4 WHERE k1 = ?1",
        &[k1, &hash, &bolt11, &now],
    )?;
    set_state(tx, session.withdraw_id, WithdrawState::Bound)?;
    Ok(Bound::Now)
}

/// Whether a payment hash has been seen in any role: an invoice of ours, one that was bound, tried
/// or settled.
///
/// # Errors
/// [`StoreError`].
pub fn hash_seen(read: &Read<'_>, hash: PaymentHash) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM invoices WHERE payment_hash = ?1)
        OR EXISTS (SELECT 1 FROM withdraw_k1s WHERE bound_hash = ?1)
        OR EXISTS (SELECT 1 FROM payments WHERE payment_hash = ?1)
        OR EXISTS (SELECT 1 FROM settlements WHERE payment_hash = ?1) AS seen";
    Ok(read.one(sql, &[&hash], |row| row.get("seen"))?.unwrap_or(false))
}
