//! Service mode: what somebody may do at the machine who has its PIN.
//!
//! Promise: pure. A session begins with the right PIN only and ends by itself when nobody touches
//! it. Every action names the form that it was typed into, and a form is good for one action: a
//! double touch, or a message that is said again, does nothing a second time.
//!
//! States: [`Session`]: none, or at its door (the PIN pad), or inside on a [`Page`].
//!
//! Failure policy: a touch that does not fit changes nothing.

use std::collections::BTreeMap;

use bitspire_shared::ids::{BayId, EventId, PubKey};
use bitspire_shared::money::{Denomination, Fiat};
use bitspire_shared::rpc::BayChange;
use bitspire_shared::time::{Mono, Unix};
use serde::{Deserialize, Serialize};

use crate::ipc::SecretText;

/// How long a session lasts without a touch, in milliseconds.
pub const IDLE_MS: u64 = 5 * 60 * 1_000;
/// How long the PIN pad stays without one.
pub const PAD_MS: u64 = 60_000;

/// Notes of one value, as they were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The value in minor units.
    pub minor: u32,
    /// How many.
    pub count: u32,
}

/// A page inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Page {
    /// What is inside, and what can be done.
    Menu,
    /// The cashbox is emptied.
    Cashbox,
    /// The reject bin is emptied.
    RejectBin,
    /// A bay is refilled or counted.
    Bay(BayId),
    /// A note of each bay is given to try the dispenser.
    Test,
    /// The machine lets go of its pairing.
    Pairing,
}

/// What is touched in service mode. `form` is the number on the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Touch {
    /// Asks for the PIN pad.
    Open,
    /// Types the PIN.
    Enter {
        /// As typed.
        pin: SecretText,
    },
    /// Turns to a page.
    Go {
        /// Which.
        to: Page,
    },
    /// The cashbox was emptied.
    EmptyCashbox {
        /// The form.
        form: u64,
        /// What was in it.
        counted: Vec<Counted>,
        /// Why it differs.
        reason: String,
    },
    /// The reject bin was emptied.
    EmptyRejectBin {
        /// The form.
        form: u64,
        /// What was in it.
        counted: Vec<Counted>,
        /// Why it differs.
        reason: String,
    },
    /// Notes were put into the bay on the screen; below 0: taken out.
    Refill {
        /// The form.
        form: u64,
        /// How many.
        count: i32,
        /// Why.
        reason: String,
    },
    /// The bay on the screen was counted.
    Recount {
        /// The form.
        form: u64,
        /// How many.
        count: u32,
        /// Why it differs.
        reason: String,
    },
    /// A note of each bay is to be given.
    Test {
        /// The form.
        form: u64,
    },
    /// The machine is to let go of its pairing.
    ResetPairing {
        /// The form.
        form: u64,
    },
    /// Ends the session.
    Leave,
}

/// What the vault is to do for a touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Look at the PIN.
    Look(SecretText),
    /// Book an emptied cashbox.
    Cashbox(BTreeMap<Denomination, u32>, String),
    /// Book an emptied reject bin.
    RejectBin(BTreeMap<Denomination, u32>, String),
    /// Book a change of a bay.
    Bay(BayId, BayChange, String),
    /// Try the dispenser.
    Test,
    /// Let go of the pairing.
    Unpair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Door { wrong: bool },
    Inside(Page),
}

/// A session, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    at: Option<At>,
    touched: Mono,
    form: u64,
    said: Option<String>,
}

impl Session {
    /// Whether the screen is its.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.at.is_some()
    }

    /// Whether somebody with the PIN is there.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        matches!(self.at, Some(At::Inside(_)))
    }

    /// The page, inside.
    #[must_use]
    pub const fn page(&self) -> Option<Page> {
        match self.at {
            Some(At::Inside(page)) => Some(page),
            _ => None,
        }
    }

    /// Whether the last PIN was wrong.
    #[must_use]
    pub const fn was_wrong(&self) -> bool {
        matches!(self.at, Some(At::Door { wrong: true }))
    }

    /// The number of the form on the screen.
    #[must_use]
    pub const fn form(&self) -> u64 {
        self.form
    }

    /// What came of the last action.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// A touch; what is to be done for it. `free`: nobody else has the screen, and no note moves.
    pub fn touch(&mut self, touch: Touch, free: bool, now: Mono) -> Option<Wish> {
        let Some(at) = self.at else {
            if matches!(touch, Touch::Open) && free {
                self.turn(At::Door { wrong: false }, now);
            }
            return None;
        };
        if matches!(touch, Touch::Leave) {
            self.leave();
            return None;
        }
        match (at, touch) {
            (At::Door { .. }, Touch::Enter { pin }) if free => {
                self.touched = now;
                Some(Wish::Look(pin))
            }
            (At::Inside(_), Touch::Go { to }) => {
                self.said = None;
                self.turn(At::Inside(to), now);
                None
            }
            (At::Inside(page), touch) => {
                let (form, wish) = asked(page, touch)?;
                if form != self.form {
                    return None;
                }
                // whatever comes of it, the form was used
                self.turn(At::Inside(page), now);
                Some(wish)
            }
            (At::Door { .. }, _) => None,
        }
    }

    /// The PIN was looked at.
    pub fn looked(&mut self, right: bool, now: Mono) {
        if self.is_open() && !self.is_inside() {
            self.turn(if right { At::Inside(Page::Menu) } else { At::Door { wrong: true } }, now);
        }
    }

    /// What came of an action: done, back to the menu; or why not, on the same page.
    pub fn did(&mut self, done: Result<String, String>, now: Mono) {
        let Some(page) = self.page() else { return };
        let (page, words) = match done {
            Ok(words) => (Page::Menu, words),
            Err(words) => (page, words),
        };
        self.turn(At::Inside(page), now);
        self.said = Some(words);
    }

    /// Ends a session that nobody touches.
    pub fn look_at_time(&mut self, now: Mono) {
        let most = if self.is_inside() { IDLE_MS } else { PAD_MS };
        if self.is_open() && now.since(self.touched) >= most {
            self.leave();
        }
    }

    /// Ends it.
    pub fn leave(&mut self) {
        (self.at, self.said) = (None, None);
    }

    fn turn(&mut self, at: At, now: Mono) {
        (self.at, self.touched) = (Some(at), now);
        self.form = self.form.saturating_add(1);
    }
}

/// The form and the wish of an action that fits the page.
fn asked(page: Page, touch: Touch) -> Option<(u64, Wish)> {
    Some(match (page, touch) {
        (Page::Cashbox, Touch::EmptyCashbox { form, counted, reason }) => {
            (form, Wish::Cashbox(by_value(&counted)?, reason))
        }
        (Page::RejectBin, Touch::EmptyRejectBin { form, counted, reason }) => {
            (form, Wish::RejectBin(by_value(&counted)?, reason))
        }
        (Page::Bay(bay), Touch::Refill { form, count, reason }) if count != 0 => {
            (form, Wish::Bay(bay, BayChange::Delta(count), reason))
        }
        (Page::Bay(bay), Touch::Recount { form, count, reason }) => {
            (form, Wish::Bay(bay, BayChange::Set(count), reason))
        }
        (Page::Test, Touch::Test { form }) => (form, Wish::Test),
        (Page::Pairing, Touch::ResetPairing { form }) => (form, Wish::Unpair),
        _ => return None,
    })
}

/// Each value once.
fn by_value(counted: &[Counted]) -> Option<BTreeMap<Denomination, u32>> {
    let mut notes = BTreeMap::new();
    for Counted { minor, count } in counted {
        let note = Denomination::from_minor(*minor).ok()?;
        if notes.insert(note, *count).is_some() {
            return None;
        }
    }
    Some(notes)
}

/// Notes of one value by the machine's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// One note.
    pub note: Fiat,
    /// How many.
    pub count: i64,
}

/// A bay by the machine's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBay {
    /// Its number.
    pub bay: BayId,
    /// Its notes.
    pub held: Held,
    /// Whether it must be counted, because a dispense of unknown end took from it.
    pub doubt: bool,
    /// Notes that may be missing, at most, because a dispense ended with a fault.
    pub unsure: i64,
}

/// A document of the operator that the machine goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// What it is about, and what it says.
    pub says: String,
    /// Its event.
    pub event_id: EventId,
    /// Who signed it: the operator that the machine has pinned.
    pub signed_by: PubKey,
    /// When its author published it.
    pub published_at: Unix,
    /// When the machine applied it; `None` where nobody wrote that down yet.
    pub applied_at: Option<Unix>,
}

/// What is inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// The bays.
    pub bays: Vec<HeldBay>,
    /// The cashbox, each value that it can have; `None` where the machine takes no notes.
    pub cashbox: Option<Vec<Held>>,
    /// Whether it is out of its place.
    pub cashbox_out: bool,
    /// The reject bin; `None` where the machine gives no notes.
    pub reject_bin: Option<Vec<Held>>,
    /// What was done and the operator's service has not heard of yet.
    pub untold: u32,
    /// The fees and the cassettes that the machine goes by.
    pub rulings: Vec<Ruling>,
}

/// What stands on the screen in service mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceView {
    /// This machine has no PIN, so no service mode.
    NoPin,
    /// The pad.
    Pad {
        /// Whether the last one was wrong.
        wrong: bool,
        /// Why none is looked at now.
        locked: Option<String>,
    },
    /// A page inside.
    Page {
        /// Which.
        page: Page,
        /// The number of its form.
        form: u64,
        /// What came of the last action.
        said: Option<String>,
        /// What is inside.
        inside: Inside,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Touch {
        Touch::Enter { pin: SecretText::new("271828".into()) }
    }

    fn inside() -> Session {
        let mut session = Session::default();
        assert_eq!(session.touch(Touch::Open, true, Mono(0)), None);
        assert!(matches!(session.touch(pin(), true, Mono(0)), Some(Wish::Look(_))));
        session.looked(true, Mono(0));
        session
    }

    fn refill(form: u64) -> Touch {
        Touch::Refill { form, count: 20, reason: "monday".into() }
    }

    /// Loss prevented: counts changed by somebody without the PIN, or while a customer's notes move.
    #[test]
    fn nothing_is_done_without_the_pin() {
        let mut session = Session::default();
        assert_eq!(session.touch(Touch::Open, false, Mono(0)), None);
        assert!(!session.is_open(), "a sale is on the screen");
        for touch in [pin(), refill(0), Touch::Go { to: Page::Menu }, Touch::Test { form: 0 }] {
            assert_eq!(session.touch(touch, true, Mono(0)), None);
        }
        session.touch(Touch::Open, true, Mono(0));
        assert_eq!(session.touch(pin(), false, Mono(0)), None, "a note moves");
        let bay = BayId::new(1).unwrap();
        for touch in [refill(session.form()), Touch::Go { to: Page::Bay(bay) }] {
            assert_eq!(session.touch(touch, true, Mono(0)), None);
        }
        session.looked(false, Mono(0));
        assert!(session.was_wrong() && !session.is_inside());
        session.looked(true, Mono(0));
        assert!(session.is_inside());
        session.leave();
        session.looked(true, Mono(0));
        assert!(!session.is_open(), "a PIN that was looked at for somebody who has left");
    }

    /// Loss prevented: an emptying or a refill that a double touch books twice.
    #[test]
    fn a_form_is_good_for_one_action_on_its_own_page() {
        let mut session = inside();
        let bay = BayId::new(2).unwrap();
        assert_eq!(session.touch(refill(session.form()), true, Mono(0)), None, "on the menu");
        session.touch(Touch::Go { to: Page::Bay(bay) }, true, Mono(0));
        let form = session.form();
        let wish = Wish::Bay(bay, BayChange::Delta(20), "monday".into());
        assert_eq!(session.touch(refill(form), false, Mono(0)), Some(wish));
        assert_eq!(session.touch(refill(form), true, Mono(0)), None, "again");
        session.did(Err("no".into()), Mono(0));
        assert_eq!((session.page(), session.said()), (Some(Page::Bay(bay)), Some("no")));
        session.did(Ok("done".into()), Mono(0));
        assert_eq!((session.page(), session.said()), (Some(Page::Menu), Some("done")));
        session.touch(Touch::Go { to: Page::Cashbox }, true, Mono(0));
        let twice = vec![Counted { minor: 2_000, count: 1 }; 2];
        let form = session.form();
        let touch = Touch::EmptyCashbox { form, counted: twice, reason: String::new() };
        assert_eq!(session.touch(touch, true, Mono(0)), None, "a value twice");
        assert_eq!(session.form(), form);
    }

    /// Loss prevented: service mode left open for whoever comes next, or a pad that keeps customers
    /// away.
    #[test]
    fn it_ends_when_nobody_touches_it() {
        let mut session = inside();
        session.touch(Touch::Go { to: Page::Menu }, true, Mono(10));
        session.look_at_time(Mono(IDLE_MS + 9));
        assert!(session.is_inside());
        session.look_at_time(Mono(IDLE_MS + 10));
        assert!(!session.is_open());
        session.touch(Touch::Open, true, Mono(0));
        session.look_at_time(Mono(PAD_MS));
        assert!(!session.is_open());
    }
}
