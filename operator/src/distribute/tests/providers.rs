//! Liquidity providers: what they hand over, what of a sale becomes theirs, and what a person does.

use bitspire_shared::money::Fiat;

use super::super::rules::{self, RulesError, Wish};
use super::*;
use crate::ids::{DepositId, LpId};
use crate::lps::{self, Asker, Cash, LpError, Wanted};
use crate::store::lps as kept;
use crate::store::lps::{DepositState, Mode};

/// The first by name says what the node charges for a payment that leaves it.
const WALLETS: &str = "[wallets.ada]\nkind = 'simulated'\nrouting_fee_sats = 3\n[wallets.eve]\n\
    kind = 'simulated'\n[wallets.mallory]\nkind = 'simulated'\n";
const FLOW: Wanted = Wanted { mode: Mode::Flow, daily_limit_minor: None };

fn fixed(minor: i64) -> Wanted {
    Wanted { mode: Mode::Fixed, daily_limit_minor: Some(minor) }
}

fn who() -> Asker {
    Asker { actor: "cli".into(), operator: None }
}

fn eur(minor: i64, reference: &str) -> Cash {
    Cash { fiat: Fiat::new(minor, "EUR".parse().unwrap()), reference: reference.into() }
}

fn goes_to(lp: LpId, wallet: &str) -> Wish {
    let shares = vec![to(wallet, 1_000_000)];
    Wish { scope: Scope::Lp, operator: None, machine: None, lp: Some(lp), shares }
}

impl World {
    /// With fees that have somewhere to go, and no provider yet.
    async fn shop() -> Self {
        let world = Self::with(WALLETS).await;
        world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
        world.rules(Scope::Operator, vec![to("mine", 600_000), to("other", 400_000)]).await;
        world
    }

    /// A provider who takes part everywhere, with so much confirmed.
    async fn provider(&self, name: &str, wanted: Wanted, minor: i64) -> LpId {
        let currency = "EUR".parse().unwrap();
        let id = lps::register(self.app(), who(), None, name, currency, wanted).await.unwrap();
        lps::enrol(self.app(), who(), id, None).await.unwrap();
        self.deposits(id, minor, "first").await;
        id
    }

    /// A world with two providers: one whose sats go to `ada`, one a day at most whose sats are kept.
    pub(super) async fn provided() -> (Self, [LpId; 2]) {
        let world = Self::shop().await;
        let currency = "EUR".parse().unwrap();
        let flow = lps::register(world.app(), who(), None, "Ada", currency, FLOW).await.unwrap();
        // before the first sale a destination counts at once
        rules::change(world.app(), "cli", None, goes_to(flow, "ada")).await.unwrap();
        lps::enrol(world.app(), who(), flow, Some(world.machine)).await.unwrap();
        world.deposits(flow, 30_000, "1").await;
        let fixed = world.provider("Eve", fixed(5_000), 100_000).await;
        (world, [flow, fixed])
    }

    /// Hands over fiat of a provider, and confirms it.
    pub(super) async fn deposits(&self, lp: LpId, minor: i64, reference: &str) {
        let made = lps::deposit(self.app(), who(), lp, eur(minor, reference)).await.unwrap();
        lps::end_deposit(self.app(), who(), made, true).await.unwrap();
    }

    async fn left(&self, lp: LpId) -> i64 {
        let unit = Unit::Fiat("EUR".parse().unwrap());
        -self.read(move |read| ledger::balance(read, Account::Lp(lp), unit)).await
    }

    async fn theirs(&self, lp: LpId) -> i64 {
        -self.balance(Account::Lp(lp)).await
    }

    /// Every sat and every cent of the providers is where the legs and the shares say.
    pub(super) async fn assert_providers(
        &self,
        every: &[KeptLeg],
        [flow, fixed]: [LpId; 2],
        deposited: i64,
    ) {
        let of = |lp, state| -> u64 {
            let all = every.iter().filter(|leg| leg.lp_id == Some(lp) && leg.state == state);
            all.map(|leg| leg.amount_sats.0).sum()
        };
        assert_eq!(self.holds("ada").await, of(flow, LegState::Paid));
        assert_eq!(self.theirs(flow).await, 0);
        assert_eq!(self.theirs(fixed).await, i64::try_from(of(fixed, LegState::Kept)).unwrap());
        for (lp, deposited) in [(flow, deposited), (fixed, 100_000)] {
            let shares = self.read(move |read| kept::newest_shares(read, lp, u32::MAX)).await;
            let spent = shares.iter().filter(|share| share.state != Some(LegState::Void));
            let spent: i64 = spent.map(|share| share.minor).sum();
            assert_eq!(self.left(lp).await, deposited - spent);
        }
    }
}

/// Loss prevented: a provider's sats that come of a fee, or never come; fiat that is spent twice; what
/// nobody has paid for handed out all the same.
#[tokio::test]
async fn providers_get_principal_for_what_they_have_left() {
    let (world, [ada, eve]) = World::provided().await;
    // 10 000 sats cost 10 EUR; Ada may spend 300 EUR, Eve 50 of her 1 000
    let id = world.full().await;
    for _ in 0..2 {
        world.round().await;
        let legs = world.legs(id).await;
        let told: Vec<_> =
            legs.iter().map(|leg| (leg.kind, leg.amount_sats.0, leg.state)).collect();
        let (share, dca, paid) = (LegKind::OperatorSplit, LegKind::Dca, LegState::Paid);
        assert_eq!(
            told,
            [
                (LegKind::SuperFee, 200, paid),
                (share, 180, paid),
                (share, 120, paid),
                (dca, 8_571, paid),
                (dca, 1_428, LegState::Kept),
            ]
        );
    }
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!((world.left(ada).await, world.left(eve).await), (30_000 - 858, 100_000 - 143));
    assert_eq!((world.theirs(ada).await, world.theirs(eve).await), (0, 1_428));
    assert_eq!(world.holds("ada").await, 8_571);
    // the sat that rounding left over is nobody's but the machine's
    assert_eq!(world.balance(Account::Exchange(world.machine)).await, -1);
    world.assert_whole(200, 300).await;
}

/// Loss prevented: a provider who has a daily limit is bought out in one sale; or gets nothing any
/// more on the next day.
#[tokio::test]
async fn a_daily_limit_counts_anew_each_day() {
    let world = World::shop().await;
    let lp = world.provider("Eve", fixed(500), 1_200).await;
    for (day, spent) in [(1, 500), (1, 500), (2, 1_000), (3, 1_200), (4, 1_200)] {
        while world.now.load(Ordering::SeqCst) / 86_400 < NOW / 86_400 + day - 1 {
            world.pass(86_400);
        }
        world.full().await;
        world.round().await;
        assert_eq!(world.left(lp).await, 1_200 - spent, "day {day}");
    }
    // from the next sale on, without a limit
    lps::set_terms(world.app(), who(), lp, FLOW).await.unwrap();
    world.deposits(lp, 2_000, "more").await;
    world.full().await;
    world.round().await;
    assert_eq!((world.left(lp).await, world.theirs(lp).await), (1_000, 22_000));
    world.books_are_the_wallets().await;
}

/// Loss prevented: sats for a cash-in, for a sale at a machine where the provider is not, for someone
/// who was taken out, or for one of another currency.
#[tokio::test]
async fn who_takes_no_part_gets_nothing() {
    let world = World::shop().await;
    let lp = world.provider("Ada", FLOW, 10_000).await;
    let franc = "CHF".parse().unwrap();
    let other = lps::register(world.app(), who(), None, "Urs", franc, FLOW).await.unwrap();
    let refused = lps::enrol(world.app(), who(), other, Some(world.machine)).await.unwrap_err();
    assert!(refused.to_string().contains("CHF, the provider's currency, got EUR"), "{refused}");
    lps::enrol(world.app(), who(), other, None).await.unwrap();
    let francs = Cash { fiat: Fiat::new(10_000, franc), reference: "a".into() };
    let made = lps::deposit(world.app(), who(), other, francs).await.unwrap();
    lps::end_deposit(world.app(), who(), made, true).await.unwrap();
    let twice = lps::enrol(world.app(), who(), lp, None).await;
    assert!(matches!(twice, Err(LpError::Already(_))), "{twice:?}");

    lps::set_disabled(world.app(), who(), lp, true).await.unwrap();
    world.full().await;
    world.round().await;
    lps::set_disabled(world.app(), who(), lp, false).await.unwrap();
    lps::leave(world.app(), who(), lp, None).await.unwrap();
    world.full().await;
    world.round().await;
    assert_eq!((world.left(lp).await, world.theirs(lp).await), (10_000, 0));
    let none = world.read(|read| kept::shares_of(read, SettlementId(1))).await;
    assert_eq!(none, []);
    lps::enrol(world.app(), who(), lp, Some(world.machine)).await.unwrap();
    world.full().await;
    world.round().await;
    assert_eq!((world.left(lp).await, world.theirs(lp).await), (9_000, 10_000));
    world.books_are_the_wallets().await;
}

/// Loss prevented: fiat that nobody has is paid for; one deposit counts twice; more is given back than
/// is left; money of another currency is counted as this one.
#[tokio::test]
async fn a_deposit_counts_once_and_when_it_is_confirmed() {
    let world = World::shop().await;
    let lp = world.provider("Ada", FLOW, 500).await;
    let app = world.app();
    let dollars = Cash { fiat: Fiat::new(1, "USD".parse().unwrap()), reference: "x".into() };
    for refused in [
        lps::deposit(app, who(), lp, dollars.clone()).await,
        lps::give_back(app, who(), lp, dollars).await,
    ] {
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("expected EUR, the currency of the provider"), "{words}");
    }
    for minor in [0, -1, 1_000_000_000_000_001, i64::MAX] {
        assert!(lps::deposit(app, who(), lp, eur(minor, "x")).await.is_err(), "{minor}");
    }
    let second = lps::deposit(app, who(), lp, eur(700, "second")).await.unwrap();
    assert_eq!(lps::deposit(app, who(), lp, eur(700, "second")).await.unwrap(), second);
    let other = lps::deposit(app, who(), lp, eur(701, "second")).await;
    assert!(matches!(other, Err(LpError::Already(_))), "{other:?}");
    assert_eq!(world.left(lp).await, 500, "nobody has confirmed it");
    lps::end_deposit(app, who(), second, true).await.unwrap();
    for came in [true, false] {
        let again = lps::end_deposit(app, who(), second, came).await;
        assert!(matches!(again, Err(LpError::Ended { .. })), "{again:?}");
    }
    assert_eq!(world.left(lp).await, 1_200);
    let third = lps::deposit(app, who(), lp, eur(9, "third")).await.unwrap();
    lps::end_deposit(app, who(), third, false).await.unwrap();
    for again in [eur(9, "third"), eur(10, "third")] {
        let refused = lps::deposit(app, who(), lp, again).await.unwrap_err().to_string();
        assert!(refused.contains("was cancelled: record it under another"), "{refused}");
    }
    let too_much = lps::give_back(app, who(), lp, eur(1_201, "back")).await.unwrap_err();
    assert!(too_much.to_string().contains("12.00 EUR"), "{too_much}");
    let back = lps::give_back(app, who(), lp, eur(200, "back")).await.unwrap();
    assert_eq!(lps::give_back(app, who(), lp, eur(200, "back")).await.unwrap(), back);
    assert_eq!(world.left(lp).await, 1_000);
    // another operator's eyes see neither
    let stranger = Asker { operator: Some(OperatorId(9)), ..who() };
    let hidden = lps::deposit(app, stranger.clone(), lp, eur(1, "y")).await;
    assert!(matches!(hidden, Err(LpError::None(_))), "{hidden:?}");
    let hidden = lps::end_deposit(app, stranger, back, true).await;
    assert!(matches!(hidden, Err(LpError::NoDeposit(DepositId(_)))), "{hidden:?}");
    let states = world.read(move |read| kept::deposits(read, lp)).await;
    let states: Vec<_> = states.iter().map(|one| one.state).collect();
    let confirmed = DepositState::Confirmed;
    assert_eq!(states, [confirmed, DepositState::Cancelled, confirmed, confirmed]);
    world.books_are_the_wallets().await;
}

/// Loss prevented: fiat that is gone for sats that were never paid; sats that were paid by hand and
/// once more by the wallet; what is under way spent a second time.
#[tokio::test]
async fn what_a_person_ends_is_given_back_or_settled_once() {
    let (world, [ada, eve]) = World::provided().await;
    let app = world.app();
    let id = world.full().await;
    // of five legs the last one that is paid is Ada's
    let pay = Behaviour::Succeed;
    world.node().script([pay, pay, pay, Behaviour::Pend]);
    world.round().await;
    let leg = world.legs(id).await.remove(3);
    assert_eq!((leg.state, leg.lp_id), (LegState::Bound, Some(ada)));
    assert_eq!(world.left(ada).await, 30_000 - 858, "what is under way is spent");
    let early = hands::end_leg(app, leg.id, How::Void, world.word()).await;
    assert!(matches!(early, Err(hands::HandsError::Leg { .. })), "{early:?}");
    world.node().resolve("till", leg.payment_hash.unwrap(), false).unwrap();
    world.node().script([Behaviour::Fail; 2]);
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(world.settlement(id).await.distribution, Distribution::Errored);
    assert_eq!(world.left(ada).await, 30_000 - 858, "it may be tried again");
    let failed = world.legs(id).await.remove(3);
    hands::end_leg(app, failed.id, How::Void, world.word()).await.unwrap();
    world.round().await;
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!((world.left(ada).await, world.theirs(ada).await), (30_000, 0));
    assert_eq!(world.holds("ada").await, 0);

    assert_eq!(world.theirs(eve).await, 1_428);
    lps::settle(app, who(), eve, Sats(1_428), "in cash").await.unwrap();
    let again = lps::settle(app, who(), eve, Sats(1_428), "in cash").await;
    assert!(matches!(again, Err(LpError::Already(_))), "{again:?}");
    assert_eq!(world.theirs(eve).await, 0);
    assert_eq!(world.balance(Account::Operator(world.operator)).await, -1_428);
    let last = world.legs(id).await.remove(4);
    assert_eq!(last.state, LegState::ByHand);
    world.books_are_the_wallets().await;
}

/// Loss prevented: what a sale adds while the operator counts out what they have seen is taken for paid.
#[tokio::test]
async fn only_what_was_paid_by_hand_is_settled() {
    let (world, [_, eve]) = World::provided().await;
    let sold = async || {
        let before = world.theirs(eve).await;
        world.full().await;
        world.round().await;
        Sats(u64::try_from(world.theirs(eve).await - before).unwrap())
    };
    let seen = sold().await;
    let later = sold().await;
    let settle = async |sats| lps::settle(world.app(), who(), eve, sats, "in cash").await;
    let both = seen.plus(later).unwrap();
    for odd in [Sats::ZERO, Sats(seen.0 - 1), Sats(seen.0 + 1), Sats(both.0 + 1)] {
        let refused = settle(odd).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("{odd} is not what the oldest")), "{refused}");
    }
    assert_eq!(world.theirs(eve).await, i64::try_from(both.0).unwrap(), "nothing was written");
    settle(seen).await.unwrap();
    assert_eq!(world.theirs(eve).await, i64::try_from(later.0).unwrap());
    let states = world.read(move |read| kept::newest_shares(read, eve, 9)).await;
    let states: Vec<_> = states.iter().map(|share| share.state).collect();
    assert_eq!(states, [Some(LegState::Kept), Some(LegState::ByHand)]);
    settle(later).await.unwrap();
    assert_eq!(world.theirs(eve).await, 0);
    world.books_are_the_wallets().await;
}

/// Loss prevented: the last provider of a machine that only sells waits for ever, for sats that a way
/// inside one node never costs; or a leg to another node takes what its route may cost from nowhere.
#[tokio::test]
async fn a_till_without_a_float_pays_all_of_a_sale() {
    let world = World::shop().await;
    // a float goes out: what is left is what customers pay
    let drain = InvoiceRequest {
        amount: Sats(OPENING),
        memo: "float".into(),
        expiry_s: 300,
        extra: json!({}),
    };
    let drain = world.node().wallet("mallory").make_invoice(drain).await.unwrap();
    world.node().wallet("till").pay(drain.bolt11, Sats::ZERO, json!({})).await.unwrap();
    assert_eq!(world.holds("till").await, 0);
    let lp = world.provider("Ada", FLOW, 100_000).await;
    rules::change(world.app(), "cli", None, goes_to(lp, "ada")).await.unwrap();
    let id = world.full().await;
    world.round().await;
    assert_eq!(world.states(id).await, [LegState::Paid; 4]);
    assert_eq!((world.holds("ada").await, world.holds("till").await), (10_000, 0));

    let away = Destination::LightningAddress("them@pay.example".into());
    let shares = vec![Share { to: away, ..to("ada", 1_000_000) }];
    let wish = Wish { shares, ..goes_to(lp, "ada") };
    rules::change(world.app(), "cli", None, wish).await.unwrap();
    world.pass(86_400);
    let id = world.full().await;
    world.round().await;
    let leg = world.legs(id).await.remove(3);
    let why = leg.detail.clone().unwrap();
    assert!(why.contains("expected 10050 sats") && why.contains("has 10000"), "{why}");
}

/// Loss prevented: whoever has stolen a token leads a provider's sats away at once, or to a wallet that
/// is somebody else's.
#[tokio::test]
async fn where_a_providers_sats_go_changes_as_fees_do() {
    let (world, [ada, eve]) = World::provided().await;
    let change = async |wish| rules::change(world.app(), "cli", None, wish).await;
    world.full().await;
    world.round().await;
    // a provider who was never there, with fiat that nobody has seen, gets nothing for a day
    let mallory = world.provider("Mallory", FLOW, 100_000_000).await;
    let own = change(goes_to(mallory, "mallory")).await.unwrap();
    assert_eq!(own.in_force_at, Unix(NOW + 86_400));
    let early = world.full().await;
    world.round().await;
    let hers = world.legs(early).await.into_iter().find(|leg| leg.lp_id == Some(mallory)).unwrap();
    assert_eq!((hers.state, hers.destination.clone()), (LegState::Kept, None));
    assert_eq!((hers.amount_sats.0 > 9_000, world.holds("mallory").await), (true, 0));
    lps::set_disabled(world.app(), who(), mallory, true).await.unwrap();
    rules::cancel(world.app(), "cli", None, own.id).await.unwrap();
    let later = change(goes_to(ada, "eve")).await.unwrap();
    assert_eq!(later.in_force_at, Unix(NOW + 86_400), "there are sats to lead away");
    for (wish, words) in [
        (goes_to(eve, "ada"), "your own"),
        (goes_to(eve, "eve"), "your own"),
        (goes_to(eve, "mine"), "your own"),
        (goes_to(eve, "till"), "no machine's"),
        (Wish { lp: None, ..goes_to(eve, "other") }, "provider's number"),
        (Wish { scope: Scope::Operator, ..goes_to(eve, "other") }, "none for this scope"),
    ] {
        let refused = change(wish).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    let none = change(goes_to(LpId(9), "eve")).await;
    assert!(matches!(none, Err(RulesError::Lp(LpError::None(_)))), "{none:?}");
    assert_eq!((world.holds("ada").await, world.holds("eve").await), (8_573, 0));
    world.pass(86_400);
    world.full().await;
    world.round().await;
    assert_eq!((world.holds("ada").await, world.holds("eve").await), (8_573, 8_535));
    assert_eq!(world.holds("mallory").await, 0);
    assert_eq!(world.audited("rules.change").await, 3);
    world.assert_whole(600, 900).await;
}

/// Loss prevented: somebody with a hand in the database makes sats somebody's, and no audit says so.
#[tokio::test]
async fn the_audit_finds_shares_and_deposits_that_nothing_makes() {
    for (damage, words) in [
        ("UPDATE lp_shares SET sats = sats + 1 WHERE lp_id = 2", "providers of"),
        ("UPDATE lp_shares SET minor = minor - 1 WHERE lp_id = 1", "providers of"),
        ("UPDATE lp_shares SET left_minor = left_minor + 1 WHERE lp_id = 1", "fiat of"),
        ("UPDATE lp_shares SET used_minor = 7 WHERE lp_id = 2", "spent before"),
        ("UPDATE lp_shares SET may_minor = may_minor - 1 WHERE lp_id = 2", "terms of"),
        ("UPDATE lp_terms SET daily_limit_minor = 1 WHERE lp_id = 2", "terms of"),
        ("UPDATE lp_enrolments SET since = since + 1 WHERE lp_id = 1", "enrolment of"),
        ("UPDATE lp_enrolments SET ended_at = since - 1 WHERE lp_id = 2", "enrolment of"),
        ("UPDATE lp_terms SET created_at = created_at + 1 WHERE lp_id = 1", "newest terms of"),
        (
            "INSERT INTO lp_terms (lp_id, mode, actor, created_at) VALUES (1, 'flow', 'x', 1)",
            "newest terms of",
        ),
        ("UPDATE lp_deposits SET amount_minor = 1 WHERE id = 1", "lp_deposit 1"),
        ("DELETE FROM lp_shares WHERE lp_id = 2", "providers of"),
        ("UPDATE legs SET amount_sats = amount_sats - 1 WHERE lp_id = 1", "dca of provider 1"),
        ("UPDATE rules SET shares = replace(shares, 'ada', 'eve')", "signed for other rules"),
    ] {
        let (world, _) = World::provided().await;
        world.full().await;
        world.round().await;
        assert_eq!(world.differences().await, Vec::<String>::new());
        world.write(move |tx| crate::store::damage(tx, &[damage])).await;
        let told = world.differences().await.concat();
        assert!(told.contains(words), "{damage}: {told}");
    }
}

/// Loss prevented: rows that no code wrote: a provider's leg without their fiat, one of another
/// currency, a deposit that changes after it was confirmed.
#[tokio::test]
async fn the_database_itself_refuses_a_provider_what_is_not_theirs() {
    let (world, [ada, _]) = World::provided().await;
    let id = world.full().await;
    let (machine, now) = (world.machine, Unix(NOW));
    let leg = legs::NewLeg { kind: LegKind::Dca, lp: Some(ada), amount: Sats(5), to: None };
    let planned = world.app().store.write(move |tx| legs::plan(tx, id, &[leg], now)).await;
    assert!(planned.is_err(), "without a share");
    for minor in [0, 1_000_000_000_000_001] {
        let row = kept::Deposit {
            lp_id: ada,
            kind: kept::DepositKind::Deposit,
            reference: "odd".into(),
            amount_minor: minor,
            currency: "EUR".parse().unwrap(),
            state: DepositState::Pending,
            actor: "x".into(),
            created_at: now,
            ended_at: None,
            ended_by: None,
        };
        let written = world.app().store.write(move |tx| kept::insert_deposit(tx, &row)).await;
        assert!(written.is_err(), "{minor} minor units");
    }
    let franc = "CHF".parse().unwrap();
    let urs = lps::register(world.app(), who(), None, "Urs", franc, FLOW).await.unwrap();
    let at = kept::Enrolment { lp_id: urs, machine_id: Some(machine), since: now, ended_at: None };
    let enrolled = world.app().store.write(move |tx| kept::enrol(tx, &at)).await;
    assert!(enrolled.is_err(), "at a machine of another currency");
    let confirmed = world
        .app()
        .store
        .write(move |tx| kept::end_deposit(tx, DepositId(1), DepositState::Cancelled, "x", now))
        .await;
    assert!(confirmed.is_err(), "it counts already");
}

/// Loss prevented: what is kept for a provider pays the operator's fees, and is gone when it is settled.
#[tokio::test]
async fn what_is_kept_for_a_provider_is_no_legs_room() {
    let (world, [_, eve]) = World::provided().await;
    world.full().await;
    world.round().await;
    let id = world.full().await;
    // beside this debt and its routing there are 900 sats for legs, and 1 428 of them are Eve's
    let debt = NewOwed {
        claim_hash: ClaimCode::from_bytes([7; 16]).hash(),
        machine_id: world.machine,
        txid: TxnId::from_bytes([1; 16]),
        reason: OwedReason::Late,
        source: "late".into(),
        sats: Sats((world.holds("till").await - 900) * 200 / 201),
    };
    world.write(move |tx| claims::owe(tx, &debt, Unix(NOW)).map(|_| ())).await;
    world.round().await;
    let first = world.legs(id).await.remove(0);
    assert_eq!((first.kind, first.state), (LegKind::SuperFee, LegState::Planned));
    assert!(first.detail.as_ref().unwrap().contains("kept for providers"), "{:?}", first.detail);
    let both = Sats(u64::try_from(world.theirs(eve).await).unwrap());
    lps::settle(world.app(), who(), eve, both, "in cash").await.unwrap();
    world.round().await;
    assert_eq!(world.legs(id).await.remove(0).state, LegState::Paid);
}
