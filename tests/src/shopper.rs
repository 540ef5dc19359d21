//! A customer who does not give up: whatever happens to the machine, they look at the screen, do the
//! next thing that it asks for, and remember what they have seen. Some have habits of their own.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitspire_shared::money::Direction;
use serde_json::{Value, json};

use crate::books::{Entry, Journal};
use crate::customer::Customer;
use crate::sale::{IDLE, pays};
use crate::screen::{between, heading, qr_text};
use crate::wallet::{Accepted, CustomerWallet};
use crate::world::World;

/// Between two tries of the same thing: a person's.
const AGAIN: Duration = Duration::from_millis(400);
/// Between two tries of a claim code; the machine takes five a minute.
const CODE_AGAIN: Duration = Duration::from_secs(13);

/// How somebody goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Does what the screen asks for.
    Plain,
    /// Cancels once at a screen whose heading holds this; pays what they have scanned all the same.
    Cancels(&'static str),
    /// Goes away for good at a screen whose heading holds this, and pays nothing from there on.
    Leaves(&'static str),
    /// Pays the same invoice again.
    PaysTwice,
    /// Pays this many msat more than was asked for.
    PaysMore(u64),
    /// Pays half.
    PaysHalf,
    /// Two wallets scan the same LNURL at the same moment.
    TwoWallets,
}

/// What somebody wants of the machine.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which way.
    pub direction: Direction,
    /// What is bought, in minor units.
    pub fiat_minor: i64,
    /// The notes that are fed, in units of the currency.
    pub notes: Vec<u32>,
    /// How they go about it.
    pub habit: Habit,
}

/// Somebody at the machine, for one sale.
pub struct Shopper<'a> {
    customer: &'a Customer,
    wallet: &'a CustomerWallet,
    wish: Wish,
    base: i64,
    older: BTreeSet<String>,
    boxed: usize,
    tried: Option<(String, Instant)>,
    cancelled: bool,
    /// Whether they have gone away.
    pub gone: bool,
    /// The claim code, once they have seen it.
    pub code: Option<String>,
    /// How often they have entered it.
    pub codes_entered: u32,
    /// The invoice, once they have scanned it.
    pub bolt11: Option<String>,
    /// Whether their wallet has paid.
    pub paid: bool,
    lnurl: Option<String>,
    invoice: Option<String>,
    named: bool,
    /// What the service has accepted to pay.
    pub accepted: Option<Accepted>,
}

/// Notes in the cashbox and on their way there.
///
/// # Errors
/// When the validator does not answer.
pub fn in_box(world: &World) -> Result<(usize, usize)> {
    let counters = world.counters(&world.acceptor)?;
    let notes = counters["cashbox"].as_object().context("no cashbox")?;
    let stacked = notes.values().filter_map(Value::as_u64).sum::<u64>();
    let in_path = counters["in_path"].as_u64().context("no in_path")?;
    Ok((stacked.try_into()?, in_path.try_into()?))
}

impl<'a> Shopper<'a> {
    /// Steps in front of the machine.
    ///
    /// # Errors
    /// When journal or validator cannot be read.
    pub fn new(
        world: &World,
        customer: &'a Customer,
        wallet: &'a CustomerWallet,
        wish: Wish,
    ) -> Result<Self> {
        let journal = Journal::of(world.folder())?;
        Ok(Self {
            customer,
            wallet,
            wish,
            base: journal.seq()?,
            older: journal.after(0)?.into_iter().filter_map(|entry| entry.txid).collect(),
            boxed: in_box(world)?.0,
            tried: None,
            cancelled: false,
            gone: false,
            code: None,
            codes_entered: 0,
            bolt11: None,
            paid: false,
            lnurl: None,
            invoice: None,
            named: false,
            accepted: None,
        })
    }

    /// The last thing that the journal says of this sale.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last(&self, journal: &Journal) -> Result<Option<Entry>> {
        let entries = journal.after(self.base)?;
        let ours = |txid: &Option<String>| txid.as_ref().is_some_and(|id| !self.older.contains(id));
        Ok(entries.into_iter().rfind(|e| ours(&e.txid) && e.state().is_some()))
    }

    /// Whether nobody will pay the invoice of this sale any more.
    #[must_use]
    pub const fn keeps_their_sats(&self) -> bool {
        !self.paid && (self.bolt11.is_none() || self.gone)
    }

    /// One look, at most one thing done; what fails is tried again later, as people do.
    ///
    /// # Errors
    /// When journal or devices cannot be read.
    pub fn look(&mut self, world: &World, journal: &Journal) -> Result<()> {
        let html = self.customer.screen();
        let shown = heading(&html);
        if let Habit::Leaves(at) = self.wish.habit {
            self.gone |= shown.contains(at);
        }
        if self.gone {
            return Ok(());
        }
        if let Some(code) = between(&html, "<code>", "</code>") {
            self.code = Some(code.to_owned());
        }
        if let Habit::Cancels(at) = self.wish.habit
            && shown.contains(at)
            && !self.cancelled
        {
            self.cancelled = self.customer.touches(&json!({"action": "cancel"})).is_ok();
        }
        match self.wish.direction {
            Direction::CashOut => self.buy(world, journal, &html),
            Direction::CashIn => self.sell(world, journal, &html),
        }
    }

    /// Whether it is time to try `what`, for the first time or again.
    fn tries(&mut self, what: &str, again: Duration) -> bool {
        let now = Instant::now();
        let soon = |(last, at): &(String, Instant)| last == what && now < *at + again;
        if self.tried.as_ref().is_some_and(soon) {
            return false;
        }
        self.tried = Some((what.to_owned(), now));
        true
    }

    fn touch(&mut self, what: &str, action: &Value) {
        if self.tries(what, AGAIN) {
            // a machine that is down takes nothing
            let _ = self.customer.touches(action);
        }
    }

    /// Types the code where the screen asks for one.
    fn types_code(&mut self, html: &str) {
        if !html.contains("id=\"code\"") || self.code.is_none() {
            return;
        }
        if self.tries("code", CODE_AGAIN) {
            let entered = json!({"action": "claim_code", "code": self.code});
            if self.customer.touches(&entered).is_ok() {
                self.codes_entered += 1;
            }
        }
    }

    fn buy(&mut self, world: &World, journal: &Journal, html: &str) -> Result<()> {
        let shown = heading(html);
        if shown.contains(IDLE) && self.last(journal)?.is_none() {
            let start = json!({"action": "start_cash_out", "fiat_minor": self.wish.fiat_minor});
            self.touch("start", &start);
        } else if shown.contains("Buy ") {
            self.touch("confirm", &json!({"action": "confirm"}));
        } else if shown.contains("Take your notes") && self.tries("take", AGAIN) {
            let _ = world.act(&world.dispenser, &json!({"action": "take"}));
        } else {
            self.types_code(html);
        }
        if shown.contains("Pay ") && self.bolt11.is_none() {
            self.bolt11 = qr_text(html).ok().map(|text| text.to_lowercase());
        }
        // a wallet pays what it has scanned, whatever became of the screen
        if let Some(bolt11) = self.bolt11.clone().filter(|_| !self.paid)
            && self.tries("pay", AGAIN)
        {
            self.pay(world, &bolt11, journal)?;
        }
        Ok(())
    }

    fn pay(&mut self, world: &World, bolt11: &str, journal: &Journal) -> Result<()> {
        let last = self.last(journal)?;
        let asked = last.and_then(|entry| {
            let state = &entry.txn()["state"]["cash_out"]["state"];
            let sale = state.as_object().and_then(|state| state.values().next()?.get("sale"));
            sale.and_then(|sale| sale["terms"]["wire_sats"].as_u64())
        });
        let msat = asked.map(|sats| sats * 1_000);
        let amount = match self.wish.habit {
            Habit::PaysMore(more) => msat.map(|msat| msat + more),
            Habit::PaysHalf => msat.map(|msat| msat / 2),
            _ => None,
        };
        let paid = match amount {
            None => pays(world, bolt11).map(drop),
            Some(amount) => {
                let body = json!({"bolt11": bolt11, "amount_msat": amount});
                world.api("POST", "/simulator/pay", Some(&body)).map(drop)
            }
        };
        match paid {
            Ok(()) => self.paid = true,
            // the answer to an earlier try was lost
            Err(error) if format!("{error:#}").contains("was paid") => self.paid = true,
            Err(_) => {}
        }
        if self.paid && self.wish.habit == Habit::PaysTwice {
            // a node that is one takes it once
            let _ = pays(world, bolt11);
        }
        Ok(())
    }

    fn sell(&mut self, world: &World, journal: &Journal, html: &str) -> Result<()> {
        let shown = heading(html);
        let (stacked, in_path) = in_box(world)?;
        let next = self.wish.notes.get(stacked.saturating_sub(self.boxed)).copied();
        if shown.contains(IDLE) && self.last(journal)?.is_none() {
            self.touch("start", &json!({"action": "start_cash_in"}));
        } else if shown.contains("Feed your notes") {
            match next {
                Some(note) if in_path == 0 && self.tries("insert", AGAIN) => {
                    let insert = json!({"action": "insert", "denomination": note});
                    let _ = world.act(&world.acceptor, &insert);
                }
                Some(_) => {}
                None => self.touch("finish", &json!({"action": "finish"})),
            }
        } else if let Ok(lnurl) = qr_text(html) {
            self.scan(lnurl);
        } else {
            self.types_code(html);
        }
        Ok(())
    }

    /// Another code on the screen is another offer: the wallet names another invoice.
    fn scan(&mut self, lnurl: String) {
        if self.lnurl.as_ref() != Some(&lnurl) {
            (self.lnurl, self.invoice, self.named) = (Some(lnurl.clone()), None, false);
        }
        if self.named || !self.tries("scan", AGAIN) {
            return;
        }
        let Self { wallet, invoice, wish, .. } = self;
        let accepted = thread::scope(|scope| {
            if wish.habit == Habit::TwoWallets {
                let other = *wallet;
                let lnurl = &lnurl;
                // whichever is first is paid; the other is told so
                scope.spawn(move || other.scan(lnurl).ok());
            }
            wallet.scan_with(&lnurl, invoice).ok()
        });
        if accepted.is_some() {
            (self.accepted, self.named) = (accepted, true);
        }
    }
}
