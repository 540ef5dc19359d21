//! A script of bytes, frames, time and commands into engines.
//!
//! Each step of the input is a byte for what happens and a byte for how much; where something is
//! heard, that many bytes follow.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_hardware::Authority;
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill};
use bitspire_hardware::acceptor::{ccnet, ebds, id003};
use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::puloon::{Model, Puloon, Settings};
use bitspire_hardware::dispenser::{DispensePlan, DispenserCommand, DispenserEvent};
use bitspire_hardware::engine::{Engine, Output};
use bitspire_hardware::frame::{self, puloon};
use bitspire_hardware::printer::escpos::EscPos;
use bitspire_hardware::printer::{PrinterCommand, Slip};
use bitspire_hardware::recycler::ccnet_b2b::CcnetB2b;
use bitspire_hardware::recycler::id003_rc::{self, Id003Rc};
use bitspire_hardware::recycler::{Emptying, RecyclerCommand, RecyclerEvent};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;

pub(crate) enum Fuzz {}

pub(crate) struct Proof<T>(pub(crate) T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for Fuzz {
    type Committed<T: Send + 'static> = Proof<T>;
}

/// Bytes that one step may make an engine write; its events are bounded by the bytes it got.
const MOST_WRITTEN: usize = 4_096;
/// Wake-ups without time passing between them.
const MOST_TICKS: usize = 16;

/// What a device's rules are checked by.
pub(crate) trait Watch<E: Engine> {
    /// The frame of the device around these bytes.
    fn dress(&self, content: &[u8]) -> Vec<u8>;
    /// The command that this byte stands for.
    fn command(&mut self, which: u8) -> E::Command;
    /// What came of a step; `heard` is what the device had said.
    fn look(&mut self, heard: &[u8], out: &Output<E::Event>);
}

pub(crate) fn play<E: Engine>(mut engine: E, watch: &mut impl Watch<E>, mut input: &[u8]) -> usize {
    let (mut now, mut wake, mut up, mut told) = (Mono(0), None, false, 0);
    let _ = engine.line();
    while let [what, much, rest @ ..] = input {
        let length = if what % 8 < 4 { usize::from(*much) } else { 0 };
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        input = rest;
        now = now.after(1);
        let heard = match what % 8 {
            0 => bytes.to_vec(),
            1..=3 => watch.dress(bytes),
            _ => Vec::new(),
        };
        let out = match what % 8 {
            0..=3 => engine.on_bytes(&heard, now),
            4 => {
                now = wake.unwrap_or(now).max(now);
                engine.on_tick(now)
            }
            5 => {
                now = now.after(u64::from(*much) * 100);
                engine.on_tick(now)
            }
            6 => engine.command(watch.command(*much), now),
            _ if up => engine.on_link_down("fuzzed", now),
            _ => engine.on_link_up(now),
        };
        up ^= what % 8 == 7;
        let mut outs = vec![out];
        // whoever wants to be woken in the past goes on until it wants the future
        while outs.last().and_then(|out| out.wake_at).is_some_and(|at| at <= now) {
            assert!(outs.len() < MOST_TICKS, "it turns on the spot");
            outs.push(engine.on_tick(now));
        }
        for (no, out) in outs.iter().enumerate() {
            assert!(out.write.len() <= MOST_WRITTEN, "{} bytes at once", out.write.len());
            assert!(out.events.len() <= 16 + heard.len(), "{} events at once", out.events.len());
            let _ = E::in_words(bitspire_hardware::trace::Direction::Sent, &out.write);
            watch.look(if no == 0 { &heard } else { &[] }, out);
            told += out.events.len();
        }
        wake = outs.last().and_then(|out| out.wake_at);
    }
    told
}

pub(crate) fn currency() -> Currency {
    "USD".parse().expect("a currency")
}

fn notes() -> BTreeSet<Denomination> {
    [1, 5, 10, 20, 50, 100]
        .into_iter()
        .filter_map(|n| Denomination::from_minor(n * 100).ok())
        .collect()
}

/// What the rules of notes that come in hang on.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) escrowed: Vec<EscrowedBill>,
    pub(crate) proven: Option<EscrowedBill>,
    durable: bool,
}

impl Notes {
    pub(crate) fn command(&mut self, which: u8) -> AcceptorCommand<Fuzz> {
        match which % 8 {
            0 => AcceptorCommand::Accept(BTreeSet::new()),
            1 | 2 => AcceptorCommand::Accept(notes()),
            3 => AcceptorCommand::Return,
            4 => AcceptorCommand::Hold,
            5 => {
                self.durable = true;
                AcceptorCommand::AcknowledgeCredit
            }
            6 => AcceptorCommand::Reset,
            // the proof of the note in escrow, or of one before it
            _ => match self.escrowed.iter().rev().nth(usize::from(which / 64)) {
                Some(bill) => {
                    self.proven = Some(*bill);
                    AcceptorCommand::Stack(Proof(*bill))
                }
                None => AcceptorCommand::Return,
            },
        }
    }

    pub(crate) fn look(&mut self, stacks: bool, events: &[AcceptorEvent]) {
        for event in events {
            match event {
                AcceptorEvent::Escrowed(bill) => self.escrowed.push(*bill),
                AcceptorEvent::Credit { .. } => self.durable = false,
                _ => {}
            }
        }
        let proof = self.proven.is_some() && self.proven == self.escrowed.last().copied();
        assert!(!stacks || proof, "a note is stacked without its own proof");
    }
}

struct Ccnet(Notes);

impl Watch<ccnet::Ccnet<Fuzz>> for Ccnet {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let (first, rest) = content.split_first().unwrap_or((&0, &[]));
        frame::ccnet::Frame::new(frame::ccnet::VALIDATOR, *first, rest).to_bytes()
    }

    fn command(&mut self, which: u8) -> AcceptorCommand<Fuzz> {
        self.0.command(which)
    }

    fn look(&mut self, heard: &[u8], out: &Output<AcceptorEvent>) {
        use frame::ccnet::Request;
        let (mut decoder, mut rest) = (frame::ccnet::Decoder::default(), out.write.as_slice());
        let said: Vec<_> = std::iter::from_fn(|| decoder.push(&mut rest)).collect();
        let says = |wanted: Request<'_>| said.contains(&wanted.frame());
        self.0.look(says(Request::Stack), &out.events);
        // BILL STACKED, by itself
        if let [2, 3, 7, 0x81, _, _, _] = heard {
            assert!(self.0.durable || !says(Request::Ack), "a credit is confirmed too early");
        }
        for frame in &said {
            if let Request::Enable { bills, escrow } = Request::parse(frame) {
                assert_eq!(bills, escrow, "a note would be stacked unasked");
            }
        }
    }
}

pub(crate) fn ccnet(input: &[u8]) -> usize {
    let engine = ccnet::Ccnet::new(ccnet::Settings { currency: currency(), baud: 9_600 });
    play(engine, &mut Ccnet(Notes::default()), input)
}

struct Id003(Notes);

impl Watch<id003::Id003<Fuzz>> for Id003 {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let (op, data) = content.split_first().unwrap_or((&0x11, &[]));
        frame::id003::Frame::new(*op, data).to_bytes()
    }

    fn command(&mut self, which: u8) -> AcceptorCommand<Fuzz> {
        self.0.command(which)
    }

    fn look(&mut self, heard: &[u8], out: &Output<AcceptorEvent>) {
        use frame::id003::Request;
        let (mut decoder, mut rest) = (frame::id003::Decoder::default(), out.write.as_slice());
        let said: Vec<_> = std::iter::from_fn(|| decoder.push(&mut rest)).collect();
        let says = |wanted: Request<'_>| said.contains(&wanted.frame());
        let stacks = [Request::Stack1, Request::Stack2, Request::Stack3];
        self.0.look(stacks.into_iter().any(says), &out.events);
        // VEND VALID, by itself
        if let [0xfc, _, 0x15, ..] = heard {
            assert!(self.0.durable || !says(Request::Ack), "a credit is confirmed too early");
        }
    }
}

pub(crate) fn id003(input: &[u8]) -> usize {
    let engine = id003::Id003::new(id003::Settings { currency: currency(), baud: 9_600 });
    play(engine, &mut Id003(Notes::default()), input)
}

struct Ebds(Notes);

impl Watch<ebds::Ebds<Fuzz>> for Ebds {
    /// The first byte is type and toggle.
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let (head, data) = content.split_first().unwrap_or((&0x20, &[]));
        frame::ebds::Frame::new(head >> 4, head & 1 == 1, data).to_bytes()
    }

    fn command(&mut self, which: u8) -> AcceptorCommand<Fuzz> {
        self.0.command(which)
    }

    fn look(&mut self, _: &[u8], out: &Output<AcceptorEvent>) {
        use frame::ebds::Request;
        let (mut decoder, mut rest) = (frame::ebds::Decoder::default(), out.write.as_slice());
        let said: Vec<_> = std::iter::from_fn(|| decoder.push(&mut rest)).collect();
        let wishes = said.iter().filter_map(|frame| match Request::parse(frame) {
            Request::Omnibus(own)
            | Request::NoteSpecification(own, _)
            | Request::NoteInhibits(own, ..)
            | Request::ValueTable(own) => Some(own),
            _ => None,
        });
        let wishes: Vec<_> = wishes.collect();
        assert!(wishes.iter().all(|own| own.escrow), "a note would be stacked unasked");
        self.0.look(wishes.iter().any(|own| own.stack), &out.events);
    }
}

pub(crate) fn ebds(input: &[u8]) -> usize {
    let policy = frame::ebds::PowerUpPolicy::default();
    let engine = ebds::Ebds::new(ebds::Settings { currency: currency(), baud: 9_600, policy });
    play(engine, &mut Ebds(Notes::default()), input)
}

/// The command to a dispenser that a byte stands for; an order is proven until it is answered, also
/// while others are refused beside it.
fn payout(which: u8, proven: &mut usize) -> DispenserCommand<Fuzz> {
    let bay = |no| BayId::new(no).expect("a bay");
    match which % 4 {
        0 => DispenserCommand::Refresh,
        1 => {
            let minor = |minor| Denomination::from_minor(minor).expect("a note");
            let bays = [(bay(1), minor(2_000)), (bay(2), minor(5_000))];
            DispenserCommand::Configure(BTreeMap::from(bays))
        }
        _ => {
            *proven += 1;
            let notes = BTreeMap::from([(bay(1 + which % 3), u32::from(which / 16))]);
            DispenserCommand::Dispense(Proof(DispensePlan { notes }))
        }
    }
}

/// How many orders have been answered.
fn answers(out: &Output<DispenserEvent>) -> usize {
    out.events.iter().filter(|e| matches!(e, DispenserEvent::Dispensed(_))).count()
}

/// What the rule of notes that go out hangs on.
#[derive(Default)]
struct Payout {
    proven: usize,
    decoder: frame::f56::Decoder,
}

impl Watch<F56<Fuzz>> for Payout {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        frame::f56::encode(content)
    }

    fn command(&mut self, which: u8) -> DispenserCommand<Fuzz> {
        payout(which, &mut self.proven)
    }

    fn look(&mut self, _: &[u8], out: &Output<DispenserEvent>) {
        use frame::f56::{Request, Token};
        let mut bytes = out.write.as_slice();
        while let Some(token) = self.decoder.push(&mut bytes) {
            let Token::Payload(payload) = token else { continue };
            let pays = matches!(
                Request::parse(&payload),
                Request::Count(_) | Request::CountAndTransport(_) | Request::Transport
            );
            assert!(!pays || self.proven > 0, "notes go out without a proof");
        }
        self.proven -= answers(out);
    }
}

pub(crate) fn f56(input: &[u8]) -> usize {
    play(F56::new(currency()), &mut Payout::default(), input)
}

/// What the rule of notes that go out of a Puloon hangs on.
struct Drawers {
    proven: usize,
    decoder: puloon::Decoder,
}

impl Watch<Puloon<Fuzz>> for Drawers {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let [command, data @ ..] = content else { return Vec::new() };
        let mut wire = Vec::new();
        let frame = puloon::Frame::new(puloon::Id::Lcdm4000, *command, data);
        frame.write(puloon::Side::Device, &mut wire);
        wire
    }

    fn command(&mut self, which: u8) -> DispenserCommand<Fuzz> {
        payout(which, &mut self.proven)
    }

    fn look(&mut self, _: &[u8], out: &Output<DispenserEvent>) {
        let mut bytes = out.write.as_slice();
        while let Some(token) = self.decoder.push(&mut bytes) {
            let puloon::Token::Frame(frame) = token else { continue };
            // DISPENSE and TEST DISPENSE
            let pays = matches!(frame.command(), 0x52 | 0x53);
            assert!(!pays || self.proven > 0, "notes go out without a proof");
        }
        self.proven -= answers(out);
    }
}

pub(crate) fn puloon(input: &[u8]) -> usize {
    let settings = Settings::new(Model::Lcdm4000, currency());
    let decoder = puloon::Decoder::new(puloon::Side::Host);
    play(Puloon::new(settings), &mut Drawers { proven: 0, decoder }, input)
}

/// What the rules of a recycler hang on.
#[derive(Default)]
struct Boxes {
    notes: Notes,
    /// Notes of a box that a proof allows to go out, each once.
    allowed: Vec<(u8, u8)>,
    emptyings: usize,
}

impl Boxes {
    fn command(&mut self, which: u8) -> RecyclerCommand<Fuzz> {
        let bay = |no| BayId::new(no).expect("a bay");
        match which % 16 {
            0 => RecyclerCommand::Out(payout(1, &mut 0)),
            1 => RecyclerCommand::Out(DispenserCommand::Refresh),
            2 => {
                self.emptyings += 1;
                RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) }))
            }
            3..=5 => {
                let (from, notes) = (1 + which % 2, 1 + which / 16);
                self.allowed.push((from, notes));
                let notes = BTreeMap::from([(bay(from), u32::from(notes))]);
                RecyclerCommand::Out(DispenserCommand::Dispense(Proof(DispensePlan { notes })))
            }
            _ => RecyclerCommand::In(self.notes.command(which)),
        }
    }

    fn pays(&mut self, fits: impl Fn(&(u8, u8)) -> bool) {
        let at = self.allowed.iter().position(fits);
        self.allowed.remove(at.expect("notes go out without a proof, or again"));
    }

    fn empties(&mut self) {
        let left = self.emptyings.checked_sub(1);
        self.emptyings = left.expect("a box is emptied without a proof, or again");
    }

    fn look(&mut self, stacks: bool, events: &[RecyclerEvent]) {
        let events = events.iter().filter_map(|event| match event {
            RecyclerEvent::In(event) => Some(event.clone()),
            _ => None,
        });
        self.notes.look(stacks, &events.collect::<Vec<_>>());
    }
}

#[derive(Default)]
struct Rc {
    boxes: Boxes,
    decoder: frame::id003::Decoder,
}

impl Watch<Id003Rc<Fuzz>> for Rc {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let (op, data) = content.split_first().unwrap_or((&0, &[]));
        frame::id003::Frame::new(*op, data).to_bytes()
    }

    fn command(&mut self, which: u8) -> RecyclerCommand<Fuzz> {
        self.boxes.command(which)
    }

    fn look(&mut self, _: &[u8], out: &Output<RecyclerEvent>) {
        use frame::id003::Request;
        use frame::id003::recycler::Extension;
        let (mut bytes, mut stacks) = (out.write.as_slice(), false);
        while let Some(said) = self.decoder.push(&mut bytes) {
            stacks |= matches!(Request::parse(&said), Request::Stack2 | Request::Stack3);
            match Extension::parse(&said) {
                Some(Extension::PayOut { notes, from }) => {
                    self.boxes.pays(|proof| *proof == (from, notes));
                }
                Some(Extension::Collect { .. }) => self.boxes.empties(),
                _ => {}
            }
        }
        self.boxes.look(stacks, &out.events);
    }
}

pub(crate) fn id003_rc(input: &[u8]) -> usize {
    let validator = id003::Settings { currency: currency(), baud: 9_600 };
    let settings = id003_rc::Settings { validator, notes_per_box: 30 };
    play(Id003Rc::new(settings), &mut Rc::default(), input)
}

#[derive(Default)]
struct Unit {
    boxes: Boxes,
    decoder: frame::ccnet::Decoder,
}

impl Watch<CcnetB2b<Fuzz>> for Unit {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let (first, rest) = content.split_first().unwrap_or((&0, &[]));
        frame::ccnet::Frame::new(frame::ccnet::BILL_TO_BILL, *first, rest).to_bytes()
    }

    fn command(&mut self, which: u8) -> RecyclerCommand<Fuzz> {
        match self.boxes.command(which) {
            // the note's way on to the drop cassette is in its own proof
            RecyclerCommand::In(AcceptorCommand::Stack(proof)) if which % 32 >= 16 => {
                self.boxes.emptyings += 1;
                RecyclerCommand::StackAway(proof)
            }
            other => other,
        }
    }

    fn look(&mut self, heard: &[u8], out: &Output<RecyclerEvent>) {
        use frame::ccnet::Request;
        use frame::ccnet::unit::{Command, UNASSIGNED};
        let (mut bytes, mut stacks) = (out.write.as_slice(), false);
        while let Some(said) = self.decoder.push(&mut bytes) {
            match Request::parse(&said) {
                Request::Stack => stacks = true,
                // BILL STACKED, by itself
                Request::Ack if matches!(heard, [2, 1, 8, 0x81, ..]) => {
                    assert!(self.boxes.notes.durable, "a credit is confirmed too early");
                }
                Request::Enable { bills, escrow } => {
                    assert_eq!(bills, escrow, "a note would be stacked unasked");
                }
                Request::Unit(Command::Dispense(notes)) => {
                    // which type a box keeps the input has said
                    let [[_, count]] = notes else { panic!("more than was planned: {notes:?}") };
                    self.boxes.pays(|(_, notes)| notes == count);
                }
                Request::Unit(Command::Unload { .. }) => self.boxes.empties(),
                Request::Unit(Command::SetCassetteType { kind, .. }) => {
                    assert!(kind < 24 || kind == UNASSIGNED, "no type of a note: {kind}");
                }
                _ => {}
            }
        }
        self.boxes.look(stacks, &out.events);
    }
}

pub(crate) fn ccnet_b2b(input: &[u8]) -> usize {
    let settings = ccnet::Settings { currency: currency(), baud: 9_600 };
    play(CcnetB2b::new(settings), &mut Unit::default(), input)
}

struct Paper;

impl Watch<EscPos> for Paper {
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        // status bytes have these bits
        content.iter().map(|byte| (byte & 0x6c) | 0x12).collect()
    }

    fn command(&mut self, which: u8) -> PrinterCommand {
        let slip = vec![which; usize::from(which)];
        PrinterCommand::Print(Slip::new(slip))
    }

    fn look(&mut self, _: &[u8], _: &Output<<EscPos as Engine>::Event>) {}
}

pub(crate) fn escpos(input: &[u8]) -> usize {
    play(EscPos::new(19_200), &mut Paper, input)
}
