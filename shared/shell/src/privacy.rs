//! What a program that holds keys leaves behind when it dies.
//!
//! Promise: a panic tells its place in the source and, where they stand in the source too, its words;
//! never a value of the running program, such as the text in an error's `Debug`. No crash writes the
//! program's memory onto a disk, however it was started, and no other program of the same user looks
//! into it.
//!
//! Failure policy: a system that refuses is told on standard error and the program goes on: the units
//! ask for the same (`LimitCORE=0`), and a machine that does not start sells nothing.

use std::io::Write as _;
use std::panic::{PanicHookInfo, set_hook};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::task::JoinError;

/// Said where the words are made of values.
const KEPT_BACK: &str = "(its words are made of values, which may be secrets, and are not told)";

/// Makes all of it so for the rest of the program's life. To be called before a secret is read.
pub fn start() {
    set_hook(Box::new(|panicked| {
        let thread = std::thread::current();
        say(&told(thread.name().unwrap_or("unnamed"), panicked));
    }));
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        say(&format!("the system may dump this program's memory in a crash: {error}\n"));
    }
    // a dump that is piped to another program knows no limit
    if let Err(error) = prctl::set_dumpable(false) {
        say(&format!("this program's memory is open to others of its user: {error}\n"));
    }
}

/// To standard error, where the log goes too, which may not have begun or be what panics.
fn say(line: &str) {
    // there is nobody left to tell of one that is closed
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// How a task ended that has no result. Its own words repeat those of a panic, which
/// may be made of a secret; they stand in no line, and where it was stands in the panic's own.
#[must_use]
pub fn ended(task: &JoinError) -> &'static str {
    if task.is_panic() { "it panicked: see the line before" } else { "it was cancelled" }
}

/// The line of a panic.
fn told(thread: &str, panicked: &PanicHookInfo<'_>) -> String {
    let words = panicked.payload().downcast_ref::<&'static str>().copied().unwrap_or(KEPT_BACK);
    match panicked.location() {
        Some(place) => format!("thread '{thread}' panicked at {place}: {words}\n"),
        None => format!("thread '{thread}' panicked: {words}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::resource::getrlimit;

    use super::*;

    const ROLE: &str = "BITSPIRE_TEST_PANICS";
    const SECRET: &str = "spire-seed:v1:c2VjcmV0";

    /// What the other process does.
    fn panics() {
        start();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(prctl::get_dumpable(), Ok(false));
        let seed = std::env::var(ROLE);
        let refused: Result<(), _> = seed.map_or(Ok(()), Err);
        let thread = std::thread::Builder::new().name("holds a seed".into());
        let ended = thread.spawn(move || refused.unwrap()).map(std::thread::JoinHandle::join);
        assert!(matches!(ended, Ok(Err(_))));
        panic!("words of the source");
    }

    /// Loss prevented: the words that a panic's line keeps back, in the line about its task.
    #[tokio::test]
    async fn a_task_that_panicked_is_told_without_its_words() {
        let panicked = tokio::spawn(async { panic!("{SECRET}") }).await.unwrap_err();
        assert!(panicked.to_string().contains(SECRET), "tokio's own words");
        assert!(!ended(&panicked).contains(SECRET) && ended(&panicked).contains("panicked"));
        let waits = tokio::spawn(std::future::pending::<()>());
        waits.abort();
        assert!(ended(&waits.await.unwrap_err()).contains("cancelled"));
    }

    /// Loss prevented: a seed or a key in the journal of the system, or a memory full of them on the
    /// disk, since a program met an error that nobody had thought of.
    #[test]
    fn a_panic_tells_its_place_and_no_value() {
        if std::env::var_os(ROLE).is_some() {
            return panics();
        }
        let this = "privacy::tests::a_panic_tells_its_place_and_no_value";
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", this, "--nocapture", "--test-threads=1"]).env(ROLE, SECRET);
        let ended = other.env("RUST_BACKTRACE", "full").output().unwrap();
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr) + String::from_utf8_lossy(&ended.stdout);
        let place = "panicked at shared/shell/src/privacy.rs:";
        let line = |words: &str| said.lines().any(|l| l.contains(place) && l.ends_with(words));
        assert!(said.contains("thread 'holds a seed' panicked"), "{said}");
        assert!(line(KEPT_BACK) && line(": words of the source"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}
