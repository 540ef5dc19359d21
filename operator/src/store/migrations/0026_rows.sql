-- What is asked for by a random id had no number of its own: each row of more than a quarter of a page
-- went to pages that no other row shares, and each change of a state wrote them anew. As rows in the
-- order in which they were written they stand beside those of the same minute, and the ids lead to them.

CREATE TABLE new_requests (
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
) STRICT;
INSERT INTO new_requests
    SELECT machine_id, request_id, rpc_name, body_sha256, txid, event, received_at, reply, replied_at
    FROM requests ORDER BY received_at;
DROP TABLE requests;
ALTER TABLE new_requests RENAME TO requests;
CREATE INDEX requests_age ON requests (received_at);
CREATE TRIGGER requests_answer_once BEFORE UPDATE ON requests
WHEN OLD.reply IS NOT NULL OR NEW.machine_id <> OLD.machine_id
    OR NEW.request_id <> OLD.request_id OR NEW.body_sha256 <> OLD.body_sha256
BEGIN SELECT RAISE(ABORT, 'requests: a request has one body and one reply'); END;

CREATE TABLE new_quotes (
    quote_id    TEXT NOT NULL PRIMARY KEY CHECK (length(quote_id) = 32),
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
) STRICT;
INSERT INTO new_quotes
    SELECT quote_id, machine_id, request_id, txid, claim_hash, direction, fiat_minor, fiat_code,
        rate_nano, sources, platform_fee_ppm, operator_fee_ppm, fees_event_id, principal_sats,
        fee_sats, wire_sats, ttl_s, quote_sig, created_at, expires_at, reserved_sats,
        reservation_ended_at
    FROM quotes ORDER BY created_at;
DROP TABLE quotes;
ALTER TABLE new_quotes RENAME TO quotes;
CREATE INDEX quotes_of_txn ON quotes (machine_id, txid);
CREATE INDEX quotes_reserved ON quotes (machine_id, reserved_sats)
    WHERE reserved_sats > 0 AND reservation_ended_at IS NULL;
CREATE TRIGGER quotes_stay BEFORE UPDATE OF quote_id, machine_id, request_id, txid, claim_hash,
    direction, fiat_minor, fiat_code, rate_nano, sources, platform_fee_ppm, operator_fee_ppm,
    fees_event_id, principal_sats, fee_sats, wire_sats, ttl_s, quote_sig, created_at, expires_at,
    reserved_sats ON quotes
BEGIN SELECT RAISE(ABORT, 'quotes: what was quoted never changes'); END;
CREATE UNIQUE INDEX quotes_of_request ON quotes (machine_id, request_id);
CREATE INDEX quotes_of_claim ON quotes (claim_hash);

CREATE TABLE new_invoices (
    -- one invoice a quote
    quote_id     TEXT NOT NULL PRIMARY KEY REFERENCES quotes (quote_id),
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
) STRICT;
INSERT INTO new_invoices
    SELECT quote_id, machine_id, txid, payment_hash, bolt11, wire_sats, stamp, request_event_id,
        request_event, created_at, expires_at, state
    FROM invoices ORDER BY created_at;
DROP TABLE invoices;
ALTER TABLE new_invoices RENAME TO invoices;
CREATE TRIGGER invoices_final BEFORE UPDATE ON invoices
WHEN OLD.state IN ('settled', 'late', 'under') OR NEW.payment_hash <> OLD.payment_hash
    OR NEW.wire_sats <> OLD.wire_sats OR NEW.state = 'open'
BEGIN SELECT RAISE(ABORT, 'invoices: a paid invoice never changes'); END;
CREATE INDEX invoices_of_machine ON invoices (machine_id, created_at);
CREATE INDEX invoices_open_of ON invoices (machine_id, expires_at) WHERE state = 'open';

CREATE TABLE new_withdraws (
    withdraw_id TEXT NOT NULL PRIMARY KEY CHECK (length(withdraw_id) = 32),
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
) STRICT;
INSERT INTO new_withdraws
    SELECT withdraw_id, machine_id, txid, purpose, claim_id, claim_hash, net_sats, state, created_at,
        expires_at, fiat_minor, fiat_code, principal_sats, platform_fee_sats, operator_fee_sats,
        journal_seq, journal_head, vault_sig, withdraw_sig, request_event
    FROM withdraws ORDER BY created_at;
DROP TABLE withdraws;
ALTER TABLE new_withdraws RENAME TO withdraws;
CREATE UNIQUE INDEX withdraws_of_txn ON withdraws (machine_id, txid) WHERE purpose = 'cash_in';
CREATE INDEX withdraws_unpaid ON withdraws (machine_id, net_sats) WHERE state <> 'paid';
CREATE UNIQUE INDEX withdraws_of_claim ON withdraws (claim_id)
    WHERE purpose = 'owed' AND state IN ('offered', 'bound');
CREATE TRIGGER withdraws_final BEFORE UPDATE ON withdraws
WHEN OLD.state = 'paid' OR NEW.net_sats <> OLD.net_sats OR NEW.machine_id <> OLD.machine_id
    OR NEW.txid <> OLD.txid OR NEW.purpose <> OLD.purpose
BEGIN SELECT RAISE(ABORT, 'withdraws: what was promised never changes'); END;
CREATE INDEX withdraws_of_machine ON withdraws (machine_id, created_at);
CREATE TRIGGER webhook_of_withdraw AFTER INSERT ON withdraws
WHEN (SELECT since FROM webhook) IS NOT NULL
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'claim',
        json_object('what', NEW.state, 'withdraw', NEW.withdraw_id, 'txid', NEW.txid,
            'purpose', NEW.purpose, 'net_sats', NEW.net_sats, 'fiat_minor', NEW.fiat_minor,
            'fiat_code', NEW.fiat_code, 'created_at', NEW.created_at));
END;
CREATE TRIGGER webhook_of_withdraw_state AFTER UPDATE OF state ON withdraws
WHEN (SELECT since FROM webhook) IS NOT NULL AND NEW.state <> OLD.state
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'claim',
        json_object('what', NEW.state, 'withdraw', NEW.withdraw_id, 'txid', NEW.txid,
            'purpose', NEW.purpose, 'net_sats', NEW.net_sats));
END;
