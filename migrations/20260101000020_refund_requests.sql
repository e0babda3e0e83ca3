-- Refunds as they were asked for: by whom, in which words, and of an invoice that several payments have paid, in parts.

ALTER TABLE stackctl.refund
  ADD COLUMN IF NOT EXISTS asked jsonb, -- null in rows of an earlier stackctl: `entries` and `is_full` say it
  ADD COLUMN IF NOT EXISTS asked_by text,
  ADD COLUMN IF NOT EXISTS part_of uuid, -- the first of the refunds that were asked for together
  ADD COLUMN IF NOT EXISTS ends_now boolean NOT NULL DEFAULT FALSE, -- the subscription, and not with its period
  ADD COLUMN IF NOT EXISTS credit_note text; -- Stripe's id of the one that the refund was made with

-- Without money: a quantity is revoked alone, or a subscription ended.
ALTER TABLE stackctl.refund DROP CONSTRAINT IF EXISTS refund_amount_check;
ALTER TABLE stackctl.refund ADD CONSTRAINT refund_amount_check CHECK (amount >= 0) NOT VALID;
