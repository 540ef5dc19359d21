//! The wall clock as a value, so that tests and the simulation bring their own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitspire_shared::time::Unix;

/// Tells the time when asked.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Unix + Send + Sync>);

impl Clock {
    /// The operating system's clock; a time before 1970 reads as 0.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            Unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
        })
    }

    /// A clock of one's own.
    #[must_use]
    pub fn new(tell: impl Fn() -> Unix + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn now(&self) -> Unix {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}
