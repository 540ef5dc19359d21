//! From counted notes to sats.

use bitspire_shared::ids::{ClaimCode, RequestId, WithdrawId};
use bitspire_shared::rpc::{Doubt, PaymentState};
use bitspire_shared::statement::VerdictKind;

use super::{CashIn, Fate, Owed, State, Taken};
use crate::journal::CashMove;
use crate::txn::checked::{CheckedWithdraw, WithdrawFacts};
use crate::txn::effect::Alert;
use crate::txn::input::Verdict;
use crate::txn::turn::Turn;

impl CashIn {
    pub(super) fn offered(
        &mut self,
        request: RequestId,
        checked: &CheckedWithdraw,
        turn: &mut Turn,
    ) -> Taken {
        let asked = self.live.asking.sent(request).is_some();
        let (State::Offered { withdraw }, true) =
            (&mut self.state, asked && checked.txid == self.deal.txid)
        else {
            return Taken::Ignored;
        };
        match withdraw {
            None => *withdraw = Some(checked.facts),
            Some(known) if *known == checked.facts => {}
            Some(_) => {
                turn.alert(Alert::WithdrawChanged);
                self.live.again = false;
                return Taken::Done;
            }
        }
        self.live.asking.answered(request);
        self.live.again = false;
        self.live.lnurl = Some(checked.lnurl.clone());
        self.live.ndebit.clone_from(&checked.ndebit);
        Taken::Done
    }

    pub(super) fn claimed(&mut self, id: WithdrawId) -> Taken {
        match self.state {
            State::Offered { withdraw: Some(withdraw) } | State::PayUnknown { withdraw }
                if withdraw.withdraw_id == id =>
            {
                self.state = State::Claimed { withdraw };
                Taken::Done
            }
            _ => Taken::Ignored,
        }
    }

    /// The withdraw, while it may still be paid.
    fn live_withdraw(&self) -> Option<WithdrawFacts> {
        match &self.state {
            State::Offered { withdraw } => *withdraw,
            State::Claimed { withdraw } | State::PayUnknown { withdraw } => Some(*withdraw),
            _ => None,
        }
    }

    pub(super) fn paid(&mut self, id: WithdrawId) -> Taken {
        match self.live_withdraw() {
            Some(withdraw) if withdraw.withdraw_id == id => {
                self.state = State::Redeemed { withdraw };
                Taken::Done
            }
            _ => Taken::Ignored,
        }
    }

    pub(super) fn payment(&mut self, request: RequestId, said: PaymentState) -> Taken {
        let (Some(withdraw), true) =
            (self.live_withdraw(), self.live.asking.sent(request).is_some())
        else {
            return Taken::Ignored;
        };
        self.live.asking.answered(request);
        match said {
            PaymentState::Settled => self.state = State::Redeemed { withdraw },
            PaymentState::Unknown => self.state = State::PayUnknown { withdraw },
            // a good end for the machine: what is owed is paid through the claim code
            PaymentState::Failed | PaymentState::Expired => self.owe(),
            PaymentState::Pending => {
                if matches!(self.state, State::PayUnknown { .. }) {
                    self.state = State::Claimed { withdraw };
                }
            }
            PaymentState::Late => {}
        }
        Taken::Done
    }

    fn owe(&mut self) {
        let net_sats = self.live_withdraw().map(|withdraw| withdraw.net_sats);
        self.state = State::Expired { owed: Owed { minor: self.total().minor, net_sats } };
    }

    pub(super) fn claim_entered(&mut self, code: &ClaimCode) -> Taken {
        if !matches!(self.state, State::Offered { .. }) || !self.deal.claims(code) {
            return Taken::Ignored;
        }
        self.live.watched = true;
        self.live.code = Some(code.clone());
        self.live.again = self.live.lnurl.is_none();
        Taken::Done
    }

    /// What a person is asked to decide.
    #[must_use]
    pub fn in_doubt(&self) -> Option<Doubt> {
        let State::Uncertain { evidence, .. } = &self.state else { return None };
        let unknown = self.worth(|note| matches!(note.fate, Fate::Unknown { .. })).minor;
        let evidence = evidence.clone();
        Some(Doubt { rest_minor: unknown, unknown_minor: unknown, evidence })
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict, turn: &mut Turn) -> Taken {
        if verdict.txid != self.deal.txid {
            return Taken::Ignored;
        }
        turn.uses(verdict);
        let all = verdict.amount_minor == self.total().minor;
        match (&self.state, verdict.kind) {
            (State::Uncertain { .. }, VerdictKind::Owed) => {
                return self.credit_unknown(verdict, turn);
            }
            (State::Uncertain { .. }, VerdictKind::Settled) => self.drop_unknown(turn),
            (
                State::Offered { .. } | State::Claimed { .. } | State::PayUnknown { .. },
                VerdictKind::Owed,
            ) if all => self.owe(),
            (_, VerdictKind::Settled) => match self.live_withdraw() {
                Some(withdraw) => self.state = State::Redeemed { withdraw },
                None => return Taken::Ignored,
            },
            _ => return Taken::Ignored,
        }
        Taken::Done
    }

    /// The notes in doubt are ours: they count, at the rate of the last lock where they have none.
    fn credit_unknown(&mut self, verdict: &Verdict, turn: &mut Turn) -> Taken {
        let unknown = self.worth(|note| matches!(note.fate, Fate::Unknown { .. })).minor;
        let last = self.locks.last().map(|lock| lock.quote_id);
        if last.is_none() || unknown == 0 || unknown != verdict.amount_minor {
            return Taken::Ignored;
        }
        for note in &mut self.notes {
            let Fate::Unknown { open } = note.fate else { continue };
            let Some(denomination) = note.denomination else { return Taken::Ignored };
            if open {
                turn.resolves = Some(note.no);
            }
            note.lock = note.lock.or(last);
            note.fate = Fate::Credited { heard: true };
            turn.cash.push(CashMove::Stacked { denomination, clears: true });
        }
        self.state = State::Credited;
        self.settle();
        Taken::Done
    }

    /// Nothing is owed for the notes in doubt. Whoever said so saw no note in the cashbox; one that
    /// still is in the device may get there when it has power again, so the heap stays in doubt until
    /// somebody empties it and counts.
    fn drop_unknown(&mut self, turn: &mut Turn) {
        for note in &mut self.notes {
            let Fate::Unknown { open } = note.fate else { continue };
            if open {
                turn.resolves = Some(note.no);
            }
            note.fate = Fate::NotOurs;
        }
        self.state = State::Open;
        self.settle();
    }
}
