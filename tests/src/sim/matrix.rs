//! The crash matrix: every effect of every state, every point in it, every answer of the device.
//!
//! The list of cells is made of the transactions' own lists of states and effects, so that a new one
//! is in it. Where a cell lies in the undisturbed course of one of the stories below, the vault dies
//! there, starts again, and the oracle judges the end; where no story passes, the cell is vacuous.
//! Where no device has a part in what is under way, its four answers are one.
//!
//! The machines take turns: each effect of each state is tried on another pair of validator and
//! dispenser, and on the next pair in the next turn.

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
use super::parts::Parts;

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
    /// Cells run on each machine.
    pub machines: BTreeMap<String, usize>,
    /// Second deaths, where they were asked for.
    pub pairs: usize,
    /// Deaths after which something does not hold, each with what.
    pub failed: Vec<(String, Vec<String>)>,
}

impl Matrix {
    fn add(&mut self, other: Self) {
        self.run += other.run;
        self.without_device += other.without_device;
        self.same += other.same;
        self.pairs += other.pairs;
        for (name, cells) in other.machines {
            *self.machines.entry(name).or_default() += cells;
        }
        self.failed.extend(other.failed);
    }

    /// In a few lines.
    #[must_use]
    pub fn report(&self) -> String {
        let Self { cells, run, without_device, same, vacuous, unseen, machines, pairs, failed } =
            self;
        let machines: Vec<String> =
            machines.iter().map(|(name, cells)| format!("{name} {cells}")).collect();
        format!(
            "{cells} cells: {run} run ({without_device} of them without a device's part, for \
             {same} more), {vacuous} vacuous\nstates that no story comes to: {}\n\
             on: {}\nsecond deaths: {pairs}\nfailed: {}",
            unseen.join(", "),
            machines.join(", "),
            failed.len(),
        )
    }
}

fn how(story: &Story, parts: Parts, aims: Vec<Aim>, device: Answer) -> How {
    let script = Script {
        parts,
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

/// Which of it is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// A second death at every point that a vault passes after the first.
    pub pairs: bool,
    /// One death only, with everything that happens in it.
    pub only: Option<(usize, usize)>,
    /// Which machine each cell gets: in as many turns as there are machines, each.
    pub turn: usize,
    /// Worlds at once; as many as there are processors where it is not given.
    pub jobs: Option<usize>,
}

/// A story on a machine.
type Course = (usize, usize);

/// A death in a story on a machine.
#[derive(Clone, Copy, Debug)]
struct Plan {
    course: Course,
    aim: Aim,
}

/// What there is to play.
struct Stage {
    template: Template,
    stories: Vec<Story>,
    kinds: Vec<Parts>,
    /// What each story passes when nobody dies.
    passed: BTreeMap<Course, Passed>,
    jobs: usize,
}

impl Stage {
    fn play(&self, (at, kind): Course, aims: Vec<Aim>, answer: Answer, shown: bool) -> Outcome {
        self.template.run(&How { shown, ..how(&self.stories[at], self.kinds[kind], aims, answer) })
    }

    /// Calls `each` with the numbers up to `count`, on all processors.
    fn on_all(&self, count: usize, each: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        let one = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            each(number);
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(one);
            }
        });
    }

    /// Plays these stories without a death.
    fn play_alone(&mut self, courses: &[Course]) -> Result<()> {
        let played = Mutex::new(Vec::new());
        self.on_all(courses.len(), |number| {
            let course = courses[number];
            let outcome = self.play(course, Vec::new(), Answer::Truthful, false);
            played.lock().unwrap_or_else(PoisonError::into_inner).push((course, outcome));
        });
        for (course, outcome) in played.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(wrong) = failed(&outcome) {
                let (story, machine) = (self.stories[course.0].name, self.kinds[course.1].name());
                bail!("{story}, on {machine}: {}", wrong.join("; "));
            }
            self.passed.insert(course, outcome.passed.unwrap_or_default());
        }
        Ok(())
    }

    /// Where each cell lies that any story comes to.
    fn plan(&mut self, turn: usize, matrix: &mut Matrix) -> Result<Vec<Plan>> {
        let base = self.kinds.iter().position(|kind| *kind == Parts::default()).unwrap_or(0);
        let all: Vec<Course> = (0..self.stories.len()).map(|story| (story, base)).collect();
        self.play_alone(&all)?;
        let mut found: BTreeMap<(Spot, u32, When), usize> = BTreeMap::new();
        for Cell { spot, nth, when, .. } in cells() {
            matrix.cells += 1;
            let comes =
                |story: &usize| aim(&self.passed[&(*story, base)], spot, nth, when).is_some();
            match (0..self.stories.len()).find(comes) {
                Some(story) => drop(found.insert((spot, nth, when), story)),
                None => matrix.vacuous += 1,
            }
        }
        let families: BTreeSet<(Spot, u32)> =
            found.keys().map(|(spot, nth, _)| (*spot, *nth)).collect();
        let kind = |number: usize| number.wrapping_add(turn) % self.kinds.len();
        let kinds: BTreeMap<(Spot, u32), usize> = families
            .into_iter()
            .enumerate()
            .map(|(number, family)| (family, kind(number)))
            .collect();
        let courses: BTreeSet<Course> =
            found.iter().map(|((spot, nth, _), story)| (*story, kinds[&(*spot, *nth)])).collect();
        let courses: Vec<Course> =
            courses.into_iter().filter(|course| !self.passed.contains_key(course)).collect();
        self.play_alone(&courses)?;
        let plan = |((spot, nth, when), story): ((Spot, u32, When), usize)| {
            let aimed = |kind| Some((kind, aim(&self.passed[&(story, kind)], spot, nth, when)?));
            // a device may be so quick or slow that a story takes another way with it
            let (kind, aim) = aimed(kinds[&(spot, nth)]).or_else(|| aimed(base))?;
            Some(Plan { course: (story, kind), aim })
        };
        Ok(found.into_iter().filter_map(plan).collect())
    }
}

/// Runs what was asked for.
///
/// # Errors
/// Where no machine can be set up, or a story alone does not hold.
pub fn matrix(ask: Ask) -> Result<Matrix> {
    let jobs = ask.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into));
    let mut stage = Stage {
        template: Template::make()?,
        stories: stories(),
        kinds: Parts::kinds(),
        passed: BTreeMap::new(),
        jobs: jobs.unwrap_or(1),
    };
    let machines = stage.kinds.iter().map(|kind| (kind.name(), 0)).collect();
    let mut matrix = Matrix { machines, ..Matrix::default() };
    let work = stage.plan(ask.turn, &mut matrix)?;
    let seen: BTreeSet<(Direction, &str)> =
        work.iter().map(|plan| (plan.aim.spot.direction, plan.aim.spot.state)).collect();
    let all: BTreeSet<(Direction, &str)> =
        cells().iter().map(|cell| (cell.spot.direction, cell.spot.state)).collect();
    matrix.unseen = all.difference(&seen).map(|(way, name)| format!("{way} {name}")).collect();
    let sums = Mutex::new(matrix);
    stage.on_all(work.len(), |number| {
        let own = cell(&stage, &ask, number, work[number]);
        sums.lock().unwrap_or_else(PoisonError::into_inner).add(own);
    });
    let mut matrix = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    matrix.failed.sort();
    Ok(matrix)
}

/// One death, with each answer of the device.
fn cell(stage: &Stage, ask: &Ask, number: usize, plan: Plan) -> Matrix {
    let Plan { course, aim } = plan;
    let machine = stage.kinds[course.1].name();
    let mut own = Matrix::default();
    for answer in Answer::ALL {
        if ask.only.is_some_and(|only| only != (number, answer as usize)) {
            continue;
        }
        let outcome = stage.play(course, vec![aim], answer, ask.only.is_some());
        own.run += 1;
        *own.machines.entry(machine.clone()).or_default() += 1;
        let Aim { spot: Spot { direction, state, effect }, nth, when, .. } = aim;
        let name = format!(
            "{}, on {machine}: {direction} {state} {effect} {nth} {when:?} {answer:?} (again: \
             cargo sim --matrix --turn {} --cell {number}.{})",
            stage.stories[course.0].name, ask.turn, answer as usize
        );
        if ask.pairs {
            again(stage, plan, answer, &outcome, &name, &mut own);
        }
        own.failed.extend(failed(&outcome).map(|wrong| (name, wrong)));
        if answer == Answer::Truthful && !outcome.device_played {
            own.without_device += 1;
            own.same += Answer::ALL.len() - 1;
            break;
        }
    }
    own
}

/// A second death at each point that the vault passes after the first.
fn again(
    stage: &Stage,
    Plan { course, aim }: Plan,
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
        let outcome = stage.play(course, vec![aim, second], answer, false);
        own.pairs += 1;
        let name = format!("{name}, then {spot:?} {when:?}");
        own.failed.extend(failed(&outcome).map(|wrong| (name, wrong)));
    }
}
