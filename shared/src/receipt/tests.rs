//! What a receipt must hold, and what must not pass for one.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::canonical::MAX_INTEGER;
use crate::ids::Nonce;
use crate::money::Origin;
use crate::statement::{SignedStatement, Statement};
use crate::test_keys::{key, keys};

/// The machine's key, as in the worked example of docs/receipt.md.
const SPIRE: u8 = 1;
/// Its vault's.
const VAULT: u8 = 4;

fn statement(spire: u8, vault: u8, at: u64) -> SignedStatement {
    let (keys, spire) = keys(spire);
    let nonce = Nonce::from_bytes([9; 16]);
    let said = Statement::Vault {
        spire,
        vault: key(vault),
        nonce,
        not_after: Unix(at.saturating_add(600)),
    };
    let event = said.to_unsigned(&spire, Unix(at)).unwrap();
    SignedStatement::new(event.sign_with_keys(&keys).unwrap())
}

fn naming() -> VaultNaming {
    let statement = statement(SPIRE, VAULT, 1_800_000_000);
    VaultNaming::of(&statement, &key(SPIRE), &key(VAULT)).unwrap()
}

fn notes(pairs: &[(u32, u16)]) -> BTreeMap<Denomination, u16> {
    pairs.iter().map(|(minor, n)| (Denomination::from_minor(*minor).unwrap(), *n)).collect()
}

/// 40 EUR bought, 20 of it not given.
fn short() -> Receipt {
    let origin = |source: &str, age_s| Origin { source: source.parse().unwrap(), age_s };
    Receipt {
        spire: key(SPIRE),
        vault: key(VAULT),
        txid: TxnId::from_bytes([1; 16]),
        direction: Direction::CashOut,
        outcome: Outcome::Owed,
        currency: "EUR".parse().unwrap(),
        fiat_minor: 4_000,
        prices: vec![Price {
            fiat_minor: 4_000,
            rate: Rate::from_nano(1_063_829_787_234).unwrap(),
        }],
        sources: Origins::new([origin("kraken", 2), origin("bitstamp", 11)]).unwrap(),
        principal_sats: Sats(42_554),
        platform_fee_sats: Sats(1_277),
        operator_fee_sats: Sats(2_128),
        reference: Some(Reference::PaymentHash(PaymentHash::from_bytes([7; 32]))),
        notes: notes(&[(1_000, 2)]),
        besides_minor: 0,
        owed_minor: 2_000,
        owed_sats: None,
        opened_at: Unix(1_800_003_600),
        ended_at: Unix(1_800_003_725),
        journal_seq: JournalSeq(142),
        journal_head: JournalHead::from_bytes([5; 32]),
    }
}

fn signed(receipt: &Receipt) -> SignedReceipt {
    receipt.sign(naming(), &keys(VAULT).0).unwrap()
}

/// Loss prevented: a receipt that nobody can check, or whose figures came back as others.
#[test]
fn a_receipt_is_read_back_as_it_was_signed() {
    let text = signed(&short()).text();
    let read = SignedReceipt::read(&text).unwrap();
    assert_eq!(read.check(), Ok(&short()));
    assert_eq!(read.check_of(&key(SPIRE)), Ok(&short()));
    assert_eq!(read.naming().created_at, Unix(1_800_000_000));
    let pasted = format!("  {}\r\n{}\n", &text[..40], &text[40..]);
    assert_eq!(SignedReceipt::read(&pasted).unwrap(), read);
    let other = read.check_of(&key(2)).unwrap_err();
    assert!(matches!(&other, ReceiptError::OtherMachine { .. }), "{other}");
}

/// The worked example of docs/receipt.md: whoever writes a checker checks it against this.
///
/// Loss prevented: a later version that reads the receipts of today as something else.
#[test]
fn the_worked_example_is_good() {
    let page = include_str!("../../../docs/receipt.md");
    let block = |name: &str| {
        let begin = format!("```{name}\n");
        let (_, rest) = page.split_once(&begin).unwrap();
        rest.split_once("\n```").unwrap().0.to_owned()
    };
    let read = SignedReceipt::read(&block("receipt")).unwrap();
    assert_eq!(read.check(), Ok(&short()));
    assert_eq!(crate::ids::to_hex(&read.body), block("figures").replace('\n', ""));
    assert_eq!(signed_text(&read.body), block("signed"));
}

/// Loss prevented: figures by somebody else than the vault that the machine named.
#[test]
fn only_the_named_vault_of_the_machine_signs() {
    let stranger = keys(9).0;
    let refused = short().sign(naming(), &stranger).unwrap_err();
    assert!(matches!(refused, ReceiptError::Signature(_)), "{refused}");
    let own = Receipt { vault: key(9), ..short() };
    let refused = own.sign(naming(), &stranger).unwrap_err();
    assert!(matches!(refused, ReceiptError::Naming(_)), "a vault that it did not name: {refused}");
    let refused = VaultNaming::of(&statement(SPIRE, 9, 5), &key(SPIRE), &key(VAULT)).unwrap_err();
    assert!(matches!(refused, ReceiptError::Form(_)), "{refused}");
    let refused = VaultNaming::of(&statement(2, VAULT, 5), &key(SPIRE), &key(VAULT)).unwrap_err();
    assert!(matches!(refused, ReceiptError::Naming(_)), "{refused}");
}

/// Loss prevented: another text, a later version or a cut one taken for a receipt.
#[test]
fn what_is_no_receipt_is_refused_in_words() {
    let text = signed(&short()).text();
    let refused = |text: &str| SignedReceipt::read(text).unwrap_err();
    assert!(matches!(refused("lnbc1..."), ReceiptError::Prefix { .. }));
    assert!(matches!(refused(&text.replacen("BSR1", "BSR2", 1)), ReceiptError::Prefix { .. }));
    assert!(matches!(
        refused(&format!("BSR1:{}", "0".repeat(1_000))),
        ReceiptError::TooLong { .. }
    ));
    assert!(matches!(refused(&text.to_lowercase()), ReceiptError::Prefix { .. }));
    assert!(matches!(refused("BSR1:a"), ReceiptError::Text));
    assert!(matches!(refused("BSR1:"), ReceiptError::Form(_)));
    assert!(SignedReceipt::read(&text[..text.len() - 3]).is_err());
    assert!(SignedReceipt::read(&format!("{text}000")).is_err());
}

/// Loss prevented: two receipts over one sale that differ in how they were written only.
#[test]
fn another_encoding_of_the_same_is_refused() {
    let good = code::seal(&signed(&short()));
    assert!(code::open(&good).is_ok());
    // the array's length in two bytes, and without one
    for (first, rest) in [(vec![0x98, 3], &good[1..]), (vec![0x9f], &good[1..])] {
        let mut other = first;
        other.extend_from_slice(rest);
        assert!(SignedReceipt::read(&format!("{PREFIX}{}", base45::encode(other))).is_err());
    }
}

/// Loss prevented: a receipt without its amounts for whoever fed the thirteenth sort of note.
#[test]
fn what_does_not_fit_is_refused_when_it_is_made() {
    let many: Vec<(u32, u16)> = (1..=13).map(|n| (n, 1)).collect();
    let price = short().prices[0];
    let refused = [
        Receipt { notes: notes(&many), ..short() },
        Receipt { prices: vec![Price { fiat_minor: 1_000, ..price }; 4], ..short() },
        Receipt { prices: vec![Price { fiat_minor: 4_001, ..price }], ..short() },
        Receipt { fiat_minor: MAX_INTEGER + 1, ..short() },
        Receipt { ended_at: Unix(1 << 32), ..short() },
        Receipt { notes: notes(&[(1_000, 0)]), ..short() },
        Receipt { direction: Direction::CashIn, principal_sats: Sats(1), ..short() },
    ];
    for receipt in refused {
        let error = receipt.sign(naming(), &keys(VAULT).0).unwrap_err();
        assert!(matches!(error, ReceiptError::Figure { .. }), "{error}");
    }
}

/// Loss prevented: a code that a phone cannot scan any more.
#[test]
fn the_largest_receipt_is_within_a_thousand_characters() {
    let origin = |source: &str| Origin { source: source.parse().unwrap(), age_s: u16::MAX };
    let huge = MAX_INTEGER;
    let largest = Receipt {
        fiat_minor: huge,
        prices: vec![
            Price { fiat_minor: huge / 4, rate: Rate::from_nano(u64::MAX).unwrap() };
            MAX_PRICES
        ],
        sources: Origins::new(
            ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"].map(origin),
        )
        .unwrap(),
        principal_sats: Sats(huge),
        platform_fee_sats: Sats(huge),
        operator_fee_sats: Sats(huge),
        notes: notes(&(0..12).map(|n| (u32::MAX - n, u16::MAX)).collect::<Vec<_>>()),
        besides_minor: huge,
        owed_minor: huge,
        owed_sats: Some(Sats(huge)),
        opened_at: Unix(u32::MAX.into()),
        ended_at: Unix(u32::MAX.into()),
        journal_seq: JournalSeq(huge),
        ..short()
    };
    let statement = statement(SPIRE, VAULT, u64::from(u32::MAX) - 600);
    let naming = VaultNaming::of(&statement, &key(SPIRE), &key(VAULT)).unwrap();
    let text = largest.sign(naming, &keys(VAULT).0).unwrap().text();
    assert!(text.len() <= MAX_TEXT, "{}", text.len());
    assert_eq!(SignedReceipt::read(&text).unwrap().check(), Ok(&largest));
    assert!(signed(&short()).text().len() < 700, "{}", signed(&short()).text().len());
}

/// Loss prevented: whoever photographs a receipt takes what is owed on it, or a line that is missing
/// hides that something is.
#[test]
fn it_says_what_is_owed_and_holds_nothing_that_brings_it() {
    let receipt = short();
    assert!(receipt.is_claimable());
    let words: Vec<_> =
        receipt.lines().iter().map(|line| format!("{}: {}", line.label, line.value)).collect();
    insta::assert_snapshot!(words.join("\n"));
    assert!(!Receipt { outcome: Outcome::Done, owed_minor: 0, ..short() }.is_claimable());
}

prop_compose! {
    fn receipts()(
        (out, outcome, fiat, reference) in (any::<bool>(), 0u8..6, 0..=MAX_INTEGER, 0u8..3),
        sats in (0..=MAX_INTEGER / 2, 0..=MAX_INTEGER / 4, 0..=MAX_INTEGER / 4),
        (besides, owed, owed_sats) in (0..5u64, 0..=MAX_INTEGER, prop::option::of(0..=MAX_INTEGER)),
        prices in vec((0..=u64::MAX / 4, 1..=u64::MAX), 0..=MAX_PRICES),
        ages in vec(any::<u16>(), 0..=4),
        notes in btree_map(1..=u32::MAX, 1..=u16::MAX, 0..=MAX_VALUES),
        bytes in any::<[u8; 32]>(),
        (opened, ended, seq) in (any::<u32>(), any::<u32>(), 0..=MAX_INTEGER),
    ) -> Receipt {
        let share = fiat / 4;
        let named = |(n, age_s)| Origin { source: format!("s{n}").parse().unwrap(), age_s };
        let (principal, platform, operator) = sats;
        let outcomes = [
            Outcome::Done, Outcome::Owed, Outcome::Uncertain, Outcome::Late, Outcome::Waiting,
            Outcome::Unknown,
        ];
        let note = |(minor, count)| (Denomination::from_minor(minor).unwrap(), count);
        Receipt {
            txid: TxnId::from_bytes([bytes[0]; 16]),
            direction: if out { Direction::CashOut } else { Direction::CashIn },
            outcome: outcomes[usize::from(outcome)],
            fiat_minor: fiat,
            prices: prices
                .into_iter()
                .map(|(part, nano)| Price {
                    fiat_minor: part.min(share),
                    rate: Rate::from_nano(nano).unwrap(),
                })
                .collect(),
            sources: Origins::new(ages.into_iter().enumerate().map(named)).unwrap(),
            principal_sats: Sats(principal + MAX_INTEGER / 2),
            platform_fee_sats: Sats(platform),
            operator_fee_sats: Sats(operator),
            reference: match reference {
                0 => None,
                1 => Some(Reference::PaymentHash(PaymentHash::from_bytes(bytes))),
                _ => Some(Reference::WithdrawId(WithdrawId::from_bytes([bytes[1]; 16]))),
            },
            notes: notes.into_iter().map(note).collect(),
            besides_minor: besides,
            owed_minor: owed,
            owed_sats: owed_sats.map(Sats),
            opened_at: Unix(opened.into()),
            ended_at: Unix(ended.into()),
            journal_seq: JournalSeq(seq),
            journal_head: JournalHead::from_bytes(bytes),
            ..short()
        }
    }
}

proptest! {
    /// Loss prevented: a sale whose receipt does not read, or does not fit a code.
    #[test]
    fn every_receipt_comes_back_and_fits(receipt in receipts()) {
        let text = signed(&receipt).text();
        prop_assert!(text.len() <= MAX_TEXT, "{}", text.len());
        let read = SignedReceipt::read(&text).unwrap();
        prop_assert_eq!(read.check(), Ok(&receipt));
        prop_assert_eq!(read.text(), text);
        prop_assert!(!receipt.lines().is_empty());
    }

    /// Loss prevented: a figure, a key or a date changed on paper that still passes.
    #[test]
    fn any_changed_byte_is_refused(receipt in receipts(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = code::seal(&signed(&receipt));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let passes = code::open(&bytes).is_ok_and(|read| read.check().is_ok());
        prop_assert!(!passes, "byte {}", at);
    }

    /// Loss prevented: a text on a public page that ends the program behind it.
    #[test]
    fn no_text_panics(text in ".{0,80}", bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(SignedReceipt::read(&text).is_err());
        prop_assert!(code::open(&bytes).is_err());
        let coded = format!("{PREFIX}{}", base45::encode(&bytes));
        prop_assert!(SignedReceipt::read(&coded).is_err());
    }
}
