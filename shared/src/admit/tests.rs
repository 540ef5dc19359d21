//! The order of admission, and what a stranger can and cannot do.

use std::num::{NonZeroU32, NonZeroUsize};

use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::rate::Quota;

const START: Unix = Unix(1_800_000_000);

fn keys(n: u8) -> Keys {
    Keys::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

fn bytes(n: u8) -> [u8; 32] {
    keys(n).public_key().to_bytes()
}

/// Machine 1 with spire key 1 and session key 11; machine 2 with spire key 2. We read for key 9.
struct Two {
    trouble: Option<Unrouted>,
}

impl Roster for Two {
    type Member = u8;

    fn reads_for(&self, key: &[u8; 32]) -> bool {
        *key == bytes(9)
    }

    fn member(&self, author: &[u8; 32]) -> Result<u8, Unrouted> {
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        [(1, 1), (11, 1), (2, 2)]
            .into_iter()
            .find(|(key, _)| bytes(*key) == *author)
            .map(|(_, member)| member)
            .ok_or(Unrouted::NotInRoster)
    }
}

struct World {
    roster: Two,
    seen: SeenIds,
    relay: RelayBudget,
    machines: Keyed<u8>,
}

impl World {
    fn new() -> Self {
        let quota = |rate, burst| {
            Quota::per_minute(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(burst).unwrap())
        };
        let room = NonZeroUsize::new(64).unwrap();
        Self {
            roster: Two { trouble: None },
            seen: SeenIds::new(room),
            relay: RelayBudget::new(quota(60, 20), room, quota(60, 20)),
            machines: Keyed::new(quota(30, 20), room),
        }
    }

    fn before(&mut self, frame: &str, now: Unix) -> Result<Passed<u8>, Refusal> {
        let gate = gate(&self.roster, now);
        let passed = gate.before_signature(frame, &self.seen, &mut self.relay);
        passed.map_err(|refused| {
            assert_eq!(refused.stage, Stage::BeforeSignature);
            refused.why
        })
    }

    fn after(&mut self, event: &Event, now: Unix) -> Result<u8, Refusal> {
        let gate = gate(&self.roster, now);
        let passed = gate.after_signature(event, &mut self.seen, &mut self.machines);
        passed.map_err(|refused| {
            assert_eq!(refused.stage, Stage::AfterSignature);
            refused.why
        })
    }
}

/// The monotonic clock stands still, so that no bucket fills again.
fn gate(roster: &Two, unix: Unix) -> Gate<'_, Two> {
    Gate { rules: &Rules::RPC, roster, now: Now { unix, mono: Mono(0) } }
}

#[derive(Clone)]
struct Draft {
    author: u8,
    kind: u16,
    recipient: Option<u8>,
    expiration: Option<u64>,
    created_at: Unix,
    content: String,
}

fn good() -> Draft {
    Draft {
        author: 1,
        kind: rpc::KIND,
        recipient: Some(9),
        expiration: Some(START.0 + 180),
        created_at: START,
        content: "cipher".into(),
    }
}

fn signed(draft: &Draft) -> Event {
    EventBuilder::new(Kind::from(draft.kind), draft.content.clone())
        .tags(draft.recipient.map(|n| Tag::public_key(keys(n).public_key())))
        .tags(draft.expiration.map(|at| Tag::expiration(Timestamp::from(at))))
        .custom_created_at(Timestamp::from(draft.created_at.0))
        .sign_with_keys(&keys(draft.author))
        .unwrap()
}

fn frame(event: &Event) -> String {
    format!("[\"EVENT\",\"sub\",{}]", event.as_json())
}

/// Loss prevented: a request that should be served is not, or is served for somebody else.
#[test]
fn a_good_request_comes_through_once() {
    let mut world = World::new();
    for author in [1, 11] {
        let event = signed(&Draft { author, ..good() });
        let Ok(Passed::Event { head, member: 1 }) = world.before(&frame(&event), START) else {
            panic!("refused");
        };
        assert_eq!(head.pubkey, bytes(author));
        assert_eq!(world.after(&event, START), Ok(1));
        assert_eq!(world.before(&frame(&event), START), Err(Refusal::Duplicate));
        assert_eq!(world.after(&event, START), Err(Refusal::Duplicate), "by two relays at once");
    }
    assert_eq!(world.before("[\"EOSE\",\"sub\"]", START), Ok(Passed::Other));
}

/// Loss prevented: an expensive check before a cheap one, which is what a flood looks for.
#[test]
fn the_cheapest_reason_comes_first() {
    // every draft is wrong in all that follows, and right in all that came before
    let mut draft = Draft {
        author: 7,
        kind: 1,
        recipient: Some(8),
        expiration: Some(START.0 - 1),
        created_at: Unix(START.0 - 121),
        content: "x".repeat(MAX_FRAME),
    };
    let mut world = World::new();
    for _ in 0..40 {
        let Ok(Passed::Event { .. }) = world.before(&frame(&signed(&good())), START) else {
            panic!("refused");
        };
    }
    let mut refusal = |draft: &Draft, seen: bool| {
        let event = signed(draft);
        if seen {
            world.seen.record(event.id.to_bytes(), Unix(u64::MAX), START);
        }
        world.before(&frame(&event), START).unwrap_err()
    };
    assert!(matches!(refusal(&draft, true), Refusal::TooLarge { max: MAX_FRAME, .. }));
    draft.content.clear();
    assert_eq!(refusal(&draft, true), Refusal::Kind { got: 1 });
    draft.kind = rpc::KIND;
    assert_eq!(refusal(&draft, true), Refusal::WrongRecipient);
    draft.recipient = None;
    assert_eq!(refusal(&draft, true), Refusal::WrongRecipient);
    draft.recipient = Some(9);
    assert_eq!(refusal(&draft, true), Refusal::Expired { late_s: 1 });
    draft.expiration = Some(START.0);
    assert_eq!(refusal(&draft, true), Refusal::Stale { off_s: 121, max_s: 120 });
    draft.created_at = Unix(START.0 - 120);
    assert_eq!(refusal(&draft, true), Refusal::Duplicate);
    draft.content = "another".into();
    assert_eq!(refusal(&draft, false), Refusal::NotInRoster);
    draft.author = 1;
    assert_eq!(refusal(&draft, false), Refusal::RelayBusy { retry_after_ms: 1_000 });
}

/// Loss prevented: an off-by-one in time refuses good requests, or serves dead ones.
#[test]
fn the_edges_of_time() {
    let at = |expiration, created_at: u64| {
        let draft = Draft { expiration, created_at: Unix(created_at), ..good() };
        World::new().before(&frame(&signed(&draft)), START).err()
    };
    let s = START.0;
    assert_eq!(at(Some(s), s), None, "still good in its last second");
    assert_eq!(at(Some(s - 1), s), Some(Refusal::Expired { late_s: 1 }));
    assert_eq!(at(None, s), Some(Refusal::Malformed), "a request must say when it is void");
    for (created_at, holds) in
        [(s - 120, true), (s + 120, true), (s - 121, false), (s + 121, false)]
    {
        assert_eq!(at(Some(s + 500), created_at).is_none(), holds, "{created_at}");
    }
}

/// Loss prevented: the largest document that NIP-44 can carry is refused for its size.
#[test]
fn a_frame_of_exactly_the_limit_is_read() {
    let mut text = frame(&signed(&good()));
    text.push_str(&" ".repeat(MAX_FRAME - text.len()));
    assert!(World::new().before(&text, START).is_ok());
    text.push(' ');
    let too_large = Refusal::TooLarge { max: MAX_FRAME, got: MAX_FRAME + 1 };
    assert_eq!(World::new().before(&text, START), Err(too_large));
}

/// Loss prevented: ids kept past their use push out the ones that still matter.
#[test]
fn an_id_is_forgotten_when_its_event_is_void() {
    let mut world = World::new();
    for (n, end) in [(1, START.0 + 10), (2, START.0 + 180)] {
        let draft = Draft { expiration: Some(end), content: n.to_string(), ..good() };
        assert_eq!(world.after(&signed(&draft), START), Ok(1));
    }
    let now = START.after(11);
    let later = Draft { created_at: now, expiration: Some(now.0 + 180), ..good() };
    assert_eq!(world.after(&signed(&later), now), Ok(1));
    assert_eq!(world.seen.len(), 2, "the one that expired is gone");
    let now = START.after(121);
    let last = Draft { created_at: now, expiration: Some(now.0 + 180), ..good() };
    assert_eq!(world.after(&signed(&last), now), Ok(1));
    assert_eq!(world.seen.len(), 2, "so is the one that is stale");
}

/// Loss prevented: a relay burns a machine's requests by sending forged copies of their ids first.
#[test]
fn a_forged_copy_burns_nothing() {
    let mut world = World::new();
    let event = signed(&good());
    let forged = frame(&event).replace("cipher", "forged");
    assert!(matches!(world.before(&forged, START), Ok(Passed::Event { .. })));
    assert!(world.seen.is_empty(), "no signature, no record");
    assert!(matches!(world.before(&frame(&event), START), Ok(Passed::Event { .. })));
    assert_eq!(world.after(&event, START), Ok(1));
}

/// Loss prevented: junk of strangers uses up what a relay may bring of real requests.
#[test]
fn strangers_cost_the_relay_nothing() {
    let mut world = World::new();
    let stranger = frame(&signed(&Draft { author: 7, ..good() }));
    for _ in 0..1_000 {
        assert_eq!(world.before(&stranger, START), Err(Refusal::NotInRoster));
    }
    assert!(world.before(&frame(&signed(&good())), START).is_ok());
    for (trouble, refusal) in [
        (Unrouted::NoResolver, Refusal::NoResolver),
        (Unrouted::ResolverError, Refusal::ResolverError),
    ] {
        world.roster.trouble = Some(trouble);
        assert_eq!(world.before(&frame(&signed(&good())), START), Err(refusal), "fails closed");
    }
}

/// Loss prevented: a machine with many sessions takes the share of the others.
#[test]
fn all_keys_of_a_machine_share_one_bucket() {
    let mut world = World::new();
    let event = |author, n: u32| signed(&Draft { author, content: n.to_string(), ..good() });
    for n in 0..20 {
        let author = if n % 2 == 0 { 1 } else { 11 };
        assert_eq!(world.after(&event(author, n), START), Ok(1));
    }
    let refused = event(11, 20);
    assert_eq!(world.after(&refused, START), Err(Refusal::MachineBusy { retry_after_ms: 2_000 }));
    assert_eq!(world.before(&frame(&refused), START), Err(Refusal::Duplicate));
    assert_eq!(world.after(&event(2, 21), START), Ok(2), "another machine is served");
}

/// Loss prevented: a revoked machine gets leave to dispense; evidence of its last sale is lost; notes
/// that were stacked before a machine was switched off get no sats.
#[test]
fn standing_decides_by_rpc() {
    use Standing::{Active, Disabled, Revoked, Suspect, TokenExpired, Unconfirmed};
    let mut table = Vec::new();
    for standing in [Active, Unconfirmed, Disabled, Suspect, Revoked, TokenExpired] {
        let permitted: Vec<&str> = RpcName::ALL
            .iter()
            .filter(|name| standing.permit(**name).is_ok())
            .map(|name| name.as_str())
            .collect();
        let refusal = standing.permit(RpcName::CreateInvoice).err().map(|r| r.why.code());
        let ends = if standing.finishes() { "finishes" } else { "finishes nothing" };
        table.push(format!("{standing:?}: {permitted:?}, else {refusal:?}; {ends}"));
    }
    insta::assert_snapshot!(table.join("\n"));
}

proptest! {
    /// Loss prevented: an event that comes in a second time after its id was forgotten.
    #[test]
    fn no_event_is_taken_twice(
        created in -130i64..130, life in 0u64..400,
        tries in prop::collection::vec(0u64..100, 1..12),
    ) {
        let mut world = World::new();
        let created_at = Unix(START.0.checked_add_signed(created).unwrap());
        let event = signed(&Draft { created_at, expiration: Some(created_at.0 + life), ..good() });
        let mut now = START;
        let mut taken = 0;
        for gap in tries {
            now = now.after(gap);
            // another machine's traffic makes the window forget what has passed
            let other = Draft {
                author: 2,
                created_at: now,
                expiration: Some(now.0 + 180),
                content: now.0.to_string(),
                ..good()
            };
            let _ = world.after(&signed(&other), now);
            let text = frame(&event);
            let before = world.before(&text, now);
            let after = world.after(&event, now);
            if before.is_ok() {
                prop_assert_eq!(after, Ok(1), "what the first stage lets in the second takes");
            }
            taken += u32::from(after.is_ok());
        }
        prop_assert!(taken <= 1);
    }
}
