-- Notes that customers fed and that machines keep in bays, to give them again.

INSERT INTO ledger_kinds (kind) VALUES ('recycled');

-- how far the ledger has what a machine's vault has told: its count since a position of its journal
CREATE TABLE recycled (
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    vault        TEXT NOT NULL CHECK (length(vault) = 64),
    since        INTEGER NOT NULL CHECK (since >= 0),
    bay          INTEGER NOT NULL CHECK (bay BETWEEN 1 AND 255),
    denomination INTEGER NOT NULL CHECK (denomination > 0),
    notes        INTEGER NOT NULL CHECK (notes > 0),
    PRIMARY KEY (machine_id, vault, since, bay, denomination)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER recycled_grows BEFORE UPDATE ON recycled WHEN NEW.notes <= OLD.notes
BEGIN SELECT RAISE(ABORT, 'recycled: a count only grows'); END;
CREATE TRIGGER recycled_no_delete BEFORE DELETE ON recycled
BEGIN SELECT RAISE(ABORT, 'recycled: never deleted'); END;
