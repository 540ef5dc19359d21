//! What a machine is told of documents that its relays may not have brought.

use super::*;
use crate::app::Ring;
use crate::rpc::push::{self, HINT_S};
use crate::store::outbox;

/// A cassette document that was signed.
fn cassettes(
    tx: &Tx<'_>,
    machine_id: MachineId,
    event: EventId,
    now: Unix,
) -> Result<(), StoreError> {
    let (kind, body) = (DocumentKind::Cassettes, json!({}));
    let new = NewDocument { machine_id, kind, body, published_at: now, fees: None };
    let document = documents::want(tx, &new, now)?;
    documents::set_signed(tx, document, (event, "{}"), now, now).map(drop)
}

/// Loss prevented: a machine whose relay dropped a document goes on with the old one, for it was told
/// too early, or taken for one that has applied it; ten thousand machines that are told what they said
/// themselves, or what nobody wants any more.
#[tokio::test]
async fn a_machine_is_told_of_a_document_that_it_has_not_said_to_apply() {
    let (world, mut machine) = serving().await;
    let [superseded, lost, applied, missed] = [1, 2, 3, 4].map(|n| EventId::from_bytes([n; 32]));
    let (id, now) = (world.machine_id, world.app.clock.now());
    let told = |event_id| Push::ConfigChanged(ConfigChanged { d: "d".into(), event_id });
    world
        .write(move |tx| {
            for fees in [superseded, lost] {
                publish_fees(tx, id, fees, 30_000, now)?;
            }
            cassettes(tx, id, applied, now)?;
            // it had this one, and its operator sends it once more
            documents::set_applied(tx, id, lost, Unix(now.0 - 1))?;
            for event in [superseded, lost, applied] {
                push::queue(tx, id, &told(event), now)?;
            }
            documents::set_applied(tx, id, applied, now)
        })
        .await;
    let early = now.after(HINT_S - 1);
    let due = world.app.store.read(move |read| outbox::due_pushes(read, early, 9)).await.unwrap();
    assert_eq!(due.len(), 0, "its relays come first");
    let (txid, withdraw_id) = (TxnId::from_bytes([5; 16]), WithdrawId::from_bytes([5; 16]));
    // what a customer waits for goes at once
    let paid = Push::WithdrawPaid(WithdrawPaid { txid, withdraw_id, wire_sats: Sats(9) });
    let expected = paid.clone();
    world.write(move |tx| push::queue(tx, id, &paid, now)).await;
    world.app.ring(Ring::Outbox);
    assert_eq!(machine.push().await, expected);
    world.advance(HINT_S);
    world.app.ring(Ring::Outbox);
    assert_eq!(machine.push().await, told(lost));
    world
        .write(move |tx| {
            cassettes(tx, id, missed, now)?;
            push::queue(tx, id, &told(missed), now)
        })
        .await;
    world.app.ring(Ring::Outbox);
    assert_eq!(machine.push().await, told(missed));
}
