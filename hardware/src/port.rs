//! Not written yet: the runner, two threads a device.

/// The device's thread has ended; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device's thread has ended: open the device again")]
pub struct PortClosed;
