//! Documents in, state out.

use std::sync::Arc;

use bitspire_shared::document::{DTag, DocumentKind};
use bitspire_shared::ids::EventId;
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use bitspire_shell::secrets::random;
use nostr::{Event, Filter, Kind, Tag};
use serde_json::json;

use super::service::now;
use super::*;
use crate::net::documents::Memory;

/// A document of `author` for the machine.
fn document(world: &World, author: &Keys, text: &str, at: Unix) -> Event {
    let spire = world.pins().spire;
    let conversation = ConversationKey::derive(author.secret_key(), &spire).unwrap();
    let content = conversation.encrypt(text, random().unwrap()).unwrap();
    let address = DTag { kind: DocumentKind::Fees, spire };
    let event = address.to_unsigned(&public(author), &spire, content, at);
    event.sign_with_keys(author).unwrap()
}

async fn publisher(world: &World) -> Pool {
    Pool::connect(Keys::generate(), &world.urls(), Arc::new(|_: &str| true)).await.unwrap()
}

fn is_document(message: &ToVault) -> Option<(nostr::EventId, String)> {
    match message {
        ToVault::Document { event, plaintext } => Some((event.id, plaintext.clone())),
        _ => None,
    }
}

/// Loss prevented: anybody who knows a machine's address sets its fees; a bunker that is locked for
/// a moment loses a document; a vault that starts again sells by its defaults.
#[tokio::test]
async fn the_operators_documents_arrive_whatever_the_bunker_does() {
    let (world, mut talk) = World::paired(Manner::Good).await;
    let relay = publisher(&world).await;
    world.bunker.behave(Manner::Silent);
    relay.publish(&document(&world, &Keys::generate(), "forged", now())).await.unwrap();
    let good = document(&world, &world.operator, "fees", now());
    relay.publish(&good).await.unwrap();
    talk.wait(|message| match message {
        ToVault::State(state) if state.bunker == crate::ipc::BunkerState::Locked => Some(()),
        ToVault::Document { .. } => panic!("decrypted by nobody"),
        _ => None,
    })
    .await;
    world.bunker.behave(Manner::Good);
    let arrived = talk.wait(is_document).await;
    assert_eq!(arrived, (good.id, "fees".to_owned()));

    drop(talk);
    let mut talk = world.vault.accept(Some(world.pins())).await;
    assert_eq!(talk.wait(is_document).await, arrived);
    let calls = world.bunker.calls("nip44_decrypt");
    let newer = document(&world, &world.operator, "more", Unix(now().0 + 1));
    relay.publish(&newer).await.unwrap();
    let arrived = talk.wait(is_document).await;
    assert_eq!(arrived, (newer.id, "more".to_owned()));
    assert_eq!(world.bunker.calls("nip44_decrypt"), calls + 1);
}

/// Loss prevented: a fee document of a version that this machine cannot read asked of the bunker, or
/// taken for the fees, because a relay has it under the machine's name too.
#[tokio::test]
async fn a_second_version_is_handed_to_no_cipher() {
    let (world, mut talk) = World::paired(Manner::Good).await;
    let (relay, spire) = (publisher(&world).await, world.pins().spire);
    let first = DTag { kind: DocumentKind::Fees, spire };
    let calls = world.bunker.calls("nip44_decrypt");
    // by its own name it is not asked for; by the second of two it comes
    let second = format!("bitspire-fees2:{spire}");
    for names in [vec![second.clone()], vec![second.clone(), first.to_string()]] {
        let mut event = first.to_unsigned(&public(&world.operator), &spire, "v2".into(), now());
        let names = names.into_iter().map(Tag::identifier);
        event.tags = names.chain([Tag::public_key(spire.nostr())]).collect();
        event.id = None;
        relay.publish(&event.sign_with_keys(&world.operator).unwrap()).await.unwrap();
    }
    let good = document(&world, &world.operator, "fees", now());
    relay.publish(&good).await.unwrap();
    assert_eq!(talk.wait(is_document).await, (good.id, "fees".to_owned()));
    assert_eq!(world.bunker.calls("nip44_decrypt"), calls + 1);
}

/// Loss prevented: a machine that stays with the old fees for as long as its connection lasts, because
/// a relay dropped the one message in which it forwards the new ones; and relays that the whole fleet
/// asks at each change, for documents that are on their way.
#[tokio::test]
async fn a_published_document_that_did_not_come_is_asked_for() {
    let (world, mut talk) = World::paired(Manner::Good).await;
    let session = world.session(&mut talk, 3_600).await;
    let relay = publisher(&world).await;
    let good = document(&world, &world.operator, "fees", now());
    relay.publish(&good).await.unwrap();
    let came = talk.wait(is_document).await;
    let say = async |talk: &mut Talk, n: u8, event: String| {
        let push = json!({"push": "config_changed", "push_id": format!("{n:02x}").repeat(16),
            "body": {"d": "x", "event_id": event}});
        let pushed = world.service.push(&session, &push.to_string()).await;
        let heard = |message: &ToVault| match message {
            ToVault::Push { event, .. } => (event.id == pushed.id).then_some(()),
            _ => None,
        };
        talk.wait(heard).await;
    };
    let before = world.asks.0.load(Ordering::SeqCst);
    say(&mut talk, 1, came.0.to_hex()).await;
    // the word of one is faster than the document; two never come
    let late = document(&world, &world.operator, "more", Unix(now().0 + 1));
    say(&mut talk, 2, late.id.to_hex()).await;
    say(&mut talk, 3, "22".repeat(32)).await;
    say(&mut talk, 4, "33".repeat(32)).await;
    relay.publish(&late).await.unwrap();
    assert_eq!(talk.wait(is_document).await.0, late.id);
    assert_eq!(world.asks.0.load(Ordering::SeqCst), before, "it may come by itself");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.asks.0.load(Ordering::SeqCst) < before + 2 {
        assert!(tokio::time::Instant::now() < deadline, "nobody asked");
        tokio::task::yield_now().await;
    }
    // both documents, once for all that are missing
    assert_eq!(world.asks.0.load(Ordering::SeqCst), before + 2);
}

/// Loss prevented: relays that the whole fleet asks at each change, though the documents came while
/// they were waited for.
#[tokio::test]
async fn only_what_has_not_come_in_its_time_is_missing() {
    let [comes, never] = [1, 2].map(|n| EventId::from_bytes([n; 32]));
    let first = tokio::time::Instant::now();
    let mut memory = Memory::default();
    memory.expect(comes, first);
    memory.expect(never, first + PATIENCE);
    assert_eq!(memory.missing_until(), Some(first), "one deadline for all");
    memory.note(comes);
    assert_eq!((memory.overdue(), memory.missing_until()), (Some(never), None));
    memory.expect(comes, first);
    assert_eq!(memory.missing_until(), None, "it is there");
    memory.expect(never, first);
    memory.note(never);
    assert_eq!((memory.overdue(), memory.missing_until()), (None, None));
}

/// Loss prevented: the operator refills by a count that never reached them.
#[tokio::test]
async fn the_state_is_published_until_a_relay_has_it() {
    let (world, mut talk) = World::paired(Manner::Good).await;
    talk.send(ToNet::PublishState { plaintext: "{\"positions\":{}}".into() }).await;
    let published = |message: &ToVault| match message {
        ToVault::StatePublished { event_id } => Some(*event_id),
        _ => None,
    };
    let id = talk.wait(published).await;
    let reader = publisher(&world).await;
    let spire = world.pins().spire;
    let filter = Filter::new().kind(Kind::from(30_078)).author(spire.nostr());
    reader.subscribe("state", filter).await;
    let event = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
    assert_eq!(event.id.to_bytes(), *id.as_bytes());
    let address = DTag { kind: DocumentKind::CassettesState, spire };
    assert_eq!(event.tags.identifier(), Some(address.to_string().as_str()));
    let key = ConversationKey::derive(world.operator.secret_key(), &spire).unwrap();
    assert_eq!(key.decrypt(&event.content).unwrap(), "{\"positions\":{}}");
}
