//! The runner with a real line: a socket pair, and a pseudo-terminal for what serial ports do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bitspire_hardware::engine::{Engine, LineSettings, Output, Parity};
use bitspire_hardware::frame::hex;
use bitspire_hardware::port::{self, Device, Link, OpenError, Opener, PortClosed};
use bitspire_hardware::trace::Direction;
use bitspire_shared::time::Mono;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

const DEADLINE: Duration = Duration::from_secs(20);
const LINE: LineSettings =
    LineSettings { baud: 9600, data_bits: 8, parity: Parity::Even, stop_bits: 1 };

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Up,
    Down(String),
    Bytes(Vec<u8>),
    Tick,
    Command(u8),
}

/// Tells what it is called with; a command is written to the line, and asks for a tick when odd.
struct Teller;

impl Teller {
    fn told(event: Told) -> Output<Told> {
        Output { write: Vec::new(), events: vec![event], wake_at: None }
    }
}

impl Engine for Teller {
    type Command = u8;
    type Event = Told;

    fn line(&self) -> LineSettings {
        LINE
    }
    fn on_link_up(&mut self, _: Mono) -> Output<Told> {
        Self::told(Told::Up)
    }
    fn on_link_down(&mut self, why: &str, _: Mono) -> Output<Told> {
        Self::told(Told::Down(why.to_owned()))
    }
    fn on_bytes(&mut self, bytes: &[u8], _: Mono) -> Output<Told> {
        Self::told(Told::Bytes(bytes.to_vec()))
    }
    fn on_tick(&mut self, _: Mono) -> Output<Told> {
        Self::told(Told::Tick)
    }
    fn command(&mut self, command: u8, now: Mono) -> Output<Told> {
        let wake_at = (command % 2 == 1).then(|| now.after(5));
        Output { write: vec![command], wake_at, ..Self::told(Told::Command(command)) }
    }
    fn is_fault(event: &Told) -> bool {
        matches!(event, Told::Down(_))
    }
    fn in_words(_: Direction, bytes: &[u8]) -> String {
        hex(bytes)
    }
}

fn start(opener: Opener) -> (Device<u8>, Receiver<Told>) {
    let (told, events) = channel();
    let sink = Box::new(move |event| told.send(event).unwrap_or_default());
    (Device::start("teller", Teller, opener, sink).unwrap(), events)
}

/// Each opening hands its far end to the test.
fn sockets() -> (Opener, Receiver<UnixStream>) {
    let (far_ends, opened) = channel();
    let opener = move |line| {
        assert_eq!(line, LINE);
        let (near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        far_ends.send(far).unwrap();
        let (writer, third) = (near.try_clone().unwrap(), near.try_clone().unwrap());
        let hang_up = move || third.shutdown(std::net::Shutdown::Both).unwrap_or_default();
        Ok(Link {
            reader: Box::new(near),
            writer: Box::new(writer),
            hang_up: Some(Box::new(hang_up)),
        })
    };
    (Box::new(opener), opened)
}

/// Loss prevented: a command, a byte or a timeout that never reaches the engine is a note whose
/// fate nobody learns.
#[test]
fn bytes_commands_and_ticks_reach_the_engine() {
    let (opener, opened) = sockets();
    let (device, events) = start(opener);
    let next = || events.recv_timeout(DEADLINE).unwrap();
    assert_eq!(next(), Told::Up);
    let mut far = opened.recv_timeout(DEADLINE).unwrap();
    far.write_all(b"abc").unwrap();
    assert_eq!(next(), Told::Bytes(b"abc".to_vec()));
    device.send(7).unwrap();
    assert_eq!(next(), Told::Command(7));
    assert_eq!(next(), Told::Tick);
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7]);
    let records = device.trace().records();
    let bytes: Vec<_> = records.iter().map(|r| (r.direction, r.bytes.as_slice())).collect();
    assert_eq!(bytes, [(Direction::Received, &b"abc"[..]), (Direction::Sent, &[7])]);
    drop(device);
    // both threads have let go of the line and of the sink
    assert_eq!(far.read(&mut byte).unwrap(), 0);
    assert!(events.recv_timeout(DEADLINE).is_err());
}

/// Loss prevented: a cable pulled and put back must not need a restart of the machine, nor leave a
/// note in escrow for good.
#[test]
fn a_lost_line_is_told_and_opened_again() {
    let (opener, opened) = sockets();
    let (device, events) = start(opener);
    let next = || events.recv_timeout(DEADLINE).unwrap();
    assert_eq!(next(), Told::Up);
    drop(opened.recv_timeout(DEADLINE).unwrap());
    let Told::Down(why) = next() else { panic!("expected the loss") };
    assert!(why.contains("hung up"), "{why}");
    assert_eq!(next(), Told::Up);
    let mut far = opened.recv_timeout(DEADLINE).unwrap();
    device.send(2).unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [2]);
}

/// Loss prevented: a validator that is plugged in after the machine has started must come up by
/// itself, and until then the reason must be visible.
#[test]
fn a_line_that_cannot_be_opened_yet_is_told_once_and_tried_again() {
    let (mut sockets, _opened) = sockets();
    let mut missing = 2;
    let (_device, events) = start(Box::new(move |line| {
        if missing > 0 {
            missing -= 1;
            return Err(OpenError::NotFound { port: "/dev/ttyJ5".into() });
        }
        sockets(line)
    }));
    let Told::Down(why) = events.recv_timeout(DEADLINE).unwrap() else { panic!("expected Down") };
    assert!(why.contains("/dev/ttyJ5: no such device"), "{why}");
    assert_eq!(events.recv_timeout(DEADLINE).unwrap(), Told::Up);
}

/// Loss prevented: commands (each a proof of an intent) that pile up behind a stuck receiver would
/// all be carried out later, when nobody expects them.
#[test]
fn a_stuck_device_refuses_commands() {
    let (opener, _opened) = sockets();
    let (entered, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (at_entry, at_leave) = (Arc::clone(&entered), Arc::clone(&leave));
    let sink = move |event| {
        if event == Told::Up {
            at_entry.wait();
            at_leave.wait();
        }
    };
    let device = Device::start("stuck", Teller, opener, Box::new(sink)).unwrap();
    entered.wait();
    let taken = (0..100).take_while(|_| device.send(2).is_ok()).count();
    assert_eq!((taken, device.send(2), device.refused()), (64, Err(PortClosed), 2));
    leave.wait();
}

/// Loss prevented: two programs on one validator each see half of its answers; a wrong name must
/// say so; a pseudo-terminal (which has no parity and no modem lines) must work for simulators.
#[test]
fn a_serial_port_is_opened_once_and_refusals_have_words() {
    let mut master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap();

    let mut link = port::open_serial(&path, LINE).unwrap();
    let busy = port::open_serial(&path, LINE).map(drop).unwrap_err();
    assert!(matches!(busy, OpenError::Busy { .. }), "{busy:?}");
    let all: Vec<u8> = (0..=255).collect();
    link.writer.write_all(&all).unwrap();
    let mut got = vec![0; 256];
    master.read_exact(&mut got).unwrap();
    assert_eq!(got, all);
    master.write_all(&all).unwrap();
    link.reader.read_exact(&mut got).unwrap();
    assert_eq!(got, all);
    drop(link);
    port::open_serial(&path, LINE).map(drop).unwrap();

    let missing = port::open_serial("/dev/no-such-port", LINE).map(drop).unwrap_err();
    assert!(matches!(missing, OpenError::NotFound { .. }), "{missing:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = port::open_serial(file.path().to_str().unwrap(), LINE).map(drop).unwrap_err();
    assert!(matches!(file, OpenError::NotSerial { .. }), "{file:?}");
    let null = port::open_serial("/dev/null", LINE).map(drop).unwrap_err();
    assert!(matches!(null, OpenError::Io { .. }), "{null:?}");
}

/// Loss prevented: an unplugged adapter must be seen as such, not as a silent device.
#[test]
fn a_hang_up_of_the_tty_is_a_lost_line() {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let (_device, events) = start(port::serial(&ptsname_r(&master).unwrap()));
    assert_eq!(events.recv_timeout(DEADLINE).unwrap(), Told::Up);
    drop(master);
    let told = events.recv_timeout(DEADLINE).unwrap();
    // by the moment of the read within the hang-up, the kernel says an end or an error
    let lost = |why: &str| why.contains("hung up") || why.contains("read failed");
    assert!(matches!(&told, Told::Down(why) if lost(why)), "{told:?}");
}
