//! JCM ID-003.

mod crash;
mod defects;
mod sequences;

use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::frame::id003::{Decoder, Frame, Request};
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};

use crate::support::ByTest;
use crate::world::{Protocol, World as AnyWorld};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Id003Line {}

impl Protocol for Id003Line {
    type Engine = Id003<ByTest>;
    type Sim = Id003Sim;
    type Options = Options;
    type Frame = Frame;
    const CREDIT: &'static str = "VEND VALID";
    const REJECT: (&'static str, &'static str) = ("7D", "length does not fit (7D)");
    const INHIBITED: &'static str = "79";
    const DOWN_MS: [u64; 3] = [200, 5_000, 70_000];
    const FULL: &'static str = "STACKER FULL (43)";

    fn engine() -> Self::Engine {
        Id003::new(Settings { currency: "EUR".parse().unwrap(), baud: 9600 })
    }

    fn sim(options: Options) -> Id003Sim {
        Id003Sim::new(Id003Sim::eur(), options, Timing::default())
    }

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
    }

    fn stack() -> Frame {
        Request::Stack2.frame()
    }

    fn hold() -> Frame {
        Request::Hold.frame()
    }

    fn table() -> Frame {
        Request::CurrencyAssign.frame()
    }
}

type World = AnyWorld<Id003Line>;

impl World {
    fn times_said(&self, request: Request<'_>) -> usize {
        self.times(&request.frame())
    }
}

crate::common::tests!(Id003Line);
