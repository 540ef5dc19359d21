//! The scripted customer at a real kiosk.

use std::path::PathBuf;
use std::time::Duration;

use bitspire_agent::ipc::{CustomerAction, ToVault};
use bitspire_agent::kiosk::Kiosk;
use bitspire_agent::screen::{MachineScreen, Numbered};
use bitspire_tests::customer::Customer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Boot {
    screens: watch::Sender<Option<Numbered>>,
    actions: mpsc::Receiver<ToVault>,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

/// One boot of a kiosk on `listener`'s address.
async fn boot(address: std::net::SocketAddr, file: PathBuf) -> Boot {
    let listener = TcpListener::bind(address).await.unwrap();
    let (screens, shown) = watch::channel(None);
    let (send, actions) = mpsc::channel(16);
    let kiosk = Kiosk::new(listener.local_addr().unwrap(), shown, send).unwrap();
    std::fs::write(file, kiosk.url().expose()).unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(kiosk.serve(listener, stop.clone()));
    Boot { screens, actions, stop, serving }
}

/// Loss prevented: end-to-end tests whose customer sees what no customer sees, or does not come back
/// after the machine restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sees_screens_touches_and_finds_the_machine_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kiosk-url");
    let [port] = bitspire_tests::world::free_ports().unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let Boot { screens, mut actions, stop, serving } = boot(address, file.clone()).await;
    let customer = std::sync::Arc::new(Customer::new(file.clone()).unwrap());
    screens.send(Some(Numbered { number: 7, screen: MachineScreen::Starting })).unwrap();
    let sees = |words: &'static [&'static str]| {
        let customer = customer.clone();
        tokio::task::spawn_blocking(move || customer.sees(words, PATIENCE))
    };
    let (word, html) = sees(&["Out of", "One moment"]).await.unwrap().unwrap();
    assert_eq!(word, "One moment");
    assert!(html.contains("The machine is starting"), "{html}");
    assert_eq!(actions.recv().await, Some(ToVault::Customer(CustomerAction::Seen { screen: 7 })));
    let touching = customer.clone();
    let touch = move || touching.touches(&json!({"action": "start_cash_out", "fiat_minor": 2_000}));
    tokio::task::spawn_blocking(touch).await.unwrap().unwrap();
    let start = CustomerAction::StartCashOut { fiat_minor: 2_000 };
    assert_eq!(actions.recv().await, Some(ToVault::Customer(start)));

    // another boot: another token
    stop.cancel();
    serving.await.unwrap().unwrap();
    let Boot { screens, actions: _actions, .. } = boot(address, file).await;
    let reasons = vec!["no rate".to_owned()];
    let screen = MachineScreen::OutOfService { reasons };
    screens.send(Some(Numbered { number: 1, screen })).unwrap();
    let (_, html) = sees(&["Out of service"]).await.unwrap().unwrap();
    assert!(html.contains("no rate"), "{html}");
}
