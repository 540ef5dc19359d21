//! The devices that are driven over a line: each engine with its simulated device, as machines have
//! them.

use anyhow::{Context as _, Result};
use bitspire_agent::journal::ByJournal;
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, ccnet, ebds, id003};
use bitspire_hardware::dispenser::{DispenserCommand, DispenserEvent, f56, puloon};
use bitspire_hardware::engine::Engine;
use bitspire_hardware::frame::ebds::PowerUpPolicy;
use bitspire_hardware::frame::ssp::cipher::{FixedKey, Primes, Seed};
use bitspire_hardware::recycler::{
    RecyclerCommand, RecyclerEvent, ccnet_b2b, id003_rc, smart_payout,
};
use bitspire_hardware::sim::{self, SimDevice};
use bitspire_shared::money::Currency;

/// What they all trade in; the simulated dispensers hold 20s in bay 1 and 50s in bay 2.
pub(super) const CURRENCY: &str = "USD";

/// What is done with each of them.
pub(super) trait Visit {
    /// With a validator.
    fn acceptor<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = AcceptorCommand<ByJournal>, Event = AcceptorEvent>;
    /// With a dispenser.
    fn dispenser<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = DispenserCommand<ByJournal>, Event = DispenserEvent>;
    /// With a recycler.
    fn recycler<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = RecyclerCommand<ByJournal>, Event = RecyclerEvent>;
}

/// Goes to all of them.
pub(super) fn each(visit: &mut impl Visit) -> Result<()> {
    let currency: Currency = CURRENCY.parse()?;
    let baud = 9_600;
    ccnets(visit, ccnet::Settings { currency, baud })?;
    visit.acceptor(
        "ebds",
        ebds::Ebds::new(ebds::Settings { currency, baud, policy: PowerUpPolicy::default() }),
        sim::ebds::EbdsSim::new(
            sim::ebds::EbdsSim::usd(),
            sim::ebds::Options::default(),
            sim::ebds::Timing::default(),
        ),
    )?;
    let f56 = sim::f56::F56Sim::new(sim::f56::Fit::default());
    visit.dispenser("f56", f56::F56::new(currency), f56)?;
    id003s(visit, id003::Settings { currency, baud })?;
    let model = puloon::Model::Lcdm4000;
    visit.dispenser(
        "puloon",
        puloon::Puloon::new(puloon::Settings::new(model, currency)),
        sim::puloon::PuloonSim::new(model, sim::puloon::Fit::default()),
    )?;
    visit.recycler(
        "smart_payout",
        smart_payout::SmartPayout::new(smart_payout::Settings {
            currency,
            baud,
            notes_per_bay: 30,
            fixed_key: FixedKey::default(),
            primes: Primes::USUAL,
            seed: Seed::new([1; 16]),
        }),
        sim::smart_payout::SmartPayoutSim::new(
            sim::smart_payout::SmartPayoutSim::usd(),
            sim::smart_payout::Options::default(),
            sim::smart_payout::Timing::default(),
        ),
    )
}

fn ccnets(visit: &mut impl Visit, settings: ccnet::Settings) -> Result<()> {
    use sim::ccnet::{CcnetSim, Options, Timing};
    let parts = || (CcnetSim::usd(), Options::default(), Timing::default());
    let (table, options, timing) = parts();
    let device = CcnetSim::new(table, options, timing);
    visit.acceptor("ccnet", ccnet::Ccnet::new(settings), device)?;
    let (table, options, timing) = parts();
    let device = CcnetSim::unit(table, options, timing);
    visit.recycler("ccnet_b2b", ccnet_b2b::CcnetB2b::new(settings), device)
}

fn id003s(visit: &mut impl Visit, validator: id003::Settings) -> Result<()> {
    use sim::id003::{Id003Sim, Options, Timing};
    let parts = || (Id003Sim::usd(), Options::default(), Timing::default());
    let (table, options, timing) = parts();
    let device = Id003Sim::new(table, options, timing);
    visit.acceptor("id003", id003::Id003::new(validator), device)?;
    let (table, options, timing) = parts();
    let device = Id003Sim::recycler(table, options, timing);
    let settings = id003_rc::Settings { validator, notes_per_box: 30 };
    visit.recycler("id003_rc", id003_rc::Id003Rc::new(settings), device)
}

/// The figure of a device among these, whose names end in a dot and the device's.
pub(super) fn figure_of(names: &[&'static str], device: &str) -> Result<&'static str> {
    let of = |name: &&&str| name.rsplit_once('.').is_some_and(|(_, of)| of == device);
    names.iter().find(of).copied().with_context(|| format!("no figure of {device} in {names:?}"))
}
