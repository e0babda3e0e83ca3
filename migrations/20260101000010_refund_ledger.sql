-- Refunds, each written here before Stripe hears of it: what was asked stays as it was written, what came of it is
-- added. A refund that has not failed holds its money: nobody else can refund it.

CREATE TABLE IF NOT EXISTS stackctl.refund (
  id uuid PRIMARY KEY,
  -- What was asked.
  tenancy_id uuid NOT NULL,
  purchase_type text NOT NULL CHECK (purchase_type IN ('one-time-purchase', 'subscription')),
  purchase_id uuid NOT NULL,
  customer_id text NOT NULL,
  request_id text,
  stripe_account text NOT NULL,
  livemode boolean NOT NULL,
  payment_intent text NOT NULL,
  invoice text,
  stripe_subscription text,
  amount bigint NOT NULL CHECK (amount > 0),
  currency text NOT NULL,
  quantity integer NOT NULL CHECK (quantity >= 0),
  entries jsonb NOT NULL,
  is_full boolean NOT NULL,
  note text,
  params jsonb NOT NULL,
  idempotency_key text NOT NULL UNIQUE,
  created_by text NOT NULL DEFAULT session_user,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- What came of it.
  status text NOT NULL DEFAULT 'planned'
    CHECK (status IN ('planned', 'submitted', 'pending', 'succeeded', 'failed', 'canceled')),
  submitted_at timestamptz,
  sends integer NOT NULL DEFAULT 0,
  stripe_refund text UNIQUE,
  failure text,
  -- Of a subscription, once the money is back: the quantity that is to be left. `revoked` says that Stripe has it, too;
  -- it is true from the start where nothing is to be revoked there.
  quantity_left integer,
  revoked boolean NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX IF NOT EXISTS refund_request_idx ON stackctl.refund (tenancy_id, request_id);
CREATE INDEX IF NOT EXISTS refund_purchase_idx ON stackctl.refund (tenancy_id, purchase_id);
CREATE INDEX IF NOT EXISTS refund_created_at_idx ON stackctl.refund (created_at);
CREATE INDEX IF NOT EXISTS refund_unsettled_idx ON stackctl.refund (created_at)
  WHERE status IN ('planned', 'submitted', 'pending') OR (status = 'succeeded' AND NOT revoked);
