//! What the API answers when it does not do what was asked.
//!
//! Promise: `{"error": "<what was expected, what came, what to do>"}` with the status that fits, and
//! `"field"` where one field of the request is to blame, `"code"` where the fleet has a name for the
//! reason, which stays when the words change; no secret is in any error, so the whole
//! chain of causes may be shown.

use std::error::Error;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bitspire_shared::error::{Classified, Kind};
use serde_json::{Value, json};

use super::auth::AuthError;
use crate::fleet::FleetError;
use crate::signer::SignerError;
use crate::store::StoreError;

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Value,
}

/// An error with all its causes, joined by colons.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // a transparent error repeats its cause
        if words.last() != Some(&text) {
            words.push(text);
        }
        next = cause.source();
    }
    words.join(": ")
}

impl ApiError {
    /// A refusal in one's own words.
    pub fn new(status: StatusCode, words: impl Into<String>) -> Self {
        let words: String = words.into();
        Self { status, body: json!({ "error": words }) }
    }

    /// With a further field for programs and pages.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        if let Value::Object(body) = &mut self.body {
            body.insert(field.to_owned(), value);
        }
        self
    }

    fn of(status: StatusCode, error: &(dyn Error + 'static)) -> Self {
        Self::new(status, in_words(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, body } = self;
        if status.is_server_error() {
            tracing::info!(event = "api_failed", status = status.as_u16(), error = %body["error"]);
        }
        (status, Json(body)).into_response()
    }
}

fn store_status(error: &StoreError) -> StatusCode {
    match error.kind() {
        Kind::Transient => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Misuse => StatusCode::CONFLICT,
        Kind::Permanent | Kind::Uncertain => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::of(store_status(&error), &error)
    }
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        let status = match &error {
            FleetError::NoMachine(_) | FleetError::NoOperator(_) => StatusCode::NOT_FOUND,
            FleetError::Invalid { .. }
            | FleetError::OverCap { .. }
            | FleetError::Breaches(_)
            | FleetError::Document(_)
            | FleetError::Unpublishable { .. } => StatusCode::BAD_REQUEST,
            FleetError::NoIdentity | FleetError::Relay { .. } | FleetError::WrongDigits => {
                StatusCode::BAD_REQUEST
            }
            FleetError::NotPublished(_)
            | FleetError::Bunker { source: SignerError::NotConfigured, .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            FleetError::KeyTaken { .. }
            | FleetError::WalletTaken(_)
            | FleetError::State { .. }
            | FleetError::Busy(_)
            | FleetError::HasIdentity { .. } => StatusCode::CONFLICT,
            FleetError::Bunker { .. }
            | FleetError::Policy(_)
            | FleetError::Setup(_)
            | FleetError::Seed(_) => StatusCode::BAD_GATEWAY,
            FleetError::Secret(_) | FleetError::CutOff | FleetError::LocalKeyGone(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            FleetError::Store(error) => store_status(error),
        };
        let refused = Self::of(status, &error).with("code", error.code().into());
        match error.field() {
            Some(field) => refused.with("field", field.into()),
            None => refused,
        }
    }
}

/// So that a handler can ask for a role with `?`.
impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::of(error.status(), &error)
    }
}
