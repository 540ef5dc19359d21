//! A receipt in words, the same on screen, paper, page and terminal.

use crate::money::{Direction, Fiat, Sats};
use crate::receipt::{Outcome, Receipt, Reference};

/// One line of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub label: &'static str,
    /// What it says.
    pub value: String,
    /// Whether it is for checking rather than for reading: keys, hashes, ids.
    pub fine: bool,
}

fn line(label: &'static str, value: impl Into<String>) -> Line {
    Line { label, value: value.into(), fine: false }
}

fn fine(label: &'static str, value: impl ToString) -> Line {
    Line { label, value: value.to_string(), fine: true }
}

impl Receipt {
    /// What was done, as a heading.
    #[must_use]
    pub fn heading(&self) -> String {
        let amount = self.cash(self.fiat_minor);
        match self.direction {
            Direction::CashOut => format!("{amount} in notes for sats"),
            Direction::CashIn => format!("Sats for {amount} in notes"),
        }
    }

    /// How it stands, in a sentence.
    #[must_use]
    pub const fn standing(&self) -> &'static str {
        match (self.outcome, self.direction) {
            (Outcome::Done, Direction::CashOut) => "Paid, and all notes were given.",
            (Outcome::Done, Direction::CashIn) => "The notes were taken, and the sats were paid.",
            (Outcome::Owed, Direction::CashOut) => {
                "Paid, but not all notes were given: the rest is owed."
            }
            (Outcome::Owed, Direction::CashIn) => {
                "The notes were taken, and nobody fetched the sats in time: they are owed."
            }
            (Outcome::Uncertain, Direction::CashOut) => {
                "Paid. The machine cannot tell how many notes it gave: its operator decides."
            }
            (Outcome::Uncertain, Direction::CashIn) => {
                "The machine cannot tell whether it kept a note: its operator decides."
            }
            (Outcome::Late, _) => {
                "The payment came too late: no notes were given, it is owed back."
            }
            (Outcome::Waiting, Direction::CashOut) => "Paid. The notes wait for the claim code.",
            (Outcome::Waiting, Direction::CashIn) => "The notes were taken. The sats wait.",
            (Outcome::Unknown, _) => {
                "The notes were taken. The sats went out; whether they arrived is being found out."
            }
        }
    }

    /// Everything that it states, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = self.deal();
        let given = self.direction == Direction::CashOut;
        let notes = self.notes.iter().map(|(note, count)| {
            let value = self.cash(u64::from(note.minor()));
            format!("{count} x {value}")
        });
        let notes: Vec<_> = notes.collect();
        let notes = if notes.is_empty() { "none".to_owned() } else { notes.join(", ") };
        lines.push(line(if given { "Notes given" } else { "Notes taken" }, notes));
        if self.besides_minor > 0 {
            let words = "Delivered besides, as the operator decided";
            lines.push(line(words, self.cash(self.besides_minor).to_string()));
        }
        let owed = match self.outcome {
            Outcome::Uncertain => "Owed at most",
            Outcome::Waiting | Outcome::Unknown => "Waiting",
            Outcome::Done | Outcome::Owed | Outcome::Late => "Owed",
        };
        if self.owed_minor > 0 {
            lines.push(line(owed, self.cash(self.owed_minor).to_string()));
        }
        if let Some(Sats(sats)) = self.owed_sats {
            lines.push(line(owed, format!("{sats} sats")));
        }
        lines.push(line("Opened", self.opened_at.to_iso()));
        lines.push(line("Stands so since", self.ended_at.to_iso()));
        match &self.reference {
            Some(Reference::PaymentHash(hash)) => lines.push(fine("Payment hash", hash)),
            Some(Reference::WithdrawId(id)) => lines.push(fine("Withdraw", id)),
            None => {}
        }
        lines.push(fine("Transaction", self.txid));
        lines.push(fine("Journal entry", self.journal_seq.0));
        lines.push(fine("Journal head", self.journal_head));
        lines.push(fine("Machine", self.spire.npub()));
        lines.push(fine("Signed by its vault", self.vault));
        lines
    }

    /// Amount, rate and fees.
    fn deal(&self) -> Vec<Line> {
        let given = self.direction == Direction::CashOut;
        let amount = self.cash(self.fiat_minor).to_string();
        let mut lines = vec![line(if given { "Bought" } else { "Sold" }, amount)];
        let several = self.prices.len() > 1 || self.unpriced() > 0;
        for price in &self.prices {
            let rate = format!("{} sats per {}", price.rate.to_decimal(), self.currency);
            let part = match several {
                true => format!("{rate}, for {}", self.cash(price.fiat_minor)),
                false => rate,
            };
            lines.push(line("Rate", part));
        }
        if self.unpriced() > 0 {
            let rest = self.cash(self.unpriced());
            lines.push(line("Rate", format!("further ones, for {rest}")));
        }
        let sources = self.sources.iter().map(|one| format!("{} ({} s)", one.source, one.age_s));
        let sources: Vec<_> = sources.collect();
        let words = if sources.is_empty() { "not stated".to_owned() } else { sources.join(", ") };
        lines.push(line("Rate from (age)", words));
        lines.push(line("Market value", format!("{} sats", self.principal_sats)));
        lines.push(line("Fee, platform", format!("{} sats", self.platform_fee_sats)));
        lines.push(line("Fee, operator", format!("{} sats", self.operator_fee_sats)));
        if let Ok(wire) = self.wire_sats() {
            lines.push(line(
                if given { "Price" } else { "For the customer" },
                format!("{wire} sats"),
            ));
        }
        lines
    }

    /// Cash whose rate has no room on the receipt.
    fn unpriced(&self) -> u64 {
        let priced = self.prices.iter().fold(0u64, |sum, p| sum.saturating_add(p.fiat_minor));
        self.fiat_minor.saturating_sub(priced)
    }

    fn cash(&self, minor: u64) -> Fiat {
        Fiat::new(i64::try_from(minor).unwrap_or(i64::MAX), self.currency)
    }
}
