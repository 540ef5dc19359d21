-- What is read often must not grow with all that ever was: what each account held at the end of each day
-- in which it moved, kept beside the postings and derived again by the audit; and the open invoices of one
-- machine, found without those of all others.

CREATE TABLE ledger_sums (
    account TEXT NOT NULL,
    unit    TEXT NOT NULL,
    -- since 1970-01-01, UTC
    day     INTEGER NOT NULL,
    -- at its end; that of the newest day is the balance
    balance INTEGER NOT NULL,
    PRIMARY KEY (account, unit, day)
) STRICT, WITHOUT ROWID;
INSERT INTO ledger_sums (account, unit, day, balance)
    SELECT account, unit, at / 86400,
        sum(sum(amount)) OVER (PARTITION BY account, unit ORDER BY at / 86400)
    FROM ledger_postings JOIN ledger_entries ON id = entry_id
    GROUP BY account, unit, at / 86400;
CREATE TRIGGER ledger_postings_sum AFTER INSERT ON ledger_postings
BEGIN
    INSERT INTO ledger_sums (account, unit, day, balance)
    SELECT NEW.account, NEW.unit, at / 86400, coalesce((
        SELECT balance FROM ledger_sums WHERE account = NEW.account AND unit = NEW.unit
            AND day < at / 86400 ORDER BY day DESC LIMIT 1), 0)
    FROM ledger_entries WHERE id = NEW.entry_id
    ON CONFLICT DO NOTHING;
    -- where the clock was set back, later days end with it, too
    UPDATE ledger_sums SET balance = balance + NEW.amount
    WHERE account = NEW.account AND unit = NEW.unit
        AND day >= (SELECT at / 86400 FROM ledger_entries WHERE id = NEW.entry_id);
END;
CREATE TRIGGER ledger_sums_name BEFORE UPDATE OF account, unit, day ON ledger_sums
BEGIN SELECT RAISE(ABORT, 'ledger: a sum stays what it is of'); END;
CREATE TRIGGER ledger_sums_no_delete BEFORE DELETE ON ledger_sums
BEGIN SELECT RAISE(ABORT, 'ledger: a sum stays'); END;

-- its sums are kept now; whether notes were ever put into a bay is still asked of the postings
DROP INDEX ledger_by_account;
CREATE INDEX ledger_of_bay ON ledger_postings (account, entry_id) WHERE account GLOB 'bay:*';

-- each wallet's poll asks for those of its machine
DROP INDEX invoices_open;
CREATE INDEX invoices_open_of ON invoices (machine_id, expires_at) WHERE state = 'open';
