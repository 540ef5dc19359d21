//! Damages, each with the check that has to find it.

use bitspire_shared::ids::{PaymentHash, TxnId};
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use serde_json::json;

use super::super::gather::Given;
use super::super::report::{Audit, Check};
use super::super::wallet::Seen;
use super::shop::Shop;
use crate::ledger::owed_whole;
use crate::store::ledger;
use crate::wallet::{Flow, PayState, Payment};

pub(super) fn finds(audit: &Audit, check: Check, part: &str) -> bool {
    let line = audit.checks.iter().find(|line| line.name == check).unwrap();
    let of = |one: &&super::super::report::Difference| one.check == check;
    let told = |one: &super::super::report::Difference| {
        format!("{}: {} / {}", one.subject, one.expected, one.found).contains(part)
    };
    !audit.ok && line.found > 0 && audit.differences.iter().filter(of).any(told)
}

type Planted = (&'static [&'static str], Check, &'static str);

const ROWS: &[Planted] = &[
    // the ledger
    (
        &["UPDATE ledger_postings SET amount = amount + 1 WHERE account LIKE 'wallet:%'"],
        Check::Ledger,
        "sums to 1 sats",
    ),
    (
        &["UPDATE ledger_postings SET amount = amount + 1 WHERE account LIKE 'wallet:%'"],
        Check::Ledger,
        "balance of wallet:1 in sats",
    ),
    (
        &["UPDATE ledger_sums SET balance = balance + 1 WHERE account LIKE 'wallet:%'"],
        Check::Ledger,
        "kept balance of wallet:1 in sats",
    ),
    (
        &["DELETE FROM ledger_sums WHERE account = 'super'"],
        Check::Ledger,
        "kept balance of super in sats",
    ),
    (
        &["INSERT INTO ledger_sums VALUES ('owed:9', 'sats', 1, 5)"],
        Check::Ledger,
        "kept balance of owed:9 in sats at the end of day 1",
    ),
    (
        &["UPDATE ledger_entries SET lines = json_set(lines, '$[0][2]', 7) WHERE kind = 'settled'"],
        Check::Ledger,
        "a balanced entry",
    ),
    (
        &[
            "UPDATE ledger_entries SET lines = replace(lines, 'super', 'operator:9') WHERE kind = 'settled'",
        ],
        Check::Ledger,
        "entry settled",
    ),
    (
        &[
            "DELETE FROM ledger_postings WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'settled')",
            "DELETE FROM ledger_entries WHERE kind = 'settled'",
        ],
        Check::Ledger,
        "no such entry",
    ),
    (
        &[
            "DELETE FROM ledger_postings WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'dispensed')",
            "DELETE FROM ledger_entries WHERE kind = 'dispensed'",
        ],
        Check::Ledger,
        "entry dispensed",
    ),
    (
        &[
            "DELETE FROM ledger_postings WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'stacked')",
            "DELETE FROM ledger_entries WHERE kind = 'stacked'",
        ],
        Check::Ledger,
        "entry stacked",
    ),
    (
        &[
            "DELETE FROM ledger_postings WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'withdraw_paid')",
            "DELETE FROM ledger_entries WHERE kind = 'withdraw_paid'",
        ],
        Check::Ledger,
        "entry withdraw_paid",
    ),
    (
        &["UPDATE cassette_changes SET delta = delta + 1 WHERE delta IS NOT NULL"],
        Check::Ledger,
        "entry refilled",
    ),
    (
        &["UPDATE cassette_changes SET booked_at = NULL WHERE delta IS NOT NULL"],
        Check::Ledger,
        "none for entry refilled",
    ),
    (
        &[
            "UPDATE settlements SET principal_sats = principal_sats + 1, operator_fee_sats = operator_fee_sats - 1 WHERE dispense_outcome = 'full'",
        ],
        Check::Ledger,
        "principal 40001",
    ),
    (
        &["DELETE FROM settlements WHERE withdraw_id IS NOT NULL"],
        Check::Ledger,
        "one settlement that distributes its fee",
    ),
    (
        &[
            "UPDATE withdraws SET principal_sats = principal_sats + 1, operator_fee_sats = operator_fee_sats + 1",
        ],
        Check::Ledger,
        "20000 - 400 - 600",
    ),
    (
        &[
            "UPDATE settlements SET principal_sats = principal_sats + 1, operator_fee_sats = operator_fee_sats + 1 WHERE withdraw_id IS NOT NULL",
        ],
        Check::Ledger,
        "principal 20001",
    ),
    // what was signed
    (
        &["UPDATE machine_states SET body = json_set(body, '$.cassettes.1.count', 116)"],
        Check::Requests,
        "over its heartbeat",
    ),
    (
        &[
            "UPDATE invoices SET request_event = replace(request_event, '\"kind\":21000', '\"kind\":21001')",
        ],
        Check::Requests,
        "signature does not hold",
    ),
    (&["DELETE FROM sessions"], Check::Requests, "never spoke for this machine"),
    (&["UPDATE quotes SET ttl_s = ttl_s + 1"], Check::Requests, "quote_sig"),
    (
        &[
            "UPDATE quotes SET fee_sats = fee_sats + 1, wire_sats = wire_sats + 1 WHERE direction = 'cash_out'",
        ],
        Check::Requests,
        "sums of quote",
    ),
    (
        &["UPDATE documents SET cash_out_operator_ppm = 0 WHERE kind = 'fees'"],
        Check::Requests,
        "20000 + 0 ppm",
    ),
    (
        &["UPDATE documents SET event = '{}' WHERE event IS NOT NULL"],
        Check::Requests,
        "fee document",
    ),
    (
        &["UPDATE invoices SET stamp = json_set(stamp, '$.fee_sats', 1)"],
        Check::Requests,
        "stamp of invoice",
    ),
    (
        &["UPDATE settlements SET fiat_minor = 1 WHERE direction = 'cash_out'"],
        Check::Requests,
        "settlement",
    ),
    (
        &["UPDATE dispense_reports SET journal_seq = journal_seq + 100"],
        Check::Requests,
        "vault_sig of the machine's vault",
    ),
    (
        &["UPDATE withdraw_lots SET notes = '{\"2000\":2}'"],
        Check::Requests,
        "create_withdraw of these notes",
    ),
    (&["UPDATE withdraws SET expires_at = expires_at + 1"], Check::Requests, "withdraw_sig"),
    // notes that came out
    (
        &["UPDATE owed SET sats = sats + 1 WHERE reason = 'undispensed'"],
        Check::Dispense,
        "21000 sats / 21001 sats",
    ),
    (&["DELETE FROM owed WHERE reason = 'late'"], Check::Dispense, "no such debt"),
    (
        &["UPDATE dispense_reports SET owed_minor = 4000 WHERE outcome = 'partial'"],
        Check::Dispense,
        "2000 out and 4000 owed of 4000",
    ),
    (
        &[
            "UPDATE settlements SET dispense_outcome = NULL, reported_at = NULL WHERE dispense_outcome = 'full'",
        ],
        Check::Dispense,
        "full / not reported",
    ),
    (
        &["UPDATE dispense_reports SET payment_hash = 'a' || substr(payment_hash, 2)"],
        Check::Dispense,
        "notes without a payment",
    ),
    // notes in the machine
    (
        &["UPDATE machine_states SET body = json_set(body, '$.cassettes.1.count', 116)"],
        Check::Cash,
        "117 by the ledger / 116 by the machine",
    ),
    (
        &["UPDATE machine_states SET body = json_set(body, '$.cashbox.notes.2000', 3)"],
        Check::Cash,
        "2 by the ledger / 3 by the machine",
    ),
    // promises
    (
        &["UPDATE withdraws SET state = 'paid' WHERE state = 'offered'"],
        Check::Liabilities,
        "1 payments / 0",
    ),
    (
        &["UPDATE withdraws SET state = 'paid' WHERE state = 'offered'"],
        Check::Liabilities,
        "customer_liability:1: 0 sats / -19000 sats",
    ),
    (
        &["UPDATE owed SET sats = sats - 1 WHERE reason = 'late'"],
        Check::Liabilities,
        "42000 sats / 41999 sats",
    ),
    (
        &["UPDATE owed SET source = 'nothing' WHERE reason = 'late'"],
        Check::Liabilities,
        "something that makes it",
    ),
    (&["DELETE FROM owed WHERE reason = 'late'"], Check::Liabilities, "owed:1"),
    // rows against the wallet
    (&["UPDATE payments SET fee_paid_sats = fee_paid_sats + 1"], Check::Wallet, "1 sats of fees"),
    (
        &["UPDATE payments SET state = 'failed', fee_paid_sats = NULL"],
        Check::Wallet,
        "failed, as recorded",
    ),
    (&["DELETE FROM payments"], Check::Wallet, "a payout of"),
];

/// Loss prevented: a row that was changed, lost or made up, and that nobody notices.
#[tokio::test]
async fn damaged_rows_are_found() {
    let shop = Shop::busy().await;
    let given = shop.given().await;
    let mut missed = Vec::new();
    for (statements, check, part) in ROWS {
        let audit = shop.damaged(&given, statements).await;
        if !finds(&audit, *check, part) {
            missed.push((statements, check, part, audit.differences));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

fn payment(flow: Flow, msat: u64) -> (PaymentHash, Payment) {
    let payment_hash = PaymentHash::from_bytes([9; 32]);
    let state = PayState::Succeeded { amount: Msat(msat), fee: Msat(0), at: Unix(9_000_000_000) };
    (payment_hash, Payment { payment_hash, flow, state, extra: json!({}) })
}

pub(super) fn first(seen: &mut Seen, flow: Flow) -> &mut Payment {
    let moved = |p: &&mut Payment| p.flow == flow && matches!(p.state, PayState::Succeeded { .. });
    seen.payments.values_mut().find(moved).unwrap()
}

/// Loss prevented: sats that came or went, and of which the books know nothing; or the other way
/// round.
#[tokio::test]
async fn a_wallet_that_tells_it_otherwise_is_found() {
    type Change = fn(&mut Seen);
    let changes: [(Change, &str); 8] = [
        (|seen| seen.payments.extend([payment(Flow::Inbound, 5_000)]), "a settlement of"),
        (|seen| seen.payments.extend([payment(Flow::Outbound, 5_000)]), "a payout of"),
        (
            |seen| {
                let hash = first(seen, Flow::Inbound).payment_hash;
                seen.payments.remove(&hash);
            },
            "none in its list",
        ),
        (
            |seen| {
                let hash = first(seen, Flow::Outbound).payment_hash;
                seen.payments.remove(&hash);
            },
            "none in its list",
        ),
        (|seen| first(seen, Flow::Inbound).state = PayState::Failed, "failed in"),
        (|seen| first(seen, Flow::Outbound).state = PayState::Pending, "pending out"),
        (
            |seen| {
                let PayState::Succeeded { amount, .. } = &mut first(seen, Flow::Inbound).state
                else {
                    unreachable!()
                };
                amount.0 += 1_000;
            },
            "sats of cash_out",
        ),
        (|seen| seen.balance.0 += 1, "balance of wallet till"),
    ];
    let shop = Shop::busy().await;
    let given = shop.given().await;
    for (n, (change, part)) in changes.into_iter().enumerate() {
        let mut told: Given = given.clone();
        change(told.wallets.get_mut("till").unwrap());
        let audit = shop.damaged(&told, &[]).await;
        assert!(finds(&audit, Check::Wallet, part), "{n} {part}: {:#?}", audit.differences);
    }
    let mut gone = given.clone();
    gone.wallets.remove("till");
    let audit = shop.damaged(&gone, &[]).await;
    assert!(finds(&audit, Check::Wallet, "a wallet of the configuration"));
}

/// Loss prevented: sats booked for a payment that never was.
#[tokio::test]
async fn an_entry_that_nothing_made_is_found() {
    let shop = Shop::open().await;
    let (id, now) = (shop.world.machine_id, shop.world.app.clock.now());
    let entry = owed_whole(id, "made up", TxnId::from_bytes([1; 16]), Sats(5)).unwrap();
    shop.world.write(move |tx| ledger::append(tx, &entry, now).map(|_| ())).await;
    let audit = shop.audit().await;
    assert!(finds(&audit, Check::Ledger, "none for entry owed_whole made up"));
    assert!(finds(&audit, Check::Wallet, "balance of wallet till"), "{:#?}", audit.differences);
    assert!(finds(&audit, Check::Liabilities, "owed:1"));
}
