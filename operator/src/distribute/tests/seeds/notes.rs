//! Notes that a machine takes, with what is promised for them.

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{ClaimHash, JournalHead, JournalSeq, QuoteId, RequestId, WithdrawId};
use bitspire_shared::money::{Denomination, Rate};
use bitspire_shared::rpc::Notes;
use nostr::{EventBuilder, Kind as EventKind};

use super::*;
use crate::ledger::{StackBooking, stacked};
use crate::rpc::tests::{fees_event, publish_fees};
use crate::rpc::worth;
use crate::store::quotes::{self, Quote};
use crate::store::withdraws::{self, K1, Lot, Purpose, Withdraw, WithdrawState};

/// Seconds for which the sats for notes can be fetched by the machine's code.
const PROMISED_S: u64 = 86_400;

impl Bench {
    /// The machine is paired and has fees: 2 % for the platform, 3 % for the operator.
    pub(super) async fn takes_notes(&self) {
        let spire = PubKey::new(Keys::generate().public_key()).unwrap();
        let (machine, now) = (self.world.machine, self.world.app().clock.now());
        let paired = move |tx: &Tx<'_>| {
            machines::set_paired(tx, machine, spire, "spire-1", now.after(PROMISED_S), now)?;
            publish_fees(tx, machine, fees_event(), 30_000, now)
        };
        self.world.write(paired).await;
    }

    /// Notes of 5 EUR are stacked and claimed, as `create_withdraw` leaves it.
    pub(super) async fn feeds(&mut self, dice: &mut Dice) {
        self.death.spares();
        let (machine, operator) = (self.world.machine, self.world.operator);
        let (now, code) = (self.world.app().clock.now(), dice.bytes());
        let quote = self.lock(dice, ClaimCode::from_bytes(code).hash(), now);
        let count = u32::try_from(1 + dice.below(4)).unwrap();
        let notes: Notes = [(Denomination::from_minor(500).unwrap(), count)].into();
        let worth = worth([(&quote, &notes)]).unwrap();
        let (id, k1) = (WithdrawId::from_bytes(dice.bytes()), K1::from_bytes(dice.bytes()));
        let request = EventBuilder::new(EventKind::from(21_000), "sealed");
        let request = request.sign_with_keys(&self.world.keys).unwrap();
        let withdraw = Withdraw {
            withdraw_id: id,
            machine_id: machine,
            txid: quote.txid,
            purpose: Purpose::CashIn,
            claim_id: None,
            claim_hash: quote.claim_hash,
            net_sats: worth.net,
            state: WithdrawState::Offered,
            created_at: now,
            expires_at: now.after(PROMISED_S),
            fiat_minor: Some(worth.value),
            fiat_code: Some(quote.fiat_code),
            principal_sats: Some(worth.parts.principal),
            platform_fee_sats: Some(worth.parts.platform_fee),
            operator_fee_sats: Some(worth.parts.operator_fee),
            journal_seq: Some(JournalSeq(5)),
            journal_head: Some(JournalHead::from_bytes([5; 32])),
            vault_sig: Some(Sig::over("claim", &self.world.keys)),
            withdraw_sig: Some(Sig::over("promise", &self.world.keys)),
            request_event: Some(request.as_json()),
        };
        self.customers.push(Customer::new(code, worth.net, Some(k1.expose())));
        self.platform += worth.parts.platform_fee.0;
        self.operator += worth.parts.operator_fee.0;
        self.sales += 1;
        let stack = move |tx: &Tx<'_>| {
            quotes::insert(tx, &quote)?;
            let lot = Lot { quote_id: quote.quote_id, notes: notes.clone() };
            withdraws::insert(tx, &withdraw, &[lot])?;
            withdraws::issue(tx, id, &k1, withdraw.expires_at, now)?;
            let booking = StackBooking {
                machine,
                operator,
                txid: quote.txid,
                withdraw: id,
                currency: quote.fiat_code,
                notes: &notes,
                net: worth.net,
                parts: worth.parts,
            };
            ledger::append(tx, &stacked(&booking).unwrap(), now).map(|_| ())
        };
        self.world.write(stack).await;
    }

    /// The lock of a rate for 20 EUR at most.
    fn lock(&self, dice: &mut Dice, claim_hash: ClaimHash, now: Unix) -> Quote {
        Quote {
            quote_id: QuoteId::from_bytes(dice.bytes()),
            machine_id: self.world.machine,
            request_id: RequestId::from_bytes(dice.bytes()),
            txid: TxnId::from_bytes(dice.bytes()),
            claim_hash,
            direction: Direction::CashIn,
            fiat_minor: 2_000,
            fiat_code: "EUR".parse().unwrap(),
            rate_nano: Rate::from_nano(1_037_000_000_000).unwrap(),
            sources: JsonText::of(&json!([])),
            platform_fee_ppm: FeePpm::new(20_000).unwrap(),
            operator_fee_ppm: FeePpm::new(30_000).unwrap(),
            fees_event_id: fees_event(),
            principal_sats: Sats(20_740),
            fee_sats: Sats(1_037),
            wire_sats: Sats(19_703),
            ttl_s: 60,
            quote_sig: Sig::over("quote", &self.world.keys),
            created_at: now,
            expires_at: now.after(60),
            reserved_sats: Sats::ZERO,
            reservation_ended_at: None,
        }
    }
}
