//! The world around one vault, in virtual time: one clock, one agenda, one stream of chance.
//!
//! Promise: the same seed gives the same world, event for event. The vault runs on the caller's
//! thread; whenever it waits, the world goes on until something reaches it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_agent::ipc::{BunkerState, CustomerAction, NetState, Role, ToNet, ToVault};
use bitspire_agent::journal::ByJournal;
use bitspire_agent::vault::{Event, Next, Outlet, Peer};
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent};
use bitspire_hardware::dispenser::{DispenserCommand, DispenserEvent};
use bitspire_hardware::printer::{PrinterCommand, PrinterEvent};
use bitspire_hardware::sim::faulty::SplitMix64;
use bitspire_shared::ids::{
    ClaimCode, ClaimHash, JournalSeq, PaymentHash, RequestId, TxnId, WithdrawId,
};
use bitspire_shared::time::{Mono, Unix};
use nostr::{EventBuilder, Kind, Tag, Timestamp};
use serde_json::{Value, json};

use super::bounds::Bounds;
use super::customer::Crowd;
use super::deaths::Deaths;
use super::faults::{Fault, Rates};
use super::line::Line;
use super::net::Net;
use super::one::{Answer, Then};
use super::operator::Operator;
use super::service::{Service, bytes, public};
use super::trace::Trace;

/// The wall clock when virtual time begins.
const EPOCH: u64 = 1_800_000_000;

/// What is going to happen.
#[derive(Debug)]
pub(super) enum Thing {
    /// The connection of `net` is there.
    Join,
    /// A request arrives at the service.
    Asked(RequestId),
    /// Its answer arrives at `net`.
    Answered(RequestId, Box<nostr::Event>, Value),
    /// `net` asks again what was not answered.
    AskAgain(RequestId),
    /// A push arrives at `net`.
    Pushed(Box<nostr::Event>, Value),
    /// The page shows a screen.
    Seen(u64),
    /// Whoever stands at the machine looks.
    Look,
    /// A payment arrives.
    Pay(PaymentHash, u64),
    /// A wallet asks for a withdraw.
    Claim(WithdrawId),
    /// The payment of a withdraw arrives.
    Draw(WithdrawId),
    /// The operator looks at the last report.
    Operate,
    /// Something goes wrong.
    Break(Fault),
    /// And is put right.
    Mend(Fault),
    /// The faults are over.
    Quiet,
}

/// A plan that the dispenser was told, and what had left its bays before.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) seq: JournalSeq,
    pub(super) txid: TxnId,
    pub(super) at: Mono,
    /// Notes per bay that had reached the exit before.
    pub(super) before: BTreeMap<u8, u64>,
}

type Queue<T> = Arc<Mutex<VecDeque<T>>>;

fn drain<T>(queue: &Queue<T>) -> VecDeque<T> {
    std::mem::take(&mut *queue.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What the vault says, until the world takes it.
#[derive(Clone, Default)]
pub(super) struct Ports {
    pub(super) acceptor: Queue<AcceptorCommand<ByJournal>>,
    pub(super) dispenser: Queue<DispenserCommand<ByJournal>>,
    pub(super) printer: Queue<PrinterCommand>,
    net: Queue<ToNet>,
}

struct Out(Queue<ToNet>);

impl Outlet for Out {
    fn send(&self, message: ToNet) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
    }

    fn cut(&self) {}
}

/// The world.
pub(super) struct World {
    pub(super) now: Mono,
    /// The system's clock, as the vault may ask for it.
    pub(super) wall: Arc<AtomicU64>,
    /// How far it is off, in seconds.
    pub(super) wall_off: i64,
    pub(super) chance: SplitMix64,
    /// The vault's own chance, so that a change of the world leaves its ids alone.
    pub(super) vaults_chance: SplitMix64,
    pub(super) acceptor: Line<AcceptorCommand<ByJournal>, AcceptorEvent>,
    pub(super) dispenser: Line<DispenserCommand<ByJournal>, DispenserEvent>,
    pub(super) printer: Line<PrinterCommand, PrinterEvent>,
    pub(super) ports: Ports,
    inbox: VecDeque<Event>,
    agenda: BTreeMap<(Mono, u64), Thing>,
    number: u64,
    pub(super) bounds: Bounds,
    pub(super) net: Net,
    pub(super) service: Service,
    pub(super) crowd: Crowd,
    pub(super) operator: Operator,
    pub(super) deaths: Deaths,
    pub(super) rates: Rates,
    pub(super) trace: Trace,
    /// Faults are over, no new customer comes.
    pub(super) quiet: bool,
    /// When all has come to rest, or should have.
    pub(super) over: bool,
    /// Transactions that somebody brought to the machine in this run of the vault.
    pub(super) touched: BTreeSet<TxnId>,
    /// All that were ever seen.
    pub(super) known: BTreeSet<TxnId>,
    /// Claim codes that were typed in this run of the vault.
    pub(super) typed: BTreeSet<ClaimHash>,
    pub(super) told: Vec<Told>,
    /// Notes that the acceptor was told to stack.
    pub(super) stacks: u64,
    /// The transaction of the intent that was written last.
    pub(super) intent_of: Option<TxnId>,
    /// Somebody with the PIN has asked for a test of the dispenser.
    pub(super) testing: bool,
    /// What must never happen, where it did.
    pub(super) broken: Vec<String>,
    /// The next flush takes so long, in milliseconds.
    pub(super) slow_disk: u64,
    /// What the devices do after a death, in a world without chance.
    pub(super) device_after: Answer,
    /// Whether a device had a part in what was under way when the vault last died.
    pub(super) device_played: bool,
    /// Whether the dispenser owes an answer.
    pub(super) answer_owed: bool,
    /// What goes wrong in a world without chance, as soon as this effect of this state was told.
    pub(super) then: Option<Then>,
}

impl World {
    pub(super) fn new(seed: u64, rates: Rates) -> Self {
        let mut chance = SplitMix64::new(seed);
        let vaults_chance = SplitMix64::new(chance.next_u64());
        let parts = rates.parts;
        Self {
            now: Mono(1_000),
            wall: Arc::new(AtomicU64::new(EPOCH)),
            wall_off: 0,
            acceptor: Line::new(parts.validator(rates.options), chance.next_u64(), rates.cable),
            dispenser: Line::new(parts.giver(), chance.next_u64(), rates.cable),
            printer: Line::new(parts.press(), chance.next_u64(), rates.cable),
            deaths: Deaths::new(chance.next_u64(), rates.deaths),
            chance,
            vaults_chance,
            ports: Ports::default(),
            inbox: VecDeque::new(),
            agenda: BTreeMap::new(),
            number: 0,
            bounds: Bounds::new(Mono(1_000), rates.minutes),
            net: Net::default(),
            service: Service::new(),
            crowd: Crowd::default(),
            operator: Operator::default(),
            rates,
            trace: Trace::default(),
            quiet: false,
            over: false,
            touched: BTreeSet::new(),
            known: BTreeSet::new(),
            typed: BTreeSet::new(),
            told: Vec::new(),
            stacks: 0,
            intent_of: None,
            testing: false,
            broken: Vec::new(),
            slow_disk: 0,
            device_after: Answer::Truthful,
            device_played: false,
            answer_owed: false,
            then: None,
        }
    }

    /// What the service's clock shows.
    pub(super) fn unix(&self) -> Unix {
        Unix(EPOCH.saturating_add(self.now.0 / 1_000))
    }

    /// What the machine's own clock shows.
    pub(super) fn machine_unix(&self) -> Unix {
        let unix = self.unix().0;
        Unix(unix.saturating_add_signed(self.wall_off))
    }

    /// A number from `least` up to `most`.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least.saturating_add(self.chance.below(most.saturating_sub(least).saturating_add(1)))
    }

    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.chance.chance(percent.saturating_mul(10_000))
    }

    /// `thing` happens in so many milliseconds.
    pub(super) fn plan(&mut self, ms: u64, thing: Thing) {
        self.number = self.number.saturating_add(1);
        self.agenda.insert((self.now.after(ms), self.number), thing);
    }

    /// A vault starts.
    pub(super) fn start_vault(&mut self) {
        self.ports = Ports::default();
        self.inbox.clear();
        self.touched.clear();
        self.typed.clear();
        (self.intent_of, self.testing) = (None, false);
        self.net.begin_anew();
        self.crowd.page_is_gone();
        let wait = self.between(5, 400);
        self.plan(wait, Thing::Join);
        self.trace.line(self.now, || "vault starts".to_owned());
    }

    /// It ended, somehow.
    pub(super) fn end_vault(&mut self) {
        self.acceptor.close();
        self.dispenser.close();
        self.printer.close();
        self.inbox.clear();
        drain(&self.ports.net);
        self.net.cut();
        self.crowd.page_is_gone();
        self.trace.line(self.now, || "vault ends".to_owned());
    }

    pub(super) fn heard_acceptor(
        &mut self,
        events: Vec<bitspire_hardware::acceptor::AcceptorEvent>,
    ) {
        for event in events {
            self.trace.line(self.now, || format!("acceptor {event:?}"));
            self.inbox.push_back(Event::Acceptor(event));
        }
    }

    pub(super) fn heard_dispenser(&mut self, events: Vec<DispenserEvent>) {
        for event in events {
            self.trace.line(self.now, || format!("dispenser {event:?}"));
            if let DispenserEvent::Dispensed(_) = event {
                self.answer_owed = false;
            }
            self.inbox.push_back(Event::Dispenser(event));
        }
    }

    pub(super) fn heard_printer(&mut self, events: Vec<PrinterEvent>) {
        for event in events {
            self.trace.line(self.now, || format!("printer {event:?}"));
            self.inbox.push_back(Event::Printer(event));
        }
    }

    pub(super) fn put(&mut self, event: Event) {
        self.inbox.push_back(event);
    }

    /// What the vault has said since it last waited goes its way.
    pub(super) fn take_what_was_said(&mut self) {
        for command in drain(&self.ports.acceptor) {
            if let AcceptorCommand::Stack(_) = &command {
                self.stacks = self.stacks.saturating_add(1);
                self.trace.line(self.now, || "told to stack".to_owned());
            }
            let events = self.acceptor.command(command, self.now);
            self.heard_acceptor(events);
        }
        for command in drain(&self.ports.dispenser) {
            if let DispenserCommand::Dispense(proof) = &command {
                self.told_to_dispense(proof.seq(), proof.as_ref());
            }
            let events = self.dispenser.command(command, self.now);
            self.heard_dispenser(events);
        }
        for command in drain(&self.ports.printer) {
            let events = self.printer.command(command, self.now);
            self.heard_printer(events);
        }
        for message in drain(&self.ports.net) {
            self.net_hears(message);
        }
    }

    /// Goes on until something reaches the vault, or until then.
    pub(super) fn advance(&mut self, until: Mono) -> Next {
        loop {
            self.step();
            self.take_what_was_said();
            if self.deaths.is_due(self.now) {
                return Next::Halt;
            }
            if let Some(event) = self.inbox.pop_front() {
                self.deaths.answered(&event, self.now);
                if self.deaths.on_event(&event) {
                    return Next::Halt;
                }
                return Next::Event(event);
            }
            let next = self.next_at().filter(|at| *at <= until);
            let next = next.or(self.deaths.at().filter(|at| *at <= until));
            let Some(at) = next else {
                self.now = self.now.max(until);
                return Next::Due;
            };
            self.now = self.now.max(at);
            self.happen();
        }
    }

    /// Time without a vault.
    pub(super) fn let_pass(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.step();
            self.now = self.now.max(at);
            self.happen();
        }
        self.now = self.now.max(end);
        self.inbox.clear();
    }

    /// One more thing happens: a world that has no end has one here.
    fn step(&mut self) {
        let Err(why) = self.bounds.step(self.now) else { return };
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        panic!(
            "{why} (due next: acceptor {:?}, dispenser {:?}, printer {:?}, others {agenda:?}; to be \
             heard by the vault: {})",
            self.acceptor.wake_at(),
            self.dispenser.wake_at(),
            self.printer.wake_at(),
            self.inbox.len(),
        );
    }

    fn next_at(&self) -> Option<Mono> {
        let first = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let devices = [self.acceptor.wake_at(), self.dispenser.wake_at(), self.printer.wake_at()];
        devices.into_iter().chain([first]).flatten().min()
    }

    fn happen(&mut self) {
        let now = self.now;
        if self.acceptor.wake_at().is_some_and(|at| at <= now) {
            let events = self.acceptor.turn(now);
            self.heard_acceptor(events);
        }
        if self.dispenser.wake_at().is_some_and(|at| at <= now) {
            let events = self.dispenser.turn(now);
            self.heard_dispenser(events);
        }
        if self.printer.wake_at().is_some_and(|at| at <= now) {
            let events = self.printer.turn(now);
            self.heard_printer(events);
        }
        while self.agenda.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            if let Some((_, thing)) = self.agenda.pop_first() {
                self.comes(thing);
            }
        }
    }

    fn comes(&mut self, thing: Thing) {
        match thing {
            Thing::Join => self.join(),
            Thing::Asked(id) => self.asked(id),
            Thing::Answered(id, event, envelope) => self.answered(id, event, envelope),
            Thing::AskAgain(id) => self.ask_again(id),
            Thing::Pushed(event, envelope) => self.pushed(event, envelope),
            Thing::Seen(screen) => self.act(CustomerAction::Seen { screen }),
            Thing::Look => self.look(),
            Thing::Pay(hash, sats) => self.pay(hash, sats),
            Thing::Claim(id) => self.claim(id),
            Thing::Draw(id) => self.draw(id),
            Thing::Operate => self.operate(),
            Thing::Break(fault) => self.goes_wrong(fault),
            Thing::Mend(fault) => self.put_right(fault),
            Thing::Quiet => self.be_quiet(),
        }
    }

    fn join(&mut self) {
        let peer = Peer { role: Role::Net, out: Box::new(Out(Arc::clone(&self.ports.net))) };
        let id = self.net.join();
        self.inbox.push_back(Event::Joined(id, peer));
        self.tell_state();
        if !self.crowd.looks {
            self.crowd.looks = true;
            self.plan(500, Thing::Look);
        }
    }

    /// How `net` finds the way to the service.
    pub(super) fn tell_state(&mut self) {
        let relays = u32::from(!self.net.parted);
        let bunker = BunkerState::Ready;
        let state = NetState { relays, bunker, session: true, bunker_trouble: None };
        self.say(ToVault::State(state));
    }

    /// `net` says something, if it is there.
    pub(super) fn say(&mut self, message: ToVault) {
        if let Some(id) = self.net.id() {
            self.inbox.push_back(Event::Said(id, Box::new(message)));
        }
    }

    /// Somebody touches the screen.
    pub(super) fn act(&mut self, action: CustomerAction) {
        if !matches!(action, CustomerAction::Seen { .. }) {
            self.trace.line(self.now, || format!("customer {action:?}"));
        }
        if let CustomerAction::ClaimCode { code } | CustomerAction::GiveBack { code } = &action
            && let Ok(code) = code.expose().parse::<ClaimCode>()
        {
            self.typed.insert(code.hash());
        }
        self.say(ToVault::Customer(action));
    }

    /// An event of the service, now.
    pub(super) fn event(&mut self) -> Box<nostr::Event> {
        let nonce: [u8; 8] = bytes(&mut self.chance);
        let event = EventBuilder::new(
            Kind::from(bitspire_shared::rpc::KIND),
            bitspire_shared::ids::to_hex(&nonce),
        )
        .tag(Tag::public_key(self.service.parties.spire.public_key()))
        .custom_created_at(Timestamp::from(self.unix().0))
        .sign_with_keys(&self.service.parties.service);
        Box::new(event.expect("the service's key signs"))
    }

    /// The service pushes something.
    pub(super) fn push(&mut self, push: &str, body: Value) {
        let id: [u8; 16] = bytes(&mut self.chance);
        let push_id = bitspire_shared::ids::to_hex(&id);
        let envelope = json!({ "push": push, "push_id": push_id, "body": body });
        let event = self.event();
        self.trace.line(self.now, || format!("push {push}"));
        self.over_the_relay(|_| Thing::Pushed(event.clone(), envelope.clone()));
    }

    pub(super) fn spire(&self) -> bitspire_shared::ids::PubKey {
        public(&self.service.parties.spire)
    }
}
