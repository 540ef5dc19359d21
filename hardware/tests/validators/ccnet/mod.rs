//! CashCode CCNET.

mod crash;
mod defects;
mod sequences;

use bitspire_hardware::acceptor::ccnet::{Ccnet, Settings};
use bitspire_hardware::frame::ccnet::{Decoder, Frame, Request};
use bitspire_hardware::sim::ccnet::{CcnetSim, Options, Timing};

use crate::support::ByTest;
use crate::world::{Protocol, World as AnyWorld};

#[derive(Clone, Copy, Debug)]
pub(crate) enum CcnetLine {}

impl Protocol for CcnetLine {
    type Engine = Ccnet<ByTest>;
    type Sim = CcnetSim;
    type Options = Options;
    type Frame = Frame;
    const CREDIT: &'static str = "BILL STACKED";
    const REJECT: (&'static str, &'static str) = ("6C", "length does not fit (6C)");
    const INHIBITED: &'static str = "68";
    const DOWN_MS: [u64; 3] = [200, 6_000, 15_000];
    const FULL: &'static str = "DROP CASSETTE FULL (41)";

    fn engine() -> Self::Engine {
        Ccnet::new(Settings { currency: "EUR".parse().unwrap(), baud: 9600 })
    }

    fn sim(options: Options) -> CcnetSim {
        CcnetSim::new(CcnetSim::eur(), options, Timing::default())
    }

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
    }

    fn stack() -> Frame {
        Request::Stack.frame()
    }

    fn hold() -> Frame {
        Request::Hold.frame()
    }

    fn table() -> Frame {
        Request::GetBillTable.frame()
    }
}

type World = AnyWorld<CcnetLine>;

impl World {
    fn times_said(&self, request: Request<'_>) -> usize {
        self.times(&request.frame())
    }
}

crate::common::tests!(CcnetLine);
