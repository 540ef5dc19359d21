//! What people did at the machine: booked once, exactly, and derived again by the audit.

use bitspire_shared::cash::BayResult;
use bitspire_shared::document::Action;
use bitspire_shared::ids::{ChangeId, TxnId};
use bitspire_shared::rpc::{
    BayChange, DispenseOutcome, Pile, ServiceAction, ServiceEvent, StateReport, Tested, VaultSigned,
};
use bitspire_shared::time::Unix;

use super::super::report::Check;
use super::shop::{Shop, bay};
use super::waits;
use crate::ids::OperatorId;
use crate::ledger::{Account, Unit};
use crate::rpc::tests::cash_out::note;
use crate::store::ledger;

impl Shop {
    fn did(&mut self, action: ServiceAction) {
        let n = u8::try_from(self.events.len()).unwrap();
        let (journal_seq, _) = self.machine.journal();
        let id = ChangeId::from_bytes([n.wrapping_add(100); 16]);
        self.events.push(ServiceEvent { id, journal_seq, at: Unix(9), action });
    }

    pub(super) fn changed(&mut self, change: BayChange, expected: Option<i64>) {
        let (bay, denomination_minor, reason) = (bay(), note(2_000), "by hand".into());
        self.did(ServiceAction::BayChanged { bay, denomination_minor, change, expected, reason });
    }

    fn box_emptied(&mut self, expected: i64, counted: u32, bin: bool) {
        let notes = [(note(2_000), Pile { expected, counted })].into();
        let reason = String::from("one is missing");
        self.did(match bin {
            true => ServiceAction::RejectBinEmptied { notes, reason },
            false => ServiceAction::CashboxEmptied { notes, reason },
        });
    }

    fn tested(&mut self, outcome: DispenseOutcome, result: BayResult) {
        let bays = [(bay(), Tested { denomination_minor: note(2_000), result })].into();
        self.did(ServiceAction::TestDispense { outcome, bays });
    }

    async fn notes(&self, account: Account) -> i64 {
        let unit = Unit::Fiat("EUR".parse().unwrap());
        self.world.read(move |read| ledger::balance(read, account, unit)).await / 2_000
    }

    async fn clean(&self) {
        let audit = self.audit().await;
        assert!(audit.ok, "{:#?}", audit.differences);
        assert!(!waits(&audit, Check::Cash, ""), "{:#?}", audit.waiting);
    }
}

/// Loss prevented: an emptying that hides a missing note in the sums of sales, or makes one up
/// because a sale was under way, or because its heartbeat came twice or late.
#[tokio::test]
async fn an_emptying_is_booked_once_whatever_is_sold_around_it() {
    let mut shop = Shop::open().await;
    let id = shop.world.machine_id;
    let operator = Account::Operator(OperatorId(1));
    assert_eq!(shop.notes(operator).await, -120);
    shop.fed().await;
    shop.fed().await;
    // a sale is paid before and reported after
    let crossing = shop.paid().await;
    shop.box_emptied(2, 1, false);
    shop.counts.cashbox = 0;
    shop.heartbeat(&[], &[crossing.quote.txid]).await;
    assert_eq!(shop.notes(Account::Cashbox(id, note(2_000))).await, 0);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 1, "one note is missing");
    assert_eq!(shop.notes(operator).await, -119);
    assert_eq!(shop.notes(Account::InTransit(id)).await, 0);
    shop.dispensed(&crossing, DispenseOutcome::Full, 2).await;
    // the next one is sold before the same heartbeat comes again, and one that is older
    shop.fed().await;
    let older = shop.state(&[], &[]);
    shop.heartbeat(&[], &[]).await;
    shop.heartbeat(&[], &[]).await;
    shop.machine.ask(older).await.unwrap();
    assert_eq!(shop.notes(Account::Cashbox(id, note(2_000))).await, 1);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 1, "once");
    shop.clean().await;
    // what is told under a known id later on changes nothing
    let mut other = shop.events[0].clone();
    if let ServiceAction::CashboxEmptied { notes, .. } = &mut other.action {
        notes.insert(note(2_000), Pile { expected: 2, counted: 2 });
    }
    let known = std::mem::replace(&mut shop.events, vec![other]);
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 1);
    shop.events = known;
    shop.clean().await;
}

/// Loss prevented: a refill, count or test at the machine that is lost, or booked twice, where the
/// machine tells it before the sales that came first.
#[tokio::test]
async fn what_is_done_to_a_bay_commutes_with_its_sales() {
    let mut shop = Shop::open().await;
    let id = shop.world.machine_id;
    let place = Account::Bay(id, bay(), note(2_000));
    let sale = shop.paid().await;
    // two notes are out, which the service has not heard; then 30 come in and 145 are counted
    shop.changed(BayChange::Delta(30), Some(118));
    shop.changed(BayChange::Set(145), Some(148));
    let one = BayResult { requested: 1, picked: Some(2), presented: 1, ..BayResult::default() };
    shop.tested(DispenseOutcome::Full, BayResult { rejected: Some(1), ..one });
    shop.counts.bay = 143;
    shop.counts.bin = 1;
    shop.heartbeat(&[], &[]).await;
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    shop.counts.bay += 2;
    shop.dispensed(&sale, DispenseOutcome::Full, 2).await;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.notes(place).await, 143);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 3);
    assert_eq!(shop.notes(Account::RejectBin(id, note(2_000))).await, 1);
    // 120 and 30 put in, one taken out by the test
    assert_eq!(shop.notes(Account::Operator(OperatorId(1))).await, -149);
    shop.clean().await;
    shop.box_emptied(1, 1, true);
    shop.counts.bin = 0;
    // a count by a document in the same heartbeat finds what is left to find
    let counted = shop.wish(None, Action::Set(140)).await;
    shop.counts.bay = 140;
    shop.heartbeat(&[counted], &[]).await;
    assert_eq!(shop.notes(Account::RejectBin(id, note(2_000))).await, 0);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 6);
    shop.clean().await;
}

/// Loss prevented: the notes that a machine began with, shown as money that was found, because a
/// refill at the machine came into the books while the first count waited for a sale to end.
#[tokio::test]
async fn the_first_count_is_the_operators_notes_whatever_is_booked_before_it() {
    let mut shop = Shop::empty().await;
    let id = shop.world.machine_id;
    let place = Account::Bay(id, bay(), note(2_000));
    let filled = shop.wish(Some(20), Action::Set(100)).await;
    shop.counts.bay = 100;
    let buying = [TxnId::from_bytes([9; 16])];
    shop.heartbeat(&[filled], &buying).await;
    assert_eq!(shop.notes(place).await, 0, "a count waits for the sale");
    shop.changed(BayChange::Delta(50), Some(100));
    shop.counts.bay = 150;
    shop.heartbeat(&[filled], &buying).await;
    assert_eq!(shop.notes(place).await, 50, "a refill does not");
    shop.heartbeat(&[filled], &[]).await;
    assert_eq!(shop.notes(place).await, 150);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 0);
    assert_eq!(shop.notes(Account::Operator(OperatorId(1))).await, -150);
    shop.clean().await;
}

/// Loss prevented: a count after a dispense of unknown end that takes its notes off twice, or never.
#[tokio::test]
async fn a_count_in_doubt_waits_for_the_sale_to_end() {
    let mut shop = Shop::open().await;
    let id = shop.world.machine_id;
    let place = Account::Bay(id, bay(), note(2_000));
    let sale = shop.paid().await;
    shop.dispensed(&sale, DispenseOutcome::Uncertain, 1).await;
    shop.changed(BayChange::Set(119), None);
    shop.counts.bay = 119;
    shop.heartbeat(&[], &[sale.quote.txid]).await;
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(waits(&audit, Check::Cash, "is booked when"), "{:#?}", audit.waiting);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 0, "not yet");
    // the operator decides, and the machine reports what came of it
    shop.counts.bay += 1;
    shop.dispensed(&sale, DispenseOutcome::Partial, 1).await;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.notes(place).await, 119);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 0);
    shop.clean().await;
    // a test of unknown end books nothing; the count that must follow finds its note
    let one = BayResult { requested: 1, ..BayResult::default() };
    shop.tested(DispenseOutcome::Uncertain, one);
    shop.heartbeat(&[], &[]).await;
    shop.changed(BayChange::Set(118), None);
    shop.counts.bay = 118;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.notes(place).await, 118);
    assert_eq!(shop.notes(Account::CashDifference(id)).await, 1);
    shop.clean().await;
}

/// Loss prevented: an event that somebody wrote into the database, or changed there, taken for the
/// machine's word; a box that differs and is not told.
#[tokio::test]
async fn a_made_up_event_and_a_box_that_differs_are_found() {
    let mut shop = Shop::open().await;
    shop.fed().await;
    shop.box_emptied(1, 1, false);
    shop.counts.cashbox = 0;
    shop.heartbeat(&[], &[]).await;
    shop.clean().await;
    let given = shop.given().await;
    for (statements, expected) in [
        (
            &["UPDATE service_events SET at = 8"][..],
            "a heartbeat with it and the vault_sig of the machine's vault",
        ),
        (&["DELETE FROM service_events"], "a settlement, payout, report or load that makes it"),
        (&["UPDATE service_events SET booked_at = NULL"], "its entries"),
    ] {
        let audit = shop.damaged(&given, statements).await;
        let found = audit.differences.iter().any(|one| one.expected == expected);
        assert!(found, "{expected}: {:#?}", audit.differences);
    }
    shop.counts.bin = 1;
    shop.heartbeat(&[], &[]).await;
    let audit = shop.audit().await;
    let found = audit.differences.iter().any(|one| one.subject.contains("reject bin"));
    assert!(found, "{:#?}", audit.differences);
    let forged: VaultSigned<StateReport> = shop.state(&[], &[]);
    let mut body = serde_json::to_value(&forged).unwrap();
    body["service_events"][0]["action"]["cashbox_emptied"]["reason"] = "another".into();
    let forged = serde_json::from_value::<VaultSigned<StateReport>>(body).unwrap();
    assert!(shop.machine.ask(forged).await.is_err(), "by no vault");
}
