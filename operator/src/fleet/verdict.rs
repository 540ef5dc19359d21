//! Verdicts: a person's decision about a sale that cannot end by itself, signed by the operator key.
//!
//! Promise: a verdict is given only about what the machine itself reports as open to one, for no
//! more than it reports as missing, and one at a time. It is on record, signed, before the machine
//! hears of it, and is told again at each report of the machine until that shows that it was used,
//! or its time is over. No sat and no note is booked by it: what follows is booked when the machine
//! reports the end that it has made of it.
//!
//! Failure policy: [`FleetError`]; then nothing was written and the machine was told nothing.

use bitspire_shared::ids::{Nonce, PubKey, TxnId};
use bitspire_shared::money::{Direction, Fiat};
use bitspire_shared::rpc::{Doubt, OpenTxn, Push, StateReport, VerdictPush};
use bitspire_shared::statement::{SignedStatement, Statement, VerdictKind};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use serde_json::json;

use super::FleetError;
use super::machines::{find, last_report, subject};
use crate::app::{App, Ring};
use crate::ids::{MachineId, OperatorId};
use crate::rpc::push;
use crate::signer::SignerError;
use crate::store::machines::{KeptMachine, Machine};
use crate::store::verdicts::{self, KeptVerdict, Verdict, VerdictState};
use crate::store::{Json, Read, StoreError, Tx, log, operators};

/// How long a verdict that moves no note is good: a machine may be off for days.
const QUIET_S: u64 = 7 * 86_400;
/// How long one is good that moves notes in front of a customer whom the operator speaks with.
const PRESENT_S: u64 = 600;
/// How long the closing of a breaker is good.
const BREAKER_S: u64 = 3_600;
/// The alert of a machine whose breaker is open.
const BREAKER_OPEN: &str = "breaker_open";
/// What the bunker is asked for.
const STEP: &str = "sign the verdict";

/// What somebody decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The decision.
    pub verdict: VerdictKind,
    /// About which sale.
    pub txid: Option<TxnId>,
    /// What is missing, in minor units, where the decision is about an amount.
    pub amount_minor: Option<i64>,
}

/// The sales that a report says wait for a decision.
pub fn open(report: &StateReport) -> impl Iterator<Item = (&OpenTxn, &Doubt)> {
    report.open_transactions.iter().filter_map(|txn| Some((txn, txn.doubt.as_ref()?)))
}

/// Whether a report says that no notes go out until the breaker is closed.
#[must_use]
pub fn breaker_open(report: &StateReport) -> bool {
    report.alerts.iter().any(|alert| alert.code == BREAKER_OPEN)
}

/// A wish that may be granted.
struct Granted {
    spire: PubKey,
    vault: PubKey,
    operator: PubKey,
    amount_minor: i64,
    statement: Statement,
    /// Verdicts whose time is over.
    over: Vec<KeptVerdict>,
}

impl Granted {
    /// Whether nothing that counts has changed; the machine may have reported again.
    fn same(&self, other: &Self) -> bool {
        let of =
            |granted: &Self| (granted.spire, granted.vault, granted.operator, granted.amount_minor);
        of(self) == of(other)
    }
}

/// What becomes of a wish.
enum Answer {
    Granted(Box<Granted>),
    /// The same verdict is live.
    Known(Box<KeptVerdict>),
}

const fn lasts(kind: VerdictKind) -> u64 {
    match kind {
        VerdictKind::Owed | VerdictKind::Settled => QUIET_S,
        VerdictKind::DispenseRest | VerdictKind::Resume => PRESENT_S,
        VerdictKind::CloseBreaker => BREAKER_S,
    }
}

/// Decides.
///
/// # Errors
/// [`FleetError::State`] for a machine that takes no verdict, and for a second, different one;
/// [`FleetError::Invalid`] for what the machine does not report as open, and for an amount that
/// cannot be missing; [`FleetError::Bunker`] where the operator key does not sign.
pub async fn give(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    wish: Wish,
) -> Result<KeptVerdict, FleetError> {
    let (now, nonce) = (app.clock.now(), Nonce::from_bytes(random()?));
    let first = app.store.read(move |read| check(read, id, operator, wish, nonce, now)).await?;
    let granted = match first {
        Answer::Granted(granted) => granted,
        Answer::Known(known) => return Ok(*known),
    };
    let failed = |source| FleetError::Bunker { step: STEP, source };
    let signer = app.signer(granted.operator);
    let signer = signer.ok_or(failed(SignerError::NotSent { method: "sign_event" }))?;
    let unsigned = granted.statement.to_unsigned(&granted.operator, now);
    let unsigned = unsigned.map_err(|error| FleetError::Invalid {
        field: "amount_minor",
        expected: "an amount that can be signed".into(),
        got: error.to_string(),
    })?;
    let signed = signer.sign(unsigned).await.map_err(failed)?;
    let (signed, actor) = (SignedStatement::new(signed), actor.to_owned());
    let written = app.store.write(move |tx| {
        // the bunker took its time: whatever changed meanwhile counts
        match check(tx, id, operator, wish, nonce, now)? {
            Answer::Known(known) => Ok(*known),
            Answer::Granted(still) if still.same(&granted) => {
                let granted = Granted { over: still.over, ..*granted };
                write(tx, id, &granted, signed, &actor, now)
            }
            Answer::Granted(_) => Err(FleetError::State {
                machine: id,
                state: "further than it was when this was decided".into(),
                needs: "look at it again",
            }),
        }
    });
    let written: Result<KeptVerdict, FleetError> = written.await;
    // the push waits in the outbox
    app.ring(Ring::Outbox);
    written
}

fn write(
    tx: &Tx<'_>,
    id: MachineId,
    granted: &Granted,
    signed: SignedStatement,
    actor: &str,
    now: Unix,
) -> Result<KeptVerdict, FleetError> {
    for over in &granted.over {
        verdicts::end(tx, over.id, VerdictState::Lapsed, now)?;
    }
    let Granted { spire, vault, statement, .. } = granted;
    let Statement::Verdict { txid, journal_seq, verdict, amount_minor, nonce, not_after, .. } =
        statement
    else {
        return Err(FleetError::CutOff);
    };
    let detail = json!({
        "verdict": verdict, "txid": txid, "amount_minor": amount_minor,
        "journal_seq": journal_seq, "not_after": not_after,
    });
    let entry = log::Audit {
        at: now,
        actor: actor.to_owned(),
        action: "machine.verdict".to_owned(),
        subject: subject(id),
        detail: Json(detail),
        signed: Some(signed.to_json()),
    };
    log::audit(tx, &entry)?;
    let row = Verdict {
        machine_id: id,
        spire: *spire,
        vault: *vault,
        txid: *txid,
        verdict: *verdict,
        amount_minor: *amount_minor,
        journal_seq: *journal_seq,
        nonce: *nonce,
        statement: Json(signed),
        actor: actor.to_owned(),
        created_at: now,
        not_after: *not_after,
        state: VerdictState::Live,
        ended_at: None,
    };
    let kept = KeptVerdict { id: verdicts::insert(tx, &row)?, row };
    tell(tx, &kept, now)?;
    Ok(kept)
}

fn tell(tx: &Tx<'_>, verdict: &KeptVerdict, now: Unix) -> Result<(), StoreError> {
    let statement = verdict.statement.0.clone();
    let push = Push::Verdict(Box::new(VerdictPush { statement }));
    push::queue(tx, verdict.machine_id, &push, now)
}

/// Whether the machine would not take it any more.
#[must_use]
pub fn lapsed(verdict: &Verdict, machine: &Machine, now: Unix) -> bool {
    now > verdict.not_after
        || machine.machine_npub != Some(verdict.spire)
        || machine.vault_key != Some(verdict.vault)
}

/// In the transaction that takes a report: verdicts that it shows as used, or as settled without
/// them, end; the others are told again.
///
/// # Errors
/// [`StoreError`].
pub fn heard(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    now: Unix,
) -> Result<(), StoreError> {
    for verdict in verdicts::live(tx, machine.id)? {
        let open = match verdict.txid {
            Some(txid) => open(report).any(|(open, _)| open.txid == txid),
            None => breaker_open(report),
        };
        let end = if report.used_nonces.contains(&verdict.nonce) {
            Some(VerdictState::Used)
        } else if lapsed(&verdict, machine, now) {
            Some(VerdictState::Lapsed)
        } else if !open && report.journal_seq > verdict.journal_seq {
            Some(VerdictState::Moot)
        } else {
            None
        };
        match end {
            None => tell(tx, &verdict, now)?,
            Some(end) => {
                verdicts::end(tx, verdict.id, end, now)?;
                let detail = json!({ "verdict": verdict.verdict, "txid": verdict.txid });
                let action = format!("verdict.{end}");
                log::by_service(tx, &action, &subject(machine.id), detail, now)?;
                tracing::info!(event = "verdict_ended", machine = %machine.id, state = %end);
            }
        }
    }
    Ok(())
}

fn check(
    read: &Read<'_>,
    id: MachineId,
    operator: Option<OperatorId>,
    wish: Wish,
    nonce: Nonce,
    now: Unix,
) -> Result<Answer, FleetError> {
    let machine = find(read, id, operator)?;
    let state = |state: String, needs| Err(FleetError::State { machine: id, state, needs });
    if machine.revoked_at.is_some() {
        return state("revoked".into(), "it takes no verdict any more");
    }
    let (Some(spire), Some(vault)) = (machine.machine_npub, machine.vault_key) else {
        return state(machine.confirmation.to_string(), "pair it and start it first");
    };
    let operator = operators::find(read, machine.operator_id)?.and_then(|one| one.pubkey);
    let operator = operator.ok_or(FleetError::NoIdentity)?;
    let Some((_, report)) = last_report(read, &machine)? else {
        return state("silent since it was paired".into(), "wait for its first report");
    };
    let amount_minor = amount(&machine, &report, wish)?;
    let mut over = Vec::new();
    for live in verdicts::live(read, id)?.into_iter().filter(|live| live.txid == wish.txid) {
        if lapsed(&live, &machine, now) {
            over.push(live);
        } else if (live.verdict, live.amount_minor) == (wish.verdict, amount_minor) {
            return Ok(Answer::Known(Box::new(live)));
        } else {
            let words = format!("being told another verdict, until {}", live.not_after.0);
            return state(words, "wait until the machine has used it, or its time is over");
        }
    }
    let statement = Statement::Verdict {
        spire,
        vault,
        txid: wish.txid,
        journal_seq: report.journal_seq,
        verdict: wish.verdict,
        amount_minor,
        nonce,
        not_after: now.after(lasts(wish.verdict)),
    };
    Ok(Answer::Granted(Box::new(Granted { spire, vault, operator, amount_minor, statement, over })))
}

/// The amount that the verdict names, if the machine's report allows it.
fn amount(machine: &Machine, report: &StateReport, wish: Wish) -> Result<i64, FleetError> {
    let bad = |field, expected: String, got: String| FleetError::Invalid { field, expected, got };
    let kind = wish.verdict;
    let fixed = |only: i64| match wish.amount_minor {
        Some(got) if got != only => Err(bad("amount_minor", only.to_string(), got.to_string())),
        _ => Ok(only),
    };
    if kind == VerdictKind::CloseBreaker {
        if let Some(txid) = wish.txid {
            return Err(bad("txid", "none: it is about the machine".into(), txid.to_string()));
        }
        if !breaker_open(report) {
            let expected = "a machine that reports its breaker as open";
            return Err(bad("verdict", expected.into(), "one that does not".into()));
        }
        return fixed(0);
    }
    let found = open(report).find(|(open, _)| Some(open.txid) == wish.txid);
    let Some((sale, doubt)) = found else {
        let all: Vec<_> = open(report).map(|(open, _)| open.txid.to_string()).collect();
        let expected = match all.is_empty() {
            true => "a sale that the machine reports as undecided; it reports none".to_owned(),
            false => format!("a sale that the machine reports as undecided: {}", all.join(", ")),
        };
        let got = wish.txid.map_or("none".to_owned(), |txid| txid.to_string());
        return Err(bad("txid", expected, got));
    };
    let rest = doubt.rest_minor;
    match (sale.direction, sale.state.as_str(), kind) {
        (Direction::CashOut, "uncertain" | "paid_waiting", VerdictKind::Settled)
        | (Direction::CashIn, "uncertain", VerdictKind::Settled)
        | (Direction::CashOut, "paid_waiting", VerdictKind::Resume) => fixed(0),
        (Direction::CashOut, "paid_waiting", VerdictKind::Owed | VerdictKind::DispenseRest) => {
            fixed(rest)
        }
        // paid, and this pairing cannot give the leave: it was another one's
        (Direction::CashOut, "invoiced", VerdictKind::Owed) => fixed(rest),
        (Direction::CashIn, "uncertain", VerdictKind::Owed) if rest > 0 => fixed(rest),
        (Direction::CashOut, "uncertain", VerdictKind::Owed | VerdictKind::DispenseRest) => {
            let least = rest.saturating_sub(doubt.unknown_minor).max(1);
            let shown = |minor| Fiat { minor, currency: machine.currency };
            match wish.amount_minor {
                Some(minor) if (least..=rest).contains(&minor) => Ok(minor),
                got => {
                    let expected = format!(
                        "what the customer did not get, in minor units, from {least} ({}) to \
                         {rest} ({})",
                        shown(least),
                        shown(rest)
                    );
                    let got = got.map_or("none".to_owned(), |minor| minor.to_string());
                    Err(bad("amount_minor", expected, got))
                }
            }
        }
        (direction, state, _) => {
            let expected = format!("a verdict that fits a {direction} which is {state}");
            Err(bad("verdict", expected, json!(kind).as_str().unwrap_or_default().to_owned()))
        }
    }
}
