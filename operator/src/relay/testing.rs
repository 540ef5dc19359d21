//! A roster in memory, for tests.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::access::{Access, Role};

/// What the tests put into it.
#[derive(Default)]
pub(super) struct Roster(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    roles: HashMap<[u8; 32], Role>,
    sessions: HashMap<[u8; 32], [u8; 32]>,
    held: HashSet<[u8; 32]>,
    pairing: HashSet<[u8; 32]>,
    clink: Option<[u8; 32]>,
}

impl Roster {
    pub(super) fn set(&self, key: [u8; 32], role: Role) {
        self.0.lock().unwrap().roles.insert(key, role);
    }

    pub(super) fn open_session(&self, session: [u8; 32], spire: [u8; 32]) {
        self.0.lock().unwrap().sessions.insert(session, spire);
    }

    pub(super) fn close_session(&self, session: &[u8; 32]) {
        self.0.lock().unwrap().sessions.remove(session);
    }

    pub(super) fn hold(&self, key: [u8; 32]) {
        self.0.lock().unwrap().held.insert(key);
    }

    pub(super) fn open_clink(&self, key: [u8; 32]) {
        self.0.lock().unwrap().clink = Some(key);
    }

    pub(super) fn await_pairing(&self, key: [u8; 32], awaits: bool) {
        let pairing = &mut self.0.lock().unwrap().pairing;
        if awaits {
            pairing.insert(key)
        } else {
            pairing.remove(&key)
        };
    }
}

impl Access for Roster {
    fn role(&self, key: &[u8; 32]) -> Role {
        self.0.lock().unwrap().roles.get(key).copied().unwrap_or(Role::Unknown)
    }

    fn session_of(&self, key: &[u8; 32]) -> Option<[u8; 32]> {
        self.0.lock().unwrap().sessions.get(key).copied()
    }

    fn held_by_bunker(&self, key: &[u8; 32]) -> bool {
        self.0.lock().unwrap().held.contains(key)
    }

    fn awaits_pairing(&self, key: &[u8; 32]) -> bool {
        self.0.lock().unwrap().pairing.contains(key)
    }

    fn clink(&self) -> Option<[u8; 32]> {
        self.0.lock().unwrap().clink
    }
}
