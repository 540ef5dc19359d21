//! The honest service and its wallet: what it promised, what it was paid, what it was told.

use std::collections::BTreeMap;

use bitspire_hardware::sim::faulty::SplitMix64;
use bitspire_shared::ids::{
    ChangeId, EventId, PaymentHash, PubKey, QuoteId, RequestId, TxnId, WithdrawId,
};
use bitspire_shared::money::{Direction, FeePpm, Fiat, Origin, Origins, Rate, Sats, SourceName};
use bitspire_shared::rpc::{
    Ack, CreateInvoice, CreateWithdraw, DispenseAuthorisation, DispenseReport, ErrorCode,
    GetPayment, GetQuote, Invoice, Lnurl, Payment, PaymentState, Quote, QuoteTerms, Reply,
    ServiceAction, SignedText as _, StateReport, VaultSigned, Withdraw, WithdrawTerms, notes_value,
};
use bitspire_shared::split::FeePair;
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::Value;

/// Sats per dollar times 10^9.
const RATE: u64 = 1_000_000_000_000;
/// How long a withdraw can be claimed.
const WITHDRAW_S: u64 = 900;

/// Who signs.
#[derive(Clone)]
pub(super) struct Parties {
    pub(super) spire: Keys,
    pub(super) operator: Keys,
    pub(super) service: Keys,
    pub(super) client: Keys,
}

impl Parties {
    pub(super) fn new() -> Self {
        let keys = |n: u8| Keys::parse(&format!("{n:02x}").repeat(32)).expect("a key");
        Self { spire: keys(1), operator: keys(2), service: keys(3), client: keys(4) }
    }
}

pub(super) fn public(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).expect("a key")
}

/// Fees of both directions.
pub(super) fn fee_pair() -> FeePair {
    let ppm = |n| FeePpm::new(n).expect("a fee");
    FeePair::new(ppm(30_000), ppm(50_000)).expect("two fees")
}

/// An invoice of the wallet.
#[derive(Clone, Debug)]
pub(super) struct Bill {
    pub(super) terms: QuoteTerms,
    pub(super) expires_at: Unix,
    /// What came in time, all payments together.
    pub(super) paid: u64,
    /// What came after its end, or beside what was asked.
    pub(super) late: u64,
    /// The service has said that its time is over.
    pub(super) over: bool,
}

impl Bill {
    /// Paid in time and in full: the notes are the customer's.
    pub(super) fn settled(&self) -> bool {
        self.paid >= self.terms.wire_sats.0
    }
}

/// How a withdraw stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    Open,
    Claimed,
    Paid,
    /// Its time was over: it is paid by the claim code, elsewhere.
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Draw {
    pub(super) claim: CreateWithdraw,
    pub(super) net: Sats,
    pub(super) fee: Sats,
    pub(super) expires_at: Unix,
    pub(super) state: Drawn,
    /// The machine was told of it.
    pub(super) told: bool,
}

/// The service.
pub(super) struct Service {
    pub(super) parties: Parties,
    pub(super) vault: Option<PubKey>,
    pub(super) fees: Option<EventId>,
    pub(super) quotes: BTreeMap<QuoteId, QuoteTerms>,
    pub(super) bills: BTreeMap<PaymentHash, Bill>,
    pub(super) draws: BTreeMap<WithdrawId, Draw>,
    pub(super) reports: BTreeMap<TxnId, Vec<DispenseReport>>,
    /// What the books of the cashbox had, each time that it was emptied, in minor units.
    pub(super) emptied: BTreeMap<ChangeId, i64>,
    /// The last heartbeat.
    pub(super) state: Option<StateReport>,
    answers: BTreeMap<RequestId, (String, Value, Reply)>,
    pub(super) invoice_s: u64,
    /// The wallet does not answer.
    pub(super) wallet_away: bool,
    /// Requests that are refused next, with this.
    pub(super) refuse: Vec<ErrorCode>,
    /// What must never happen, where it did.
    pub(super) broken: Vec<String>,
}

impl Service {
    pub(super) fn new() -> Self {
        Self {
            parties: Parties::new(),
            vault: None,
            fees: None,
            quotes: BTreeMap::new(),
            bills: BTreeMap::new(),
            draws: BTreeMap::new(),
            reports: BTreeMap::new(),
            emptied: BTreeMap::new(),
            state: None,
            answers: BTreeMap::new(),
            invoice_s: 600,
            wallet_away: false,
            refuse: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Answers a request; a repeated id is answered from the store.
    pub(super) fn answer(
        &mut self,
        id: RequestId,
        rpc: &str,
        body: &Value,
        now: Unix,
        chance: &mut SplitMix64,
    ) -> Reply {
        if let Some((known, before, reply)) = self.answers.get(&id) {
            if known != rpc || before != body {
                self.broken.push(format!("{rpc} {id}: another body under one id"));
                return Reply::error(Some(id), ErrorCode::Conflict, "another body");
            }
            return reply.clone();
        }
        if rpc != "report_state"
            && let Some(code) = self.refuse.pop()
        {
            return Reply::error(Some(id), code, "not now");
        }
        match self.answer_new(id, rpc, body, now, chance) {
            Ok(reply) => {
                if matches!(rpc, "create_invoice" | "create_withdraw" | "report_dispense") {
                    self.answers.insert(id, (rpc.to_owned(), body.clone(), reply.clone()));
                }
                reply
            }
            Err(code) => Reply::error(Some(id), code, "no"),
        }
    }

    fn answer_new(
        &mut self,
        id: RequestId,
        rpc: &str,
        body: &Value,
        now: Unix,
        chance: &mut SplitMix64,
    ) -> Result<Reply, ErrorCode> {
        let malformed = |_| ErrorCode::Malformed;
        let internal = |_| ErrorCode::Internal;
        let body = body.clone();
        match rpc {
            "get_quote" => {
                let ask: GetQuote = serde_json::from_value(body).map_err(malformed)?;
                let terms = self.terms(&ask, chance);
                self.quotes.insert(terms.quote_id, terms);
                let quote = Quote::sign(&terms, sources(), &self.parties.service);
                Reply::ok::<GetQuote>(id, &quote).map_err(internal)
            }
            "create_invoice" => {
                let CreateInvoice { quote_id } = serde_json::from_value(body).map_err(malformed)?;
                let terms = *self.quotes.get(&quote_id).ok_or(ErrorCode::QuoteExpired)?;
                let payment_hash = PaymentHash::from_bytes(bytes(chance));
                let expires_at = now.after(self.invoice_s);
                let bill = Bill { terms, expires_at, paid: 0, late: 0, over: false };
                self.bills.insert(payment_hash, bill);
                let bolt11 = format!("lnbc{payment_hash}");
                let invoice = Invoice { payment_hash, bolt11, expires_at, noffer: None };
                Reply::ok::<CreateInvoice>(id, &invoice).map_err(internal)
            }
            "get_payment" => {
                let payment = match serde_json::from_value(body).map_err(malformed)? {
                    GetPayment::PaymentHash(hash) => self.bill_state(hash, now)?,
                    GetPayment::WithdrawId(id) => self.draw_state(id, now)?,
                };
                Reply::ok::<GetPayment>(id, &payment).map_err(internal)
            }
            "create_withdraw" => {
                let signed: VaultSigned<CreateWithdraw> =
                    serde_json::from_value(body).map_err(malformed)?;
                let vault = self.vault.ok_or(ErrorCode::NotConfirmed)?;
                let claim = signed.check(&vault).map_err(|_| ErrorCode::BadSignature)?.clone();
                let withdraw = self.withdraw(&claim, now, chance);
                Reply::ok::<VaultSigned<CreateWithdraw>>(id, &withdraw).map_err(internal)
            }
            "report_dispense" => {
                let signed: VaultSigned<DispenseReport> =
                    serde_json::from_value(body).map_err(malformed)?;
                let vault = self.vault.ok_or(ErrorCode::NotConfirmed)?;
                let report = signed.check(&vault).map_err(|_| ErrorCode::BadSignature)?.clone();
                self.reports.entry(report.txid).or_default().push(report);
                Reply::ok::<VaultSigned<DispenseReport>>(id, &Ack {}).map_err(internal)
            }
            "report_state" => {
                let signed: VaultSigned<StateReport> =
                    serde_json::from_value(body).map_err(malformed)?;
                if let Some(vault) = self.vault {
                    let report = signed.check(&vault).map_err(|_| ErrorCode::BadSignature)?;
                    for event in &report.service_events {
                        if let ServiceAction::CashboxEmptied { notes, .. } = &event.action {
                            let value = notes
                                .iter()
                                .map(|(note, pile)| i64::from(note.minor()) * pile.expected);
                            self.emptied.insert(event.id, value.sum());
                        }
                    }
                    let newer = |old: &StateReport| old.journal_seq <= report.journal_seq;
                    if self.state.as_ref().is_none_or(newer) {
                        self.state = Some(report.clone());
                    }
                }
                Ok(Reply::Ok { request_id: id, body: serde_json::json!({}) })
            }
            _ => Err(ErrorCode::UnknownRpc),
        }
    }

    fn terms(&self, ask: &GetQuote, chance: &mut SplitMix64) -> QuoteTerms {
        let fiat = Fiat::new(ask.fiat_minor, ask.fiat_code);
        let exchange_rate = Rate::from_nano(RATE).expect("a rate");
        let principal = exchange_rate.principal(fiat, ask.direction).expect("a price");
        let charge = fee_pair().charge(ask.direction, principal).expect("a charge");
        QuoteTerms {
            spire: public(&self.parties.spire),
            quote_id: QuoteId::from_bytes(bytes(chance)),
            direction: ask.direction,
            txid: ask.txid,
            fiat,
            exchange_rate,
            principal_sats: charge.principal(),
            fee_sats: charge.fee(),
            wire_sats: charge.wire(),
            fees_event_id: self.fees.expect("fees were published"),
            ttl_s: 120,
        }
    }

    /// A payment comes in.
    pub(super) fn pay(&mut self, hash: PaymentHash, sats: u64, now: Unix) {
        let Some(bill) = self.bills.get_mut(&hash) else { return };
        if bill.over || now >= bill.expires_at || bill.settled() {
            bill.late = bill.late.saturating_add(sats);
        } else {
            bill.paid = bill.paid.saturating_add(sats);
        }
    }

    fn bill_state(&mut self, hash: PaymentHash, now: Unix) -> Result<Payment, ErrorCode> {
        let vault = self.vault.ok_or(ErrorCode::NotConfirmed)?;
        let away = self.wallet_away;
        let bill = self.bills.get_mut(&hash).ok_or(ErrorCode::Invalid)?;
        bill.over |= now >= bill.expires_at && !bill.settled();
        let bill = &*bill;
        let wire = Some(bill.terms.wire_sats);
        let (state, wire_sats) = match bill {
            _ if away => (PaymentState::Unknown, None),
            bill if bill.settled() => (PaymentState::Settled, wire),
            bill if bill.over && bill.paid.saturating_add(bill.late) > 0 => {
                (PaymentState::Late, Some(Sats(bill.paid.saturating_add(bill.late))))
            }
            bill if bill.over => (PaymentState::Expired, None),
            _ => (PaymentState::Pending, None),
        };
        let settled = state == PaymentState::Settled;
        let authorisation = settled.then(|| leave(bill, hash, vault, &self.parties.service));
        Ok(Payment { state, wire_sats, authorisation })
    }

    /// Leave to dispense for a bill that is settled, as a push has it.
    pub(super) fn settled_push(&self, hash: PaymentHash) -> Option<Value> {
        let bill = self.bills.get(&hash).filter(|bill| bill.settled())?;
        let authorisation = leave(bill, hash, self.vault?, &self.parties.service);
        Some(serde_json::json!({
            "txid": bill.terms.txid, "payment_hash": hash, "wire_sats": bill.terms.wire_sats,
            "authorisation": authorisation,
        }))
    }

    fn draw_state(&mut self, id: WithdrawId, now: Unix) -> Result<Payment, ErrorCode> {
        let draw = self.draws.get_mut(&id).ok_or(ErrorCode::Invalid)?;
        if draw.state == Drawn::Open && now >= draw.expires_at {
            draw.state = Drawn::Over;
        }
        let state = match draw.state {
            _ if self.wallet_away => PaymentState::Unknown,
            Drawn::Open | Drawn::Claimed => PaymentState::Pending,
            Drawn::Paid => PaymentState::Settled,
            Drawn::Over => PaymentState::Expired,
        };
        Ok(Payment { state, wire_sats: None, authorisation: None })
    }

    fn withdraw(&mut self, claim: &CreateWithdraw, now: Unix, chance: &mut SplitMix64) -> Withdraw {
        let known = self.draws.iter().find(|(_, draw)| draw.claim.txid == claim.txid);
        let id = match known.map(|(id, draw)| (*id, draw.claim.clone())) {
            Some((id, before)) => {
                if (&before.notes, &before.earlier) != (&claim.notes, &claim.earlier) {
                    self.broken.push(format!("{}: two claims for one session", claim.txid));
                }
                id
            }
            None => {
                let lots = claim.earlier.iter().map(|lot| &lot.notes);
                let value = |notes| notes_value(notes).expect("a value");
                let minor: i64 = lots.chain([&claim.notes]).map(value).sum();
                let rate = Rate::from_nano(RATE).expect("a rate");
                let fiat = Fiat::new(minor, claim.fiat_code);
                let principal = rate.principal(fiat, Direction::CashIn).expect("a price");
                let charge = fee_pair().charge(Direction::CashIn, principal).expect("a charge");
                let id = WithdrawId::from_bytes(bytes(chance));
                let draw = Draw {
                    claim: claim.clone(),
                    net: charge.wire(),
                    fee: charge.fee(),
                    expires_at: now.after(WITHDRAW_S),
                    state: Drawn::Open,
                    told: false,
                };
                self.draws.insert(id, draw);
                id
            }
        };
        let draw = &self.draws[&id];
        let terms = WithdrawTerms {
            spire: public(&self.parties.spire),
            vault: self.vault.expect("it has signed"),
            txid: claim.txid,
            withdraw_id: id,
            net_sats: draw.net,
            expires_at: draw.expires_at,
        };
        Withdraw {
            withdraw_id: id,
            lnurl: Lnurl::new(format!("LNURL{id}")),
            ndebit: None,
            net_sats: draw.net,
            fee_sats: draw.fee,
            expires_at: draw.expires_at,
            withdraw_sig: terms.sign(&self.parties.service),
        }
    }
}

fn leave(
    bill: &Bill,
    hash: PaymentHash,
    vault: PubKey,
    service: &Keys,
) -> bitspire_shared::canonical::Sig {
    let terms = bill.terms;
    let authorisation = DispenseAuthorisation {
        spire: terms.spire,
        vault,
        txid: terms.txid,
        quote_id: terms.quote_id,
        payment_hash: hash,
        wire_sats: terms.wire_sats,
        fiat: terms.fiat,
    };
    authorisation.sign(service)
}

/// Bytes of a seeded stream: ids of the simulation, never secrets.
pub(super) fn bytes<const N: usize>(chance: &mut SplitMix64) -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        let fresh = chance.next_u64().to_le_bytes();
        chunk.copy_from_slice(&fresh[..chunk.len()]);
    }
    bytes
}

/// Where its prices come from.
fn sources() -> Origins {
    Origins::new([Origin { source: SourceName::FIXED, age_s: 0 }]).unwrap_or_default()
}
