//! What requests bring: JSON bodies and fractions.

use std::str::FromStr;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bitspire_shared::exact;
use bitspire_shared::money::{FeePpm, PPM};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use super::auth::MAX_BODY;
use super::error::ApiError;

/// A JSON body of at most [`MAX_BODY`] bytes; an empty one reads as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let bytes = bytes.map_err(|_| {
            let words = format!("expected a body of at most {MAX_BODY} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, words)
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let mut words = error.inner().to_string();
            // who filled in a form has no lines
            if let (true, Some(at)) = (error.inner().is_data(), words.rfind(" at line ")) {
                words.truncate(at);
            }
            match path.as_str() {
                "." => ApiError::new(StatusCode::BAD_REQUEST, words),
                field => ApiError::new(StatusCode::BAD_REQUEST, format!("{field}: {words}"))
                    .with("field", field.into()),
            }
        })?;
        let rest = json.end().map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.to_string()));
        rest.map(|()| Self(read))
    }
}

/// A fee as a fraction of the principal, in whole parts per million: `0.05`, as a JSON number or a
/// string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction(pub FeePpm);

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!("expected a fraction from 0 to 1 in steps of 0.000001 such as 0.05, got {text}")
        };
        let fraction = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text));
        let ppm = fraction.ok().and_then(|f| f.checked_mul(Decimal::from(PPM)));
        let whole = ppm.filter(|ppm| ppm.fract().is_zero()).and_then(|ppm| ppm.to_u32());
        whole.and_then(|ppm| FeePpm::new(ppm).ok()).map(Self).ok_or_else(refused)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Deserialize::deserialize(d)?;
        raw.get().trim_matches('"').parse().map_err(de::Error::custom)
    }
}

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let fraction = Decimal::new(i64::from(self.0.ppm()), 6);
        exact::to_number(fraction).map_err(ser::Error::custom)?.serialize(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a fee of 5 taken for 5 %, or one that is rounded to another than was typed.
    #[test]
    fn a_fraction_is_exact_or_refused() {
        let read = |text: &str| serde_json::from_str::<Fraction>(text).map(|f| f.0.ppm());
        for (text, ppm) in [
            ("0.05", 50_000),
            ("\"0.0777\"", 77_700),
            ("1e-6", 1),
            ("0", 0),
            ("1", 1_000_000),
            ("0.10", 100_000),
        ] {
            assert_eq!(read(text).unwrap(), ppm, "{text}");
        }
        for text in ["5", "-0.1", "0.0000001", "\"5%\"", "null", "\"\"", "{}"] {
            assert!(read(text).is_err(), "{text}");
        }
        let shown = serde_json::to_string(&Fraction(FeePpm::new(77_700).unwrap())).unwrap();
        assert_eq!(shown, "0.0777");
    }
}
