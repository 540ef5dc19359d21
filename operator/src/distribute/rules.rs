//! Changing where fees, and liquidity providers' sats, go.
//!
//! Promise: a change is signed by the owner's key before it is written, is told in the log at once,
//! takes effect after a delay (none before the first sale) and can be cancelled until then. A wallet
//! that it names is of this instance, is no machine's, is not another operator's by the configuration,
//! and is in nobody else's rules that count or will.
//!
//! The owner's key is the operator's key, which lives in the bunker; for the platform's fee it is
//! that of the instance's first operator.
//!
//! Failure policy: [`RulesError`]; nothing was written.

use std::collections::BTreeMap;

use bitspire_shared::canonical::to_canonical;
use bitspire_shared::ids::PubKey;
use bitspire_shared::money::PPM;
use bitspire_shared::time::Unix;
use nostr::{Event, EventBuilder, JsonUtil as _, Kind, Tag, Timestamp, UnsignedEvent};
use serde_json::json;
use thiserror::Error;

use super::pay_request;
use crate::app::App;
use crate::fleet::{FleetError, machines};
use crate::http::error::in_words;
use crate::ids::{LpId, MachineId, OperatorId, RuleSetId};
use crate::lps::{self, LpError};
use crate::signer::SignerError;
use crate::store::machines as machine_rows;
use crate::store::rules::{self, Destination, KeptRules, RuleSet, Scope, Share};
use crate::store::{Json, Kept, Read, StoreError, Tx, log, operators, settlements};

/// Shares of one rule set at most.
const MOST: usize = 20;
/// Kind of the signed event (NIP-78).
const KIND: u16 = 30_078;
/// Its `d` tag.
const D_TAG: &str = "bitspire-statement:rules";
/// What the bunker is asked for.
const STEP: &str = "sign the rule set";

/// Why a rule set was not changed.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The operator, the machine, the bunker or the database.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// No such rule set, or one of somebody else.
    #[error("there is no rule set {0}")]
    None(RuleSetId),
    /// The provider.
    #[error(transparent)]
    Lp(#[from] LpError),
    /// One that counts already, or was cancelled.
    #[error("rule set {0} counts already or was cancelled: set another one")]
    Ended(RuleSetId),
}

impl From<StoreError> for RulesError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

/// A change that somebody wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whose fee.
    pub scope: Scope,
    /// The operator, where there are several; of the scope `operator` only.
    pub operator: Option<OperatorId>,
    /// The machine, of the scope `machine`.
    pub machine: Option<MachineId>,
    /// The provider, of the scope `lp`.
    pub lp: Option<LpId>,
    /// All of it; nothing leaves it in the machine's wallet, or with the operator's own rules.
    pub shares: Vec<Share>,
}

/// A wish, and what it is held against beside the database.
#[derive(Clone)]
struct Asked {
    actor: String,
    /// Whose rules the asker may change; `None` is everybody's.
    own: Option<OperatorId>,
    wish: Wish,
    /// Seconds until a change counts.
    delay: u64,
    /// Whose a wallet is, by the operator's name.
    owners: BTreeMap<String, String>,
}

/// A change that may be made.
struct Granted {
    /// Whose key signs.
    key: PubKey,
    rules: RuleSet,
}

fn invalid(field: &'static str, expected: impl Into<String>, got: impl ToString) -> RulesError {
    let (expected, got) = (expected.into(), got.to_string());
    FleetError::Invalid { field, expected, got }.into()
}

/// What the owner's key signs.
pub(crate) fn content(rules: &RuleSet) -> Result<String, FleetError> {
    let mut value = json!({
        "type": "rules", "scope": rules.scope, "operator": rules.operator_id,
        "machine": rules.machine_id, "shares": rules.shares.0, "actor": rules.actor,
        "created_at": rules.created_at, "in_force_at": rules.in_force_at,
    });
    if let (Some(lp), Some(fields)) = (rules.lp_id, value.as_object_mut()) {
        fields.insert("lp".into(), json!(lp));
    }
    to_canonical(&value).map_err(|error| FleetError::Invalid {
        field: "shares",
        expected: "values that can be signed".into(),
        got: error.to_string(),
    })
}

/// Whether `signed` is `author`'s signature under exactly these rules; in words where not.
///
/// # Errors
/// What does not hold.
pub(crate) fn holds(rules: &RuleSet, authors: &[PubKey]) -> Result<(), &'static str> {
    let event = Event::from_json(&rules.signed).map_err(|_| "no event")?;
    event.verify().map_err(|_| "its signature does not hold")?;
    if !authors.iter().any(|key| key.nostr() == event.pubkey) {
        return Err("signed by another key");
    }
    let said = content(rules).map_err(|_| "rules that cannot be signed")?;
    let named = event.tags.identifier() == Some(D_TAG) && event.kind == Kind::from(KIND);
    if event.content == said && named { Ok(()) } else { Err("signed for other rules") }
}

fn unsigned(granted: &Granted) -> Result<UnsignedEvent, FleetError> {
    Ok(EventBuilder::new(Kind::from(KIND), content(&granted.rules)?)
        .tag(Tag::identifier(D_TAG))
        .custom_created_at(Timestamp::from(granted.rules.created_at.0))
        .build(granted.key.nostr()))
}

/// Changes where a fee goes.
///
/// # Errors
/// [`RulesError`].
pub async fn change(
    app: &App,
    actor: &str,
    own: Option<OperatorId>,
    wish: Wish,
) -> Result<KeptRules, RulesError> {
    for share in &wish.shares {
        match &share.to {
            Destination::Wallet(id) if !app.wallets.contains_key(id) => {
                let known: Vec<_> = app.wallets.keys().map(String::as_str).collect();
                let expected = format!("a wallet of the configuration ({})", known.join(", "));
                return Err(invalid("shares", expected, id));
            }
            Destination::Wallet(_) => {}
            elsewhere => {
                let place = pay_request::place(elsewhere, &app.config.outgoing_allowed);
                let why = |error| in_words(&error);
                place.map_err(|error| {
                    let expected = "a Lightning address, or an https LNURL-pay";
                    invalid("shares", expected, format!("{elsewhere}: {}", why(error)))
                })?;
            }
        }
    }
    let (now, delay) = (app.clock.now(), app.config.rules_delay_s);
    let owners = app.config.wallet_operators.clone();
    let asked = Asked { actor: actor.to_owned(), own, wish, delay, owners };
    let first = asked.clone();
    let granted: Granted = app.store.read(move |read| check(read, &first, now)).await?;
    let failed = |source| FleetError::Bunker { step: STEP, source };
    let signer = app.signer(granted.key);
    let signer = signer.ok_or(failed(SignerError::NotSent { method: "sign_event" }))?;
    let signed = signer.sign(unsigned(&granted)?).await.map_err(failed)?;
    let signed = signed.as_json();
    let written: Result<KeptRules, RulesError> = app
        .store
        .write(move |tx| {
            // the bunker took its time: whatever changed meanwhile counts
            let still = check(tx, &asked, now)?;
            if still.rules != granted.rules || still.key != granted.key {
                return Err(invalid("shares", "the state that was signed", "another one"));
            }
            write(tx, RuleSet { signed, ..granted.rules }, now)
        })
        .await;
    let written = written?;
    tracing::warn!(
        event = "rules_changed", scope = %written.scope, rules = %written.id, actor,
        in_force_at = written.in_force_at.0
    );
    Ok(written)
}

fn write(tx: &Tx<'_>, rules: RuleSet, now: Unix) -> Result<KeptRules, RulesError> {
    let about = |of: &RuleSet| (of.scope, of.operator_id, of.machine_id, of.lp_id);
    let mut standing = rules::standing(tx, now)?;
    standing.retain(|one| about(one) == about(&rules));
    let told = |one: &KeptRules| {
        let (shares, in_force_at) = (&one.shares.0, one.in_force_at);
        json!({ "rules": one.id, "shares": shares, "in_force_at": in_force_at })
    };
    let id = rules::insert(tx, &rules)?;
    let detail = json!({
        "rules": id, "scope": rules.scope, "shares": rules.shares.0,
        "in_force_at": rules.in_force_at,
        // what counts now, and what would have counted before this one does
        "before": standing.iter().map(told).collect::<Vec<_>>(),
    });
    let entry = log::Audit {
        at: now,
        actor: rules.actor.clone(),
        action: "rules.change".into(),
        subject: subject(&rules),
        detail: Json(detail),
        signed: Some(rules.signed.clone()),
    };
    log::audit(tx, &entry)?;
    Ok(Kept { id, row: rules })
}

fn subject(rules: &RuleSet) -> String {
    match (rules.machine_id, rules.lp_id, rules.operator_id) {
        (Some(machine), ..) => format!("machine:{machine}"),
        (None, Some(lp), _) => format!("lp:{lp}"),
        (None, None, Some(operator)) => format!("operator:{operator}"),
        (None, None, None) => "super".into(),
    }
}

fn check(read: &Read<'_>, asked: &Asked, now: Unix) -> Result<Granted, RulesError> {
    let Asked { wish, own, .. } = asked;
    let (operator_id, machine_id, lp_id) = match (wish.scope, wish.machine, wish.lp) {
        (Scope::Super, None, None) => (None, None, None),
        (Scope::Operator, None, None) => {
            (Some(machines::operator_for(read, *own, wish.operator)?), None, None)
        }
        (Scope::Machine, Some(id), None) => {
            (Some(machines::find(read, id, *own)?.operator_id), Some(id), None)
        }
        (Scope::Lp, None, Some(id)) => {
            (Some(lps::find(read, id, *own)?.operator_id), None, Some(id))
        }
        (Scope::Machine, None, _) => {
            return Err(invalid("machine", "the machine's number", "none"));
        }
        (Scope::Lp, _, None) => return Err(invalid("lp", "the provider's number", "none")),
        (_, Some(id), _) => return Err(invalid("machine", "none for this scope", id)),
        (_, None, Some(id)) => return Err(invalid("lp", "none for this scope", id)),
    };
    shares(wish)?;
    let all = operators::list(read)?;
    let signs = match operator_id {
        Some(id) => all.into_iter().find(|one| one.id == id),
        None => all.into_iter().next(),
    };
    let signs = signs.ok_or(FleetError::NoIdentity)?;
    let standing = rules::standing(read, now)?;
    for share in &wish.shares {
        // whose a Lightning address is nobody here can tell
        let Destination::Wallet(wallet) = &share.to else { continue };
        if let Some(machine) = machine_rows::by_wallet(read, wallet)? {
            let got = format!("{wallet}, which is machine {}'s", machine.id);
            return Err(invalid("shares", "a wallet that is no machine's", got));
        }
        if asked.owners.get(wallet).is_some_and(|owner| *owner != signs.name) {
            let expected = format!("a wallet of {:?} or of nobody in particular", signs.name);
            let got = format!("{wallet}, which is another operator's");
            return Err(invalid("shares", expected, got));
        }
        let names = |other: &KeptRules| {
            (other.operator_id, other.lp_id) != (operator_id, lp_id)
                && other.shares.0.iter().any(|one| one.to == share.to)
        };
        if standing.iter().any(names) {
            let got = format!("{wallet}, which is in somebody else's rules");
            return Err(invalid("shares", "a wallet of your own", got));
        }
    }
    let key = signs.pubkey.ok_or(FleetError::NoIdentity)?;
    // before the first sale nothing can be led away; a provider's principal is the operator's until
    // somebody says otherwise, so that a new provider waits as anybody does
    let sold = !settlements::newest(read, operator_id, None, None, 1)?.is_empty();
    let rules = RuleSet {
        scope: wish.scope,
        operator_id,
        machine_id,
        lp_id,
        shares: Json(wish.shares.clone()),
        signed: String::new(),
        actor: asked.actor.clone(),
        created_at: now,
        in_force_at: if sold { now.after(asked.delay) } else { now },
        cancelled_at: None,
        cancelled_by: None,
    };
    Ok(Granted { key, rules })
}

fn shares(wish: &Wish) -> Result<(), RulesError> {
    let all = &wish.shares;
    if all.is_empty() {
        return Ok(());
    }
    let most = if matches!(wish.scope, Scope::Super | Scope::Lp) { 1 } else { MOST };
    if all.len() > most {
        return Err(invalid("shares", format!("at most {most}"), all.len()));
    }
    let sum: u64 = all.iter().map(|share| u64::from(share.ppm.ppm())).sum();
    if sum != u64::from(PPM) || all.iter().any(|share| share.ppm.ppm() == 0) {
        let expected = format!("fractions above 0 that sum to 1 ({PPM} parts per million)");
        return Err(invalid("shares", expected, sum));
    }
    let mut to: Vec<_> = all.iter().map(|share| &share.to).collect();
    to.sort_unstable();
    to.dedup();
    if to.len() < all.len() {
        return Err(invalid("shares", "each destination once", "one of them twice"));
    }
    Ok(())
}

/// Cancels a change that does not count yet.
///
/// # Errors
/// [`RulesError`].
pub async fn cancel(
    app: &App,
    actor: &str,
    own: Option<OperatorId>,
    id: RuleSetId,
) -> Result<KeptRules, RulesError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    app.store
        .write(move |tx| {
            let found = rules::find(tx, id)?.ok_or(RulesError::None(id))?;
            if own.is_some() && found.operator_id != own {
                return Err(RulesError::None(id));
            }
            match rules::cancel(tx, id, &actor, now) {
                Err(StoreError::NotOneRow { .. }) => return Err(RulesError::Ended(id)),
                done => done?,
            }
            let detail = json!({ "rules": id, "scope": found.scope });
            let about = subject(&found);
            crate::fleet::audit(tx, now, &actor, "rules.cancel", &about, detail)?;
            rules::find(tx, id)?.ok_or(RulesError::None(id))
        })
        .await
}
