use bitspire_agent::journal::{ByJournal, Committed};
use bitspire_hardware::dispenser::{DispensePlan, Dispenser, DispenserCommand};

fn dispense(dispenser: &mut dyn Dispenser<ByJournal>, proof: Committed<DispensePlan>) {
    let _ = dispenser.send(DispenserCommand::Dispense(proof));
    let _ = dispenser.send(DispenserCommand::Dispense(proof));
}

fn main() {}
