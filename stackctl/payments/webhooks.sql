-- name: store_event
INSERT INTO stackctl.webhook_event (id, type, account, livemode, api_version, created_at, payload)
VALUES (%(id)s, %(type)s, %(account)s, %(livemode)s, %(api_version)s, %(created_at)s, %(payload)s)
ON CONFLICT (id) DO NOTHING
