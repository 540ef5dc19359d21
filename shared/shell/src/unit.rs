//! What the service manager is told.
//!
//! Promise: a unit counts as started only when it does its work: the vault listens, the screen is
//! served, the daemon answers. Without a service manager nothing happens.
//!
//! Failure policy: a manager that cannot be told is logged; it gives the unit up at the end of its
//! own time limit. There is no watchdog: whatever is slow here waits for a disk or a device, and a
//! vault that is killed while notes move leaves a doubt that a person has to decide.

use sd_notify::NotifyState;

/// This process does its work from now on.
pub fn ready() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(event = "service_manager_not_told", %error);
    }
}
