//! USB printer ports (`/dev/usb/lp0`): a character device that is written to like a file.
//!
//! Promise: opened once and held alone, as the kernel's `usblp` wants it, for both directions; a
//! printer that takes nothing for a second is an error, not a wait without an end.
//!
//! Failure policy: as for a serial port: each refusal says what to do ([`OpenError`]). A printer
//! that cannot answer (one-way port) is a lost line: what it has printed, nobody would know.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::serial::{Waits, refused};
use super::{Link, OpenError};

/// Longest wait until a printer takes more bytes, in milliseconds.
const WRITE_MS: u16 = 1_000;

/// Opens a USB printer port.
///
/// # Errors
/// [`OpenError`], in words that say what to do.
pub fn open_lp(path: &str) -> Result<Link, OpenError> {
    let io = |error: io::Error| refused(path, error.into());
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.file_type().is_char_device() {
        return Err(OpenError::NotSerial { port: path.to_owned() });
    }
    let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    let line = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let line = line.map_err(io)?;
    let writer = Box::new(Patient(line.try_clone().map_err(io)?));
    let (reader, hang_up) = Waits::on(line).map_err(io)?;
    let hang_up = Box::new(move || drop(hang_up));
    Ok(Link { reader: Box::new(reader), writer, hang_up: Some(hang_up) })
}

/// Writes to a descriptor that does not wait by itself.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut fds, PollTimeout::from(WRITE_MS))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
