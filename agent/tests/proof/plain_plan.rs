use bitspire_agent::journal::ByJournal;
use bitspire_hardware::dispenser::{DispensePlan, Dispenser, DispenserCommand};

fn dispense(dispenser: &mut dyn Dispenser<ByJournal>, plan: DispensePlan) {
    let _ = dispenser.send(DispenserCommand::Dispense(plan));
}

fn main() {}
