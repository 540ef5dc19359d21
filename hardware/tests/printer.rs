//! A printer behind a port: engine, runner, pseudo-terminal and simulator together.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bitspire_hardware::frame::escpos::Writer;
use bitspire_hardware::port::{Device, Opener, lp, serial};
use bitspire_hardware::printer::escpos::EscPos;
use bitspire_hardware::printer::{PrinterCommand, PrinterEvent, Slip};
use bitspire_hardware::sim::escpos::EscPosSim;
use bitspire_hardware::sim::host::Host;
use serde_json::json;

fn start(opener: Opener) -> (Device<PrinterCommand>, Receiver<PrinterEvent>) {
    let (sender, events) = channel();
    let sink = Box::new(move |event| drop(sender.send(event)));
    (Device::start("printer", EscPos::new(38_400), opener, sink).unwrap(), events)
}

fn slip() -> Slip {
    let mut slip = Writer::new(32);
    slip.heading("Receipt");
    slip.text("claim 0123456789abcdef0123456789abcdef");
    slip.qr(&"A".repeat(1_000));
    Slip::new(slip.cut())
}

fn wait(events: &Receiver<PrinterEvent>, wanted: impl Fn(&PrinterEvent) -> bool) {
    loop {
        let event = events.recv_timeout(Duration::from_secs(30)).unwrap();
        if wanted(&event) {
            return;
        }
    }
}

/// Loss prevented: a printer that works in memory only; a claim code in what support looks at.
#[test]
fn a_slip_goes_through_a_serial_and_a_usb_port() {
    let ports: [fn(&str) -> Opener; 2] = [serial, lp];
    for opener in ports {
        let host = Host::start(Box::new(EscPosSim::new(500)), None).unwrap();
        let path = host.path().unwrap().unwrap().display().to_string();
        let (printer, events) = start(opener(&path));
        wait(&events, |event| matches!(event, PrinterEvent::Ready { .. }));
        printer.send(PrinterCommand::Print(slip())).unwrap();
        wait(&events, |event| *event == PrinterEvent::Printed);
        let taken = host.control(json!({"action": "take"})).unwrap();
        let text = taken["slips"][0].as_str().unwrap();
        assert!(text.contains(&"A".repeat(1_000)), "{text}");
        let trace = printer.trace().lines().join("\n");
        assert!(trace.contains("DLE EOT 4") && !trace.contains("41 41 41"), "{trace}");

        host.control(json!({"action": "paper", "lines": 0})).unwrap();
        printer.send(PrinterCommand::Print(slip())).unwrap();
        wait(&events, |event| matches!(event, PrinterEvent::NotPrinted { .. }));
    }
}

/// Loss prevented: a printer whose name is wrong, and a technician who is not told.
#[test]
fn a_port_that_is_none_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lp0");
    std::fs::write(&file, "").unwrap();
    let (_printer, events) = start(lp(&file.display().to_string()));
    wait(
        &events,
        |event| matches!(event, PrinterEvent::Fault(fault) if fault.detail.contains("correct the port")),
    );
    let (_printer, events) = start(lp("/nowhere/lp0"));
    wait(
        &events,
        |event| matches!(event, PrinterEvent::Fault(fault) if fault.detail.contains("plug it in")),
    );
}
