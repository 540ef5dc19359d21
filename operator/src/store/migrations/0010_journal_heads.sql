-- Where machines' journals stood, as their vaults have signed it.
CREATE TABLE journal_heads (
    machine_id INTEGER NOT NULL REFERENCES machines (id),
    -- whose journal it is: another pairing may bring another vault
    vault_key  TEXT NOT NULL CHECK (length(vault_key) = 64),
    seq        INTEGER NOT NULL CHECK (seq > 0),
    head       TEXT NOT NULL CHECK (length(head) = 64),
    at         INTEGER NOT NULL,
    PRIMARY KEY (machine_id, vault_key, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER journal_heads_stay BEFORE UPDATE ON journal_heads
BEGIN SELECT RAISE(ABORT, 'journal_heads: what a vault signed never changes'); END;
CREATE TRIGGER journal_heads_no_delete BEFORE DELETE ON journal_heads
BEGIN SELECT RAISE(ABORT, 'journal_heads: never deleted'); END;
