//! The frame of the public pages: plain, without a script, loading nothing.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What a page loads: nothing but itself.
const POLICY: &str = "default-src 'none'; style-src 'sha256-%'; base-uri 'none'; \
    form-action '&'; frame-ancestors 'none'";

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;\
padding:0 1rem;text-align:center;background:#f6f4ee;color:#14181f}svg{width:min(22rem,80vw);\
height:auto;background:#fff;padding:1rem;border-radius:1rem}code{overflow-wrap:anywhere;\
font-size:.85rem}.amount{font-size:2rem;font-weight:700}textarea{box-sizing:border-box;width:100%;\
min-height:9rem;font:.85rem/1.4 ui-monospace,monospace;padding:.7rem;border:1px solid #8a8f98;\
border-radius:.6rem;background:#fff;color:inherit}button{font:inherit;font-weight:600;\
padding:.7rem 2rem;margin-top:.8rem;border:0;border-radius:.6rem;background:#14181f;color:#fff}\
dl{text-align:left;background:#fff;border-radius:1rem;padding:.6rem 1.2rem}dt{font-size:.85rem;\
color:#5b626d;margin-top:.6rem}dd{margin:0 0 .6rem;overflow-wrap:anywhere}.good{color:#0b6b3a}\
.bad{color:#a3201d}.soft{font-size:.9rem;color:#5b626d}";

/// What a page may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    /// It sends nothing.
    None,
    /// It sends its form to where it came from.
    Own,
}

/// A page.
pub(super) fn page(status: StatusCode, title: &str, forms: Forms, content: &Markup) -> Response {
    use nostr::base64::Engine as _;
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(STYLE.as_bytes());
    let hash = nostr::base64::engine::general_purpose::STANDARD.encode(hash);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (content) } }
        }
    };
    let target = match forms {
        Forms::None => "none",
        Forms::Own => "self",
    };
    let policy = POLICY.replace('%', &hash).replace('&', target);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, page.into_string()).into_response()
}
