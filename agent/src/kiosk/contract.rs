//! The kiosk's API as its document says it: each route, each screen and each action.

use std::collections::BTreeSet;
use std::iter::successors;

use axum::body::Body;
use axum::http::Request;
use bitspire_shared::clink::Ndebit;
use bitspire_shared::ids::{BayId, EventId};
use bitspire_shared::money::{Direction, Fiat, Rate, Sats};
use bitspire_shared::rpc::{ErrorCode, Lnurl};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::tests::{HOST, world};
use super::*;
use crate::refused::Refused;
use crate::screen::{MachineScreen, SeedView};
use crate::service::{Counted, Held, HeldBay, Inside, Page, Ruling, ServiceView, Touch};
use crate::txn::{OnPaper, Screen, SlipState, View, Why};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn euros() -> Fiat {
    Fiat::new(2_000, "EUR".parse().unwrap())
}

fn secret() -> SecretText {
    SecretText::new("c0de".repeat(8))
}

/// Each view: a new one does not compile before it stands here.
fn next_view(view: &View) -> Option<View> {
    let (fiat, wire_sats) = (euros(), Sats(70_000));
    let (net_sats, fee_sats, total) = (wire_sats, Sats(3_000), fiat);
    let given_minor = 1_000;
    Some(match view {
        View::Asking { direction: Direction::CashOut } => {
            View::Asking { direction: Direction::CashIn }
        }
        View::Asking { direction: Direction::CashIn } => View::Offer {
            fiat,
            rate: Rate::from_nano(1_000_000_000_000).unwrap(),
            principal_sats: Sats(67_000),
            fee_sats,
            wire_sats,
        },
        View::Offer { .. } => View::Preparing { fiat },
        View::Preparing { .. } => {
            let (bolt11, noffer) = ("lnbc1".into(), Some("noffer1abc".into()));
            View::Invoice { bolt11, noffer, wire_sats, fiat, expires_at: Unix(1) }
        }
        View::Invoice { .. } => View::Dispensing { fiat, given_minor },
        View::Dispensing { .. } => View::TakeNotes { fiat, given_minor },
        View::TakeNotes { .. } => View::PaidWaiting { rest: fiat },
        View::PaidWaiting { .. } => View::Settled { fiat },
        View::Settled { .. } => View::Short { owed: fiat },
        View::Short { .. } => View::Uncertain,
        View::Uncertain => View::Late { sats: None },
        View::Late { .. } => View::Cancelled { why: Why::Customer },
        View::Cancelled { .. } => View::Expired,
        View::Expired => View::Feed { total, room_minor: 5_000, rate: None },
        View::Feed { .. } => View::Counting { total, note_minor: 500 },
        View::Counting { .. } => View::PreparingWithdraw { total },
        View::PreparingWithdraw { .. } => {
            let lnurl = Some(Lnurl::new("LNURL1ABC".into()));
            let ndebit = Some(Ndebit::new("ndebit1abc".into()));
            View::Claim { lnurl, ndebit, net_sats, fee_sats, total }
        }
        View::Claim { .. } => View::Paying { net_sats },
        View::Paying { .. } => View::PayUnknown { net_sats },
        View::PayUnknown { .. } => View::Redeemed { net_sats },
        View::Redeemed { .. } => View::Unclaimed { total },
        View::Unclaimed { .. } => View::Returned { why: Why::Idle },
        View::Returned { .. } => return None,
    })
}

fn next_why(why: &Why) -> Option<Why> {
    Some(match why {
        Why::Customer => Why::Idle,
        Why::Idle => Why::NoAnswer,
        Why::NoAnswer => Why::Refused(ErrorCode::OverLimit),
        Why::Refused(_) => Why::NetworkLost,
        Why::NetworkLost => Why::ScreenBroken,
        Why::ScreenBroken => Why::Fault,
        Why::Fault => Why::Restarted,
        Why::Restarted => return None,
    })
}

fn next_slip(slip: &SlipState) -> Option<SlipState> {
    Some(match slip {
        SlipState::None => SlipState::Offered,
        SlipState::Offered => SlipState::Printing,
        SlipState::Printing => SlipState::Printed,
        SlipState::Printed => SlipState::Failed,
        SlipState::Failed => return None,
    })
}

fn next_page(page: &Page) -> Option<Page> {
    Some(match page {
        Page::Menu => Page::Cashbox,
        Page::Cashbox => Page::RejectBin,
        Page::RejectBin => Page::Bay(BayId::new(2).unwrap()),
        Page::Bay(_) => Page::Test,
        Page::Test => Page::Pairing,
        Page::Pairing => return None,
    })
}

fn next_service(view: &ServiceView) -> Option<ServiceView> {
    let page = |page| {
        let held = Held { note: euros(), count: 97 };
        let bay = HeldBay { bay: BayId::new(1).unwrap(), held, doubt: false, unsure: 4 };
        let ruling = Ruling {
            says: "Fees".into(),
            event_id: EventId::from_bytes([1; 32]),
            signed_by: "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
                .parse()
                .unwrap(),
            published_at: Unix(1),
            applied_at: None,
        };
        let (bays, rulings) = (vec![bay], vec![ruling]);
        let inside = Inside { bays, cashbox: Some(vec![held]), rulings, ..Inside::default() };
        ServiceView::Page { page, form: 7, said: None, inside }
    };
    Some(match view {
        ServiceView::NoPin => ServiceView::Pad { wrong: true, locked: Some("wait".into()) },
        ServiceView::Pad { .. } => page(Page::Menu),
        ServiceView::Page { page: shown, .. } => page(next_page(shown)?),
    })
}

fn next_screen(screen: &MachineScreen) -> Option<MachineScreen> {
    let paper = |slip| OnPaper { text: "R1".into(), open: false, slip, claim_url: None };
    let shown = |view: &View| {
        let receipt = Some(Box::new(paper(SlipState::Offered)));
        Screen { claim: Some(secret()), view: view.clone(), receipt }
    };
    Some(match screen {
        MachineScreen::Starting => MachineScreen::Unpaired {
            seed: SeedView::Wanted { refused: Some(Refused::new("seed_expired", "late".into())) },
        },
        MachineScreen::Unpaired { seed: SeedView::Wanted { refused } } => {
            MachineScreen::Unpaired { seed: SeedView::CommandLine { refused: refused.clone() } }
        }
        MachineScreen::Unpaired { seed: SeedView::CommandLine { .. } } => {
            let auth_url = Some(SecretText::new("https://bunker.example/x".into()));
            MachineScreen::Unpaired { seed: SeedView::Connecting { auth_url } }
        }
        MachineScreen::Unpaired { seed: SeedView::Connecting { .. } } => {
            MachineScreen::AwaitingConfirmation { digits: "12345678".into() }
        }
        MachineScreen::AwaitingConfirmation { .. } => {
            MachineScreen::OutOfService { reasons: vec!["no notes".into()] }
        }
        MachineScreen::OutOfService { .. } => MachineScreen::Idle {
            currency: euros().currency,
            cash_in: true,
            cash_out: vec![euros()],
            waiting: false,
        },
        MachineScreen::Idle { .. } => {
            MachineScreen::Txn(shown(&View::Asking { direction: Direction::CashOut }))
        }
        MachineScreen::Txn(Screen { view, receipt: Some(receipt), .. }) => {
            let why = match view {
                View::Cancelled { why } => next_why(why),
                _ => None,
            };
            let (view, slip) = match (why, next_view(view), next_slip(&receipt.slip)) {
                (Some(why), _, slip) => (View::Cancelled { why }, slip),
                (None, Some(view), slip) => (view, slip),
                (None, None, _) => {
                    let screen = Screen { claim: None, view: view.clone(), receipt: None };
                    return Some(MachineScreen::NotesLeft(screen));
                }
            };
            let receipt = Some(Box::new(paper(slip.unwrap_or_default())));
            MachineScreen::Txn(Screen { claim: Some(secret()), view, receipt })
        }
        MachineScreen::Txn(_) | MachineScreen::NotesLeft(_) => {
            MachineScreen::Service(ServiceView::NoPin)
        }
        MachineScreen::Service(view) => MachineScreen::Service(next_service(view)?),
    })
}

fn next_touch(touch: &Touch) -> Option<Touch> {
    let (form, reason) = (7, String::new());
    let counted = || vec![Counted { minor: 2_000, count: 3 }];
    Some(match touch {
        Touch::Open => Touch::Enter { pin: secret() },
        Touch::Enter { .. } => Touch::Go { to: Page::Menu },
        Touch::Go { to } => match next_page(to) {
            Some(to) => Touch::Go { to },
            None => Touch::EmptyCashbox { form, counted: counted(), reason },
        },
        Touch::EmptyCashbox { .. } => Touch::EmptyRejectBin { form, counted: counted(), reason },
        Touch::EmptyRejectBin { .. } => Touch::Refill { form, count: -3, reason },
        Touch::Refill { .. } => Touch::Recount { form, count: 3, reason },
        Touch::Recount { .. } => Touch::Test { form },
        Touch::Test { .. } => Touch::ResetPairing { form },
        Touch::ResetPairing { .. } => Touch::Leave,
        Touch::Leave => return None,
    })
}

fn next_action(action: &CustomerAction) -> Option<CustomerAction> {
    Some(match action {
        CustomerAction::StartCashIn => CustomerAction::StartCashOut { fiat_minor: 2_000 },
        CustomerAction::StartCashOut { .. } => CustomerAction::Confirm,
        CustomerAction::Confirm => CustomerAction::Finish,
        CustomerAction::Finish => CustomerAction::Cancel,
        CustomerAction::Cancel => CustomerAction::ClaimCode { code: secret() },
        CustomerAction::ClaimCode { .. } => CustomerAction::GiveBack { code: secret() },
        CustomerAction::GiveBack { .. } => CustomerAction::Seen { screen: 3 },
        CustomerAction::Seen { .. } => CustomerAction::Receipt { open: true },
        CustomerAction::Receipt { .. } => CustomerAction::PrintReceipt,
        CustomerAction::PrintReceipt => CustomerAction::Gone,
        CustomerAction::Gone => CustomerAction::Service(Touch::Open),
        CustomerAction::Service(touch) => CustomerAction::Service(next_touch(touch)?),
    })
}

/// What a check of values against the document has met.
struct Check {
    document: Value,
    /// Each alternative and each word that some value was.
    met: BTreeSet<String>,
}

impl Check {
    /// Whether `value` is what the schema at `place` says; what it says is all taken into account.
    fn fits(&mut self, place: &str, schema: &Value, value: &Value) -> Result<(), String> {
        let no = |why: &str| Err(format!("{place}: expected {why}, got {value}"));
        let known = [
            "$ref",
            "additionalProperties",
            "anyOf",
            "const",
            "description",
            "enum",
            "items",
            "minimum",
            "oneOf",
            "pattern",
            "properties",
            "required",
            "type",
        ];
        for (word, said) in schema.as_object().unwrap() {
            assert!(known.contains(&word.as_str()), "{place}: {word} is not checked");
            let listed = said.as_array();
            match word.as_str() {
                "$ref" => {
                    let name = said.as_str().unwrap();
                    let to = name.strip_prefix('#').unwrap();
                    let schema = self.document.pointer(to).expect(name).clone();
                    self.fits(name, &schema, value)?;
                }
                "const" if said != value => return no(&said.to_string()),
                "enum" if !listed.unwrap().contains(value) => return no(&said.to_string()),
                "enum" => drop(self.met.insert(format!("{place} {value}"))),
                "oneOf" | "anyOf" => {
                    let mut fitting = Vec::new();
                    let mut why = Vec::new();
                    for (no, one) in listed.unwrap().iter().enumerate() {
                        let place = format!("{place} {no}");
                        let before = self.met.clone();
                        match self.fits(&place, one, value) {
                            Ok(()) => fitting.push(place),
                            Err(error) => {
                                self.met = before;
                                why.push(error);
                            }
                        }
                    }
                    if fitting.len() != 1 {
                        return no(&format!("one of its alternatives ({})", why.join("; ")));
                    }
                    self.met.extend(fitting);
                }
                "type" => {
                    let is = match said.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_i64() || value.is_u64(),
                        "boolean" => value.is_boolean(),
                        "null" => value.is_null(),
                        other => panic!("{place}: {other}"),
                    };
                    if !is {
                        return no(said.as_str().unwrap());
                    }
                }
                "minimum" if value.as_i64() < said.as_i64() => return no("more"),
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.fits(&format!("{place}[]"), said, item)?;
                    }
                }
                "required" => {
                    let missing = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                    if let Some(name) = listed.unwrap().iter().find(missing) {
                        return no(&name.to_string());
                    }
                }
                "properties" => {
                    for (name, field) in value.as_object().into_iter().flatten() {
                        let Some(schema) = said.get(name) else {
                            return no(&format!("no {name}"));
                        };
                        self.fits(&format!("{place}.{name}"), schema, field)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every alternative and word of the schema that no value was.
    fn unmet(&self, place: &str, schema: &Value, into: &mut Vec<String>) {
        for (word, said) in schema.as_object().into_iter().flatten() {
            match word.as_str() {
                "oneOf" => {
                    for (no, one) in said.as_array().unwrap().iter().enumerate() {
                        let place = format!("{place} {no}");
                        if !self.met.contains(&place) {
                            into.push(format!("{place}: {one}"));
                        }
                        self.unmet(&place, one, into);
                    }
                }
                "enum" => {
                    let words = said.as_array().unwrap().iter();
                    let met = |word: &&Value| self.met.contains(&format!("{place} {word}"));
                    into.extend(
                        words.filter(|word| !met(word)).map(|word| format!("{place} {word}")),
                    );
                }
                "properties" => {
                    for (name, field) in said.as_object().unwrap() {
                        self.unmet(&format!("{place}.{name}"), field, into);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Loss prevented: another front end that is written after the document and shows a wrong amount,
/// does not know a screen on which money is owed, or sends what no machine understands.
#[test]
fn the_document_says_each_screen_and_each_action() {
    let document = document();
    let mut check = Check { document: document.clone(), met: BTreeSet::new() };
    let shown = json!({ "$ref": "#/components/schemas/Shown" });
    let screens: Vec<_> = successors(Some(MachineScreen::Starting), next_screen).collect();
    assert!(screens.len() > 40, "{}", screens.len());
    for screen in screens {
        let data = data(&Numbered { number: 1, screen });
        check.fits("", &shown, &data).unwrap();
    }
    let action = json!({ "$ref": "#/components/schemas/Action" });
    for said in successors(Some(CustomerAction::StartCashIn), next_action) {
        let json = serde_json::to_value(&said).unwrap();
        check.fits("", &action, &json).unwrap();
        assert_eq!(serde_json::from_value::<CustomerAction>(json).unwrap(), said);
    }
    let mut unmet = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        check.unmet(&format!("#/components/schemas/{name}"), schema, &mut unmet);
    }
    assert!(unmet.is_empty(), "the machine knows none of these: {unmet:#?}");
}

/// Loss prevented: a front end that calls what is not there, or nobody knows of what is.
#[tokio::test]
async fn the_document_says_each_route() {
    let document = document();
    let mut said = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            said.insert((path.clone(), method.clone()));
            let world = world();
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
            let request = request.header(HOST.0, HOST.1).body(Body::empty()).unwrap();
            let status = world.routes.oneshot(request).await.unwrap().status();
            let answers = &methods[method]["responses"];
            assert!(answers.get(status.as_str()).is_some(), "{method} {path}: {status}");
        }
    }
    // the routes as they are written down: the router itself does not tell them
    let program = include_str!("mod.rs");
    let mut routes = BTreeSet::new();
    for route in program.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let method = rest.trim_start_matches([',', ' ', '\n']).split('(').next().unwrap();
        routes.insert((path.to_owned(), method.trim().to_owned()));
    }
    assert_eq!(said, routes);
}
