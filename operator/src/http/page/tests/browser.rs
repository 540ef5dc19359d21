//! The page as its user has it: its own scripts, run by a JavaScript engine against the API.

use std::sync::Arc;

use bitspire_shared::ids::{BayId, JournalSeq};
use bitspire_shared::money::Denomination;
use nostr::Keys;
use rquickjs::loader::{BuiltinLoader, BuiltinResolver};
use rquickjs::{CatchResultExt as _, Context, Ctx, Module, Object, Runtime};
use serde_json::{Value, json};

use super::super::{ASSETS, SCRIPT};
use crate::fleet::tests::double::{Double, Fault};
use crate::http::tests::{As, Site};
use crate::rpc::tests::verdicts::Bunker;
use crate::store::cassettes::{self, Cassette, Heartbeat};
use crate::store::{self, StoreError, machines, operators};
use crate::testing::{World, key};

const BROWSER: &str = include_str!("browser.js");

/// A tab that shows the page of a daemon.
struct Tab {
    site: Site,
    bunker: Arc<Double>,
    context: Context,
    runtime: Runtime,
}

impl Tab {
    /// Opens the page with the owner's token in its address.
    async fn open() -> Self {
        let world = World::with("[relay]\nembedded = false\n").await;
        let bunker = Double::new();
        assert!(world.app.bunker.set(bunker.clone()).is_ok());
        let site = Site::of(world).await;
        let runtime = Runtime::new().unwrap();
        let (mut resolver, mut loader) = (BuiltinResolver::default(), BuiltinLoader::default());
        for (path, kind, text) in ASSETS {
            if kind == SCRIPT {
                let name = path.trim_start_matches("/assets/");
                resolver.add_module(name);
                loader.add_module(name, text);
            }
        }
        runtime.set_loader(resolver, loader);
        let context = Context::full(&runtime).unwrap();
        let tab = Self { site, bunker, context, runtime };
        let As::Token(token) = tab.site.cookie() else { unreachable!() };
        tab.with(|js| {
            js.eval::<(), _>(BROWSER)?;
            js.eval::<(), _>(format!("location.hash = '#token={token}'"))?;
            Module::evaluate(js.clone(), "start", "import './page.js';")?;
            Ok(())
        });
        tab.settle().await;
        tab
    }

    fn with<R>(&self, work: impl FnOnce(&Ctx<'_>) -> rquickjs::Result<R>) -> R {
        self.context.with(|js| match work(&js).catch(&js) {
            Ok(done) => done,
            Err(error) => panic!("{error}"),
        })
    }

    /// Calls what the browser offers to tests.
    fn ask(&self, name: &str, texts: &[&str]) -> String {
        self.with(|js| {
            let test: Object<'_> = js.globals().get("test")?;
            test.set("texts", texts.to_vec())?;
            let code = format!("String(test.{name}(...test.texts) ?? '')");
            js.eval(code)
        })
    }

    fn run(&self) {
        while self.runtime.execute_pending_job().unwrap_or_else(|_| panic!("a job threw")) {}
    }

    /// Lets the API answer until nothing is asked any more.
    async fn settle(&self) {
        self.run();
        loop {
            let asked = self.ask("next", &[]);
            if asked.is_empty() {
                return;
            }
            let [method, path, authorization, body]: [String; 4] =
                serde_json::from_str(&asked).unwrap();
            let token = authorization.trim_start_matches("Bearer ").to_owned();
            let body = serde_json::from_str(&body).unwrap_or(Value::Null);
            let got = self.site.call(&As::Token(token), &method, &path, body).await;
            self.ask("answer", &[&got.status.to_string(), &got.body.to_string()]);
            self.run();
        }
    }

    async fn press(&self, words: &str) {
        self.ask("press", &[words]);
        self.settle().await;
    }

    async fn go(&self, address: &str) {
        self.ask("go", &[address]);
        self.settle().await;
    }

    fn types(&self, fields: &[(&str, &str)]) {
        for (name, text) in fields {
            self.ask("type", &[name, text]);
        }
    }

    #[track_caller]
    fn shows(&self, words: &str) {
        let text = self.ask("text", &[]);
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }

    /// The seed that is shown now.
    fn seed(&self) -> String {
        self.ask("shown", &[".seed"])
    }

    async fn pair(&self, button: &str) -> String {
        self.types(&[("relays", "wss://relay.example")]);
        self.press(button).await;
        let seed = self.seed();
        assert!(seed.starts_with("spire-seed:v1:"), "{}", self.ask("text", &[]));
        seed
    }

    #[track_caller]
    fn has_nothing_of(&self, seed: &str) {
        for place in ["whole", "kept"] {
            assert!(!self.ask(place, &[]).contains(seed), "the seed is still in {place}");
        }
    }

    /// A fleet of one machine, on its page.
    async fn with_machine() -> Self {
        let tab = Self::open().await;
        tab.press("Make the key").await;
        tab.types(&[("name", "Bar"), ("fiat_code", "eur"), ("wallet_id", "till")]);
        tab.press("Add machine").await;
        tab.shows("Bar is added");
        tab
    }
}

/// Loss prevented: a seed that whoever comes to the browser next finds, in the page, the address,
/// the history or the tab's store, after its user left it or the machine used it.
#[tokio::test]
async fn a_seed_is_in_the_page_until_it_is_left_and_nowhere_else() {
    let tab = Tab::with_machine().await;
    assert_eq!(tab.ask("address", &[]), "#/machines/1");
    let seed = tab.pair("Pair").await;
    assert!(!tab.ask("kept", &[]).contains(&seed));
    tab.press("Copy the seed").await;
    assert_eq!(tab.ask("clipboard", &[]), seed);
    tab.ask("tick", &[]);
    tab.settle().await;
    assert_eq!(tab.seed(), seed, "a refresh took it away");
    tab.go("#/settlements").await;
    tab.has_nothing_of(&seed);
    tab.go("#/distribution").await;
    tab.shows("Every fee is where it belongs");
    tab.go("#/providers").await;
    tab.shows("None: what is sold for notes stays");
    tab.go("#/machines/1").await;
    tab.has_nothing_of(&seed);

    let seed = tab.pair("Pair anew").await;
    tab.press("Done: take it away").await;
    tab.has_nothing_of(&seed);
    let seed = tab.pair("Pair anew").await;
    tab.ask("hide", &[]);
    tab.has_nothing_of(&seed);
    let seed = tab.pair("Pair anew").await;
    let revoke = "/api/v1/dca/machines/1/revoke";
    tab.site.post(&tab.site.cookie(), revoke, Value::Null).await.expect(200);
    tab.ask("tick", &[]);
    tab.settle().await;
    tab.has_nothing_of(&seed);
    let seed = tab.pair("Pair anew").await;
    tab.ask("leave", &[]);
    tab.settle().await;
    tab.has_nothing_of(&seed);
    let As::Token(token) = tab.site.cookie() else { unreachable!() };
    tab.go(&format!("#token={token}")).await;
    tab.go("#/machines/1").await;
    tab.shows("Key in the bunker");
    tab.has_nothing_of(&seed);
    tab.site.stop().await;
}

/// Loss prevented: a thousand that is recorded as one; fiat that is said to be given back by a slip.
#[tokio::test]
async fn a_providers_fiat_is_recorded_as_it_was_typed() {
    let tab = Tab::with_machine().await;
    tab.go("#/providers").await;
    tab.shows("None: what is sold for notes stays");
    tab.types(&[("name", "Ada"), ("currency", "eur")]);
    tab.press("Register").await;
    tab.shows("Ada is registered");
    for odd in ["1,000", "1000,50", "1.000,50", "ten"] {
        tab.types(&[("amount", odd), ("reference", "R1")]);
        tab.press("Record").await;
        let blamed = tab.ask("blamed", &[]);
        assert!(
            blamed.starts_with("amount: expected a number") && blamed.ends_with(odd),
            "{blamed}"
        );
    }
    tab.shows("None yet.");
    tab.types(&[("amount", "1000.50"), ("reference", "R1")]);
    tab.press("Record").await;
    for words in ["1000.50 EUR", "pending", "0.00 EUR", "nowhere yet", "kept for them"] {
        tab.shows(words);
    }
    tab.press("Confirm it").await;
    tab.ask("last", &["amount", "400.25"]);
    tab.ask("last", &["reference", "R2"]);
    tab.press("Give back…").await;
    tab.shows("Give 400.25 EUR back to Ada?");
    let left = async || tab.site.get(&tab.site.cookie(), "/api/v1/dca/lps/1").await.expect(200);
    assert_eq!(left().await["left_minor"], 100_050, "it was only asked");
    tab.press("It was given back").await;
    assert_eq!(left().await["left_minor"], 60_025);
    tab.shows("given back");
    tab.site.stop().await;
}

/// Loss prevented: a person who takes what failed for done, or cannot tell which field is wrong.
#[tokio::test]
async fn what_the_api_refuses_stands_where_it_is_to_be_mended() {
    let tab = Tab::open().await;
    tab.shows("The operator has no key yet");
    tab.press("Add machine").await;
    assert!(tab.ask("blamed", &[]).starts_with("fiat_code: "), "{}", tab.ask("blamed", &[]));
    tab.types(&[("name", "Bar"), ("fiat_code", "EUR"), ("wallet_id", "till")]);
    tab.types(&[("cash_in_fee_fraction", "16")]);
    tab.press("Add machine").await;
    let blamed = tab.ask("blamed", &[]);
    assert!(blamed.starts_with("cash_in_fee_fraction: ") && blamed.contains("150000"), "{blamed}");
    tab.types(&[("cash_in_fee_fraction", "5,00001")]);
    tab.press("Add machine").await;
    assert!(tab.ask("blamed", &[]).contains("four decimals"), "{}", tab.ask("blamed", &[]));
    tab.types(&[("cash_in_fee_fraction", "5,0001")]);
    tab.press("Add machine").await;
    tab.shows("5.0001\u{202f}%");
    tab.press("Make the key").await;

    tab.bunker.fail("create_token", Fault::Refused);
    tab.types(&[("relays", "wss://relay.example")]);
    tab.press("Pair").await;
    for words in ["create key", "policy", "create_token"] {
        tab.shows(words);
    }
    assert_eq!(tab.seed(), "");
    tab.pair("Pair").await;
    tab.bunker.fail("revoke_token", Fault::Refused);
    tab.press("Revoke…").await;
    tab.press("Revoke Bar").await;
    tab.shows("steps failed");
    tab.press("Revoke again").await;
    tab.press("Revoke Bar").await;
    tab.shows("All of it was done.");
    tab.site.stop().await;
}

/// Loss prevented: fees or counts that reach the machine other than they were typed.
#[tokio::test]
async fn fees_and_refills_are_written_down_as_typed() {
    let tab = Tab::with_machine().await;
    tab.pair("Pair").await;
    tab.press("Done: take it away").await;
    tab.types(&[("cash_in_fee_fraction", "7,7701"), ("cash_out_fee_fraction", "0")]);
    tab.press("Save fees").await;
    tab.shows("The fees of Bar are saved");
    tab.types(&[("bay-new", "1"), ("note-new", "20"), ("notes-new", "1 000")]);
    tab.press("Write it down").await;
    tab.types(&[("action-1", "take"), ("notes-1", "40")]);
    tab.press("Write it down").await;
    tab.types(&[("notes-1", "40")]);
    tab.press("Write it down").await;
    assert_eq!(tab.ask("blamed", &[]), "notes-1: say what was done with these notes");
    let cookie = tab.site.cookie();
    let machine = tab.site.get(&cookie, "/api/v1/dca/machines/1").await.expect(200);
    assert_eq!(machine["cash_in_fee_fraction"].to_string(), "0.077701");
    assert_eq!(machine["cash_out_fee_fraction"].to_string(), "0");
    let held = tab.site.get(&cookie, "/api/v1/dca/machines/1/cassettes").await.expect(200);
    assert_eq!(held["declared"][0]["count"], 960, "{held}");
    let changes: Vec<_> = held["open_changes"].as_array().unwrap().iter().collect();
    assert_eq!((&changes[0]["set"], &changes[1]["delta"]), (&1_000.into(), &(-40).into()));
    tab.site.stop().await;
}

/// Loss prevented: notes that are missing from a bay, and a page on which both sides' numbers look as
/// if they were one, or every bay as if it were looked into.
#[tokio::test]
async fn a_bay_that_differs_says_so_beside_both_numbers() {
    let tab = Tab::with_machine().await;
    let held = |count: u32| json!({ "denomination_minor": 2_000, "count": count });
    let said = json!({
        "versions": {}, "devices": {}, "cassettes": {"1": held(97), "2": held(50)},
        "recycled": {"since": 0, "notes": {"2": {"2000": 12}}},
        "cashbox": null, "applied_documents": {}, "applied_changes": [], "open_transactions": [],
        "alerts": [], "journal_seq": 7, "journal_head": "05".repeat(32),
    });
    let app = &tab.site.world.app;
    let at = app.clock.now();
    let written = app.store.write(move |tx| {
        let machine_id = machines::list(tx, None)?.remove(0).id;
        let denomination = Denomination::from_minor(2_000).unwrap();
        for (number, count) in [(1, 8_100), (2, 50)] {
            let bay = BayId::new(number).unwrap();
            let ours = Cassette { machine_id, bay, denomination, count, updated_at: at };
            cassettes::set(tx, &ours)?;
        }
        let (journal_seq, body) = (JournalSeq(7), store::Json(said));
        let heartbeat = Heartbeat { machine_id, journal_seq, body, received_at: at };
        cassettes::set_heartbeat(tx, &heartbeat)
    });
    written.await.map_err(|error: StoreError| error).unwrap();
    tab.go("#/machines").await;
    tab.go("#/machines/1").await;
    tab.shows("8\u{202f}100");
    tab.shows("97differs");
    tab.shows("12 came from customers");
    assert_eq!(tab.ask("text", &[]).matches("differs").count(), 1, "the other bay agrees");
    tab.site.stop().await;
}

/// Loss prevented: a decision about money at one press, with another amount than was typed, or a
/// sale that waits for one and that nobody sees.
#[tokio::test]
async fn a_verdict_is_asked_about_twice_and_sent_as_typed() {
    let tab = Tab::with_machine().await;
    tab.pair("Pair").await;
    tab.press("Done: take it away").await;
    let txid = "01".repeat(16);
    let said = json!({
        "versions": {}, "devices": {}, "cassettes": {}, "cashbox": null, "applied_documents": {},
        "applied_changes": [], "alerts": [], "journal_seq": 7, "journal_head": "05".repeat(32),
        "open_transactions": [{
            "txid": txid, "direction": "cash_out", "state": "uncertain", "fiat_minor": 4_000,
            "since": 1, "doubt": {
                "rest_minor": 4_000, "unknown_minor": 2_000, "evidence": "the power went",
            },
        }],
    });
    let app = &tab.site.world.app;
    let received_at = app.clock.now();
    let written = app.store.write(move |tx| {
        let machine_id = machines::list(tx, None)?.remove(0).id;
        machines::pin_vault(tx, machine_id, key())?;
        let (journal_seq, body) = (JournalSeq(7), store::Json(said));
        let heartbeat = Heartbeat { machine_id, journal_seq, body, received_at };
        cassettes::set_heartbeat(tx, &heartbeat)?;
        Ok(operators::list(tx)?.remove(0).pubkey.unwrap())
    });
    let operator: Result<_, StoreError> = written.await;
    app.set_signer(Arc::new(Bunker { key: operator.unwrap(), keys: Keys::generate() }));
    tab.go("#/machines").await;
    tab.go("#/machines/1").await;
    for words in ["To be decided", "the power went", "EUR"] {
        tab.shows(words);
    }
    let given = "/api/v1/dca/machines/1/verdicts";
    tab.press("Owed to the customer…").await;
    tab.press("Owed to the customer").await;
    assert!(tab.ask("blamed", &[]).starts_with("amount_minor: "), "{}", tab.ask("blamed", &[]));
    tab.types(&[("amount_minor", "4001")]);
    tab.press("Owed to the customer").await;
    assert!(tab.ask("blamed", &[]).contains("from 2000"), "{}", tab.ask("blamed", &[]));
    let none = tab.site.get(&tab.site.cookie(), given).await.expect(200);
    assert_eq!(none["given"], json!([]), "nothing is sent by what was refused");
    tab.types(&[("amount_minor", "2 000")]);
    tab.press("Owed to the customer").await;
    tab.shows("It is decided; the machine has not carried it out yet.");
    let one = tab.site.get(&tab.site.cookie(), given).await.expect(200);
    let (verdict, amount) = (&one["given"][0]["verdict"], &one["given"][0]["amount_minor"]);
    assert_eq!((verdict, amount), (&json!("owed"), &json!(2_000)));
    tab.site.stop().await;
}
