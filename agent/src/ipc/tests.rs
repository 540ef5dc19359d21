//! What crosses the socket, whole or not at all, and never printed.

use super::*;

/// Loss prevented: a message cut or merged on the socket becomes another message.
#[test]
fn messages_survive_the_socket_and_any_split() {
    let messages = [
        ToVault::Hello { version: VERSION, role: Role::Net },
        ToVault::Customer(CustomerAction::StartCashOut { fiat_minor: 2_000 }),
    ];
    let mut bytes = Vec::new();
    for message in &messages {
        write(&mut bytes, message).unwrap();
    }
    /// Gives one byte a call, as a slow socket may, with a signal before each.
    struct Trickle(std::collections::VecDeque<u8>, bool);
    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some(byte) = self.0.pop_front() else { return Ok(0) };
            buffer[0] = byte;
            Ok(1)
        }
    }
    let mut trickle = Trickle(bytes.into(), false);
    for message in messages {
        assert_eq!(read::<ToVault>(&mut trickle).unwrap(), Some(message));
    }
    assert_eq!(read::<ToVault>(&mut trickle).unwrap(), None);
}

/// Loss prevented: a hostile `net` makes the vault allocate without end, or crash.
#[test]
fn long_broken_and_unknown_frames_end_the_connection() {
    let huge = u32::MAX.to_be_bytes();
    assert!(matches!(read::<ToVault>(&mut &huge[..]), Err(IpcError::TooLong { .. })));
    let cut = [0, 0, 0, 9, b'{'];
    assert!(matches!(read::<ToVault>(&mut &cut[..]), Err(IpcError::Io(_))));
    let mut unknown = vec![0, 0, 0, 14];
    unknown.extend_from_slice(b"{\"type\":\"pay\"}");
    assert!(matches!(read::<ToVault>(&mut &unknown[..]), Err(IpcError::NoMessage(_))));
    let long = ToVault::ConnectFailed(Refused::new("bunker_refused", "x".repeat(MAX_FRAME)));
    assert!(matches!(encode(&long), Err(IpcError::TooLong { .. })));
}

/// Loss prevented: a seed secret in a log is a stolen machine.
#[test]
fn secrets_are_not_printed() {
    let seed = ToVault::Seed { seed_url: SecretText::new("spire-seed:v1:abc".into()) };
    assert!(!format!("{seed:?}").contains("abc"));
    let screen = ToNet::Screen { number: 1, screen: serde_json::json!({"claim": "abc"}) };
    assert_eq!(format!("{screen:?}"), "Screen");
}
