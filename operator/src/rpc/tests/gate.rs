//! Who gets in, and what a request does however often it comes.

use super::*;
use crate::store::{event_ids, requests};

/// Loss prevented: strangers who make the service check signatures, answer, or fill its disk.
#[tokio::test]
async fn a_flood_of_strangers_leaves_one_row() {
    let world = World::new().await;
    let rpc = world.serve().await;
    let mut machine = world.in_service().await;
    let stranger = Keys::generate();
    let body = machine.quote(Direction::CashOut, 2_000);
    let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
    for _ in 0..200 {
        let event = machine.event(&stranger, &request.to_plaintext().unwrap());
        machine.send(&event).await;
    }
    // behind the flood on the same connection
    machine.ask(machine.quote(Direction::CashOut, 2_000)).await.unwrap();
    assert_eq!(rpc.counters()["not_in_roster"], 200);
    rpc.tidy().await.unwrap();
    let rows = world.read(|read| log::rejected(read, 100)).await;
    let rows: Vec<_> = rows.iter().filter(|row| row.reason == "not_in_roster").collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].count, rows[0].verified), (200, false));
    assert_eq!(rows[0].sender, Some(stranger.public_key().to_hex()));
    let (id, request) = (world.machine_id, request.request_id());
    assert_eq!(world.read(move |read| requests::find(read, id, request)).await, None);
}

/// Loss prevented: a retry that makes a second invoice, or another body under an id that is known.
#[tokio::test]
async fn the_same_request_has_one_effect_and_one_answer() {
    let (mut world, mut machine) = serving().await;
    let quote = machine.ask(machine.quote(Direction::CashOut, 2_000)).await.unwrap();
    let body = CreateInvoice { quote_id: quote.quote_id };
    let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
    let session = machine.session.clone();
    let first = machine.request(&session, &request).await;
    assert_eq!(machine.request(&session, &request).await, first);
    let invoice = first.clone().read::<CreateInvoice>().unwrap().unwrap();
    assert_eq!(machine.ask(body).await, Ok(invoice), "one invoice a quote");
    let other = CreateInvoice { quote_id: QuoteId::from_bytes(id()) };
    let other = Request::new(request.request_id(), other).unwrap();
    let refused = machine.request(&session, &other).await.read::<CreateInvoice>().unwrap();
    assert_eq!(refused.unwrap_err().code, ErrorCode::Conflict);

    world.restart().await;
    let _rpc = world.serve().await;
    assert_eq!(machine.request(&session, &request).await, first, "after a restart");
}

/// Loss prevented: what a relay kept and sends again after a restart is sold twice.
#[tokio::test]
async fn an_event_that_comes_again_after_a_restart_has_no_second_effect() {
    let (mut world, mut machine) = serving().await;
    let (session, id) = (machine.session.clone(), world.machine_id);
    let asked = machine.quote(Direction::CashOut, 2_000);
    let quote = Request::new(RequestId::from_bytes(super::id()), asked).unwrap();
    let quote = machine.event(&session, &quote.to_plaintext().unwrap());
    let bought = answer_to(&machine, &quote).await.read::<GetQuote>().unwrap().unwrap();
    let invoice = CreateInvoice { quote_id: bought.quote_id };
    let invoice = Request::new(RequestId::from_bytes(super::id()), invoice).unwrap();
    let invoice = machine.event(&session, &invoice.to_plaintext().unwrap());
    let made = answer_to(&machine, &invoice).await;
    let report = sessions::state(&mut machine, &[]);
    let report = Request::new(RequestId::from_bytes(super::id()), report).unwrap();
    let report = machine.event(&session, &report.to_plaintext().unwrap());
    let heard = answer_to(&machine, &report).await;
    let seen = async |world: &World| {
        world
            .read(move |read| {
                Ok((
                    crate::store::quotes::of_txn(read, id, asked.txid)?.len(),
                    crate::store::invoices::open(read, id, 9)?.len(),
                    machines::find(read, id)?.map(|machine| machine.journal_seq),
                ))
            })
            .await
    };
    let before = seen(&world).await;

    // with a window that has lost all: its effects are once for ever all the same
    world.restart().await;
    world.write(|tx| event_ids::prune(tx, Unix(u64::from(u32::MAX)), 0)).await;
    let rpc = world.serve().await;
    assert!(machine.ask(any_quote()).await.is_ok(), "an answer without a relay is lost");
    // from a relay that keeps what it should not
    for (event, answer) in [(&invoice, &made), (&report, &heard)] {
        rpc.clone().admit("wss://keeps", event.clone());
        assert_eq!(&next_to(&machine, event).await, answer);
    }
    rpc.clone().admit("wss://keeps", quote.clone());
    let again = next_to(&machine, &quote).await.read::<GetQuote>().unwrap().unwrap();
    assert_eq!(again.quote_id, bought.quote_id);
    assert_eq!(seen(&world).await, before);
    rpc.clone().admit("wss://keeps", invoice);
    assert!(machine.ask(any_quote()).await.is_ok());
    assert_eq!(rpc.counters()["duplicate"], 1, "seen since the restart");
}

/// Loss prevented: what a relay kept is decrypted and worked on again after each restart; a window
/// that grows for ever, or that costs the disk a flush for each request.
#[tokio::test]
async fn an_event_that_was_seen_before_a_restart_is_refused_after_it() {
    let (mut world, mut machine) = serving().await;
    let session = machine.session.clone();
    let asked = machine.quote(Direction::CashOut, 2_000);
    let quote = Request::new(RequestId::from_bytes(super::id()), asked).unwrap();
    let quote = machine.event(&session, &quote.to_plaintext().unwrap());
    let bought = answer_to(&machine, &quote).await.read::<GetQuote>().unwrap().unwrap();
    let mut fewest = u64::MAX;
    for _ in 0..8 {
        let before = world.app.store.stats().commits;
        machine.ask(any_quote()).await.unwrap();
        // the housekeeping has flushes of its own
        fewest = fewest.min(world.app.store.stats().commits - before);
    }
    assert_eq!(fewest, 1, "flushes of a request");
    let invoice = CreateInvoice { quote_id: bought.quote_id };
    let invoice = Request::new(RequestId::from_bytes(super::id()), invoice).unwrap();
    let invoice = machine.event(&session, &invoice.to_plaintext().unwrap());
    let made = answer_to(&machine, &invoice).await.read::<CreateInvoice>().unwrap().unwrap();
    let look = GetPayment::PaymentHash(made.payment_hash);
    let look = Request::new(RequestId::from_bytes(super::id()), look).unwrap();
    let look = machine.event(&session, &look.to_plaintext().unwrap());
    answer_to(&machine, &look).await;

    world.restart().await;
    let rpc = world.serve().await;
    assert!(machine.ask(any_quote()).await.is_ok(), "an answer without a relay is lost");
    for (n, event) in [&quote, &invoice, &look].into_iter().enumerate() {
        rpc.clone().admit("wss://keeps", event.clone());
        assert_eq!(rpc.counters()["duplicate"], n as u64 + 1, "{event:?}");
    }
    world.advance(121);
    rpc.tidy().await.unwrap();
    let left = world.read(|read| event_ids::live(read, Unix(0), 100)).await;
    assert!(left.is_empty(), "what its clock refuses is forgotten: {left:?}");
}

async fn answer_to(machine: &Peer, event: &Event) -> Reply {
    machine.send(event).await;
    next_to(machine, event).await
}

/// The reply to an event of the machine's session.
async fn next_to(machine: &Peer, event: &Event) -> Reply {
    loop {
        match machine.next(&machine.session).await {
            (Some(to), ServiceMessage::Reply(reply)) if to == event.id => return reply,
            _ => {}
        }
    }
}

/// Loss prevented: a request of a machine is dropped without a word, so that nobody finds out why.
#[tokio::test]
async fn what_cannot_be_read_is_answered_with_its_code() {
    let (world, mut machine) = serving().await;
    let session = machine.session.clone();
    let request_id = RequestId::from_bytes(id());
    for (plaintext, code) in [
        ("no json".to_string(), ErrorCode::Malformed),
        (
            json!({"rpc_name": "open_the_safe", "request_id": request_id, "body": {}}).to_string(),
            ErrorCode::UnknownRpc,
        ),
        (
            json!({"rpc_name": "create_invoice", "request_id": request_id,
                   "body": {"quote_id": QuoteId::from_bytes([1; 16]), "sats": 5}})
            .to_string(),
            ErrorCode::Malformed,
        ),
    ] {
        let event = machine.event(&session, &plaintext);
        machine.send(&event).await;
        let (to, message) = machine.next(&session).await;
        assert_eq!(to, Some(event.id));
        let ServiceMessage::Reply(Reply::Error { code: got, .. }) = message else {
            panic!("{message:?}");
        };
        assert_eq!(got, code, "{plaintext}");
    }
    let garbled =
        request_event(&key(&session), &machine.service, world.app.clock.now(), "x".into());
    machine.send(&garbled.sign_with_keys(&session).unwrap()).await;
    let (_, message) = machine.next(&session).await;
    let undecryptable = matches!(
        message,
        ServiceMessage::Reply(Reply::Error { request_id: None, code: ErrorCode::Malformed, .. })
    );
    assert!(undecryptable, "{message:?}");
    assert!(machine.ask(machine.quote(Direction::CashOut, 2_000)).await.is_ok(), "goes on");
}

/// Says that it fails.
struct Fails;

impl Resolver for Fails {
    fn keys(&self, read: &Read<'_>, now: Unix) -> Result<Vec<(PubKey, MachineId)>, StoreError> {
        Machines.keys(read, now)
    }

    fn resolve(
        &self,
        _: &Read<'_>,
        _: PubKey,
        _: Unix,
    ) -> Result<Option<roster::Route>, StoreError> {
        Err(StoreError::Busy)
    }
}

/// Loss prevented: money routed to a wallet that nobody chose, because nobody could say which.
#[tokio::test]
async fn without_an_answer_from_the_roster_nothing_is_served() {
    let world = World::new().await;
    let rpc = world.serve_with(vec![Box::new(Fails)]).await;
    let mut machine = world.machine().await;
    assert_eq!(machine.open_session().await, Err(ErrorCode::ResolverError));
    assert!(rpc.counters()["resolver_error"] > 0);
    world.app.stop.cancel();

    let world = World::new().await;
    let rpc = world.serve_with(vec![]).await;
    let machine = world.machine().await;
    let event = machine.event(&machine.spire, "{}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !rpc.counters().contains_key("no_resolver") {
        assert!(tokio::time::Instant::now() < deadline);
        machine.send(&event).await;
        tokio::task::yield_now().await;
    }
}

/// Loss prevented: a machine that is not in service sells, or its evidence is refused.
#[tokio::test]
async fn standing_is_held_in_the_transaction() {
    let world = World::new().await;
    let _rpc = world.serve().await;
    let mut machine = world.machine().await;
    machine.open_session().await.unwrap();
    assert_eq!(machine.ask(any_quote()).await, Err(ErrorCode::NotConfirmed));
    world.confirm().await;
    assert!(machine.ask(any_quote()).await.is_ok());

    let (id, now) = (world.machine_id, world.app.clock.now());
    world.write(move |tx| machines::disable(tx, id, "test", now)).await;
    assert_eq!(machine.ask(any_quote()).await, Err(ErrorCode::Disabled));
    world.write(move |tx| machines::enable(tx, id)).await;
    world.write(move |tx| machines::revoke(tx, id, now)).await;
    assert_eq!(machine.ask(any_quote()).await, Err(ErrorCode::Revoked));
    let report = sessions::state(&mut machine, &[]);
    assert!(machine.ask(report).await.is_ok(), "evidence of a revoked machine");
}

pub(super) fn any_quote() -> GetQuote {
    GetQuote {
        direction: Direction::CashOut,
        txid: TxnId::from_bytes(id()),
        fiat_minor: 2_000,
        fiat_code: "EUR".parse().unwrap(),
        claim_hash: ClaimHash::from_bytes(id()),
    }
}

/// Loss prevented: a pairing that goes on after its time, because bunkers do not end it.
#[tokio::test]
async fn the_pairing_ends_at_its_time() {
    let (world, mut machine) = serving().await;
    let (id, spire, now) = (world.machine_id, key(&world.spire), world.app.clock.now());
    world.write(move |tx| machines::set_paired(tx, id, spire, "spire-2", now.after(1), now)).await;
    world.advance(2);
    assert_eq!(machine.open_session().await, Err(ErrorCode::TokenExpired));
}

/// Loss prevented: service and machine that each work, and cannot speak through our own relay.
#[tokio::test]
async fn machines_are_served_through_the_embedded_relay() {
    let world = World::embedded().await;
    let _rpc = world.serve().await;
    let mut machine = world.in_service().await;
    let quote = machine.ask(any_quote()).await.unwrap();
    assert!(machine.ask(CreateInvoice { quote_id: quote.quote_id }).await.is_ok());
}
