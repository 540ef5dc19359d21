//! Random cash-outs over a real journal and a dispenser that knows the truth.

use bitspire_hardware::dispenser::{DeviceFault, DispenseOutcome, FaultKind};
use bitspire_shared::rpc::PaymentState;
use proptest::prelude::*;

use super::ledger::Ledger;
use super::*;
use crate::txn::cash_out::State;

const PROMISED: i64 = 10_000;

#[derive(Clone, Debug)]
enum Op {
    /// The next thing that should happen, in one of several ways.
    Go(u8),
    /// Time goes by, in seconds.
    Wait(u16),
    /// Power cut; the dispenser knows its last command, or not.
    Crash(bool),
    ScreenBroken,
    Cancel,
    Pending,
    Answer(u8),
    NetworkLost,
    NetworkBack,
    Stray(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => any::<u8>().prop_map(Op::Go),
        3 => (0u16..40).prop_map(Op::Wait),
        1 => (40u16..1_000).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Crash),
        1 => Just(Op::ScreenBroken),
        1 => Just(Op::Cancel),
        2 => Just(Op::Pending),
        1 => any::<u8>().prop_map(Op::Answer),
        1 => Just(Op::NetworkLost),
        1 => Just(Op::NetworkBack),
        2 => any::<u8>().prop_map(Op::Stray),
    ]
}

/// A command that the dispenser was given, with what it really did.
struct Command {
    no: u32,
    bays: BayResults,
    began: bool,
    answers: bool,
    sent: bool,
}

struct World {
    ledger: Ledger,
    txn: CashOut,
    ms: u64,
    /// What the customer really holds, in minor units.
    truth: i64,
    paid: bool,
    watched: bool,
    present: u64,
    wants_plan: Option<i64>,
    command: Option<Command>,
    dispenses: u32,
    /// A person ended a doubt: the bay's count stays doubtful until it is counted.
    decided: bool,
}

impl World {
    fn new() -> Self {
        let ledger = Ledger::new(&[(1, 2_000), (2, 5_000)]);
        let (txn, effects) = CashOut::start(order(PROMISED), at(0));
        let (watched, present) = (true, 0);
        let (truth, paid, wants_plan, command, dispenses) = (0, false, None, None, 0);
        let (ms, decided) = (0, false);
        let mut world = Self {
            ledger,
            txn: txn.clone(),
            ms,
            truth,
            paid,
            watched,
            present,
            wants_plan,
            command,
            dispenses,
            decided,
        };
        world.perform(txn.clone(), &effects, 0);
        world
    }

    fn say(&mut self, input: Input, choice: u8) {
        if let Input::Verdict(verdict) = &input {
            assert!(self.ledger.fresh(verdict));
        }
        let restart = matches!(input, Input::Restarted(_));
        let before = self.txn.clone();
        let (txn, effects) = before.clone().step(input, at(self.ms));
        self.txn = txn;
        assert!(!(restart && moves(&effects)), "dispensed on a restart");
        self.perform(before, &effects, choice);
    }

    fn perform(&mut self, before: CashOut, effects: &[Effect], choice: u8) {
        let (before, after) = (Txn::CashOut(before), Txn::CashOut(self.txn.clone()));
        self.ledger.perform(&before, &after, effects);
        for effect in effects {
            match effect {
                Effect::Plan { rest } => self.wants_plan = Some(rest.minor),
                Effect::Dispense { no, plan, .. } => {
                    let there = self.ms - self.present <= Rules::default().presence_ms;
                    assert!(self.paid && self.watched && there, "nobody is there: {:?}", self.txn);
                    assert!(self.command.is_none(), "two commands at once");
                    self.dispenses += 1;
                    assert_eq!(*no, self.dispenses, "an intent used twice");
                    self.dispense(*no, &plan.notes, choice);
                }
                _ => {}
            }
        }
        self.check();
    }

    /// The dispenser does something, whatever it will say about it.
    fn dispense(&mut self, no: u32, notes: &BTreeMap<BayId, u32>, choice: u8) {
        let began = choice % 5 != 1;
        let mut stops_after = if choice % 5 == 2 { u32::from(choice / 5 % 4) } else { u32::MAX };
        let mut bays = BayResults::new();
        for (id, requested) in notes {
            let presented = if began { (*requested).min(stops_after) } else { 0 };
            stops_after = stops_after.saturating_sub(presented);
            let result = BayResult { requested: *requested, presented, ..BayResult::default() };
            bays.insert(*id, result);
            let minor = if *id == bay(1) { 2_000 } else { 5_000 };
            self.truth += minor * i64::from(presented);
        }
        let answers = choice % 5 != 3;
        self.command = Some(Command { no, bays, began, answers, sent: false });
    }

    fn check(&self) {
        let total = |given: &crate::txn::cash_out::Given| given.minor + given.by_verdict;
        assert!(self.truth <= PROMISED, "more than promised: {} {:?}", self.truth, self.txn);
        match self.txn.state() {
            State::Settled { given, .. } => {
                assert_eq!((total(given), self.truth), (PROMISED, PROMISED));
            }
            State::ShortDispensed { given, owed_minor, .. } => {
                assert_eq!(total(given) + owed_minor, PROMISED);
                assert_eq!(self.truth + owed_minor, PROMISED);
            }
            State::Paid { given, .. } | State::PaidWaiting { given, .. } => {
                assert_eq!(total(given), self.truth);
            }
            State::Quoted { .. }
            | State::Invoiced { .. }
            | State::Cancelled { .. }
            | State::Expired
            | State::Late { .. } => assert_eq!((self.truth, self.dispenses), (0, 0)),
            _ => {}
        }
    }

    /// Somebody who has counted decides.
    fn verdict(&mut self, choice: u8) {
        let missing = PROMISED - self.truth;
        let kind = match (choice % 3, missing) {
            (_, 0) => VerdictKind::Settled,
            (0, _) => VerdictKind::Owed,
            _ => VerdictKind::DispenseRest,
        };
        let verdict = self.ledger.verdict(kind, missing);
        (self.watched, self.present) = (true, self.ms);
        self.command = None;
        self.decided |= matches!(self.txn.state(), State::Uncertain { .. });
        self.say(Input::Verdict(verdict), choice);
    }

    fn go(&mut self, choice: u8) {
        if let Some(rest) = self.wants_plan.take() {
            return self.plan(rest, choice);
        }
        if let Some(command) = self.command.as_mut() {
            if !command.sent {
                command.sent = true;
                let no = command.no;
                return self.say(Input::DispenseSent { no }, choice);
            }
            if command.answers {
                return self.answer(choice);
            }
        }
        match self.txn.state().clone() {
            State::Quoted { quote: Some(_), accepted: false, .. } => {
                self.present = self.ms;
                self.say(Input::Accept, choice);
            }
            State::Paid { exit: true, .. } => {
                self.present = self.ms;
                self.say(Input::Taken, choice);
            }
            State::PaidWaiting { .. } if choice.is_multiple_of(4) => self.verdict(choice),
            State::PaidWaiting { .. } if choice % 8 == 3 => {
                self.say(Input::GiveBack(code()), choice);
                assert_eq!(self.txn.state().name(), "short_dispensed");
            }
            State::PaidWaiting { .. } => {
                (self.watched, self.present) = (true, self.ms);
                self.say(Input::ClaimEntered(code()), choice);
            }
            State::Uncertain { .. } => self.verdict(choice),
            _ => self.serve(choice),
        }
    }

    fn plan(&mut self, rest: i64, choice: u8) {
        let fifties = u32::try_from(rest / 5_000).unwrap().min(u32::from(choice % 3));
        let left = u32::try_from((rest - i64::from(fifties) * 5_000) / 2_000).unwrap();
        let twenties = left.min(u32::from(choice / 3 % 6));
        let mut lots = Lots::new();
        for (n, minor, count) in [(1, 2_000, twenties), (2, 5_000, fifties)] {
            if count > 0 {
                lots.insert(bay(n), Lot { denomination: note(minor), count });
            }
        }
        let lots = Some(lots).filter(|lots| !lots.is_empty());
        self.say(Input::Planned(lots), choice);
    }

    fn answer(&mut self, choice: u8) {
        let Some(command) = self.command.take() else { return };
        let Command { no, bays, began, .. } = command;
        let fault = DeviceFault { kind: FaultKind::Jam, detail: "jam".into() };
        let outcome = if began {
            DispenseOutcome::Final { bays, fault: None }
        } else {
            DispenseOutcome::NotStarted(fault)
        };
        self.say(Input::Dispensed { no, outcome }, choice);
    }

    /// The service answers what is asked of it.
    fn serve(&mut self, choice: u8) {
        let Some(Request { id: request, ask }) = self.ledger.waiting.clone() else {
            return self.say(Input::Tick, choice);
        };
        let input = match ask {
            Ask::GetQuote(_) => {
                Input::Quote { request, quote: quote(Direction::CashOut, PROMISED, choice) }
            }
            Ask::CreateInvoice(_) => {
                Input::Invoice { request, invoice: invoice(at(self.ms + 300_000).unix) }
            }
            Ask::GetPayment(_) => {
                self.paid = true;
                Input::Authorised(leave())
            }
            Ask::ReportDispense(_) => Input::Reported { request },
            Ask::CreateWithdraw(_) => panic!("a cash-out asks for no withdraw"),
        };
        self.say(input, choice);
    }

    fn poll(&mut self, state: PaymentState) {
        let Some(Request { id: request, ask: Ask::GetPayment(_) }) = self.ledger.waiting.clone()
        else {
            return;
        };
        if state == PaymentState::Pending {
            // the poll was asked at this moment at the latest
            self.present = self.ms;
        }
        self.say(Input::Payment { request, state, wire_sats: None }, 0);
    }

    fn crash(&mut self, knows: bool) {
        self.ledger.restart();
        let Txn::CashOut(txn) = self.ledger.reread() else { panic!("another direction") };
        self.txn = txn;
        (self.watched, self.wants_plan) = (false, None);
        let dispense = match self.command.take() {
            Some(command) if knows && command.began => DispenseFate::Final(command.bays),
            Some(_) if knows => DispenseFate::NothingMoved,
            _ => DispenseFate::Unknown,
        };
        self.say(Input::Restarted(DeviceReport { dispense, bill: BillFate::Unknown }), 0);
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Go(choice) => self.go(*choice),
            Op::Wait(seconds) => {
                self.ms += u64::from(*seconds) * 1_000;
                self.say(Input::Tick, 0);
            }
            Op::Crash(knows) => self.crash(*knows),
            Op::ScreenBroken => {
                self.watched = false;
                self.say(Input::ScreenBroken, 0);
            }
            Op::Cancel => self.say(Input::Cancel, 0),
            Op::Pending => self.poll(PaymentState::Pending),
            Op::Answer(choice) => {
                let states = [PaymentState::Late, PaymentState::Expired, PaymentState::Unknown];
                self.poll(states[usize::from(choice % 3)]);
            }
            Op::NetworkLost => self.say(Input::NetworkLost, 0),
            Op::NetworkBack => self.say(Input::NetworkBack, 0),
            Op::Stray(choice) => {
                let stray = [
                    Input::Finish,
                    Input::Stacked,
                    Input::Returned,
                    Input::ClaimEntered(ClaimCode::from_bytes([0; 16])),
                    Input::GiveBack(ClaimCode::from_bytes([0; 16])),
                    Input::Accept,
                    Input::DispenseSent { no: 99 },
                    Input::Escrowed { bill: bill(1, 2_000), allowed: true },
                    Input::Reported { request: RequestId::from_bytes([0; 16]) },
                ];
                let input = stray[usize::from(*choice) % stray.len()].clone();
                if matches!(input, Input::Accept) {
                    self.present = self.ms;
                }
                self.say(input, 0);
            }
        }
    }

    /// Faults have stopped: it comes to rest.
    fn rest(&mut self) {
        for choice in 0..60 {
            if self.txn.state().stage() == Stage::Closed {
                return;
            }
            self.ms += 20 * 60_000;
            self.say(Input::Tick, 4);
            match self.txn.state() {
                State::Invoiced { .. } => self.poll(PaymentState::Expired),
                _ => self.go(choice * 5 + 4),
            }
        }
        panic!("does not come to rest: {:?}", self.txn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Loss prevented: any order of customers, answers, faults, power cuts and verdicts in which
    /// notes go out twice, unpaid, to nobody, or without a record; or in which what was given and
    /// what is owed do not make up what was promised.
    #[test]
    fn a_cash_out_gives_or_owes_what_it_promised(ops in proptest::collection::vec(op(), 0..70)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.rest();
        world.check();
        let held = world.ledger.holdings();
        let gone: i64 = held.bays.values().map(|bay| 1_000 - bay.on_hand()).sum();
        let doubts: i64 = held.bays.values().map(|bay| bay.doubts).sum();
        if !world.decided {
            prop_assert_eq!(doubts, 0, "the dispenser has explained itself");
            let value: i64 = held
                .bays
                .values()
                .map(|bay| i64::from(bay.denomination.minor()) * (1_000 - bay.on_hand()))
                .sum();
            prop_assert_eq!(value, world.truth, "the books of the bays: {} notes", gone);
        }
        world.ledger.verify();
    }
}
