//! `receipt`: makes the receipt of a transaction again, from the journal.

use anyhow::{Context as _, bail};
use bitspire_shared::ids::{PubKey, TxnId};
use bitspire_shared::receipt::Line;
use bitspire_shared::sealed::Purpose;
use bitspire_shell::secrets::Keyring;
use clap::Args;

use crate::config::VaultConfig;
use crate::journal::Reader;
use crate::txn::receipt_of;
use crate::vault::named_in;

#[derive(Debug, Args)]
pub(super) struct Receipt {
    /// The transaction
    txid: TxnId,
}

impl Receipt {
    /// Does it.
    pub(super) fn run(self, config: &VaultConfig) -> anyhow::Result<()> {
        let txid = self.txid;
        let path = config.journal();
        let reader = Reader::open(&path).with_context(|| path.display().to_string())?;
        let ring = Keyring::open(&config.dir, config.machine_secret_file.as_deref())?;
        let keys = ring.load_or_make("vault", Purpose::VaultKey)?;
        let vault = PubKey::new(keys.public_key())?;
        let Some(receipt) = receipt_of(&reader.entries_of(txid)?, vault) else {
            bail!("{txid}: no such transaction here, or one in which nothing was paid or fed");
        };
        let Some(naming) = named_in(&reader, receipt.spire)? else {
            bail!("the machine has not named its vault yet: it does with its next session");
        };
        println!("{}\n", receipt.sign(naming, &keys)?.text());
        println!("{}. {}", receipt.heading(), receipt.standing());
        for Line { label, value, .. } in receipt.lines() {
            println!("{label}: {value}");
        }
        Ok(())
    }
}
