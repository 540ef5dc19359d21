//! Price, invoice, payment.

use bitspire_shared::ids::RequestId;
use bitspire_shared::money::{Direction, Sats};
use bitspire_shared::rpc::{CheckedQuote, Invoice, PaymentState};

use super::{CashOut, GaveUp, Given, Sale, State, Taken};
use crate::txn::checked::{self, Authorised};
use crate::txn::deal::Now;
use crate::txn::receipt::Paper;
use crate::txn::screen::Why;
use crate::txn::turn::Turn;

impl CashOut {
    pub(super) fn quoted(&mut self, request: RequestId, checked: &CheckedQuote, now: Now) -> Taken {
        let terms = checked.terms();
        let ours = (terms.txid, terms.direction, terms.fiat)
            == (self.deal.txid, Direction::CashOut, self.deal.fiat);
        let (State::Quoted { quote: quote @ None, .. }, Some(asked), true) =
            (&mut self.state, self.live.asking.sent(request), ours)
        else {
            return Taken::Ignored;
        };
        *quote = Some(*terms);
        self.paper = Paper::default();
        self.paper.priced(checked);
        // its life counts from when it was asked for: the service may have counted from then
        self.live.quote_until = Some(asked.after(u64::from(terms.ttl_s).saturating_mul(1_000)));
        self.live.asking.answered(request);
        if self.live.quote_until.is_some_and(|until| now.mono >= until) {
            self.price_again();
        }
        Taken::Done
    }

    pub(super) fn accept(&mut self, now: Now) -> Taken {
        let State::Quoted { quote: Some(_), accepted: accepted @ false, .. } = &mut self.state
        else {
            return Taken::Ignored;
        };
        *accepted = true;
        if self.live.quote_until.is_none_or(|until| now.mono >= until) {
            self.price_again();
        }
        Taken::Done
    }

    /// A price whose time is over is asked for again, not sold at.
    fn price_again(&mut self) {
        if let State::Quoted { quote, accepted, no } = &mut self.state {
            (*quote, *accepted, *no) = (None, false, no.saturating_add(1));
        }
    }

    pub(super) fn cancel(&mut self) -> Taken {
        match &mut self.state {
            State::Quoted { .. } => self.state = State::Cancelled { why: Why::Customer },
            // the payment may be under way: it is watched on, without a screen
            State::Invoiced { gave_up: gave_up @ None, .. } => {
                *gave_up = Some(GaveUp::Cancelled);
                self.live.watched = false;
            }
            _ => return Taken::Ignored,
        }
        Taken::Done
    }

    pub(super) fn network_lost(&mut self) -> Taken {
        if matches!(self.state, State::Quoted { .. }) {
            self.state = State::Cancelled { why: Why::NetworkLost };
        }
        Taken::Done
    }

    pub(super) fn invoiced(&mut self, request: RequestId, invoice: Invoice, now: Now) -> Taken {
        let (State::Quoted { quote: Some(terms), accepted: true, .. }, Some(asked)) =
            (&self.state, self.live.asking.sent(request))
        else {
            return Taken::Ignored;
        };
        let Invoice { payment_hash, bolt11, expires_at, noffer } = invoice;
        let life = expires_at.since(now.unix).saturating_mul(1_000);
        self.live.invoice_until = Some(now.mono.after(life));
        self.live.bolt11 = Some(bolt11);
        self.live.noffer = noffer.filter(|code| checked::is_offer_of(code, terms));
        self.live.present_at = Some(asked);
        self.live.asking.answered(request);
        let sale = Sale { terms: *terms, payment_hash, expires_at };
        self.state = State::Invoiced { sale, gave_up: None };
        Taken::Done
    }

    pub(super) fn payment(
        &mut self,
        request: RequestId,
        state: PaymentState,
        wire_sats: Option<Sats>,
    ) -> Taken {
        let (State::Invoiced { sale, gave_up }, Some(asked)) =
            (&self.state, self.live.asking.sent(request))
        else {
            return Taken::Ignored;
        };
        self.live.asking.answered(request);
        self.live.paid_without_leave = state == PaymentState::Settled;
        match state {
            PaymentState::Pending => {
                // not paid when asked: whoever pays from now on stands here now
                self.live.present_at = self.live.present_at.max(Some(asked));
            }
            PaymentState::Late => {
                self.paper.sale = Some(*sale);
                self.state = State::Late { owed: wire_sats };
            }
            PaymentState::Expired | PaymentState::Failed => {
                self.state = match gave_up {
                    Some(GaveUp::Cancelled) => State::Cancelled { why: Why::Customer },
                    _ => State::Expired,
                };
            }
            // paid, but without leave: the leave will come, or a verdict about what is told as in doubt
            PaymentState::Settled | PaymentState::Unknown => {}
        }
        Taken::Done
    }

    pub(super) fn authorised(&mut self, leave: Authorised, now: Now, turn: &mut Turn) -> Taken {
        let State::Invoiced { sale, gave_up } = self.state else { return Taken::Ignored };
        if (leave.txid, leave.payment_hash) != (self.deal.txid, sale.payment_hash) {
            return Taken::Ignored;
        }
        let given = Given::default();
        if gave_up.is_none() && self.fresh(now) {
            self.give(sale, given, turn);
        } else {
            self.state = State::PaidWaiting { sale, given };
        }
        Taken::Done
    }
}
