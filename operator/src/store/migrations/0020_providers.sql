-- Liquidity providers: who they are, what they have handed over, and what they get of each sale.

INSERT INTO ledger_kinds (kind) VALUES
    ('lp_deposit'), ('lp_return'), ('lp_share'), ('lp_share_void');
INSERT INTO leg_kinds (kind) VALUES ('dca');

-- what each provider had before each of their sales
CREATE INDEX ledger_of_lp ON ledger_postings (account, unit, entry_id, amount)
    WHERE account GLOB 'lp:*';

CREATE TABLE lps (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    operator_id INTEGER NOT NULL REFERENCES operators (id),
    name        TEXT NOT NULL CHECK (name <> ''),
    currency    TEXT NOT NULL CHECK (currency GLOB '[A-Z][A-Z][A-Z]'),
    created_at  INTEGER NOT NULL,
    -- takes no part as long as this is set
    disabled_at INTEGER,
    UNIQUE (operator_id, name)
) STRICT;
CREATE TRIGGER lps_stay BEFORE UPDATE OF id, operator_id, currency, created_at ON lps
BEGIN SELECT RAISE(ABORT, 'lps: operator and currency never change'); END;
CREATE TRIGGER lps_no_delete BEFORE DELETE ON lps
BEGIN SELECT RAISE(ABORT, 'lps: never deleted'); END;

-- how much of a provider's fiat may become sats; a change is a new row, the newest one counts
CREATE TABLE lp_terms (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    lp_id       INTEGER NOT NULL REFERENCES lps (id),
    -- flow: all of it; fixed: so much a day at most
    mode        TEXT NOT NULL CHECK (mode IN ('flow', 'fixed')),
    daily_limit_minor INTEGER CHECK (daily_limit_minor > 0),
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    CHECK ((mode = 'fixed') = (daily_limit_minor IS NOT NULL))
) STRICT;
CREATE INDEX lp_terms_of ON lp_terms (lp_id, id);
CREATE TRIGGER lp_terms_stay BEFORE UPDATE ON lp_terms
BEGIN SELECT RAISE(ABORT, 'lp_terms: append only'); END;
CREATE TRIGGER lp_terms_no_delete BEFORE DELETE ON lp_terms
BEGIN SELECT RAISE(ABORT, 'lp_terms: append only'); END;

-- in whose sales a provider takes part
CREATE TABLE lp_enrolments (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    lp_id      INTEGER NOT NULL REFERENCES lps (id),
    -- none: every machine of the operator in the provider's currency
    machine_id INTEGER REFERENCES machines (id),
    since      INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX lp_enrolments_once ON lp_enrolments (lp_id, coalesce(machine_id, 0))
    WHERE ended_at IS NULL;
CREATE TRIGGER lp_enrolments_same BEFORE INSERT ON lp_enrolments
WHEN NEW.machine_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM machines m JOIN lps l ON l.id = NEW.lp_id WHERE m.id = NEW.machine_id
        AND m.currency = l.currency AND m.operator_id = l.operator_id)
BEGIN SELECT RAISE(ABORT, 'lp_enrolments: a machine of the same operator and currency'); END;
CREATE TRIGGER lp_enrolments_stay BEFORE UPDATE OF id, lp_id, machine_id, since ON lp_enrolments
BEGIN SELECT RAISE(ABORT, 'lp_enrolments: ended, never changed'); END;
CREATE TRIGGER lp_enrolments_end_once BEFORE UPDATE ON lp_enrolments WHEN OLD.ended_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'lp_enrolments: ended is ended'); END;

-- fiat that a provider hands over (it counts when it is confirmed), or is given back
CREATE TABLE lp_deposits (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    lp_id        INTEGER NOT NULL REFERENCES lps (id),
    kind         TEXT NOT NULL CHECK (kind IN ('deposit', 'return')),
    -- what the operator calls it, a receipt's number say: recorded once
    reference    TEXT NOT NULL CHECK (reference <> ''),
    -- thousands of them can be summed
    amount_minor INTEGER NOT NULL CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
    currency     TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'confirmed', 'cancelled')),
    actor        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    ended_by     TEXT,
    UNIQUE (lp_id, reference),
    CHECK (kind = 'deposit' OR state = 'confirmed'),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
) STRICT;
CREATE TRIGGER lp_deposits_currency BEFORE INSERT ON lp_deposits
WHEN NEW.currency IS NOT (SELECT currency FROM lps WHERE id = NEW.lp_id)
BEGIN SELECT RAISE(ABORT, 'lp_deposits: in the currency of the provider'); END;
CREATE TRIGGER lp_deposits_stay BEFORE UPDATE ON lp_deposits
WHEN OLD.state <> 'pending' OR NEW.lp_id <> OLD.lp_id OR NEW.kind <> OLD.kind
    OR NEW.reference <> OLD.reference OR NEW.amount_minor <> OLD.amount_minor
    OR NEW.currency <> OLD.currency
BEGIN SELECT RAISE(ABORT, 'lp_deposits: confirmed or cancelled once, never changed'); END;
CREATE TRIGGER lp_deposits_no_delete BEFORE DELETE ON lp_deposits
BEGIN SELECT RAISE(ABORT, 'lp_deposits: never deleted'); END;

-- what of a settlement's principal is a provider's, and for which fiat, with what that follows from
CREATE TABLE lp_shares (
    settlement_id INTEGER NOT NULL REFERENCES settlements (id),
    lp_id         INTEGER NOT NULL REFERENCES lps (id),
    terms_id      INTEGER NOT NULL REFERENCES lp_terms (id),
    -- the provider's fiat before, and what of it had become sats on that day, UTC
    left_minor    INTEGER NOT NULL CHECK (left_minor > 0),
    used_minor    INTEGER NOT NULL CHECK (used_minor >= 0),
    -- what of it could become sats then
    may_minor     INTEGER NOT NULL CHECK (may_minor > 0 AND may_minor <= left_minor),
    sats          INTEGER NOT NULL CHECK (sats >= 0),
    minor         INTEGER NOT NULL CHECK (minor >= 0 AND minor <= may_minor),
    at            INTEGER NOT NULL,
    PRIMARY KEY (settlement_id, lp_id),
    CHECK ((sats = 0) = (minor = 0))
) STRICT;
CREATE INDEX lp_shares_of_day ON lp_shares (lp_id, at);
CREATE TRIGGER lp_shares_stay BEFORE UPDATE ON lp_shares
BEGIN SELECT RAISE(ABORT, 'lp_shares: append only'); END;
CREATE TRIGGER lp_shares_no_delete BEFORE DELETE ON lp_shares
BEGIN SELECT RAISE(ABORT, 'lp_shares: append only'); END;

-- rules and legs know providers: a CHECK cannot be changed, so both are made anew, as they were
CREATE TABLE kept_rules AS SELECT * FROM rules;
CREATE TABLE kept_legs AS SELECT * FROM legs;
DROP TABLE legs;
DROP TABLE rules;

CREATE TABLE rules (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- the platform's fee, an operator's fee, an operator's fee from one machine, or a provider's sats
    scope       TEXT NOT NULL CHECK (scope IN ('super', 'operator', 'machine', 'lp')),
    operator_id INTEGER REFERENCES operators (id),
    machine_id  INTEGER REFERENCES machines (id),
    lp_id       INTEGER REFERENCES lps (id),
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
    CHECK ((scope = 'lp') = (lp_id IS NOT NULL)),
    CHECK (in_force_at >= created_at),
    CHECK ((cancelled_at IS NULL) = (cancelled_by IS NULL)),
    CHECK (cancelled_at IS NULL OR cancelled_at < in_force_at)
) STRICT;
INSERT INTO rules (id, scope, operator_id, machine_id, shares, signed, actor, created_at,
        in_force_at, cancelled_at, cancelled_by)
    SELECT id, scope, operator_id, machine_id, shares, signed, actor, created_at, in_force_at,
        cancelled_at, cancelled_by FROM kept_rules;
DROP TABLE kept_rules;
CREATE INDEX rules_of_scope ON rules (scope, operator_id, machine_id, in_force_at, id);
CREATE INDEX rules_of_lp ON rules (lp_id, id) WHERE lp_id IS NOT NULL;
CREATE TRIGGER rules_stay BEFORE UPDATE OF id, scope, operator_id, machine_id, lp_id, shares,
    signed, actor, created_at, in_force_at ON rules
BEGIN SELECT RAISE(ABORT, 'rules: what was signed never changes'); END;
CREATE TRIGGER rules_cancel_once BEFORE UPDATE ON rules WHEN OLD.cancelled_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'rules: cancelled is cancelled'); END;
CREATE TRIGGER rules_no_delete BEFORE DELETE ON rules
BEGIN SELECT RAISE(ABORT, 'rules: never deleted'); END;

CREATE TABLE legs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    settlement_id INTEGER NOT NULL REFERENCES settlements (id),
    position      INTEGER NOT NULL CHECK (position >= 1),
    -- a new round follows only on one that has finally failed
    round         INTEGER NOT NULL CHECK (round >= 1),
    idempotency_key TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL REFERENCES leg_kinds (kind),
    lp_id         INTEGER REFERENCES lps (id),
    amount_sats   INTEGER NOT NULL CHECK (amount_sats > 0),
    rule_id       INTEGER REFERENCES rules (id),
    destination   TEXT CHECK (json_valid(destination)),
    -- kept: a provider's without a destination stays in the machine's wallet until it is settled
    state         TEXT NOT NULL CHECK (state IN
        ('planned', 'bound', 'paid', 'failed', 'void', 'by_hand', 'kept')),
    -- of the one invoice that this round pays
    payment_hash  TEXT UNIQUE CHECK (length(payment_hash) = 64),
    detail        TEXT,
    planned_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    ended_by      TEXT,
    UNIQUE (settlement_id, position, round),
    CHECK ((kind = 'dca') = (lp_id IS NOT NULL)),
    CHECK ((rule_id IS NULL) = (destination IS NULL)),
    CHECK (rule_id IS NOT NULL OR kind = 'super_fee'
        OR (kind = 'dca' AND state IN ('kept', 'void', 'by_hand'))),
    CHECK (state <> 'kept' OR (kind = 'dca' AND rule_id IS NULL)),
    CHECK (state NOT IN ('planned', 'kept') OR payment_hash IS NULL),
    CHECK (state NOT IN ('bound', 'paid', 'failed') OR payment_hash IS NOT NULL),
    CHECK ((state IN ('planned', 'bound', 'kept')) = (ended_at IS NULL)),
    CHECK ((state IN ('void', 'by_hand')) = (ended_by IS NOT NULL))
) STRICT;
INSERT INTO legs (id, settlement_id, position, round, idempotency_key, kind, amount_sats, rule_id,
        destination, state, payment_hash, detail, planned_at, ended_at, ended_by)
    SELECT id, settlement_id, position, round, idempotency_key, kind, amount_sats, rule_id,
        destination, state, payment_hash, detail, planned_at, ended_at, ended_by FROM kept_legs;
DROP TABLE kept_legs;
CREATE UNIQUE INDEX legs_one_live ON legs (settlement_id, position) WHERE state <> 'failed';
CREATE UNIQUE INDEX legs_one_of_lp ON legs (settlement_id, lp_id) WHERE round = 1
    AND lp_id IS NOT NULL;
CREATE INDEX legs_open ON legs (settlement_id) WHERE state IN ('planned', 'bound');
-- these stay until a person settles them, and may be many
CREATE INDEX legs_kept ON legs (settlement_id, amount_sats) WHERE state = 'kept';
CREATE INDEX legs_kept_for ON legs (lp_id, id) WHERE state = 'kept';
CREATE INDEX legs_of_lp ON legs (lp_id, id) WHERE lp_id IS NOT NULL;
CREATE TRIGGER legs_final BEFORE UPDATE ON legs
WHEN OLD.state NOT IN ('planned', 'bound', 'kept') OR NEW.settlement_id <> OLD.settlement_id
    OR NEW.position <> OLD.position OR NEW.round <> OLD.round OR NEW.kind <> OLD.kind
    OR NEW.lp_id IS NOT OLD.lp_id
    OR NEW.amount_sats <> OLD.amount_sats OR NEW.idempotency_key <> OLD.idempotency_key
    OR (OLD.rule_id IS NOT NULL AND (NEW.rule_id IS NOT OLD.rule_id
        OR NEW.destination IS NOT OLD.destination))
    OR (OLD.payment_hash IS NOT NULL AND NEW.payment_hash IS NOT OLD.payment_hash)
    OR (OLD.state = 'bound' AND NEW.state IN ('planned', 'void', 'by_hand', 'kept'))
    OR (OLD.state = 'planned' AND NEW.state = 'kept')
    OR (OLD.state = 'kept' AND NEW.state NOT IN ('kept', 'void', 'by_hand'))
BEGIN SELECT RAISE(ABORT, 'legs: bound once, ended for ever'); END;
CREATE TRIGGER legs_stay BEFORE DELETE ON legs
BEGIN SELECT RAISE(ABORT, 'legs: never deleted'); END;
-- no more goes out than was taken, whoever plans it
CREATE TRIGGER legs_within BEFORE INSERT ON legs
WHEN NEW.amount_sats + (SELECT coalesce(sum(amount_sats), 0) FROM legs
        WHERE settlement_id = NEW.settlement_id AND kind = NEW.kind AND state <> 'failed')
    > coalesce((SELECT CASE NEW.kind WHEN 'super_fee' THEN platform_fee_sats
        WHEN 'operator_split' THEN operator_fee_sats
        WHEN 'dca' THEN principal_sats END FROM settlements WHERE id = NEW.settlement_id), 0)
BEGIN SELECT RAISE(ABORT, 'legs: more than the settlement has for them'); END;
-- no provider's sats without the provider's fiat
CREATE TRIGGER legs_reserved BEFORE INSERT ON legs
WHEN NEW.lp_id IS NOT NULL AND NEW.amount_sats IS NOT (SELECT sats FROM lp_shares
    WHERE settlement_id = NEW.settlement_id AND lp_id = NEW.lp_id)
BEGIN SELECT RAISE(ABORT, 'legs: a provider''s leg is its share'); END;

-- who makes sats somebody's is told as who changes where they go
DROP TRIGGER webhook_of_act;
CREATE TRIGGER webhook_of_act AFTER INSERT ON audit_log
WHEN (SELECT since FROM webhook) IS NOT NULL AND NEW.action <> 'webhook.given_up'
    AND (NEW.actor = 'service' OR NEW.action IN ('rules.change', 'rules.cancel')
        OR NEW.action GLOB 'lp.*')
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (
        CASE WHEN NEW.subject GLOB 'machine:[0-9]*' THEN CAST(substr(NEW.subject, 9) AS INTEGER)
        END, 'alert',
        json_object('what', NEW.action, 'subject', NEW.subject, 'actor', NEW.actor,
            'detail', json(NEW.detail), 'at', NEW.at));
END;
