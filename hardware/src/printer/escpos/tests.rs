//! The engine against the simulated printer, without a clock.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::frame::escpos::Writer;
use crate::sim::SimDevice as _;
use crate::sim::escpos::EscPosSim;

/// Engine and printer with time in steps of 100 ms.
struct Bench {
    engine: EscPos,
    sim: EscPosSim,
    now: Mono,
    wake_at: Option<Mono>,
    events: Vec<PrinterEvent>,
    sent: Vec<Vec<u8>>,
}

impl Bench {
    fn new(paper: u32) -> Self {
        let (engine, sim) = (EscPos::new(38_400), EscPosSim::new(paper));
        let (events, sent) = (Vec::new(), Vec::new());
        let mut bench = Self { engine, sim, now: Mono(0), wake_at: None, events, sent };
        let output = bench.engine.on_link_up(bench.now);
        bench.apply(output);
        bench
    }

    fn apply(&mut self, output: Output<PrinterEvent>) {
        let mut output = output;
        loop {
            self.wake_at = output.wake_at;
            self.events.append(&mut output.events);
            if output.write.is_empty() {
                return;
            }
            let answer = self.sim.on_bytes(&output.write, self.now);
            self.sent.push(std::mem::take(&mut output.write));
            if answer.is_empty() {
                return;
            }
            output = self.engine.on_bytes(&answer, self.now);
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.now = self.now.after(100);
            let late = self.sim.on_tick(self.now);
            if !late.is_empty() {
                let output = self.engine.on_bytes(&late, self.now);
                self.apply(output);
            }
            if self.wake_at.is_some_and(|at| at <= self.now) {
                let output = self.engine.on_tick(self.now);
                self.apply(output);
            }
        }
    }

    fn print(&mut self) {
        let mut slip = Writer::new(32);
        slip.text("claim code 0123456789abcdef");
        slip.qr("BSR1:ABC");
        let output = self.engine.command(PrinterCommand::Print(Slip::new(slip.cut())), self.now);
        self.apply(output);
    }

    fn control(&mut self, action: serde_json::Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn told(&mut self) -> Vec<PrinterEvent> {
        std::mem::take(&mut self.events)
    }

    fn fault(&mut self) -> String {
        let told = self.told();
        let fault = told.iter().find_map(|event| match event {
            PrinterEvent::Fault(fault) => Some(fault.detail.clone()),
            _ => None,
        });
        fault.unwrap_or_else(|| panic!("expected a fault, got {told:?}"))
    }
}

const READY: PrinterEvent = PrinterEvent::Ready { paper_low: false };

/// Loss prevented: a customer without a slip at a printer that is well.
#[test]
fn a_slip_is_printed_once_and_told() {
    let mut bench = Bench::new(500);
    assert_eq!(bench.told(), [READY]);
    bench.print();
    bench.pass(60_000);
    assert_eq!(bench.told(), [PrinterEvent::Printed]);
    let counters = bench.sim.counters();
    assert_eq!((&counters["cuts"], &counters["codes"]), (&json!(1), &json!(1)));
    bench.print();
    assert_eq!(bench.told(), [PrinterEvent::Printed], "the next one");
}

/// Loss prevented: "photograph the screen" told too late, and a claim code that the next customer
/// finds on paper.
#[test]
fn without_paper_nothing_is_sent_and_the_reason_is_told() {
    let mut bench = Bench::new(0);
    assert!(bench.fault().contains("no paper"));
    bench.print();
    assert!(
        matches!(&bench.told()[..], [PrinterEvent::NotPrinted { why }] if why.contains("paper"))
    );
    bench.control(json!({"action": "paper", "lines": 500}));
    bench.pass(10_000);
    assert_eq!(bench.told(), [READY]);
    assert_eq!(bench.sim.counters()["at_exit"], 0, "nothing comes out by itself");

    // taken out between the last look and the slip: the look before the slip finds it
    bench.control(json!({"action": "cover", "open": true}));
    bench.print();
    let told = bench.told();
    assert!(
        matches!(&told[..], [PrinterEvent::NotPrinted { .. }, PrinterEvent::Fault(_)]),
        "{told:?}"
    );
    assert_eq!(bench.sim.counters()["unprinted_bytes"], 0);
}

/// Loss prevented: half a slip told as printed, its other half for whoever stands there later.
#[test]
fn what_a_printer_has_not_printed_is_cleared_out_of_it() {
    let mut bench = Bench::new(5);
    assert_eq!(bench.told(), [PrinterEvent::Ready { paper_low: true }]);
    bench.print();
    bench.pass(3_000);
    let told = bench.told();
    assert!(
        matches!(&told[..], [PrinterEvent::NotPrinted { .. }, PrinterEvent::Fault(_)]),
        "{told:?}"
    );
    let counters = bench.sim.counters();
    assert_eq!((&counters["unprinted_bytes"], &counters["cleared"]), (&json!(0), &json!(2)));
    bench.control(json!({"action": "paper", "lines": 500}));
    bench.pass(10_000);
    assert_eq!(bench.told(), [READY]);
    assert_eq!(bench.sim.counters()["at_exit"], 0);
}

/// Loss prevented: a printer that was switched off and is believed ready, or never again.
#[test]
fn silence_is_told_and_ends() {
    let mut bench = Bench::new(500);
    bench.told();
    bench.control(json!({"action": "power", "on": false}));
    bench.print();
    bench.pass(10_000);
    let told = bench.told();
    assert!(
        matches!(&told[..], [PrinterEvent::NotPrinted { .. }, PrinterEvent::Fault(_)]),
        "{told:?}"
    );
    bench.control(json!({"action": "power", "on": true}));
    bench.pass(10_000);
    assert_eq!(bench.told(), [READY]);
    let output = bench.engine.on_link_down("unplugged", bench.now);
    bench.apply(output);
    assert!(bench.fault().contains("unplugged"));
    let output = bench.engine.on_link_up(bench.now);
    bench.apply(output);
    assert_eq!(bench.told(), [READY]);
}

/// Loss prevented: a claim code in the log of a machine whose printer jammed.
#[test]
fn no_slip_is_in_the_trace() {
    let mut bench = Bench::new(500);
    bench.print();
    for bytes in &bench.sent {
        let kept = EscPos::traced(Direction::Sent, bytes);
        assert!(kept.len() <= 3, "{kept:?}");
        let words = EscPos::in_words(Direction::Sent, &kept);
        assert!(!words.contains("0123456789abcdef"), "{words}");
    }
    let slip = Slip::new(b"0123456789abcdef".to_vec());
    assert_eq!(format!("{:?}", PrinterCommand::Print(slip)), "Print(Slip(16 bytes))");
}

/// Loss prevented: a second slip in the middle of the first.
#[test]
fn one_slip_at_a_time() {
    let mut bench = Bench::new(500);
    bench.told();
    bench.control(json!({"action": "power", "on": false}));
    bench.print();
    bench.print();
    assert!(
        matches!(&bench.told()[..], [PrinterEvent::NotPrinted { why }] if why.contains("another"))
    );
}

proptest! {
    /// Loss prevented: a byte on a bad cable that ends the driver, or passes for the end of a slip
    /// that was never sent.
    #[test]
    fn no_bytes_panic_or_print(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut engine = EscPos::new(9_600);
        engine.on_link_up(Mono(0));
        let events = engine.on_bytes(&bytes, Mono(5)).events;
        prop_assert!(!events.contains(&PrinterEvent::Printed));
    }
}
