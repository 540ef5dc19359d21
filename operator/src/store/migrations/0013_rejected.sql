-- Refused requests: a row for each reason and sender, with how often and since when.
ALTER TABLE rejected_rpc RENAME TO rejected_before;
DROP TRIGGER rejected_rpc_bound;
CREATE TABLE rejected_rpc (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    reason   TEXT NOT NULL,
    -- as hex; none where they were too many to be told apart
    sender   TEXT CHECK (length(sender) = 64),
    -- whether the sender's signature had verified; else it is who the event claims to be from
    verified INTEGER NOT NULL CHECK (verified IN (0, 1)),
    count    INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL CHECK (last_at >= first_at),
    -- of the newest one
    relay    TEXT,
    event_id TEXT,
    detail   TEXT NOT NULL CHECK (length(detail) <= 500)
) STRICT;
CREATE UNIQUE INDEX rejected_of_sender ON rejected_rpc (reason, coalesce(sender, ''), verified);
CREATE INDEX rejected_by_time ON rejected_rpc (verified, last_at, id);
INSERT INTO rejected_rpc (reason, sender, verified, count, first_at, last_at, detail)
    SELECT reason, CASE length(sender) WHEN 64 THEN sender END, 0, count(*), min(at), max(at), ''
      FROM rejected_before GROUP BY reason, 2;
DROP TABLE rejected_before;
-- bounded, each half by itself: what strangers send pushes nothing out that a known sender sent
CREATE TRIGGER rejected_rpc_bound AFTER INSERT ON rejected_rpc
BEGIN
    DELETE FROM rejected_rpc WHERE id IN (
        SELECT id FROM rejected_rpc WHERE verified = NEW.verified
         ORDER BY last_at DESC, id DESC LIMIT -1 OFFSET 500);
END;
