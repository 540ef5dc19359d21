//! The questions against simulated devices on pseudo-terminals, and lines that are wrong.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use super::*;
use crate::dispenser::puloon::DispenseForm;
use crate::port::{Link, open_serial};
use crate::sim::SimDevice;
use crate::sim::ccnet::{self, CcnetSim};
use crate::sim::ebds::{self, EbdsSim};
use crate::sim::escpos::EscPosSim;
use crate::sim::f56::{F56Sim, Fit};
use crate::sim::host::Host;
use crate::sim::id003::{self, Id003Sim};
use crate::sim::puloon::{self, Model, PuloonSim};
use crate::sim::smart_payout::{self, SmartPayoutSim};
use serde_json::json;

fn device(protocol: Protocol) -> Box<dyn SimDevice> {
    let puloon = |model| Box::new(PuloonSim::new(model, puloon::Fit::default()));
    match protocol {
        Protocol::Id003 => {
            let options = id003::Options::default();
            let timing =
                id003::Timing { initialize: 50, accept: 50, stack: 80, stacked: 40, take: 50 };
            Box::new(Id003Sim::new(Id003Sim::eur(), options, timing))
        }
        Protocol::Ccnet => {
            let options = ccnet::Options::default();
            let timing =
                ccnet::Timing { initialize: 50, accept: 50, stack: 80, take: 50, confirm: 100 };
            Box::new(CcnetSim::new(CcnetSim::eur(), options, timing))
        }
        Protocol::CcnetUnit => {
            let options = ccnet::Options::default();
            let timing =
                ccnet::Timing { initialize: 50, accept: 50, stack: 80, take: 50, confirm: 100 };
            Box::new(CcnetSim::unit(CcnetSim::eur(), options, timing))
        }
        Protocol::Ssp => {
            let timing =
                smart_payout::Timing { start: 1, read: 50, stack: 80, take: 50, carry: 100 };
            let options = smart_payout::Options::default();
            Box::new(SmartPayoutSim::new(SmartPayoutSim::eur(), options, timing))
        }
        Protocol::Ebds => {
            let timing = ebds::Timing { boot: 1, ..ebds::Timing::default() };
            Box::new(EbdsSim::new(EbdsSim::eur(), ebds::Options::default(), timing))
        }
        Protocol::F56 => Box::new(F56Sim::new(Fit::default())),
        Protocol::Lcdm4000 => puloon(Model::Lcdm4000),
        Protocol::Lcdm1000 => puloon(Model::Lcdm2000),
        Protocol::EscPos => Box::new(EscPosSim::new(100)),
    }
}

fn host(protocol: Protocol) -> Host {
    Host::start(device(protocol), None).unwrap()
}

/// A line whose other end does this with what comes; until it is hung up.
fn wire(answer: fn(&[u8]) -> Vec<u8>) -> Link {
    let (near, mut far) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = far.read(&mut buffer) {
            if far.write_all(&answer(&buffer[..count])).is_err() {
                return;
            }
        }
    });
    let (writer, third) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let hang_up = Box::new(move || third.shutdown(std::net::Shutdown::Both).unwrap_or_default());
    Link { reader: Box::new(near), writer: Box::new(writer), hang_up: Some(hang_up) }
}

/// The host's port at this line only; with other settings `answer` comes.
fn only_at(host: &Host, right: LineSettings, answer: fn(&[u8]) -> Vec<u8>) -> Opener {
    let path = host.path().unwrap().unwrap().display().to_string();
    Box::new(move |line| if line == right { open_serial(&path, line) } else { Ok(wire(answer)) })
}

fn nothing(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

fn found(protocol: Protocol) -> Found {
    let host = host(protocol);
    probe(&mut only_at(&host, protocol.line(), nothing), protocol, protocol.line()).unwrap()
}

/// Loss prevented: a machine that goes into service with a device of which nobody knows what it is.
#[test]
fn each_device_says_what_it_is() {
    for protocol in
        [Protocol::Id003, Protocol::Ccnet, Protocol::CcnetUnit, Protocol::Ssp, Protocol::Ebds]
    {
        let found = found(protocol);
        assert!(found.identity.is_some_and(|text| !text.is_empty()), "{protocol}");
        let euro: Currency = "EUR".parse().unwrap();
        let twenty = Denomination::from_major(20, euro).unwrap();
        // an EBDS unit that has just started is asked no more
        let tells = protocol != Protocol::Ebds;
        assert_eq!(found.notes.contains(&(twenty, euro)), tells, "{protocol}: {:?}", found.notes);
        assert!(!found.state.is_empty());
    }
    assert!(found(Protocol::Id003).state[0].contains("POWER UP"));
    for (protocol, bays) in [(Protocol::Lcdm4000, 4), (Protocol::Lcdm1000, 2)] {
        let found = found(protocol);
        assert_eq!(found.bays.len(), bays, "{protocol}");
        assert_eq!(found.bays[&BayId::new(1).unwrap()], BayState::Present);
    }
    assert_eq!(found(Protocol::F56).state[0], "no error");
    assert!(found(Protocol::Lcdm1000).identity.unwrap().starts_with("ROM"));
    assert_eq!(found(Protocol::EscPos).state, Vec::<String>::new());
}

/// Loss prevented: boxes that are out, or hold other notes than the books say, before a technician who
/// only sees that somebody answers.
#[test]
fn recyclers_tell_what_their_boxes_hold() {
    let timing = id003::Timing { initialize: 50, accept: 50, stack: 80, stacked: 40, take: 50 };
    let jcm = Id003Sim::recycler(Id003Sim::eur(), id003::Options::default(), timing);
    let jcm = Host::start(Box::new(jcm), None).unwrap();
    let unit = host(Protocol::CcnetUnit);
    for (host, protocol, words) in [
        (&jcm, Protocol::Id003, "boxes: 1 holds 0 notes, 2 holds 0"),
        (&unit, Protocol::CcnetUnit, "CASSETTES, 1 keeps none"),
    ] {
        let line = protocol.line();
        let found = probe(&mut only_at(host, line, nothing), protocol, line).unwrap();
        assert!(found.state.iter().any(|told| told.starts_with(words)), "{:?}", found.state);
    }
    assert!(!found(Protocol::Id003).state.iter().any(|told| told.starts_with("boxes")));
}

/// Loss prevented: an EBDS unit whose notes the technician never sees.
#[test]
fn a_unit_that_has_run_before_tells_its_notes() {
    let host = host(Protocol::Ebds);
    let line = Protocol::Ebds.line();
    let mut talk = Talk::open(&mut only_at(&host, line, nothing), line).unwrap();
    let mut toggle = false;
    // its start is over once it has heard a host
    let deadline = Instant::now() + Duration::from_secs(60);
    let idle = std::iter::from_fn(|| (Instant::now() < deadline).then_some(())).any(|()| {
        toggle = !toggle;
        let poll = crate::frame::ebds::Request::Omnibus(Default::default()).frame(toggle);
        let said = talk.ask(&poll.to_bytes(), SHORT, |bytes| bytes.get(3..6).map(<[u8]>::to_vec));
        said.unwrap().is_some_and(|said| said[0] == 1 && said[2] & 1 == 0)
    });
    assert!(idle);
    drop(talk);
    let found = probe(&mut only_at(&host, line, nothing), Protocol::Ebds, line).unwrap();
    let majors: Vec<u32> = found.notes.iter().map(|(note, _)| note.minor() / 100).collect();
    assert_eq!(majors, [5, 10, 20, 50, 100, 200, 500], "{found:?}");
}

/// Loss prevented: a technician who changes the device where a number in the configuration is wrong.
#[test]
fn a_wrong_line_and_a_wrong_device_are_told_apart() {
    let fast = LineSettings { baud: 19_200, ..Protocol::Id003.line() };
    let id003 = host(Protocol::Id003);
    let refused = |opener: &mut Opener, protocol: Protocol| {
        probe(opener, protocol, protocol.line()).unwrap_err()
    };
    let noise = |_: &[u8]| vec![0x80, 0xf8, 0x06];
    let error = refused(&mut only_at(&id003, fast, noise), Protocol::Id003);
    assert!(matches!(error, ProbeError::WrongLine { found, .. } if found == fast), "{error}");
    assert!(error.to_string().contains("19200 8E1, not at 9600 8E1"), "{error}");
    thread::scope(|scope| {
        for there in Protocol::ALL {
            scope.spawn(move || {
                let host = host(there);
                let id003 = there == Protocol::Id003;
                let expected = if id003 { Protocol::F56 } else { Protocol::Id003 };
                let error = refused(&mut only_at(&host, there.line(), nothing), expected);
                let other =
                    matches!(&error, ProbeError::OtherDevice { found, .. } if *found == there);
                assert!(other, "{there}: {error}");
            });
        }
    });
}

/// Loss prevented: half a day of changing devices where a plug, a level or two wires are wrong.
#[test]
fn silence_garbage_and_an_echo_are_told_apart() {
    let on = |answer: fn(&[u8]) -> Vec<u8>| {
        let mut opener: Opener = Box::new(move |_| Ok(wire(answer)));
        probe(&mut opener, Protocol::Id003, Protocol::Id003.line()).unwrap_err()
    };
    assert!(matches!(on(nothing), ProbeError::Silent));
    assert!(matches!(on(<[u8]>::to_vec), ProbeError::Echo));
    let error = on(|_| vec![0x80, 0xf8]);
    assert!(
        matches!(&error, ProbeError::Garbage { bytes } if bytes.starts_with("80 F8")),
        "{error}"
    );
    let mut opener: Opener = Box::new(|_| Err(OpenError::Busy { port: "/dev/ttyS1".to_owned() }));
    let busy = probe(&mut opener, Protocol::F56, Protocol::F56.line()).unwrap_err();
    assert!(matches!(busy, ProbeError::Open(OpenError::Busy { .. })), "{busy}");
}

/// Loss prevented: a look at a machine that confirms the credit which its vault has yet to write
/// down.
#[test]
fn a_credit_that_waits_goes_on_waiting() {
    for protocol in [Protocol::Id003, Protocol::Ccnet] {
        let host = host(protocol);
        let line = protocol.line();
        let path = host.path().unwrap().unwrap().display().to_string();
        let mut opener: Opener = Box::new(move |line| open_serial(&path, line));
        let mut talk = Talk::open(&mut opener, line).unwrap();
        let (says, steps) = until_credit(protocol);
        for step in steps {
            step(&mut talk, &host);
        }
        until(protocol, says)(&mut talk, &host);
        drop(talk);
        let found = probe(&mut opener, protocol, line).unwrap();
        assert!(found.state[0].starts_with(says), "{protocol}: {found:?}");
        let again = probe(&mut opener, protocol, line).unwrap();
        assert_eq!(again.state, found.state, "{protocol}");
        assert_eq!(host.counters().unwrap()["acknowledged"], 0, "{protocol}");
    }
}

type Step = Box<dyn Fn(&mut Talk, &Host)>;

/// Asks for the state until it is this one.
fn until(protocol: Protocol, words: &'static str) -> Step {
    Box::new(move |talk, _| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = knock(talk, protocol, ANSWER).unwrap();
            if state.is_some_and(|found| found.state[0].starts_with(words)) {
                return;
            }
            assert!(Instant::now() < deadline, "{protocol}: {words}");
        }
    })
}

/// What a credit is called, and how a note becomes one.
fn until_credit(protocol: Protocol) -> (&'static str, Vec<Step>) {
    use crate::frame::{ccnet, id003};
    fn say(bytes: Vec<u8>) -> Step {
        Box::new(move |talk, _| {
            talk.ask(&bytes, ANSWER, |answer| (!answer.is_empty()).then_some(())).unwrap();
        })
    }
    let insert: Step = Box::new(|_, host| {
        host.control(json!({"action": "insert", "denomination": 20})).unwrap();
    });
    match protocol {
        Protocol::Id003 => {
            let op = |request: id003::Request<'_>| say(request.frame().to_bytes());
            let open = id003::Config::Inhibit(false);
            let all = id003::Config::Denominations { disabled: 0 };
            let steps = vec![
                op(id003::Request::Reset),
                until(protocol, "DISABLE"),
                op(id003::Request::Set(all)),
                op(id003::Request::Set(open)),
                until(protocol, "IDLING"),
                insert,
                until(protocol, "ESCROW"),
                op(id003::Request::Stack2),
            ];
            ("VEND VALID", steps)
        }
        _ => {
            let op = |request: ccnet::Request<'_>| say(request.frame().to_bytes());
            let all = ccnet::Bills::ALL;
            let steps = vec![
                op(ccnet::Request::Reset),
                until(protocol, "UNIT DISABLED"),
                op(ccnet::Request::Enable { bills: all, escrow: all }),
                until(protocol, "IDLING"),
                insert,
                until(protocol, "ESCROW"),
                op(ccnet::Request::Stack),
            ];
            ("BILL STACKED", steps)
        }
    }
}

/// Loss prevented: a test that gives notes to whoever stands before the machine, or twice.
#[test]
fn a_test_dispense_goes_to_the_tray_once() {
    for (protocol, bay) in
        [(Protocol::Lcdm4000, 2), (Protocol::Lcdm1000, 1), (Protocol::Lcdm1000, 2)]
    {
        let host = host(protocol);
        let line = protocol.line();
        let bay = BayId::new(bay).unwrap();
        let mut opener = only_at(&host, line, nothing);
        let test = |opener: &mut Opener, form| test_dispense(opener, protocol, line, bay, form);
        let tested = test(&mut opener, DispenseForm::Serial).unwrap();
        assert_eq!((tested.presented, tested.rejected, tested.trouble), (0, 1, None));
        let counters = host.counters().unwrap();
        let place = usize::from(bay.get()) - 1;
        assert_eq!(counters["bays"][place]["rejected"], 1, "{counters}");
        assert_eq!(counters["bays"][place]["exit"], 0, "{counters}");
    }
    let host = host(Protocol::F56);
    let mut opener = only_at(&host, Protocol::F56.line(), nothing);
    let bay = BayId::new(1).unwrap();
    let refused =
        test_dispense(&mut opener, Protocol::F56, Protocol::F56.line(), bay, DispenseForm::Plain);
    assert!(matches!(refused, Err(ProbeError::NoTest(Protocol::F56))));
}

/// Loss prevented: a test that pushes a customer's notes out of the exit, or one onto the floor of a
/// safe that nobody looks at.
#[test]
fn no_test_dispense_beside_notes_or_without_a_tray() {
    use crate::frame::puloon::{ACK, EOT, Side, lcdm1000, lcdm4000};
    let bay = BayId::new(1).unwrap();
    let test = |opener: &mut Opener, protocol: Protocol| {
        test_dispense(opener, protocol, protocol.line(), bay, DispenseForm::Plain)
    };
    for protocol in [Protocol::Lcdm4000, Protocol::Lcdm1000] {
        let host = host(protocol);
        let line = protocol.line();
        let mut opener = only_at(&host, line, nothing);
        let form = lcdm4000::Form::Plain;
        let one = match protocol {
            Protocol::Lcdm4000 => {
                let counts = lcdm4000::Counts { notes: [1, 0, 0, 0], form };
                lcdm4000::Request::Dispense(counts).frame()
            }
            _ => lcdm1000::Request::Upper(1).frame(),
        };
        let mut talk = Talk::open(&mut opener, line).unwrap();
        look::puloon_asks(&mut talk, &one, Duration::from_secs(60)).unwrap().unwrap();
        drop(talk);
        let refused = test(&mut opener, protocol);
        assert!(matches!(refused, Err(ProbeError::NotNow(Forbids::NotesAtExit))), "{refused:?}");
        let counters = host.counters().unwrap();
        assert_eq!(counters["bays"][0]["rejected"], 0, "{counters}");
        host.control(json!({"action": "take"})).unwrap();
        assert_eq!(test(&mut opener, protocol).unwrap().rejected, 1, "{protocol}");
    }
    // a unit that says in each status that its tray is not there
    let mut opener: Opener = Box::new(|_| {
        Ok(wire(|_| {
            let [first, second] = lcdm1000::Sensors::draft(false, [false; 2], [false; 2]).0;
            let sensors = lcdm1000::Sensors([first, second | 0x40]);
            let mut answer = vec![ACK];
            let status = lcdm1000::Reply::Status { error: lcdm1000::error(0x30), sensors };
            status.frame().write(Side::Device, &mut answer);
            answer.push(EOT);
            answer
        }))
    });
    let refused = test(&mut opener, Protocol::Lcdm1000);
    assert!(matches!(refused, Err(ProbeError::NotNow(Forbids::NoRejectTray))), "{refused:?}");
}

/// Loss prevented: a look that confirms the late answer of a dispense, which the unit then forgets
/// and the vault never hears.
#[test]
fn only_the_answer_to_the_question_is_confirmed() {
    use crate::frame::f56::{ACK, Counts, ENQ, Reply, Request, TwoDigits, encode};
    let (near, mut far) = UnixStream::pair().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let (mut offered, mut buffer) = (false, [0; 256]);
        while let Ok(count @ 1..) = far.read(&mut buffer) {
            let answer = match &buffer[..count] {
                bytes if bytes == ENQ => ACK.to_vec(),
                bytes if bytes == ACK && offered => {
                    let _ = tell.send("confirmed");
                    continue;
                }
                bytes if bytes == ACK => {
                    offered = true;
                    let late = Request::Count(Counts::new([TwoDigits::new(1).unwrap(); 4]));
                    encode(Reply::draft(&late, true, 0).payload())
                }
                _ => [ACK, ENQ].concat(),
            };
            if far.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let (writer, third) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let hang_up: Box<dyn FnOnce() + Send> =
        Box::new(move || third.shutdown(std::net::Shutdown::Both).unwrap_or_default());
    let mut link =
        Some(Link { reader: Box::new(near), writer: Box::new(writer), hang_up: Some(hang_up) });
    let mut opener: Opener = Box::new(move |_| Ok(link.take().unwrap()));
    let mut talk = Talk::open(&mut opener, Protocol::F56.line()).unwrap();
    assert_eq!(knock(&mut talk, Protocol::F56, ANSWER).unwrap(), None);
    drop(talk);
    // the line is hung up: the unit has heard all that was said
    assert!(told.recv().is_err(), "a dispense was confirmed");
}
