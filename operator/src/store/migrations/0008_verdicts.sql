-- What the operator decided about sales that cannot end by themselves, and about machines.

CREATE TABLE verdicts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    -- the machine's keys at that time: a verdict is for no other pairing
    spire       TEXT NOT NULL CHECK (length(spire) = 64),
    vault       TEXT NOT NULL CHECK (length(vault) = 64),
    txid        TEXT CHECK (length(txid) = 32),
    verdict     TEXT NOT NULL CHECK (verdict IN
        ('owed', 'settled', 'dispense_rest', 'close_breaker', 'resume')),
    amount_minor INTEGER NOT NULL CHECK (amount_minor >= 0),
    -- the journal position of the report that it was decided on
    journal_seq INTEGER NOT NULL CHECK (journal_seq >= 0),
    nonce       TEXT NOT NULL UNIQUE CHECK (length(nonce) = 32),
    -- signed by the operator key
    statement   TEXT NOT NULL CHECK (json_valid(statement)),
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('live', 'used', 'moot', 'lapsed')),
    ended_at    INTEGER,
    CHECK ((verdict = 'close_breaker') = (txid IS NULL)),
    CHECK ((state = 'live') = (ended_at IS NULL))
) STRICT;
-- one decision at a time about one thing
CREATE UNIQUE INDEX verdicts_live ON verdicts (machine_id, coalesce(txid, '')) WHERE state = 'live';
CREATE INDEX verdicts_of_machine ON verdicts (machine_id, id);
CREATE TRIGGER verdicts_stay BEFORE UPDATE OF id, machine_id, spire, vault, txid, verdict,
    amount_minor, journal_seq, nonce, statement, actor, created_at, not_after ON verdicts
BEGIN SELECT RAISE(ABORT, 'verdicts: what was signed never changes'); END;
CREATE TRIGGER verdicts_final BEFORE UPDATE ON verdicts WHEN OLD.state <> 'live'
BEGIN SELECT RAISE(ABORT, 'verdicts: an end is an end'); END;
CREATE TRIGGER verdicts_no_delete BEFORE DELETE ON verdicts
BEGIN SELECT RAISE(ABORT, 'verdicts: never deleted'); END;
