-- Payments that a wallet has told and that could not be recorded. The cursor of its list goes past them;
-- until they are on record they are looked up again, those that were tried longest ago first.
CREATE TABLE unrecorded (
    wallet_id    TEXT NOT NULL,
    payment_hash TEXT NOT NULL CHECK (length(payment_hash) = 64),
    direction    TEXT NOT NULL CHECK (direction IN ('cash_in', 'cash_out')),
    -- as its wallet told it: of some payments a look-up says nothing
    told         TEXT NOT NULL CHECK (json_valid(told)),
    -- what was in the way when it was tried last
    reason       TEXT NOT NULL,
    first_at     INTEGER NOT NULL,
    tried_at     INTEGER NOT NULL,
    PRIMARY KEY (wallet_id, payment_hash, direction)
) STRICT, WITHOUT ROWID;
CREATE INDEX unrecorded_tried ON unrecorded (wallet_id, tried_at);
