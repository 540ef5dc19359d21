//! The socket to the vault, as its client.
//!
//! Promise: the vault may start, end and start again at any time; this connects again with backoff
//! and says when a connection, after both have said `Hello` with the same version, is there and
//! when it is gone. What is sent while there is none is dropped: the vault repeats what is open.
//!
//! Failure policy: anything that is no message of this version ends the connection.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::ipc::{self, IpcError, NetPins, Role, ToNet, ToVault, VERSION};

/// Before another try to connect while a vault may be starting, and for how many of them: a unix
/// socket that is not there yet has no way to ring.
const SOON: (Duration, u32) = (Duration::from_millis(10), 100);
/// First and longest wait before another try after that.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long the vault may take to say `Hello`.
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes from the socket.
#[derive(Debug)]
pub(super) enum FromVault {
    /// A connection is there; the keys that the vault has pinned.
    Up(Option<NetPins>),
    /// A message.
    Message(Box<ToNet>),
    /// The connection is gone.
    Down,
    /// There is none, and none can be made.
    Absent,
}

/// Keeps the socket until `stop`.
pub(super) async fn run(
    socket: PathBuf,
    mut outgoing: mpsc::Receiver<ToVault>,
    incoming: mpsc::Sender<FromVault>,
    stop: CancellationToken,
) {
    let work = async {
        let mut failures = 0u32;
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => match talk(stream, &mut outgoing, &incoming).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        tracing::warn!(event = "vault_socket_broke", error = %cause(&error));
                        // it is there, and no better at once
                        failures = failures.max(SOON.1).saturating_add(1);
                    }
                },
                Err(error) => {
                    tracing::debug!(event = "vault_absent", %error);
                    failures = failures.saturating_add(1);
                    // a receiver that is gone needs no word
                    let _ = incoming.send(FromVault::Absent).await;
                }
            }
            // nothing that was meant for the last connection reaches the next one
            let rest = sleep(rest_after(failures));
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    () = &mut rest => break,
                    message = outgoing.recv() => if message.is_none() { return },
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// How long to wait after so many failures in a row.
fn rest_after(failures: u32) -> Duration {
    match failures.checked_sub(SOON.1) {
        None | Some(0) => SOON.0,
        Some(more) => BACKOFF.0.saturating_mul(1 << more.min(6)).min(BACKOFF.1),
    }
}

/// An error with its cause, for a log line.
fn cause(error: &IpcError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// One connection; `Ok` if it had come as far as both `Hello`s.
async fn talk(
    stream: UnixStream,
    outgoing: &mut mpsc::Receiver<ToVault>,
    incoming: &mpsc::Sender<FromVault>,
) -> Result<(), IpcError> {
    let (mut from, mut to) = stream.into_split();
    write(&mut to, &ToVault::Hello { version: VERSION, role: Role::Net }).await?;
    let pins = match timeout(PATIENCE, read(&mut from)).await {
        Ok(Ok(Some(ToNet::Hello { version: VERSION, pins }))) => pins,
        Ok(Ok(Some(_))) => return Err(refused("expected the vault's Hello of the same version")),
        Ok(Ok(None)) => return Err(refused("the vault closed the socket before its Hello")),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(refused("the vault took the connection and says nothing")),
    };
    if incoming.send(FromVault::Up(pins)).await.is_err() {
        return Ok(());
    }
    let reading = async {
        while let Some(message) = read(&mut from).await? {
            if incoming.send(FromVault::Message(Box::new(message))).await.is_err() {
                break;
            }
        }
        Ok::<(), IpcError>(())
    };
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            match write(&mut to, &message).await {
                // one message too long is dropped, the connection is good
                Err(error @ IpcError::TooLong { .. }) => {
                    tracing::warn!(event = "message_to_vault_dropped", %error);
                }
                other => other?,
            }
        }
        Ok::<(), IpcError>(())
    };
    let ended = tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    };
    if let Err(error) = ended {
        tracing::warn!(event = "vault_socket_broke", error = %cause(&error));
    }
    // a receiver that is gone needs no word
    let _ = incoming.send(FromVault::Down).await;
    Ok(())
}

fn refused(words: &'static str) -> IpcError {
    IpcError::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, words))
}

async fn write(to: &mut OwnedWriteHalf, message: &ToVault) -> Result<(), IpcError> {
    let frame = Zeroizing::new(ipc::encode(message)?);
    Ok(to.write_all(&frame).await?)
}

async fn read(from: &mut OwnedReadHalf) -> Result<Option<ToNet>, IpcError> {
    let mut length = [0u8; 4];
    match from.read(&mut length).await? {
        0 => return Ok(None),
        got => {
            from.read_exact(length.get_mut(got..).unwrap_or_default()).await?;
        }
    }
    let mut body = Zeroizing::new(vec![0u8; ipc::body_length(length)?]);
    from.read_exact(&mut body).await?;
    ipc::decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: seconds of a dark screen after each start of the vault; or a processor that
    /// is kept busy for as long as there is none.
    #[test]
    fn a_vault_that_starts_is_found_at_once_and_one_that_is_away_is_looked_for_rarely() {
        let at_first: Duration = (0..=SOON.1).map(rest_after).sum();
        assert!(
            at_first >= Duration::from_secs(1) && rest_after(SOON.1) <= Duration::from_millis(10)
        );
        let waits: Vec<Duration> = (SOON.1..SOON.1 + 20).map(rest_after).collect();
        assert!(waits.is_sorted() && waits.ends_with(&[BACKOFF.1; 8]), "{waits:?}");
        assert_eq!(rest_after(u32::MAX), BACKOFF.1);
    }
}
