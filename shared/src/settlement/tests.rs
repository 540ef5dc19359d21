//! Each refusal of [`accept`] by itself, from one payment that is accepted.

use proptest::prelude::*;

use super::stamp::tests::{SPIRE, stamp};
use super::*;
use crate::ids::{EventId, PaymentHash, PubKey, QuoteId, TxnId};
use crate::money::{Direction, FeePpm, Fiat, Msat, Rate, Sats};
use crate::split::FeePair;
use crate::time::Unix;

fn spire() -> PubKey {
    SPIRE.parse().unwrap()
}

fn other_key() -> PubKey {
    "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5".parse().unwrap()
}

/// Everything that a test may change, owned.
struct Case {
    moved: Option<Moved>,
    stamp: Stamp,
    extra: Option<String>,
    machine: Option<Machine>,
    sender_is_ours: bool,
    request: Option<Request>,
    fees: Option<FeesInForce>,
    settled_before: bool,
    enforce: bool,
}

impl Case {
    fn run(&self) -> Outcome {
        let stamped = self.stamp.to_extra().unwrap();
        accept(&Observed {
            payment_hash: PaymentHash::from_bytes([1; 32]),
            look_up: self.moved.map_or(LookUp::NotSettled, LookUp::Settled),
            extra: self.extra.as_deref().unwrap_or(stamped.get()),
            machine: self.machine,
            sender_is_ours: self.sender_is_ours,
            request: self.request.as_ref(),
            fees: self.fees,
            settled_before: self.settled_before,
            enforce_fee_match: self.enforce,
        })
    }

    fn accepted(&self) -> Accepted {
        match self.run() {
            Outcome::Accepted(accepted) => accepted,
            other => panic!("{other:?}"),
        }
    }

    fn rejected(&self) -> Rejected {
        match self.run() {
            Outcome::Rejected(rejected) => rejected,
            other => panic!("{other:?}"),
        }
    }

    fn amount(mut self, sats: u64) -> Self {
        self.moved.as_mut().unwrap().amount = Msat(sats * 1_000);
        self
    }

    fn elsewhere(mut self) -> Self {
        self.machine = Some(Machine { spire: Some(spire()), stamps: StampMaker::Elsewhere });
        self.request = None;
        self
    }
}

fn fees(platform: u32, operator: u32) -> FeePair {
    FeePair::new(FeePpm::new(platform).unwrap(), FeePpm::new(operator).unwrap()).unwrap()
}

fn case() -> Case {
    let stamp = stamp();
    Case {
        moved: Some(Moved {
            direction: Direction::CashOut,
            amount: Msat(233_436_000),
            at: Unix(1_000),
        }),
        extra: None,
        machine: Some(Machine { spire: Some(spire()), stamps: StampMaker::Here }),
        sender_is_ours: true,
        request: Some(Request {
            spire: spire(),
            txid: stamp.txid.unwrap(),
            quote_id: QuoteId::from_bytes([2; 16]),
            direction: Direction::CashOut,
            principal: stamp.principal,
            fee: stamp.fee,
            wire: Sats(233_436),
            rate: Rate::from_decimal(stamp.exchange_rate).unwrap(),
            fiat: stamp.fiat,
            fees_event_id: stamp.fees_event_id.unwrap(),
            request_event_id: stamp.request_event_id,
            expires_at: Unix(1_100),
        }),
        fees: Some(FeesInForce {
            event_id: stamp.fees_event_id.unwrap(),
            fees: fees(20_000, 30_000),
        }),
        settled_before: false,
        enforce: true,
        stamp,
    }
}

/// The same sale the other way: principal 82 386 at 3 % and 5 %, 75 795 on Lightning.
fn cash_in() -> Case {
    let mut case = case().amount(75_795);
    case.moved.as_mut().unwrap().direction = Direction::CashIn;
    case.stamp.direction = Direction::CashIn;
    (case.stamp.principal, case.stamp.fee) = (Sats(82_386), Sats(6_591));
    let request = case.request.as_mut().unwrap();
    request.direction = Direction::CashIn;
    (request.principal, request.fee, request.wire) = (Sats(82_386), Sats(6_591), Sats(75_795));
    case.fees.as_mut().unwrap().fees = fees(30_000, 50_000);
    case
}

/// Loss prevented: a customer who paid and gets nothing, or an operator's split that is not his.
#[test]
fn a_good_payment_is_served_and_distributed() {
    let accepted = case().accepted();
    assert_eq!(accepted.distribution(), Distribution::Free);
    let dispense = accepted.dispense().unwrap();
    assert_eq!((dispense.wire, dispense.fiat.minor), (Sats(233_436), 20_000));
    assert_eq!(dispense.txid, TxnId::from_bytes([7; 16]));
    let parts = accepted.split(FeePpm::new(20_000).unwrap()).unwrap().parts();
    assert_eq!((parts.platform_fee, parts.operator_fee), (Sats(4_446), Sats(6_670)));

    let accepted = cash_in().accepted();
    assert_eq!(accepted.distribution(), Distribution::Free);
    assert_eq!(accepted.dispense(), None, "nothing is dispensed for a cash_in");
    let parts = accepted.split(FeePpm::new(30_000).unwrap()).unwrap().parts();
    assert_eq!((parts.platform_fee, parts.operator_fee), (Sats(2_472), Sats(4_119)));
}

/// Step 1. Loss prevented: notes for a notification that anybody can inject.
#[test]
fn step_1_a_notification_alone_proves_nothing() {
    assert_eq!(Case { moved: None, ..case() }.run(), Outcome::NotSettled);
}

/// Step 2. Loss prevented: a sale paid into another wallet and recorded nowhere (2026-05-30: a
/// cash_out went to a wallet made automatically for the machine's own key).
#[test]
fn step_2_our_invoice_in_a_wallet_without_a_machine_is_misrouted() {
    let misrouted = Outcome::Misrouted {
        direction: Direction::CashOut,
        wire: Sats(233_436),
        txid: TxnId::from_bytes([7; 16]),
    };
    assert_eq!(Case { machine: None, ..case() }.run(), misrouted);
    // what `extra` says plays no part in it
    let stripped = Case { machine: None, extra: Some("{}".into()), ..case() };
    assert_eq!(stripped.run(), misrouted);
}

/// Step 2. Loss prevented: a stranger's wallet on a shared host that books itself a settlement.
#[test]
fn step_2_a_claimed_sender_without_a_request_is_rejected() {
    let case = Case { machine: None, request: None, ..case() };
    let rejected = case.rejected();
    assert_eq!(rejected.reason, Reason::Unrequested);
    assert_eq!((rejected.wire, rejected.owed_to), (Sats(233_436), None));
    assert_eq!(Case { sender_is_ours: false, ..case }.run(), Outcome::NotOurs);
}

/// Step 2. Loss prevented: the operator's own payments and the legs booked as customers' cash.
#[test]
fn step_2_an_outbound_payment_without_our_source_is_ignored() {
    let extra = Some(r#"{"source":"lnurlp"}"#.to_owned());
    let foreign = Case { extra: extra.clone(), request: None, ..cash_in() };
    assert_eq!(foreign.run(), Outcome::NotOurs);
    // but never one that our own request made: its stamp was stripped, its sats have left
    assert!(matches!(Case { extra, ..cash_in() }.rejected().reason, Reason::Sender { .. }));
}

/// Step 2. Loss prevented: sats that came into a machine's wallet and stand nowhere.
#[test]
fn step_2_an_inbound_payment_of_a_machines_wallet_is_never_dropped() {
    for extra in ["{}", "", r#"{"source":"lnurlp"}"#] {
        let rejected = Case { extra: Some(extra.into()), request: None, ..case() }.rejected();
        assert_eq!((rejected.wire, rejected.owed_to), (Sats(233_436), None));
        assert_eq!(rejected.reason.code(), "attribution");
    }
}

/// Step 3. Loss prevented: one machine's sale credited to another operator.
#[test]
fn step_3_another_sender_is_rejected_and_the_customer_is_owed() {
    let mut stranger = case();
    stranger.stamp.sender = other_key();
    let rejected = stranger.rejected();
    let reason = Reason::Sender { expected: spire(), got: Some(other_key()) };
    assert_eq!(rejected.reason, reason);
    assert_eq!(rejected.owed_to, Some(TxnId::from_bytes([7; 16])));
    let none = Case { extra: Some("not even JSON".into()), ..case() };
    assert_eq!(none.rejected().reason, Reason::Sender { expected: spire(), got: None });
}

/// Step 3. Loss prevented: payments of a machine that was unpaired, taken as its sales.
#[test]
fn step_3_an_unpaired_machine_has_no_sender() {
    let machine = Some(Machine { spire: None, stamps: StampMaker::Here });
    assert_eq!(Case { machine, ..case() }.rejected().reason, Reason::Unpaired);
}

/// Step 4. Loss prevented: amounts guessed from a stamp that nobody can read.
#[test]
fn step_4_a_stamp_that_does_not_parse_is_rejected() {
    let text = case().stamp.to_extra().unwrap().get().replace("11116", "-11116");
    let reason = Case { extra: Some(text), ..case() }.rejected().reason;
    assert!(matches!(reason, Reason::Stamp(StampError::Number { field: "fee_sats", .. })));
}

/// Step 5. Loss prevented: an entry with a principal of nothing, or of more than exists.
#[test]
fn step_5_values_out_of_range_are_rejected() {
    for principal in [0, 2_100_000_000_000_001] {
        let mut case = case();
        case.stamp.principal = Sats(principal);
        assert_eq!(case.rejected().reason, Reason::Range { field: "principal_sats" });
    }
    let mut case = case();
    case.stamp.fiat = Fiat::new(0, case.stamp.fiat.currency);
    assert_eq!(case.rejected().reason, Reason::Range { field: "fiat_amount" });
}

/// Step 5. Loss prevented: a fee moved into the principal, or sats that are in no part.
#[test]
fn step_5_principal_and_fee_make_the_amount() {
    let mut wrong = case();
    wrong.stamp.fee = Sats(11_117);
    let reason = Reason::Sum { expected: Sats(233_436), got: Sats(233_437) };
    assert_eq!(wrong.rejected().reason, reason);

    let mut wrong = cash_in();
    wrong.stamp.fee = Sats(82_387);
    assert!(matches!(wrong.rejected().reason, Reason::NoSum(_)));

    // a withdraw is paid exactly: one sat more left the wallet than the notes were worth
    assert!(matches!(cash_in().amount(75_796).rejected().reason, Reason::Sum { .. }));
    let mut more = cash_in();
    more.moved.as_mut().unwrap().amount = Msat(75_795_001);
    assert!(matches!(more.rejected().reason, Reason::Sum { .. }));
}

/// Step 6. Loss prevented: a payout booked as a sale.
#[test]
fn step_6_the_payments_own_direction_counts() {
    let mut turned = cash_in();
    turned.moved.as_mut().unwrap().direction = Direction::CashOut;
    let rejected = turned.rejected();
    assert_eq!(rejected.direction, Direction::CashOut, "the protocol's");
    let reason = Reason::Direction { expected: Direction::CashOut, got: Direction::CashIn };
    assert_eq!(rejected.reason, reason);
    assert_eq!(rejected.owed_to, None, "our request was no cash_out");
}

/// Step 7. Loss prevented: an `extra` rewritten in the wallet changes what was quoted.
#[test]
fn step_7_each_field_is_what_was_quoted() {
    type Edit = fn(&mut Request);
    let edits: [(&str, Edit); 10] = [
        ("nostr_sender_pubkey", |r| r.spire = other_key()),
        ("type", |r| r.direction = Direction::CashIn),
        ("txid", |r| r.txid = TxnId::from_bytes([0; 16])),
        ("principal_sats", |r| (r.principal, r.fee) = (Sats(222_321), Sats(11_115))),
        ("fee_sats", |r| r.fee = Sats(11_115)),
        ("exchange_rate", |r| r.rate = Rate::from_nano(1_111_600_000_001).unwrap()),
        ("fiat_amount", |r| r.fiat.minor += 1),
        ("fiat_code", |r| r.fiat.currency = "EUR".parse().unwrap()),
        ("fees_event_id", |r| r.fees_event_id = EventId::from_bytes([0; 32])),
        ("nostr_event_id", |r| r.request_event_id = EventId::from_bytes([0; 32])),
    ];
    for (field, edit) in edits {
        let mut case = case();
        edit(case.request.as_mut().unwrap());
        assert_eq!(case.rejected().reason, Reason::Differs { field });
    }
}

/// Step 7. Loss prevented: a sale refused because the wallet keeps numbers as doubles.
#[test]
fn step_7_a_rate_that_went_through_a_double_is_the_same() {
    let mut case = case();
    case.request.as_mut().unwrap().rate = Rate::from_nano(12_345_678_123_456_789).unwrap();
    case.stamp.exchange_rate = "12345678.123456789".parse().unwrap();
    assert_eq!(case.accepted().distribution(), Distribution::Free);
    case.stamp.exchange_rate = "12345678.12345679".parse().unwrap();
    assert_eq!(case.accepted().distribution(), Distribution::Free);
    case.stamp.exchange_rate = "12345678.1235".parse().unwrap();
    assert_eq!(case.rejected().reason, Reason::Differs { field: "exchange_rate" });
}

/// Step 7. Loss prevented: an invoice that anybody with the invoice key made, paid out as ours.
#[test]
fn step_7_a_machine_of_ours_has_a_request_for_each_payment() {
    let rejected = Case { request: None, ..case() }.rejected();
    assert_eq!((rejected.reason, rejected.owed_to), (Reason::Unrequested, None));
}

/// Step 7. Loss prevented: a withdraw paid twice that looks like one.
#[test]
fn step_7_a_second_payment_of_a_withdraw_is_rejected() {
    let twice = Case { settled_before: true, ..cash_in() };
    assert_eq!(twice.rejected().reason, Reason::PaidTwice);
}

/// Step 8. Loss prevented: a fee that the machine never showed, distributed; or a customer who is
/// made to wait for an argument between service and operator.
#[test]
fn step_8_a_wrong_fee_holds_the_legs_and_serves_the_customer() {
    let mut case = case();
    case.fees.as_mut().unwrap().fees = fees(20_000, 29_998);
    let accepted = case.accepted();
    let hold = Hold::FeeMismatch { fee_mismatch_sats: 1 };
    assert_eq!(accepted.distribution(), Distribution::Held(hold));
    assert!(accepted.dispense().is_some());
    let accepted = Case { enforce: false, ..case }.accepted();
    assert_eq!(accepted.distribution(), Distribution::Warned { fee_mismatch_sats: 1 });
}

/// Step 8. Loss prevented: a fee checked against another document than the one that was stamped.
#[test]
fn step_8_an_unknown_fee_document_holds_the_legs() {
    let mut other = case();
    other.fees.as_mut().unwrap().event_id = EventId::from_bytes([0; 32]);
    for case in [Case { fees: None, ..case() }, Case { enforce: false, ..other }] {
        let accepted = case.accepted();
        assert_eq!(accepted.distribution(), Distribution::Held(Hold::FeesUnknown));
        assert!(accepted.dispense().is_some());
    }
}

/// Step 8. Loss prevented: every payment of another stack held for its way of rounding.
#[test]
fn step_8_stamps_made_elsewhere_have_a_tolerance_and_no_dispense() {
    // 5 % of 222 320 is 11 116; a thousandth of the principal is 222.32
    for (fee, distribution) in [
        (11_116 + 222, Distribution::Free),
        (11_116 - 222, Distribution::Free),
        (11_116 + 223, Distribution::Held(Hold::FeeMismatch { fee_mismatch_sats: 223 })),
        (11_116 - 223, Distribution::Held(Hold::FeeMismatch { fee_mismatch_sats: -223 })),
    ] {
        let mut case = case().elsewhere().amount(222_320 + fee);
        case.stamp.fee = Sats(fee);
        (case.stamp.txid, case.stamp.fees_event_id) = (None, None);
        let accepted = case.accepted();
        assert_eq!(accepted.distribution(), distribution, "{fee}");
        assert_eq!(accepted.dispense(), None);
    }
    // below 1 000 sats one sat is allowed
    let mut small = case().elsewhere().amount(102);
    (small.stamp.principal, small.stamp.fee) = (Sats(100), Sats(2));
    small.fees.as_mut().unwrap().fees = fees(0, 10_000);
    assert_eq!(small.accepted().distribution(), Distribution::Free);
}

/// Loss prevented: notes for a late, a small or a second payment; or its sats kept.
#[test]
fn late_small_and_second_payments_are_owed_whole() {
    let mut late = case();
    late.moved.as_mut().unwrap().at = Unix(1_161);
    let cases = [
        (late, Why::Late, 233_436),
        (case().amount(233_435), Why::Under, 233_435),
        (Case { settled_before: true, ..case() }, Why::Twice, 233_436),
    ];
    for (case, expected, sats) in cases {
        let Outcome::Owed(owed) = case.run() else { panic!("{expected:?}: {:?}", case.run()) };
        assert_eq!(owed.why, expected);
        let split = owed.split().unwrap();
        assert_eq!((split.wire(), split.parts().owed), (Sats(sats), Sats(sats)));
    }
}

/// Loss prevented: a surplus that becomes the operator's, or notes for it at an old rate.
#[test]
fn a_surplus_is_owed_and_the_deal_holds() {
    let accepted = case().amount(233_500).accepted();
    assert_eq!(accepted.surplus(), Sats(64));
    assert_eq!(accepted.dispense().unwrap().wire, Sats(233_436));
    let split = accepted.split(FeePpm::new(20_000).unwrap()).unwrap();
    assert_eq!((split.wire(), split.parts().owed), (Sats(233_500), Sats(64)));
}

proptest! {
    /// Loss prevented: an authorisation for less than the notes cost, or one without a request.
    #[test]
    fn only_a_full_own_payment_in_time_authorises(
        sats in 233_400u64..233_500, at in 1_000u64..1_300, before in any::<bool>(),
        own in any::<bool>(), foreign_maker in any::<bool>(), wallet in any::<bool>(),
    ) {
        let mut case = case().amount(sats);
        case.moved.as_mut().unwrap().at = Unix(at);
        case.settled_before = before;
        if foreign_maker {
            case.machine.as_mut().unwrap().stamps = StampMaker::Elsewhere;
        }
        if !own {
            case.request = None;
        }
        if !wallet {
            case.machine = None;
        }
        let outcome = case.run();
        let good = sats >= 233_436 && at <= 1_160 && !before && own && wallet;
        match &outcome {
            Outcome::Accepted(accepted) => {
                prop_assert_eq!(accepted.dispense().is_some(), good);
                let split = accepted.split(FeePpm::ZERO).unwrap();
                prop_assert_eq!(split.wire(), Sats(sats));
            }
            _ => prop_assert!(!good, "{:?}", outcome),
        }
    }
}
