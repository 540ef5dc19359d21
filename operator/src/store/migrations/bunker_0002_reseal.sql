-- The same key may be sealed anew, with another machine secret: the head of its envelope names that
-- secret by 16 hex digits. Nothing else about a key changes.
DROP TRIGGER keys_no_update;
CREATE TRIGGER keys_no_update BEFORE UPDATE ON keys
WHEN NEW.id IS NOT OLD.id OR NEW.name IS NOT OLD.name OR NEW.pubkey IS NOT OLD.pubkey
    OR NEW.created_at IS NOT OLD.created_at
    OR substr(NEW.sealed, 1, 46) IS substr(OLD.sealed, 1, 46)
BEGIN SELECT RAISE(ABORT, 'keys: a key is never overwritten'); END;
