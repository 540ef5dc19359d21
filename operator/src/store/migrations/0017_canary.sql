-- Proofs that the bunker refuses what has expired: one row for each attempt, the newest 400.
CREATE TABLE canaries (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    -- when the grant ends; none before it was made and had something signed
    ends_at    INTEGER,
    state      TEXT NOT NULL CHECK (state IN ('running', 'refused', 'signed', 'unknown')),
    -- what went wrong last, or the bunker's own words
    detail     TEXT NOT NULL CHECK (length(detail) <= 500),
    ended_at   INTEGER,
    CHECK ((state = 'running') = (ended_at IS NULL)),
    CHECK (state NOT IN ('refused', 'signed') OR ends_at IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX one_canary ON canaries (state) WHERE state = 'running';
CREATE TRIGGER canaries_bound AFTER INSERT ON canaries
BEGIN
    DELETE FROM canaries WHERE id <= NEW.id - 400;
END;
