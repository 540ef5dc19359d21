//! The daemon and its command line as two programs.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = daemon.0.wait().unwrap();
    assert!(status.success(), "{status}");
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

/// Loss prevented: a set-up that works in parts and not together: daemon, relay and a bunker of its
/// own process.
#[test]
fn a_machine_is_paired_through_a_bunker_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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
