//! One note from a cassette to the reject tray: does the unit pick, and is the note known?
//!
//! Promise: the command is sent once, whatever becomes of its answer, and not while notes lie at the
//! exit or the unit misses its tray. No sale may be open: the unit forgets how its last dispense
//! ended.

use std::time::Duration;

use bitspire_shared::ids::BayId;

use super::look::{knock, puloon_asks};
use super::talk::Talk;
use super::{ANSWER, ProbeError, Protocol};
use crate::dispenser::puloon::DispenseForm;
use crate::engine::LineSettings;
use crate::frame::puloon::{lcdm1000, lcdm4000};
use crate::port::Opener;

/// How long a unit may take to move its note: TerminalClient waits 60 s and one for each note.
const MOTION: Duration = Duration::from_secs(61);

/// What became of the note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Notes that went out of the exit by the unit's count: none should.
    pub presented: u32,
    /// Events of notes to the reject tray.
    pub rejected: u32,
    /// What the unit says of it, with its code; none where it is well.
    pub trouble: Option<String>,
}

/// Moves one note of `bay` to the reject tray.
///
/// # Errors
/// [`ProbeError`]; [`ProbeError::Unanswered`] where nobody knows whether a note moved.
pub fn test_dispense(
    opener: &mut Opener,
    protocol: Protocol,
    line: LineSettings,
    bay: BayId,
    form: DispenseForm,
) -> Result<Tested, ProbeError> {
    if !matches!(protocol, Protocol::Lcdm4000 | Protocol::Lcdm1000) {
        return Err(ProbeError::NoTest(protocol));
    }
    let mut talk = Talk::open(opener, line)?;
    let found = knock(&mut talk, protocol, ANSWER)?.ok_or(ProbeError::Silent)?;
    if let Some(forbids) = found.forbids.first() {
        return Err(ProbeError::NotNow(*forbids));
    }
    let question = match (protocol, bay.get()) {
        (Protocol::Lcdm4000, place) => {
            let serial = puloon_asks(&mut talk, &lcdm4000::Request::Serial.frame(), ANSWER)?;
            let serial = serial.map(|frame| lcdm4000::Reply::parse(&frame));
            let form = match (form, serial) {
                (DispenseForm::Serial, Some(lcdm4000::Reply::Serial { serial, .. })) => {
                    lcdm4000::Form::Serial(serial.saturating_add(1) % lcdm4000::SERIALS)
                }
                (DispenseForm::Serial, _) => return Err(ProbeError::Silent),
                (DispenseForm::Plain, _) => lcdm4000::Form::Plain,
            };
            let mut notes = [0; lcdm4000::SLOTS];
            for (slot, number) in notes.iter_mut().zip(1..) {
                *slot = u8::from(place == number);
            }
            lcdm4000::Request::TestDispense(lcdm4000::Counts { notes, form }).frame()
        }
        (_, 1) => lcdm1000::Request::TestUpper(1).frame(),
        _ => lcdm1000::Request::TestLower(1).frame(),
    };
    let answer = puloon_asks(&mut talk, &question, MOTION).map_err(|_| ProbeError::Unanswered)?;
    let answer = answer.ok_or(ProbeError::Unanswered)?;
    let (error, presented, rejected) = match protocol {
        Protocol::Lcdm4000 => match lcdm4000::Reply::parse(&answer) {
            lcdm4000::Reply::Counted { error, bays, .. } => {
                let sum = |of: fn(&lcdm4000::BayCount) -> u8| bays.iter().map(of).map(u32::from);
                (error, sum(|bay| bay.exit).sum(), sum(|bay| bay.rejected).sum())
            }
            _ => return Err(ProbeError::Unanswered),
        },
        _ => match lcdm1000::Reply::parse(&answer) {
            lcdm1000::Reply::One { error, bay, .. } => {
                (error, u32::from(bay.exit), u32::from(bay.rejected))
            }
            _ => return Err(ProbeError::Unanswered),
        },
    };
    let trouble = (!error.is_ok()).then(|| error.to_string());
    Ok(Tested { presented, rejected, trouble })
}
