-- Events are larger than a quarter of a page: as rows with a number they lie in the order in which they
-- came, whole, and a name leads to them.

CREATE TABLE new_documents (
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
) STRICT;
INSERT INTO new_documents
    SELECT author, kind, d, id, created_at, reader, expires_at, event
    FROM documents ORDER BY created_at;
DROP TABLE documents;
ALTER TABLE new_documents RENAME TO documents;
CREATE INDEX documents_of_reader ON documents (reader, created_at DESC, id);
CREATE INDEX documents_that_expire ON documents (expires_at) WHERE expires_at IS NOT NULL;
