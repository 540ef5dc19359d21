//! The heartbeat: what a machine says about itself.
//!
//! Promise: counts are the vault's own and signed by it. Texts are short and come from the machine;
//! whoever shows them escapes them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{BayId, ChangeId, EventId, JournalHead, JournalSeq, Nonce, TxnId};
use crate::money::{Denomination, Direction};
use crate::rpc::body::Notes;
use crate::rpc::service::{MAX_SERVICE_EVENTS, ServiceEvent};
use crate::rpc::signed::VaultBody;
use crate::time::Unix;

/// Most entries in any list of a report.
const MAX_ENTRIES: usize = 512;
/// Most bytes in any text of a report.
const MAX_TEXT: usize = 256;

/// What a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceRole {
    /// Takes notes.
    Acceptor,
    /// Gives notes.
    Dispenser,
    /// Both.
    Recycler,
    /// Prints receipts.
    Printer,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    /// It works.
    Ready,
    /// It is starting or being set up.
    Starting,
    /// It does not answer, or its port is gone.
    Silent,
    /// It answers and needs a hand.
    Fault,
}

/// One device of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it does.
    pub role: DeviceRole,
    /// The protocol that it is spoken to in.
    pub protocol: String,
    /// Model and firmware as it gives them, once it has.
    pub version: Option<String>,
    /// How it is.
    pub status: DeviceStatus,
    /// The fault in words, where there is one.
    pub fault: Option<String>,
}

/// What lies in one bay by the machine's own ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BayCount {
    /// One note's value in minor units.
    pub denomination_minor: Denomination,
    /// Notes in the cassette.
    pub count: u32,
    /// Of them, those that may be missing, at most: a dispense has ended with a fault, and nobody has
    /// counted since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsure: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own form")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What lies in the cashbox by the machine's own ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cashbox {
    /// Notes since the last emptying.
    pub notes: Notes,
    /// Notes that it can hold.
    pub capacity: u32,
    /// The journal position of the last emptying; 0 if there was none.
    pub emptied_seq: JournalSeq,
}

/// What lies in the reject bin by the machine's own ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectBin {
    /// Notes since the last emptying.
    pub notes: Notes,
    /// The journal position of the last emptying; 0 if there was none.
    pub emptied_seq: JournalSeq,
}

/// What went from customers into bays that give it again, by a recycler: counted for ever, so that a
/// report that is lost loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycled {
    /// The journal position since which it is counted; another one begins at nothing.
    pub since: JournalSeq,
    /// Notes by bay and value, since then.
    pub notes: BTreeMap<BayId, Notes>,
}

/// A transaction that does not rest yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTxn {
    /// The transaction.
    pub txid: TxnId,
    /// Which way the cash goes.
    pub direction: Direction,
    /// Its state's name.
    pub state: String,
    /// The amount in minor units, where it is known.
    pub fiat_minor: Option<i64>,
    /// When it was opened.
    pub since: Unix,
    /// What it needs a person for, where it cannot end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
}

/// What is not known of a transaction, or what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What the customer may still have to get, in minor units: cash_out: of what was promised,
    /// without the notes that they have for certain; cash_in: the notes of which nobody knows
    /// whether the machine has them.
    pub rest_minor: i64,
    /// Of it, the notes of which nobody knows where they are, in minor units.
    pub unknown_minor: i64,
    /// What the machine knows, in words.
    pub evidence: String,
}

/// Something that a person should know; it is gone from the next report when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What, as a stable name.
    pub code: String,
    /// In words, and what to do.
    pub detail: String,
    /// Since when.
    pub since: Unix,
}

/// `report_state`: the machine's heartbeat, signed by its vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// Versions of the machine's parts by name.
    pub versions: BTreeMap<String, String>,
    /// Its devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Its cassettes.
    pub cassettes: BTreeMap<BayId, BayCount>,
    /// Its cashbox, if it takes notes.
    pub cashbox: Option<Cashbox>,
    /// Its reject bin, if it gives notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_bin: Option<RejectBin>,
    /// What its recycler has put into its bays, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycled: Option<Recycled>,
    /// What people did at the machine and it has not heard the answer of, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_events: Vec<ServiceEvent>,
    /// The event of each configuration document in force, by `d` tag.
    pub applied_documents: BTreeMap<String, EventId>,
    /// The cassette changes applied that the cassette document in force still names.
    pub applied_changes: BTreeSet<ChangeId>,
    /// Transactions that do not rest.
    pub open_transactions: Vec<OpenTxn>,
    /// What a person should know.
    pub alerts: Vec<Alert>,
    /// Nonces of the operator's statements that were used last, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_nonces: Vec<Nonce>,
    /// How far the journal has come.
    pub journal_seq: JournalSeq,
    /// Its head there.
    pub journal_head: JournalHead,
}

impl Recycled {
    fn len(&self) -> usize {
        self.notes.values().map(BTreeMap::len).fold(self.notes.len(), usize::saturating_add)
    }
}

impl VaultBody for StateReport {
    const PREFIX: &'static str = "bitspire-state:v1:";
    const WHAT: &'static str = "the state report";
}

impl StateReport {
    pub(super) fn validate(&self) -> Result<(), String> {
        let lists = [
            ("versions", self.versions.len()),
            ("devices", self.devices.len()),
            ("applied_documents", self.applied_documents.len()),
            ("applied_changes", self.applied_changes.len()),
            ("open_transactions", self.open_transactions.len()),
            ("alerts", self.alerts.len()),
            ("recycled", self.recycled.as_ref().map_or(0, Recycled::len)),
            ("used_nonces", self.used_nonces.len()),
        ];
        if let Some((name, got)) = lists.into_iter().find(|(_, len)| *len > MAX_ENTRIES) {
            return Err(format!("{name}: expected at most {MAX_ENTRIES} entries, got {got}"));
        }
        let events = self.service_events.len();
        if events > MAX_SERVICE_EVENTS {
            return Err(format!(
                "service_events: expected at most {MAX_SERVICE_EVENTS} entries, got {events}"
            ));
        }
        self.service_events.iter().try_for_each(ServiceEvent::validate)?;
        let versions = self.versions.iter().flat_map(|(name, text)| [name, text]);
        let devices = self.devices.iter().flat_map(|(name, device)| {
            [name, &device.protocol].into_iter().chain(&device.version).chain(&device.fault)
        });
        let txns = self.open_transactions.iter().flat_map(|txn| {
            [&txn.state].into_iter().chain(txn.doubt.as_ref().map(|doubt| &doubt.evidence))
        });
        let alerts = self.alerts.iter().flat_map(|alert| [&alert.code, &alert.detail]);
        let mut texts = versions.chain(devices).chain(txns).chain(alerts);
        match texts.find(|text| text.len() > MAX_TEXT) {
            Some(text) => {
                Err(format!("texts: expected at most {MAX_TEXT} bytes, got {}", text.len()))
            }
            None => Ok(()),
        }
    }
}
