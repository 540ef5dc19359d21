use super::*;
use crate::frame::ssp::cipher::{Exchange, Primes, Session};
use crate::frame::ssp::{
    Counted, Decoder, EventCode as C, Events, Frame, How, Reply, Request, Status, VALIDATOR,
};
use crate::sim::testing::{every_key_is_an_action, notes_add_up};

struct Desk {
    sim: SmartPayoutSim,
    now: Mono,
    seq: bool,
    session: Option<Session>,
}

impl Desk {
    fn new() -> Self {
        let sim = SmartPayoutSim::new(
            SmartPayoutSim::eur(),
            Options::default(),
            Timing { start: 100, ..Timing::default() },
        );
        let mut desk = Self { sim, now: Mono(200), seq: true, session: None };
        assert_eq!(desk.plain(Request::Sync), [0xf0]);
        desk
    }

    /// With keys, channels and the store for 10 and 20.
    fn ready() -> Self {
        let mut desk = Self::new();
        desk.agree();
        for request in [
            Request::HostProtocol { version: 8 },
            Request::SetInhibits { channels: 0x7f },
            Request::SetRoute { route: Route::Store, note: eur(1_000) },
            Request::SetRoute { route: Route::Store, note: eur(2_000) },
            Request::EnablePayout { options: 0 },
            Request::Enable,
        ] {
            assert_eq!(desk.sealed(request), [0xf0], "{request}");
        }
        assert_eq!(desk.poll(), [C::Reset]);
        desk
    }

    fn agree(&mut self) {
        let (generator, modulus) = (Primes::USUAL.generator(), Primes::USUAL.modulus());
        assert_eq!(self.plain(Request::SetGenerator { generator }), [0xf0]);
        assert_eq!(self.plain(Request::SetModulus { modulus }), [0xf0]);
        let ours = Exchange::new(generator, modulus, 12_345);
        let theirs = self.plain(Request::KeyExchange { public: ours.public() });
        let theirs = u64::from_le_bytes(*theirs[1..].first_chunk().unwrap());
        self.session = Some(ours.finish(theirs, &FixedKey::default()).unwrap());
    }

    fn exchange(&mut self, frame: &Frame) -> Option<Frame> {
        let said = self.sim.on_bytes(&frame.to_bytes(), self.now);
        Decoder::default().push(&mut said.as_slice())
    }

    fn plain(&mut self, request: Request<'_>) -> Vec<u8> {
        self.seq = !self.seq || request == Request::Sync;
        let seq = self.seq;
        let frame = self.exchange(&request.frame(seq, VALIDATOR)).expect("an answer");
        assert_eq!(frame.seq(), seq);
        frame.data().to_vec()
    }

    fn seal(&mut self, request: Request<'_>) -> Frame {
        self.seq = !self.seq;
        let plain = request.frame(self.seq, VALIDATOR);
        let data = self.session.as_mut().unwrap().seal_command(plain.data(), [5; 16]).unwrap();
        Frame::new(self.seq, VALIDATOR, &data)
    }

    fn sealed(&mut self, request: Request<'_>) -> Vec<u8> {
        let frame = self.seal(request);
        let answer = self.exchange(&frame).expect("an answer");
        let opened = self.session.as_ref().unwrap().open_reply(answer.data()).unwrap();
        opened.data().to_vec()
    }

    fn poll(&mut self) -> Vec<C> {
        let data = self.sealed(Request::PollWithAck);
        Events::new(&data[1..]).map(|event| event.code).collect()
    }

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now.after(ms);
    }

    fn pay(&mut self, notes: u16, how: How) -> Vec<u8> {
        let notes = Counted::new([(notes, eur(1_000))]);
        self.sealed(Request::PayoutByDenomination { notes, how })
    }
}

fn eur(value: u32) -> Money {
    Money { value, country: *b"EUR" }
}

/// Loss prevented: a simulator that does what no real unit does, and a driver that relies on it.
#[test]
fn it_speaks_the_manuals_sequence_for_a_note() {
    let mut desk = Desk::ready();
    desk.act(json!({"action": "insert", "denomination": 10}));
    assert_eq!(desk.poll(), [C::Read]);
    desk.later(1_100);
    assert_eq!(desk.poll(), [C::Read]);
    for _ in 0..4 {
        desk.later(5_000);
        assert_eq!(desk.sealed(Request::Hold), [0xf0]);
    }
    // the poll after the note was told accepts it
    assert_eq!(desk.poll(), [C::Stacking]);
    desk.later(700);
    assert_eq!(desk.poll(), [C::Stacking, C::Credit]);
    desk.later(700);
    assert_eq!(desk.poll(), [C::Credit, C::Stored]);
    assert_eq!(desk.poll(), [C::Credit]);
    assert_eq!(desk.sealed(Request::EventAck), [0xf0]);
    assert_eq!(desk.sealed(Request::EventAck)[0], Status::CannotProcess.code());
    assert!(desk.poll().is_empty());
    let told = desk.sim.counters();
    assert_eq!((&told["store"]["10"], &told["acknowledged"]), (&json!(1), &json!(1)));
    // without a decision it goes back
    desk.act(json!({"action": "insert", "denomination": 20}));
    desk.later(1_100);
    desk.poll();
    desk.later(10_100);
    assert_eq!(desk.poll(), [C::Rejecting]);
    desk.later(2_000);
    assert_eq!(desk.poll(), [C::Rejected]);
    assert_eq!(desk.sealed(Request::LastReject), [0xf0, 0x13]);
    assert_eq!(desk.sim.counters()["returned"], 1);
}

/// Loss prevented: an order that a repeated frame, or an old packet, carries out again.
#[test]
fn the_same_flag_repeats_the_answer_and_an_old_packet_is_dropped() {
    let mut desk = Desk::ready();
    desk.act(json!({"action": "load", "box": 1, "notes": 5}));
    assert_eq!(desk.pay(2, How::Test), [0xf0]);
    let notes = Counted::new([(2, eur(1_000))]);
    let frame = desk.seal(Request::PayoutByDenomination { notes, how: How::Real });
    let first = desk.exchange(&frame).unwrap();
    assert_eq!(desk.exchange(&frame), Some(first));
    assert_eq!(desk.sim.counters()["payouts"], 1);
    // the same packet under the other flag
    let old = Frame::new(!frame.seq(), VALIDATOR, frame.data());
    assert_eq!(desk.exchange(&old), None);
    desk.later(20_000);
    let opened = desk.session.as_ref().unwrap().open_reply(first.data());
    assert_eq!(Reply::parse(opened.unwrap().data()).status, Status::Ok);
    assert_eq!(desk.poll(), [C::Dispensed]);
    assert_eq!(desk.sim.counters()["given"]["10"], 2);
}

/// Loss prevented: payouts in the clear; a unit that pays what it has not.
#[test]
fn payouts_need_keys_an_enabled_payout_and_enough_notes() {
    let mut desk = Desk::new();
    let notes = Counted::new([(1, eur(1_000))]);
    let pay = Request::PayoutByDenomination { notes, how: How::Real };
    assert_eq!(desk.plain(pay), [Status::KeyNotSet.code()]);
    let mut desk = Desk::ready();
    assert_eq!(desk.pay(1, How::Real), [Status::CannotProcess.code(), 1]);
    desk.act(json!({"action": "load", "box": 1, "notes": 3}));
    assert_eq!(desk.sealed(Request::DisablePayout), [0xf0]);
    assert_eq!(desk.pay(1, How::Real), [Status::CannotProcess.code(), 4]);
    assert_eq!(desk.sealed(Request::EnablePayout { options: 0 }), [0xf0]);
    let payout = |value, how| Request::Payout { amount: eur(value), how };
    assert_eq!(desk.sealed(payout(1_500, How::Test)), [Status::CannotProcess.code(), 2]);
    assert_eq!(desk.sealed(payout(2_000, How::Real)), [0xf0]);
    assert_eq!(desk.pay(1, How::Test), [Status::CannotProcess.code(), 3]);
    desk.later(20_000);
    assert_eq!(desk.poll(), [C::Dispensed]);
    desk.sealed(Request::EventAck);
    assert_eq!(desk.sealed(Request::GetLevel { note: eur(1_000) }), [0xf0, 1, 0]);
    assert_eq!(desk.sealed(Request::GetRoute { note: eur(500) }), [0xf0, 1]);
    let float = Request::Float { least: 0, amount: eur(0), how: How::Real };
    assert_eq!(desk.sealed(float), [0xf0]);
    desk.later(5_000);
    assert_eq!(desk.poll(), [C::Floated]);
    desk.sealed(Request::EventAck);
    assert_eq!(desk.sealed(Request::CashboxData)[..2], [0xf0, 1]);
    desk.act(json!({"action": "load", "box": 2, "notes": 2}));
    assert_eq!(desk.sealed(Request::Empty), [0xf0]);
    desk.later(500);
    assert_eq!(desk.poll(), [C::Emptying]);
    desk.later(9_000);
    assert_eq!(desk.poll(), [C::Emptied]);
    let told = desk.sim.counters();
    assert_eq!(told["cashbox"], json!({"10": 1, "20": 2}));
    assert_eq!(desk.sealed(Request::Unknown { raw: &[0x99] }), [Status::UnknownCommand.code()]);
    assert_eq!(desk.sealed(Request::Unknown { raw: &[0x07, 1] }), [Status::Parameters.code()]);
}

/// Loss prevented: a power loss that loses a note of the simulation, and hides one of the driver.
#[test]
fn a_power_loss_is_told_with_what_it_cut_off() {
    let mut desk = Desk::ready();
    desk.act(json!({"action": "load", "box": 1, "notes": 5}));
    assert_eq!(desk.pay(3, How::Real), [0xf0]);
    desk.later(6_000);
    desk.poll();
    desk.act(json!({"action": "power_off"}));
    assert!(desk.sim.on_bytes(&Request::Sync.frame(true, 0).to_bytes(), desk.now).is_empty());
    desk.act(json!({"action": "power_on"}));
    desk.later(500);
    desk.session = None;
    desk.seq = true;
    desk.plain(Request::Sync);
    desk.agree();
    let events = desk.poll();
    assert_eq!((events[0], events.last()), (C::Reset, Some(&C::IncompletePayout)));
    let sum = |place: &str| {
        let told = desk.sim.counters();
        told[place].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(sum("store") + sum("given") + sum("cashbox"), 5);
    // in the middle of an answer
    let mut desk = Desk::ready();
    desk.act(json!({"action": "power_off_at", "byte": 7}));
    let frame = desk.seal(Request::PollWithAck);
    let said = desk.sim.on_bytes(&frame.to_bytes(), desk.now);
    assert_eq!((said.len(), desk.sim.phase.name()), (7, "OFF"));
}

/// Loss prevented: notes that the simulation makes or loses while everything happens to it.
#[test]
fn notes_add_up_whatever_happens() {
    for (ms, action) in [
        (500, json!({"action": "power_off"})),
        (1_500, json!({"action": "jam", "where": "acceptor"})),
        (1_500, json!({"action": "stacker_out"})),
        (2_000, json!({"action": "stacker_full"})),
        (2_300, json!({"action": "power_off"})),
    ] {
        let mut desk = Desk::ready();
        // not one of those that the store keeps
        desk.sealed(Request::SetRoute { route: Route::Cashbox, note: eur(2_000) });
        desk.act(json!({"action": "insert", "denomination": 20}));
        for _ in 0..ms / 100 {
            desk.later(100);
            desk.poll();
        }
        desk.act(action.clone());
        for undo in ["clear", "power_on", "stacker_in"] {
            // some are not to be undone
            let _ = desk.sim.control(&json!({ "action": undo }), desk.now);
        }
        desk.later(9_000);
        desk.sim.on_tick(desk.now);
        let told = desk.sim.counters();
        notes_add_up(&told);
        assert_eq!(told["inserted"], 1, "{action}");
    }
}

/// Loss prevented: a key at the terminal that does nothing.
#[test]
fn keys_are_actions() {
    every_key_is_an_action(Desk::ready().sim);
}
