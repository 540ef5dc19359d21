//! A relay that drops, repeats, reorders and delays what it carries: what a person sees of it.

use bitspire_agent::ipc::{CustomerAction, ToNet};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::View;
use bitspire_shared::rpc::DispenseOutcome;

use crate::limits::out_of_service;
use crate::machine::Machine;

impl Machine {
    fn asked_for_payment(&self) -> usize {
        let asks = |message: &&ToNet| matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "get_payment");
        self.sent.iter().filter(asks).count()
    }

    /// Whether the screen still shows the invoice of this sale.
    fn waits_for_payment(&self) -> bool {
        matches!(self.view(), Some(View::Invoice { .. }))
    }
}

/// Loss prevented: a customer who is given their notes twice, sees another's price, or is sent away,
/// because a relay says things again and in another order.
#[test]
fn what_a_relay_repeats_and_reorders_counts_once() {
    let mut machine = Machine::ready();
    let hash = machine.sell(2_000);
    let (terms, shown) = (machine.service.invoices[&hash], machine.screen.clone());
    // answers to what was answered long ago, with another price and another invoice
    machine.answer_last("create_invoice");
    machine.answer_last("get_quote");
    machine.service.last_invoice = Some(hash);
    machine.all_heard();
    assert_eq!(machine.screen, shown, "the invoice that the customer pays stands");
    machine.service.paid = true;
    let leave = machine.authorise(hash);
    for _ in 0..3 {
        machine.push_leave(&terms, hash, leave);
    }
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    machine.push_leave(&terms, hash, leave);
    machine.answer_last("report_dispense");
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    assert!(machine.take());
    machine.service.paid = false;
    machine.leave();
    machine.push_leave(&terms, hash, leave);
    machine.all_heard();
    assert_eq!((machine.given(), machine.dispenses()), (2_000, 1));
    assert!(machine.service.reports.iter().all(|report| report.outcome == DispenseOutcome::Full));
    machine.until("nothing left open", |machine| machine.open().is_empty());
    assert!(machine.alerts().is_empty(), "{:?}", machine.alerts());
    assert!(machine.is_for_sale());
}

/// Loss prevented: a customer who has paid and gets nothing because one message was lost, and new
/// customers whom a machine without a service lets in.
#[test]
fn what_a_relay_drops_is_asked_for_and_nothing_is_sold_without_it() {
    let mut machine = Machine::ready_with("[vault.policy]\noffline_after_s = 2\n");
    machine.sell(2_000);
    machine.service.silent = true;
    let asked = machine.asked_for_payment();
    // the customer pays; neither the push nor the first answers arrive
    machine.service.paid = true;
    machine.until("more than one question", |machine| machine.asked_for_payment() > asked + 1);
    assert!(machine.waits_for_payment(), "the customer is asked for nothing else meanwhile");
    machine.until("the open sale and the reason, for whoever asks at the machine", |machine| {
        let status = machine.status();
        let reasons = status.out_of_service.join("; ");
        status.open_txns == 1 && reasons.contains("the service is out of reach")
    });
    machine.service.silent = false;
    machine.until("the notes", |machine| machine.given() == 2_000);
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert!(machine.take());
    machine.service.paid = false;

    machine.service.silent = true;
    machine.until("the end of sales, and why", |machine| {
        machine.touch_once(CustomerAction::Finish);
        out_of_service(machine, "out of reach")
    });
    machine.service.silent = false;
    machine.answer_last("report_state");
    machine.wait_for_sale();
    assert_eq!(machine.dispenses(), 1);
    machine.until("nothing left open", |machine| machine.open().is_empty());
    assert!(machine.alerts().is_empty(), "nobody has to come: {:?}", machine.alerts());
    assert!(machine.status().out_of_service.is_empty());
}

/// Loss prevented: notes in front of nobody, or a paid sale forgotten, because leave to dispense came
/// after its customer had gone.
#[test]
fn what_a_relay_delays_waits_for_its_customer() {
    let mut machine = Machine::ready();
    let hash = machine.sell(2_000);
    let terms = machine.service.invoices[&hash];
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    machine.service.silent = true;
    let leave = machine.authorise(hash);
    machine.touch(CustomerAction::Gone);
    machine.until("another customer's page", |machine| {
        machine.touch_once(CustomerAction::Finish);
        !machine.waits_for_payment()
    });
    machine.service.silent = false;
    machine.push_leave(&terms, hash, leave);
    machine.until("somebody's sale that waits", |machine| {
        machine.touch_once(CustomerAction::Finish);
        matches!(machine.screen, Some(MachineScreen::Idle { waiting: true, .. }))
    });
    assert_eq!(machine.dispenses(), 0);
    machine.until("its state for the operator", |machine| {
        machine.open().into_values().eq(["paid_waiting".to_owned()])
    });
    assert!(machine.alerts().is_empty(), "its customer has the code: {:?}", machine.alerts());
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert!(machine.take());
    machine.leave();
    machine.until("nothing left open", |machine| machine.open().is_empty());
    assert_eq!(machine.dispenses(), 1);
    assert!(machine.alerts().is_empty(), "{:?}", machine.alerts());
}
