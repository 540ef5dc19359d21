//! Requests of machines: at-least-once on the wire, one effect, one answer.
//!
//! States: received -> answered. The row is written before the work; the answer is written in the
//! transaction of its effects, and a repeat is answered from it.

use std::fmt;

use bitspire_shared::ids::{Digest, RequestId, TxnId};
use bitspire_shared::time::Unix;
use rusqlite::types::{Value, ValueRef};

use super::column::{FromColumn, ToColumn};
use super::row::record;
use super::{Read, StoreError, Tx};
use crate::ids::MachineId;

/// An answer as JSON. It may carry a bearer LNURL, so `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(String);

impl Reply {
    /// Takes the JSON text.
    #[must_use]
    pub const fn new(json: String) -> Self {
        Self(json)
    }

    /// The JSON text, for the machine that asked. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} bytes)", self.0.len())
    }
}

impl ToColumn for Reply {
    fn to_value(&self) -> Result<Value, StoreError> {
        self.0.to_value()
    }
}

impl FromColumn for Reply {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        String::from_value(value).map(Self)
    }
}

record! {
    /// A request.
    pub struct Request in "requests" {
        /// Who asked.
        pub machine_id: MachineId,
        /// The machine's id of it.
        pub request_id: RequestId,
        /// What was asked for.
        pub rpc_name: String,
        /// Digest of the body; another body under this id is a conflict.
        pub body_sha256: Digest,
        /// The transaction, where it is about one.
        pub txid: Option<TxnId>,
        /// The whole signed event, as JSON.
        pub event: String,
        /// When it came.
        pub received_at: Unix,
        /// The answer.
        pub reply: Option<Reply>,
        /// When it was answered.
        pub replied_at: Option<Unix>,
    }
}

/// What is to be done about a request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is new: do the work.
    New,
    /// It is being worked on, or the work was cut off: go on, with effects that are once for ever.
    Unanswered,
    /// It was answered: the same answer again.
    Answered(Reply),
}

/// Records a request before it is worked on.
///
/// # Errors
/// [`StoreError::Conflict`] for a known id with another body.
pub fn begin(tx: &Tx<'_>, request: &Request) -> Result<Begun, StoreError> {
    match find(tx, request.machine_id, request.request_id)? {
        None => request.insert_into(tx).map(|()| Begun::New),
        Some(known)
            if known.body_sha256 == request.body_sha256 && known.rpc_name == request.rpc_name =>
        {
            Ok(known.reply.map_or(Begun::Unanswered, Begun::Answered))
        }
        Some(_) => {
            let key = request.request_id.to_string();
            Err(StoreError::Conflict { what: "request", key })
        }
    }
}

/// The request with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    machine: MachineId,
    request: RequestId,
) -> Result<Option<Request>, StoreError> {
    let sql = "SELECT * FROM requests WHERE machine_id = ?1 AND request_id = ?2";
    read.one(sql, &[&machine, &request], Request::from_row)
}

/// `created_at` of the newest `open_session` of a machine, received since `since`, that opened one.
///
/// # Errors
/// [`StoreError`].
pub fn newest_opening(
    read: &Read<'_>,
    machine: MachineId,
    since: Unix,
) -> Result<Option<Unix>, StoreError> {
    let sql = "SELECT max(json_extract(event, '$.created_at')) AS at FROM requests
               WHERE machine_id = ?1 AND rpc_name = 'open_session' AND received_at >= ?2
                   AND json_extract(reply, '$.status') = 'OK'";
    Ok(read.one(sql, &[&machine, &since], |row| row.get("at"))?.flatten())
}

/// Stores the answer.
///
/// # Errors
/// [`StoreError::NotOneRow`] without the request; a rule where it is answered already.
pub fn answer(
    tx: &Tx<'_>,
    machine: MachineId,
    request: RequestId,
    reply: &Reply,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "requests",
        "UPDATE requests SET reply = ?3, replied_at = ?4 WHERE machine_id = ?1 AND request_id = ?2",
        &[&machine, &request, reply, &now],
    )
}

/// Forgets at most `limit` requests received before `before` whose transaction rests: no invoice,
/// withdraw, payment, or distribution of it is open. The number forgotten.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: &Tx<'_>, before: Unix, limit: u32) -> Result<u64, StoreError> {
    tx.run(
        "DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests
            WHERE received_at < ?1 AND (txid IS NULL OR (
            NOT EXISTS (SELECT 1 FROM invoices i WHERE i.machine_id = requests.machine_id
                AND i.txid = requests.txid AND i.state = 'open')
            AND NOT EXISTS (SELECT 1 FROM withdraws w WHERE w.machine_id = requests.machine_id
                AND w.txid = requests.txid AND w.state IN ('offered', 'bound'))
            AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.machine_id = requests.machine_id
                AND s.txid = requests.txid AND s.distribution NOT IN ('processed', 'rejected'))))
            ORDER BY received_at LIMIT ?2)",
        &[&before, &limit],
    )
}
