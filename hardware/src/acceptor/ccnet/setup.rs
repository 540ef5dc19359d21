//! Who the device is, and what it was told: identity, bill table, the inlet.
//!
//! RESET closes the inlet, and so do some units after each note; it is opened again as soon as the
//! device shows itself closed. What it has enabled is read back, for a CCNET answer does not say
//! which command it answers.

use super::*;
use crate::frame::ccnet::{BillTable, Identity};

/// How long INITIALIZE may take to show after RESET was taken.
const RESET_AGAIN_MS: u64 = 3_000;
/// Before the bill table is asked for again.
const TABLE_AGAIN_MS: u64 = 5_000;
/// How soon an inlet setting that the device does not follow is repeated.
const INLET_AGAIN_MS: u64 = 1_000;
/// How long the device may take to follow before its own view of the inlet is told.
const INLET_SETTLES_MS: u64 = 2_000;

/// What the device was asked and told since it came up.
#[derive(Default)]
pub(super) struct Setup {
    reset_done: bool,
    /// RESET was taken then, and INITIALIZE has not been seen since.
    resetting: Option<Mono>,
    version: Option<String>,
    version_tries: u8,
    table: Option<Vec<Coded>>,
    table_tries: u8,
    table_after: Mono,
    identified: bool,
    enabled: Option<Bills>,
    enabled_at: Mono,
    enable_tries: u8,
    /// `enabled` was read back, or cannot be.
    verified: bool,
    verify_tries: u8,
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
        self.enabled = None;
        self.inlet_changed();
    }

    pub(super) fn state_changed(&mut self) {
        self.version_tries = 0;
        self.table_tries = 0;
        self.enable_tries = 0;
    }

    pub(super) fn inlet_changed(&mut self) {
        self.enable_tries = 0;
        self.verify_tries = 0;
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
            return Some(Ask::Identity);
        }
        let ask = self.table.is_none() && self.table_tries < TRIES && self.table_after <= now;
        ask.then_some(Ask::Table)
    }

    pub(super) fn version(&mut self, identity: Identity<'_>) {
        self.version = Some(identity.text());
    }

    pub(super) fn learn(&mut self, table: BillTable<'_>) {
        let notes = table.slots().filter_map(|slot| {
            let (denomination, currency) = slot.note()?;
            Some((slot.kind, denomination, currency))
        });
        self.table = Some(notes.collect());
        self.complaint = None;
    }

    pub(super) fn enabled(&mut self, bills: Bills, now: Mono) {
        if self.enabled != Some(bills) {
            self.verified = false;
        }
        self.enabled = Some(bills);
        self.enabled_at = now;
        self.enable_tries = 0;
        self.complaint = None;
    }

    /// What the device says that it takes. One that says otherwise is told again; one that stays by
    /// it is believed to speak of something else, for a note that is not wanted is given back anyway.
    pub(super) fn read_back(&mut self, bills: Bills) {
        self.verified = self.enabled == Some(bills);
        if !self.verified {
            self.verify_in_vain();
            self.enabled = self.enabled.filter(|_| self.verified);
        }
    }

    fn verify_in_vain(&mut self) {
        self.verify_tries = self.verify_tries.saturating_add(1);
        self.verified = self.verify_tries >= TRIES;
    }

    /// No answer; `true` if the table was asked for often enough.
    fn unanswered(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Identity => self.version_tries = self.version_tries.saturating_add(1),
            Ask::Table => self.table_tries = self.table_tries.saturating_add(1),
            Ask::Status => self.verify_in_vain(),
            _ => {}
        }
        ask == Ask::Table && self.table_tries >= TRIES
    }

    fn refused(&mut self, ask: Ask) {
        match ask {
            Ask::Identity => self.version_tries = TRIES,
            Ask::Table => self.table_tries = TRIES,
            Ask::Status => self.verified = true,
            Ask::Reset => self.reset_done = true,
            Ask::Enable(_) => {
                self.enable_tries = self.enable_tries.saturating_add(1);
                if self.enable_tries >= TRIES {
                    self.complaint = Some("the device refuses the setting of its inlet (34)");
                }
            }
            Ask::Poll | Ask::Stack | Ask::Return | Ask::Hold => {}
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
            self.complaint = Some("the device does not tell its notes (41)");
        }
    }
}

impl<A: Authority> Ccnet<A> {
    /// The types of the notes that are wanted.
    fn inlet(&self) -> Bills {
        if self.shut {
            return Bills::NONE;
        }
        self.known().wanted_codes().collect()
    }

    pub(super) fn setting(&self, now: Mono) -> Option<Ask> {
        let setup = &self.setup;
        let bills = self.inlet();
        // a unit forgets its credits at ENABLE
        if setup.enable_tries >= TRIES || !self.recovered {
            return None;
        }
        if setup.enabled != Some(bills) {
            return Some(Ask::Enable(bills));
        }
        let open = bills != Bills::NONE;
        let follows = match self.seen {
            Some(State::Idling) => open,
            Some(State::Disabled) => !open,
            _ => true,
        };
        if !follows && now.since(setup.enabled_at) >= INLET_AGAIN_MS {
            return Some(Ask::Enable(bills));
        }
        (!setup.verified).then_some(Ask::Status)
    }

    pub(super) fn settings_unanswered(&mut self, ask: Ask, now: Mono) {
        if self.setup.unanswered(ask) {
            self.credit_with_table();
        }
        self.complain(now);
    }

    pub(super) fn settings_refused(&mut self, ask: Ask, now: Mono) {
        self.setup.refused(ask);
        match ask {
            Ask::Table => self.credit_with_table(),
            Ask::Reset => self.reset_wanted = false,
            _ => {}
        }
        self.complain(now);
    }

    fn complain(&mut self, now: Mono) {
        if matches!(self.seen, Some(State::Idling | State::Disabled)) {
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
    pub(super) fn tell_inlet(&mut self, state: State, now: Mono) {
        let open = match state {
            State::Idling => true,
            State::Disabled => false,
            _ => return,
        };
        let setup = &self.setup;
        let bills = self.inlet();
        let follows = open == (bills != Bills::NONE);
        let done = setup.reset_done
            && !setup.resetting(now)
            && setup.identified
            && setup.verified
            && setup.enabled == Some(bills)
            && (follows || now.since(setup.enabled_at.max(self.entered)) >= INLET_SETTLES_MS);
        // a fault is over before the device is called well
        let well = done && self.voice.fault.is_none();
        if (well || setup.failed()) && self.told_open != Some(open) {
            self.told_open = Some(open);
            self.voice.tell(if open { AcceptorEvent::Accepting } else { AcceptorEvent::Closed });
        }
    }
}
