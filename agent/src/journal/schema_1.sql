-- The record. Append-only, one position at a time, each entry naming the hash of the one before.
CREATE TABLE entries (
    seq   INTEGER PRIMARY KEY CHECK (seq >= 1),
    at    INTEGER NOT NULL,
    txid  TEXT CHECK (txid IS NULL OR length(txid) = 32),
    kind  TEXT NOT NULL,
    body  TEXT NOT NULL,
    prev  BLOB NOT NULL CHECK (length(prev) = 32),
    hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX entries_txid ON entries (txid, seq) WHERE txid IS NOT NULL;

CREATE TRIGGER entries_grow_by_one BEFORE INSERT ON entries
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM entries)
  OR NEW.prev <> coalesce((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), zeroblob(32))
BEGIN SELECT RAISE(ABORT, 'entries only grow at their end'); END;
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'an entry is never removed'); END;

-- The end of the chain, and which run of the vault may write.
CREATE TABLE head (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    seq   INTEGER NOT NULL,
    hash  BLOB NOT NULL CHECK (length(hash) = 32),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO head VALUES (1, 0, zeroblob(32), 0);

-- Views of the entries.
CREATE TABLE txns (
    txid    TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    stage   INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 2),
    seq     INTEGER NOT NULL,           -- its last entry
    since   INTEGER NOT NULL,           -- the entry at which it came into this state
    state   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX txns_open ON txns (txid) WHERE stage < 2;
CREATE TRIGGER txns_never_go_back BEFORE UPDATE ON txns WHEN NEW.stage < OLD.stage
BEGIN SELECT RAISE(ABORT, 'a transaction never goes back'); END;

CREATE TABLE intents (
    txid     TEXT NOT NULL,
    no       INTEGER NOT NULL,
    what     TEXT NOT NULL,
    seq      INTEGER NOT NULL UNIQUE,
    resolved INTEGER,                   -- the entry with its result
    PRIMARY KEY (txid, no)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX intents_one_open ON intents (txid) WHERE resolved IS NULL;

CREATE TABLE nonces (nonce TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE requests (request_id TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE changes (
    change_id TEXT PRIMARY KEY, bay INTEGER NOT NULL, seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE bays (
    bay          INTEGER PRIMARY KEY CHECK (bay BETWEEN 1 AND 255),
    denomination INTEGER NOT NULL CHECK (denomination > 0),
    loaded       INTEGER NOT NULL,
    presented    INTEGER NOT NULL,
    retracted    INTEGER NOT NULL,
    rejected     INTEGER NOT NULL,
    stray        INTEGER NOT NULL,
    doubts       INTEGER NOT NULL,
    set_at       INTEGER NOT NULL
) STRICT;
CREATE TABLE cashbox (
    denomination INTEGER PRIMARY KEY CHECK (denomination > 0),
    count        INTEGER NOT NULL,
    doubts       INTEGER NOT NULL
) STRICT;
CREATE TABLE reject_bin (
    denomination INTEGER PRIMARY KEY CHECK (denomination > 0),
    count        INTEGER NOT NULL,
    doubts       INTEGER NOT NULL
) STRICT;
CREATE TABLE emptied (box TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
