//! Why there is no pairing: words for people, and a name for programs.
//!
//! Promise: each reason has one name, which stays whatever its words become; docs/operations.md
//! lists them all, and a test holds the list. What comes over the socket under a name of another
//! form is no message.

use bitspire_shared::seed::SeedError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A reason with its name, as it crosses the socket and stands on the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The name of the reason.
    pub code: Code,
    /// What is wrong and what to do.
    pub words: String,
}

impl Refused {
    /// The reason `code` in words.
    #[must_use]
    pub fn new(code: &'static str, words: String) -> Self {
        Self { code: Code(code.to_owned()), words }
    }

    /// The words on one line for a terminal: they may come from a bunker or from `net`.
    pub(crate) fn line(&self) -> String {
        self.words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

impl From<&SeedError> for Refused {
    fn from(error: &SeedError) -> Self {
        Self::new(error.code(), in_words(error))
    }
}

/// As the command line prints it, on one line.
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code: Code(code), .. } = self;
        write!(f, "error[{code}]: not paired: {}", self.line())
    }
}

impl std::error::Error for Refused {}

/// The name of a reason: lower-case letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(String);

/// A text that names no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a code of at most {MAX} lower-case letters, digits and underscores")]
pub struct NoCode;

/// Longest name, in bytes.
const MAX: usize = 40;

impl Code {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Code {
    type Error = NoCode;
    fn try_from(text: String) -> Result<Self, NoCode> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let good = (1..=MAX).contains(&text.len()) && text.bytes().all(fits);
        if good { Ok(Self(text)) } else { Err(NoCode) }
    }
}

impl From<Code> for String {
    fn from(Code(text): Code) -> Self {
        text
    }
}

/// An error and its causes in one line.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Where reasons are named.
    const NAMED: [&str; 4] = [
        include_str!("../../shared/src/seed/codes.rs"),
        include_str!("../../shared/src/nip46/client/codes.rs"),
        include_str!("net/codes.rs"),
        include_str!("vault/seed.rs"),
    ];

    /// Each text in quotes that could be a name.
    fn names(program: &str) -> impl Iterator<Item = &str> {
        let parts = program.lines().filter(|line| !line.trim_start().starts_with("#["));
        parts
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|text| text.contains('_') && Code::try_from((*text).to_owned()).is_ok())
    }

    /// Loss prevented: a script of an operator that waits for a reason which has another name since
    /// the last update, or a reason that nobody can look up.
    #[test]
    fn every_code_is_in_the_manual_and_stays() {
        let manual = include_str!("../../docs/operations.md");
        let (_, table) = manual.split_once("| code | why | what to do |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let listed: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(listed, sorted, "in order, each once");
        let named: BTreeSet<&str> = NAMED.iter().flat_map(|program| names(program)).collect();
        assert_eq!(listed, Vec::from_iter(named));
    }

    /// Loss prevented: a `net` that was broken into writes onto the terminal of whoever pairs.
    #[test]
    fn a_code_is_a_plain_word() {
        for wrong in ["", "Seed", "a b", "\u{1b}[2J", &"x".repeat(41)] {
            assert_eq!(Code::try_from(wrong.to_owned()), Err(NoCode), "{wrong:?}");
        }
        let json = serde_json::json!({ "code": "seed expired", "words": "" });
        assert!(serde_json::from_value::<Refused>(json).is_err());
        let refused = Refused::new("seed_expired", "too\u{1b}[2Jlate".into());
        assert_eq!(refused.to_string(), "error[seed_expired]: not paired: too [2Jlate");
    }
}
