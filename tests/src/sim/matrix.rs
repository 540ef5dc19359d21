//! The crash matrix: every effect of every state, every point in it, every answer of the device.
//!
//! The list of cells is made of the transactions' own lists of states and effects, so that a new one
//! is in it. Where a cell lies in the undisturbed course of one of the stories below, the vault dies
//! there, starts again, and the oracle judges the end; where no story passes, the cell is vacuous.
//! Where no device has a part in what is under way, its four answers are one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use bitspire_agent::txn::{Effect, cash_in, cash_out};
use bitspire_agent::vault::Point;
use bitspire_shared::money::Direction;
use bitspire_shared::rpc::ErrorCode;

use super::customer::{Pays, Person, Wish};
use super::deaths::{Aim, Passed, Spot, When, who_answers};
use super::faults::{Fault, Which};
use super::one::{Answer, How, Outcome, Script, Template, Then};

/// A seed for what is left to chance in a story: how long people take.
const SEED: u64 = 7;
/// So many times that a story is at one effect of one state.
const TIMES: u32 = 2;

/// A sale in which something may go wrong, but no vault dies.
struct Story {
    name: &'static str,
    person: Person,
    /// As soon as this effect of this state was told.
    then: Option<Then>,
}

fn stories() -> Vec<Story> {
    let out = |minor| Person::new(Wish::Out(minor), 0);
    let fed = |notes: &[u64]| Person::new(Wish::In(notes.to_vec()), 0);
    let pays = |pays| Person { pays, ..out(2_000) };
    let leaves = |ms, person: Person| Person { leaves_after: Some(ms), ..person };
    let story = |name, person| Story { name, person, then: None };
    let later = |name, person, at, ms, fault| {
        let then = Some(Then { at, ms, fault });
        Story { name, person, then }
    };
    let broken = |name, person, at, fault| later(name, person, at, 1, fault);
    let cable = Fault::CutCable(Which::Acceptor);
    let (planned, stacked) = (("paid", "plan"), ("stack_committed", "stack"));
    let (offered, credited) = (("invoiced", "request"), ("credited", "acknowledge_credit"));
    let (asked, given) = (("quoted", "request"), ("dispense_committed", "dispense"));
    vec![
        story("notes out", out(20_000)),
        story("notes in", fed(&[20, 5])),
        story("not paid", pays(Pays::Never)),
        story("paid late", pays(Pays::Late)),
        story("paid little", pays(Pays::Little)),
        story("left before the price", leaves(900, out(2_000))),
        story("left with the invoice", leaves(6_000, out(2_000))),
        story("nothing fed", fed(&[])),
        story("not claimed", Person { claims: false, ..fed(&[10]) }),
        broken("a jam in the dispenser", out(20_000), planned, Fault::Trap("jam")),
        broken("power cut among the notes", out(20_000), planned, Fault::Trap("power_cut")),
        broken("no power for the dispenser", out(2_000), planned, Fault::Power(Which::Dispenser)),
        broken("no answer to the command", out(2_000), given, Fault::Trap("mute_reply")),
        later("the page loaded again", out(2_000), offered, 3_000, Fault::PageReloaded),
        later("net gone with the invoice", out(2_000), offered, 3_000, Fault::NetGone),
        broken("net gone while it gives", out(20_000), given, Fault::NetGone),
        broken("net gone with the price", out(2_000), asked, Fault::NetGone),
        broken("a cable cut while it stacks", fed(&[20]), stacked, cable),
        broken("power lost while it stacks", fed(&[20]), stacked, Fault::Power(Which::Acceptor)),
        broken("memory lost while it stacks", fed(&[20]), stacked, Fault::Forgets),
        broken("net gone while it stacks", fed(&[20, 5]), stacked, Fault::NetGone),
        broken("cashbox out while it stacks", fed(&[20, 5]), stacked, Fault::Cashbox),
        broken("a jam in the acceptor", fed(&[20, 5]), credited, Fault::Jam),
        broken("not in reach", fed(&[20, 5]), credited, Fault::Parted),
        broken("the wallet away", fed(&[5]), ("offered", "request"), Fault::WalletAway),
        broken("no price", out(2_000), ("quoted", "journal"), Fault::Refused(ErrorCode::OverLimit)),
    ]
}

/// One death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    spot: Spot,
    /// Which time that the story is there.
    nth: u32,
    when: When,
    answer: Answer,
}

/// All of them, from the lists of the transactions.
fn cells() -> Vec<Cell> {
    let directions =
        [(Direction::CashOut, cash_out::State::NAMES), (Direction::CashIn, cash_in::State::NAMES)];
    let mut cells = Vec::new();
    for (direction, states) in directions {
        for state in states {
            for effect in Effect::NAMES {
                let spot = Spot { direction, state, effect };
                for (nth, when) in (1..=TIMES).flat_map(|nth| When::ALL.map(|when| (nth, when))) {
                    cells.extend(Answer::ALL.map(|answer| Cell { spot, nth, when, answer }));
                }
            }
        }
    }
    cells
}

/// What came of all cells.
#[derive(Debug, Default)]
pub struct Matrix {
    /// All cells.
    pub cells: usize,
    /// The vault died there.
    pub run: usize,
    /// Of those, where no device has a part: one for its four answers.
    pub without_device: usize,
    /// The same death with another answer of a device that has no part in it.
    pub same: usize,
    /// No story passes there.
    pub vacuous: usize,
    /// States that no story comes to.
    pub unseen: Vec<String>,
    /// Second deaths, where they were asked for.
    pub pairs: usize,
    /// Deaths after which something does not hold, each with what.
    pub failed: Vec<(String, Vec<String>)>,
}

impl Matrix {
    /// In a few lines.
    #[must_use]
    pub fn report(&self) -> String {
        let Self { cells, run, without_device, same, vacuous, unseen, pairs, failed } = self;
        format!(
            "{cells} cells: {run} run ({without_device} of them without a device's part, for \
             {same} more), {vacuous} vacuous\nstates that no story comes to: {}\n\
             second deaths: {pairs}\nfailed: {}",
            unseen.join(", "),
            failed.len(),
        )
    }
}

fn how(story: &Story, aims: Vec<Aim>, device: Answer) -> How {
    let script = Script {
        people: vec![story.person.clone()],
        then: story.then,
        aims,
        watched: true,
        device,
    };
    How { seed: SEED, script: Some(script), shown: false }
}

/// Where a death lies in what a story passed.
fn aim(passed: &Passed, spot: Spot, nth: u32, when: When) -> Option<Aim> {
    let point = match when {
        When::Before => Point::Before,
        When::Torn | When::Unsynced | When::Recorded => Point::Recorded,
        When::Told | When::UnderWay | When::Done => Point::After,
    };
    passed.points.get(&(spot, point)).filter(|times| **times >= nth)?;
    let half_ms = match when {
        When::UnderWay | When::Done => {
            who_answers(spot.effect)?;
            passed.answered.get(&(spot, nth)).copied()? / 2
        }
        _ => 0,
    };
    Some(Aim { spot, nth, when, half_ms })
}

fn failed(outcome: &Outcome) -> Option<Vec<String>> {
    let mut wrong = outcome.wrong.clone();
    if !outcome.hit {
        wrong.push("the death did not come".to_owned());
    }
    (!wrong.is_empty()).then_some(wrong)
}

/// Runs all cells, or `only` one with everything that happens in it; with `pairs`, a second death at every point that a vault passes after the first.
///
/// # Errors
/// Where no machine can be set up, or a story alone does not hold.
pub fn matrix(pairs: bool, only: Option<(usize, usize)>, jobs: Option<usize>) -> Result<Matrix> {
    let template = Template::make()?;
    let stories = stories();
    let mut passed = Vec::new();
    for story in &stories {
        let outcome = template.run(&how(story, Vec::new(), Answer::Truthful));
        if let Some(wrong) = failed(&outcome) {
            bail!("{}: {}", story.name, wrong.join("; "));
        }
        passed.push(outcome.passed.unwrap_or_default());
    }
    let mut plans: BTreeMap<(Spot, u32, When), (usize, Aim)> = BTreeMap::new();
    let mut matrix = Matrix::default();
    for cell in cells() {
        matrix.cells += 1;
        let found = passed.iter().enumerate();
        let found = found
            .filter_map(|(at, passed)| Some((at, aim(passed, cell.spot, cell.nth, cell.when)?)));
        match found.into_iter().next() {
            Some(plan) => drop(plans.insert((cell.spot, cell.nth, cell.when), plan)),
            None => matrix.vacuous += 1,
        }
    }
    let seen: BTreeSet<(Direction, &str)> =
        plans.keys().map(|(spot, ..)| (spot.direction, spot.state)).collect();
    let all: BTreeSet<(Direction, &str)> =
        cells().iter().map(|cell| (cell.spot.direction, cell.spot.state)).collect();
    matrix.unseen = all.difference(&seen).map(|(way, name)| format!("{way} {name}")).collect();

    let work: Vec<(usize, Aim)> = plans.into_values().collect();
    let next = AtomicUsize::new(0);
    let sums = Mutex::new(matrix);
    let one = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some((at, aim)) = work.get(number) else { return };
        let Some(story) = stories.get(*at) else { return };
        let mut own = Matrix::default();
        for answer in Answer::ALL {
            if only.is_some_and(|only| only != (number, answer as usize)) {
                continue;
            }
            let shown = only.is_some();
            let outcome = template.run(&How { shown, ..how(story, vec![*aim], answer) });
            own.run += 1;
            let Aim { spot: Spot { direction, state, effect }, nth, when, .. } = *aim;
            let name = format!(
                "{}: {direction} {state} {effect} {nth} {when:?} {answer:?} (again: \
                 cargo sim --matrix --cell {number}.{})",
                story.name, answer as usize
            );
            if pairs {
                again(&template, story, *aim, answer, &outcome, &name, &mut own);
            }
            own.failed.extend(failed(&outcome).map(|wrong| (name, wrong)));
            if answer == Answer::Truthful && !outcome.device_played {
                own.without_device += 1;
                own.same += Answer::ALL.len() - 1;
                break;
            }
        }
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.run += own.run;
        sums.without_device += own.without_device;
        sums.same += own.same;
        sums.pairs += own.pairs;
        sums.failed.extend(own.failed);
    };
    let jobs = jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(one);
        }
    });
    let mut matrix = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    matrix.failed.sort();
    Ok(matrix)
}

/// A second death at each point that the vault passes after the first.
fn again(
    template: &Template,
    story: &Story,
    first: Aim,
    answer: Answer,
    outcome: &Outcome,
    name: &str,
    own: &mut Matrix,
) {
    let after = outcome.passed.iter().flat_map(|passed| &passed.after_death);
    for (spot, point, nth) in after {
        let when = match point {
            Point::Before => When::Before,
            Point::Recorded => When::Recorded,
            Point::After => When::Told,
        };
        let second = Aim { spot: *spot, nth: *nth, when, half_ms: 0 };
        let outcome = template.run(&how(story, vec![first, second], answer));
        own.pairs += 1;
        let name = format!("{name}, then {spot:?} {when:?}");
        own.failed.extend(failed(&outcome).map(|wrong| (name, wrong)));
    }
}
