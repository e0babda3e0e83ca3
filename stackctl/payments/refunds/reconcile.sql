-- Differences between ledger and Stripe that somebody answers for.

-- name: acknowledgements_exist
SELECT to_regclass('stackctl.refund_acknowledgement') IS NOT NULL

-- name: list_acknowledgements
SELECT kind, refund, stripe_refund, message, acknowledged_by, acknowledged_at, why
FROM stackctl.refund_acknowledgement WHERE stripe_account = %(account)s

-- name: acknowledge
INSERT INTO stackctl.refund_acknowledgement (stripe_account, kind, refund, stripe_refund, message, why, acknowledged_by)
VALUES (%(account)s, %(kind)s, %(refund)s, %(stripe_refund)s, %(message)s, %(why)s, %(by)s)
ON CONFLICT (stripe_account, kind, refund, stripe_refund) DO UPDATE
SET message = excluded.message, why = excluded.why, acknowledged_by = excluded.acknowledged_by,
    acknowledged_at = clock_timestamp()
RETURNING acknowledged_at
