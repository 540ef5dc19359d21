//! Question and answer over a line, one after the other.
//!
//! Promise: a question waits no longer than it is told to; dropping the [`Talk`] gives the port back
//! before it returns, as far as the line can be hung up.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ProbeError;
use crate::engine::LineSettings;
use crate::port::{Link, Opener};

/// Pieces that may wait to be looked at; more than a device says in answer to one question.
const PIECES: usize = 64;
/// Bytes that are kept of all that was heard.
const KEPT: usize = 256;

/// An open line.
pub(super) struct Talk {
    writer: Option<Box<dyn Write + Send>>,
    hang_up: Option<Box<dyn FnOnce() + Send>>,
    incoming: Option<Receiver<io::Result<Vec<u8>>>>,
    reader: Option<JoinHandle<()>>,
    sent: Vec<u8>,
    heard: Vec<u8>,
}

impl Talk {
    pub(super) fn open(opener: &mut Opener, line: LineSettings) -> Result<Self, ProbeError> {
        let Link { reader, writer, hang_up } = opener(line)?;
        let (pieces, incoming) = sync_channel(PIECES);
        let reader = thread::Builder::new()
            .name("probe reader".to_owned())
            .spawn(move || read(reader, &pieces))
            .map_err(ProbeError::Thread)?;
        Ok(Self {
            writer: Some(writer),
            hang_up,
            incoming: Some(incoming),
            reader: Some(reader),
            sent: Vec::new(),
            heard: Vec::new(),
        })
    }

    /// The first bytes that came, whatever they were.
    pub(super) fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// Whether what came is what was sent.
    pub(super) fn is_echo(&self) -> bool {
        !self.heard.is_empty() && self.heard == self.sent
    }

    /// Sends what wants no answer.
    pub(super) fn tell(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.sent.extend(bytes.iter().take(KEPT.saturating_sub(self.sent.len())));
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write_all(bytes).and_then(|()| writer.flush()).map_err(ProbeError::Lost)
    }

    /// Sends a question and waits until `find` finds its answer in all that came since.
    pub(super) fn ask<T>(
        &mut self,
        question: &[u8],
        patience: Duration,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ProbeError> {
        // what an earlier question left behind answers nothing
        while self.piece(Duration::ZERO)?.is_some() {}
        self.tell(question)?;
        self.listen(patience, find)
    }

    /// Waits without a question.
    pub(super) fn listen<T>(
        &mut self,
        patience: Duration,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ProbeError> {
        let begun = Instant::now();
        let mut answer = Vec::new();
        while let Some(left) = patience.checked_sub(begun.elapsed()) {
            let Some(piece) = self.piece(left)? else { break };
            answer.extend(piece);
            if let Some(found) = find(&answer) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn piece(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, ProbeError> {
        let Some(incoming) = &self.incoming else { return Ok(None) };
        match incoming.recv_timeout(wait) {
            Ok(Ok(piece)) => {
                self.heard.extend(piece.iter().take(KEPT.saturating_sub(self.heard.len())));
                Ok(Some(piece))
            }
            Ok(Err(error)) => Err(ProbeError::Lost(error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(ProbeError::Lost(ErrorKind::UnexpectedEof.into()))
            }
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.writer = None;
        self.incoming = None;
        if let Some(hang_up) = self.hang_up.take() {
            hang_up();
        }
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            tracing::error!("the probe's reader has panicked");
        }
    }
}

/// Until the line is hung up or nobody listens.
fn read(mut line: Box<dyn Read + Send>, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    let mut buffer = [0u8; 512];
    loop {
        let piece = match line.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // hung up by us, or nothing came: an empty piece tells whether anybody listens still
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        };
        let over = piece.is_err();
        if pieces.send(piece).is_err() || over {
            return;
        }
    }
}
