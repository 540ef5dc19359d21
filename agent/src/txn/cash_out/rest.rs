//! How a sale that stopped goes on, and how it ends.

use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{ClaimCode, RequestId};
use bitspire_shared::rpc::{DispenseOutcome, Doubt};
use bitspire_shared::statement::VerdictKind;

use super::state::worth;
use super::{Batch, CashOut, Given, Sale, State, Taken};
use crate::txn::deal::Now;
use crate::txn::effect::{Alert, ReportDraft};
use crate::txn::input::Verdict;
use crate::txn::turn::Turn;

impl CashOut {
    /// What was not given is owed: nothing moves any more.
    pub(super) fn owed(&mut self, sale: Sale, given: Given, turn: &mut Turn) {
        let owed_minor = given.rest(self.deal.fiat);
        turn.alert(Alert::Owed { owed_minor });
        self.state = State::ShortDispensed { sale, given, owed_minor, told: false };
    }

    pub(super) fn claim_entered(&mut self, code: &ClaimCode, now: Now, turn: &mut Turn) -> Taken {
        let State::PaidWaiting { sale, given } = self.state.clone() else { return Taken::Ignored };
        if !self.deal.claims(code) {
            return Taken::Ignored;
        }
        self.live.code = Some(code.clone());
        self.resume(sale, given, now, turn);
        Taken::Done
    }

    /// The customer has changed their mind: no note moves for this sale any more.
    pub(super) fn give_back(&mut self, code: &ClaimCode, turn: &mut Turn) -> Taken {
        let State::PaidWaiting { sale, given } = self.state.clone() else { return Taken::Ignored };
        if !self.deal.claims(code) {
            return Taken::Ignored;
        }
        self.live.code = Some(code.clone());
        self.live.watched = true;
        self.owed(sale, given, turn);
        Taken::Done
    }

    fn resume(&mut self, sale: Sale, mut given: Given, now: Now, turn: &mut Turn) {
        self.live.watched = true;
        self.live.present_at = Some(now.mono);
        given.fruitless = 0;
        self.give(sale, given, turn);
    }

    pub(super) fn verdict(&mut self, verdict: Verdict, now: Now, turn: &mut Turn) -> Taken {
        if verdict.txid != self.deal.txid {
            return Taken::Ignored;
        }
        turn.uses(&verdict);
        match self.state.clone() {
            State::PaidWaiting { sale, given } => {
                self.decide(verdict, sale, given, None, now, turn)
            }
            State::Uncertain { sale, given, batch, .. } => {
                self.decide(verdict, sale, given, Some(&batch), now, turn)
            }
            // paid, as the operator says, though the service's leave never came
            State::Invoiced { sale, .. }
                if verdict.kind == VerdictKind::Owed
                    && verdict.amount_minor == self.deal.fiat.minor =>
            {
                self.owed(sale, Given::default(), turn);
                Taken::Done
            }
            _ => Taken::Ignored,
        }
    }

    /// `doubt`: the intent of which nobody knows what it gave; the verdict says what is missing.
    fn decide(
        &mut self,
        verdict: Verdict,
        sale: Sale,
        mut given: Given,
        doubt: Option<&Batch>,
        now: Now,
        turn: &mut Turn,
    ) -> Taken {
        let rest = given.rest(self.deal.fiat);
        let missing = verdict.amount_minor;
        let possible =
            if doubt.is_some() { missing > 0 && missing <= rest } else { missing == rest };
        if doubt.is_some() || verdict.kind == VerdictKind::Settled {
            let missing = if verdict.kind == VerdictKind::Settled { 0 } else { missing };
            let has = rest.saturating_sub(missing);
            match doubt {
                Some(batch) => self.allot(&mut given, batch, has, turn),
                None => given.by_verdict = given.by_verdict.saturating_add(has),
            }
        }
        match verdict.kind {
            VerdictKind::Settled => self.state = State::Settled { sale, given, told: false },
            VerdictKind::Owed if possible => self.owed(sale, given, turn),
            VerdictKind::DispenseRest if possible => self.resume(sale, given, now, turn),
            VerdictKind::Resume if doubt.is_none() => self.resume(sale, given, now, turn),
            _ => return Taken::Ignored,
        }
        turn.resolves = doubt.map(|batch| batch.no);
        Taken::Done
    }

    /// Books the notes in doubt of which the customer has `has` by the verdict. Where that leaves
    /// open which bay they came from, the doubt about the bays stays until somebody counts.
    fn allot(&mut self, given: &mut Given, batch: &Batch, has: i64, turn: &mut Turn) {
        let mut counted = 0;
        match batch.allotted(has) {
            Some((bays, value)) => {
                given.add(&bays, value);
                self.book(batch, &bays, true, turn);
                // what the customer has is the operator's word; what else left the bay is nobody's
                for (bay, result) in &bays {
                    turn.unsure(*bay, &BayResult { picked: None, ..*result });
                }
                counted = value;
            }
            None => given.bays = given.doubted(batch),
        }
        given.by_verdict = given.by_verdict.saturating_add(has.saturating_sub(counted));
    }

    /// What a person is asked to decide.
    #[must_use]
    pub fn in_doubt(&self) -> Option<Doubt> {
        let (given, unknown_minor, evidence) = match &self.state {
            State::Uncertain { given, batch, evidence, .. } => {
                (given, worth(&batch.lots).unwrap_or(i64::MAX), evidence.clone())
            }
            State::PaidWaiting { given, .. } => {
                (given, 0, "paid; nobody was seen at the machine since".to_owned())
            }
            State::Invoiced { .. } if self.live.paid_without_leave => {
                let evidence = "paid, and the service gives no leave".to_owned();
                return Some(Doubt {
                    rest_minor: self.deal.fiat.minor,
                    unknown_minor: 0,
                    evidence,
                });
            }
            _ => return None,
        };
        Some(Doubt { rest_minor: given.rest(self.deal.fiat), unknown_minor, evidence })
    }

    pub(super) fn reported(&mut self, request: RequestId) -> Taken {
        if self.report().is_none() || self.live.asking.sent(request).is_none() {
            return Taken::Ignored;
        }
        if let State::Settled { told, .. }
        | State::ShortDispensed { told, .. }
        | State::Uncertain { told, .. } = &mut self.state
        {
            *told = true;
        }
        self.live.asking.answered(request);
        Taken::Done
    }

    /// The report that the service does not have yet, with its label.
    pub(super) fn report(&self) -> Option<(String, ReportDraft)> {
        let mut bays = self.state.given().map(|given| given.bays.clone()).unwrap_or_default();
        let (label, sale, outcome, owed_minor) = match &self.state {
            State::Settled { sale, told: false, .. } => {
                ("report:end".to_owned(), sale, DispenseOutcome::Full, 0)
            }
            State::ShortDispensed { sale, given, owed_minor, told: false } => {
                let nothing = given.minor == 0 && given.by_verdict == 0;
                let outcome =
                    if nothing { DispenseOutcome::None } else { DispenseOutcome::Partial };
                ("report:end".to_owned(), sale, outcome, *owed_minor)
            }
            State::Uncertain { sale, given, batch, told: false, .. } => {
                let label = format!("report:{}", batch.no);
                bays = given.doubted(batch);
                (label, sale, DispenseOutcome::Uncertain, given.rest(self.deal.fiat))
            }
            _ => return None,
        };
        let report = ReportDraft {
            txid: self.deal.txid,
            payment_hash: sale.payment_hash,
            outcome,
            bays,
            owed_minor,
        };
        Some((label, report))
    }
}
