//! An authority for tests: it proves nothing.

use bitspire_hardware::Authority;

pub(crate) enum ByTest {}

pub(crate) struct Proof<T>(pub(crate) T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for ByTest {
    type Committed<T: Send + 'static> = Proof<T>;
}
