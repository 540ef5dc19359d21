//! Places to die at between the record of a movement and the last byte to its device.
//!
//! Promise: in a test build ([`crash::PRESENT`]) the process can die before and after each effect of a
//! transaction and, from the moment at which the record of a movement is on the disk, before and after
//! each write on a device's line. In every other build effects and lines pass untouched.
//!
//! Failure policy: none of its own; what a line answers is passed on.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitspire_hardware::port::{Link, Opener};
use bitspire_shell::crash;

use super::{Place, Point};

/// Effects that move a note for good.
const MOVES: [&str; 2] = ["dispense", "stack"];

/// Whether a note is to move, as the lines see it.
#[derive(Debug, Default)]
pub(super) struct Wire(Arc<AtomicBool>);

impl Wire {
    /// The vault is there.
    pub(super) fn reached(&self, place: Place<'_>) {
        let Place::Effect { effect, point, .. } = place else { return };
        match point {
            Point::Before => crash::point("drive.before_effect", effect),
            Point::Recorded => {
                crash::point("drive.after_record", effect);
                if MOVES.contains(&effect) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            Point::After => crash::point("drive.after_effect", effect),
        }
    }

    /// The line of the device called `name`.
    pub(super) fn line(&self, name: &'static str, mut opener: Opener) -> Opener {
        if !crash::PRESENT {
            return opener;
        }
        let moves = Arc::clone(&self.0);
        Box::new(move |settings| {
            let Link { reader, writer, hang_up } = opener(settings)?;
            let writer = Box::new(Deadly { name, writer, moves: Arc::clone(&moves) });
            Ok(Link { reader, writer, hang_up })
        })
    }
}

/// The writing half of a line.
struct Deadly {
    name: &'static str,
    writer: Box<dyn Write + Send>,
    moves: Arc<AtomicBool>,
}

impl Write for Deadly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let moves = self.moves.load(Ordering::SeqCst);
        if moves {
            crash::point("device.before_write", self.name);
        }
        let written = self.writer.write(bytes);
        if moves {
            crash::point("device.after_write", self.name);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
