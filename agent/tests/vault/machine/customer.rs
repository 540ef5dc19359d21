//! The customer, and the page in front of them.

use bitspire_agent::ipc::{CustomerAction, ToVault};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::{Screen, View};
use bitspire_shared::ids::PaymentHash;
use serde_json::json;

use super::Machine;

impl Machine {
    pub(crate) fn touch(&mut self, action: CustomerAction) {
        self.say(&ToVault::Customer(action));
    }

    /// The page says that it shows the screen.
    pub(crate) fn confirm_screen(&mut self) {
        self.touch(CustomerAction::Seen { screen: self.number });
    }

    /// Touches this screen, if nobody has yet.
    pub(crate) fn touch_once(&mut self, action: CustomerAction) {
        if std::mem::replace(&mut self.touched, self.number) != self.number {
            self.touch(action);
        }
    }

    /// Touches each new screen until the machine shows what was wanted: a touch on a page whose
    /// time was just over counts for nothing, and the next page comes.
    fn touch_until(
        &mut self,
        what: &str,
        action: impl Fn(&MachineScreen) -> Option<CustomerAction>,
        fits: impl Fn(&Self) -> bool,
    ) {
        self.until(what, |machine| {
            if fits(machine) {
                return true;
            }
            if let Some(action) = machine.screen.as_ref().and_then(&action) {
                machine.touch_once(action);
            }
            false
        });
    }

    pub(crate) fn is_for_sale(&self) -> bool {
        matches!(&self.screen, Some(MachineScreen::Idle { cash_in: true, cash_out, .. })
            if !cash_out.is_empty())
    }

    pub(crate) fn wait_for_sale(&mut self) {
        self.until("sale", |machine| machine.is_for_sale());
    }

    /// Waits until it takes notes, whatever it gives.
    pub(crate) fn wait_for_notes(&mut self) {
        self.until("an inlet that may be opened", |machine| {
            matches!(&machine.screen, Some(MachineScreen::Idle { cash_in: true, .. }))
        });
    }

    /// Touches the end on the screen away, and waits for the next customer's page.
    pub(crate) fn leave(&mut self) {
        let finish = |screen: &MachineScreen| {
            matches!(screen, MachineScreen::Txn(_)).then_some(CustomerAction::Finish)
        };
        self.touch_until("sale again", finish, Self::is_for_sale);
    }

    pub(crate) fn txn_screen(&self) -> Option<&Screen> {
        match &self.screen {
            Some(MachineScreen::Txn(screen)) => Some(screen),
            _ => None,
        }
    }

    pub(crate) fn view(&self) -> Option<&View> {
        self.txn_screen().map(|screen| &screen.view)
    }

    pub(crate) fn until_view(&mut self, what: &str, fits: fn(&View) -> bool) {
        self.until(what, |machine| machine.view().is_some_and(fits));
    }

    /// Chooses an amount, until the machine deals with it.
    pub(crate) fn choose(&mut self, fiat_minor: i64) {
        let choose = |screen: &MachineScreen| match screen {
            MachineScreen::Idle { cash_out, .. } => cash_out
                .iter()
                .any(|fiat| fiat.minor == fiat_minor)
                .then_some(CustomerAction::StartCashOut { fiat_minor }),
            _ => None,
        };
        self.touch_until("a cash-out", choose, |machine| machine.view().is_some());
    }

    /// Up to the offer on the screen.
    pub(crate) fn ask(&mut self, fiat_minor: i64) {
        self.choose(fiat_minor);
        self.until_view("an offer", |view| matches!(view, View::Offer { .. }));
    }

    /// Up to the invoice on the screen; its hash.
    pub(crate) fn sell(&mut self, fiat_minor: i64) -> PaymentHash {
        self.ask(fiat_minor);
        self.touch(CustomerAction::Confirm);
        self.until_view("an invoice", |view| matches!(view, View::Invoice { .. }));
        self.service.last_invoice.unwrap()
    }

    /// Up to an open inlet.
    pub(crate) fn open_inlet(&mut self) {
        let start = |screen: &MachineScreen| {
            matches!(screen, MachineScreen::Idle { cash_in: true, .. })
                .then_some(CustomerAction::StartCashIn)
        };
        let open = |machine: &Self| matches!(machine.view(), Some(View::Feed { .. }));
        self.touch_until("an open inlet", start, open);
    }

    /// A customer feeds a note, as soon as the inlet is open.
    pub(crate) fn feed(&mut self, major: u32) {
        let action = json!({ "action": "insert", "denomination": major });
        self.until("an open inlet", |machine| machine.acceptor.control(action.clone()).is_ok());
    }

    /// The same, until it counts.
    pub(crate) fn feed_to(&mut self, major: u32, total_minor: i64) {
        self.feed(major);
        self.until("the note counted", |machine| {
            matches!(machine.view(), Some(View::Feed { total, .. }) if total.minor == total_minor)
        });
    }

    /// The customer takes the notes at the exit; whether there were any.
    pub(crate) fn take(&self) -> bool {
        self.dispenser.control(json!({ "action": "take" })).is_ok()
    }
}
