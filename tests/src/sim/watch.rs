//! What the world sees of the devices: what they were told, what moved, what they do after a death.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::ids::{JournalSeq, TxnId};
use serde_json::{Value, json};

use super::faults::{Fault, Which};
use super::one::Answer;
use super::world::{Told, World};

/// Stands for the tests of the dispenser, whose notes are nobody's.
pub(super) const TRIAL: TxnId = TxnId::from_bytes([0; 16]);

impl World {
    pub(super) fn told_to_dispense(&mut self, seq: JournalSeq, plan: &DispensePlan) {
        self.trace.line(self.now, || format!("told to dispense {plan:?}"));
        // a test has no transaction of the kind that tells its effects
        let trial = std::mem::take(&mut self.testing) && self.intent_of.is_none();
        let Some(txid) = self.intent_of.take().or(trial.then_some(TRIAL)) else {
            self.broken.push(format!("B3: a plan of entry {} with no intent", seq.0));
            return;
        };
        if self.told.iter().any(|told| told.seq == seq) {
            self.broken.push(format!("B3: intent {} was told twice", seq.0));
        }
        if trial {
            let before = self.delivered();
            self.answer_owed = true;
            self.told.push(Told { seq, txid, at: self.now, before });
            return;
        }
        if !self.touched.contains(&txid) && !self.operator.resumed.contains(&txid) {
            self.broken.push(format!("B6: {txid} is dispensed though nobody came for it"));
        }
        let paid =
            self.service.bills.values().any(|bill| bill.terms.txid == txid && bill.settled());
        if !paid {
            self.broken.push(format!("S5: {txid} is dispensed and was not paid"));
        }
        let before = self.delivered();
        self.answer_owed = true;
        self.told.push(Told { seq, txid, at: self.now, before });
    }

    /// Notes of each bay at the exit or taken.
    pub(super) fn delivered(&self) -> BTreeMap<u8, u64> {
        self.bays(|bay| bay["exit"].as_u64().unwrap_or(0) + bay["taken"].as_u64().unwrap_or(0))
    }

    pub(super) fn bays(&self, count: impl Fn(&Value) -> u64) -> BTreeMap<u8, u64> {
        let counters = self.dispenser.counters();
        let bays = counters["bays"].as_array().cloned().unwrap_or_default();
        let number = |bay: &Value| bay["bay"].as_u64().and_then(|n| u8::try_from(n).ok());
        bays.iter().map(|bay| (number(bay).unwrap_or(0), count(bay))).collect()
    }

    /// How long no vault runs, and what the devices do meanwhile.
    pub(super) fn outage(&mut self) -> u64 {
        if self.crowd.script.is_none() {
            return self.between(100, 10_000);
        }
        let counters = self.acceptor.counters();
        let state = self.acceptor.act(&json!({ "action": "state" }), self.now);
        let state = state.ok().and_then(|state| state["status"].as_str().map(str::to_owned));
        let rests = state.is_some_and(|s| ["IDLING", "DISABLE"].iter().any(|r| s.contains(r)));
        self.device_played =
            self.answer_owed || !rests || counters["in_path"].as_u64().unwrap_or(0) > 0;
        self.answer_owed = false;
        match self.device_after {
            Answer::Truthful => {}
            Answer::Silent => {
                for which in [Which::Acceptor, Which::Dispenser] {
                    self.goes_wrong(Fault::CutCable(which));
                }
            }
            Answer::Reset => {
                for fault in [Fault::Forgets, Fault::Power(Which::Dispenser)] {
                    self.goes_wrong(fault);
                    self.put_right(fault);
                }
            }
            Answer::Old => {
                // less than a whole frame of the one, a whole reply of the other
                self.acceptor.keep_old_bytes(4);
                self.dispenser.keep_old_bytes(200);
            }
        }
        500
    }

    /// Bytes that the cables have dropped, doubled, changed or held back.
    pub(super) fn cable_faults(&self) -> u64 {
        let all = [self.acceptor.counters(), self.dispenser.counters()];
        let ways = ["to_device", "to_host"];
        let kinds = ["dropped", "duplicated", "corrupted", "delayed", "cut_off"];
        let of = |counters: &Value| {
            let cable = &counters["cable"];
            let way =
                |way: &str| kinds.iter().filter_map(|kind| cable[way][*kind].as_u64()).sum::<u64>();
            ways.iter().map(|name| way(name)).sum::<u64>()
        };
        all.iter().map(of).sum()
    }
}
