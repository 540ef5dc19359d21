-- Entries of closed transactions move to the archive; the journal knows where that ends.
CREATE TABLE archive (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    upto  INTEGER NOT NULL,             -- the last entry in it
    hash  BLOB NOT NULL CHECK (length(hash) = 32),
    bytes INTEGER NOT NULL,             -- its length up to there
    seq   INTEGER NOT NULL              -- the entry that says so
) STRICT;
CREATE TRIGGER archive_grows BEFORE UPDATE ON archive
WHEN NEW.upto <= OLD.upto OR NEW.bytes <= OLD.bytes
BEGIN SELECT RAISE(ABORT, 'the archive only grows'); END;

-- Transactions whose entries are there: what has ended never begins again.
CREATE TABLE gone (txid TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

DROP TRIGGER entries_remain;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
WHEN OLD.seq = 1 OR OLD.seq > coalesce((SELECT upto FROM archive), 0)
BEGIN SELECT RAISE(ABORT, 'an entry is never removed before it is in the archive'); END;
