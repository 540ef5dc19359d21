-- What machines are told and what they say: documents, pushes, cassettes, heartbeats.

-- configuration documents; a row is wanted, then published, then taken by a relay, then applied
CREATE TABLE documents (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    kind         TEXT NOT NULL CHECK (kind IN ('fees', 'cassettes')),
    -- the plaintext
    body         TEXT NOT NULL CHECK (json_valid(body)),
    published_at INTEGER NOT NULL,
    -- fees only: what it sets, by direction
    cash_in_platform_ppm  INTEGER CHECK (cash_in_platform_ppm >= 0),
    cash_in_operator_ppm  INTEGER CHECK (cash_in_operator_ppm >= 0),
    cash_out_platform_ppm INTEGER CHECK (cash_out_platform_ppm >= 0),
    cash_out_operator_ppm INTEGER CHECK (cash_out_operator_ppm >= 0),
    wanted_at    INTEGER NOT NULL,
    -- the signed event, from when it could be signed
    event        TEXT CHECK (json_valid(event)),
    event_id     TEXT UNIQUE CHECK (length(event_id) = 64),
    created_at   INTEGER,
    signed_at    INTEGER,
    relay_acked_at INTEGER,
    applied_at   INTEGER,
    -- a newer one is wanted; this one need not be sent any more
    superseded_at INTEGER,
    CHECK ((kind = 'fees') = (cash_in_platform_ppm IS NOT NULL)),
    CHECK ((kind = 'fees') = (cash_in_operator_ppm IS NOT NULL)),
    CHECK ((kind = 'fees') = (cash_out_platform_ppm IS NOT NULL)),
    CHECK ((kind = 'fees') = (cash_out_operator_ppm IS NOT NULL)),
    CHECK (kind <> 'fees' OR (cash_in_platform_ppm + cash_in_operator_ppm <= 150000
        AND cash_out_platform_ppm + cash_out_operator_ppm <= 150000)),
    CHECK ((event_id IS NULL) = (event IS NULL)),
    CHECK ((event_id IS NULL) = (created_at IS NULL)),
    CHECK ((event_id IS NULL) = (signed_at IS NULL)),
    CHECK (relay_acked_at IS NULL OR event_id IS NOT NULL),
    CHECK (applied_at IS NULL OR event_id IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX documents_wanted ON documents (machine_id, kind) WHERE superseded_at IS NULL;
CREATE INDEX documents_signed ON documents (machine_id, kind, created_at)
    WHERE event_id IS NOT NULL;
CREATE TRIGGER documents_stay BEFORE UPDATE ON documents
WHEN NEW.body <> OLD.body OR NEW.machine_id <> OLD.machine_id OR NEW.kind <> OLD.kind
    OR (OLD.event_id IS NOT NULL AND NEW.event_id IS NOT OLD.event_id)
BEGIN SELECT RAISE(ABORT, 'documents: what was wanted or signed never changes'); END;

CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    topic       TEXT NOT NULL CHECK (topic IN ('document', 'push')),
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    document_id INTEGER UNIQUE REFERENCES documents (id),
    push        TEXT,
    push_id     TEXT UNIQUE CHECK (length(push_id) = 32),
    body        TEXT CHECK (json_valid(body)),
    created_at  INTEGER NOT NULL,
    -- a push that nobody needs any more is not sent
    expires_at  INTEGER,
    not_before  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error  TEXT,
    done_at     INTEGER,
    CHECK ((topic = 'document') = (document_id IS NOT NULL)),
    CHECK ((topic = 'push') = (push IS NOT NULL)),
    CHECK ((topic = 'push') = (push_id IS NOT NULL)),
    CHECK ((topic = 'push') = (body IS NOT NULL))
) STRICT;
CREATE INDEX outbox_due ON outbox (not_before, id) WHERE done_at IS NULL;

-- what should lie in each bay
CREATE TABLE cassettes (
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    bay          INTEGER NOT NULL CHECK (bay BETWEEN 1 AND 255),
    denomination INTEGER NOT NULL CHECK (denomination > 0),
    count        INTEGER NOT NULL CHECK (count >= 0),
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (machine_id, bay)
) STRICT, WITHOUT ROWID;

-- every refill and count; the machine applies each one once
CREATE TABLE cassette_changes (
    change_id  TEXT PRIMARY KEY CHECK (length(change_id) = 32),
    machine_id INTEGER NOT NULL REFERENCES machines (id),
    number     INTEGER NOT NULL CHECK (number > 0),
    bay        INTEGER NOT NULL CHECK (bay BETWEEN 1 AND 255),
    delta      INTEGER,
    set_count  INTEGER CHECK (set_count >= 0),
    reason     TEXT NOT NULL,
    base_seq   INTEGER NOT NULL CHECK (base_seq >= 0),
    actor      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    acked_at   INTEGER,
    UNIQUE (machine_id, number),
    CHECK ((delta IS NULL) <> (set_count IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX cassette_changes_open ON cassette_changes (machine_id, number) WHERE acked_at IS NULL;
CREATE TRIGGER cassette_changes_stay BEFORE UPDATE OF change_id, machine_id, number, bay, delta,
    set_count, reason, base_seq, actor, created_at ON cassette_changes
BEGIN SELECT RAISE(ABORT, 'cassette_changes: a change never changes'); END;

-- what a machine published about its cassettes, each event once
CREATE TABLE cassette_states (
    event_id    TEXT PRIMARY KEY CHECK (length(event_id) = 64),
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    base_seq    INTEGER NOT NULL CHECK (base_seq >= 0),
    body        TEXT NOT NULL CHECK (json_valid(body)),
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cassette_states_of ON cassette_states (machine_id, base_seq);

-- the last heartbeat
CREATE TABLE machine_states (
    machine_id  INTEGER PRIMARY KEY REFERENCES machines (id),
    journal_seq INTEGER NOT NULL CHECK (journal_seq >= 0),
    body        TEXT NOT NULL CHECK (json_valid(body)),
    received_at INTEGER NOT NULL
) STRICT;
