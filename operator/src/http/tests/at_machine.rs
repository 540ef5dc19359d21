//! What was done at a machine, over the API.

use bitspire_shared::ids::{ChangeId, JournalSeq};
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::{Pile, ServiceAction};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::Site;
use crate::ids::{MachineId, OperatorId};
use crate::ledger::{ServiceBooking, served};
use crate::store::service::{self, Event};
use crate::store::{Json, StoreError, ledger};

/// Loss prevented: a missing note that stands in the books and that nobody is shown.
#[tokio::test]
async fn a_missing_note_is_shown_with_its_reason() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let (machines, path) = ("/api/v1/dca/machines", "/api/v1/dca/machines/1/service");
    let machine = json!({ "name": "Bar", "fiat_code": "EUR", "wallet_id": "till" });
    site.post(&cookie, machines, machine).await.expect(201);
    let none = site.get(&cookie, path).await.expect(200);
    assert_eq!((&none["events"], &none["cash_difference_minor"]), (&json!([]), &json!(0)));
    let note = Denomination::from_minor(2_000).unwrap();
    let notes = [(note, Pile { expected: 3, counted: 2 })].into();
    let action = ServiceAction::CashboxEmptied { notes, reason: "one is torn".into() };
    let did = move |tx: &crate::store::Tx<'_>| {
        let event = Event {
            event_id: ChangeId::from_bytes([7; 16]),
            machine_id: MachineId(1),
            journal_seq: JournalSeq(40),
            at: Unix(5),
            action: Json(action.clone()),
            report: Json(Value::Null),
            received_at: Unix(6),
            booked_at: None,
        };
        let id = service::insert(tx, &event)?;
        let booking = ServiceBooking {
            machine: MachineId(1),
            operator: OperatorId(1),
            currency: "EUR".parse().unwrap(),
            event: event.event_id,
            action: &action,
            first: false,
        };
        for entry in served(&booking).unwrap().unwrap() {
            ledger::append(tx, &entry, Unix(6))?;
        }
        service::set_booked(tx, id, Unix(6))
    };
    site.world.app.store.write::<_, StoreError, _>(did).await.unwrap();
    let shown = site.get(&cookie, path).await.expect(200);
    assert_eq!(shown["cash_difference"], "-20.00 EUR", "{shown}");
    assert_eq!(shown["in_transit_minor"], 0);
    let event = &shown["events"][0];
    assert_eq!((&event["expected"], &event["counted"]), (&json!("60.00 EUR"), &json!("40.00 EUR")));
    assert_eq!((&event["difference_minor"], &event["booked_at"]), (&json!(-2_000), &json!(6)));
    assert_eq!(event["action"]["cashbox_emptied"]["reason"], "one is torn");
    site.get(&cookie, "/api/v1/dca/machines/2/service").await.expect(404);
    site.stop().await;
}
