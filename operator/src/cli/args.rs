//! What can be typed.

use std::path::PathBuf;
use std::str::FromStr;

use bitspire_shared::ids::BayId;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::account::{AccountVerb, AuditWhat};
use super::bunker::BunkerAsk;
use super::distribution::{DistributionVerb, PayoutVerb};
use super::export::ExportWhat;
use super::fees::FeesVerb;
use super::lps::LpVerb;
use super::pair::Pair;
use super::proof::{SettlementVerb, VerifyProof};
use super::receipt::VerifyReceipt;
use super::rekey::Rekey;
use super::secrets::SecretsVerb;
use super::verdict::VerdictVerb;
use crate::http::Fraction;
use crate::ids::{MachineId, OperatorId, TokenId, UserId};

/// Runs a fleet of Lightning cash machines: pairs them, publishes their fees and cassettes,
/// answers them, settles their payments, keeps the ledger.
///
/// All but `serve`, `bunker serve`, `config`, `verify-receipt` and `verify-proof` talk to the daemon on
/// this computer.
/// Exit codes: 0 done, 1 refused or something found, 2 wrong usage or configuration, 3 daemon not
/// reached.
#[derive(Debug, Parser)]
#[command(name = "bitspire-operator", version, verbatim_doc_comment)]
pub(super) struct Cli {
    /// Configuration file [default: /etc/bitspire/operator.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Folder of databases, sealed keys and the cookie; overrules the configuration
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Print the daemon's answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    ///
    /// Prints one line `ready api=... public=... relay=...` once everything listens.
    Serve,
    /// The bunker that holds the keys of machines and operators
    Bunker {
        #[command(subcommand)]
        verb: BunkerVerb,
    },
    /// Change the secret that keys are sealed with
    Secrets {
        #[command(subcommand)]
        verb: SecretsVerb,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Check a receipt with nothing but its text, and say what it states: 0 where it holds, 1 where not
    VerifyReceipt(VerifyReceipt),
    /// Check a settlement's proof with nothing but its file, and say each step: 0 where all hold, 1 at
    /// the first that does not
    VerifyProof(VerifyProof),
    /// Show one settlement, check its evidence, or write that into a file
    Settlement {
        #[command(subcommand)]
        verb: SettlementVerb,
    },
    /// Pair a machine: make it a key in the bunker and show the seed for it, once
    ///
    /// An earlier pairing works until the new one is complete; then its key is revoked. Put the
    /// seed into the machine, then compare the digits and `confirm` them.
    Pair(Pair),
    /// Write the books for other programs: entries, settlements, closing balances, liabilities
    Export {
        #[command(subcommand)]
        what: ExportWhat,
    },
    /// What the running daemon is asked for
    #[command(flatten)]
    Ask(Ask),
}

/// Verbs that talk to the running daemon.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Add, show and change machines
    Machine {
        #[command(subcommand)]
        verb: MachineVerb,
    },
    /// Set fees: yours for a machine, or the platform's for all
    Fees {
        #[command(subcommand)]
        verb: FeesVerb,
    },
    /// Refill and count bays
    Cassettes {
        #[command(subcommand)]
        verb: CassettesVerb,
    },
    /// Put a paired machine in service: its screen shows these digits
    Confirm {
        /// Its number
        machine: MachineId,
        /// The eight digits on the machine's screen
        digits: String,
    },
    /// Give a machine's pairing more time, before or after its end
    ///
    /// Where pairing.renew is auto, machines that are in service and report are renewed by themselves.
    Renew {
        /// Its number
        machine: MachineId,
        /// Hours from now on [default: pairing.renew_hours]
        #[arg(long, value_name = "N")]
        hours: Option<u32>,
    },
    /// Take a machine out of service for good: sessions, relay, clients and tokens in the bunker
    ///
    /// Exit code 1 where the bunker did not do its part; then run it again.
    Revoke {
        /// Its number
        machine: MachineId,
    },
    /// Decide about a sale that cannot end by itself
    ///
    /// The operator key signs the decision, the machine carries it out once and reports what it
    /// made of it; the ledger follows that report. A decision cannot be taken back: before it, count
    /// the bays, and look into the reject bin and at the exit. `verdict list` shows what the machine
    /// knows.
    Verdict {
        #[command(subcommand)]
        verb: VerdictVerb,
    },
    /// Sign the statement that moves a machine to another service, or another operator key
    ///
    /// Prints one line of JSON for `bitspire-agent rekey --statement FILE`, which somebody with the
    /// machine's PIN runs on it, once. The operator key that the machine has pinned signs it, so a new
    /// service with that key can take over machines of one that is lost: with --spire and --vault.
    Rekey(Rekey),
    /// Publish a machine's documents once more, now
    Republish {
        /// The machine's number
        #[arg(long)]
        machine: MachineId,
    },
    /// Tokens for programs that use the API
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// People and their keys
    User {
        #[command(subcommand)]
        verb: UserVerb,
    },
    /// The operator and its key
    Operator {
        #[command(subcommand)]
        verb: OperatorVerb,
    },
    /// Derive everything again and show each difference
    ///
    /// From the signed events, the wallets' own lists and the machines' reports: entries of the
    /// ledger, requests and quotes, payments and balances, notes that came out, notes that lie in
    /// the machines, promises to customers. What is under way is shown as waiting. Changes nothing.
    /// Exit code 0 where no difference was found, 1 where one was.
    Audit {
        #[command(subcommand)]
        what: Option<AuditWhat>,
    },
    /// Operators' private keys that were there before this service
    Account {
        #[command(subcommand)]
        verb: AccountVerb,
    },
    /// Show the relays: how the connections are, what was refused last, what they say of themselves
    Relays,
    /// Show whether another program is told what happens, and what it has not taken yet
    Webhook,
    /// Show the newest settlements
    Settlements(Settlements),
    /// Payments whose end is not known
    Payout {
        #[command(subcommand)]
        verb: PayoutVerb,
    },
    /// Where fees go, what is on its way there, and what waits
    Distribution {
        #[command(subcommand)]
        verb: DistributionVerb,
    },
    /// Liquidity providers: their fiat becomes sats with each cash-out
    Lp {
        #[command(subcommand)]
        verb: LpVerb,
    },
    /// Show refused requests: a row for each reason and sender, with how often and since when
    Rejected(Rejected),
    /// Show the audit log: who changed what
    Log(Log),
}

#[derive(Debug, Subcommand)]
pub(super) enum BunkerVerb {
    /// Run the bunker as a process of its own, until SIGTERM or SIGINT
    ///
    /// It has its own folder ([bunker] data_dir), database and secret, and should have its own
    /// user. Prints one line `ready bunker=<npub>` once it can be reached under that key.
    Serve {
        /// Who administers it: the `bunker_admin_npub` that `operator show` prints. Needed at the
        /// first start
        #[arg(long, value_name = "NPUB")]
        admin: Vec<String>,
    },
    /// What the running daemon asks the bunker for
    #[command(flatten)]
    Ask(BunkerAsk),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Check it, without starting anything
    Check {
        /// And ask the relays of others what they say of themselves (NIP-11)
        #[arg(long)]
        relays: bool,
    },
    /// Show each value and where it comes from
    Show,
}

#[derive(Debug, Subcommand)]
pub(super) enum MachineVerb {
    /// Add a machine; pair it next
    Add(MachineAdd),
    /// List machines
    List,
    /// Show everything about one machine
    Show {
        /// Its number, as `machine list` shows it
        machine: MachineId,
    },
    /// Stop a machine's trade; what is under way ends
    Disable {
        /// Its number
        machine: MachineId,
        /// What the machine's page shows
        #[arg(long)]
        reason: String,
    },
    /// Let a disabled machine trade again
    Enable {
        /// Its number
        machine: MachineId,
    },
    /// Put a machine into groups: these tags, and no others
    Tag {
        /// Its number
        machine: MachineId,
        /// Small letters, digits, - and _
        tags: Vec<String>,
    },
    /// Print where the machine's journal stood, as its vault has signed it: lines of JSON that
    /// `bitspire-agent journal verify --heads FILE` holds a journal against
    Journal {
        /// Its number
        machine: MachineId,
    },
}

#[derive(Debug, Args)]
pub(super) struct MachineAdd {
    /// Name, for pages and receipts
    #[arg(long)]
    pub(super) name: String,
    /// Where it stands
    #[arg(long, default_value = "")]
    pub(super) place: String,
    /// Currency of its notes, such as EUR; it never changes
    #[arg(long, value_name = "CODE")]
    pub(super) currency: String,
    /// Its Lightning wallet: a name from [wallets] in the configuration, of no other machine
    #[arg(long)]
    pub(super) wallet: String,
    /// Its key, where it has one already (npub or hex); pairing replaces it
    #[arg(long)]
    pub(super) npub: Option<String>,
    /// Your fee where customers feed notes, as a fraction: 0.05 is 5 %
    #[arg(long, value_name = "FRACTION")]
    pub(super) cash_in_fee: Option<Fraction>,
    /// Your fee where customers get notes, as a fraction
    #[arg(long, value_name = "FRACTION")]
    pub(super) cash_out_fee: Option<Fraction>,
    /// Whose machine it is, where there are several operators
    #[arg(long)]
    pub(super) operator: Option<OperatorId>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CassettesVerb {
    /// Show bays, open changes, and what the machine says
    Show {
        /// The machine's number
        #[arg(long)]
        machine: MachineId,
    },
    /// Count bays, or put notes in or take some out
    Set(CassettesSet),
}

#[derive(Debug, Args)]
pub(super) struct CassettesSet {
    /// The machine's number
    #[arg(long)]
    pub(super) machine: MachineId,
    /// A bay: 1=20:100 holds 100 notes of 20, 1=80 holds 80 notes, 1=+50 has 50 more, 1=-20 has 20
    /// fewer; may be repeated
    #[arg(long = "bay", value_name = "BAY=WHAT", required = true)]
    pub(super) bays: Vec<BayArg>,
    /// Why, for the log
    #[arg(long, default_value = "")]
    pub(super) reason: String,
    /// The machine's journal position that you had seen, as `cassettes show` says it [default: the
    /// newest known]
    #[arg(long)]
    pub(super) base_seq: Option<u64>,
}

/// What a bay is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BayArg {
    pub(super) bay: BayId,
    pub(super) denomination: Option<u32>,
    pub(super) set: Option<u32>,
    pub(super) delta: Option<i32>,
}

impl FromStr for BayArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (bay, what) = text.split_once('=')?;
            let bay = bay.parse().ok()?;
            let (denomination, set, delta) = if what.starts_with(['+', '-']) {
                (None, None, Some(what.parse().ok()?))
            } else if let Some((denomination, count)) = what.split_once(':') {
                (Some(denomination.parse().ok()?), Some(count.parse().ok()?), None)
            } else {
                (None, Some(what.parse().ok()?), None)
            };
            Some(Self { bay, denomination, set, delta })
        };
        read().ok_or_else(|| format!("expected such as 1=20:100, 1=80, 1=+50 or 1=-20, got {text}"))
    }
}

/// What somebody may do, in rising order.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    /// Look
    Viewer,
    /// Also empty cashboxes and refill bays: who looks after machines, a technician
    #[value(alias = "technician")]
    Collector,
    /// Also run machines: pair, configure, decide
    Operator,
    /// Also change where money goes, and who may do what
    Owner,
    /// Everything, of every operator of this instance
    Super,
}

impl Role {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Collector => "collector",
            Self::Operator => "operator",
            Self::Owner => "owner",
            Self::Super => "super",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token; it is shown once, only its hash is kept
    Add {
        /// What it is for
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "viewer")]
        role: Role,
        /// Days until it ends [default: never]
        #[arg(long)]
        days: Option<u32>,
        /// Whose machines it may touch, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
    /// List tokens
    List,
    /// End a token at once
    Revoke {
        /// Its number, as `token list` shows it
        token: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserVerb {
    /// Let somebody use the API with their own Nostr key
    Add {
        /// Their key (npub or hex)
        #[arg(long)]
        npub: String,
        /// Their name
        #[arg(long)]
        name: String,
        /// What they may do
        #[arg(long, value_enum, default_value = "viewer")]
        role: Role,
        /// Whose machines they may touch, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
    /// List people
    List,
    /// Take somebody's rights away at once
    Disable {
        /// Their number, as `user list` shows it
        user: UserId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum OperatorVerb {
    /// Make the operator's key in the bunker; it signs fees, cassettes and verdicts
    Init {
        /// Whose key, where there are several operators
        #[arg(long)]
        operator: Option<OperatorId>,
    },
    /// Show the operators, the service's key and its relays
    Show,
}

#[derive(Debug, Args)]
pub(super) struct Settlements {
    /// Of this machine only
    #[arg(long)]
    pub(super) machine: Option<MachineId>,
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct Rejected {
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// About one thing only, such as machine:1
    #[arg(long)]
    pub(super) subject: Option<String>,
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u32,
}
