//! Who may write and read what: the author rule and the reader rule, pure over the roster.
//!
//! Promise: an event is taken only when one of the connection's authenticated keys may sign for
//! its author, and comes only to a connection that it is addressed to or written by. Both rules
//! ask the roster each time.
//!
//! Where customers' wallets may ask by CLINK, they do so without authenticating: what they write goes
//! to the one key that answers them, in these kinds alone, and what they read is addressed to keys
//! that are nobody's here. It is encrypted between the two.

use bitspire_shared::admit::Head;
use bitspire_shared::clink::{DEBIT_KIND, OFFER_KIND};
use bitspire_shared::ids::from_hex;
use nostr::Filter;
use nostr::filter::{Alphabet, SingleLetterTag};

use super::access::{Access, Role};
use super::stats::Refusal;

/// NIP-46 requests and replies.
pub(super) const NOSTR_CONNECT: u16 = 24133;
/// Admin requests of nsecbunkerd.
pub(super) const BUNKER_ADMIN: u16 = 24134;
/// RPC between machine and service.
pub(super) const RPC: u16 = 21000;
/// Documents (NIP-78): the only kind that is stored.
pub(super) const DOCUMENT: u16 = 30078;

/// `#p`.
pub(super) const P: SingleLetterTag = SingleLetterTag::lowercase(Alphabet::P);

/// Whose limits an admitted event counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A machine, by its spire key.
    Machine([u8; 32]),
    /// Service, bunker or operator.
    Staff,
    /// A key outside the roster, that asks to be paired.
    Stranger([u8; 32]),
    /// A customer's wallet, whoever it is.
    Wallet,
}

const fn is_clink(kind: u16) -> bool {
    matches!(kind, OFFER_KIND | DEBIT_KIND)
}

/// Whether a connection with the authenticated `keys` may publish; the least refusal otherwise.
pub(super) fn may_write(
    access: &dyn Access,
    keys: &[[u8; 32]],
    head: &Head,
) -> Result<Writer, Refusal> {
    if is_clink(head.kind) && head.recipient.is_some() && head.recipient == access.clink() {
        return Ok(Writer::Wallet);
    }
    let mut refusal = Refusal::AuthRequired;
    for key in keys {
        match may_write_as(access, key, head) {
            Ok(writer) => return Ok(writer),
            Err(why) => refusal = why,
        }
    }
    Err(refusal)
}

fn may_write_as(access: &dyn Access, key: &[u8; 32], head: &Head) -> Result<Writer, Refusal> {
    let Head { kind, pubkey: author, recipient, .. } = *head;
    let (known_kind, own, writer) = match access.role(key) {
        Role::Machine { spire } => (
            matches!(kind, NOSTR_CONNECT | RPC | DOCUMENT),
            match kind {
                NOSTR_CONNECT => author == *key,
                _ => author == spire || access.session_of(&author) == Some(spire),
            },
            Writer::Machine(spire),
        ),
        Role::Service => (
            matches!(kind, NOSTR_CONNECT | BUNKER_ADMIN | RPC | DOCUMENT) || is_clink(kind),
            match kind {
                NOSTR_CONNECT | BUNKER_ADMIN => author == *key,
                _ => matches!(access.role(&author), Role::Service | Role::Operator),
            },
            Writer::Staff,
        ),
        Role::Operator => (
            matches!(kind, NOSTR_CONNECT | BUNKER_ADMIN | RPC | DOCUMENT),
            author == *key,
            Writer::Staff,
        ),
        Role::Bunker => (
            matches!(kind, NOSTR_CONNECT | BUNKER_ADMIN),
            author == *key || is_bunkers(access, &author),
            Writer::Staff,
        ),
        Role::Unknown => {
            if kind == NOSTR_CONNECT && author == *key {
                let pairing = recipient.is_some_and(|key| access.awaits_pairing(&key));
                return pairing.then_some(Writer::Stranger(*key)).ok_or(Refusal::NoPairing);
            }
            (kind == NOSTR_CONNECT, false, Writer::Stranger(*key))
        }
    };
    match (known_kind, own) {
        (true, true) => Ok(writer),
        (true, false) => Err(Refusal::Author),
        (false, _) => Err(Refusal::Kind),
    }
}

/// Whether `key` is the bunker's to answer for: one that it is known to hold, or one that is nobody
/// else's. The bunker learns of a new key before the roster does, and keeps keys that the roster has
/// forgotten; one such key in a filter must not shut out all the others. That it has the key, the
/// signature over what it writes shows.
fn is_bunkers(access: &dyn Access, key: &[u8; 32]) -> bool {
    access.held_by_bunker(key)
        || (access.role(key) == Role::Unknown && access.session_of(key).is_none())
}

/// Whether `key` is nobody's here: one that a customer's wallet may have made for a request.
fn is_nobodys(access: &dyn Access, key: &[u8; 32]) -> bool {
    access.role(key) == Role::Unknown
        && access.session_of(key).is_none()
        && !access.held_by_bunker(key)
}

/// Whether a REQ with `filter` can only bring what wallets are answered: CLINK alone, addressed to
/// keys that are nobody's here.
pub(super) fn is_wallets(access: &dyn Access, filter: &Filter) -> bool {
    let kinds = filter.kinds.as_ref();
    access.clink().is_some()
        && kinds.is_some_and(|kinds| {
            !kinds.is_empty() && kinds.iter().all(|kind| is_clink(kind.as_u16()))
        })
        && filter.generic_tags.get(&P).is_some_and(|values| {
            !values.is_empty()
                && values.iter().all(|value| key(value).is_some_and(|key| is_nobodys(access, &key)))
        })
}

/// Whether one of the connection's keys stands for `key`.
fn stands_for(access: &dyn Access, keys: &[[u8; 32]], key: &[u8; 32]) -> bool {
    keys.iter().any(|own| {
        own == key
            || match access.role(own) {
                Role::Machine { spire } => spire == *key || access.session_of(key) == Some(spire),
                Role::Service => matches!(access.role(key), Role::Service | Role::Operator),
                Role::Bunker => is_bunkers(access, key),
                Role::Operator | Role::Unknown => false,
            }
    })
}

/// Whether a REQ with `filter` can only bring what the connection may read: all its `#p` values,
/// or all its authors, are keys that it stands for.
pub(super) fn may_ask(access: &dyn Access, keys: &[[u8; 32]], filter: &Filter) -> bool {
    let readers = filter.generic_tags.get(&P).is_some_and(|values| {
        !values.is_empty()
            && values
                .iter()
                .all(|value| key(value).is_some_and(|key| stands_for(access, keys, &key)))
    });
    readers
        || filter.authors.as_ref().is_some_and(|authors| {
            !authors.is_empty()
                && authors.iter().all(|key| stands_for(access, keys, key.as_bytes()))
        })
}

/// Whether a connection may be handed an event.
pub(super) fn may_read(access: &dyn Access, keys: &[[u8; 32]], head: &Head) -> bool {
    stands_for(access, keys, &head.pubkey)
        || head.recipient.is_some_and(|key| stands_for(access, keys, &key))
        || (is_clink(head.kind)
            && access.clink().is_some()
            && head.recipient.is_some_and(|key| is_nobodys(access, &key)))
}

/// Whether some key of the connection is in the roster.
pub(super) fn is_rostered(access: &dyn Access, keys: &[[u8; 32]]) -> bool {
    keys.iter().any(|key| access.role(key) != Role::Unknown)
}

/// Whether the connection belongs to the operator's own servers, whose bursts are not limited.
pub(super) fn is_server(access: &dyn Access, keys: &[[u8; 32]]) -> bool {
    keys.iter().any(|key| matches!(access.role(key), Role::Service | Role::Bunker))
}

/// A key as it stands in a filter.
pub(super) fn key(text: &str) -> Option<[u8; 32]> {
    from_hex("public key", text).ok()
}

#[cfg(test)]
mod tests {
    use bitspire_shared::time::Unix;
    use nostr::PublicKey;

    use super::super::testing::Roster;
    use super::*;

    const fn key(n: u8) -> [u8; 32] {
        [n; 32]
    }

    fn head(kind: u16, author: u8, to: Option<u8>) -> Head {
        Head {
            id: [0; 32],
            pubkey: key(author),
            kind,
            created_at: Unix(1),
            recipient: to.map(key),
            expiration: None,
        }
    }

    const CLIENT: u8 = 1;
    const SPIRE: u8 = 2;
    const SESSION: u8 = 3;
    const SERVICE: u8 = 4;
    const BUNKER: u8 = 5;
    const OPERATOR: u8 = 6;
    const OTHER_CLIENT: u8 = 7;
    const OTHER_SPIRE: u8 = 8;
    const STRANGER: u8 = 9;
    const UNPAIRED: u8 = 10;

    fn roster() -> Roster {
        let roster = Roster::default();
        roster.set(key(CLIENT), Role::Machine { spire: key(SPIRE) });
        roster.set(key(OTHER_CLIENT), Role::Machine { spire: key(OTHER_SPIRE) });
        roster.set(key(SERVICE), Role::Service);
        roster.set(key(BUNKER), Role::Bunker);
        roster.set(key(OPERATOR), Role::Operator);
        roster.open_session(key(SESSION), key(SPIRE));
        for held in [SPIRE, OTHER_SPIRE, UNPAIRED] {
            roster.hold(key(held));
        }
        roster.await_pairing(key(UNPAIRED), true);
        roster
    }

    fn writes(roster: &Roster, by: u8, kind: u16, author: u8, to: u8) -> Result<Writer, Refusal> {
        may_write(roster, &[key(by)], &head(kind, author, Some(to)))
    }

    /// Loss prevented: an event in another machine's name burns that machine's rate and its ids.
    #[test]
    fn an_author_is_bound_to_the_authenticated_key() {
        let roster = roster();
        let machine = Ok(Writer::Machine(key(SPIRE)));
        let staff = Ok(Writer::Staff);
        let author = Err(Refusal::Author);
        let kind = Err(Refusal::Kind);
        for (by, event_kind, by_author, expected) in [
            (CLIENT, RPC, SPIRE, machine),
            (CLIENT, RPC, SESSION, machine),
            (CLIENT, DOCUMENT, SPIRE, machine),
            (CLIENT, NOSTR_CONNECT, CLIENT, machine),
            (CLIENT, NOSTR_CONNECT, SPIRE, author),
            (CLIENT, RPC, CLIENT, author),
            (CLIENT, RPC, OTHER_SPIRE, author),
            (CLIENT, RPC, SERVICE, author),
            (CLIENT, BUNKER_ADMIN, CLIENT, kind),
            (CLIENT, 1, SPIRE, kind),
            (OTHER_CLIENT, RPC, SESSION, author),
            (SERVICE, RPC, SERVICE, staff),
            (SERVICE, DOCUMENT, OPERATOR, staff),
            (SERVICE, DOCUMENT, SPIRE, author),
            (SERVICE, BUNKER_ADMIN, SERVICE, staff),
            (SERVICE, BUNKER_ADMIN, OPERATOR, author),
            (OPERATOR, DOCUMENT, OPERATOR, staff),
            (OPERATOR, DOCUMENT, SERVICE, author),
            (BUNKER, NOSTR_CONNECT, SPIRE, staff),
            (BUNKER, NOSTR_CONNECT, BUNKER, staff),
            (BUNKER, NOSTR_CONNECT, STRANGER, staff),
            (BUNKER, NOSTR_CONNECT, CLIENT, author),
            (BUNKER, NOSTR_CONNECT, SESSION, author),
            (BUNKER, NOSTR_CONNECT, SERVICE, author),
            (BUNKER, RPC, SPIRE, kind),
            (STRANGER, RPC, STRANGER, kind),
            (STRANGER, NOSTR_CONNECT, CLIENT, author),
        ] {
            let got = writes(&roster, by, event_kind, by_author, SERVICE);
            assert_eq!(got, expected, "key {by} kind {event_kind} author {by_author}");
        }
        assert_eq!(
            may_write(&roster, &[], &head(RPC, SPIRE, Some(SERVICE))),
            Err(Refusal::AuthRequired)
        );
    }

    /// Loss prevented: a stranger floods the bunker, or reaches a machine that is paired already.
    #[test]
    fn a_stranger_writes_only_to_a_key_that_awaits_pairing() {
        let roster = roster();
        let stranger = Ok(Writer::Stranger(key(STRANGER)));
        assert_eq!(writes(&roster, STRANGER, NOSTR_CONNECT, STRANGER, UNPAIRED), stranger);
        let refused = Err(Refusal::NoPairing);
        assert_eq!(writes(&roster, STRANGER, NOSTR_CONNECT, STRANGER, SPIRE), refused);
        let to_nobody = head(NOSTR_CONNECT, STRANGER, None);
        assert_eq!(may_write(&roster, &[key(STRANGER)], &to_nobody), refused);
        roster.await_pairing(key(UNPAIRED), false);
        assert_eq!(writes(&roster, STRANGER, NOSTR_CONNECT, STRANGER, UNPAIRED), refused);
    }

    /// Loss prevented: a door for wallets through which a stranger writes to machines, reads who asks
    /// the service, or that stands open where nobody opened it.
    #[test]
    fn wallets_write_to_one_key_and_read_what_is_nobodys() {
        let roster = roster();
        let writes =
            |keys: &[[u8; 32]], kind, to| may_write(&roster, keys, &head(kind, STRANGER, to));
        let public = |n: u8| PublicKey::from_byte_array(key(n));
        let to = |n: u8, kind: u16| Filter::new().kind(kind.into()).pubkey(public(n));
        let shut = Err(Refusal::AuthRequired);
        assert_eq!(writes(&[], DEBIT_KIND, Some(SERVICE)), shut);
        assert_eq!(writes(&[key(STRANGER)], DEBIT_KIND, Some(SERVICE)), Err(Refusal::Kind));
        assert!(!is_wallets(&roster, &to(STRANGER, DEBIT_KIND)));
        let answer = head(OFFER_KIND, SERVICE, Some(STRANGER));
        assert!(!may_read(&roster, &[], &answer));
        roster.open_clink(key(SERVICE));
        for by in [&[][..], &[key(STRANGER)], &[key(CLIENT)]] {
            for kind in [OFFER_KIND, DEBIT_KIND] {
                assert_eq!(writes(by, kind, Some(SERVICE)), Ok(Writer::Wallet));
                assert_ne!(writes(by, kind, Some(SPIRE)), Ok(Writer::Wallet));
                assert_ne!(writes(by, kind, None), Ok(Writer::Wallet));
            }
            assert_ne!(writes(by, RPC, Some(SERVICE)), Ok(Writer::Wallet));
        }
        assert!(may_read(&roster, &[], &answer));
        assert!(!may_read(&roster, &[], &head(OFFER_KIND, STRANGER, Some(SERVICE))));
        assert!(!may_read(&roster, &[], &head(RPC, SERVICE, Some(STRANGER))));
        assert!(is_wallets(&roster, &to(STRANGER, DEBIT_KIND)));
        for nobodys in [SERVICE, SPIRE, SESSION, CLIENT, OPERATOR, BUNKER] {
            assert!(!is_wallets(&roster, &to(nobodys, DEBIT_KIND)), "key {nobodys}");
        }
        assert!(!is_wallets(&roster, &to(STRANGER, RPC)));
        assert!(!is_wallets(&roster, &to(STRANGER, DEBIT_KIND).kind(RPC.into())));
        assert!(!is_wallets(&roster, &Filter::new().pubkey(public(STRANGER))));
        assert!(!is_wallets(&roster, &Filter::new().kind(DEBIT_KIND.into())));
        // the service answers them, and nobody in its name
        let answers = |by: u8| may_write(&roster, &[key(by)], &answer);
        assert_eq!(answers(SERVICE), Ok(Writer::Staff));
        assert_eq!(answers(CLIENT), Err(Refusal::Kind));
    }

    /// Loss prevented: a machine that was revoked, or a session that ended, goes on writing.
    #[test]
    fn a_change_of_the_roster_counts_at_the_next_event() {
        let roster = roster();
        roster.close_session(&key(SESSION));
        assert_eq!(writes(&roster, CLIENT, RPC, SESSION, SERVICE), Err(Refusal::Author));
        roster.set(key(CLIENT), Role::Unknown);
        assert_eq!(writes(&roster, CLIENT, RPC, SPIRE, SERVICE), Err(Refusal::Kind));
        assert!(!may_read(&roster, &[key(CLIENT)], &head(RPC, SERVICE, Some(SPIRE))));
    }

    /// Loss prevented: one machine reads the quotes, invoices and cassettes of another.
    #[test]
    fn a_filter_names_only_own_keys() {
        let roster = roster();
        let asks = |by: u8, filter: &Filter| may_ask(&roster, &[key(by)], filter);
        let public = |n: u8| PublicKey::from_byte_array(key(n));
        let to = |n: u8| Filter::new().pubkey(public(n));
        let from = |n: u8| Filter::new().author(public(n));
        for (by, filter, expected) in [
            (CLIENT, to(CLIENT), true),
            (CLIENT, to(SPIRE).pubkey(public(SESSION)), true),
            (CLIENT, to(SPIRE).author(public(OPERATOR)), true),
            (CLIENT, from(SPIRE), true),
            (CLIENT, from(SPIRE).pubkey(public(OPERATOR)), true),
            (CLIENT, from(OPERATOR), false),
            (CLIENT, to(SPIRE).pubkey(public(OTHER_SPIRE)), false),
            (CLIENT, to(OTHER_SPIRE), false),
            (CLIENT, Filter::new(), false),
            (CLIENT, Filter::new().pubkeys([]), false),
            (CLIENT, Filter::new().authors([]), false),
            (CLIENT, Filter::new().custom_tag(P, "nothing"), false),
            (OTHER_CLIENT, to(SESSION), false),
            (SERVICE, to(OPERATOR), true),
            (SERVICE, to(SPIRE), false),
            (BUNKER, to(SPIRE).pubkey(public(UNPAIRED)), true),
            (BUNKER, to(SPIRE).pubkey(public(STRANGER)), true),
            (BUNKER, to(SERVICE), false),
            (BUNKER, to(SPIRE).pubkey(public(CLIENT)), false),
            (BUNKER, to(SESSION), false),
            (OPERATOR, to(OPERATOR), true),
            (OPERATOR, to(SERVICE), false),
            (STRANGER, to(STRANGER), true),
            (STRANGER, to(SPIRE), false),
        ] {
            assert_eq!(asks(by, &filter), expected, "key {by}: {filter:?}");
        }
    }
}
