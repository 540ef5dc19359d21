//! A shop with something of everything behind it, and copies of its database to damage.

use std::collections::BTreeMap;

use bitspire_shared::document::Action;
use bitspire_shared::ids::{BayId, ChangeId, EventId, JournalSeq, PubKey, TxnId};
use bitspire_shared::money::Direction;
use bitspire_shared::rpc::{
    BayCount, Cashbox, CreateWithdraw, DispenseOutcome, OpenTxn, Recycled, RejectBin, ServiceEvent,
    StateReport, VaultSigned, Withdraw,
};
use bitspire_shared::time::Unix;
use nostr::{EventBuilder, JsonUtil, Keys, Kind};

use super::super::gather::Given;
use super::super::parts;
use super::super::report::Audit;
use super::super::{after, before};
use crate::distribute::tests::{in_force, to};
use crate::publish::cassettes::{Wish, Wishes, change};
use crate::rpc::tests::cash_in::{claim, fetched};
use crate::rpc::tests::cash_out::{Sale, note, offered, pay, report};
use crate::rpc::tests::{Peer, World, ppm, trading};
use crate::settle;
use crate::store::documents::{self, DocumentKind, Fees, NewDocument};
use crate::store::operators::{self, SignerKind};
use crate::store::rules::Scope;
use crate::store::{Store, damage, machines};

/// What the machine counts: notes of 20 in bay 1, and in the cashbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(in crate::audit) bay: u32,
    pub(in crate::audit) cashbox: u32,
    pub(in crate::audit) bin: u32,
    /// Notes that went from customers to the bay.
    pub(in crate::audit) recycled: u32,
    /// Since which position that is counted.
    pub(in crate::audit) since: u64,
}

pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) machine: Peer,
    pub(in crate::audit) counts: Counts,
    /// What was done at the machine and is told again and again.
    pub(in crate::audit) events: Vec<ServiceEvent>,
    /// Whose key signs the fee documents.
    pub(in crate::audit) owner: Keys,
}

pub(in crate::audit) fn bay() -> BayId {
    BayId::new(1).unwrap()
}

/// A fee document with the event that the operator signed.
async fn published(world: &World, owner: &Keys) {
    let event = EventBuilder::new(Kind::from(30_078), "sealed");
    let event = event.sign_with_keys(owner).unwrap();
    let (machine_id, now) = (world.machine_id, world.app.clock.now().after(1));
    world
        .write(move |tx| {
            let fees = Fees {
                cash_in_platform: ppm(20_000),
                cash_in_operator: ppm(30_000),
                cash_out_platform: ppm(20_000),
                cash_out_operator: ppm(30_000),
            };
            let (kind, fees, body) = (DocumentKind::Fees, Some(fees), serde_json::json!({}));
            let new = NewDocument { machine_id, kind, body, published_at: now, fees };
            let document = documents::want(tx, &new, now)?;
            let id = EventId::from_bytes(event.id.to_bytes());
            documents::set_signed(tx, document, (id, &event.as_json()), now, now).map(drop)
        })
        .await;
}

impl Shop {
    /// With nothing in it.
    pub(in crate::audit) async fn empty() -> Self {
        let (world, machine) = trading().await;
        Self::of(world, machine).await
    }

    /// The same, of a machine that trades.
    pub(crate) async fn of(world: World, machine: Peer) -> Self {
        let owner = Keys::generate();
        published(&world, &owner).await;
        let (counts, events) = (Counts::default(), Vec::new());
        Self { world, machine, counts, events, owner }
    }

    /// With 100 notes of 20 in bay 1 and 20 more, and nothing sold yet.
    pub(in crate::audit) async fn open() -> Self {
        let mut shop = Self::empty().await;
        shop.fill().await;
        shop
    }

    /// 100 notes of 20 come into bay 1, and 20 more.
    pub(crate) async fn fill(&mut self) {
        let filled = self.wish(Some(20), Action::Set(100)).await;
        let more = self.wish(None, Action::Delta(20)).await;
        self.counts.bay = 120;
        self.heartbeat(&[filled, more], &[]).await;
    }

    /// The platform's fees go to `wallet` from now on, signed by the operator's key.
    pub(crate) async fn platform_to(&self, wallet: &'static str) {
        let (keys, id, now) =
            (self.owner.clone(), self.world.machine_id, self.world.app.clock.now());
        let key = PubKey::new(keys.public_key()).unwrap();
        self.world
            .write(move |tx| {
                let operator = machines::find(tx, id)?.unwrap().operator_id;
                operators::set_identity(tx, operator, key, SignerKind::Local, None)?;
                in_force(tx, &keys, (Scope::Super, None), vec![to(wallet, 1_000_000)], now)
            })
            .await;
    }

    pub(in crate::audit) async fn wish(
        &self,
        denomination: Option<u32>,
        action: Action,
    ) -> ChangeId {
        let bays = vec![Wish { bay: bay(), denomination, action }];
        let wishes = Wishes { bays, reason: "monday".into(), base_seq: None };
        let (app, id) = (&self.world.app, self.world.machine_id);
        change(app, "cli", None, id, wishes).await.unwrap().0[0]
    }

    pub(in crate::audit) fn state(
        &mut self,
        applied: &[ChangeId],
        open: &[TxnId],
    ) -> VaultSigned<StateReport> {
        let (journal_seq, journal_head) = self.machine.journal();
        let Counts { bay: count, cashbox, bin, recycled, since } = self.counts;
        let notes =
            |count| [(note(2_000), count)].into_iter().filter(|(_, count)| *count > 0).collect();
        let held = BayCount { denomination_minor: note(2_000), count, unsure: 0 };
        let open = open.iter().map(|txid| OpenTxn {
            txid: *txid,
            direction: Direction::CashOut,
            state: "dispensing".into(),
            fiat_minor: None,
            since: Unix(1),
            doubt: None,
        });
        let emptied_seq = JournalSeq(0);
        let body = StateReport {
            versions: Default::default(),
            devices: Default::default(),
            cassettes: [(bay(), held)].into(),
            cashbox: Some(Cashbox { notes: notes(cashbox), capacity: 500, emptied_seq }),
            reject_bin: Some(RejectBin { notes: notes(bin), emptied_seq }),
            recycled: (recycled > 0).then(|| Recycled {
                since: JournalSeq(since),
                notes: [(bay(), notes(recycled))].into(),
            }),
            service_events: self.events.clone(),
            applied_documents: Default::default(),
            applied_changes: applied.iter().copied().collect(),
            open_transactions: open.collect(),
            alerts: vec![],
            used_nonces: vec![],
            journal_seq,
            journal_head,
        };
        self.machine.signed(body)
    }

    pub(crate) async fn heartbeat(&mut self, applied: &[ChangeId], open: &[TxnId]) {
        let state = self.state(applied, open);
        self.machine.ask(state).await.unwrap();
    }

    /// A paid sale of 40 EUR, two notes.
    pub(in crate::audit) async fn paid(&mut self) -> Sale {
        let sale = offered(&mut self.machine, 4_000).await;
        pay(&self.world, &sale.invoice, None);
        self.machine.push().await;
        sale
    }

    /// `out` of the two notes came.
    pub(crate) async fn dispensed(&mut self, sale: &Sale, outcome: DispenseOutcome, out: u32) {
        let owed = match outcome {
            DispenseOutcome::Uncertain => 0,
            _ => 4_000 - 2_000 * i64::from(out),
        };
        let body = report(&mut self.machine, sale, outcome, &[(1, 2, out)], owed);
        self.machine.ask(body).await.unwrap();
        self.counts.bay -= out;
    }

    /// A note of 20 EUR was fed and claimed.
    pub(crate) async fn fed(&mut self) -> Withdraw {
        let asked = self.machine.quote(Direction::CashIn, 2_000);
        let quote = self.machine.ask(asked).await.unwrap();
        let body: CreateWithdraw =
            claim(&mut self.machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
        self.counts.cashbox += 1;
        self.machine.ask(self.machine.signed(body)).await.unwrap()
    }

    /// Something of everything: a full sale, a short one, a late payment, sats fetched and not.
    pub(in crate::audit) async fn busy() -> Self {
        let mut shop = Self::open().await;
        let full = shop.paid().await;
        shop.dispensed(&full, DispenseOutcome::Full, 2).await;
        let short = shop.paid().await;
        shop.dispensed(&short, DispenseOutcome::Partial, 1).await;
        let fetched_one = shop.fed().await;
        fetched(&shop.world, &fetched_one).await;
        crate::payout::tests::round(&shop.world.app).await.unwrap();
        shop.fed().await;
        let late = offered(&mut shop.machine, 4_000).await;
        shop.world.advance(361);
        pay(&shop.world, &late.invoice, None);
        let hash = late.invoice.payment_hash;
        settle::look(&shop.world.app, "till", hash).await.unwrap();
        shop.heartbeat(&[], &[]).await;
        shop
    }

    pub(crate) async fn audit(&self) -> Audit {
        super::super::run(&self.world.app).await.unwrap()
    }

    /// What an audit knows beside the database.
    pub(in crate::audit) async fn given(&self) -> Given {
        let app = &self.world.app;
        let mut wallets = BTreeMap::new();
        for (id, wallet) in &app.wallets {
            let list = before(app, &**wallet).await.unwrap();
            wallets.insert(id.clone(), after(app, &**wallet, list).await.unwrap());
        }
        Given::of(app, wallets, BTreeMap::new())
    }

    /// The audit of a copy of the database, after `statements`.
    pub(in crate::audit) async fn damaged(
        &self,
        given: &Given,
        statements: &'static [&'static str],
    ) -> Audit {
        let folder = tempfile::tempdir().unwrap();
        for name in ["operator.db", "operator.db-wal"] {
            let from = self.world.folder.path().join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        let store = Store::open(&folder.path().join("operator.db"), given.now).unwrap();
        store.write(|tx| damage(tx, statements)).await.unwrap();
        let given = given.clone();
        parts::run(store.snapshots(2).await.unwrap(), &given).unwrap()
    }
}
