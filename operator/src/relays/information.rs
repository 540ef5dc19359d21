//! A relay information document (NIP-11), as far as it says what a relay will not do.
//!
//! Promise: whatever a relay writes there is read without failing; a field of another shape is one
//! that it does not have.

use serde::Serialize;
use serde_json::Value;

/// Machines in one subscription, at most.
const MOST_MACHINES: usize = 250;
/// Machines in one subscription, at least: one relay with odd limits must not make subscriptions
/// many at all others. What is too much for it comes by them.
const LEAST_MACHINES: usize = 25;
/// Stored documents under a machine's name for which an answer has room: its own, and a liar's.
const OF_EACH: usize = 2;
/// What a machine takes in a subscription's filter, in bytes: its key, its `d` tag, its operator's
/// key, each with quotes and comma.
const MACHINE_BYTES: usize = 67 + 96 + 67;
/// What is around them.
const FILTER_BYTES: usize = 256;
/// A cassettes' document with a few dozen open changes has so many bytes.
const LONG_DOCUMENT: usize = 32_768;
/// Subscriptions of a machine on one connection: bunker, service, two documents.
const MACHINE_SUBSCRIPTIONS: usize = 4;
/// Characters of a name that are kept.
const NAME: usize = 80;

/// What a relay takes at most, where it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of a message (`max_message_length`).
    pub message_bytes: Option<usize>,
    /// Subscriptions of a connection (`max_subscriptions`).
    pub subscriptions: Option<usize>,
    /// Stored events in the answer to a filter (`max_limit`; what it gives unasked does not matter,
    /// each filter asks for as many as it wants).
    pub answers: Option<usize>,
}

/// What a relay says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Information {
    /// Its name.
    pub name: Option<String>,
    /// Its software and version.
    pub software: Option<String>,
    /// What it takes at most.
    pub limits: Limits,
    /// Bits of work that it wants in each event (NIP-13).
    pub work_bits: u64,
    /// Whether it wants to know who connects (NIP-42).
    pub auth_required: bool,
    /// Whether it takes money.
    pub payment_required: bool,
    /// Whether it takes events of some authors only.
    pub restricted_writes: bool,
}

fn least(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    one.into_iter().chain(other).min()
}

impl Limits {
    /// The tighter of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            message_bytes: least(self.message_bytes, other.message_bytes),
            subscriptions: least(self.subscriptions, other.subscriptions),
            answers: least(self.answers, other.answers),
        }
    }

    /// Machines whose documents one subscription may ask for, so that it is taken and answered in
    /// full: each has one stored document, and one of them that lies can have written one under the
    /// name of each. A relay that answers with fewer than 50 is warned of only.
    #[must_use]
    pub fn machines_in_one(&self) -> usize {
        let fit = |bytes: usize| bytes.saturating_sub(FILTER_BYTES) / MACHINE_BYTES;
        let by_bytes = self.message_bytes.map_or(MOST_MACHINES, fit);
        let by_answers = self.answers.map_or(MOST_MACHINES, |answers| answers / OF_EACH);
        by_bytes.min(by_answers).clamp(LEAST_MACHINES, MOST_MACHINES)
    }
}

impl Information {
    /// What `document` says.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        let limits = &document["limitation"];
        let number = |name: &str| limits[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let is = |name: &str| limits[name].as_bool().unwrap_or(false);
        let text = |name: &str| {
            let text = document[name].as_str()?.chars().filter(|c| !c.is_control());
            Some(text.take(NAME).collect::<String>()).filter(|text| !text.is_empty())
        };
        // 0 is how some say that there is no limit
        let positive = |name: &str| number(name).filter(|limit| *limit > 0);
        let software = text("software").map(|software| match text("version") {
            Some(version) => format!("{software} {version}"),
            None => software,
        });
        Self {
            name: text("name"),
            software,
            limits: Limits {
                message_bytes: positive("max_message_length"),
                subscriptions: positive("max_subscriptions"),
                answers: positive("max_limit"),
            },
            work_bits: limits["min_pow_difficulty"].as_u64().unwrap_or(0),
            auth_required: is("auth_required"),
            payment_required: is("payment_required"),
            restricted_writes: is("restricted_writes"),
        }
    }

    /// What does not fit a fleet, and what to do.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.payment_required {
            all.push(
                "it takes money: pay for the keys of service, bunker and operator and for each \
                      machine's, or choose another relay"
                    .to_owned(),
            );
        }
        if self.restricted_writes && !self.payment_required {
            all.push(
                "it takes events of authors that it knows: have the keys of service, bunker, \
                      operator and machines let in, or choose another relay"
                    .to_owned(),
            );
        }
        if self.work_bits > 0 {
            all.push(format!(
                "it wants {} bits of work in each event, which are never done: choose another relay",
                self.work_bits
            ));
        }
        if let Some(bytes) = self.limits.message_bytes.filter(|bytes| *bytes < LONG_DOCUMENT) {
            all.push(format!(
                "it takes messages of at most {bytes} bytes: a long list of open changes of \
                 cassettes goes by other relays only; have one that takes {LONG_DOCUMENT}"
            ));
        }
        if let Some(most) = self.limits.answers.filter(|most| *most < LEAST_MACHINES * OF_EACH) {
            all.push(format!(
                "it answers with at most {most} events; states of {LEAST_MACHINES} machines are asked \
                 for at once, and one that lies can make two of each: what it leaves out comes by \
                 other relays only"
            ));
        }
        if let Some(most) = self.limits.subscriptions.filter(|most| *most < MACHINE_SUBSCRIPTIONS) {
            all.push(format!(
                "it allows {most} subscriptions, a machine needs {MACHINE_SUBSCRIPTIONS}: choose \
                 another relay"
            ));
        }
        all
    }

    /// What follows for `machines` machines.
    #[must_use]
    pub fn too_few_subscriptions(&self, machines: usize) -> Option<String> {
        let needed = machines.div_ceil(self.limits.machines_in_one());
        let most = self.limits.subscriptions.filter(|most| *most < needed)?;
        Some(format!(
            "it allows {most} subscriptions, {machines} machines need {needed}: the states of the \
             others come by other relays only"
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn limited(limitation: Value) -> Information {
        Information::read(&json!({ "limitation": limitation }))
    }

    /// Loss prevented: a relay that takes nothing of a fleet is found out by machines that stand
    /// still.
    #[test]
    fn what_does_not_fit_is_told() {
        let said = Information::read(&json!({
            "name": "Relay\u{1b}[2J", "software": "git+https://x", "version": "1.2",
            "limitation": {"max_message_length": 16_384, "max_subscriptions": 2, "max_limit": 10,
                "default_limit": 100, "min_pow_difficulty": 20, "auth_required": true,
                "payment_required": true, "restricted_writes": true}
        }));
        assert_eq!(said.name.as_deref(), Some("Relay[2J"));
        assert_eq!(said.software.as_deref(), Some("git+https://x 1.2"));
        assert_eq!(said.limits.answers, Some(10), "each filter names its own limit");
        let told = said.warnings().join("\n");
        for part in [
            "takes money",
            "20 bits of work",
            "16384 bytes",
            "2 subscriptions",
            "at most 10 events",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(said.auth_required, "which is answered, and no reason to worry");
        let restricted = limited(json!({"restricted_writes": true})).warnings();
        assert_eq!(restricted.len(), 1, "{restricted:?}");
        assert_eq!(limited(json!({"max_limit": 49})).warnings().len(), 1);
        assert_eq!(limited(json!({"max_limit": 50})).warnings(), [""; 0]);
        let good = json!({"max_message_length": 131_072, "max_subscriptions": 20, "max_limit": 0});
        assert_eq!(limited(good).warnings(), [""; 0]);
        assert_eq!(Information::read(&json!([])), Information::default());
    }

    /// Loss prevented: states of machines that a relay leaves out of its answer, because it gives so
    /// many and no more; a filter for which it drops the connection.
    #[test]
    fn subscriptions_fit_what_a_relay_answers() {
        assert_eq!(Limits::default().machines_in_one(), 250);
        let at = |limits| limited(limits).limits.machines_in_one();
        // one machine that writes under the names of all leaves room for theirs
        assert_eq!(at(json!({"max_limit": 100})), 50);
        assert_eq!(at(json!({"max_limit": 500})), 250);
        assert_eq!(at(json!({"max_message_length": 16_384})), 70);
        // odd ones, which would make subscriptions many at all relays
        assert_eq!(at(json!({"max_message_length": 1})), 25);
        assert_eq!(at(json!({"max_limit": 1})), 25);
        assert_eq!(at(json!({"default_limit": 1})), 250);
        let few = limited(json!({"max_subscriptions": 3, "max_limit": 100}));
        assert_eq!(few.too_few_subscriptions(150), None);
        assert!(few.too_few_subscriptions(151).unwrap().contains("need 4"));
        let both = Limits { message_bytes: Some(9), ..Limits::default() };
        let other = Limits { message_bytes: Some(8), answers: Some(7), ..Limits::default() };
        let tighter = Limits { message_bytes: Some(8), answers: Some(7), subscriptions: None };
        assert_eq!(both.and(&other), tighter);
    }

    proptest! {
        /// Loss prevented: a daemon that does not start because of what a relay writes about itself.
        #[test]
        fn any_document_is_read(text in "\\PC*", number: i64) {
            let any = json!({"name": text, "limitation": {"max_limit": number, "max_subscriptions":
                text, "min_pow_difficulty": number, "auth_required": number}});
            let read = Information::read(&any);
            prop_assert!(read.limits.machines_in_one() >= LEAST_MACHINES);
            let _ = read.warnings();
        }
    }
}
