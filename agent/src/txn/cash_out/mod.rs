//! Notes out: the customer pays an invoice and gets notes.
//!
//! Promise: at most one dispense for each committed intent, the next one only after the last one's
//! final answer; never on a restart, never after the end, never after an answer that nobody knows.
//! What was given and what is owed make up what was promised.
//!
//! States: `Quoted -> Invoiced -> Paid -> DispenseCommitted -> Dispensing -> Settled |
//! ShortDispensed | Uncertain`, and `Cancelled | Expired | Late | PaidWaiting`. A plan that the
//! dispenser cannot give at once comes back to `Paid` after each final answer, until the exit is
//! empty.
//!
//! Failure policy: without the customer's touch a note moves only while the transaction's screen
//! has been up without a break and the customer is known to have been there within the last 90 s
//! (they had not yet paid, took notes or entered the claim code). Otherwise, and after a restart,
//! it rests in `PaidWaiting`, and after 15 minutes, or when whoever has the claim code wants sats
//! instead, is owed. `Uncertain` is left by the device's own
//! counts or a verdict only.

mod dispense;
mod rest;
mod sale;
mod state;

use bitspire_shared::error::Kind;
use bitspire_shared::ids::{ClaimCode, RequestId};
use bitspire_shared::money::Direction;
use bitspire_shared::rpc::{CreateInvoice, ErrorCode, GetPayment, GetQuote};
use bitspire_shared::time::Mono;
use serde::{Deserialize, Serialize};

use super::asking::{Asking, Wanted, no_price};
use super::deal::{Deal, Now, Order};
use super::effect::{Alert, Ask, Effect};
use super::input::{DeviceReport, Input};
use super::receipt::Paper;
use super::record::{Record, Txn};
use super::screen::{Why, claim};
use super::turn::Turn;
use crate::ipc::SecretText;

pub use state::{Batch, GaveUp, Given, Sale, State};

/// One cash-out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CashOut {
    pub(super) deal: Deal,
    pub(super) state: State,
    #[serde(default)]
    pub(super) paper: Paper,
    #[serde(skip)]
    pub(super) live: Live,
}

/// What only this run of the vault knows: it is gone after a restart, on purpose.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Live {
    pub(super) code: Option<ClaimCode>,
    pub(super) bolt11: Option<String>,
    pub(super) noffer: Option<String>,
    /// The transaction's screen has been up without a break.
    watched: bool,
    /// The last moment at which the customer is known to have been there, or not to have paid yet.
    present_at: Option<Mono>,
    quote_until: Option<Mono>,
    invoice_until: Option<Mono>,
    /// The service has the payment and gives no leave, as it last said; asked again after a restart.
    paid_without_leave: bool,
    /// When it came into its state.
    since: Mono,
    asking: Asking,
}

impl CashOut {
    /// Opens a cash-out: asks for a price.
    #[must_use]
    pub fn start(order: Order, now: Now) -> (Self, Vec<Effect>) {
        let deal = Deal::new(&order, now);
        let live = Live { code: Some(order.code), watched: true, ..Live::default() };
        let nothing = State::Cancelled { why: Why::Customer };
        let paper = Paper::default();
        let before = Self { deal, state: nothing, paper: paper.clone(), live: Live::default() };
        let state = State::Quoted { quote: None, accepted: false, no: 1 };
        let mut txn = Self { deal, state, paper, live };
        let effects = txn.conclude(&before, "start", Turn::default(), None, now);
        (txn, effects)
    }

    /// What stays the same.
    #[must_use]
    pub const fn deal(&self) -> &Deal {
        &self.deal
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The next state and what is to be done, in order.
    #[must_use]
    pub fn step(self, input: Input, now: Now) -> (Self, Vec<Effect>) {
        let (name, mut next, mut turn) = (input.name(), self.clone(), Turn::default());
        match next.take(input, now, &mut turn) {
            Taken::Ignored => {
                let ignored = Effect::Ignored { input: name, state: self.state.name() };
                (self, vec![ignored])
            }
            Taken::Done => {
                let effects = next.conclude(&self, name, turn, None, now);
                (next, effects)
            }
            Taken::Dispense(batch) => {
                let effects = next.conclude(&self, name, turn, Some(&batch), now);
                (next, effects)
            }
        }
    }

    fn take(&mut self, input: Input, now: Now, turn: &mut Turn) -> Taken {
        match input {
            Input::Accept => self.accept(now),
            Input::Cancel => self.cancel(),
            Input::ScreenBroken => self.screen_broken(),
            Input::NetworkLost => self.network_lost(),
            Input::NetworkBack => {
                self.live.asking.again(now.mono, &mut turn.effects);
                Taken::Done
            }
            Input::Quote { request, quote } => self.quoted(request, &quote, now),
            Input::Invoice { request, invoice } => self.invoiced(request, invoice, now),
            Input::Payment { request, state, wire_sats } => self.payment(request, state, wire_sats),
            Input::Authorised(leave) => self.authorised(leave, now, turn),
            Input::Planned(lots) => self.planned(lots, now, turn),
            Input::DispenseSent { no } => self.sent(no),
            Input::Dispensed { no, outcome } => self.dispensed(no, outcome, now, turn),
            Input::Followed { detail } => self.followed(&detail),
            Input::Taken => self.taken(now, turn),
            Input::ClaimEntered(code) => self.claim_entered(&code, now, turn),
            Input::GiveBack(code) => self.give_back(&code, turn),
            Input::Verdict(verdict) => self.verdict(verdict, now, turn),
            Input::Reported { request } => self.reported(request),
            Input::Refused { request, code } => self.refused(request, code, now, turn),
            Input::Tick => self.tick(now, turn),
            Input::Restarted(report) => self.restarted(report, now, turn),
            Input::Finish
            | Input::Withdraw { .. }
            | Input::WithdrawClaimed(_)
            | Input::WithdrawPaid(_)
            | Input::Escrowed { .. }
            | Input::Credit { .. }
            | Input::Stacked
            | Input::Returned
            | Input::AcceptorFault { .. } => Taken::Ignored,
        }
    }

    /// Record first, then what the turn wants, then requests, then the screen.
    fn conclude(
        &mut self,
        before: &Self,
        cause: &'static str,
        turn: Turn,
        batch: Option<&Batch>,
        now: Now,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.state != before.state {
            if self.state.name() != before.state.name() {
                self.live.since = now.mono;
            }
            let Turn { cash, resolves, verdict, .. } = turn;
            let txn = Txn::CashOut(self.clone());
            let record = Box::new(Record { txn, cause, cash, resolves, verdict });
            effects.push(match batch {
                Some(batch) => Effect::Dispense { record, no: batch.no, plan: batch.plan() },
                None => Effect::Journal(record),
            });
        }
        effects.extend(turn.effects);
        self.live.asking.follow(self.wanted(), &self.deal, now.mono, &mut effects);
        let screen = self.screen();
        if before.screen() != screen || cause == "restarted" {
            effects.push(Effect::Show(screen));
        }
        effects
    }

    fn wanted(&self) -> Option<Wanted> {
        let (label, ask, poll) = match &self.state {
            State::Quoted { quote: None, no, .. } => {
                let ask = GetQuote {
                    direction: Direction::CashOut,
                    txid: self.deal.txid,
                    fiat_minor: self.deal.fiat.minor,
                    fiat_code: self.deal.fiat.currency,
                    claim_hash: self.deal.claim_hash,
                };
                (format!("quote:{no}"), Ask::GetQuote(ask), false)
            }
            State::Quoted { quote: Some(terms), accepted: true, no } => {
                let ask = CreateInvoice { quote_id: terms.quote_id };
                (format!("invoice:{no}"), Ask::CreateInvoice(ask), false)
            }
            State::Invoiced { sale, .. } => {
                let ask = Ask::GetPayment(GetPayment::PaymentHash(sale.payment_hash));
                ("payment".to_owned(), ask, true)
            }
            _ => {
                let (label, report) = self.report()?;
                (label, Ask::ReportDispense(report), false)
            }
        };
        Some(Wanted { label, ask, poll, watched: self.live.watched })
    }

    pub(super) fn shown_code(&self) -> Option<SecretText> {
        claim(self.live.code.as_ref(), self.live.watched)
    }

    /// Whether notes may move without the customer's touch.
    fn fresh(&self, now: Now) -> bool {
        let within = |at| now.mono.since(at) <= self.deal.rules.presence_ms;
        self.live.watched && self.live.present_at.is_some_and(within)
    }

    fn screen_broken(&mut self) -> Taken {
        self.live.watched = false;
        match self.state.clone() {
            State::Quoted { .. } => self.state = State::Cancelled { why: Why::ScreenBroken },
            State::Invoiced { sale, gave_up: None } => {
                self.state = State::Invoiced { sale, gave_up: Some(GaveUp::ScreenBroken) };
            }
            State::Paid { sale, given, .. } => self.state = State::PaidWaiting { sale, given },
            _ => {}
        }
        Taken::Done
    }

    fn refused(&mut self, request: RequestId, code: ErrorCode, now: Now, turn: &mut Turn) -> Taken {
        if self.live.asking.sent(request).is_none() {
            return Taken::Ignored;
        }
        let for_good = matches!(code.kind(), Kind::Permanent | Kind::Misuse);
        match &mut self.state {
            State::Quoted { quote, accepted, no } if code == ErrorCode::QuoteExpired => {
                (*quote, *accepted, *no) = (None, false, no.saturating_add(1));
                return Taken::Done;
            }
            State::Quoted { .. } if no_price(code) => {
                self.state = State::Cancelled { why: Why::Refused(code) };
                return Taken::Done;
            }
            _ => {}
        }
        if let Some(wanted) = self.wanted().filter(|wanted| for_good && wanted.ask.binding()) {
            turn.alert(Alert::Refused { rpc: wanted.ask.rpc(), code });
        }
        self.live.asking.refused(request, code, now.mono);
        Taken::Done
    }

    fn tick(&mut self, now: Now, turn: &mut Turn) -> Taken {
        let rules = self.deal.rules;
        let passed = |until: Option<Mono>| until.is_some_and(|until| now.mono >= until);
        let in_state = now.mono.since(self.live.since);
        match self.state.clone() {
            State::Quoted { quote, accepted, .. } => {
                let asked = self.live.asking.waiting_since();
                let unanswered = asked.is_some_and(|at| now.mono.since(at) >= rules.answer_ms);
                let idle = quote.is_some() && !accepted && passed(self.live.quote_until);
                if unanswered {
                    let why = Why::unanswered(self.live.asking.refusal());
                    self.state = State::Cancelled { why };
                } else if idle {
                    self.state = State::Cancelled { why: Why::Idle };
                }
            }
            State::Invoiced { sale, gave_up: None } if passed(self.live.invoice_until) => {
                self.live.watched = false;
                self.state = State::Invoiced { sale, gave_up: Some(GaveUp::Expired) };
            }
            State::Paid { sale, given, exit } => {
                let left = if exit { in_state > rules.presence_ms } else { !self.fresh(now) };
                if left {
                    self.state = State::PaidWaiting { sale, given };
                }
            }
            State::DispenseCommitted { sale, given, batch }
            | State::Dispensing { sale, given, batch }
                if in_state >= rules.dispense_ms =>
            {
                let evidence = format!("no answer of the dispenser within {in_state} ms");
                self.uncertain(sale, given, batch, evidence, turn);
            }
            State::PaidWaiting { sale, given } if in_state >= rules.owed_after_ms => {
                self.owed(sale, given, turn);
            }
            _ => {}
        }
        Taken::Done
    }

    /// The same rules as ever, with nobody known to be there.
    fn restarted(&mut self, report: DeviceReport, now: Now, turn: &mut Turn) -> Taken {
        self.live = Live { since: now.mono, ..Live::default() };
        match self.state.clone() {
            State::Quoted { .. } => self.state = State::Cancelled { why: Why::Restarted },
            State::Invoiced { sale, gave_up } => {
                let gave_up = Some(gave_up.unwrap_or(GaveUp::Restarted));
                self.state = State::Invoiced { sale, gave_up };
            }
            State::Paid { sale, given, .. } => self.state = State::PaidWaiting { sale, given },
            State::DispenseCommitted { sale, given, batch }
            | State::Dispensing { sale, given, batch } => {
                self.recovered(sale, given, batch, report.dispense, now, turn);
            }
            State::Uncertain { .. } => self.explained(report.dispense, now, turn),
            _ => {}
        }
        Taken::Done
    }
}

/// What became of an input.
enum Taken {
    /// It does not fit the state.
    Ignored,
    /// The state may have changed.
    Done,
    /// The state has changed to a committed intent.
    Dispense(Batch),
}
