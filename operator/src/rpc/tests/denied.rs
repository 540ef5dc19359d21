//! Sales that the operator's deny-list refuses.

use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::routing::post;

use super::*;
use crate::outgoing::testing::Host;

/// Loss prevented: a sale that the operator may not make; or a customer who fed notes, or has an
/// invoice, and is denied what was quoted.
#[tokio::test]
async fn what_is_denied_has_no_quote_and_what_was_quoted_stays() {
    let allow = Arc::new(AtomicBool::new(true));
    let said = allow.clone();
    let answer = move || {
        let said = said.load(Ordering::SeqCst);
        async move { axum::Json(json!({ "allow": said, "reason": "one a day" })) }
    };
    let host = Host::start(Router::new().route("/list", post(answer))).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    bitspire_shell::secrets::write_private(&secret, b"secret\n").unwrap();
    let (url, secret) = (host.base(), secret.display());
    let allowed = url.replace("http://", "");
    let (world, mut machine) = serving_with(&format!(
        "{SIMULATED}[outgoing]\nallow = ['{allowed}']\n[deny_list]\nurl = '{url}/list'\n\
         secret_file = '{secret}'\n"
    ))
    .await;
    let body = machine.quote(Direction::CashOut, 2_000);
    let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
    let session = machine.session.clone();
    let sig = |reply: Reply| reply.read::<GetQuote>().unwrap().unwrap().quote_sig;
    let first = machine.request(&session, &request).await;
    allow.store(false, Ordering::SeqCst);
    let again = machine.request(&session, &request).await;
    assert_eq!(sig(again), sig(first), "it was quoted");
    for (direction, words) in
        [(Direction::CashIn, "one a day"), (Direction::CashOut, "does not answer")]
    {
        let body = machine.quote(direction, 2_000);
        let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
        let refused = machine.request(&session, &request).await;
        let refused = refused.read::<GetQuote>().unwrap().unwrap_err();
        assert!(refused.reason.contains(words), "{refused:?}");
        host.reach(false).await;
    }
    drop(world);
}
