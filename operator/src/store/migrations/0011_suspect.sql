-- Who switched a machine off: its operator, whose running sales come to their end, or an alarm, after
-- which nothing moves until a person has looked. Until now only the reason told.
ALTER TABLE machines ADD COLUMN disabled_by TEXT CHECK (disabled_by IN ('operator', 'alarm'));
UPDATE machines
   SET disabled_by = CASE WHEN disabled_reason LIKE 'its journal went back%' THEN 'alarm'
                          ELSE 'operator' END
 WHERE disabled_at IS NOT NULL;
