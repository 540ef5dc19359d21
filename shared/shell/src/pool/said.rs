//! What a relay means by its OK and CLOSED messages (NIP-01, machine-readable prefixes).

use super::Answered;

/// Characters of a relay's own words that are kept.
const WORDS: usize = 200;

/// What a relay said, fit for a screen.
pub(super) fn words(said: &str) -> String {
    said.chars().filter(|character| !character.is_control()).take(WORDS).collect()
}

/// What an OK with this status and message means for the event. Some relays answer an older
/// replaceable event, or one they have, with `false` and `duplicate:`: they have it, or a newer one.
pub(super) fn of_event(status: bool, said: &str) -> Answered {
    match prefix(said) {
        "duplicate" => Answered::Taken,
        _ if status => Answered::Taken,
        "auth-required" => Answered::WhoAreYou,
        "rate-limited" => Answered::Later,
        "restricted" | "blocked" | "pow" | "mute" => Answered::NotForUs,
        // `error`, `invalid` and whatever a relay makes up: told, and the sender's to repeat
        _ => Answered::Failed,
    }
}

/// Whether a CLOSED asks who we are: the subscription is asked for again after the answer.
pub(super) fn asks_who_we_are(said: &str) -> bool {
    prefix(said) == "auth-required"
}

fn prefix(said: &str) -> &str {
    said.split_once(':').map_or("", |(prefix, _)| prefix.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a document that a relay has counts as refused and is sent for ever; one that
    /// it will never take is waited for.
    #[test]
    fn each_reason_is_understood() {
        for (status, said, meant) in [
            (true, "", Answered::Taken),
            (true, "duplicate: have it", Answered::Taken),
            (false, "duplicate: older than what we have", Answered::Taken),
            (false, "auth-required: who is it", Answered::WhoAreYou),
            (false, "rate-limited: slow down", Answered::Later),
            (false, "restricted: members only", Answered::NotForUs),
            (false, "blocked: you", Answered::NotForUs),
            (false, "pow: 28 bits", Answered::NotForUs),
            (false, "error: disk full", Answered::Failed),
            (false, "invalid: bad signature", Answered::Failed),
            (false, "no", Answered::Failed),
            (false, "", Answered::Failed),
        ] {
            assert_eq!(of_event(status, said), meant, "{status} {said}");
        }
        assert!(asks_who_we_are("auth-required: x") && !asks_who_we_are("restricted: x"));
        assert_eq!(words(&format!("a\u{7}b{}", "c".repeat(300))).len(), 200);
    }
}
