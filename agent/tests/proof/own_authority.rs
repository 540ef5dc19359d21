use bitspire_agent::journal::ByJournal;
use bitspire_hardware::Authority;
use bitspire_hardware::dispenser::{DispensePlan, Dispenser, DispenserCommand};

enum Mine {}

impl Authority for Mine {
    type Committed<T: Send + 'static> = Box<T>;
}

fn dispense(dispenser: &mut dyn Dispenser<ByJournal>, plan: DispensePlan) {
    let _ = dispenser.send(DispenserCommand::<Mine>::Dispense(Box::new(plan)));
}

fn main() {}
