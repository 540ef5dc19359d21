-- What the RPC looks up for each request.

-- a repeated request for a price finds its quote, and one request has one
CREATE UNIQUE INDEX quotes_of_request ON quotes (machine_id, request_id);
-- caps of a machine by hour and day
CREATE INDEX invoices_of_machine ON invoices (machine_id, created_at);
CREATE INDEX withdraws_of_machine ON withdraws (machine_id, created_at);
-- a claim code is of one transaction
CREATE INDEX quotes_of_claim ON quotes (claim_hash);
