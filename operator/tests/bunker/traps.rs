//! What nsecbunkerd does around an answer, and after a restart on a relay that keeps too much.

use std::time::Duration;

use bitspire_operator::signer::provision::provision;
use bitspire_operator::signer::{BunkerAdmin as _, CALL_TIMEOUT, RemoteSigner as _};
use nostr::Keys;

use crate::battery::Theirs;
use crate::nsecbunkerd::FORK;

/// How long nsecbunkerd asks its administrators about a request before it answers.
const ASKS_FIRST: Duration = Duration::from_secs(10);

/// Loss prevented: a call that is given up while the bunker still asks its administrators, and whose
/// effect is unknown each time.
#[test]
fn a_call_may_take_as_long_as_the_bunker_asks_first() {
    assert!(CALL_TIMEOUT > ASKS_FIRST, "{CALL_TIMEOUT:?}");
}

/// Loss prevented: a relay that keeps administrators' requests has them carried out again at the
/// bunker's next start: another key under a name, two answers to each question, a stranger who is let
/// in, or a service that makes one more of everything at each start.
#[tokio::test]
async fn old_requests_that_are_carried_out_again_change_nobodys_rights() {
    let mut theirs = Theirs::new(FORK).await;
    let folder = tempfile::tempdir().unwrap();
    let wiring = theirs.wiring(&folder);
    let signer = provision(&theirs.admin, "operator-1", &wiring).await.unwrap();
    let key = signer.key();
    let machine = theirs.admin.create_key("spire-1".into(), Keys::generate()).await.unwrap();

    theirs.bunker.restart_with_old_requests().await;
    let asked = theirs.bunker.state().asked.clone();
    for method in ["create_new_key", "create_new_policy", "create_new_token"] {
        assert!(asked.iter().any(|asked| asked == method), "{method} was brought again: {asked:?}");
    }
    let mut keys = theirs.admin.keys().await.unwrap();
    keys.sort_by(|one, other| one.name.cmp(&other.name));
    let held: Vec<_> = keys.iter().map(|held| (held.name.as_str(), held.key)).collect();
    assert_eq!(held, [("operator-1", Some(key)), ("spire-1", Some(machine))], "one key a name");
    assert_eq!(theirs.bunker.state().responders["operator-1"], 1, "and it answers once");
    let tokens = theirs.admin.tokens("operator-1".into()).await.unwrap();
    assert_eq!(tokens.iter().filter(|token| token.redeemed_at.is_some()).count(), 1);
    let users = theirs.admin.users("operator-1".into()).await.unwrap();
    assert_eq!(users.len(), 1, "a token that nobody has lets nobody in: {users:?}");
    signer.sign(theirs.world.event(key, 30_078, "x")).await.unwrap();

    // the service looks first, and makes nothing
    theirs.bunker.state().asked.clear();
    let again = provision(&theirs.admin, "operator-1", &wiring).await.unwrap();
    assert_eq!(again.key(), key);
    let made = |asked: &String| asked.starts_with("create_") || asked.starts_with("unlock_");
    let asked = theirs.bunker.state().asked.clone();
    assert!(!asked.iter().any(made), "{asked:?}");
}
