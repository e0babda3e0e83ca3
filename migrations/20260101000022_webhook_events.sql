-- Events that Stripe sent to `stackctl serve`, as they came, in the order in which they came.
CREATE TABLE IF NOT EXISTS stackctl.webhook_event (
  id text PRIMARY KEY, -- Stripe's
  type text NOT NULL,
  account text,
  livemode boolean NOT NULL,
  api_version text,
  created_at timestamptz NOT NULL,
  payload text NOT NULL, -- what was signed, byte for byte
  received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
