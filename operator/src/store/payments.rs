//! Attempts to pay: written, with the hash, before the wallet is asked.
//!
//! States: pending -> succeeded or failed (final), or unknown -> one of these, when the wallet has
//! given a final answer. As long as an attempt has not finally failed, no other one for the same
//! subject can be written.

use bitspire_shared::ids::{PaymentHash, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{LegId, MachineId, PaymentId};

text_enum! {
    /// Where an attempt stands.
    pub enum PaymentState {
        /// The wallet is about to be asked, or has it under way.
        Pending = "pending",
        /// The wallet gave no answer: look it up.
        Unknown = "unknown",
        /// Paid.
        Succeeded = "succeeded",
        /// Finally not paid.
        Failed = "failed",
    }
}

text_enum! {
    /// Kinds of what is paid.
    pub enum SubjectKind {
        /// A customer's withdraw.
        Withdraw = "withdraw",
        /// A leg of a distribution.
        Leg = "leg",
    }
}

/// What an attempt pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A customer's withdraw.
    Withdraw(WithdrawId),
    /// A leg of a distribution.
    Leg(LegId),
}

impl Subject {
    fn parts(self) -> (SubjectKind, String) {
        match self {
            Self::Withdraw(id) => (SubjectKind::Withdraw, id.to_string()),
            Self::Leg(id) => (SubjectKind::Leg, id.to_string()),
        }
    }
}

record! {
    /// An attempt.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Payment in "payments", id: PaymentId {
        /// Kind of what is paid.
        pub subject: SubjectKind,
        /// Which one of that kind.
        pub subject_id: String,
        /// The machine whose wallet pays.
        pub machine_id: MachineId,
        /// That wallet.
        pub wallet_id: String,
        /// Hash of the invoice; never paid under another attempt.
        pub payment_hash: PaymentHash,
        /// The invoice.
        pub bolt11: String,
        /// Its amount.
        pub amount_sats: Sats,
        /// The most that routing may cost.
        pub fee_limit_sats: Sats,
        /// When the invoice expires.
        pub invoice_expires_at: Unix,
        /// Where it stands.
        pub state: PaymentState,
        /// What routing cost.
        pub fee_paid_sats: Option<Sats>,
        /// When the wallet first said that it failed; the answer counts only when repeated.
        pub failed_seen_at: Option<Unix>,
        /// The wallet's last words.
        pub detail: Option<String>,
        /// When it was written.
        pub started_at: Unix,
        /// When it became final.
        pub resolved_at: Option<Unix>,
    }
}

/// What an attempt needs to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPayment {
    /// What it pays.
    pub subject: Subject,
    /// The machine whose wallet pays.
    pub machine_id: MachineId,
    /// That wallet.
    pub wallet_id: String,
    /// Hash of the invoice.
    pub payment_hash: PaymentHash,
    /// The invoice.
    pub bolt11: String,
    /// Its amount.
    pub amount_sats: Sats,
    /// The most that routing may cost.
    pub fee_limit_sats: Sats,
    /// When the invoice expires.
    pub invoice_expires_at: Unix,
}

/// Writes an attempt. Only after this is durable may the wallet be asked to pay.
///
/// # Errors
/// [`StoreError`]; unique on `payments.subject` while another attempt may still succeed, on
/// `payments.payment_hash` where that hash was tried before.
pub fn begin(tx: &Tx<'_>, new: &NewPayment, now: Unix) -> Result<PaymentId, StoreError> {
    let (subject, subject_id) = new.subject.parts();
    Payment {
        subject,
        subject_id,
        machine_id: new.machine_id,
        wallet_id: new.wallet_id.clone(),
        payment_hash: new.payment_hash,
        bolt11: new.bolt11.clone(),
        amount_sats: new.amount_sats,
        fee_limit_sats: new.fee_limit_sats,
        invoice_expires_at: new.invoice_expires_at,
        state: PaymentState::Pending,
        fee_paid_sats: None,
        failed_seen_at: None,
        detail: None,
        started_at: now,
        resolved_at: None,
    }
    .insert_into(tx)
}

/// The attempt of this hash.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(
    read: &Read<'_>,
    hash: PaymentHash,
) -> Result<Option<Kept<PaymentId, Payment>>, StoreError> {
    read.one("SELECT * FROM payments WHERE payment_hash = ?1", &[&hash], Payment::kept)
}

/// Every attempt for a subject, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_subject(
    read: &Read<'_>,
    subject: Subject,
) -> Result<Vec<Kept<PaymentId, Payment>>, StoreError> {
    let (kind, id) = subject.parts();
    let sql = "SELECT * FROM payments WHERE subject = ?1 AND subject_id = ?2 ORDER BY id";
    read.all(sql, &[&kind, &id], Payment::kept)
}

/// Every attempt that is not final: what the reconciler looks up.
///
/// # Errors
/// [`StoreError`].
pub fn open(read: &Read<'_>) -> Result<Vec<Kept<PaymentId, Payment>>, StoreError> {
    let sql = "SELECT * FROM payments WHERE state IN ('pending', 'unknown') ORDER BY started_at";
    read.all(sql, &[], Payment::kept)
}

/// Attempts to pay customers from before `since`, or by a clock that was ahead of `now`, that are not
/// final and of whose hash nobody was told in `scope`; oldest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub fn overdue(
    read: &Read<'_>,
    (since, now): (Unix, Unix),
    scope: &str,
    limit: u32,
) -> Result<Vec<Kept<PaymentId, Payment>>, StoreError> {
    let sql = "SELECT * FROM payments p
               WHERE state IN ('pending', 'unknown') AND subject = 'withdraw'
                   AND (started_at < ?1 OR started_at > ?2)
                   AND NOT EXISTS (SELECT 1 FROM used_nonces
                       WHERE scope = ?3 AND nonce = p.payment_hash)
               ORDER BY started_at LIMIT ?4";
    read.all(sql, &[&since, &now, &scope, &limit], Payment::kept)
}

/// What the attempts of `kind` that are not final may still take out of a machine's wallet, with the
/// routing.
///
/// # Errors
/// [`StoreError`].
pub fn under_way(
    read: &Read<'_>,
    machine: MachineId,
    kind: SubjectKind,
) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(amount_sats + fee_limit_sats), 0) AS sats FROM payments
               WHERE state IN ('pending', 'unknown') AND machine_id = ?1 AND subject = ?2";
    Ok(read.one(sql, &[&machine, &kind], |row| row.get("sats"))?.unwrap_or_default())
}

/// At most `limit` attempts after `after`, oldest first: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    after: PaymentId,
    limit: u32,
) -> Result<Vec<Kept<PaymentId, Payment>>, StoreError> {
    let sql = "SELECT * FROM payments WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], Payment::kept)
}

/// The wallet gave no answer.
///
/// # Errors
/// [`StoreError::NotOneRow`] without the attempt; a rule where it is final.
pub fn set_unknown(tx: &Tx<'_>, id: PaymentId, detail: &str) -> Result<(), StoreError> {
    let sql = "UPDATE payments SET state = 'unknown', detail = ?2 WHERE id = ?1";
    tx.run_one("payments", sql, &[&id, &detail])
}

/// The wallet has it under way: what it said of a failure before was wrong and does not count.
///
/// # Errors
/// [`StoreError::NotOneRow`] without the attempt; a rule where it is final.
pub fn set_under_way(tx: &Tx<'_>, id: PaymentId) -> Result<(), StoreError> {
    let sql = "UPDATE payments SET state = 'unknown', failed_seen_at = NULL,
               detail = 'pending at the wallet' WHERE id = ?1";
    tx.run_one("payments", sql, &[&id])
}

/// The wallet said "failed"; the first time counts from now on.
///
/// # Errors
/// [`StoreError::NotOneRow`] without the attempt; a rule where it is final.
pub fn saw_failure(tx: &Tx<'_>, id: PaymentId, detail: &str, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE payments SET state = 'unknown', detail = ?2,
               failed_seen_at = coalesce(failed_seen_at, ?3) WHERE id = ?1";
    tx.run_one("payments", sql, &[&id, &detail, &now])
}

/// The final end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Paid; what routing cost.
    Succeeded(Sats),
    /// Finally not paid.
    Failed,
}

/// Records the final end.
///
/// # Errors
/// [`StoreError::NotOneRow`] without the attempt; a rule where it is final.
pub fn resolve(tx: &Tx<'_>, id: PaymentId, end: Resolution, now: Unix) -> Result<(), StoreError> {
    let (state, fee) = match end {
        Resolution::Succeeded(fee) => (PaymentState::Succeeded, Some(fee)),
        Resolution::Failed => (PaymentState::Failed, None),
    };
    let sql = "UPDATE payments SET state = ?2, fee_paid_sats = ?3, resolved_at = ?4 WHERE id = ?1";
    tx.run_one("payments", sql, &[&id, &state, &fee, &now])
}
