//! Engine and simulated recycler on one line, with one clock.

mod crash;
mod follow;
mod odd;
mod payout;

use serde_json::json;

use super::super::world::{ByTest, Make, Proof, bay, currency};
use super::*;
use crate::acceptor::AcceptorCommand;
use crate::dispenser::DispenseOutcome;
use crate::frame::id003::Decoder;
use crate::sim::SimDevice;
use crate::sim::id003::{Id003Sim, Options, Timing};

pub(super) enum Rc {}

impl Make for Rc {
    type Engine = Id003Rc<ByTest>;
    type Sim = Id003Sim;
    type Ear = Decoder;

    fn engine() -> Self::Engine {
        let validator = Validator { currency: currency(), baud: 9_600 };
        Id003Rc::new(Settings { validator, notes_per_box: 30 })
    }

    fn sim() -> Id003Sim {
        Id003Sim::recycler(Id003Sim::eur(), Options::default(), Timing::default())
    }

    fn orders(ear: &mut Decoder, mut said: &[u8]) -> usize {
        let frames = std::iter::from_fn(|| ear.push(&mut said));
        let moves = |frame: &Frame| {
            let meant = Extension::parse(frame);
            matches!(meant, Some(Extension::PayOut { .. } | Extension::Collect { .. }))
        };
        frames.filter(moves).count()
    }
}

type World = super::super::world::World<Rc>;
