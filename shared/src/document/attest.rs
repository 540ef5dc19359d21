//! What an operator vouches for, when the reader did not see the encrypted event.
//!
//! Promise: an attest covers the whole document as it was received, unknown fields included: it
//! names SHA-256 of the canonical JSON without the `attest` field, and the machine. Canonical JSON
//! is RFC 8785; numbers are integers within 2^53 - 1 or have at most six decimals and 15 digits, for
//! which RFC 8785 and exact decimals agree.
//!
//! Failure policy: a document without a canonical form cannot be attested; a check that fails is a
//! [`DocumentError`] and changes nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::canonical::{CanonicalError, MAX_INTEGER, sha256};
use crate::document::DocumentError;
use crate::exact::{UniqueMap, exact_decimal, object, shown};
use crate::ids::{Digest, Nonce, PubKey};
use crate::statement::{SignedStatement, Statement};
use crate::time::Unix;

/// The deepest nesting that a document may have.
const MAX_DEPTH: usize = 16;
/// The field that is left out of its own digest.
const FIELD: &str = "attest";

/// What the operator's statement names: SHA-256 of the canonical document without its `attest`.
///
/// # Errors
/// [`DocumentError::Canonical`].
pub fn digest(document: &str) -> Result<Digest, DocumentError> {
    canonical_without(document, FIELD).map(|text| sha256(&text)).map_err(DocumentError::Canonical)
}

/// Checks that `operator` vouches for this document and this machine. Returns the statement's
/// nonce; whether it was used before is the caller's to know.
///
/// # Errors
/// [`DocumentError::NotAttested`], [`DocumentError::Attest`], [`DocumentError::AttestOther`].
pub fn check(
    document: &str,
    operator: &PubKey,
    spire: &PubKey,
    now: Unix,
) -> Result<Nonce, DocumentError> {
    #[derive(Deserialize)]
    struct Attested {
        attest: Option<SignedStatement>,
    }
    let read: Attested = object(document).map_err(|e| DocumentError::Json(e.to_string()))?;
    let attest = read.attest.ok_or(DocumentError::NotAttested)?;
    let statement = attest.check(operator, now).map_err(DocumentError::Attest)?;
    let expected = digest(document)?;
    match &statement {
        Statement::Document { spire: named, sha256, nonce, .. }
            if named == spire && *sha256 == expected =>
        {
            Ok(*nonce)
        }
        Statement::Document { spire, sha256, .. } => {
            let got = format!("{sha256} for {spire}");
            Err(DocumentError::AttestOther { expected, got })
        }
        other => {
            let got = format!("a statement of type {}", other.type_name());
            Err(DocumentError::AttestOther { expected, got })
        }
    }
}

/// The canonical text of a JSON object without one of its own fields.
pub(super) fn canonical_without(document: &str, field: &str) -> Result<String, CanonicalError> {
    let mut map: UniqueMap<String, &RawValue> = object(document).map_err(json)?;
    map.0.remove(field);
    let mut out = String::with_capacity(document.len());
    write_object(&map.0, MAX_DEPTH, &mut out)?;
    Ok(out)
}

fn json(error: serde_json::Error) -> CanonicalError {
    CanonicalError::Json(error.to_string())
}

fn write_object(
    map: &BTreeMap<String, &RawValue>,
    depth: usize,
    out: &mut String,
) -> Result<(), CanonicalError> {
    let mut before = '{';
    for (key, value) in map {
        if !key.is_ascii() {
            return Err(CanonicalError::Key(key.clone()));
        }
        out.push(before);
        write_text(key, out)?;
        out.push(':');
        write_value(value.get(), depth, out)?;
        before = ',';
    }
    out.push_str(if before == '{' { "{}" } else { "}" });
    Ok(())
}

fn write_value(text: &str, depth: usize, out: &mut String) -> Result<(), CanonicalError> {
    let inner = depth.checked_sub(1).ok_or_else(|| {
        CanonicalError::Json(format!("expected at most {MAX_DEPTH} levels of nesting"))
    })?;
    match text.as_bytes().first() {
        Some(b'{') => {
            let map: UniqueMap<String, &RawValue> = serde_json::from_str(text).map_err(json)?;
            write_object(&map.0, inner, out)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(json)?;
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(item.get(), inner, out)?;
            }
            out.push(']');
            Ok(())
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(json)?;
            write_text(&text, out)
        }
        Some(b'-' | b'0'..=b'9') => {
            out.push_str(&number(text)?);
            Ok(())
        }
        _ => {
            out.push_str(text); // true, false, null
            Ok(())
        }
    }
}

fn write_text(text: &str, out: &mut String) -> Result<(), CanonicalError> {
    // serde_json escapes as RFC 8785 does
    out.push_str(&serde_json::to_string(text).map_err(json)?);
    Ok(())
}

fn number(text: &str) -> Result<String, CanonicalError> {
    let refused = || CanonicalError::Number(shown(text));
    let value = exact_decimal(text).ok_or_else(refused)?;
    let digits = value.mantissa().unsigned_abs();
    let exact = match value.scale() {
        0 => digits <= u128::from(MAX_INTEGER),
        1..=6 => digits < 1_000_000_000_000_000,
        _ => false,
    };
    match (exact, value.is_zero()) {
        (false, _) => Err(refused()),
        (true, true) => Ok("0".into()),
        (true, false) => Ok(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::canonical::to_canonical;

    fn keys(n: u8) -> (Keys, PubKey) {
        let keys = Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
        let key = PubKey::new(keys.public_key()).unwrap();
        (keys, key)
    }

    fn attested(document: &str, spire: PubKey, author: u8) -> String {
        let (keys, key) = keys(author);
        let statement = Statement::Document {
            spire,
            sha256: digest(document).unwrap(),
            nonce: Nonce::from_bytes([5; 16]),
            not_after: Unix(2_000),
        };
        let event = statement.to_unsigned(&key, Unix(1_000)).unwrap();
        let signed = SignedStatement::new(event.sign_with_keys(&keys).unwrap());
        let mut value: Value = serde_json::from_str(document).unwrap();
        value["attest"] = serde_json::to_value(signed).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    }

    const DOCUMENT: &str = r#"{"positions": {"1": {"denomination": 20, "count": 5}}, "x": 0.05}"#;

    /// Loss prevented: 20s declared as 50s by whoever holds the network process.
    #[test]
    fn an_attest_holds_for_its_document_and_machine_only() {
        let (operator, spire, other) = (keys(3).1, keys(1).1, keys(2).1);
        let text = attested(DOCUMENT, spire, 3);
        let nonce = Ok(Nonce::from_bytes([5; 16]));
        assert_eq!(check(&text, &operator, &spire, Unix(2_000)), nonce);

        let changed = text.replace("\"denomination\": 20", "\"denomination\": 50");
        assert_ne!(changed, text);
        let changed = check(&changed, &operator, &spire, Unix(2_000));
        assert!(matches!(changed, Err(DocumentError::AttestOther { .. })), "{changed:?}");
        let unknown = text.replacen('{', "{\"unknown\": 1,", 1);
        let unknown = check(&unknown, &operator, &spire, Unix(2_000));
        assert!(matches!(unknown, Err(DocumentError::AttestOther { .. })));
        let machine = check(&text, &operator, &other, Unix(2_000));
        assert!(matches!(machine, Err(DocumentError::AttestOther { .. })));
        let late = check(&text, &operator, &spire, Unix(2_001));
        assert!(matches!(late, Err(DocumentError::Attest(_))));
        let author = check(&attested(DOCUMENT, spire, 4), &operator, &spire, Unix(2_000));
        assert!(matches!(author, Err(DocumentError::Attest(_))));
        let none = check(DOCUMENT, &operator, &spire, Unix(2_000));
        assert_eq!(none, Err(DocumentError::NotAttested));
    }

    /// Loss prevented: two spellings of one document with two digests.
    #[test]
    fn the_canonical_text_is_one() {
        let text =
            r#" {"b" : [1.0, 2e2, -0, 0.050, {}], "a": {"z":"\u00e9\/","y":[ ]}, "c":null} "#;
        let canonical = canonical_without(text, "c").unwrap();
        assert_eq!(canonical, "{\"a\":{\"y\":[],\"z\":\"\u{e9}/\"},\"b\":[1,200,0,0.05,{}]}");
    }

    /// Loss prevented: a number that another reader's canonical form spells in another way.
    #[test]
    fn what_has_no_single_canonical_form_is_refused() {
        let numbers = ["0.0000001", "1e-9", "9007199254740992", "1234567890.123456", "1e400"];
        for number in numbers {
            let text = format!("{{\"a\":{number}}}");
            let refused = canonical_without(&text, "b");
            assert!(matches!(refused, Err(CanonicalError::Number(_))), "{number}");
        }
        assert!(canonical_without(r#"{"a":1,"a":1}"#, "b").is_err());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(90_000), "]".repeat(90_000));
        assert!(matches!(canonical_without(&deep, "b"), Err(CanonicalError::Json(_))));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991i64..=9_007_199_254_740_991).prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Loss prevented: a document and a statement that do not agree on what is canonical.
        #[test]
        fn it_is_the_canonical_form_of_all_signed_texts(value in any_json()) {
            let document = json!({"value": value, "attest": 1});
            let pretty = serde_json::to_string_pretty(&document).unwrap();
            let expected = to_canonical(&json!({"value": value})).unwrap();
            prop_assert_eq!(canonical_without(&pretty, "attest").unwrap(), expected);
        }
    }
}
