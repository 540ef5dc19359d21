//! The switch at the machine's door.

use bitspire_agent::config::DoorConfig;
use bitspire_agent::txn::View;

use crate::limits::out_of_service;
use crate::machine::Machine;

/// Loss prevented: a customer at a machine whose inside somebody has their hands in, and an opening
/// that nobody hears of; or a shop that is closed by a broken switch.
#[test]
fn an_open_door_stops_new_sales_and_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("value");
    let shows = |word: &str| std::fs::write(&path, format!("{word}\n")).unwrap();
    shows("0");
    let mut machine = Machine::ready();
    machine.stop();
    machine.config.vault.door = Some(DoorConfig { path: path.clone(), open: "1".to_owned() });
    machine.start();
    machine.wait_for_sale();
    // what was begun is ended
    machine.sell(2_000);
    shows("1");
    machine.until("the word of it", |machine| machine.alerts().contains("door_open"));
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    assert!(machine.take());
    machine.until("no new sale", |machine| {
        machine.touch_once(bitspire_agent::ipc::CustomerAction::Finish);
        out_of_service(machine, "door")
    });
    assert!(machine.alerts().contains("door_opened"));
    machine.stop();
    machine.start();
    machine.until("still none", |machine| out_of_service(machine, "door"));
    // closed while the vault was down
    machine.stop();
    shows("0");
    machine.sent.clear();
    machine.start();
    machine.wait_for_sale();
    machine.until("the word of that", |machine| machine.alerts().contains("door_closed"));
    std::fs::remove_file(&path).unwrap();
    machine.until("a switch that is broken", |machine| machine.alerts().contains("door_unknown"));
    machine.wait_for_sale();
    // a switch that breaks while the door stands open closes the shop no longer than it works
    shows("1");
    machine.until("no sale", |machine| out_of_service(machine, "door"));
    std::fs::remove_file(&path).unwrap();
    machine.wait_for_sale();
    shows("1");
    machine.until("no sale again", |machine| out_of_service(machine, "door"));
    // each opening is told with its own time
    let opened = |machine: &Machine| {
        let alerts = machine.last_report()["alerts"].as_array().cloned().unwrap_or_default();
        let mut opened = alerts.iter().filter(|alert| alert["code"] == "door_opened");
        opened.find_map(|alert| alert["since"].as_u64())
    };
    let first = opened(&machine).unwrap();
    shows("0");
    machine.wait_for_sale();
    machine.service.clock += 60;
    machine.all_heard();
    shows("1");
    machine.until("the second opening", |machine| opened(machine).is_some_and(|at| at > first));
    machine.stop();
    let journal = machine.journal();
    let seen = journal.iter().filter(|entry| entry.body.contains("\"key\":\"door\""));
    let seen: Vec<bool> = seen.map(|entry| entry.body.contains("\"open\":true")).collect();
    assert_eq!(seen, [false, true, false, true, false, true]);
}
