//! The socket: who is connected, and what goes to whom.
//!
//! Promise: the socket lies in a folder of its owner; each connection has a thread that reads and
//! one that writes, so that the vault never waits for a peer. A peer that speaks another version,
//! sends what is no message, or does not read what it is sent, is cut off.
//!
//! Failure policy: whatever happens to a connection is one event, [`Event::Gone`]; messages that
//! come are bounded by the vault's own queue, which makes a flood wait at its sender.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Event;
use crate::ipc::{self, Role, ToNet, ToVault, VERSION};

/// Messages that a peer may lag behind: a new `net` is told of all that is open at once.
const LAG: usize = 1_024;
/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long a peer may take to say hello, or to take a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts connections.
pub type PeerId = u64;

/// Somebody who is connected.
pub struct Peer {
    /// Who it is.
    pub role: Role,
    /// The way to them.
    pub out: Box<dyn Outlet>,
}

/// The vault's end of a connection.
pub trait Outlet: Send {
    /// Sends without waiting; one that lags too far behind is cut off.
    fn send(&self, message: ToNet);

    /// Ends the connection; its [`Event::Gone`] follows.
    fn cut(&self);
}

/// A connection of the socket.
struct Line {
    outgoing: SyncSender<ToNet>,
    stream: UnixStream,
}

impl Outlet for Line {
    fn send(&self, message: ToNet) {
        if self.outgoing.try_send(message).is_err() {
            tracing::warn!(event = "peer_lags");
            self.cut();
        }
    }

    fn cut(&self) {
        // one that is gone already needs no end
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The listening socket; dropping it ends it and every connection.
pub(super) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ended: AtomicBool,
    open: AtomicUsize,
    streams: Mutex<BTreeMap<PeerId, UnixStream>>,
}

impl Server {
    /// Listens at `path` for its owner and group, which is how a `net` that runs as a user of its own
    /// gets here; the folder is made for its owner alone if it is not there.
    pub(super) fn start(path: &Path, events: SyncSender<Event>) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            streams: Mutex::new(BTreeMap::new()),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("vault socket".to_owned())
            .spawn(move || accept(&listener, &own, &events))?;
        Ok(Self { path: path.to_owned(), shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // wakes the listener; one that has ended already is not there to be woken
        let _ = UnixStream::connect(&self.path);
        for stream in self.shared.streams().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the socket's thread has panicked");
        }
        // the next start removes what is left
        let _ = fs::remove_file(&self.path);
    }
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>, events: &SyncSender<Event>) {
    let mut next: PeerId = 0;
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(event = "socket_accept_failed", %error);
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if shared.open.load(Ordering::SeqCst) >= CONNECTIONS {
            tracing::warn!(event = "too_many_connections");
            continue;
        }
        next = next.saturating_add(1);
        let (id, shared, events) = (next, Arc::clone(shared), events.clone());
        shared.open.fetch_add(1, Ordering::SeqCst);
        let reader = {
            let shared = Arc::clone(&shared);
            move || {
                if let Err(error) = serve(id, stream, &shared, &events) {
                    tracing::warn!(event = "connection_ended", peer = id, %error);
                }
                shared.streams().remove(&id);
                shared.open.fetch_sub(1, Ordering::SeqCst);
                // a vault that has ended does not wait for it
                let _ = events.send(Event::Gone(id));
            }
        };
        if let Err(error) = thread::Builder::new().name(format!("peer {id}")).spawn(reader) {
            tracing::error!(event = "no_thread", %error);
            shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn refused(words: &'static str) -> ipc::IpcError {
    io::Error::new(ErrorKind::InvalidData, words).into()
}

/// Reads a connection to its end.
fn serve(
    id: PeerId,
    mut stream: UnixStream,
    shared: &Shared,
    events: &SyncSender<Event>,
) -> Result<(), ipc::IpcError> {
    shared.streams().insert(id, stream.try_clone()?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let role = match ipc::read(&mut stream)? {
        Some(ToVault::Hello { version: VERSION, role }) => role,
        Some(ToVault::Hello { .. }) => {
            ipc::write(&mut stream, &ToNet::Hello { version: VERSION, pins: None })?;
            return Err(refused("it speaks another version"));
        }
        Some(_) => return Err(refused("expected Hello first")),
        None => return Ok(()),
    };
    stream.set_read_timeout(None)?;
    let (outgoing, waiting) = sync_channel(LAG);
    let writer = stream.try_clone()?;
    thread::Builder::new().name(format!("to peer {id}")).spawn(move || write(writer, &waiting))?;
    let peer = Peer { role, out: Box::new(Line { outgoing, stream: stream.try_clone()? }) };
    if events.send(Event::Joined(id, peer)).is_err() {
        return Ok(());
    }
    while let Some(message) = ipc::read::<ToVault>(&mut stream)? {
        if matches!(message, ToVault::Hello { .. }) {
            return Err(refused("expected one Hello"));
        }
        if events.send(Event::Said(id, Box::new(message))).is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes until the vault lets go of its end or the peer is gone.
fn write(mut stream: UnixStream, waiting: &Receiver<ToNet>) {
    for message in waiting {
        if let Err(error) = ipc::write(&mut stream, &message) {
            tracing::warn!(event = "peer_not_told", %error);
            break;
        }
    }
    // the reader's end too: a peer that cannot be told must not be heard
    let _ = stream.shutdown(Shutdown::Both);
}
