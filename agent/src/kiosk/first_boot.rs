//! The screen of a machine that nobody has paired: a seed is scanned or pasted here.
//!
//! Promise: a seed is taken while the screen asks for one and at no other time. It goes to the vault
//! as it came, and is in no address, log, event or screen; the page shows none of its characters and
//! forgets it as it sends it. Whether it is good is the vault's to say, on the next screen.
//!
//! A scanner that is plugged in is a keyboard: it types what it reads into the field that has the
//! focus and ends with Enter. So the field has the focus, takes it back when something is typed
//! elsewhere, and Enter is its button.
//!
//! Failure policy: a post that is not taken says why beside the field; nothing has happened.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::render::exact_qr;
use super::{Shared, posted, refused};
use crate::ipc::{SecretText, ToVault};
use crate::refused::Refused;
use crate::screen::{MachineScreen, SeedView};

/// Longest body of a seed: the longest seed URL, in JSON, with room.
const MAX_BODY: usize = 20_480;

/// What is posted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Brought {
    seed_url: SecretText,
}

pub(super) async fn seed(State(shared): State<Shared>, request: Request) -> Response {
    let Brought { seed_url } = match posted(request, MAX_BODY, "expected a seed as JSON").await {
        Ok(brought) => brought,
        Err(refused) => return refused,
    };
    let wanted = shared.kiosk.screens.borrow().as_ref().is_some_and(|shown| {
        matches!(shown.screen, MachineScreen::Unpaired { seed: SeedView::Wanted { .. } })
    });
    if !wanted {
        return refused(StatusCode::CONFLICT, "this machine takes no seed at its screen now");
    }
    shared.pass_on(ToVault::Seed { seed_url })
}

pub(super) fn render(view: &SeedView) -> Markup {
    match view {
        SeedView::Wanted { refused } => html! {
            h1 { "Not paired" }
            p { "Scan the seed's code with a scanner that is plugged in here, or paste the seed URL. \
                The operator's page shows both, once." }
            (why(refused.as_ref()))
            p.warn role="alert" data-said hidden {}
            input id="seed" type="password" autocomplete="off" spellcheck="false"
                maxlength="16384" aria-label="Seed URL" data-focus data-typed;
            div.choices { button data-seed="seed" { "Pair" } }
            p.soft { "Nothing of it is shown. Or on the machine itself: bitspire-agent pair --seed-url -" }
        },
        SeedView::Connecting { auth_url } => html! {
            h1 { "Pairing" }
            @match auth_url {
                None => p { "The machine asks the bunker that the seed names." },
                Some(url) => {
                    p { "The bunker waits for a person: open this address." }
                    (exact_qr(url.expose()))
                    p.claim { code { (url.expose()) } }
                }
            }
        },
        SeedView::CommandLine { refused } => html! {
            h1 { "Not paired any more" }
            p { "This machine was paired before. It takes a new seed only from the user that its vault \
                runs as: bitspire-agent pair --seed-url -" }
            (why(refused.as_ref()))
        },
    }
}

/// Why the last seed was refused.
fn why(refused: Option<&Refused>) -> Markup {
    html! {
        @if let Some(Refused { code, words }) = refused {
            div data-why {
                p.warn role="alert" { (words) }
                p.soft { code { (code.as_str()) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::super::tests::{HOST, ORIGIN, world};
    use super::super::{Numbered, TOKEN, data};
    use super::*;

    const SEED: &str = r#"{"seed_url":"spire-seed:v1:AbC"}"#;

    fn shown(seed: SeedView) -> Option<Numbered> {
        Some(Numbered { number: 1, screen: MachineScreen::Unpaired { seed } })
    }

    /// Loss prevented: a web page elsewhere pairs the machine with its own operator; a machine in
    /// service, or one that was let go of, takes a seed from whoever stands in front of it.
    #[tokio::test]
    async fn a_seed_is_taken_from_the_own_page_while_it_is_asked_for() {
        let mut world = world();
        let token = world.token.clone();
        let own = (TOKEN, token.as_str());
        let good = [HOST, ORIGIN, own];
        let asked = shown(SeedView::Wanted { refused: None });
        world.screens.send_replace(asked.clone());
        let evil = ("origin", "https://evil.example");
        let long = format!("{{\"seed_url\":\"{}\"}}", "x".repeat(MAX_BODY));
        for (headers, body, status) in [
            (vec![HOST, ORIGIN], SEED, StatusCode::UNAUTHORIZED),
            (vec![HOST, own], SEED, StatusCode::FORBIDDEN),
            (vec![HOST, evil, own], SEED, StatusCode::FORBIDDEN),
            (vec![("host", "evil.example"), ORIGIN, own], SEED, StatusCode::MISDIRECTED_REQUEST),
            (good.to_vec(), "spire-seed:v1:AbC", StatusCode::BAD_REQUEST),
            (good.to_vec(), &long, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            assert_eq!(world.post("/seed", &headers, body).await, status, "{headers:?}");
        }
        for screen in [
            None,
            shown(SeedView::CommandLine { refused: None }),
            shown(SeedView::Connecting { auth_url: None }),
            Some(Numbered { number: 2, screen: MachineScreen::Starting }),
        ] {
            world.screens.send_replace(screen.clone());
            let status = world.post("/seed", &good, SEED).await;
            assert_eq!(status, StatusCode::CONFLICT, "{screen:?}");
        }
        assert!(world.from_page.try_recv().is_err(), "nothing came through");
        world.screens.send_replace(asked);
        assert_eq!(world.post("/seed", &good, SEED).await, StatusCode::ACCEPTED);
        let came = world.from_page.recv().await.unwrap();
        assert_eq!(came, ToVault::Seed { seed_url: SecretText::new("spire-seed:v1:AbC".into()) });
        assert!(!format!("{came:?}").contains("AbC"));
    }

    /// Loss prevented: an operator in front of the machine who is not told what is wrong with the
    /// seed, or a passer-by who photographs it.
    #[tokio::test]
    async fn the_page_says_why_and_shows_nothing_of_the_seed() {
        let refused = Refused::new("seed_expired", "the seed was <valid> until".into());
        let page = render(&SeedView::Wanted { refused: Some(refused.clone()) }).into_string();
        assert!(page.contains("the seed was &lt;valid&gt; until"), "{page}");
        assert!(page.contains("seed_expired") && page.contains("type=\"password\""), "{page}");
        let again = render(&SeedView::CommandLine { refused: Some(refused) }).into_string();
        assert!(again.contains("seed_expired") && !again.contains("<input"), "{again}");
        let data = data(&shown(SeedView::Connecting { auth_url: None }).unwrap());
        assert!(!data.to_string().contains("<input"), "{data}");
        // what is refused is answered in words that hold nothing of what came
        let world = world();
        let own = [HOST, ORIGIN, (TOKEN, &*world.token)];
        let answer = world.answer("/seed", &own, "spire-seed:v1:AbC").await;
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let body = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert_eq!(body, "expected a seed as JSON");
    }
}
