//! Pairing: what the bunker may do, what stays on the disk.

use super::*;
use crate::refused::Refused;

/// Loss prevented: a machine that cannot be paired; a secret or key that a stolen disk gives away;
/// a restart that needs the secret again.
#[tokio::test]
async fn a_machine_pairs_once_and_comes_back_without_the_secret() {
    let (mut world, mut talk) = World::paired(Manner::Good).await;
    world.session(&mut talk, 3_600).await;
    world.stop_net().await;
    drop(talk);

    let mut files = 0;
    for entry in std::fs::read_dir(world.data()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(SECRET), "{}", path.display());
        assert!(!text.contains("nsec1") && !text.contains("secret="), "{}", path.display());
        let store = store::Store::open(&world.data(), None).unwrap();
        let (_, client) = store.current().unwrap().unwrap();
        let key = client.secret_key();
        assert!(!text.contains(&key.to_secret_hex()), "{}", path.display());
        assert!(!bytes.windows(32).any(|w| w == key.to_secret_bytes()), "{}", path.display());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
        files += 1;
    }
    assert!(files >= 3, "secret, client key and pairing");

    let connects = world.bunker.calls("connect");
    world.start_net();
    let pins = world.pins();
    let mut talk = world.vault.accept(Some(pins)).await;
    world.session(&mut talk, 3_600).await;
    world.bunker.called("connect", connects + 1).await;
}

/// What the vault hears of a seed that cannot pair; nothing is in force by it.
async fn refusal(world: &World, talk: &mut Talk, seed: ToNet) -> Refused {
    talk.send(seed).await;
    let refused = talk.wait(|message| match message {
        ToVault::ConnectFailed(refused) => Some(refused.clone()),
        ToVault::Connected { .. } => panic!("connected"),
        _ => None,
    });
    let refused = refused.await;
    assert!(!refused.words.contains(SECRET));
    assert_eq!(store::Store::open(&world.data(), None).unwrap().current().unwrap(), None);
    refused
}

/// What it hears when the bunker behaves like this.
async fn failure(manner: Manner) -> (World, Talk, Refused) {
    let mut world = World::new(manner).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    let refused = refusal(&world, &mut talk, world.connect()).await;
    (world, talk, refused)
}

/// Loss prevented: a machine that says "error" to an operator who stands in front of it; one that
/// keeps a half of a pairing, or loses the key that a bunker has taken the seed for.
#[tokio::test]
async fn each_failure_has_its_words_and_a_refused_seed_leaves_nothing() {
    for (manner, code, words, kept) in [
        (Manner::Silent, "bunker_no_reply", "unlock", true),
        (Manner::Redeemed, "seed_redeemed", "redeemed already", false),
        (Manner::Expired, "seed_expired", "time is over", false),
        (Manner::Foreign, "seed_unknown", "make a new seed and pair again", false),
        (Manner::NotFound, "seed_unknown", "make a new seed and pair again", false),
        (Manner::OtherKey, "bunker_other_key", "pair again with its own seed", true),
        (Manner::NoNip44, "bunker_lacks_method", "use a bunker that has it", true),
        (Manner::OtherText, "bunker_lied", "does not give back what nip44_encrypt took", true),
        (
            Manner::ForAnother,
            "bunker_not_reached",
            "check it and the seed's relays; then pair again",
            true,
        ),
        (Manner::Late, "bunker_no_reply", "unlock", true),
    ] {
        let (mut world, mut talk, refused) = failure(manner).await;
        assert!(refused.words.contains(words), "{manner:?}: {refused}");
        assert_eq!(refused.code.as_str(), code, "{manner:?}: {refused}");
        let files = std::fs::read_dir(world.data()).unwrap().map(|file| file.unwrap().file_name());
        let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let key: &[&str] = if kept { &["client-a.sealed"] } else { &[] };
        let next: &[&str] = if kept { &["pairing-next.json"] } else { &[] };
        assert_eq!(files, [key, &["machine-secret"], next].concat(), "{manner:?}");
        if kept {
            // with a bunker that has come to itself, the same seed is good
            world.bunker.behave(Manner::Good);
            pairs(&mut world, &mut talk).await;
        }
    }
}

/// Tries the seed once more, until there is a session.
async fn pairs(world: &mut World, talk: &mut Talk) {
    talk.send(world.connect()).await;
    talk.wait(|message| match message {
        ToVault::Connected { .. } => Some(()),
        ToVault::ConnectFailed(refused) => panic!("{refused}"),
        _ => None,
    })
    .await;
    talk.send(ToNet::Paired { pins: world.pins() }).await;
    world.session(talk, 3_600).await;
}

/// Loss prevented: a machine that takes the second answer of a bunker for the one to its next
/// question.
#[tokio::test]
async fn a_bunker_that_answers_twice_is_answered_once() {
    let mut world = World::new(Manner::Twice).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    pairs(&mut world, &mut talk).await;
}

/// Loss prevented: a seed whose relay nobody reaches is lost with the try, or leaves a machine that
/// nobody can pair.
#[tokio::test]
async fn a_seed_whose_relay_is_away_pairs_once_it_is_there() {
    let mut world = World::new(Manner::Good).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    let away = world.connect_by(free_port());
    let refused = refusal(&world, &mut talk, away).await;
    assert_eq!(refused.code.as_str(), "bunker_not_reached", "{refused}");
    assert!(refused.words.contains("check it and the seed's relays; then pair again"), "{refused}");
    pairs(&mut world, &mut talk).await;
}

/// Loss prevented: a crash between the bunker's answer and the vault's pin burns the seed.
#[tokio::test]
async fn a_seed_that_was_redeemed_before_a_crash_can_be_used_again() {
    let mut world = World::new(Manner::Good).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    talk.send(world.connect()).await;
    let connected = |message: &ToVault| match message {
        ToVault::Connected { client, .. } => Some(*client),
        ToVault::ConnectFailed(refused) => panic!("{refused}"),
        _ => None,
    };
    let first = talk.wait(connected).await;
    // the vault never learns of it: both start again
    world.stop_net().await;
    drop(talk);
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    talk.send(world.connect()).await;
    assert_eq!(talk.wait(connected).await, first);
}

/// Loss prevented: the vault has pinned, `net` died before it knew: a paired machine without a
/// connection.
#[tokio::test]
async fn what_the_vault_has_pinned_is_taken_up_after_a_crash() {
    let mut world = World::new(Manner::Good).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    talk.send(world.connect()).await;
    talk.wait(|message| matches!(message, ToVault::Connected { .. }).then_some(())).await;
    world.stop_net().await;
    drop(talk);
    world.start_net();
    let pins = world.pins();
    let mut talk = world.vault.accept(Some(pins)).await;
    world.session(&mut talk, 3_600).await;
}
