//! A sale whose notes nobody knows, from the machine's report to its end by a verdict.

use bitspire_shared::cash::BayResult;
use bitspire_shared::statement::VerdictKind;
use nostr::UnsignedEvent;
use zeroize::Zeroizing;

use super::cash_in::claim;
use super::cash_out::{Sale, debts, loaded, offered, pay, settlement};
use super::revoked::{paired_again, revoke};
use super::*;
use crate::audit;
use crate::fleet::FleetError;
use crate::fleet::verdict::{Wish, give};
use crate::signer::{RemoteSigner, SignerError, SignerResult};
use crate::store::operators::SignerKind;
use crate::store::settlements::Distribution;
use crate::store::verdicts::{self, KeptVerdict, VerdictState};

/// A bunker that answers for the operator key `key`.
pub(crate) struct Bunker {
    pub(crate) key: PubKey,
    pub(crate) keys: Keys,
}

impl RemoteSigner for Bunker {
    fn key(&self) -> PubKey {
        self.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        Box::pin(async move { Ok(event.sign_with_keys(&self.keys).unwrap()) })
    }

    fn encrypt(&self, _: PubKey, _: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async { Err(SignerError::NotConfigured) })
    }

    fn decrypt(&self, _: PubKey, _: String) -> SignerResult<'_, Zeroizing<String>> {
        Box::pin(async { Err(SignerError::NotConfigured) })
    }
}

/// A machine with loaded bays, whose operator has a key.
async fn decidable() -> (World, Peer, PubKey) {
    let (world, machine) = trading().await;
    loaded(&world).await;
    let keys = Keys::generate();
    let operator = key(&keys);
    let id = world.machine_id;
    world
        .write(move |tx| {
            let owner = machines::find(tx, id)?.unwrap().operator_id;
            operators::set_identity(tx, owner, operator, SignerKind::Bunker, Some("operator"))
        })
        .await;
    world.app.set_signer(Arc::new(Bunker { key: operator, keys }));
    (world, machine, operator)
}

fn doubt(rest_minor: i64, unknown_minor: i64) -> Doubt {
    Doubt { rest_minor, unknown_minor, evidence: "the power went".into() }
}

/// What a machine says of one sale, and of the nonces that it has used.
fn said(
    machine: &mut Peer,
    open: Option<(&Sale, &str, Doubt)>,
    used: &[Nonce],
) -> VaultSigned<StateReport> {
    let open = open.into_iter().map(|(sale, state, doubt)| open_txn(&sale.quote, state, doubt));
    beat(machine, open.collect(), used)
}

fn open_txn(quote: &Quote, state: &str, doubt: Doubt) -> OpenTxn {
    OpenTxn {
        txid: quote.txid,
        direction: quote.direction,
        state: state.into(),
        fiat_minor: Some(quote.fiat_minor),
        since: Unix(1),
        doubt: Some(doubt),
    }
}

/// What a machine says of its open sales, and of the nonces that it has used.
fn beat(machine: &mut Peer, open: Vec<OpenTxn>, used: &[Nonce]) -> VaultSigned<StateReport> {
    let signed = super::sessions::state(machine, &[]);
    let mut body = serde_json::to_value(&signed).unwrap();
    body.as_object_mut().unwrap().remove("vault_sig");
    let mut report: StateReport = serde_json::from_value(body).unwrap();
    report.used_nonces = used.to_vec();
    report.open_transactions = open;
    machine.signed(report)
}

/// Bay 1 with `picked` of two notes, `None` where nobody knows.
fn report(
    machine: &mut Peer,
    sale: &Sale,
    outcome: DispenseOutcome,
    picked: Option<u32>,
    owed_minor: i64,
) -> VaultSigned<DispenseReport> {
    let (journal_seq, journal_head) = machine.journal();
    let presented = picked.unwrap_or(0);
    let result = BayResult { requested: 2, picked, presented, ..BayResult::default() };
    machine.signed(DispenseReport {
        txid: sale.quote.txid,
        payment_hash: sale.invoice.payment_hash,
        outcome,
        bays: [(BayId::new(1).unwrap(), result)].into(),
        owed_minor,
        journal_seq,
        journal_head,
    })
}

/// A paid sale of 40 EUR whose two notes nobody knows about.
async fn uncertain(world: &World, machine: &mut Peer) -> Sale {
    let sale = offered(machine, 4_000).await;
    pay(world, &sale.invoice, None);
    machine.push().await;
    let lost = report(machine, &sale, DispenseOutcome::Uncertain, None, 4_000);
    machine.ask(lost).await.unwrap();
    let beat = said(machine, Some((&sale, "uncertain", doubt(4_000, 4_000))), &[]);
    machine.ask(beat).await.unwrap();
    sale
}

fn wish(sale: &Sale, verdict: VerdictKind, amount_minor: Option<i64>) -> Wish {
    Wish { verdict, txid: Some(sale.quote.txid), amount_minor }
}

async fn decide(world: &World, wish: Wish) -> Result<KeptVerdict, FleetError> {
    give(&world.app, "test", None, world.machine_id, wish).await
}

async fn told(machine: &mut Peer, operator: &PubKey, now: Unix) -> Statement {
    loop {
        if let Push::Verdict(push) = machine.push().await {
            return push.statement.check(operator, now).unwrap();
        }
    }
}

async fn state(world: &World, verdict: &KeptVerdict) -> VerdictState {
    let (machine, id) = (world.machine_id, verdict.id);
    let all = world.read(move |read| verdicts::newest(read, machine, 100)).await;
    all.into_iter().find(|one| one.id == id).unwrap().state
}

async fn notes(world: &World, account: Account) -> i64 {
    let eur = Unit::Fiat("EUR".parse().unwrap());
    world.read(move |read| ledger::balance(read, account, eur)).await
}

/// Loss prevented: a verdict that never reaches a machine which was off when it was given; one that
/// is told for ever; notes or sats booked for a verdict that the machine has not carried out.
#[tokio::test]
async fn a_verdict_is_told_until_it_was_used_and_booked_by_the_machines_report() {
    let (world, mut machine, operator) = decidable().await;
    let bay = Account::Bay(world.machine_id, BayId::new(1).unwrap(), super::cash_out::note(2_000));
    let suspense = Account::Suspense(world.machine_id);
    for (kind, amount, end, picked, owed, sats) in [
        (VerdictKind::Owed, Some(4_000), DispenseOutcome::None, 0, 4_000, Some(42_000)),
        (VerdictKind::Owed, Some(2_000), DispenseOutcome::Partial, 1, 2_000, Some(21_000)),
        (VerdictKind::Settled, None, DispenseOutcome::Full, 2, 0, None),
    ] {
        let before = notes(&world, bay).await;
        let sale = uncertain(&world, &mut machine).await;
        assert_eq!(notes(&world, suspense).await, 4_000, "two notes may have left the bay");
        let held = settlement(&world, &sale).await;
        assert_eq!(held.hold_reason.as_deref(), Some("uncertain"));
        let verdict = decide(&world, wish(&sale, kind, amount)).await.unwrap();
        let now = world.app.clock.now();
        let statement = told(&mut machine, &operator, now).await;
        assert_eq!((statement.nonce(), statement.spire()), (verdict.nonce, key(&world.spire)));
        assert_eq!(notes(&world, suspense).await, 4_000, "nothing is booked for a wish");
        assert_eq!(debts(&world, &sale).await, []);
        // the machine did not hear it, and says the same as before
        let beat = said(&mut machine, Some((&sale, "uncertain", doubt(4_000, 4_000))), &[]);
        machine.ask(beat).await.unwrap();
        assert_eq!(told(&mut machine, &operator, now).await, statement);
        let done = report(&mut machine, &sale, end, Some(picked), owed);
        machine.ask(done).await.unwrap();
        let beat = said(&mut machine, None, &[verdict.nonce]);
        machine.ask(beat).await.unwrap();
        assert_eq!(state(&world, &verdict).await, VerdictState::Used);
        assert_eq!(notes(&world, suspense).await, 0);
        assert_eq!(notes(&world, bay).await, before - 2_000 * i64::from(picked));
        let owes: Vec<_> = sats.map(|sats| ("undispensed".to_owned(), sats)).into_iter().collect();
        assert_eq!(debts(&world, &sale).await, owes);
        assert_eq!(settlement(&world, &sale).await.distribution, Distribution::Pending);
        world.books_hold().await;
    }
    let audit = audit::run(&world.app).await.unwrap();
    let derived = [audit::Check::Ledger, audit::Check::Dispense];
    let mut sales = audit.differences;
    sales.retain(|found| derived.contains(&found.check) && !found.found.contains("refilled"));
    assert!(sales.is_empty(), "{sales:?}");
}

/// Loss prevented: a sale decided twice and differently, paid beyond what was promised, or decided
/// though its machine knows how it ended.
#[tokio::test]
async fn only_what_the_machine_reports_as_open_is_decided_and_once() {
    let (world, mut machine, _) = decidable().await;
    let sale = uncertain(&world, &mut machine).await;
    let (owed, rest) = (VerdictKind::Owed, VerdictKind::DispenseRest);
    let other = TxnId::from_bytes(id());
    for (wish, field) in [
        (Wish { txid: Some(other), ..wish(&sale, owed, Some(4_000)) }, "txid"),
        (Wish { txid: None, ..wish(&sale, owed, Some(4_000)) }, "txid"),
        (wish(&sale, owed, None), "amount_minor"),
        (wish(&sale, owed, Some(4_001)), "amount_minor"),
        (wish(&sale, owed, Some(0)), "amount_minor"),
        (wish(&sale, rest, Some(-1)), "amount_minor"),
        (wish(&sale, VerdictKind::Settled, Some(1)), "amount_minor"),
        (wish(&sale, VerdictKind::Resume, None), "verdict"),
        (wish(&sale, VerdictKind::CloseBreaker, None), "txid"),
        (Wish { verdict: VerdictKind::CloseBreaker, txid: None, amount_minor: None }, "verdict"),
    ] {
        let refused = decide(&world, wish).await.unwrap_err();
        assert_eq!(refused.field(), Some(field), "{wish:?}: {refused}");
    }
    let first = decide(&world, wish(&sale, owed, Some(4_000))).await.unwrap();
    let again = decide(&world, wish(&sale, owed, Some(4_000))).await.unwrap();
    assert_eq!(first.id, again.id, "the same once more is the same");
    for second in [wish(&sale, owed, Some(2_000)), wish(&sale, VerdictKind::Settled, None)] {
        let refused = decide(&world, second).await.unwrap_err();
        assert!(matches!(refused, FleetError::State { .. }), "{refused}");
    }
    // its time over, another one may be given; the machine ends the sale by itself before it
    world.advance(7 * 86_400 + 1);
    machine.session = Keys::generate();
    machine.open_session().await.unwrap();
    let second = decide(&world, wish(&sale, VerdictKind::Settled, None)).await.unwrap();
    assert_eq!(state(&world, &first).await, VerdictState::Lapsed);
    let beat = said(&mut machine, None, &[]);
    machine.ask(beat).await.unwrap();
    assert_eq!(state(&world, &second).await, VerdictState::Moot);
    let refused = decide(&world, wish(&sale, VerdictKind::Settled, None)).await.unwrap_err();
    assert_eq!(refused.field(), Some("txid"));
    assert_eq!(world.audited("machine.verdict").await, 2);

    let (id, now) = (world.machine_id, world.app.clock.now());
    world.write(move |tx| machines::revoke(tx, id, now)).await;
    let refused = decide(&world, wish(&sale, VerdictKind::Settled, None)).await.unwrap_err();
    assert!(matches!(refused, FleetError::State { .. }), "{refused}");
}

/// Loss prevented: a customer who was paid by hand leaves a machine that can never say so, since
/// its notes do not sum up.
#[tokio::test]
async fn a_sale_that_waits_is_settled_without_notes() {
    let (world, mut machine, operator) = decidable().await;
    let sale = offered(&mut machine, 4_000).await;
    pay(&world, &sale.invoice, None);
    machine.push().await;
    let beat = said(&mut machine, Some((&sale, "paid_waiting", doubt(4_000, 0))), &[]);
    machine.ask(beat).await.unwrap();
    let refused = decide(&world, wish(&sale, VerdictKind::Owed, Some(2_000))).await.unwrap_err();
    assert_eq!(refused.field(), Some("amount_minor"), "all of it waits");
    decide(&world, wish(&sale, VerdictKind::Settled, None)).await.unwrap();
    let now = world.app.clock.now();
    told(&mut machine, &operator, now).await;
    let full = report(&mut machine, &sale, DispenseOutcome::Full, Some(0), 0);
    machine.ask(full).await.unwrap();
    let kept = settlement(&world, &sale).await;
    assert_eq!(
        (kept.dispense_outcome, kept.distribution),
        (Some(DispenseOutcome::Full), Distribution::Pending,)
    );
    world.books_hold().await;
}

/// Loss prevented: sats of a customer whose machine was revoked before it heard of the payment: held
/// for ever, with a claim to nothing.
#[tokio::test]
async fn a_sale_paid_before_a_revoke_is_owed_after_another_pairing() {
    let (world, mut machine, operator) = decidable().await;
    let sale = offered(&mut machine, 4_000).await;
    pay(&world, &sale.invoice, None);
    machine.push().await;
    revoke(&world).await;
    let mut anew = paired_again(&world, &machine).await;
    let beat = said(&mut anew, Some((&sale, "invoiced", doubt(4_000, 0))), &[]);
    anew.ask(beat).await.unwrap();
    for (kind, amount) in [
        (VerdictKind::Owed, Some(2_000)),
        (VerdictKind::Settled, None),
        (VerdictKind::Resume, None),
        (VerdictKind::DispenseRest, Some(4_000)),
    ] {
        assert!(decide(&world, wish(&sale, kind, amount)).await.is_err(), "{kind:?}");
    }
    let verdict = decide(&world, wish(&sale, VerdictKind::Owed, None)).await.unwrap();
    assert_eq!(verdict.amount_minor, 4_000);
    let now = world.app.clock.now();
    assert_eq!(told(&mut anew, &operator, now).await.spire(), key(&anew.spire));
    let done = report(&mut anew, &sale, DispenseOutcome::None, Some(0), 4_000);
    anew.ask(done).await.unwrap();
    assert_eq!(debts(&world, &sale).await, [("undispensed".to_owned(), 42_000)]);
    world.books_hold().await;
}

/// Loss prevented: a note that nobody knew about when its machine was revoked: never its customer's,
/// although a person has found it in the cashbox since; or theirs twice.
#[tokio::test]
async fn a_note_in_doubt_over_a_revoke_is_claimed_by_a_verdict_after_another_pairing() {
    let (world, mut machine, operator) = decidable().await;
    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let in_doubt = open_txn(&quote, "uncertain", doubt(2_000, 2_000));
    let said = beat(&mut machine, vec![in_doubt.clone()], &[]);
    machine.ask(said).await.unwrap();
    revoke(&world).await;
    let owed = Wish { verdict: VerdictKind::Owed, txid: Some(quote.txid), amount_minor: None };
    let refused = decide(&world, owed).await.unwrap_err();
    assert!(matches!(refused, FleetError::State { .. }), "{refused}");
    // the lock is over, and what was kept back for it
    world.advance(120 + 900 + 1);
    let mut anew = paired_again(&world, &machine).await;
    let said = beat(&mut anew, vec![in_doubt], &[]);
    anew.ask(said).await.unwrap();
    let verdict = decide(&world, owed).await.unwrap();
    assert_eq!(verdict.amount_minor, 2_000);
    let now = world.app.clock.now();
    assert_eq!(told(&mut anew, &operator, now).await.nonce(), verdict.nonce);
    // the vault counts the note now, and claims it
    let body = claim(&mut anew, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = anew.ask(anew.signed(body.clone())).await.unwrap();
    assert_eq!(withdraw.net_sats.0, 19_000);
    let said = beat(&mut anew, vec![], &[verdict.nonce]);
    anew.ask(said).await.unwrap();
    assert_eq!(state(&world, &verdict).await, VerdictState::Used);
    assert_eq!(anew.ask(anew.signed(body)).await, Ok(withdraw), "one for ever");
    let liability = Account::CustomerLiability(world.machine_id);
    assert_eq!(world.balance(liability).await, -19_000);
    world.books_hold().await;
}
