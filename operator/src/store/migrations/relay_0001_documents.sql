-- Documents of the embedded relay: the latest event of each (author, kind, d), as NIP-01 orders
-- addressable events. A file of its own, beside the operator's database: it holds nothing that a
-- publisher's outbox cannot send again, so it may be wiped.

CREATE TABLE documents (
    author      TEXT NOT NULL CHECK (length(author) = 64 AND author NOT GLOB '*[^0-9a-f]*'),
    kind        INTEGER NOT NULL CHECK (kind BETWEEN 30000 AND 39999),
    d           TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE CHECK (length(id) = 64 AND id NOT GLOB '*[^0-9a-f]*'),
    created_at  INTEGER NOT NULL CHECK (created_at >= 0),
    -- whom it is for: its p tag
    reader      TEXT CHECK (length(reader) = 64 AND reader NOT GLOB '*[^0-9a-f]*'),
    -- NIP-40; NULL is for ever
    expires_at  INTEGER,
    event       TEXT NOT NULL CHECK (json_valid(event)),
    PRIMARY KEY (author, kind, d)
) STRICT, WITHOUT ROWID;
CREATE INDEX documents_of_reader ON documents (reader, created_at DESC, id);
CREATE INDEX documents_that_expire ON documents (expires_at) WHERE expires_at IS NOT NULL;
