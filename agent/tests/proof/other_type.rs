use bitspire_agent::journal::{ByJournal, Committed};
use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::{Dispenser, DispenserCommand};

fn dispense(dispenser: &mut dyn Dispenser<ByJournal>, proof: Committed<EscrowedBill>) {
    let _ = dispenser.send(DispenserCommand::Dispense(proof));
}

fn main() {}
