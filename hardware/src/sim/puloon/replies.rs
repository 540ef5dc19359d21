//! What a simulated LCDM says: results, sensors, settings.

use super::mechanism::{Run, Trouble};
use super::{Last, Model, PuloonSim, SLOTS};
use crate::frame::puloon::{Frame, lcdm1000, lcdm4000};

/// Notes at which a cassette is nearly empty.
const NEAR_END: u32 = 30;

impl PuloonSim {
    /// The result of a dispense, kept where the model keeps it.
    pub(super) fn counted(&mut self, request: &Frame, run: &Run, trouble: Trouble) -> Frame {
        let error = trouble.code(self.model);
        let command = request.command();
        let count = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
        let numbers = run.exit.into_iter().zip(run.rejected).zip(run.checked);
        if self.model == Model::Lcdm4000 {
            if let lcdm4000::Request::Diagnostics(bay) = lcdm4000::Request::parse(request) {
                let at = usize::from(bay).saturating_sub(1);
                let length = self.mechanism.lengths.and_then(|all| all.get(at).copied());
                let rejected = count(run.rejected.iter().sum());
                let length = length.unwrap_or(0);
                let reply = lcdm4000::Reply::Measured {
                    error,
                    opacity: 0x50,
                    length,
                    divert_ms: 9,
                    rejected,
                };
                return reply.frame();
            }
            let mut bays = [lcdm4000::BayCount::default(); SLOTS];
            let present = self.mechanism.bays.present();
            for ((bay, ((exit, rejected), _)), present) in bays.iter_mut().zip(numbers).zip(present)
            {
                *bay = lcdm4000::BayCount { exit: count(exit), rejected: count(rejected), present };
            }
            self.last = Some(Last { command, error, bays });
            return lcdm4000::Reply::Counted { command, error, bays }.frame();
        }
        let near_end = self.near_end();
        let mut bays = [lcdm1000::BayCount::default(); 2];
        for ((bay, ((exit, rejected), checked)), near_end) in
            bays.iter_mut().zip(numbers).zip(near_end)
        {
            *bay = lcdm1000::BayCount {
                checked: count(checked),
                exit: count(exit),
                rejected: count(rejected),
                near_end,
            };
        }
        let [upper, lower] = bays;
        match command {
            lcdm1000::BOTH => lcdm1000::Reply::Two { error, bays }.frame(),
            lcdm1000::LOWER | 0x77 => lcdm1000::Reply::One { command, error, bay: lower }.frame(),
            _ => lcdm1000::Reply::One { command, error, bay: upper }.frame(),
        }
    }

    fn near_end(&self) -> [bool; SLOTS] {
        let mut ends = [false; SLOTS];
        for (at, end) in ends.iter_mut().enumerate() {
            *end = self.mechanism.bays.cassette(at).is_some_and(|c| c.notes <= NEAR_END);
        }
        ends
    }

    pub(super) fn big_reply(&mut self, request: &Frame) -> Frame {
        use lcdm4000::{BayCount, BayStatus, Reply, Request, error};
        let command = request.command();
        let well = error(0);
        let reply = match Request::parse(request) {
            Request::Status => {
                let mut bays = [BayStatus::default(); SLOTS];
                let lengths = self.mechanism.lengths.unwrap_or_default();
                let seen = self.mechanism.bays.present().into_iter().zip(self.near_end());
                let seen = seen.zip(lengths).zip(self.opacities);
                for (bay, (((present, end), length), opacity)) in bays.iter_mut().zip(seen) {
                    let sensors = if end { 0x0c } else { 0x04 };
                    *bay = BayStatus { sensors, present, opacity, length };
                }
                let exit = if self.mechanism.at_exit() { lcdm4000::AT_EXIT } else { 0 };
                let stuck = self.mechanism.bays.in_path() != [0; SLOTS];
                Reply::Status { error: well, sensors: exit | u8::from(stuck) << 2, bays }
            }
            Request::Purge => {
                let mut bays = [BayCount::default(); SLOTS];
                let seen = self.mechanism.bays.present().into_iter();
                let seen = seen.zip(self.mechanism.bays.in_path());
                for (bay, (present, notes)) in bays.iter_mut().zip(seen) {
                    let rejected = u8::try_from(notes).unwrap_or(u8::MAX);
                    *bay = BayCount { exit: 0, rejected, present };
                }
                self.mechanism.bays.purge();
                self.last = Some(Last { command, error: well, bays });
                Reply::Counted { command, error: well, bays }
            }
            Request::LastStatus => match self.last {
                Some(Last { command, error, bays }) => Reply::Last { command, error, bays },
                None => Reply::Done { command, error: Trouble::UnknownCommand.code(self.model) },
            },
            Request::SetOpacities(values) => {
                keep(&mut self.opacities, values);
                Reply::Done { command, error: well }
            }
            Request::Opacities => Reply::Values { command, error: well, values: self.opacities },
            Request::SetOrder(order) => {
                self.order = order;
                Reply::Done { command, error: well }
            }
            Request::Order => Reply::Values { command, error: well, values: self.order },
            Request::SetLengths(values) => {
                keep(self.mechanism.lengths.get_or_insert_default(), values);
                Reply::Done { command, error: well }
            }
            Request::Lengths => {
                let values = self.mechanism.lengths.unwrap_or_default();
                Reply::Values { command, error: well, values }
            }
            Request::Serial => Reply::Serial { error: well, serial: self.serial },
            _ => Reply::Done { command, error: Trouble::UnknownCommand.code(self.model) },
        };
        reply.frame()
    }

    pub(super) fn small_reply(&mut self, request: &Frame) -> Frame {
        use lcdm1000::{Reply, Request, Sensors, error};
        let command = request.command();
        let well = error(0x30);
        let reply = match Request::parse(request) {
            Request::Purge => {
                self.mechanism.bays.purge();
                Reply::Done { command, error: well }
            }
            Request::Status => {
                let [upper, lower, ..] = self.mechanism.bays.present();
                let [upper_end, lower_end, ..] = self.near_end();
                let lower_fitted = self.model == Model::Lcdm2000;
                let missing = [!upper, lower_fitted && !lower];
                let ends = [upper_end, lower_end];
                let sensors = Sensors::draft(self.mechanism.at_exit(), missing, ends);
                Reply::Status { error: well, sensors }
            }
            Request::RomVersion => Reply::Rom { version: *b"15", checksum: 0x2c4d },
            _ => Reply::Done { command, error: Trouble::UnknownCommand.code(self.model) },
        };
        reply.frame()
    }
}

/// 0 leaves a value as it is.
fn keep(values: &mut [u8; SLOTS], new: [u8; SLOTS]) {
    for (value, new) in values.iter_mut().zip(new) {
        *value = if new == 0 { *value } else { new };
    }
}
