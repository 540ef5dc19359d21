use bitspire_agent::journal::Committed;
use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::ids::JournalSeq;

fn forge(value: DispensePlan) -> Committed<DispensePlan> {
    Committed { value, seq: JournalSeq(1) }
}

fn main() {}
