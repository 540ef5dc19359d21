//! The kiosk, from the vault's screen to the customer's button and back.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::ipc::CustomerAction;
use crate::screen::MachineScreen;

/// Sends a request to the kiosk, and reads its answer until `until` stands in it; the connection,
/// still open.
async fn ask(address: &str, head: &str, body: &str, until: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{head}host: {address}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = async {
        let mut buffer = [0u8; 4_096];
        while !answer.contains(until) {
            let got = stream.read(&mut buffer).await.unwrap();
            assert_ne!(got, 0, "the kiosk closed: {answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..got]));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    stream
}

/// Loss prevented: a customer who sees a sale of a vault that is gone, or presses in vain.
#[tokio::test]
async fn the_kiosk_shows_the_vaults_screen_and_brings_it_the_buttons() {
    let mut world = World::new(Manner::Good).await;
    world.start_net();
    let mut talk = world.vault.accept(None).await;
    let url = std::fs::read_to_string(world.folder.path().join("kiosk.url")).unwrap();
    let (address, token) = url.strip_prefix("http://").unwrap().split_once("/#").unwrap();
    let screen = MachineScreen::OutOfService { reasons: vec!["no paper".into()] };
    let screen = serde_json::to_value(screen).unwrap();
    talk.send(ToNet::Screen { number: 7, screen }).await;
    let events = format!("GET /events HTTP/1.1\r\nx-kiosk-token: {token}\r\n");
    let page = ask(address, &events, "", "no paper").await;

    let press =
        format!("POST /action HTTP/1.1\r\nx-kiosk-token: {token}\r\norigin: http://{address}\r\n");
    ask(address, &press, r#"{"action":"cancel"}"#, "202").await;
    let pressed = talk.next().await;
    assert_eq!(pressed, ToVault::Customer(CustomerAction::Cancel));
    // nobody knows any more what the customer sees
    drop(page);
    assert_eq!(talk.next().await, ToVault::Customer(CustomerAction::Gone));

    drop(talk);
    ask(address, &events, "", r#""number":0"#).await;
}
