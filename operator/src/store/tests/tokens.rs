//! Tokens for the API.

use bitspire_shared::ids::Digest;

use super::super::operators::Role;
use super::super::tokens::{self, ApiToken};
use super::*;

/// Loss prevented: a token that was revoked, or has expired, still opens the API.
#[test]
fn a_token_ends() {
    let folder = folder();
    let store = open(&folder);
    let token = |n: u8, expires_at| ApiToken {
        name: format!("token {n}"),
        hash: Digest::from_bytes([n; 32]),
        operator_id: None,
        role: Role::Super,
        created_at: Unix(1),
        expires_at,
        revoked_at: None,
    };
    let (lasting, short) = (token(1, None), token(2, Some(Unix(10))));
    let ids: Result<_, StoreError> = store
        .write_blocking(move |tx| Ok((tokens::insert(tx, &lasting)?, tokens::insert(tx, &short)?)));
    let (lasting, short) = ids.unwrap();
    let holds = |n: u8, now: u64| {
        let found = store
            .read_blocking(move |r| tokens::by_hash(r, Digest::from_bytes([n; 32]), Unix(now)));
        found.unwrap().map(|kept| kept.id)
    };
    assert_eq!((holds(1, 9), holds(2, 9)), (Some(lasting), Some(short)));
    assert_eq!((holds(1, 10), holds(2, 10)), (Some(lasting), None));
    store.write_blocking(move |tx| tokens::revoke(tx, lasting, Unix(11))).unwrap();
    assert_eq!(holds(1, 12), None);
    let again = store.write_blocking(move |tx| tokens::revoke(tx, lasting, Unix(12)));
    assert!(matches!(again, Err(StoreError::NotOneRow { .. })));
}
