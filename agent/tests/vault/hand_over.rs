//! A machine that goes to another operator or service.

use std::num::NonZeroU32;

use bitspire_agent::ipc::{self, CustomerAction, ToNet, ToVault};
use bitspire_agent::screen::{MachineScreen, SeedView};
use bitspire_agent::service::{Page, Touch};
use bitspire_agent::txn::View;
use bitspire_shared::document::DocumentKind;
use bitspire_shared::ids::Nonce;
use bitspire_shared::receipt::SignedReceipt;
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::seed::Pins;
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::json;

use crate::machine::{Machine, Service, public};
use crate::pairing::refusal;
use crate::service_mode::{PIN, ready, secret};

impl Machine {
    /// Whether this amount is offered.
    fn sells(&self, minor: i64) -> bool {
        matches!(&self.screen, Some(MachineScreen::Idle { cash_out, .. })
            if cash_out.iter().any(|fiat| fiat.minor == minor))
    }

    /// By its operator after a revoke: what was held by that is signed for no other key.
    fn is_paired_again(&mut self) {
        self.service.reply = Some(|rpc, body| {
            if rpc == "get_payment" {
                body.as_object_mut().unwrap().remove("authorisation");
            }
        });
        let others = |n: u8| Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
        std::fs::write(self.data_dir().join("may-pair"), "").unwrap();
        (self.parties.spire, self.parties.client) = (others(11), others(14));
        self.service.silent = false;
        self.sent.clear();
        self.pair();
    }
}

/// Loss prevented: a machine that is sold, or whose operator is gone, and that nobody can pair again;
/// or one whose former operator, or whoever resets it, still moves its notes.
#[test]
fn a_machine_that_lets_go_of_its_pairing_is_anothers_once_it_is_counted() {
    let mut machine = ready();
    let earlier = machine.attested(machine.cassettes(&[(1, 20, 50)]));
    let former = machine.parties.operator.clone();
    // while somebody may be owed something, the pairing stays
    machine.sell(2_000);
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    machine.touch(CustomerAction::Gone);
    machine.pay();
    machine.until_view("the sale that waits", |view| matches!(view, View::PaidWaiting { .. }));
    machine.until("an idle screen", |machine| {
        machine.touch_once(CustomerAction::Finish);
        machine.is_for_sale()
    });
    machine.enter();
    let reset = |form| Touch::ResetPairing { form };
    assert!(machine.refused(Page::Pairing, reset).contains("has not ended"));
    machine.serve(Touch::Leave);
    machine.wait_for_sale();
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
    assert!(machine.take());
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    machine.leave();

    machine.enter();
    let form = machine.page(Page::Pairing);
    machine.serve(reset(form));
    machine.until("a cut connection", |machine| machine.status().pins.is_none());
    machine.disconnect();
    assert!(machine.connect());
    machine.until("nobody's machine", |machine| {
        matches!(
            machine.screen,
            Some(MachineScreen::Unpaired { seed: SeedView::CommandLine { refused: None } })
        )
    });
    // neither a restart nor its former operator brings it back
    machine.stop();
    machine.start();
    machine.until("nobody's machine, still", |machine| {
        matches!(machine.screen, Some(MachineScreen::Unpaired { .. }))
    });
    let others = |n: u8| Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
    let parties = &mut machine.parties;
    (parties.spire, parties.operator, parties.service) = (others(11), others(12), others(13));
    let clock = machine.service.clock;
    machine.service = Service::default();
    machine.service.clock = clock;
    machine.sent.clear();
    assert_eq!(machine.set_pin("314159", None), None, "another operator, another PIN");
    // nor does a `net` that has seen the PIN, and brings a seed of its own
    let seed_url = Machine::seed_of(&machine.pins());
    machine.say(&ToVault::Seed { seed_url });
    machine.until("a refusal", |machine| {
        matches!(&machine.screen,
            Some(MachineScreen::Unpaired { seed: SeedView::CommandLine { refused: Some(why) } })
                if why.code.as_str() == "paired_before")
    });
    std::fs::write(machine.data_dir().join("may-pair"), "").unwrap();
    machine.pair();
    machine.publish_fees();
    let event = machine.document_event(DocumentKind::Cassettes, &former);
    machine.say(&ToVault::Document { event: Box::new(event), plaintext: earlier });
    machine.until("the count of the bays", |machine| {
        machine.last_report()["cassettes"]["1"]["count"] == json!(0)
            && machine.last_report()["cassettes"]["2"]["count"] == json!(0)
    });
    assert!(!machine.is_for_sale() || !machine.sells(2_000), "nobody has counted");
    machine.publish_all(&[(1, 20, 99), (2, 50, 100)]);
    machine.wait_for_sale();
    assert_eq!(machine.bay_count(1), 99);
    machine.sell(2_000);
    machine.pay();
    machine.until("the notes", |machine| machine.given() == 4_000);
}

/// Loss prevented: a machine that was revoked and can only come back as a new one, without its books
/// and with a customer's notes that nobody pays for; or one that anybody else's seed, or one that its
/// network process brings, takes over.
#[test]
fn a_revoked_machine_is_paired_again_by_its_operator_and_goes_on_where_it_was() {
    let mut machine = ready();
    machine.open_inlet();
    machine.feed_to(5, 500);
    // nothing is signed for it any more
    machine.service.silent = true;
    machine.touch(CustomerAction::Finish);
    machine.until_view("the claim", |view| matches!(view, View::PreparingWithdraw { .. }));
    let (before, seq) = (machine.pins(), machine.status().journal_seq);

    let others = |n: u8| Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
    let new = Pins { spire: public(&others(11)), ..before };
    let by_net = refusal(&machine, Machine::seed_of(&new));
    assert_eq!(by_net.code.as_str(), "paired_already", "{by_net}");
    assert!(by_net.words.contains("user that its vault"), "{by_net}");
    let leave = machine.data_dir().join("may-pair");
    std::fs::write(&leave, "").unwrap();
    for (pins, code) in [
        (before, "seed_of_this_pairing"),
        (Pins { operator: public(&others(12)), ..new }, "seed_of_another_operator"),
        (Pins { service: public(&others(13)), ..new }, "seed_of_another_operator"),
    ] {
        let refused = refusal(&machine, Machine::seed_of(&pins));
        assert_eq!(refused.code.as_str(), code, "{refused}");
        assert!(refused.words.contains("paired already"), "{refused}");
    }
    assert_eq!(machine.status().pins.unwrap().spire, before.spire);

    machine.parties.spire = others(11);
    machine.parties.client = others(14);
    machine.service.confirmed = false;
    machine.service.silent = false;
    machine.sent.clear();
    machine.pair_unconfirmed();
    assert!(!leave.exists(), "good for one pairing");
    let status = machine.status();
    assert_eq!(status.pins.unwrap().spire, new.spire);
    assert!(status.digits.is_some() && status.journal_seq > seq);
    let refused = machine.set_pin("314159", None).unwrap();
    assert!(refused.contains("the PIN that is set now as well"), "{refused}");
    machine.stop();
    machine.start();
    machine.until("digits to compare", |machine| {
        matches!(machine.screen, Some(MachineScreen::AwaitingConfirmation { .. }))
    });
    assert!(
        machine.service.withdraws.is_empty(),
        "nothing for a machine that nobody has confirmed"
    );
    machine.service.confirmed = true;
    machine.until("the customer's withdraw", |machine| !machine.service.withdraws.is_empty());
    machine.pay();
    machine.until("no open sale", |machine| machine.status().open_txns == 0);
    machine.service.paid = false;
    // the fees of before were for another key, the notes in the bays are the same
    assert!(!machine.is_for_sale());
    machine.publish_fees();
    machine.wait_for_sale();
    assert_eq!((machine.bay_count(1), machine.bay_count(2)), (100, 100));
    machine.sell(2_000);
    machine.pay();
    machine.until("the notes", |machine| machine.given() == 2_000);
}

/// Loss prevented: a customer who has paid a machine that never heard of it and was revoked: no leave,
/// no notes, and a sale that nobody can end or pay back.
#[test]
fn a_sale_paid_before_a_revoke_is_owed_by_a_verdict_after_another_pairing() {
    let mut machine = ready();
    machine.stop();
    machine.config.vault.heartbeat_s = NonZeroU32::MIN;
    machine.start();
    machine.wait_for_sale();
    machine.name_vault();
    let (hash, spire) = (machine.sell(2_000), public(&machine.parties.spire));
    let txid = machine.last_txn();
    machine.service.silent = true;
    machine.service.paid = true;
    machine.is_paired_again();
    let doubted = |machine: &Machine| {
        let open = machine.last_report()["open_transactions"][0].clone();
        let doubt = &open["doubt"];
        open["state"] == "invoiced" && doubt["rest_minor"] == 2_000 && doubt["unknown_minor"] == 0
    };
    machine.until("the doubt", |machine| doubted(machine));
    machine.name_vault();
    machine.verdict(Some(txid), VerdictKind::Owed, 2_000);
    machine.until("the report of the debt", |machine| {
        machine.service.reports.last().is_some_and(|report| {
            (report.payment_hash, report.outcome, report.owed_minor)
                == (hash, DispenseOutcome::None, 2_000)
        })
    });
    machine.until("no open sale", |machine| machine.status().open_txns == 0);
    assert_eq!(machine.dispenses(), 0);
    // what the customer takes along is of the machine that they dealt with
    machine.until("a receipt", |machine| machine.on_paper().is_some());
    let receipt = SignedReceipt::read(&machine.on_paper().unwrap().text).unwrap();
    let receipt = receipt.check_of(&spire).unwrap();
    assert_eq!((receipt.txid, receipt.is_claimable()), (txid, true));
}

/// Loss prevented: a customer who has paid and stepped aside, and whose machine was revoked and paired
/// again before they came back with the code: no notes for it, or notes twice.
#[test]
fn a_paid_sale_that_waited_over_a_revoke_gives_its_notes_once_after_another_pairing() {
    let mut machine = ready();
    let hash = machine.sell(2_000);
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    machine.touch(CustomerAction::Gone);
    machine.pay();
    machine.until_view("the sale that waits", |view| matches!(view, View::PaidWaiting { .. }));
    machine.service.silent = true;
    machine.service.paid = false;
    machine.is_paired_again();
    machine.publish_fees();
    machine.until("the sale that waits, still", |machine| {
        machine.touch_once(CustomerAction::Finish);
        machine.open().into_values().eq(["paid_waiting".to_owned()]) && machine.is_for_sale()
    });
    assert_eq!(machine.dispenses(), 0, "nobody stands there");
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
    machine.until("the report", |machine| {
        machine.service.reports.last().is_some_and(|report| {
            (report.payment_hash, report.outcome) == (hash, DispenseOutcome::Full)
        })
    });
    assert!(machine.take());
    machine.leave();
    machine.until("no open sale", |machine| machine.status().open_txns == 0);
    assert_eq!(machine.dispenses(), 1);
}

/// Loss prevented: a machine whose service is lost, and with it the way for the operator's word; or
/// one that whoever stands at it moves to other keys.
#[test]
fn a_rekey_is_brought_by_hand_with_the_pin_and_the_operators_signature() {
    let mut machine = ready();
    let rekey = |machine: &Machine, service: &Keys| Statement::Rekey {
        spire: public(&machine.parties.spire),
        vault: machine.service.vault.unwrap(),
        operator: public(&machine.parties.operator),
        service: public(service),
        nonce: Nonce::from_bytes([9; 16]),
        not_after: Unix(1_900_000_000),
    };
    let bring = |machine: &Machine, statement: SignedStatement, pin: &str| {
        let mut stream = machine.control();
        let message = ToVault::Rekey { statement: Box::new(statement), pin: secret(pin) };
        ipc::write(&mut stream, &message).unwrap();
        match ipc::read::<ToNet>(&mut stream).unwrap() {
            Some(ToNet::Rekeyed { refused }) => refused.unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    };
    let new = Keys::parse(&"07".repeat(32)).unwrap();
    let good = machine.statement(&rekey(&machine, &new));
    assert!(bring(&machine, good.clone(), "271829").contains("not the PIN"));
    let by_new = rekey(&machine, &new).to_unsigned(&public(&new), Unix(machine.service.clock));
    let by_new = SignedStatement::new(by_new.unwrap().sign_with_keys(&new).unwrap());
    assert!(!bring(&machine, by_new, PIN).is_empty(), "not by the operator");
    let mut other = rekey(&machine, &new);
    if let Statement::Rekey { vault, .. } = &mut other {
        *vault = public(&new);
    }
    let other = machine.statement(&other);
    assert!(bring(&machine, other, PIN).contains("another vault"));
    assert_eq!(machine.status().pins.unwrap().service, public(&machine.parties.service));

    // the service is gone, and over a restart nobody has told the time
    machine.service.silent = true;
    machine.stop();
    machine.start();
    assert_eq!(bring(&machine, good.clone(), PIN), "");
    assert!(bring(&machine, good, PIN).contains("used before"));
    assert_eq!(machine.status().pins.unwrap().service, public(&new));
    machine.parties.service = new;
    machine.service.silent = false;
    machine.publish_fees();
    let fees = machine.service.fees.unwrap();
    machine.until("the fees", |machine| machine.applied(fees));
    machine.wait_for_sale();
    machine.sell(2_000);
    machine.pay();
    machine.until("the notes", |machine| machine.given() == 2_000);
}
