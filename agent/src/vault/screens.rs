//! What is on the screen, and whether somebody saw it.
//!
//! Promise: one transaction at a time is on the screen. A screen counts as unbroken while each one
//! was confirmed soon after it was shown and none was asked for a second time; after a break no note
//! moves for its transaction without the customer's touch.

use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};

use bitspire_shared::ids::TxnId;
use bitspire_shared::rpc::DeviceStatus;
use bitspire_shared::time::Mono;

use super::core::Vault;
use crate::ipc::ToNet;
use crate::journal::Stage;
use crate::policy::shop::{Facts, Shop};
use crate::screen::MachineScreen;
use crate::txn::cash_out::State;
use crate::txn::{Input, Screen, Txn, View, Why};

/// Unconfirmed screens that are remembered: the oldest decides.
const UNSEEN: usize = 64;
/// How long an end stays on the screen while its receipt is open, in milliseconds.
const READING_MS: u64 = 180_000;

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    number: u64,
    screen: Option<MachineScreen>,
    seen: bool,
    /// Screens that the page has not confirmed, and since when, oldest first. One that it confirms
    /// confirms those before it: the next may be on its way already.
    unseen: VecDeque<(u64, Mono)>,
    /// The transaction's view, and since when.
    view: Option<(Discriminant<View>, Mono)>,
    broken: bool,
}

impl Shown {
    /// A page that knows nothing is there.
    pub(super) fn unsent(&mut self) {
        self.screen = None;
    }
}

/// How long an end stays on the screen, in milliseconds; `None`: the transaction says so itself.
const fn rests(view: &View) -> Option<u64> {
    match view {
        View::Cancelled { why: Why::Customer } | View::Returned { why: Why::Customer } => {
            Some(6_000)
        }
        // there is a reason to read
        View::Cancelled { .. } | View::Returned { .. } => Some(15_000),
        View::Settled { .. } | View::Redeemed { .. } | View::Expired => Some(20_000),
        View::Late { .. }
        | View::PaidWaiting { .. }
        | View::Unclaimed { .. }
        | View::PayUnknown { .. } => Some(60_000),
        View::Short { .. } | View::Uncertain | View::PreparingWithdraw { .. } => Some(120_000),
        View::Claim { .. } | View::Paying { .. } => Some(300_000),
        View::Asking { .. }
        | View::Offer { .. }
        | View::Preparing { .. }
        | View::Invoice { .. }
        | View::Dispensing { .. }
        | View::TakeNotes { .. }
        | View::Feed { .. }
        | View::Counting { .. } => None,
    }
}

impl Vault {
    /// Shows this transaction from now on, to somebody who stands there: what happened on the
    /// screen before counts no more.
    pub(super) fn put_on_screen(&mut self, txid: TxnId) {
        if self.on_screen.replace(txid) != Some(txid) {
            self.shown.view = None;
        }
        self.shown.unseen.clear();
        self.shown.broken = false;
    }

    /// The transaction on the screen leaves it.
    pub(super) fn leave_screen(&mut self) {
        if let Some(txid) = self.on_screen.take() {
            self.queue.push_back((txid, Input::ScreenBroken));
        }
    }

    /// Whoever stood at the screen may not have seen all of it.
    pub(super) fn break_screen(&mut self, why: &str) {
        if let Some(txid) = self.on_screen.filter(|_| !self.shown.broken) {
            tracing::info!(event = "screen_broken", txn = %txid, why);
            self.shown.broken = true;
            self.queue.push_back((txid, Input::ScreenBroken));
        }
    }

    /// The page shows a screen.
    pub(super) fn seen(&mut self, number: u64) {
        let shown = &mut self.shown;
        if number > shown.number {
            return;
        }
        while shown.unseen.front().is_some_and(|(unseen, _)| *unseen <= number) {
            shown.unseen.pop_front();
        }
        if number == shown.number && std::mem::replace(&mut shown.seen, true) {
            self.break_screen("the page was loaded again");
        }
    }

    /// Breaks a screen that nobody has confirmed in time.
    pub(super) fn look_at_screen(&mut self) {
        let now = self.mono();
        let oldest = self.shown.unseen.front();
        if oldest.is_some_and(|(_, since)| now.since(*since) > self.pace.confirm) {
            self.break_screen("the page did not confirm it");
        }
    }

    /// Whether the transaction on the screen is at an end that may be touched away. One that has
    /// just come may not: the touch was meant for the screen before.
    pub(super) fn at_an_end(&self) -> bool {
        let shown = self.on_screen.and_then(|txid| self.txns.get(&txid));
        let read = self.shown.view.is_some_and(|(_, at)| self.mono().since(at) >= self.pace.read);
        read && shown.is_some_and(|txn| rests(&txn.screen().view).is_some())
    }

    /// Takes ends off the screen that were there long enough, and lets go of what is closed.
    pub(super) fn leave_what_is_over(&mut self) {
        let now = self.mono();
        match self.on_screen.and_then(|txid| self.txns.get(&txid)).map(Txn::screen) {
            None => self.on_screen = None,
            Some(screen) => {
                let kind = discriminant(&screen.view);
                let since = match self.shown.view {
                    Some((known, since)) if known == kind => since,
                    _ => now,
                };
                self.shown.view = Some((kind, since));
                let read = if self.reads_receipt() { READING_MS } else { 0 };
                let rests = rests(&screen.view);
                let over = rests.is_some_and(|ms| now.since(since) >= ms.max(read));
                if over && !self.notes_are_awaited() {
                    self.leave_screen();
                }
            }
        }
        let shown = self.on_screen;
        self.txns.retain(|txid, txn| txn.stage() != Stage::Closed || shown == Some(*txid));
    }

    /// Sends the screen if it is another one.
    pub(super) fn refresh_screen(&mut self) {
        let screen = self.screen();
        if self.shown.screen.as_ref() == Some(&screen) || !self.peers.has_net() {
            return;
        }
        let now = self.mono();
        let shown = &mut self.shown;
        shown.number = shown.number.saturating_add(1);
        shown.seen = false;
        let number = shown.number;
        if shown.unseen.len() < UNSEEN {
            shown.unseen.push_back((number, now));
        }
        match serde_json::to_value(&screen) {
            Ok(value) => self.to_net(ToNet::Screen { number, screen: value }),
            Err(error) => tracing::error!(event = "screen_not_sent", %error),
        }
        self.shown.screen = Some(screen);
    }

    fn screen(&self) -> MachineScreen {
        if let Some(txn) = self.on_screen.and_then(|txid| self.txns.get(&txid)) {
            let screen = Screen { receipt: self.on_paper(), ..txn.screen() };
            return match rests(&screen.view).is_some() && self.notes_are_late() {
                true => MachineScreen::NotesLeft(screen),
                false => MachineScreen::Txn(screen),
            };
        }
        if let Some(screen) = self.service_screen() {
            return screen;
        }
        let Some(pairing) = &self.pairing else {
            return MachineScreen::Unpaired { seed: self.seed_view() };
        };
        if let Some(digits) = self.digits() {
            return MachineScreen::AwaitingConfirmation { digits };
        }
        let shop = self.shop();
        let waiting = self.txns.values().any(waits_for_code);
        if shop.is_open() || waiting {
            let Shop { cash_in, cash_out, .. } = shop;
            let currency = pairing.pins.currency;
            return MachineScreen::Idle { currency, cash_in, cash_out, waiting };
        }
        if self.mono() < Mono(self.pace.starting) {
            return MachineScreen::Starting;
        }
        MachineScreen::OutOfService { reasons: shop.reasons }
    }

    /// What is for sale now.
    pub(super) fn shop(&self) -> Shop {
        let policy = &self.config.policy;
        let mut facts = Facts {
            stock: self.stock(policy.cassette_floor_notes),
            max_notes: self.breaker.allowance(self.now().unix),
            amounts: policy.cash_out_amounts.clone(),
            ..Facts::default()
        };
        let mut blocked = |stands: bool, words: &str| {
            if stands {
                facts.blocked.push(words.to_owned());
            }
        };
        let pins = self.pairing.as_ref().map(|pairing| pairing.pins);
        blocked(pins.is_none(), "not paired");
        blocked(self.digits().is_some(), "the pairing waits for the operator's confirmation");
        let currency = pins.is_some_and(|pins| Some(pins.currency) != self.config.currency);
        blocked(currency, "the configuration's currency is not the pairing's");
        blocked(!self.reachable, "the service is out of reach");
        blocked(self.time.known(self.mono()).is_none(), "the service has not told the time");
        blocked(self.clock_wrong().is_some(), "the machine's clock is wrong: set it");
        blocked(self.fees.is_none(), "no fees have come from the operator");
        blocked(self.inspection.broken().is_some(), "the journal does not hold: see the alerts");
        blocked(self.disk.is_low(), &self.disk_words());
        blocked(self.door_is_open(), "the machine's door is open: a technician is at work");
        blocked(self.breaker.is_open(), "the breaker is open: a verdict must close it");
        facts.cash_in_blocked = self.cash_in_blocked();
        facts.cash_out_blocked = self.cash_out_blocked();
        Shop::of(facts)
    }

    fn cash_in_blocked(&self) -> Vec<String> {
        let Some(taker) = self.acceptor.as_ref().filter(|_| self.config.policy.cash_in) else {
            return vec!["this machine takes no notes".to_owned()];
        };
        let mut blocked = Vec::new();
        if taker.status != DeviceStatus::Ready {
            let fault = taker.fault.as_deref().unwrap_or("it is starting");
            blocked.push(format!("note validator: {fault}"));
        } else if taker.notes.is_empty() {
            blocked.push("note validator: it knows no notes of this currency".to_owned());
        } else if self.takes().is_empty() {
            blocked.push("the machine has taken all that it may within a day".to_owned());
        }
        if taker.cashbox_out || !self.has_room() {
            blocked.push("the cashbox is full or not in its place".to_owned());
        }
        let busy = self.feeding.and_then(|txid| self.txns.get(&txid));
        if busy.is_some_and(|txn| txn.stage() == Stage::Open) {
            blocked.push("a note of another sale is in doubt: the operator decides".to_owned());
        }
        blocked
    }

    fn cash_out_blocked(&self) -> Vec<String> {
        let Some(giver) = self.dispenser.as_ref().filter(|_| self.config.policy.cash_out) else {
            return vec!["this machine gives no notes".to_owned()];
        };
        let mut blocked = Vec::new();
        if giver.status != DeviceStatus::Ready {
            let fault = giver.fault.as_deref().unwrap_or("it is starting");
            blocked.push(format!("dispenser: {fault}"));
        }
        if self.dispensing.is_some() || self.to_plan.is_some() {
            blocked.push("dispenser: it is at work".to_owned());
        }
        if giver.exit.is_some() {
            blocked.push("dispenser: notes lie at its exit".to_owned());
        }
        blocked
    }
}

/// Whether the claim code would bring its customer something here.
pub(super) const fn waits_for_code(txn: &Txn) -> bool {
    match txn {
        Txn::CashOut(sale) => matches!(sale.state(), State::PaidWaiting { .. }),
        Txn::CashIn(session) => {
            matches!(session.state(), crate::txn::cash_in::State::Offered { .. })
        }
    }
}
