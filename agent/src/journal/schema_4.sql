-- Recyclers: bays that keep what customers feed, and that count it themselves.
ALTER TABLE bays ADD COLUMN recycles INTEGER NOT NULL DEFAULT 0 CHECK (recycles IN (0, 1));
ALTER TABLE bays ADD COLUMN recycled_in INTEGER NOT NULL DEFAULT 0;
-- What the device counts beyond the books; below 0: less.
ALTER TABLE bays ADD COLUMN differs INTEGER NOT NULL DEFAULT 0;

-- Notes of the cashbox's books of which the device has not told yet whether a bay has them.
CREATE TABLE unsorted (
    denomination INTEGER PRIMARY KEY CHECK (denomination > 0),
    notes        INTEGER NOT NULL
) STRICT;

-- Notes that went to a bay since the entry that `emptied` names as that of the box 'recycled'.
CREATE TABLE recycled (
    bay          INTEGER NOT NULL CHECK (bay BETWEEN 1 AND 255),
    denomination INTEGER NOT NULL CHECK (denomination > 0),
    notes        INTEGER NOT NULL,
    PRIMARY KEY (bay, denomination)
) STRICT, WITHOUT ROWID;
