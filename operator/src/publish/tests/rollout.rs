//! Fees for many machines, stage after stage.

use bitspire_shared::money::FeePpm;

use super::*;
use crate::fleet::FleetError;
use crate::fleet::machines::set_tags;
use crate::ids::RolloutId;
use crate::publish::fees;
use crate::publish::rollout::{Wish, begin, look, plan, stop};
use crate::store::rollouts::{self, RolloutState};
use crate::store::{documents, log};

fn ppm(ppm: u32) -> FeePpm {
    FeePpm::new(ppm).unwrap()
}

const WAIT_S: u32 = 3_600;

fn wish(stages: &[&str], rest: bool) -> Wish {
    let stages = stages.iter().map(|tag| (*tag).to_owned()).collect();
    Wish { stages, rest, cash_in: None, cash_out: Some(ppm(20_000)), wait_s: WAIT_S }
}

impl Site {
    async fn tag(&self, peer: &Peer, tags: &[&str]) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        set_tags(self.app(), "cli", None, peer.id, tags).await.unwrap();
    }

    async fn fee(&self, peer: &Peer) -> u32 {
        let id = peer.id;
        self.read(move |read| machines::find(read, id)).await.unwrap().cash_out_fee_ppm.ppm()
    }

    async fn fees(&self, all: &[&Peer]) -> Vec<u32> {
        let mut fees = Vec::new();
        for peer in all {
            fees.push(self.fee(peer).await);
        }
        fees
    }

    /// The machine says that it applies what is wanted.
    async fn applies(&self, peer: &Peer) {
        let signed = async || self.documents(peer.id).await.fees.and_then(|fees| fees.event_id);
        let event = self.until("it is signed", signed).await;
        let (id, now) = (peer.id, self.app().clock.now());
        self.write(move |tx| documents::set_applied(tx, id, event, now)).await;
        look(self.app()).await.unwrap();
    }

    async fn state(&self, id: RolloutId) -> (RolloutState, Option<String>) {
        let row = self.read(move |read| rollouts::find(read, id)).await.unwrap().row;
        (row.state, row.reason)
    }

    async fn operator(&self) -> crate::ids::OperatorId {
        self.read(|read| Ok(operators::list(read)?.remove(0).id)).await
    }
}

/// Loss prevented: a fee that breaks one machine reaches the whole fleet; a roll-out that nobody sees
/// stand still.
#[tokio::test]
async fn a_roll_out_halts_at_the_first_machine_that_does_not_come_to_it() {
    let site = Site::new().await;
    let (trial, north) = (site.paired("till").await, site.paired("bar").await);
    let rest = site.paired("kiosk").await;
    let all = [&trial, &north, &rest];
    site.tag(&trial, &["trial", "north"]).await;
    site.tag(&north, &["north"]).await;
    let operator = site.operator().await;
    let wanted = wish(&["trial", "north"], true);
    let same = wanted.clone();
    let shown = site.app().store.read(move |read| plan(read, operator, &same)).await.unwrap();
    let stages: Vec<_> = shown
        .iter()
        .map(|one| (one.machine.id, one.stage, one.machine.cash_out_fee_ppm, one.cash_out))
        .collect();
    let (before, after) = (ppm(0), ppm(20_000));
    assert_eq!(
        stages,
        [(trial.id, 0, before, after), (north.id, 1, before, after), (rest.id, 2, before, after)],
        "what changes where, from what to what; a machine is in its first stage"
    );
    assert_eq!(site.fees(&all).await, [0, 0, 0], "a look changes nothing");

    let id = begin(site.app(), "cli", operator, wanted.clone()).await.unwrap();
    look(site.app()).await.unwrap();
    assert_eq!(site.fees(&all).await, [20_000, 0, 0]);
    let second = begin(site.app(), "cli", operator, wanted).await;
    assert!(matches!(second, Err(FleetError::Invalid { .. })), "one at a time: {second:?}");
    site.applies(&trial).await;
    assert_eq!(site.fees(&all).await, [20_000, 20_000, 0]);
    assert_eq!(site.state(id).await, (RolloutState::Running, None));
    // nobody hears of the second machine
    site.world.pass(u64::from(WAIT_S) + 1);
    look(site.app()).await.unwrap();
    let (state, reason) = site.state(id).await;
    assert_eq!(state, RolloutState::Halted);
    assert!(reason.as_ref().is_some_and(|why| why.contains("bar")), "{reason:?}");
    site.applies(&north).await;
    assert_eq!(site.fees(&all).await, [20_000, 20_000, 0], "what lies ahead is not touched");
    let rows = site.read(|read| log::audit_tail(read, Some("rollout:1"), 9)).await;
    let actions: Vec<_> = rows.iter().map(|row| &*row.action).collect();
    assert_eq!(actions, ["rollout.halted", "rollout.begin"]);
}

/// Loss prevented: a roll-out that never ends, or ends before the last machine has it.
#[tokio::test]
async fn a_roll_out_is_done_when_the_last_machine_applies_it() {
    let site = Site::new().await;
    let (first, last) = (site.paired("till").await, site.paired("bar").await);
    site.tag(&first, &["trial"]).await;
    let operator = site.operator().await;
    let id = begin(site.app(), "cli", operator, wish(&["trial"], true)).await.unwrap();
    look(site.app()).await.unwrap();
    site.applies(&first).await;
    assert_eq!(site.state(id).await, (RolloutState::Running, None));
    let site = site.restarted().await;
    site.applies(&last).await;
    assert_eq!(site.state(id).await, (RolloutState::Done, None));
    assert_eq!(site.fees(&[&first, &last]).await, [20_000, 20_000]);
    let again = begin(site.app(), "cli", operator, wish(&["trial"], true)).await;
    assert!(matches!(again, Err(FleetError::Invalid { .. })), "nothing would change: {again:?}");
}

/// Loss prevented: a roll-out that stops because somebody sent a machine its fees once more, or
/// because the platform's changed; or that counts others' fees as its own.
#[tokio::test]
async fn fees_that_are_published_anew_do_not_halt_a_roll_out() {
    let site = Site::new().await;
    let (first, last) = (site.paired("till").await, site.paired("bar").await);
    site.tag(&first, &["trial"]).await;
    let operator = site.operator().await;
    let id = begin(site.app(), "cli", operator, wish(&["trial"], true)).await.unwrap();
    look(site.app()).await.unwrap();
    let (machine, now) = (first.id, site.app().clock.now());
    let again = site.app().store.write(move |tx| {
        let machine = machines::find(tx, machine)?.unwrap();
        fees::want(tx, &machine, now)
    });
    again.await.unwrap();
    look(site.app()).await.unwrap();
    assert_eq!(site.state(id).await, (RolloutState::Running, None));
    site.applies(&first).await;
    assert_eq!(site.fee(&last).await, 20_000, "the new version counts");
    fees::set_platform(site.app(), "cli", None, Some(ppm(10_000))).await.unwrap();
    look(site.app()).await.unwrap();
    assert_eq!(site.state(id).await, (RolloutState::Running, None));
    fees::set(site.app(), "cli", None, last.id, None, Some(ppm(30_000))).await.unwrap();
    look(site.app()).await.unwrap();
    assert_eq!(site.state(id).await.0, RolloutState::Halted);
}

/// Loss prevented: a service that was away for longer than machines have, and halts a roll-out
/// before it has heard one of them.
#[tokio::test]
async fn machines_are_heard_after_a_restart_before_they_are_late() {
    let site = Site::new().await;
    let _till = site.paired("till").await;
    let operator = site.operator().await;
    let id = begin(site.app(), "cli", operator, wish(&[], true)).await.unwrap();
    look(site.app()).await.unwrap();
    let Site { world, port, bunker } = site;
    // nobody looks while it is away
    world.app.stop.cancel();
    world.app.tasks.close();
    world.app.tasks.wait().await;
    world.pass(u64::from(WAIT_S) + 1);
    let site = Site { world, port, bunker }.restarted().await;
    look(site.app()).await.unwrap();
    assert_eq!(site.state(id).await, (RolloutState::Running, None));
    site.world.pass(121);
    look(site.app()).await.unwrap();
    assert_eq!(site.state(id).await.0, RolloutState::Halted);
}

/// Loss prevented: fees above the cap on some of the machines; a change by hand that a roll-out takes
/// back without a word.
#[tokio::test]
async fn a_roll_out_that_cannot_be_whole_begins_nothing() {
    let site = Site::new().await;
    let (till, bar) = (site.paired("till").await, site.paired("bar").await);
    let operator = site.operator().await;
    fees::set_platform(site.app(), "cli", None, Some(ppm(140_000))).await.unwrap();
    let over = begin(site.app(), "cli", operator, wish(&[], true)).await;
    let words = over.unwrap_err().to_string();
    assert!(words.contains("till") && words.contains("bar"), "{words}");
    fees::set_platform(site.app(), "cli", None, Some(ppm(10_000))).await.unwrap();
    let unknown = begin(site.app(), "cli", operator, wish(&["nowhere"], false)).await;
    assert!(matches!(unknown, Err(FleetError::Invalid { field: "stages", .. })), "{unknown:?}");
    assert_eq!(site.fees(&[&till, &bar]).await, [0, 0]);

    site.tag(&till, &["trial"]).await;
    let id = begin(site.app(), "cli", operator, wish(&["trial"], true)).await.unwrap();
    look(site.app()).await.unwrap();
    fees::set(site.app(), "cli", None, bar.id, None, Some(ppm(30_000))).await.unwrap();
    site.applies(&till).await;
    let (state, reason) = site.state(id).await;
    assert_eq!(state, RolloutState::Halted);
    assert!(reason.is_some_and(|why| why.contains("bar")), "its fees were changed by hand");
    assert_eq!(site.fee(&bar).await, 30_000);
    let ended = stop(site.app(), "cli", None, id).await;
    assert!(matches!(ended, Err(FleetError::Invalid { .. })), "{ended:?}");
}
