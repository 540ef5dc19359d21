//! Who is who at the embedded relay: operators, machines, live sessions, seeds that nobody has
//! redeemed yet.
//!
//! Promise: answers come from memory, which follows the database: [`Roster::refresh`] runs after
//! each change that this service makes and at each [`Ring::Roster`]; what ends by itself (sessions,
//! seeds) is held against the clock at each question. Who is cut off is taken out by itself
//! ([`Roster::forget`]), however many the others are, and no reading that began before brings it back.
//!
//! Failure policy: before the first refresh nobody is known. A refresh that fails leaves the last
//! answers in place and is tried again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use crate::app::{App, Ring};
use crate::relay::{Access, Role};
use crate::store::{Read, StoreError, machines, operators, pairing, sessions};

/// How often the roster is read though nobody rang.
const UNASKED: Duration = Duration::from_secs(10);

/// How long two readings are apart at least.
const REST: Duration = Duration::from_millis(20);

/// Everything that the relay has to know, as it stands in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Keys that this service authenticates with.
    pub service: Vec<PubKey>,
    /// The bunker's own key, where there is a bunker.
    pub bunker: Option<PubKey>,
    /// Operator keys.
    pub operators: Vec<PubKey>,
    /// Machines that are paired and not revoked.
    pub machines: Vec<Member>,
    /// Spire keys of pairings that have not ended yet.
    pub opening: Vec<PubKey>,
    /// Live sessions.
    pub sessions: Vec<MemberSession>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The spire key.
    pub spire: PubKey,
    /// The key that the machine authenticates with; absent until its seed is redeemed.
    pub client: Option<PubKey>,
    /// Until when the seed can be redeemed.
    pub redeem_until: Unix,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSession {
    /// The machine.
    pub spire: PubKey,
    /// The session key.
    pub key: PubKey,
    /// End of the session.
    pub expires_at: Unix,
}

impl Members {
    /// Reads the database's part.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(read: &Read<'_>, now: Unix) -> Result<Self, StoreError> {
        let mut members = Self::default();
        let mut spires = HashMap::new();
        for machine in machines::roster(read)?.into_iter().filter(|m| m.revoked_at.is_none()) {
            spires.insert(machine.id, machine.spire);
            members.machines.push(Member {
                spire: machine.spire,
                client: machine.client,
                redeem_until: machine.token_expires_at.unwrap_or_default(),
            });
        }
        for (machine, key, expires_at) in sessions::all_live(read, now)? {
            if let Some(spire) = spires.get(&machine) {
                members.sessions.push(MemberSession { spire: *spire, key, expires_at });
            }
        }
        members.operators = operators::list(read)?.iter().filter_map(|o| o.pubkey).collect();
        members.opening = pairing::open(read)?.iter().filter_map(|p| p.spire_key).collect();
        Ok(members)
    }
}

/// [`Members`] by the bytes that stand on the wire.
#[derive(Clone, Debug, Default)]
struct Table {
    roles: HashMap<[u8; 32], Role>,
    sessions: HashMap<[u8; 32], ([u8; 32], Unix)>,
    held: HashSet<[u8; 32]>,
    awaiting: HashMap<[u8; 32], Unix>,
}

impl Table {
    fn of(members: &Members) -> Self {
        let mut table = Self::default();
        for machine in &members.machines {
            let spire = machine.spire.to_bytes();
            table.held.insert(spire);
            match machine.client {
                Some(client) => {
                    table.roles.insert(client.to_bytes(), Role::Machine { spire });
                }
                None => {
                    table.awaiting.insert(spire, machine.redeem_until);
                }
            }
        }
        for session in &members.sessions {
            let value = (session.spire.to_bytes(), session.expires_at);
            table.sessions.insert(session.key.to_bytes(), value);
        }
        table.held.extend(members.opening.iter().map(|key| key.to_bytes()));
        for key in &members.operators {
            table.held.insert(key.to_bytes());
            table.roles.insert(key.to_bytes(), Role::Operator);
        }
        // last, so that no row can take these roles away
        table.roles.extend(members.bunker.map(|key| (key.to_bytes(), Role::Bunker)));
        table.roles.extend(members.service.iter().map(|key| (key.to_bytes(), Role::Service)));
        table
    }
}

/// The roster in memory.
#[derive(Debug)]
pub struct Roster {
    clock: Clock,
    /// Whom customers' wallets may ask by CLINK.
    clink: Option<PubKey>,
    table: RwLock<Arc<Table>>,
    /// How many readings have begun.
    begun: AtomicU64,
    /// Held from a reading's start until its answers are in place: the number of the last one.
    reading: tokio::sync::Mutex<u64>,
}

impl Roster {
    /// A roster that knows nobody yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (table, begun, reading) = Default::default();
        Self { clock, clink: None, table, begun, reading }
    }

    /// Customers' wallets may ask `key` by CLINK, where there is one.
    #[must_use]
    pub fn with_clink(self, key: Option<PubKey>) -> Self {
        Self { clink: key, ..self }
    }

    /// Takes the members over from now on.
    pub fn set(&self, members: &Members) {
        let table = Arc::new(Table::of(members));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Reads the database again, unless somebody else has begun to since this was asked: many who ask
    /// at once wait for two readings at most.
    ///
    /// # Errors
    /// [`StoreError`]; the last answers stay.
    pub async fn refresh(&self, app: &App) -> Result<(), StoreError> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut last = self.reading.lock().await;
        if *last > asked {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.set(&members(app).await?);
        *last = number;
        Ok(())
    }

    /// Takes a machine's keys out, once its revoke has committed: its spire key, its client's, its
    /// sessions', and `others`, which are held for pairings of it that have ended with it.
    pub async fn forget(&self, spire: PubKey, client: Option<PubKey>, others: &[PubKey]) {
        // a reading under way may have begun before the commit
        let _reading = self.reading.lock().await;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::make_mut(&mut table);
        let spire = spire.to_bytes();
        table.held.remove(&spire);
        table.awaiting.remove(&spire);
        table.sessions.retain(|_, (of, _)| *of != spire);
        for key in others {
            table.held.remove(&key.to_bytes());
        }
        if let Some(client) = client.map(PubKey::to_bytes)
            && table.roles.get(&client) == Some(&Role::Machine { spire })
        {
            table.roles.remove(&client);
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All members of this service.
///
/// # Errors
/// [`StoreError`].
pub async fn members(app: &App) -> Result<Members, StoreError> {
    let now = app.clock.now();
    let mut members = app.store.read(move |read| Members::read(read, now)).await?;
    members.service.push(app.service_key);
    if let Some(bunker) = app.bunker.get() {
        members.bunker = Some(bunker.key());
        members.service.extend(bunker.own_keys());
    }
    Ok(members)
}

/// Reads the database into the app's roster, and again after each [`Ring::Roster`] and now and then
/// without one, until the daemon stops.
///
/// # Errors
/// [`StoreError`] from the first time.
pub async fn follow(app: &Arc<App>) -> Result<(), StoreError> {
    let mut bell = app.listen();
    app.roster.refresh(app).await?;
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(UNASKED) => {}
                rung = bell.recv() => match rung {
                    Ok(Ring::Roster) | Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => return,
                },
            }
            if let Err(error) = app.roster.refresh(&app).await {
                tracing::error!(event = "roster_not_read", %error);
            }
            // a thousand machines that open sessions at once are read together
            tokio::time::sleep(REST).await;
        }
    });
    Ok(())
}

impl Access for Roster {
    fn role(&self, key: &[u8; 32]) -> Role {
        self.table().roles.get(key).copied().unwrap_or(Role::Unknown)
    }

    fn session_of(&self, key: &[u8; 32]) -> Option<[u8; 32]> {
        let (spire, expires_at) = *self.table().sessions.get(key)?;
        (self.clock.now() < expires_at).then_some(spire)
    }

    fn held_by_bunker(&self, key: &[u8; 32]) -> bool {
        self.table().held.contains(key)
    }

    fn awaits_pairing(&self, key: &[u8; 32]) -> bool {
        self.table().awaiting.get(key).is_some_and(|until| self.clock.now() <= *until)
    }

    fn clink(&self) -> Option<[u8; 32]> {
        self.clink.map(PubKey::to_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use nostr::Keys;

    use super::*;

    fn key() -> PubKey {
        PubKey::new(Keys::generate().public_key()).unwrap()
    }

    /// Loss prevented: a session or a seed that goes on for ever because nobody rang, or a machine
    /// that was revoked and is still known.
    #[test]
    fn what_ends_by_itself_is_held_against_the_clock() {
        let now = Arc::new(AtomicU64::new(100));
        let told = now.clone();
        let roster = Roster::new(Clock::new(move || Unix(told.load(Ordering::SeqCst))));
        let (spire, client, fresh, session, service) = (key(), key(), key(), key(), key());
        let member = |spire, client| Member { spire, client, redeem_until: Unix(200) };
        let mut members = Members {
            service: vec![service],
            machines: vec![member(spire, Some(client)), member(fresh, None)],
            sessions: vec![MemberSession { spire, key: session, expires_at: Unix(200) }],
            ..Members::default()
        };
        assert_eq!(roster.role(&service.to_bytes()), Role::Unknown, "nobody is known at first");
        roster.set(&members);
        assert_eq!(roster.role(&service.to_bytes()), Role::Service);
        let machine = Role::Machine { spire: spire.to_bytes() };
        assert_eq!(roster.role(&client.to_bytes()), machine);
        assert!(roster.awaits_pairing(&fresh.to_bytes()));
        assert!(!roster.awaits_pairing(&spire.to_bytes()), "its seed was redeemed");
        assert_eq!(roster.session_of(&session.to_bytes()), Some(spire.to_bytes()));
        now.store(201, Ordering::SeqCst);
        assert!(!roster.awaits_pairing(&fresh.to_bytes()));
        assert_eq!(roster.session_of(&session.to_bytes()), None);
        members.machines.clear();
        roster.set(&members);
        assert_eq!(roster.role(&client.to_bytes()), Role::Unknown);
        assert!(!roster.held_by_bunker(&spire.to_bytes()));
    }

    /// Loss prevented: a revoked machine that the relay serves until everybody was read again, or one
    /// that takes another machine, or the service, with it.
    #[tokio::test]
    async fn who_is_forgotten_is_gone_and_nobody_else() {
        let roster = Roster::new(Clock::new(|| Unix(100)));
        let [gone, client, session, seed, stays, other, service] = std::array::from_fn(|_| key());
        let member = |spire, client| Member { spire, client, redeem_until: Unix(200) };
        let live = |spire, key| MemberSession { spire, key, expires_at: Unix(200) };
        roster.set(&Members {
            service: vec![service],
            machines: vec![member(gone, Some(client)), member(stays, Some(other))],
            opening: vec![seed],
            sessions: vec![live(gone, session), live(stays, other)],
            ..Members::default()
        });
        roster.forget(gone, Some(client), &[seed]).await;
        assert_eq!(roster.role(&client.to_bytes()), Role::Unknown);
        assert_eq!(roster.session_of(&session.to_bytes()), None);
        for key in [gone, seed] {
            assert!(!roster.held_by_bunker(&key.to_bytes()));
        }
        assert_eq!(roster.role(&other.to_bytes()), Role::Machine { spire: stays.to_bytes() });
        assert_eq!(roster.session_of(&other.to_bytes()), Some(stays.to_bytes()));
        assert!(roster.held_by_bunker(&stays.to_bytes()));
        // a row that named the service's key has no more of it than that
        roster.forget(gone, Some(service), &[]).await;
        assert_eq!(roster.role(&service.to_bytes()), Role::Service);
    }

    /// Loss prevented: a machine row that names the service's key takes the service off its relay.
    #[test]
    fn no_row_takes_the_services_role() {
        let roster = Roster::new(Clock::system());
        let service = key();
        let machine = Member { spire: key(), client: Some(service), redeem_until: Unix(0) };
        let members =
            Members { service: vec![service], machines: vec![machine], ..Members::default() };
        roster.set(&members);
        assert_eq!(roster.role(&service.to_bytes()), Role::Service);
    }
}
