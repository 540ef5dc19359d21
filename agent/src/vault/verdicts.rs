//! What the operator decides.
//!
//! Promise: only a statement of the pinned operator key, for this machine and this vault, within its
//! time and with a nonce that the journal has not seen, decides anything; the nonce is used up in the
//! same entry as what it decides, or before it.
//!
//! Failure policy: a verdict that cannot be carried out now, because the screen or the dispenser
//! serves somebody, is held until its time is over; one that does not fit is dropped and said.

use bitspire_shared::ids::{JournalSeq, Nonce, TxnId};
use bitspire_shared::seed::Pins;
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};

use super::VaultError;
use super::core::Vault;
use super::server::PeerId;
use crate::ipc::{SecretText, ToNet};
use crate::journal::{Entry, VerdictUse};
use crate::txn::cash_out::State;
use crate::txn::{Input, Txn, Verdict};

/// Verdicts that may wait.
const HELD: usize = 16;

impl Vault {
    /// A statement came.
    pub(super) fn verdict(&mut self, signed: SignedStatement) -> Result<(), VaultError> {
        let Some(pins) = self.pairing.as_ref().map(|pairing| pairing.pins) else { return Ok(()) };
        let Some(now) = self.time.known(self.mono()) else {
            self.hold(signed);
            return Ok(());
        };
        let statement = match signed.check(&pins.operator, now) {
            Ok(statement) => statement,
            Err(error) => {
                self.raise("verdict_refused", error.to_string());
                return Ok(());
            }
        };
        if statement.spire() != pins.spire || self.journal.nonce_used(&statement.nonce())? {
            tracing::warn!(event = "verdict_dropped", kind = statement.type_name());
            return Ok(());
        }
        match &statement {
            Statement::Verdict { vault, txid: None, verdict, nonce, journal_seq, .. } => {
                if *vault == self.key && *verdict == VerdictKind::CloseBreaker {
                    self.close_breaker(*nonce, *journal_seq)?;
                }
            }
            Statement::Verdict { .. } => {
                let Some(verdict) = Verdict::of(&statement, &pins.spire, &self.key) else {
                    self.raise("verdict_refused", "it is for another vault".to_owned());
                    return Ok(());
                };
                if self.must_wait(&verdict) {
                    self.hold(signed);
                } else {
                    self.decide(verdict);
                }
            }
            Statement::Rekey { vault, operator, service, nonce, .. } if *vault == self.key => {
                let pins = Pins { operator: *operator, service: *service, ..pins };
                self.rekey(pins, *nonce)?;
            }
            Statement::Rekey { .. } | Statement::Document { .. } | Statement::Vault { .. } => {
                tracing::warn!(event = "verdict_dropped", kind = statement.type_name());
            }
        }
        Ok(())
    }

    fn hold(&mut self, signed: SignedStatement) {
        if !self.held.contains(&signed) {
            if self.held.len() >= HELD {
                self.held.remove(0);
            }
            self.held.push(signed);
        }
    }

    /// Looks at those that wait again.
    pub(super) fn try_held_verdicts(&mut self) -> Result<(), VaultError> {
        if self.time.known(self.mono()).is_some() {
            for signed in std::mem::take(&mut self.held) {
                self.verdict(signed)?;
                self.tell_queue()?;
            }
        }
        Ok(())
    }

    /// Whether notes would move for it in front of another customer.
    fn must_wait(&self, verdict: &Verdict) -> bool {
        let moves = matches!(verdict.kind, VerdictKind::DispenseRest | VerdictKind::Resume);
        moves && !self.may_come_on_screen(verdict.txid)
    }

    /// Whether the screen and the dispenser are free for this transaction.
    pub(super) fn may_come_on_screen(&self, txid: TxnId) -> bool {
        !self.service.is_open()
            && self.on_screen.is_none_or(|shown| shown == txid)
            && self.dispensing.is_none_or(|(busy, _)| busy == txid)
            && self.to_plan.is_none_or(|(busy, _)| busy == txid)
    }

    fn decide(&mut self, verdict: Verdict) {
        let resumes = matches!(verdict.kind, VerdictKind::DispenseRest | VerdictKind::Resume);
        let rests = |txn: &Txn| match txn {
            Txn::CashOut(sale) => {
                matches!(sale.state(), State::PaidWaiting { .. } | State::Uncertain { .. })
            }
            Txn::CashIn(_) => false,
        };
        if resumes && self.txns.get(&verdict.txid).is_some_and(rests) {
            self.put_on_screen(verdict.txid);
        }
        self.queue.push_back((verdict.txid, Input::Verdict(verdict)));
        // it may say of a note that it came in
        self.boxes.ask();
    }

    fn close_breaker(&mut self, nonce: Nonce, seen: JournalSeq) -> Result<(), VaultError> {
        let now = self.now().unix;
        // a copy decides first: a verdict that changes nothing is not used up
        let mut closed = self.breaker.clone();
        let head = JournalSeq(self.journal.head().seq.0.saturating_add(1));
        if let Err(error) = closed.close(head, now) {
            self.raise("verdict_refused", error.to_string());
            return Ok(());
        }
        self.append(Entry::Verdict(VerdictUse { nonce, seen }))?;
        self.keep(closed.kept())?;
        self.breaker = closed;
        tracing::warn!(event = "breaker_closed");
        Ok(())
    }

    /// Somebody with the PIN brings a `rekey` to the machine: from a service that is lost it does not
    /// come. Without its word the last time in the journal counts, which never goes back.
    pub(super) fn rekey_by_hand(
        &mut self,
        from: PeerId,
        signed: &SignedStatement,
        pin: &SecretText,
    ) -> Result<(), VaultError> {
        let refused = match self.may_rekey(signed, pin)? {
            Ok((pins, nonce)) => {
                self.rekey(pins, nonce)?;
                None
            }
            Err(why) => {
                tracing::warn!(event = "rekey_refused", why);
                Some(why)
            }
        };
        self.peers.send(from, ToNet::Rekeyed { refused });
        Ok(())
    }

    fn may_rekey(
        &mut self,
        signed: &SignedStatement,
        pin: &SecretText,
    ) -> Result<Result<(Pins, Nonce), String>, VaultError> {
        let Some(pins) = self.pairing.as_ref().map(|pairing| pairing.pins) else {
            return Ok(Err("this machine is not paired".to_owned()));
        };
        match self.try_pin(pin.expose())? {
            Ok(true) => {}
            Ok(false) => return Ok(Err("that is not the PIN of service mode".to_owned())),
            Err(locked) => return Ok(Err(locked.to_string())),
        }
        let statement = match signed.check(&pins.operator, self.now().unix) {
            Ok(statement) => statement,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let Statement::Rekey { spire, vault, operator, service, nonce, .. } = statement else {
            return Ok(Err(format!("expected a rekey, got a {}", statement.type_name())));
        };
        if spire != pins.spire || vault != self.key {
            return Ok(Err("it is for another machine, or another vault".to_owned()));
        }
        if self.journal.nonce_used(&nonce)? {
            return Ok(Err("it was used before".to_owned()));
        }
        Ok(Ok((Pins { operator, service, ..pins }, nonce)))
    }

    /// The operator moves the machine to other keys.
    fn rekey(&mut self, pins: Pins, nonce: Nonce) -> Result<(), VaultError> {
        let Some(mut pairing) = self.pairing.clone() else { return Ok(()) };
        let seen = self.journal.head().seq;
        pairing.settled = pairing.was_confirmed();
        pairing.confirmed &= pairing.pins.service == pins.service;
        pairing.pins = pins;
        // before the nonce is used up: a power cut between the two must not leave the old pins and a
        // statement that does not count any more
        self.keep(&pairing)?;
        self.pairing = Some(pairing);
        self.append(Entry::Verdict(VerdictUse { nonce, seen }))?;
        tracing::warn!(event = "rekeyed", operator = %pins.operator, service = %pins.service);
        if let Some(pins) = self.net_pins() {
            self.to_net(ToNet::Paired { pins });
        }
        // the other service was never asked
        self.ask_all_again();
        Ok(())
    }
}
