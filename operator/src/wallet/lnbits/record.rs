//! A payment as LNbits writes it.
//!
//! Promise: pure; an amount that is no integer, a status that is not known and a time that does not
//! read are errors in words.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Msat;
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Flow, PayState, Payment};

/// A page of the list.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Record>,
}

/// One payment.
#[derive(Deserialize)]
pub(super) struct Record {
    payment_hash: String,
    /// Millisats; negative where it goes out.
    amount: i64,
    /// Millisats, of either sign.
    #[serde(default)]
    fee: i64,
    pub(super) bolt11: String,
    status: String,
    updated_at: String,
    #[serde(default)]
    extra: Value,
}

impl Record {
    /// When it changed last, in microseconds since 1970.
    pub(super) fn updated_us(&self) -> Result<u64, String> {
        micros(&self.updated_at)
            .ok_or_else(|| format!("expected a time in updated_at, got {:?}", self.updated_at))
    }

    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let payment_hash = self.payment_hash.parse::<PaymentHash>();
        let payment_hash = payment_hash.map_err(|e| format!("its payment hash: {e}"))?;
        let flow = if self.amount < 0 { Flow::Outbound } else { Flow::Inbound };
        let state = match self.status.as_str() {
            "pending" => PayState::Pending,
            "failed" => PayState::Failed,
            "success" => PayState::Succeeded {
                amount: Msat(self.amount.unsigned_abs()),
                fee: match flow {
                    Flow::Outbound => Msat(self.fee.unsigned_abs()),
                    Flow::Inbound => Msat::ZERO,
                },
                at: Unix(self.updated_us()? / 1_000_000),
            },
            other => {
                return Err(format!("expected pending, success or failed, got status {other:?}"));
            }
        };
        Ok(Payment { payment_hash, flow, state, extra: exact(self.extra.clone()) })
    }
}

/// Floats as their text: LNbits adds its own prices to what it was given, and a float that is stored
/// and read again need not be the same.
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::String(number.to_string()),
        Value::Array(all) => Value::Array(all.into_iter().map(exact).collect()),
        Value::Object(all) => {
            Value::Object(all.into_iter().map(|(key, value)| (key, exact(value))).collect())
        }
        other => other,
    }
}

/// `2026-11-21T13:26:33.086990+00:00` as microseconds since 1970; UTC where no offset is written.
fn micros(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, offset) = match rest.find(['+', '-', 'Z']) {
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = format!("{:0<6.6}", fraction).parse().ok()?;
    let offset_s: i64 = match offset.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign, at) => {
            let (hours, minutes) = at.split_once(':')?;
            let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
            let ahead = i64::from(hours) * 3_600 + i64::from(minutes) * 60;
            if sign == "-" { -ahead } else { ahead }
        }
    };
    // the year begins in March, so that a leap day is its last one
    let shifted = (year * 12 + month - 3).div_euclid(12);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468;
    let local = days * 86_400 + i64::try_from(hour * 3_600 + minute * 60 + second).ok()?;
    u64::try_from(local - offset_s).ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(change: &[(&str, Value)]) -> Result<Payment, String> {
        let mut text = json!({
            "payment_hash": "ab".repeat(32), "amount": -1_234_000, "fee": -2_001, "bolt11": "ln",
            "status": "success", "updated_at": "2026-11-21T13:26:33.086990+00:00",
            "extra": {"a": "0.05"}, "wallet_id": "w", "memo": null,
        });
        for (name, value) in change {
            text[*name] = value.clone();
        }
        serde_json::from_value::<Record>(text).map_err(|e| e.to_string())?.payment()
    }

    /// Loss prevented: an outgoing payment read as income, a fee that lowers what is booked, or an
    /// amount that a float has bent.
    #[test]
    fn signs_are_directions_and_amounts_are_integers() {
        let paid = record(&[]).unwrap();
        let at = Unix(1_795_267_593);
        let state = PayState::Succeeded { amount: Msat(1_234_000), fee: Msat(2_001), at };
        assert_eq!((paid.flow, paid.state), (Flow::Outbound, state));
        assert_eq!(paid.extra["a"], "0.05");
        let got = record(&[("amount", json!(5_000)), ("fee", json!(0))]).unwrap();
        let state = PayState::Succeeded { amount: Msat(5_000), fee: Msat(0), at };
        assert_eq!((got.flow, got.state), (Flow::Inbound, state));
        assert_eq!(record(&[("status", json!("failed"))]).unwrap().state, PayState::Failed);
        assert_eq!(record(&[("status", json!("pending"))]).unwrap().state, PayState::Pending);
        for (name, wrong) in [
            ("amount", json!(1.5)),
            ("amount", json!("1000")),
            ("amount", json!(1e30)),
            ("fee", json!(0.5)),
            ("status", json!("SUCCESS")),
            ("status", json!(true)),
            ("payment_hash", json!("ab")),
            ("updated_at", json!("yesterday")),
        ] {
            assert!(record(&[(name, wrong.clone())]).is_err(), "{name}: {wrong}");
        }
    }

    /// Loss prevented: a payment that differs from itself when it is read again, and alarms.
    #[test]
    fn what_lnbits_adds_holds_no_float() {
        let added =
            json!({"type": "cash_out", "principal_sats": 5, "wallet_btc_rate": [1.1, {"a": 2e30}]});
        let extra = record(&[("extra", added)]).unwrap().extra;
        let expected = json!({"type": "cash_out", "principal_sats": 5, "wallet_btc_rate": ["1.1", {"a": "2e30"}]});
        assert_eq!(extra.to_string().replace("2e+30", "2e30"), expected.to_string());
    }

    /// Loss prevented: a payment that is late by a time zone, or a cursor that skips payments.
    #[test]
    fn times_are_read_with_their_offset() {
        let noon = Some(1_769_860_800_000_000);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31 12:00:00",
            "2026-01-31T12:00:00.000000+00:00",
            "2026-01-31T14:30:00+02:30",
            "2026-01-31T07:00:00.0-05:00",
        ] {
            assert_eq!(micros(text), noon, "{text}");
        }
        assert_eq!(micros("2026-01-31T12:00:00.5Z"), noon.map(|at| at + 500_000));
        assert_eq!(micros("2026-01-31T12:00:00.1234567Z"), noon.map(|at| at + 123_456));
        for wrong in [
            "",
            "2026-13-01T00:00:00Z",
            "2026-01-31",
            "2026-01-31T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-31T12:00:00+",
        ] {
            assert_eq!(micros(wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Loss prevented: a day of the calendar on which payments are read as of another day.
        #[test]
        fn every_day_reads_back(at in 0u64..250_000_000_000) {
            prop_assert_eq!(micros(&Unix(at).to_iso()), Some(at * 1_000_000));
        }
    }
}
