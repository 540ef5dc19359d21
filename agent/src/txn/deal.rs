//! What stays the same from a transaction's first moment to its last.

use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{ClaimCode, ClaimHash, Nonce, RequestId, TxnId};
use bitspire_shared::money::Fiat;
use bitspire_shared::time::{Mono, Unix};
use serde::{Deserialize, Serialize};

/// The two clocks, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// This process's monotonic clock: every interval is measured on it.
    pub mono: Mono,
    /// Trusted time, for the record and for what the service dates.
    pub unix: Unix,
}

/// How long things may take, in milliseconds. A transaction keeps the rules that it started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Longest time between the last moment at which the customer is known to have been there and
    /// a dispense without their touch.
    pub presence_ms: u64,
    /// After this long a paid sale that waits for its customer is owed.
    pub owed_after_ms: u64,
    /// Longest wait for a quote or an invoice.
    pub answer_ms: u64,
    /// Longest wait for a dispenser's final answer; its engine has its own, shorter limits.
    pub dispense_ms: u64,
    /// Longest wait for the fate of a bill that was told to stack.
    pub stack_ms: u64,
    /// Longest wait for the next bill.
    pub idle_ms: u64,
    /// The inlet closes this long before a rate lock ends, so that no bill is in escrow then.
    pub lock_margin_ms: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            presence_ms: 90_000,
            owed_after_ms: 15 * 60_000,
            answer_ms: 60_000,
            dispense_ms: 10 * 60_000,
            stack_ms: 60_000,
            idle_ms: 90_000,
            lock_margin_ms: 10_000,
        }
    }
}

/// What the vault brings to a new transaction. All random bytes come from the system's generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// 128 random bits; never used before.
    pub txid: TxnId,
    /// 128 random bits, from which the ids of the transaction's requests are derived: the same
    /// after a restart, unknown to others before they are sent.
    pub seed: Nonce,
    /// 128 random bits: the customer's right to whatever is owed.
    pub code: ClaimCode,
    /// cash_out: the amount that the customer chose. cash_in: the most that the machine takes.
    pub fiat: Fiat,
    /// The limits in force.
    pub rules: Rules,
}

/// What stays the same. It is journaled; the claim code is not, only its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// The transaction.
    pub txid: TxnId,
    /// cash_out: the amount. cash_in: the most that is taken.
    pub fiat: Fiat,
    /// Hash of the claim code.
    pub claim_hash: ClaimHash,
    /// From which the ids of its requests are derived.
    pub seed: Nonce,
    /// When it was opened.
    pub opened_at: Unix,
    /// Its limits.
    pub rules: Rules,
}

impl Deal {
    pub(super) fn new(order: &Order, now: Now) -> Self {
        Self {
            txid: order.txid,
            fiat: order.fiat,
            claim_hash: order.code.hash(),
            seed: order.seed,
            opened_at: now.unix,
            rules: order.rules,
        }
    }

    /// The id of the request called `label`: the same whenever it is made again.
    pub(super) fn request_id(&self, label: &str) -> RequestId {
        let Self { seed, .. } = self;
        let digest = sha256(&format!("bitspire-request:v1:{seed}:{label}"));
        let mut id = [0u8; 16];
        for (to, from) in id.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        RequestId::from_bytes(id)
    }

    /// Whether `code` is the transaction's.
    pub(super) fn claims(&self, code: &ClaimCode) -> bool {
        // hashes of 128 random bits: comparing them tells nobody how near a guess was
        code.hash() == self.claim_hash
    }
}
