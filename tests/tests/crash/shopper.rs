//! A customer who does not give up: whatever happens to the machine, they look at the screen, do the
//! next thing that it asks for, and remember what they have seen.

use std::time::{Duration, Instant};

use bitspire_shared::money::Direction;
use bitspire_tests::books::{Entry, Journal};
use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{IDLE, pays};
use bitspire_tests::screen::{between, heading, qr_text};
use bitspire_tests::wallet::{Accepted, CustomerWallet};
use bitspire_tests::world::World;
use serde_json::{Value, json};

/// What is bought, in minor units: one note.
pub(crate) const AMOUNT: i64 = 2_000;
/// The note that is fed, in units of the currency.
pub(crate) const NOTE: i64 = 20;
/// Between two tries of the same thing: a person's.
const AGAIN: Duration = Duration::from_millis(400);
/// Between two tries of a claim code; the machine takes five a minute.
const CODE_AGAIN: Duration = Duration::from_secs(13);

pub(crate) struct Shopper<'a> {
    customer: &'a Customer,
    wallet: &'a CustomerWallet,
    direction: Direction,
    base: i64,
    boxed: i64,
    tried: Option<(String, Instant)>,
    pub(crate) code: Option<String>,
    pub(crate) bolt11: Option<String>,
    pub(crate) paid: bool,
    pub(crate) codes_entered: u32,
    invoice: Option<String>,
    pub(crate) accepted: Option<Accepted>,
}

/// Notes in the cashbox and on their way there.
pub(crate) fn in_box(world: &World) -> (i64, i64) {
    let counters = world.counters(&world.acceptor).unwrap();
    let notes = counters["cashbox"].as_object().unwrap();
    let stacked = notes.values().map(|many| many.as_i64().unwrap()).sum();
    (stacked, counters["in_path"].as_i64().unwrap())
}

impl<'a> Shopper<'a> {
    pub(crate) fn new(
        world: &World,
        customer: &'a Customer,
        wallet: &'a CustomerWallet,
        direction: Direction,
    ) -> Self {
        let base = Journal::of(world.folder()).unwrap().seq().unwrap();
        Self {
            customer,
            wallet,
            direction,
            base,
            boxed: in_box(world).0,
            tried: None,
            code: None,
            bolt11: None,
            paid: false,
            codes_entered: 0,
            invoice: None,
            accepted: None,
        }
    }

    /// The last thing that the journal says of this sale.
    pub(crate) fn last(&self, journal: &Journal) -> Option<Entry> {
        let entries = journal.after(self.base).unwrap();
        let txid = entries.iter().find_map(|entry| entry.txid.clone())?;
        entries.into_iter().rfind(|e| e.txid.as_ref() == Some(&txid) && e.state().is_some())
    }

    /// One look, at most one thing done; what fails is tried again later, as people do.
    pub(crate) fn look(&mut self, world: &World, journal: &Journal) {
        let html = self.customer.screen();
        if let Some(code) = between(&html, "<code>", "</code>") {
            self.code = Some(code.to_owned());
        }
        match self.direction {
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

    fn buy(&mut self, world: &World, journal: &Journal, html: &str) {
        let shown = heading(html);
        if shown.contains(IDLE) && self.last(journal).is_none() {
            let start = json!({"action": "start_cash_out", "fiat_minor": AMOUNT});
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
            match pays(world, &bolt11) {
                Ok(_) => self.paid = true,
                // the answer to an earlier try was lost
                Err(error) if format!("{error:#}").contains("was paid") => self.paid = true,
                Err(_) => {}
            }
        }
    }

    fn sell(&mut self, world: &World, journal: &Journal, html: &str) {
        let shown = heading(html);
        let (stacked, in_path) = in_box(world);
        let taken = stacked > self.boxed;
        if shown.contains(IDLE) && self.last(journal).is_none() {
            self.touch("start", &json!({"action": "start_cash_in"}));
        } else if shown.contains("Feed your notes") && !taken {
            if in_path == 0 && self.tries("insert", AGAIN) {
                let insert = json!({"action": "insert", "denomination": NOTE});
                let _ = world.act(&world.acceptor, &insert);
            }
        } else if shown.contains("Feed your notes") {
            self.touch("finish", &json!({"action": "finish"}));
        } else if let Ok(lnurl) = qr_text(html) {
            if self.accepted.is_none() && self.tries("scan", AGAIN) {
                self.accepted = self.wallet.scan_with(&lnurl, &mut self.invoice).ok();
            }
        } else {
            self.types_code(html);
        }
    }
}
