//! Whoever has the PIN: empties the cashbox and the reject bin with a count, refills and counts bays,
//! tries the dispenser; presses twice, and is cut off in the middle.
//!
//! What they do with their hands may be done when the machine's record of it is lost, or the other way
//! round: for the bays somebody counts again, and for the cashbox the oracle goes by the journal.

use bitspire_agent::ipc::{CustomerAction, SecretText};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::service::{Counted, Held, Inside, Page, ServiceView, Touch};
use bitspire_shared::ids::BayId;
use serde_json::json;

use super::customer::{Person, Wish};
use super::world::World;

/// What opens service mode.
pub(super) const PIN: &str = "739152";

/// What they came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Cashbox,
    RejectBin,
    Refill(u8, u32),
    /// A bay, and whether they have miscounted by one.
    Recount(u8, bool),
    Test,
}

impl Task {
    fn page(self) -> Page {
        let bay = |number| BayId::new(number).expect("a bay");
        match self {
            Self::Cashbox => Page::Cashbox,
            Self::RejectBin => Page::RejectBin,
            Self::Refill(number, _) | Self::Recount(number, _) => Page::Bay(bay(number)),
            Self::Test => Page::Test,
        }
    }
}

/// As the books have it: they count what they find, and find what they should.
fn counted(heaps: Option<&[Held]>) -> Vec<Counted> {
    let one = |held: &Held| {
        let minor = u32::try_from(held.note.minor).ok()?;
        Some(Counted { minor, count: u32::try_from(held.count).unwrap_or(0) })
    };
    heaps.unwrap_or_default().iter().filter_map(one).collect()
}

impl World {
    /// Somebody with the PIN comes now, for something.
    pub(super) fn somebody_with_the_pin(&mut self) -> Person {
        let bays = u64::from(self.rates.parts.bays());
        let bay = u8::try_from(self.between(1, bays)).unwrap_or(1);
        let notes = u32::try_from(self.between(1, 40)).unwrap_or(1);
        let task = match self.chance.below(5) {
            0 => Task::Cashbox,
            1 => Task::RejectBin,
            2 => Task::Refill(bay, notes),
            3 => Task::Recount(bay, self.percent(20)),
            _ => Task::Test,
        };
        let mut person = Person::new(Wish::Service(task), self.now.0);
        let odd = self.rates.customers;
        person.presses_twice = self.percent(odd);
        if self.percent(odd) {
            person.leaves_after = Some(self.between(500, 20_000));
        }
        person
    }

    fn touch(&mut self, person: &Person, touch: Touch) {
        let action = CustomerAction::Service(touch);
        if person.presses_twice {
            self.act(action.clone());
        }
        self.act(action);
    }

    /// What they do now; `None` where they leave.
    pub(super) fn collector_does(
        &mut self,
        mut person: Person,
        task: Task,
        screen: &MachineScreen,
    ) -> Option<Person> {
        let (view, inside) = match screen {
            MachineScreen::Idle { .. } if !std::mem::replace(&mut person.began, true) => {
                self.crowd.served = self.crowd.served.saturating_add(1);
                self.touch(&person, Touch::Open);
                return Some(person);
            }
            MachineScreen::Service(ServiceView::Pad { locked: None, .. }) => {
                self.touch(&person, Touch::Enter { pin: SecretText::new(PIN.to_owned()) });
                return Some(person);
            }
            MachineScreen::Service(ServiceView::Page { page, form, said, inside }) => {
                ((*page, *form, said.is_some()), inside)
            }
            _ => return None,
        };
        let (page, form, said) = view;
        let sent = person.claimed;
        if sent && (said || page == Page::Menu) {
            if page == Page::Menu && said {
                self.on_record(task);
            }
            self.touch(&person, Touch::Leave);
            return None;
        }
        if page != task.page() {
            self.touch(&person, Touch::Go { to: task.page() });
        } else if !sent {
            person.claimed = true;
            self.submits(&person, task, form, inside);
        }
        Some(person)
    }

    fn submits(&mut self, person: &Person, task: Task, form: u64, inside: &Inside) {
        let reason = "looked into".to_owned();
        let touch = match task {
            Task::Cashbox => {
                let counted = counted(inside.cashbox.as_deref());
                Touch::EmptyCashbox { form, counted, reason }
            }
            Task::RejectBin => {
                let counted = counted(inside.reject_bin.as_deref());
                Touch::EmptyRejectBin { form, counted, reason }
            }
            Task::Refill(bay, notes) => {
                let refill = json!({ "action": "refill", "bay": bay, "notes": notes });
                if self.dispenser.act(&refill, self.now).is_err() {
                    return self.touch(person, Touch::Leave);
                }
                self.operator.recounts = true;
                let count = i32::try_from(notes).unwrap_or(0);
                Touch::Refill { form, count, reason }
            }
            Task::Recount(bay, wrong) => {
                self.operator.recounts |= wrong;
                let there = self.bays(|bay| bay["cassette"].as_u64().unwrap_or(0));
                let there = there.get(&bay).copied().unwrap_or(0);
                let count = u32::try_from(there).unwrap_or(0).saturating_sub(u32::from(wrong));
                Touch::Recount { form, count, reason }
            }
            Task::Test => {
                self.testing = true;
                Touch::Test { form }
            }
        };
        self.trace.line(self.now, || format!("submits {task:?}"));
        self.touch(person, touch);
    }

    /// The machine has said so: what was counted is taken away.
    fn on_record(&mut self, task: Task) {
        self.trace.line(self.now, || format!("on record {task:?}"));
        let acts = |name: &str| json!({ "action": name });
        match task {
            Task::Cashbox => {
                for action in ["stacker_out", "collect", "stacker_in"] {
                    drop(self.acceptor.act(&acts(action), self.now));
                }
            }
            Task::RejectBin => drop(self.dispenser.act(&acts("collect_rejects"), self.now)),
            Task::Test => self.take_notes(),
            Task::Refill(..) | Task::Recount(..) => {}
        }
    }
}
