//! What a sale in each direction has come to, put together from what every part has written down.
//!
//! Promise: a figure stands here as one part recorded it, and each is held against what another
//! part recorded of the same thing: the operator's settlements, the machine's journal, the notes of
//! the simulated devices, what the customer's wallet paid and got.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::books::{Entry, Journal, bunker_requests};
use crate::sale::{Bought, MINOR, settlements};
use crate::shop::MACHINE;
use crate::wait::{PATIENCE, wait_for};
use crate::wallet::Accepted;
use crate::world::World;

/// Longer than a machine waits before it asks the bunker again.
const REST: Duration = Duration::from_secs(4);

/// Notes by value in units of the currency.
pub type Notes = BTreeMap<i64, i64>;

/// Where every part stood before the sales.
#[derive(Debug)]
pub struct Before {
    journal: i64,
    bunker: i64,
    settlements: usize,
    given: Notes,
    taken: Notes,
}

impl Before {
    /// Looks, once the bunker rests: what a pairing still asks of it is not the sale's.
    ///
    /// # Errors
    /// When a part does not answer, or the bunker does not come to rest.
    pub fn look(world: &World) -> Result<Self> {
        let mut last = (0, Instant::now());
        let bunker = wait_for("a bunker at rest", PATIENCE, || {
            let asked = bunker_requests(world.folder()).map_err(|error| format!("{error:#}"))?;
            if last.0 != asked {
                last = (asked, Instant::now());
            }
            if last.1.elapsed() > REST { Ok(asked) } else { Err(format!("{asked} requests")) }
        })?;
        Ok(Self {
            journal: Journal::of(world.folder())?.seq()?,
            bunker,
            settlements: settlements(world)?.len(),
            given: given(world)?,
            taken: taken(world)?,
        })
    }
}

/// The figures, and what does not hold.
#[derive(Debug)]
pub struct Report {
    /// One JSON object.
    pub figures: Value,
    /// Each check that fails, in words; none where all is well.
    pub failed: Vec<String>,
}

impl Report {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) -> bool {
        if !holds {
            self.failed.push(what());
        }
        holds
    }
}

/// Puts together what a sale in each direction has come to.
///
/// # Errors
/// When a part does not answer, or a settlement or a report does not come.
pub fn report(world: &World, before: &Before, bought: &Bought, sold: &Accepted) -> Result<Report> {
    let settled = wait_for("both settlements, with the machine's report", PATIENCE, || {
        let all = settlements(world).map_err(|error| format!("{error:#}"))?;
        let new = all.get(before.settlements..).unwrap_or_default();
        let done = |way| new.iter().find(|s| s["direction"] == way && s["status"] == "accepted");
        let reported = |s: &&Value| !s["dispense_outcome"].is_null();
        match (done("cash_out").filter(reported), done("cash_in")) {
            (Some(out), Some(into)) if new.len() == 2 => Ok([out.clone(), into.clone()]),
            _ => Err(format!("{new:?}")),
        }
    })?;
    let [out, into] = &settled;
    let journal = Journal::of(world.folder())?;
    let entries = journal.after(before.journal)?;
    let mut report = Report { figures: Value::Null, failed: Vec::new() };
    let cash_out = cash_out(world, &mut report, before, out, &entries, bought)?;
    let cash_in = cash_in(world, &mut report, before, into, &entries, sold)?;
    let paired = paired(world, &mut report)?;
    let fees_applied = fees_applied(world, &mut report, &settled)?;
    // a recycler's last note is where it is before the ledger is looked at
    let notes_balanced = notes_balanced(world, &mut report, &journal)?;
    let ledger_balanced = notes_booked(world, &mut report) && ledger_balanced(world, &mut report);
    let bunker = bunker_requests(world.folder())? - before.bunker;
    report.must(bunker == 0, || format!("the bunker was asked {bunker} times during the sales"));
    let legs = settled.iter().map(|s| {
        json!({
            "tx_type": s["direction"],
            "status": s["status"],
            "platform_fee_sats": s["platform_fee_sats"],
            "operator_fee_sats": s["operator_fee_sats"],
        })
    });
    report.figures = json!({
        "paired": paired,
        "fees_applied": fees_applied,
        "cash_out": cash_out,
        "cash_in": cash_in,
        "settlements": legs.collect::<Vec<_>>(),
        "ledger_balanced": ledger_balanced,
        "notes_balanced": notes_balanced,
        "bunker_round_trips_on_sale": bunker,
    });
    if world.parts.recycler.is_some() {
        let kept = recycled(&entries)?;
        let more = worth(&kept) > 0;
        report.must(more, || "no note that was fed went to a box".to_owned());
        report.figures["notes_recycled"] = json!(kept);
    }
    Ok(report)
}

/// A settlement's number.
fn number(settlement: &Value, name: &str) -> Result<i64> {
    settlement[name].as_i64().with_context(|| format!("no {name} in {settlement}"))
}

fn cash_out(
    world: &World,
    report: &mut Report,
    before: &Before,
    settlement: &Value,
    entries: &[Entry],
    bought: &Bought,
) -> Result<Value> {
    let [wire, principal, fee] = sums(settlement)?;
    report
        .must(wire == principal + fee, || format!("cash_out: {wire} is not the sum: {settlement}"));
    let paid = i64::try_from(bought.paid_msat)?;
    report
        .must(paid == wire * 1_000, || format!("cash_out: {wire} sats settled, {paid} msat paid"));
    let notes = moved(entries, settlement, "dispensed", "presented")?;
    let left = less(&given(world)?, &before.given);
    report
        .must(notes == left, || format!("the journal presented {notes:?}, the bays gave {left:?}"));
    let fiat = number(settlement, "fiat_minor")?;
    report.must(worth(&notes) == fiat, || format!("sold for {fiat}, presented {notes:?}"));
    let full = settlement["dispense_outcome"] == "full";
    report.must(full, || format!("expected a full dispense on record: {settlement}"));
    Ok(json!({
        "wire_sats": wire,
        "principal_sats": principal,
        "fee_sats": fee,
        "notes_presented": notes,
        "ms_paid_to_first_dispense_byte": bought.to_dispense_ms,
    }))
}

fn cash_in(
    world: &World,
    report: &mut Report,
    before: &Before,
    settlement: &Value,
    entries: &[Entry],
    sold: &Accepted,
) -> Result<Value> {
    let [wire, principal, fee] = sums(settlement)?;
    report
        .must(wire == principal - fee, || format!("cash_in: {wire} is not the rest: {settlement}"));
    let got = i64::try_from(sold.sats)?;
    report.must(got == wire, || format!("cash_in: {wire} sats settled, {got} invoiced"));
    let notes = moved(entries, settlement, "stacked", "")?;
    let more = less(&taken(world)?, &before.taken);
    report.must(notes == more, || format!("the journal stacked {notes:?}, the box got {more:?}"));
    let fiat = number(settlement, "fiat_minor")?;
    report.must(worth(&notes) == fiat, || format!("bought for {fiat}, stacked {notes:?}"));
    Ok(json!({
        "wire_sats": wire,
        "principal_sats": principal,
        "fee_sats": fee,
        "notes_stacked": notes,
    }))
}

/// What crossed the wire, its market value, both fees together.
fn sums(settlement: &Value) -> Result<[i64; 3]> {
    let fee = number(settlement, "platform_fee_sats")? + number(settlement, "operator_fee_sats")?;
    Ok([number(settlement, "wire_sats")?, number(settlement, "principal_sats")?, fee])
}

/// Notes that the journal moved in a settlement's transaction, by the name of the movement; one
/// each, or as many as its result says under `count`.
fn moved(entries: &[Entry], settlement: &Value, name: &str, count: &str) -> Result<Notes> {
    let txid = settlement["txid"].as_str();
    let mut notes = Notes::new();
    for moved in entries.iter().filter(|e| e.txid.as_deref() == txid).flat_map(Entry::cash) {
        let moved = &moved[name];
        if moved.is_null() {
            continue;
        }
        let many = if count.is_empty() { Some(1) } else { moved["result"][count].as_i64() };
        let many = many.with_context(|| format!("no {count} in {moved}"))?;
        let value = moved["denomination"].as_i64().context("a note without a value")? / MINOR;
        *notes.entry(value).or_default() += many;
    }
    notes.retain(|_, many| *many != 0);
    Ok(notes)
}

/// Notes that the dispenser has given out so far.
///
/// # Errors
/// When it does not answer.
pub fn given(world: &World) -> Result<Notes> {
    let counters = world.counters(world.giver())?;
    if world.parts.recycler.is_some() {
        return by_value(&counters["given"]);
    }
    let mut notes = Notes::new();
    for bay in counters["bays"].as_array().context("no bays")? {
        let at = |name: &str| bay[name].as_i64().with_context(|| format!("no {name} in {bay}"));
        *notes.entry(at("denomination")?).or_default() += at("exit")? + at("taken")?;
    }
    Ok(notes)
}

/// Notes that came into the machine: those in the validator's cashbox, and those that a recycler keeps
/// or has given again, with what was put into its boxes by hand.
fn taken(world: &World) -> Result<Notes> {
    let counters = world.counters(&world.acceptor)?;
    let mut notes = by_value(&counters["cashbox"])?;
    if world.parts.recycler.is_some() {
        let boxes = counters["boxes"].as_array().context("no boxes")?;
        for kept in boxes.iter().chain([&counters["given"]]) {
            for (value, many) in by_value(kept)? {
                *notes.entry(value).or_default() += many;
            }
        }
    }
    Ok(notes)
}

fn by_value(notes: &Value) -> Result<Notes> {
    let note = |(value, many): (&String, &Value)| Some((value.parse().ok()?, many.as_i64()?));
    let notes = notes.as_object().context("no notes by value")?;
    notes.iter().map(|entry| note(entry).context("a note without a value")).collect()
}

/// Notes that went to a recycler's boxes, by the journal.
fn recycled(entries: &[Entry]) -> Result<Notes> {
    let mut notes = Notes::new();
    for moved in entries.iter().flat_map(Entry::cash).map(|moved| &moved["recycled"]) {
        if let (Some(value), Some(many)) = (moved["denomination"].as_i64(), moved["notes"].as_i64())
        {
            *notes.entry(value / MINOR).or_default() += many;
        }
    }
    Ok(notes)
}

/// Holds each note of a recycler against the machine's journal.
fn boxes_balanced(world: &World, journal: &Journal) -> Result<()> {
    let counters = world.counters(&world.acceptor)?;
    let mut presented = Notes::new();
    let shown = world.api("GET", &format!("/dca/machines/{MACHINE}/cassettes"), None)?;
    let told = |number: u8| {
        let bays = shown["reported"].as_array().into_iter().flatten();
        let mut own = bays.filter(|bay| bay["bay"] == number.to_string().as_str());
        own.next().and_then(|bay| bay["count"].as_i64())
    };
    for (number, book) in journal.bays()? {
        if told(number) != Some(book.on_hand) {
            bail!("bay {number} by the journal {book:?}, by the operator {shown}");
        }
        let (note, kept) = (book.denomination / MINOR, &counters["boxes"][usize::from(number) - 1]);
        let there: i64 = by_value(kept)?.values().sum();
        let own = by_value(kept)?.get(&note).copied().unwrap_or(0);
        if (there, own, book.doubts) != (book.on_hand, book.on_hand, 0) {
            bail!("bay {number} by the journal {book:?}, by the device {kept}");
        }
        *presented.entry(note).or_default() += book.presented;
    }
    let given = by_value(&counters["given"])?;
    if less(&presented, &Notes::new()) != less(&given, &Notes::new()) {
        bail!("presented by the journal {presented:?}, given by the device {given:?}");
    }
    let cashbox = journal.cashbox()?.into_iter();
    let cashbox: Notes =
        cashbox.map(|(value, (many, doubts))| (value / MINOR, many + doubts)).collect();
    let device = by_value(&counters["cashbox"])?;
    if less(&cashbox, &Notes::new()) != less(&device, &Notes::new()) {
        bail!("cashbox by the journal {cashbox:?}, by the device {device:?}");
    }
    Ok(())
}

fn less(after: &Notes, before: &Notes) -> Notes {
    let more = |(value, many): (&i64, &i64)| (*value, many - before.get(value).unwrap_or(&0));
    after.iter().map(more).filter(|(_, many)| *many != 0).collect()
}

fn worth(notes: &Notes) -> i64 {
    notes.iter().map(|(value, many)| value * many * MINOR).sum()
}

fn paired(world: &World, report: &mut Report) -> Result<bool> {
    let machine = world.api("GET", &format!("/dca/machines/{MACHINE}"), None)?;
    let status = world.status()?;
    let key = &machine["machine_npub"];
    let one = key.is_string() && status["pins"]["spire"] == *key;
    report.must(one, || format!("the operator knows the machine as {key}, it is {status}"));
    let confirmed = machine["confirmation"] == "confirmed";
    Ok(report.must(confirmed, || format!("not confirmed: {machine}")) && one)
}

/// Whether both sales went by the fees that the operator published and the machine applied.
fn fees_applied(world: &World, report: &mut Report, settled: &[Value]) -> Result<bool> {
    let machine = world.api("GET", &format!("/dca/machines/{MACHINE}"), None)?;
    let fees = &machine["documents"]["fees"];
    let applied = fees["light"] == "applied" && fees["in_force"].is_string();
    let by = settled.iter().all(|s| s["fees_event_id"] == fees["in_force"]);
    Ok(report.must(applied && by, || format!("fees {fees}, settled by {settled:?}")))
}

/// Whether all notes are in the books: what was put into the machine is booked when it rests, by its
/// next report.
fn notes_booked(world: &World, report: &mut Report) -> bool {
    let booked = wait_for("an audit that waits for no notes", PATIENCE, || {
        let audit = world.operator_says(&["audit"]).map_err(|error| format!("{error:#}"))?;
        let waiting = audit["waiting"].as_array().into_iter().flatten();
        let mut notes = waiting.filter(|one| one["check"] == "ledger" || one["check"] == "cash");
        notes.next().map_or(Ok(()), |waits| Err(waits.to_string()))
    });
    report.must(booked.is_ok(), || format!("{booked:?}"))
}

/// Whether the operator's own audit finds nothing.
pub fn ledger_balanced(world: &World, report: &mut Report) -> bool {
    let audit = wait_for("an audit that finds nothing", PATIENCE, || {
        world.operator_says(&["audit"]).map_err(|error| format!("{error:#}"))
    });
    let looked = audit.as_ref().is_ok_and(|found| {
        found["checks"].as_array().is_some_and(|checks| {
            checks.iter().any(|check| check["looked_at"].as_u64().unwrap_or(0) > 0)
        })
    });
    report.must(looked, || format!("{audit:?}"))
}

/// Whether each note is where the machine's journal says.
///
/// # Errors
/// When a part does not answer.
pub fn notes_balanced(world: &World, report: &mut Report, journal: &Journal) -> Result<bool> {
    if world.parts.recycler.is_some() {
        // it tells a moment later where the last note went
        let holds = wait_for("notes where the journal has them", PATIENCE, || {
            boxes_balanced(world, journal).map_err(|error| format!("{error:#}"))
        });
        return Ok(report.must(holds.is_ok(), || format!("{holds:?}")));
    }
    let counters = world.counters(&world.dispenser)?;
    let books = journal.bays()?;
    let mut all = true;
    for bay in counters["bays"].as_array().context("no bays")? {
        let at = |name: &str| bay[name].as_i64().with_context(|| format!("no {name} in {bay}"));
        let book = books.get(&u8::try_from(at("bay")?)?);
        let book = book.with_context(|| format!("the journal has no bay for {bay}"))?;
        let same = book.denomination == at("denomination")? * MINOR
            && book.on_hand == at("cassette")?
            && book.presented == at("exit")? + at("taken")?
            && book.doubts == 0;
        all &= report.must(same, || format!("by the journal {book:?}, by the device {bay}"));
    }
    let cashbox: Notes = journal
        .cashbox()?
        .into_iter()
        .map(|(value, (many, doubts))| (value / MINOR, many + doubts))
        .filter(|(_, many)| *many != 0)
        .collect();
    let device = less(&taken(world)?, &Notes::new());
    let same = cashbox == device;
    Ok(all & report.must(same, || format!("cashbox by journal {cashbox:?}, by device {device:?}")))
}
