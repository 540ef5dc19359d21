//! The one request that a transaction waits for.
//!
//! Promise: what is asked follows from the state alone, so it is the same after a restart, with the
//! same request id; polls carry an id each, and the one before is forgotten.
//!
//! Failure policy: a refusal that may go away is asked again with backoff; one that will not is
//! asked again every ten minutes where money hangs on it, with an alert; a poll that is refused for
//! good goes on each minute, since the push that it stands in for may have been lost. The service
//! answers a repeated id from its store, so asking again has no second effect.

use bitspire_shared::error::Kind;
use bitspire_shared::ids::RequestId;
use bitspire_shared::rpc::ErrorCode;
use bitspire_shared::time::Mono;

use super::deal::Deal;
use super::effect::{Ask, Effect, Request};

/// Waits between polls: a push that was lost costs seconds.
const POLL_FIRST_MS: [u64; 2] = [2_000, 3_000];
/// The waits after those.
const POLL_MS: u64 = 5_000;
/// After this many polls nobody stands at the screen any more.
const QUICK_POLLS: u32 = 200;
/// The same where the customer is known to have left: a push will tell, and the service takes so
/// many requests a minute from a machine, of which the next customer needs some.
const QUICK_POLLS_LEFT: u32 = 12;
/// The waits then.
const POLL_SLOW_MS: u64 = 60_000;
/// The longest wait before a request that was refused for now is asked again.
const BACKOFF_LAST_MS: u64 = 60_000;
/// The wait before a request that was refused for good is asked again.
const REFUSED_MS: u64 = 600_000;

/// Whether a refusal is about the machine, whatever it asked.
const fn is_about_the_machine(code: ErrorCode) -> bool {
    use ErrorCode::{Disabled, NotConfirmed, NotInRoster, Revoked, TokenExpired};
    matches!(code, Disabled | NotConfirmed | NotInRoster | Revoked | TokenExpired)
}

/// Whether a price that was refused with `code` is not asked for again: refused for good, or too
/// old, since the same request brings the same price.
pub(super) fn no_price(code: ErrorCode) -> bool {
    matches!(code.kind(), Kind::Permanent | Kind::Misuse) || code == ErrorCode::Stale
}

/// What a state waits for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// Names it within the transaction.
    pub(super) label: String,
    pub(super) ask: Ask,
    /// Asked again and again, a new request each time.
    pub(super) poll: bool,
    /// Whether the customer looks on.
    pub(super) watched: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Pending {
    request: Request,
    label: String,
    poll: bool,
    sent: Mono,
    answered: bool,
}

/// What was asked, and when to ask again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Asking {
    pending: Option<Pending>,
    first: Option<Mono>,
    polls: u32,
    failures: u32,
    refusal: Option<ErrorCode>,
    due: Option<Mono>,
}

impl Asking {
    /// When the request with this id was first sent, if it is the one that is waited for.
    pub(super) fn sent(&self, id: RequestId) -> Option<Mono> {
        self.pending.as_ref().filter(|p| p.request.id == id).map(|p| p.sent)
    }

    /// Since when it has been waited for, however often it was asked.
    pub(super) const fn waiting_since(&self) -> Option<Mono> {
        self.first
    }

    /// What the service said last, where that was no.
    pub(super) const fn refusal(&self) -> Option<ErrorCode> {
        self.refusal
    }

    /// The request was answered: nobody has to repeat it.
    pub(super) fn answered(&mut self, id: RequestId) {
        if let Some(pending) = self.pending.as_mut().filter(|p| p.request.id == id) {
            pending.answered = true;
            (self.failures, self.refusal) = (0, None);
        }
    }

    /// The request was refused: it will be asked again, later.
    pub(super) fn refused(&mut self, id: RequestId, code: ErrorCode, now: Mono) {
        let Some(pending) = self.pending.as_mut().filter(|p| p.request.id == id) else { return };
        pending.answered = true;
        self.failures = self.failures.saturating_add(1);
        self.refusal = Some(code);
        let wait = match code.kind() {
            Kind::Transient | Kind::Uncertain => {
                1_000u64.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_LAST_MS)
            }
            Kind::Permanent | Kind::Misuse if pending.poll => POLL_SLOW_MS,
            Kind::Permanent | Kind::Misuse => REFUSED_MS,
        };
        self.due = Some(now.after(wait));
    }

    /// The way to the service is there again, or the process is new. What was refused for what the
    /// machine was then, revoked or not confirmed, is asked again at once: it may be another now.
    pub(super) fn again(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        match &self.pending {
            Some(pending) if !pending.answered => {
                effects.push(Effect::Request(pending.request.clone()));
            }
            Some(_) if self.refusal.is_some_and(is_about_the_machine) => self.due = Some(now),
            _ => {}
        }
    }

    /// Brings what is asked in line with what the state waits for.
    pub(super) fn follow(
        &mut self,
        wanted: Option<Wanted>,
        deal: &Deal,
        now: Mono,
        effects: &mut Vec<Effect>,
    ) {
        let same = |p: &Pending| wanted.as_ref().is_some_and(|w| w.label == p.label);
        if !self.pending.as_ref().is_some_and(same) {
            self.forget(effects);
            *self = Self { first: wanted.as_ref().map(|_| now), ..Self::default() };
        }
        let Some(wanted) = wanted else { return };
        if wanted.poll && wanted.watched && self.failures == 0 && self.polls < QUICK_POLLS {
            // the customer is back: not at the end of a slow wait
            self.due = self.due.map(|due| due.min(now.after(POLL_MS)));
        }
        if self.pending.is_some() && self.due.is_none_or(|due| now < due) {
            return;
        }
        if wanted.poll {
            self.poll(wanted, deal, now, effects);
        } else {
            let id = deal.request_id(&wanted.label);
            let request = Request { id, ask: wanted.ask };
            effects.push(Effect::Request(request.clone()));
            let label = wanted.label;
            let sent = self.first.unwrap_or(now);
            self.pending = Some(Pending { request, label, poll: false, sent, answered: false });
            self.due = None;
        }
    }

    fn poll(&mut self, wanted: Wanted, deal: &Deal, now: Mono, effects: &mut Vec<Effect>) {
        self.forget(effects);
        let id = deal.request_id(&format!("{}:{}", wanted.label, self.polls));
        let request = Request { id, ask: wanted.ask };
        effects.push(Effect::Request(request.clone()));
        let quick = if wanted.watched { QUICK_POLLS } else { QUICK_POLLS_LEFT };
        let wait = match POLL_FIRST_MS.get(usize::try_from(self.polls).unwrap_or(usize::MAX)) {
            Some(wait) => *wait,
            None if self.polls < quick => POLL_MS,
            None => POLL_SLOW_MS,
        };
        self.polls = self.polls.saturating_add(1);
        self.due = Some(now.after(wait));
        let label = wanted.label;
        self.pending = Some(Pending { request, label, poll: true, sent: now, answered: false });
    }

    fn forget(&self, effects: &mut Vec<Effect>) {
        if let Some(pending) = self.pending.as_ref().filter(|p| !p.answered) {
            effects.push(Effect::Forget(pending.request.id));
        }
    }
}
