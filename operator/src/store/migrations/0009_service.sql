-- What people did at machines in service mode, as their vaults told it.

INSERT INTO ledger_kinds (kind) VALUES ('tested');

CREATE TABLE service_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT NOT NULL UNIQUE CHECK (length(event_id) = 32),
    machine_id  INTEGER NOT NULL REFERENCES machines (id),
    -- its place in the machine's journal
    journal_seq INTEGER NOT NULL CHECK (journal_seq >= 0),
    at          INTEGER NOT NULL,
    action      TEXT NOT NULL CHECK (json_valid(action)),
    -- the heartbeat that told it first, as the vault signed it
    report      TEXT NOT NULL CHECK (json_valid(report)),
    received_at INTEGER NOT NULL,
    -- when it came into the ledger
    booked_at   INTEGER
) STRICT;
CREATE INDEX service_events_of_machine ON service_events (machine_id, id);
CREATE INDEX service_events_unbooked ON service_events (machine_id, id) WHERE booked_at IS NULL;
CREATE TRIGGER service_events_stay BEFORE UPDATE OF id, event_id, machine_id, journal_seq, at,
    action, report, received_at ON service_events
BEGIN SELECT RAISE(ABORT, 'service_events: what a machine told never changes'); END;
CREATE TRIGGER service_events_booked_once BEFORE UPDATE ON service_events
WHEN OLD.booked_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'service_events: an event is booked once'); END;
CREATE TRIGGER service_events_no_delete BEFORE DELETE ON service_events
BEGIN SELECT RAISE(ABORT, 'service_events: never deleted'); END;
