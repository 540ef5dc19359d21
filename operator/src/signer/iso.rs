//! Times as bunkers write them in their administration: ISO 8601 in UTC, as JavaScript does.

use bitspire_shared::time::Unix;

const DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Reads what [`Unix::to_iso`] and JavaScript's `toISOString` write, from 1970 to 9999; parts of a
/// second are cut off.
pub(crate) fn parse(text: &str) -> Option<Unix> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (year, month, day) = three(date, '-', [4, 2, 2])?;
    let (hour, minute, second) = three(time, ':', [2, 2, 2])?;
    let in_range = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - EPOCH;
    let parsed = Unix(days * DAY + hour * 3_600 + minute * 60 + second);
    // a day that the month does not have comes back as another one
    (parsed.to_iso().get(..10) == Some(date)).then_some(parsed)
}

fn three(text: &str, by: char, digits: [usize; 3]) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(by).zip(digits).map(|(part, digits)| {
        let plain = part.len() == digits && part.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    });
    let three = (parts.next()??, parts.next()??, parts.next()??);
    (text.split(by).count() == 3).then_some(three)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Loss prevented: a token that ends on another day than the operator was shown.
    #[test]
    fn known_times_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Unix(seconds).to_iso(), text);
            assert_eq!(parse(text), Some(Unix(seconds)));
        }
        assert_eq!(parse("2026-01-01T00:00:00.999Z"), Some(Unix(1_767_225_600)));
        for text in [
            "",
            "Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+01:00",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.xZ",
            "1969-12-31T23:59:59Z",
            "2026-01-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        /// Loss prevented: a time that changes on its way through a bunker.
        #[test]
        fn what_is_written_is_read_back(seconds in 0u64..250_000_000_000) {
            prop_assert_eq!(parse(&Unix(seconds).to_iso()), Some(Unix(seconds)));
        }

        /// Loss prevented: an odd answer of a bunker stops the service.
        #[test]
        fn no_text_panics(text in "\\PC*", digits in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z") {
            let _ = (parse(&text), parse(&digits));
        }
    }
}
