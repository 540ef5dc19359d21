//! The one thread: what it owns, and the loop.

use std::collections::{BTreeMap, VecDeque};

use bitspire_hardware::dispenser::DispenseOutcome;
use bitspire_shared::document::{DocumentKind, FeesDocument};
use bitspire_shared::ids::{JournalSeq, PubKey, TxnId};
use bitspire_shared::money::{Denomination, Fiat};
use bitspire_shared::rate::Limiter;
use bitspire_shared::statement::SignedStatement;
use bitspire_shared::time::Mono;
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::Keyring;
use nostr::Keys;

use super::alerts::Alerts;
use super::boxes::Boxes;
use super::devices::{Giver, Taker};
use super::disk::Disk;
use super::door::{Door, Switch};
use super::host::{Host, Next};
use super::inspect::Inspection;
use super::pairing::Attempt;
use super::peers::Peers;
use super::pin::Pin;
use super::receipts::{Press, Receipts};
use super::report::Reports;
use super::requests::Requests;
use super::screens::Shown;
use super::service::KeptService;
use super::settings::{CassettesInForce, FeesInForce, LastSets, Pairing};
use super::time::TrustedTime;
use super::trial::Trial;
use super::{Event, Pace, QUEUE, VaultError};
use crate::config::VaultConfig;
use crate::journal::{Journal, Stage};
use crate::policy::breaker::Breaker;
use crate::policy::intake::Intake;
use crate::policy::pin::Tries;
use crate::policy::price::Rates;
use crate::refused::Refused;
use crate::service::Session;
use crate::txn::{Input, Now, Txn};

/// Everything that the vault owns.
pub(super) struct Vault {
    /// Goes first: the devices' threads may wait to put something into its queue.
    pub(super) host: Box<dyn Host>,
    pub(super) config: VaultConfig,
    pub(super) clock: Clock,
    pub(super) halt_after: Option<JournalSeq>,
    pub(super) pace: Pace,
    pub(super) journal: Journal,
    pub(super) inspection: Inspection,
    pub(super) disk: Disk,
    pub(super) door: Option<Door>,
    pub(super) switch: Switch,
    pub(super) keys: Keys,
    pub(super) key: PubKey,
    pub(super) time: TrustedTime,

    pub(super) pairing: Option<Pairing>,
    pub(super) attempt: Option<Attempt>,
    /// Whether it was paired and is not any more.
    pub(super) let_go: bool,
    /// Why the last seed was refused.
    pub(super) seed_refused: Option<Refused>,

    pub(super) fees: Option<(FeesInForce, FeesDocument)>,
    pub(super) cassettes: Option<CassettesInForce>,
    pub(super) last_sets: LastSets,
    /// Documents that wait for trusted time: the last of each kind.
    pub(super) early: BTreeMap<DocumentKind, (nostr::Event, String)>,
    pub(super) documents_refused: u64,

    pub(super) breaker: Breaker,
    /// What came in within a day.
    pub(super) intake: Intake,
    pub(super) rates: Rates,

    pub(super) txns: BTreeMap<TxnId, Txn>,
    /// What transactions are still to be told, in order.
    pub(super) queue: VecDeque<(TxnId, Input)>,
    pub(super) on_screen: Option<TxnId>,
    /// The cash-in that the acceptor speaks to: the one on the screen, or the last that was.
    pub(super) feeding: Option<TxnId>,
    /// A note of before the start that counts already, and that the acceptor has yet to credit, or
    /// to credit again: its transaction may end before that.
    pub(super) unheard: Option<Denomination>,
    /// The transaction and intent that the dispenser works on.
    pub(super) dispensing: Option<(TxnId, u32)>,
    /// The transaction that waits for notes to be chosen, and for how much.
    pub(super) to_plan: Option<(TxnId, Fiat)>,
    /// Verdicts that wait for the screen or the dispenser.
    pub(super) held: Vec<SignedStatement>,
    pub(super) code_tries: Limiter,

    /// What opens service mode and where it is sealed.
    pub(super) ring: Keyring,
    pub(super) pin: Option<Pin>,
    pub(super) pin_tries: Tries,
    /// Who is at the machine, beside customers.
    pub(super) service: Session,
    pub(super) kept_service: KeptService,
    /// Tests of the dispenser that are under way or were not told.
    pub(super) trials: Vec<Trial>,
    /// The dispenser's answer to one.
    pub(super) trial_answer: Option<(TxnId, DispenseOutcome)>,

    pub(super) acceptor: Option<Taker>,
    pub(super) dispenser: Option<Giver>,
    /// What a recycler counts itself, where acceptor and dispenser are one.
    pub(super) boxes: Boxes,
    pub(super) press: Option<Press>,

    pub(super) peers: Peers,
    pub(super) requests: Requests,
    pub(super) reports: Reports,
    pub(super) alerts: Alerts,
    pub(super) receipts: Receipts,
    pub(super) shown: Shown,
    /// Whether the service was in reach when last looked at.
    pub(super) reachable: bool,
    pub(super) stopping: bool,
}

impl Vault {
    /// Milliseconds on this process's own clock.
    pub(super) fn mono(&self) -> Mono {
        self.host.mono()
    }

    /// Fresh random bytes.
    pub(super) fn random<const N: usize>(&mut self) -> Result<[u8; N], VaultError> {
        let mut bytes = [0; N];
        self.host.random(&mut bytes)?;
        Ok(bytes)
    }

    /// What is wrong with the system's clock.
    pub(super) fn clock_wrong(&self) -> Option<String> {
        self.time.wrong(self.clock.now(), self.mono())
    }

    /// Both clocks, for a transaction.
    pub(super) fn now(&self) -> Now {
        let mono = self.mono();
        Now { mono, unix: self.time.now(mono) }
    }

    /// Takes events until the end. What has come already is taken before any wait is called too
    /// long: a disk that stood still for seconds must not break the screen whose confirmation lies
    /// in the queue, nor doubt the note whose credit does.
    pub(super) fn work(&mut self) -> Result<(), VaultError> {
        let mut tick_at = self.mono();
        let mut checkpoint_at = tick_at.after(self.pace.checkpoint);
        let mut overdue = 0usize;
        while !self.stopping {
            self.settle()?;
            let due = self.mono() >= tick_at;
            match self.host.next(tick_at) {
                Next::Event(event) => {
                    self.take(event)?;
                    // whoever floods the queue does not stop the clock
                    overdue = overdue.saturating_add(due.into());
                    if overdue < QUEUE {
                        continue;
                    }
                }
                Next::Due => {}
                Next::Halt => return Err(self.halted()),
            }
            overdue = 0;
            tick_at = self.mono().after(self.pace.tick);
            self.tick()?;
            if self.mono() >= checkpoint_at && self.on_screen.is_none() {
                checkpoint_at = self.mono().after(self.pace.checkpoint);
                self.tidy_journal()?;
            }
        }
        self.close_inlet();
        Ok(())
    }

    /// Takes one event.
    pub(super) fn take(&mut self, event: Event) -> Result<(), VaultError> {
        self.keep_frames(&event);
        match event {
            Event::Acceptor(event) => self.acceptor_says(event)?,
            Event::Dispenser(event) => {
                self.dispenser_says(event);
                if let Some((txid, answer)) = self.trial_answer.take() {
                    self.end_trial(txid, &answer)?;
                }
            }
            Event::Recycler(event) => self.recycler_says(event)?,
            Event::Printer(event) => self.printer_says(event),
            Event::Joined(id, peer) => self.joined(id, peer)?,
            Event::Said(id, message) => self.said(id, *message)?,
            Event::Gone(id) => self.gone(id),
            Event::Inspected(found) => self.inspected(found),
            Event::Stop => self.stopping = true,
        }
        self.tell_queue()
    }

    fn tick(&mut self) -> Result<(), VaultError> {
        let open = self.txns.iter().filter(|(_, txn)| txn.stage() != Stage::Closed);
        let open: Vec<TxnId> = open.map(|(txid, _)| *txid).collect();
        for txid in open {
            self.queue.push_back((txid, Input::Tick));
        }
        self.tell_queue()?;
        self.try_held_verdicts()?;
        self.try_early_documents()?;
        self.look_at_screen();
        self.look_at_exit();
        self.look_at_disk();
        self.look_at_door()?;
        self.look_at_service();
        self.inspect_if_due();
        self.ask_again();
        self.alerts.forget_old(self.mono());
        self.tell_queue()
    }

    /// Brings everything that follows from the state in line with it.
    fn settle(&mut self) -> Result<(), VaultError> {
        self.look_at_reach();
        self.tell_queue()?;
        self.leave_what_is_over();
        self.tell_queue()?;
        self.set_bays_up();
        self.count_boxes_if_due();
        self.reset_acceptor();
        self.plan_if_ready()?;
        self.tell_queue()?;
        self.publish_state()?;
        self.report_if_due()?;
        self.make_receipt()?;
        self.refresh_screen();
        Ok(())
    }

    /// Takes note of the service coming into reach or going out of it.
    fn look_at_reach(&mut self) {
        let reachable = self.service_in_reach();
        if reachable == self.reachable {
            return;
        }
        self.reachable = reachable;
        tracing::info!(event = "service_in_reach", reachable);
        let say = || if reachable { Input::NetworkBack } else { Input::NetworkLost };
        let all: Vec<TxnId> = self.txns.keys().copied().collect();
        self.queue.extend(all.into_iter().map(|txid| (txid, say())));
    }
}
