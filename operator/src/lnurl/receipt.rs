//! The receipt page: whether a receipt holds, and what it states.
//!
//! Promise: the check is of the text alone; no machine, no database and no wallet is asked, and
//! nothing of it is kept or logged. It says the same of every machine's receipts: whose machine it
//! is, its visitor compares. `bitspire-operator verify-receipt` checks without any server.
//!
//! Failure policy: a text that is no good receipt is told why, without its figures. Checks are
//! limited for each address, since each costs two signatures.

use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::Response;
use bitspire_shared::receipt::{Line, MAX_TEXT, PREFIX, SignedReceipt};
use maud::{Markup, html};
use serde::Deserialize;

use super::Public;
use super::client::Client;
use super::page::{Forms, page};

/// The most that is read of a form: a receipt whose every character is escaped.
pub(super) const MAX_FORM: usize = 4 * MAX_TEXT;

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Asked {
    receipt: String,
}

/// `GET /receipt`.
pub(super) async fn form() -> Response {
    shown(StatusCode::OK, &ask(""))
}

/// `POST /receipt`.
pub(super) async fn check(
    State(public): State<Public>,
    from: Client,
    asked: Result<Form<Asked>, FormRejection>,
) -> Response {
    if public.may_check(from).is_err() {
        let words = "Too many checks: wait a minute.";
        return shown(StatusCode::TOO_MANY_REQUESTS, &html! { h1 { "Receipt" } p { (words) } });
    }
    let Ok(Form(Asked { receipt: text })) = asked else {
        let refused = refused("the text is longer than any receipt, or none came", "");
        return shown(StatusCode::BAD_REQUEST, &refused);
    };
    let read = SignedReceipt::read(&text);
    let words = read.as_ref().map_err(ToString::to_string).and_then(|signed| {
        signed.check().map_err(|error| error.to_string())?;
        Ok(good(signed))
    });
    match words {
        Ok(good) => shown(StatusCode::OK, &good),
        Err(why) => shown(StatusCode::UNPROCESSABLE_ENTITY, &refused(&why, &text)),
    }
}

fn shown(status: StatusCode, content: &Markup) -> Response {
    page(status, "bitSpire receipt", Forms::Own, content)
}

fn ask(text: &str) -> Markup {
    html! {
        form method="post" action="/receipt" {
            h1 { "Check a receipt" }
            p { "Scan the receipt's code with your phone and paste its text: it begins with " code { (PREFIX) } }
            textarea name="receipt" required spellcheck="false" autocapitalize="off"
                aria-label="Text of the receipt" { (text) }
            button { "Check" }
            p.soft {
                "The text is sent to this server for the check and not kept. To check it without any \
                server: " code { "bitspire-operator verify-receipt" } "."
            }
        }
    }
}

fn refused(why: &str, text: &str) -> Markup {
    html! {
        p.amount.bad role="alert" { "Not a good receipt" }
        p { (why) }
        (ask(text))
    }
}

fn good(signed: &SignedReceipt) -> Markup {
    let Ok(receipt) = signed.check() else { return html! {} };
    html! {
        h1 { (receipt.heading()) }
        p.amount.good role="status" { "Good receipt" }
        p { (receipt.standing()) }
        @if receipt.is_claimable() {
            p { "The claim code that stood beside it brings what is owed." }
        }
        dl {
            @for Line { label, value, .. } in receipt.lines() {
                dt { (label) } dd { (value) }
            }
            dt { "Vault named by the machine" } dd { (signed.naming().created_at.to_iso()) }
        }
        p.soft {
            "Anybody can build a machine: that this is the one that you stood at, its key says. \
            Compare it with the one that its operator gives out."
        }
        p { a href="/receipt" { "Check another one" } }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use axum::body::Body;
    use axum::extract::connect_info::MockConnectInfo;
    use axum::http::{Request, header};
    use bitspire_shell::clock::Clock;
    use tower::ServiceExt as _;

    use super::*;
    use crate::app::App;

    /// The receipt of docs/receipt.md.
    fn example() -> &'static str {
        let (_, rest) =
            include_str!("../../../docs/receipt.md").split_once("```receipt\n").unwrap();
        rest.split_once("\n```").unwrap().0
    }

    struct Site {
        _folder: tempfile::TempDir,
        routes: axum::Router,
    }

    fn site() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let flags = [("data_dir", folder.path().display().to_string())];
        let (config, _) = crate::config::load(None, &Default::default(), &flags).unwrap();
        let app: Arc<App> = App::open(config, Clock::system()).unwrap();
        let address = SocketAddr::from(([192, 0, 2, 7], 1));
        let routes = crate::lnurl::router(&app).layer(MockConnectInfo(address));
        Site { _folder: folder, routes }
    }

    async fn send(site: &Site, request: Request<Body>) -> (StatusCode, String, String) {
        let answer = site.routes.clone().oneshot(request).await.unwrap();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, policy, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(site: &Site, text: &str) -> (StatusCode, String) {
        let encoded = nostr::types::url::form_urlencoded::byte_serialize(text.as_bytes());
        let body = format!("receipt={}", encoded.collect::<String>());
        let kind = "application/x-www-form-urlencoded";
        let request = Request::post("/receipt").header(header::CONTENT_TYPE, kind);
        let (status, _, page) = send(site, request.body(body.into()).unwrap()).await;
        (status, page)
    }

    /// Loss prevented: a forged receipt that our own page calls good, or shows the figures of.
    #[tokio::test]
    async fn the_page_says_whether_a_receipt_holds() {
        let site = site();
        let get = Request::get("/receipt").body(Body::empty()).unwrap();
        let (status, policy, page) = send(&site, get).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("<textarea") && !page.contains("<script"), "{page}");
        assert!(policy.contains("form-action 'self'") && policy.contains("default-src 'none'"));

        let (status, page) = post(&site, &format!("  {}\r\n", example())).await;
        assert_eq!(status, StatusCode::OK);
        for part in ["Good receipt", "40.00 EUR", "20.00 EUR", "kraken (2 s)", "npub1rwzv24"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for bad in [example().replacen('A', "B", 1), "BSR2:ABC".into(), "<script>".into()] {
            let (status, page) = post(&site, &bad).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
            assert!(page.contains("Not a good receipt") && !page.contains("40.00 EUR"), "{page}");
            assert!(!page.contains("<script"), "what was typed is text: {page}");
        }
        let (status, _) = post(&site, &"A".repeat(MAX_FORM + 1)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    /// Loss prevented: one address that keeps the service at checking signatures.
    #[tokio::test]
    async fn checks_are_limited_for_each_address() {
        let site = site();
        let mut last = StatusCode::OK;
        for _ in 0..=super::super::CHECKS_A_MINUTE.get() {
            last = post(&site, example()).await.0;
        }
        assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    }
}
