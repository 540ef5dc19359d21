//! The program `bitspire-sim` as a process, and its control over HTTP.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::{
    DispenseOutcome, DispensePlan, DispenserCommand, DispenserEvent,
};
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::{Host, HostError, Http};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, ttyname};
use serde_json::{Value, json};
use support::{ByTest, Proof};

const PATIENCE: Duration = Duration::from_secs(30);

/// The program; killed if a test fails before it has ended.
struct Program {
    child: Child,
    /// Lines of its output.
    lines: Receiver<String>,
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitspire-sim"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        // ends with the program's output
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output within 30 s")
    }

    /// The rest of a line that begins with `word`.
    fn after(&mut self, word: &str) -> String {
        let line = self.line();
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        assert_eq!(first, word);
        rest.to_owned()
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // it has ended already where the test went well
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitspire-sim")).args(args).output().unwrap()
}

fn http(addr: SocketAddr, request: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let status = lines.next().unwrap();
    let body = lines.skip_while(|line| !line.is_empty()).nth(1).unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

fn get(addr: SocketAddr, path: &str) -> (String, Value) {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn post(addr: SocketAddr, headers: &str, body: &str) -> (String, Value) {
    let length = body.len();
    let head = "POST /control HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    http(addr, &format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}"))
}

/// Loss prevented: a simulator that everybody's tests and demonstrations stand on, and that does
/// not serve a real program.
#[test]
fn a_driver_dispenses_from_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("dispenser");
    let link = link.to_str().unwrap();
    let mut program = Program::start(&[
        "f56",
        "--currency",
        "EUR",
        "--bay",
        "1=20:30",
        "--bay",
        "3=50:7",
        "--note-ms",
        "3",
        "--http",
        "127.0.0.1:0",
        "--link",
        link,
        "--latency",
        "1",
    ]);
    assert!(program.after("port").starts_with("/dev/pts/"));
    let addr: SocketAddr = program.after("http").strip_prefix("http://").unwrap().parse().unwrap();
    program.after("ready");

    let eur: Currency = "EUR".parse().unwrap();
    let bay = |number| BayId::new(number).unwrap();
    let note = |major| Denomination::from_major(major, eur).unwrap();
    let (tell, told) = mpsc::channel();
    let sink = Box::new(move |event| tell.send(event).unwrap());
    let device = Device::start("f56", F56::<ByTest>::new(eur), serial(link), sink).unwrap();
    let bays = [(bay(1), note(20)), (bay(3), note(50))].into();
    device.send(DispenserCommand::Configure(bays)).unwrap();
    let event = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(event, DispenserEvent::Ready { .. }), "{event:?}");
    let plan = DispensePlan { notes: [(bay(1), 5), (bay(3), 2)].into() };
    device.send(DispenserCommand::Dispense(Proof(plan))).unwrap();
    let event = told.recv_timeout(PATIENCE).unwrap();
    let DispenserEvent::Dispensed(DispenseOutcome::Final { bays, fault: None }) = event else {
        panic!("{event:?}")
    };
    assert_eq!((bays[&bay(1)].presented, bays[&bay(3)].presented), (5, 2));
    let (_, counters) = get(addr, "/counters");
    assert_eq!(counters["bays"][0]["exit"], 5, "{counters}");
    assert_eq!(counters["bays"][1]["exit"], 2, "{counters}");
    assert_eq!(post(addr, "", r#"{"action":"take"}"#).1, json!({"taken": 7}));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), DispenserEvent::Taken);
    drop(device);

    assert_eq!(program.signal(Signal::SIGTERM).code(), Some(0));
    assert!(!Path::new(link).is_symlink(), "the link goes with the program");
}

/// Loss prevented: the validator's simulator cannot be started, or nobody can use it by hand.
#[test]
fn each_validator_is_served_and_keys_work() {
    // STATUS REQUEST or POLL, POWER UP (published frames)
    is_served("id003", &[0xfc, 0x05, 0x11, 0x27, 0x56], [0xfc, 0x05, 0x40, 0x2b, 0x15]);
    is_served(
        "ccnet-b2b",
        &[0x02, 0x01, 0x06, 0x33, 0x62, 0x34],
        [0x02, 0x01, 0x06, 0x10, 0xfb, 0x27],
    );
    is_served("ccnet", &[0x02, 0x03, 0x06, 0x33, 0xda, 0x81], [0x02, 0x03, 0x06, 0x10, 0x43, 0x92]);
}

fn is_served<const N: usize>(protocol: &str, asks: &[u8], answers: [u8; N]) {
    let mut program = Program::start(&[protocol, "--currency", "eur", "--pace", "1"]);
    let path = program.after("port");
    program.after("ready");
    let mut port = serialport::new(path, 9_600).timeout(PATIENCE).open().unwrap();
    port.write_all(asks).unwrap();
    let mut answer = [0; N];
    port.read_exact(&mut answer).unwrap();
    assert_eq!(answer, answers);
    program.type_line("x");
    assert!(program.line().starts_with('{'), "the key is an action with an answer");
    program.type_line("c");
    let counters: Value = serde_json::from_str(&program.line()).unwrap();
    assert!(counters.is_object(), "{counters}");
    program.type_line(r#"{"action":"power_on"}"#);
    program.line();
    program.type_line("?");
    assert_eq!(program.line(), "c  the counters");
    let keys: Vec<_> = std::iter::repeat_with(|| program.line()).skip(2).take(2).collect();
    assert!(keys.iter().all(|line| line.ends_with('}')), "{keys:?}");
    program.type_line("q");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

/// Loss prevented: the same of a validator of another make.
#[test]
fn the_ebds_validator_is_served() {
    let mut program = Program::start(&["ebds", "--currency", "eur", "--pace", "1"]);
    let path = program.after("port");
    program.after("ready");
    let mut port = serialport::new(path, 9_600).timeout(Duration::from_millis(100)).open().unwrap();
    // a poll (published frame), until it has booted; then its state, under the same toggle
    let mut answer = [0; 11];
    let answers = (0..200).any(|_| {
        port.write_all(&[0x02, 0x08, 0x10, 0x7f, 0x1b, 0x10, 0x03, 0x6c]).unwrap();
        port.read_exact(&mut answer).is_ok()
    });
    assert!(answers);
    assert_eq!(answer[..3], [0x02, 0x0b, 0x20]);
    program.type_line("q");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

/// Loss prevented: an adapter or a cable that is tried first on the day when a machine stands still.
#[test]
fn it_serves_a_real_port_and_a_recording() {
    let asks = [0xfc, 0x05, 0x11, 0x27, 0x56];
    let jam = [0xfc, 0x05, 0x45, 0x86, 0x42];
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    std::fs::write(&trace, "7 ms -> FC 05 11 27 56 STATUS\n9 ms <- FC 05 45 86 42 JAM\n").unwrap();
    let trace = trace.to_str().unwrap();
    for (device, answer) in
        [(&["id003"][..], [0xfc, 0x05, 0x40, 0x2b, 0x15]), (&["replay", trace], jam)]
    {
        // the test is at the other end of the cable
        let cable = openpty(None, None).unwrap();
        let mut settings = tcgetattr(&cable.slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&cable.slave, SetArg::TCSANOW, &settings).unwrap();
        let path = ttyname(&cable.slave).unwrap().display().to_string();
        let more = ["--port", &path, "--line", "9600 8E1"];
        let mut program = Program::start(&[device, &more[..]].concat());
        assert_eq!(program.after("port"), path);
        program.after("ready");
        let mut far = File::from(cable.master);
        far.write_all(&asks).unwrap();
        let mut said = [0; 5];
        far.read_exact(&mut said).unwrap();
        assert_eq!(said, answer, "{device:?}");
        program.type_line("q");
        assert_eq!(program.child.wait().unwrap().code(), Some(0));
    }
}

/// Loss prevented: a simulator in the background of a test bench that ends with its input.
#[test]
fn the_end_of_its_input_does_not_end_it() {
    let mut program = Program::start(&["f56", "--http", "127.0.0.1:0"]);
    program.after("port");
    let addr: SocketAddr = program.after("http").strip_prefix("http://").unwrap().parse().unwrap();
    program.after("ready");
    drop(program.child.stdin.take());
    for _ in 0..20 {
        assert!(get(addr, "/counters").0.contains("200"));
    }
    assert_eq!(program.signal(Signal::SIGINT).code(), Some(0));
}

/// Loss prevented: a bench that starts nothing and goes on; a person without a hint.
#[test]
fn wrong_use_is_told_and_has_its_code() {
    for (args, code, words) in [
        (&["f56", "--bay", "1=25:3"] as &[&str], 2, "known in USD: 1, 2, 5, 10, 20, 50, 100"),
        (&["f56", "--bay", "1=20"], 2, "expected BAY=NOTE:COUNT"),
        (&["f56", "--bay", "1=20:1", "--bay", "1=50:1"], 2, "bay 1 is given twice"),
        (&["f56", "--bay", "5=20:1"], 2, "expected a bay from 1 to 4"),
        (&["puloon-2000", "--bay", "3=20:1"], 2, "expected a bay from 1 to 2"),
        (&["id003", "--currency", "XYZ"], 2, "EUR, USD"),
        (&["puloon"], 2, "unrecognized subcommand"),
        (&["f56", "--http", "0.0.0.0:0"], 1, "expected a loopback address"),
        (&["f56", "--link", "/dev/null"], 1, "give --link another name"),
        (&["f56", "--port", "/dev/null"], 1, "/dev/null"),
        (&["f56", "--port", "/dev/x", "--line", "fast"], 2, "settings such as '9600 8E1'"),
        (&["replay", "/dev/null"], 2, "no frames in it"),
    ] {
        let output = run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for words in [
        "ccnet",
        "ccnet-b2b",
        "ebds",
        "f56",
        "id003",
        "puloon-1000",
        "puloon-2000",
        "puloon-4000",
        "smart-payout",
        "/control",
        "Exit codes",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Loss prevented: a test bench that believes an action happened which did not.
#[test]
fn http_control_says_what_became_of_an_action() {
    let host = Host::start(Box::new(F56Sim::new(Fit::default())), None).unwrap();
    let control = Http::start("127.0.0.1:0", host.remote()).unwrap();
    let addr = control.addr();
    for (body, code) in [
        (r#"{"action":"pull","bay":2}"#, "200"),
        (r#"{"action":"pull","bay":2}"#, "409"),
        (r#"{"action":"pull"}"#, "400"),
        ("not JSON", "400"),
    ] {
        let (status, answer) = post(addr, "", body);
        assert!(status.contains(code), "{body}: {status}");
        assert_eq!(answer.get("error").is_some(), code != "200", "{answer}");
    }
    let (status, counters) = get(addr, "/counters");
    assert!(status.contains("200"));
    assert_eq!(counters["bays"][1]["present"], false);
    assert!(get(addr, "/").0.contains("404"));
    let (status, _) = post(addr, "Origin: https://evil.example\r\n", r#"{"action":"take"}"#);
    assert!(status.contains("403"), "{status}");
    drop(host);
    assert!(post(addr, "", "{}").0.contains("503"));
}

/// Loss prevented: the control of a simulator open to the network.
#[test]
fn http_control_is_for_this_machine_only() {
    let host = Host::start(Box::new(F56Sim::new(Fit::default())), None).unwrap();
    for addr in ["0.0.0.0:0", "192.0.2.1:80", "localhost:0", "80", ""] {
        let error = Http::start(addr, host.remote()).map(drop).unwrap_err();
        assert!(matches!(error, HostError::NotLoopback { .. }), "{addr}: {error}");
    }
    let first = Http::start("127.0.0.1:0", host.remote()).unwrap();
    let error = Http::start(&first.addr().to_string(), host.remote()).map(drop).unwrap_err();
    assert!(matches!(error, HostError::Listen { .. }), "{error}");
}
