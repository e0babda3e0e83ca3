-- The ledger of refunds.

-- name: find_refunds
-- The newest first. Each filter that is not given is null.
SELECT id, status, tenancy_id AS tenancy, purchase_type, purchase_id, customer_id AS customer, request_id,
       stripe_account AS account, livemode, payment_intent AS intent, invoice, stripe_subscription AS subscription,
       amount, currency, quantity, entries, is_full, note, params, idempotency_key AS key, created_by, created_at, submitted_at,
       sends, stripe_refund, failure, waits_for, quantity_left, revoked,
       extract(epoch FROM clock_timestamp() - coalesce(submitted_at, created_at))::float8 AS age,
       CASE WHEN purchase_type = 'one-time-purchase' AND status IN ('failed', 'canceled') AND quantity > 0
            THEN EXISTS (
              SELECT 1 FROM "OneTimePurchase" AS p
              WHERE p."tenancyId" = refund.tenancy_id AND p.id = refund.purchase_id AND p."revokedAt" IS NOT NULL
                AND p.quantity > (SELECT coalesce(sum(o.quantity), 0) FROM stackctl.refund AS o
                                  WHERE o.tenancy_id = p."tenancyId" AND o.purchase_id = p.id AND o.status = 'succeeded'))
            ELSE FALSE END AS is_purchase_revoked,
       coalesce(asked, CASE WHEN is_full THEN '{"full": true}' ELSE jsonb_build_object('amount',
         trim_scale((entries -> 0 ->> 'amount_usd')::numeric)::text, 'quantity', quantity) END) AS asked,
       asked_by, part_of, ends_now, credit_note
FROM stackctl.refund
WHERE (%(id)s::uuid IS NULL OR id = %(id)s)
  AND (%(request)s::text IS NULL OR request_id = %(request)s)
  AND (%(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s)
  AND (%(account)s::text IS NULL OR stripe_account = %(account)s)
  AND (%(purchase)s::uuid IS NULL OR purchase_id = %(purchase)s)
  AND (%(customer)s::text IS NULL OR customer_id = %(customer)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
  AND (%(stripe_refund)s::text IS NULL OR stripe_refund = %(stripe_refund)s)
  AND (%(named)s::text[] IS NULL OR stripe_refund = ANY(%(named)s) OR id::text = ANY(%(ids)s::text[]))
  AND (NOT %(unsettled)s
       OR status IN ('planned', 'submitted', 'pending') OR (status = 'succeeded' AND NOT revoked))
ORDER BY created_at DESC, id LIMIT %(limit)s

-- name: insert_refund
INSERT INTO stackctl.refund
  (id, tenancy_id, purchase_type, purchase_id, customer_id, request_id, stripe_account, livemode, payment_intent, invoice,
   stripe_subscription, amount, currency, quantity, entries, is_full, note, params, idempotency_key, revoked,
   asked, asked_by, part_of, ends_now)
VALUES
  (%(id)s, %(tenancy)s, %(purchase_type)s, %(purchase_id)s, %(customer)s, %(request_id)s, %(account)s, %(livemode)s,
   %(intent)s, %(invoice)s, %(subscription)s, %(amount)s, %(currency)s, %(quantity)s, %(entries)s, %(is_full)s, %(note)s,
   %(params)s,
   %(key)s, %(subscription)s::text IS NULL OR (%(quantity)s = 0 AND NOT %(ends_now)s), %(asked)s, %(asked_by)s,
   %(part_of)s, %(ends_now)s)

-- name: replan_refund
-- What was asked stays; what remains, and so what `--full` comes to, may be something else by now.
UPDATE stackctl.refund
SET status = 'planned', failure = NULL, stripe_account = %(account)s, livemode = %(livemode)s,
    payment_intent = %(intent)s, invoice = %(invoice)s, stripe_subscription = %(subscription)s, amount = %(amount)s,
    currency = %(currency)s, quantity = %(quantity)s, entries = %(entries)s, note = %(note)s, params = %(params)s,
    idempotency_key = %(key)s, revoked = %(subscription)s::text IS NULL OR (%(quantity)s = 0 AND NOT %(ends_now)s),
    created_by = session_user, asked_by = %(asked_by)s, ends_now = %(ends_now)s,
    created_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'canceled' AND submitted_at IS NULL AND stripe_refund IS NULL

-- name: mark_submitted
UPDATE stackctl.refund
SET status = 'submitted', sends = sends + 1, submitted_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'planned'
  AND (%(within)s::float8 IS NULL OR created_at > clock_timestamp() - make_interval(secs => %(within)s))
RETURNING sends

-- name: mark_sent_again
UPDATE stackctl.refund SET sends = sends + 1, updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'submitted' AND submitted_at > clock_timestamp() - make_interval(secs => %(within)s)
RETURNING sends

-- name: record_status
-- What Stripe says. Of two who record, the one who looked earlier may come later: succeeded becomes pending never again,
-- and what failed in Stripe stays failed. One that was closed without Stripe, and that Stripe has, was closed wrongly.
UPDATE stackctl.refund
SET status = %(status)s, stripe_refund = %(stripe)s, failure = %(failure)s, waits_for = %(waits_for)s,
    credit_note = coalesce(%(credit_note)s, credit_note), updated_at = clock_timestamp()
WHERE id = %(id)s AND CASE status
  WHEN 'succeeded' THEN %(status)s <> 'pending'
  WHEN 'failed' THEN stripe_refund IS NULL
  WHEN 'canceled' THEN stripe_refund IS NULL
  ELSE TRUE END

-- name: fail_refund
-- Who was refused one sending knows nothing of those that others have sent since.
UPDATE stackctl.refund SET status = 'failed', failure = %(failure)s, updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'submitted' AND sends = %(sending)s

-- name: take_back
UPDATE stackctl.refund
SET status = %(status)s, submitted_at = NULL, failure = %(failure)s, updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'submitted' AND sends = %(sending)s

-- name: cancel_planned
UPDATE stackctl.refund SET status = 'canceled', failure = %(failure)s, updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'planned' AND created_at <= clock_timestamp() - make_interval(secs => %(before)s)
RETURNING 1

-- name: give_up
UPDATE stackctl.refund SET status = 'canceled', failure = %(failure)s, updated_at = clock_timestamp()
WHERE id = %(id)s AND status IN ('planned', 'submitted', 'pending')
RETURNING 1

-- name: fix_quantity_left
UPDATE stackctl.refund AS r
SET quantity_left = CASE WHEN r.ends_now THEN 0 ELSE greatest(s.quantity - r.quantity, 0) END, updated_at = clock_timestamp()
FROM "Subscription" AS s
WHERE r.id = %(id)s AND r.quantity_left IS NULL AND s."tenancyId" = r.tenancy_id AND s.id = r.purchase_id

-- name: find_least_quantity
SELECT least(s.quantity, (
  SELECT min(quantity_left) FROM stackctl.refund
  WHERE tenancy_id = s."tenancyId" AND purchase_id = s.id AND status = 'succeeded' AND NOT revoked AND quantity_left > 0))
FROM "Subscription" AS s WHERE s."tenancyId" = %(tenancy)s AND s.id = %(subscription)s

-- name: give_up_quantity
UPDATE stackctl.refund SET quantity_left = NULL, revoked = TRUE, updated_at = clock_timestamp()
WHERE id = %(id)s AND status = 'succeeded' AND NOT revoked
RETURNING 1

-- name: mark_revoked
UPDATE stackctl.refund SET revoked = TRUE, updated_at = clock_timestamp() WHERE id = %(id)s
