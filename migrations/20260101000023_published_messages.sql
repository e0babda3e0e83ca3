-- Queue entries that a delivery service has taken, until what they ask for is done (ended_at).
CREATE TABLE IF NOT EXISTS stackctl.published_message (
  message_id text PRIMARY KEY, -- the service's
  tenancy_id uuid NOT NULL,
  entry_id uuid, -- null: it was done before whoever published it could write it down
  published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz
);
CREATE INDEX IF NOT EXISTS published_message_tenancy_id ON stackctl.published_message (tenancy_id) WHERE ended_at IS NULL;
