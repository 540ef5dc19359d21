//! The leave to dispense.
//!
//! Promise: it is signed inside a transaction of the one writer, so it lies either wholly before a
//! revoke or is never made: after the commit of a revoke nothing is signed. It exists only for a
//! settlement on record that was accepted (steps 1 to 7), whose machine may finish its sales with the
//! very keys that asked, and whose notes nobody has reported yet. A machine that its operator has
//! switched off, or whose pairing has ended, finishes them; one that an alarm has stopped does not.

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{PaymentHash, TxnId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::{DispenseAuthorisation, SignedText};
use bitspire_shared::settlement::claimed_sender;
use bitspire_shared::time::Unix;
use nostr::Keys;

use crate::app::App;
use crate::rpc::roster::standing;
use crate::store::settlements::{self, SettlementStatus};
use crate::store::{StoreError, Tx, invoices, machines, quotes};

/// Leave to dispense, as the machine gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave {
    /// The transaction.
    pub(crate) txid: TxnId,
    /// What was paid of the invoice.
    pub(crate) wire_sats: Sats,
    /// The service key's signature.
    pub(crate) authorisation: Sig,
}

/// Signs the leave to dispense for a payment; `None` where there is none to be given.
pub(crate) async fn authorise(app: &App, hash: PaymentHash) -> Result<Option<Leave>, StoreError> {
    let (service, now) = (app.service.clone(), app.clock.now());
    app.store.write(move |tx| sign(tx, hash, &service, now)).await
}

fn sign(
    tx: &Tx<'_>,
    hash: PaymentHash,
    service: &Keys,
    now: Unix,
) -> Result<Option<Leave>, StoreError> {
    let settlement = settlements::by_hash(tx, hash)?.filter(|settlement| {
        settlement.status == SettlementStatus::Accepted
            && settlement.direction == Direction::CashOut
            && settlement.reported_at.is_none()
    });
    let (Some(settlement), Some(invoice)) = (settlement, invoices::by_hash(tx, hash)?) else {
        return Ok(None);
    };
    let quote = quotes::find(tx, invoice.quote_id)?;
    let machine = machines::find(tx, settlement.machine_id)?;
    let (Some(quote), Some(machine)) = (quote, machine) else { return Ok(None) };
    let keys = (machine.machine_npub, machine.vault_key);
    let (Some(spire), Some(vault)) = keys else { return Ok(None) };
    // an invoice was made in service: a machine that was switched off since finishes its sale
    if !standing(&machine, now).finishes()
        || claimed_sender(invoice.stamp.as_str(), &[spire]) != Some(spire)
    {
        return Ok(None);
    }
    let leave = DispenseAuthorisation {
        spire,
        vault,
        txid: invoice.txid,
        quote_id: invoice.quote_id,
        payment_hash: hash,
        wire_sats: invoice.wire_sats,
        fiat: Fiat::new(quote.fiat_minor, quote.fiat_code),
    };
    let authorisation = leave.sign(service);
    Ok(Some(Leave { txid: leave.txid, wire_sats: leave.wire_sats, authorisation }))
}
