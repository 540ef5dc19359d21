//! Where a machine's journal stood, as its vault has signed it, in the API: to hold an export of the
//! journal against.

use axum::extract::{Query, State};
use axum::{Extension, Json};
use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::error::ApiError;
use super::{Api, Id};
use crate::fleet::FleetError;
use crate::fleet::machines::find;
use crate::ids::MachineId;
use crate::store::heads;

/// Heads of one answer.
const PAGE: u32 = 1_000;

/// Which heads.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    /// Those after this position.
    #[serde(default = "start")]
    after: JournalSeq,
}

const fn start() -> JournalSeq {
    JournalSeq(0)
}

/// A position and its hash.
#[derive(Debug, Serialize)]
struct Shown {
    seq: JournalSeq,
    head: JournalHead,
    at: Unix,
}

/// The heads of the vault that the machine is paired with, in order.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    vault: Option<PubKey>,
    heads: Vec<Shown>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Query(After { after }): Query<After>,
) -> Result<Json<Listed>, ApiError> {
    let listed = api.app.store.read(move |read| {
        let vault = find(read, id, caller.operator)?.vault_key;
        let heads = match vault {
            Some(vault) => heads::page(read, id, vault, after, PAGE)?,
            None => Vec::new(),
        };
        let shown = |head: heads::Head| Shown { seq: head.seq, head: head.head, at: head.at };
        Ok::<_, FleetError>(Listed { vault, heads: heads.into_iter().map(shown).collect() })
    });
    Ok(Json(listed.await?))
}
