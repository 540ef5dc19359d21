//! The stamp in a payment's `extra`: what the maker of an invoice wrote beside it.
//!
//! Promise: a [`Stamp`] was read strictly, without floating point, each field of its own type; what
//! is written reads back as the same stamp. Reading it says nothing about its truth.
//!
//! Failure policy: the first field that is not as it should be is a [`StampError`] that names it;
//! fields that a wallet adds are ignored.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::exact::{self, NumberError, shown};
use crate::ids::{EventId, IdError, PubKey, TxnId};
use crate::money::{Currency, Direction, Fiat, MoneyError, Sats};
use crate::split::{SplitError, wire_of};

/// `source` of each stamp of ours.
pub const SOURCE: &str = "bitspire";
/// All sats that will ever be.
const SUPPLY: Sats = Sats(2_100_000_000_000_000);

/// Why an `extra` is no stamp.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StampError {
    /// Not a JSON object, or one of our keys stands twice.
    #[error("stamp: expected a JSON object with each key once: {0}")]
    Json(String),
    /// A field is not there, or null.
    #[error("stamp: expected a field {0}")]
    Missing(&'static str),
    /// A field that should be a text.
    #[error("stamp: expected a text in {field}, got {got}")]
    Text {
        /// The field.
        field: &'static str,
        /// What came.
        got: String,
    },
    /// Somebody else's.
    #[error("stamp: expected source {SOURCE:?}, got {0:?}")]
    Source(String),
    /// Neither cash_in nor cash_out.
    #[error("stamp: expected type cash_in or cash_out, got {0:?}")]
    Type(String),
    /// A field that should be a number.
    #[error("stamp: {field}")]
    Number {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: NumberError,
    },
    /// No currency that we know.
    #[error("stamp: fiat_code")]
    Currency(#[source] MoneyError),
    /// An amount with more digits than the currency has.
    #[error("stamp: expected a fiat_amount in whole minor units of {currency}, got {got}")]
    FiatDigits {
        /// The stamp's currency.
        currency: Currency,
        /// What came.
        got: Decimal,
    },
    /// An identifier that is none.
    #[error("stamp: {field}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
}

impl Classified for StampError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// What the maker of an invoice wrote beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// `type`: direction of the cash.
    pub direction: Direction,
    /// Sats at market rate, before fees.
    pub principal: Sats,
    /// Commission in sats.
    pub fee: Sats,
    /// Sats per major unit of fiat.
    pub exchange_rate: Decimal,
    /// `fiat_amount` and `fiat_code`: the notes' value. On the wire in major units.
    pub fiat: Fiat,
    /// The machine's transaction; other makers than ours may leave it out.
    pub txid: Option<TxnId>,
    /// The fee document that the fee was computed from; other makers than ours may leave it out.
    pub fees_event_id: Option<EventId>,
    /// The machine's key.
    pub sender: PubKey,
    /// The machine's request.
    pub request_event_id: EventId,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    principal_sats: Option<&'a RawValue>,
    #[serde(borrow)]
    fee_sats: Option<&'a RawValue>,
    #[serde(borrow)]
    exchange_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    fiat_amount: Option<&'a RawValue>,
    #[serde(borrow)]
    fiat_code: Option<&'a RawValue>,
    #[serde(borrow)]
    txid: Option<&'a RawValue>,
    #[serde(borrow)]
    fees_event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    nostr_sender_pubkey: Option<&'a RawValue>,
    #[serde(borrow)]
    nostr_event_id: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Written<'a> {
    source: &'static str,
    #[serde(rename = "type")]
    direction: Direction,
    principal_sats: Sats,
    fee_sats: Sats,
    exchange_rate: &'a RawValue,
    fiat_amount: &'a RawValue,
    fiat_code: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<TxnId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fees_event_id: Option<EventId>,
    nostr_sender_pubkey: PubKey,
    nostr_event_id: EventId,
}

impl Stamp {
    /// Reads the JSON text of a payment's `extra`.
    ///
    /// # Errors
    /// The first [`StampError`], in the order of the fields above.
    pub fn parse(extra: &str) -> Result<Self, StampError> {
        Self::parse_by(extra, &[])
    }

    /// The same, by whoever has the likely senders' keys: those are not put on the curve again.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_by(extra: &str, likely: &[PubKey]) -> Result<Self, StampError> {
        let wire: Wire<'_> = parse_object(extra)?;
        let source = text("source", wire.source)?;
        if source != SOURCE {
            return Err(StampError::Source(shown(&source)));
        }
        let direction = match text("type", wire.kind)?.as_str() {
            "cash_in" => Direction::CashIn,
            "cash_out" => Direction::CashOut,
            other => return Err(StampError::Type(shown(other))),
        };
        let principal = sats("principal_sats", wire.principal_sats)?;
        let fee = sats("fee_sats", wire.fee_sats)?;
        let exchange_rate = decimal("exchange_rate", wire.exchange_rate)?;
        let amount = decimal("fiat_amount", wire.fiat_amount)?;
        let currency = text("fiat_code", wire.fiat_code)?.parse().map_err(StampError::Currency)?;
        let minor = minor_units(amount, currency)
            .ok_or(StampError::FiatDigits { currency, got: amount })?;
        let txid = match wire.txid {
            Some(raw) => Some(id("txid", text("txid", Some(raw))?.parse())?),
            None => None,
        };
        let fees_event_id = match wire.fees_event_id {
            Some(raw) => Some(id("fees_event_id", text("fees_event_id", Some(raw))?.parse())?),
            None => None,
        };
        let sender = text("nostr_sender_pubkey", wire.nostr_sender_pubkey)?;
        let request = text("nostr_event_id", wire.nostr_event_id)?;
        Ok(Self {
            direction,
            principal,
            fee,
            exchange_rate,
            fiat: Fiat::new(minor, currency),
            txid,
            fees_event_id,
            sender: id("nostr_sender_pubkey", key_in(&sender, likely))?,
            request_event_id: id("nostr_event_id", request.parse())?,
        })
    }

    /// The stamp as the `extra` of an invoice.
    ///
    /// # Errors
    /// Never for a stamp that can be read: each value prints as JSON.
    pub fn to_extra(&self) -> Result<Box<RawValue>, serde_json::Error> {
        let amount = Decimal::new(self.fiat.minor, self.fiat.currency.exponent());
        serde_json::value::to_raw_value(&Written {
            source: SOURCE,
            direction: self.direction,
            principal_sats: self.principal,
            fee_sats: self.fee,
            exchange_rate: &exact::to_number(self.exchange_rate)?,
            fiat_amount: &exact::to_number(amount)?,
            fiat_code: self.fiat.currency,
            txid: self.txid,
            fees_event_id: self.fees_event_id,
            nostr_sender_pubkey: self.sender,
            nostr_event_id: self.request_event_id,
        })
    }

    /// The wire amount that principal and fee make.
    ///
    /// # Errors
    /// [`SplitError::FeeAbovePrincipal`] for cash_in, an overflow.
    pub fn wire(&self) -> Result<Sats, SplitError> {
        wire_of(self.direction, self.principal, self.fee)
    }

    /// The first field whose value no transaction can have.
    #[must_use]
    pub fn out_of_range(&self) -> Option<&'static str> {
        if self.principal == Sats::ZERO || self.principal > SUPPLY {
            Some("principal_sats")
        } else if self.fee > SUPPLY {
            Some("fee_sats")
        } else if self.exchange_rate <= Decimal::ZERO {
            Some("exchange_rate")
        } else if self.fiat.minor <= 0 {
            Some("fiat_amount")
        } else {
            None
        }
    }
}

/// The machine that an `extra` names as its sender, whatever else it holds; hex or npub. The likely
/// ones' keys are not put on the curve again.
#[must_use]
pub fn claimed_sender(extra: &str, likely: &[PubKey]) -> Option<PubKey> {
    let wire: Wire<'_> = parse_object(extra).ok()?;
    key_in(&text("nostr_sender_pubkey", wire.nostr_sender_pubkey).ok()?, likely).ok()
}

/// Whether an `extra` says that it is ours; no proof of it.
pub(super) fn claims_our_source(extra: &str) -> bool {
    let source = parse_object(extra).and_then(|wire| text("source", wire.source));
    source.is_ok_and(|source| source == SOURCE)
}

fn parse_object(extra: &str) -> Result<Wire<'_>, StampError> {
    exact::object(extra).map_err(|e| StampError::Json(e.to_string()))
}

fn key_in(text: &str, likely: &[PubKey]) -> Result<PubKey, IdError> {
    match likely.iter().find(|key| key.to_string() == text) {
        Some(known) => Ok(*known),
        None => PubKey::from_hex_or_npub(&text.to_ascii_lowercase()),
    }
}

fn text(field: &'static str, raw: Option<&RawValue>) -> Result<String, StampError> {
    let raw = raw.ok_or(StampError::Missing(field))?;
    serde_json::from_str(raw.get()).map_err(|_| StampError::Text { field, got: shown(raw.get()) })
}

fn sats(field: &'static str, raw: Option<&RawValue>) -> Result<Sats, StampError> {
    let raw = raw.ok_or(StampError::Missing(field))?;
    exact::integer(raw).map(Sats).map_err(|source| StampError::Number { field, source })
}

fn decimal(field: &'static str, raw: Option<&RawValue>) -> Result<Decimal, StampError> {
    let raw = raw.ok_or(StampError::Missing(field))?;
    exact::decimal(raw).map_err(|source| StampError::Number { field, source })
}

fn id<T>(field: &'static str, parsed: Result<T, IdError>) -> Result<T, StampError> {
    parsed.map_err(|source| StampError::Id { field, source })
}

fn minor_units(amount: Decimal, currency: Currency) -> Option<i64> {
    let minor = amount.checked_mul(Decimal::from(currency.minor_per_major()))?.normalize();
    if minor.scale() == 0 { minor.to_i64() } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const SPIRE: &str =
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    pub(crate) fn stamp() -> Stamp {
        Stamp {
            direction: Direction::CashOut,
            principal: Sats(222_320),
            fee: Sats(11_116),
            exchange_rate: "1111.6".parse().unwrap(),
            fiat: Fiat::new(20_000, "USD".parse().unwrap()),
            txid: Some(TxnId::from_bytes([7; 16])),
            fees_event_id: Some(EventId::from_bytes([8; 32])),
            sender: SPIRE.parse().unwrap(),
            request_event_id: EventId::from_bytes([9; 32]),
        }
    }

    /// The stamp's text with one field set to other JSON text; an empty text removes the field.
    fn with(field: &str, json: &str) -> String {
        let text = stamp().to_extra().unwrap();
        let mut map: serde_json::Map<String, Value> = serde_json::from_str(text.get()).unwrap();
        assert!(map.remove(field).is_some(), "{field}");
        let rest = serde_json::to_string(&map).unwrap();
        if json.is_empty() {
            rest
        } else {
            rest.replacen('{', &format!("{{\"{field}\":{json},"), 1)
        }
    }

    /// Loss prevented: a stamp that other stacks cannot read, or that we cannot read back.
    #[test]
    fn the_wire_form_is_the_agreed_one() {
        let value: Value = serde_json::from_str(stamp().to_extra().unwrap().get()).unwrap();
        let expected = json!({
            "source": "bitspire", "type": "cash_out", "principal_sats": 222_320,
            "fee_sats": 11_116, "exchange_rate": 1111.6, "fiat_amount": 200, "fiat_code": "USD",
            "txid": "07".repeat(16), "fees_event_id": "08".repeat(32),
            "nostr_sender_pubkey": SPIRE, "nostr_event_id": "09".repeat(32),
        });
        assert_eq!(value, expected);
        assert_eq!(stamp().wire(), Ok(Sats(233_436)));
    }

    /// Loss prevented: an amount read differently by the service and by an auditor.
    #[test]
    fn numbers_that_are_none_are_refused_each_by_its_name() {
        for field in ["principal_sats", "fee_sats"] {
            let number = |json: &str| match Stamp::parse(&with(field, json)) {
                Err(StampError::Number { field: named, source }) if named == field => source,
                other => panic!("{field} {json}: {other:?}"),
            };
            assert!(matches!(number("-1"), NumberError::Negative(_)));
            assert!(matches!(number("1.5"), NumberError::Fraction(_)));
            assert!(matches!(number("100.0"), NumberError::Fraction(_)));
            assert!(matches!(number("9007199254740992"), NumberError::Huge(_)));
            assert!(matches!(number("\"100\""), NumberError::Quoted(_)));
            assert!(matches!(number("\"\u{661}\u{660}\""), NumberError::UnicodeDigits(_)));
            assert!(matches!(number("true"), NumberError::NotANumber(_)));
        }
        let negative = Stamp::parse(&with("exchange_rate", "-0.1"));
        assert!(matches!(negative, Err(StampError::Number { field: "exchange_rate", .. })));
    }

    /// Loss prevented: 20.005 USD paid out as 20.00 or 20.01, as each reader rounds.
    #[test]
    fn an_amount_finer_than_its_currency_is_refused() {
        let fine = Stamp::parse(&with("fiat_amount", "200.001"));
        assert!(matches!(fine, Err(StampError::FiatDigits { .. })));
        assert_eq!(Stamp::parse(&with("fiat_amount", "200.00")), Ok(stamp()));
        assert_eq!(Stamp::parse(&with("fiat_amount", "2e2")), Ok(stamp()));
        let unknown = Stamp::parse(&with("fiat_code", "\"XXX\""));
        assert!(matches!(unknown, Err(StampError::Currency(_))));
    }

    /// Loss prevented: a payment that is not ours, or of no known machine, taken for a sale.
    #[test]
    fn texts_and_ids_are_refused_each_by_its_name() {
        let parse = |field, json| Stamp::parse(&with(field, json));
        assert_eq!(parse("source", "\"lnurlp\""), Err(StampError::Source("lnurlp".into())));
        assert_eq!(parse("type", "\"buy\""), Err(StampError::Type("buy".into())));
        assert!(matches!(parse("type", "1"), Err(StampError::Text { field: "type", .. })));
        for field in ["txid", "fees_event_id", "nostr_sender_pubkey", "nostr_event_id"] {
            let wrong = parse(field, "\"00\"");
            assert!(matches!(&wrong, Err(StampError::Id { field: f, .. }) if *f == field));
        }
        for field in ["source", "type", "principal_sats", "fee_sats", "exchange_rate"] {
            assert_eq!(parse(field, ""), Err(StampError::Missing(field)));
            assert_eq!(parse(field, "null"), Err(StampError::Missing(field)));
        }
        assert_eq!(parse("txid", ""), Ok(Stamp { txid: None, ..stamp() }));
    }

    /// Loss prevented: an object with two amounts, of which each reader takes another one.
    #[test]
    fn other_shapes_are_refused() {
        let twice = with("fee_sats", "11116,\"fee_sats\":1");
        assert!(matches!(Stamp::parse(&twice), Err(StampError::Json(_))));
        for text in ["", "null", "[]", "\"bitspire\"", "{", "[[[[[[["] {
            assert!(matches!(Stamp::parse(text), Err(StampError::Json(_))), "{text}");
        }
        let more = with("source", "\"bitspire\",\"wallet_fiat_rate\":[1.5,{}]");
        assert_eq!(Stamp::parse(&more), Ok(stamp()));
    }

    /// Loss prevented: a machine's own payment refused because its key was spelt as an npub.
    #[test]
    fn the_sender_is_read_from_hex_or_npub() {
        let npub = format!("\"{}\"", stamp().sender.npub());
        assert_eq!(Stamp::parse(&with("nostr_sender_pubkey", &npub)), Ok(stamp()));
        let upper = format!("\"{}\"", SPIRE.to_uppercase());
        assert_eq!(claimed_sender(&with("nostr_sender_pubkey", &upper), &[]), Some(stamp().sender));
        assert_eq!(claimed_sender(&with("fee_sats", "-1"), &[]), Some(stamp().sender));
        assert_eq!(claimed_sender(&with("nostr_sender_pubkey", ""), &[]), None);
    }

    proptest! {
        /// Loss prevented: a stamp that changes between writing and reading.
        #[test]
        fn what_is_written_is_read_back(
            principal in 0u64..9_007_199_254_740_992, fee in 0u64..9_007_199_254_740_992,
            rate in 1u64..u64::MAX / 4, minor in 0i64..1_000_000_000_000,
            code in prop::sample::select(vec!["USD", "JPY", "KWD"]), cash_in in any::<bool>(),
        ) {
            let written = Stamp {
                direction: if cash_in { Direction::CashIn } else { Direction::CashOut },
                principal: Sats(principal),
                fee: Sats(fee),
                exchange_rate: Decimal::from_i128_with_scale(i128::from(rate), 9).normalize(),
                fiat: Fiat::new(minor, code.parse().unwrap()),
                ..stamp()
            };
            let text = written.to_extra().unwrap();
            prop_assert_eq!(Stamp::parse(text.get()), Ok(written));
        }

        /// Loss prevented: a crash of the listener on what anybody may write.
        #[test]
        fn hostile_extras_are_refused_without_panic(text in "[{}\\[\\]\":,0-9a-z_\\\\ue.-]{0,80}") {
            prop_assert!(Stamp::parse(&text).is_err());
        }
    }
}
