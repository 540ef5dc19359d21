-- Where the parts of a settled payment go, and each attempt to send one there.

INSERT INTO ledger_kinds (kind) VALUES ('leg_paid'), ('leg_by_hand');

-- who gets which share, and from when on; a change is a new row, and what it replaces stays
CREATE TABLE rules (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- the platform's fee, an operator's fee, or an operator's fee from one machine
    scope       TEXT NOT NULL CHECK (scope IN ('super', 'operator', 'machine')),
    operator_id INTEGER REFERENCES operators (id),
    machine_id  INTEGER REFERENCES machines (id),
    -- [{"ppm": ..., "to": {...}}, ...]; none: it stays in the machine's wallet
    shares      TEXT NOT NULL CHECK (json_valid(shares) AND json_type(shares) = 'array'),
    -- the event by which the owner's key has signed exactly this
    signed      TEXT NOT NULL CHECK (json_valid(signed)),
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    in_force_at INTEGER NOT NULL,
    cancelled_at INTEGER,
    cancelled_by TEXT,
    CHECK ((scope = 'super') = (operator_id IS NULL)),
    CHECK ((scope = 'machine') = (machine_id IS NOT NULL)),
    CHECK (in_force_at >= created_at),
    CHECK ((cancelled_at IS NULL) = (cancelled_by IS NULL)),
    CHECK (cancelled_at IS NULL OR cancelled_at < in_force_at)
) STRICT;
CREATE INDEX rules_of_scope ON rules (scope, operator_id, machine_id, in_force_at, id);
CREATE TRIGGER rules_stay BEFORE UPDATE OF id, scope, operator_id, machine_id, shares, signed,
    actor, created_at, in_force_at ON rules
BEGIN SELECT RAISE(ABORT, 'rules: what was signed never changes'); END;
CREATE TRIGGER rules_cancel_once BEFORE UPDATE ON rules WHEN OLD.cancelled_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'rules: cancelled is cancelled'); END;
CREATE TRIGGER rules_no_delete BEFORE DELETE ON rules
BEGIN SELECT RAISE(ABORT, 'rules: never deleted'); END;

-- a table and not a CHECK: later migrations add kinds
CREATE TABLE leg_kinds (kind TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO leg_kinds (kind) VALUES ('super_fee'), ('operator_split');

CREATE TABLE legs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    settlement_id INTEGER NOT NULL REFERENCES settlements (id),
    position      INTEGER NOT NULL CHECK (position >= 1),
    -- a new round follows only on one that has finally failed
    round         INTEGER NOT NULL CHECK (round >= 1),
    idempotency_key TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL REFERENCES leg_kinds (kind),
    amount_sats   INTEGER NOT NULL CHECK (amount_sats > 0),
    rule_id       INTEGER REFERENCES rules (id),
    destination   TEXT CHECK (json_valid(destination)),
    state         TEXT NOT NULL CHECK (state IN
        ('planned', 'bound', 'paid', 'failed', 'void', 'by_hand')),
    -- of the one invoice that this round pays
    payment_hash  TEXT UNIQUE CHECK (length(payment_hash) = 64),
    detail        TEXT,
    planned_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    ended_by      TEXT,
    UNIQUE (settlement_id, position, round),
    CHECK ((rule_id IS NULL) = (destination IS NULL)),
    CHECK (rule_id IS NOT NULL OR kind = 'super_fee'),
    CHECK (state <> 'planned' OR payment_hash IS NULL),
    CHECK (state NOT IN ('bound', 'paid', 'failed') OR payment_hash IS NOT NULL),
    CHECK ((state IN ('planned', 'bound')) = (ended_at IS NULL)),
    CHECK ((state IN ('void', 'by_hand')) = (ended_by IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX legs_one_live ON legs (settlement_id, position) WHERE state <> 'failed';
CREATE INDEX legs_open ON legs (settlement_id) WHERE state IN ('planned', 'bound');
CREATE TRIGGER legs_final BEFORE UPDATE ON legs
WHEN OLD.state NOT IN ('planned', 'bound') OR NEW.settlement_id <> OLD.settlement_id
    OR NEW.position <> OLD.position OR NEW.round <> OLD.round OR NEW.kind <> OLD.kind
    OR NEW.amount_sats <> OLD.amount_sats OR NEW.idempotency_key <> OLD.idempotency_key
    OR (OLD.rule_id IS NOT NULL AND (NEW.rule_id IS NOT OLD.rule_id
        OR NEW.destination IS NOT OLD.destination))
    OR (OLD.payment_hash IS NOT NULL AND NEW.payment_hash IS NOT OLD.payment_hash)
    OR (OLD.state = 'bound' AND NEW.state IN ('planned', 'void', 'by_hand'))
BEGIN SELECT RAISE(ABORT, 'legs: bound once, ended for ever'); END;
CREATE TRIGGER legs_stay BEFORE DELETE ON legs
BEGIN SELECT RAISE(ABORT, 'legs: never deleted'); END;
-- no more goes out than was taken, whoever plans it
CREATE TRIGGER legs_within BEFORE INSERT ON legs
WHEN NEW.amount_sats + (SELECT coalesce(sum(amount_sats), 0) FROM legs
        WHERE settlement_id = NEW.settlement_id AND kind = NEW.kind AND state <> 'failed')
    > coalesce((SELECT CASE NEW.kind WHEN 'super_fee' THEN platform_fee_sats
        ELSE operator_fee_sats END FROM settlements WHERE id = NEW.settlement_id), 0)
BEGIN SELECT RAISE(ABORT, 'legs: more than the settlement has for them'); END;

CREATE INDEX settlements_distributable ON settlements (id)
    WHERE distribution IN ('pending', 'processing');
CREATE TRIGGER settlements_keep_parts BEFORE UPDATE OF principal_sats, platform_fee_sats,
    operator_fee_sats, owed_sats ON settlements
WHEN EXISTS (SELECT 1 FROM legs WHERE settlement_id = OLD.id)
    AND (NEW.principal_sats IS NOT OLD.principal_sats
        OR NEW.platform_fee_sats IS NOT OLD.platform_fee_sats
        OR NEW.operator_fee_sats IS NOT OLD.operator_fee_sats
        OR NEW.owed_sats IS NOT OLD.owed_sats)
BEGIN SELECT RAISE(ABORT, 'settlements: what has legs is split for good'); END;
CREATE TRIGGER settlements_processed_whole BEFORE UPDATE OF distribution ON settlements
WHEN NEW.distribution = 'processed' AND EXISTS (SELECT 1 FROM legs l WHERE settlement_id = OLD.id
    AND (state IN ('planned', 'bound') OR (state = 'failed' AND NOT EXISTS (SELECT 1 FROM legs n
        WHERE n.settlement_id = l.settlement_id AND n.position = l.position
            AND n.round > l.round))))
BEGIN SELECT RAISE(ABORT, 'settlements: processed when every leg has ended'); END;
