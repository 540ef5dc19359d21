//! What is asked of the service.
//!
//! Promise: a request on which money hangs is finished (position, signature), journaled and only
//! then sent, and every repeat of it is the journaled body. What was asked and not answered is asked
//! again of a `net` that comes back or begins anew, and now and again of one that stays.

use std::collections::BTreeMap;

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::ids::{RequestId, TxnId};
use bitspire_shared::rpc::{CreateWithdraw, DispenseReport, VaultSigned};
use bitspire_shared::time::Mono;
use serde_json::Value;

use super::core::Vault;
use super::{Point, VaultError};
use crate::ipc::ToNet;
use crate::journal::{Entry, RequestEntry};
use crate::txn::{Ask, Request, Txn};

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A transaction's.
    Txn(TxnId),
    /// The heartbeat.
    Report,
    /// The question whether the pairing is confirmed.
    Confirmed,
}

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) owner: Owner,
    pub(super) rpc: &'static str,
    body: Value,
    /// When `net` was last told.
    told: Mono,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<RequestId, Asked>);

impl Requests {
    /// The request with this id, which was answered.
    pub(super) fn take(&mut self, id: &RequestId) -> Option<Asked> {
        self.0.remove(id)
    }

    /// Keeps those of transactions: what the vault asks for itself it asks anew.
    pub(super) fn forget_the_vaults_own(&mut self) {
        self.0.retain(|_, asked| matches!(asked.owner, Owner::Txn(_)));
    }

    /// What `net` was not told of for `ms`, to be sent again now.
    pub(super) fn again(&mut self, now: Mono, ms: u64) -> Vec<ToNet> {
        let due = self.0.iter_mut().filter(|(_, asked)| now.since(asked.told) >= ms);
        due.map(|(id, asked)| {
            asked.told = now;
            message(*id, asked)
        })
        .collect()
    }
}

fn message(request_id: RequestId, asked: &Asked) -> ToNet {
    ToNet::Request { request_id, rpc_name: asked.rpc.to_owned(), body: asked.body.clone() }
}

impl Vault {
    /// Asks for a transaction.
    pub(super) fn ask(
        &mut self,
        txn: &Txn,
        effect: &'static str,
        request: Request,
    ) -> Result<(), VaultError> {
        let txid = txn.txid();
        let Request { id, ask } = request;
        let rpc = ask.rpc();
        let body = match self.journal.request(&id)? {
            Some(stored) => stored.body,
            None => {
                let body = match self.finish(&ask) {
                    Ok(body) => body,
                    Err(error) => {
                        // beyond 2^53: no amount of a machine is
                        self.raise("not_signed", format!("{rpc}: {error}"));
                        return Ok(());
                    }
                };
                if ask.binding() {
                    let (request_id, rpc) = (id, rpc.to_owned());
                    let body = body.clone();
                    let entry = RequestEntry { request_id, txid: Some(txid), rpc, body };
                    self.append(Entry::Request(entry))?;
                    self.reached(txn, effect, Point::Recorded)?;
                }
                body
            }
        };
        self.request(id, Owner::Txn(txid), rpc, body);
        Ok(())
    }

    /// Sends a request and waits for its answer.
    pub(super) fn request(&mut self, id: RequestId, owner: Owner, rpc: &'static str, body: Value) {
        let asked = Asked { owner, rpc, body, told: self.mono() };
        self.to_net(message(id, &asked));
        self.requests.0.insert(id, asked);
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&mut self, request_id: RequestId) {
        if self.requests.0.remove(&request_id).is_some() {
            self.to_net(ToNet::Forget { request_id });
        }
    }

    /// The body as it travels.
    fn finish(&self, ask: &Ask) -> Result<Value, CanonicalError> {
        let head = self.journal.head();
        let (journal_seq, journal_head) = (head.seq, head.hash);
        let json = |value: Result<Value, serde_json::Error>| {
            value.map_err(|e| CanonicalError::Json(e.to_string()))
        };
        match ask {
            Ask::GetQuote(body) => json(serde_json::to_value(body)),
            Ask::CreateInvoice(body) => json(serde_json::to_value(body)),
            Ask::GetPayment(body) => json(serde_json::to_value(body)),
            Ask::CreateWithdraw(draft) => {
                let body = CreateWithdraw {
                    quote_id: draft.quote_id,
                    txid: draft.txid,
                    notes: draft.notes.clone(),
                    earlier: draft.earlier.clone(),
                    fiat_code: draft.fiat_code,
                    journal_seq,
                    journal_head,
                    claim_hash: draft.claim_hash,
                };
                json(serde_json::to_value(VaultSigned::sign(body, &self.keys)?))
            }
            Ask::ReportDispense(draft) => {
                let body = DispenseReport {
                    txid: draft.txid,
                    payment_hash: draft.payment_hash,
                    outcome: draft.outcome,
                    bays: draft.bays.clone(),
                    owed_minor: draft.owed_minor,
                    journal_seq,
                    journal_head,
                };
                json(serde_json::to_value(VaultSigned::sign(body, &self.keys)?))
            }
        }
    }
}
