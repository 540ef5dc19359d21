//! The shape that every protocol engine has.
//!
//! Promise: an engine owns polling, acknowledgement, sequence bits, retries and timeouts, and reads
//! no clock: `now` is an argument. The same engine runs behind a serial port, a pty, an in-memory
//! pair and the simulation.

use std::borrow::Cow;
use std::fmt;

use bitspire_shared::time::Mono;

use crate::trace::Direction;

/// What an engine wants done.
#[derive(Debug, PartialEq, Eq)]
pub struct Output<E> {
    /// Bytes for the device, in order.
    pub write: Vec<u8>,
    /// What happened, in order.
    pub events: Vec<E>,
    /// When to call [`Engine::on_tick`]; `None` = never. Each output replaces the time of the one
    /// before it.
    pub wake_at: Option<Mono>,
}

impl<E> Default for Output<E> {
    fn default() -> Self {
        Self { write: Vec::new(), events: Vec::new(), wake_at: None }
    }
}

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even parity.
    Even,
}

/// The line settings that a protocol needs; tested as data, since a pty carries no parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSettings {
    /// Bits per second.
    pub baud: u32,
    /// Data bits: 7 or 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits: 1 or 2.
    pub stop_bits: u8,
}

/// As technicians write it: `9600 8E1`.
impl fmt::Display for LineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { baud, data_bits, parity, stop_bits } = self;
        let parity = match parity {
            Parity::None => 'N',
            Parity::Even => 'E',
        };
        write!(f, "{baud} {data_bits}{parity}{stop_bits}")
    }
}

/// One protocol with one device, sans-IO.
pub trait Engine: Send + 'static {
    /// What the host may ask.
    type Command: Send + 'static;
    /// What the host is told.
    type Event: Send + 'static;

    /// The serial settings of this protocol.
    fn line(&self) -> LineSettings;
    /// The link is up, for the first time or again after a loss.
    fn on_link_up(&mut self, now: Mono) -> Output<Self::Event>;
    /// The link is gone, or could not be opened; `why` says so in words for a person. Commands are
    /// answered with a fault until it is up again.
    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<Self::Event>;
    /// Bytes came, in any split.
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Output<Self::Event>;
    /// The time of the last output's `wake_at` has come.
    fn on_tick(&mut self, now: Mono) -> Output<Self::Event>;
    /// The host asks for something.
    fn command(&mut self, command: Self::Command, now: Mono) -> Output<Self::Event>;
    /// Whether this event is a fault: the frames that led to it are then logged.
    fn is_fault(event: &Self::Event) -> bool;
    /// What the trace may keep of bytes: all of them, unless they may hold a secret.
    fn traced(_direction: Direction, bytes: &[u8]) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytes)
    }
    /// The bytes of one trace record in words, one line.
    fn in_words(direction: Direction, bytes: &[u8]) -> String;
}
