//! Service mode as HTML: a pad, a menu, and a form for each action.
//!
//! Promise: it works by touch alone: whatever is a number is typed on a pad on the screen. What the
//! machine's books expect stands beside what is typed.

use bitspire_shared::time::Unix;
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::ipc::CustomerAction;
use crate::service::{Held, HeldBay, Inside, Page, Ruling, ServiceView, Touch};

/// Why a count differs, to be touched; nobody has a keyboard here.
const REASONS: [&str; 4] =
    ["damaged or false notes", "found after a jam", "counted wrongly before", "unknown"];

/// The way in, for whoever looks for it.
pub(super) fn door() -> Markup {
    html! { p.door { button.plain data-action=(touch(&Touch::Open)) { "Service" } } }
}

fn touch(touch: &Touch) -> Value {
    json!(CustomerAction::Service(touch.clone()))
}

fn go(label: &str, to: Page) -> Markup {
    html! { button.quiet data-action=(touch(&Touch::Go { to })) { (label) } }
}

fn leave(label: &str) -> Markup {
    html! { button.quiet data-action=(touch(&Touch::Leave)) { (label) } }
}

/// An action whose fields the page fills in.
fn act(label: &str, what: &str, form: u64) -> Markup {
    let action = json!({ "action": "service", "do": what, "form": form });
    html! { button data-action=(action) data-fields { (label) } }
}

/// Digits for the field that was touched last.
fn pad() -> Markup {
    html! {
        div.pad aria-label="Digits" {
            @for key in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "clear", "0", "back"] {
                button.key type="button" data-key=(key) {
                    @match key { "clear" => "C", "back" => "⌫", digit => (digit) }
                }
            }
        }
    }
}

pub(super) fn render(view: &ServiceView) -> Markup {
    match view {
        ServiceView::NoPin => html! {
            h1 { "No service mode" }
            p { "This machine has no service PIN. It is set at pairing, or with "
                "bitspire-agent service-pin." }
            div.choices { (leave("Back")) }
        },
        ServiceView::Pad { wrong, locked } => html! {
            h1 { "Service PIN" }
            @match locked {
                Some(why) => p.warn { (why) },
                None => {
                    @if *wrong { p.warn { "That was not it." } }
                    input.code id="pin" type="password" inputmode="none" autocomplete="off"
                        maxlength="16" aria-label="PIN" data-focus;
                    (pad())
                }
            }
            div.choices {
                @if locked.is_none() {
                    @let enter = json!({ "action": "service", "do": "enter" });
                    button data-action=(enter) data-input="pin" data-as="pin" { "Enter" }
                }
                (leave("Back"))
            }
        },
        ServiceView::Page { page, form, said, inside } => html! {
            @match page {
                Page::Menu => (menu(inside, said.as_deref())),
                Page::Cashbox => (emptying(
                    "Empty the cashbox", "empty_cashbox", *form, said.as_deref(),
                    inside.cashbox.as_deref().unwrap_or_default(),
                )),
                Page::RejectBin => (emptying(
                    "Empty the reject bin", "empty_reject_bin", *form, said.as_deref(),
                    inside.reject_bin.as_deref().unwrap_or_default(),
                )),
                Page::Bay(bay) => (refilling(
                    inside.bays.iter().find(|held| held.bay == *bay), *form, said.as_deref(),
                )),
                Page::Test => (testing(*form, said.as_deref())),
                Page::Pairing => (unpairing(*form, said.as_deref())),
            }
        },
    }
}

fn words(said: Option<&str>) -> Markup {
    html! { @if let Some(said) = said { p.said role="status" { (said) } } }
}

fn worth(held: &[Held]) -> Option<String> {
    let (first, rest) = held.split_first()?;
    let value = |held: &Held| held.note.minor.checked_mul(held.count);
    let sum = rest.iter().try_fold(value(first)?, |sum, held| sum.checked_add(value(held)?))?;
    Some(bitspire_shared::money::Fiat { minor: sum, ..first.note }.to_string())
}

fn heap(held: &[Held]) -> Markup {
    let some: Vec<_> = held.iter().filter(|held| held.count != 0).collect();
    html! {
        @if some.is_empty() { "empty" }
        @for held in &some { div { (held.count) " × " (held.note) } }
        @if let Some(worth) = worth(held).filter(|_| some.len() > 1) { div.soft { (worth) } }
    }
}

fn menu(inside: &Inside, said: Option<&str>) -> Markup {
    html! {
        h1 { "Service" }
        (words(said))
        @if inside.cashbox_out { p.warn { "The cashbox is out of its place." } }
        @if inside.untold > 0 {
            p.soft { (inside.untold) " things done here wait to be told to the operator's service." }
        }
        table.inside {
            @for HeldBay { bay, held, doubt, unsure } in &inside.bays {
                tr {
                    th { "Bay " (bay) }
                    td { (held.count) " × " (held.note)
                        @if *doubt { div.warn { "count it" } }
                        @else if *unsure != 0 { div.warn { "up to " (unsure) " fewer: count it" } }
                    }
                    td { (go("Refill or count", Page::Bay(*bay))) }
                }
            }
            @if let Some(held) = &inside.cashbox {
                tr { th { "Cashbox" } td { (heap(held)) } td { (go("Empty", Page::Cashbox)) } }
            }
            @if let Some(held) = &inside.reject_bin {
                tr { th { "Reject bin" } td { (heap(held)) } td { (go("Empty", Page::RejectBin)) } }
            }
        }
        (rulings(&inside.rulings))
        div.choices {
            @if !inside.bays.is_empty() { (go("Test the dispenser", Page::Test)) }
            (go("Reset the pairing", Page::Pairing))
            (leave("Leave service mode"))
        }
    }
}

/// What the operator has set, and since when it holds here.
fn rulings(all: &[Ruling]) -> Markup {
    html! {
        @for one in all {
            p.soft {
                (one.says) br;
                "published " (utc(one.published_at))
                @if let Some(at) = one.applied_at { ", applied " (utc(at)) }
                br;
                "event " code { (head(&one.event_id.to_string())) }
                " signed by " code { (head(&one.signed_by.to_string())) }
            }
        }
    }
}

/// Enough of a key or an id to tell it from others.
fn head(hex: &str) -> String {
    hex.chars().take(16).collect()
}

/// A time as people read it, in UTC: days from 1970 to a date by the civil calendar.
fn utc(at: Unix) -> String {
    let (days, second) = (at.0 / 86_400, at.0 % 86_400);
    // eras of 400 years that begin in March, so that the leap day is a year's last
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era.saturating_mul(400).saturating_add(year) + u64::from(month < 3);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

fn reasons() -> Markup {
    html! {
        fieldset.reasons {
            legend { "Where the count differs, why:" }
            label { input type="radio" name="reason" value="" checked; span { "it does not" } }
            @for reason in REASONS {
                label { input type="radio" name="reason" value=(reason); span { (reason) } }
            }
        }
    }
}

fn number(label: &str, attribute: Markup) -> Markup {
    html! { label.number { span { (label) } (attribute) } }
}

fn emptying(heading: &str, what: &str, form: u64, said: Option<&str>, held: &[Held]) -> Markup {
    html! {
        h1 { (heading) }
        (words(said))
        p { "Take all notes out, count them, and type how many there are of each." }
        div.form {
            div.fields {
                @for held in held {
                    (number(&format!("{} – expected {}", held.note, held.count), html! {
                        input id={ "note" (held.note.minor) } inputmode="none" autocomplete="off"
                            maxlength="6" data-note=(held.note.minor) data-focus[held.count != 0];
                    }))
                }
            }
            (pad())
        }
        (reasons())
        div.choices {
            (act("It is empty and counted", what, form))
            (go("Back", Page::Menu))
        }
    }
}

fn refilling(held: Option<&HeldBay>, form: u64, said: Option<&str>) -> Markup {
    let Some(HeldBay { bay, held, doubt, unsure }) = held else {
        return html! {
            h1 { "This bay is not set up" }
            div.choices { (go("Back", Page::Menu)) }
        };
    };
    html! {
        h1 { "Bay " (bay) ": notes of " (held.note) }
        (words(said))
        p { (held.count) " notes by the machine's books." }
        @if *doubt {
            p.warn { "A dispense of unknown end took from it: count all its notes." }
        } @else if *unsure != 0 {
            p.warn {
                "After a fault up to " (unsure) " fewer may lie in it: count all its notes. Until "
                "then they are not sold."
            }
        }
        div.form {
            div.fields {
                (number("Notes", html! {
                    input id="count" inputmode="none" autocomplete="off" maxlength="6"
                        data-count data-focus;
                }))
            }
            (pad())
        }
        (reasons())
        div.choices {
            (act("So many were put in", "refill", form))
            (act("So many are in it now", "recount", form))
            (go("Back", Page::Menu))
        }
    }
}

fn testing(form: u64, said: Option<&str>) -> Markup {
    html! {
        h1 { "Test the dispenser" }
        (words(said))
        p { "It gives one note of each bay. Take them: they are booked as given to you, the operator." }
        p.soft { "At most three tests an hour." }
        div.choices {
            (act("Give one note of each bay", "test", form))
            (go("Back", Page::Menu))
        }
    }
}

fn unpairing(form: u64, said: Option<&str>) -> Markup {
    html! {
        h1 { "Reset the pairing" }
        (words(said))
        p { "The machine lets go of its operator and service, and sells nothing until it is paired "
            "again, with a new seed. Every bay counts as empty until its notes are counted." }
        p.soft { "Its journal and the notes in it stay as they are. Not while a sale is open." }
        div.choices {
            (act("Let go of this pairing", "reset_pairing", form))
            (go("Back", Page::Menu))
        }
    }
}
