//! A simulated device behind a pseudo-terminal, in this process.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bitspire_hardware::frame::f56::{ACK, ENQ};
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::{ControlError, Host};
use bitspire_hardware::sim::{SimDevice, SimError};
use serde_json::json;

fn f56() -> Box<dyn SimDevice> {
    Box::new(F56Sim::new(Fit::default()))
}

fn open(path: &Path) -> Box<dyn serialport::SerialPort> {
    let port = serialport::new(path.display().to_string(), 9_600);
    port.timeout(Duration::from_secs(5)).open().unwrap()
}

/// ENQ, and the device's answer.
fn enq(port: &mut Box<dyn serialport::SerialPort>) -> io::Result<[u8; 2]> {
    port.write_all(&ENQ)?;
    let mut answer = [0; 2];
    port.read_exact(&mut answer)?;
    Ok(answer)
}

/// Loss prevented: a simulator that only works in memory proves nothing about the serial port.
#[test]
fn a_program_talks_to_the_device_through_the_port() {
    let host = Host::start(f56(), None).unwrap();
    let path = host.path().unwrap().unwrap();
    assert_eq!(enq(&mut open(&path)).unwrap(), ACK);
    // a second program after the first, as after a restart
    assert_eq!(enq(&mut open(&path)).unwrap(), ACK);
    assert_eq!(host.counters().unwrap()["port"], path.display().to_string());
    host.control(json!({"action": "refill", "bay": 1, "notes": 5})).unwrap();
    assert_eq!(host.counters().unwrap()["bays"][0]["cassette"], 105);
    let refused = host.control(json!({"action": "take"})).unwrap_err();
    assert!(matches!(refused, ControlError::Refused(SimError::State(_))), "{refused:?}");
    let unknown = host.control(json!({"action": "dance"})).unwrap_err().to_string();
    assert!(unknown.contains(r#""action":"take""#) && unknown.contains("dance"), "{unknown}");
}

/// Loss prevented: an adapter that is pulled and comes back under another name.
#[test]
fn unplug_is_a_lost_port_and_plug_another_one_behind_the_same_link() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("dispenser");
    let host = Host::start(f56(), Some(&link)).unwrap();
    let mut port = open(&link);
    assert_eq!(enq(&mut port).unwrap(), ACK);
    host.control(json!({"action": "unplug"})).unwrap();
    enq(&mut port).unwrap_err();
    assert_eq!(host.path().unwrap(), None);
    assert!(host.counters().unwrap()["port"].is_null());
    assert!(fs::symlink_metadata(&link).is_err(), "the link goes with the port");
    host.control(json!({"action": "unplug"})).unwrap_err();
    host.control(json!({"action": "plug"})).unwrap();
    host.control(json!({"action": "plug"})).unwrap_err();
    assert_eq!(enq(&mut open(&link)).unwrap(), ACK);
    drop(host);
    assert!(fs::symlink_metadata(&link).is_err(), "the link goes with the simulator");
}

/// Loss prevented: `--link` over a real file destroys it.
#[test]
fn a_file_that_is_no_link_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("ttyJ7");
    fs::write(&name, "mine").unwrap();
    let error = Host::start(f56(), Some(&name)).map(drop).unwrap_err();
    assert!(error.to_string().contains("another name"), "{error}");
    assert_eq!(fs::read_to_string(&name).unwrap(), "mine");
    fs::remove_file(&name).unwrap();
    symlink("/nonexistent", &name).unwrap();
    let host = Host::start(f56(), Some(&name)).unwrap();
    assert_eq!(fs::read_link(&name).unwrap(), host.path().unwrap().unwrap());
    // taken over by another simulator: the first leaves it alone
    let second = Host::start(f56(), Some(&name)).unwrap();
    drop(host);
    assert_eq!(fs::read_link(&name).unwrap(), second.path().unwrap().unwrap());
}

/// Loss prevented: a host that does not read stops the simulator, and with it the test bench.
#[test]
fn a_host_that_does_not_read_does_not_stop_the_device() {
    let host = Host::start(f56(), None).unwrap();
    let mut port = open(&host.path().unwrap().unwrap());
    for _ in 0..4_000 {
        port.write_all(&ENQ).unwrap();
    }
    assert_eq!(host.counters().unwrap()["powered"], true);
}
