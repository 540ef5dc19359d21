-- What another program is told: written together with what it tells, whoever writes that.

-- one row: whether anybody is told
CREATE TABLE webhook (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    since INTEGER
) STRICT;
INSERT INTO webhook (id, since) VALUES (1, NULL);

CREATE TABLE webhook_events (
    -- rises, and is never used again: whoever is told puts events in order and sees a repeat by it
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- each machine's are told one after the other; those about none are one more such row
    machine_id INTEGER,
    kind       TEXT NOT NULL CHECK (kind IN ('alert', 'settlement', 'claim')),
    event      TEXT NOT NULL CHECK (json_valid(event)),
    tries      INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at     INTEGER NOT NULL DEFAULT 0,
    -- why the last try failed
    detail     TEXT,
    sent_at    INTEGER,
    given_up_at INTEGER,
    CHECK (sent_at IS NULL OR given_up_at IS NULL)
) STRICT;
CREATE INDEX webhook_events_open ON webhook_events (machine_id, id)
    WHERE sent_at IS NULL AND given_up_at IS NULL;
CREATE INDEX webhook_events_ended ON webhook_events (coalesce(sent_at, given_up_at))
    WHERE sent_at IS NOT NULL OR given_up_at IS NOT NULL;
CREATE TRIGGER webhook_events_stay BEFORE UPDATE OF id, machine_id, kind, event ON webhook_events
BEGIN SELECT RAISE(ABORT, 'webhook_events: what is told never changes'); END;
CREATE TRIGGER webhook_events_end_once BEFORE UPDATE ON webhook_events
WHEN OLD.sent_at IS NOT NULL OR OLD.given_up_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'webhook_events: told once'); END;

-- a payment, as it is recorded
CREATE TRIGGER webhook_of_settlement AFTER INSERT ON settlements
WHEN (SELECT since FROM webhook) IS NOT NULL
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'settlement',
        json_object('what', 'recorded', 'settlement', NEW.id, 'payment_hash', NEW.payment_hash,
            'txid', NEW.txid, 'direction', NEW.direction, 'status', NEW.status,
            'reason', NEW.reason, 'wire_sats', NEW.wire_sats,
            'principal_sats', NEW.principal_sats, 'platform_fee_sats', NEW.platform_fee_sats,
            'operator_fee_sats', NEW.operator_fee_sats, 'owed_sats', NEW.owed_sats,
            'fiat_minor', NEW.fiat_minor, 'fiat_code', NEW.fiat_code,
            'settled_at', NEW.settled_at));
END;
-- how its notes came out
CREATE TRIGGER webhook_of_report AFTER UPDATE OF dispense_outcome ON settlements
WHEN (SELECT since FROM webhook) IS NOT NULL AND NEW.dispense_outcome IS NOT OLD.dispense_outcome
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'settlement',
        json_object('what', 'reported', 'settlement', NEW.id, 'payment_hash', NEW.payment_hash,
            'txid', NEW.txid, 'dispense_outcome', NEW.dispense_outcome,
            'principal_sats', NEW.principal_sats, 'platform_fee_sats', NEW.platform_fee_sats,
            'operator_fee_sats', NEW.operator_fee_sats, 'owed_sats', NEW.owed_sats,
            'reported_at', NEW.reported_at));
END;
-- sats that a customer was promised, and what became of them
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
-- a debt to a customer
CREATE TRIGGER webhook_of_debt AFTER INSERT ON owed
WHEN (SELECT since FROM webhook) IS NOT NULL
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event)
    SELECT machine_id, 'claim', json_object('what', 'owed', 'debt', NEW.id, 'txid', txid,
        'reason', NEW.reason, 'net_sats', NEW.sats, 'at', NEW.at)
    FROM claims WHERE id = NEW.claim_id;
END;
-- what the service itself writes into the audit log, and who changes where fees go; not that this
-- very way failed, which would never end
CREATE TRIGGER webhook_of_act AFTER INSERT ON audit_log
WHEN (SELECT since FROM webhook) IS NOT NULL AND NEW.action <> 'webhook.given_up'
    AND (NEW.actor = 'service' OR NEW.action IN ('rules.change', 'rules.cancel'))
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (
        CASE WHEN NEW.subject GLOB 'machine:[0-9]*' THEN CAST(substr(NEW.subject, 9) AS INTEGER)
        END, 'alert',
        json_object('what', NEW.action, 'subject', NEW.subject, 'actor', NEW.actor,
            'detail', json(NEW.detail), 'at', NEW.at));
END;
-- what a machine says that a person should know: told whenever that changes; its heartbeats replace
-- each other, so what was told last is kept here
CREATE TABLE webhook_alerts (
    machine_id INTEGER PRIMARY KEY,
    alerts     TEXT NOT NULL CHECK (json_valid(alerts))
) STRICT;
CREATE TRIGGER webhook_of_state AFTER INSERT ON machine_states
WHEN (SELECT since FROM webhook) IS NOT NULL
    AND coalesce(json_extract(NEW.body, '$.alerts'), '[]') IS NOT
        coalesce((SELECT alerts FROM webhook_alerts WHERE machine_id = NEW.machine_id), '[]')
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'alert',
        json_object('what', 'machine.alerts',
            'alerts', json(coalesce(json_extract(NEW.body, '$.alerts'), '[]')),
            'at', NEW.received_at));
    INSERT OR REPLACE INTO webhook_alerts (machine_id, alerts)
        VALUES (NEW.machine_id, coalesce(json_extract(NEW.body, '$.alerts'), '[]'));
END;
