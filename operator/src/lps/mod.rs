//! What an operator does with liquidity providers: registers them, enrols them, takes their fiat and
//! gives it back, settles what their sales came to.
//!
//! Promise: a machine of another currency than the provider's is refused in words; what is kept for a
//! provider is settled once. Where a provider's sats go is changed by [`crate::distribute::rules`]
//! only. Each act is in the audit log. Their fiat: [`Cash`].
//!
//! Failure policy: [`LpError`]; nothing was written.

mod cash;

use bitspire_shared::money::{Currency, Fiat, Sats};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};
use thiserror::Error;

use crate::app::App;
use crate::distribute::hands::{self, HandsError, How, Word};
use crate::fleet::{self, FleetError, machines};
use crate::ids::{DepositId, LpId, MachineId, OperatorId};
use crate::ledger::LedgerError;
use crate::store::lps::{self, DepositState, Enrolment, KeptLp, Lp, Mode, Terms};
use crate::store::{Read, StoreError, Tx, legs, settlements};

pub(crate) use cash::entry_of;
pub use cash::{Cash, deposit, end_deposit, give_back};

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum LpError {
    /// No such provider, or one of somebody else.
    #[error("there is no liquidity provider {0}")]
    None(LpId),
    /// No such deposit, or one of somebody else's provider.
    #[error("there is no deposit {0}")]
    NoDeposit(DepositId),
    /// What is so already.
    #[error("{0}")]
    Already(String),
    /// A deposit that has ended.
    #[error("deposit {id} is {state}: only a pending one is confirmed or cancelled")]
    Ended {
        /// Which one.
        id: DepositId,
        /// Where it stands.
        state: DepositState,
    },
    /// Another sum than some of the oldest kept legs make.
    #[error("sats: {0} is not what the oldest kept legs sum to: look again")]
    NotOldest(Sats),
    /// More than the provider has left.
    #[error("amount: expected at most the {left} that the provider has left, got {asked}")]
    TooMuch {
        /// What is left.
        left: Fiat,
        /// What was asked for.
        asked: Fiat,
    },
    /// Another value than fits.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The books.
    #[error("the books do not balance; nothing was written")]
    Ledger(#[from] LedgerError),
    /// A leg that is not ended.
    #[error(transparent)]
    Hands(#[from] Box<HandsError>),
}

impl From<StoreError> for LpError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

impl LpError {
    /// The field that is to blame, where one is.
    #[must_use]
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::TooMuch { .. } => Some("amount"),
            Self::Fleet(error) => error.field(),
            _ => None,
        }
    }
}

/// Who asks, and for whose providers they may.
#[derive(Clone, Debug)]
pub struct Asker {
    /// As the audit log names them.
    pub actor: String,
    /// Whose; `None` is everybody's.
    pub operator: Option<OperatorId>,
}

fn invalid(field: &'static str, expected: impl Into<String>, got: impl ToString) -> LpError {
    FleetError::Invalid { field, expected: expected.into(), got: got.to_string() }.into()
}

/// The provider, if it is one that an operator (`None`: anybody) may see.
///
/// # Errors
/// [`LpError::None`].
pub fn find(read: &Read<'_>, id: LpId, operator: Option<OperatorId>) -> Result<KeptLp, LpError> {
    let found = lps::find(read, id)?.ok_or(LpError::None(id))?;
    // somebody else's provider is told apart from none by nobody
    match operator.is_some_and(|operator| operator != found.operator_id) {
        true => Err(LpError::None(id)),
        false => Ok(found),
    }
}

fn log(
    tx: &Tx<'_>,
    who: &Asker,
    action: &str,
    lp: LpId,
    detail: Value,
    now: Unix,
) -> Result<(), LpError> {
    Ok(fleet::audit(tx, now, &who.actor, action, &format!("lp:{lp}"), detail)?)
}

fn some_text(field: &'static str, text: &str) -> Result<String, LpError> {
    let text = text.trim();
    match text.chars().count() {
        1..=100 => Ok(text.to_owned()),
        got => Err(invalid(field, "1 to 100 characters", format!("{got} of them"))),
    }
}

/// How a provider's fiat becomes sats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How.
    pub mode: Mode,
    /// Minor units a day at most; of the mode `fixed`.
    pub daily_limit_minor: Option<i64>,
}

impl Wanted {
    fn checked(self) -> Result<Self, LpError> {
        let expected = match (self.mode, self.daily_limit_minor) {
            (Mode::Flow, None) | (Mode::Fixed, Some(1..)) => return Ok(self),
            (Mode::Flow, Some(_)) => "none in the mode flow",
            (Mode::Fixed, _) => "a daily limit above 0 in the mode fixed",
        };
        let got = self.daily_limit_minor.map_or("none".into(), |limit| limit.to_string());
        Err(invalid("daily_limit", expected, got))
    }
}

fn write_terms(
    tx: &Tx<'_>,
    who: &Asker,
    lp: LpId,
    wanted: Wanted,
    now: Unix,
) -> Result<(), LpError> {
    let Wanted { mode, daily_limit_minor } = wanted;
    let actor = who.actor.clone();
    lps::set_terms(tx, &Terms { lp_id: lp, mode, daily_limit_minor, actor, created_at: now })?;
    Ok(())
}

/// What the audit log tells of terms.
fn terms(mode: Mode, daily_limit_minor: Option<i64>) -> Value {
    json!({ "mode": mode, "daily_limit_minor": daily_limit_minor })
}

/// Registers a provider of an operator.
///
/// # Errors
/// [`LpError`]: a name that is taken; terms that do not fit.
pub async fn register(
    app: &App,
    who: Asker,
    operator: Option<OperatorId>,
    name: &str,
    currency: Currency,
    wanted: Wanted,
) -> Result<LpId, LpError> {
    let (name, wanted, now) = (some_text("name", name)?, wanted.checked()?, app.clock.now());
    app.store
        .write(move |tx| {
            let operator_id = machines::operator_for(tx, who.operator, operator)?;
            if lps::list(tx, Some(operator_id))?.iter().any(|one| one.name == name) {
                return Err(LpError::Already(format!(
                    "name: there is a provider {name:?} already"
                )));
            }
            let lp = Lp {
                operator_id,
                name: name.clone(),
                currency,
                created_at: now,
                disabled_at: None,
            };
            let id = lps::insert(tx, &lp)?;
            write_terms(tx, &who, id, wanted, now)?;
            let detail = json!({
                "name": name, "currency": currency, "mode": wanted.mode,
                "daily_limit_minor": wanted.daily_limit_minor,
            });
            log(tx, &who, "lp.register", id, detail, now)?;
            Ok(id)
        })
        .await
}

/// Sets how a provider's fiat becomes sats, from the next sale on.
///
/// # Errors
/// [`LpError`].
pub async fn set_terms(app: &App, who: Asker, id: LpId, wanted: Wanted) -> Result<(), LpError> {
    let (wanted, now) = (wanted.checked()?, app.clock.now());
    app.store
        .write(move |tx| {
            find(tx, id, who.operator)?;
            let before = lps::terms_of(tx, id)?.map(|was| terms(was.mode, was.daily_limit_minor));
            write_terms(tx, &who, id, wanted, now)?;
            let mut detail = terms(wanted.mode, wanted.daily_limit_minor);
            detail["before"] = json!(before);
            log(tx, &who, "lp.terms", id, detail, now)
        })
        .await
}

/// Enrols a provider at a machine, or at every one of their currency, now and later.
///
/// # Errors
/// [`LpError`]: a machine of another currency; enrolled there already.
pub async fn enrol(
    app: &App,
    who: Asker,
    id: LpId,
    machine: Option<MachineId>,
) -> Result<(), LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            let lp = find(tx, id, who.operator)?;
            if let Some(machine) = machine {
                let found = machines::find(tx, machine, Some(lp.operator_id))?;
                if found.currency != lp.currency {
                    let expected = format!("a machine in {}, the provider's currency", lp.currency);
                    return Err(invalid("machine", expected, found.currency));
                }
            }
            let at = |one: &Enrolment| one.machine_id == machine && one.ended_at.is_none();
            if lps::enrolments(tx, id)?.iter().any(at) {
                return Err(LpError::Already("the provider is enrolled there already".into()));
            }
            lps::enrol(
                tx,
                &Enrolment { lp_id: id, machine_id: machine, since: now, ended_at: None },
            )?;
            log(tx, &who, "lp.enrol", id, json!({ "machine": machine }), now)
        })
        .await
}

/// Ends an enrolment; what the provider has left stays theirs.
///
/// # Errors
/// [`LpError`].
pub async fn leave(
    app: &App,
    who: Asker,
    id: LpId,
    machine: Option<MachineId>,
) -> Result<(), LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            find(tx, id, who.operator)?;
            match lps::leave(tx, id, machine, now) {
                Err(StoreError::NotOneRow { .. }) => {
                    return Err(LpError::Already("the provider is not enrolled there".into()));
                }
                done => done?,
            }
            log(tx, &who, "lp.leave", id, json!({ "machine": machine }), now)
        })
        .await
}

/// Lets a provider take no part in sales, or part again.
///
/// # Errors
/// [`LpError`].
pub async fn set_disabled(app: &App, who: Asker, id: LpId, off: bool) -> Result<(), LpError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            let lp = find(tx, id, who.operator)?;
            let to = off.then_some(now);
            match lps::set_disabled(tx, id, to) {
                Err(StoreError::NotOneRow { .. }) => {
                    return Err(LpError::Already("that is so already".into()));
                }
                done => done?,
            }
            let action = if off { "lp.disable" } else { "lp.enable" };
            let before = json!({ "disabled_at": lp.disabled_at });
            log(tx, &who, action, id, json!({ "disabled_at": to, "before": before }), now)
        })
        .await
}

/// Settles by hand `sats` of what is kept for a provider, as the oldest kept legs make it: the operator
/// has paid it by other means, and the sats in the machines' wallets are the operator's. What a sale
/// adds after somebody has looked, and before they settle, stays kept.
///
/// # Errors
/// [`LpError`]: no reason; nothing is kept for them; no such sum.
pub async fn settle(
    app: &App,
    who: Asker,
    id: LpId,
    sats: Sats,
    reason: &str,
) -> Result<(), LpError> {
    let (reason, now) = (some_text("reason", reason)?, app.clock.now());
    app.store
        .write(move |tx| {
            find(tx, id, who.operator)?;
            let word = Word {
                actor: who.actor.clone(),
                operator: who.operator,
                platform: false,
                reason: reason.clone(),
            };
            let kept = legs::kept_for(tx, id)?;
            if kept.is_empty() {
                return Err(LpError::Already("nothing is kept for the provider".into()));
            }
            let mut settled = Sats::ZERO;
            for leg in kept {
                if settled >= sats {
                    break;
                }
                let of = settlements::find(tx, leg.settlement_id)?;
                let of = of.ok_or_else(|| boxed(HandsError::NoSettlement(leg.settlement_id)))?;
                hands::end(tx, &of, &leg, How::ByHand, &word, now).map_err(boxed)?;
                settled = settled.plus(leg.amount_sats).map_err(LedgerError::from)?;
            }
            if sats == Sats::ZERO || settled != sats {
                return Err(LpError::NotOldest(sats));
            }
            let detail = json!({ "sats": sats, "reason": reason });
            log(tx, &who, "lp.settle", id, detail, now)
        })
        .await
}

fn boxed(error: HandsError) -> LpError {
    LpError::Hands(Box::new(error))
}
