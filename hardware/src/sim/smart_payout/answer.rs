//! What the device answers to each command.

use super::out::Kind;
use super::*;
use crate::frame::ssp::{Counted, How, Request, Setup, Status, UNIT_SMART_PAYOUT, write_levels};

/// The newest protocol version that it speaks.
const PROTOCOL: u8 = 8;
const FIRMWARE: [u8; 4] = *b"0433";

/// Why a payout cannot be.
const NOT_ENOUGH: u8 = 1;
const NOT_EXACT: u8 = 2;
const BUSY: u8 = 3;
const DISABLED: u8 = 4;

type Answer = Result<Vec<u8>, (Status, Option<u8>)>;

const fn cannot(why: u8) -> (Status, Option<u8>) {
    (Status::CannotProcess, Some(why))
}

fn when(done: bool) -> Answer {
    if done { Ok(Vec::new()) } else { Err((Status::CannotProcess, None)) }
}

impl SmartPayoutSim {
    pub(super) fn obey(&mut self, request: &Request<'_>, sealed: bool, now: Mono) -> Vec<u8> {
        let answer = if request.needs_keys() && !sealed {
            Err((Status::KeyNotSet, None))
        } else {
            self.answer(request, now)
        };
        match answer {
            Ok(rest) => [&[Status::Ok.code()][..], &rest].concat(),
            Err((status, why)) => std::iter::once(status.code()).chain(why).collect(),
        }
    }

    fn answer(&mut self, request: &Request<'_>, now: Mono) -> Answer {
        match *request {
            Request::Sync => {}
            Request::Poll => {
                self.accept(now);
                return Ok(self.poll(false));
            }
            Request::PollWithAck => {
                self.accept(now);
                return Ok(self.poll(true));
            }
            Request::EventAck => return when(self.acknowledge()),
            Request::Reject => {
                let waits = matches!(self.phase, Phase::Escrow { .. });
                if waits {
                    self.phase = self.reject(RejectReason::Host, true, now);
                }
                return when(waits);
            }
            Request::Hold => return when(self.hold(now)),
            Request::Reset => {
                self.cut_off();
                self.start(now);
                self.settings = Settings::default();
                self.told.clear();
                self.shown = 0;
                self.link.end_session_after_answer();
            }
            Request::SetInhibits { channels } => self.settings.inhibits = channels,
            Request::Enable => self.settings.enabled = true,
            Request::Disable => self.settings.enabled = false,
            Request::HostProtocol { version } => {
                let newest = if self.options.old_protocol { PROTOCOL - 1 } else { PROTOCOL };
                if !(4..=newest).contains(&version) {
                    return Err((Status::Fail, None));
                }
                self.settings.protocol = version;
            }
            Request::SetupRequest => {
                let mut out = Vec::new();
                let protocol = self.settings.protocol;
                Setup::write(UNIT_SMART_PAYOUT, FIRMWARE, protocol, 100, &self.notes, &mut out);
                return Ok(out);
            }
            Request::Serial => return Ok(vec![self.replaced, 0x12, 0xd6, 0x87]),
            Request::LastReject => return Ok(vec![self.last_reject.code()]),
            Request::Firmware => return Ok(b"NV02004332474000".to_vec()),
            Request::Dataset => {
                let country = self.note(1).country;
                return Ok([&country[..], b"01X21"].concat());
            }
            Request::SetGenerator { generator } => {
                return self.prime(generator, |settings| &mut settings.generator);
            }
            Request::SetModulus { modulus } => {
                return self.prime(modulus, |settings| &mut settings.modulus);
            }
            Request::KeyExchange { public } => {
                let ours = self.exchange(public).ok_or((Status::CannotProcess, None))?;
                return Ok(ours.to_le_bytes().to_vec());
            }
            Request::SetFixedKey { key } => self.fixed = FixedKey::new(key.0),
            Request::ResetFixedKey => self.fixed = FixedKey::default(),
            Request::EnablePayout { .. } => {
                if self.trouble.is_some() {
                    return Err(cannot(5));
                }
                self.settings.payout_on = true;
            }
            Request::DisablePayout => self.settings.payout_on = false,
            Request::SetRoute { route, note } => {
                self.known(note)?;
                self.routes.insert(note.value, route);
            }
            Request::GetRoute { note } => {
                self.known(note)?;
                let stores = self.routes.get(&note.value) == Some(&Route::Store);
                return Ok(vec![u8::from(!stores)]);
            }
            Request::SetLevel { number, note } => {
                self.known(note)?;
                self.levels.insert(note.value, number);
            }
            Request::GetLevel { note } => {
                self.known(note)?;
                let level = self.levels.get(&note.value).copied().unwrap_or(0);
                return Ok(level.to_le_bytes().to_vec());
            }
            Request::AllLevels => return self.all_levels(),
            Request::CashboxData => {
                let country = self.note(1).country;
                let moved = self.moved.iter();
                let moved: Vec<_> =
                    moved.map(|(value, n)| (*n, Money { value: *value, country })).collect();
                let mut out = Vec::new();
                write_levels(&moved, &mut out);
                // notes of an unknown kind
                out.extend([0; 4]);
                return Ok(out);
            }
            Request::Halt => return when(self.halt_out()),
            Request::Payout { amount, how } => {
                let notes = self.exactly(amount.value).ok_or(cannot(NOT_EXACT))?;
                return self.order(Kind::Pay, notes, how, now);
            }
            Request::Float { amount, how, .. } => {
                let levels = self.levels.iter();
                let all: u32 = levels.map(|(value, n)| value.saturating_mul((*n).into())).sum();
                let gone = all.checked_sub(amount.value).ok_or(cannot(NOT_ENOUGH))?;
                let notes = self.exactly(gone).ok_or(cannot(NOT_EXACT))?;
                return self.order(Kind::Float, notes, how, now);
            }
            Request::PayoutByDenomination { notes, how } => {
                let notes = self.by_channel(&notes)?;
                return self.order(Kind::Pay, notes, how, now);
            }
            Request::FloatByDenomination { notes, how } => {
                let mut gone = self.everything();
                for (channel, stay) in self.by_channel(&notes)? {
                    let held = gone.entry(channel).or_default();
                    *held = held.checked_sub(stay).ok_or(cannot(NOT_ENOUGH))?;
                }
                return self.order(Kind::Float, gone, how, now);
            }
            Request::SmartEmpty => {
                return self.order(Kind::SmartEmpty, self.everything(), How::Real, now);
            }
            Request::Empty => return self.order(Kind::Empty, self.everything(), How::Real, now),
            Request::Unknown { raw } => {
                let code = raw.first().copied().unwrap_or(0);
                // a command of ours with other parameters
                let known = Request::parse(&[code]) == Request::Unknown { raw: &[code] };
                return Err((
                    if known { Status::UnknownCommand } else { Status::Parameters },
                    None,
                ));
            }
        }
        Ok(Vec::new())
    }

    fn prime(&mut self, prime: u64, of: fn(&mut Settings) -> &mut Option<u64>) -> Answer {
        if prime < 3 || prime.is_multiple_of(2) {
            return Err((Status::OutOfRange, None));
        }
        *of(&mut self.settings) = Some(prime);
        Ok(Vec::new())
    }

    fn known(&self, note: Money) -> Result<u8, (Status, Option<u8>)> {
        self.channel(note).ok_or((Status::OutOfRange, None))
    }

    fn by_channel(&self, notes: &Counted) -> Result<BTreeMap<u8, u16>, (Status, Option<u8>)> {
        notes.iter().map(|(number, note)| Ok((self.known(note)?, number))).collect()
    }

    /// All that is in the store, by the levels.
    fn everything(&self) -> BTreeMap<u8, u16> {
        let notes = (1..).zip(&self.notes);
        notes
            .filter_map(|(channel, note)| {
                Some((channel, self.levels.get(&note.value).copied().filter(|n| *n > 0)?))
            })
            .collect()
    }

    /// Notes of the store that are worth so much, the largest first.
    fn exactly(&self, mut value: u32) -> Option<BTreeMap<u8, u16>> {
        let mut notes = BTreeMap::new();
        for (channel, held) in self.everything().into_iter().rev() {
            let worth = self.note(channel).value;
            let number = value.checked_div(worth)?.min(u32::from(held));
            value = value.saturating_sub(number.saturating_mul(worth));
            notes.insert(channel, u16::try_from(number).ok()?);
        }
        (value == 0).then_some(notes)
    }

    fn order(&mut self, kind: Kind, notes: BTreeMap<u8, u16>, how: How, now: Mono) -> Answer {
        if !self.settings.payout_on {
            return Err(cannot(DISABLED));
        }
        if self.phase != Phase::Idle {
            return Err(cannot(BUSY));
        }
        let held = self.everything();
        let enough =
            |(channel, notes): (&u8, &u16)| held.get(channel).copied().unwrap_or(0) >= *notes;
        if !notes.iter().all(enough) {
            return Err(cannot(NOT_ENOUGH));
        }
        if how == How::Real {
            self.begin_out(kind, notes, now);
            if let Some(code) = self.odd_order.take() {
                return Err((Status::from_code(code), None));
            }
        }
        Ok(Vec::new())
    }

    fn all_levels(&mut self) -> Answer {
        self.levels_asked = self.levels_asked.wrapping_add(1);
        if self.options.flaky_levels && self.levels_asked.is_multiple_of(2) {
            return Err((Status::CannotProcess, None));
        }
        let level = |note: &Money| (self.levels.get(&note.value).copied().unwrap_or(0), *note);
        let levels: Vec<_> = self.notes.iter().map(level).collect();
        let mut out = Vec::new();
        write_levels(&levels, &mut out);
        Ok(out)
    }

    /// What a poll tells.
    fn poll(&mut self, with_ack: bool) -> Vec<u8> {
        let mut events = Vec::new();
        let mut tell = |code: EventCode| events.push(code.code());
        if !std::mem::replace(&mut self.settings.reset_told, true) {
            tell(EventCode::Reset);
        }
        if self.cashbox_out {
            tell(EventCode::CashboxRemoved);
        }
        if self.cashbox_full {
            tell(EventCode::CashboxFull);
        }
        if let Some(trouble) = self.trouble {
            tell(trouble.code);
        }
        if !self.settings.enabled {
            tell(EventCode::Disabled);
        }
        if self.settings.inhibits == 0 {
            tell(EventCode::ChannelsDisabled);
        }
        match &mut self.phase {
            Phase::Starting { .. } => {
                if self.options.says_starting {
                    tell(EventCode::Initialising);
                }
                return events;
            }
            Phase::Reading { .. } => events.extend([EventCode::Read.code(), 0]),
            Phase::Escrow { channel, told, .. } => {
                *told = true;
                events.extend([EventCode::Read.code(), *channel]);
            }
            Phase::Stacking { .. } => tell(EventCode::Stacking),
            Phase::Rejecting { .. } => tell(EventCode::Rejecting),
            _ => {}
        }
        events.extend(self.out_events());
        // nobody can say how long it is, so it hides what comes behind it
        let mut extra = self.extra_code;
        for event in &self.pending {
            events.extend(event);
            events.extend(extra.take());
        }
        if with_ack {
            self.shown = self.pending.len();
        } else {
            self.pending.clear();
        }
        events.append(&mut self.told);
        events.extend(extra);
        events
    }

    fn acknowledge(&mut self) -> bool {
        let shown = self.shown.min(self.pending.len());
        self.shown = 0;
        for event in self.pending.drain(..shown) {
            let credit = event.first() == Some(&EventCode::Credit.code());
            self.tally.acknowledged = self.tally.acknowledged.saturating_add(credit.into());
        }
        shown > 0
    }
}
