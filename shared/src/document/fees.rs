//! The fee document: what a transaction costs, per direction.
//!
//! Promise: fractions are read as exact decimals and held in parts per million; each direction is
//! within the cap, when written and when read; components, where they are, make the total.
//!
//! Failure policy: a document that does not hold is refused whole with a [`DocumentError`] that
//! names the field or the direction.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::document::{DocumentError, SCHEMA_VERSION, read};
use crate::exact;
use crate::money::{Direction, FeePpm, PPM, Sats};
use crate::split::{FeePair, SplitError};
use crate::statement::SignedStatement;
use crate::time::Unix;

/// What one direction costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectionFees {
    total: FeePpm,
    parts: Option<FeePair>,
}

impl DirectionFees {
    /// Fees with their parts, as we write them.
    #[must_use]
    pub const fn new(parts: FeePair) -> Self {
        Self { total: parts.total(), parts: Some(parts) }
    }

    /// Platform and operator together.
    #[must_use]
    pub const fn total(&self) -> FeePpm {
        self.total
    }

    /// The parts, where the document names them.
    #[must_use]
    pub const fn parts(&self) -> Option<FeePair> {
        self.parts
    }

    /// Whether `fee` is what this document asks of `principal`: to the sat where the parts are
    /// known; else to one sat, since two legs may have been rounded.
    #[must_use]
    pub fn asks(&self, direction: Direction, principal: Sats, fee: Sats) -> bool {
        match self.parts {
            Some(parts) => parts.charge(direction, principal).is_ok_and(|c| c.fee() == fee),
            None => self.total.of(principal).0.abs_diff(fee.0) <= 1,
        }
    }
}

/// The fee document of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeesDocument {
    /// Customer feeds notes.
    pub cash_in: DirectionFees,
    /// Customer gets notes.
    pub cash_out: DirectionFees,
    /// When the operator published this version.
    pub published_at: Unix,
    /// The operator's statement; see [`attest`](crate::document::attest).
    pub attest: Option<SignedStatement>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    cash_in_fee_fraction: &'a RawValue,
    #[serde(borrow)]
    cash_out_fee_fraction: &'a RawValue,
    #[serde(borrow)]
    components: Option<Components<&'a RawValue>>,
    published_at: Unix,
    attest: Option<SignedStatement>,
}

#[derive(Serialize)]
struct Written<'a> {
    cash_in_fee_fraction: Box<RawValue>,
    cash_out_fee_fraction: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Components<Box<RawValue>>>,
    schema_version: u64,
    published_at: Unix,
    #[serde(skip_serializing_if = "Option::is_none")]
    attest: Option<&'a SignedStatement>,
}

#[derive(Deserialize, Serialize)]
struct Components<T> {
    cash_in: Component<T>,
    cash_out: Component<T>,
}

#[derive(Deserialize, Serialize)]
struct Component<T> {
    #[serde(rename = "super")]
    platform: T,
    operator: T,
}

impl FeesDocument {
    /// What one direction costs.
    #[must_use]
    pub const fn of(&self, direction: Direction) -> &DirectionFees {
        match direction {
            Direction::CashIn => &self.cash_in,
            Direction::CashOut => &self.cash_out,
        }
    }

    /// Reads the plaintext.
    ///
    /// # Errors
    /// The [`DocumentError`] that applies.
    pub fn from_json(text: &str) -> Result<Self, DocumentError> {
        let wire: Wire<'_> = read(text, true)?;
        let (cash_in, cash_out) = match wire.components {
            Some(Components { cash_in, cash_out }) => (Some(cash_in), Some(cash_out)),
            None => (None, None),
        };
        let total_in = fraction("cash_in_fee_fraction", wire.cash_in_fee_fraction)?;
        let total_out = fraction("cash_out_fee_fraction", wire.cash_out_fee_fraction)?;
        Ok(Self {
            cash_in: checked(Direction::CashIn, total_in, cash_in)?,
            cash_out: checked(Direction::CashOut, total_out, cash_out)?,
            published_at: wire.published_at,
            attest: wire.attest,
        })
    }

    /// The plaintext.
    ///
    /// # Errors
    /// [`DocumentError::Json`]: never, each part prints as JSON.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        self.written().map_err(|e| DocumentError::Json(e.to_string()))
    }

    fn written(&self) -> Result<String, serde_json::Error> {
        let components = match (self.cash_in.parts, self.cash_out.parts) {
            (Some(cash_in), Some(cash_out)) => {
                Some(Components { cash_in: component(cash_in)?, cash_out: component(cash_out)? })
            }
            _ => None,
        };
        serde_json::to_string(&Written {
            cash_in_fee_fraction: number(self.cash_in.total)?,
            cash_out_fee_fraction: number(self.cash_out.total)?,
            components,
            schema_version: SCHEMA_VERSION,
            published_at: self.published_at,
            attest: self.attest.as_ref(),
        })
    }
}

fn component(parts: FeePair) -> Result<Component<Box<RawValue>>, serde_json::Error> {
    Ok(Component { platform: number(parts.platform())?, operator: number(parts.operator())? })
}

/// Exactly the fraction: six decimals at most.
fn number(fee: FeePpm) -> Result<Box<RawValue>, serde_json::Error> {
    exact::to_number(Decimal::new(i64::from(fee.ppm()), 6))
}

/// A fraction to the nearest part per million, if it is within 0.001 ppm of one: sums of binary
/// fractions such as 0.07769999999999999 are real.
fn fraction(field: &'static str, raw: &RawValue) -> Result<FeePpm, DocumentError> {
    let got = exact::decimal(raw).map_err(|source| DocumentError::Number { field, source })?;
    let refused = DocumentError::Fraction { field, got };
    let Some(exact) = got.checked_mul(Decimal::from(PPM)) else { return Err(refused) };
    let nearest = exact.round();
    let off = exact.checked_sub(nearest).map(|off| off.abs());
    match (off, nearest.to_u32().map(FeePpm::new)) {
        (Some(off), Some(Ok(ppm))) if off <= Decimal::new(1, 3) => Ok(ppm),
        _ => Err(refused),
    }
}

fn checked(
    direction: Direction,
    total: FeePpm,
    component: Option<Component<&RawValue>>,
) -> Result<DirectionFees, DocumentError> {
    let cap = |source: SplitError| DocumentError::Cap { direction, source };
    let Some(component) = component else {
        FeePair::new(FeePpm::ZERO, total).map_err(cap)?;
        return Ok(DirectionFees { total, parts: None });
    };
    let platform = fraction("components.super", component.platform)?;
    let operator = fraction("components.operator", component.operator)?;
    let parts = FeePair::new(platform, operator).map_err(cap)?;
    // equal in ppm is within 0.003 ppm as written; one ppm apart is the 1e-6 that is too much
    let (total, sum) = (total.ppm(), parts.total().ppm());
    if total != sum {
        return Err(DocumentError::Components { direction, total, sum });
    }
    Ok(DirectionFees::new(parts))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pair(platform: u32, operator: u32) -> FeePair {
        FeePair::new(FeePpm::new(platform).unwrap(), FeePpm::new(operator).unwrap()).unwrap()
    }

    fn document() -> FeesDocument {
        FeesDocument {
            cash_in: DirectionFees::new(pair(30_000, 50_000)),
            cash_out: DirectionFees::new(pair(0, 77_700)),
            published_at: Unix(1_780_000_000),
            attest: None,
        }
    }

    fn text(cash_in: &str, more: &str) -> String {
        format!(
            r#"{{"cash_in_fee_fraction":{cash_in},"cash_out_fee_fraction":0.05,
               "schema_version":1,"published_at":7{more}}}"#
        )
    }

    fn cash_in(fraction: &str) -> Result<u32, DocumentError> {
        FeesDocument::from_json(&text(fraction, "")).map(|fees| fees.cash_in.total().ppm())
    }

    /// Loss prevented: a document that other readers of the same schema cannot read.
    #[test]
    fn the_wire_form_is_the_agreed_one() {
        let text = document().to_json().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "cash_in_fee_fraction": 0.08, "cash_out_fee_fraction": 0.0777,
            "components": {
                "cash_in": {"super": 0.03, "operator": 0.05},
                "cash_out": {"super": 0, "operator": 0.0777},
            },
            "schema_version": 1, "published_at": 1_780_000_000,
        });
        assert_eq!(value, expected);
        assert_eq!(FeesDocument::from_json(&text), Ok(document()));
    }

    /// Loss prevented: a sum of binary fractions refused, or a half ppm taken silently.
    #[test]
    fn fractions_are_the_nearest_ppm_to_a_thousandth() {
        assert_eq!(cash_in("0.07769999999999999"), Ok(77_700));
        assert_eq!(cash_in("0.05500000000000001"), Ok(55_000));
        assert_eq!(cash_in("5e-05"), Ok(50));
        assert_eq!(cash_in("0.000001001"), Ok(1));
        for off in ["0.0000010011", "0.0500005", "0.05000000101"] {
            assert!(matches!(cash_in(off), Err(DocumentError::Fraction { .. })), "{off}");
        }
        for number in ["-0.01", "\"0.05\"", "\"\u{665}\"", "null", "[]"] {
            assert!(matches!(cash_in(number), Err(DocumentError::Number { .. })), "{number}");
        }
    }

    /// Loss prevented: a fee of 100 %, typed or injected, charged to a customer.
    #[test]
    fn fees_above_the_cap_are_refused() {
        assert_eq!(cash_in("0.15"), Ok(150_000));
        for over in ["0.150001", "1"] {
            let direction = Direction::CashIn;
            let refused = cash_in(over);
            assert!(
                matches!(refused, Err(DocumentError::Cap { direction: d, .. }) if d == direction)
            );
        }
        assert!(matches!(cash_in("2"), Err(DocumentError::Fraction { .. })));
    }

    /// Loss prevented: a split that takes other parts than the total that the customer was shown.
    #[test]
    fn components_make_the_total() {
        let parts = |platform, operator| {
            format!(
                r#","components":{{"cash_in":{{"super":{platform},"operator":{operator}}},
                   "cash_out":{{"super":0.02,"operator":0.03}}}}"#
            )
        };
        let fees = FeesDocument::from_json(&text("0.08", &parts("0.03", "0.05"))).unwrap();
        assert_eq!(fees.cash_in.parts(), Some(pair(30_000, 50_000)));
        let wrong = FeesDocument::from_json(&text("0.08", &parts("0.03", "0.050001")));
        let expected =
            DocumentError::Components { direction: Direction::CashIn, total: 80_000, sum: 80_001 };
        assert_eq!(wrong, Err(expected));
    }

    /// Loss prevented: a document of another schema read by the rules of this one.
    #[test]
    fn another_schema_is_refused_and_unknown_fields_are_not() {
        let v2 = text("{}", "").replace("\"schema_version\":1", "\"schema_version\":2");
        assert_eq!(FeesDocument::from_json(&v2), Err(DocumentError::SchemaVersion(2)));
        let none = text("0.05", "").replace("\"schema_version\":1,", "");
        assert!(matches!(FeesDocument::from_json(&none), Err(DocumentError::Json(_))));
        let more = text("0.05", r#","note":{"a":[1.5]},"currency":"USD""#);
        assert!(FeesDocument::from_json(&more).is_ok());
        let twice = text("0.05", r#","cash_in_fee_fraction":0.01"#);
        assert!(matches!(FeesDocument::from_json(&twice), Err(DocumentError::Json(_))));
    }

    /// Loss prevented: a machine that takes a quote with another fee than the one it shows.
    #[test]
    fn the_fee_is_exact_where_the_parts_are_known() {
        let fees = document().cash_in;
        assert!(fees.asks(Direction::CashIn, Sats(82_386), Sats(6_591)));
        assert!(!fees.asks(Direction::CashIn, Sats(82_386), Sats(6_592)));
        let total = FeesDocument::from_json(&text("0.08", "")).unwrap().cash_in;
        assert!(total.asks(Direction::CashIn, Sats(82_386), Sats(6_592)));
        assert!(!total.asks(Direction::CashIn, Sats(82_386), Sats(6_593)));
    }

    proptest! {
        /// Loss prevented: a fee that changes between operator and machine.
        #[test]
        fn what_is_written_is_read_back(
            a in 0u32..=75_000, b in 0u32..=75_000, c in 0u32..=75_000, d in 0u32..=75_000,
            published_at in 0u64..1 << 53,
        ) {
            let written = FeesDocument {
                cash_in: DirectionFees::new(pair(a, b)),
                cash_out: DirectionFees::new(pair(c, d)),
                published_at: Unix(published_at),
                attest: None,
            };
            prop_assert_eq!(FeesDocument::from_json(&written.to_json().unwrap()), Ok(written));
        }

        /// Loss prevented: a total without parts that refuses the legs' honest rounding.
        #[test]
        fn the_legs_of_any_parts_fit_their_total(
            a in 0u32..=75_000, b in 0u32..=75_000, principal in 0u64..1_000_000_000_000,
        ) {
            let fees = DirectionFees::new(pair(a, b));
            let charge = pair(a, b).charge(Direction::CashOut, Sats(principal)).unwrap();
            let total = DirectionFees { parts: None, ..fees };
            prop_assert!(fees.asks(Direction::CashOut, Sats(principal), charge.fee()));
            prop_assert!(total.asks(Direction::CashOut, Sats(principal), charge.fee()));
        }
    }
}
