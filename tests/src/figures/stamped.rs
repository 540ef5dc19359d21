//! A simulated device that tells when the host's bytes came, and what a bench hears of a device.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bitspire_hardware::sim::{Key, SimDevice, SimError};
use bitspire_shared::time::Mono;
use serde_json::Value;

use crate::wait::PATIENCE;

/// A device that tells when these bytes came, or any.
pub(super) struct Stamped<D> {
    pub(super) device: D,
    pub(super) tell: SyncSender<Instant>,
    pub(super) only: Option<Vec<u8>>,
}

impl<D: SimDevice> SimDevice for Stamped<D> {
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Vec<u8> {
        if self.only.as_ref().is_none_or(|only| bytes == only) {
            // only the first one since the last look is wanted
            let _ = self.tell.try_send(Instant::now());
        }
        self.device.on_bytes(bytes, now)
    }
    fn on_tick(&mut self, now: Mono) -> Vec<u8> {
        self.device.on_tick(now)
    }
    fn wake_at(&self) -> Option<Mono> {
        self.device.wake_at()
    }
    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.device.control(action, now)
    }
    fn counters(&self) -> Value {
        self.device.counters()
    }
    fn keys(&self) -> &'static [Key] {
        self.device.keys()
    }
}

/// The first event that is wanted.
pub(super) fn until<E>(events: &Receiver<E>, wanted: impl Fn(&E) -> bool) -> Result<E> {
    loop {
        let event = events.recv_timeout(PATIENCE).context("the device says nothing")?;
        if wanted(&event) {
            return Ok(event);
        }
    }
}
