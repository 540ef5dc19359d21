//! What the parts have written down, read beside them from their own files: the machine's journal,
//! the operator's settlements and ledger, the node's payments, the bunker's record of requests.
//!
//! Promise: nothing is written, and nothing of the code that wrote it takes part in reading it.

mod bunker;
mod journal;
mod node;
mod operator;

use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

pub use self::bunker::{bunker_requests, bunker_requests_after, sealed_keys};
pub use self::journal::{Bay, Entry, Journal};
pub use self::node::{Paid, node_balance, node_payments};
pub use self::operator::{Ledger, Settled, Withdraw};

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .with_context(|| format!("{}: cannot be read", path.display()))
}
