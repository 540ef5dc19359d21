//! Who stands at the machine: customers who pay, leave, press twice and come back with their code.

use bitspire_agent::ipc::{CustomerAction, SecretText};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::View;
use bitspire_shared::ids::{PaymentHash, WithdrawId};
use serde_json::{Value, json};

use super::collector::Task;
use super::world::{Thing, World};

/// Notes that customers feed, in dollars.
const NOTES: [u64; 5] = [1, 5, 10, 20, 50];
/// How long a customer stays at most.
const PATIENCE_MS: u64 = 240_000;

/// What somebody wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// Notes for sats; the amount in minor units.
    Out(i64),
    /// Sats for notes.
    In(Vec<u64>),
    /// What is owed by a code.
    Code(String),
    /// Something inside, with the PIN.
    Service(Task),
}

/// How an invoice is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pays {
    Well,
    Never,
    Late,
    Twice,
    Little,
    Much,
}

/// Somebody at the machine.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) wish: Wish,
    pub(super) pays: Pays,
    /// Walks away at the first look after so many milliseconds.
    pub(super) leaves_after: Option<u64>,
    /// Does not take the notes.
    pub(super) forgets_notes: bool,
    pub(super) presses_twice: bool,
    pub(super) claims: bool,
    /// Would rather have sats, once they have paid and must wait.
    pub(super) changes_mind: bool,
    pub(super) came_at: u64,
    pub(super) began: bool,
    pub(super) paid: Option<PaymentHash>,
    pub(super) claimed: bool,
    pub(super) code: Option<String>,
}

impl Person {
    pub(super) const fn new(wish: Wish, came_at: u64) -> Self {
        Self {
            wish,
            pays: Pays::Well,
            leaves_after: None,
            forgets_notes: false,
            presses_twice: false,
            claims: true,
            changes_mind: false,
            came_at,
            began: false,
            paid: None,
            claimed: false,
            code: None,
        }
    }
}

/// Everybody, and the page in front of them.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) looks: bool,
    screen: Option<MachineScreen>,
    number: u64,
    /// The page shows nothing new and confirms nothing.
    pub(super) stuck: bool,
    pub(super) person: Option<Person>,
    /// Codes of people who come back, and when.
    pockets: Vec<(u64, String)>,
    next_at: u64,
    /// Who comes, where that is given; else by chance.
    pub(super) script: Option<Vec<Person>>,
    pub(super) served: u64,
}

impl Crowd {
    pub(super) fn page_is_gone(&mut self) {
        self.screen = None;
        self.number = 0;
    }

    /// Whether nobody is there and nobody will come.
    pub(super) fn is_gone(&self) -> bool {
        self.person.is_none() && self.script.as_ref().is_none_or(Vec::is_empty)
    }

    pub(super) fn is_for_sale(&self) -> bool {
        matches!(&self.screen, Some(MachineScreen::Idle { cash_in: true, cash_out, .. })
            if !cash_out.is_empty())
    }
}

impl World {
    pub(super) fn page_shows(&mut self, number: u64, screen: Value) {
        match serde_json::from_value::<MachineScreen>(screen) {
            Ok(screen) => {
                self.trace.line(self.now, || format!("screen {}", name_of(&screen)));
                self.crowd.screen = Some(screen);
                self.crowd.number = number;
                if !self.crowd.stuck {
                    let ms = self.between(10, 120);
                    self.plan(ms, Thing::Seen(number));
                }
            }
            Err(error) => self.broken.push(format!("a screen that no kiosk reads: {error}")),
        }
    }

    /// The page is loaded again: it shows the last screen a second time.
    pub(super) fn reload_page(&mut self) {
        self.act(CustomerAction::Gone);
        let number = self.crowd.number;
        self.plan(300, Thing::Seen(number));
    }

    /// Whoever is there looks at the screen and does something.
    pub(super) fn look(&mut self) {
        let ms = self.between(300, 2_500);
        self.plan(ms, Thing::Look);
        let Some(screen) = self.crowd.screen.clone() else { return };
        if self.crowd.stuck {
            return;
        }
        match self.crowd.person.take() {
            None => self.somebody_comes(&screen),
            Some(person) => {
                if let Some(person) = self.customer_does(person, &screen) {
                    self.crowd.person = Some(person);
                }
            }
        }
    }

    fn somebody_comes(&mut self, screen: &MachineScreen) {
        let now = self.now.0;
        if let MachineScreen::Txn(_) | MachineScreen::NotesLeft(_) = screen {
            // a passer-by touches what an earlier customer left
            if self.percent(20) {
                self.act(CustomerAction::Finish);
            }
            return;
        }
        let MachineScreen::Idle { cash_in, cash_out, .. } = screen else { return };
        if let Some(at) = self.crowd.pockets.iter().position(|(at, _)| *at <= now) {
            let (_, code) = self.crowd.pockets.remove(at);
            let changes_mind = self.rates.customers > 0 && self.percent(20);
            let person = Person::new(Wish::Code(code), now);
            self.crowd.person = Some(Person { changes_mind, ..person });
            return;
        }
        if let Some(script) = &mut self.crowd.script {
            let fits = |person: &Person| match &person.wish {
                Wish::In(_) => *cash_in,
                Wish::Out(minor) => cash_out.iter().any(|fiat| fiat.minor == *minor),
                Wish::Code(_) | Wish::Service(_) => true,
            };
            if script.first().is_some_and(fits) {
                let person = script.remove(0);
                self.crowd.person = Some(Person { came_at: now, ..person });
            }
            return;
        }
        if self.quiet || now < self.crowd.next_at {
            return;
        }
        if self.percent(self.rates.service) {
            self.crowd.next_at = now.saturating_add(self.between(1_000, 20_000));
            self.crowd.person = Some(self.somebody_with_the_pin());
            return;
        }
        let amounts: Vec<i64> = cash_out.iter().map(|fiat| fiat.minor).collect();
        let person = self.anybody(*cash_in, &amounts);
        self.crowd.next_at = now.saturating_add(self.between(1_000, 20_000));
        self.crowd.person = person;
    }

    fn anybody(&mut self, cash_in: bool, amounts: &[i64]) -> Option<Person> {
        let len = u64::try_from(amounts.len()).unwrap_or(0);
        let wish = if cash_in && (len == 0 || self.percent(50)) {
            let notes = self.between(1, 5);
            let note =
                |world: &mut Self| NOTES[usize::try_from(world.chance.below(5)).unwrap_or(0)];
            Wish::In((0..notes).map(|_| note(self)).collect())
        } else {
            let at = usize::try_from(self.chance.below(len)).unwrap_or(0);
            Wish::Out(*amounts.get(at)?)
        };
        let odd = self.rates.customers;
        let mut person = Person::new(wish, self.now.0);
        if self.percent(odd) {
            let all = [Pays::Never, Pays::Late, Pays::Twice, Pays::Little, Pays::Much];
            person.pays = all[usize::try_from(self.chance.below(5)).unwrap_or(0)];
        }
        if self.percent(odd) {
            person.leaves_after = Some(self.between(500, 40_000));
        }
        person.forgets_notes = self.percent(odd);
        person.presses_twice = self.percent(odd);
        person.claims = !self.percent(odd);
        person.changes_mind = self.percent(odd);
        Some(person)
    }

    /// What the customer does now; `None` where they leave.
    fn customer_does(&mut self, mut person: Person, screen: &MachineScreen) -> Option<Person> {
        let stayed = self.now.0.saturating_sub(person.came_at);
        let patience = person.leaves_after.unwrap_or(PATIENCE_MS);
        if stayed > patience {
            self.walks_away(person);
            return None;
        }
        if let Wish::Service(task) = person.wish {
            return self.collector_does(person, task, screen);
        }
        if let MachineScreen::NotesLeft(_) = screen {
            self.takes_notes(&person);
        }
        if let MachineScreen::Txn(shown) | MachineScreen::NotesLeft(shown) = screen
            && let Some(code) = &shown.claim
        {
            person.code = Some(code.expose().to_owned());
        }
        let (MachineScreen::Txn(shown) | MachineScreen::NotesLeft(shown)) = screen else {
            return self.at_the_start(person, screen);
        };
        if !person.began && !matches!(person.wish, Wish::Code(_)) {
            // somebody else's
            return Some(person);
        }
        person.began = true;
        let press = |action: CustomerAction| Some(action);
        let action = match &shown.view {
            View::Offer { .. } => press(CustomerAction::Confirm),
            View::Invoice { bolt11, wire_sats, .. } => {
                self.pays(&mut person, bolt11, wire_sats.0);
                None
            }
            View::TakeNotes { .. } => {
                self.takes_notes(&person);
                None
            }
            View::PaidWaiting { .. } => {
                let code = person.code.clone().map(SecretText::new);
                let sats = person.changes_mind;
                code.map(|code| match sats {
                    true => CustomerAction::GiveBack { code },
                    false => CustomerAction::ClaimCode { code },
                })
            }
            View::Feed { total, room_minor, .. } => {
                self.feeds(&mut person, total.minor, *room_minor)
            }
            View::Claim { lnurl: Some(lnurl), .. } => {
                if person.claims && !std::mem::replace(&mut person.claimed, true) {
                    let id = lnurl.expose().strip_prefix("LNURL").and_then(|id| id.parse().ok());
                    let ms = self.between(500, 20_000);
                    let claim = id.map(|id: WithdrawId| Thing::Claim(id));
                    if let Some(claim) = claim {
                        self.plan(ms, claim);
                    }
                }
                None
            }
            View::Settled { .. } | View::Short { .. } | View::Uncertain => {
                self.takes_notes(&person);
                press(CustomerAction::Finish)
            }
            View::Redeemed { .. }
            | View::Cancelled { .. }
            | View::Returned { .. }
            | View::Expired
            | View::Late { .. }
            | View::Unclaimed { .. } => press(CustomerAction::Finish),
            View::Claim { lnurl: None, .. }
            | View::Asking { .. }
            | View::Preparing { .. }
            | View::Dispensing { .. }
            | View::Counting { .. }
            | View::PreparingWithdraw { .. }
            | View::Paying { .. }
            | View::PayUnknown { .. } => None,
        };
        if let Some(action) = action {
            if person.presses_twice {
                self.act(action.clone());
            }
            self.act(action);
        }
        Some(person)
    }

    fn at_the_start(&mut self, mut person: Person, screen: &MachineScreen) -> Option<Person> {
        let MachineScreen::Idle { cash_in, cash_out, .. } = screen else {
            self.walks_away(person);
            return None;
        };
        if std::mem::replace(&mut person.began, true) {
            self.walks_away(person);
            return None;
        }
        self.crowd.served = self.crowd.served.saturating_add(1);
        let action = match &person.wish {
            Wish::In(_) if *cash_in => CustomerAction::StartCashIn,
            Wish::Out(minor) if cash_out.iter().any(|fiat| fiat.minor == *minor) => {
                CustomerAction::StartCashOut { fiat_minor: *minor }
            }
            Wish::Code(code) => {
                person.code = Some(code.clone());
                let code = SecretText::new(code.clone());
                match person.changes_mind {
                    true => CustomerAction::GiveBack { code },
                    false => CustomerAction::ClaimCode { code },
                }
            }
            Wish::In(_) | Wish::Out(_) | Wish::Service(_) => return None,
        };
        if person.presses_twice {
            self.act(action.clone());
        }
        self.act(action);
        Some(person)
    }

    /// The customer is gone; whoever knows a code may come back with it.
    fn walks_away(&mut self, person: Person) {
        if let Some(code) = person.code
            && (self.percent(70) || self.crowd.script.is_some())
        {
            let at = self.now.0.saturating_add(self.between(3_000, 90_000));
            self.crowd.pockets.push((at, code));
        }
    }

    fn pays(&mut self, person: &mut Person, bolt11: &str, sats: u64) {
        let hash = bolt11.strip_prefix("lnbc").and_then(|hash| hash.parse::<PaymentHash>().ok());
        let Some(hash) = hash.filter(|hash| person.paid != Some(*hash)) else { return };
        person.paid = Some(hash);
        let ms = self.between(500, 15_000);
        let late = self.between(100_000, 400_000);
        match person.pays {
            Pays::Well => self.plan(ms, Thing::Pay(hash, sats)),
            Pays::Never => {}
            Pays::Late => self.plan(late, Thing::Pay(hash, sats)),
            Pays::Twice => {
                self.plan(ms, Thing::Pay(hash, sats));
                self.plan(ms.saturating_mul(2), Thing::Pay(hash, sats));
            }
            Pays::Little => self.plan(ms, Thing::Pay(hash, sats / 2)),
            Pays::Much => self.plan(ms, Thing::Pay(hash, sats.saturating_mul(2))),
        }
    }

    pub(super) fn pay(&mut self, hash: PaymentHash, sats: u64) {
        self.trace.line(self.now, || format!("pays {sats}"));
        let now = self.unix();
        let before = self.service.settled_push(hash).is_some();
        self.service.pay(hash, sats, now);
        if let (Some(body), false) = (self.service.settled_push(hash), before) {
            self.push("payment_settled", body);
        }
    }

    pub(super) fn claim(&mut self, id: WithdrawId) {
        use super::service::Drawn;
        let now = self.unix();
        let away = self.service.wallet_away;
        let Some(draw) = self.service.draws.get_mut(&id) else { return };
        if away || draw.state != Drawn::Open || now >= draw.expires_at {
            return;
        }
        draw.state = Drawn::Claimed;
        let body = json!({ "txid": draw.claim.txid, "withdraw_id": id });
        self.push("withdraw_claimed", body);
        let ms = self.between(200, 10_000);
        self.plan(ms, Thing::Draw(id));
    }

    pub(super) fn draw(&mut self, id: WithdrawId) {
        let Some(draw) = self.service.draws.get_mut(&id) else { return };
        draw.state = super::service::Drawn::Paid;
        let body = json!({
            "txid": draw.claim.txid, "withdraw_id": id, "wire_sats": draw.net,
        });
        self.trace.line(self.now, || "withdraw paid".to_owned());
        self.push("withdraw_paid", body);
    }

    fn takes_notes(&mut self, person: &Person) {
        if !person.forgets_notes {
            self.take_notes();
        }
    }

    /// Somebody takes what lies at the exit; that nothing lies there is fine.
    pub(super) fn take_notes(&mut self) {
        let _ = self.dispenser.act(&json!({ "action": "take" }), self.now);
    }

    fn feeds(&mut self, person: &mut Person, total: i64, room: i64) -> Option<CustomerAction> {
        let Wish::In(notes) = &mut person.wish else { return Some(CustomerAction::Finish) };
        let Some(note) = notes.first().copied() else {
            return Some(if total > 0 { CustomerAction::Finish } else { CustomerAction::Cancel });
        };
        if room == 0 {
            return None;
        }
        let insert = json!({ "action": "insert", "denomination": note });
        if self.acceptor.act(&insert, self.now).is_ok() {
            self.trace.line(self.now, || format!("inserts {note}"));
            notes.remove(0);
        }
        None
    }
}

fn name_of(screen: &MachineScreen) -> String {
    match screen {
        MachineScreen::Starting => "starting".to_owned(),
        MachineScreen::Unpaired { .. } => "unpaired".to_owned(),
        MachineScreen::AwaitingConfirmation { .. } => "awaiting confirmation".to_owned(),
        MachineScreen::OutOfService { reasons } => format!("out of service {reasons:?}"),
        MachineScreen::Idle { cash_in, cash_out, waiting, .. } => {
            format!("idle {cash_in} {} {waiting}", cash_out.len())
        }
        MachineScreen::NotesLeft(_) => "notes left".to_owned(),
        MachineScreen::Service(_) => "service".to_owned(),
        MachineScreen::Txn(screen) => {
            let view = format!("{:?}", screen.view);
            view.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
        }
    }
}
