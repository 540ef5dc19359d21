//! Whose machine a sender is: in memory for each frame, and in the transaction that takes effect.
//!
//! Promise: fail closed, each way by its own name. A sender that no resolver knows is
//! `not_in_roster`; without a resolver it is `no_resolver`; a resolver that fails is
//! `resolver_error`. There is no open mode and no switch for one.
//!
//! The copy in memory is a filter only: what a request may do is decided in the transaction of its
//! effects, so a revoke, a session's end or the end of the pairing's token counts from its commit.
//! A machine that was revoked or whose pairing has expired stays listed, with the sessions that it
//! had, so that it can be told so and its evidence still counts.

use std::collections::HashMap;

use bitspire_shared::admit::{Refusal, Roster, Standing, Unrouted};
use bitspire_shared::ids::PubKey;
use bitspire_shared::settlement::SOURCE;
use bitspire_shared::time::Unix;

use crate::ids::{MachineId, OperatorId};
use crate::store::machines::{self, Confirmation, DisabledBy, KeptMachine};
use crate::store::{Read, StoreError, sessions};

/// Where the money of a sender's machine goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteHit {
    /// Whose machine it is.
    pub operator_user_id: OperatorId,
    /// The machine's wallet.
    pub wallet_id: String,
    /// Which extension of the service has the machine; the `source` of its stamps.
    pub source_extension: &'static str,
}

/// A sender's machine as it stands at this moment.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where its money goes.
    pub hit: RouteHit,
    /// The machine.
    pub machine: KeptMachine,
    /// Its spire key.
    pub spire: PubKey,
    /// Whether the spire key itself signed, not a session.
    pub by_spire: bool,
    /// How the machine stands.
    pub standing: Standing,
}

/// Names machines for senders.
pub trait Resolver: Send + Sync + 'static {
    /// Every key that speaks for a machine.
    ///
    /// # Errors
    /// [`StoreError`]: then nobody is in the roster.
    fn keys(&self, read: &Read<'_>, now: Unix) -> Result<Vec<(PubKey, MachineId)>, StoreError>;

    /// The machine that `sender` speaks for.
    ///
    /// # Errors
    /// [`StoreError`]: then the request is refused.
    fn resolve(
        &self,
        read: &Read<'_>,
        sender: PubKey,
        now: Unix,
    ) -> Result<Option<Route>, StoreError>;
}

/// The resolver over our own machines.
#[derive(Clone, Copy, Debug)]
pub struct Machines;

impl Resolver for Machines {
    fn keys(&self, read: &Read<'_>, now: Unix) -> Result<Vec<(PubKey, MachineId)>, StoreError> {
        let paired = machines::roster(read)?.into_iter();
        let mut keys: Vec<_> = paired.map(|machine| (machine.spire, machine.id)).collect();
        keys.extend(sessions::speaking(read, now)?);
        Ok(keys)
    }

    fn resolve(
        &self,
        read: &Read<'_>,
        sender: PubKey,
        now: Unix,
    ) -> Result<Option<Route>, StoreError> {
        let machine = match machines::by_spire(read, sender)? {
            Some(machine) => Some(machine),
            None => match sessions::machine_of(read, sender, now)? {
                Some(id) => machines::find(read, id)?,
                None => None,
            },
        };
        let Some(machine) = machine.filter(|m| m.paired_at.is_some()) else { return Ok(None) };
        let Some(spire) = machine.machine_npub else { return Ok(None) };
        Ok(Some(Route {
            hit: RouteHit {
                operator_user_id: machine.operator_id,
                wallet_id: machine.wallet_id.clone(),
                source_extension: SOURCE,
            },
            spire,
            by_spire: spire == sender,
            standing: standing(&machine, now),
            machine,
        }))
    }
}

/// How a machine stands at `now`.
#[must_use]
pub fn standing(machine: &machines::Machine, now: Unix) -> Standing {
    if machine.revoked_at.is_some() {
        return Standing::Revoked;
    }
    // an alarm first: the end of the pairing would let more come to its end
    if machine.disabled_by == Some(DisabledBy::Alarm) {
        return Standing::Suspect;
    }
    if machine.bunker_token_expires_at.is_none_or(|end| end <= now) {
        return Standing::TokenExpired;
    }
    if machine.disabled_by.is_some() {
        return Standing::Disabled;
    }
    match machine.confirmation {
        Confirmation::Confirmed => Standing::Active,
        _ => Standing::Unconfirmed,
    }
}

/// Asks the resolvers in turn; the first that knows the sender counts.
///
/// # Errors
/// The refusal.
pub(super) fn resolve(
    resolvers: &[Box<dyn Resolver>],
    read: &Read<'_>,
    sender: PubKey,
    now: Unix,
) -> Result<Route, Refusal> {
    if resolvers.is_empty() {
        return Err(Refusal::NoResolver);
    }
    for resolver in resolvers {
        match resolver.resolve(read, sender, now) {
            Ok(Some(route)) => return Ok(route),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(event = "rpc_resolver_failed", %error);
                return Err(Refusal::ResolverError);
            }
        }
    }
    Err(Refusal::NotInRoster)
}

/// The roster in memory.
#[derive(Debug)]
pub struct Snapshot {
    service: [u8; 32],
    members: Result<HashMap<[u8; 32], MachineId>, Unrouted>,
}

impl Snapshot {
    /// These keys, each of which speaks for its machine to the service with the key `service`.
    pub fn of(service: PubKey, members: impl IntoIterator<Item = (PubKey, MachineId)>) -> Self {
        let members = members.into_iter().map(|(key, machine)| (key.to_bytes(), machine));
        Self { service: service.to_bytes(), members: Ok(members.collect()) }
    }

    /// Nobody, for this reason.
    pub(super) const fn nobody(service: [u8; 32], why: Unrouted) -> Self {
        Self { service, members: Err(why) }
    }

    /// What the resolvers say together.
    pub(super) fn load(
        service: PubKey,
        resolvers: &[Box<dyn Resolver>],
        read: &Read<'_>,
        now: Unix,
    ) -> Result<Self, StoreError> {
        if resolvers.is_empty() {
            return Ok(Self::nobody(service.to_bytes(), Unrouted::NoResolver));
        }
        let mut keys = Vec::new();
        for resolver in resolvers {
            keys.extend(resolver.keys(read, now)?);
        }
        // the first resolver that knows a key counts
        keys.reverse();
        Ok(Self::of(service, keys))
    }

    /// Whether this key speaks for a machine.
    pub(super) fn lists(&self, key: &[u8; 32]) -> bool {
        self.members.as_ref().is_ok_and(|members| members.contains_key(key))
    }
}

impl Roster for Snapshot {
    type Member = MachineId;

    fn reads_for(&self, key: &[u8; 32]) -> bool {
        *key == self.service
    }

    fn member(&self, author: &[u8; 32]) -> Result<MachineId, Unrouted> {
        match &self.members {
            Ok(members) => members.get(author).copied().ok_or(Unrouted::NotInRoster),
            Err(why) => Err(*why),
        }
    }
}
