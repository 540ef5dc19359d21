//! The honest service behind the test's `net`.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_agent::ipc::{ToNet, ToVault};
use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{
    EventId, PaymentHash, PubKey, QuoteId, RequestId, TxnId, WithdrawId, to_hex,
};
use bitspire_shared::money::{Direction, FeePpm, Fiat, Origin, Origins, Rate};
use bitspire_shared::rpc::{
    self, Ack, CreateInvoice, CreateWithdraw, DispenseAuthorisation, DispenseReport, ErrorCode,
    GetPayment, GetQuote, Invoice, Lnurl, Payment, PaymentState, Quote, QuoteTerms, Reply,
    SignedText as _, VaultSigned, Withdraw, WithdrawTerms, notes_value,
};
use bitspire_shared::split::FeePair;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use nostr::{Event, EventBuilder, Kind, Tag, Timestamp};
use serde_json::{Value, json};

use super::{Machine, RATE, public};

/// What the honest service knows.
#[derive(Default)]
pub(crate) struct Service {
    pub(crate) quotes: BTreeMap<QuoteId, QuoteTerms>,
    pub(crate) invoices: BTreeMap<PaymentHash, QuoteTerms>,
    pub(crate) last_invoice: Option<PaymentHash>,
    pub(crate) withdraws: BTreeMap<WithdrawId, CreateWithdraw>,
    pub(crate) reports: Vec<DispenseReport>,
    /// Invoices and withdraws that were paid.
    pub(crate) paid: bool,
    /// Whether it answers at all.
    pub(crate) silent: bool,
    pub(crate) confirmed: bool,
    /// What it says to everything but a report while it is not confirmed.
    pub(crate) refuses: Option<ErrorCode>,
    pub(crate) vault: Option<PubKey>,
    pub(crate) fees: Option<EventId>,
    /// What becomes of a quote before it is signed.
    pub(crate) quote: Option<fn(&mut QuoteTerms)>,
    /// What becomes of a reply's body after it was signed.
    pub(crate) reply: Option<fn(&str, &mut Value)>,
    /// Seconds since the source of its prices has spoken.
    pub(crate) price_age_s: u16,
    pub(crate) clock: u64,
    pub(super) made: u8,
}

impl Machine {
    /// An event of the service, a second later than the last.
    pub(crate) fn event(&mut self) -> Event {
        self.service.clock += 1;
        EventBuilder::new(Kind::from(rpc::KIND), "x")
            .tag(Tag::public_key(self.parties.spire.public_key()))
            .custom_created_at(Timestamp::from(self.service.clock))
            .sign_with_keys(&self.parties.service)
            .unwrap()
    }

    fn fresh<const N: usize>(&mut self) -> [u8; N] {
        self.service.made = self.service.made.wrapping_add(1);
        let mut bytes = random::<N>().unwrap();
        bytes[0] = self.service.made;
        bytes
    }

    /// A push of the service.
    pub(crate) fn push(&mut self, push: &str, body: Value) {
        let push_id: [u8; 16] = self.fresh();
        let push_id = to_hex(&push_id);
        let envelope = json!({ "push": push, "push_id": push_id, "body": body });
        let event = Box::new(self.event());
        self.say(&ToVault::Push { event, envelope });
    }

    /// The customer pays the invoice, or the service the withdraw, and says so.
    pub(crate) fn pay(&mut self) {
        self.service.paid = true;
        if let Some(hash) = self.service.last_invoice {
            let terms = self.service.invoices[&hash];
            let authorisation = self.authorise(hash);
            self.push_leave(&terms, hash, authorisation);
        }
        self.push_withdraws("withdraw_paid");
    }

    /// A wallet asks for the withdraw.
    pub(crate) fn claim(&mut self) {
        self.push_withdraws("withdraw_claimed");
    }

    fn push_withdraws(&mut self, push: &str) {
        let withdraws = self.service.withdraws.iter();
        let body = |(id, claim): (&WithdrawId, &CreateWithdraw)| json!({ "txid": claim.txid, "withdraw_id": id });
        let bodies: Vec<Value> = withdraws.map(body).collect();
        for body in bodies {
            self.push(push, body);
        }
    }

    /// Leave to dispense, pushed.
    pub(crate) fn push_leave(&mut self, terms: &QuoteTerms, hash: PaymentHash, leave: Sig) {
        let body = json!({
            "txid": terms.txid, "payment_hash": hash, "wire_sats": terms.wire_sats,
            "authorisation": leave,
        });
        self.push("payment_settled", body);
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, request: ToNet) {
        let ToNet::Request { request_id, rpc_name, body } = request else { return };
        let mut answer = self.answer(request_id, &rpc_name, body);
        if let (Some(change), Reply::Ok { body, .. }) = (self.service.reply, &mut answer) {
            change(&rpc_name, body);
        }
        let envelope = serde_json::to_value(&answer).unwrap();
        let event = Box::new(self.event());
        self.say(&ToVault::Reply { request_id, event, envelope });
    }

    /// Answers the last request, which a silent service has left.
    pub(crate) fn answer_last(&mut self, rpc: &str) {
        let mut sent = self.sent.iter().rev();
        let asked = |message: &&ToNet| matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == rpc);
        let request = sent.find(asked).unwrap().clone();
        self.reply(request);
    }

    fn answer(&mut self, id: RequestId, rpc_name: &str, body: Value) -> Reply {
        let refused = |code| Reply::error(Some(id), code, "no");
        if !self.service.confirmed && rpc_name != "report_state" {
            return refused(self.service.refuses.unwrap_or(ErrorCode::NotConfirmed));
        }
        match rpc_name {
            "get_quote" => {
                let ask: GetQuote = serde_json::from_value(body).unwrap();
                let mut terms = self.terms(&ask);
                if let Some(change) = self.service.quote {
                    change(&mut terms);
                }
                self.service.quotes.insert(terms.quote_id, terms);
                let quote =
                    Quote::sign(&terms, sources(self.service.price_age_s), &self.parties.service);
                Reply::ok::<GetQuote>(id, &quote).unwrap()
            }
            "create_invoice" => {
                let CreateInvoice { quote_id } = serde_json::from_value(body).unwrap();
                let terms = self.service.quotes[&quote_id];
                let payment_hash = PaymentHash::from_bytes(self.fresh());
                self.service.invoices.insert(payment_hash, terms);
                self.service.last_invoice = Some(payment_hash);
                let expires_at = Unix(self.service.clock + 600);
                let bolt11 = "lnbc1".to_owned();
                let invoice = Invoice { payment_hash, bolt11, expires_at, noffer: None };
                Reply::ok::<CreateInvoice>(id, &invoice).unwrap()
            }
            "get_payment" => {
                let state =
                    if self.service.paid { PaymentState::Settled } else { PaymentState::Pending };
                let payment = match serde_json::from_value(body).unwrap() {
                    GetPayment::PaymentHash(hash) => match self.service.invoices.get(&hash) {
                        None => return refused(ErrorCode::Invalid),
                        Some(terms) => Payment {
                            state,
                            wire_sats: self.service.paid.then_some(terms.wire_sats),
                            authorisation: self.service.paid.then(|| self.authorise(hash)),
                        },
                    },
                    GetPayment::WithdrawId(_) => {
                        Payment { state, wire_sats: None, authorisation: None }
                    }
                };
                Reply::ok::<GetPayment>(id, &payment).unwrap()
            }
            "create_withdraw" => {
                let signed: VaultSigned<CreateWithdraw> = serde_json::from_value(body).unwrap();
                let claim = signed.check(&self.service.vault.unwrap()).unwrap().clone();
                let withdraw = self.withdraw(&claim);
                Reply::ok::<VaultSigned<CreateWithdraw>>(id, &withdraw).unwrap()
            }
            "report_dispense" => {
                let signed: VaultSigned<DispenseReport> = serde_json::from_value(body).unwrap();
                let report = signed.check(&self.service.vault.unwrap()).unwrap().clone();
                self.service.reports.push(report);
                Reply::ok::<VaultSigned<DispenseReport>>(id, &Ack {}).unwrap()
            }
            "report_state" => Reply::Ok { request_id: id, body: json!({}) },
            other => panic!("{other}"),
        }
    }

    fn withdraw(&mut self, claim: &CreateWithdraw) -> Withdraw {
        let known = self.service.withdraws.iter().find(|(_, known)| known.txid == claim.txid);
        let withdraw_id = match known.map(|(id, _)| *id) {
            Some(id) => id,
            None => {
                let id = WithdrawId::from_bytes(self.fresh());
                self.service.withdraws.insert(id, claim.clone());
                id
            }
        };
        let fiat = Fiat::new(notes_value(&claim.notes).unwrap(), claim.fiat_code);
        let principal = Rate::from_nano(RATE).unwrap().principal(fiat, Direction::CashIn).unwrap();
        let charge = fee_pair().charge(Direction::CashIn, principal).unwrap();
        let terms = WithdrawTerms {
            spire: public(&self.parties.spire),
            vault: self.service.vault.unwrap(),
            txid: claim.txid,
            withdraw_id,
            net_sats: charge.wire(),
            expires_at: Unix(1_900_000_000),
        };
        Withdraw {
            withdraw_id,
            lnurl: Lnurl::new("LNURL1X".to_owned()),
            ndebit: None,
            net_sats: charge.wire(),
            fee_sats: charge.fee(),
            expires_at: terms.expires_at,
            withdraw_sig: terms.sign(&self.parties.service),
        }
    }

    /// The terms that an honest service gives.
    pub(crate) fn terms(&mut self, ask: &GetQuote) -> QuoteTerms {
        let fiat = Fiat::new(ask.fiat_minor, ask.fiat_code);
        let exchange_rate = Rate::from_nano(RATE).unwrap();
        let principal = exchange_rate.principal(fiat, ask.direction).unwrap();
        let charge = fee_pair().charge(ask.direction, principal).unwrap();
        QuoteTerms {
            spire: public(&self.parties.spire),
            quote_id: QuoteId::from_bytes(self.fresh()),
            direction: ask.direction,
            txid: ask.txid,
            fiat,
            exchange_rate,
            principal_sats: charge.principal(),
            fee_sats: charge.fee(),
            wire_sats: charge.wire(),
            fees_event_id: self.service.fees.unwrap(),
            ttl_s: 600,
        }
    }

    /// Leave to dispense what the invoice with this hash paid for.
    pub(crate) fn authorise(&self, payment_hash: PaymentHash) -> Sig {
        let terms = self.service.invoices[&payment_hash];
        self.authorisation(terms, payment_hash).sign(&self.parties.service)
    }

    pub(crate) fn authorisation(
        &self,
        terms: QuoteTerms,
        hash: PaymentHash,
    ) -> DispenseAuthorisation {
        DispenseAuthorisation {
            spire: terms.spire,
            vault: self.service.vault.unwrap(),
            txid: terms.txid,
            quote_id: terms.quote_id,
            payment_hash: hash,
            wire_sats: terms.wire_sats,
            fiat: terms.fiat,
        }
    }
}

/// What the service has heard.
impl Machine {
    fn reports(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.sent.iter().filter_map(|message| match message {
            ToNet::Request { rpc_name, body, .. } if rpc_name == "report_state" => Some(body),
            _ => None,
        })
    }

    /// The last report; null before the first.
    pub(crate) fn last_report(&self) -> Value {
        self.reports().next_back().cloned().unwrap_or_default()
    }

    /// The alerts of all reports.
    pub(crate) fn alerts(&self) -> BTreeSet<String> {
        let all = self.reports().flat_map(|body| body["alerts"].as_array().unwrap());
        all.map(|alert| alert["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether the last report says that the document with this id is in force.
    pub(crate) fn applied(&self, id: EventId) -> bool {
        self.last_report()["applied_documents"].to_string().contains(&id.to_string())
    }

    /// The last transaction that has asked for a price.
    pub(crate) fn last_txn(&self) -> TxnId {
        let asks = self.sent.iter().rev().find_map(|message| match message {
            ToNet::Request { rpc_name, body, .. } if rpc_name == "get_quote" => Some(body),
            _ => None,
        });
        serde_json::from_value::<GetQuote>(asks.unwrap().clone()).unwrap().txid
    }

    /// The transactions of the last report that do not rest, with their states.
    pub(crate) fn open(&self) -> BTreeMap<TxnId, String> {
        let all = self.last_report()["open_transactions"].as_array().cloned();
        let open = |txn: Value| {
            let txid = txn["txid"].as_str().unwrap().parse().unwrap();
            (txid, txn["state"].as_str().unwrap().to_owned())
        };
        all.unwrap_or_default().into_iter().map(open).collect()
    }
}

/// Fees of both directions.
pub(crate) fn fee_pair() -> FeePair {
    FeePair::new(FeePpm::new(30_000).unwrap(), FeePpm::new(50_000).unwrap()).unwrap()
}

/// Where its prices come from.
fn sources(age_s: u16) -> Origins {
    Origins::new([Origin { source: "kraken".parse().unwrap(), age_s }]).unwrap()
}
