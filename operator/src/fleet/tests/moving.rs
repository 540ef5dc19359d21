//! An operator's key that was there before: taken in, moved into the bunker, and what lies at rest.

use std::os::unix::fs::PermissionsExt as _;

use nostr::{Keys, ToBech32 as _};
use zeroize::Zeroizing;

use super::double::{Double, Fault};
use super::*;
use bitspire_shell::secrets::audit::Kept;

use crate::audit::keys::keys as secrets;
use crate::fleet::{FleetError, account};
use crate::store::operators::{self, SignerKind};

const FIRST: OperatorId = OperatorId(1);

/// A daemon whose operator has no key yet.
struct Start {
    world: World,
    bunker: Arc<Double>,
    keys: Keys,
    key: PubKey,
}

impl Start {
    async fn new() -> Self {
        let world = World::with("[relay]\nembedded = false\n").await;
        let bunker = Double::new();
        bunker.state().signs = true;
        assert!(world.app.bunker.set(bunker.clone()).is_ok());
        let keys = Keys::generate();
        let key = PubKey::new(keys.public_key()).unwrap();
        Self { world, bunker, keys, key }
    }

    async fn import(&self) -> Result<PubKey, FleetError> {
        let nsec = Zeroizing::new(self.keys.secret_key().to_bech32().unwrap());
        account::import(&self.world.app, "test", FIRST, &nsec).await
    }

    async fn signer(&self) -> Option<SignerKind> {
        let found = self.world.app.store.read(|read| operators::find(read, FIRST)).await;
        found.map_err(|error: StoreError| error).unwrap().unwrap().signer
    }

    fn file(&self) -> std::path::PathBuf {
        self.world.folder.path().join("operator-1.sealed")
    }

    /// Encrypts and decrypts with the key that is in use.
    async fn works(&self) {
        let signer = self.world.app.signer(self.key).expect("a signer");
        let text = Zeroizing::new("fees".to_owned());
        let payload = signer.encrypt(key(), text.clone()).await.unwrap();
        assert!(!payload.contains("fees"));
        let own = signer.encrypt(self.key, text.clone()).await.unwrap();
        assert_eq!(signer.decrypt(self.key, own).await.unwrap(), text);
        assert!(signer.decrypt(self.key, payload).await.is_err(), "for somebody else");
    }
}

/// Loss prevented: machines that have pinned a key which nobody can use any more; a key that stays
/// behind in the service after it was moved.
#[tokio::test]
async fn an_operators_key_moves_into_the_bunker_and_is_erased() {
    let start = Start::new().await;
    let app = start.world.app.clone();
    assert!(matches!(account::migrate(&app, "test", FIRST).await, Err(FleetError::NoIdentity)));
    assert_eq!(start.import().await.unwrap(), start.key);
    assert!(matches!(start.import().await, Err(FleetError::HasIdentity { .. })));
    assert_eq!(start.signer().await, Some(SignerKind::Local));
    start.works().await;
    let bytes = std::fs::read(start.file()).unwrap();
    let hex = start.keys.secret_key().to_secret_hex();
    assert!(!String::from_utf8_lossy(&bytes).contains(&hex), "it is sealed");
    let calm = secrets(&app).await.unwrap();
    assert!(calm.ok, "an operator without machines: {:?}", calm.findings);
    add(&app, "till").await;
    let found = secrets(&app).await.unwrap();
    assert!(!found.ok && found.findings[0].contains("account migrate-to-bunker"), "{found:?}");

    for fault in [Fault::Refused, Fault::NotSent, Fault::Lost] {
        start.bunker.fail("create_key", fault);
        let failed = account::migrate(&app, "test", FIRST).await;
        assert!(matches!(failed, Err(FleetError::Bunker { .. })), "{fault:?}: {failed:?}");
        assert_eq!(start.signer().await, Some(SignerKind::Local));
        assert!(start.file().exists());
        start.works().await;
    }
    // its reply is lost: it is looked up, and gone on with
    start.bunker.fail("create_key", Fault::Unheard);
    assert_eq!(account::migrate(&app, "test", FIRST).await.unwrap(), start.key);
    assert_eq!(start.signer().await, Some(SignerKind::Bunker));
    assert!(!start.file().exists());
    start.works().await;
    assert!(secrets(&app).await.unwrap().ok);
    let again = account::migrate(&app, "test", FIRST).await;
    assert!(matches!(again, Err(FleetError::HasIdentity { .. })));
}

/// Loss prevented: a restart after which nothing is signed, or a key that was moved and is still here.
#[tokio::test]
async fn a_restart_takes_up_what_is_here_and_erases_what_was_moved() {
    let Start { world, bunker, keys, key } = Start::new().await;
    let start = Start { world, bunker, keys, key };
    start.import().await.unwrap();
    let sealed = std::fs::read(start.file()).unwrap();
    let Start { world, bunker, keys, key } = start;
    let world = world.restarted().await;
    assert!(world.app.bunker.set(bunker.clone()).is_ok());
    let start = Start { world, bunker, keys, key };
    assert!(start.world.app.signer(key).is_none());
    account::reopen(&start.world.app).await.unwrap();
    start.works().await;
    account::migrate(&start.world.app, "test", FIRST).await.unwrap();
    // the process died before it erased the file
    std::fs::write(start.file(), &sealed).unwrap();
    let mut mode = std::fs::metadata(start.file()).unwrap().permissions();
    mode.set_mode(0o600);
    std::fs::set_permissions(start.file(), mode).unwrap();
    let left = secrets(&start.world.app).await.unwrap();
    assert!(!left.ok && left.findings[0].contains("nobody's use"), "{left:?}");
    account::reopen(&start.world.app).await.unwrap();
    assert!(!start.file().exists());
    assert!(secrets(&start.world.app).await.unwrap().ok);
}

/// Loss prevented: a private key in an error, or one that is another's, or a half of an import.
#[tokio::test]
async fn what_is_no_key_of_its_own_is_not_taken_in() {
    let start = Start::new().await;
    let app = &start.world.app;
    for wrong in ["", "nsec1qqqq", "5e5e5e5e", "npub1xyz"] {
        let refused = account::import(app, "test", FIRST, wrong).await.unwrap_err();
        assert!(matches!(refused, FleetError::Invalid { field: "nsec", .. }));
        assert!(wrong.is_empty() || !refused.to_string().contains(wrong), "{refused}");
    }
    let service = Zeroizing::new(app.service.secret_key().to_secret_hex());
    let taken = account::import(app, "test", FIRST, &service).await.unwrap_err();
    assert!(matches!(taken, FleetError::KeyTaken { .. }), "{taken}");
    let nobody = account::import(app, "test", OperatorId(9), &service).await;
    assert!(matches!(nobody, Err(FleetError::NoOperator(_))));
    assert!(!start.file().exists() && start.signer().await.is_none());
}

/// Loss prevented: a secret that lies about and that no list names.
#[tokio::test]
async fn every_file_at_rest_is_told() {
    let start = Start::new().await;
    let (app, folder) = (&start.world.app, start.world.folder.path());
    crate::signer::admin_key(&app.keyring).unwrap();
    std::fs::write(folder.join("notes.txt"), "nsec1...").unwrap();
    let told = secrets(app).await.unwrap();
    let kept = |name: &str| {
        let found = told.secrets.iter().find(|secret| secret.file.ends_with(name));
        found.unwrap_or_else(|| panic!("{name} is not told: {told:?}")).kept
    };
    assert_eq!((kept("service.sealed"), kept("admin.sealed")), (Kept::Sealed, Kept::Sealed));
    assert_eq!((kept("machine-secret"), kept("operator.db")), (Kept::Clear, Kept::Clear));
    assert_eq!(kept("notes.txt"), Kept::Unknown);
    assert!(!told.ok && told.findings[0].contains("notes.txt: not a file of ours"), "{told:?}");
    std::fs::remove_file(folder.join("notes.txt")).unwrap();
    assert!(secrets(app).await.unwrap().ok);
    // somebody opened the folder, and the secret in it, to everybody
    let open = |path: &std::path::Path, bits| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
    };
    open(folder, 0o755);
    open(&folder.join("machine-secret"), 0o644);
    let told = secrets(app).await.unwrap();
    assert!(told.findings.iter().any(|found| found.contains("machine-secret: others may read")));
}
