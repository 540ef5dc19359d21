//! Paid sales of the world's machine, as settlement and report leave them.

use std::collections::BTreeMap;

use bitspire_shared::ids::{ClaimHash, JournalSeq};
use bitspire_shared::money::Fiat;
use bitspire_shared::split::Parts;

use super::*;
use crate::ledger::{DispenseBooking, Entry, dispensed};

impl World {
    /// A paid cash_out: 2 % for the platform, 3 % for the operator. `reported` is what its machine
    /// has said of its notes.
    pub(super) async fn sold(
        &self,
        principal: u64,
        reported: Option<DispenseOutcome>,
    ) -> SettlementId {
        self.sale(principal, reported, None).await
    }

    /// The same of 10 000 sats, all of which came out.
    pub(super) async fn full(&self) -> SettlementId {
        self.sold(10_000, Some(DispenseOutcome::Full)).await
    }

    /// A sale of which notes worth `missing` minor units did not come out; what is owed for them.
    pub(super) async fn short(
        &self,
        principal: u64,
        missing: i64,
        (txid, claim_hash): (TxnId, ClaimHash),
    ) -> (SettlementId, Sats) {
        let short = Short { missing, txid, claim_hash };
        let id = self.sale(principal, Some(DispenseOutcome::Partial), Some(short)).await;
        (id, self.settlement(id).await.owed_sats.unwrap())
    }

    async fn sale(
        &self,
        principal: u64,
        reported: Option<DispenseOutcome>,
        short: Option<Short>,
    ) -> SettlementId {
        let fees = FeePair::new(FeePpm::new(20_000).unwrap(), FeePpm::new(30_000).unwrap());
        let charge = fees.unwrap().charge(Direction::CashOut, Sats(principal)).unwrap();
        let split = Split::new(Terms {
            direction: Direction::CashOut,
            wire: charge.wire(),
            principal: charge.principal(),
            fee: charge.fee(),
            owed: Sats::ZERO,
            platform: FeePpm::new(20_000).unwrap(),
        });
        let split = split.unwrap();
        let request = InvoiceRequest {
            amount: charge.wire(),
            memo: "sale".into(),
            expiry_s: 300,
            extra: json!({}),
        };
        let node = self.node();
        let invoice = node.wallet("till").make_invoice(request).await.unwrap();
        node.customer_pays(&invoice.bolt11, None).unwrap();
        let promised = eur(i64::try_from(principal.div_ceil(10)).unwrap());
        let parts = match &short {
            Some(short) => split.dispensed(promised, eur(short.missing)).unwrap().parts(),
            None => split.parts(),
        };
        let row = Settlement {
            payment_hash: invoice.payment_hash,
            machine_id: self.machine,
            wallet_id: "till".into(),
            direction: Direction::CashOut,
            status: SettlementStatus::Accepted,
            wire_sats: charge.wire(),
            extra: JsonText::of(&json!({})),
            reason: None,
            txid: short.as_ref().map(|short| short.txid),
            quote_id: None,
            withdraw_id: None,
            principal_sats: Some(parts.principal),
            platform_fee_sats: Some(parts.platform_fee),
            operator_fee_sats: Some(parts.operator_fee),
            owed_sats: Some(parts.owed),
            exchange_rate: Some(SATS_PER_EUR.into()),
            fiat_minor: Some(promised.minor),
            fiat_code: Some(promised.currency),
            fees_event_id: None,
            request_event_id: None,
            fee_mismatch_sats: None,
            short: false,
            settled_at: self.app().clock.now(),
            recorded_at: self.app().clock.now(),
            dispense_outcome: reported,
            reported_at: reported.map(|_| self.app().clock.now()),
            distribution: match reported {
                Some(_) => Distribution::Pending,
                None => Distribution::Held,
            },
            hold_reason: reported.is_none().then(|| crate::settle::AWAITS_REPORT.into()),
            claim_token: None,
            lease_until: None,
        };
        let (machine, operator) = (self.machine, self.operator);
        self.write(move |tx| {
            let entry = settled(machine, operator, row.payment_hash, row.txid, &split).unwrap();
            let mut with = Consequences { entries: vec![entry], ..Consequences::default() };
            if let Some(short) = short {
                with.entries.push(short.booked((machine, operator), promised, (&split, parts)));
                with.owed.push(short.owed(machine, parts));
            }
            Ok(settlements::record(tx, &row, &with)?.id())
        })
        .await
    }
}

/// Notes that did not come out, and whose they are.
struct Short {
    missing: i64,
    txid: TxnId,
    claim_hash: ClaimHash,
}

impl Short {
    /// The books' entry of its machine's report.
    fn booked(
        &self,
        (machine, operator): (MachineId, OperatorId),
        promised: Fiat,
        (split, after): (&Split, Parts),
    ) -> Entry {
        let booking = DispenseBooking {
            machine,
            operator,
            txid: self.txid,
            journal_seq: JournalSeq(1),
            currency: promised.currency,
            outcome: DispenseOutcome::Partial,
            bays: &BTreeMap::new(),
            earlier: &BTreeMap::new(),
            notes: &BTreeMap::new(),
            before: split.parts(),
            after,
        };
        dispensed(&booking).unwrap().unwrap()
    }

    fn owed(&self, machine: MachineId, after: Parts) -> NewOwed {
        NewOwed {
            claim_hash: self.claim_hash,
            machine_id: machine,
            txid: self.txid,
            reason: OwedReason::Undispensed,
            source: format!("{machine}:{}:1", self.txid),
            sats: after.owed,
        }
    }
}

fn eur(minor: i64) -> Fiat {
    Fiat::new(minor, "EUR".parse().unwrap())
}
