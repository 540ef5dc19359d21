//! The desk: where a request is taken in and its answer is kept.
//!
//! Promise: at-least-once requests, exactly-once effects. The pair of machine and request id has
//! one body and one answer: the request's row is written before the work, the answer in the
//! transaction of the effects, and a repeat is answered from it. Whether the sender may ask is
//! decided in that same transaction, each time, so nothing happens after a revoke has committed.
//!
//! Failure policy: a refusal that would be another one later (transient), and whatever failed
//! inside, is no answer: nothing of it is kept and the machine repeats its request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitspire_shared::admit::Refusal;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{Digest, EventId, PubKey, RequestId, TxnId};
use bitspire_shared::rpc::{ErrorCode, Method, Reply, RpcName, ServiceMessage};
use bitspire_shared::time::Unix;
use nostr::{Event, JsonUtil};

use super::failure::{Failure, ensure, refusal};
use super::gate::until;
use super::roster::{self, Resolver, Route};
use crate::store::requests::{self, Begun, Request};
use crate::store::{Read, StoreError, Tx, event_ids};

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The whole signed event.
    pub(super) event: Arc<Event>,
    /// Its author.
    pub(super) sender: PubKey,
    /// The machine's id of the request.
    pub(super) request_id: RequestId,
    /// What is asked for.
    pub(super) name: RpcName,
    /// Digest of the body.
    pub(super) body_sha256: Digest,
    /// The service's time when it came.
    pub(super) now: Unix,
    /// Whether its event's id was written.
    pub(super) kept: Arc<AtomicBool>,
}

impl Call {
    /// The event's id.
    pub(super) fn event_id(&self) -> EventId {
        EventId::from_bytes(self.event.id.to_bytes())
    }

    /// Writes the event's id with the effects of the request.
    pub(super) fn keep(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        event_ids::keep(tx, self.event_id(), until(&self.event))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The event as JSON, for whoever must show it later.
    pub(super) fn event_json(&self) -> String {
        self.event.as_json()
    }
}

/// Where a request stands when it is taken in.
pub(super) enum Taken {
    /// It was answered before: the same answer again.
    Answered(Reply),
    /// To be worked on.
    Open(Box<Route>),
}

/// The desk.
#[derive(Clone)]
pub(super) struct Desk(pub(super) Arc<Vec<Box<dyn Resolver>>>);

impl Desk {
    /// Whose machine asks, whatever it may.
    pub(super) fn whose(&self, read: &Read<'_>, call: &Call) -> Result<Route, Failure> {
        Ok(roster::resolve(&self.0, read, call.sender, call.now)?)
    }

    /// Whose machine asks, if it may ask for this now.
    pub(super) fn route(&self, read: &Read<'_>, call: &Call) -> Result<Route, Failure> {
        let route = self.whose(read, call)?;
        route.standing.permit(call.name).map_err(Failure::Turned)?;
        ensure(route.by_spire || !call.name.by_spire_only(), ErrorCode::Invalid, || {
            format!("{}: expected the machine's own key, got a session's", call.name)
        })?;
        Ok(route)
    }

    /// Takes a request in, durably.
    pub(super) fn begin(
        &self,
        tx: &Tx<'_>,
        call: &Call,
        txid: Option<TxnId>,
    ) -> Result<Taken, Failure> {
        let route = self.route(tx, call)?;
        call.keep(tx)?;
        let row = Request {
            machine_id: route.machine.id,
            request_id: call.request_id,
            rpc_name: call.name.to_string(),
            body_sha256: call.body_sha256,
            txid,
            event: call.event_json(),
            received_at: call.now,
            reply: None,
            replied_at: None,
        };
        match requests::begin(tx, &row) {
            Ok(Begun::New | Begun::Unanswered) => Ok(Taken::Open(Box::new(route))),
            Ok(Begun::Answered(text)) => match ServiceMessage::parse(text.expose()) {
                Ok(ServiceMessage::Reply(reply)) => Ok(Taken::Answered(reply)),
                _ => Err(Failure::Broken("a kept answer is no reply".into())),
            },
            Err(StoreError::Conflict { .. }) => {
                let reason = "this request id was used with another body";
                Err(refusal(ErrorCode::Conflict, reason).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the answer with the effects of the transaction. A refusal that stays the same is an
    /// answer too; any other failure undoes the transaction.
    pub(super) fn finish<M: Method>(
        &self,
        tx: &Tx<'_>,
        call: &Call,
        route: &Route,
        result: Result<M::Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let id = call.request_id;
        let reply = match result {
            Ok(body) => Reply::ok::<M>(id, &body)?,
            Err(Failure::Refused(error))
                if matches!(error.kind(), Kind::Permanent | Kind::Misuse) =>
            {
                Reply::error(Some(id), error.code, &error.reason)
            }
            Err(failure) => return Err(failure),
        };
        let text = ServiceMessage::Reply(reply.clone()).to_plaintext()?;
        requests::answer(tx, route.machine.id, id, &requests::Reply::new(text), call.now)?;
        Ok(reply)
    }

    /// A request whose whole effect is one transaction.
    pub(super) fn once<M: Method>(
        &self,
        tx: &Tx<'_>,
        call: &Call,
        txid: Option<TxnId>,
        effect: impl FnOnce(&Route) -> Result<M::Reply, Failure>,
    ) -> Result<Reply, Failure> {
        match self.begin(tx, call, txid)? {
            Taken::Answered(reply) => Ok(reply),
            Taken::Open(route) => {
                let result = effect(&route);
                self.finish::<M>(tx, call, &route, result)
            }
        }
    }
}

/// The vault whose signature counts for a machine.
pub(super) fn vault(route: &Route) -> Result<PubKey, Failure> {
    route.machine.vault_key.ok_or_else(|| Refusal::NotConfirmed.into())
}

/// The refusal of a body that the vault did not sign.
pub(super) fn not_by_vault(error: &bitspire_shared::canonical::CanonicalError) -> Failure {
    refusal(ErrorCode::BadSignature, error.to_string()).into()
}
