//! What an error says about the request: sent or not.

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ask::encoded;
use super::testing::Host;
use super::*;

fn router() -> Router {
    let broken =
        || stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    let endless = || {
        let three = ["{\"n\":1}\n{\"n\"", ":2}\n", "\n"].map(Ok::<_, std::io::Error>);
        stream::iter(three).chain(stream::pending())
    };
    Router::new()
        .route("/sub/json", get(|| async { axum::Json(json!({"n": 7})) }))
        .route("/sub/moved", get(|| async { Redirect::temporary("/sub/json") }))
        .route("/sub/long", get(|| async { "x".repeat(70_000) }))
        .route(
            "/sub/half",
            post(move || async move { Body::from_stream(broken()).into_response() }),
        )
        .route("/sub/lines", get(move || async move { Body::from_stream(endless()) }))
        .route("/sub/never", post(|| async { std::future::pending::<()>().await }))
}

/// Loss prevented: a payment that may have gone out is taken for one that was never asked for.
#[tokio::test]
async fn what_may_have_had_an_effect_is_lost_and_not_unsent() {
    let host = Host::start(router()).await;
    let server = Server::configured(&format!("{}/sub/", host.base())).unwrap();
    let answer = server.send(Ask::get("/json")).await.unwrap();
    assert_eq!((answer.status, answer.json::<Value>().unwrap()), (StatusCode::OK, json!({"n": 7})));
    let moved = server.send(Ask::get("/moved")).await.unwrap();
    assert_eq!(moved.status, StatusCode::TEMPORARY_REDIRECT, "never followed");
    let long = server.send(Ask::get("/long")).await;
    assert!(matches!(long, Err(SendError::Lost(_))), "{long:?}");
    let whole = server.send(Ask::get("/long").at_most(80_000)).await.unwrap();
    assert_eq!(whole.words().len(), "200 OK: ".len() + 200);
    let half = server.send(Ask::post("/half", &json!({}))).await;
    assert!(matches!(half, Err(SendError::Lost(_))), "{half:?}");
    let patience = Duration::from_millis(20);
    let never = server.send(Ask::post("/never", &json!({})).within(patience)).await;
    assert!(matches!(never, Err(SendError::Lost(_))), "{never:?}");
    host.reach(false).await;
    let away = server.send(Ask::get("/json")).await;
    assert!(matches!(away, Err(SendError::NotSent(_))), "{away:?}");
    host.reach(true).await;
    server.send(Ask::get("/json")).await.unwrap();
}

/// Loss prevented: a key in a log line or an error message.
#[tokio::test]
async fn a_key_is_never_shown() {
    let key = Secret::new(Zeroizing::new("hush".into()));
    let ask = Ask::get("/json").key(HeaderName::from_static("x-api-key"), &key);
    assert!(!format!("{key:?} {ask:?}").contains("hush"));
    let server = Server::configured("http://127.0.0.1:9/hush").unwrap();
    let words = server.websocket("/ws/hush", None).await.err().unwrap().to_string();
    assert!(!format!("{server:?} {words}").contains("hush"), "{words}");
    for wrong in ["ftp://a", "http://u:hush@a", "https://a/?k=hush", "https://a#hush", "hush"] {
        let refused = Server::configured(wrong).unwrap_err();
        assert_eq!(refused, TargetError::Address);
        assert!(!refused.to_string().contains("hush"));
    }
}

/// Loss prevented: a memo with an ampersand changes what an invoice is asked for.
#[test]
fn a_form_keeps_its_fields_apart() {
    let fields = [("amountSat", "5"), ("description", "a&amountSat=1 + 50% \u{fc}")];
    let expected = "amountSat=5&description=a%26amountSat%3D1%20%2B%2050%25%20%C3%BC";
    assert_eq!(encoded(&fields), expected);
}

/// Loss prevented: a payment's state that came is waited for until the stream ends, which it does
/// when the payment does.
#[tokio::test]
async fn a_streams_lines_are_read_as_they_come() {
    let host = Host::start(router()).await;
    let server = Server::configured(&format!("{}/sub", host.base())).unwrap();
    let first = server.first_line(Ask::get("/lines")).await.unwrap();
    assert_eq!(first.json::<Value>().unwrap(), json!({"n": 1}));
    let (mut begun, mut lines) = (false, Vec::new());
    let each = |line: &[u8]| {
        lines.push(line.to_vec());
        if lines.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    server.lines(Ask::get("/lines"), || begun = true, each).await.unwrap();
    assert!(begun);
    assert_eq!(lines, [b"{\"n\":1}\n".to_vec(), b"{\"n\":2}\n".to_vec()]);
    let whole = server.first_line(Ask::get("/json")).await.unwrap();
    assert_eq!(whole.json::<Value>().unwrap(), json!({"n": 7}), "an answer without a line's end");
    let patience = Duration::from_millis(20);
    let never = server.first_line(Ask::post("/never", &json!({})).within(patience)).await;
    assert!(matches!(never, Err(SendError::Lost(_))), "{never:?}");
}
