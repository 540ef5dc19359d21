//! Engine and simulated unit on one line, with one clock.

mod crash;
mod odd;
mod payout;
mod recovery;
mod unkind;

use bitspire_shared::cash::BayResult;
use serde_json::json;

use super::super::world::payout::{done, is_true};

use super::super::world::{ByTest, Make, Proof, bay, currency, note};
use super::*;
use crate::acceptor::AcceptorCommand;
use crate::dispenser::DispenseOutcome;
use crate::frame::ccnet::Request;
use crate::frame::ccnet::unit::Command;
use crate::sim::SimDevice;
use crate::sim::ccnet::{CcnetSim, Options, Timing};

pub(super) enum Unit {}

impl Make for Unit {
    type Engine = CcnetB2b<ByTest>;
    type Sim = CcnetSim;
    type Ear = Decoder;

    fn engine() -> Self::Engine {
        CcnetB2b::new(Settings { currency: currency(), baud: 9_600 })
    }

    fn sim() -> CcnetSim {
        CcnetSim::unit(CcnetSim::eur(), Options::default(), Timing::default())
    }

    fn orders(ear: &mut Decoder, mut said: &[u8]) -> usize {
        let frames = std::iter::from_fn(|| ear.push(&mut said));
        let moves = |frame: &Frame| {
            let meant = Request::parse(frame);
            matches!(meant, Request::Unit(Command::Dispense(_) | Command::Unload { .. }))
        };
        frames.filter(moves).count()
    }
}

type World = super::super::world::World<Unit>;
