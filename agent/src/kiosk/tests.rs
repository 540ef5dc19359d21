//! The doors of the kiosk, and what stands on its screens.

use axum::body::Body;
use axum::http::Request;
use bitspire_shared::clink::Ndebit;
use bitspire_shared::ids::{BayId, EventId};
use bitspire_shared::money::{Fiat, Sats};
use bitspire_shared::rpc::{ErrorCode, Lnurl};
use bitspire_shared::time::Unix;
use futures_util::StreamExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::screen::MachineScreen;
use crate::service::{Counted, Held, HeldBay, Inside, Page, Ruling, ServiceView, Touch};
use crate::txn::{OnPaper, Screen, SlipState, View, Why};

pub(super) struct World {
    pub(super) routes: Router,
    pub(super) token: String,
    pub(super) screens: watch::Sender<Option<Numbered>>,
    pub(super) from_page: mpsc::Receiver<ToVault>,
}

pub(super) fn world() -> World {
    let (screens, shown) = watch::channel(None);
    let (send, from_page) = mpsc::channel(1);
    let kiosk = Kiosk::new("127.0.0.1:8448".parse().unwrap(), shown, send).unwrap();
    let token = kiosk.url().expose().split('#').nth(1).unwrap().to_owned();
    let routes = router(Arc::new(kiosk), CancellationToken::new());
    World { routes, token, screens, from_page }
}

impl World {
    async fn press(&self, headers: &[(&str, &str)], body: &str) -> StatusCode {
        self.post("/action", headers, body).await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> StatusCode {
        self.answer(path, headers, body).await.status()
    }

    pub(super) async fn answer(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.routes.clone().oneshot(request).await.unwrap()
    }
}

pub(super) const HOST: (&str, &str) = ("host", "127.0.0.1:8448");
pub(super) const ORIGIN: (&str, &str) = ("origin", "http://127.0.0.1:8448");
const START: &str = r#"{"action":"start_cash_in"}"#;

/// Loss prevented: a web page elsewhere, or a name pointed at loopback, presses the buttons.
#[tokio::test]
async fn only_the_machines_own_page_with_this_boots_token_acts() {
    let mut world = world();
    let token = world.token.clone();
    let own = (TOKEN, token.as_str());
    let wrong = (TOKEN, "00");
    for (headers, status) in [
        (vec![HOST, ORIGIN], StatusCode::UNAUTHORIZED),
        (vec![HOST, ORIGIN, wrong], StatusCode::UNAUTHORIZED),
        (vec![HOST, own], StatusCode::FORBIDDEN),
        (vec![HOST, ("origin", "https://evil.example"), own], StatusCode::FORBIDDEN),
        (vec![("host", "evil.example:8448"), ORIGIN, own], StatusCode::MISDIRECTED_REQUEST),
        (vec![ORIGIN, own], StatusCode::MISDIRECTED_REQUEST),
    ] {
        assert_eq!(world.press(&headers, START).await, status, "{headers:?}");
    }
    assert!(world.from_page.try_recv().is_err(), "nothing came through");
    let good = [HOST, ORIGIN, own];
    assert_eq!(world.press(&good, "{\"action\":\"pay\"}").await, StatusCode::BAD_REQUEST);
    assert_eq!(world.press(&good, START).await, StatusCode::ACCEPTED);
    assert_eq!(world.press(&good, START).await, StatusCode::SERVICE_UNAVAILABLE, "one at a time");
    assert_eq!(world.from_page.recv().await, Some(ToVault::Customer(CustomerAction::StartCashIn)));
}

/// Loss prevented: a claim code on a stream that anybody on the machine can read.
#[tokio::test]
async fn screens_are_shown_to_the_token_only() {
    let mut world = world();
    let ask = |token: &str| {
        Request::get("/events").header(HOST.0, HOST.1).header(TOKEN, token).body(Body::empty())
    };
    let refused = world.routes.clone().oneshot(ask("").unwrap()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    world.screens.send(Some(Numbered { number: 7, screen: MachineScreen::Starting })).unwrap();
    let answer = world.routes.clone().oneshot(ask(&world.token).unwrap()).await.unwrap();
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let mut stream = answer.into_body().into_data_stream();
    let first = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.contains("\"number\":7") && first.contains("One moment"), "{first}");
    // a page that goes is told: a passer-by could stand before the next one
    assert!(world.from_page.try_recv().is_err());
    drop(stream);
    assert_eq!(world.from_page.recv().await, Some(ToVault::Customer(CustomerAction::Gone)));
}

fn screen(view: View) -> String {
    let claim = Some(SecretText::new("c0de".repeat(8)));
    render(&MachineScreen::Txn(Screen { claim, view, receipt: None })).into_string()
}

fn euros(minor: i64) -> Fiat {
    Fiat::new(minor, "EUR".parse().unwrap())
}

/// Loss prevented: money is owed and the customer walks away without the code that brings it.
#[test]
fn the_claim_code_stands_where_money_could_be_owed() {
    let invoice = View::Invoice {
        bolt11: "lnbcrt1xyz".into(),
        noffer: None,
        wire_sats: Sats(1_234_567),
        fiat: euros(2_000),
        expires_at: bitspire_shared::time::Unix(1),
    };
    let page = screen(invoice);
    assert!(page.contains("1\u{2009}234\u{2009}567 sats") && page.contains("20.00 EUR"), "{page}");
    assert!(page.contains("<svg") && page.contains("c0dec0de"));
    for view in [
        View::Short { owed: euros(1_000) },
        View::Uncertain,
        View::Late { sats: None },
        View::PaidWaiting { rest: euros(1_000) },
        View::Unclaimed { total: euros(1_000) },
        View::PayUnknown { net_sats: Sats(1) },
    ] {
        assert!(screen(view.clone()).contains("c0dec0de"), "{view:?}");
    }
    for view in [
        View::Cancelled { why: Why::Customer },
        View::Expired,
        View::Settled { fiat: euros(2_000) },
    ] {
        assert!(!screen(view.clone()).contains("c0dec0de"), "{view:?}");
    }
}

/// Loss prevented: a customer who is owed money and goes home with the receipt, but not with the code
/// that brings it; or a code in the receipt itself, for everybody whom it is shown to.
#[test]
fn a_receipt_is_shown_with_the_claim_code_beside_it() {
    let (_, rest) = include_str!("../../../docs/receipt.md").split_once("```receipt\n").unwrap();
    let text = rest.split_once("\n```").unwrap().0.to_owned();
    let claim = Some(SecretText::new("c0de".repeat(8)));
    let shown = |open, slip, view| {
        let claim_url = Some("https://atm.example".to_owned());
        let paper = OnPaper { text: text.clone(), open, slip, claim_url };
        let screen = Screen { claim: claim.clone(), view, receipt: Some(Box::new(paper)) };
        render(&MachineScreen::Txn(screen)).into_string()
    };
    let short = || View::Short { owed: euros(2_000) };
    let page = shown(false, SlipState::None, short());
    assert!(page.contains(">Receipt<") && !page.contains("<svg"), "{page}");
    assert!(page.contains("https://atm.example/c/"), "where the code is entered: {page}");
    let page = shown(true, SlipState::None, short());
    for part in ["<svg", "Owed", "20.00 EUR", "kraken (2 s)", "https://atm.example/c/", "c0dec0de"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(">Print<"), "without a printer");
    let page = shown(true, SlipState::Failed, short());
    assert!(page.contains("No paper: photograph the screen.") && page.contains(">Print<"));
    let page = shown(true, SlipState::Printed, View::Settled { fiat: euros(4_000) });
    assert!(page.contains("Take your receipt.") && !page.contains("c0dec0de"), "{page}");
}

/// Loss prevented: a customer who does not learn that no money moved, or what to do now.
#[test]
fn an_end_without_a_sale_says_why() {
    for code in ErrorCode::ALL {
        let page = screen(View::Cancelled { why: Why::Refused(*code) });
        assert!(page.contains("Nothing was given.") && page.contains("ry again later"), "{page}");
    }
    let page = screen(View::Returned { why: Why::Refused(ErrorCode::WalletUnavailable) });
    assert!(page.contains("Nothing was taken.") && page.contains("Lightning wallet"), "{page}");
    let page = screen(View::Cancelled { why: Why::Customer });
    assert!(page.contains("Nothing was given.") && !page.contains("ry again"), "{page}");
}

/// Loss prevented: text from the wire that becomes part of the page's program.
#[test]
fn what_is_shown_is_escaped() {
    let reasons = vec!["<script>alert(1)</script>".to_owned()];
    let page = render(&MachineScreen::OutOfService { reasons }).into_string();
    assert!(!page.contains("<script>"), "{page}");
}

/// Loss prevented: a code on the screen that no wallet reads.
#[test]
fn the_withdraw_is_drawn_or_asked_for() {
    let claim = |lnurl| View::Claim {
        lnurl,
        ndebit: None,
        net_sats: Sats(75_795),
        fee_sats: Sats(6_591),
        total: euros(2_000),
    };
    assert!(screen(claim(Some(Lnurl::new("LNURL1ABC".into())))).contains("<svg"));
    let after_restart = screen(claim(None));
    assert!(!after_restart.contains("<svg") && after_restart.contains("Continue with the code"));
}

/// Loss prevented: a second code that hides the one that every wallet reads, or that nobody can tell
/// from it.
#[test]
fn a_second_code_stands_beside_the_first_and_is_named() {
    let pay = |noffer: Option<&str>| {
        screen(View::Invoice {
            bolt11: "lnbcrt1xyz".into(),
            noffer: noffer.map(Into::into),
            wire_sats: Sats(1),
            fiat: euros(2_000),
            expires_at: bitspire_shared::time::Unix(1),
        })
    };
    let get = |ndebit: Option<&str>| {
        screen(View::Claim {
            lnurl: Some(Lnurl::new("LNURL1ABC".into())),
            ndebit: ndebit.map(|code| Ndebit::new(code.into())),
            net_sats: Sats(75_795),
            fee_sats: Sats(6_591),
            total: euros(2_000),
        })
    };
    for (one, two) in [(pay(None), pay(Some("noffer1abc"))), (get(None), get(Some("ndebit1abc")))] {
        assert_eq!((one.matches("<svg").count(), two.matches("<svg").count()), (1, 2), "{two}");
        assert!(!one.contains("CLINK"), "{one}");
        let svg = &one[one.find("<svg").unwrap()..one.find("</svg>").unwrap()];
        assert_eq!(two.find(svg), two.find("<svg"), "the first is the same");
        let words = ["Lightning</p>", "CLINK</p>"].map(|word| two.find(word).unwrap());
        assert!(words[0] < words[1], "{two}");
    }
}

/// Loss prevented: a form that nobody without a keyboard can fill in, or one that shows other counts
/// than the books have.
#[test]
fn service_pages_show_the_books_and_have_their_forms() {
    let bay = BayId::new(1).unwrap();
    let held = |minor, count| Held { note: euros(minor), count };
    let inside = Inside {
        bays: vec![HeldBay { bay, held: held(2_000, 97), doubt: true, unsure: 0 }],
        cashbox: Some(vec![held(500, 0), held(2_000, 3)]),
        cashbox_out: true,
        reject_bin: Some(vec![held(2_000, 0)]),
        untold: 2,
        rulings: vec![Ruling {
            says: "Fees: 8 %".into(),
            event_id: EventId::from_bytes([0xab; 32]),
            signed_by: "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
                .parse()
                .unwrap(),
            published_at: Unix(1_709_210_096),
            applied_at: Some(Unix(1_798_761_599)),
        }],
    };
    let page = |page, said: Option<&str>| {
        let (said, inside) = (said.map(str::to_owned), inside.clone());
        let view = ServiceView::Page { page, form: 7, said, inside };
        render(&MachineScreen::Service(view)).into_string()
    };
    let menu = page(Page::Menu, Some("It is on record."));
    for words in [
        "97 × 20.00 EUR",
        "count it",
        "3 × 20.00 EUR",
        "out of its place",
        "on record",
        "Fees: 8 %",
        "published 2024-02-29 12:34 UTC, applied 2026-12-31 23:59 UTC",
        "abababababababab",
        "signed by <code>c6047f9441ed7d6d<",
    ] {
        assert!(menu.contains(words), "{words}: {menu}");
    }
    let cashbox = page(Page::Cashbox, None);
    let form = "{&quot;action&quot;:&quot;service&quot;,&quot;do&quot;:&quot;empty_cashbox&quot;,\
                &quot;form&quot;:7}";
    assert!(cashbox.contains(form), "{cashbox}");
    assert!(cashbox.contains("expected 3") && cashbox.contains("data-note=\"500\""), "{cashbox}");
    let bay_page = page(Page::Bay(bay), None);
    for words in ["data-count", "unknown end", "&quot;refill&quot;", "&quot;recount&quot;"] {
        assert!(bay_page.contains(words), "{words}: {bay_page}");
    }
    for html in [&cashbox, &bay_page] {
        assert!((0..=9).all(|digit| html.contains(&format!("data-key=\"{digit}\""))), "{html}");
    }
    let wrong = render(&MachineScreen::Service(ServiceView::Pad { wrong: true, locked: None }));
    assert!(wrong.into_string().contains("not it"));
    let locked = Some("too many wrong PINs".to_owned());
    let locked = render(&MachineScreen::Service(ServiceView::Pad { wrong: true, locked }));
    let locked = locked.into_string();
    assert!(locked.contains("too many") && !locked.contains("type=\"password\""), "{locked}");
}

/// Loss prevented: a touch that the machine cannot read, so that nothing of what was counted is
/// booked.
#[tokio::test]
async fn what_the_page_sends_for_service_is_read() {
    let mut world = world();
    let token = world.token.clone();
    let good = [HOST, ORIGIN, (TOKEN, token.as_str())];
    let counted = vec![Counted { minor: 2_000, count: 3 }];
    for (body, touch) in [
        (r#"{"action":"service","do":"open"}"#, Touch::Open),
        (
            r#"{"action":"service","do":"go","to":{"bay":"2"}}"#,
            Touch::Go { to: Page::Bay(BayId::new(2).unwrap()) },
        ),
        (
            r#"{"action":"service","do":"enter","pin":"271828"}"#,
            Touch::Enter { pin: SecretText::new("271828".into()) },
        ),
        (
            r#"{"action":"service","do":"empty_cashbox","form":7,
                "counted":[{"minor":2000,"count":3}],"reason":""}"#,
            Touch::EmptyCashbox { form: 7, counted, reason: String::new() },
        ),
        (
            r#"{"action":"service","do":"refill","form":7,"count":50,"reason":"x"}"#,
            Touch::Refill { form: 7, count: 50, reason: "x".into() },
        ),
        (r#"{"action":"service","do":"test","form":7,"reason":""}"#, Touch::Test { form: 7 }),
    ] {
        assert_eq!(world.press(&good, body).await, StatusCode::ACCEPTED, "{body}");
        assert_eq!(
            world.from_page.recv().await,
            Some(ToVault::Customer(CustomerAction::Service(touch)))
        );
    }
}
