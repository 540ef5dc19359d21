//! The receipt on the screen: its code, to be photographed, and everything that it states.

use bitspire_shared::receipt::{Line, Receipt, SignedReceipt};
use maud::{Markup, html};
use qrcode::EcLevel;

use super::{button, code, quiet};
use crate::ipc::{CustomerAction, SecretText};
use crate::txn::{OnPaper, SlipState};

/// The page of a receipt; the claim code stands beside it where money could be owed.
pub(super) fn page(paper: &OnPaper, claim: Option<&SecretText>) -> Markup {
    let signed = SignedReceipt::read(&paper.text).ok();
    let receipt = signed.as_ref().and_then(|signed| signed.check().ok());
    html! {
        div.receipt {
            section.codes {
                (code(&paper.text, EcLevel::L))
                p.soft { "Your receipt. Photograph it, or scan it and keep its text." }
                @if let Some(claim) = claim { (money(paper, claim)) }
            }
            section.facts { @if let Some(receipt) = receipt { (facts(receipt)) } }
        }
        (slip(paper.slip))
        div.choices {
            @if matches!(paper.slip, SlipState::Offered | SlipState::Failed) {
                (quiet("Print", &CustomerAction::PrintReceipt))
            }
            (button("Back", &CustomerAction::Receipt { open: false }))
        }
    }
}

/// The claim code, apart from the receipt: whoever has it gets what is owed.
fn money(paper: &OnPaper, claim: &SecretText) -> Markup {
    html! {
        div.claim {
            p.soft { "Your claim code is not in the receipt. Photograph it too, and show it to nobody." }
            @if let Some(url) = &paper.claim_url { code { (url) "/c/" } }
            code { (claim.expose()) }
        }
    }
}

fn facts(receipt: &Receipt) -> Markup {
    html! {
        h1 { (receipt.heading()) }
        p { (receipt.standing()) }
        dl {
            @for Line { label, value, fine } in receipt.lines() {
                dt { (label) } dd.fine[fine] { (value) }
            }
        }
    }
}

fn slip(state: SlipState) -> Markup {
    match state {
        SlipState::None | SlipState::Offered => html! {},
        SlipState::Printing => html! { p { "Printing." } },
        SlipState::Printed => html! { p { "Take your receipt." } },
        SlipState::Failed => html! { p.warn { "No paper: photograph the screen." } },
    }
}
