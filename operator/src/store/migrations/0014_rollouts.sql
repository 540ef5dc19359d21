-- Names that an operator gives to groups of machines.
CREATE TABLE machine_tags (
    machine_id INTEGER NOT NULL REFERENCES machines (id),
    tag        TEXT NOT NULL CHECK (length(tag) BETWEEN 1 AND 40),
    PRIMARY KEY (machine_id, tag)
) STRICT, WITHOUT ROWID;

-- A change of fees that goes out to one group of machines after the other.
CREATE TABLE rollouts (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    operator_id      INTEGER NOT NULL REFERENCES operators (id),
    cash_in_fee_ppm  INTEGER CHECK (cash_in_fee_ppm BETWEEN 0 AND 150000),
    cash_out_fee_ppm INTEGER CHECK (cash_out_fee_ppm BETWEEN 0 AND 150000),
    -- how long each machine has to say that it applies its fees
    wait_s           INTEGER NOT NULL CHECK (wait_s > 0),
    actor            TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('running', 'done', 'halted', 'stopped')),
    -- why it was halted
    reason           TEXT,
    created_at       INTEGER NOT NULL,
    ended_at         INTEGER,
    CHECK (cash_in_fee_ppm IS NOT NULL OR cash_out_fee_ppm IS NOT NULL),
    CHECK ((state = 'running') = (ended_at IS NULL)),
    CHECK ((state = 'halted') = (reason IS NOT NULL))
) STRICT;
-- two at once would take each other's machines for changed by somebody else
CREATE UNIQUE INDEX one_rollout ON rollouts (operator_id) WHERE state = 'running';

CREATE TABLE rollout_machines (
    rollout_id    INTEGER NOT NULL REFERENCES rollouts (id),
    machine_id    INTEGER NOT NULL REFERENCES machines (id),
    stage         INTEGER NOT NULL CHECK (stage >= 0),
    -- the fees that it had when it was planned
    cash_in_from  INTEGER NOT NULL,
    cash_out_from INTEGER NOT NULL,
    -- whether it is waited for: one without a key applies nothing
    waits         INTEGER NOT NULL CHECK (waits IN (0, 1)),
    -- its fees as they were written in its stage
    document_id   INTEGER REFERENCES documents (id),
    written_at    INTEGER,
    PRIMARY KEY (rollout_id, machine_id),
    CHECK ((document_id IS NULL) = (written_at IS NULL))
) STRICT, WITHOUT ROWID;
