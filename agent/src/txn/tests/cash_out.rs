use bitspire_hardware::dispenser::{DeviceFault, DispenseOutcome, FaultKind};
use bitspire_shared::canonical::Sig;
use bitspire_shared::clink::{OfferPointer, PriceType};
use bitspire_shared::rpc::{
    DispenseAuthorisation, DispenseOutcome as Outcome, ErrorCode, PaymentState,
};

use super::*;
use crate::journal::CashMove;
use crate::txn::cash_out::State;
use crate::txn::{View, Why};

/// A cash-out of 100 EUR, driven by hand.
pub(super) type Sale = Driven<CashOut>;

impl Sale {
    pub(super) fn start() -> Self {
        Self::new(CashOut::start(order(10_000), at(0)))
    }

    pub(super) fn quoted() -> Self {
        let mut sale = Self::start();
        let request = asked(&sale.effects, "get_quote");
        sale.say(Input::Quote { request, quote: quote(Direction::CashOut, 10_000, 3) });
        sale
    }

    pub(super) fn invoiced() -> Self {
        let mut sale = Self::quoted();
        sale.wait(5_000).say(Input::Accept);
        let request = asked(&sale.effects, "create_invoice");
        sale.say(Input::Invoice { request, invoice: invoice(Unix(1_800_000_300)) });
        sale
    }

    pub(super) fn paid() -> Self {
        let mut sale = Self::invoiced();
        sale.wait(20_000).say(Input::Authorised(leave()));
        sale
    }

    pub(super) fn waiting() -> Self {
        let mut sale = Self::paid();
        sale.say(Input::ScreenBroken);
        sale
    }

    pub(super) fn committed() -> Self {
        let mut sale = Self::paid();
        sale.say(Input::Planned(Some(lots(&[(1, 2_000, 5)]))));
        sale
    }

    pub(super) fn dispensing() -> Self {
        let mut sale = Self::committed();
        sale.say(Input::DispenseSent { no: 1 });
        sale
    }

    pub(super) fn final_answer(&mut self, no: u32, bays: BayResults) -> &mut Self {
        let outcome = DispenseOutcome::Final { bays, fault: None };
        self.say(Input::Dispensed { no, outcome })
    }

    pub(super) fn uncertain() -> Self {
        let mut sale = Self::dispensing();
        let outcome = DispenseOutcome::Unknowable { last_seen: "10 15".into() };
        sale.say(Input::Dispensed { no: 1, outcome });
        sale
    }

    pub(super) fn restart(&mut self, dispense: DispenseFate) -> &mut Self {
        let Txn::CashOut(txn) = reread(&Txn::CashOut(self.txn.clone())) else { panic!() };
        self.txn = txn;
        self.say(Input::Restarted(DeviceReport { dispense, bill: BillFate::Unknown }))
    }

    fn plans(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Plan { .. }))
    }

    fn report(&self) -> ReportDraft {
        let mut drafts = self.effects.iter().filter_map(|effect| match effect {
            Effect::Request(Request { ask: Ask::ReportDispense(draft), .. }) => Some(draft.clone()),
            _ => None,
        });
        drafts.next().unwrap()
    }
}

fn fault() -> DeviceFault {
    DeviceFault { kind: FaultKind::Jam, detail: "jam 34".into() }
}

/// Loss prevented: any step of an ordinary sale that moves before it is written down.
#[test]
fn an_ordinary_sale() {
    let mut sale = Sale::paid();
    assert!(sale.plans());
    assert!(matches!(sale.effects.first(), Some(Effect::Journal(_))));
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 5)]))));
    let Some(Effect::Dispense { record, no: 1, plan }) = sale.effects.first() else { panic!() };
    assert_eq!(plan.notes, BTreeMap::from([(bay(1), 5)]));
    assert_eq!((record.txn.name(), record.txn.stage()), ("dispense_committed", Stage::Open));
    sale.say(Input::DispenseSent { no: 1 });
    assert_eq!(sale.name(), "dispensing");
    sale.wait(8_000).final_answer(1, presented(&[(1, 5, 5)]));
    assert_eq!(sale.name(), "settled");
    let settled = record_of(&sale);
    assert_eq!((settled.resolves, settled.txn.stage()), (Some(1), Stage::Ended));
    assert_eq!((sale.report().outcome, sale.report().owed_minor), (Outcome::Full, 0));
    let request = asked(&sale.effects, "report_dispense");
    sale.say(Input::Reported { request });
    assert_eq!(record_of(&sale).txn.stage(), Stage::Closed);
}

fn record_of(sale: &Sale) -> Record {
    record(&sale.effects).unwrap().clone()
}

/// Loss prevented: notes given to the passer-by, because the customer had left or the payment was
/// seen late.
#[test]
fn notes_move_untouched_only_while_the_customer_must_be_there() {
    // last known unpaid at 5 s, when the invoice was asked for
    let mut sale = Sale::invoiced();
    sale.wait(90_000).say(Input::Authorised(leave()));
    assert!(sale.plans(), "{:?}", sale.txn);
    let mut sale = Sale::invoiced();
    sale.wait(90_001).say(Input::Authorised(leave()));
    assert_eq!((sale.name(), sale.plans()), ("paid_waiting", false));

    // "pending", asked at 65 s, moves the bound: the customer pays now
    let mut sale = Sale::invoiced();
    sale.wait(60_000).say(Input::Tick);
    let request = asked(&sale.effects, "get_payment");
    sale.wait(3_000).say(Input::Payment { request, state: PaymentState::Pending, wire_sats: None });
    sale.wait(80_000).say(Input::Authorised(leave()));
    assert!(sale.plans());
    sale.wait(10_000).say(Input::Planned(Some(lots(&[(1, 2_000, 5)]))));
    assert_eq!((sale.name(), moves(&sale.effects)), ("paid_waiting", false));

    // a screen that was gone for a moment
    let mut sale = Sale::invoiced();
    sale.say(Input::ScreenBroken).say(Input::Authorised(leave()));
    assert_eq!((sale.name(), sale.plans()), ("paid_waiting", false));
}

/// Loss prevented: a customer who is sent away without a word, and tries again where nobody can sell.
#[test]
fn whoever_gets_no_invoice_is_told_why() {
    let why = |sale: &Sale| match sale.txn.screen().view {
        View::Cancelled { why } => why,
        view => panic!("expected an end, got {view:?}"),
    };
    let mut sale = Sale::quoted();
    let ms = sale.txn.deal().rules.answer_ms;
    sale.say(Input::Accept).wait(ms).say(Input::Tick);
    assert_eq!(why(&sale), Why::NoAnswer);
    let mut sale = Sale::quoted();
    sale.say(Input::Accept);
    let request = asked(&sale.effects, "create_invoice");
    let code = ErrorCode::WalletUnavailable;
    sale.say(Input::Refused { request, code }).wait(ms).say(Input::Tick);
    assert_eq!(why(&sale), Why::Refused(code));
    let mut sale = Sale::quoted();
    sale.say(Input::NetworkLost);
    assert_eq!(why(&sale), Why::NetworkLost);
    let mut sale = Sale::start();
    let request = asked(&sale.effects, "get_quote");
    sale.say(Input::Refused { request, code: ErrorCode::OverLimit });
    assert_eq!(why(&sale), Why::Refused(ErrorCode::OverLimit));
}

/// Loss prevented: somebody pays an invoice whose claim code they never saw, and has no right to
/// anything when the notes do not come.
#[test]
fn an_invoice_is_shown_only_beside_its_claim_code() {
    let mut sale = Sale::invoiced();
    let Screen { claim, view, .. } = sale.txn.screen();
    assert!(claim.is_some() && matches!(view, View::Invoice { .. }));
    sale.say(Input::ScreenBroken);
    assert_eq!(sale.txn.screen().claim, None);
    assert_eq!(sale.txn.screen().view, View::Cancelled { why: Why::ScreenBroken });
    // whoever had scanned it, had seen the code as well
    sale.say(Input::Authorised(leave())).say(Input::ClaimEntered(code()));
    assert!(sale.plans());
}

/// Loss prevented: a second code on the screen that asks for more than the price that was agreed to.
#[test]
fn an_offer_of_another_price_is_not_shown() {
    let shown = |change: fn(&mut OfferPointer)| {
        let mut sale = Sale::quoted();
        sale.say(Input::Accept);
        let request = asked(&sale.effects, "create_invoice");
        let terms = *quote(Direction::CashOut, 10_000, 3).terms();
        let mut offer = OfferPointer {
            pubkey: key(SERVICE),
            relay: "wss://relay.example".into(),
            offer: terms.quote_id.to_string(),
            price_type: PriceType::Fixed,
            price: Some(terms.wire_sats),
        };
        change(&mut offer);
        let noffer = Some(offer.encode().unwrap());
        let invoice = Invoice { noffer, ..invoice(Unix(1_800_000_300)) };
        sale.say(Input::Invoice { request, invoice });
        match sale.txn.screen().view {
            View::Invoice { noffer, .. } => noffer.is_some(),
            view => panic!("expected an invoice, got {view:?}"),
        }
    };
    assert!(shown(|_| {}));
    assert!(!shown(|offer| offer.price = Some(Sats(u64::MAX))));
    assert!(!shown(|offer| offer.price_type = PriceType::Spontaneous));
    assert!(!shown(|offer| offer.offer = "another".into()));
}

/// Loss prevented: the passer-by reads the claim code off the waiting screen and takes the notes.
#[test]
fn the_claim_code_resumes_and_is_shown_to_nobody_else() {
    let mut sale = Sale::invoiced();
    assert!(sale.txn.screen().claim.is_some());
    sale.say(Input::ScreenBroken).say(Input::Authorised(leave()));
    assert_eq!(sale.txn.screen().claim, None);
    sale.say(Input::ClaimEntered(ClaimCode::from_bytes([1; 16])));
    assert!(matches!(sale.effects[..], [Effect::Ignored { input: "claim_entered", .. }]));
    sale.restart(DispenseFate::Unknown);
    assert_eq!(sale.txn.screen().claim, None);
    sale.say(Input::ClaimEntered(code()));
    assert!(sale.plans());
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 5)]))));
    assert!(moves(&sale.effects));
}

/// Loss prevented: a paid sale that waits for ever for a customer who has gone.
#[test]
fn after_fifteen_minutes_it_is_owed() {
    let mut sale = Sale::waiting();
    sale.wait(15 * 60_000 - 1).say(Input::Tick);
    assert_eq!(sale.name(), "paid_waiting");
    sale.wait(1).say(Input::Tick);
    assert_eq!(sale.name(), "short_dispensed");
    assert_eq!((sale.report().outcome, sale.report().owed_minor), (Outcome::None, 10_000));
    sale.say(Input::ClaimEntered(code()));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]));
}

/// Loss prevented: a restart that pays whoever stands there, or pays twice.
#[test]
fn a_restart_never_dispenses() {
    let expected = [
        (Sale::quoted(), "cancelled"),
        (Sale::invoiced(), "invoiced"),
        (Sale::paid(), "paid_waiting"),
        (Sale::waiting(), "paid_waiting"),
        (Sale::committed(), "uncertain"),
        (Sale::dispensing(), "uncertain"),
        (Sale::uncertain(), "uncertain"),
    ];
    for (mut sale, name) in expected {
        let before = sale.name();
        sale.restart(DispenseFate::Unknown);
        assert_eq!(sale.name(), name, "from {before}");
        assert!(!moves(&sale.effects) && !sale.plans(), "from {before}");
    }
    for name in [Sale::committed, Sale::dispensing, Sale::uncertain] {
        let mut sale = name();
        sale.restart(DispenseFate::NothingMoved);
        assert_eq!(sale.name(), "paid_waiting");
        assert_eq!(record_of(&sale).resolves, Some(1));
        let mut sale = name();
        sale.restart(DispenseFate::Final(presented(&[(1, 5, 5)])));
        assert_eq!(sale.name(), "settled");
        let mut sale = name();
        sale.restart(DispenseFate::Final(presented(&[(1, 5, 2)])));
        assert_eq!(sale.name(), "paid_waiting");
        assert!(!moves(&sale.effects) && !sale.plans());
    }
}

/// Loss prevented: an older command's result, taken for this one's.
#[test]
fn an_answer_about_another_plan_explains_nothing() {
    for bays in [presented(&[(1, 4, 4)]), presented(&[(2, 5, 5)]), BayResults::new()] {
        let mut sale = Sale::dispensing();
        sale.final_answer(1, bays.clone());
        assert_eq!(sale.name(), "uncertain", "{bays:?}");
        sale.restart(DispenseFate::Final(bays));
        assert_eq!(sale.name(), "uncertain");
    }
    let mut sale = Sale::dispensing();
    sale.final_answer(2, presented(&[(1, 5, 5)]));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]));
}

/// Loss prevented: more notes at once than the exit holds, or the next ones on top of those that
/// lie there; a batch after an answer that nobody knows.
#[test]
fn a_large_plan_goes_out_in_batches() {
    let mut sale = Sale::paid();
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 3)]))));
    sale.say(Input::DispenseSent { no: 1 }).final_answer(1, presented(&[(1, 3, 2)]));
    assert_eq!(sale.name(), "paid");
    assert!(!sale.plans(), "notes lie at the exit");
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 2)]))));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]));
    sale.wait(60_000).say(Input::Taken);
    assert!(sale.plans());
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 4)]))));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]), "40 + 80 is too much");
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 3)]))));
    let Some(Effect::Dispense { no: 2, .. }) = sale.effects.first() else { panic!() };
    let outcome = DispenseOutcome::Unknowable { last_seen: "nothing".into() };
    sale.say(Input::Dispensed { no: 2, outcome });
    assert_eq!(sale.name(), "uncertain");
    assert_eq!((sale.report().outcome, sale.report().owed_minor), (Outcome::Uncertain, 6_000));
    for input in [Input::Taken, Input::ClaimEntered(code()), Input::Planned(None)] {
        sale.say(input);
        assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]));
    }
    sale.final_answer(2, presented(&[(1, 3, 3)]));
    assert_eq!(sale.name(), "settled");
}

/// Loss prevented: an end short of the promise without the exact debt.
#[test]
fn what_was_not_given_is_owed() {
    let mut sale = Sale::paid();
    sale.say(Input::Planned(None));
    assert_eq!(sale.report().owed_minor, 10_000);

    let mut sale = Sale::dispensing();
    let bays = BTreeMap::from([(
        bay(1),
        BayResult { requested: 5, presented: 4, retracted: Some(1), ..BayResult::default() },
    )]);
    sale.final_answer(1, bays).say(Input::Taken).say(Input::Planned(None));
    assert_eq!((sale.report().outcome, sale.report().owed_minor), (Outcome::Partial, 4_000));

    // twice nothing: the dispenser will not
    let mut sale = Sale::dispensing();
    sale.say(Input::Dispensed { no: 1, outcome: DispenseOutcome::NotStarted(fault()) });
    assert!(sale.plans());
    sale.say(Input::Planned(Some(lots(&[(2, 5_000, 2)]))));
    sale.say(Input::Dispensed { no: 2, outcome: DispenseOutcome::NotStarted(fault()) });
    assert_eq!((sale.name(), sale.report().owed_minor), ("short_dispensed", 10_000));
}

/// Loss prevented: a verdict that pays more than is missing, or ends what it is not about.
#[test]
fn a_verdict_decides_what_nobody_knows() {
    let decided = |kind, amount| {
        let mut sale = Sale::uncertain();
        sale.say(Input::Verdict(verdict(kind, amount)));
        sale
    };
    let sale = decided(VerdictKind::Owed, 4_000);
    assert_eq!((sale.name(), sale.report().owed_minor), ("short_dispensed", 4_000));
    assert_eq!(record_of(&sale).resolves, Some(1));
    assert!(record_of(&sale).verdict.is_some());
    assert_eq!(decided(VerdictKind::Settled, 0).name(), "settled");
    let mut sale = decided(VerdictKind::DispenseRest, 4_000);
    assert!(sale.plans());
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 3)]))));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]), "60 where 40 are missing");
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 2)]))));
    sale.final_answer(2, presented(&[(1, 2, 2)]));
    assert_eq!(sale.name(), "settled");
    for (kind, amount) in [
        (VerdictKind::Owed, 10_001),
        (VerdictKind::Owed, 0),
        (VerdictKind::DispenseRest, -1),
        (VerdictKind::Resume, 0),
        (VerdictKind::CloseBreaker, 0),
    ] {
        assert_eq!(decided(kind, amount).name(), "uncertain", "{kind:?} {amount}");
    }
    let mut sale = Sale::waiting();
    sale.say(Input::Verdict(verdict(VerdictKind::DispenseRest, 4_000)));
    assert_eq!(sale.name(), "paid_waiting", "all of it is missing");
    sale.say(Input::Verdict(verdict(VerdictKind::Resume, 0)));
    assert!(sale.plans());
    let other = Verdict { txid: TxnId::from_bytes([2; 16]), ..verdict(VerdictKind::Settled, 0) };
    sale.say(Input::Verdict(other));
    assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]));
}

/// Loss prevented: notes in doubt that a verdict has decided about and that stand in no bay's books,
/// so that a bay is never used again, or an operator who cannot tell what is in doubt.
#[test]
fn a_verdict_accounts_for_the_notes_in_doubt() {
    let sale = Sale::uncertain();
    let doubt = sale.txn.in_doubt().unwrap();
    assert_eq!((doubt.rest_minor, doubt.unknown_minor), (10_000, 10_000));
    let report = sale.report();
    let result = report.bays[&bay(1)];
    assert_eq!((result.requested, result.picked, result.presented), (5, None, 0));
    for (kind, amount, gone) in [
        (VerdictKind::Settled, 0, Some(5)),
        (VerdictKind::Owed, 10_000, Some(0)),
        (VerdictKind::Owed, 4_000, Some(3)),
        (VerdictKind::Owed, 3_999, None),
    ] {
        let mut sale = Sale::uncertain();
        sale.say(Input::Verdict(verdict(kind, amount)));
        let result = sale.report().bays[&bay(1)];
        assert_eq!((result.picked, result.presented), (gone, gone.unwrap_or(0)), "{amount}");
        let cash = &record_of(&sale).cash;
        match gone {
            // the doubt of the bay is over with it; what lies in the path nobody has counted
            Some(_) => {
                let most = BayResult { picked: None, ..result }.untold();
                let told = [CashMove::Unsure { bay: bay(1), most }];
                assert!(matches!(cash[0], CashMove::Dispensed { clears: true, .. }), "{cash:?}");
                assert_eq!(&cash[1..], told);
            }
            None => assert_eq!(cash, &[], "somebody has to count"),
        }
        assert_eq!(sale.txn.in_doubt(), None);
    }
}

/// Loss prevented: a payment that came too late, or after the customer left, dispensed as if in
/// time; one that came in time, forgotten.
#[test]
fn late_and_abandoned_payments() {
    let answer = |state| {
        let mut sale = Sale::invoiced();
        let request = asked(&sale.effects, "get_payment");
        sale.say(Input::Payment { request, state, wire_sats: Some(Sats(5)) });
        sale
    };
    let late = answer(PaymentState::Late);
    assert_eq!(late.txn.state(), &State::Late { owed: Some(Sats(5)) });
    assert_eq!(answer(PaymentState::Expired).name(), "expired");
    assert_eq!(answer(PaymentState::Settled).name(), "invoiced", "no leave, no notes");

    let mut sale = Sale::invoiced();
    sale.say(Input::Cancel);
    assert_eq!(sale.txn.screen().view, View::Cancelled { why: Why::Customer });
    assert_eq!(sale.name(), "invoiced", "the payment may be under way");
    sale.say(Input::Authorised(leave()));
    assert_eq!(sale.name(), "paid_waiting");
    sale.say(Input::ClaimEntered(code()));
    assert!(sale.plans());
}

/// Loss prevented: yesterday's price.
#[test]
fn a_price_whose_time_is_over_is_asked_for_again() {
    let mut sale = Sale::quoted();
    sale.wait(120_000).say(Input::Accept);
    let again = asked(&sale.effects, "get_quote");
    assert_ne!(again, asked(&Sale::start().effects, "get_quote"));
    sale.say(Input::Quote { request: again, quote: quote(Direction::CashOut, 10_000, 4) });
    sale.say(Input::Accept);
    let request = asked(&sale.effects, "create_invoice");
    sale.say(Input::Refused { request, code: ErrorCode::QuoteExpired });
    asked(&sale.effects, "get_quote");
    sale.wait(60_000).say(Input::Tick);
    assert_eq!(sale.name(), "cancelled", "nobody answers");
}

/// Loss prevented: a price that lives longer than the service gives it, because it was asked for
/// twice.
#[test]
fn a_price_counts_from_the_first_asking() {
    let mut sale = Sale::start();
    let request = asked(&sale.effects, "get_quote");
    sale.say(Input::Refused { request, code: ErrorCode::Internal });
    sale.wait(30_000).say(Input::Tick);
    assert_eq!(asked(&sale.effects, "get_quote"), request, "the same question");
    sale.say(Input::Quote { request, quote: quote(Direction::CashOut, 10_000, 3) });
    sale.wait(89_999).say(Input::Tick);
    assert_eq!(sale.name(), "quoted");
    sale.wait(1).say(Input::Tick);
    assert_eq!(sale.name(), "cancelled");
}

/// Loss prevented: a report that is lost, and with it the customer's debt and every leg.
#[test]
fn a_report_is_repeated_until_it_is_received() {
    let mut sale = Sale::dispensing();
    sale.final_answer(1, presented(&[(1, 5, 5)]));
    let (id, first) = (asked(&sale.effects, "report_dispense"), sale.report());
    sale.say(Input::Refused { request: id, code: ErrorCode::RateLimited });
    sale.wait(1_999).say(Input::Tick);
    assert_eq!(sale.effects, []);
    sale.wait(1).say(Input::Tick);
    assert_eq!((asked(&sale.effects, "report_dispense"), sale.report()), (id, first.clone()));
    sale.say(Input::Refused { request: id, code: ErrorCode::Invalid });
    assert!(matches!(sale.effects[..], [Effect::Alert(Alert::Refused { .. })]));
    sale.wait(600_000).say(Input::Tick);
    assert_eq!(asked(&sale.effects, "report_dispense"), id);
    sale.say(Input::NetworkBack);
    assert_eq!(asked(&sale.effects, "report_dispense"), id);
    // of a machine that was revoked, and is paired again
    sale.say(Input::Refused { request: id, code: ErrorCode::Revoked });
    sale.say(Input::NetworkBack);
    assert_eq!(asked(&sale.effects, "report_dispense"), id, "at once");
    sale.restart(DispenseFate::Unknown);
    assert_eq!((asked(&sale.effects, "report_dispense"), sale.report()), (id, first));
}

/// Loss prevented: an authorisation for another sale, another vault, or by another key.
#[test]
fn an_authorisation_is_checked_against_the_open_transaction() {
    let sale = Sale::invoiced();
    let State::Invoiced { sale: facts, .. } = sale.txn.state().clone() else { panic!() };
    let text = |vault, minor| DispenseAuthorisation {
        spire: key(1),
        vault: key(vault),
        txid: txid(),
        quote_id: facts.terms.quote_id,
        payment_hash: facts.payment_hash,
        wire_sats: facts.terms.wire_sats,
        fiat: eur(minor),
    };
    let check = |sig: Sig| sale.txn.check_authorisation(&sig, &key(VAULT), &key(SERVICE));
    assert_eq!(check(text(VAULT, 10_000).sign(&keys(SERVICE))), Ok(leave()));
    for sig in [
        text(5, 10_000).sign(&keys(SERVICE)),
        text(VAULT, 20_000).sign(&keys(SERVICE)),
        text(VAULT, 10_000).sign(&keys(3)),
    ] {
        assert!(matches!(check(sig), Err(CheckError::Signature(_))));
    }
    let early = Sale::quoted();
    let sig = text(VAULT, 10_000).sign(&keys(SERVICE));
    let refused = early.txn.check_authorisation(&sig, &key(VAULT), &key(SERVICE));
    assert_eq!(refused, Err(CheckError::NotWaiting { state: "quoted" }));
}
