//! What no world may exceed: so many things in one moment, so many in all, and so much time.
//!
//! Promise: a world that goes round in a circle, or never comes to rest, ends and says which; its
//! seed fails like any other, with the command that plays it again.

use bitspire_shared::time::Mono;

/// Things in one moment: a busy one has some hundreds.
const IN_A_MOMENT: u32 = 100_000;
/// Things in all: a seed has some hundred thousands.
const IN_ALL: u64 = 20_000_000;
/// The hour in which all should come to rest after the last fault, and as much again.
const OVERTIME_MS: u64 = 2 * 3_600_000;

/// Counts what happens.
#[derive(Debug)]
pub(super) struct Bounds {
    moment: Mono,
    in_it: u32,
    in_all: u64,
    end: Mono,
}

impl Bounds {
    /// For a world that begins now and has faults for so many minutes.
    pub(super) const fn new(now: Mono, minutes: u64) -> Self {
        let life = minutes.saturating_mul(60_000).saturating_add(OVERTIME_MS);
        Self { moment: now, in_it: 0, in_all: 0, end: now.after(life) }
    }

    /// One more thing happens now; what is exceeded, if anything is.
    pub(super) fn step(&mut self, now: Mono) -> Result<(), String> {
        if now != self.moment {
            (self.moment, self.in_it) = (now, 0);
        }
        self.in_it = self.in_it.saturating_add(1);
        self.in_all = self.in_all.saturating_add(1);
        if self.in_it > IN_A_MOMENT {
            return Err(format!(
                "the world goes round in a circle: {IN_A_MOMENT} things happened at {now}, and \
                 more are due then",
                now = now.0
            ));
        }
        if self.in_all > IN_ALL {
            return Err(format!("the world has no end: {IN_ALL} things happened by {}", now.0));
        }
        if now > self.end {
            return Err(format!(
                "the world has no end: it should be at rest by {}, and it is {}",
                self.end.0, now.0
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bitspire_hardware::sim::faulty::FaultRates;
    use bitspire_hardware::sim::{SimDevice, SimError};
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::faults::Rates;
    use crate::sim::line::Line;
    use crate::sim::world::World;

    /// Is due at once, for ever.
    struct Restless;

    impl SimDevice for Restless {
        fn on_bytes(&mut self, _: &[u8], _: Mono) -> Vec<u8> {
            Vec::new()
        }
        fn on_tick(&mut self, _: Mono) -> Vec<u8> {
            Vec::new()
        }
        fn wake_at(&self) -> Option<Mono> {
            Some(Mono(0))
        }
        fn control(&mut self, _: &Value, _: Mono) -> Result<Value, SimError> {
            Ok(json!({}))
        }
        fn counters(&self) -> Value {
            json!({})
        }
    }

    /// Loss prevented: a seed that never ends over a device that is always due, with a vault or
    /// without one.
    #[test]
    fn a_restless_device_ends_its_world_and_is_named() {
        let ways: [fn(&mut World); 2] =
            [|world| drop(world.advance(Mono(5_000))), |world| world.let_pass(5_000)];
        for way in ways {
            let mut world = World::new(1, Rates::good());
            world.printer = Line::new(Box::new(Restless), 1, FaultRates::default());
            let end = catch_unwind(AssertUnwindSafe(|| way(&mut world))).unwrap_err();
            let why = end.downcast::<String>().unwrap();
            assert!(why.contains("circle") && why.contains("printer Some(Mono(0))"), "{why}");
        }
    }

    /// Loss prevented: one seed of twenty thousand that never ends, and hides what the others found.
    #[test]
    fn a_circle_ends_and_a_busy_moment_does_not() {
        let mut bounds = Bounds::new(Mono(0), 1);
        for ms in 0..4 {
            for _ in 0..IN_A_MOMENT {
                bounds.step(Mono(ms)).unwrap();
            }
        }
        let why = bounds.step(Mono(3)).unwrap_err();
        assert!(why.contains("goes round in a circle") && why.contains("at 3"), "{why}");
    }

    /// Loss prevented: a world in which nobody ever looks whether it is over.
    #[test]
    fn time_and_things_end() {
        let mut late = Bounds::new(Mono(5), 1);
        let end = Mono(5 + 60_000 + OVERTIME_MS);
        late.step(end).unwrap();
        assert!(late.step(end.after(1)).unwrap_err().contains("should be at rest"));
        let mut busy = Bounds { in_all: IN_ALL - 1, ..Bounds::new(Mono(0), 1) };
        busy.step(Mono(1)).unwrap();
        assert!(busy.step(Mono(1)).unwrap_err().contains("things happened"));
    }
}
