//! What the device answers.

use super::path::{Place, TroubleKind};
use super::*;
use crate::frame::ebds::{Query, Reply, Request, ValueTable, bits};

impl EbdsSim {
    pub(super) fn on_frame(&mut self, frame: &Frame, now: Mono, out: &mut Vec<u8>) {
        if self.mishaps.is_deaf() {
            return;
        }
        if self.status().is_none() {
            return;
        }
        let toggle = frame.toggle();
        let again = self.last.filter(|(last, _)| *last == toggle);
        if let Some((_, answer)) = again.filter(|_| self.options.repeats) {
            return self.send(&answer, out);
        }
        if again.is_none() {
            self.is_heard();
            let request = Request::parse(frame);
            if request == Request::SoftReset {
                // without its cashbox it stays as it is
                if !matches!(self.phase, Phase::Open(_)) {
                    self.boot(self.left_behind(), now);
                }
                return;
            }
            self.obey(&request, now);
        }
        let answer = self.answer(&Request::parse(frame), toggle);
        self.last = Some((toggle, answer));
        self.send(&answer, out);
    }

    /// A new message shows that the answer before it was heard.
    fn is_heard(&mut self) {
        if self.told.take().is_some() {
            self.tally.acknowledged = self.tally.acknowledged.saturating_add(1);
            if let Phase::Open(inside) | Phase::Halted(inside) = &mut self.phase {
                *inside = inside.filter(|inside| inside.place != Place::Untold);
            }
        }
        self.power_up = self.power_up.saturating_sub(u8::from(self.last.is_some()));
        self.invalid = false;
    }

    fn obey(&mut self, request: &Request<'_>, now: Mono) {
        self.last_poll = now;
        match request {
            Request::Omnibus(own) => {
                self.own = *own;
                self.own.extended &= self.options.extended;
            }
            // a unit that does not report at length does not know these
            Request::NoteSpecification(..) | Request::NoteInhibits(..)
                if !self.options.extended =>
            {
                self.invalid = true;
            }
            Request::NoteInhibits(_, notes, long) => {
                self.invalid = *long != self.options.long_inhibits;
                if !self.invalid {
                    self.inhibits = Some(*notes);
                }
            }
            Request::Unknown { .. } => self.invalid = true,
            _ => {}
        }
        if let (Request::Omnibus(own), Phase::Escrow { index }) = (request, self.phase) {
            self.phase = match (own.stack, own.give_back) {
                (true, false) => self.stacking(index, self.options.says_value, now),
                (false, true) => self.give_back(index, true, now),
                _ => self.phase,
            };
        }
    }

    fn answer(&mut self, request: &Request<'_>, toggle: bool) -> Frame {
        if let Some(Trouble { kind: TroubleKind::Code(code), .. }) = self.trouble {
            return Frame::new(3, toggle, &[code]);
        }
        let status = self.status().unwrap_or_default();
        match request {
            Request::Query(query) => {
                let mut text = answer_to(*query).to_vec();
                text.resize(text.len().max(9), 0);
                return Reply::Answer(&text).frame(toggle);
            }
            Request::NoteSpecification(_, index) if self.options.extended => {
                let report = self.report(*index).unwrap_or(NoteReport::BLANK);
                return Reply::Note(status, report).frame(toggle);
            }
            Request::ValueTable(_) if !self.at_length() => {
                let table = ValueTable::bytes(&self.table);
                let mut data = vec![0x06];
                data.extend(status.bytes());
                data.extend(table);
                return Frame::new(7, toggle, &data);
            }
            _ => {}
        }
        self.tell(status, toggle)
    }

    /// The state with what is said once, and the note's value where there is one to tell.
    fn tell(&mut self, mut status: Status, toggle: bool) -> Frame {
        let once = std::mem::take(&mut self.once);
        let mut first = false;
        let mut note = match self.phase {
            Phase::Escrow { index } if !self.reported || !self.options.reports_once => {
                first = !std::mem::replace(&mut self.reported, true);
                self.report(self.misread.unwrap_or(index))
            }
            _ => None,
        };
        if let Some((stacked, value)) = once.stacked {
            status.state |= bits::STACKED;
            self.told = stacked;
            let said = self.misread.take().or(stacked).filter(|_| value);
            note = said.and_then(|index| self.report(index));
        } else if once.returned {
            status.state |= bits::RETURNED;
        }
        if once.rejected {
            status.event |= bits::REJECTED;
        }
        let before = self.stale;
        let lingers = std::mem::replace(&mut self.lingers, once.stacked.is_some());
        let stale = std::mem::replace(&mut self.stale, note.or(before));
        if self.options.stale_value && (first || lingers) {
            note = stale.or(note);
        }
        let Some(report) = note else { return Reply::Status(status).frame(toggle) };
        if self.at_length() {
            Reply::Note(status, self.classified(report)).frame(toggle)
        } else {
            status.exception |= (report.index() & 7) << 3;
            Reply::Status(status).frame(toggle)
        }
    }

    fn classified(&self, report: NoteReport) -> NoteReport {
        let Some((denomination, currency)) = report.note() else { return report };
        let base = denomination.major(currency).unwrap_or_default();
        let (base, exponent) = if base >= 200 { (base / 100, 2) } else { (base, 0) };
        let base = u16::try_from(base).unwrap_or_default();
        NoteReport::new(report.index(), currency, (base, exponent), self.class_next)
    }

    pub(super) fn send(&mut self, answer: &Frame, out: &mut Vec<u8>) {
        if !self.mishaps.say(out, |out| answer.write_to(out)) {
            self.power_off();
        }
    }
}

const fn answer_to(query: Query) -> &'static [u8] {
    match query {
        Query::SoftwareCrc => b"\x0a\x0b\x0c\x0d",
        Query::Type => b"SC8307-SIM",
        Query::Serial => b"00424242",
        Query::BootPart => b"28600V101",
        Query::ApplicationPart | Query::ApplicationId => b"28625V205",
        Query::VariantName => b"SIM",
        Query::VariantPart | Query::VariantId => b"49010V305",
        Query::Capabilities => b"\x07\x03\x00",
    }
}
