//! What the customer does.
//!
//! Promise: an action counts only where it fits what is shown: one of the amounts on the screen, the
//! transaction on the screen, a claim code of a transaction that waits for it.
//!
//! Failure policy: whatever does not fit changes nothing.

use std::num::NonZeroU32;

use bitspire_shared::ids::{ClaimCode, Nonce, TxnId};
use bitspire_shared::money::Fiat;
use bitspire_shared::rate::{Limiter, Quota};

use super::VaultError;
use super::core::Vault;
use crate::ipc::{CustomerAction, SecretText};
use crate::txn::{CashIn, CashOut, Input, Order, Rules, Txn};

/// Claim codes that may be tried: 5 a minute.
const TRIES: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Limits how often a claim code is tried.
pub(super) const fn code_tries() -> Limiter {
    Limiter::new(Quota::per_minute(TRIES, TRIES))
}

impl Vault {
    /// The customer did something.
    pub(super) fn customer(&mut self, action: CustomerAction) -> Result<(), VaultError> {
        let shown = self.on_screen;
        match action {
            CustomerAction::Seen { screen } => self.seen(screen),
            CustomerAction::Gone => {
                self.end_service();
                self.break_screen("the page is gone");
            }
            CustomerAction::Service(touch) => self.service_touch(touch)?,
            CustomerAction::StartCashIn => self.start_cash_in()?,
            CustomerAction::StartCashOut { fiat_minor } => self.start_cash_out(fiat_minor)?,
            CustomerAction::ClaimCode { code } => self.claim_code(&code, Input::ClaimEntered),
            CustomerAction::GiveBack { code } => self.claim_code(&code, Input::GiveBack),
            CustomerAction::Receipt { open } => self.open_receipt(open),
            CustomerAction::PrintReceipt => self.print_receipt(),
            CustomerAction::Confirm | CustomerAction::Finish | CustomerAction::Cancel
                if self.at_an_end() =>
            {
                self.leave_screen();
            }
            CustomerAction::Confirm => self.queue.extend(shown.map(|txid| (txid, Input::Accept))),
            CustomerAction::Finish => self.queue.extend(shown.map(|txid| (txid, Input::Finish))),
            CustomerAction::Cancel => self.queue.extend(shown.map(|txid| (txid, Input::Cancel))),
        }
        Ok(())
    }

    fn order(&mut self, fiat: Fiat) -> Result<Order, VaultError> {
        let ms = |seconds: NonZeroU32| u64::from(seconds.get()).saturating_mul(1_000);
        let policy = &self.config.policy;
        let (presence_ms, answer_ms) = (ms(policy.presence_s), ms(policy.answer_s));
        Ok(Order {
            txid: TxnId::from_bytes(self.random()?),
            seed: Nonce::from_bytes(self.random()?),
            code: ClaimCode::from_bytes(self.random()?),
            fiat,
            rules: Rules { presence_ms, answer_ms, ..Rules::default() },
        })
    }

    fn screen_is_free(&self) -> bool {
        self.on_screen.is_none() && !self.service.is_open()
    }

    fn start_cash_in(&mut self) -> Result<(), VaultError> {
        let most = self.cash_in_limit();
        let Some(fiat) = most.filter(|_| self.screen_is_free() && self.shop().cash_in) else {
            return Ok(());
        };
        let order = self.order(fiat)?;
        let (session, effects) = CashIn::start(order, self.takes(), self.now());
        let txn = Txn::CashIn(session);
        let txid = txn.txid();
        self.put_on_screen(txid);
        self.feeding = Some(txid);
        self.perform(txid, txn, effects)
    }

    fn start_cash_out(&mut self, fiat_minor: i64) -> Result<(), VaultError> {
        if !self.screen_is_free() {
            return Ok(());
        }
        let offered = self.shop().cash_out;
        let Some(fiat) = offered.into_iter().find(|fiat| fiat.minor == fiat_minor) else {
            tracing::info!(event = "amount_not_offered", fiat_minor);
            return Ok(());
        };
        let (sale, effects) = CashOut::start(self.order(fiat)?, self.now());
        let txn = Txn::CashOut(sale);
        let txid = txn.txid();
        self.put_on_screen(txid);
        self.perform(txid, txn, effects)
    }

    fn claim_code(&mut self, code: &SecretText, wish: fn(ClaimCode) -> Input) {
        if self.code_tries.take(self.mono()).is_err() {
            tracing::warn!(event = "too_many_claim_codes");
            return;
        }
        let typed: String = code.expose().chars().filter(|c| !c.is_whitespace()).collect();
        let Ok(code) = typed.to_ascii_lowercase().parse::<ClaimCode>() else { return };
        let hash = code.hash();
        let deal = |txn: &Txn| match txn {
            Txn::CashOut(sale) => *sale.deal(),
            Txn::CashIn(session) => *session.deal(),
        };
        let found = self.txns.iter().find(|(_, txn)| deal(txn).claim_hash == hash);
        let Some((txid, txn)) = found.map(|(txid, txn)| (*txid, txn)) else { return };
        let input = match txn {
            Txn::CashOut(_) => wish(code),
            // a cash-in that waits brings sats whatever is wished for
            Txn::CashIn(_) => Input::ClaimEntered(code),
        };
        if !self.may_come_on_screen(txid) {
            return;
        }
        self.put_on_screen(txid);
        self.queue.push_back((txid, input));
    }
}
