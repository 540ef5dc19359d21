//! What a dispute is decided by: a sale that went wrong, gathered from the machine's own files.

use std::collections::BTreeMap;
use std::fs;

use bitspire_agent::config;
use bitspire_agent::evidence::{self, About, EvidenceError};
use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::journal::Reader;
use bitspire_agent::txn::View;
use bitspire_shared::ids::{JournalSeq, TxnId};
use serde_json::{Value, json};

use crate::machine::Machine;

/// What must not leave the machine, by name.
type Secrets = Vec<(&'static str, String)>;

impl Machine {
    fn evidence(&self, txid: TxnId) -> Result<Value, EvidenceError> {
        let reader = Reader::open(&self.config.vault.journal()).unwrap();
        let environment = BTreeMap::from([
            ("BITSPIRE_DATA_DIR".to_owned(), "/somewhere".to_owned()),
            (config::SEED_VARIABLE.to_owned(), Self::seed_of(&self.pins()).expose().to_owned()),
        ]);
        let (_, loaded) = config::load(None, &environment, &[]).unwrap();
        let faults = self.config.vault.faults();
        evidence::bundle(&reader, &About { txid, faults: &faults, configuration: &loaded.shown })
    }

    fn txids(&self) -> Vec<TxnId> {
        let reader = Reader::open(&self.config.vault.journal()).unwrap();
        let mut txids = Vec::new();
        reader
            .each(JournalSeq(1), reader.head().seq, |entry| {
                let new = entry.txid.filter(|txid| !txids.contains(txid));
                txids.extend(new);
                Ok(())
            })
            .unwrap();
        txids
    }

    fn note_claim_code(&self, secrets: &mut Secrets) {
        let code = self.txn_screen().and_then(|screen| screen.claim.clone());
        secrets.push(("claim code", code.unwrap().expose().to_owned()));
    }

    /// A cash-out whose dispenser jams, then a cash-in, then the beginning of another cash-out.
    fn trades(&mut self) -> Secrets {
        let mut secrets = Secrets::new();
        self.sell(2_000);
        self.note_claim_code(&mut secrets);
        if let Some(View::Invoice { bolt11, .. }) = self.view() {
            secrets.push(("invoice", bolt11.clone()));
        }
        let jam = json!({ "action": "arm", "trap": "jam", "times": 20 });
        self.dispenser.control(jam).unwrap();
        self.pay();
        self.until("the report", |machine| !machine.service.reports.is_empty());
        self.dispenser.control(json!({ "action": "disarm" })).unwrap();
        self.until("a screen to leave", |machine| {
            matches!(machine.view(), Some(View::Short { .. } | View::Uncertain))
        });
        self.leave_to_sell();
        self.open_inlet();
        self.feed_to(5, 500);
        self.touch(CustomerAction::Finish);
        self.until_view("the withdraw", |view| matches!(view, View::Claim { lnurl: Some(_), .. }));
        self.note_claim_code(&mut secrets);
        if let Some(View::Claim { lnurl: Some(lnurl), .. }) = self.view() {
            secrets.push(("LNURL", lnurl.expose().to_owned()));
        }
        self.pay();
        self.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
        self.stop();
        secrets.push(("seed", Self::seed_of(&self.pins()).expose().to_owned()));
        secrets.push(("bunker secret", "5a".repeat(32)));
        let parties = &self.parties;
        for keys in [&parties.spire, &parties.operator, &parties.service, &parties.client] {
            secrets.push(("private key", keys.secret_key().to_secret_hex()));
        }
        secrets
    }

    /// Touches the end away until notes can be sold: the dispenser may still be in trouble.
    fn leave_to_sell(&mut self) {
        self.until("cash-in for sale", |machine| {
            use bitspire_agent::screen::MachineScreen::{Idle, Txn};
            match &machine.screen {
                Some(Idle { cash_in: true, .. }) => return true,
                Some(Txn(_)) => machine.touch_once(CustomerAction::Finish),
                _ => {}
            }
            false
        });
    }
}

/// Loss prevented: a dispute without the frames of the jam, a bundle that nobody can check, or one
/// that hands out the customer's money.
#[test]
fn evidence_holds_what_happened_and_no_secret() {
    let mut machine = Machine::ready();
    let secrets = machine.trades();
    let txids = machine.txids();
    let (sale, session) = (txids[0], *txids.last().unwrap());

    let bundle = machine.evidence(sale).unwrap();
    assert_eq!(bundle["journal"]["holds"], true, "{}", bundle["journal"]);
    assert_eq!(
        (&bundle["transaction_before"], &bundle["transaction_after"]),
        (&Value::Null, &json!(txids[1]))
    );
    let faults = bundle["faults"].as_array().unwrap();
    let jam = faults.iter().find(|fault| fault["fault"]["txid"] == json!(sale));
    let frames = jam.expect("a fault of this sale")["fault"]["frames"].as_array().unwrap();
    assert!(frames.len() > 2 && frames.iter().any(|frame| frame.as_str().unwrap().contains("<-")));
    let steps = bundle["replay"]["steps"].as_array().unwrap();
    let states: Vec<&str> =
        steps.iter().map(|step| step["txn"]["state"].as_str().unwrap()).collect();
    for state in ["quoted", "invoiced", "paid", "dispense_committed"] {
        assert!(states.contains(&state), "{states:?}");
    }
    assert!(bundle["configuration"]["data_dir"]["value"] == "/somewhere");

    // whoever gets it can check it, and a change shows
    let text = bundle.to_string();
    let head = Reader::open(&machine.config.vault.journal()).unwrap().head();
    assert_eq!(evidence::verify(&text).unwrap(), head);
    let chain = bundle["chain"].as_array().unwrap();
    let mut other = bundle.clone();
    other["chain"][chain.len() / 2]["at"] = json!(5);
    let broken = evidence::verify(&other.to_string());
    assert!(matches!(broken, Err(EvidenceError::Broken { .. })), "{broken:?}");
    let mut short = bundle.clone();
    short["chain"].as_array_mut().unwrap().pop();
    assert!(evidence::verify(&short.to_string()).is_err());
    assert!(evidence::verify("{}").is_err());

    let later = machine.evidence(session).unwrap().to_string();
    assert_eq!(evidence::verify(&later).unwrap(), head);
    let nobody = machine.evidence(TxnId::from_bytes([0; 16]));
    assert!(matches!(nobody, Err(EvidenceError::Unknown(_))), "{nobody:?}");

    let file = String::from_utf8_lossy(&fs::read(machine.config.vault.journal()).unwrap())
        .to_ascii_lowercase();
    for (name, secret) in &secrets {
        let secret = secret.to_ascii_lowercase();
        for (place, text) in [("bundle", &text), ("later bundle", &later), ("journal", &file)] {
            assert!(!text.to_ascii_lowercase().contains(&secret), "the {name} is in the {place}");
        }
    }
    assert!(secrets.len() >= 9);
}

/// Loss prevented: no evidence at all from the machine that needs it most.
#[test]
fn a_broken_journal_is_evidence_too() {
    let mut machine = Machine::ready();
    machine.ask(2_000);
    machine.stop();
    let txid = machine.txids()[0];
    machine
        .database()
        .execute_batch(
            "DROP TRIGGER entries_stay;
             UPDATE entries SET at = at + 1 WHERE seq = 4;
             CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END;",
        )
        .unwrap();
    let bundle = machine.evidence(txid).unwrap();
    assert_eq!(
        (&bundle["journal"]["holds"], &bundle["journal"]["broken_at"]),
        (&json!(false), &json!(4))
    );
    assert!(bundle["replay"]["stopped"].as_str().unwrap().contains("entry 4"));
}
