//! The client under any order of events.

use proptest::prelude::*;

use super::tests::{SECRET, unsigned, world};
use super::*;
use crate::test_keys::key;

/// What can happen to a client, in any order.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    Connect,
    Reply { to: u8, author: u8, event: u8, body: u8 },
    Reconnected,
    Cancel(u8),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6).prop_map(Step::Ask),
        Just(Step::Connect),
        (0u8..8, 2u8..4, any::<u8>(), 0u8..6).prop_map(|(to, author, event, body)| Step::Reply {
            to,
            author,
            event,
            body
        }),
        Just(Step::Reconnected),
        (0u8..6).prop_map(Step::Cancel),
        (0u64..30_000).prop_map(Step::Tick),
    ]
}

proptest! {
    /// Loss prevented: a question that is never resolved holds its document for ever; one that is
    /// resolved twice is sold twice.
    #[test]
    fn each_question_is_resolved_once(steps in proptest::collection::vec(step(), 0..60)) {
        let mut client = world(Some(SECRET)).client;
        let mut open = std::collections::BTreeSet::new();
        let mut now = Mono(0);
        let names = ["q0", "q1", "q2", "q3", "q4", "q5", "c1", "c2"];
        let bodies = ["\"pong\"", "null", "\"ack\"", "\"auth_url\",\"error\":\"https://x\"",
            "null,\"error\":\"Token already redeemed\"", "null,\"error\":\"Secret not match\""];
        for step in steps.into_iter().chain([Step::Tick(u64::MAX / 2)]) {
            let actions = match step {
                Step::Ask(n) => {
                    let name = names[usize::from(n)];
                    let asked = client.ask(name, Ask::Ping, now.after(10_000));
                    prop_assert_eq!(asked.is_ok(), !open.contains(name));
                    open.insert(name);
                    asked.unwrap_or_default()
                }
                Step::Connect => match client.connect("c1", "c2", now.after(10_000)) {
                    Ok(actions) => {
                        prop_assert!(open.insert("c1"));
                        actions
                    }
                    Err(_) => vec![],
                },
                Step::Reply { to, author, event, body } => {
                    let (id, body) = (names[usize::from(to)], bodies[usize::from(body)]);
                    let text = format!("{{\"id\":\"{id}\",\"result\":{body}}}");
                    client.receive(EventId::from_bytes([event; 32]), &key(author), &text, now)
                }
                Step::Reconnected => client.reconnected(),
                Step::Cancel(n) => {
                    client.cancel(names[usize::from(n)]);
                    open.remove(names[usize::from(n)]);
                    vec![]
                }
                Step::Tick(ms) => {
                    now = now.after(ms);
                    client.tick(now)
                }
            };
            for action in actions {
                if let Action::Resolve { id, .. } = action {
                    prop_assert!(open.remove(id.as_str()), "{} twice", id);
                }
            }
        }
        prop_assert!(open.is_empty(), "{:?}", open);
        prop_assert_eq!(client.next_deadline(), None);
    }

    /// Loss prevented: a signer that can stop the machine by one odd reply.
    #[test]
    fn no_reply_panics(text in "\\PC*", result in "\\PC{0,60}") {
        for ask in [
            Ask::Ping,
            Ask::GetPublicKey,
            Ask::SignEvent(Box::new(unsigned(1, "x"))),
            Ask::Nip44Decrypt { peer: key(3), payload: "x".into() },
            Ask::SwitchRelays,
            Ask::Logout,
        ] {
            let _ = world(None).answer(ask, result.clone().into());
        }
        let _ = world(None).client.receive(EventId::from_bytes([1; 32]), &key(2), &text, Mono(0));
    }
}
