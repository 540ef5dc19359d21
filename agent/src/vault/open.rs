//! From the disk to a vault that may trade.
//!
//! Promise: nothing moves on a start. Each transaction that is not closed is told of the restart,
//! with the word of the device where it has one; the devices are told to take nothing until then.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use bitspire_hardware::acceptor::{AcceptorEvent, PowerUpBill};
use bitspire_hardware::recycler::halves;
use bitspire_shared::canonical::sha256;
use bitspire_shared::document::FeesDocument;
use bitspire_shared::ids::{JournalSeq, PubKey};
use bitspire_shared::money::Denomination;
use bitspire_shared::sealed::Purpose;
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::secrets::{Keyring, SecretError};
use serde::Deserialize as _;
use serde_json::Value;

use super::core::Vault;
use super::customer::code_tries;
use super::devices::{Giver, Taker};
use super::door::{Door, Switch};
use super::host::{Host, Next};
use super::inspect::Inspection;
use super::pin::Pin;
use super::receipts::{Named, Press, Receipts};
use super::report::Reports;
use super::service::KeptService;
use super::settings::{CassettesInForce, FeesInForce, LastSets, Pairing, Setting as _, load};
use super::time::TrustedTime;
use super::trial::Trial;
use super::{Event, Seams, VaultError};
use crate::config::{Config, VaultConfig};
use crate::journal::{Journal, StoredEntry};
use crate::policy::breaker::{Breaker, DAY_S, Kept, Outflow};
use crate::policy::intake::Intake;
use crate::policy::pin::{KeptTries, Tries};
use crate::policy::price::Rates;
use crate::service::Session;
use crate::txn::{BillFate, DeviceReport, Input, Txn};

/// How long the acceptor may take to say where it has a note.
const DEVICE_WORD_MS: u64 = 15_000;
/// Entries that are read at once.
const CHUNK: u32 = 512;

impl Vault {
    /// Opens journal and key, and starts the devices' drivers.
    pub(super) fn open(
        config: &Config,
        seams: Seams,
        mut host: Box<dyn Host>,
    ) -> Result<Self, VaultError> {
        let config: VaultConfig = config.vault.clone();
        make_folder(&config.dir)?;
        let ring = Keyring::open(&config.dir, config.machine_secret_file.as_deref())?;
        let keys = ring.load_or_make("vault", Purpose::VaultKey)?;
        let key = PubKey::new(keys.public_key())?;
        let binding = sha256(&format!("bitspire-journal-of:v1:{key}"));
        let journal = Journal::open(&config.journal(), binding, seams.clock.now())?;
        let pairing: Option<Pairing> = load(&journal)?;
        let ours = |spire| pairing.as_ref().is_some_and(|pairing| pairing.pins.spire == spire);
        let fees = load::<FeesInForce>(&journal)?.filter(|kept| ours(kept.0.spire));
        let fees = fees.and_then(|kept| {
            let document = FeesDocument::from_json(&kept.0.plaintext).ok()?;
            Some((kept, document))
        });
        let cassettes = load::<CassettesInForce>(&journal)?;
        let cassettes = cassettes.filter(|kept| ours(kept.document.spire));
        let past = Past::read(&journal)?;
        let kept: Kept = load(&journal)?.unwrap_or_default();
        let given = past.intents.iter().filter(|intent| intent.seq > kept.since);
        let given = given.map(|intent| (intent.at, intent.outflow)).collect();
        let breaker = Breaker::new(config.breaker, kept, given);
        let taken = past.intents.iter().map(|intent| (intent.at, intent.taken_minor)).collect();
        let mut acceptor = match (&config.acceptor, config.currency) {
            (Some(device), Some(currency)) => Some(Taker::new(host.acceptor(device, currency)?)),
            _ => None,
        };
        let mut dispenser = match (&config.dispenser, config.currency) {
            (Some(device), Some(currency)) => Some(Giver::new(host.dispenser(device, currency)?)),
            _ => None,
        };
        if let (Some(device), Some(currency)) = (&config.recycler, config.currency) {
            let (inlet, outlet) = halves(host.recycler(device, currency)?);
            acceptor = Some(Taker::new(Box::new(inlet)));
            dispenser = Some(Giver::new(Box::new(outlet)));
        }
        let press = match &config.printer {
            Some(device) => Some(Press::new(host.printer(device)?)),
            None => None,
        };
        let named = load::<Named>(&journal)?.filter(|named| ours(named.spire));
        Ok(Self {
            host,
            clock: seams.clock,
            halt_after: seams.halt_after,
            pace: seams.pace,
            keys,
            key,
            time: TrustedTime::new(past.latest, Mono(0)),
            pairing,
            attempt: None,
            let_go: journal.setting(Pairing::KEY)?.is_some_and(|kept| kept.is_null()),
            seed_refused: None,
            fees,
            cassettes,
            last_sets: load::<LastSets>(&journal)?.unwrap_or_default(),
            early: Default::default(),
            documents_refused: 0,
            breaker,
            intake: Intake::new(taken),
            rates: load::<Rates>(&journal)?.unwrap_or_default(),
            txns: Default::default(),
            queue: VecDeque::new(),
            on_screen: None,
            feeding: None,
            unheard: None,
            dispensing: None,
            to_plan: None,
            held: Vec::new(),
            code_tries: code_tries(),
            pin: Pin::load(&ring)?,
            ring,
            pin_tries: Tries::new(load::<KeptTries>(&journal)?.unwrap_or_default(), Mono(0)),
            service: Session::default(),
            kept_service: load::<KeptService>(&journal)?.unwrap_or_default(),
            trials: Vec::new(),
            trial_answer: None,
            acceptor,
            dispenser,
            boxes: Default::default(),
            press,
            receipts: Receipts::of(named),
            peers: Default::default(),
            requests: Default::default(),
            reports: Reports::new(seams.pace),
            alerts: Default::default(),
            shown: Default::default(),
            reachable: false,
            stopping: false,
            inspection: Inspection::due_at(Mono(seams.pace.first_inspect)),
            disk: Default::default(),
            door: load::<Door>(&journal)?,
            switch: Switch::default(),
            journal,
            config,
        })
    }

    /// Tells each open transaction of the restart.
    pub(super) fn recover(&mut self) -> Result<(), VaultError> {
        self.close_inlet();
        self.fit_bays()?;
        let stored = self.journal.open_txns()?;
        let stacks = |what: &str| what == "stack";
        let open = |entry: &&crate::journal::StoredTxn| {
            entry.intent.as_ref().is_some_and(|intent| stacks(&intent.what))
        };
        let in_doubt = stored.iter().find(open).map(|entry| entry.txid);
        let mut later = VecDeque::new();
        if in_doubt.is_some() {
            self.wait_for_acceptor(&mut later)?;
        }
        let bill = match self.acceptor.as_ref().and_then(|taker| taker.found) {
            Some(PowerUpBill::InAcceptor) => BillFate::InAcceptor,
            Some(PowerUpBill::InStacker) => BillFate::InStacker,
            Some(PowerUpBill::None) | None => BillFate::Unknown,
        };
        let mut newest = JournalSeq(0);
        for entry in &stored {
            if let Some(trial) = Trial::from_stored(entry)? {
                self.recover_trial(trial, entry)?;
                continue;
            }
            let txn = Txn::from_stored(entry)?;
            if matches!(txn, Txn::CashIn(_)) && entry.seq > newest {
                newest = entry.seq;
                self.feeding = Some(entry.txid);
            }
            self.txns.insert(entry.txid, txn);
            let word = in_doubt == Some(entry.txid);
            let report = DeviceReport { bill, ..DeviceReport::default() };
            let report = if word { report } else { DeviceReport::default() };
            self.queue.push_back((entry.txid, Input::Restarted(report)));
        }
        self.feeding = in_doubt.or(self.feeding);
        if self.pin_tries.locked(self.mono()).is_some() {
            self.pin_is_locked();
        }
        self.tell_queue()?;
        self.unheard = match self.feeding.and_then(|txid| self.txns.get(&txid)) {
            Some(Txn::CashIn(session)) => session.unheard(),
            Some(Txn::CashOut(_)) | None => None,
        };
        tracing::info!(event = "vault_started", open = stored.len(), vault = %self.key);
        for event in later {
            self.take(event)?;
        }
        Ok(())
    }

    /// Waits until the acceptor has said where it has a note; what else comes is for later.
    fn wait_for_acceptor(&mut self, later: &mut VecDeque<Event>) -> Result<(), VaultError> {
        let until = self.mono().after(DEVICE_WORD_MS);
        while self.acceptor.as_ref().is_some_and(|taker| taker.found.is_none()) {
            match self.host.next(until) {
                Next::Event(event @ Event::Acceptor(AcceptorEvent::PoweredUp(_))) => {
                    self.take(event)?;
                }
                Next::Event(Event::Stop) => {
                    self.stopping = true;
                    return Ok(());
                }
                Next::Event(event) => later.push_back(event),
                Next::Halt => return Err(self.halted()),
                Next::Due => {
                    tracing::warn!(event = "acceptor_says_nothing");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn make_folder(path: &Path) -> Result<(), VaultError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| {
        let (path, what) = (path.to_owned(), "cannot make the folder");
        SecretError::Io { path, what, source }.into()
    })
}

/// What the journal's end says about time and notes.
struct Past {
    /// The latest time in it that was not the system's own.
    latest: Unix,
    /// The points of no return of the last day, in order.
    intents: Vec<Intent>,
}

/// A point of no return.
struct Intent {
    seq: JournalSeq,
    at: Unix,
    outflow: Outflow,
    /// What came in with it, in minor units.
    taken_minor: i64,
}

impl Past {
    fn read(journal: &Journal) -> Result<Self, VaultError> {
        let mut past = Self { latest: Unix(0), intents: Vec::new() };
        let mut end = journal.head().seq.0.saturating_add(1);
        let first = journal.first()?.0;
        while end > first {
            let from = end.saturating_sub(CHUNK.into()).max(first);
            let entries = journal.entries(JournalSeq(from), CHUNK)?;
            let mut oldest = past.latest;
            for entry in entries.iter().filter(|entry| entry.seq.0 < end) {
                // opening it is written with the system's clock
                if !matches!(entry.kind.as_str(), "genesis" | "started") {
                    past.latest = past.latest.max(entry.at);
                    oldest = oldest.min(entry.at);
                }
                if let Some((outflow, taken_minor)) = moved_by(entry) {
                    let (seq, at) = (entry.seq, entry.at);
                    past.intents.push(Intent { seq, at, outflow, taken_minor });
                }
            }
            end = from;
            if past.latest.since(oldest) > DAY_S {
                break;
            }
        }
        past.intents.sort_unstable_by_key(|intent| intent.seq);
        Ok(past)
    }
}

/// What an intent lets out, and what comes in with it.
fn moved_by(entry: &StoredEntry) -> Option<(Outflow, i64)> {
    if entry.kind != "intent" {
        return None;
    }
    let body: Value = serde_json::from_str(&entry.body).ok()?;
    let intent = body.get("intent")?;
    let value = intent.get("value")?;
    match intent.get("what")?.as_str()? {
        "dispense" => {
            let counts = value.as_object()?.values();
            let counts = counts.filter_map(|count| u32::try_from(count.as_u64()?).ok());
            Some((Outflow::Notes(counts.fold(0, u32::saturating_add)), 0))
        }
        "stack" => {
            let Txn::CashIn(session) = Txn::deserialize(intent.get("txn")?.get("state")?).ok()?
            else {
                return None;
            };
            let note = Denomination::deserialize(value.get("denomination")?).ok()?;
            Some((Outflow::Sats(session.market_worth(note)?), note.minor().into()))
        }
        _ => None,
    }
}
