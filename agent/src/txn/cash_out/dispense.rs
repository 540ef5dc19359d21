//! Notes move.

use bitspire_hardware::dispenser::DispenseOutcome;
use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::money::Fiat;

use super::state::worth;
use super::{Batch, CashOut, Given, Sale, State, Taken};
use crate::journal::CashMove;
use crate::txn::deal::Now;
use crate::txn::effect::{Alert, Effect};
use crate::txn::input::{DispenseFate, Lots};
use crate::txn::turn::Turn;

/// Dispenses in a row that give nothing before the rest is owed.
const FRUITLESS: u32 = 2;

impl CashOut {
    /// Notes are to be chosen for what is still to be given.
    pub(super) fn give(&mut self, sale: Sale, given: Given, turn: &mut Turn) {
        let rest = Fiat { minor: given.rest(self.deal.fiat), ..self.deal.fiat };
        turn.effects.push(Effect::Plan { rest });
        self.state = State::Paid { sale, given, exit: false };
    }

    pub(super) fn planned(&mut self, lots: Option<Lots>, now: Now, turn: &mut Turn) -> Taken {
        let State::Paid { sale, given, exit: false } = self.state.clone() else {
            return Taken::Ignored;
        };
        let Some(lots) = lots else {
            self.owed(sale, given, turn);
            return Taken::Done;
        };
        let fits = worth(&lots).is_ok_and(|value| value > 0 && value <= given.rest(self.deal.fiat));
        if !fits || lots.values().any(|lot| lot.count == 0) {
            return Taken::Ignored;
        }
        if !self.fresh(now) {
            self.state = State::PaidWaiting { sale, given };
            return Taken::Done;
        }
        let no = given.intents.saturating_add(1);
        let given = Given { intents: no, ..given };
        let batch = Batch { no, lots };
        self.state = State::DispenseCommitted { sale, given, batch: batch.clone() };
        Taken::Dispense(batch)
    }

    pub(super) fn sent(&mut self, no: u32) -> Taken {
        match self.state.clone() {
            State::DispenseCommitted { sale, given, batch } if batch.no == no => {
                self.state = State::Dispensing { sale, given, batch };
                Taken::Done
            }
            _ => Taken::Ignored,
        }
    }

    pub(super) fn dispensed(
        &mut self,
        no: u32,
        outcome: DispenseOutcome,
        now: Now,
        turn: &mut Turn,
    ) -> Taken {
        let (sale, given, batch, doubted) = match self.state.clone() {
            State::DispenseCommitted { sale, given, batch }
            | State::Dispensing { sale, given, batch } => (sale, given, batch, false),
            State::Uncertain { sale, given, batch, .. } => (sale, given, batch, true),
            _ => return Taken::Ignored,
        };
        if batch.no != no {
            return Taken::Ignored;
        }
        match outcome {
            DispenseOutcome::Final { bays, fault } => {
                if let Some(fault) = fault {
                    turn.alert(Alert::DispenseFault { detail: fault.detail });
                }
                self.answered(sale, given, batch, bays, doubted, now, turn);
            }
            DispenseOutcome::NotStarted(fault) => {
                turn.alert(Alert::DispenseFault { detail: fault.detail });
                self.nothing_moved(sale, given, batch, doubted, now, turn);
            }
            DispenseOutcome::Unknowable { .. } if doubted => return Taken::Ignored,
            DispenseOutcome::Unknowable { last_seen } => {
                self.uncertain(sale, given, batch, last_seen, turn);
            }
        }
        Taken::Done
    }

    /// After a restart: what the dispenser knows about the open intent.
    pub(super) fn recovered(
        &mut self,
        sale: Sale,
        given: Given,
        batch: Batch,
        fate: DispenseFate,
        now: Now,
        turn: &mut Turn,
    ) {
        match fate {
            DispenseFate::NothingMoved => {
                self.nothing_moved(sale, given, batch, false, now, turn);
            }
            DispenseFate::Final(bays) => {
                self.answered(sale, given, batch, bays, false, now, turn);
            }
            DispenseFate::Unknown => {
                let evidence = "restarted during a dispense, the device cannot tell".to_owned();
                self.uncertain(sale, given, batch, evidence, turn);
            }
        }
    }

    /// After a restart: whether the dispenser knows by now.
    pub(super) fn explained(&mut self, fate: DispenseFate, now: Now, turn: &mut Turn) {
        let State::Uncertain { sale, given, batch, .. } = self.state.clone() else { return };
        match fate {
            DispenseFate::NothingMoved => self.nothing_moved(sale, given, batch, true, now, turn),
            DispenseFate::Final(bays) => {
                self.answered(sale, given, batch, bays, true, now, turn);
            }
            DispenseFate::Unknown => {}
        }
    }

    /// The device's own final counts. `doubted`: they come after nobody knew.
    #[expect(clippy::too_many_arguments, reason = "the parts of one state and of one answer")]
    fn answered(
        &mut self,
        sale: Sale,
        mut given: Given,
        batch: Batch,
        bays: BayResults,
        doubted: bool,
        now: Now,
        turn: &mut Turn,
    ) {
        let Some(value) = batch.value(&bays) else {
            if !doubted {
                let evidence = format!("the dispenser's answer is not about the plan: {bays:?}");
                self.uncertain(sale, given, batch, evidence, turn);
            }
            return;
        };
        given.add(&bays, value);
        self.book(&batch, &bays, doubted, turn);
        for (bay, result) in bays.iter().filter(|(bay, _)| batch.lots.contains_key(bay)) {
            turn.unsure(*bay, result);
        }
        self.go_on(sale, given, value > 0, now, turn);
    }

    fn nothing_moved(
        &mut self,
        sale: Sale,
        mut given: Given,
        batch: Batch,
        doubted: bool,
        now: Now,
        turn: &mut Turn,
    ) {
        given.add(&BayResults::new(), 0);
        let nothing = |count| BayResult {
            requested: count,
            picked: Some(0),
            presented: 0,
            taken: Some(0),
            retracted: Some(0),
            rejected: Some(0),
        };
        let bays = batch.lots.iter().map(|(bay, lot)| (*bay, nothing(lot.count))).collect();
        self.book(&batch, &bays, doubted, turn);
        self.go_on(sale, given, false, now, turn);
    }

    pub(super) fn book(&mut self, batch: &Batch, bays: &BayResults, clears: bool, turn: &mut Turn) {
        self.paper.gave(batch, bays);
        turn.resolves = Some(batch.no);
        for (bay, lot) in &batch.lots {
            if let Some(result) = bays.get(bay) {
                let (bay, denomination, result) = (*bay, lot.denomination, *result);
                turn.cash.push(CashMove::Dispensed { bay, denomination, result, clears });
            }
        }
    }

    /// After a final answer: done, the next notes, or waiting for the customer.
    fn go_on(&mut self, sale: Sale, given: Given, moved: bool, now: Now, turn: &mut Turn) {
        let promised = self.deal.fiat.minor;
        let over = given.minor.saturating_add(given.by_verdict).saturating_sub(promised);
        if over > 0 {
            turn.alert(Alert::Overpaid { by_minor: over });
        }
        if given.rest(self.deal.fiat) == 0 {
            self.state = State::Settled { sale, given, told: false };
        } else if given.fruitless >= FRUITLESS {
            self.owed(sale, given, turn);
        } else if moved && self.live.watched {
            self.state = State::Paid { sale, given, exit: true };
        } else if self.fresh(now) {
            self.give(sale, given, turn);
        } else {
            self.state = State::PaidWaiting { sale, given };
        }
    }

    pub(super) fn uncertain(
        &mut self,
        sale: Sale,
        given: Given,
        batch: Batch,
        evidence: String,
        turn: &mut Turn,
    ) {
        turn.cash.extend(batch.lots.keys().map(|bay| CashMove::Doubt { bay: *bay }));
        turn.alert(Alert::Uncertain { evidence: evidence.clone() });
        self.state = State::Uncertain { sale, given, batch, evidence, told: false };
    }

    /// What was still seen of a movement of which nobody knows: for the person who decides.
    pub(super) fn followed(&mut self, detail: &str) -> Taken {
        let State::Uncertain { evidence, .. } = &mut self.state else { return Taken::Ignored };
        if !evidence.contains(detail) {
            evidence.push_str("; ");
            evidence.push_str(detail);
        }
        Taken::Done
    }

    /// The exit is empty: the customer was here, the next notes may come.
    pub(super) fn taken(&mut self, now: Now, turn: &mut Turn) -> Taken {
        let State::Paid { sale, given, exit: true } = self.state.clone() else {
            return Taken::Ignored;
        };
        self.live.present_at = Some(now.mono);
        if self.fresh(now) {
            self.give(sale, given, turn);
        } else {
            self.state = State::PaidWaiting { sale, given };
        }
        Taken::Done
    }
}
