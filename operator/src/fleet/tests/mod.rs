//! Pairing, confirming and revoking against a bunker that fails at will.

mod canary;
pub(crate) mod double;
mod moving;
mod pairing;
mod rekeying;
mod renewing;
mod revoking;

use std::sync::Arc;

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::FeePpm;
use bitspire_shared::seed::{Loopback, Seed};

use super::pair::{Failed, Paired, Request, pair};
use super::{confirm, identity, machines, upkeep};
use crate::app::App;
use crate::ids::{MachineId, OperatorId};
use crate::store::StoreError;
use crate::store::machines::{self as rows, KeptMachine};
use crate::store::operators;
use crate::testing::{World, key};
use double::Double;

const RELAY: &str = "wss://relay.example";

/// A daemon with an operator's key in a bunker, and one machine.
pub(super) struct Site {
    world: World,
    pub(super) bunker: Arc<Double>,
    machine: MachineId,
}

fn request() -> Request {
    let relays = vec![RELAY.to_owned()];
    Request { relays, hours: None, bunker_relay: None, loopback: Loopback::Refused }
}

impl Site {
    pub(super) async fn new() -> Self {
        Self::of(World::with("[relay]\nembedded = false\n").await).await
    }

    async fn of(world: World) -> Self {
        let bunker = Double::new();
        assert!(world.app.bunker.set(bunker.clone()).is_ok());
        identity::init(&world.app, "test", OperatorId(1)).await.unwrap();
        let machine = add(&world.app, "till").await;
        Self { world, bunker, machine }
    }

    pub(super) fn app(&self) -> &Arc<App> {
        &self.world.app
    }

    async fn restarted(self) -> Self {
        let Self { world, bunker, machine } = self;
        let world = world.restarted().await;
        assert!(world.app.bunker.set(bunker.clone()).is_ok());
        Self { world, bunker, machine }
    }

    pub(super) async fn pair(&self) -> Result<Paired, Failed> {
        pair(self.app(), "test", None, self.machine, &request()).await
    }

    async fn row(&self) -> KeptMachine {
        let id = self.machine;
        let found = self.app().store.read::<_, StoreError, _>(move |read| rows::find(read, id));
        found.await.unwrap().unwrap()
    }

    /// The machine redeems the seed and opens its first session.
    async fn boot(&self, paired: &Paired) -> (PubKey, PubKey) {
        let client = self.bunker.redeem(&paired.bunker_key_name);
        upkeep::round(self.app()).await.unwrap();
        let (id, vault) = (self.machine, key());
        let pin = self.app().store.write(move |tx| rows::pin_vault(tx, id, vault));
        pin.await.map_err(|error: StoreError| error).unwrap();
        (client, vault)
    }

    /// Paired, redeemed and confirmed.
    async fn in_service(&self) -> (Paired, PubKey) {
        let paired = self.pair().await.map_err(|failed| failed.error).unwrap();
        let (client, vault) = self.boot(&paired).await;
        let digits = bitspire_shared::seed::confirmation_digits(
            &paired.spire,
            &client,
            &vault,
            &self.app().service_key,
        );
        confirm::confirm(self.app(), "test", None, self.machine, &digits).await.unwrap();
        (paired, client)
    }

    fn seed(&self, paired: &Paired) -> Seed {
        Seed::parse(&paired.seed_url, self.app().clock.now(), Loopback::Refused).unwrap()
    }
}

async fn add(app: &App, wallet: &str) -> MachineId {
    let fee = FeePpm::new(50_000).unwrap();
    let new = machines::NewMachine {
        operator: OperatorId(1),
        name: format!("at {wallet}"),
        place: String::new(),
        currency: "EUR".parse().unwrap(),
        wallet_id: wallet.to_owned(),
        npub: None,
        cash_in_fee: fee,
        cash_out_fee: fee,
    };
    machines::add(app, "test", new).await.unwrap().id
}
