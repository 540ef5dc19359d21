//! Ids of rows that the service itself numbers.
//!
//! Promise: a number that names a machine cannot be taken for one that names an operator. Numbers
//! are never used again: accounts, key names and audit rows refer to them for ever.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;
            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }
    };
}

row_id!(
    /// An operator: whoever owns machines and their wallets.
    OperatorId
);
row_id!(
    /// A person's key with a role.
    UserId
);
row_id!(
    /// A machine.
    MachineId
);
row_id!(
    /// A liquidity provider.
    LpId
);
row_id!(
    /// The terms of a liquidity provider, from one time on.
    TermsId
);
row_id!(
    /// Fiat that a liquidity provider has handed over, or was given back.
    DepositId
);
row_id!(
    /// One attempt to pair a machine.
    PairingId
);
row_id!(
    /// Something that another program is told.
    WebhookEventId
);
row_id!(
    /// A settlement.
    SettlementId
);
row_id!(
    /// One leg of a settlement's distribution.
    LegId
);
row_id!(
    /// A rule that says where a fee goes.
    RuleSetId
);
row_id!(
    /// One attempt to pay an invoice.
    PaymentId
);
row_id!(
    /// What is owed on one transaction.
    ClaimId
);
row_id!(
    /// One version of a configuration document.
    DocumentId
);
row_id!(
    /// One thing that waits to be sent.
    OutboxId
);
row_id!(
    /// A decision of the operator.
    VerdictId
);
row_id!(
    /// What somebody did at a machine in service mode.
    ServiceEventId
);
row_id!(
    /// An entry of the ledger.
    EntryId
);
row_id!(
    /// An entry of the audit log.
    AuditId
);
row_id!(
    /// A change of fees that goes out in stages.
    RolloutId
);
row_id!(
    /// One proof that an expired grant is refused.
    CanaryId
);
row_id!(
    /// A token for the API.
    TokenId
);
row_id!(
    /// A key in the bunker.
    BunkerKeyId
);
row_id!(
    /// A policy of the bunker.
    PolicyId
);
row_id!(
    /// A rule of a policy.
    RuleId
);
row_id!(
    /// A token of the bunker.
    BunkerTokenId
);
row_id!(
    /// What one client may do with one key of the bunker.
    GrantId
);
