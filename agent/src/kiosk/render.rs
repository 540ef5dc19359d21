//! Screens as HTML: a pure function of what the vault says.
//!
//! Promise: every screen has a heading that says what to do, large type, one main button, and the
//! claim code wherever money could be owed. QR codes are drawn here, on the machine, as SVG.

mod receipt;

use bitspire_shared::clink::Ndebit;
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::ErrorCode;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use qrcode::{EcLevel, QrCode, render::svg};
use serde_json::json;

use super::{first_boot, service};
use crate::ipc::{CustomerAction, SecretText};
use crate::screen::MachineScreen;
use crate::txn::{Screen, View, Why};

/// The page around the screens.
pub(super) fn page() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "bitSpire" }
                link rel="stylesheet" href="/kiosk.css";
                script src="/kiosk.js" defer {}
            }
            body {
                main id="screen" aria-live="polite" { (words("One moment", "The machine is starting.")) }
                template id="lost" {
                    (words("One moment", "The screen has lost the machine and connects again. \
                        Nothing is lost: whatever you paid or fed is on record."))
                }
            }
        }
    }
}

fn words(heading: &str, text: &str) -> Markup {
    html! { h1 { (heading) } p { (text) } }
}

fn button(label: &str, action: &CustomerAction) -> Markup {
    html! { button data-action=(json!(action)) data-focus { (label) } }
}

fn quiet(label: &str, action: &CustomerAction) -> Markup {
    html! { button.quiet data-action=(json!(action)) { (label) } }
}

/// Thousands apart, as people read sats.
fn sats(amount: Sats) -> String {
    let digits = amount.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    format!("{grouped} sats")
}

/// An upper-case text makes a smaller code: its characters take 5.5 bits.
fn qr(text: &str) -> Markup {
    code(&text.to_uppercase(), EcLevel::M)
}

/// A code of a text whose letters' case counts.
pub(super) fn exact_qr(text: &str) -> Markup {
    code(text, EcLevel::M)
}

fn code(text: &str, level: EcLevel) -> Markup {
    match QrCode::with_error_correction_level(text, level) {
        Ok(code) => {
            let image = code.render::<svg::Color>().min_dimensions(320, 320).build();
            let image = image.split_once("?>").map_or(image.as_str(), |(_, image)| image);
            html! { div.qr role="img" aria-label="QR code" { (PreEscaped(image)) } }
        }
        // longer than any code: the text itself is still worth something
        Err(_) => html! { p.claim { code { (text) } } },
    }
}

/// The code that every wallet reads, and beside it, named, the one for wallets that speak CLINK. That
/// one stays in lower case: the specification wants it as it is.
fn two_ways(first: Markup, clink: Option<&str>) -> Markup {
    html! {
        @match clink {
            None => (first),
            Some(clink) => div.ways {
                div { (first) p.soft { "Lightning" } }
                div { (exact_qr(clink)) p.soft { "CLINK" } }
            }
        }
    }
}

fn claim(screen: &Screen) -> Markup {
    let url = screen.receipt.as_ref().and_then(|paper| paper.claim_url.as_deref());
    html! {
        @if let Some(code) = shown(screen) {
            div.claim {
                p.soft { "Your claim code. Photograph it: whatever is owed to you is paid against it." }
                @if let Some(url) = url { code { (url) "/c/" } }
                code { (code.expose()) }
            }
        }
    }
}

/// The HTML of one screen.
#[must_use]
pub fn render(screen: &MachineScreen) -> Markup {
    match screen {
        MachineScreen::Starting => words("One moment", "The machine is starting."),
        MachineScreen::Unpaired { seed } => first_boot::render(seed),
        MachineScreen::AwaitingConfirmation { digits } => html! {
            h1 { "Type these digits" }
            p.digits { (digits) }
            p { "The operator's page asks for these eight digits. The machine is in service once they \
                were typed there." }
        },
        MachineScreen::OutOfService { reasons } => html! {
            h1 { "Out of service" }
            @for reason in reasons { p.soft { (reason) } }
            (service::door())
        },
        MachineScreen::Service(view) => service::render(view),
        MachineScreen::Idle { cash_in, cash_out, waiting, .. } => {
            idle(*cash_in, cash_out, *waiting)
        }
        MachineScreen::Txn(screen) => transaction(screen),
        MachineScreen::NotesLeft(screen) => html! {
            h1 { "Your notes are still there" }
            p { "Take them out of the machine." }
            (claim(screen))
        },
    }
}

fn transaction(screen: &Screen) -> Markup {
    if let Some(paper) = screen.receipt.as_ref().filter(|paper| paper.open) {
        return receipt::page(paper, shown(screen));
    }
    html! {
        (view(&screen.view))
        (claim(screen))
        @if screen.receipt.is_some() {
            div.choices { (quiet("Receipt", &CustomerAction::Receipt { open: true })) }
        }
    }
}

/// The code stands where money could be owed; before that, and after all is done, it only confuses.
const fn shown(screen: &Screen) -> Option<&SecretText> {
    match screen.view {
        View::Asking { .. }
        | View::Offer { .. }
        | View::Preparing { .. }
        | View::Settled { .. }
        | View::Redeemed { .. }
        | View::Cancelled { .. }
        | View::Expired
        | View::Returned { .. } => None,
        _ => screen.claim.as_ref(),
    }
}

fn idle(cash_in: bool, cash_out: &[Fiat], waiting: bool) -> Markup {
    html! {
        h1 { "Cash and Lightning" }
        @if cash_in {
            div.choices { (button("Sell notes for sats", &CustomerAction::StartCashIn)) }
        }
        @if cash_out.is_empty() {
            p.soft { "No notes can be bought right now." }
        } @else {
            p { "Buy notes with sats:" }
            div.choices {
                @for amount in cash_out {
                    (quiet(&amount.to_string(), &CustomerAction::StartCashOut { fiat_minor: amount.minor }))
                }
            }
        }
        @if waiting { (enter_code_or_give_back()) }
        (service::door())
    }
}

fn enter_code() -> Markup {
    let action = json!({ "action": "claim_code" });
    html! {
        p.soft { "A paid sale waits: enter its claim code to get the notes." }
        input id="code" autocomplete="off" spellcheck="false" aria-label="Claim code";
        button.quiet data-action=(action) data-input="code" { "Continue with the code" }
    }
}

/// Notes or sats: whoever has the code may choose.
fn enter_code_or_give_back() -> Markup {
    let action = json!({ "action": "give_back" });
    html! {
        (enter_code())
        button.quiet data-action=(action) data-input="code" { "No notes: my sats back" }
    }
}

fn offer(fiat: Fiat, principal: Sats, fee: Sats, wire: Sats) -> Markup {
    html! {
        h1 { "Buy " (fiat) }
        dl {
            dt { "At today's rate" } dd { (sats(principal)) }
            dt { "Fee" } dd { (sats(fee)) }
            dt { "You pay" } dd { (sats(wire)) }
        }
        div.choices {
            (button("Agree and pay", &CustomerAction::Confirm))
            (quiet("Back", &CustomerAction::Cancel))
        }
    }
}

fn cancelled(why: Why, nothing: &str) -> Markup {
    html! {
        (words("Cancelled", nothing))
        @if let Some(reason) = reason(why) { p.soft { (reason) } }
    }
}

/// Why it was not what the customer wanted, and what they can do.
const fn reason(why: Why) -> Option<&'static str> {
    Some(match why {
        Why::Customer => return None,
        Why::Idle => "Nobody touched the screen for a while. Begin again.",
        Why::NoAnswer => "The operator's service does not answer. Try again later.",
        Why::Refused(ErrorCode::WalletUnavailable) => {
            "The operator's Lightning wallet does not answer, or is empty. Try again later."
        }
        Why::Refused(ErrorCode::OverLimit) => {
            "The limit of this machine is reached. Try another amount, or try again later."
        }
        Why::Refused(ErrorCode::FeeMismatch) => {
            "The price did not agree with the fees of this machine. Try again later."
        }
        Why::Refused(ErrorCode::Stale) => {
            "The operator's service has no fresh price. Try again later."
        }
        Why::Refused(_) => "The operator's service refuses it. Try again later.",
        Why::NetworkLost => "The machine has lost the way to its operator. Try again later.",
        Why::ScreenBroken => "The screen was gone for a moment. Begin again.",
        Why::Fault => "The note validator needs a hand. Its operator is told.",
        Why::Restarted => "The machine was started again. Begin again.",
    })
}

fn view(view: &View) -> Markup {
    let cancel = || html! { div.choices { (quiet("Cancel", &CustomerAction::Cancel)) } };
    match view {
        View::Asking { direction } => html! {
            (words("One moment", match direction {
                Direction::CashOut => "Asking for the price.",
                Direction::CashIn => "Asking for the rate.",
            }))
            (cancel())
        },
        View::Offer { fiat, principal_sats, fee_sats, wire_sats, .. } => {
            offer(*fiat, *principal_sats, *fee_sats, *wire_sats)
        }
        View::Preparing { fiat } => {
            html! { (words("One moment", &format!("Preparing the invoice for {fiat}."))) (cancel()) }
        }
        View::Invoice { bolt11, noffer, wire_sats, fiat, .. } => html! {
            h1 { "Pay " (sats(*wire_sats)) " for " (fiat) }
            (two_ways(qr(bolt11), noffer.as_deref()))
            p.soft { "Scan with a Lightning wallet. Stay here: the notes come when it is paid." }
            (cancel())
        },
        View::Dispensing { fiat, given_minor } => {
            let given = Fiat { minor: *given_minor, ..*fiat };
            html! { h1 { "Counting " (fiat) } p { (given) " given so far." } }
        }
        View::TakeNotes { .. } => {
            words("Take your notes", "More are coming once you have taken these.")
        }
        View::PaidWaiting { rest } => html! {
            h1 { (rest) " wait for you" }
            (enter_code_or_give_back())
        },
        View::Settled { fiat } => words("Take your notes", &format!("{fiat}. Thank you.")),
        View::Short { owed } => words(
            &format!("{owed} were not given"),
            "The machine owes it to you. Your claim code brings it, in sats.",
        ),
        View::Uncertain => words(
            "The machine cannot tell what it gave",
            "It has stopped and called its operator. Your claim code stays good.",
        ),
        View::Late { .. } => words(
            "The payment came too late",
            "Nothing was given for it. Your claim code brings it back.",
        ),
        View::Cancelled { why } => cancelled(*why, "Nothing was given."),
        View::Expired => words("Time is up", "The invoice was not paid. Nothing was given."),
        View::Feed { total, room_minor, .. } => html! {
            h1 { @if *room_minor > 0 { "Feed your notes" } @else { "One moment" } }
            p.amount { (total) }
            div.choices {
                @if total.minor > 0 { (button("Done", &CustomerAction::Finish)) }
                (quiet("Cancel", &CustomerAction::Cancel))
            }
        },
        View::Counting { total, note_minor } => {
            let note = Fiat { minor: i64::from(*note_minor), ..*total };
            html! { h1 { "Reading " (note) } p.amount { (total) } }
        }
        View::PreparingWithdraw { total } => {
            words("One moment", &format!("Preparing your sats for {total}."))
        }
        View::Claim { lnurl, ndebit, net_sats, fee_sats, total } => html! {
            h1 { "Claim " (sats(*net_sats)) }
            @match lnurl {
                Some(lnurl) => {
                    (two_ways(qr(lnurl.expose()), ndebit.as_ref().map(Ndebit::expose)))
                    p.soft { "Scan with a Lightning wallet." }
                }
                None => (enter_code()),
            }
            dl { dt { "Notes" } dd { (total) } dt { "Fee" } dd { (sats(*fee_sats)) } }
        },
        View::Paying { net_sats } => {
            words("Paying", &format!("{} are on their way.", sats(*net_sats)))
        }
        View::PayUnknown { net_sats } => words(
            "Still on its way",
            &format!("{} went out; whether they arrived is being found out.", sats(*net_sats)),
        ),
        View::Redeemed { net_sats } => {
            words("Paid", &format!("You got {}. Thank you.", sats(*net_sats)))
        }
        View::Unclaimed { total } => words(
            "Not claimed in time",
            &format!("{total} are still yours: your claim code brings them."),
        ),
        View::Returned { why } => cancelled(*why, "Nothing was taken."),
    }
}
