-- When what people put into a bay, or counted there, came into the ledger.

ALTER TABLE cassette_changes ADD COLUMN booked_at INTEGER;
CREATE INDEX cassette_changes_unbooked ON cassette_changes (machine_id, number)
    WHERE booked_at IS NULL;
CREATE TRIGGER cassette_changes_booked_once BEFORE UPDATE ON cassette_changes
WHEN OLD.booked_at IS NOT NULL AND NEW.booked_at IS NOT OLD.booked_at
BEGIN SELECT RAISE(ABORT, 'cassette_changes: a change is booked once'); END;
