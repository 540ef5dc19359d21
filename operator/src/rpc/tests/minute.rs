//! The most that a machine sends which keeps to the protocol.

use bitspire_shared::rate::Limiter;
use bitspire_shared::time::Mono;

use super::*;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// A request of a minute, and the second at which it is sent.
const fn at(second: u64) -> u64 {
    second * SECOND
}

/// One minute in which two customers are served, one in each direction, a session is renewed and the
/// answer to that is lost once: when each request leaves, in milliseconds.
fn longest_minute() -> Vec<u64> {
    let mut sent = vec![
        at(0), // report_state, the heartbeat
        at(0), // open_session
        at(0), // again: the answer was lost
        at(1), // get_quote of a cash_out
        at(2), // create_invoice
    ];
    // get_payment: after 2, 3, 5, 5... s
    sent.extend([4, 7, 12, 17, 22].map(at));
    sent.extend([
        at(25), // report_dispense
        at(26), // report_state: notes have moved
        at(28), // get_quote of a cash_in
        at(38), // a second lock: the customer takes their time
        at(40), // create_withdraw
    ]);
    sent.extend([42, 45, 50, 55].map(at));
    sent.push(at(58)); // report_state: notes have moved
    sent
}

/// Loss prevented: a machine that behaves is refused in the middle of a sale.
#[test]
fn the_longest_legal_minute_meets_no_limit() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [("data_dir", folder.path().display().to_string())];
    let (config, _) = crate::config::load(None, &BTreeMap::new(), &flags).unwrap();
    let quota = Quota::per_minute(config.rate_limit_per_min, config.burst);
    let (mut gate, mut share) = (Limiter::new(quota), Limiter::new(quota));
    let mut relay = Limiter::new(crate::relay::Limits::default().machine_events);
    let minute = longest_minute();
    assert!(minute.is_sorted() && minute.len() == 20, "{minute:?}");
    for n in 0..60u64 {
        for sent in &minute {
            let now = Mono(n * MINUTE + sent);
            assert_eq!(share.take(now), Ok(()), "the relay's share, minute {n}");
            assert_eq!(gate.take(now), Ok(()), "the machine's bucket, minute {n}");
            assert_eq!(relay.take(now), Ok(()), "our relay, minute {n}");
        }
        // to the bunker: connect, sign the session's statement and its request; and a document
        for _ in 0..4 {
            assert_eq!(relay.take(Mono(n * MINUTE + at(59))), Ok(()), "minute {n}");
        }
    }
}
