//! The envelope: addresses, checks before decryption, decryption.

use nostr::Keys;

use super::*;
use crate::split::FeePair;

fn keys(n: u8) -> (Keys, PubKey) {
    let keys = Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
    let key = PubKey::new(keys.public_key()).unwrap();
    (keys, key)
}

fn address() -> DTag {
    DTag { kind: DocumentKind::Fees, spire: keys(1).1 }
}

fn fees() -> FeesDocument {
    let free = DirectionFees::new(FeePair::default());
    FeesDocument { cash_in: free, cash_out: free, published_at: Unix(990), attest: None }
}

fn conversation(own: u8, peer: u8) -> ConversationKey {
    ConversationKey::derive(keys(own).0.secret_key(), &keys(peer).1).unwrap()
}

/// The operator (3) publishes fees for the machine (1).
fn event(edit: impl FnOnce(&mut UnsignedEvent)) -> Event {
    let text = fees().to_json().unwrap();
    let content = conversation(3, 1).encrypt(&text, [7; 32]).unwrap();
    let mut unsigned = address().to_unsigned(&keys(3).1, &keys(1).1, content, Unix(1_000));
    edit(&mut unsigned);
    unsigned.id = None;
    unsigned.sign_with_keys(&keys(3).0).unwrap()
}

fn check(event: &Event) -> Result<Checked, DocumentError> {
    check_event(event, &address(), &keys(3).1, &keys(1).1, Unix(1_000))
}

/// Loss prevented: a document under an address that the other side never asks for.
#[test]
fn addresses_have_one_spelling() {
    let hex = keys(1).1.to_string();
    for kind in DocumentKind::ALL {
        let tag = DTag { kind, spire: keys(1).1 };
        assert_eq!(tag.to_string(), format!("{}:{hex}", kind.prefix()));
        assert_eq!(tag.to_string().parse(), Ok(tag));
    }
    let state: DTag = format!("bitspire-cassettes-state:{hex}").parse().unwrap();
    assert_eq!(state.kind, DocumentKind::CassettesState);
    let upper = hex.to_uppercase();
    let npub = keys(1).1.npub();
    for wrong in [
        format!("bitspire-fees:{upper}"),
        format!("bitspire-fees:{npub}"),
        format!("bitspire-fees:{hex} "),
        format!("bitspire-other:{hex}"),
        // the second version's own name, which this one leaves alone
        format!("bitspire-fees2:{hex}"),
        format!("bitspire-fees{hex}"),
        format!("bitspire-fees:{}", "f".repeat(64)),
        String::new(),
    ] {
        assert_eq!(wrong.parse::<DTag>(), Err(DocumentError::DTag(wrong)));
    }
}

/// Loss prevented: a document that reaches the right machine and is not understood there.
#[test]
fn a_good_event_opens_to_its_document() {
    let event = event(|_| {});
    let tags: Vec<_> = event.tags.iter().map(|tag| tag.as_slice()[0].as_str()).collect();
    assert_eq!(tags, ["d", "p"]);
    let checked = check(&event).unwrap();
    let text = checked.open(&conversation(1, 3)).unwrap();
    let document = FeesDocument::from_json(&text).unwrap();
    assert_eq!(document, fees());
    let mark = checked.mark(Some(document.published_at));
    assert_eq!((mark.published_at, mark.created_at), (Unix(990), Unix(1_000)));
    assert_eq!(mark.id, checked.id());
    assert_eq!(checked.mark(None).published_at, checked.created_at());
    let wrong = checked.open(&conversation(2, 3));
    assert_eq!(wrong, Err(DocumentError::Content(Nip44Error::Mac)));
}

/// Loss prevented: fees or counts by anybody who can write to a relay, or meant for another
/// machine; and decryption work for whoever sends junk.
#[test]
fn what_is_not_addressed_to_us_by_the_pinned_key_is_refused() {
    let kind = check(&event(|e| e.kind = EventKind::from(30_079)));
    assert_eq!(kind, Err(DocumentError::EventKind(30_079)));

    let stranger = check_event(&event(|_| {}), &address(), &keys(4).1, &keys(1).1, Unix(1_000));
    assert!(matches!(stranger, Err(DocumentError::Author { .. })));

    let other = DTag { kind: DocumentKind::Cassettes, ..address() };
    let address = check_event(&event(|_| {}), &other, &keys(3).1, &keys(1).1, Unix(1_000));
    assert!(matches!(address, Err(DocumentError::Address { .. })));
    let two = check(&event(|e| e.tags.push(Tag::identifier("second"))));
    assert!(matches!(two, Err(DocumentError::Address { .. })));
    // a second version of the fees is handed to nobody's cipher, under whichever address it is taken
    let second = Tag::identifier(format!("bitspire-fees2:{}", keys(1).1));
    let second = event(|e| {
        e.tags = [second, e.tags.last().unwrap().clone()].into_iter().collect();
    });
    for kind in DocumentKind::ALL {
        let own = DTag { kind, spire: keys(1).1 };
        let refused = check_event(&second, &own, &keys(3).1, &keys(1).1, Unix(1_000));
        assert!(matches!(refused, Err(DocumentError::Address { .. })), "{refused:?}");
    }

    let reader = check(&event(|e| {
        e.tags = [e.tags.first().unwrap().clone(), Tag::public_key(keys(2).1.nostr())]
            .into_iter()
            .collect();
    }));
    assert!(matches!(reader, Err(DocumentError::Reader { .. })));

    let expired = check(&event(|e| e.tags.push(Tag::expiration(Timestamp::from(999)))));
    assert_eq!(expired, Err(DocumentError::Expired { now: Unix(1_000) }));
}

/// Loss prevented: a relay that changes a document, its time or its kind on the way.
#[test]
fn id_and_signature_are_checked_before_decryption() {
    let mut moved = event(|_| {});
    moved.created_at = Timestamp::from(1_001);
    assert_eq!(check(&moved), Err(DocumentError::BadSignature));
    let mut changed = event(|_| {});
    changed.content = event(|e| e.content.push('A')).content;
    assert_eq!(check(&changed), Err(DocumentError::BadSignature));
    let mut signed = event(|_| {});
    signed.sig = event(|e| e.created_at = Timestamp::from(5)).sig;
    assert_eq!(check(&signed), Err(DocumentError::BadSignature));
}
