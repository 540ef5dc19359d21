//! What a device is made of, from the words of the command line.

use anyhow::{Context as _, Result, bail};
use bitspire_shared::money::Denomination;

use super::{Cashflow, Cassettes, KnownNotes, Nv200, USUAL, Validator};
use crate::frame::ccnet::BillSlot;
use crate::frame::f56::note_size;
use crate::frame::id003::CurrencySlot;
use crate::sim::SimDevice;
use crate::sim::bays::{Cassette, SLOTS};
use crate::sim::ccnet::{self, CcnetSim};
use crate::sim::ebds::{self, EbdsSim};
use crate::sim::id003::{self, Id003Sim};
use crate::sim::puloon::{self, Model, PuloonSim};
use crate::sim::smart_payout::{self, SmartPayoutSim};

impl Cassettes {
    pub(super) fn puloon(&self, model: Model) -> Result<Box<dyn SimDevice>> {
        let cassettes = self.fit(model.limits().bays.into())?;
        let fit = puloon::Fit { cassettes, note_ms: self.note_ms };
        Ok(Box::new(PuloonSim::new(model, fit)))
    }

    /// The cassettes; as many as there are places, of the usual ones where none are named.
    pub(super) fn fit(&self, places: usize) -> Result<[Option<Cassette>; SLOTS]> {
        let mut cassettes = [None; SLOTS];
        let usual = USUAL.iter().take(places).map(|text| (*text).to_owned());
        let named = if self.bays.is_empty() { usual.collect() } else { self.bays.clone() };
        for text in &named {
            let (bay, cassette) = self.cassette(text).with_context(|| {
                format!("--bay {text}: expected BAY=NOTE:COUNT, such as 1=20:100")
            })?;
            let slot = bay.checked_sub(1).filter(|slot| *slot < places);
            match slot.and_then(|slot| cassettes.get_mut(slot)) {
                Some(place @ None) => *place = Some(cassette),
                Some(Some(_)) => bail!("--bay {text}: bay {bay} is given twice"),
                None => bail!("--bay {text}: expected a bay from 1 to {places}"),
            }
        }
        Ok(cassettes)
    }

    fn cassette(&self, text: &str) -> Result<(usize, Cassette)> {
        let (bay, rest) = text.split_once('=').context("there is no =")?;
        let (note, count) = rest.split_once(':').context("there is no :")?;
        let denomination: u32 = note.parse().context("the note is no number")?;
        let size =
            note_size(self.currency, Denomination::from_major(denomination, self.currency)?)?;
        let notes = count.parse().context("the count is no number")?;
        let cassette = Cassette { denomination, length: (size.max, size.min), notes };
        Ok((bay.parse().context("the bay is no number")?, cassette))
    }
}

impl Validator {
    pub(super) fn ccnet(
        &self,
        make: fn(Vec<BillSlot>, ccnet::Options, ccnet::Timing) -> CcnetSim,
    ) -> CcnetSim {
        let table = match self.currency {
            KnownNotes::Eur => CcnetSim::eur(),
            KnownNotes::Usd => CcnetSim::usd(),
        };
        let options = ccnet::Options {
            strict: self.strict,
            power_recovery: !self.no_power_recovery,
            ..ccnet::Options::default()
        };
        let real = ccnet::Timing::default();
        let timing = ccnet::Timing {
            initialize: paced(real.initialize, self.pace),
            accept: paced(real.accept, self.pace),
            stack: paced(real.stack, self.pace),
            take: paced(real.take, self.pace),
            // the host does not get faster
            confirm: real.confirm,
        };
        make(table, options, timing)
    }

    pub(super) fn id003(
        &self,
        make: fn(Vec<CurrencySlot>, id003::Options, id003::Timing) -> Id003Sim,
    ) -> Id003Sim {
        let table = match self.currency {
            KnownNotes::Eur => Id003Sim::eur(),
            KnownNotes::Usd => Id003Sim::usd(),
        };
        let options = id003::Options {
            strict: self.strict,
            power_recovery: !self.no_power_recovery,
            ..id003::Options::default()
        };
        let real = id003::Timing::default();
        let timing = id003::Timing {
            initialize: paced(real.initialize, self.pace),
            accept: paced(real.accept, self.pace),
            stack: paced(real.stack, self.pace),
            stacked: paced(real.stacked, self.pace),
            take: paced(real.take, self.pace),
        };
        make(table, options, timing)
    }
}

/// Of so many milliseconds, so many percent.
fn paced(ms: u64, percent: u64) -> u64 {
    ms.saturating_mul(percent) / 100
}

impl Cashflow {
    pub(super) fn device(&self) -> EbdsSim {
        let table = match self.currency {
            KnownNotes::Eur => EbdsSim::eur(),
            KnownNotes::Usd => EbdsSim::usd(),
        };
        let options = ebds::Options {
            extended: !self.short_reports,
            remembers: !self.no_power_recovery,
            ..ebds::Options::default()
        };
        let real = ebds::Timing::default();
        let timing = ebds::Timing {
            boot: paced(real.boot, self.pace),
            accept: paced(real.accept, self.pace),
            stack: paced(real.stack, self.pace),
            take: paced(real.take, self.pace),
        };
        EbdsSim::new(table, options, timing)
    }
}

impl Nv200 {
    pub(super) fn device(&self) -> SmartPayoutSim {
        let notes = match self.currency {
            KnownNotes::Eur => SmartPayoutSim::eur(),
            KnownNotes::Usd => SmartPayoutSim::usd(),
        };
        let remembers = !self.no_power_recovery;
        let options = smart_payout::Options { remembers, ..smart_payout::Options::default() };
        let real = smart_payout::Timing::default();
        let timing = smart_payout::Timing {
            start: paced(real.start, self.pace),
            read: paced(real.read, self.pace),
            stack: paced(real.stack, self.pace),
            take: paced(real.take, self.pace),
            carry: paced(real.carry, self.pace),
        };
        SmartPayoutSim::new(notes, options, timing)
    }
}
