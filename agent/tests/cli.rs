//! The command line as a process, with a vault on a real socket at its other end.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use bitspire_agent::ipc::{self, MachineStatus, NetPins, Role, ToNet, ToVault, VERSION};
use bitspire_agent::refused::Refused;
use bitspire_shared::ids::{JournalSeq, PubKey};
use bitspire_shared::money::Currency;
use bitspire_shared::sealed::Purpose;
use bitspire_shared::seed::{BunkerSecret, BunkerUri, Loopback, Pins, Seed, parse_relay};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{Keyring, write_private};
use nostr::Keys;

/// Runs the program in a folder of its own; nothing of this test's environment reaches it.
fn agent(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitspire-agent"))
        .args(arguments)
        .env_clear()
        .env("BITSPIRE_DATA_DIR", folder)
        .env("BITSPIRE_RUNTIME_DIR", folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Loss prevented: a machine that signs with a key from its own disk can be cloned.
#[test]
fn a_private_key_anywhere_is_a_refused_start_that_does_not_repeat_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    let file = folder.path().join("machine.toml");
    std::fs::write(&file, format!("currency = '{key}'\n")).unwrap();
    let hex = "67".repeat(32);
    for (arguments, environment) in [
        (vec!["net", key], vec![]),
        (vec!["net"], vec![("ATM_PRIVATE_KEY", hex.as_str())]),
        (vec!["net"], vec![("BITSPIRE_CURRENCY", key)]),
        (vec!["net", "--config", file.to_str().unwrap()], vec![]),
        (vec!["pair", "--seed-url", key], vec![]),
        (vec!["pair", "--seed-url", hex.as_str()], vec![]),
        (vec!["pair"], vec![("BITSPIRE_SEED_URL", key)]),
    ] {
        let output = agent(folder.path(), &arguments, &environment);
        let (out, err) = text(&output);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(err.contains("private key") && err.contains("pair"), "{arguments:?}: {err}");
        assert!(!out.contains(key) && !err.contains(key), "{arguments:?}: {err}");
        assert!(!err.contains(&hex), "{arguments:?}: {err}");
    }
}

/// Loss prevented: a command that a script relies on changes unseen.
#[test]
fn the_commands_are_these() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for arguments in [
        &["--help"][..],
        &["pair", "--help"],
        &["config", "show", "--help"],
        &["journal", "--help"],
        &["journal", "show", "--help"],
        &["journal", "verify", "--help"],
        &["journal", "export", "--help"],
        &["replay", "--help"],
        &["receipt", "--help"],
        &["evidence", "--help"],
        &["secrets", "rotate", "--help"],
        &["audit", "keys", "--help"],
    ] {
        let output = agent(folder.path(), arguments, &[]);
        assert!(output.status.success());
        all.push_str(&text(&output).0);
    }
    insta::assert_snapshot!(all);
}

/// Loss prevented: an operator who looks for the wrong value in the wrong file.
#[test]
fn the_configuration_is_shown_with_its_origins() {
    let folder = tempfile::tempdir().unwrap();
    let output = agent(folder.path(), &["config", "show", "--set", "vault.heartbeat_s=30"], &[]);
    let (out, _) = text(&output);
    let line = |key: &str| out.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("vault.heartbeat_s").ends_with("# flag"), "{out}");
    assert!(line("data_dir").ends_with("# environment BITSPIRE_DATA_DIR"), "{out}");
    assert!(line("kiosk.listen").ends_with("# default"), "{out}");
    let output = agent(folder.path(), &["config", "check", "--set", "kiosk.listen=*:80"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("kiosk.listen"));
}

fn key() -> PubKey {
    PubKey::new(Keys::generate().public_key()).unwrap()
}

fn pins() -> NetPins {
    NetPins { spire: key(), operator: key(), service: key() }
}

fn seed(pins: &NetPins) -> String {
    let NetPins { spire, operator, service } = *pins;
    let currency: Currency = "EUR".parse().unwrap();
    let relay = parse_relay("wss://relay.example").unwrap();
    let bunker = BunkerUri::new(spire, vec![relay.clone()]).unwrap();
    let secret = BunkerSecret::new(&"5e".repeat(32)).unwrap();
    let pins = Pins { spire, operator, service, currency };
    let seed = Seed::issue(&pins, bunker, secret, vec![relay], Unix(u64::MAX), Loopback::Refused);
    seed.unwrap().expose().to_string()
}

/// A vault that takes one connection of the command line and leaves the rest to `talk`.
fn vault<T: Send + 'static>(
    folder: &Path,
    pins: Option<NetPins>,
    talk: impl FnOnce(&mut UnixStream) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let listener = UnixListener::bind(folder.join("vault.sock")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let hello: Option<ToVault> = ipc::read(&mut stream).unwrap();
        assert_eq!(hello, Some(ToVault::Hello { version: VERSION, role: Role::Control }));
        ipc::write(&mut stream, &ToNet::Hello { version: VERSION, pins }).unwrap();
        talk(&mut stream)
    })
}

/// Loss prevented: an operator at the machine who does not learn whether it is paired, nor what to
/// compare.
#[test]
fn pairing_ends_with_the_digits_or_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let pins = pins();
    let seed_url = seed(&pins);
    let file = folder.path().join("seed");
    std::fs::write(&file, format!("{seed_url}\n")).unwrap();
    let vault_side = vault(folder.path(), None, move |stream| {
        let seed: ToVault = ipc::read(stream).unwrap().unwrap();
        ipc::write(stream, &ToNet::Paired { pins }).unwrap();
        assert_eq!(ipc::read(stream).unwrap(), Some(ToVault::Status));
        let status = MachineStatus {
            pins: Some(pins),
            vault: pins.service,
            digits: Some("01234567".into()),
            net: None,
            journal_seq: JournalSeq(1),
            open_txns: 0,
            out_of_service: vec![],
        };
        ipc::write(stream, &ToNet::Status(Box::new(status))).unwrap();
        seed
    });
    let output = agent(folder.path(), &["pair", "--seed-file", file.to_str().unwrap()], &[]);
    let (out, err) = text(&output);
    assert!(output.status.success(), "{err}");
    assert!(out.contains(&pins.spire.npub()) && out.contains("01234567"), "{out}");
    let ToVault::Seed { seed_url: came } = vault_side.join().unwrap() else { panic!() };
    assert_eq!(came.expose(), seed_url);

    let folder = tempfile::tempdir().unwrap();
    let vault_side = vault(folder.path(), None, |stream| {
        let _: Option<ToVault> = ipc::read(stream).unwrap();
        let refused = Refused::new("seed_redeemed", "the seed was redeemed already".to_owned());
        ipc::write(stream, &ToNet::SeedRefused(refused)).unwrap();
    });
    let output = agent(folder.path(), &["pair"], &[("BITSPIRE_SEED_URL", &seed_url)]);
    let (_, err) = text(&output);
    assert!(
        !output.status.success()
            && err.contains("error[seed_redeemed]: not paired: the seed was redeemed already"),
        "{err}"
    );
    assert!(!err.contains(&seed_url));
    vault_side.join().unwrap();
}

/// Loss prevented: a machine with open sales that is reset by a seed, or whose PIN is another's by it;
/// a status that says nothing.
#[test]
fn a_paired_machine_keeps_its_pin_and_says_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let pins = pins();
    let other = seed(&self::pins());
    let vault_side = vault(folder.path(), Some(pins), |stream| {
        let heard = ipc::read(stream).unwrap();
        assert!(matches!(heard, Some(ToVault::Seed { .. })), "the first word: {heard:?}");
        let refused = Refused::new("paired_already", "this machine is paired already".into());
        ipc::write(stream, &ToNet::SeedRefused(refused)).unwrap();
    });
    let pin = folder.path().join("pin");
    std::fs::write(&pin, "271828").unwrap();
    let pin = ["--service-pin-file", pin.to_str().unwrap()];
    let output = agent(folder.path(), &[&["pair", "--seed-url", &other], &pin[..]].concat(), &[]);
    assert!(text(&output).1.contains("not paired: this machine is paired already"));
    vault_side.join().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let vault_side = vault(folder.path(), Some(pins), move |stream| {
        assert_eq!(ipc::read(stream).unwrap(), Some(ToVault::Status));
        let status = MachineStatus {
            pins: Some(pins),
            vault: pins.service,
            digits: None,
            net: None,
            journal_seq: JournalSeq(42),
            open_txns: 1,
            out_of_service: vec!["the dispenser does not answer".into()],
        };
        ipc::write(stream, &ToNet::Status(Box::new(status))).unwrap();
    });
    let (out, _) = text(&agent(folder.path(), &["status"], &[]));
    let vault = format!("vault {}", pins.service);
    for words in [&pins.spire.npub(), &vault, "journal at 42", "1 transactions", "does not answer"]
    {
        assert!(out.contains(words), "{out}");
    }
    vault_side.join().unwrap();
}

/// Loss prevented: a machine secret that somebody has read and that cannot be changed, or whose change
/// takes the machine's keys with it; a secret on the disk of which nobody is told.
#[test]
fn the_machine_secret_is_changed_and_every_secret_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let vault = folder.join("vault");
    let own = vault.join("machine-secret");
    let ring = Keyring::open(&vault, None).unwrap();
    let keys = ring.make("vault", Purpose::VaultKey).unwrap();
    let before = std::fs::read(&own).unwrap();
    let (_, err) = text(&agent(folder, &["secrets", "rotate", "vault"], &[]));
    assert!(err.contains("its keys are in use"), "{err}");
    drop(ring);
    let (out, err) = text(&agent(folder, &["secrets", "rotate", "vault"], &[]));
    assert!(out.contains("every key is sealed with the new"), "{out}{err}");
    assert_ne!(std::fs::read(&own).unwrap(), before);
    let held = |credential: Option<&Path>| {
        Keyring::open(&vault, credential).unwrap().load("vault", Purpose::VaultKey).unwrap()
    };
    assert_eq!(held(None), Some(keys.clone()));
    // to a credential, which the configuration names from then on
    let handed = folder.join("handed");
    write_private(&handed, &[9; 32]).unwrap();
    let path = handed.to_str().unwrap();
    let (out, err) = text(&agent(folder, &["secrets", "rotate", "vault", "--to", path], &[]));
    assert!(out.contains("let vault.machine_secret_file name it"), "{out}{err}");
    assert!(!own.exists());
    assert_eq!(held(Some(&handed)), Some(keys.clone()));
    let named = [("BITSPIRE_VAULT__MACHINE_SECRET_FILE", path)];
    let refused = agent(folder, &["secrets", "rotate", "vault"], &named);
    assert!(text(&refused).1.contains("--to FILE"), "{refused:?}");

    let hidden = [keys.secret_key().to_secret_hex(), seed(&pins())];
    let told = |code: i32| {
        let output = agent(folder, &["audit", "keys"], &named);
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        assert!(!hidden.iter().any(|secret| out.contains(secret)), "{out}");
        out
    };
    // where it was made for this test is no place of ours
    let out = told(1);
    assert!(out.contains("FOUND") && out.contains("handed: not a file of ours"), "{out}");
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("handed");
    std::fs::rename(&handed, &moved).unwrap();
    let named = [("BITSPIRE_VAULT__MACHINE_SECRET_FILE", moved.to_str().unwrap())];
    let output = agent(folder, &["audit", "keys"], &named);
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("sealed  0600") && out.contains("vault.sealed: the vault's key"), "{out}");
    assert!(out.contains("clear   0600") && out.contains("handed: what the vault's keys"), "{out}");

    // nor does the configuration say more than where it lies
    let named = [named[0], ("BITSPIRE_SEED_URL", hidden[1].as_str())];
    let (out, _) = text(&agent(folder, &["config", "show"], &named));
    assert!(out.contains("machine_secret_file") && !out.contains("spire-seed"), "{out}");
    assert!(!out.contains(&"09".repeat(32)), "{out}");
}

/// Loss prevented: a unit that waits for a word which never comes is killed in the middle of a sale.
#[test]
fn a_vault_tells_the_service_manager_when_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut vault = Command::new(env!("CARGO_BIN_EXE_bitspire-agent"))
        .arg("vault")
        .env_clear()
        .env("BITSPIRE_DATA_DIR", folder.path())
        .env("BITSPIRE_RUNTIME_DIR", folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .spawn()
        .unwrap();
    let mut said = [0; 64];
    let heard = manager.recv(&mut said);
    let listens = UnixStream::connect(folder.path().join("vault.sock"));
    vault.kill().unwrap();
    vault.wait().unwrap();
    assert_eq!(said[..heard.unwrap()].trim_ascii_end(), b"READY=1");
    listens.unwrap();
}
