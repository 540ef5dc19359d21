//! Proofs of real sales: they hold, and nothing in them can be changed.

use std::sync::OnceLock;

use bitspire_shared::canonical::Sig;
use nostr::Keys;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::audit::tests::legs::distributed;
use crate::audit::tests::shop::Shop;
use crate::ids::SettlementId;
use crate::rpc::tests::cash_in::fetched;
use crate::store::settlements;

/// The proof of a short sale with a leg, that of fetched notes, and who sealed them.
fn proofs() -> &'static ([Value; 2], Keys) {
    static PROOFS: OnceLock<([Value; 2], Keys)> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut shop, sold) = distributed().await;
            let app = shop.world.app.clone();
            let withdraw = shop.fed().await;
            let hash = fetched(&shop.world, &withdraw).await;
            crate::payout::tests::round(&app).await.unwrap();
            crate::settle::reconcile(&app, &*app.wallets["till"].clone()).await.unwrap();
            let kept = shop.world.read(move |read| settlements::by_hash(read, hash)).await;
            let mut made = Vec::new();
            for id in [sold[1], kept.unwrap().id] {
                made.push(serde_json::to_value(make(&app, id).await.unwrap()).unwrap());
            }
            let service = Keys::new(app.service.secret_key().clone());
            (made.try_into().unwrap(), service)
        })
    })
}

/// Checks the text of a file; in words what does not hold.
fn checked(value: &Value) -> Result<Vec<String>, String> {
    let sealed: SealedProof = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    let Checked { ok, mut steps } = check(&sealed, Pins::default());
    match ok {
        true => Ok(steps.into_iter().map(|step| step.words).collect()),
        false => Err(format!("{:?}", steps.pop())),
    }
}

/// The paths of all values that are no container.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            leaves(value, &format!("{path}/{key}"), found);
        }),
        Value::Array(all) => all.iter().enumerate().for_each(|(n, value)| {
            leaves(value, &format!("{path}/{n}"), found);
        }),
        _ => found.push(path.to_owned()),
    }
}

/// Another value in the place of one.
fn edited(value: &Value, by: u32) -> Value {
    let pick = |length: usize| usize::try_from(by).unwrap() % length.max(1);
    match value {
        Value::Null => json!(by),
        Value::Bool(is) => json!(!is),
        Value::Number(n) => json!(n.as_i64().unwrap() + 1 + i64::from(by % 1_000)),
        Value::String(text) if by.is_multiple_of(7) || text.is_empty() => json!(format!("{text}0")),
        Value::String(text) => {
            let mut text: Vec<char> = text.chars().collect();
            let place = pick(text.len());
            text[place] = if text[place] == '7' { '8' } else { '7' };
            json!(text.into_iter().collect::<String>())
        }
        _ => Value::Null,
    }
}

/// Loss prevented: a proof that an auditor cannot check, or one that says less than it should: whose
/// request, which price, what came out, who got the fee.
#[test]
fn each_step_is_told_in_words() {
    let ([short, notes], _) = proofs();
    let steps = checked(short).unwrap();
    let told = [
        "seal: the file is as the service npub1",
        "session: the machine npub1",
        "request: in event ",
        "quote: signed by the service for this machine",
        "invoice: signed by its payee, of 42000 sats as quoted",
        "wallet: by the service's word till received 42000 sats",
        "dispense: as the vault signed it: partial at ",
        "parts: of 42000 sats, 20000 are principal, 400 the platform's, 600 the operator's, 21000 owed",
        "legs: by rules as their owners signed them (processed): super_fee 400 sats to wallet:stray, paid",
    ];
    assert_eq!(steps.len(), told.len());
    for (step, told) in steps.iter().zip(told) {
        assert!(step.starts_with(told), "{told}: {step}");
    }
    assert!(steps[1].contains("vault and session key both agreed"), "{}", steps[1]);
    assert!(steps[6].contains("1 of 2 times 20.00 EUR, 20.00 EUR short"), "{}", steps[6]);
    let steps = checked(notes).unwrap();
    assert!(steps[2].contains("the vault stated the notes"), "{}", steps[2]);
    assert!(steps[4].contains("notes of 20.00 EUR are worth 19000 sats"), "{}", steps[4]);
    assert!(steps[5].contains("till paid 19000 sats"), "{}", steps[5]);
}

/// Loss prevented: a proof of another service's machine, shown for this one's.
#[test]
fn a_pinned_key_is_the_key() {
    let sealed: SealedProof = serde_json::from_value(proofs().0[0].clone()).unwrap();
    let (service, spire) = (sealed.proof.service, sealed.proof.machine.spire);
    let ok = |service, spire| check(&sealed, Pins { service, spire }).ok;
    assert!(ok(Some(service), Some(spire)));
    assert!(!ok(Some(spire), Some(spire)));
    assert!(!ok(Some(service), Some(service)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Loss prevented: one changed figure that passes for evidence.
    #[test]
    fn every_edited_field_is_found(which in 0usize..2, place: u32, by: u32) {
        let mut other = proofs().0[which].clone();
        let mut all = Vec::new();
        leaves(&other, "", &mut all);
        prop_assert!(all.len() > 90, "{}", all.len());
        let path = &all[usize::try_from(place).unwrap() % all.len()];
        let value = other.pointer_mut(path).unwrap();
        *value = edited(value, by);
        prop_assert!(checked(&other).is_err(), "{path}");
    }
}

/// What is the service's own word, or says nothing that anything follows from: whoever has the
/// service key can write it as they like. Everything else the machine, the operator or arithmetic
/// holds.
const OWN_WORD: &[&str] = &[
    "/proof/made_at",
    "/proof/platform",
    "/proof/machine/operator_id",
    "/proof/settlement/id",
    "/proof/legs/0/id",
    "/proof/session/opening/journal_head",
    "/proof/session/opening/journal_seq",
    "/proof/withdraw/withdraw/vault_sig",
    "/proof/settlement/wallet_id",
    "/proof/settlement/settled_at",
    "/proof/settlement/extra",
    "/proof/settlement/distribution",
    "/proof/settlement/hold_reason",
    "/proof/session/opened_at",
    "/proof/own_rules",
    "/created_at",
    "/started_at",
    "/resolved_at",
    "/planned_at",
    "/ended_at",
    "/ended_by",
    "/expires_at",
    "/invoice_expires_at",
    "/received_at",
    "/reservation_ended_at",
    "/reserved_sats",
    "/request_id",
    "/detail",
    "/wallet_id",
    "/machine_id",
    "/fee_limit_sats",
    "/fee_paid_sats",
    "/failed_seen_at",
    "/idempotency_key",
    "/subject",
    "/subject_id",
    "/cancelled_at",
    "/cancelled_by",
    "/claim_id",
    "/purpose",
    "/withdraw/state",
    "/claim_hash",
    "/age_s",
    "/source",
    "/sources/0/rate_nano",
    "/stamp",
    "/kind",
];

/// Loss prevented: a service that shows an auditor another sale than the machine signed for: it can
/// seal whatever it likes, and still not change what it was asked, what it quoted, what came out, or
/// whom the fee belongs to.
#[test]
fn the_service_itself_cannot_say_otherwise() {
    let (all, service) = proofs();
    let mut unseen = Vec::new();
    for proof in all {
        let mut paths = Vec::new();
        leaves(&proof["proof"], "/proof", &mut paths);
        paths.retain(|path| !OWN_WORD.iter().any(|own| path.ends_with(own)));
        for (path, by) in paths.iter().flat_map(|path| [(path, 3), (path, 540)]) {
            let mut other = proof.clone();
            let value = other.pointer_mut(path).unwrap();
            *value = edited(value, by);
            // what does not read as a proof any more is found by whoever reads it
            let Ok(changed) = serde_json::from_value::<Proof>(other["proof"].clone()) else {
                continue;
            };
            let same = serde_json::to_value(&changed).unwrap() == proof["proof"];
            let Ok(text) = changed.text() else { continue };
            other["seal"] = json!(Sig::over(&text, service));
            if !same && checked(&other).is_ok() {
                unseen.push(path.clone());
            }
        }
    }
    assert_eq!(unseen, Vec::<String>::new());
}

/// Loss prevented: a proof for a payment that no request stands behind, or of a settlement that is
/// not there.
#[tokio::test]
async fn what_nobody_asked_for_has_no_proof() {
    let shop = Shop::open().await;
    let none = make(&shop.world.app, SettlementId(9)).await;
    assert!(matches!(none, Err(ProofError::None(_))), "{none:?}");
}
