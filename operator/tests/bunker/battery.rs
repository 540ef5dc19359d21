//! One battery for every bunker: our own, and nsecbunkerd's versions as a double speaks for them.

use std::path::PathBuf;
use std::time::Duration;

use bitspire_operator::ids::CanaryId;
use bitspire_operator::signer::admin::{AdminClient, AdminConfig};
use bitspire_operator::signer::cipher::Encryption;
use bitspire_operator::signer::policy::{PolicyError, ensure_policy};
use bitspire_operator::signer::provision::{ProvisionError, Wiring, provision};
use bitspire_operator::signer::remote::{Remote, RemoteConfig};
use bitspire_operator::signer::service::{Manner, ServiceBunker};
use bitspire_operator::signer::{
    Bunker as _, BunkerAdmin as _, BunkerRule, RemoteSigner as _, SignerError, Tried, admin_key,
    trial,
};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::policy::Policy;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shell::secrets::Keyring;
use nostr::Keys;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::nsecbunkerd::{FORK, Habits, Nsecbunkerd, ODD_FORK, UPSTREAM};
use crate::world::{HOURS, World, public, reason};

const PASSPHRASE: &str = "open sesame";

fn rules() -> Vec<BunkerRule> {
    let rules = Policy::spire().rules.into_iter();
    rules.map(|rule| BunkerRule { method: rule.method.as_str().into(), kind: rule.kind }).collect()
}

/// A bunker, and what restarts it.
trait Place {
    fn world(&self) -> &World;
    fn admin(&self) -> &AdminClient;
    async fn restart(&mut self);
}

/// Our own, administered in one of the two encryptions.
struct Ours {
    world: World,
    admin: AdminClient,
}

impl Ours {
    async fn new(encryption: Encryption) -> Self {
        let world = World::new().await;
        let config = AdminConfig {
            encryption: Some(encryption),
            ..AdminConfig::new(world.id, world.relays.clone(), world.second_admin.clone())
        };
        let admin = start(&world, config).await;
        Self { world, admin }
    }
}

impl Place for Ours {
    fn world(&self) -> &World {
        &self.world
    }
    fn admin(&self) -> &AdminClient {
        &self.admin
    }
    async fn restart(&mut self) {
        self.world.restart().await;
    }
}

/// A double of nsecbunkerd.
pub(crate) struct Theirs {
    /// Relay and time; its own bunker is idle.
    pub(crate) world: World,
    pub(crate) bunker: Nsecbunkerd,
    admin_keys: Keys,
    pub(crate) admin: AdminClient,
}

impl Theirs {
    pub(crate) async fn new(habits: Habits) -> Self {
        let (world, admin_keys) = (World::new().await, Keys::generate());
        let bunker = Nsecbunkerd::start(habits, public(&admin_keys), &world).await;
        let config = Self::config(&world, &bunker, &admin_keys);
        let admin = start(&world, config).await;
        Self { world, bunker, admin_keys, admin }
    }

    fn config(world: &World, bunker: &Nsecbunkerd, admin: &Keys) -> AdminConfig {
        AdminConfig {
            passphrase: Some(Zeroizing::new(PASSPHRASE.into())),
            timeout: Duration::from_secs(4),
            ..AdminConfig::new(bunker.id, world.relays.clone(), admin.clone())
        }
    }

    /// What the service connects with, its keys in `folder`.
    pub(crate) fn wiring(&self, folder: &TempDir) -> Wiring {
        Wiring {
            keyring: Keyring::open(folder.path(), None).unwrap(),
            relays: self.world.relays.clone(),
            clock: self.world.time.clock(),
            tasks: self.world.tasks.clone(),
            stop: self.world.stop.clone(),
        }
    }

    fn asked(&self, method: &str) -> usize {
        self.bunker.state().asked.iter().filter(|asked| *asked == method).count()
    }
}

impl Place for Theirs {
    fn world(&self) -> &World {
        &self.world
    }
    fn admin(&self) -> &AdminClient {
        &self.admin
    }
    async fn restart(&mut self) {
        self.bunker.restart().await;
        for key in self.admin.keys().await.unwrap() {
            assert_eq!(key.key, None, "{} is open after a restart", key.name);
            self.admin.unlock(key.name).await.unwrap();
        }
    }
}

async fn start(world: &World, config: AdminConfig) -> AdminClient {
    let (tasks, stop) = (&world.tasks, world.stop.clone());
    AdminClient::start(config, world.time.clock(), tasks, stop).await.unwrap()
}

async fn client(
    world: &World,
    key: PubKey,
    client: &Keys,
    secret: Option<BunkerSecret>,
    seconds: u64,
) -> Remote {
    let config = RemoteConfig::new(key, world.relays.clone(), client.clone());
    let config = RemoteConfig { secret, timeout: Duration::from_secs(seconds), ..config };
    let (clock, stop) = (world.time.clock(), world.stop.clone());
    Remote::start(config, clock, &world.tasks, stop).await.unwrap()
}

async fn token(admin: &AdminClient, key: &str, policy: i64) -> (i64, BunkerSecret) {
    admin.create_token(key.into(), "machine".into(), policy, HOURS).await.unwrap();
    let tokens = admin.tokens(key.into()).await.unwrap();
    let newest = tokens.into_iter().max_by_key(|token| token.id).unwrap();
    assert!(newest.redeemed_at.is_none() && newest.expires_at.is_some());
    (newest.id, newest.secret().unwrap().clone())
}

/// A machine's life, from its key to its revocation.
async fn battery(place: &mut impl Place) {
    let admin = place.admin().clone();
    admin.ping().await.unwrap();
    assert!(admin.keys().await.unwrap().is_empty());
    assert_eq!(admin.key("spire-1".into()).await.unwrap(), None);
    let keys = Keys::generate();
    let key = admin.create_key("spire-1".into(), keys.clone()).await.unwrap();
    assert_eq!(key, public(&keys));
    assert_eq!(admin.key("spire-1".into()).await.unwrap().unwrap().key, Some(key));
    let taken = admin.create_key("spire-1".into(), Keys::generate()).await;
    assert!(reason(taken).contains("exists already"));
    assert_eq!(admin.keys().await.unwrap()[0].key, Some(key), "nothing was overwritten");
    let policy = ensure_policy(&admin, Policy::SPIRE, &rules()).await.unwrap();
    assert_eq!(ensure_policy(&admin, Policy::SPIRE, &rules()).await.unwrap(), policy);
    assert_eq!(admin.policies().await.unwrap().len(), 1);

    let (_, secret) = token(&admin, "spire-1", policy).await;
    let ours = Keys::generate();
    let world = place.world();
    let machine = client(world, key, &ours, Some(secret.clone()), 10).await;
    machine.connect().await.unwrap();
    let document = machine.sign(world.event(key, 30_078, "x")).await.unwrap();
    assert_eq!(document.pubkey, key.nostr());
    let note = machine.sign(world.event(key, 1, "x")).await;
    assert!(matches!(note, Err(SignerError::Refused { .. })), "{note:?}");
    let text = Zeroizing::new("cassettes".to_owned());
    let peer = public(&Keys::generate());
    let payload = machine.encrypt(peer, text.clone()).await.unwrap();
    assert_eq!(machine.decrypt(peer, payload).await.unwrap(), text);
    let tokens = admin.tokens("spire-1".into()).await.unwrap();
    assert!(tokens.len() == 1 && tokens[0].redeemed_at.is_some());
    let thief = client(world, key, &Keys::generate(), Some(secret), 10).await;
    assert!(matches!(thief.connect().await, Err(SignerError::Refused { .. })));

    place.restart().await;
    let world = place.world();
    let again = client(world, key, &ours, None, 10).await;
    again.connect().await.unwrap();
    again.sign(world.event(key, 21_000, "x")).await.unwrap();

    let (unused_id, unused) = token(&admin, "spire-1", policy).await;
    admin.revoke_token(unused_id).await.unwrap();
    let late = client(world, key, &Keys::generate(), Some(unused), 10).await;
    assert!(matches!(late.connect().await, Err(SignerError::Refused { .. })));
    let users = admin.users("spire-1".into()).await.unwrap();
    let [user] = &users[..] else { panic!("{users:?}") };
    assert_eq!((user.key, user.revoked_at), (public(&ours), None));
    admin.revoke_user(user.id.clone()).await.unwrap();
    let refused = again.sign(world.event(key, 21_000, "y")).await;
    assert!(matches!(refused, Err(SignerError::Refused { .. })), "{refused:?}");
    assert!(admin.users("spire-1".into()).await.unwrap()[0].revoked_at.is_some());
    let (_, fresh) = token(&admin, "spire-1", policy).await;
    let dead = client(world, key, &ours, Some(fresh), 10).await;
    let _ = dead.connect().await;
    let refused = dead.sign(world.event(key, 21_000, "z")).await;
    assert!(matches!(refused, Err(SignerError::Refused { .. })), "revoked stays revoked");

    let (_, old) = token(&admin, "spire-1", policy).await;
    world.time.pass(u64::from(HOURS) * 3_600 + 1);
    let late = client(world, key, &Keys::generate(), Some(old), 10).await;
    assert!(reason(late.connect().await).contains("expired"), "a token has an end");
}

/// Loss prevented: a fleet that can be paired with one bunker alone; a bunker that other software
/// cannot administer.
#[tokio::test]
async fn every_bunker_lets_a_machine_in_and_cuts_it_off() {
    for encryption in [Encryption::Nip44, Encryption::Nip04] {
        battery(&mut Ours::new(encryption).await).await;
    }
    for habits in [FORK, ODD_FORK] {
        let mut theirs = Theirs::new(habits).await;
        battery(&mut theirs).await;
        let dialect = theirs.admin.dialect().unwrap();
        assert_eq!((dialect.kind, dialect.encryption), (habits.kinds[0], Encryption::Nip44));
        assert!(theirs.bunker.state().published.is_empty(), "a machine's key was announced");
    }
}

/// Loss prevented: an operator who finds out at the first sale what the bunker cannot do; a bunker
/// that is asked to change something in an encryption that it may not read.
#[tokio::test]
async fn what_a_bunker_cannot_do_is_said_in_plain_words() {
    let ours = Ours::new(Encryption::Nip44).await;
    let able = ours.admin.abilities().await.unwrap();
    assert!(able.cannot().is_empty() && able.software.unwrap().starts_with("bitspire "));
    let fork = Theirs::new(FORK).await;
    let able = fork.admin.abilities().await.unwrap();
    assert!(able.revokes_tokens && able.adds_rules && !able.enforces_policies);
    assert_eq!(able.cannot().len(), 3, "{able:?}");

    let upstream = Theirs::new(UPSTREAM).await;
    let able = upstream.admin.abilities().await.unwrap();
    assert!(!able.revokes_tokens && !able.adds_rules && able.cannot().len() == 5, "{able:?}");
    assert_eq!(upstream.admin.dialect().unwrap().encryption, Encryption::Nip04);
    // it stops half-way at the first rule without a kind, and is asked once
    let refused = ensure_policy(&upstream.admin, Policy::SPIRE, &rules()).await.unwrap_err();
    let PolicyError::Differs { missing, beyond, .. } = &refused else { panic!("{refused}") };
    assert_eq!((missing.as_str(), beyond.as_str()), ("nip44_encrypt, nip44_decrypt", ""));
    assert!(refused.to_string().contains("version of nsecbunkerd that has"), "{refused}");
    assert_eq!(upstream.asked("create_new_policy"), 1);
    assert!(ensure_policy(&upstream.admin, Policy::SPIRE, &rules()).await.is_err());
    assert_eq!(upstream.asked("create_new_policy"), 1, "what is there is not made again");
}

/// Loss prevented: a key or a policy that exists twice because a reply was lost.
#[tokio::test]
async fn what_got_no_reply_is_looked_up_and_not_repeated() {
    let theirs = Theirs::new(FORK).await;
    for lost in ["create_new_policy", "create_new_key", "create_new_token"] {
        theirs.bunker.state().lose_reply = Some(lost);
        let folder = tempfile::tempdir().unwrap();
        let wiring = theirs.wiring(&folder);
        let name = lost.replace('_', "-");
        let signer = provision(&theirs.admin, &name, &wiring).await.unwrap();
        signer.sign(theirs.world.event(signer.key(), 30_078, lost)).await.unwrap();
        assert_eq!(theirs.bunker.state().lose_reply, None, "{lost} was not asked for");
    }
    let counts = ["create_new_key", "create_new_policy", "create_new_token"];
    assert_eq!(counts.map(|method| theirs.asked(method)), [3, 1, 3]);
}

/// Loss prevented: a fleet that stands still after the bunker was restarted, or two responders that
/// answer each request twice; an operator who is not told to unlock.
#[tokio::test]
async fn a_locked_key_is_unlocked_once() {
    let mut theirs = Theirs::new(FORK).await;
    let key = theirs.admin.create_key("spire-1".into(), Keys::generate()).await.unwrap();
    let policy = ensure_policy(&theirs.admin, Policy::SPIRE, &rules()).await.unwrap();
    let (_, secret) = token(&theirs.admin, "spire-1", policy).await;
    let (ours, document) = (Keys::generate(), theirs.world.event(key, 30_078, "x"));
    client(&theirs.world, key, &ours, Some(secret), 10).await.connect().await.unwrap();
    theirs.bunker.restart().await;
    let waits = client(&theirs.world, key, &ours, None, 1).await;
    let silent = waits.sign(document.clone()).await;
    assert_eq!(silent, Err(SignerError::NoReply { method: "sign_event", seconds: 1 }));
    assert!(theirs.admin.tokens("spire-1".into()).await.unwrap().is_empty(), "while it is locked");

    let config = Theirs::config(&theirs.world, &theirs.bunker, &theirs.admin_keys);
    let unknowing = start(&theirs.world, AdminConfig { passphrase: None, ..config.clone() }).await;
    assert!(reason(unknowing.unlock("spire-1".into()).await).contains("bunker.passphrase_file"));
    let wrong = Some(Zeroizing::new("wrong".to_owned()));
    let wrong = start(&theirs.world, AdminConfig { passphrase: wrong, ..config }).await;
    assert!(reason(wrong.unlock("spire-1".into()).await).contains("bad decrypt"));
    assert!(reason(theirs.admin.unlock("none".into()).await).contains("no such key"));
    // its reply is lost: it is looked at, not asked for again
    theirs.bunker.state().lose_reply = Some("unlock_key");
    theirs.admin.unlock("spire-1".into()).await.unwrap();
    theirs.admin.unlock("spire-1".into()).await.unwrap();
    assert_eq!(theirs.bunker.state().responders["spire-1"], 1);
    waits.sign(document).await.unwrap();
}

/// Loss prevented: an operator's key in a bunker that cannot encrypt one document with it, found out
/// at the first one.
#[tokio::test]
async fn a_bunker_without_nip44_is_named_at_the_start() {
    let theirs = Theirs::new(Habits { nip44_methods: false, ..FORK }).await;
    let folder = tempfile::tempdir().unwrap();
    let wiring = theirs.wiring(&folder);
    let refused = provision(&theirs.admin, "operator-1", &wiring).await;
    let Err(refused @ ProvisionError::NoNip44(_)) = refused else { panic!("it was taken") };
    assert!(refused.to_string().contains("version of nsecbunkerd"), "{refused}");
}

/// What a bunker makes of a grant that has expired, found out as the service does it each day.
async fn after_its_end(
    place: &impl Place,
    id: PubKey,
    keyring: Keyring,
    passphrase_file: Option<PathBuf>,
) -> Tried {
    let world = place.world();
    let wiring = Wiring {
        keyring,
        relays: world.relays.clone(),
        clock: world.time.clock(),
        tasks: world.tasks.clone(),
        stop: world.stop.clone(),
    };
    let manner = Manner { encryption: Some(Encryption::Nip44), passphrase_file };
    let bunker = ServiceBunker::start(id, wiring, manner).await.unwrap();
    let name = trial::name(CanaryId(1));
    for _ in 0..2 {
        bunker.renew(&name).unwrap();
        trial::grant(&bunker, &name, world.time.now()).await.unwrap();
    }
    let users = bunker.admin().users(name.clone()).await.unwrap();
    assert_eq!(users.iter().filter(|user| user.revoked_at.is_none()).count(), 1, "{users:?}");
    assert_eq!(trial::ask(&bunker, &name, world.time.now()).await.unwrap(), Tried::Signed);
    world.time.pass(trial::GOOD_S + 1);
    trial::ask(&bunker, &name, world.time.now()).await.unwrap()
}

/// Loss prevented: a proof that every bunker passes, or none, and that nobody can believe.
#[tokio::test]
async fn an_expired_grant_is_refused_by_our_own_bunker_and_signed_by_nsecbunkerd() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::open(folder.path(), None).unwrap();
    let admin = public(&admin_key(&keyring).unwrap());
    let mut ours = Ours::new(Encryption::Nip44).await;
    ours.admin.ping().await.unwrap();
    ours.world.restart_with(vec![public(&ours.world.admin_keys), admin]).await;
    let id = ours.world.id;
    let refused = after_its_end(&ours, id, keyring.clone(), None).await;
    assert!(matches!(&refused, Tried::Refused(words) if words.contains("expired")), "{refused:?}");

    let mut theirs = Theirs::new(FORK).await;
    theirs.bunker = Nsecbunkerd::start(FORK, admin, &theirs.world).await;
    let id = theirs.bunker.id;
    let passphrase = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(passphrase.path(), PASSPHRASE).unwrap();
    let passphrase = Some(passphrase.path().to_owned());
    assert_eq!(after_its_end(&theirs, id, keyring, passphrase).await, Tried::Signed);
}
