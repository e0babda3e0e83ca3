-- What a refund waits for while Stripe calls it pending, and what was looked at and found to be in order.

-- As Stripe tells it: `reason`, `next_action`, `instructions_email`; null where nothing is told, and once it is settled.
ALTER TABLE stackctl.refund ADD COLUMN IF NOT EXISTS waits_for jsonb;

-- A difference between ledger and Stripe that somebody answers for. Should it become another one, its message does, too,
-- and it counts again. `refund` or `stripe_refund` is empty where only the other side has it.
CREATE TABLE IF NOT EXISTS stackctl.refund_acknowledgement (
  stripe_account text NOT NULL,
  kind text NOT NULL,
  refund text NOT NULL,
  stripe_refund text NOT NULL,
  message text NOT NULL,
  why text NOT NULL,
  acknowledged_by text NOT NULL,
  acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (stripe_account, kind, refund, stripe_refund)
);
