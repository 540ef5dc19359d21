-- One transaction of a machine: request, quote, invoice or withdraw, payment, settlement, report,
-- and what is owed.

CREATE TABLE requests (
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    request_id  TEXT NOT NULL CHECK (length(request_id) = 32),
    rpc_name    TEXT NOT NULL,
    body_sha256 TEXT NOT NULL CHECK (length(body_sha256) = 64),
    txid        TEXT CHECK (length(txid) = 32),
    event       TEXT NOT NULL CHECK (json_valid(event)),
    received_at INTEGER NOT NULL,
    -- NULL while the request is being worked on
    reply       TEXT CHECK (json_valid(reply)),
    replied_at  INTEGER,
    PRIMARY KEY (machine_id, request_id),
    CHECK ((reply IS NULL) = (replied_at IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_age ON requests (received_at);
CREATE TRIGGER requests_answer_once BEFORE UPDATE ON requests
WHEN OLD.reply IS NOT NULL OR NEW.machine_id <> OLD.machine_id
    OR NEW.request_id <> OLD.request_id OR NEW.body_sha256 <> OLD.body_sha256
BEGIN SELECT RAISE(ABORT, 'requests: a request has one body and one reply'); END;

CREATE TABLE quotes (
    quote_id    TEXT PRIMARY KEY CHECK (length(quote_id) = 32),
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    request_id  TEXT NOT NULL CHECK (length(request_id) = 32),
    txid        TEXT NOT NULL CHECK (length(txid) = 32),
    claim_hash  TEXT NOT NULL CHECK (length(claim_hash) = 64),
    direction   TEXT NOT NULL CHECK (direction IN ('cash_in', 'cash_out')),
    fiat_minor  INTEGER NOT NULL CHECK (fiat_minor > 0),
    fiat_code   TEXT NOT NULL CHECK (fiat_code GLOB '[A-Z][A-Z][A-Z]'),
    rate_nano   INTEGER NOT NULL CHECK (rate_nano > 0),
    sources     TEXT NOT NULL CHECK (json_valid(sources)),
    platform_fee_ppm INTEGER NOT NULL CHECK (platform_fee_ppm >= 0),
    operator_fee_ppm INTEGER NOT NULL CHECK (operator_fee_ppm >= 0),
    fees_event_id    TEXT NOT NULL CHECK (length(fees_event_id) = 64),
    principal_sats   INTEGER NOT NULL CHECK (principal_sats >= 0),
    fee_sats    INTEGER NOT NULL CHECK (fee_sats >= 0),
    wire_sats   INTEGER NOT NULL CHECK (wire_sats >= 0),
    ttl_s       INTEGER NOT NULL CHECK (ttl_s > 0),
    quote_sig   TEXT NOT NULL CHECK (length(quote_sig) = 128),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- cash_in: sats of the wallet that nobody else is promised until this ends
    reserved_sats  INTEGER NOT NULL CHECK (reserved_sats >= 0),
    reservation_ended_at INTEGER,
    CHECK (platform_fee_ppm + operator_fee_ppm <= 150000),
    CHECK (direction <> 'cash_out' OR wire_sats = principal_sats + fee_sats),
    CHECK (direction <> 'cash_in' OR wire_sats = principal_sats - fee_sats),
    CHECK (direction <> 'cash_out' OR reserved_sats = 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX quotes_of_txn ON quotes (machine_id, txid);
CREATE INDEX quotes_reserved ON quotes (machine_id, reserved_sats)
    WHERE reserved_sats > 0 AND reservation_ended_at IS NULL;
CREATE TRIGGER quotes_stay BEFORE UPDATE OF quote_id, machine_id, request_id, txid, claim_hash,
    direction, fiat_minor, fiat_code, rate_nano, sources, platform_fee_ppm, operator_fee_ppm,
    fees_event_id, principal_sats, fee_sats, wire_sats, ttl_s, quote_sig, created_at, expires_at,
    reserved_sats ON quotes
BEGIN SELECT RAISE(ABORT, 'quotes: what was quoted never changes'); END;

CREATE TABLE invoices (
    -- one invoice a quote
    quote_id     TEXT PRIMARY KEY REFERENCES quotes (quote_id),
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    txid         TEXT NOT NULL CHECK (length(txid) = 32),
    payment_hash TEXT NOT NULL UNIQUE CHECK (length(payment_hash) = 64),
    bolt11       TEXT NOT NULL,
    wire_sats    INTEGER NOT NULL CHECK (wire_sats > 0),
    stamp        TEXT NOT NULL CHECK (json_valid(stamp)),
    request_event_id TEXT NOT NULL CHECK (length(request_event_id) = 64),
    -- whole, so that an auditor can check settlement -> request -> key
    request_event TEXT NOT NULL CHECK (json_valid(request_event)),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN
        ('open', 'settled', 'late', 'under', 'expired', 'cancelled')),
    UNIQUE (machine_id, txid)
) STRICT, WITHOUT ROWID;
CREATE INDEX invoices_open ON invoices (expires_at) WHERE state = 'open';
CREATE TRIGGER invoices_final BEFORE UPDATE ON invoices
WHEN OLD.state IN ('settled', 'late', 'under') OR NEW.payment_hash <> OLD.payment_hash
    OR NEW.wire_sats <> OLD.wire_sats OR NEW.state = 'open'
BEGIN SELECT RAISE(ABORT, 'invoices: a paid invoice never changes'); END;

-- whatever is owed on one transaction is claimed with one code
CREATE TABLE claims (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    claim_hash TEXT NOT NULL UNIQUE CHECK (length(claim_hash) = 64),
    machine_id INTEGER NOT NULL REFERENCES machines (id),
    txid       TEXT NOT NULL CHECK (length(txid) = 32),
    created_at INTEGER NOT NULL,
    UNIQUE (machine_id, txid)
) STRICT;

CREATE TABLE withdraws (
    withdraw_id TEXT PRIMARY KEY CHECK (length(withdraw_id) = 32),
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    txid        TEXT NOT NULL CHECK (length(txid) = 32),
    purpose     TEXT NOT NULL CHECK (purpose IN ('cash_in', 'owed')),
    claim_id    INTEGER REFERENCES claims (id),
    claim_hash  TEXT NOT NULL CHECK (length(claim_hash) = 64),
    net_sats    INTEGER NOT NULL CHECK (net_sats > 0),
    state       TEXT NOT NULL CHECK (state IN ('offered', 'bound', 'paid', 'expired')),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- cash_in only
    fiat_minor  INTEGER CHECK (fiat_minor > 0),
    fiat_code   TEXT CHECK (fiat_code GLOB '[A-Z][A-Z][A-Z]'),
    principal_sats    INTEGER CHECK (principal_sats >= 0),
    platform_fee_sats INTEGER CHECK (platform_fee_sats >= 0),
    operator_fee_sats INTEGER CHECK (operator_fee_sats >= 0),
    journal_seq  INTEGER CHECK (journal_seq > 0),
    journal_head TEXT CHECK (length(journal_head) = 64),
    vault_sig    TEXT CHECK (length(vault_sig) = 128),
    withdraw_sig TEXT CHECK (length(withdraw_sig) = 128),
    request_event TEXT CHECK (json_valid(request_event)),
    CHECK ((purpose = 'owed') = (claim_id IS NOT NULL)),
    -- the payout of a debt stays payable; it gets new k1s
    CHECK (purpose <> 'owed' OR state <> 'expired'),
    CHECK ((purpose = 'cash_in') = (fiat_minor IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (fiat_code IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (principal_sats IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (platform_fee_sats IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (operator_fee_sats IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (journal_seq IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (journal_head IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (vault_sig IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (withdraw_sig IS NOT NULL)),
    CHECK ((purpose = 'cash_in') = (request_event IS NOT NULL)),
    CHECK (purpose <> 'cash_in'
        OR net_sats = principal_sats - platform_fee_sats - operator_fee_sats)
) STRICT, WITHOUT ROWID;
-- one withdraw for the notes of a transaction, for ever
CREATE UNIQUE INDEX withdraws_of_txn ON withdraws (machine_id, txid) WHERE purpose = 'cash_in';
CREATE INDEX withdraws_unpaid ON withdraws (machine_id, net_sats) WHERE state <> 'paid';
-- one payout of a claim at a time
CREATE UNIQUE INDEX withdraws_of_claim ON withdraws (claim_id)
    WHERE purpose = 'owed' AND state IN ('offered', 'bound');
CREATE TRIGGER withdraws_final BEFORE UPDATE ON withdraws
WHEN OLD.state = 'paid' OR NEW.net_sats <> OLD.net_sats OR NEW.machine_id <> OLD.machine_id
    OR NEW.txid <> OLD.txid OR NEW.purpose <> OLD.purpose
BEGIN SELECT RAISE(ABORT, 'withdraws: what was promised never changes'); END;

-- the notes of a cash_in by the quote that locked their rate
CREATE TABLE withdraw_lots (
    quote_id    TEXT PRIMARY KEY REFERENCES quotes (quote_id),
    withdraw_id TEXT NOT NULL REFERENCES withdraws (withdraw_id),
    notes       TEXT NOT NULL CHECK (json_valid(notes))
) STRICT, WITHOUT ROWID;
CREATE INDEX withdraw_lots_of ON withdraw_lots (withdraw_id);

-- every attempt to pay an invoice; written before the wallet is asked
CREATE TABLE payments (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT NOT NULL CHECK (subject IN ('withdraw', 'leg')),
    subject_id   TEXT NOT NULL,
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    wallet_id    TEXT NOT NULL,
    payment_hash TEXT NOT NULL UNIQUE CHECK (length(payment_hash) = 64),
    bolt11       TEXT NOT NULL,
    amount_sats  INTEGER NOT NULL CHECK (amount_sats > 0),
    fee_limit_sats INTEGER NOT NULL CHECK (fee_limit_sats >= 0),
    invoice_expires_at INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'unknown', 'succeeded', 'failed')),
    fee_paid_sats INTEGER CHECK (fee_paid_sats >= 0),
    -- when the wallet first said "failed"; it may be wrong once
    failed_seen_at INTEGER,
    detail       TEXT,
    started_at   INTEGER NOT NULL,
    resolved_at  INTEGER,
    CHECK ((state IN ('succeeded', 'failed')) = (resolved_at IS NOT NULL)),
    CHECK ((state = 'succeeded') = (fee_paid_sats IS NOT NULL))
) STRICT;
-- an attempt that is not finally failed blocks every other one
CREATE UNIQUE INDEX payments_one_live ON payments (subject, subject_id) WHERE state <> 'failed';
CREATE INDEX payments_open ON payments (started_at) WHERE state IN ('pending', 'unknown');
CREATE TRIGGER payments_final BEFORE UPDATE ON payments
WHEN OLD.state IN ('succeeded', 'failed') OR NEW.payment_hash <> OLD.payment_hash
    OR NEW.amount_sats <> OLD.amount_sats OR NEW.subject <> OLD.subject
    OR NEW.subject_id <> OLD.subject_id
BEGIN SELECT RAISE(ABORT, 'payments: a resolved payment never changes'); END;
CREATE TRIGGER payments_stay BEFORE DELETE ON payments
BEGIN SELECT RAISE(ABORT, 'payments: attempts are never deleted'); END;

CREATE TABLE withdraw_k1s (
    k1          TEXT PRIMARY KEY CHECK (length(k1) = 64),
    withdraw_id TEXT NOT NULL REFERENCES withdraws (withdraw_id),
    state       TEXT NOT NULL CHECK (state IN ('live', 'dead')),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- the first valid invoice; only it is ever paid
    bound_hash  TEXT UNIQUE CHECK (length(bound_hash) = 64),
    bound_bolt11 TEXT,
    bound_at    INTEGER,
    CHECK ((bound_hash IS NULL) = (bound_bolt11 IS NULL)),
    CHECK ((bound_hash IS NULL) = (bound_at IS NULL))
) STRICT, WITHOUT ROWID;
-- so one live hash a withdraw
CREATE UNIQUE INDEX withdraw_k1s_live ON withdraw_k1s (withdraw_id) WHERE state = 'live';
CREATE TRIGGER withdraw_k1s_bind_once BEFORE UPDATE ON withdraw_k1s
WHEN OLD.state = 'dead' OR NEW.k1 <> OLD.k1 OR NEW.withdraw_id <> OLD.withdraw_id
    OR (OLD.bound_hash IS NOT NULL AND (NEW.bound_hash IS NOT OLD.bound_hash
        OR NEW.bound_bolt11 IS NOT OLD.bound_bolt11))
BEGIN SELECT RAISE(ABORT, 'withdraw_k1s: bound once, dead for ever'); END;
CREATE TRIGGER withdraw_k1s_stay BEFORE DELETE ON withdraw_k1s
BEGIN SELECT RAISE(ABORT, 'withdraw_k1s: a k1 is never deleted'); END;
CREATE TRIGGER withdraw_k1s_no_second BEFORE INSERT ON withdraw_k1s
WHEN EXISTS (SELECT 1 FROM payments WHERE subject = 'withdraw' AND subject_id = NEW.withdraw_id
    AND state <> 'failed')
BEGIN SELECT RAISE(ABORT, 'withdraw_k1s: a payment of this withdraw may still succeed'); END;

CREATE TABLE settlements (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    payment_hash TEXT NOT NULL UNIQUE CHECK (length(payment_hash) = 64),
    -- the machine that it is about: the wallet's, or the one that is named
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    wallet_id    TEXT NOT NULL,
    direction    TEXT NOT NULL CHECK (direction IN ('cash_in', 'cash_out')),
    status       TEXT NOT NULL CHECK (status IN
        ('accepted', 'late', 'under', 'rejected', 'misrouted')),
    -- the only number that is authenticated, whatever the status
    wire_sats    INTEGER NOT NULL CHECK (wire_sats >= 0),
    extra        TEXT NOT NULL CHECK (json_valid(extra)),
    reason       TEXT,
    txid         TEXT CHECK (length(txid) = 32),
    quote_id     TEXT REFERENCES quotes (quote_id),
    withdraw_id  TEXT REFERENCES withdraws (withdraw_id),
    -- absent, not zero, where the payment was refused
    principal_sats    INTEGER CHECK (principal_sats >= 0),
    platform_fee_sats INTEGER CHECK (platform_fee_sats >= 0),
    operator_fee_sats INTEGER CHECK (operator_fee_sats >= 0),
    owed_sats         INTEGER CHECK (owed_sats >= 0),
    exchange_rate     TEXT,
    fiat_minor        INTEGER CHECK (fiat_minor >= 0),
    fiat_code         TEXT CHECK (fiat_code GLOB '[A-Z][A-Z][A-Z]'),
    fees_event_id     TEXT CHECK (length(fees_event_id) = 64),
    request_event_id  TEXT CHECK (length(request_event_id) = 64),
    fee_mismatch_sats INTEGER,
    -- the stamped fee was less than the platform's leg
    short        INTEGER NOT NULL CHECK (short IN (0, 1)),
    settled_at   INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL,

    dispense_outcome TEXT CHECK (dispense_outcome IN ('full', 'partial', 'none', 'uncertain')),
    reported_at  INTEGER,

    distribution TEXT NOT NULL CHECK (distribution IN
        ('pending', 'processing', 'processed', 'errored', 'rejected', 'held')),
    hold_reason  TEXT,
    claim_token  TEXT,
    lease_until  INTEGER,

    CHECK ((status IN ('rejected', 'misrouted')) = (reason IS NOT NULL)),
    CHECK ((status IN ('rejected', 'misrouted')) = (principal_sats IS NULL)),
    CHECK ((principal_sats IS NULL) = (platform_fee_sats IS NULL)),
    CHECK ((principal_sats IS NULL) = (operator_fee_sats IS NULL)),
    CHECK ((principal_sats IS NULL) = (owed_sats IS NULL)),
    CHECK (principal_sats IS NULL OR direction <> 'cash_out'
        OR wire_sats = principal_sats + platform_fee_sats + operator_fee_sats + owed_sats),
    CHECK (principal_sats IS NULL OR direction <> 'cash_in'
        OR (wire_sats = principal_sats - platform_fee_sats - operator_fee_sats AND owed_sats = 0)),
    CHECK (status NOT IN ('late', 'under') OR owed_sats = wire_sats),
    CHECK (status <> 'rejected' OR distribution = 'rejected'),
    CHECK ((fiat_minor IS NULL) = (fiat_code IS NULL)),
    CHECK ((distribution = 'held') = (hold_reason IS NOT NULL)),
    CHECK ((distribution = 'processing') = (claim_token IS NOT NULL)),
    CHECK ((claim_token IS NULL) = (lease_until IS NULL)),
    CHECK ((dispense_outcome IS NULL) = (reported_at IS NULL)),
    CHECK (dispense_outcome IS NULL OR direction = 'cash_out')
) STRICT;
CREATE INDEX settlements_of_txn ON settlements (machine_id, txid);
CREATE INDEX settlements_open ON settlements (distribution, id)
    WHERE distribution IN ('pending', 'processing', 'held', 'errored');
CREATE TRIGGER settlements_stay BEFORE UPDATE OF id, payment_hash, machine_id, wallet_id, direction,
    status, wire_sats, extra, reason, txid, quote_id, withdraw_id, exchange_rate, fiat_minor,
    fiat_code, fees_event_id, request_event_id, fee_mismatch_sats, short, settled_at, recorded_at
    ON settlements
BEGIN SELECT RAISE(ABORT, 'settlements: what was accepted never changes'); END;
CREATE TRIGGER settlements_no_delete BEFORE DELETE ON settlements
BEGIN SELECT RAISE(ABORT, 'settlements: never deleted'); END;

-- a second payment of an invoice that is settled; all of it is owed
CREATE TABLE repeat_payments (
    -- the wallet's own id of the payment
    payment_key  TEXT PRIMARY KEY,
    payment_hash TEXT NOT NULL REFERENCES settlements (payment_hash),
    wire_sats    INTEGER NOT NULL CHECK (wire_sats > 0),
    settled_at   INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE owed (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    claim_id    INTEGER NOT NULL REFERENCES claims (id),
    reason      TEXT NOT NULL CHECK (reason IN ('late', 'under', 'surplus', 'twice', 'undispensed',
        'rejected', 'misrouted', 'unclaimed', 'verdict')),
    -- the payment, report or verdict that made it; each makes one debt
    source      TEXT NOT NULL,
    sats        INTEGER NOT NULL CHECK (sats > 0),
    at          INTEGER NOT NULL,
    -- the withdraw that pays it
    withdraw_id TEXT REFERENCES withdraws (withdraw_id),
    UNIQUE (reason, source)
) STRICT;
CREATE INDEX owed_open ON owed (claim_id) WHERE withdraw_id IS NULL;
CREATE TRIGGER owed_paid_once BEFORE UPDATE ON owed
WHEN OLD.withdraw_id IS NOT NULL OR NEW.sats <> OLD.sats OR NEW.claim_id <> OLD.claim_id
    OR NEW.reason <> OLD.reason OR NEW.source <> OLD.source
BEGIN SELECT RAISE(ABORT, 'owed: a debt is paid once and never changes'); END;
CREATE TRIGGER owed_stays BEFORE DELETE ON owed
BEGIN SELECT RAISE(ABORT, 'owed: a debt is never deleted'); END;

-- what a vault stated about the notes of a paid cash_out; evidence, so append only
CREATE TABLE dispense_reports (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id   INTEGER NOT NULL REFERENCES machines (id),
    txid         TEXT NOT NULL CHECK (length(txid) = 32),
    payment_hash TEXT NOT NULL CHECK (length(payment_hash) = 64),
    outcome      TEXT NOT NULL CHECK (outcome IN ('full', 'partial', 'none', 'uncertain')),
    bays         TEXT NOT NULL CHECK (json_valid(bays)),
    owed_minor   INTEGER NOT NULL CHECK (owed_minor >= 0),
    journal_seq  INTEGER NOT NULL CHECK (journal_seq > 0),
    journal_head TEXT NOT NULL CHECK (length(journal_head) = 64),
    vault_sig    TEXT NOT NULL CHECK (length(vault_sig) = 128),
    received_at  INTEGER NOT NULL,
    UNIQUE (machine_id, txid, journal_seq),
    CHECK (outcome <> 'full' OR owed_minor = 0)
) STRICT;
CREATE TRIGGER dispense_reports_no_update BEFORE UPDATE ON dispense_reports
BEGIN SELECT RAISE(ABORT, 'dispense_reports: append only'); END;
CREATE TRIGGER dispense_reports_no_delete BEFORE DELETE ON dispense_reports
BEGIN SELECT RAISE(ABORT, 'dispense_reports: append only'); END;

-- how far each wallet's list has been read; never goes back
CREATE TABLE wallet_cursors (
    wallet_id  TEXT PRIMARY KEY,
    cursor     INTEGER NOT NULL CHECK (cursor >= 0),
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER wallet_cursors_forward BEFORE UPDATE ON wallet_cursors WHEN NEW.cursor < OLD.cursor
BEGIN SELECT RAISE(ABORT, 'wallet_cursors: a cursor never goes back'); END;
