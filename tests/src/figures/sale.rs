//! From the service's signed leave to dispense to the first byte on the dispenser's line: check of
//! the signature, both steps of the transaction, its three flushes, the engine, the terminal.
//!
//! Between the two there is no network and no bunker: nothing else can be in this time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bitspire_agent::journal::{ByJournal, CashMove, CountChange, Entry, Journal};
use bitspire_agent::txn::{CashOut, Effect, Input, Lot, Lots, Now, Order, Record, Rules};
use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::{DispenserCommand, DispenserEvent};
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_shared::ids::{
    BayId, ChangeId, ClaimCode, Digest, EventId, Nonce, PaymentHash, PubKey, QuoteId, RequestId,
    TxnId,
};
use bitspire_shared::money::{
    Currency, Denomination, Direction, FeePpm, Fiat, Origin, Origins, Rate, SourceName,
};
use bitspire_shared::rpc::{
    CheckedQuote, DispenseAuthorisation, Expectation, FeesInForce, Invoice, Quote, QuoteTerms,
    SignedText as _, check_quote,
};
use bitspire_shared::split::FeePair;
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use nostr::Keys;
use serde_json::json;

use super::stamped::Stamped;
use super::{Figure, percentile};
use crate::wait::PATIENCE;

/// Sales that are measured.
const RUNS: usize = 200;
/// Sales between two fillings of the simulated bay.
const REFILL: usize = 50;
/// One note of the machine, in minor units.
const NOTE_MINOR: i64 = 2_000;

/// The parties of a sale.
struct Parties {
    service: Keys,
    vault: PubKey,
    spire: PubKey,
    clock: Clock,
    epoch: Instant,
}

impl Parties {
    fn now(&self) -> Now {
        let ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono: Mono(ms), unix: self.clock.now() }
    }
}

pub(super) fn measure() -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let flush = flush_ms(folder.path())?;
    let mut times = sales(folder.path(), RUNS)?;
    let (unit, bound, peer, runs) = ("ms", 3.0 * flush, None, times.len());
    let bound_is = "three flushes of this disk: that it is paid, the intent, and its mark";
    let figure = |name, value| Figure { name, value, unit, bound, bound_is, peer, runs };
    Ok(vec![
        figure("authorised_to_first_byte_ms_p50", percentile(&mut times, 50)?),
        figure("authorised_to_first_byte_ms_p99", percentile(&mut times, 99)?),
        Figure {
            name: "flush_ms_p50",
            value: flush,
            unit,
            bound: flush,
            bound_is: "4 KiB appended and flushed with fdatasync in the same folder",
            peer,
            runs: RUNS,
        },
    ])
}

/// What one flush costs here: the median.
pub(super) fn flush_ms(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        file.write_all(&[0x55; 4_096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    percentile(&mut times, 50)
}

/// The times of `runs` sales of one note each, in milliseconds.
fn sales(folder: &Path, runs: usize) -> Result<Vec<f64>> {
    let currency: Currency = "USD".parse()?;
    let bay = BayId::new(1).context("bays are numbered from 1")?;
    let denomination = Denomination::from_minor(u32::try_from(NOTE_MINOR)?)?;
    let (tell, stamps) = mpsc::sync_channel(1);
    let link = folder.join("dispenser");
    let sim = F56Sim::new(Fit { note_ms: 1, ..Fit::default() });
    let host = Host::start(Box::new(Stamped { device: sim, tell, only: None }), Some(&link))?;
    let (say, events) = mpsc::channel();
    let sink = Box::new(move |event| {
        // the bench may have ended while the last event was on its way
        let _ = say.send(event);
    });
    let opener = serial(link.to_str().context("the folder's name is no text")?);
    let device = Device::start("f56", F56::<ByJournal>::new(currency), opener, sink)?;
    device.send(DispenserCommand::Configure(BTreeMap::from([(bay, denomination)])))?;
    until(&events, |event| matches!(event, DispenserEvent::Ready { .. }))?;

    let key = |keys: &Keys| PubKey::new(keys.public_key());
    let parties = Parties {
        vault: key(&Keys::generate())?,
        spire: key(&Keys::generate())?,
        service: Keys::generate(),
        clock: Clock::system(),
        epoch: Instant::now(),
    };
    let binding = Digest::from_bytes([1; 32]);
    let mut journal = Journal::open(&folder.join("journal.db"), binding, parties.now().unix)?;
    load(&mut journal, bay, denomination, &parties)?;
    let lots = Lots::from([(bay, Lot { denomination, count: 1 })]);

    let mut times = Vec::new();
    for number in 0..runs {
        if number % REFILL == 0 {
            host.control(json!({"action": "refill", "bay": 1, "notes": REFILL}))?;
        }
        let (invoiced, leave) = invoiced(&mut journal, &parties, u32::try_from(number)?, currency)?;
        // what the engine said since the last sale
        while stamps.try_recv().is_ok() {}
        let start = Instant::now();
        let service = PubKey::new(parties.service.public_key())?;
        let authorised = invoiced.check_authorisation(&leave, &parties.vault, &service)?;
        let (paid, effects) = invoiced.step(Input::Authorised(authorised), parties.now());
        append(&mut journal, &effects, &parties)?;
        let (committed, effects) = paid.step(Input::Planned(Some(lots.clone())), parties.now());
        let Some(Effect::Dispense { record, no, plan }) = effects.first() else {
            bail!("expected a dispense, got {effects:?}");
        };
        let proof = journal.commit(parties.now().unix, record.to_entry()?, *no, plan.clone())?;
        device.send(DispenserCommand::Dispense(proof))?;
        let stamp = stamps.recv_timeout(PATIENCE).context("no byte came to the dispenser")?;
        times.push(stamp.saturating_duration_since(start).as_secs_f64() * 1_000.0);

        let no = *no;
        let (sent, effects) = committed.step(Input::DispenseSent { no }, parties.now());
        append(&mut journal, &effects, &parties)?;
        let DispenserEvent::Dispensed(outcome) =
            until(&events, |event| matches!(event, DispenserEvent::Dispensed(_)))?
        else {
            bail!("expected the dispenser's answer");
        };
        let (_, effects) = sent.step(Input::Dispensed { no, outcome }, parties.now());
        append(&mut journal, &effects, &parties)?;
        // the engine looks at the exit itself before it dispenses again
        host.control(json!({"action": "take"}))?;
    }
    Ok(times)
}

/// Waits for the event that `wanted` takes.
fn until(
    events: &Receiver<DispenserEvent>,
    wanted: impl Fn(&DispenserEvent) -> bool,
) -> Result<DispenserEvent> {
    loop {
        let event = events.recv_timeout(PATIENCE).context("the dispenser is silent")?;
        match event {
            DispenserEvent::Fault(fault) => bail!("the dispenser has a fault: {fault:?}"),
            event if wanted(&event) => return Ok(event),
            _ => {}
        }
    }
}

/// More notes than all sales take: the simulated bay is filled as they go.
fn load(
    journal: &mut Journal,
    bay: BayId,
    denomination: Denomination,
    parties: &Parties,
) -> Result<()> {
    let assign = vec![CashMove::Assign { bay, denomination, recycles: false }];
    let base_seq = journal.append(parties.now().unix, Entry::Cash(assign))?;
    let set = CashMove::Change {
        bay,
        change_id: ChangeId::from_bytes([9; 16]),
        change: CountChange::Set(u32::try_from(RUNS)?),
        base_seq,
        reason: "count".into(),
    };
    journal.append(parties.now().unix, Entry::Cash(vec![set]))?;
    Ok(())
}

/// Writes what a step has changed.
fn append(journal: &mut Journal, effects: &[Effect], parties: &Parties) -> Result<()> {
    if let Some(Effect::Journal(record)) = effects.first() {
        let record: &Record = record;
        journal.append(parties.now().unix, Entry::Txn(record.to_entry()?))?;
    }
    Ok(())
}

/// A sale up to its invoice, and the service's leave to dispense.
fn invoiced(
    journal: &mut Journal,
    parties: &Parties,
    number: u32,
    currency: Currency,
) -> Result<(CashOut, bitspire_shared::canonical::Sig)> {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let (txid, fiat) = (TxnId::from_bytes(id), Fiat::new(NOTE_MINOR, currency));
    let (seed, code) = (Nonce::from_bytes(id), ClaimCode::from_bytes(id));
    let order = Order { txid, seed, code, fiat, rules: Rules::default() };
    let (sale, effects) = CashOut::start(order, parties.now());
    append(journal, &effects, parties)?;
    let (quote, terms) = quote(parties, txid, id, fiat)?;
    let request = asked(&effects)?;
    let (sale, effects) = sale.step(Input::Quote { request, quote }, parties.now());
    append(journal, &effects, parties)?;
    let (sale, effects) = sale.step(Input::Accept, parties.now());
    append(journal, &effects, parties)?;
    let payment_hash = PaymentHash::from_bytes(hash);
    let expires_at = Unix(parties.now().unix.0.saturating_add(300));
    let invoice = Invoice { payment_hash, bolt11: "lnbcrt1".into(), expires_at, noffer: None };
    let request = asked(&effects)?;
    let (sale, effects) = sale.step(Input::Invoice { request, invoice }, parties.now());
    append(journal, &effects, parties)?;
    let authorisation = DispenseAuthorisation {
        spire: parties.spire,
        vault: parties.vault,
        txid,
        quote_id: terms.quote_id,
        payment_hash,
        wire_sats: terms.wire_sats,
        fiat,
    };
    Ok((sale, authorisation.sign(&parties.service)))
}

fn asked(effects: &[Effect]) -> Result<RequestId> {
    let mut requests = effects.iter().filter_map(|effect| match effect {
        Effect::Request(request) => Some(request.id),
        _ => None,
    });
    requests.next().with_context(|| format!("expected a request in {effects:?}"))
}

/// A quote of the service, through the machine's own check.
fn quote(
    parties: &Parties,
    txid: TxnId,
    id: [u8; 16],
    fiat: Fiat,
) -> Result<(CheckedQuote, QuoteTerms)> {
    let direction = Direction::CashOut;
    let pair = FeePair::new(FeePpm::new(30_000)?, FeePpm::new(50_000)?)?;
    let fees = FeesInForce { event_id: EventId::from_bytes([6; 32]), fees: pair };
    let rate = Rate::from_nano(1_063_829_787_234)?;
    let charge = fees.fees.charge(direction, rate.principal(fiat, direction)?)?;
    let service = PubKey::new(parties.service.public_key())?;
    let terms = QuoteTerms {
        spire: parties.spire,
        quote_id: QuoteId::from_bytes(id),
        direction,
        txid,
        fiat,
        exchange_rate: rate,
        principal_sats: charge.principal(),
        fee_sats: charge.fee(),
        wire_sats: charge.wire(),
        fees_event_id: fees.event_id,
        ttl_s: 120,
    };
    let expectation = Expectation {
        spire: &parties.spire,
        service: &service,
        direction,
        txid,
        fiat,
        fees,
        recent_rates: &[],
        band_ppm: 50_000,
        max_age_s: 60,
    };
    let sources = Origins::new([Origin { source: SourceName::FIXED, age_s: 0 }])?;
    Ok((check_quote(&Quote::sign(&terms, sources, &parties.service), &expectation)?, terms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a figure of a path that does not dispense.
    #[test]
    fn each_measured_sale_gives_a_note() {
        let folder = tempfile::tempdir().unwrap();
        let times = sales(folder.path(), 3).unwrap();
        assert_eq!(times.len(), 3);
        assert!(times.iter().all(|time| *time > 0.0), "{times:?}");
    }
}
