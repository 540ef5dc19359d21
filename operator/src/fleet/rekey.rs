//! Moving a machine to other keys: the statement that is brought to it by hand.
//!
//! Promise: the operator key that the machine has pinned signs it, through its signer, and the log has
//! it before anybody else does. It moves nothing by itself: whoever has the machine's PIN brings it
//! there, once, before its time is over. It works for a machine that this service has never met too:
//! the one that served it may be lost.
//!
//! Failure policy: [`FleetError`]; nothing was signed, or what was signed was given to nobody.

use bitspire_shared::ids::{Nonce, PubKey};
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use serde_json::json;

use super::FleetError;
use super::machines::{find, subject};
use crate::app::App;
use crate::ids::{MachineId, OperatorId};
use crate::signer::SignerError;
use crate::store::{Json, Read, log, operators};

/// How long it may be good at most, in hours: somebody has to get there.
const MAX_HOURS: u32 = 720;
/// And where nothing is said.
const HOURS: u32 = 24;
const HOUR_S: u64 = 3_600;
/// What the bunker is asked for.
const STEP: &str = "sign the rekey";

/// Which machine it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One of this service.
    Known(MachineId),
    /// One that another service has paired: whose it is, and what its `status` says.
    Told {
        /// Its operator here, whose key it has pinned.
        operator: OperatorId,
        /// Its key.
        spire: PubKey,
        /// Its vault's.
        vault: PubKey,
    },
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The machine.
    pub whose: Whose,
    /// The service that it is to go by; this one where none is named.
    pub service: Option<PubKey>,
    /// The operator key that it is to go by; the same as before where none is named.
    pub operator: Option<PubKey>,
    /// Hours for which the statement is good; a day where nothing is said.
    pub hours: Option<u32>,
}

/// Who is who.
struct Parties {
    about: String,
    spire: PubKey,
    vault: PubKey,
    /// The operator key that is pinned now.
    operator: PubKey,
    /// The service key that is pinned now, where that is known.
    service: Option<PubKey>,
}

fn parties(
    read: &Read<'_>,
    whose: Whose,
    caller: Option<OperatorId>,
    own: PubKey,
) -> Result<Parties, FleetError> {
    let (about, operator, spire, vault, service) = match whose {
        Whose::Told { operator, spire, vault } => {
            (format!("spire:{spire}"), operator, spire, vault, None)
        }
        Whose::Known(id) => {
            let machine = find(read, id, caller)?;
            let (Some(spire), Some(vault)) = (machine.machine_npub, machine.vault_key) else {
                return Err(FleetError::State {
                    machine: id,
                    state: machine.confirmation.to_string(),
                    needs: "it has pinned nobody yet: pair it",
                });
            };
            (subject(id), machine.operator_id, spire, vault, Some(own))
        }
    };
    let operator = operators::find(read, operator)?.and_then(|one| one.pubkey);
    let operator = operator.ok_or(FleetError::NoIdentity)?;
    Ok(Parties { about, spire, vault, operator, service })
}

/// Signs it.
///
/// # Errors
/// [`FleetError::State`] for a machine that was never paired, [`FleetError::Invalid`] where nothing
/// would change or the time makes no sense, [`FleetError::Bunker`] where the operator key does not
/// sign.
pub async fn sign(
    app: &App,
    actor: &str,
    caller: Option<OperatorId>,
    wish: Wish,
) -> Result<SignedStatement, FleetError> {
    let now = app.clock.now();
    let own = app.service_key;
    let Wish { whose, service, operator, hours } = wish;
    let invalid = |field, expected: &str, got: String| FleetError::Invalid {
        field,
        expected: expected.to_owned(),
        got,
    };
    let hours = hours.unwrap_or(HOURS);
    if hours == 0 || hours > MAX_HOURS {
        return Err(invalid("hours", "1 to 720", hours.to_string()));
    }
    let parties = app.store.read(move |read| parties(read, whose, caller, own)).await?;
    let (operator, service) = (operator.unwrap_or(parties.operator), service.unwrap_or(own));
    if operator == parties.operator && Some(service) == parties.service {
        let expected = "another service or operator key than the machine has";
        return Err(invalid("service", expected, service.npub()));
    }
    let not_after = now.after(u64::from(hours).saturating_mul(HOUR_S));
    let Parties { about, spire, vault, operator: author, .. } = parties;
    let nonce = Nonce::from_bytes(random()?);
    let statement = Statement::Rekey { spire, vault, operator, service, nonce, not_after };
    let failed = |source| FleetError::Bunker { step: STEP, source };
    let signer = app.signer(author);
    let signer = signer.ok_or(failed(SignerError::NotSent { method: "sign_event" }))?;
    let unsigned = statement.to_unsigned(&author, now);
    let unsigned = unsigned
        .map_err(|error| invalid("hours", "a time that can be signed", error.to_string()))?;
    let signed = SignedStatement::new(signer.sign(unsigned).await.map_err(failed)?);
    let entry = entry(now, actor, about, &statement, &signed);
    app.store.write(move |tx| log::audit(tx, &entry).map_err(FleetError::from)).await?;
    Ok(signed)
}

fn entry(
    now: Unix,
    actor: &str,
    subject: String,
    statement: &Statement,
    signed: &SignedStatement,
) -> log::Audit {
    log::Audit {
        at: now,
        actor: actor.to_owned(),
        action: "machine.rekey".to_owned(),
        subject,
        detail: Json(json!(statement)),
        signed: Some(signed.to_json()),
    }
}
