//! A bunker that does what a test tells it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitspire_shared::ids::PubKey;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use futures_util::future::BoxFuture;
use nostr::{Keys, UnsignedEvent};
use serde_json::{Value, json};

use crate::signer::local::LocalSigner;
use crate::signer::{
    Abilities, Bunker, BunkerAdmin, BunkerKey, BunkerPolicy, BunkerToken, BunkerUser, NewRule,
    PolicyChange, RemoteSigner, SetupError, SignerError, SignerResult, Tried, Uses,
};
use crate::testing::key;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It says no.
    Refused,
    /// Nobody took the request.
    NotSent,
    /// No reply, and nothing was done.
    Lost,
    /// No reply, though it was done.
    Unheard,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) keys: Vec<BunkerKey>,
    /// With the name of their key.
    pub(crate) users: Vec<(String, BunkerUser)>,
    pub(crate) policies: Vec<BunkerPolicy>,
    /// With the name of their key.
    pub(crate) tokens: Vec<(String, BunkerToken)>,
    /// Clients that were given more time.
    pub(crate) extended: Vec<(String, Unix)>,
    /// Our end's key, by the name of the key that it is for.
    pub(crate) clients: BTreeMap<String, PubKey>,
    /// Operator keys sign; otherwise they do not answer.
    pub(crate) signs: bool,
    /// Every key that was made.
    pub(crate) held: BTreeMap<String, Keys>,
    /// It is somebody else's software.
    pub(crate) foreign: bool,
    /// Keys that are locked, by name.
    pub(crate) locked: BTreeMap<String, PubKey>,
    /// The next call of this method goes wrong.
    pub(crate) fault: Option<(&'static str, Fault)>,
    /// It does not have this method.
    pub(crate) unknown: Option<&'static str>,
    /// The next key that is made turns out to be this one.
    pub(crate) other_key: Option<PubKey>,
    /// What was granted for trials has expired.
    pub(crate) lapsed: bool,
    /// It signs for what has expired.
    pub(crate) forgives: bool,
    /// Every call, by its method.
    pub(crate) calls: Vec<&'static str>,
}

/// The bunker.
pub(crate) struct Double {
    own: PubKey,
    state: Mutex<State>,
}

impl Double {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { own: key(), state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, method: &'static str, fault: Fault) {
        self.state().fault = Some((method, fault));
    }

    /// A machine redeems the newest token of a key.
    pub(crate) fn redeem(&self, key_name: &str) -> PubKey {
        let client = key();
        let mut state = self.state();
        let id = state.users.len().to_string();
        let user = BunkerUser {
            id,
            key: client,
            name: Some(key_name.to_owned()),
            created_at: Some(Unix(1)),
            last_used_at: None,
            revoked_at: None,
        };
        state.users.push((key_name.to_owned(), user));
        let token = state.tokens.iter_mut().rev().find(|(name, _)| name == key_name).unwrap();
        token.1.redeemed_at = Some(Unix(1));
        client
    }

    /// The clients that still may use a key.
    pub(crate) fn live_users(&self, key_name: &str) -> usize {
        let state = self.state();
        let of = state.users.iter().filter(|(name, _)| name == key_name);
        of.filter(|(_, user)| user.revoked_at.is_none()).count()
    }

    fn call<T: Send + 'static>(
        &self,
        method: &'static str,
        work: impl FnOnce(&mut State) -> T,
    ) -> SignerResult<'_, T> {
        let mut state = self.state();
        state.calls.push(method);
        let fault = state.fault.take_if(|(failing, _)| *failing == method).map(|(_, fault)| fault);
        let silent = SignerError::NoReply { method, seconds: 15 };
        if state.unknown == Some(method) {
            let reason = format!("Unknown method {method}");
            return Box::pin(async move { Err(SignerError::Refused { method, reason }) });
        }
        let answer = match fault {
            None => Ok(work(&mut state)),
            Some(Fault::Refused) => Err(SignerError::Refused { method, reason: "no".into() }),
            Some(Fault::NotSent) => Err(SignerError::NotSent { method }),
            Some(Fault::Lost) => Err(silent),
            Some(Fault::Unheard) => {
                work(&mut state);
                Err(silent)
            }
        };
        Box::pin(async move { answer })
    }
}

impl BunkerAdmin for Double {
    fn ping(&self) -> SignerResult<'_, ()> {
        self.call("ping", |_| ())
    }

    fn keys(&self) -> SignerResult<'_, Vec<BunkerKey>> {
        self.call("keys", |state| state.keys.clone())
    }

    fn key(&self, name: String) -> SignerResult<'_, Option<BunkerKey>> {
        self.call("key", move |state| state.keys.iter().find(|key| key.name == name).cloned())
    }

    fn create_key(&self, name: String, keys: Keys) -> SignerResult<'_, PubKey> {
        self.call("create_key", move |state| {
            let own = PubKey::new(keys.public_key()).unwrap();
            let key = state.other_key.take().unwrap_or(own);
            state.held.insert(name.clone(), keys);
            state.keys.push(BunkerKey { name, key: Some(key) });
            key
        })
    }

    fn unlock(&self, name: String) -> SignerResult<'_, ()> {
        self.call("unlock", move |state| {
            for locked in state.keys.iter_mut().filter(|key| key.name == name) {
                locked.key = state.locked.remove(&name);
            }
        })
    }

    fn users(&self, key_name: String) -> SignerResult<'_, Vec<BunkerUser>> {
        self.call("users", move |state| {
            let of = state.users.iter().filter(|(name, _)| *name == key_name);
            of.map(|(_, user)| user.clone()).collect()
        })
    }

    fn revoke_user(&self, id: String) -> SignerResult<'_, ()> {
        self.call("revoke_user", move |state| {
            for (_, user) in state.users.iter_mut().filter(|(_, user)| user.id == id) {
                user.revoked_at = Some(Unix(1));
            }
        })
    }

    fn policies(&self) -> SignerResult<'_, Vec<BunkerPolicy>> {
        self.call("policies", |state| state.policies.clone())
    }

    fn create_policy(
        &self,
        name: String,
        rules: Vec<NewRule>,
        expires_at: Option<Unix>,
    ) -> SignerResult<'_, ()> {
        self.call("create_policy", move |state| {
            let id = i64::try_from(state.policies.len()).unwrap() + 1;
            let uses = rules.iter().map(|rule| Uses { so_far: 0, most: rule.most }).collect();
            let rules = rules.into_iter().map(|rule| rule.rule).collect();
            state.policies.push(BunkerPolicy { id, name, rules, uses, expires_at });
        })
    }

    fn add_rule(&self, policy_id: i64, rule: NewRule) -> SignerResult<'_, ()> {
        self.call("add_rule", move |state| {
            for policy in state.policies.iter_mut().filter(|policy| policy.id == policy_id) {
                policy.rules.push(rule.rule.clone());
                policy.uses.push(Uses { so_far: 0, most: rule.most });
            }
        })
    }

    fn change_policy(&self, policy_id: i64, change: PolicyChange) -> SignerResult<'_, ()> {
        self.call("change_policy", move |state| {
            let policies = state.policies.iter_mut();
            for policy in policies.filter(|policy| policy.id == policy_id) {
                match &change {
                    PolicyChange::Ends(end) => policy.expires_at = *end,
                    PolicyChange::Cap { rule, most } => {
                        for (at, _) in policy.rules.iter().enumerate().filter(|(_, r)| *r == rule) {
                            policy.uses[at].most = Some(*most);
                        }
                    }
                }
            }
        })
    }

    fn create_token(
        &self,
        key_name: String,
        client_name: String,
        _policy_id: i64,
        _hours: u32,
    ) -> SignerResult<'_, ()> {
        self.call("create_token", move |state| {
            let id = i64::try_from(state.tokens.len()).unwrap() + 1;
            let secret = Some(BunkerSecret::new(&format!("{id:064x}")).unwrap());
            let (expires_at, redeemed_at) = (None, None);
            let (policy, redeemed_by) = (None, None);
            let token = BunkerToken {
                id,
                client_name,
                secret,
                policy,
                expires_at,
                redeemed_at,
                redeemed_by,
            };
            state.tokens.push((key_name, token));
        })
    }

    fn tokens(&self, key_name: String) -> SignerResult<'_, Vec<BunkerToken>> {
        self.call("tokens", move |state| {
            let of = state.tokens.iter().filter(|(name, _)| *name == key_name);
            of.map(|(_, token)| token.clone()).collect()
        })
    }

    fn revoke_token(&self, id: i64) -> SignerResult<'_, ()> {
        self.call("revoke_token", move |state| state.tokens.retain(|(_, token)| token.id != id))
    }

    fn extend_user(&self, id: String, until: Unix) -> SignerResult<'_, ()> {
        self.call("extend_user", move |state| {
            state.extended.push((id, until));
        })
    }

    fn audit(&self, _: u32) -> SignerResult<'_, Value> {
        self.call("audit", |_| json!({"requests": [], "refused": [], "admin": []}))
    }

    fn abilities(&self) -> SignerResult<'_, Abilities> {
        self.call("abilities", |state| Abilities {
            software: (!state.foreign).then(|| "double".into()),
            revokes_tokens: true,
            adds_rules: true,
            ends_grants: false,
            enforces_policies: !state.foreign,
            keeps_audit: false,
        })
    }
}

/// Signs nothing: for tests in which nobody asks it to.
struct Mute(PubKey);

impl RemoteSigner for Mute {
    fn key(&self) -> PubKey {
        self.0
    }

    fn sign(&self, _: nostr::UnsignedEvent) -> SignerResult<'_, nostr::Event> {
        Box::pin(async { Err(SignerError::NotSent { method: "sign_event" }) })
    }

    fn encrypt(&self, _: PubKey, _: zeroize::Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async { Err(SignerError::NotSent { method: "nip44_encrypt" }) })
    }

    fn decrypt(&self, _: PubKey, _: String) -> SignerResult<'_, zeroize::Zeroizing<String>> {
        Box::pin(async { Err(SignerError::NotSent { method: "nip44_decrypt" }) })
    }
}

impl Bunker for Double {
    fn key(&self) -> PubKey {
        self.own
    }

    fn admin(&self) -> &dyn BunkerAdmin {
        self
    }

    fn own_keys(&self) -> Vec<PubKey> {
        Vec::new()
    }

    fn prepare(&self, _: &str) -> Result<(), SetupError> {
        Ok(())
    }

    fn renew(&self, name: &str) -> Result<(), SetupError> {
        self.state().clients.insert(name.to_owned(), key());
        Ok(())
    }

    fn try_sign(
        &self,
        name: String,
        secret: Option<BunkerSecret>,
        _: UnsignedEvent,
    ) -> BoxFuture<'_, Result<Tried, SetupError>> {
        Box::pin(async move {
            if let Some(secret) = secret {
                let state = self.state();
                let ours = |token: &BunkerToken| {
                    token.redeemed_at.is_none()
                        && token.secret.as_ref().is_some_and(|s| s.expose() == secret.expose())
                };
                assert!(state.tokens.iter().any(|(of, token)| *of == name && ours(token)));
                drop(state);
                let client = self.redeem(&name);
                self.state().clients.insert(name.clone(), client);
            }
            let tried = self.call("try_sign", |state| {
                let client = state.clients.get(&name).copied();
                let users = state.users.iter().filter(|(of, _)| *of == name);
                let mut live = users.filter(|(_, user)| user.revoked_at.is_none());
                let known = live.any(|(_, user)| Some(user.key) == client);
                match known && (state.forgives || !state.lapsed) {
                    true => Tried::Signed,
                    false => Tried::Refused("Not authorized".into()),
                }
            });
            Ok(tried.await?)
        })
    }

    fn provision(&self, name: String) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>> {
        Box::pin(async move {
            let key = match BunkerAdmin::key(self, name.clone()).await?.and_then(|there| there.key)
            {
                Some(there) => there,
                None => self.create_key(name.clone(), Keys::generate()).await?,
            };
            let state = self.state();
            match state.held.get(&name).filter(|_| state.signs) {
                Some(keys) => Ok(Arc::new(LocalSigner::new(keys.clone())?) as _),
                None => Ok(Arc::new(Mute(key)) as Arc<dyn RemoteSigner>),
            }
        })
    }

    fn reopen(
        &self,
        key: PubKey,
        _: String,
    ) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>> {
        Box::pin(async move { Ok(Arc::new(Mute(key)) as Arc<dyn RemoteSigner>) })
    }
}
