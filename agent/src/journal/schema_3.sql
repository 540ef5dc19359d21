-- Notes of a bay that may be missing although the books have them: a dispense ended with a fault, and
-- nobody counted what was on its way.
ALTER TABLE bays ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;
