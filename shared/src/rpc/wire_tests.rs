//! The wire JSON of each message, and what cannot be read.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixtures::*;
use super::*;
use crate::canonical::sha256;
use crate::ids::{
    EventId, JournalSeq, Nonce, PaymentHash, PubKey, PushId, RequestId, SessionId, TxnId,
    WithdrawId,
};
use crate::money::{Direction, Sats};
use crate::statement::{Statement, VerdictKind};
use crate::time::Unix;

fn id() -> RequestId {
    RequestId::from_bytes([0xaa; 16])
}

/// Puts fixed text in the place of fresh signatures, so that a snapshot is stable.
fn steady(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    if name.ends_with("sig") || name.ends_with("proof") {
                        *value = "[signature]".into();
                    }
                    walk(value);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => (),
        }
    }
    walk(&mut value);
    value
}

fn every_request() -> Vec<RpcRequest> {
    vec![
        open_session().into(),
        get_quote().into(),
        CreateInvoice { quote_id: quote_terms(Direction::CashOut).quote_id }.into(),
        create_withdraw().into(),
        GetPayment::PaymentHash(PaymentHash::from_bytes([7; 32])).into(),
        GetPayment::WithdrawId(WithdrawId::from_bytes([2; 16])).into(),
        dispense_report().into(),
        state_report().into(),
    ]
}

/// Loss prevented: a field renamed on one side stops every machine of the other version.
#[test]
fn requests_on_the_wire() {
    let mut wire = Vec::new();
    for call in every_request() {
        let request = Request::new(id(), call).unwrap();
        let text = request.to_plaintext().unwrap();
        assert_eq!(Request::parse(&text), Ok(request));
        wire.push(steady(serde_json::from_str(&text).unwrap()));
    }
    insta::assert_json_snapshot!(wire);
}

fn round<M: Method>(body: &M::Reply) -> Value
where
    M::Reply: PartialEq + std::fmt::Debug,
{
    let reply = Reply::ok::<M>(id(), body).unwrap();
    let text = ServiceMessage::Reply(reply).to_plaintext().unwrap();
    let Ok(ServiceMessage::Reply(reply)) = ServiceMessage::parse(&text) else {
        panic!("{text}");
    };
    assert_eq!(reply.request_id(), Some(id()));
    assert_eq!(reply.read::<M>().unwrap().as_ref(), Ok(body));
    steady(serde_json::from_str(&text).unwrap())
}

/// Loss prevented: see above, for replies.
#[test]
fn replies_on_the_wire() {
    let opened = SessionOpened {
        session_id: SessionId::from_bytes([0xbb; 16]),
        expires_at: Unix(1_800_080_000),
    };
    let invoice = Invoice {
        payment_hash: PaymentHash::from_bytes([7; 32]),
        bolt11: "lnbcrt1".into(),
        expires_at: Unix(1_800_000_120),
        noffer: None,
    };
    let withdraw = Withdraw {
        withdraw_id: WithdrawId::from_bytes([2; 16]),
        lnurl: Lnurl::new("LNURL1SECRET".into()),
        ndebit: None,
        net_sats: Sats(75_795),
        fee_sats: Sats(6_591),
        expires_at: Unix(1_800_003_600),
        withdraw_sig: sig(),
    };
    assert!(!format!("{withdraw:?}").contains("LNURL1"), "a bearer secret in a log");
    let wire_sats = Some(Sats(22_978));
    let settled = Payment { state: PaymentState::Settled, wire_sats, authorisation: Some(sig()) };
    let pending = Payment { state: PaymentState::Pending, wire_sats: None, authorisation: None };
    let error = ServiceMessage::Reply(Reply::error(None, ErrorCode::RateLimited, "wait"));
    insta::assert_json_snapshot!([
        round::<OpenSession>(&opened),
        round::<GetQuote>(&Quote::sign(&quote_terms(Direction::CashOut), origins(), &keys(2))),
        round::<CreateInvoice>(&invoice),
        round::<VaultSigned<CreateWithdraw>>(&withdraw),
        round::<GetPayment>(&settled),
        round::<GetPayment>(&pending),
        round::<VaultSigned<DispenseReport>>(&Ack {}),
        serde_json::from_str(&error.to_plaintext().unwrap()).unwrap(),
    ]);
}

/// Loss prevented: see above, for pushes.
#[test]
fn pushes_on_the_wire() {
    let (txid, withdraw_id) = (TxnId::from_bytes([1; 16]), WithdrawId::from_bytes([2; 16]));
    let verdict = Statement::Verdict {
        spire: key(1),
        vault: key(4),
        txid: Some(txid),
        journal_seq: JournalSeq(42),
        verdict: VerdictKind::Owed,
        amount_minor: 2_000,
        nonce: Nonce::from_bytes([9; 16]),
        not_after: Unix(1_800_000_600),
    };
    let pushes = [
        Push::PaymentSettled(PaymentSettled {
            txid,
            payment_hash: PaymentHash::from_bytes([7; 32]),
            wire_sats: Sats(22_978),
            authorisation: sig(),
        }),
        Push::WithdrawClaimed(WithdrawClaimed { txid, withdraw_id }),
        Push::WithdrawPaid(WithdrawPaid { txid, withdraw_id, wire_sats: Sats(75_795) }),
        Push::ConfigChanged(ConfigChanged {
            d: "bitspire-fees:ab".into(),
            event_id: EventId::from_bytes([6; 32]),
        }),
        Push::Verdict(Box::new(VerdictPush { statement: statement(&verdict, 5) })),
    ];
    let wire = pushes.map(|push| {
        let message = ServiceMessage::Push { push_id: PushId::from_bytes([0xcc; 16]), push };
        let text = message.to_plaintext().unwrap();
        assert_eq!(ServiceMessage::parse(&text), Ok(message));
        steady(serde_json::from_str(&text).unwrap())
    });
    insta::assert_json_snapshot!(wire);
    for bad in ["", "[]", "{}", r#"{"push":"new","push_id":"00","body":{}}"#] {
        assert!(ServiceMessage::parse(bad).is_err(), "{bad}");
    }
}

fn refusal(message: &Value) -> (Option<RequestId>, ErrorCode) {
    let bad = Request::parse(&message.to_string()).unwrap_err();
    (bad.request_id, bad.error.code)
}

/// Loss prevented: a refusal without its request id leaves the machine waiting for the timeout.
#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let request_id = id().to_string();
    let quote = json!({"quote_id": quote_terms(Direction::CashOut).quote_id});
    let with = |name: &str, body: &Value| {
        refusal(&json!({"rpc_name": name, "request_id": request_id, "body": body}))
    };
    assert_eq!(with("create_account", &quote), (Some(id()), ErrorCode::UnknownRpc));
    assert_eq!(with("create_invoice", &json!({})), (Some(id()), ErrorCode::Malformed));
    let mut more = quote.clone();
    more["amount_sats"] = json!(5);
    assert_eq!(with("create_invoice", &more), (Some(id()), ErrorCode::Malformed), "strict");
    let two = json!({"payment_hash": "7".repeat(64), "withdraw_id": "2".repeat(32)});
    assert_eq!(with("get_payment", &two), (Some(id()), ErrorCode::Malformed));
    let mut free = serde_json::to_value(get_quote()).unwrap();
    for minor in [-1, 0] {
        free["fiat_minor"] = json!(minor);
        assert_eq!(with("get_quote", &free), (Some(id()), ErrorCode::Invalid));
    }
    free["fiat_minor"] = json!(0.5);
    assert_eq!(with("get_quote", &free), (Some(id()), ErrorCode::Malformed));

    for bad in [json!({"rpc_name": "get_quote", "body": quote}), json!([]), json!(null)] {
        assert_eq!(refusal(&bad), (None, ErrorCode::Malformed), "{bad}");
    }
    let named = json!({"request_id": request_id, "body": quote});
    assert_eq!(refusal(&named), (Some(id()), ErrorCode::Malformed));
    let Reply::Error { request_id: Some(to), code: ErrorCode::Malformed, .. } =
        Request::parse(&named.to_string()).unwrap_err().into()
    else {
        panic!("expected a reply for the request");
    };
    assert_eq!(to, id());
}

/// Loss prevented: notes counted as none, twice, or beyond any sum.
#[test]
fn a_claim_names_each_note_once() {
    let wire = serde_json::to_value(create_withdraw()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = wire.clone();
        change(&mut body);
        RpcRequest::parse("create_withdraw", body).map_err(|e| e.code)
    };
    assert!(with(&|_| ()).is_ok());
    assert_eq!(with(&|b| b["notes"] = json!({})), Err(ErrorCode::Invalid));
    assert_eq!(with(&|b| b["notes"]["1000"] = json!(0)), Err(ErrorCode::Invalid));
    assert_eq!(with(&|b| b["notes"]["01000"] = json!(1)), Err(ErrorCode::Malformed));
    assert_eq!(with(&|b| b["notes"]["0"] = json!(1)), Err(ErrorCode::Malformed));
    assert_eq!(
        with(&|b| b["earlier"][0]["quote_id"] = b["quote_id"].clone()),
        Err(ErrorCode::Invalid)
    );
    assert_eq!(with(&|b| b["sats"] = json!(1)), Err(ErrorCode::Malformed), "sats from a machine");
}

/// Loss prevented: a report that contradicts itself is booked.
#[test]
fn a_full_dispense_owes_nothing() {
    let mut body = serde_json::to_value(dispense_report()).unwrap();
    body["outcome"] = json!("full");
    let parse =
        |body: &Value| RpcRequest::parse("report_dispense", body.clone()).map_err(|e| e.code);
    assert_eq!(parse(&body), Err(ErrorCode::Invalid));
    body["owed_minor"] = json!(0);
    assert!(parse(&body).is_ok());
}

/// Loss prevented: a heartbeat that grows without bound fills the service's disk.
#[test]
fn a_heartbeat_is_bounded() {
    let mut body = serde_json::to_value(state_report()).unwrap();
    let parse = |body: &Value| RpcRequest::parse("report_state", body.clone()).map_err(|e| e.code);
    assert!(parse(&body).is_ok());
    let mut long = body.clone();
    long["alerts"][0]["detail"] = json!("x".repeat(256));
    assert!(parse(&long).is_ok());
    long["alerts"][0]["detail"] = json!("x".repeat(257));
    assert_eq!(parse(&long), Err(ErrorCode::Invalid));
    let alert = body["alerts"][0].clone();
    body["alerts"] = json!(vec![alert.clone(); 512]);
    assert!(parse(&body).is_ok());
    body["alerts"] = json!(vec![alert; 513]);
    assert_eq!(parse(&body), Err(ErrorCode::Invalid));
}

/// Loss prevented: notes that nobody can have counted, booked because a machine said so; a machine
/// that nobody hears any more because it told too much at once.
#[test]
fn service_events_are_bounded_and_add_up() {
    let body = serde_json::to_value(state_report()).unwrap();
    let with = |path: &str, value: Value| {
        let mut body = body.clone();
        *body.pointer_mut(path).unwrap() = value;
        RpcRequest::parse("report_state", body).map(drop).map_err(|e| e.code)
    };
    let (refill, count, cashbox, test) = (
        "/service_events/0/action/bay_changed/change",
        "/service_events/1/action/bay_changed",
        "/service_events/2/action/cashbox_emptied",
        "/service_events/4/action/test_dispense/bays/1/result/picked",
    );
    let event = body["service_events"][0].clone();
    for (path, value) in [
        (refill, json!({ "delta": 1_000_000 })),
        (&*format!("{count}/expected"), json!(-1_000_000)),
        (&*format!("{cashbox}/reason"), json!("x".repeat(200))),
        (&*format!("{cashbox}/notes"), json!({ "2000": { "expected": -1, "counted": 0 } })),
        (test, json!(2)),
        ("/service_events", json!(vec![event.clone(); MAX_SERVICE_EVENTS])),
    ] {
        assert_eq!(with(path, value), Ok(()), "{path}");
    }
    for (path, value) in [
        (refill, json!({ "delta": 1_000_001 })),
        (&*format!("{count}/change"), json!({ "set": 1_000_001 })),
        (&*format!("{count}/expected"), json!(-1_000_001)),
        (&*format!("{cashbox}/reason"), json!("x".repeat(201))),
        (&*format!("{cashbox}/notes"), json!({ "2000": { "expected": 0, "counted": 2_000_000 } })),
        (test, json!(0)),
        ("/service_events", json!(vec![event; MAX_SERVICE_EVENTS + 1])),
    ] {
        assert_eq!(with(path, value), Err(ErrorCode::Invalid), "{path}");
    }
}

/// Loss prevented: a session for a vault that the spire never named states what it likes.
#[test]
fn a_session_needs_both_proofs_and_the_spires_word() {
    let now = Unix(1_800_000_000);
    let check = |open: &OpenSession| open.check(&key(1), &key(2), now);
    let good = open_session();
    assert_eq!(check(&good), Ok(Nonce::from_bytes([9; 16])));
    let OpenSession { proof, vault_proof, .. } = good.clone();
    let swapped = OpenSession { proof: vault_proof, vault_proof: proof, ..good.clone() };
    assert!(matches!(check(&swapped), Err(SessionError::Proof(_))));
    assert!(matches!(good.check(&key(1), &key(9), now), Err(SessionError::Proof(_))));
    let shared = OpenSession { session_pubkey: key(4), ..good.clone() };
    assert_eq!(check(&shared), Err(SessionError::SharedKey));
    for expires_at in [now, now.after(86_401)] {
        let other = OpenSession { expires_at, ..good.clone() };
        assert_eq!(check(&other), Err(SessionError::Lifetime { expires_at, now }));
    }
    let whole_day = OpenSession { expires_at: now.after(86_400), ..good.clone() };
    assert!(matches!(check(&whole_day), Err(SessionError::Proof(_))), "may last a day");
    let named = |author: u8, spire: PubKey, vault: PubKey| {
        let (nonce, not_after) = (Nonce::from_bytes([9; 16]), Unix(1_800_000_600));
        let vault_statement =
            statement(&Statement::Vault { spire, vault, nonce, not_after }, author);
        check(&OpenSession { vault_statement, ..good.clone() })
    };
    assert!(matches!(named(1, key(1), key(9)), Err(SessionError::OtherVault { .. })));
    assert!(matches!(named(1, key(9), key(4)), Err(SessionError::OtherVault { .. })));
    assert!(matches!(named(5, key(1), key(4)), Err(SessionError::Statement(_))));
}

proptest! {
    /// Loss prevented: a retry taken for another request, or another request for a retry.
    #[test]
    fn the_digest_is_of_the_body_alone(minor in 1i64..1_000_000, other in 1i64..1_000_000) {
        let call = |fiat_minor| GetQuote { fiat_minor, ..get_quote() };
        let request = Request::new(id(), call(minor)).unwrap();
        let again = RequestId::from_bytes([1; 16]);
        prop_assert_eq!(
            Request::new(again, call(minor)).unwrap().body_sha256(), request.body_sha256()
        );
        let same = Request::new(id(), call(other)).unwrap().body_sha256() == request.body_sha256();
        prop_assert_eq!(same, minor == other);
        // white space and the order of fields are no other body
        let body = serde_json::to_string_pretty(&call(minor)).unwrap();
        let text = format!("{{ \"body\": {body}, \"request_id\":\"{}\", \"rpc_name\":\"get_quote\" }}", id());
        prop_assert_eq!(Request::parse(&text).unwrap().body_sha256(), request.body_sha256());
        let canonical = crate::canonical::to_canonical(&call(minor)).unwrap();
        prop_assert_eq!(request.body_sha256(), sha256(&canonical));
    }

    /// Loss prevented: bytes from the wire that stop the service.
    #[test]
    fn no_text_panics(text in ".{0,200}", name in "[a-z_]{0,20}") {
        let _ = Request::parse(&text);
        let _ = ServiceMessage::parse(&text);
        let _ = RpcRequest::parse(&name, Value::String(text));
    }
}
