//! The daily proof that an expired grant is refused.

use super::double::Fault;
use super::*;
use crate::fleet::canary::{Standing, round, standing};
use crate::ids::CanaryId;
use crate::signer::trial;
use crate::store::canaries::CanaryState;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Site {
    async fn canary(&self) -> Standing {
        round(self.app()).await.unwrap();
        standing(self.app()).await.unwrap()
    }

    /// Begins an attempt and lets its grant expire.
    async fn granted(&self) {
        self.bunker.state().lapsed = false;
        let before = standing(self.app()).await.unwrap().newest.len();
        let begun = self.canary().await;
        assert_eq!(begun.newest.len(), before + 1);
        assert_eq!(begun.newest[0].state, CanaryState::Running);
        assert!(begun.newest[0].ends_at.is_some(), "{:?}", begun.newest[0]);
        assert_eq!(self.canary().await.newest[0].state, CanaryState::Running, "it is good yet");
        self.world.pass(HOUR + 301);
        self.bunker.state().lapsed = true;
    }

    fn tried(&self) -> usize {
        self.bunker.state().calls.iter().filter(|call| **call == "try_sign").count()
    }
}

fn code(standing: &Standing) -> &'static str {
    standing.alert.as_ref().map_or("", |alert| alert.code)
}

/// Loss prevented: a bunker that lets whoever stole a machine's client key sign for ever, found out
/// after the theft; an alert at each start, before anything was tried.
#[tokio::test]
async fn an_expired_grant_is_refused_once_a_day() {
    let site = Site::new().await;
    let first = site.canary().await;
    assert!(first.newest.is_empty() && first.alert.is_none(), "not in the middle of a start");
    site.world.pass(601);
    site.granted().await;
    // the proof goes on where a restart cut it off
    let site = site.restarted().await;
    let found = site.canary().await;
    assert_eq!((code(&found), found.newest.len()), ("", 1));
    let found = found.found.unwrap();
    assert_eq!((found.state, found.detail.as_str()), (CanaryState::Refused, "Not authorized"));
    assert_eq!(site.tried(), 2);
    assert_eq!(
        site.bunker.live_users(&trial::name(CanaryId(1))),
        0,
        "nothing is left in the bunker"
    );
    site.canary().await;
    assert_eq!(site.tried(), 2, "once a day");
    site.world.pass(DAY);
    site.granted().await;
    assert_eq!(site.canary().await.newest.len(), 2);
    let ours = |name: &String| name.starts_with(trial::NAME);
    let state = site.bunker.state();
    let keys: Vec<_> = state.keys.iter().map(|key| key.name.clone()).filter(ours).collect();
    assert_eq!(keys, [trial::name(CanaryId(2))], "one key serves many of them");
    assert_ne!(
        keys[0],
        trial::name(CanaryId(52)),
        "and not all: its clients are told in one message"
    );
}

/// Loss prevented: a bunker that does not hold the end of what it granted, and nobody is told.
#[tokio::test]
async fn a_bunker_that_signs_for_an_expired_grant_is_an_alert() {
    let site = Site::new().await;
    site.bunker.state().forgives = true;
    site.world.pass(601);
    site.granted().await;
    let found = site.canary().await;
    assert_eq!(code(&found), "expired_grant_signed");
    assert_eq!(found.found.unwrap().state, CanaryState::Signed);
    // it stays until the opposite is proved, also over a restart
    site.world.pass(DAY);
    let site = site.restarted().await;
    assert_eq!(code(&standing(site.app()).await.unwrap()), "expired_grant_signed");
    site.bunker.state().forgives = false;
    site.world.pass(601);
    site.granted().await;
    assert_eq!(code(&site.canary().await), "");
}

/// Loss prevented: a proof that has not run for weeks and looks like one that was good; a grant that
/// never worked, taken for one that was refused at its end.
#[tokio::test]
async fn what_cannot_be_found_out_for_two_days_is_an_alert() {
    let site = Site::new().await;
    site.world.pass(601);
    // refused while it is good: nothing is proved
    site.bunker.state().lapsed = true;
    let none = site.canary().await;
    assert!(none.found.is_none() && none.newest[0].ends_at.is_none());
    assert!(none.newest[0].detail.contains("still good"), "{:?}", none.newest[0]);
    site.bunker.state().lapsed = false;
    assert!(site.canary().await.newest[0].ends_at.is_some(), "it is tried again");
    // and the bunker is silent from then on
    let mut alert = None;
    for _ in 0..60 {
        site.bunker.fail("try_sign", Fault::Lost);
        alert = site.canary().await.alert;
        site.world.pass(HOUR);
    }
    let alert = alert.unwrap();
    assert_eq!(alert.code, "canary_late");
    assert!(alert.words.contains("no reply to try_sign"), "{}", alert.words);
    let all = standing(site.app()).await.unwrap().newest;
    assert!(all.len() > 1 && all.iter().skip(1).all(|one| one.state == CanaryState::Unknown));
}
