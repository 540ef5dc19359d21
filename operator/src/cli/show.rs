//! Answers as people read them: tables for lists, one line a field for single things.

use std::fmt::Write as _;

use serde_json::Value;

/// One value on one line; control characters are spaces, so that no name from elsewhere can write
/// on the terminal.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A table of `rows`: heading and JSON field of each column.
pub(super) fn table(rows: &Value, columns: &[(&str, &str)]) -> String {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    let mut lines: Vec<Vec<String>> =
        vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    for row in rows {
        lines.push(columns.iter().map(|(_, field)| cell(&row[*field])).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|n| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    if rows.is_empty() {
        text.push_str("(none)\n");
    }
    text
}

/// One line for each field of an object; objects and lists inside are indented.
pub(super) fn fields(value: &Value) -> String {
    let mut text = String::new();
    write_fields(value, 0, &mut text);
    text
}

fn write_fields(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(map) = value else {
        let _ = writeln!(text, "{:depth$}{}", "", cell(value));
        return;
    };
    let width = map.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in map {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(text, "{:depth$}{key}:", "");
                write_fields(value, depth + 2, text);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let _ = writeln!(text, "{:depth$}{key}:", "");
                for item in items {
                    write_fields(item, depth + 2, text);
                    text.push('\n');
                }
            }
            _ => {
                let _ = writeln!(text, "{:depth$}{key:width$}  {}", "", cell(value));
            }
        }
    }
}

/// An audit: one line a check, one a difference, one for each thing that waits.
pub(super) fn audit(audit: &Value) -> String {
    let rows = |field: &str| audit[field].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    for check in rows("checks") {
        let (looked_at, found) = (cell(&check["looked_at"]), cell(&check["found"]));
        let name = cell(&check["name"]);
        let _ = writeln!(text, "{name:12} {looked_at:>8} looked at, {found:>4} differ");
    }
    for one in rows("differences") {
        let (check, subject) = (cell(&one["check"]), cell(&one["subject"]));
        let (expected, found) = (cell(&one["expected"]), cell(&one["found"]));
        let _ = writeln!(text, "DIFFERS {check}: {subject}: expected {expected}; found {found}");
    }
    for one in rows("waiting") {
        let (check, subject) = (cell(&one["check"]), cell(&one["subject"]));
        let reason = cell(&one["reason"]);
        let _ = writeln!(text, "waits   {check}: {subject}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Loss prevented: a machine's name that clears the terminal and writes another table over it.
    #[test]
    fn names_from_elsewhere_stay_on_their_line() {
        let rows = json!([{"id": 1, "name": "bar\u{1b}[2J\nid 9"}, {"id": 12, "name": null}]);
        let table = table(&rows, &[("id", "id"), ("name", "name")]);
        assert_eq!(table, "id  name\n1   bar [2J id 9\n12  -\n");
    }

    /// Loss prevented: a difference that a person does not get to see, or one without its numbers.
    #[test]
    fn an_audit_is_told_line_by_line() {
        let told = audit(&json!({
            "ok": false,
            "checks": [{"name": "wallet", "looked_at": 12, "found": 1}],
            "differences": [{"check": "wallet", "subject": "balance of wallet till",
                "expected": "5 msat", "found": "4 msat"}],
            "waiting": [{"check": "dispense", "subject": "settlement ab", "reason": "paid"}],
        }));
        let lines = [
            "wallet             12 looked at,    1 differ",
            "DIFFERS wallet: balance of wallet till: expected 5 msat; found 4 msat",
            "waits   dispense: settlement ab: paid",
        ];
        assert_eq!(told, format!("{}\n", lines.join("\n")));
    }

    /// Loss prevented: a field of an answer that nobody gets to see.
    #[test]
    fn every_field_is_shown() {
        let value = json!({"a": 1, "steps": [{"step": "x", "ok": true}], "o": {"deep": [1, 2]}});
        let shown = fields(&value);
        for part in ["a      1", "step  x", "ok    true", "deep  [1,2]"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
