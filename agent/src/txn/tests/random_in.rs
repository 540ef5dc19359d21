//! Random cash-ins over a real journal and an acceptor that knows the truth.

use std::collections::VecDeque;

use bitspire_shared::rpc::{ErrorCode, PaymentState};
use proptest::prelude::*;

use super::ledger::Ledger;
use super::*;
use crate::txn::cash_in::{Fate, State};

#[derive(Clone, Debug)]
enum Op {
    /// A note is fed.
    Feed(u8),
    /// The acceptor says the next thing that it has to say.
    Device,
    /// The service answers, in one of several ways.
    Serve(u8),
    /// Time goes by, in seconds.
    Wait(u16),
    /// Power cut; the acceptor knows where the bill is, or not.
    Crash(bool),
    /// The acceptor says its last credit again.
    Repeat,
    Say(u8),
    /// Somebody who has counted decides.
    Verdict,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => any::<u8>().prop_map(Op::Feed),
        12 => Just(Op::Device),
        5 => any::<u8>().prop_map(Op::Serve),
        2 => (0u16..70).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Crash),
        1 => Just(Op::Repeat),
        1 => any::<u8>().prop_map(Op::Say),
        1 => Just(Op::Verdict),
    ]
}

struct World {
    ledger: Ledger,
    txn: CashIn,
    ms: u64,
    serial: u32,
    /// What really lies in the cashbox, in minor units.
    truth: i64,
    /// The last bill that was told to stack, and whether it was.
    last: Option<(Denomination, bool)>,
    says: VecDeque<Input>,
    in_escrow: bool,
    stacks: usize,
}

impl World {
    fn new() -> Self {
        let takes = BTreeSet::from([note(1_000), note(2_000), note(5_000)]);
        let (txn, effects) = CashIn::start(order(20_000), takes, at(0));
        let (ms, serial, truth, last, stacks) = (0, 0, 0, None, 0);
        let (says, in_escrow, ledger) = (VecDeque::new(), false, Ledger::new(&[]));
        let mut world =
            Self { ledger, txn: txn.clone(), ms, serial, truth, last, says, in_escrow, stacks };
        world.perform(txn, &effects, 0);
        world
    }

    fn say(&mut self, input: Input, choice: u8) {
        let restart = matches!(input, Input::Restarted(_));
        let before = self.txn.clone();
        let (txn, effects) = before.clone().step(input, at(self.ms));
        self.txn = txn;
        assert!(!(restart && moves(&effects)), "stacked on a restart");
        self.perform(before, &effects, choice);
    }

    fn perform(&mut self, before: CashIn, effects: &[Effect], choice: u8) {
        let (before, after) = (Txn::CashIn(before), Txn::CashIn(self.txn.clone()));
        self.ledger.perform(&before, &after, effects);
        for effect in effects {
            match effect {
                Effect::Stack { bill, .. } => {
                    self.stacks += 1;
                    self.stack(*bill, choice);
                }
                Effect::ReturnBill if self.in_escrow => {
                    self.in_escrow = false;
                    self.says.push_back(Input::Returned);
                }
                _ => {}
            }
        }
        self.check();
    }

    /// The acceptor does something, whatever it will say about it.
    fn stack(&mut self, bill: EscrowedBill, choice: u8) {
        self.in_escrow = false;
        let (denomination, stacked) = (bill.denomination, choice % 6 != 1);
        self.last = Some((denomination, stacked));
        if stacked {
            self.truth += i64::from(denomination.minor());
        }
        let credit = Input::Credit { escrowed: Some(bill), denomination: Some(denomination) };
        match choice % 6 {
            1 => self.says.push_back(Input::Returned),
            2 => {}
            3 => self.says.push_back(credit),
            4 => self.says.extend([Input::Stacked, credit]),
            _ => self.says.extend([credit, Input::Stacked]),
        }
    }

    fn check(&self) {
        let notes = self.txn.notes();
        let credited = notes.iter().filter(|note| matches!(note.fate, Fate::Credited { .. }));
        assert!(credited.count() <= self.stacks, "more credits than bills");
        assert!(self.txn.total().minor <= 20_000, "more than the lock");
        // a bill on its way may lie in the cashbox already: never the other way round
        assert!(self.txn.total().minor <= self.truth, "credited what is not there: {:?}", self.txn);
        let (total, stage) = (self.txn.total().minor, self.txn.state().stage());
        if stage != Stage::Open {
            assert_eq!(total, self.truth, "{:?}", self.txn);
        }
        if let State::Expired { owed } = self.txn.state() {
            assert_eq!(owed.minor, self.truth);
        }
    }

    fn verdict(&mut self) {
        if !matches!(self.txn.state(), State::Uncertain { .. }) {
            return;
        }
        let missing = self.truth - self.txn.total().minor;
        let kind = if missing == 0 { VerdictKind::Settled } else { VerdictKind::Owed };
        let verdict = self.ledger.verdict(kind, missing);
        self.says.clear();
        self.say(Input::Verdict(verdict), 0);
    }

    fn serve(&mut self, choice: u8) {
        let Some(Request { id: request, ask }) = self.ledger.waiting.clone() else { return };
        let id = WithdrawId::from_bytes([5; 16]);
        let input = match (ask, choice % 8) {
            (_, 0) => Input::Refused { request, code: ErrorCode::Internal },
            (Ask::GetQuote(ask), _) => {
                Input::Quote { request, quote: quote(Direction::CashIn, ask.fiat_minor, choice) }
            }
            (Ask::CreateWithdraw(draft), _) => {
                let lots = draft.earlier.iter().map(|lot| &lot.notes).chain([&draft.notes]);
                let value: i64 = lots.map(|n| bitspire_shared::rpc::notes_value(n).unwrap()).sum();
                assert_eq!(value, self.truth, "a withdraw for other notes");
                Input::Withdraw { request, withdraw: withdraw(1_000) }
            }
            (Ask::GetPayment(_), 1) => Input::WithdrawPaid(id),
            (Ask::GetPayment(_), 2) => Input::WithdrawClaimed(id),
            (Ask::GetPayment(_), 3) => {
                Input::Payment { request, state: PaymentState::Unknown, wire_sats: None }
            }
            (Ask::GetPayment(_), 4) => {
                Input::Payment { request, state: PaymentState::Expired, wire_sats: None }
            }
            (Ask::GetPayment(_), _) => {
                Input::Payment { request, state: PaymentState::Pending, wire_sats: None }
            }
            (other, _) => panic!("a cash-in asks for no {}", other.rpc()),
        };
        self.say(input, 0);
    }

    fn crash(&mut self, knows: bool) {
        let open = matches!(self.txn.state(), State::StackCommitted { .. });
        self.ledger.restart();
        let Txn::CashIn(txn) = self.ledger.reread() else { panic!("another direction") };
        self.txn = txn;
        self.says.clear();
        self.in_escrow = false;
        let bill = match self.last {
            Some((_, true)) if knows && open => BillFate::InStacker,
            Some((_, false)) if knows && open => BillFate::InAcceptor,
            _ => BillFate::Unknown,
        };
        self.say(Input::Restarted(DeviceReport { bill, dispense: DispenseFate::Unknown }), 0);
        if let (BillFate::InStacker, Some((denomination, _))) = (bill, self.last) {
            let denomination = Some(denomination);
            self.says.push_back(Input::Credit { escrowed: None, denomination });
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Feed(choice) => {
                // the device has one bill in its path at a time
                if self.in_escrow || !self.says.is_empty() {
                    return;
                }
                self.serial += 1;
                self.in_escrow = true;
                let value = [1_000, 2_000, 5_000][usize::from(choice / 6 % 3)];
                let input = Input::Escrowed {
                    bill: bill(self.serial, value),
                    allowed: !choice.is_multiple_of(7),
                };
                self.say(input, *choice);
            }
            Op::Device => {
                if let Some(input) = self.says.pop_front() {
                    self.say(input, 0);
                }
            }
            Op::Serve(choice) => self.serve(*choice),
            Op::Wait(seconds) => {
                self.ms += u64::from(*seconds) * 1_000;
                self.say(Input::Tick, 0);
            }
            Op::Crash(knows) => self.crash(*knows),
            Op::Repeat => {
                // the device has nothing else to say, so this is the same bill again
                let same = self.says.is_empty() && matches!(self.txn.state(), State::Credited);
                if let (true, Some((denomination, true))) = (same, self.last) {
                    let denomination = Some(denomination);
                    self.say(Input::Credit { escrowed: None, denomination }, 0);
                }
            }
            Op::Say(choice) => {
                let inputs = [
                    Input::Finish,
                    Input::Cancel,
                    Input::NetworkLost,
                    Input::NetworkBack,
                    Input::ScreenBroken,
                    Input::AcceptorFault { detail: "jam".into() },
                    Input::ClaimEntered(code()),
                    Input::Accept,
                    Input::Taken,
                    Input::Planned(None),
                ];
                self.say(inputs[usize::from(*choice) % inputs.len()].clone(), 0);
            }
            Op::Verdict => self.verdict(),
        }
    }

    /// Faults have stopped: it comes to rest.
    fn rest(&mut self) {
        for _ in 0..60 {
            if self.txn.state().stage() == Stage::Closed {
                return;
            }
            while let Some(input) = self.says.pop_front() {
                self.say(input, 0);
            }
            self.ms += 20 * 60_000;
            self.say(Input::Tick, 0);
            self.verdict();
            self.serve(1);
        }
        panic!("does not come to rest: {:?}", self.txn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Loss prevented: any order of notes, answers, faults, power cuts and verdicts in which a
    /// note counts twice or not at all, is taken without a record, or is paid for as another.
    #[test]
    fn a_cash_in_pays_for_what_lies_in_the_cashbox(
        ops in proptest::collection::vec(op(), 0..90),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.rest();
        prop_assert_eq!(world.txn.total().minor, world.truth);
        let held = world.ledger.holdings();
        let counted: i64 = held
            .cashbox
            .iter()
            .map(|(value, heap)| i64::from(value.minor()) * heap.count)
            .sum();
        prop_assert_eq!(counted, world.truth, "the books of the cashbox");
        for (value, heap) in &held.cashbox {
            // what a person has said is not there may yet get there: in doubt until it is counted
            let dropped = world.txn.notes().iter().filter(|note| {
                note.denomination == Some(*value) && matches!(note.fate, Fate::NotOurs)
            });
            let dropped = i64::try_from(dropped.count()).unwrap();
            prop_assert!((0..=dropped).contains(&heap.doubts), "{:?}", heap);
        }
        world.ledger.verify();
    }
}
