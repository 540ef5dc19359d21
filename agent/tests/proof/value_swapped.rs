use bitspire_agent::journal::Committed;
use bitspire_hardware::dispenser::DispensePlan;

fn swap(mut proof: Committed<DispensePlan>, other: DispensePlan) -> Committed<DispensePlan> {
    proof.value = other;
    proof
}

fn main() {}
