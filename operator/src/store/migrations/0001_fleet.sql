-- Who operates what: operators, people, machines, pairing, sessions, configuration.
-- Conventions: ids and keys are lower-case hex; times are Unix seconds; amounts are whole sats or
-- minor units; a fee is parts per million; JSON is text.

CREATE TABLE operators (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    -- the operator key; without one nothing can be published for its machines
    pubkey      TEXT UNIQUE CHECK (length(pubkey) = 64 AND pubkey NOT GLOB '*[^0-9a-f]*'),
    signer      TEXT CHECK (signer IN ('bunker', 'local')),
    bunker_key_name TEXT,
    created_at  INTEGER NOT NULL,
    CHECK ((pubkey IS NULL) = (signer IS NULL)),
    CHECK ((signer IS 'bunker') = (bunker_key_name IS NOT NULL))
) STRICT;

CREATE TABLE users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- NULL for those who look after the whole instance
    operator_id INTEGER REFERENCES operators (id),
    pubkey      TEXT NOT NULL UNIQUE CHECK (length(pubkey) = 64 AND pubkey NOT GLOB '*[^0-9a-f]*'),
    role        TEXT NOT NULL CHECK (role IN ('viewer', 'collector', 'operator', 'owner', 'super')),
    name        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER,
    CHECK ((role = 'super') = (operator_id IS NULL))
) STRICT;
CREATE INDEX users_of_operator ON users (operator_id);

CREATE TABLE machines (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    operator_id INTEGER NOT NULL REFERENCES operators (id),
    name        TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    place       TEXT NOT NULL,
    currency    TEXT NOT NULL CHECK (currency GLOB '[A-Z][A-Z][A-Z]'),
    -- one wallet belongs to one machine
    wallet_id   TEXT NOT NULL UNIQUE CHECK (wallet_id <> ''),

    -- the spire key, always as hex; NULL until known
    machine_npub TEXT UNIQUE
        CHECK (length(machine_npub) = 64 AND machine_npub NOT GLOB '*[^0-9a-f]*'),
    bunker_spire_key_name TEXT UNIQUE,
    bunker_connection_id  TEXT,
    bunker_token_expires_at INTEGER,
    paired_at   INTEGER,
    client_key  TEXT UNIQUE CHECK (length(client_key) = 64 AND client_key NOT GLOB '*[^0-9a-f]*'),
    vault_key   TEXT UNIQUE CHECK (length(vault_key) = 64 AND vault_key NOT GLOB '*[^0-9a-f]*'),
    confirmation TEXT NOT NULL DEFAULT 'unpaired' CHECK (confirmation IN
        ('unpaired', 'awaiting_session', 'awaiting_confirmation', 'confirmed', 'revoked')),
    confirmed_at INTEGER,
    revoked_at  INTEGER,

    disabled_at INTEGER,
    disabled_reason TEXT,

    cash_in_fee_ppm  INTEGER NOT NULL DEFAULT 0 CHECK (cash_in_fee_ppm BETWEEN 0 AND 150000),
    cash_out_fee_ppm INTEGER NOT NULL DEFAULT 0 CHECK (cash_out_fee_ppm BETWEEN 0 AND 150000),
    -- caps; NULL is the default, 0 allows nothing
    max_cash_in_sats      INTEGER CHECK (max_cash_in_sats >= 0),
    max_cash_in_hour_sats INTEGER CHECK (max_cash_in_hour_sats >= 0),
    max_cash_in_day_sats  INTEGER CHECK (max_cash_in_day_sats >= 0),
    cashbox_capacity      INTEGER CHECK (cashbox_capacity >= 0),

    journal_seq  INTEGER NOT NULL DEFAULT 0 CHECK (journal_seq >= 0),
    journal_head TEXT CHECK (length(journal_head) = 64),
    last_seen_at INTEGER,
    created_at   INTEGER NOT NULL,

    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CHECK ((confirmation = 'unpaired') = (paired_at IS NULL)),
    CHECK (paired_at IS NULL OR (machine_npub IS NOT NULL AND bunker_spire_key_name IS NOT NULL
        AND bunker_token_expires_at IS NOT NULL)),
    CHECK (confirmation NOT IN ('awaiting_confirmation', 'confirmed') OR vault_key IS NOT NULL),
    CHECK ((confirmation = 'confirmed') <= (confirmed_at IS NOT NULL)),
    CHECK ((confirmation = 'revoked') = (revoked_at IS NOT NULL)),
    CHECK ((journal_seq = 0) = (journal_head IS NULL))
) STRICT;
CREATE INDEX machines_of_operator ON machines (operator_id);
-- accounts, key names and audit rows refer to a machine for ever
CREATE TRIGGER machines_stay BEFORE DELETE ON machines
BEGIN SELECT RAISE(ABORT, 'machines: a machine is disabled or revoked, never deleted'); END;
-- a ledger in one currency cannot go on in another
CREATE TRIGGER machines_keep_currency BEFORE UPDATE OF currency, operator_id ON machines
WHEN NEW.currency <> OLD.currency OR NEW.operator_id <> OLD.operator_id
BEGIN SELECT RAISE(ABORT, 'machines: currency and operator of a machine never change'); END;

-- what the instance takes; one row from the first start
CREATE TABLE super_config (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    cash_in_fee_ppm  INTEGER NOT NULL CHECK (cash_in_fee_ppm BETWEEN 0 AND 150000),
    cash_out_fee_ppm INTEGER NOT NULL CHECK (cash_out_fee_ppm BETWEEN 0 AND 150000),
    wallet_id        TEXT CHECK (wallet_id <> ''),
    updated_at       INTEGER NOT NULL
) STRICT;
INSERT INTO super_config (id, cash_in_fee_ppm, cash_out_fee_ppm, updated_at) VALUES (1, 0, 0, 0);
CREATE TRIGGER super_config_stays BEFORE DELETE ON super_config
BEGIN SELECT RAISE(ABORT, 'super_config: the row exists from the first start on'); END;

CREATE TABLE pairing_attempts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    number       INTEGER NOT NULL CHECK (number > 0),
    key_name     TEXT NOT NULL UNIQUE,
    requested_by TEXT NOT NULL,
    relays       TEXT NOT NULL CHECK (json_valid(relays)),
    duration_hours INTEGER NOT NULL CHECK (duration_hours > 0),
    step         TEXT NOT NULL CHECK (step IN ('started', 'key_created', 'policy_ready',
        'token_created', 'token_read', 'switched', 'old_revoked', 'failed')),
    spire_key    TEXT CHECK (length(spire_key) = 64 AND spire_key NOT GLOB '*[^0-9a-f]*'),
    policy_id    INTEGER,
    token_id     INTEGER,
    token_expires_at INTEGER,
    error        TEXT,
    started_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (machine_id, number),
    CHECK ((step = 'failed') = (error IS NOT NULL))
) STRICT;
-- one attempt at a time
CREATE UNIQUE INDEX pairing_open ON pairing_attempts (machine_id)
    WHERE step NOT IN ('old_revoked', 'failed');

CREATE TABLE sessions (
    session_id     TEXT PRIMARY KEY CHECK (length(session_id) = 32),
    machine_id     INTEGER NOT NULL REFERENCES machines (id),
    session_pubkey TEXT NOT NULL UNIQUE
        CHECK (length(session_pubkey) = 64 AND session_pubkey NOT GLOB '*[^0-9a-f]*'),
    vault_key      TEXT NOT NULL CHECK (length(vault_key) = 64),
    event_id       TEXT NOT NULL UNIQUE CHECK (length(event_id) = 64),
    journal_seq    INTEGER NOT NULL CHECK (journal_seq >= 0),
    journal_head   TEXT NOT NULL CHECK (length(journal_head) = 64),
    opened_at      INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    closed_at      INTEGER,
    CHECK (expires_at > opened_at AND expires_at - opened_at <= 86400)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_open ON sessions (machine_id, expires_at) WHERE closed_at IS NULL;

-- single use: nonces of statements, ids of HTTP authorisation events
CREATE TABLE used_nonces (
    scope      TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX used_nonces_expiry ON used_nonces (expires_at);

-- the newest requests that were refused, for the page that shows them
CREATE TABLE rejected_rpc (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    relay    TEXT,
    sender   TEXT,
    event_id TEXT,
    detail   TEXT NOT NULL CHECK (length(detail) <= 500)
) STRICT;
-- bounded: strangers decide how many rows are written
CREATE TRIGGER rejected_rpc_bound AFTER INSERT ON rejected_rpc
BEGIN DELETE FROM rejected_rpc WHERE id <= NEW.id - 1000; END;

CREATE TABLE audit_log (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    -- the key of whoever acted, 'cli' or 'service'
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    detail    TEXT NOT NULL CHECK (json_valid(detail)),
    -- the signed event, where the action asks for one
    signed    TEXT CHECK (json_valid(signed))
) STRICT;
CREATE INDEX audit_of_subject ON audit_log (subject, id);
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'audit_log: append only'); END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'audit_log: append only'); END;
