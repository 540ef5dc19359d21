//! What has to hold at the end of each story.

use std::collections::BTreeMap;

use super::*;
use crate::ids::{LegId, PaymentId};
use crate::store::Kept;
use crate::store::payments::{Payment, PaymentState, SubjectKind};
use crate::store::withdraws;
use crate::wallet::{Cursor, Flow, PayState};

impl Bench {
    /// Every sale that is not distributed, and every payout that has not ended, has its line in the log,
    /// as it stands now.
    pub(super) async fn is_told(&mut self) {
        self.death.spares();
        self.reach(false);
        self.world.pass(TOLD_AFTER_S + LEASE_S + 1);
        // the first round may still take up what nobody had
        for _ in 0..2 {
            self.round().await;
        }
        let lines = self.world.read(|read| log::audit_tail(read, None, 10_000)).await;
        for state in Distribution::ALL {
            if matches!(state, Distribution::Processed | Distribution::Rejected) {
                continue;
            }
            for id in self.at(*state).await {
                let told = lines.iter().any(|line| {
                    let of = &line.detail.0;
                    let as_it_is = of["state"].as_str().unwrap_or("").starts_with(state.as_str());
                    line.action == WAITING && of["settlement"] == id.0 && as_it_is
                });
                assert!(told, "settlement {id} is {state} and nobody was told");
            }
        }
        let late = self.world.app().clock.now().0 - TOLD_AFTER_S;
        for payment in self.world.read(payments::open).await {
            if payment.subject == SubjectKind::Withdraw && payment.started_at.0 < late {
                let hash = json!(payment.payment_hash);
                let of = |line: &log::Audit| line.detail.0["payment_hash"] == hash;
                let told = lines.iter().any(|line| line.action == payout::WAITING && of(line));
                assert!(told, "payout {hash} has not ended and nobody was told");
            }
        }
        self.reach(true);
    }

    /// Every sat is where it belongs, in the books and in the wallets; no leg and no customer was paid
    /// twice, and all were.
    pub(super) async fn is_whole(&mut self, seed: u64) {
        let machine = self.world.machine;
        self.world.assert_paid(self.platform, self.operator).await;
        self.world.till_is_booked().await;
        for account in [Account::Owed(machine), Account::CustomerLiability(machine)] {
            assert_eq!(self.world.balance(account).await, 0, "seed {seed}: {account}");
        }
        let page = |read: &Read<'_>| settlements::page(read, SettlementId(0), u32::MAX);
        let sales = self.world.read(page).await;
        let whole = sales.iter().filter(|sale| sale.distribution == Distribution::Processed);
        assert_eq!((whole.count(), sales.len()), (self.sales, self.sales), "seed {seed}");
        let every = self.world.read(|read| payments::page(read, PaymentId(0), u32::MAX)).await;
        let paid: Vec<_> =
            every.iter().filter(|one| one.state == PaymentState::Succeeded).collect();
        self.is_what_the_wallet_did(&paid).await;
        let legs = self.world.read(|read| legs::page(read, LegId(0), u32::MAX)).await;
        // a later round is the same leg
        let subject = |payment: &Payment| match payment.subject {
            SubjectKind::Withdraw => payment.subject_id.clone(),
            SubjectKind::Leg => {
                let leg = legs.iter().find(|leg| leg.id.to_string() == payment.subject_id).unwrap();
                format!("leg {} of {}", leg.position, leg.settlement_id)
            }
        };
        let mut subjects: Vec<_> = paid.iter().map(|one| subject(&one.row)).collect();
        subjects.sort_unstable();
        subjects.dedup();
        assert_eq!(subjects.len(), paid.len(), "seed {seed}: something was paid twice");
        self.world.assert_providers(&legs, self.lps, self.deposited).await;
        for customer in std::mem::take(&mut self.customers) {
            let claim = customer.claim();
            let open = self.world.read(move |read| withdraws::unpaid_under(read, claim)).await;
            assert!(open.is_empty(), "seed {seed}: {open:?}");
            let of = |one: &&&Kept<PaymentId, Payment>| {
                customer.named.iter().any(|invoice| invoice.hash == one.payment_hash)
            };
            let theirs: Vec<_> = paid.iter().filter(of).map(|one| one.amount_sats).collect();
            assert_eq!(theirs, [customer.sats], "seed {seed}");
        }
    }

    /// What is on record as paid is what left the wallet, to the sat, with the routing.
    async fn is_what_the_wallet_did(&self, paid: &[&Kept<PaymentId, Payment>]) {
        let booked = |one: &&Kept<PaymentId, Payment>| {
            (one.payment_hash, (one.amount_sats, one.fee_paid_sats.unwrap()))
        };
        let booked: BTreeMap<_, _> = paid.iter().map(booked).collect();
        let (list, _) = self.world.node().wallet("till").list(Cursor(0)).await.unwrap();
        let mut left = BTreeMap::new();
        for payment in list.into_iter().filter(|payment| payment.flow == Flow::Outbound) {
            match payment.state {
                PayState::Succeeded { amount, fee, .. } => {
                    let sats = (amount.to_sats_exact().unwrap(), fee.to_sats_exact().unwrap());
                    left.insert(payment.payment_hash, sats);
                }
                PayState::Failed => {}
                PayState::Pending => panic!("{} is still under way", payment.payment_hash),
            }
        }
        assert_eq!(booked, left, "the books against the wallet");
        let routing: u64 = booked.values().map(|(_, fee)| fee.0).sum();
        let account = Account::RoutingFees(self.world.machine);
        assert_eq!(self.world.balance(account).await, i64::try_from(routing).unwrap());
    }

    /// The audit finds nothing: of legs and rules, of the wallets' lists, of what was promised.
    pub(super) async fn audits(&self) {
        let mut found = audit::run(self.world.app()).await.unwrap().differences;
        found.retain(|one| match one.check {
            Check::Wallet | Check::Distribution => true,
            // reports are booked here without a vault's word
            Check::Liabilities => !one.subject.starts_with("debt "),
            _ => one.subject.contains("leg_") || one.subject.contains("lp_"),
        });
        assert!(found.is_empty(), "{found:#?}");
    }
}
