//! What the service says, checked.
//!
//! Promise: an answer counts only for a request that waits, with an event that the pinned service
//! signed beside it; what money hangs on in it carries a signature of its own, over texts that the
//! vault builds from its own transaction. Trusted time comes from these events.
//!
//! Failure policy: what does not hold is a refusal of that request, counted and shown; `net` cannot
//! make a transaction out of it.

use bitspire_shared::ids::{EventId, RequestId, TxnId};
use bitspire_shared::money::{Direction, FeePpm, Fiat};
use bitspire_shared::rpc::{
    self, ErrorCode, Expectation, FeesInForce, Invoice, Payment, Push, Quote, Reply,
    ServiceMessage, Withdraw, check_quote,
};
use bitspire_shared::seed::Pins;
use bitspire_shared::split::FeePair;
use bitspire_shared::time::Unix;
use nostr::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::VaultError;
use super::core::Vault;
use super::requests::Owner;
use crate::policy::price::BAND_PPM;
use crate::txn::{CheckError, Input, Txn};

impl Vault {
    /// Whether the pinned service signed the event; its time counts then.
    fn hear_service(&mut self, event: &Event) -> bool {
        let Some(pairing) = &self.pairing else { return false };
        let by_service = event.pubkey == pairing.pins.service.nostr();
        if !by_service || event.kind.as_u16() != rpc::KIND || event.verify().is_err() {
            let author = event.pubkey.to_hex();
            tracing::warn!(event = "not_by_the_service", author);
            return false;
        }
        let now = self.mono();
        let id = EventId::from_bytes(event.id.to_bytes());
        self.time.hear(id, Unix(event.created_at.as_secs()), now);
        true
    }

    /// An answer came.
    pub(super) fn replied(
        &mut self,
        id: RequestId,
        event: &Event,
        envelope: Value,
    ) -> Result<(), VaultError> {
        if !self.hear_service(event) {
            return Ok(());
        }
        let reply = match serde_json::from_value::<Reply>(envelope) {
            Ok(reply) if reply.request_id().is_none_or(|named| named == id) => reply,
            _ => {
                tracing::warn!(event = "no_reply", request_id = %id);
                return Ok(());
            }
        };
        let Some(asked) = self.requests.take(&id) else {
            tracing::debug!(event = "reply_to_nothing", request_id = %id);
            return Ok(());
        };
        self.peers.heard_at = Some(self.mono());
        match asked.owner {
            Owner::Report => {
                let carried = self.reports.answered();
                if matches!(reply, Reply::Ok { .. }) {
                    self.told(&carried)?;
                }
            }
            Owner::Confirmed => {
                // no such invoice: said of its own by a service that serves this machine; every other
                // refusal may come before anybody has compared anything
                let serves = match &reply {
                    Reply::Ok { .. } => true,
                    Reply::Error { code, .. } => *code == ErrorCode::Invalid,
                };
                self.reports.asked_confirmed(self.mono());
                if serves {
                    self.confirmed()?;
                }
            }
            Owner::Txn(txid) => {
                let input = match reply {
                    Reply::Error { code, reason, .. } => {
                        tracing::warn!(event = "refused", txn = %txid, rpc = asked.rpc, %code, reason);
                        Some(Input::Refused { request: id, code })
                    }
                    Reply::Ok { body, .. } => self.answer(txid, id, asked.rpc, body)?,
                };
                self.queue.extend(input.map(|input| (txid, input)));
            }
        }
        Ok(())
    }

    /// The good answer to a transaction's request, as an input.
    fn answer(
        &mut self,
        txid: TxnId,
        request: RequestId,
        rpc: &'static str,
        body: Value,
    ) -> Result<Option<Input>, VaultError> {
        let malformed = Input::Refused { request, code: ErrorCode::Malformed };
        let input = match rpc {
            "get_quote" => match read::<Quote>(rpc, body) {
                Some(quote) => self.quoted(txid, request, &quote)?,
                None => malformed,
            },
            "create_invoice" => match read::<Invoice>(rpc, body) {
                Some(invoice) => Input::Invoice { request, invoice },
                None => malformed,
            },
            "create_withdraw" => match read::<Withdraw>(rpc, body) {
                Some(withdraw) => self.withdraw(txid, request, withdraw),
                None => malformed,
            },
            "get_payment" => match read::<Payment>(rpc, body) {
                Some(payment) => {
                    let leave = payment.authorisation.and_then(|sig| self.leave(txid, &sig));
                    let Payment { state, wire_sats, .. } = payment;
                    leave.unwrap_or(Input::Payment { request, state, wire_sats })
                }
                None => malformed,
            },
            _ => Input::Reported { request },
        };
        Ok(Some(input))
    }

    /// A quote, held against everything that the vault knows.
    fn quoted(
        &mut self,
        txid: TxnId,
        request: RequestId,
        quote: &Quote,
    ) -> Result<Input, VaultError> {
        let now = self.now();
        let refused = |code| Input::Refused { request, code };
        let wanted = self.txns.get(&txid).map(|txn| match txn {
            Txn::CashOut(sale) => (Direction::CashOut, sale.deal().fiat),
            // less than the whole, once notes were taken under an earlier lock
            Txn::CashIn(session) => {
                let Fiat { minor, currency } = session.deal().fiat;
                let left = minor.saturating_sub(session.total().minor);
                (Direction::CashIn, Fiat::new(left, currency))
            }
        });
        let (Some((direction, fiat)), Some(pairing)) = (wanted, &self.pairing) else {
            return Ok(refused(ErrorCode::Invalid));
        };
        let Some(fees) = self.fees_in_force(direction) else {
            return Ok(refused(ErrorCode::FeeMismatch));
        };
        let recent_rates = self.rates.recent(now.unix);
        let own = Expectation {
            spire: &pairing.pins.spire,
            service: &pairing.pins.service,
            direction,
            txid,
            fiat,
            fees,
            recent_rates: &recent_rates,
            band_ppm: BAND_PPM,
            max_age_s: self.config.policy.price_age_s.get(),
        };
        match check_quote(quote, &own) {
            Ok(quote) => {
                self.rates.add(quote.terms().exchange_rate, now.unix);
                let rates = self.rates.clone();
                self.keep(&rates)?;
                Ok(Input::Quote { request, quote })
            }
            Err(error) => {
                self.raise("quote_refused", error.to_string());
                Ok(refused(error.code()))
            }
        }
    }

    /// The fees of one direction, by the document that was applied.
    fn fees_in_force(&self, direction: Direction) -> Option<FeesInForce> {
        let (kept, document) = self.fees.as_ref()?;
        let fees = document.of(direction);
        let fees = match fees.parts() {
            Some(parts) => parts,
            None => FeePair::new(FeePpm::ZERO, fees.total()).ok()?,
        };
        Some(FeesInForce { event_id: kept.0.mark().id, fees })
    }

    fn withdraw(&mut self, txid: TxnId, request: RequestId, withdraw: Withdraw) -> Input {
        let pins = self.pairing.as_ref().map(|pairing| pairing.pins);
        let checked = match (self.txns.get(&txid), pins) {
            (Some(Txn::CashIn(session)), Some(Pins { spire, service, .. })) => {
                session.check_withdraw(withdraw, &spire, &self.key, &service)
            }
            _ => Err(CheckError::NotWaiting { state: "none" }),
        };
        match checked {
            Ok(withdraw) => Input::Withdraw { request, withdraw },
            Err(error) => {
                self.raise("withdraw_refused", format!("{txid}: {error}"));
                Input::Refused { request, code: ErrorCode::BadSignature }
            }
        }
    }

    /// Leave to dispense, if the service has signed it for this transaction.
    fn leave(&mut self, txid: TxnId, sig: &bitspire_shared::canonical::Sig) -> Option<Input> {
        let service = self.pairing.as_ref()?.pins.service;
        let Some(Txn::CashOut(sale)) = self.txns.get(&txid) else { return None };
        match sale.check_authorisation(sig, &self.key, &service) {
            Ok(leave) => Some(Input::Authorised(leave)),
            Err(error) => {
                self.raise("authorisation_refused", format!("{txid}: {error}"));
                None
            }
        }
    }

    /// A push came: a hint, but for what it proves by itself.
    pub(super) fn pushed(&mut self, event: &Event, envelope: &Value) -> Result<(), VaultError> {
        if !self.hear_service(event) {
            return Ok(());
        }
        let Ok(ServiceMessage::Push { push, .. }) = ServiceMessage::parse(&envelope.to_string())
        else {
            tracing::warn!(event = "no_push");
            return Ok(());
        };
        self.peers.heard_at = Some(self.mono());
        match push {
            Push::PaymentSettled(settled) => {
                let leave = self.leave(settled.txid, &settled.authorisation);
                self.queue.extend(leave.map(|input| (settled.txid, input)));
            }
            Push::WithdrawClaimed(claimed) => {
                let input = Input::WithdrawClaimed(claimed.withdraw_id);
                self.queue.push_back((claimed.txid, input));
            }
            Push::WithdrawPaid(paid) => {
                self.queue.push_back((paid.txid, Input::WithdrawPaid(paid.withdraw_id)));
            }
            // the document itself comes from a relay
            Push::ConfigChanged(_) => {}
            Push::Verdict(verdict) => self.verdict(verdict.statement)?,
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(rpc: &str, body: Value) -> Option<T> {
    serde_json::from_value(body)
        .inspect_err(|error| tracing::warn!(event = "reply_malformed", rpc, %error))
        .ok()
}
