//! A script of answers into the SMART Payout engine, sealed under the keys that it agrees on.

use std::collections::BTreeMap;

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent};
use bitspire_hardware::dispenser::{DispensePlan, DispenserCommand};
use bitspire_hardware::engine::Output;
use bitspire_hardware::frame::ssp::cipher::{Exchange, FixedKey, Primes, Seed, Session};
use bitspire_hardware::frame::ssp::{
    Decoder, Detail, EventCode, Frame, How, Reply, Request, STEX, VALIDATOR,
};
use bitspire_hardware::recycler::smart_payout::{Settings, SmartPayout};
use bitspire_hardware::recycler::{Emptying, RecyclerCommand, RecyclerEvent};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;

use super::engines::{Fuzz, Notes, Proof, Watch, currency, play};

/// The device's side of the line, and what it must not be told.
#[derive(Default)]
struct Unit {
    notes: Notes,
    /// Payouts that a proof allows, each once.
    allowed: Vec<(u16, u32)>,
    emptyings: usize,
    decoder: Decoder,
    heard: Decoder,
    last: Option<Frame>,
    polled: bool,
    session: Option<Session>,
    generator: u64,
    public: u64,
    modulus: u64,
    /// A note was told to be in escrow, and nothing has sent it back.
    waits: bool,
    credit_open: bool,
}

const fn bay(no: u8) -> Option<BayId> {
    BayId::new(no)
}

fn note(no: u8) -> Denomination {
    let minor = if no == 1 { 1_000 } else { 2_000 };
    Denomination::from_minor(minor).expect("a note")
}

impl Watch<SmartPayout<Fuzz>> for Unit {
    /// The answer to what was said last.
    fn dress(&self, content: &[u8]) -> Vec<u8> {
        let Some(last) = &self.last else {
            return Frame::new(true, VALIDATOR, content).to_bytes();
        };
        let sealed = last.data().first() == Some(&STEX);
        let data = match (&self.session, Request::parse(last.data())) {
            (Some(session), _) if sealed => session.seal_reply(content, [3; 16]),
            (_, Request::KeyExchange { .. }) => {
                Some([&[0xf0][..], &self.public.to_le_bytes()].concat())
            }
            _ => None,
        };
        Frame::new(last.seq(), VALIDATOR, data.as_deref().unwrap_or(content)).to_bytes()
    }

    fn command(&mut self, which: u8) -> RecyclerCommand<Fuzz> {
        let of = |no| bay(no).expect("a bay");
        match which % 16 {
            0 => {
                let bays = [(of(1), note(1)), (of(2), note(2))].into();
                RecyclerCommand::Out(DispenserCommand::Configure(bays))
            }
            1 => RecyclerCommand::Out(DispenserCommand::Refresh),
            2 => {
                self.emptyings += 1;
                RecyclerCommand::Empty(Proof(Emptying { bay: of(1) }))
            }
            3..=5 => {
                let (from, notes) = (1 + which % 2, 1 + which / 16);
                self.allowed.push((notes.into(), note(from).minor()));
                let notes = BTreeMap::from([(of(from), u32::from(notes))]);
                RecyclerCommand::Out(DispenserCommand::Dispense(Proof(DispensePlan { notes })))
            }
            6 => match self.notes.escrowed.last() {
                Some(bill) => {
                    self.notes.proven = Some(*bill);
                    RecyclerCommand::StackAway(Proof(*bill))
                }
                None => RecyclerCommand::In(AcceptorCommand::Return),
            },
            _ => {
                let command = self.notes.command(which);
                self.credit_open &= !matches!(command, AcceptorCommand::AcknowledgeCredit);
                RecyclerCommand::In(command)
            }
        }
    }

    fn look(&mut self, heard: &[u8], out: &Output<RecyclerEvent>) {
        let mut bytes = heard;
        while let Some(frame) = self.heard.push(&mut bytes) {
            let answers = self.polled && self.last.is_some_and(|last| last.seq() == frame.seq());
            let opened = self.session.as_ref().filter(|_| answers);
            if let Some(Ok(opened)) = opened.map(|session| session.open_reply(frame.data())) {
                let reply = Reply::parse(opened.data());
                self.waits |= reply.is_ok()
                    && reply.events().any(|event| {
                        event.code == EventCode::Read && !matches!(event.detail, Detail::Channel(0))
                    });
                self.polled = false;
            }
        }
        let events = out.events.iter().filter_map(|event| match event {
            RecyclerEvent::In(event) => Some(event.clone()),
            _ => None,
        });
        let events: Vec<_> = events.collect();
        let credit = |event: &AcceptorEvent| matches!(event, AcceptorEvent::Credit { .. });
        self.credit_open |= events.iter().any(credit);
        let (mut bytes, mut stacks) = (out.write.as_slice(), false);
        while let Some(said) = self.decoder.push(&mut bytes) {
            // the same bytes again are no command
            if self.last.replace(said) != Some(said) {
                stacks |= self.hear(&said);
            }
        }
        self.notes.look(stacks, &events);
    }
}

impl Unit {
    /// A new command; whether it accepts a note.
    fn hear(&mut self, said: &Frame) -> bool {
        let opened = match &mut self.session {
            Some(session) if said.data().first() == Some(&STEX) => {
                Some(session.open_command(said.data()).expect("a packet in its turn"))
            }
            _ => None,
        };
        let data = opened.as_ref().map_or(said.data(), |opened| opened.data());
        let request = Request::parse(data);
        assert!(opened.is_some() || !request.needs_keys(), "{request} in the clear");
        self.polled = false;
        match request {
            Request::SetGenerator { generator } => self.generator = generator,
            Request::SetModulus { modulus } => self.modulus = modulus,
            Request::KeyExchange { public } => {
                let ours = Exchange::new(self.generator, self.modulus, 4_711);
                self.public = ours.public();
                self.session = ours.finish(public, &FixedKey::default()).ok();
            }
            Request::Reject | Request::Sync => self.waits = false,
            Request::Poll => panic!("events without ack would be told once only"),
            Request::PollWithAck => {
                self.polled = true;
                return std::mem::take(&mut self.waits);
            }
            Request::EventAck => assert!(!self.credit_open, "a credit is acknowledged too early"),
            Request::PayoutByDenomination { notes, how: How::Real } => {
                let notes: Vec<_> = notes.iter().map(|(n, money)| (n, money.value)).collect();
                let at = self.allowed.iter().position(|proof| notes == [*proof]);
                self.allowed.remove(at.expect("notes go out without a proof, or again"));
            }
            Request::FloatByDenomination { how: How::Real, .. } | Request::SmartEmpty => {
                let left = self.emptyings.checked_sub(1);
                self.emptyings = left.expect("the store is emptied without a proof, or again");
            }
            _ => {}
        }
        false
    }
}

pub(crate) fn run(input: &[u8]) -> usize {
    let settings = Settings {
        currency: currency(),
        baud: 9_600,
        notes_per_bay: 30,
        fixed_key: FixedKey::default(),
        primes: Primes::USUAL,
        seed: Seed::new([7; 16]),
    };
    play(SmartPayout::new(settings), &mut Unit::default(), input)
}
