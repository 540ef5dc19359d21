//! A name for each reason, for programs: it stays, whatever the words become. docs/operations.md lists
//! them all, and a test holds the list.

use super::FleetError;
use crate::signer::policy::PolicyError;
use crate::signer::provision::ProvisionError;
use crate::signer::{SetupError, SignerError};

/// A bunker that lies is called that, whatever was being set up.
fn of_setup(error: &SetupError) -> &'static str {
    match error.downcast_ref() {
        Some(
            ProvisionError::Signer(error) | ProvisionError::Policy(PolicyError::Signer(error)),
        ) if error.is_lie() => error.code(),
        _ => "bunker_setup",
    }
}

impl FleetError {
    /// The name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMachine(_) => "no_machine",
            Self::NoOperator(_) => "no_operator",
            Self::Invalid { .. } => "invalid",
            Self::OverCap { .. } | Self::Breaches(_) => "over_cap",
            Self::Document(_) => "document",
            Self::Unpublishable { .. } => "unpublishable",
            Self::NotPublished(_) => "not_published",
            Self::KeyTaken { .. } => "key_taken",
            Self::WalletTaken(_) => "wallet_taken",
            Self::State { .. } => "wrong_state",
            Self::Busy(_) => "busy",
            Self::NoIdentity => "no_identity",
            Self::HasIdentity { .. } => "has_identity",
            Self::Bunker { source, .. } => source.code(),
            Self::Policy(_) => "bunker_policy",
            Self::Setup(error) => of_setup(error),
            Self::Relay { .. } => "relay",
            Self::Seed(_) => "seed",
            Self::WrongDigits => "wrong_digits",
            Self::Secret(_) => "secret",
            Self::LocalKeyGone(_) => "local_key_gone",
            Self::CutOff => "cut_off",
            Self::Store(_) => "store",
        }
    }
}

impl SignerError {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured => "no_bunker",
            Self::NotSent { .. } => "bunker_not_reached",
            Self::NoReply { .. } => "bunker_no_reply",
            Self::Refused { .. } => "bunker_refused",
            Self::TokenHidden { .. } => "bunker_token_hidden",
            Self::Lied { .. } | Self::Unexpected { .. } => "bunker_lied",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Loss prevented: a script of an operator that waits for a reason which has another name since
    /// the last update, or a reason that nobody can look up.
    #[test]
    fn every_code_of_the_api_is_in_the_manual_and_stays() {
        let manual = include_str!("../../../docs/operations.md");
        let (_, table) = manual.split_once("| the API's code | why | what to do |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let listed: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
        let (program, _) = include_str!("codes.rs").split_once("#[cfg(test)]").unwrap();
        // names are all that stands in quotes here
        let named: BTreeSet<&str> = program
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .collect();
        assert!(named.len() > 20, "{named:?}");
        assert_eq!(listed, Vec::from_iter(named), "in order, each once");
    }
}
