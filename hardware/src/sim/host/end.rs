//! What a simulator is served on: a pseudo-terminal of its own, or a real port for a cable test.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::HostError;
use super::pty::Pty;
use crate::engine::LineSettings;
use crate::port::SerialEnd;

/// Where to serve, at first and after each time that it was unplugged.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A new pseudo-terminal, with a link to it.
    Pty(Option<PathBuf>),
    /// This port, with the settings that the device has.
    Port(PathBuf, LineSettings),
}

/// It, open.
pub(super) enum End {
    Pty(Pty),
    Port(SerialEnd, PathBuf),
}

impl Place {
    pub(super) fn open(&self) -> Result<End, HostError> {
        Ok(match self {
            Self::Pty(link) => End::Pty(Pty::open(link.as_deref())?),
            Self::Port(path, line) => {
                let name = path.display().to_string();
                End::Port(SerialEnd::open(&name, *line).map_err(HostError::Port)?, path.clone())
            }
        })
    }
}

impl End {
    /// The name of the host's end; of a real port its own.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Pty(pty) => pty.path(),
            Self::Port(_, path) => path,
        }
    }

    /// What the host has written; empty where it has not.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        let port = match self {
            Self::Pty(pty) => return pty.read(),
            Self::Port(port, _) => port,
        };
        let mut buffer = [0u8; 512];
        match port.read(&mut buffer) {
            // a port that is there gives no end
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes what fits.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pty(pty) => pty.write(bytes),
            Self::Port(port, _) => match port.write_all(bytes) {
                // nobody takes it: lost, as on a cable
                Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
                done => done,
            },
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pty(pty) => pty.as_fd(),
            Self::Port(port, _) => port.as_fd(),
        }
    }
}
