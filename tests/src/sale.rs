//! One sale in each direction, as a customer makes it: with the kiosk, a wallet and their hands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitspire_shared::money::Fiat;
use serde_json::{Value, json};

use crate::customer::Customer;
use crate::screen::{amounts, qr_text};
use crate::wait::{PATIENCE, wait_for};
use crate::wallet::{Accepted, CustomerWallet};
use crate::world::{CURRENCY, World};

/// Minor units of a unit of the currency.
pub const MINOR: i64 = 100;
/// The heading of a machine that waits for a customer.
pub const IDLE: &str = "Cash and Lightning";

/// What somebody who bought notes knows of it.
#[derive(Clone, Debug)]
pub struct Bought {
    /// The invoice that they paid.
    pub bolt11: String,
    /// What they paid, in msat.
    pub paid_msat: u64,
    /// From the moment at which they paid to the command to the dispenser, in ms; a recycler does not
    /// say when that came.
    pub to_dispense_ms: Option<u64>,
}

/// Leaves whatever end of an earlier sale may be on the screen; the amounts that can be bought.
///
/// # Errors
/// When the machine does not wait for a customer in time.
pub fn steps_up(customer: &Customer) -> Result<Vec<i64>> {
    // an end stays for a while, for whoever reads slowly; nobody is there where the machine starts
    let deadline = Instant::now() + PATIENCE;
    loop {
        match customer.sees(&[IDLE], Duration::from_secs(1)) {
            Ok((_, html)) => return Ok(amounts(&html)),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {
                // where it does not fit it has no effect
                let _ = customer.touches(&json!({"action": "finish"}));
            }
        }
    }
}

/// Asks for notes and agrees to the price: the invoice on the screen.
///
/// # Errors
/// At the first screen that does not come.
pub fn orders(customer: &Customer, fiat_minor: i64) -> Result<String> {
    // while the last customer's notes lie at the exit nothing can be bought
    let offers = |html: &str| amounts(html).contains(&fiat_minor).then_some(());
    customer.looks(&format!("{fiat_minor} among the amounts"), PATIENCE, offers)?;
    customer.touches(&json!({"action": "start_cash_out", "fiat_minor": fiat_minor}))?;
    customer.sees(&["Buy "], PATIENCE)?;
    customer.touches(&json!({"action": "confirm"}))?;
    let (_, html) = customer.sees(&["Pay "], PATIENCE)?;
    Ok(qr_text(&html)?.to_lowercase())
}

/// Pays an invoice; what was paid, in msat.
///
/// # Errors
/// When the wallet cannot pay it.
pub fn pays(world: &World, bolt11: &str) -> Result<u64> {
    let paid = world.api("POST", "/simulator/pay", Some(&json!({"bolt11": bolt11})))?;
    paid["paid_msat"].as_u64().with_context(|| format!("expected what was paid, got {paid}"))
}

/// Buys notes: asks, agrees, pays, takes them.
///
/// # Errors
/// At the first step that does not come.
pub fn buy(world: &World, customer: &Customer, fiat_minor: i64) -> Result<Bought> {
    steps_up(customer)?;
    let bolt11 = orders(customer, fiat_minor)?;
    let began = Instant::now();
    let paid_msat = pays(world, &bolt11)?;
    customer.sees(&["Take your notes"], PATIENCE)?;
    let counters = world.counters(world.giver())?;
    let looked_ms = u64::try_from(began.elapsed().as_millis())?;
    let at = |name: &str| counters[name].as_u64().with_context(|| format!("no {name}"));
    let to_dispense_ms = match world.parts.recycler {
        Some(_) => None,
        None => {
            let ago_ms = at("now_ms")?.saturating_sub(at("dispense_at_ms")?);
            Some(looked_ms.saturating_sub(ago_ms))
        }
    };
    world.act(world.giver(), &json!({"action": "take"}))?;
    Ok(Bought { bolt11, paid_msat, to_dispense_ms })
}

/// Feeds a note and waits until the machine has taken it: `total` is then on the screen.
///
/// # Errors
/// When the validator or the machine does not take it.
pub fn feeds(world: &World, customer: &Customer, note: u32, total: i64) -> Result<()> {
    let insert = json!({"action": "insert", "denomination": note});
    wait_for("the validator to draw a note in", PATIENCE, || {
        world.act(&world.acceptor, &insert).map_err(|error| format!("{error:#}"))
    })?;
    let amount = Fiat::new(total, CURRENCY.parse()?).to_string();
    let shown = format!("<p class=\"amount\">{amount}</p>");
    customer.looks(&format!("{amount} taken"), PATIENCE, |html| {
        (html.contains("Feed your notes") && html.contains(&shown)).then_some(())
    })
}

/// The LNURL on the screen.
///
/// # Errors
/// When it does not come.
pub fn offered(customer: &Customer) -> Result<String> {
    let (_, html) = customer.sees(&["Claim "], PATIENCE)?;
    qr_text(&html)
}

/// Sells notes: feeds them one by one, scans what the machine offers, is paid.
///
/// # Errors
/// At the first step that does not come.
pub fn sell(
    world: &World,
    customer: &Customer,
    wallet: &CustomerWallet,
    notes: &[u32],
) -> Result<Accepted> {
    steps_up(customer)?;
    customer.touches(&json!({"action": "start_cash_in"}))?;
    customer.sees(&["Feed your notes"], PATIENCE)?;
    let mut total = 0;
    for note in notes {
        total += i64::from(*note) * MINOR;
        feeds(world, customer, *note, total)?;
    }
    customer.touches(&json!({"action": "finish"}))?;
    let accepted = wallet.scan(&offered(customer)?)?;
    customer.sees(&["Paid"], PATIENCE)?;
    Ok(accepted)
}

/// The settlements that the operator shows, oldest first.
///
/// # Errors
/// When it does not answer.
pub fn settlements(world: &World) -> Result<Vec<Value>> {
    let shown = world.operator_says(&["settlements"])?;
    let mut rows = shown.as_array().cloned().with_context(|| format!("no list: {shown}"))?;
    rows.reverse();
    Ok(rows)
}
