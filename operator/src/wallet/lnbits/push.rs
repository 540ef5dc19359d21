//! Hints from LNbits' websocket.
//!
//! Promise: a message names a payment that may have changed, and nothing else in it is read: whoever
//! knows the invoice key can send one. LNbits repeats nothing, so each new connection is told as
//! [`Hint::Missed`].
//!
//! Failure policy: a lost connection is opened again, after a pause that grows to [`LONGEST`];
//! meanwhile polls and the list do.

use std::time::Duration;

use bitspire_shared::ids::PaymentHash;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::super::Hint;
use super::Lnbits;
use crate::outgoing::Socket;

/// The first pause between two tries.
const FIRST: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(60);
/// Silence after which the other side is asked for a sign of life; after as much again it is gone.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Notice {
    payment: Named,
}

#[derive(Deserialize)]
struct Named {
    payment_hash: PaymentHash,
}

pub(super) async fn listen(wallet: &Lnbits, stop: CancellationToken) {
    let Some(key) = &wallet.access.invoice_key else { return };
    // the only secret that LNbits wants in an address; nothing prints this one
    let path = format!("/api/v1/ws/{}", key.expose());
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            opened = wallet.server.websocket(&path, None) => match opened {
                Ok(socket) => {
                    tell(wallet, Hint::Missed);
                    pause = FIRST;
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = follow(wallet, socket) => {}
                    }
                    tracing::info!(event = "wallet_hints_lost", wallet = wallet.id);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::info!(event = "wallet_hints_away", wallet = wallet.id, error);
                }
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(LONGEST);
    }
}

fn tell(wallet: &Lnbits, hint: Hint) {
    // nobody watching is no failure: hints are only hints
    let _ = wallet.hints.send(hint);
}

/// Until the connection ends.
async fn follow(wallet: &Lnbits, mut socket: Socket) {
    let mut asked = false;
    loop {
        match timeout(SILENCE, socket.next()).await {
            Ok(Some(Ok(message))) => {
                asked = false;
                if let Message::Text(text) = message
                    && let Ok(notice) = serde_json::from_str::<Notice>(&text)
                {
                    tell(wallet, Hint::Payment(notice.payment.payment_hash));
                }
            }
            Ok(Some(Err(_)) | None) => return,
            Err(_) if asked => return,
            Err(_) => {
                asked = true;
                if socket.send(Message::Ping(Vec::new().into())).await.is_err() {
                    return;
                }
            }
        }
    }
}
