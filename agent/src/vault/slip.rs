//! A receipt on paper.
//!
//! Promise: everything that the screen's receipt states, its code, and beside it, where something is
//! owed or may be and the customer is known to be there, the claim code with the address where it is
//! entered. The two codes stand apart: the receipt may be shown around, the claim code is money.

use bitspire_hardware::frame::escpos::Writer;
use bitspire_hardware::printer::Slip;
use bitspire_shared::receipt::{Line, Receipt};

use crate::ipc::SecretText;

/// The slip.
pub(super) fn slip(
    receipt: &Receipt,
    text: &str,
    claim: Option<&SecretText>,
    claim_url: Option<&str>,
    columns: usize,
) -> Slip {
    let mut paper = Writer::new(columns);
    paper.heading("Receipt");
    paper.text(&receipt.heading());
    paper.text(receipt.standing());
    paper.space();
    for Line { label, value, .. } in receipt.lines() {
        paper.text(&format!("{label}: {value}"));
    }
    paper.space();
    paper.qr(text);
    paper.text("Signed by the machine. Anybody can check it: bitspire-operator verify-receipt, or");
    paper.text(&match claim_url {
        Some(url) => format!("{url}/receipt"),
        None => "the operator's page.".to_owned(),
    });
    if let Some(code) = claim {
        paper.space();
        paper.heading("Your claim code");
        paper.text("Keep it to yourself: who has it gets what is owed to you.");
        paper.space();
        let address = claim_url.map(|url| format!("{url}/c/{}", code.expose()));
        paper.qr(address.as_deref().unwrap_or(code.expose()));
        paper.text(address.as_deref().unwrap_or(code.expose()));
    }
    paper.space();
    Slip::new(paper.cut())
}

#[cfg(test)]
mod tests {
    use bitspire_hardware::sim::SimDevice as _;
    use bitspire_hardware::sim::escpos::EscPosSim;
    use bitspire_shared::receipt::SignedReceipt;
    use bitspire_shared::time::Mono;
    use serde_json::json;

    use super::*;

    fn printed(claim: Option<&SecretText>, url: Option<&str>) -> String {
        let (_, rest) =
            include_str!("../../../docs/receipt.md").split_once("```receipt\n").unwrap();
        let text = rest.split_once("\n```").unwrap().0;
        let signed = SignedReceipt::read(text).unwrap();
        let slip = slip(signed.check().unwrap(), text, claim, url, 42);
        let mut sim = EscPosSim::new(1_000);
        sim.on_bytes(slip.expose(), Mono(0));
        let taken = sim.control(&json!({"action": "take"}), Mono(0)).unwrap();
        taken["slips"][0].as_str().unwrap().to_owned()
    }

    /// Loss prevented: a customer who is owed money and takes a slip home that does not bring it; or
    /// one whose receipt, shown around, brings it to somebody else.
    #[test]
    fn the_claim_code_stands_beside_the_receipt_and_never_in_it() {
        let code = SecretText::new("c0de".repeat(8));
        let page = printed(Some(&code), Some("https://atm.example"));
        let address = format!("https://atm.example/c/{}", "c0de".repeat(8));
        let qrs: Vec<&str> = page.lines().filter(|line| line.starts_with("[QR ")).collect();
        assert_eq!(qrs.len(), 2, "{page}");
        assert!(SignedReceipt::read(&qrs[0][4..qrs[0].len() - 1]).unwrap().check().is_ok());
        assert_eq!(qrs[1], format!("[QR {address}]"));
        assert!(page.replace('\n', "").contains("Owed: 20.00 EUR"), "{page}");
        assert!(!printed(None, None).contains("c0de"));
        assert!(printed(Some(&code), None).contains(&format!("[QR {}]", "c0de".repeat(8))));
    }
}
