//! HTTP: the listener, the API behind its gate, the page in front of it.
//!
//! Promise: every route below `/api` asks the gate who is there; what a route needs beyond that is
//! the first line of its handler. Answers are JSON and are never cached.
//!
//! Failure policy: see [`error`].

mod account;
mod at_machine;
pub mod auth;
mod body;
pub(crate) mod books;
mod bunker;
mod bunker_make;
mod distribution;
mod documents;
pub mod error;
mod journal;
pub mod listen;
mod lps;
mod machines;
mod metrics;
mod page;
mod pairing;
pub mod people;
mod rekey;
mod reported;
mod reports;
mod rollouts;
mod simulator;
mod staff;
#[cfg(test)]
mod tests;
mod verdicts;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post, put};
use serde::de::DeserializeOwned;

use crate::app::App;
use auth::Gate;
use error::ApiError;

pub use body::Fraction;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The daemon's common ground.
    pub app: Arc<App>,
}

/// All routes.
pub fn router(api: Api, gate: Gate) -> Router {
    let machine = Router::new()
        .route("/", get(machines::show).patch(machines::edit))
        .route("/pair", post(pairing::pair_machine))
        .route("/confirm", post(pairing::confirm_machine))
        .route("/renew", post(pairing::renew_machine))
        .route("/revoke", post(pairing::revoke_machine))
        .route("/pairings", get(pairing::attempts))
        .route("/disable", post(machines::disable))
        .route("/enable", post(machines::enable))
        .route("/fees", put(documents::set_fees))
        .route("/tags", put(rollouts::set_tags))
        .route("/cassettes", get(documents::cassettes).post(documents::change_cassettes))
        .route("/republish", post(documents::republish))
        .route("/verdict", post(verdicts::decide))
        .route("/verdicts", get(verdicts::list))
        .route("/service", get(at_machine::list))
        .route("/journal", get(journal::list));
    let provider = Router::new()
        .route("/", get(lps::show))
        .route("/terms", put(lps::set_terms))
        .route("/enrol", post(lps::enrol))
        .route("/leave", post(lps::leave))
        .route("/deposits", post(lps::deposit))
        .route("/return", post(lps::give_back))
        .route("/settle", post(lps::settle))
        .route("/disable", post(lps::disable))
        .route("/enable", post(lps::enable));
    let v1 = Router::new()
        .route("/health", get(reports::health))
        .route("/dca/machines", get(machines::list).post(machines::add))
        .nest("/dca/machines/{id}", machine)
        .route("/dca/rekey", post(rekey::sign))
        .route("/dca/super-config", get(documents::platform).put(documents::set_platform))
        .route("/dca/fees/preview", post(rollouts::preview))
        .route("/dca/rollouts", get(rollouts::list).post(rollouts::begin))
        .route("/dca/rollouts/{id}/stop", post(rollouts::stop))
        .route("/dca/settlements", get(reports::settlements))
        .route("/dca/settlements/{id}", get(distribution::show))
        .route("/dca/settlements/{id}/verify", post(distribution::verify))
        .route("/dca/settlements/{id}/proof", get(distribution::proof))
        .route("/dca/settlements/{id}/release", post(distribution::release))
        .route("/dca/settlements/{id}/resume", post(distribution::resume))
        .route("/dca/distribution", get(distribution::open))
        .route("/dca/legs/{id}/end", post(distribution::end_leg))
        .route("/dca/settlements/all", get(books::settlements))
        .route("/dca/ledger", get(books::entries))
        .route("/dca/balances", get(books::balances))
        .route("/dca/liabilities", get(books::liabilities))
        .route("/dca/payouts", get(distribution::payouts))
        .route("/dca/payouts/{hash}/close", post(distribution::close_payout))
        .route("/dca/kept-claims", get(distribution::kept_claims).post(distribution::offer_kept))
        .route("/dca/rules", get(distribution::rule_sets).post(distribution::set_rules))
        .route("/dca/rules/{id}/cancel", post(distribution::cancel_rules))
        .route("/dca/lps", get(lps::list).post(lps::register))
        .nest("/dca/lps/{id}", provider)
        .route("/dca/lp-deposits/{id}/confirm", post(lps::confirm))
        .route("/dca/lp-deposits/{id}/cancel", post(lps::cancel))
        .route("/dca/rejected", get(reports::rejected))
        .route("/relays", get(reports::relays))
        .route("/webhook", get(reports::webhook))
        .route("/metrics", get(metrics::metrics))
        .route("/audit-log", get(reports::audit_log))
        .route("/audit", post(reports::audit))
        .route("/audit/keys", get(account::secrets))
        .route("/bunker", get(bunker::status))
        .route("/bunker/canary", get(bunker::canary))
        .route("/bunker/keys", get(bunker::keys).post(bunker_make::key))
        .route("/bunker/keys/{name}/unlock", post(bunker::unlock))
        .route("/bunker/keys/{name}/tokens", get(bunker::tokens).post(bunker_make::token))
        .route("/bunker/keys/{name}/users", get(bunker::users))
        .route("/bunker/policies", get(bunker::policies).post(bunker_make::policy))
        .route("/bunker/policies/{id}/rules", post(bunker_make::rule))
        .route("/bunker/policies/{id}/end", post(bunker_make::end))
        .route("/bunker/policies/{id}/cap", post(bunker_make::cap))
        .route("/bunker/revoke", post(bunker::revoke))
        .route("/bunker/audit", get(bunker::audit))
        .route("/operators", get(staff::operators))
        .route("/operators/init", post(pairing::init_operator))
        .route("/operators/import", post(account::import))
        .route("/operators/migrate", post(account::migrate))
        .route("/users", get(staff::users).post(staff::add_user))
        .route("/users/{id}/disable", post(staff::disable_user))
        .route("/tokens", get(staff::tokens).post(staff::add_token))
        .route("/tokens/{id}/revoke", post(staff::revoke_token))
        .route("/simulator/balances", get(simulator::balances))
        .route("/simulator/pay", post(simulator::pay))
        .route("/simulator/script", post(simulator::script))
        .route("/simulator/reachable", post(simulator::reachable))
        .route("/simulator/resolve", post(simulator::resolve));
    let page = page::router(&api.app.config.api_base_url);
    // around the whole: inside the nest a request has lost the path that its sender signed
    Router::new()
        .nest("/api/v1", v1)
        .fallback(no_route)
        .layer(from_fn(no_store))
        .layer(from_fn_with_state(gate, auth::require))
        .with_state(api)
        .merge(page)
}

async fn no_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is no such route")
}

async fn no_store(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The number in a path.
struct Id<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, ApiError> {
        let id = Path::<T>::from_request_parts(parts, state).await;
        let words = "expected a whole number, or a payment's hash, in the path";
        id.map(|Path(id)| Self(id)).map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, words))
    }
}
