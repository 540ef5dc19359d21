-- What is asked for with each heartbeat and each page must not be looked for in all that ever was.

-- the newest of one machine: rows of an index are in the order of their ids
CREATE INDEX settlements_of_machine ON settlements (machine_id);
-- paid and not reported
CREATE INDEX settlements_held ON settlements (machine_id, settled_at) WHERE distribution = 'held';
