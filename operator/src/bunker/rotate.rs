//! Another machine secret for a bunker that does not run.
//!
//! Promise: as [`Rotation`]: its keys change in one transaction, before the files beside them; cut off
//! anywhere, each opens with the old secret or the new one.
//!
//! Failure policy: a key that opens with neither is named, and nothing changes.

use std::path::Path;

use bitspire_shared::sealed::{Purpose, Sealed};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{Rotation, SecretError};

use super::held::record;
use super::{BunkerError, unstored};
use crate::ids::BunkerKeyId;
use crate::store::bunker as rows;

/// Seals everything in `data_dir` anew; the files as [`Rotation::begin`] takes them.
///
/// # Errors
/// [`BunkerError`]; also while the bunker runs. Run it again, as it was run.
pub fn rotate(
    data_dir: &Path,
    from: Option<&Path>,
    to: Option<&Path>,
    now: Unix,
) -> Result<(), BunkerError> {
    let path = data_dir.join("bunker.db");
    // refused while the bunker runs, before anything lies ready
    let db = path.exists().then(|| rows::open(&path, now)).transpose()?;
    let rotation = Rotation::begin(data_dir, from, to)?;
    if let Some(db) = db {
        let mut anew: Vec<(BunkerKeyId, String)> = Vec::new();
        for row in db.read_blocking(rows::all).map_err(unstored)? {
            let record = record(&row.name);
            let failed = |source| SecretError::Seal { path: record.clone().into(), source };
            let sealed: Sealed = row.sealed.parse().map_err(failed)?;
            if let Some(sealed) = rotation.reseal(Purpose::BunkerKey, &record, &sealed)? {
                anew.push((row.id, sealed.to_string()));
            }
        }
        db.write_blocking(move |tx| {
            anew.iter().try_for_each(|(id, sealed)| rows::reseal(tx, *id, sealed))
        })
        .map_err(unstored)?;
    }
    Ok(rotation.finish()?)
}
