//! Keys for a person at the terminal of a simulator.

/// A key, and the action that it stands for.
pub(super) struct Key {
    pub(super) key: char,
    /// What it does, in a few words.
    pub(super) what: &'static str,
    /// The action, as JSON.
    pub(super) action: &'static str,
}

const fn key(key: char, what: &'static str, action: &'static str) -> Key {
    Key { key, what, action }
}

const POWER_OFF: Key = key('x', "power off", r#"{"action":"power_off"}"#);
const POWER_ON: Key = key('o', "power on", r#"{"action":"power_on"}"#);

pub(super) const F56: &[Key] = &[
    key('t', "take the notes at the exit", r#"{"action":"take"}"#),
    key('1', "100 more into bay 1", r#"{"action":"refill","bay":1,"notes":100}"#),
    key('2', "100 more into bay 2", r#"{"action":"refill","bay":2,"notes":100}"#),
    key('r', "the next note is rejected", r#"{"action":"arm","trap":"reject"}"#),
    key('j', "the next note gets stuck", r#"{"action":"arm","trap":"jam"}"#),
    key('m', "the next reply is lost", r#"{"action":"arm","trap":"mute_reply"}"#),
    key('p', "pull the cassette of bay 1", r#"{"action":"pull","bay":1}"#),
    key('i', "put that cassette back", r#"{"action":"insert","bay":1}"#),
    POWER_OFF,
    POWER_ON,
];

pub(super) const ID003: &[Key] = &[
    key('5', "insert a 5", r#"{"action":"insert","denomination":5}"#),
    key('1', "insert a 10", r#"{"action":"insert","denomination":10}"#),
    key('2', "insert a 20", r#"{"action":"insert","denomination":20}"#),
    key('h', "insert a 100", r#"{"action":"insert","denomination":100}"#),
    key('r', "the next note is refused", r#"{"action":"reject_next","reason":"76"}"#),
    key('j', "a jam in the acceptor", r#"{"action":"jam","where":"acceptor"}"#),
    key('k', "clear it", r#"{"action":"clear"}"#),
    key('p', "take the cashbox out", r#"{"action":"stacker_out"}"#),
    key('e', "empty it", r#"{"action":"collect"}"#),
    key('i', "put it back", r#"{"action":"stacker_in"}"#),
    POWER_OFF,
    POWER_ON,
];

#[cfg(test)]
mod tests {
    use bitspire_shared::time::Mono;

    use super::*;
    use crate::sim::f56::{F56Sim, Fit};
    use crate::sim::id003::{Id003Sim, Options, Timing};
    use crate::sim::{SimDevice, SimError};

    /// Loss prevented: a key that does something else than it says, or nothing at all.
    #[test]
    fn every_key_is_an_action_that_its_device_knows() {
        let id003 = Id003Sim::new(Id003Sim::usd(), Options::default(), Timing::default());
        let f56 = F56Sim::new(Fit::default());
        let devices: [(&[Key], Box<dyn SimDevice>); 2] =
            [(ID003, Box::new(id003)), (F56, Box::new(f56))];
        for (keys, mut device) in devices {
            let mut seen = std::collections::BTreeSet::from(['c', 'q', '?', '{']);
            for Key { key, action, .. } in keys {
                assert!(seen.insert(*key), "{key} twice");
                let json = serde_json::from_str(action).unwrap();
                let done = device.control(&json, Mono(0));
                assert!(!matches!(done, Err(SimError::Action { .. })), "{key}: {done:?}");
            }
        }
    }
}
