use bitspire_agent::journal::Committed;
use bitspire_hardware::dispenser::DispensePlan;

fn copy(proof: &Committed<DispensePlan>) -> Committed<DispensePlan> {
    proof.clone()
}

fn main() {}
