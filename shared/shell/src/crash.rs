//! Places at which a test lets a program die.
//!
//! Promise: a program that was built with the feature `crash-points` and reaches a place which
//! `FAILPOINTS` in its environment names ends there, by SIGABRT, in whatever thread: nothing after
//! that place is done, written or told. Names say what the place stands between, and for what:
//! `journal.before_flush.paid`. `FAILPOINTS='journal.before_flush.paid=return'` means the first time,
//! `2*off->return` the third.
//!
//! Only the workspace's own tests switch the feature on. Without it, and in every release build even
//! with it, a place is nothing and the environment is not looked at.
//!
//! Failure policy: a `FAILPOINTS` that does not read is a panic at the start: a test must not pass
//! since nothing died.

/// Whether this build has places to die at.
pub const PRESENT: bool = cfg!(all(feature = "crash-points", debug_assertions));

/// While it lives, the places that the environment names are deadly.
#[must_use = "dropped, nothing dies"]
pub struct Armed {
    #[cfg(all(feature = "crash-points", debug_assertions))]
    _scenario: fail::FailScenario<'static>,
}

/// Reads the environment; for the whole life of the program.
pub fn arm() -> Armed {
    Armed {
        #[cfg(all(feature = "crash-points", debug_assertions))]
        _scenario: fail::FailScenario::setup(),
    }
}

/// The place called `name`, reached with `what`.
#[cfg(all(feature = "crash-points", debug_assertions))]
pub fn point(name: &str, what: &str) {
    let place = format!("{name}.{what}");
    fail::fail_point!(&place, |_| {
        eprintln!("crash point {place}");
        std::process::abort()
    });
}

/// The place called `name`, reached with `what`: nothing, in this build.
#[cfg(not(all(feature = "crash-points", debug_assertions)))]
#[inline(always)]
pub fn point(_name: &str, _what: &str) {}
