-- What is due must be found without the ten thousand others that wait: the documents of a change for
-- all machines stood before each push, and were read anew for each of them.

DROP INDEX outbox_due;
CREATE INDEX outbox_documents ON outbox (not_before, id)
    WHERE done_at IS NULL AND topic = 'document';
-- that a machine should look at its configuration waits for everything that a customer waits for
CREATE INDEX outbox_pushes ON outbox ((push = 'config_changed'), not_before, id)
    WHERE done_at IS NULL AND topic = 'push';
CREATE INDEX outbox_pushes_kept ON outbox (expires_at) WHERE topic = 'push';
