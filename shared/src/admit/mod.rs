//! Which events come in: the cheapest check first, no reply before a signature has verified.
//!
//! Promise: before the signature, on a borrowed head of the frame, in this order: size, kind,
//! recipient, expiry, `created_at`, duplicate id (looked up only), roster, the relay's budget. A
//! refusal there allocates nothing and changes nothing but that budget. Once the signature
//! has verified: the same checks on the event itself, the id is recorded, the machine's bucket.
//! Then the caller decrypts and parses, and [`Standing::permit`] says which RPCs a machine that is
//! not in good standing still has.
//!
//! No budget is shared by all relays, or one relay could starve the others; the machine's bucket
//! comes after the signature, or anybody could starve a machine by its public key.
//!
//! Failure policy: each refusal is a [`Refused`]: code, counter, reply and log level in one table.

mod budget;
mod head;
mod refusal;
mod seen;
mod whole;

use crate::clink;
use crate::rate::{Keyed, RateLimited};
use crate::rpc::{self, RpcName};
use crate::time::{Mono, Unix};

pub use budget::RelayBudget;
pub use head::{EventHead, Frame, Head, HeadTags};
pub use refusal::{Level, Refusal, Refused, ReplyRule, Stage};
pub use seen::SeenIds;
pub use whole::whole_event;

/// Bytes that the largest event needs whose content is one NIP-44 payload: 87 472 of base64, the
/// rest for envelope and tags.
pub const MAX_FRAME: usize = 90_112;

/// Seconds for which an id is remembered where neither clock nor expiry bounds its event's life.
const REMEMBER_S: u64 = 600;

/// What is asked of events of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRule {
    /// The kind.
    pub kind: u16,
    /// Seconds that `created_at` may be off our clock; `None` for stored kinds.
    pub max_skew_s: Option<u64>,
    /// Whether it must say when it is void.
    pub must_expire: bool,
}

/// What is asked of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// Bytes of a whole message.
    pub max_frame: usize,
    /// The kinds that are read here.
    pub kinds: &'a [KindRule],
}

impl KindRule {
    /// Requests, replies and pushes.
    pub const RPC: Self = Self { kind: rpc::KIND, max_skew_s: Some(120), must_expire: true };
    /// Requests of customers' wallets for an invoice (CLINK Offers). Wallets set no expiration; the
    /// wide skew lets the one with the wrong clock be told so.
    pub const OFFER: Self =
        Self { kind: clink::OFFER_KIND, max_skew_s: Some(600), must_expire: false };
    /// Requests of customers' wallets to be paid (CLINK Debits).
    pub const DEBIT: Self =
        Self { kind: clink::DEBIT_KIND, max_skew_s: Some(600), must_expire: false };
}

impl Rules<'static> {
    /// What the service asks of requests, and the machine of replies and pushes.
    pub const RPC: Self = Self { max_frame: MAX_FRAME, kinds: &[KindRule::RPC] };
    /// What the service asks of customers' wallets: an invoice and a few words fit.
    pub const CLINK: Self = Self { max_frame: 8_192, kinds: &[KindRule::OFFER, KindRule::DEBIT] };
}

/// Why nobody can be named for an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unrouted {
    /// No machine of ours, nor a live session of one.
    NotInRoster,
    /// Nobody is there to say.
    NoResolver,
    /// Whoever says failed.
    ResolverError,
}

impl From<Unrouted> for Refusal {
    fn from(unrouted: Unrouted) -> Self {
        match unrouted {
            Unrouted::NotInRoster => Self::NotInRoster,
            Unrouted::NoResolver => Self::NoResolver,
            Unrouted::ResolverError => Self::ResolverError,
        }
    }
}

/// Who may speak to whom, in memory: asked for each frame, so it must neither block nor allocate.
pub trait Roster {
    /// Names a machine: the same for its spire key and all its sessions.
    type Member: Ord + Clone;

    /// Whether `key` is one of ours to read for.
    fn reads_for(&self, key: &[u8; 32]) -> bool;

    /// The machine that `author` speaks for. A machine whose pairing was revoked or has expired
    /// stays listed, so that it can be told so and its evidence still counts.
    ///
    /// # Errors
    /// [`Unrouted`].
    fn member(&self, author: &[u8; 32]) -> Result<Self::Member, Unrouted>;
}

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Trusted time, for what travels.
    pub unix: Unix,
    /// For buckets.
    pub mono: Mono,
}

/// A frame that may go on to the check of its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed<M> {
    /// An event that says it is of this member.
    Event {
        /// Its head.
        head: Head,
        /// Whom it claims to be from.
        member: M,
    },
    /// No event, but another message of a relay.
    Other,
}

/// Rules and roster at one moment.
#[derive(Debug)]
pub struct Gate<'a, R> {
    /// What is asked of events.
    pub rules: &'a Rules<'a>,
    /// Who may speak to whom.
    pub roster: &'a R,
    /// When.
    pub now: Now,
}

impl<R: Roster> Gate<'_, R> {
    /// Stage 1, on the text of one message of one relay, before any signature.
    ///
    /// # Errors
    /// [`Refused`], never to be answered.
    pub fn before_signature(
        &self,
        frame: &str,
        seen: &SeenIds,
        relay: &mut RelayBudget,
    ) -> Result<Passed<R::Member>, Refused> {
        self.stage_1(frame, seen, relay).map_err(Refusal::before_signature)
    }

    fn stage_1(
        &self,
        frame: &str,
        seen: &SeenIds,
        relay: &mut RelayBudget,
    ) -> Result<Passed<R::Member>, Refusal> {
        let (max, got) = (self.rules.max_frame, frame.len());
        if got > max {
            return Err(Refusal::TooLarge { max, got });
        }
        let Frame::Event(head) = Frame::parse(frame)? else {
            return Ok(Passed::Other);
        };
        rule_of(self.rules, head.kind)?;
        let head = head.decode()?;
        let member = self.check(&head, seen)?;
        let busy = |RateLimited { retry_after_ms }| Refusal::RelayBusy { retry_after_ms };
        relay.take(&head.pubkey, self.now.mono).map_err(busy)?;
        Ok(Passed::Event { head, member })
    }

    /// Stage 2, on an event whose id and signature the caller has verified. Nothing of stage 1 is
    /// taken on trust: the event is checked itself, since it may have come by another way.
    ///
    /// # Errors
    /// [`Refused`], to be answered as [`Refused::reply`] says.
    pub fn after_signature(
        &self,
        event: &nostr::Event,
        seen: &mut SeenIds,
        machines: &mut Keyed<R::Member>,
    ) -> Result<R::Member, Refused> {
        self.stage_2(event, seen, machines).map_err(Refusal::after_signature)
    }

    fn stage_2(
        &self,
        event: &nostr::Event,
        seen: &mut SeenIds,
        machines: &mut Keyed<R::Member>,
    ) -> Result<R::Member, Refusal> {
        let Now { unix, mono } = self.now;
        let head = Head::of(event)?;
        let member = self.check(&head, seen)?;
        // one that is refused for its rate is recorded too: a retry is a freshly signed event
        if !seen.record(head.id, remember_until(&head, self.rules, unix), unix) {
            return Err(Refusal::Duplicate);
        }
        let busy = |RateLimited { retry_after_ms }| Refusal::MachineBusy { retry_after_ms };
        machines.take(&member, mono).map_err(busy)?;
        Ok(member)
    }

    /// The checks that both stages share, cheapest first.
    fn check(&self, head: &Head, seen: &SeenIds) -> Result<R::Member, Refusal> {
        let now = self.now.unix;
        let rule = rule_of(self.rules, head.kind)?;
        if !head.recipient.is_some_and(|key| self.roster.reads_for(&key)) {
            return Err(Refusal::WrongRecipient);
        }
        match head.expiration {
            // NIP-40: void once the time has passed, so still good in its last second
            Some(end) if end < now => return Err(Refusal::Expired { late_s: now.since(end) }),
            None if rule.must_expire => return Err(Refusal::Malformed),
            _ => (),
        }
        if let Some(max_s) = rule.max_skew_s {
            let off_s = now.distance(head.created_at);
            if off_s > max_s {
                return Err(Refusal::Stale { off_s, max_s });
            }
        }
        if seen.contains(&head.id) {
            return Err(Refusal::Duplicate);
        }
        Ok(self.roster.member(&head.pubkey)?)
    }
}

fn rule_of<'a>(rules: &Rules<'a>, kind: u16) -> Result<&'a KindRule, Refusal> {
    let rule = rules.kinds.iter().find(|rule| rule.kind == kind);
    rule.ok_or(Refusal::Kind { got: kind })
}

/// From then on expiry or clock refuse the event, so that its id may be forgotten.
fn remember_until(head: &Head, rules: &Rules<'_>, now: Unix) -> Unix {
    let skew = rule_of(rules, head.kind).ok().and_then(|rule| rule.max_skew_s);
    let stale = skew.map(|skew| head.created_at.after(skew));
    let ends = [stale, head.expiration].into_iter().flatten().min();
    ends.unwrap_or_else(|| now.after(REMEMBER_S))
}

/// How a machine stands with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In service.
    Active,
    /// Paired; the operator has not yet compared the eight digits.
    Unconfirmed,
    /// Switched off by its operator: no new sale, while what has begun comes to its end.
    Disabled,
    /// Switched off by an alarm: its journal may be a copy, so nothing that it states moves money
    /// until a person has looked.
    Suspect,
    /// Its pairing was revoked.
    Revoked,
    /// Its pairing's time is over.
    TokenExpired,
}

impl Standing {
    /// Whether what began while the machine was in service still comes to its end: a paid invoice
    /// gets its leave to dispense, and stacked notes get their sats. A revoke ends that too; then
    /// the customer is owed.
    #[must_use]
    pub const fn finishes(self) -> bool {
        matches!(self, Self::Active | Self::Disabled | Self::TokenExpired)
    }

    /// Whether a machine that stands so may call `name`. No sale starts for one that is not in
    /// service, and none can: it gets neither quote nor lock, nor an invoice for an earlier quote.
    /// `create_withdraw` starts nothing, since it names a lock that was granted in service and notes
    /// that the vault stacked under it. What a machine states as evidence (signed by its vault) is
    /// always taken.
    ///
    /// # Errors
    /// [`Refused`].
    pub const fn permit(self, name: RpcName) -> Result<(), Refused> {
        let evidence = matches!(name, RpcName::ReportDispense | RpcName::ReportState);
        let session = matches!(name, RpcName::OpenSession);
        let look_up = matches!(name, RpcName::GetPayment);
        let claim = matches!(name, RpcName::CreateWithdraw);
        let (permitted, why) = match self {
            Self::Active => return Ok(()),
            Self::Unconfirmed => (name.before_confirmation(), Refusal::NotConfirmed),
            Self::Disabled => (evidence || session || look_up || claim, Refusal::Disabled),
            Self::Suspect => (evidence || look_up, Refusal::Disabled),
            Self::Revoked => (evidence, Refusal::Revoked),
            Self::TokenExpired => (evidence || look_up || claim, Refusal::TokenExpired),
        };
        if permitted { Ok(()) } else { Err(why.after_signature()) }
    }
}

#[cfg(test)]
mod tests;
