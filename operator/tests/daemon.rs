//! The daemon and its command line as two programs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bitspire_operator::app::App;
use bitspire_operator::config;
use bitspire_operator::ids::{DocumentId, MachineId, OperatorId};
use bitspire_operator::store::documents::{self, DocumentKind};
use bitspire_operator::store::machines::{self, Confirmation, Machine};
use bitspire_operator::store::{StoreError, outbox};
use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::write_private;
use nostr::{Keys, ToBech32 as _};

/// A daemon that dies with its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // it has ended already where the test went well
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitspire-operator"));
    command.arg("--config").arg(folder.join("operator.toml")).arg("--data-dir").arg(folder);
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    program(folder).args(args).output().unwrap()
}

/// A process that runs, and its first line.
fn started(folder: &Path, args: &[&str]) -> (Daemon, String) {
    let mut child = program(folder);
    child.args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = Daemon(child.spawn().unwrap());
    let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines();
    (daemon, lines.next().unwrap().unwrap())
}

/// Ends it in good order.
fn end(daemon: &mut Daemon) {
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = daemon.0.wait().unwrap();
    assert!(status.success(), "{status}");
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

/// Loss prevented: a service that says "ready" before it is, or that a stop kills in the middle.
#[test]
fn a_fleet_starts_answers_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = "[api]\nlisten = '127.0.0.1:0'\n[public]\nlisten = '127.0.0.1:0'\n\
                  [relay]\nlisten = '127.0.0.1:0'\n[wallets.till]\nkind = 'simulated'\n";
    std::fs::write(folder.join("operator.toml"), config).unwrap();
    let (mut daemon, ready) = started(folder, &["serve"]);
    assert!(ready.starts_with("ready api=http://127.0.0.1:"), "{ready}");
    let add = ["machine", "add", "--name", "Bar", "--currency", "eur", "--wallet", "till"];
    let added = run(folder, &add);
    assert!(added.status.success(), "{}", said(&added));
    let again = run(folder, &add);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("belongs to another machine"), "{}", said(&again));
    let list = run(folder, &["machine", "list"]);
    assert!(said(&list).contains("Bar"), "{}", said(&list));
    let audit = run(folder, &["audit"]);
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
    assert!(said(&audit).contains("looked at,    0 differ"), "{}", said(&audit));
    // every secret at rest, and what should not be there
    let keys = run(folder, &["audit", "keys"]);
    assert_eq!(keys.status.code(), Some(0), "{}", said(&keys));
    assert!(said(&keys).contains("service.sealed"), "{}", said(&keys));
    std::fs::write(folder.join("backup.txt"), "nsec1...").unwrap();
    let found = run(folder, &["audit", "keys"]);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(said(&found).contains("backup.txt: not a file of ours"), "{}", said(&found));
    std::fs::remove_file(folder.join("backup.txt")).unwrap();
    let rotate = ["secrets", "rotate", "service"];
    let early = run(folder, &rotate);
    assert_eq!(early.status.code(), Some(1));
    assert!(said(&early).contains("keys are in use"), "{}", said(&early));
    // the same folder a second time
    let second = run(folder, &["serve"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("in use by another process"), "{}", said(&second));
    end(&mut daemon);
    assert_eq!(run(folder, &["machine", "list"]).status.code(), Some(3));
    // it is the same service under another machine secret
    let rotated = run(folder, &rotate);
    assert!(rotated.status.success(), "{}", said(&rotated));
    let (_daemon, _) = started(folder, &["serve"]);
    assert!(said(&run(folder, &["machine", "list"])).contains("Bar"));
    assert_eq!(run(folder, &["audit", "keys"]).status.code(), Some(0));
}

/// A value that a command printed, by its name.
fn printed(output: &Output, name: &str) -> String {
    let text = said(output);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    assert!(!line.is_empty(), "no {name} in: {text}");
    line.trim().to_owned()
}

/// A port that nobody listens at, below those that systems give to outgoing connections: it is free
/// again after a restart.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 17_000).unwrap();
    let next = || 15_000 + (start + TRIED.fetch_add(1, Ordering::SeqCst)) % 17_000;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next).take(1_000).find(free).unwrap()
}

/// Loss prevented: a set-up that works in parts and not together: daemon, relay and a bunker of its
/// own process.
#[test]
fn a_machine_is_paired_through_a_bunker_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let config = format!(
        "[api]\nlisten = '127.0.0.1:0'\n[public]\nlisten = '127.0.0.1:0'\n\
         [relay]\nlisten = '127.0.0.1:{port}'\nurl = 'ws://127.0.0.1:{port}'\n\
         [bunker]\nembedded = false\n[wallets.till]\nkind = 'simulated'\n"
    );
    std::fs::write(folder.join("operator.toml"), config).unwrap();
    let (_daemon, _) = started(folder, &["serve"]);
    let add = ["machine", "add", "--name", "Bar", "--currency", "EUR", "--wallet", "till"];
    assert!(run(folder, &add).status.success());
    let pair = ["pair", "1", "--allow-loopback"];
    let early = run(folder, &pair);
    assert!(said(&early).contains("no bunker"), "{}", said(&early));
    let admin = printed(&run(folder, &["operator", "show"]), "bunker_admin_npub");
    let (_bunker, ready) = started(folder, &["bunker", "serve", "--admin", &admin]);
    assert!(ready.starts_with("ready bunker=npub1"), "{ready}");
    // the daemon finds it by itself
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let made = loop {
        let made = run(folder, &["operator", "init"]);
        if made.status.success() {
            break made;
        }
        assert!(std::time::Instant::now() < deadline, "{}", said(&made));
    };
    assert!(said(&made).contains("npub1"), "{}", said(&made));
    let paired = run(folder, &pair);
    assert!(paired.status.success(), "{}", said(&paired));
    assert!(printed(&paired, "seed_url").starts_with("spire-seed:v1:"), "{}", said(&paired));
    let list = run(folder, &["machine", "list"]);
    assert!(said(&list).contains("awaiting_session"), "{}", said(&list));
    let revoked = run(folder, &["revoke", "1"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
}

/// Loss prevented: an operator's private key that stays in the service of a whole fleet, while the
/// check of what lies on the disk says that all is well.
#[test]
fn a_key_that_was_brought_along_is_found_while_its_operator_owns_machines() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[api]\nlisten = '127.0.0.1:0'\n[public]\nlisten = '127.0.0.1:0'\n\
         [relay]\nlisten = '127.0.0.1:{port}'\nurl = 'ws://127.0.0.1:{port}'\n\
         [wallets.till]\nkind = 'simulated'\n"
    );
    std::fs::write(folder.join("operator.toml"), config).unwrap();
    let (_daemon, _) = started(folder, &["serve"]);
    let file = elsewhere.path().join("nsec");
    let nsec = Keys::generate().secret_key().to_bech32().unwrap();
    write_private(&file, nsec.as_bytes()).unwrap();
    let import = run(folder, &["account", "import-key", "--file", &file.display().to_string()]);
    assert!(import.status.success(), "{}", said(&import));
    let audit = || run(folder, &["audit", "keys"]);
    let alone = audit();
    assert_eq!(alone.status.code(), Some(0), "no machine hangs on it: {}", said(&alone));
    let add = ["machine", "add", "--name", "Bar", "--currency", "EUR", "--wallet", "till"];
    assert!(run(folder, &add).status.success());
    let found = audit();
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(said(&found).contains("FOUND operator 1 (operator) owns machines"), "{}", said(&found));
    assert!(![&import, &found].iter().any(|output| said(output).contains(&nsec)));
    // the bunker may not be there yet
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let moved = run(folder, &["account", "migrate-to-bunker"]);
        if moved.status.success() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", said(&moved));
    }
    let clean = audit();
    assert_eq!(clean.status.code(), Some(0), "{}", said(&clean));
}

/// Machines: more than are under way at once, and than a machine may ask the bunker in a minute.
const FLEET: i64 = 100;
/// Documents after which it is killed.
const SENT: usize = 4;

/// The service's books, while it is down.
fn books(folder: &Path) -> Arc<App> {
    let flags = [("data_dir", folder.display().to_string())];
    let file = folder.join("operator.toml");
    let (config, _) = config::load(Some(&file), &BTreeMap::new(), &flags).unwrap();
    App::open(config, Clock::system()).unwrap()
}

/// Adds [`FLEET`] machines as if each had been paired.
fn paired(folder: &Path) {
    let app = books(folder);
    let (now, key) = (app.clock.now(), || PubKey::new(Keys::generate().public_key()).unwrap());
    let written = app.store.write_blocking::<_, StoreError, _>(move |tx| {
        for n in 1..=FLEET {
            let currency = "EUR".parse().unwrap();
            let row =
                Machine::new(OperatorId(1), &format!("m{n}"), "", currency, &format!("w{n}"), now);
            let row = Machine {
                machine_npub: Some(key()),
                bunker_spire_key_name: Some(format!("spire-{n}")),
                client_key: Some(key()),
                vault_key: Some(key()),
                bunker_token_expires_at: Some(now.after(720 * 3_600)),
                paired_at: Some(now),
                confirmation: Confirmation::Confirmed,
                confirmed_at: Some(now),
                ..row
            };
            machines::insert(tx, &row)?;
        }
        Ok(())
    });
    written.unwrap();
}

/// Of each machine: the version of its fees that is wanted, whether it still waits to be sent, and
/// the event that it was signed in.
fn wanted(folder: &Path) -> Vec<(DocumentId, bool, Option<EventId>)> {
    let app = books(folder);
    let read = app.store.read_blocking::<_, StoreError, _>(|read| {
        (1..=FLEET)
            .map(|n| {
                let document = documents::wanted(read, MachineId(n), DocumentKind::Fees)?;
                let document = document.expect("no machine is left out");
                let place = outbox::of_document(read, document.id)?.expect("it is in the outbox");
                Ok((document.id, place.done_at.is_none(), document.event_id))
            })
            .collect()
    });
    read.unwrap()
}

/// Documents that wait to be sent, as the running service counts them.
fn waiting(folder: &Path) -> String {
    let cookie = std::fs::read_to_string(folder.join("api.cookie")).unwrap();
    let (url, token) = cookie.trim().split_once(' ').unwrap();
    let asked = ureq::get(format!("{url}/api/v1/metrics"))
        .header("authorization", format!("Bearer {token}"))
        .call();
    let text = asked.unwrap().body_mut().read_to_string().unwrap();
    let name = "bitspire_outbox_waiting{topic=\"document\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("0").to_owned()
}

/// Loss prevented: machines that keep the old fees for ever, or get the new ones in two events that
/// contend, because the service was killed in the middle of a change for all of them.
#[test]
fn a_change_for_all_that_is_killed_in_the_middle_leaves_no_gap_and_no_double() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let config = format!(
        "[api]\nlisten = '127.0.0.1:0'\n[public]\nlisten = '127.0.0.1:0'\n\
         [relay]\nlisten = '127.0.0.1:{port}'\nurl = 'ws://127.0.0.1:{port}'\n"
    );
    std::fs::write(folder.join("operator.toml"), config).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    let (mut daemon, _) = started(folder, &["serve"]);
    loop {
        let made = run(folder, &["operator", "init"]);
        if made.status.success() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", said(&made));
    }
    end(&mut daemon);
    paired(folder);
    let mut fee = 0;
    let killed = loop {
        let mut child = program(folder);
        child.arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut daemon = Daemon(child.spawn().unwrap());
        let ready = BufReader::new(daemon.0.stdout.take().unwrap()).lines().next();
        assert!(ready.unwrap().unwrap().starts_with("ready"));
        fee += 1;
        let fraction = format!("0.0{fee}");
        let mut set = program(folder);
        set.args(["fees", "set", "--super", "--cash-out", &fraction]);
        let mut set = Daemon(set.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let log = BufReader::new(daemon.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let sent = log.filter(|line| line.contains("document_published")).take(SENT).count();
        assert_eq!(sent, SENT, "the daemon ended by itself");
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        set.0.wait().unwrap();
        let wanted = wanted(folder);
        let still = wanted.iter().filter(|(_, waits, _)| *waits).count();
        // a slow reader of its log kills it late
        if still > 0 {
            break wanted;
        }
        assert!(fee < 9, "it was always done before it was killed");
    };
    let (mut daemon, _) = started(folder, &["serve"]);
    while waiting(folder) != "0" {
        assert!(std::time::Instant::now() < deadline, "{} wait", waiting(folder));
        std::thread::yield_now();
    }
    end(&mut daemon);
    for (before, after) in killed.iter().zip(wanted(folder)) {
        let (version, waits, event) = after;
        assert_eq!((version, waits), (before.0, false), "one version, and a relay has it");
        assert!(
            event.is_some() && before.2.is_none_or(|before| Some(before) == event),
            "one event"
        );
    }
}
