use bitspire_shared::canonical::Sig;
use bitspire_shared::clink::{DebitPointer, Ndebit};
use bitspire_shared::rpc::{ErrorCode, PaymentState};

use super::*;
use crate::journal::CashMove;
use crate::txn::cash_in::{Closing, Fate, State};

/// A cash-in of at most 200 EUR, driven by hand.
pub(super) type Session = Driven<CashIn>;

impl Session {
    pub(super) fn start() -> Self {
        let takes = BTreeSet::from([note(1_000), note(2_000), note(5_000)]);
        Self::new(CashIn::start(order(20_000), takes, at(0)))
    }

    pub(super) fn open() -> Self {
        let mut session = Self::start();
        let request = asked(&session.effects, "get_quote");
        session.say(Input::Quote { request, quote: quote(Direction::CashIn, 20_000, 3) });
        session
    }

    pub(super) fn committed() -> Self {
        let mut session = Self::open();
        session.say(Input::Escrowed { bill: bill(1, 2_000), allowed: true });
        session
    }

    pub(super) fn escrowed() -> Self {
        let mut session = Self::open();
        session.say(Input::Escrowed { bill: bill(1, 2_000), allowed: false });
        session
    }

    pub(super) fn credited() -> Self {
        let mut session = Self::committed();
        session.credit(1, 2_000);
        session
    }

    pub(super) fn uncertain() -> Self {
        let mut session = Self::committed();
        session.wait(60_000).say(Input::Tick);
        session
    }

    pub(super) fn closed() -> Self {
        let mut session = Self::credited();
        session.say(Input::Stacked).say(Input::Finish);
        session
    }

    pub(super) fn offered() -> Self {
        let mut session = Self::closed();
        let request = asked(&session.effects, "create_withdraw");
        session.say(Input::Withdraw { request, withdraw: withdraw(18_400) });
        session
    }

    pub(super) fn credit(&mut self, serial: u32, minor: u32) -> &mut Self {
        self.say(Input::Credit {
            escrowed: Some(bill(serial, minor)),
            denomination: Some(note(minor)),
        })
    }

    pub(super) fn restart(&mut self, bill: BillFate) -> &mut Self {
        let Txn::CashIn(txn) = reread(&Txn::CashIn(self.txn.clone())) else { panic!() };
        self.txn = txn;
        self.say(Input::Restarted(DeviceReport { bill, dispense: DispenseFate::Unknown }))
    }

    fn inlet(&self) -> Option<BTreeSet<Denomination>> {
        let mut inlets = self.effects.iter().filter_map(|effect| match effect {
            Effect::Inlet(values) => Some(values.clone()),
            _ => None,
        });
        inlets.next()
    }

    pub(super) fn has(&self, wanted: &Effect) -> bool {
        self.effects.contains(wanted)
    }

    fn total(&self) -> i64 {
        self.txn.total().minor
    }

    fn draft(&self) -> WithdrawDraft {
        let mut drafts = self.effects.iter().filter_map(|effect| match effect {
            Effect::Request(Request { ask: Ask::CreateWithdraw(draft), .. }) => Some(draft.clone()),
            _ => None,
        });
        drafts.next().unwrap()
    }
}

/// Loss prevented: any step of an ordinary session that moves before it is written down.
#[test]
fn an_ordinary_session() {
    let mut session = Session::open();
    assert_eq!(session.inlet().unwrap().len(), 3);
    session.say(Input::Escrowed { bill: bill(1, 2_000), allowed: true });
    let [Effect::Journal(seen), Effect::Stack { record, no: 1, bill: stacked }, ..] =
        &session.effects[..]
    else {
        panic!("{:?}", session.effects)
    };
    assert_eq!((seen.txn.name(), record.txn.name()), ("escrowed", "stack_committed"));
    assert_eq!(*stacked, bill(1, 2_000));
    session.credit(1, 2_000);
    let [Effect::Journal(record), Effect::AcknowledgeCredit, ..] = &session.effects[..] else {
        panic!("{:?}", session.effects)
    };
    assert_eq!((record.txn.name(), record.resolves), ("credited", Some(1)));
    let stacked = CashMove::Stacked { denomination: note(2_000), clears: false };
    assert_eq!(record.cash, [stacked]);
    session.say(Input::Stacked);
    session.say(Input::Escrowed { bill: bill(2, 5_000), allowed: true }).credit(2, 5_000);
    session.say(Input::Finish);
    let draft = session.draft();
    assert_eq!(draft.notes, BTreeMap::from([(note(2_000), 1), (note(5_000), 1)]));
    assert_eq!(record_stage(&session), Stage::Ended);
    let request = asked(&session.effects, "create_withdraw");
    session.say(Input::Withdraw { request, withdraw: withdraw(64_400) });
    assert!(matches!(session.txn.screen().view, View::Claim { lnurl: Some(_), .. }));
    let id = WithdrawId::from_bytes([5; 16]);
    session.say(Input::WithdrawClaimed(id)).say(Input::WithdrawPaid(id));
    assert_eq!((session.name(), record_stage(&session)), ("redeemed", Stage::Closed));
}

fn record_stage(session: &Session) -> Stage {
    record(&session.effects).unwrap().txn.stage()
}

/// Loss prevented: one bill counted twice, or not at all, because the acceptor repeats its credit or
/// the machine was cut off in the middle.
#[test]
fn a_stacked_bill_counts_once() {
    let mut session = Session::credited();
    session.credit(1, 2_000);
    assert_eq!((session.total(), session.name()), (2_000, "credited"));
    assert_eq!(session.effects, [Effect::AcknowledgeCredit], "the same bill, said again");

    let mut session = Session::committed();
    session.say(Input::Stacked);
    assert_eq!(session.total(), 2_000, "it lies in the cashbox");
    session.credit(1, 2_000);
    assert_eq!(session.total(), 2_000);

    // the power went while it was being stacked: the device knows
    let mut session = Session::committed();
    session.restart(BillFate::InStacker);
    assert_eq!((session.total(), session.name()), (2_000, "offered"));
    session.say(Input::Credit { escrowed: None, denomination: Some(note(2_000)) });
    assert!(matches!(session.effects[..], [Effect::Journal(_), Effect::AcknowledgeCredit]));
    assert_eq!(session.total(), 2_000);
    session.say(Input::Credit { escrowed: None, denomination: Some(note(2_000)) });
    assert_eq!(session.total(), 2_000);
    assert!(
        session.has(&Effect::Alert(Alert::UnexplainedCredit { denomination: Some(note(2_000)) }))
    );

    let mut session = Session::committed();
    session.restart(BillFate::InAcceptor);
    assert_eq!((session.total(), session.name()), (0, "returned"));

    let mut session = Session::committed();
    session.restart(BillFate::Unknown);
    assert_eq!((session.total(), session.name()), (0, "uncertain"));
    session.say(Input::Credit { escrowed: None, denomination: None });
    assert_eq!((session.total(), session.name()), (2_000, "offered"));
}

/// Loss prevented: a bill that nobody told to stack, or of another value than the one in escrow,
/// counted on the acceptor's bare word.
#[test]
fn an_unexplained_credit_waits_for_a_person() {
    let mut session = Session::open();
    session.say(Input::Credit { escrowed: None, denomination: Some(note(5_000)) });
    assert_eq!((session.total(), session.name()), (0, "uncertain"));
    assert!(matches!(session.effects[..], [Effect::Journal(_), ..]));
    assert!(session.has(&Effect::AcknowledgeCredit));

    let mut session = Session::committed();
    session.say(Input::Credit { escrowed: None, denomination: Some(note(5_000)) });
    assert_eq!((session.total(), session.name()), (0, "uncertain"));
    session.say(Input::Verdict(verdict(VerdictKind::Owed, 2_000)));
    assert_eq!((session.total(), session.name()), (2_000, "offered"));
    assert_eq!(record(&session.effects).unwrap().resolves, Some(1));

    // credited, then given back: somebody may be fishing
    let mut session = Session::credited();
    session.say(Input::Returned);
    assert_eq!((session.total(), session.name()), (0, "uncertain"));
    session.say(Input::Verdict(verdict(VerdictKind::Settled, 0)));
    assert_eq!((session.total(), session.name()), (0, "returned"));
    let dropped = record(&session.effects).unwrap();
    assert_eq!(dropped.resolves, None, "its intent had a result");
    assert_eq!(dropped.cash, [], "it may yet get into the cashbox: the heap stays in doubt");
}

/// Loss prevented: a bill taken that nobody can pay for: over the lock, after it, of another
/// currency, or against policy.
#[test]
fn a_bill_that_cannot_be_paid_for_goes_back() {
    let foreign = EscrowedBill { currency: "USD".parse().unwrap(), ..bill(1, 2_000) };
    for (bill, allowed) in [(foreign, true), (bill(1, 10_000), true), (bill(1, 2_000), false)] {
        let mut session = Session::open();
        session.say(Input::Escrowed { bill, allowed });
        assert!(session.has(&Effect::ReturnBill) && !moves(&session.effects), "{bill:?}");
        session.say(Input::Returned);
        assert_eq!((session.name(), session.total()), ("open", 0));
    }
    // room for 200 EUR: after 4 x 50 none
    let mut session = Session::open();
    for serial in 1..=4 {
        session.say(Input::Escrowed { bill: bill(serial, 5_000), allowed: true });
        session.credit(serial, 5_000).say(Input::Stacked);
    }
    session.say(Input::Escrowed { bill: bill(5, 1_000), allowed: true });
    assert!(session.has(&Effect::ReturnBill) && !moves(&session.effects));
    // nobody feeds notes here
    for mut session in [Session::offered(), Session::uncertain(), Session::closed()] {
        session.say(Input::Escrowed { bill: bill(9, 1_000), allowed: true });
        assert_eq!(session.effects.last(), Some(&Effect::ReturnBill));
        assert!(!moves(&session.effects));
        // that one was given back, not the one of which nobody knows
        let name = session.name();
        session.say(Input::Returned);
        assert_eq!((session.name(), &session.effects[..]), (name, &[][..]));
    }
    // the acceptor may be speaking of the other one: only a person can tell
    let mut session = Session::uncertain();
    session.say(Input::Escrowed { bill: bill(9, 1_000), allowed: true });
    session.restart(BillFate::InAcceptor);
    assert_eq!(session.name(), "uncertain");
}

/// Loss prevented: a note credited at a rate whose lock has ended, or moved to another one's.
#[test]
fn each_note_keeps_its_lock() {
    let mut session = Session::open();
    session.wait(60_000).say(Input::Escrowed { bill: bill(1, 2_000), allowed: true });
    session.credit(1, 2_000).say(Input::Stacked);
    session.wait(50_000).say(Input::Tick);
    assert_eq!(session.inlet(), Some(BTreeSet::new()), "10 s before the lock ends");
    asked(&session.effects, "get_quote");
    session.say(Input::Escrowed { bill: bill(2, 5_000), allowed: true });
    assert!(session.has(&Effect::ReturnBill));
    session.say(Input::Returned);
    let request = asked(&session.effects, "get_quote");
    session.say(Input::Quote { request, quote: quote(Direction::CashIn, 18_000, 4) });
    assert_eq!(session.inlet().unwrap().len(), 3);
    session.say(Input::Escrowed { bill: bill(3, 5_000), allowed: true }).credit(3, 5_000);
    session.say(Input::Finish);
    let draft = session.draft();
    assert_eq!(draft.quote_id, QuoteId::from_bytes([4; 16]));
    assert_eq!(draft.notes, BTreeMap::from([(note(5_000), 1)]));
    assert_eq!(draft.earlier.len(), 1);
    assert_eq!(draft.earlier[0].quote_id, QuoteId::from_bytes([3; 16]));
    assert_eq!(draft.earlier[0].notes, BTreeMap::from([(note(2_000), 1)]));
}

/// Loss prevented: notes fed into a machine that cannot pay for them any more.
#[test]
fn whatever_stands_between_closes_the_session() {
    let causes: [(Input, Closing); 5] = [
        (Input::Finish, Closing::Finished),
        (Input::NetworkLost, Closing::NetworkLost),
        (Input::ScreenBroken, Closing::ScreenBroken),
        (Input::AcceptorFault { detail: "jam".into() }, Closing::Fault),
        (Input::Restarted(DeviceReport::default()), Closing::Restarted),
    ];
    for (input, closing) in causes {
        let mut session = Session::credited();
        session.say(Input::Stacked).say(input.clone());
        assert_eq!((session.name(), session.txn.closing()), ("offered", Some(closing)));
        assert_eq!(session.inlet(), Some(BTreeSet::new()));
        let mut session = Session::open();
        session.say(input.clone());
        assert_eq!(session.name(), "returned");
        // a bill on its way is waited for
        let mut session = Session::committed();
        session.say(input.clone());
        if closing != Closing::Restarted {
            assert_eq!(session.name(), "stack_committed");
            session.credit(1, 2_000);
            assert_eq!((session.name(), session.total()), ("offered", 2_000));
        }
    }
    let mut session = Session::open();
    session.wait(90_000).say(Input::Tick);
    assert_eq!(session.txn.closing(), Some(Closing::Idle));
    let mut session = Session::start();
    let request = asked(&session.effects, "get_quote");
    session.say(Input::Refused { request, code: ErrorCode::OverLimit });
    let refusal = Some(ErrorCode::OverLimit);
    assert_eq!(
        (session.name(), session.txn.closing()),
        ("returned", Some(Closing::NoRate { refusal }))
    );
}

/// Loss prevented: notes that are stacked when the service switches the machine off: it takes no more
/// of them, and asks for the sats of those that it has.
#[test]
fn a_machine_switched_off_in_a_session_takes_no_more_and_claims_what_it_has() {
    for code in [ErrorCode::Disabled, ErrorCode::TokenExpired, ErrorCode::Revoked] {
        let mut session = Session::open();
        session.wait(60_000).say(Input::Escrowed { bill: bill(1, 2_000), allowed: true });
        session.credit(1, 2_000).say(Input::Stacked);
        session.wait(50_000).say(Input::Tick);
        let request = asked(&session.effects, "get_quote");
        session.say(Input::Refused { request, code });
        assert_eq!(session.txn.closing(), Some(Closing::NoRate { refusal: Some(code) }));
        assert_eq!(session.draft().notes, BTreeMap::from([(note(2_000), 1)]));
        session.say(Input::Escrowed { bill: bill(2, 5_000), allowed: true });
        assert!(session.has(&Effect::ReturnBill));
    }
}

/// Loss prevented: a customer who is sent away without a word, and tries again where nobody can pay.
#[test]
fn whoever_is_sent_away_is_told_why() {
    let late = |session: &mut Session| {
        let ms = session.txn.deal().rules.answer_ms;
        session.wait(ms).say(Input::Tick);
        session.txn.screen().view
    };
    let mut session = Session::start();
    assert_eq!(late(&mut session), View::Returned { why: Why::NoAnswer });
    let mut session = Session::start();
    let request = asked(&session.effects, "get_quote");
    session.say(Input::Refused { request, code: ErrorCode::WalletUnavailable });
    assert_eq!(session.name(), "open", "it is asked for again");
    let why = Why::Refused(ErrorCode::WalletUnavailable);
    assert_eq!(late(&mut session), View::Returned { why });
    let mut session = Session::open();
    session.say(Input::Cancel);
    assert_eq!(session.txn.screen().view, View::Returned { why: Why::Customer });
}

/// Loss prevented: a screen that shows a claim which was paid long ago, because the push was lost and
/// the question after it was refused once.
#[test]
fn a_refused_poll_goes_on_within_a_minute() {
    let mut session = Session::offered();
    session.wait(2_000).say(Input::Tick);
    let request = asked(&session.effects, "get_payment");
    session.say(Input::Refused { request, code: ErrorCode::QuoteExpired });
    session.wait(59_999).say(Input::Tick);
    assert_eq!(session.effects, []);
    session.wait(1).say(Input::Tick);
    assert_ne!(asked(&session.effects, "get_payment"), request);
}

/// Loss prevented: stacked notes whose withdraw is given up because the service refused once, or a
/// second withdraw for the same notes.
#[test]
fn a_withdraw_is_asked_for_until_it_is_there() {
    let mut session = Session::closed();
    let (id, draft) = (asked(&session.effects, "create_withdraw"), session.draft());
    session.say(Input::Refused { request: id, code: ErrorCode::WalletUnavailable });
    session.wait(2_000).say(Input::Tick);
    assert_eq!((asked(&session.effects, "create_withdraw"), session.draft()), (id, draft.clone()));
    session.say(Input::Refused { request: id, code: ErrorCode::OverLimit });
    assert!(session.has(&Effect::Alert(Alert::Refused {
        rpc: "create_withdraw",
        code: ErrorCode::OverLimit
    })));
    assert_eq!(session.name(), "offered");
    session.restart(BillFate::Unknown);
    assert_eq!((asked(&session.effects, "create_withdraw"), session.draft()), (id, draft));
    session.say(Input::Verdict(verdict(VerdictKind::Owed, 2_000)));
    assert_eq!(session.name(), "expired");
}

/// Loss prevented: the LNURL shown to the passer-by after a restart.
#[test]
fn after_a_restart_the_withdraw_is_shown_for_the_claim_code_only() {
    let mut session = Session::offered();
    let id = {
        let closed = Session::closed();
        asked(&closed.effects, "create_withdraw")
    };
    session.restart(BillFate::Unknown);
    assert!(matches!(session.txn.screen().view, View::Claim { lnurl: None, .. }));
    assert_eq!(session.txn.screen().claim, None);
    session.say(Input::ClaimEntered(ClaimCode::from_bytes([1; 16])));
    assert!(matches!(session.effects[..], [Effect::Ignored { .. }]));
    session.say(Input::ClaimEntered(code()));
    assert_eq!(
        asked(&session.effects, "create_withdraw"),
        id,
        "the service answers from its store"
    );
    session.say(Input::Withdraw { request: id, withdraw: withdraw(18_400) });
    assert!(matches!(session.txn.screen().view, View::Claim { lnurl: Some(_), .. }));

    let mut session = Session::offered();
    session.restart(BillFate::Unknown).say(Input::ClaimEntered(code()));
    session.say(Input::Withdraw { request: id, withdraw: withdraw(1) });
    assert!(session.has(&Effect::Alert(Alert::WithdrawChanged)));
    assert!(matches!(session.txn.screen().view, View::Claim { lnurl: None, .. }));
}

/// Loss prevented: claim code or LNURL in the journal: whoever reads the evidence has the money.
#[test]
fn no_secret_is_written_down() {
    let session = Session::offered();
    let entry = record(&session.effects).unwrap().to_entry().unwrap();
    let text = format!("{} {:?}", serde_json::to_string(&entry).unwrap(), session.txn);
    assert!(!text.contains("LNURL1") && !text.contains(&code().expose()), "{text}");
    assert!(text.contains(&code().hash().to_string()));
}

/// Loss prevented: an unknown payment taken for a failed one, or an unpaid withdraw forgotten.
#[test]
fn how_a_withdraw_ends() {
    let answer = |session: &mut Session, state| {
        session.wait(60_000).say(Input::Tick);
        let request = asked(&session.effects, "get_payment");
        session.say(Input::Payment { request, state, wire_sats: None });
    };
    for (state, name) in [
        (PaymentState::Pending, "offered"),
        (PaymentState::Settled, "redeemed"),
        (PaymentState::Unknown, "pay_unknown"),
        (PaymentState::Failed, "expired"),
        (PaymentState::Expired, "expired"),
    ] {
        let mut session = Session::offered();
        answer(&mut session, state);
        assert_eq!(session.name(), name, "{state:?}");
    }
    let mut session = Session::offered();
    answer(&mut session, PaymentState::Unknown);
    answer(&mut session, PaymentState::Unknown);
    assert_eq!(session.name(), "pay_unknown");
    answer(&mut session, PaymentState::Expired);
    let State::Expired { owed } = session.txn.state() else { panic!() };
    assert_eq!((owed.minor, owed.net_sats), (2_000, Some(Sats(18_400))));
}

/// Loss prevented: a promise to pay by somebody else, or for other notes, shown to the customer.
#[test]
fn a_withdraw_is_checked_against_the_transaction() {
    let session = Session::closed();
    let mut good = Withdraw {
        withdraw_id: WithdrawId::from_bytes([5; 16]),
        lnurl: Lnurl::new("LNURL1".into()),
        ndebit: None,
        net_sats: Sats(18_400),
        fee_sats: Sats(1),
        expires_at: Unix(1_900_000_000),
        withdraw_sig: Sig::over("", &keys(SERVICE)),
    };
    good.withdraw_sig = good.terms(key(1), key(VAULT), txid()).sign(&keys(SERVICE));
    let check_as = |spire: u8, withdraw: &Withdraw| {
        session.txn.check_withdraw(withdraw.clone(), &key(spire), &key(VAULT), &key(SERVICE))
    };
    let check = |withdraw: &Withdraw| check_as(1, withdraw);
    assert_eq!(check(&good), Ok(withdraw(18_400)));
    // paired anew while its notes waited: by the key of their locks, or by the machine's new one
    assert_eq!(check_as(9, &good), Ok(withdraw(18_400)));
    let mut anew = good.clone();
    anew.withdraw_sig = good.terms(key(9), key(VAULT), txid()).sign(&keys(SERVICE));
    assert_eq!(check_as(9, &anew), Ok(withdraw(18_400)));
    assert!(matches!(check(&anew), Err(CheckError::Signature(_))), "another machine's");
    let code = |service: u8, pointer: WithdrawId| {
        let debit = DebitPointer {
            pubkey: key(service),
            relay: "wss://relay.example".into(),
            pointer: Some(pointer.to_string()),
            k1: Some([1; 32].into()),
        };
        Some(debit.encode().unwrap())
    };
    let shown = |ndebit| check(&Withdraw { ndebit, ..good.clone() }).unwrap().ndebit;
    let own = code(SERVICE, good.withdraw_id);
    assert_eq!(shown(own.clone()), own);
    assert_eq!(shown(code(9, good.withdraw_id)), None, "somebody else would pay, or not");
    assert_eq!(shown(code(SERVICE, WithdrawId::from_bytes([6; 16]))), None, "another withdraw");
    assert_eq!(shown(Some(Ndebit::new("ndebit1".into()))), None);
    let more = Withdraw { net_sats: Sats(18_401), ..good.clone() };
    assert!(matches!(check(&more), Err(CheckError::Signature(_))));
    let early = Session::start();
    let refused = early.txn.check_withdraw(good, &key(1), &key(VAULT), &key(SERVICE));
    assert_eq!(refused, Err(CheckError::NotWaiting { state: "open" }));
}

/// Loss prevented: the next note taken for the one whose fate nobody knew yet.
#[test]
fn a_new_note_before_the_last_ones_fate_is_known() {
    let mut session = Session::committed();
    session.say(Input::Escrowed { bill: bill(1, 2_000), allowed: true });
    assert!(matches!(session.effects[..], [Effect::Ignored { .. }]), "the same note, said again");
    session.say(Input::Escrowed { bill: bill(2, 2_000), allowed: true });
    assert_eq!(session.name(), "uncertain");
    assert!(session.has(&Effect::ReturnBill) && !moves(&session.effects));
    assert_eq!(session.txn.notes()[0].fate, Fate::Unknown { open: true });
}

/// Loss prevented: the next customer waits for a price behind the questions of those who left: the
/// service takes 30 requests a minute from a machine.
#[test]
fn whoever_left_is_asked_about_rarely_until_they_are_back() {
    let polls = |session: &mut Session, minutes: u32| {
        let mut polls = 0;
        for _second in 0..minutes * 60 {
            session.wait(1_000).say(Input::Tick);
            let requests = session.effects.iter().filter(|e| matches!(e, Effect::Request(_)));
            polls += requests.count();
        }
        polls
    };
    let mut session = Session::offered();
    assert_eq!(polls(&mut session, 2), 25, "the customer looks on");
    session.say(Input::ScreenBroken);
    polls(&mut session, 1);
    assert_eq!(polls(&mut session, 10), 10, "nobody does");
    session.say(Input::ClaimEntered(code()));
    assert_eq!(polls(&mut session, 1), 12, "they are back");
}
