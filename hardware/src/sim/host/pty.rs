//! A pseudo-terminal: the simulator's end, and a name for the host's.
//!
//! Promise: raw from the first byte; writing never waits (a host that does not read loses bytes, as
//! on a cable); a link that is ours goes with us, a file that is not ours is never touched.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

use super::HostError;

/// Both ends of a pseudo-terminal.
pub(super) struct Pty {
    master: File,
    /// Held open, so that a host that closes its end does not end ours.
    _slave: OwnedFd,
    path: PathBuf,
    link: Option<PathBuf>,
}

impl Pty {
    /// Opens a pair; `link` becomes a symbolic link to the host's end.
    pub(super) fn open(link: Option<&Path>) -> Result<Self, HostError> {
        let pair = openpty(None, None).map_err(HostError::pty)?;
        let mut settings = tcgetattr(&pair.slave).map_err(HostError::pty)?;
        cfmakeraw(&mut settings);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &settings).map_err(HostError::pty)?;
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(HostError::pty)?;
        let path = ttyname(&pair.slave).map_err(HostError::pty)?;
        let mut pty =
            Self { master: File::from(pair.master), _slave: pair.slave, path, link: None };
        if let Some(link) = link {
            place_link(&pty.path, link)
                .map_err(|source| HostError::Link { link: link.to_owned(), source })?;
            pty.link = Some(link.to_owned());
        }
        Ok(pty)
    }

    /// The name of the host's end.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the host has written; empty where it has not.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0u8; 512];
        match self.master.read(&mut buffer) {
            Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
            Err(error) if is_only_waiting(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes what fits.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.master.write_all(bytes) {
            Err(error) if !is_only_waiting(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if let Some(link) = &self.link
            && fs::read_link(link).is_ok_and(|to| to == self.path)
        {
            // nothing can be done about a link that cannot be removed; the next start replaces it
            let _ = fs::remove_file(link);
        }
    }
}

fn is_only_waiting(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Puts the link in place in one step; an older link is replaced, anything else is not.
fn place_link(to: &Path, link: &Path) -> io::Result<()> {
    match fs::symlink_metadata(link) {
        Ok(there) if !there.is_symlink() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "something that is no link has this name",
            ));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut fresh = link.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    symlink(to, &fresh)?;
    fs::rename(&fresh, link)
}
