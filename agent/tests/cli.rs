//! The command line as a process, with a vault on a real socket at its other end.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use bitspire_agent::ipc::{
    self, DeviceFrames, MachineStatus, NetPins, Role, ToNet, ToVault, VERSION,
};
use bitspire_agent::journal::{CashMove, Entry, Journal};
use bitspire_agent::refused::Refused;
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_hardware::sim::puloon::{self, Model, PuloonSim};
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{BayId, JournalSeq, PubKey};
use bitspire_shared::money::{Currency, Denomination};
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
        &["doctor", "hardware", "--help"],
        &["trace", "--help"],
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

/// Loss prevented: a jam of which only the vault's memory knows what came before it.
#[test]
fn the_last_frames_of_a_running_vault_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let talk = |stream: &mut UnixStream| {
        assert_eq!(ipc::read(stream).unwrap(), Some(ToVault::Trace));
        let frames = |device: &str, line: &str| DeviceFrames {
            device: device.to_owned(),
            frames: vec![line.to_owned()],
        };
        let all = vec![
            frames("acceptor", "7 ms -> FC 05 11 27 56 STATUS REQUEST"),
            frames("dispenser", "9 ms <- 10 06 DLE ACK"),
        ];
        ipc::write(stream, &ToNet::Frames { devices: all }).unwrap();
    };
    for (arguments, told, not) in [
        (
            &["trace"][..],
            &["acceptor: 1 records", "STATUS REQUEST", "dispenser: 1", "DLE ACK"][..],
            "",
        ),
        (&["trace", "dispenser"], &["DLE ACK"], "STATUS"),
    ] {
        let vault_side = vault(folder.path(), None, talk);
        let (out, err) = text(&agent(folder.path(), arguments, &[]));
        assert!(told.iter().all(|words| out.contains(words)), "{out}{err}");
        assert!(not.is_empty() || !out.contains(not), "{out}");
        vault_side.join().unwrap();
        std::fs::remove_file(folder.path().join("vault.sock")).unwrap();
    }
    let vault_side = vault(folder.path(), None, talk);
    let (_, err) = text(&agent(folder.path(), &["trace", "printer"], &[]));
    assert!(err.contains("this machine has: acceptor, dispenser"), "{err}");
    vault_side.join().unwrap();
}

/// A simulated device on a pseudo-terminal, and its name.
fn device(sim: impl SimDevice) -> (Host, String) {
    let host = Host::start(Box::new(sim), None).unwrap();
    let path = host.path().unwrap().unwrap().display().to_string();
    (host, path)
}

fn validator() -> (Host, String) {
    device(Id003Sim::new(Id003Sim::eur(), Options::default(), Timing::default()))
}

/// What `doctor hardware` says of these devices, and its exit code.
fn doctor(folder: &Path, more: &[&str], devices: &str) -> (i32, String) {
    let file = folder.join("machine.toml");
    std::fs::write(&file, format!("currency = 'EUR'\n{devices}")).unwrap();
    let arguments = [&["doctor", "hardware", "--config", file.to_str().unwrap()], more].concat();
    let output = agent(folder, &arguments, &[]);
    let (out, err) = text(&output);
    (output.status.code().unwrap(), out + &err)
}

/// Loss prevented: a machine that goes into service with another device than the one that was
/// configured, or whose technician looks for the fault in the wrong place.
#[test]
fn the_doctor_says_who_is_there_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_validator, acceptor) = validator();
    let (_dispenser, dispenser) = device(F56Sim::new(Fit::default()));
    let with = |acceptor: &str, dispenser: &str| {
        format!(
            "[vault.acceptor]\nkind = 'id003'\npath = '{acceptor}'\n\
             [vault.dispenser]\nkind = 'f56'\npath = '{dispenser}'\nbays = 2\n"
        )
    };
    let (code, told) = doctor(folder, &[], &with(&acceptor, &dispenser));
    assert_eq!(code, 0, "{told}");
    for words in ["9600 8E1", "ID003", "EUR", "20.00", "POWER UP (40)", "no error", "cassette  1"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // the cables are swapped
    let (code, told) = doctor(folder, &[], &with(&dispenser, &acceptor));
    assert_eq!(code, 16, "{told}");
    assert!(told.contains("but a Fujitsu F53/F56 dispenser answers"), "{told}");
    assert!(told.contains("but a JCM ID-003 device answers"), "{told}");
    // nobody is there; nothing is there; it is no port
    let only = |path: &str| format!("[vault.acceptor]\nkind = 'id003'\npath = '{path}'\n");
    let (code, told) = doctor(folder, &[], &only("/dev/ttyNONE9"));
    assert!(code == 10 && told.contains("no such device"), "{code} {told}");
    let (code, told) = doctor(folder, &[], &only("/dev/null"));
    assert!(code == 10, "{code} {told}");
    let (code, told) = doctor(folder, &[], "");
    assert!(code == 1 && told.contains("no device is configured"), "{code} {told}");
    // somebody has it already
    let other = serial(&acceptor);
    let (code, told) = doctor(folder, &[], &only(&acceptor));
    assert!(code == 12 && told.contains("in use"), "{code} {told}");
    drop(other);
    // not while a vault has the machine
    std::fs::create_dir_all(folder.join("vault")).unwrap();
    let journal = folder.join("vault/journal.db");
    let held = Journal::open(&journal, sha256("test"), Unix(1_800_000_000)).unwrap();
    let (code, told) = doctor(folder, &[], &only(&acceptor));
    assert!(code == 4 && told.contains("stop it first"), "{code} {told}");
    drop(held);
    assert_eq!(doctor(folder, &[], &only(&acceptor)).0, 0);
}

/// A port that this process has opened for itself.
fn serial(path: &str) -> bitspire_hardware::port::Link {
    bitspire_hardware::port::open_serial(path, bitspire_hardware::probe::Protocol::Id003.line())
        .unwrap()
}

/// Loss prevented: a test that takes notes out of a machine, or that makes its dispenser forget how
/// the last sale ended.
#[test]
fn a_test_dispense_is_asked_for_and_goes_to_the_tray() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let puloon = PuloonSim::new(Model::Lcdm4000, puloon::Fit::default());
    let (host, path) = device(puloon);
    let lcdm = format!("[vault.dispenser]\nkind = 'puloon-4000'\npath = '{path}'\nbays = 4\n");
    let rejected = || host.counters().unwrap()["bays"][1]["rejected"].clone();
    assert_eq!(doctor(folder, &[], &lcdm).0, 0);
    assert_eq!(rejected(), 0);
    let (code, told) = doctor(folder, &["--test-dispense", "2"], &lcdm);
    assert!(code == 0 && told.contains("put the note back"), "{code} {told}");
    assert_eq!(rejected(), 1);
    let (code, told) = doctor(folder, &["--test-dispense", "5"], &lcdm);
    assert!(code == 1 && told.contains("from 1 to 4"), "{code} {told}");
    // the books of a machine that has run: an open transaction, then notes that are counted
    std::fs::create_dir_all(folder.join("vault")).unwrap();
    let journal = folder.join("vault/journal.db");
    let old = include_str!("../src/journal/fixtures/schema_1.sql");
    rusqlite::Connection::open(&journal).unwrap().execute_batch(old).unwrap();
    let (code, told) = doctor(folder, &["--test-dispense", "2"], &lcdm);
    assert!(code == 1 && told.contains("is open"), "{code} {told}");
    std::fs::remove_dir_all(folder.join("vault")).unwrap();
    std::fs::create_dir_all(folder.join("vault")).unwrap();
    let mut own = Journal::open(&journal, sha256("test"), Unix(1_800_000_000)).unwrap();
    let denomination = Denomination::from_minor(2_000).unwrap();
    let assign = CashMove::Assign { bay: BayId::new(1).unwrap(), denomination, recycles: false };
    own.append(Unix(1_800_000_000), Entry::Cash(vec![assign])).unwrap();
    drop(own);
    let (code, told) = doctor(folder, &["--test-dispense", "2"], &lcdm);
    assert!(code == 1 && told.contains("test it in service mode"), "{code} {told}");
    assert_eq!(rejected(), 1, "nothing has moved since");
    assert_eq!(doctor(folder, &[], &lcdm).0, 0, "a look is free");
    std::fs::remove_dir_all(folder.join("vault")).unwrap();
    let (f56, path) = device(F56Sim::new(Fit::default()));
    let lines = format!("[vault.dispenser]\nkind = 'f56'\npath = '{path}'\nbays = 2\n");
    let (code, told) = doctor(folder, &["--test-dispense", "1"], &lines);
    assert!(code == 18 && told.contains("has no test dispense"), "{code} {told}");
    drop(f56);
}
