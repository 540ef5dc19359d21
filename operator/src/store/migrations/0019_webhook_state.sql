-- A machine's later heartbeats change its row; the first one alone makes it.
CREATE TRIGGER webhook_of_state_again AFTER UPDATE OF body ON machine_states
WHEN (SELECT since FROM webhook) IS NOT NULL
    AND coalesce(json_extract(NEW.body, '$.alerts'), '[]') IS NOT
        coalesce((SELECT alerts FROM webhook_alerts WHERE machine_id = NEW.machine_id), '[]')
BEGIN
    INSERT INTO webhook_events (machine_id, kind, event) VALUES (NEW.machine_id, 'alert',
        json_object('what', 'machine.alerts',
            'alerts', json(coalesce(json_extract(NEW.body, '$.alerts'), '[]')),
            'at', NEW.received_at));
    INSERT OR REPLACE INTO webhook_alerts (machine_id, alerts)
        VALUES (NEW.machine_id, coalesce(json_extract(NEW.body, '$.alerts'), '[]'));
END;
