//! Who the device is, and what it was told since it was last met.

use super::*;
use crate::frame::ssp::{self, Channel, Reply, Route, Status, UNIT_SMART_PAYOUT};

/// The protocol version that is spoken. Before it a note that a start has moved is told without its
/// value, and before 7 an error of a payout without amounts.
const PROTOCOL: u8 = 8;
/// Before a setting that was refused is tried again.
const AGAIN_MS: u64 = 1_000;
/// Before a payout that is out of service is tried again.
const SERVICE_AGAIN_MS: u64 = 5_000;
/// How often a setting is refused before that is a fault.
const REFUSALS: u8 = 5;
/// How often in a row nothing that was encrypted is understood before that is no accident.
const UNREAD: u8 = 2;
/// RESET was taken; the device answers again after this at the earliest.
const RESET_MS: u64 = 1_000;

/// How far the first questions are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Sync,
    /// Whatever waits in escrow goes back: the next poll would accept it.
    Release,
    Close,
    Generator,
    Modulus,
    Exchange,
    Protocol,
    Table,
    Serial,
    Dataset,
    Run,
}

/// What the device was asked and told.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) step: Step,
    /// Nothing is said before.
    pub(super) not_before: Mono,
    channels: Vec<Channel>,
    /// The channels as [`Notes`] wants them.
    coded: Option<Vec<Coded>>,
    firmware: [u8; 4],
    serial: Option<[u8; 4]>,
    identified: bool,
    inhibits: Option<u16>,
    pub(super) enabled: Option<bool>,
    /// The device is not told to take notes again before.
    pub(super) enable_at: Mono,
    pub(super) payout_on: bool,
    routes: BTreeMap<u32, Route>,
    refused: u8,
    complained: bool,
    /// How often in a row keys were agreed on, and what came encrypted with them was not understood.
    unread: u8,
    pub(super) again_at: Mono,
}

impl Setup {
    pub(super) fn table(&self) -> Option<&[Coded]> {
        self.coded.as_deref()
    }

    /// What was told is not known to hold any more.
    fn forget(&mut self) {
        (self.inhibits, self.enabled, self.payout_on) = (None, None, false);
        self.routes.clear();
    }

    /// Somebody wants it tried again at once.
    pub(super) fn ask_again(&mut self) {
        (self.refused, self.complained, self.again_at) = (0, false, Mono(0));
    }

    /// The channel of a note of this value.
    pub(super) fn channel(&self, note: Money) -> Option<u8> {
        self.channels.iter().find(|channel| channel.note == note).map(|channel| channel.number)
    }

    /// One more refusal in a row.
    pub(super) fn count_refusal(&mut self) -> u8 {
        self.refused = self.refused.saturating_add(1);
        self.refused
    }

    pub(super) fn route(&self, value: u32) -> Option<Route> {
        self.routes.get(&value).copied()
    }
}

/// The bit of a channel among the inhibits.
fn bit(channel: u8) -> u16 {
    1u16.checked_shl(u32::from(channel.saturating_sub(1))).unwrap_or(0)
}

impl<A: Authority> SmartPayout<A> {
    /// Begins anew: flags, keys and settings; a movement under way is looked for again.
    pub(super) fn synchronise(&mut self, now: Mono) {
        self.line.clear();
        self.setup.forget();
        self.setup.step = Step::Sync;
        self.setup.not_before = now;
        (self.told_open, self.inlet.out_of_sight) = (None, true);
        self.inlet.escrow = None;
        (self.inlet.ack_due, self.inlet.why_due, self.inlet.calm) = (false, false, false);
        self.recount = true;
        self.set_up_wanted = !self.bays.is_empty();
        if self.set_up_wanted {
            self.unset();
        }
        if let Some(work) = &mut self.work {
            work.moving.out_of_sight(now);
        }
    }

    /// The bays are to be set up; not before a trouble that was told is over.
    pub(super) fn unset(&mut self) {
        self.state.unset();
        if self.in_trouble {
            self.state.set_up_rests();
        }
    }

    /// What the first questions ask next.
    pub(super) fn first_questions(&mut self) -> Option<Request<'static>> {
        let primes = self.settings.primes;
        Some(match self.setup.step {
            Step::Sync => Request::Sync,
            Step::Release => Request::Reject,
            Step::Close => Request::Disable,
            Step::Generator => Request::SetGenerator { generator: primes.generator() },
            Step::Modulus => Request::SetModulus { modulus: primes.modulus() },
            Step::Exchange => Request::KeyExchange { public: self.line.begin_exchange(primes) },
            Step::Protocol => Request::HostProtocol { version: PROTOCOL },
            Step::Table => Request::SetupRequest,
            Step::Serial => Request::Serial,
            Step::Dataset => Request::Dataset,
            Step::Run => return None,
        })
    }

    /// The answer to one of the first questions.
    pub(super) fn on_first_answer(&mut self, reply: &Reply<'_>, now: Mono) {
        let ok = reply.is_ok();
        let step = match self.setup.step {
            Step::Sync if ok => Step::Release,
            // F5 without a note in escrow
            Step::Release if ok || reply.status == Status::CannotProcess => Step::Close,
            Step::Close => Step::Generator,
            Step::Generator if ok => Step::Modulus,
            Step::Modulus if ok => Step::Exchange,
            Step::Exchange if ok => match reply.rest.first_chunk::<8>() {
                Some(theirs) => match self.agree(u64::from_le_bytes(*theirs)) {
                    Ok(()) => Step::Protocol,
                    Err(error) => return self.stuck(error.to_string(), now),
                },
                None => return self.stuck(format!("no key came: {reply}"), now),
            },
            Step::Protocol if ok => {
                self.setup.unread = 0;
                Step::Table
            }
            Step::Protocol => {
                self.setup.unread = 0;
                let why = format!(
                    "expected a unit of protocol version {PROTOCOL}, it refuses that: {reply}; \
                     update its firmware"
                );
                return self.stuck(why, now);
            }
            Step::Table if ok => match self.read_table(reply.rest) {
                Ok(()) => Step::Serial,
                Err(why) => return self.stuck(why, now),
            },
            Step::Serial if ok => {
                self.on_serial(reply.rest, now);
                if self.setup.identified { Step::Run } else { Step::Dataset }
            }
            Step::Dataset => {
                self.identify(reply);
                Step::Run
            }
            step => return self.stuck(format!("{step:?} is refused: {reply}"), now),
        };
        self.setup.step = step;
        if step == Step::Run {
            self.next_poll = now;
        }
    }

    fn agree(&mut self, theirs: u64) -> Result<(), SealError> {
        self.line.finish_exchange(theirs, &self.settings.fixed_key)
    }

    /// The device does not know our keys, or does not answer what is encrypted with them: all begins
    /// anew. Right after the keys were agreed on that comes of a power loss once, and of a fixed key
    /// that is another one each time: both sides then make another key of the same numbers.
    pub(super) fn keys_fail(&mut self, now: Mono) {
        if self.setup.step != Step::Protocol {
            return self.synchronise(now);
        }
        self.setup.unread = self.setup.unread.saturating_add(1);
        if self.setup.unread < UNREAD {
            return self.synchronise(now);
        }
        let why = "the unit agrees on keys and understands nothing that is encrypted with them: its \
                   fixed key is not the one that units are delivered with; set that again with the \
                   maker's tool (which wants the store empty), or fit a unit that has it";
        self.stuck(why.to_owned(), now);
    }

    /// The device does not do what nothing goes without: it is tried again from the beginning.
    fn stuck(&mut self, why: String, now: Mono) {
        self.voice.fail(FaultKind::ServiceNeeded, why);
        self.fault_at = now;
        self.synchronise(now);
        self.state.set_up_rests();
        self.setup.not_before = now.after(AGAIN_MS);
    }

    fn read_table(&mut self, rest: &[u8]) -> Result<(), String> {
        let setup = ssp::Setup::parse(rest)
            .filter(|setup| setup.protocol >= PROTOCOL)
            .ok_or_else(|| format!("the table is not of protocol {PROTOCOL} or above"))?;
        if setup.unit != UNIT_SMART_PAYOUT {
            let unit = setup.unit;
            return Err(format!("expected a unit with a SMART Payout (06), got kind {unit:02X}"));
        }
        self.setup.firmware = setup.firmware;
        self.setup.channels = setup.channels().collect();
        let coded = |channel: &Channel| {
            let (denomination, currency) = channel.note.note()?;
            Some((channel.number, denomination, currency))
        };
        self.setup.coded = Some(self.setup.channels.iter().filter_map(coded).collect());
        Ok(())
    }

    /// Another serial number is another store: what it holds says nothing of the one before.
    fn on_serial(&mut self, rest: &[u8], now: Mono) {
        let Some(serial) = rest.first_chunk::<4>().copied() else { return };
        if self.setup.serial.replace(serial).is_some_and(|before| before != serial) {
            self.setup.identified = false;
            self.cut_off("another unit answers: its serial number has changed", now);
            // nor is what it tells a repetition, or its note that one
            self.inlet.pending.clear();
            self.levels = None;
            self.end_note();
        }
    }

    fn identify(&mut self, reply: &Reply<'_>) {
        self.setup.identified = true;
        let firmware = self.setup.firmware.escape_ascii();
        let serial = u32::from_be_bytes(self.setup.serial.unwrap_or_default());
        let dataset = reply.rest.escape_ascii();
        let version = format!("SMART Payout {firmware}, {dataset}, serial {serial}");
        let table = self.setup.table().unwrap_or_default();
        let notes = table.iter().map(|(_, note, currency)| (*note, *currency)).collect();
        self.voice.tell(AcceptorEvent::Identified { version, notes });
    }

    /// The next setting that the device does not have as it should.
    pub(super) fn setting(&self, now: Mono) -> Option<Request<'static>> {
        if now < self.setup.again_at {
            return None;
        }
        let inhibits = self.wished_inhibits();
        if self.setup.inhibits != Some(inhibits) {
            return Some(Request::SetInhibits { channels: inhibits });
        }
        if self.work.is_some() {
            return None;
        }
        if let Some((route, note)) = self.wished_route() {
            return Some(Request::SetRoute { route, note });
        }
        if !self.setup.payout_on {
            return Some(Request::EnablePayout { options: 0 });
        }
        None
    }

    /// Whether the inlet is to be opened or closed now.
    pub(super) fn wished_inlet(&self, now: Mono) -> Option<Request<'static>> {
        let open = !self.wanted.is_empty();
        // first the bays, if they can be had: a note that comes in must go where it belongs
        if open && self.set_up_wanted && !self.setup.complained && !self.in_trouble {
            return None;
        }
        let due = self.setup.enabled != Some(open) && self.setup.enable_at <= now;
        due.then_some(if open { Request::Enable } else { Request::Disable })
    }

    /// Channels of notes that are wanted; with the inlet closed by DISABLE they stay as they are, for
    /// a unit whose channels are all shut takes its payout out of service.
    fn wished_inhibits(&self) -> u16 {
        let table = self.setup.table();
        let (currency, wanted) = (self.settings.currency, &self.wanted);
        let known = Known { currency, wanted, table };
        let wanted = known.wanted_codes().fold(0, |bits, channel| bits | bit(channel));
        if wanted != 0 {
            return wanted;
        }
        let ours = table.unwrap_or_default().iter().filter(|(.., c)| *c == currency);
        let all = ours.fold(0, |bits, (channel, ..)| bits | bit(*channel));
        self.setup.inhibits.unwrap_or(all)
    }

    /// The next note whose way is another one than it should be.
    fn wished_route(&self) -> Option<(Route, Money)> {
        let ours = self.setup.channels.iter().filter(|c| c.note.country == self.country());
        let mut wished = ours.map(|channel| (self.route_of(channel.note.value), channel.note));
        wished.find(|(route, note)| self.setup.route(note.value) != Some(*route))
    }

    /// Where notes of this value are to go.
    pub(super) fn route_of(&self, value: u32) -> Route {
        let bay = self.bays.values().any(|note| note.minor() == value);
        let level = self.levels.as_ref().and_then(|levels| levels.get(&value)).copied();
        let room = level.unwrap_or(0) < self.settings.notes_per_bay;
        let away = self.inlet.away.is_some_and(|note| note.minor() == value);
        if bay && room && !away { Route::Store } else { Route::Cashbox }
    }

    pub(super) fn routes_are_set(&self) -> bool {
        self.wished_route().is_none()
    }

    /// The answer to a setting.
    pub(super) fn on_setting(&mut self, said: Request<'static>, reply: &Reply<'_>, now: Mono) {
        let ok = reply.is_ok();
        match said {
            Request::SetInhibits { channels } if ok => self.setup.inhibits = Some(channels),
            Request::SetRoute { route, note } if ok => {
                self.setup.routes.insert(note.value, route);
            }
            Request::EnablePayout { .. } if ok => {
                self.setup.payout_on = true;
                self.end_trouble();
            }
            // known, and told
            Request::EnablePayout { .. } if self.in_trouble => {
                self.setup.again_at = now.after(SERVICE_AGAIN_MS);
            }
            Request::Enable | Request::Disable => {
                let open = said == Request::Enable;
                self.setup.enabled = ok.then_some(open);
                self.setup.enable_at = now.after(AGAIN_MS);
                if !ok {
                    self.refused(said, reply, now);
                }
                return;
            }
            // a note that is to go to the cashbox, and cannot be sent there, goes back
            Request::SetRoute { .. } if self.inlet.escrow.is_some() => return self.notes.leave(),
            _ => return self.refused(said, reply, now),
        }
        if ok {
            self.setup.refused = 0;
        }
    }

    fn refused(&mut self, said: Request<'static>, reply: &Reply<'_>, now: Mono) {
        self.setup.again_at = now.after(AGAIN_MS);
        let often = self.setup.count_refusal() >= REFUSALS;
        if often && !std::mem::replace(&mut self.setup.complained, true) {
            self.state.fault(FaultKind::ServiceNeeded, format!("it refuses {said}: {reply}"));
        }
    }

    /// RESET was taken.
    pub(super) fn on_reset_taken(&mut self, now: Mono) {
        self.reset_wanted = false;
        self.synchronise(now);
        self.setup.not_before = now.after(RESET_MS);
        self.setup.ask_again();
    }

    /// Whether bays, routes and payout are as they were asked for.
    pub(super) fn set_up_done(&mut self) {
        let done = self.set_up_wanted
            && self.setup.step == Step::Run
            && self.setup.payout_on
            && !self.recount
            && !self.in_trouble
            && self.routes_are_set();
        if !done {
            return;
        }
        self.set_up_wanted = false;
        let unknown = self.bays.iter().find(|(_, note)| {
            let note = self.money(note.minor());
            self.setup.channel(note).is_none()
        });
        if let Some((bay, note)) = unknown {
            let minor = note.minor();
            let why = format!("bay {bay}: the device knows no note of {minor} minor units");
            return self.state.fault(FaultKind::ServiceNeeded, why);
        }
        let bays = self.bays.keys().copied().collect();
        self.state.set_up(&bays);
        self.mark_empty();
        self.state.ready();
    }
}
