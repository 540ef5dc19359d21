//! Serial ports: the only user of `serialport`.
//!
//! Promise: a port is open exclusively and with the settings that the protocol needs, read back
//! from the driver; a pseudo-terminal, which has neither parity nor 7 data bits nor modem lines, is
//! known as such and not refused for it.
//!
//! Failure policy: each refusal says what to do ([`OpenError`]). RTS and DTR are set where they
//! exist; a line without them is no fault.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serialport::{
    ClearBuffer, DataBits, ErrorKind, FlowControl, Parity, SerialPort, StopBits, TTYPort,
};

use super::{Link, OpenError};
use crate::engine::{self, LineSettings};

/// Longest wait of one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Device numbers of the slave sides of Unix98 pseudo-terminals (Linux, devices.txt).
const PTY_MAJORS: std::ops::RangeInclusive<u64> = 136..=143;

/// Opens a serial port exclusively with these settings.
///
/// # Errors
/// [`OpenError`], in words that say what to do.
pub fn open_serial(path: &str, line: LineSettings) -> Result<Link, OpenError> {
    let (reader, port) = opened(path, line)?;
    let (reader, hang_up) = Waits::on(reader).map_err(|e| refused(path, e.into()))?;
    let hang_up = Box::new(move || drop(hang_up));
    Ok(Link { reader: Box::new(reader), writer: Box::new(port), hang_up: Some(hang_up) })
}

/// A port for a loop that waits for more than this: the simulators'.
pub(crate) struct SerialEnd {
    reader: File,
    writer: TTYPort,
}

impl SerialEnd {
    /// Opens it as [`open_serial`] does.
    pub(crate) fn open(path: &str, line: LineSettings) -> Result<Self, OpenError> {
        let (reader, writer) = opened(path, line)?;
        Ok(Self { reader, writer })
    }
}

impl AsFd for SerialEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Never waits.
impl Read for SerialEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for SerialEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// What reads without waiting, and what writes; the settings are the line's.
fn opened(path: &str, line: LineSettings) -> Result<(File, TTYPort), OpenError> {
    let port_name = || path.to_owned();
    let io = |e: serialport::Error| refused(path, e);
    let (data_bits, parity, stop_bits) = settings(path, line)?;
    let meta = std::fs::metadata(path).map_err(|e| refused(path, e.into()))?;
    if !meta.file_type().is_char_device() {
        return Err(OpenError::NotSerial { port: port_name() });
    }
    // before the port is exclusive
    let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    let reader = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let reader = reader.map_err(|e| refused(path, e.into()))?;
    let mut port = serialport::new(path, line.baud)
        .data_bits(data_bits)
        .parity(parity)
        .stop_bits(stop_bits)
        .flow_control(FlowControl::None)
        .timeout(WRITE_TIMEOUT)
        .open_native()
        .map_err(io)?;
    check("speed", path, line.baud, port.baud_rate().map_err(io)?)?;
    check("stop bits", path, stop_bits, port.stop_bits().map_err(io)?)?;
    if !PTY_MAJORS.contains(&nix::sys::stat::major(meta.rdev())) {
        check("data bits", path, data_bits, port.data_bits().map_err(io)?)?;
        check("parity", path, parity, port.parity().map_err(io)?)?;
    }
    raise_modem_lines(path, &mut port);
    // what came before the settings were right is no frame
    port.clear(ClearBuffer::Input).map_err(io)?;
    Ok((reader, port))
}

/// The reading half: sleeps until bytes come or the line is hung up. A port of its own, since a wait
/// for two things at once needs a descriptor that can be borrowed; the settings are the line's.
pub(super) struct Waits {
    line: File,
    hung_up: UnixStream,
}

impl Waits {
    /// The reader on a descriptor that does not wait by itself, and what hangs up when it is dropped.
    pub(super) fn on(line: File) -> io::Result<(Self, UnixStream)> {
        let (hang_up, hung_up) = UnixStream::pair()?;
        Ok((Self { line, hung_up }, hang_up))
    }
}

impl Read for Waits {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let events = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut both = [events(self.line.as_fd()), events(self.hung_up.as_fd())];
        poll(&mut both, PollTimeout::NONE)?;
        let [_, hung_up] = both;
        if hung_up.any() == Some(true) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.line.read(buffer)
    }
}

/// Some devices are powered or woken by these lines; those that ignore them do no harm.
fn raise_modem_lines(path: &str, port: &mut TTYPort) {
    let raised =
        port.write_data_terminal_ready(true).and_then(|()| port.write_request_to_send(true));
    if let Err(error) = raised {
        tracing::debug!(port = path, "no modem lines: {error}");
    }
}

fn settings(path: &str, line: LineSettings) -> Result<(DataBits, Parity, StopBits), OpenError> {
    let unusable = |what, expected: &str, got: u8| OpenError::Settings {
        port: path.to_owned(),
        what,
        expected: expected.to_owned(),
        got: got.to_string(),
    };
    let data_bits = match line.data_bits {
        7 => DataBits::Seven,
        8 => DataBits::Eight,
        got => return Err(unusable("data bits", "7 or 8", got)),
    };
    let stop_bits = match line.stop_bits {
        1 => StopBits::One,
        2 => StopBits::Two,
        got => return Err(unusable("stop bits", "1 or 2", got)),
    };
    let parity = match line.parity {
        engine::Parity::None => Parity::None,
        engine::Parity::Even => Parity::Even,
    };
    Ok((data_bits, parity, stop_bits))
}

fn check<T: PartialEq + std::fmt::Debug>(
    what: &'static str,
    path: &str,
    expected: T,
    got: T,
) -> Result<(), OpenError> {
    if expected == got {
        return Ok(());
    }
    let (expected, got) = (format!("{expected:?}"), format!("{got:?}"));
    Err(OpenError::Settings { port: path.to_owned(), what, expected, got })
}

pub(super) fn refused(path: &str, error: serialport::Error) -> OpenError {
    let port = path.to_owned();
    match error.kind() {
        // EBUSY and a lock held by another opener
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::ResourceBusy) => {
            OpenError::Busy { port }
        }
        ErrorKind::Io(io::ErrorKind::NotFound) => OpenError::NotFound { port },
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => OpenError::Permission { port },
        _ => OpenError::Io { port, source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a technician in front of "Unknown error" at two in the morning.
    #[test]
    fn refusals_say_what_to_do() {
        let says = |kind| refused("/dev/ttyJ5", serialport::Error::new(kind, "x")).to_string();
        let denied = says(ErrorKind::Io(io::ErrorKind::PermissionDenied));
        assert!(denied.contains("/dev/ttyJ5") && denied.contains("group"), "{denied}");
        assert!(says(ErrorKind::NoDevice).contains("in use"), "{}", says(ErrorKind::NoDevice));
        let missing = says(ErrorKind::Io(io::ErrorKind::NotFound));
        assert!(missing.contains("plug it in"), "{missing}");
    }

    /// Loss prevented: a device spoken to without parity answers garbage; a driver that drops the
    /// setting must be found at open, not in the field.
    #[test]
    fn a_setting_that_did_not_hold_is_refused() {
        let line =
            LineSettings { baud: 9600, data_bits: 8, parity: engine::Parity::Even, stop_bits: 1 };
        let made = settings("/dev/ttyJ5", line).unwrap();
        assert_eq!(made, (DataBits::Eight, Parity::Even, StopBits::One));
        assert!(check("parity", "/dev/ttyJ5", Parity::Even, Parity::Even).is_ok());
        let error = check("parity", "/dev/ttyJ5", Parity::Even, Parity::None).unwrap_err();
        assert!(error.to_string().contains("parity None, expected Even"), "{error}");
        assert!(settings("/dev/ttyJ5", LineSettings { data_bits: 9, ..line }).is_err());
    }
}
