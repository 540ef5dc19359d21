//! What a bunker can do, and in plain words what it cannot.

use serde::{Deserialize, Serialize};

/// What a bunker can do, as far as it matters here and bunkers differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Its own name and version, where it tells them.
    pub software: Option<String>,
    /// A token that nobody has used can be taken back.
    pub revokes_tokens: bool,
    /// A rule can be added to a policy that is there.
    pub adds_rules: bool,
    /// What a client may do ends when its token does, and can be given more time.
    pub ends_grants: bool,
    /// Usage caps and the end of a policy count at each request.
    pub enforces_policies: bool,
    /// Requests and their outcomes are written down and can be read.
    pub keeps_audit: bool,
}

impl Abilities {
    /// What it cannot do, and what follows from that.
    #[must_use]
    pub fn cannot(&self) -> Vec<&'static str> {
        let mut cannot = Vec::new();
        if !self.revokes_tokens {
            cannot.push(
                "it cannot take a token back: a seed that nobody has used works until its time is \
                 over, though this service serves nobody who uses it after a revoke",
            );
        }
        if !self.adds_rules {
            cannot.push(
                "it cannot add rules to a policy: where it does not take rules without a kind, \
                 machines cannot be paired with it; take a version that has add_policy_rule, or the \
                 embedded bunker",
            );
        }
        if !self.ends_grants {
            cannot.push(
                "what it once granted has no end: this service ends a pairing at its time, the \
                 bunker does not",
            );
        }
        if !self.enforces_policies {
            cannot.push("it does not hold usage caps, nor the end of a policy");
        }
        if !self.keeps_audit {
            cannot.push("it keeps no log of requests that can be read from here");
        }
        cannot
    }
}
