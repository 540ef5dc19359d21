//! Who the device is, and what it was told: identity, note table, note inhibits, the inlet.
//!
//! Every poll carries the inlet (D0). Where notes are reported at length, D0 only opens and closes,
//! and which notes are taken is set before it opens.

use super::*;
use crate::frame::ebds::{NoteReport, ValueTable, bits};

/// What is asked of it, in this order.
const QUESTIONS: [Query; 4] =
    [Query::Type, Query::ApplicationPart, Query::VariantName, Query::Serial];
/// The last index of the longest note table.
const LAST_NOTE: u8 = 128;
/// Opens the inlet where notes are reported at length.
const ANY_NOTE: u8 = 0x7f;
/// Before a device that does not tell its notes is asked again.
const TABLE_AGAIN_MS: u64 = 5_000;
/// How long the device may take to follow before its own view of the inlet is told.
const INLET_SETTLES_MS: u64 = 2_000;
/// The notes of a USD unit that has no table to tell.
const USD: [(u8, u32); 7] = [(1, 1), (2, 2), (3, 5), (4, 10), (5, 20), (6, 50), (7, 100)];

/// What the device was asked and told since it came up.
#[derive(Default)]
pub(super) struct Setup {
    /// How many of [`QUESTIONS`] are done.
    asked: usize,
    texts: Vec<String>,
    /// The device does not report notes at length.
    short: bool,
    notes: Vec<(u8, Denomination, Currency)>,
    /// How many entries of the table were told, and whether that is all.
    told: u8,
    complete: bool,
    table_after: Mono,
    identified: bool,
    /// It takes the long form of the inhibits.
    long: bool,
    inhibits: Option<NoteSet>,
    /// It takes no inhibits: every note comes to escrow, and goes back from there.
    inhibits_refused: bool,
    /// The inlet as the last poll had it, and since when.
    inlet: Option<u8>,
    inlet_since: Mono,
    complaint: Option<&'static str>,
}

impl Setup {
    /// It starts again and has forgotten what it was told.
    pub(super) const fn on_reset(&mut self) {
        self.inhibits = None;
        self.inlet = None;
    }

    pub(super) const fn state_changed(&mut self) {
        self.table_after = Mono(0);
    }

    pub(super) const fn inlet_changed(&mut self) {
        self.inhibits_refused = false;
    }

    pub(super) const fn failed(&self) -> bool {
        self.complaint.is_some()
    }

    pub(super) const fn is_at_length(&self) -> bool {
        !self.short
    }

    /// It does report notes at length.
    pub(super) const fn is_sure_of_length(&self) -> bool {
        self.complete && !self.short
    }

    /// The note of a value index, where notes are not reported at length.
    pub(super) fn note(&self, index: u8) -> Option<(Denomination, Currency)> {
        let known = self.notes.iter().filter(|_| self.short).find(|(i, ..)| *i == index);
        known.map(|(_, denomination, currency)| (*denomination, *currency))
    }

    pub(super) fn answer(&mut self, query: Query, text: &[u8]) {
        let printable = text.iter().take_while(|byte| byte.is_ascii_graphic() || **byte == b' ');
        let text: String = printable.copied().map(char::from).collect();
        let text = text.trim();
        if !text.is_empty() {
            let serial = if query == Query::Serial { "serial " } else { "" };
            self.texts.push(format!("{serial}{text}"));
        }
        self.asked = self.asked.saturating_add(1);
    }

    /// One entry of the note table; the first blank one ends it.
    pub(super) fn entry(&mut self, index: u8, note: &NoteReport) {
        self.told = index;
        self.complete = note.is_blank() || index >= LAST_NOTE;
        self.complaint = None;
        // a note that we cannot name is never enabled
        self.notes.extend(note.note().map(|(denomination, own)| (index, denomination, own)));
    }

    pub(super) fn table(&mut self, table: &ValueTable<'_>) {
        self.notes = table.notes().map(|(index, (d, c))| (index, d, c)).collect();
        self.complete = true;
        self.complaint = None;
    }

    /// Every unit of the United States has the same indexes.
    fn usual_table(&mut self, currency: Currency) {
        let notes = USD.into_iter().filter_map(|(index, major)| {
            Some((index, Denomination::from_major(major, currency).ok()?, currency))
        });
        self.notes = notes.collect();
        self.complete = true;
    }

    /// The last poll has closed the inlet.
    pub(super) fn is_closed(&self) -> bool {
        self.inlet == Some(0)
    }

    pub(super) const fn inhibits_set(&mut self, notes: NoteSet) {
        self.inhibits = Some(notes);
    }

    /// A poll with this inlet was understood.
    pub(super) fn carried(&mut self, inlet: u8, now: Mono) {
        if self.inlet.replace(inlet) != Some(inlet) {
            self.inlet_since = now;
        }
    }

    fn wanted(&self, wanted: &BTreeSet<Denomination>, currency: Currency) -> NoteSet {
        let mut set = NoteSet::default();
        let own = self.notes.iter().filter(|(_, d, c)| *c == currency && wanted.contains(d));
        own.for_each(|(index, ..)| set.insert(*index));
        set
    }

    /// D0 that takes only these notes, or nothing as long as it would take others.
    fn inlet(&self, set: NoteSet) -> u8 {
        if !self.complete || set == NoteSet::default() {
            return 0;
        }
        if self.short {
            let enabled = (1..=7u8).zip((0..7).map(|bit| 1u8 << bit));
            return enabled.filter(|(i, _)| set.contains(*i)).fold(0, |all, (_, bit)| all | bit);
        }
        let ready = self.inhibits == Some(set) || self.inhibits_refused;
        if ready { ANY_NOTE } else { 0 }
    }
}

impl<A: Authority> Ebds<A> {
    fn wanted_set(&self) -> NoteSet {
        self.setup.wanted(&self.wanted, self.settings.currency)
    }

    pub(super) fn inlet(&self) -> u8 {
        self.setup.inlet(self.wanted_set())
    }

    /// What is still to be asked or set, here and now.
    pub(super) fn setting(&self, now: Mono) -> Option<Ask> {
        let setup = &self.setup;
        if let Some(question) = QUESTIONS.get(setup.asked) {
            return Some(Ask::Query(*question));
        }
        if !setup.complete {
            let ask =
                if setup.short { Ask::Table } else { Ask::Note(setup.told.saturating_add(1)) };
            return (setup.table_after <= now).then_some(ask);
        }
        let set = self.wanted_set();
        let due = !setup.short
            && !setup.inhibits_refused
            && set != NoteSet::default()
            && setup.inhibits != Some(set)
            && setup.is_closed();
        due.then_some(Ask::Inhibits(set, setup.long))
    }

    /// No answer, or one that says that the device does not know the question.
    pub(super) fn setting_refused(&mut self, ask: Ask, now: Mono) {
        let setup = &mut self.setup;
        match ask {
            Ask::Query(_) => setup.asked = setup.asked.saturating_add(1),
            Ask::Note(1) => setup.short = true,
            Ask::Note(_) => setup.complete = true,
            Ask::Table if self.settings.currency.code() == "USD" => {
                setup.usual_table(self.settings.currency);
            }
            Ask::Table => {
                // from the beginning: perhaps it was only the cable
                (setup.short, setup.told) = (false, 0);
                setup.notes.clear();
                setup.table_after = now.after(TABLE_AGAIN_MS);
                setup.complaint = Some("the device does not tell its notes");
            }
            Ask::Inhibits(_, false) => setup.long = true,
            Ask::Inhibits(_, true) => setup.inhibits_refused = true,
            Ask::Poll | Ask::Again | Ask::Stack | Ask::Return | Ask::Reset => {}
        }
        if let Some(complaint) = self.setup.complaint {
            self.fail(FaultKind::ServiceNeeded, complaint.to_owned());
        }
        self.identify();
    }

    /// Tells who the device is, once all answers are there.
    pub(super) fn identify(&mut self) {
        let setup = &mut self.setup;
        if setup.asked < QUESTIONS.len()
            || !setup.complete
            || std::mem::replace(&mut setup.identified, true)
        {
            return;
        }
        let notes = setup.notes.iter().map(|(_, d, c)| (*d, *c)).collect();
        let mut version = setup.texts.join(" ");
        if let Some(Status { model, revision, .. }) = self.seen {
            let space = if version.is_empty() { "" } else { ", " };
            version.push_str(&format!("{space}model {model:02X} revision {revision:02X}"));
        }
        self.tell(AcceptorEvent::Identified { version, notes });
    }

    /// Tells whether the inlet is open, once the device is set up and does what it was told.
    pub(super) fn tell_inlet(&mut self, status: Status, now: Mono) {
        if !self.idles(status) || self.holds_the_word() {
            return;
        }
        let setup = &self.setup;
        let inlet = self.inlet();
        let wanted = self.wanted_set() != NoteSet::default();
        let open = inlet != 0 && status.misc & bits::DISABLED == 0;
        let settled = now.since(setup.inlet_since) >= INLET_SETTLES_MS;
        let done = setup.identified
            && setup.inlet == Some(inlet)
            && (inlet != 0) == wanted
            && (open == wanted || settled);
        // a fault is over before the device is called well
        let well = done && self.fault.is_none();
        if (well || setup.failed()) && self.told_open != Some(open) {
            self.told_open = Some(open);
            self.tell(if open { AcceptorEvent::Accepting } else { AcceptorEvent::Closed });
        }
    }
}
