//! The way that compiles: the cases beside it differ from it in one thing each.

use bitspire_agent::journal::{ByJournal, Journal, JournalError, TxnEntry};
use bitspire_hardware::acceptor::{Acceptor, AcceptorCommand, EscrowedBill};
use bitspire_hardware::dispenser::{DispensePlan, Dispenser, DispenserCommand};
use bitspire_shared::time::Unix;

pub(super) fn dispense(
    journal: &mut Journal,
    dispenser: &mut dyn Dispenser<ByJournal>,
    entry: TxnEntry,
    plan: DispensePlan,
) -> Result<(), JournalError> {
    let proof = journal.commit(Unix(0), entry, 1, plan)?;
    let _ = dispenser.send(DispenserCommand::Dispense(proof));
    Ok(())
}

pub(super) fn stack(
    journal: &mut Journal,
    acceptor: &mut dyn Acceptor<ByJournal>,
    entry: TxnEntry,
    bill: EscrowedBill,
) -> Result<(), JournalError> {
    let proof = journal.commit(Unix(0), entry, 1, bill)?;
    let _ = acceptor.send(AcceptorCommand::Stack(proof));
    Ok(())
}
