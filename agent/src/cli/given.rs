//! Secrets that a command is given: from a file, from standard input, typed.
//!
//! Promise: what is read lies in one buffer that is wiped, and in the [`SecretText`] that comes of it;
//! no buffered reader keeps a copy, and no buffer is left behind that grew too small.
//!
//! Failure policy: what is longer than any such secret is cut off, and is refused by whoever reads it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::ipc::SecretText;

/// More than a seed URL or a PIN has, in bytes.
const MOST: usize = 64 * 1_024;

/// How far is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Line,
    End,
}

/// A file's text, without blanks around it.
pub(super) fn file(path: &Path) -> anyhow::Result<SecretText> {
    let read = File::open(path).and_then(|file| text(file, Until::End));
    read.with_context(|| format!("{}: cannot be read", path.display()))
}

/// All of standard input, without blanks around it.
pub(super) fn input() -> io::Result<SecretText> {
    text(unbuffered()?, Until::End)
}

/// A line of standard input, without blanks around it.
pub(super) fn line() -> io::Result<SecretText> {
    text(unbuffered()?, Until::Line)
}

/// Standard input, around the buffer that it shares with the whole process.
fn unbuffered() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn text(mut from: impl Read, until: Until) -> io::Result<SecretText> {
    let mut bytes = Zeroizing::new(vec![0; MOST]);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        let more = match from.read(room) {
            Ok(0) => break,
            Ok(more) => more,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let ended = until == Until::Line && room.iter().take(more).any(|byte| *byte == b'\n');
        length += more;
        if ended {
            break;
        }
    }
    let read = bytes.get(..length).unwrap_or_default();
    let text = std::str::from_utf8(read).map_err(|_| ErrorKind::InvalidData)?;
    let text = match until {
        Until::Line => text.lines().next().unwrap_or_default(),
        Until::End => text,
    };
    Ok(SecretText::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, with an interruption before each.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match (self.1, self.0.split_first()) {
                (true, _) => Err(ErrorKind::Interrupted.into()),
                (false, None) => Ok(0),
                (false, Some((first, rest))) => {
                    room[0] = *first;
                    self.0 = rest;
                    Ok(1)
                }
            }
        }
    }

    /// Loss prevented: a seed that comes through a pipe in pieces and is cut short, or a PIN with the
    /// line's end in it that nobody can type again.
    #[test]
    fn what_comes_in_pieces_is_read_whole() {
        let read = |bytes: &[u8], until| text(Slow(bytes, false), until).unwrap();
        assert_eq!(read(b" spire-seed:v1:AbC\n\n", Until::End).expose(), "spire-seed:v1:AbC");
        assert_eq!(
            read(b"a\nb\n", Until::End).expose(),
            "a\nb",
            "one line or not is not said here"
        );
        assert_eq!(read(b"271828\r\nnext", Until::Line).expose(), "271828");
        assert_eq!(read(b"271828", Until::Line).expose(), "271828", "without an end");
        assert_eq!(read(b"", Until::Line).expose(), "");
        let one_go = text(&b"271828\nand the next line"[..], Until::Line).unwrap();
        assert_eq!(one_go.expose(), "271828");
        assert_eq!(text(&vec![b'x'; 2 * MOST][..], Until::End).unwrap().expose().len(), MOST);
        assert!(text(&[0xff, 0xfe][..], Until::End).is_err(), "no text");
    }
}
