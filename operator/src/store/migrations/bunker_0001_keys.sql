-- The bunker: keys, who may have what signed with them, and what was asked.
-- Conventions: keys and hashes are lower-case hex; times are Unix seconds.

-- whose administrative requests are carried out
CREATE TABLE admins (
    pubkey   TEXT PRIMARY KEY CHECK (length(pubkey) = 64 AND pubkey NOT GLOB '*[^0-9a-f]*'),
    added_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    pubkey     TEXT NOT NULL UNIQUE
        CHECK (length(pubkey) = 64 AND pubkey NOT GLOB '*[^0-9a-f]*'),
    -- never a key in the clear
    sealed     TEXT NOT NULL CHECK (sealed GLOB 'bitspire-sealed:v1:bunker-key:*'),
    created_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER keys_no_update BEFORE UPDATE ON keys
BEGIN SELECT RAISE(ABORT, 'keys: a key is never overwritten'); END;
CREATE TRIGGER keys_no_delete BEFORE DELETE ON keys
BEGIN SELECT RAISE(ABORT, 'keys: a key is never deleted'); END;

-- grants name a policy: one that is gone or renamed would change what they allow
CREATE TABLE policies (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE TRIGGER policies_stay BEFORE DELETE ON policies
BEGIN SELECT RAISE(ABORT, 'policies: a policy expires, it is never deleted'); END;

CREATE TABLE rules (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    policy_id INTEGER NOT NULL REFERENCES policies (id),
    method    TEXT NOT NULL CHECK (method IN ('sign_event', 'nip44_encrypt', 'nip44_decrypt')),
    -- NULL: every kind, or a method that has none
    kind      INTEGER CHECK (kind BETWEEN 0 AND 65535),
    -- NULL: without end
    max_usage_count     INTEGER CHECK (max_usage_count >= 0),
    current_usage_count INTEGER NOT NULL CHECK (current_usage_count >= 0),
    CHECK (kind IS NULL OR method = 'sign_event'),
    CHECK (max_usage_count IS NULL OR current_usage_count <= max_usage_count)
) STRICT;
CREATE INDEX rules_of_policy ON rules (policy_id, id);
CREATE TRIGGER rules_count_up BEFORE UPDATE ON rules
WHEN NEW.current_usage_count < OLD.current_usage_count
BEGIN SELECT RAISE(ABORT, 'rules: a use is never taken back'); END;

CREATE TABLE tokens (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id      INTEGER NOT NULL REFERENCES keys (id),
    policy_id   INTEGER NOT NULL REFERENCES policies (id),
    client_name TEXT NOT NULL CHECK (length(client_name) <= 200),
    -- SHA-256 of the secret's text
    hash        TEXT NOT NULL UNIQUE CHECK (length(hash) = 64 AND hash NOT GLOB '*[^0-9a-f]*'),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    redeemed_at INTEGER,
    redeemed_by TEXT CHECK (length(redeemed_by) = 64),
    revoked_at  INTEGER,
    CHECK ((redeemed_at IS NULL) = (redeemed_by IS NULL))
) STRICT;
CREATE INDEX tokens_of_key ON tokens (key_id, id);
CREATE TRIGGER tokens_are_one_shot BEFORE UPDATE ON tokens
WHEN OLD.redeemed_at IS NOT NULL
    AND (NEW.redeemed_at IS NOT OLD.redeemed_at OR NEW.redeemed_by IS NOT OLD.redeemed_by)
BEGIN SELECT RAISE(ABORT, 'tokens: a token is redeemed once'); END;
CREATE TRIGGER tokens_stay_revoked BEFORE UPDATE ON tokens
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'tokens: a revoked token stays revoked'); END;

CREATE TABLE grants (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id       INTEGER NOT NULL REFERENCES keys (id),
    policy_id    INTEGER NOT NULL REFERENCES policies (id),
    token_id     INTEGER NOT NULL UNIQUE REFERENCES tokens (id),
    client       TEXT NOT NULL CHECK (length(client) = 64 AND client NOT GLOB '*[^0-9a-f]*'),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    UNIQUE (key_id, client)
) STRICT;
CREATE TRIGGER grants_stay BEFORE DELETE ON grants
BEGIN SELECT RAISE(ABORT, 'grants: a grant is revoked, never deleted'); END;
CREATE TRIGGER grants_stay_revoked BEFORE UPDATE ON grants
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'grants: a revoked client stays revoked'); END;

-- what clients were allowed; a repeat of a request is the same request
CREATE TABLE requests (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    key_id   INTEGER NOT NULL REFERENCES keys (id),
    grant_id INTEGER NOT NULL REFERENCES grants (id),
    method   TEXT NOT NULL,
    kind     INTEGER,
    -- SHA-256 of the decrypted request
    digest   TEXT NOT NULL CHECK (length(digest) = 64),
    -- the rule that was counted, if one was
    rule_id  INTEGER REFERENCES rules (id),
    outcome  TEXT NOT NULL CHECK (outcome IN ('allowed', 'failed')),
    detail   TEXT NOT NULL CHECK (length(detail) <= 200)
) STRICT;
CREATE UNIQUE INDEX requests_once ON requests (grant_id, digest) WHERE outcome = 'allowed';
CREATE TRIGGER requests_no_update BEFORE UPDATE ON requests
BEGIN SELECT RAISE(ABORT, 'requests: append only'); END;
CREATE TRIGGER requests_no_delete BEFORE DELETE ON requests
BEGIN SELECT RAISE(ABORT, 'requests: append only'); END;

-- what was refused, to whomever; bounded, since strangers decide how many rows are written
CREATE TABLE refused (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    key_id INTEGER NOT NULL REFERENCES keys (id),
    client TEXT NOT NULL,
    method TEXT NOT NULL,
    kind   INTEGER,
    detail TEXT NOT NULL CHECK (length(detail) <= 200)
) STRICT;
CREATE TRIGGER refused_bound AFTER INSERT ON refused
BEGIN DELETE FROM refused WHERE id <= NEW.id - 10000; END;

-- what administrators asked
CREATE TABLE admin_log (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    admin    TEXT NOT NULL CHECK (length(admin) = 64),
    -- the request: the same one is carried out once
    event_id TEXT NOT NULL UNIQUE CHECK (length(event_id) = 64),
    method   TEXT NOT NULL,
    subject  TEXT NOT NULL CHECK (length(subject) <= 200),
    outcome  TEXT NOT NULL CHECK (outcome IN ('done', 'refused')),
    detail   TEXT NOT NULL CHECK (length(detail) <= 200)
) STRICT;
CREATE TRIGGER admin_log_no_update BEFORE UPDATE ON admin_log
BEGIN SELECT RAISE(ABORT, 'admin_log: append only'); END;
CREATE TRIGGER admin_log_no_delete BEFORE DELETE ON admin_log
BEGIN SELECT RAISE(ABORT, 'admin_log: append only'); END;
