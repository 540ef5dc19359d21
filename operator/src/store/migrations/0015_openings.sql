-- Who said that a key speaks for a machine: kept for whoever is shown a sale's evidence later.

-- the body of open_session; sessions of before have none
ALTER TABLE sessions ADD COLUMN opening TEXT CHECK (json_valid(opening));
