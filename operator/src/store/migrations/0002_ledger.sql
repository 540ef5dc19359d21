-- Double entry. An entry is written in one statement with all its lines; the lines become postings
-- by trigger, and nothing else can become one, so what does not sum to zero cannot be written.

-- a table and not a CHECK: later migrations add kinds
CREATE TABLE ledger_kinds (kind TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO ledger_kinds (kind) VALUES
    ('settled'), ('owed_whole'), ('suspended'), ('suspense_resolved'), ('stray_recovered'),
    ('dispensed'), ('doubt_resolved'), ('stacked'), ('liability_to_owed'), ('withdraw_paid'),
    ('claim_paid'), ('wallet_moved'), ('refilled'), ('bay_counted'), ('emptied'),
    ('transit_counted'), ('reversed');

CREATE TABLE ledger_entries (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL REFERENCES ledger_kinds (kind),
    -- which event of that kind: each is booked once
    reference TEXT NOT NULL CHECK (reference <> ''),
    txid      TEXT CHECK (length(txid) = 32),
    corrects  INTEGER REFERENCES ledger_entries (id),
    reason    TEXT,
    -- [[account, unit, amount], ...]
    lines     TEXT NOT NULL CHECK (json_valid(lines) AND json_type(lines) = 'array'
        AND json_array_length(lines) >= 2),
    UNIQUE (kind, reference)
) STRICT;
CREATE INDEX ledger_of_txid ON ledger_entries (txid) WHERE txid IS NOT NULL;

CREATE TABLE ledger_postings (
    entry_id INTEGER NOT NULL REFERENCES ledger_entries (id),
    line     INTEGER NOT NULL CHECK (line >= 0),
    account  TEXT NOT NULL CHECK (account <> ''),
    unit     TEXT NOT NULL CHECK (unit = 'sats' OR unit GLOB '[A-Z][A-Z][A-Z]'),
    -- positive is a debit
    amount   INTEGER NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (entry_id, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_by_account ON ledger_postings (account, unit, amount);

CREATE TRIGGER ledger_entries_balance BEFORE INSERT ON ledger_entries
WHEN EXISTS (
    SELECT 1 FROM json_each(NEW.lines)
    GROUP BY json_extract(value, '$[1]') HAVING sum(json_extract(value, '$[2]')) <> 0
) OR EXISTS (
    SELECT 1 FROM json_each(NEW.lines)
    WHERE type <> 'array' OR json_array_length(value) <> 3
        OR json_type(value, '$[0]') <> 'text' OR json_type(value, '$[1]') <> 'text'
        OR json_type(value, '$[2]') <> 'integer'
)
BEGIN SELECT RAISE(ABORT, 'ledger: an entry must sum to zero in each unit'); END;

CREATE TRIGGER ledger_entries_post AFTER INSERT ON ledger_entries
BEGIN
    INSERT INTO ledger_postings (entry_id, line, account, unit, amount)
    SELECT NEW.id, key, json_extract(value, '$[0]'), json_extract(value, '$[1]'),
        json_extract(value, '$[2]')
    FROM json_each(NEW.lines);
END;

CREATE TRIGGER ledger_postings_belong BEFORE INSERT ON ledger_postings
WHEN NOT EXISTS (
    SELECT 1 FROM ledger_entries
    WHERE id = NEW.entry_id
        AND json_extract(lines, '$[' || NEW.line || '][0]') = NEW.account
        AND json_extract(lines, '$[' || NEW.line || '][1]') = NEW.unit
        AND json_extract(lines, '$[' || NEW.line || '][2]') = NEW.amount
)
BEGIN SELECT RAISE(ABORT, 'ledger: a posting is a line of its entry'); END;

CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger: append only'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger: append only'); END;
CREATE TRIGGER ledger_postings_no_update BEFORE UPDATE ON ledger_postings
BEGIN SELECT RAISE(ABORT, 'ledger: append only'); END;
CREATE TRIGGER ledger_postings_no_delete BEFORE DELETE ON ledger_postings
BEGIN SELECT RAISE(ABORT, 'ledger: append only'); END;
