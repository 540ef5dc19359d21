use bitspire_hardware::dispenser::{DeviceFault, DispenseOutcome, FaultKind};
use bitspire_shared::rpc::{ErrorCode, PaymentState};

use super::cash_in::Session;
use super::cash_out::Sale;
use super::*;

/// One of each input, as fitting as can be without knowing the state.
fn inputs(request: RequestId) -> Vec<Input> {
    let fault = || DeviceFault { kind: FaultKind::Jam, detail: "jam".into() };
    let dispensed = |outcome| Input::Dispensed { no: 1, outcome };
    let payment = |state| Input::Payment { request, state, wire_sats: None };
    let full = presented(&[(1, 5, 5)]);
    let restarted = |dispense, bill| Input::Restarted(DeviceReport { dispense, bill });
    let id = WithdrawId::from_bytes([5; 16]);
    vec![
        Input::Accept,
        Input::Finish,
        Input::Cancel,
        Input::ClaimEntered(code()),
        Input::ClaimEntered(ClaimCode::from_bytes([0; 16])),
        Input::GiveBack(code()),
        Input::GiveBack(ClaimCode::from_bytes([0; 16])),
        Input::ScreenBroken,
        Input::NetworkLost,
        Input::NetworkBack,
        Input::Quote { request, quote: quote(Direction::CashOut, 10_000, 3) },
        Input::Quote { request, quote: quote(Direction::CashIn, 20_000, 3) },
        Input::Invoice { request, invoice: invoice(Unix(1_800_000_300)) },
        Input::Authorised(leave()),
        payment(PaymentState::Pending),
        payment(PaymentState::Settled),
        payment(PaymentState::Late),
        payment(PaymentState::Failed),
        payment(PaymentState::Expired),
        payment(PaymentState::Unknown),
        Input::Withdraw { request, withdraw: withdraw(18_400) },
        Input::WithdrawClaimed(id),
        Input::WithdrawPaid(id),
        Input::Reported { request },
        Input::Refused { request, code: ErrorCode::Invalid },
        Input::Refused { request, code: ErrorCode::Internal },
        Input::Verdict(verdict(VerdictKind::Owed, 10_000)),
        Input::Verdict(verdict(VerdictKind::Owed, 2_000)),
        Input::Verdict(verdict(VerdictKind::Settled, 0)),
        Input::Verdict(verdict(VerdictKind::DispenseRest, 10_000)),
        Input::Verdict(verdict(VerdictKind::Resume, 0)),
        Input::Verdict(verdict(VerdictKind::CloseBreaker, 0)),
        Input::Planned(None),
        Input::Planned(Some(lots(&[(1, 2_000, 5)]))),
        Input::Planned(Some(lots(&[(1, 2_000, 6)]))),
        Input::Planned(Some(lots(&[(1, 2_000, 0)]))),
        Input::DispenseSent { no: 1 },
        dispensed(DispenseOutcome::Final { bays: full.clone(), fault: None }),
        dispensed(DispenseOutcome::Final { bays: presented(&[(1, 5, 2)]), fault: Some(fault()) }),
        dispensed(DispenseOutcome::Final { bays: presented(&[(9, 5, 2)]), fault: None }),
        dispensed(DispenseOutcome::NotStarted(fault())),
        dispensed(DispenseOutcome::Unknowable { last_seen: "ff".into() }),
        Input::Followed { detail: "one was taken".into() },
        Input::Taken,
        Input::Escrowed { bill: bill(1, 2_000), allowed: true },
        Input::Escrowed { bill: bill(2, 2_000), allowed: false },
        Input::Credit { escrowed: Some(bill(1, 2_000)), denomination: Some(note(2_000)) },
        Input::Credit { escrowed: None, denomination: None },
        Input::Credit { escrowed: None, denomination: Some(note(5_000)) },
        Input::Stacked,
        Input::Returned,
        Input::AcceptorFault { detail: "jam".into() },
        Input::Tick,
        restarted(DispenseFate::Unknown, BillFate::Unknown),
        restarted(DispenseFate::NothingMoved, BillFate::InAcceptor),
        restarted(DispenseFate::Final(full), BillFate::InStacker),
    ]
}

/// One of each state, with the request that it waits for.
fn states() -> Vec<(Txn, Option<RequestId>)> {
    let ends = |mut sale: Sale, inputs: Vec<Input>| {
        for input in inputs {
            sale.say(input);
        }
        (Txn::CashOut(sale.txn), request(&sale.effects))
    };
    let settled = || {
        let mut sale = Sale::dispensing();
        sale.final_answer(1, presented(&[(1, 5, 5)]));
        sale
    };
    let poll = |state| Input::Payment {
        request: asked(&Sale::invoiced().effects, "get_payment"),
        state,
        wire_sats: None,
    };
    let mut exit = Sale::paid();
    exit.say(Input::Planned(Some(lots(&[(1, 2_000, 2)]))));
    exit.final_answer(1, presented(&[(1, 2, 2)]));
    let report = asked(&settled().effects, "report_dispense");
    let session = |mut session: Session, inputs: Vec<Input>| {
        for input in inputs {
            session.say(input);
        }
        (Txn::CashIn(session.txn), request(&session.effects))
    };
    let id = WithdrawId::from_bytes([5; 16]);
    let withdraw_poll = asked(&Session::offered().effects, "get_payment");
    let unknown =
        Input::Payment { request: withdraw_poll, state: PaymentState::Unknown, wire_sats: None };
    let expired =
        Input::Payment { request: withdraw_poll, state: PaymentState::Expired, wire_sats: None };
    vec![
        ends(Sale::start(), vec![]),
        ends(Sale::quoted(), vec![]),
        ends(Sale::quoted(), vec![Input::Accept]),
        ends(Sale::invoiced(), vec![]),
        ends(Sale::invoiced(), vec![Input::Cancel]),
        ends(Sale::paid(), vec![]),
        ends(exit, vec![]),
        ends(Sale::waiting(), vec![]),
        ends(Sale::committed(), vec![]),
        ends(Sale::dispensing(), vec![]),
        ends(Sale::uncertain(), vec![]),
        ends(settled(), vec![]),
        ends(settled(), vec![Input::Reported { request: report }]),
        ends(Sale::paid(), vec![Input::Planned(None)]),
        ends(Sale::quoted(), vec![Input::Cancel]),
        ends(Sale::invoiced(), vec![poll(PaymentState::Expired)]),
        ends(Sale::invoiced(), vec![poll(PaymentState::Late)]),
        session(Session::start(), vec![]),
        session(Session::open(), vec![]),
        session(Session::escrowed(), vec![]),
        session(Session::committed(), vec![]),
        session(Session::credited(), vec![]),
        session(Session::uncertain(), vec![]),
        session(Session::closed(), vec![]),
        session(Session::offered(), vec![]),
        session(Session::offered(), vec![Input::WithdrawClaimed(id)]),
        session(Session::offered(), vec![unknown]),
        session(Session::offered(), vec![Input::WithdrawPaid(id)]),
        session(Session::offered(), vec![expired]),
        session(Session::open(), vec![Input::Cancel]),
    ]
}

fn request(effects: &[Effect]) -> Option<RequestId> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Request(request) => Some(request.id),
        _ => None,
    })
}

/// Loss prevented: an input that nobody thought of in a state: a crash, an unwritten change, or
/// notes that move where they must not. The snapshot is the whole table, for people to read.
#[test]
fn each_state_answers_each_input() {
    let mut table = String::new();
    for (txn, waits_for) in states() {
        let request = waits_for.unwrap_or(RequestId::from_bytes([0; 16]));
        table.push_str(&format!("{} {:?}\n", txn.name(), txn.stage()));
        let mut ignored = BTreeSet::new();
        for input in inputs(request) {
            let text = short(&input);
            let restart = matches!(input, Input::Restarted(_));
            let (next, effects) = txn.clone().step(input.clone(), at(40_000));
            assert_eq!((&next, &effects), (&txn.clone().step(input, at(40_000)).0, &effects));
            if let [Effect::Ignored { input, .. }] = effects[..] {
                assert_eq!(next, txn, "{text} was ignored and changed something");
                ignored.insert(input);
                continue;
            }
            let changed = reread(&next) != reread(&txn);
            assert_eq!(changed, record(&effects).is_some(), "{} {text}", txn.name());
            if let Some(record) = record(&effects) {
                assert!(next.stage() >= txn.stage(), "{} {text}", txn.name());
                assert_eq!(record.to_entry().unwrap().txid, txid());
            }
            if txn.stage() != Stage::Open || restart {
                assert!(!moves(&effects), "{} {text}", txn.name());
            }
            let later = effects.iter().skip(1).any(|e| matches!(e, Effect::Journal(_)));
            assert!(!later, "{} {text}: a record after an effect", txn.name());
            if changed {
                table.push_str(&format!("  {text} -> {}\n", next.name()));
            }
        }
        let ignored: Vec<&str> = ignored.into_iter().collect();
        table.push_str(&format!("  ignored: {}\n", ignored.join(" ")));
    }
    insta::assert_snapshot!(table);
}

/// The input's name with what makes it different from its siblings.
fn short(input: &Input) -> String {
    let name = input.name();
    match input {
        Input::Payment { state, .. } => format!("{name} {state:?}"),
        Input::Refused { code, .. } => format!("{name} {code}"),
        Input::Verdict(verdict) => format!("{name} {:?} {}", verdict.kind, verdict.amount_minor),
        Input::Planned(lots) => {
            let count = lots.as_ref().map(|lots| lots.values().map(|lot| lot.count).sum::<u32>());
            format!("{name} {count:?}")
        }
        Input::Dispensed { outcome, .. } => match outcome {
            DispenseOutcome::Final { bays, .. } => {
                let bays: Vec<String> = bays
                    .iter()
                    .map(|(bay, r)| format!("{bay}: {} of {}", r.presented, r.requested))
                    .collect();
                format!("{name} {}", bays.join(" "))
            }
            DispenseOutcome::NotStarted(_) => format!("{name} not started"),
            DispenseOutcome::Unknowable { .. } => format!("{name} unknowable"),
        },
        Input::Escrowed { allowed, .. } => {
            format!("{name} {}", if *allowed { "allowed" } else { "refused" })
        }
        Input::Credit { denomination, .. } => {
            format!("{name} {:?}", denomination.map(Denomination::minor))
        }
        Input::Restarted(report) => {
            let dispense = match &report.dispense {
                DispenseFate::Unknown => "unknown",
                DispenseFate::NothingMoved => "nothing moved",
                DispenseFate::Final(_) => "final",
            };
            format!("{name} {dispense}, {:?}", report.bill)
        }
        _ => name.to_owned(),
    }
}
