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
    let child =
        program(folder).arg("serve").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut daemon = Daemon(child);
    let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    assert!(ready.starts_with("ready api=http://127.0.0.1:"), "{ready}");
    let add = ["machine", "add", "--name", "Bar", "--currency", "eur", "--wallet", "till"];
    let added = run(folder, &add);
    assert!(added.status.success(), "{}", said(&added));
    let again = run(folder, &add);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("belongs to another machine"), "{}", said(&again));
    let list = run(folder, &["machine", "list"]);
    assert!(said(&list).contains("Bar"), "{}", said(&list));
    // the same folder a second time
    let second = run(folder, &["serve"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("in use by another process"), "{}", said(&second));
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = daemon.0.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(run(folder, &["machine", "list"]).status.code(), Some(3));
}
