//! Receipts as CBOR (RFC 8949).
//!
//! Promise: one receipt has one encoding: whole numbers as keys in ascending order, everything in
//! its shortest form and of stated length (section 4.2.1, core deterministic encoding), and a key
//! that says nothing is left out. What is read is written again and compared, so another encoding of
//! the same is refused. An unknown key is refused too: it could say that something is owed.
//!
//! Failure policy: no input panics or allocates more than it is long.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::{
    MAX_PRICES, MAX_VALUES, Outcome, Price, Receipt, ReceiptError, Reference, SignedReceipt,
    VaultNaming,
};
use crate::canonical::Sig;
use crate::ids::{JournalHead, JournalSeq, Nonce, PaymentHash, PubKey, TxnId, WithdrawId};
use crate::money::{Denomination, Direction, Origin, Origins, Rate, Sats};
use crate::time::Unix;

/// The version of the figures, key 0.
const VERSION: u64 = 1;
/// Largest amount: what 2^53 - 1 keeps exact in every reader.
const MAX_AMOUNT: u64 = crate::canonical::MAX_INTEGER;

type Buffer = Vec<u8>;
type Out<'a> = Encoder<&'a mut Buffer>;
/// Writing to a `Vec` does not fail; the type says so.
type Never = minicbor::encode::Error<std::convert::Infallible>;

impl From<Never> for ReceiptError {
    fn from(error: Never) -> Self {
        Self::Form(error.to_string())
    }
}

impl From<minicbor::decode::Error> for ReceiptError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Form(error.to_string())
    }
}

/// The figures.
pub(super) fn encode(receipt: &Receipt) -> Result<Buffer, ReceiptError> {
    fits(receipt)?;
    Ok(write(receipt)?)
}

fn write(receipt: &Receipt) -> Result<Buffer, Never> {
    let Receipt { besides_minor, owed_minor, owed_sats, .. } = receipt;
    let optional = [
        !receipt.sources.is_empty(),
        receipt.reference.is_some(),
        !receipt.notes.is_empty(),
        *besides_minor > 0,
        *owed_minor > 0,
        owed_sats.is_some(),
    ];
    let keys = optional.into_iter().filter(|there| *there).count();
    let mut buffer = Buffer::new();
    let mut out = Encoder::new(&mut buffer);
    out.map(u64::try_from(keys).unwrap_or(u64::MAX).saturating_add(ALWAYS))?;
    out.u8(0)?.u64(VERSION)?;
    out.u8(1)?.bytes(&receipt.spire.to_bytes())?;
    out.u8(2)?.bytes(&receipt.vault.to_bytes())?;
    out.u8(3)?.bytes(receipt.txid.as_bytes())?;
    out.u8(4)?.u8(direction(receipt.direction))?;
    out.u8(5)?.u8(outcome(receipt.outcome))?;
    out.u8(6)?.str(&receipt.currency.code())?;
    out.u8(7)?.u64(receipt.fiat_minor)?;
    out.u8(8)?.array(u64::try_from(receipt.prices.len()).unwrap_or(u64::MAX))?;
    for Price { fiat_minor, rate } in &receipt.prices {
        out.array(2)?.u64(*fiat_minor)?.u64(rate.nano())?;
    }
    if !receipt.sources.is_empty() {
        out.u8(9)?.array(u64::try_from(receipt.sources.iter().count()).unwrap_or(u64::MAX))?;
        for Origin { source, age_s } in receipt.sources.iter() {
            out.array(2)?.str(source.as_str())?.u16(age_s)?;
        }
    }
    out.u8(10)?.u64(receipt.principal_sats.0)?;
    out.u8(11)?.u64(receipt.platform_fee_sats.0)?;
    out.u8(12)?.u64(receipt.operator_fee_sats.0)?;
    match &receipt.reference {
        Some(Reference::PaymentHash(hash)) => {
            out.u8(13)?.bytes(hash.as_bytes())?;
        }
        Some(Reference::WithdrawId(id)) => {
            out.u8(14)?.bytes(id.as_bytes())?;
        }
        None => {}
    }
    if !receipt.notes.is_empty() {
        out.u8(15)?.map(u64::try_from(receipt.notes.len()).unwrap_or(u64::MAX))?;
        for (note, count) in &receipt.notes {
            out.u32(note.minor())?.u16(*count)?;
        }
    }
    number(&mut out, 16, *besides_minor)?;
    number(&mut out, 17, *owed_minor)?;
    if let Some(sats) = owed_sats {
        out.u8(18)?.u64(sats.0)?;
    }
    out.u8(19)?.u64(receipt.opened_at.0)?;
    out.u8(20)?.u64(receipt.ended_at.0)?;
    out.u8(21)?.u64(receipt.journal_seq.0)?;
    out.u8(22)?.bytes(receipt.journal_head.as_bytes())?;
    Ok(buffer)
}

/// Keys that are always there.
const ALWAYS: u64 = 16;

fn number(out: &mut Out<'_>, key: u8, value: u64) -> Result<(), Never> {
    if value > 0 {
        out.u8(key)?.u64(value)?;
    }
    Ok(())
}

const fn direction(direction: Direction) -> u8 {
    match direction {
        Direction::CashIn => 0,
        Direction::CashOut => 1,
    }
}

const fn outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Owed => 1,
        Outcome::Uncertain => 2,
        Outcome::Late => 3,
        Outcome::Waiting => 4,
        Outcome::Unknown => 5,
    }
}

/// What must hold for a text of bounded length and for sums that mean something.
fn fits(receipt: &Receipt) -> Result<(), ReceiptError> {
    let most = |what, expected, got: usize, most| match got <= most {
        true => Ok(()),
        false => Err(ReceiptError::Figure { what, expected, got: got.to_string() }),
    };
    most("values of notes", "at most 12", receipt.notes.len(), MAX_VALUES)?;
    most("rates", "at most 3", receipt.prices.len(), MAX_PRICES)?;
    let amounts = [
        receipt.fiat_minor,
        receipt.besides_minor,
        receipt.owed_minor,
        receipt.principal_sats.0,
        receipt.platform_fee_sats.0,
        receipt.operator_fee_sats.0,
        receipt.owed_sats.map_or(0, |sats| sats.0),
        receipt.journal_seq.0,
    ];
    for amount in amounts {
        if amount > MAX_AMOUNT {
            let (what, expected) = ("an amount", "at most 2^53 - 1");
            return Err(ReceiptError::Figure { what, expected, got: amount.to_string() });
        }
    }
    for time in [receipt.opened_at, receipt.ended_at] {
        if u32::try_from(time.0).is_err() {
            let (what, expected) = ("a time", "one before 2106");
            return Err(ReceiptError::Figure { what, expected, got: time.0.to_string() });
        }
    }
    let priced = receipt.prices.iter().try_fold(0u64, |sum, p| sum.checked_add(p.fiat_minor));
    if priced.is_none_or(|priced| priced > receipt.fiat_minor) {
        let (what, expected) = ("amounts at rates", "at most the whole amount");
        return Err(ReceiptError::Figure { what, expected, got: format!("{priced:?}") });
    }
    if receipt.notes.values().any(|count| *count == 0) {
        let (what, expected) = ("notes", "at least one of each value");
        return Err(ReceiptError::Figure { what, expected, got: "none".to_owned() });
    }
    receipt.wire_sats().map_err(|error| ReceiptError::Figure {
        what: "fees",
        expected: "at most the principal of a cash_in",
        got: error.to_string(),
    })?;
    Ok(())
}

/// Figures, signature and statement as one: `[figures, signature, [created_at, not_after, nonce,
/// signature]]`.
pub(super) fn seal(signed: &SignedReceipt) -> Buffer {
    let mut buffer = Buffer::new();
    let mut out = Encoder::new(&mut buffer);
    let written: Result<(), Never> = (|| {
        let VaultNaming { created_at, not_after, nonce, sig } = &signed.naming;
        out.array(3)?.bytes(&signed.body)?.bytes(&signed.sig.to_bytes())?;
        out.array(4)?.u64(created_at.0)?.u64(not_after.0)?;
        out.bytes(nonce.as_bytes())?.bytes(&sig.to_bytes())?;
        Ok(())
    })();
    match written {
        Ok(()) => buffer,
        // never: a `Vec` takes everything. A text without an end does not read
        Err(_) => Buffer::new(),
    }
}

/// What [`seal`] made.
pub(super) fn open(bytes: &[u8]) -> Result<SignedReceipt, ReceiptError> {
    let mut from = Decoder::new(bytes);
    exactly(from.array()?, 3)?;
    let body = from.bytes()?;
    let sig = Sig::from_bytes(from.bytes()?)?;
    exactly(from.array()?, 4)?;
    let naming = VaultNaming {
        created_at: Unix(from.u64()?),
        not_after: Unix(from.u64()?),
        nonce: Nonce::from_bytes(fixed(from.bytes()?)?),
        sig: Sig::from_bytes(from.bytes()?)?,
    };
    let receipt = decode(body)?;
    if [naming.created_at, naming.not_after].iter().any(|time| u32::try_from(time.0).is_err()) {
        return Err(form("a time after 2105"));
    }
    if encode(&receipt)? != body || from.position() != bytes.len() {
        return Err(form("another encoding of it, or something behind it"));
    }
    Ok(SignedReceipt { receipt, body: body.to_vec(), sig, naming })
}

fn form(words: &str) -> ReceiptError {
    ReceiptError::Form(words.to_owned())
}

fn exactly(got: Option<u64>, expected: u64) -> Result<(), ReceiptError> {
    if got == Some(expected) {
        return Ok(());
    }
    Err(ReceiptError::Form(format!("expected {expected} parts, got {got:?}")))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ReceiptError> {
    let got = bytes.len();
    bytes.try_into().map_err(|_| ReceiptError::Form(format!("expected {N} bytes, got {got}")))
}

fn key(from: &mut Decoder<'_>) -> Result<PubKey, ReceiptError> {
    let bytes = fixed(from.bytes()?)?;
    Ok(PubKey::new(nostr::PublicKey::from_byte_array(bytes))?)
}

/// Reads keys one after the other; whatever is missing, double or out of order is found when the
/// result is written again.
fn decode(body: &[u8]) -> Result<Receipt, ReceiptError> {
    let mut from = Decoder::new(body);
    let mut keys = from.map()?.ok_or_else(|| form("a map without its length"))?;
    let mut take = |from: &mut Decoder<'_>, wanted: u8| -> Result<(), ReceiptError> {
        let got = from.u8()?;
        keys = keys.saturating_sub(1);
        if got == wanted {
            return Ok(());
        }
        Err(ReceiptError::Form(format!("expected key {wanted}, got key {got}")))
    };
    take(&mut from, 0)?;
    let version = from.u64()?;
    if version != VERSION {
        return Err(ReceiptError::Form(format!("expected version {VERSION}, got {version}")));
    }
    take(&mut from, 1)?;
    let spire = key(&mut from)?;
    take(&mut from, 2)?;
    let vault = key(&mut from)?;
    take(&mut from, 3)?;
    let txid = TxnId::from_bytes(fixed(from.bytes()?)?);
    take(&mut from, 4)?;
    let direction = match from.u8()? {
        0 => Direction::CashIn,
        1 => Direction::CashOut,
        got => return Err(ReceiptError::Form(format!("expected direction 0 or 1, got {got}"))),
    };
    take(&mut from, 5)?;
    let outcome = read_outcome(from.u8()?)?;
    take(&mut from, 6)?;
    let currency = from.str()?.parse()?;
    take(&mut from, 7)?;
    let fiat_minor = from.u64()?;
    take(&mut from, 8)?;
    let prices = list(&mut from, MAX_PRICES, |from| {
        exactly(from.array()?, 2)?;
        Ok(Price { fiat_minor: from.u64()?, rate: Rate::from_nano(from.u64()?)? })
    })?;
    let mut sources = Origins::default();
    if next(&from)? == Some(9) {
        take(&mut from, 9)?;
        sources = Origins::new(list(&mut from, crate::money::MAX_ORIGINS, |from| {
            exactly(from.array()?, 2)?;
            Ok(Origin { source: from.str()?.parse()?, age_s: from.u16()? })
        })?)?;
    }
    take(&mut from, 10)?;
    let principal_sats = Sats(from.u64()?);
    take(&mut from, 11)?;
    let platform_fee_sats = Sats(from.u64()?);
    take(&mut from, 12)?;
    let operator_fee_sats = Sats(from.u64()?);
    let reference = match next(&from)? {
        Some(13) => {
            take(&mut from, 13)?;
            Some(Reference::PaymentHash(PaymentHash::from_bytes(fixed(from.bytes()?)?)))
        }
        Some(14) => {
            take(&mut from, 14)?;
            Some(Reference::WithdrawId(WithdrawId::from_bytes(fixed(from.bytes()?)?)))
        }
        _ => None,
    };
    let mut notes = std::collections::BTreeMap::new();
    if next(&from)? == Some(15) {
        take(&mut from, 15)?;
        let kinds = from.map()?.ok_or_else(|| form("a map without its length"))?;
        for _ in 0..kinds.min(u64::try_from(MAX_VALUES).unwrap_or(0).saturating_add(1)) {
            notes.insert(Denomination::from_minor(from.u32()?)?, from.u16()?);
        }
    }
    let mut optional = |from: &mut Decoder<'_>, wanted: u8| -> Result<Option<u64>, ReceiptError> {
        if next(from)? != Some(wanted) {
            return Ok(None);
        }
        take(from, wanted)?;
        Ok(Some(from.u64()?))
    };
    let besides_minor = optional(&mut from, 16)?.unwrap_or(0);
    let owed_minor = optional(&mut from, 17)?.unwrap_or(0);
    let owed_sats = optional(&mut from, 18)?.map(Sats);
    take(&mut from, 19)?;
    let opened_at = Unix(from.u64()?);
    take(&mut from, 20)?;
    let ended_at = Unix(from.u64()?);
    take(&mut from, 21)?;
    let journal_seq = JournalSeq(from.u64()?);
    take(&mut from, 22)?;
    let journal_head = JournalHead::from_bytes(fixed(from.bytes()?)?);
    if keys > 0 {
        return Err(form("a key that this version does not know"));
    }
    Ok(Receipt {
        spire,
        vault,
        txid,
        direction,
        outcome,
        currency,
        fiat_minor,
        prices,
        sources,
        principal_sats,
        platform_fee_sats,
        operator_fee_sats,
        reference,
        notes,
        besides_minor,
        owed_minor,
        owed_sats,
        opened_at,
        ended_at,
        journal_seq,
        journal_head,
    })
}

fn read_outcome(number: u8) -> Result<Outcome, ReceiptError> {
    Ok(match number {
        0 => Outcome::Done,
        1 => Outcome::Owed,
        2 => Outcome::Uncertain,
        3 => Outcome::Late,
        4 => Outcome::Waiting,
        5 => Outcome::Unknown,
        got => return Err(ReceiptError::Form(format!("expected outcome 0 to 5, got {got}"))),
    })
}

/// The next key, without taking it.
fn next(from: &Decoder<'_>) -> Result<Option<u8>, ReceiptError> {
    let mut ahead = from.clone();
    match ahead.datatype()? {
        Type::U8 => Ok(Some(ahead.u8()?)),
        _ => Ok(None),
    }
}

fn list<T>(
    from: &mut Decoder<'_>,
    most: usize,
    read: impl Fn(&mut Decoder<'_>) -> Result<T, ReceiptError>,
) -> Result<Vec<T>, ReceiptError> {
    let count = from.array()?.ok_or_else(|| form("a list without its length"))?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > most {
        return Err(ReceiptError::Form(format!("expected at most {most} in a list, got {count}")));
    }
    (0..count).map(|_| read(from)).collect()
}
