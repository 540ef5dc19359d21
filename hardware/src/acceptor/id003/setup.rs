//! Who the device is, and what it was told: identity, fixed settings, the inlet.
//!
//! Settings go out while the device initialises, when all firmware takes them; a device that takes
//! a change of the inlet at no other time is reset for it.

use super::*;
use crate::frame::id003::{CommMode, Currencies, POWER_RECOVERY};

/// The same for every device: no stricter recognition of single notes, credits repeated after a
/// power loss, all directions, the device speaks only when asked.
const FIXED: [Config; 4] = [
    Config::Security(0),
    Config::Optional(POWER_RECOVERY),
    Config::Direction(0),
    Config::Mode(CommMode::Poll),
];
/// How long INITIALIZE may take to show after RESET was taken.
const RESET_AGAIN_MS: u64 = 3_000;
/// Before the currency table is asked for again.
const TABLE_AGAIN_MS: u64 = 5_000;
/// How soon an inlet setting that the device does not follow is repeated.
const INLET_AGAIN_MS: u64 = 1_000;
/// How long the device may take to follow before its own view of the inlet is told.
const INLET_SETTLES_MS: u64 = 2_000;
/// Resets in a row for settings that are refused outside INITIALIZE.
const RESETS: u8 = 2;
const CLOSED: (u16, bool) = (u16::MAX, true);

/// What the device was asked and told since it came up.
#[derive(Default)]
pub(super) struct Setup {
    reset_done: bool,
    /// RESET was taken then, and INITIALIZE has not been seen since.
    resetting: Option<Mono>,
    resets: u8,
    version: Option<String>,
    version_tries: u8,
    table: Option<Vec<Coded>>,
    table_tries: u8,
    table_after: Mono,
    identified: bool,
    /// How many of [`FIXED`] are done.
    fixed: usize,
    disabled: Option<u16>,
    inhibit: Option<bool>,
    inhibit_at: Mono,
    inlet_refused: bool,
    complaint: Option<&'static str>,
}

impl Setup {
    /// RESET was taken; the device may show its old state for a moment.
    pub(super) fn on_reset(&mut self, now: Mono) {
        self.on_initialize();
        self.resetting = Some(now);
    }

    pub(super) fn on_initialize(&mut self) {
        self.reset_done = true;
        self.resetting = None;
        self.fixed = 0;
        self.disabled = None;
        self.inhibit = None;
        self.inlet_refused = false;
        self.complaint = None;
    }

    pub(super) fn state_changed(&mut self) {
        self.version_tries = 0;
        self.table_tries = 0;
        self.inlet_refused = false;
    }

    pub(super) fn inlet_changed(&mut self) {
        self.resets = 0;
        self.inlet_refused = false;
        self.complaint = None;
    }

    pub(super) const fn needs_reset(&self) -> bool {
        !self.reset_done
    }

    pub(super) fn resetting(&self, now: Mono) -> bool {
        self.resetting.is_some_and(|since| now.since(since) < RESET_AGAIN_MS)
    }

    pub(super) fn table(&self) -> Option<&[Coded]> {
        self.table.as_deref()
    }

    pub(super) const fn failed(&self) -> bool {
        self.complaint.is_some()
    }

    /// What is still to be asked, here and now.
    pub(super) fn identity(&self, now: Mono) -> Option<Ask> {
        if self.version.is_none() && self.version_tries < TRIES {
            return Some(Ask::Version);
        }
        let ask = self.table.is_none() && self.table_tries < TRIES && self.table_after <= now;
        ask.then_some(Ask::Currencies)
    }

    pub(super) fn version(&mut self, text: &[u8]) {
        let printable = text.iter().map(|b| if b.is_ascii_graphic() { *b } else { b' ' });
        self.version = Some(printable.map(char::from).collect::<String>().trim().to_owned());
    }

    pub(super) fn learn(&mut self, table: Currencies<'_>) {
        let notes = table.slots().filter_map(|slot| {
            let (denomination, currency) = slot.note()?;
            Some((slot.code, denomination, currency))
        });
        self.table = Some(notes.collect());
        self.complaint = None;
    }

    fn inlet_is(&self, (disabled, inhibit): (u16, bool)) -> bool {
        self.disabled == Some(disabled) && self.inhibit == Some(inhibit)
    }

    /// The next setting that the device does not have yet.
    fn next(&self, inlet: (u16, bool)) -> Option<Config> {
        if let Some(config) = FIXED.get(self.fixed) {
            return Some(*config);
        }
        if self.inlet_refused || self.inlet_is(inlet) {
            return None;
        }
        let (disabled, inhibit) = inlet;
        let notes = Config::Denominations { disabled };
        // closing shuts the inlet first, opening opens it last
        let first =
            if inhibit { self.inhibit != Some(true) } else { self.disabled == Some(disabled) };
        Some(if first { Config::Inhibit(inhibit) } else { notes })
    }

    pub(super) fn applied(&mut self, config: Config, now: Mono) {
        match config {
            Config::Denominations { disabled } => self.disabled = Some(disabled),
            Config::Inhibit(inhibit) => {
                self.inhibit = Some(inhibit);
                self.inhibit_at = now;
                self.resets = 0;
                self.complaint = None;
            }
            _ => self.fixed = self.fixed.saturating_add(1),
        }
    }

    /// No answer; `true` if the table was asked for often enough.
    fn unanswered(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Version => self.version_tries = self.version_tries.saturating_add(1),
            Ask::Currencies => self.table_tries = self.table_tries.saturating_add(1),
            _ => {}
        }
        ask == Ask::Currencies && self.table_tries >= TRIES
    }

    fn refused(&mut self, ask: Ask, seen: Option<Status>) {
        let initializing = seen == Some(Status::Initializing);
        match ask {
            Ask::Version => self.version_tries = TRIES,
            Ask::Currencies => self.table_tries = TRIES,
            Ask::Reset => self.reset_done = true,
            Ask::Set(_) if !initializing && self.resets < RESETS => {
                self.resets = self.resets.saturating_add(1);
                self.reset_done = false;
            }
            Ask::Set(Config::Denominations { .. } | Config::Inhibit(_)) => {
                self.inlet_refused = true;
                if !initializing {
                    self.complaint = Some("the device refuses the settings of its inlet (C0, C3)");
                }
            }
            // the firmware does not have this function
            Ask::Set(_) => self.fixed = self.fixed.saturating_add(1),
            Ask::Status | Ask::Stack | Ask::StackAway | Ask::Return | Ask::Hold | Ask::Ack => {}
        }
    }

    /// What could not be had in a state that lasts.
    fn settle_for_less(&mut self, now: Mono) {
        if self.version_tries >= TRIES && self.version.is_none() {
            self.version = Some("not told".to_owned());
        }
        if self.table_tries >= TRIES && self.table.is_none() {
            self.table_tries = 0;
            self.table_after = now.after(TABLE_AGAIN_MS);
            self.complaint = Some("the device does not tell its notes (8A)");
        }
    }
}

impl<A: Authority> Id003<A> {
    /// The wanted notes as the C0 bits and the C3 inhibit that take only them.
    fn inlet(&self) -> (u16, bool) {
        let known = self.known();
        let bits = known
            .wanted_codes()
            .filter_map(|code| 1u16.checked_shl(u32::from(code.checked_sub(0x61)?)));
        let enabled = bits.fold(0, |bits, bit| bits | bit);
        if enabled == 0 || self.shut { CLOSED } else { (!enabled, false) }
    }

    pub(super) fn setting(&self, now: Mono) -> Option<Ask> {
        let inlet @ (_, inhibit) = self.inlet();
        if let Some(config) = self.setup.next(inlet) {
            return Some(Ask::Set(config));
        }
        // some units close their inlet after each note
        let follows = match self.seen {
            Some(Status::Idling) => !inhibit,
            Some(Status::Disabled) => inhibit,
            _ => true,
        };
        let again = !follows
            && !self.setup.inlet_refused
            && now.since(self.setup.inhibit_at) >= INLET_AGAIN_MS;
        again.then_some(Ask::Set(Config::Inhibit(inhibit)))
    }

    pub(super) fn settings_unanswered(&mut self, ask: Ask, now: Mono) {
        if self.setup.unanswered(ask) {
            self.credit_with_table();
        }
        self.complain(now);
    }

    pub(super) fn settings_refused(&mut self, ask: Ask, now: Mono) {
        self.setup.refused(ask, self.seen);
        match ask {
            Ask::Currencies => self.credit_with_table(),
            Ask::Reset => self.reset_wanted = false,
            _ => {}
        }
        self.complain(now);
    }

    fn complain(&mut self, now: Mono) {
        if matches!(self.seen, Some(Status::Idling | Status::Disabled)) {
            self.setup.settle_for_less(now);
            self.identify();
        }
        if let Some(complaint) = self.setup.complaint {
            self.voice.fail(FaultKind::ServiceNeeded, complaint.to_owned());
        }
    }

    /// Tells who the device is, once both answers are there.
    pub(super) fn identify(&mut self) {
        let (Some(version), Some(table)) = (&self.setup.version, &self.setup.table) else { return };
        if !std::mem::replace(&mut self.setup.identified, true) {
            let notes = table.iter().map(|(_, d, c)| (*d, *c)).collect();
            let version = version.clone();
            self.voice.tell(AcceptorEvent::Identified { version, notes });
        }
    }

    /// Tells whether the inlet is open, once the device is set up and does what it was told.
    pub(super) fn tell_inlet(&mut self, status: Status, now: Mono) {
        let open = match status {
            Status::Idling => true,
            Status::Disabled => false,
            _ => return,
        };
        let setup = &self.setup;
        let inlet @ (_, inhibit) = self.inlet();
        let done = setup.reset_done
            && !setup.resetting(now)
            && setup.identified
            && setup.fixed >= FIXED.len()
            && setup.inlet_is(inlet)
            && (open != inhibit
                || now.since(setup.inhibit_at.max(self.entered)) >= INLET_SETTLES_MS);
        // a fault is over before the device is called well
        let well = done && self.voice.fault.is_none();
        if (well || setup.failed()) && self.told_open != Some(open) {
            self.told_open = Some(open);
            self.voice.tell(if open { AcceptorEvent::Accepting } else { AcceptorEvent::Closed });
        }
    }
}
