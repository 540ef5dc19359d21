-- Ids of requests' events, for as long as their clock holds: a restart forgets none.
CREATE TABLE event_ids (
    -- the time first: new ones go to the end, and what has passed goes from the start
    until INTEGER NOT NULL,
    id    TEXT NOT NULL CHECK (length(id) = 64),
    PRIMARY KEY (until, id)
) STRICT, WITHOUT ROWID;
