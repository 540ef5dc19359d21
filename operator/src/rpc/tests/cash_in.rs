//! Sats for notes: locks, claims, limits.

use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use tower::ServiceExt as _;

use super::cash_out::note;
use super::*;
use crate::fleet::FleetError;
use crate::ids::OperatorId;
use crate::rpc::after_revoke;
use crate::store::settlements::{self, Distribution, SettlementStatus};
use crate::store::withdraws::{self, K1};
use crate::store::{claims, quotes};
use crate::wallet::simulated::SimulatedNode;
use crate::wallet::{InvoiceRequest, Wallet as _};

pub(crate) fn claim(
    machine: &mut Peer,
    quote: &Quote,
    claim_hash: ClaimHash,
    notes: &[(u32, u32)],
    earlier: &[(QuoteId, u32, u32)],
) -> CreateWithdraw {
    let (journal_seq, journal_head) = machine.journal();
    let lot = |(quote_id, minor, count): &(QuoteId, u32, u32)| LockedNotes {
        quote_id: *quote_id,
        notes: [(note(*minor), *count)].into(),
    };
    CreateWithdraw {
        quote_id: quote.quote_id,
        txid: quote.txid,
        notes: notes.iter().map(|(minor, count)| (note(*minor), *count)).collect(),
        earlier: earlier.iter().map(lot).collect(),
        fiat_code: quote.fiat_code,
        journal_seq,
        journal_head,
        claim_hash,
    }
}

/// Loss prevented: notes stacked for which no sats are promised, or promised twice; books that do
/// not say so.
#[tokio::test]
async fn notes_become_one_withdraw_for_ever() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 5_000);
    let quote = machine.ask(asked).await.unwrap();
    assert_eq!(quote.max_fiat_minor, Some(5_000));
    assert_eq!((quote.principal_sats, quote.wire_sats), (sats(50_000), sats(47_500)));
    let id = world.machine_id;
    assert_eq!(world.read(move |read| quotes::reserved(read, id)).await, sats(47_500));

    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1), (1_000, 1)], &[]);
    let request =
        Request::new(RequestId::from_bytes(super::id()), machine.signed(body.clone())).unwrap();
    let session = machine.session.clone();
    let first = machine.request(&session, &request).await;
    assert_eq!(machine.request(&session, &request).await, first, "a lost reply");
    let withdraw = first.read::<VaultSigned<CreateWithdraw>>().unwrap().unwrap();
    assert_eq!((withdraw.net_sats, withdraw.fee_sats), (sats(28_500), sats(1_500)));
    let terms = withdraw.terms(key(&world.spire), key(&machine.vault), quote.txid);
    terms.verify(&withdraw.withdraw_sig, &machine.service).unwrap();
    let again = machine.ask(machine.signed(body.clone())).await.unwrap();
    assert_eq!(again, withdraw, "the same claim under another request id");

    let (hrp, url) = bech32::decode(withdraw.lnurl.expose()).unwrap();
    assert_eq!(hrp.as_str().to_lowercase(), "lnurl");
    let url = String::from_utf8(url).unwrap();
    let k1 = url.strip_prefix("https://pay.example/lnurl/w/").unwrap();
    let k1 = K1::parse(k1).unwrap();
    let served = world.read(move |read| withdraws::session(read, &k1)).await.unwrap();
    assert_eq!(served.withdraw_id, withdraw.withdraw_id);

    let mut more = body.clone();
    more.notes.insert(note(2_000), 2);
    let refused = machine.ask(machine.signed(more)).await;
    assert_eq!(refused, Err(ErrorCode::Conflict), "one withdraw a transaction");
    assert_eq!(world.read(move |read| quotes::reserved(read, id)).await, sats(0));
    assert_eq!(world.balance(Account::CustomerLiability(id)).await, -28_500);
    assert_eq!(world.balance(Account::Super).await, -600);
    let ask = GetPayment::WithdrawId(withdraw.withdraw_id);
    assert_eq!(machine.ask(ask).await.unwrap().state, PaymentState::Pending);
    assert_eq!(machine.ask(asked).await, Err(ErrorCode::Conflict), "the transaction has ended");
    world.books_hold().await;
}

/// A wallet names `bolt11` for what an LNURL offers, and is told this.
pub(crate) async fn named(app: &Arc<App>, withdraw: &Withdraw, bolt11: &str) -> serde_json::Value {
    let (_, url) = bech32::decode(withdraw.lnurl.expose()).unwrap();
    let url = String::from_utf8(url).unwrap();
    let path = url.strip_prefix("https://pay.example").unwrap();
    let k1 = path.rsplit('/').next().unwrap();
    let from = std::net::SocketAddr::from(([192, 0, 2, 7], 1));
    let routes = crate::lnurl::router(app).layer(MockConnectInfo(from));
    let call = axum::http::Request::get(format!("{path}/cb?k1={k1}&pr={bolt11}"));
    let answer = routes.oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), axum::http::StatusCode::OK);
    let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A customer's own node names its invoice for what an LNURL offers.
pub(crate) async fn fetched(world: &World, withdraw: &Withdraw) -> PaymentHash {
    let key = nostr::secp256k1::SecretKey::from_slice(&[9; 32]).unwrap();
    let customer = SimulatedNode::open(None, key, sats(0), world.app.clock.clone()).unwrap();
    let (amount, memo) = (withdraw.net_sats, String::new());
    let request = InvoiceRequest { amount, memo, expiry_s: 300, extra: json!({}) };
    let invoice = customer.wallet("c").make_invoice(request).await.unwrap();
    named(&world.app, withdraw, &invoice.bolt11).await;
    invoice.payment_hash
}

/// Loss prevented: a customer whose withdraw is paid while the machine goes on showing it; a fee
/// that is never distributed.
#[tokio::test]
async fn a_claimed_withdraw_is_paid_told_and_settled() {
    let (world, mut machine) = trading().await;
    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();

    let hash = fetched(&world, &withdraw).await;
    let (txid, withdraw_id) = (quote.txid, withdraw.withdraw_id);
    let claimed = Push::WithdrawClaimed(WithdrawClaimed { txid, withdraw_id });
    assert_eq!(machine.push().await, claimed);
    crate::payout::tests::round(&world.app).await.unwrap();
    let wire_sats = withdraw.net_sats;
    let paid = Push::WithdrawPaid(WithdrawPaid { txid, withdraw_id, wire_sats });
    assert_eq!(machine.push().await, paid);
    let payment = machine.ask(GetPayment::WithdrawId(withdraw_id)).await.unwrap();
    assert_eq!((payment.state, payment.wire_sats), (PaymentState::Settled, Some(wire_sats)));

    let till = world.app.wallets["till"].clone();
    crate::settle::reconcile(&world.app, &*till).await.unwrap();
    let kept = world.read(move |read| settlements::by_hash(read, hash)).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Accepted, "{:?}", kept.reason);
    assert_eq!(kept.distribution, Distribution::Pending);
    let id = world.machine_id;
    assert_eq!(world.balance(Account::CustomerLiability(id)).await, 0);
    assert_eq!(world.balance(Account::Wallet(id)).await, -19_000);
}

/// Loss prevented: sats for notes that no vault has, that are another machine's, or above a lock.
#[tokio::test]
async fn only_what_the_vault_stacked_under_its_locks_counts() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 5_000);
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let forged = VaultSigned::sign(body.clone(), &machine.session).unwrap();
    assert_eq!(machine.ask(forged).await, Err(ErrorCode::BadSignature));
    let above = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 3)], &[]);
    let above = machine.signed(above);
    assert_eq!(machine.ask(above).await, Err(ErrorCode::OverLimit));
    assert_eq!(world.audited("withdraw.above_lock").await, 1);
    let other = CreateWithdraw { claim_hash: ClaimHash::from_bytes(id()), ..body.clone() };
    let other = machine.signed(other);
    assert_eq!(machine.ask(other).await, Err(ErrorCode::Invalid), "another claim code");
    let sold = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    let wrong = CreateWithdraw { quote_id: sold.quote_id, ..body.clone() };
    let wrong = machine.signed(wrong);
    assert_eq!(machine.ask(wrong).await, Err(ErrorCode::Invalid), "a price for notes out");
    assert!(machine.ask(machine.signed(body)).await.is_ok(), "the good one still counts");
    world.books_hold().await;
}

/// Loss prevented: a rate that moved takes sats from notes fed before, or the fee is charged twice.
#[tokio::test]
async fn earlier_notes_keep_their_lock() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 3_000);
    let first = machine.ask(asked).await.unwrap();
    world.advance(100);
    let second = machine.ask(asked).await.unwrap();
    assert_ne!(first.quote_id, second.quote_id);
    let earlier = [(first.quote_id, 1_000, 2)];
    let body = claim(&mut machine, &second, asked.claim_hash, &[(500, 1)], &earlier);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    assert_eq!((withdraw.net_sats, withdraw.fee_sats), (sats(23_750), sats(1_250)));
    let id = world.machine_id;
    assert_eq!(world.read(move |read| quotes::reserved(read, id)).await, sats(0));
    let stamp = world
        .read(move |read| {
            Ok(crate::settle::withdraw_stamp(read, withdraw.withdraw_id).unwrap().unwrap())
        })
        .await;
    assert_eq!(stamp["principal_sats"], 25_000);
    assert_eq!(stamp["type"], "cash_in");
    world.books_hold().await;
}

/// Loss prevented: a wallet that answers but cannot pay takes notes that cannot be given back.
#[tokio::test]
async fn a_lock_promises_what_the_wallet_can_pay() {
    let world = World::new().await;
    let rpc = world.serve().await;
    let mut machine = world.in_service().await;
    // 100 000 in the wallet, 1 000 of it kept back for routing
    let big = machine.quote(Direction::CashIn, 50_000);
    let first = machine.ask(big).await.unwrap();
    assert!(first.fiat_minor < 50_000 && first.wire_sats <= sats(99_000), "{first:?}");
    assert!(first.wire_sats > sats(98_900), "as much as there is: {first:?}");
    let none = machine.ask(machine.quote(Direction::CashIn, 1_000)).await;
    assert_eq!(none, Err(ErrorCode::OverLimit), "all is reserved");
    world.advance(120 + limits::CLAIM_GRACE_S + 1);
    rpc.tidy().await.unwrap();
    let again = machine.ask(machine.quote(Direction::CashIn, 1_000)).await.unwrap();
    assert_eq!(again.fiat_minor, 1_000);
    world.app.simulated.as_ref().unwrap().set_reachable(false);
    let away = machine.ask(machine.quote(Direction::CashIn, 1_000)).await;
    assert_eq!(away, Err(ErrorCode::WalletUnavailable));
    let sold = machine.ask(machine.quote(Direction::CashOut, 1_000)).await;
    assert!(sold.is_ok(), "nothing is promised for it");
}

/// Loss prevented: a customer who walks away blocks the wallet for all others; or sats for stacked
/// notes are promised to somebody else.
#[tokio::test]
async fn a_lock_ends_when_the_machine_says_that_nothing_came_of_it() {
    let (world, mut machine) = serving().await;
    let id = world.machine_id;
    let asked = machine.quote(Direction::CashIn, 3_000);
    machine.ask(asked).await.unwrap();
    let reserved = async || world.read(move |read| quotes::reserved(read, id)).await;
    let early = sessions::state(&mut machine, &[]);
    machine.ask(early).await.unwrap();
    assert_eq!(reserved().await, sats(28_500), "the lock still holds");
    world.advance(121);
    let open = sessions::state(&mut machine, &[asked.txid]);
    machine.ask(open).await.unwrap();
    assert_eq!(reserved().await, sats(28_500), "notes may be stacked under it");
    let done = sessions::state(&mut machine, &[]);
    machine.ask(done).await.unwrap();
    assert_eq!(reserved().await, sats(0));
}

/// Loss prevented: a machine that takes more than its operator allows, or with a full cashbox.
#[tokio::test]
async fn a_machines_own_caps_hold() {
    let (world, mut machine) = serving().await;
    let id = world.machine_id;
    let caps = |max: Option<u64>, hour: Option<u64>, capacity: Option<u64>| machines::Settings {
        name: "Café".into(),
        place: "Sintra".into(),
        cash_in_fee_ppm: ppm(30_000),
        cash_out_fee_ppm: ppm(30_000),
        max_cash_in_sats: max.map(Sats),
        max_cash_in_hour_sats: hour.map(Sats),
        max_cash_in_day_sats: None,
        cashbox_capacity: capacity,
    };
    let settings = caps(Some(9_500), Some(15_000), Some(1));
    world.write(move |tx| machines::set_settings(tx, id, &settings)).await;
    let asked = machine.quote(Direction::CashIn, 5_000);
    let quote = machine.ask(asked).await.unwrap();
    assert_eq!((quote.fiat_minor, quote.wire_sats), (1_000, sats(9_500)));
    let second = machine.ask(machine.quote(Direction::CashIn, 5_000)).await.unwrap();
    assert!(second.wire_sats <= sats(5_500), "15 000 an hour, the lock counts: {second:?}");
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(1_000, 1)], &[]);
    machine.ask(machine.signed(body)).await.unwrap();
    let full = machine.ask(machine.quote(Direction::CashIn, 100)).await;
    assert_eq!(full, Err(ErrorCode::OverLimit), "one note fills this cashbox");
    let none = caps(Some(0), None, None);
    world.write(move |tx| machines::set_settings(tx, id, &none)).await;
    let refused = machine.ask(machine.quote(Direction::CashIn, 1_000)).await;
    assert_eq!(refused, Err(ErrorCode::OverLimit), "0 is none");
}

/// How a machine came out of service.
#[derive(Clone, Copy, Debug)]
enum Out {
    SwitchedOff,
    PairingOver,
    Alarm,
    Revoked,
}

/// Loss prevented: notes stacked in a machine that is switched off meanwhile get no sats, or a new
/// sale starts through the door that lets them finish.
#[tokio::test]
async fn what_was_stacked_is_paid_whatever_ended_the_service() {
    for out in [Out::SwitchedOff, Out::PairingOver, Out::Alarm, Out::Revoked] {
        let world = World::new().await;
        let (id, now, spire) = (world.machine_id, world.app.clock.now(), key(&world.spire));
        let ends = if matches!(out, Out::PairingOver) { now.after(60) } else { now.after(6_000) };
        world.write(move |tx| machines::set_paired(tx, id, spire, "spire-2", ends, now)).await;
        world.serve().await;
        let mut machine = world.in_service().await;
        // what has no session any more signs by its own key
        machine.session = machine.spire.clone();
        let asked = machine.quote(Direction::CashIn, 5_000);
        let lock = machine.ask(asked).await.unwrap();
        world
            .write(move |tx| match out {
                Out::SwitchedOff => machines::disable(tx, id, "to be moved", now),
                Out::PairingOver => Ok(()),
                Out::Alarm => machines::suspect(tx, id, "two journals", now),
                Out::Revoked => machines::revoke(tx, id, now),
            })
            .await;
        world.advance(61);
        let refused = match out {
            Out::SwitchedOff | Out::Alarm => ErrorCode::Disabled,
            Out::PairingOver => ErrorCode::TokenExpired,
            Out::Revoked => ErrorCode::Revoked,
        };
        // one that was revoked is told so once a minute: below
        if !matches!(out, Out::Revoked) {
            let another = machine.ask(asked).await;
            assert_eq!(another, Err(refused), "{out:?}: no second lock");
        }
        let body = claim(&mut machine, &lock, asked.claim_hash, &[(2_000, 1)], &[]);
        let invented = Quote { quote_id: QuoteId::from_bytes(super::id()), ..lock };
        let invented = claim(&mut machine, &invented, asked.claim_hash, &[(2_000, 1)], &[]);
        let (body, invented) = (machine.signed(body), machine.signed(invented));
        let claimed = machine.ask(body).await;
        match out {
            Out::SwitchedOff | Out::PairingOver => {
                let withdraw = claimed.unwrap();
                assert_eq!(withdraw.net_sats, sats(19_000));
                let ask = GetPayment::WithdrawId(withdraw.withdraw_id);
                assert_eq!(machine.ask(ask).await.unwrap().state, PaymentState::Pending);
                assert_eq!(machine.ask(invented).await, Err(ErrorCode::Invalid), "no lock of it");
            }
            Out::Alarm => assert_eq!(claimed, Err(refused), "a person looks first"),
            Out::Revoked => {
                assert_eq!(claimed, Err(refused), "no sats after a revoke");
                let of_claim = asked.claim_hash;
                let kept = world.read(move |read| claims::by_hash(read, of_claim)).await;
                assert!(kept.is_some(), "the customer's code is known");
            }
        }
        let kept = usize::from(matches!(out, Out::Revoked));
        assert_eq!(world.audited("withdraw.after_revoke").await, kept, "{out:?}");
        world.books_hold().await;
    }
}

/// Loss prevented: notes that lie in a machine which never comes back, and a customer who gets
/// nothing for them, or gets their sats twice because it does come back.
#[tokio::test]
async fn what_a_vault_claims_after_its_revoke_is_offered_once_on_a_persons_word() {
    let world = World::new().await;
    world.serve().await;
    let mut machine = world.in_service().await;
    machine.session = machine.spire.clone();
    let asked = machine.quote(Direction::CashIn, 5_000);
    let lock = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &lock, asked.claim_hash, &[(2_000, 1)], &[]);
    let body = machine.signed(body);
    let (id, now, app) = (world.machine_id, world.app.clock.now(), world.app.clone());
    let offer = async |operator, reason: &'static str| {
        after_revoke::offer(&app, ("test", operator), id, lock.txid, reason).await
    };
    assert!(matches!(offer(None, "gone").await, Err(FleetError::State { .. })), "it can claim");
    world.write(move |tx| machines::revoke(tx, id, now)).await;
    let none = offer(None, "gone").await;
    assert!(matches!(none, Err(FleetError::Invalid { field: "txid", .. })), "{none:?}");
    assert_eq!(machine.ask(body.clone()).await, Err(ErrorCode::Revoked));
    let kept = world.read(|read| after_revoke::list(read, None)).await;
    assert!(kept.len() == 1 && !kept[0].offered && kept[0].net_sats == 19_000, "{kept:?}");
    let stranger = offer(Some(OperatorId(9)), "gone").await;
    assert!(matches!(stranger, Err(FleetError::NoMachine(_))), "{stranger:?}");
    assert!(matches!(offer(None, " ").await, Err(FleetError::Invalid { field: "reason", .. })));
    let offered = offer(None, "gone").await.unwrap();
    assert_eq!((offered.net_sats, offer(None, "again").await.unwrap()), (sats(19_000), offered));
    assert_eq!(world.audited("withdraw.offered").await, 1);
    let of_claim = asked.claim_hash;
    let waits = world.read(move |read| withdraws::unpaid_under(read, of_claim)).await;
    assert_eq!(waits.len(), 1, "the claim code brings it");
    assert_eq!(world.balance(Account::CustomerLiability(id)).await, -19_000);

    // the machine comes back, and claims for itself
    world.advance(2);
    let (now, spire) = (world.app.clock.now(), key(&world.spire));
    world
        .write(move |tx| machines::set_paired(tx, id, spire, "spire-2", now.after(6_000), now))
        .await;
    machine.session = Keys::generate();
    machine.open_session().await.unwrap();
    world.confirm().await;
    let withdraw = machine.ask(body).await.unwrap();
    assert_eq!((withdraw.withdraw_id, withdraw.net_sats), (offered.withdraw_id, sats(19_000)));
    assert!(world.read(|read| after_revoke::list(read, None)).await[0].offered);
    world.books_hold().await;
}

/// Loss prevented: notes in a machine that was stolen, and a customer who gets nothing for them since
/// another machine has its number by now.
#[tokio::test]
async fn what_a_vault_claimed_is_offered_though_its_machine_has_another_by_now() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 5_000);
    let lock = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &lock, asked.claim_hash, &[(2_000, 1)], &[]);
    let body = machine.signed(body);
    let (id, now) = (world.machine_id, world.app.clock.now());
    world.write(move |tx| machines::revoke(tx, id, now)).await;
    assert_eq!(machine.ask(body).await, Err(ErrorCode::Revoked));
    world.advance(2);
    let (now, spire) = (world.app.clock.now(), key(&world.spire));
    let ends = now.after(6_000);
    world.write(move |tx| machines::set_paired(tx, id, spire, "spire-2", ends, now)).await;
    (machine.vault, machine.session) = (Keys::generate(), Keys::generate());
    machine.open_session().await.unwrap();
    world.confirm().await;
    let app = world.app.clone();
    let offer = async || after_revoke::offer(&app, ("test", None), id, lock.txid, "stolen").await;
    let offered = offer().await.unwrap();
    assert_eq!((offered.net_sats, offer().await.unwrap()), (sats(19_000), offered));
    assert_eq!(world.balance(Account::CustomerLiability(id)).await, -19_000);
    world.books_hold().await;
}

/// Loss prevented: notes claimed under the locks of a pairing that was replaced, by another vault.
#[tokio::test]
async fn a_lock_of_an_earlier_pairing_is_worth_nothing() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 5_000);
    let lock = machine.ask(asked).await.unwrap();
    world.advance(2);
    let (id, now, spire) = (world.machine_id, world.app.clock.now(), key(&world.spire));
    let ends = now.after(6_000);
    world.write(move |tx| machines::set_paired(tx, id, spire, "spire-2", ends, now)).await;
    (machine.vault, machine.session) = (Keys::generate(), Keys::generate());
    machine.open_session().await.unwrap();
    world.confirm().await;
    let body = claim(&mut machine, &lock, asked.claim_hash, &[(2_000, 1)], &[]);
    let body = machine.signed(body);
    assert_eq!(machine.ask(body).await, Err(ErrorCode::Invalid));
}
