//! The fleet page: a browser's view of the API.
//!
//! Promise: what is served here is the same for everybody and holds no data, so it needs no gate.
//! The browser keeps a token that its user pasted (or that came in the fragment of the address,
//! which reaches no server and no log) for as long as its tab is open, and asks the API with it.
//! There is no cookie, no inline script and no other origin; numbers are never read as floats. A
//! seed is shown once and kept nowhere: it goes with the view, or as soon as it was used.
//!
//! Failure policy: a Host that is neither an address, nor `localhost`, nor the name under which the
//! API is reached is refused: a stranger's name that was pointed at this computer shows no place to
//! paste a token. What the API refuses, the page shows in the API's words.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

/// What the page may load and do: itself, and ask where it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// On every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and text of each asset.
const ASSETS: [(&str, &str, &str); 21] = [
    ("/assets/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("/assets/page.js", SCRIPT, include_str!("page.js")),
    ("/assets/api.js", SCRIPT, include_str!("api.js")),
    ("/assets/exact.js", SCRIPT, include_str!("exact.js")),
    ("/assets/parts.js", SCRIPT, include_str!("parts.js")),
    ("/assets/forms.js", SCRIPT, include_str!("forms.js")),
    ("/assets/state.js", SCRIPT, include_str!("state.js")),
    ("/assets/views.js", SCRIPT, include_str!("views.js")),
    ("/assets/fleet.js", SCRIPT, include_str!("fleet.js")),
    ("/assets/pairing.js", SCRIPT, include_str!("pairing.js")),
    ("/assets/distribution.js", SCRIPT, include_str!("distribution.js")),
    ("/assets/providers.js", SCRIPT, include_str!("providers.js")),
    ("/assets/documents.js", SCRIPT, include_str!("documents.js")),
    ("/assets/rollout.js", SCRIPT, include_str!("rollout.js")),
    ("/assets/said.js", SCRIPT, include_str!("said.js")),
    ("/assets/verdicts.js", SCRIPT, include_str!("verdicts.js")),
    ("/assets/atmachine.js", SCRIPT, include_str!("atmachine.js")),
    ("/assets/service.js", SCRIPT, include_str!("service.js")),
    ("/assets/reports.js", SCRIPT, include_str!("reports.js")),
    ("/assets/simulator.js", SCRIPT, include_str!("simulator.js")),
];

/// The page and its assets, for an API that is reached under `base_url`.
pub(super) fn router(base_url: &str) -> Router {
    let mut router = Router::new().route("/", get(page));
    for (path, kind, text) in ASSETS {
        router = router.route(path, get(move || async move { typed(kind, text.to_owned()) }));
    }
    router.layer(from_fn_with_state(Arc::<str>::from(base_url), guarded))
}

fn typed(kind: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn page() -> Response {
    typed("text/html; charset=utf-8", shell().into_string())
}

async fn guarded(State(base_url): State<Arc<str>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let mut response = if host.is_some_and(|host| may_name(host, &base_url)) {
        next.run(request).await
    } else {
        tracing::warn!(event = "page_refused", host);
        let words = format!(
            "expected the Host of {base_url}, an address or localhost; open the page under one of \
            them, or set api.base_url to the address that you use"
        );
        (StatusCode::MISDIRECTED_REQUEST, words).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a page under this Host is ours: only a name can be pointed at somebody else's address.
fn may_name(host: &str, base_url: &str) -> bool {
    let Ok(asked) = host.parse::<Authority>() else { return false };
    let name = asked.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let own = base_url.parse::<Uri>().ok();
    let own = own.as_ref().and_then(Uri::host);
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || own.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// The page before anybody has shown a token.
fn shell() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "bitSpire fleet" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                script type="module" src="/assets/page.js" {}
            }
            body {
                a.skip id="skip" href="#view" { "Skip to content" }
                header {
                    p.brand { "bitSpire " span { "fleet" } }
                    nav id="nav" aria-label="Sections" hidden {
                        @for (path, name) in [
                            ("machines", "Machines"), ("settlements", "Settlements"),
                            ("distribution", "Distribution"), ("providers", "Providers"),
                            ("service", "Service"), ("rejected", "Refused"), ("relays", "Relays"),
                            ("audit", "Audit log"), ("simulator", "Simulator"),
                        ] {
                            a href={ "#/" (path) } hidden[path == "simulator"] { (name) }
                        }
                    }
                    button.quiet type="button" id="leave" hidden { "Sign out" }
                }
                noscript { p.notice.bad { "This page needs JavaScript, which it loads from here alone." } }
                p.notice id="notice" role="status" hidden {}
                main id="view" tabindex="-1" aria-live="off" {}
                (sign_in())
                footer id="health" {}
            }
        }
    }
}

/// Where a token is pasted.
fn sign_in() -> Markup {
    html! {
        section.card.narrow id="door" hidden aria-labelledby="door-title" {
            h1 id="door-title" { "Sign in" }
            p {
                "Paste a token. On the operator's computer, " code { "bitspire-operator token add" }
                " prints one; the line in the file " code { "api.cookie" }
                " of the data folder works until the daemon restarts."
            }
            form id="enter" {
                label for="token" { "Token" }
                input id="token" type="password" autocomplete="off" spellcheck="false" required
                    aria-describedby="token-kept door-error";
                p.hint id="token-kept" { "It is kept in this tab only, until you sign out or close it." }
                p.error id="door-error" role="alert" {}
                button type="submit" { "Sign in" }
            }
        }
    }
}
