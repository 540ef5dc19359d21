//! What a machine is told of documents that its relays may not have brought.

use super::*;
use crate::app::Ring;
use crate::rpc::push::{self, HINT_S};
use crate::store::outbox;

/// Loss prevented: a machine whose relay dropped a document goes on with the old one, for it was told
/// too early, or taken for one that has applied it; ten thousand machines that are told what they said
/// themselves.
#[tokio::test]
async fn a_machine_is_told_of_a_document_that_it_has_not_said_to_apply() {
    let (world, mut machine) = serving().await;
    let [lost, applied, missed, last] = [1, 2, 3, 4].map(|n| EventId::from_bytes([n; 32]));
    let (id, now) = (world.machine_id, world.app.clock.now());
    let told = |event_id| Push::ConfigChanged(ConfigChanged { d: "d".into(), event_id });
    world
        .write(move |tx| {
            for event in [lost, applied, missed, last] {
                publish_fees(tx, id, event, 30_000, now)?;
            }
            // it had this one, and its operator sends it once more
            documents::set_applied(tx, id, lost, Unix(now.0 - 1))?;
            for event in [lost, applied, missed] {
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
    world.write(move |tx| push::queue(tx, id, &told(last), now)).await;
    world.app.ring(Ring::Outbox);
    for event in [lost, missed, last] {
        assert_eq!(machine.push().await, told(event));
    }
}
