-- What programs show to the API instead of signing each request.

CREATE TABLE api_tokens (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    hash        TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    operator_id INTEGER REFERENCES operators (id),
    role        TEXT NOT NULL CHECK (role IN ('viewer', 'collector', 'operator', 'owner', 'super')),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER,
    CHECK ((role = 'super') = (operator_id IS NULL))
) STRICT;
CREATE TRIGGER api_tokens_stay BEFORE UPDATE OF id, name, hash, operator_id, role, created_at,
    expires_at ON api_tokens
BEGIN SELECT RAISE(ABORT, 'api_tokens: a token is revoked, never changed'); END;
