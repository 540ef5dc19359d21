//! Notes in: the customer feeds notes and claims a withdraw for them.
//!
//! Promise: a note is told to stack only after its intent is on the disk, and counts for the
//! customer once, when the acceptor says that it is past the point of no return; the acceptor
//! forgets its credit only after ours is on the disk. Each note keeps the rate lock under which it
//! was taken.
//!
//! States, for one note after the other: `Open -> Escrowed -> Open | StackCommitted -> Credited ->
//! Open | Uncertain`; then `Returned`, or `Offered -> Claimed -> Redeemed | PayUnknown | Expired`.
//!
//! Failure policy: whatever stands between customer and service (no network, no screen, no rate, a
//! restart) closes the inlet: the note in escrow goes back, what is stacked becomes a withdraw.
//! A note of which nobody knows whether it is ours makes the session `Uncertain`; the acceptor's
//! own word or a verdict ends that, never a guess. A withdraw is asked for until it is there: the
//! notes cannot be given back.

mod notes;
mod payout;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::clink::Ndebit;
use bitspire_shared::error::Kind;
use bitspire_shared::ids::{ClaimCode, QuoteId, RequestId};
use bitspire_shared::money::{Denomination, Direction, Fiat, Sats};
use bitspire_shared::rpc::{
    CheckedQuote, ErrorCode, GetPayment, GetQuote, Lnurl, LockedNotes, Notes, QuoteTerms,
};
use bitspire_shared::time::Mono;
use serde::{Deserialize, Serialize};

use super::asking::{Asking, Wanted, no_price};
use super::deal::{Deal, Now, Order};
use super::effect::{Alert, Ask, Effect, WithdrawDraft};
use super::input::Input;
use super::receipt::Paper;
use super::record::{Record, Txn};
use super::screen::{Screen, View, Why, claim};
use super::turn::Turn;

pub use state::{Bill, Closing, Fate, Note, Owed, State};

/// One cash-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CashIn {
    pub(super) deal: Deal,
    /// The rate locks, oldest first.
    pub(super) locks: Vec<QuoteTerms>,
    notes: Vec<Note>,
    closing: Option<Closing>,
    pub(super) state: State,
    #[serde(default)]
    pub(super) paper: Paper,
    #[serde(skip)]
    live: Live,
}

/// What only this run of the vault knows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Live {
    code: Option<ClaimCode>,
    lnurl: Option<Lnurl>,
    ndebit: Option<Ndebit>,
    /// The customer asked to see the withdraw again.
    again: bool,
    watched: bool,
    /// A note that is none of the session's is being given back.
    returning: bool,
    /// It had ended before this run: its last credit may be said again; the vault knows how long.
    ended_before: bool,
    /// The values that the machine takes.
    takes: BTreeSet<Denomination>,
    /// What the inlet was last told.
    inlet: BTreeSet<Denomination>,
    lock_until: Option<Mono>,
    /// When it came into its state, or the customer last did something.
    since: Mono,
    asking: Asking,
}

impl CashIn {
    /// Opens a cash-in for notes of the values in `takes`: asks for a rate lock.
    #[must_use]
    pub fn start(order: Order, takes: BTreeSet<Denomination>, now: Now) -> (Self, Vec<Effect>) {
        let deal = Deal::new(&order, now);
        let live = Live { code: Some(order.code), watched: true, takes, ..Live::default() };
        let (locks, notes, closing) = (Vec::new(), Vec::new(), None);
        let (state, paper) = (State::Open, Paper::default());
        let mut txn = Self { deal, locks, notes, closing, state, paper, live };
        let before = Self { state: State::Returned, live: Live::default(), ..txn.clone() };
        let effects = txn.conclude(&before, "start", Turn::default(), now);
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

    /// The notes that were told to stack or taken unasked, in order.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The rate locks, oldest first.
    #[must_use]
    pub fn locks(&self) -> &[QuoteTerms] {
        &self.locks
    }

    /// Why the session takes no more notes, if that is so.
    #[must_use]
    pub const fn closing(&self) -> Option<Closing> {
        self.closing
    }

    fn why(&self) -> Why {
        match self.closing {
            Some(Closing::Finished) | None => Why::Customer,
            Some(Closing::Idle) => Why::Idle,
            Some(Closing::NetworkLost) => Why::NetworkLost,
            Some(Closing::ScreenBroken) => Why::ScreenBroken,
            Some(Closing::Fault | Closing::Uncertain) => Why::Fault,
            Some(Closing::NoRate { refusal }) => Why::unanswered(refusal),
            Some(Closing::Restarted) => Why::Restarted,
        }
    }

    /// What counts for the customer, in minor units.
    #[must_use]
    pub fn total(&self) -> Fiat {
        self.worth(Note::is_ours)
    }

    /// What a note is worth under the last lock, at market rate.
    #[must_use]
    pub fn market_worth(&self, note: Denomination) -> Option<Sats> {
        let fiat = Fiat { minor: note.minor().into(), ..self.deal.fiat };
        self.locks.last()?.exchange_rate.principal(fiat, Direction::CashIn).ok()
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
                let effects = next.conclude(&self, name, turn, now);
                (next, effects)
            }
            Taken::Stack => {
                // both records, one after the other: the note was seen; now it is ours to take
                let mut effects = vec![next.journal(name, Turn::default())];
                next.live.since = now.mono;
                effects.push(next.commit_stack().unwrap_or(Effect::ReturnBill));
                effects.extend(next.conclude_live(&self, name, now));
                (next, effects)
            }
        }
    }

    fn take(&mut self, input: Input, now: Now, turn: &mut Turn) -> Taken {
        match input {
            Input::Finish | Input::Cancel if self.closing.is_some() => Taken::Ignored,
            Input::Finish | Input::Cancel => self.close(Closing::Finished),
            Input::NetworkLost => self.close(Closing::NetworkLost),
            Input::ScreenBroken => {
                self.live.watched = false;
                self.close(Closing::ScreenBroken)
            }
            Input::AcceptorFault { .. } => self.close(Closing::Fault),
            Input::NetworkBack => {
                self.live.asking.again(now.mono, &mut turn.effects);
                Taken::Done
            }
            Input::Quote { request, quote } => self.locked(request, &quote),
            Input::Escrowed { bill, allowed } => self.escrowed(bill, allowed, now, turn),
            Input::Credit { escrowed, denomination } => self.credit(escrowed, denomination, turn),
            Input::Stacked => self.stacked(turn),
            Input::Returned => self.returned(turn),
            Input::Withdraw { request, withdraw } => self.offered(request, &withdraw, turn),
            Input::WithdrawClaimed(id) => self.claimed(id),
            Input::WithdrawPaid(id) => self.paid(id),
            Input::Payment { request, state, .. } => self.payment(request, state),
            Input::ClaimEntered(code) => self.claim_entered(&code),
            Input::Verdict(verdict) => self.verdict(&verdict, turn),
            Input::Refused { request, code } => self.refused(request, code, now, turn),
            Input::Tick => self.tick(now, turn),
            Input::Restarted(report) => self.restarted(report.bill, now, turn),
            Input::Accept
            | Input::GiveBack(_)
            | Input::Invoice { .. }
            | Input::Authorised(_)
            | Input::Reported { .. }
            | Input::Planned(_)
            | Input::DispenseSent { .. }
            | Input::Dispensed { .. }
            | Input::Followed { .. }
            | Input::Taken => Taken::Ignored,
        }
    }

    /// Record first, then what the turn wants, then inlet, requests and screen.
    fn conclude(
        &mut self,
        before: &Self,
        cause: &'static str,
        mut turn: Turn,
        now: Now,
    ) -> Vec<Effect> {
        let then = std::mem::take(&mut turn.effects);
        let mut effects = Vec::new();
        let same = (&self.locks, &self.notes, self.closing, &self.state)
            == (&before.locks, &before.notes, before.closing, &before.state);
        if !same {
            self.live.since = now.mono;
            effects.push(self.journal(cause, turn));
        }
        effects.extend(then);
        effects.extend(self.conclude_live(before, cause, now));
        effects
    }

    fn journal(&self, cause: &'static str, turn: Turn) -> Effect {
        let Turn { cash, resolves, verdict, .. } = turn;
        let txn = Txn::CashIn(self.clone());
        Effect::Journal(Box::new(Record { txn, cause, cash, resolves, verdict }))
    }

    fn conclude_live(&mut self, before: &Self, cause: &'static str, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.live.lock_until.is_some_and(|until| now.mono >= until) {
            self.live.lock_until = None;
        }
        let inlet = self.inlet();
        if inlet != self.live.inlet || cause == "restarted" {
            self.live.inlet.clone_from(&inlet);
            effects.push(Effect::Inlet(inlet));
        }
        self.live.asking.follow(self.wanted(), &self.deal, now.mono, &mut effects);
        let screen = self.screen();
        if before.screen() != screen || cause == "restarted" {
            effects.push(Effect::Show(screen));
        }
        effects
    }

    /// The values that may be fed now.
    fn inlet(&self) -> BTreeSet<Denomination> {
        let between = matches!(self.state, State::Open | State::Credited);
        if !between || self.closing.is_some() || self.live.lock_until.is_none() {
            return BTreeSet::new();
        }
        let room = self.room();
        self.live.takes.iter().copied().filter(|note| i64::from(note.minor()) <= room).collect()
    }

    /// What may still be taken under the last lock, in minor units.
    fn room(&self) -> i64 {
        let Some(lock) = self.locks.last() else { return 0 };
        let under = |note: &Note| note.lock == Some(lock.quote_id) && note.fate != Fate::NotOurs;
        lock.fiat.minor.saturating_sub(self.worth(under).minor)
    }

    pub(super) fn worth(&self, counts: impl Fn(&Note) -> bool) -> Fiat {
        let notes = self.notes.iter().filter(|note| counts(note));
        let value = |note: &Note| note.denomination.map_or(0, |d| i64::from(d.minor()));
        let minor = notes.fold(0i64, |sum, note| sum.saturating_add(value(note)));
        Fiat { minor, ..self.deal.fiat }
    }

    fn wanted(&self) -> Option<Wanted> {
        let (label, ask, poll) = match &self.state {
            State::Open | State::Credited if self.closing.is_none() => {
                let left = self.deal.fiat.minor.saturating_sub(self.total().minor);
                if self.live.lock_until.is_some() || left <= 0 {
                    return None;
                }
                let ask = GetQuote {
                    direction: Direction::CashIn,
                    txid: self.deal.txid,
                    fiat_minor: left,
                    fiat_code: self.deal.fiat.currency,
                    claim_hash: self.deal.claim_hash,
                };
                (format!("lock:{}", self.locks.len()), Ask::GetQuote(ask), false)
            }
            State::Offered { withdraw: None } => ("withdraw".to_owned(), self.draft()?, false),
            State::Offered { .. } if self.live.again && self.live.lnurl.is_none() => {
                ("withdraw".to_owned(), self.draft()?, false)
            }
            State::Offered { withdraw: Some(withdraw) }
            | State::Claimed { withdraw }
            | State::PayUnknown { withdraw } => {
                let ask = Ask::GetPayment(GetPayment::WithdrawId(withdraw.withdraw_id));
                ("payment".to_owned(), ask, true)
            }
            _ => return None,
        };
        Some(Wanted { label, ask, poll, watched: self.live.watched })
    }

    fn draft(&self) -> Option<Ask> {
        let mut lots: BTreeMap<QuoteId, Notes> = BTreeMap::new();
        for note in self.notes.iter().filter(|note| note.is_ours()) {
            let count = lots.entry(note.lock?).or_default().entry(note.denomination?).or_default();
            *count = count.saturating_add(1);
        }
        let mut all = self.locks.iter().filter_map(|lock| {
            let notes = lots.remove(&lock.quote_id)?;
            Some(LockedNotes { quote_id: lock.quote_id, notes })
        });
        let mut earlier: Vec<LockedNotes> = all.by_ref().collect();
        let LockedNotes { quote_id, notes } = earlier.pop()?;
        let (txid, claim_hash) = (self.deal.txid, self.deal.claim_hash);
        let fiat_code = self.deal.fiat.currency;
        let draft = WithdrawDraft { quote_id, txid, notes, earlier, fiat_code, claim_hash };
        Some(Ask::CreateWithdraw(draft))
    }

    fn locked(&mut self, request: RequestId, quote: &CheckedQuote) -> Taken {
        let terms = quote.terms();
        let ours = (terms.txid, terms.direction, terms.fiat.currency)
            == (self.deal.txid, Direction::CashIn, self.deal.fiat.currency);
        let known = self.locks.iter().any(|lock| lock.quote_id == terms.quote_id);
        let (Some(asked), true, false) = (self.live.asking.sent(request), ours, known) else {
            return Taken::Ignored;
        };
        if !matches!(self.state, State::Open | State::Credited) || self.closing.is_some() {
            return Taken::Ignored;
        }
        let life = u64::from(terms.ttl_s).saturating_mul(1_000);
        let usable = life.saturating_sub(self.deal.rules.lock_margin_ms);
        self.live.lock_until = Some(asked.after(usable));
        self.live.asking.answered(request);
        self.locks.push(*terms);
        self.paper.priced(quote);
        Taken::Done
    }

    fn refused(&mut self, request: RequestId, code: ErrorCode, now: Now, turn: &mut Turn) -> Taken {
        if self.live.asking.sent(request).is_none() {
            return Taken::Ignored;
        }
        let for_good = matches!(code.kind(), Kind::Permanent | Kind::Misuse);
        if let Some(wanted) = self.wanted().filter(|wanted| for_good && wanted.ask.binding()) {
            turn.alert(Alert::Refused { rpc: wanted.ask.rpc(), code });
        }
        self.live.asking.refused(request, code, now.mono);
        if no_price(code) && matches!(self.state, State::Open | State::Credited) {
            return self.close(Closing::NoRate { refusal: Some(code) });
        }
        Taken::Done
    }

    fn tick(&mut self, now: Now, turn: &mut Turn) -> Taken {
        let rules = self.deal.rules;
        let in_state = now.mono.since(self.live.since);
        match self.state {
            State::Open | State::Credited if self.closing.is_none() => {
                let asked = self.live.asking.waiting_since();
                if asked.is_some_and(|at| now.mono.since(at) >= rules.answer_ms) {
                    let refusal = self.live.asking.refusal();
                    return self.close(Closing::NoRate { refusal });
                }
                if in_state >= rules.idle_ms {
                    return self.close(Closing::Idle);
                }
            }
            // never told to stack: whatever the acceptor does, it is not ours
            State::Escrowed { .. } if in_state >= rules.stack_ms => {
                self.state = State::Open;
                return self.close(Closing::Fault);
            }
            State::StackCommitted { no, .. } if in_state >= rules.stack_ms => {
                let evidence = format!("no word of the acceptor within {in_state} ms");
                self.doubt(no, evidence, true, turn);
            }
            _ => {}
        }
        Taken::Done
    }

    /// What the customer sees in this state.
    #[must_use]
    pub fn screen(&self) -> Screen {
        let total = self.total();
        let view = match &self.state {
            State::Open | State::Credited if self.locks.is_empty() => {
                View::Asking { direction: Direction::CashIn }
            }
            State::Open | State::Credited => View::Feed {
                total,
                room_minor: if self.live.lock_until.is_some() { self.room() } else { 0 },
                rate: self.locks.last().map(|lock| lock.exchange_rate),
            },
            State::Escrowed { bill } | State::StackCommitted { bill, .. } => {
                View::Counting { total, note_minor: bill.denomination.minor() }
            }
            State::Uncertain { .. } => View::Uncertain,
            State::Offered { withdraw: None } => View::PreparingWithdraw { total },
            State::Offered { withdraw: Some(withdraw) } => View::Claim {
                lnurl: self.live.lnurl.clone().filter(|_| self.live.watched),
                ndebit: self.live.ndebit.clone().filter(|_| self.live.watched),
                net_sats: withdraw.net_sats,
                fee_sats: withdraw.fee_sats,
                total,
            },
            State::Claimed { withdraw } => View::Paying { net_sats: withdraw.net_sats },
            State::PayUnknown { withdraw } => View::PayUnknown { net_sats: withdraw.net_sats },
            State::Redeemed { withdraw } => View::Redeemed { net_sats: withdraw.net_sats },
            State::Expired { .. } => View::Unclaimed { total },
            State::Returned => View::Returned { why: self.why() },
        };
        let claim = claim(self.live.code.as_ref(), self.live.watched);
        Screen { claim, view, receipt: None }
    }
}

/// What became of an input.
enum Taken {
    /// It does not fit the state.
    Ignored,
    /// The state may have changed.
    Done,
    /// A note is in escrow and is to be stacked.
    Stack,
}
