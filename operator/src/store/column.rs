//! Columns: the only place where values and SQLite meet.
//!
//! Promise: every number is checked on its way in and out; an id or an enum that does not parse is
//! an error, never a default.

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{
    BayId, ChangeId, ClaimHash, Digest, EventId, JournalHead, JournalSeq, Nonce, PaymentHash,
    PubKey, PushId, QuoteId, RequestId, SessionId, TxnId, WithdrawId, from_hex,
};
use bitspire_shared::money::{Currency, Denomination, Direction, FeePpm, Rate, Sats};
use bitspire_shared::nip46::message::Method;
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::VerdictKind;
use bitspire_shared::time::Unix;
use rusqlite::types::{Value, ValueRef};
use rust_decimal::Decimal;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde::de::value::{BorrowedStrDeserializer, Error as ValueError};

use super::error::StoreError;
use crate::ids::{
    AuditId, BunkerKeyId, BunkerTokenId, CanaryId, ClaimId, DepositId, DocumentId, EntryId,
    GrantId, LegId, LpId, MachineId, OperatorId, OutboxId, PairingId, PaymentId, PolicyId,
    RolloutId, RuleId, RuleSetId, ServiceEventId, SettlementId, TermsId, TokenId, UserId,
    VerdictId, WebhookEventId,
};
use crate::ledger::{Account, Unit};

/// What can be stored in a column.
pub(super) trait ToColumn {
    /// The value as SQLite has it.
    fn to_value(&self) -> Result<Value, StoreError>;
}

/// What can be read from a column; the error says what was expected.
pub(super) trait FromColumn: Sized {
    /// Reads the value.
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str>;
}

impl<T: ToColumn> ToColumn for Option<T> {
    fn to_value(&self) -> Result<Value, StoreError> {
        self.as_ref().map_or(Ok(Value::Null), ToColumn::to_value)
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        if value == ValueRef::Null { Ok(None) } else { T::from_value(value).map(Some) }
    }
}

impl<T: ToColumn + ?Sized> ToColumn for &T {
    fn to_value(&self) -> Result<Value, StoreError> {
        (**self).to_value()
    }
}

impl ToColumn for str {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Text(self.to_owned()))
    }
}

impl ToColumn for String {
    fn to_value(&self) -> Result<Value, StoreError> {
        self.as_str().to_value()
    }
}

pub(super) fn text_of(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

impl FromColumn for String {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        text_of(value).map(str::to_owned).ok_or("UTF-8 text")
    }
}

impl ToColumn for i64 {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Integer(*self))
    }
}

impl FromColumn for i64 {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        value.as_i64().map_err(|_| "an integer")
    }
}

impl ToColumn for bool {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Integer(i64::from(*self)))
    }
}

impl FromColumn for bool {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        match value {
            ValueRef::Integer(0) => Ok(false),
            ValueRef::Integer(1) => Ok(true),
            _ => Err("0 or 1"),
        }
    }
}

impl ToColumn for u64 {
    fn to_value(&self) -> Result<Value, StoreError> {
        i64::try_from(*self).map(Value::Integer).map_err(|_| StoreError::TooLarge { got: *self })
    }
}

impl FromColumn for u64 {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        let number = i64::from_value(value)?;
        number.try_into().map_err(|_| "an integer not below 0")
    }
}

impl ToColumn for u32 {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Integer(i64::from(*self)))
    }
}

impl FromColumn for u32 {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        let number = i64::from_value(value)?;
        number.try_into().map_err(|_| "an integer from 0 to 2^32 - 1")
    }
}

impl ToColumn for u16 {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Integer(i64::from(*self)))
    }
}

impl FromColumn for u16 {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        let number = i64::from_value(value)?;
        number.try_into().map_err(|_| "an integer from 0 to 65535")
    }
}

/// Ids and codes, stored in their one spelling.
macro_rules! as_text {
    ($($name:ty),* $(,)?) => {$(
        impl ToColumn for $name {
            fn to_value(&self) -> Result<Value, StoreError> {
                Ok(Value::Text(self.to_string()))
            }
        }
        impl FromColumn for $name {
            fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
                text_of(value)
                    .and_then(|text| text.parse().ok())
                    .ok_or(concat!("a ", stringify!($name)))
            }
        }
    )*};
}

as_text!(
    TxnId,
    RequestId,
    QuoteId,
    WithdrawId,
    SessionId,
    PushId,
    ChangeId,
    Nonce,
    PaymentHash,
    EventId,
    ClaimHash,
    JournalHead,
    Digest,
    Currency,
    Account,
    Unit,
    Decimal,
    Method,
);

impl ToColumn for PubKey {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Text(self.to_string()))
    }
}

impl FromColumn for PubKey {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        let expected = "a PubKey";
        let bytes = text_of(value).and_then(|text| from_hex("public key", text).ok());
        let key = nostr::PublicKey::from_byte_array(bytes.ok_or(expected)?);
        Self::new(key).map_err(|_| expected)
    }
}

/// Newtypes over an integer.
macro_rules! as_integer {
    ($($name:ident($inner:ty)),* $(,)?) => {$(
        impl ToColumn for $name {
            fn to_value(&self) -> Result<Value, StoreError> {
                self.0.to_value()
            }
        }
        impl FromColumn for $name {
            fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
                <$inner>::from_value(value).map(Self)
            }
        }
    )*};
}

as_integer!(
    Sats(u64),
    Unix(u64),
    JournalSeq(u64),
    OperatorId(i64),
    UserId(i64),
    MachineId(i64),
    LpId(i64),
    TermsId(i64),
    DepositId(i64),
    WebhookEventId(i64),
    PairingId(i64),
    SettlementId(i64),
    LegId(i64),
    RuleSetId(i64),
    PaymentId(i64),
    ClaimId(i64),
    DocumentId(i64),
    OutboxId(i64),
    EntryId(i64),
    AuditId(i64),
    TokenId(i64),
    BunkerKeyId(i64),
    PolicyId(i64),
    RuleId(i64),
    BunkerTokenId(i64),
    GrantId(i64),
    VerdictId(i64),
    RolloutId(i64),
    CanaryId(i64),
    ServiceEventId(i64),
);

/// Integers that have a range of their own: getter, checked constructor.
macro_rules! as_checked {
    ($($name:ident: $get:ident, $make:ident, $what:literal);* $(;)?) => {$(
        impl ToColumn for $name {
            fn to_value(&self) -> Result<Value, StoreError> {
                self.$get().to_value()
            }
        }
        impl FromColumn for $name {
            fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
                Self::$make(FromColumn::from_value(value)?).map_err(|_| $what)
            }
        }
    )*};
}

as_checked!(
    FeePpm: ppm, new, "parts per million";
    Rate: nano, from_nano, "a rate above 0";
    Denomination: minor, from_minor, "a denomination above 0";
);

/// A value kept as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Json<T>(pub T);

impl<T: serde::Serialize> ToColumn for Json<T> {
    fn to_value(&self) -> Result<Value, StoreError> {
        let text = serde_json::to_string(&self.0).map_err(|e| {
            StoreError::Statement(rusqlite::Error::ToSqlConversionFailure(e.into()))
        })?;
        Ok(Value::Text(text))
    }
}

impl<T: DeserializeOwned> FromColumn for Json<T> {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        text_of(value)
            .and_then(|text| serde_json::from_str(text).ok())
            .map(Self)
            .ok_or("JSON of its type")
    }
}

/// JSON as the text that stands in the database, whose tables take nothing else: whoever reads a row
/// seldom looks at it, and parses it then. Two are equal if their texts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// The text of a value: the same for equal ones.
    #[must_use]
    pub fn of(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for JsonText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

// in a document, such as a proof, it stands as the value
impl serde::Serialize for JsonText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = serde_json::from_str::<serde_json::Value>(&self.0);
        value.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for JsonText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|value| Self::of(&value))
    }
}

impl ToColumn for JsonText {
    fn to_value(&self) -> Result<Value, StoreError> {
        self.0.to_value()
    }
}

impl FromColumn for JsonText {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        String::from_value(value).map(Self)
    }
}

/// Values that are one JSON string on the wire, and that text in the database.
macro_rules! as_wire_text {
    ($($name:ident: $what:literal);* $(;)?) => {$(
        impl ToColumn for $name {
            fn to_value(&self) -> Result<Value, StoreError> {
                match serde_json::to_value(self) {
                    Ok(serde_json::Value::String(text)) => Ok(Value::Text(text)),
                    _ => Json(self).to_value(),
                }
            }
        }
        impl FromColumn for $name {
            fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
                let text = text_of(value).map(BorrowedStrDeserializer::<ValueError>::new);
                text.and_then(|text| Self::deserialize(text).ok()).ok_or($what)
            }
        }
    )*};
}

as_wire_text!(
    Sig: "a BIP-340 signature";
    Direction: "cash_in or cash_out";
    DispenseOutcome: "full, partial, none or uncertain";
    VerdictKind: "a verdict";
);

impl ToColumn for BayId {
    fn to_value(&self) -> Result<Value, StoreError> {
        Ok(Value::Integer(i64::from(self.get())))
    }
}

impl FromColumn for BayId {
    fn from_value(value: ValueRef<'_>) -> Result<Self, &'static str> {
        let number = u8::try_from(i64::from_value(value)?).ok();
        number.and_then(Self::new).ok_or("a bay from 1 to 255")
    }
}

/// An enum that is stored, and shown, under fixed lower-case names.
macro_rules! text_enum {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the database, in the API and on pages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::store::column::enum_column!($name);
    };
}

/// Stores an enum that has `ALL` and `as_str`.
macro_rules! enum_column {
    ($name:ident) => {
        impl $crate::store::column::ToColumn for $name {
            fn to_value(&self) -> Result<rusqlite::types::Value, $crate::store::error::StoreError> {
                $crate::store::column::ToColumn::to_value(self.as_str())
            }
        }
        impl $crate::store::column::FromColumn for $name {
            fn from_value(value: rusqlite::types::ValueRef<'_>) -> Result<Self, &'static str> {
                let text = $crate::store::column::text_of(value);
                Self::ALL
                    .iter()
                    .find(|one| text == Some(one.as_str()))
                    .copied()
                    .ok_or(concat!("a ", stringify!($name)))
            }
        }
    };
}

pub(super) use {enum_column, text_enum};
