//! What is served to everybody: its headers, its scripts, and nothing about the fleet.

mod browser;
mod exact;

use axum::body::{Body, to_bytes};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::http::tests::{As, Site};

async fn asked(host: &str, path: &str) -> Response {
    let request = Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap();
    router("https://fleet.example/").oneshot(request).await.unwrap()
}

/// Loss prevented: a script that somebody smuggled into a page which holds the owner's token.
#[tokio::test]
async fn the_page_loads_itself_only_and_is_never_kept() {
    for (path, kind) in ASSETS
        .iter()
        .map(|(path, kind, _)| (*path, *kind))
        .chain([("/", "text/html; charset=utf-8")])
    {
        let answer = asked("127.0.0.1:8441", path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], kind);
        for (name, value) in HEADERS {
            assert_eq!(answer.headers()[&name], value, "{path}");
        }
    }
    assert!(POLICY.contains("default-src 'none'") && POLICY.contains("frame-ancestors 'none'"));
    assert!(!POLICY.contains("unsafe") && !POLICY.contains('*') && !POLICY.contains("http"));
    let shell = shell().into_string();
    let handler = |word: &str| word.starts_with("on") && word.contains('=');
    assert!(!shell.split_whitespace().any(handler), "{shell}");
    assert!(!shell.contains("style=") && !shell.contains("//"), "{shell}");
    for script in shell.split("<script").skip(1) {
        assert!(script.contains(r#"src="/assets/"#) && script.contains("></script>"), "{script}");
    }
    insta::assert_snapshot!(shell.replace("><", ">\n<"));
}

/// The name of a kind of XML; nobody fetches it.
const SVG: &str = "http://www.w3.org/2000/svg";

/// Loss prevented: markup in a machine's name that acts with the owner's token; a token that stays
/// on the disk; an amount that a float has rounded.
#[test]
fn scripts_write_text_keep_nothing_and_read_no_floats() {
    for (path, kind, text) in ASSETS {
        if kind != SCRIPT {
            continue;
        }
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
            "import(",
            "localStorage",
            "indexedDB",
            ".cookie",
            "parseFloat",
            "parseInt",
            "toFixed",
            "answer.json",
            "console.",
            "http:",
            "https:",
        ] {
            assert!(!text.replace(SVG, "").contains(never), "{path} has {never}");
        }
        for import in text.split("from \"").skip(1) {
            let served = import.split('"').next().and_then(|file| file.strip_prefix("./"));
            let served = served.map(|file| format!("/assets/{file}"));
            let there = |served: &String| ASSETS.iter().any(|(asset, ..)| asset == served);
            assert!(served.as_ref().is_some_and(there), "{path}: {served:?}");
        }
    }
}

/// Loss prevented: a stranger's name, pointed at this computer, shows a place to paste a token.
#[tokio::test]
async fn a_strangers_name_shows_no_page() {
    for (host, status) in [
        ("127.0.0.1:8441", 200),
        ("[::1]:8441", 200),
        ("localhost", 200),
        ("FLEET.example", 200),
        ("fleet.example:8441", 200),
        ("fleet.example.evil.test", 421),
        ("evil.test:8441", 421),
        ("127.0.0.1.evil.test", 421),
        ("localhost.evil.test", 421),
        ("a b", 421),
    ] {
        for path in ["/", "/assets/page.js"] {
            let answer = asked(host, path).await;
            assert_eq!(answer.status().as_u16(), status, "{host}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
            let text = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert_eq!(text.starts_with(b"expected the Host"), status == 421, "{host}");
        }
    }
}

/// Loss prevented: what the fleet is and earns, told to whoever asks for the page.
#[tokio::test]
async fn the_page_holds_no_data_and_the_api_behind_it_stays_shut() {
    let site = Site::new().await;
    let machine =
        json!({ "name": "Kontor", "place": "Elbe", "fiat_code": "EUR", "wallet_id": "till" });
    site.post(&site.cookie(), "/api/v1/dca/machines", machine).await.expect(201);
    let page = site.get(&As::Nobody, "/").await;
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(page.expect(200), Value::String(shell().into_string()));
    for (path, _, text) in ASSETS {
        assert_eq!(site.get(&As::Nobody, path).await.expect(200), Value::String(text.into()));
    }
    for path in ["/assets/", "/assets/none.js", "/index.html", "/api/v1/dca/machines"] {
        site.get(&As::Nobody, path).await.expect(401);
    }
    site.stop().await;
}
