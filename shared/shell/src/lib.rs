//! What the shells of both programs have in common: relay connections, configuration, logging, sealed
//! keys, the wall clock, the service manager, what a crash tells. A package of its own, since `shared`
//! is pure and machine and operator do not know each other.

pub mod checked;
pub mod clock;
pub mod config;
pub mod crash;
pub mod lately;
pub mod logging;
pub mod pool;
pub mod privacy;
pub mod secrets;
pub mod unit;
