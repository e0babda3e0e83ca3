-- What the operated database knows of a project's payments.

-- name: find_account
SELECT "stripeAccountId" FROM "Project" WHERE id = %(project)s

-- name: list_connected_tenancies
SELECT t.id, p."stripeAccountId" FROM "Project" AS p JOIN "Tenancy" AS t ON t."projectId" = p.id
WHERE p."stripeAccountId" IS NOT NULL ORDER BY p."stripeAccountId", t.id LIMIT %(limit)s

-- name: list_accounts
-- Those that are connected, and those that refunds were made on.
SELECT p."stripeAccountId" FROM "Project" AS p JOIN "Tenancy" AS t ON t."projectId" = p.id
WHERE p."stripeAccountId" IS NOT NULL AND (%(tenancy)s::uuid IS NULL OR t.id = %(tenancy)s)
UNION
SELECT stripe_account FROM stackctl.refund WHERE %(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s
ORDER BY 1

-- name: find_one_time_purchase
SELECT 'one-time-purchase' AS type, "tenancyId" AS tenancy, id, "customerId" AS customer,
       lower("customerType"::text) AS customer_type, product, "productId" AS product_id, "priceId" AS price_id, quantity,
       "creationSource"::text AS source, "createdAt" AS created_at, "refundedAt" AS refunded_at,
       "revokedAt" IS NOT NULL AS revoked, nullif("stripePaymentIntentId", '') AS stripe_id
FROM "OneTimePurchase"
WHERE id = %(id)s AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)

-- name: find_subscription
SELECT 'subscription' AS type, "tenancyId" AS tenancy, id, "customerId" AS customer,
       lower("customerType"::text) AS customer_type, product, "productId" AS product_id, "priceId" AS price_id, quantity,
       "creationSource"::text AS source, "createdAt" AS created_at, "refundedAt" AS refunded_at,
       "cancelAtPeriodEnd" OR "endedAt" IS NOT NULL AS revoked, nullif("stripeSubscriptionId", '') AS stripe_id
FROM "Subscription"
WHERE id = %(id)s AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)

-- name: find_invoice
-- Of the subscription's creation, unless one is named by Stripe's id or by ours.
SELECT "stripeInvoiceId" FROM "SubscriptionInvoice"
WHERE "tenancyId" = %(tenancy)s AND "stripeSubscriptionId" = %(subscription)s
  AND CASE WHEN %(invoice)s::text IS NULL THEN "isSubscriptionCreationInvoice"
           ELSE %(invoice)s IN ("stripeInvoiceId", id::text) END
ORDER BY "createdAt" LIMIT 1

-- name: list_last_invoices
SELECT "stripeInvoiceId" FROM "SubscriptionInvoice"
WHERE "tenancyId" = %(tenancy)s AND "stripeSubscriptionId" = %(subscription)s
ORDER BY "createdAt" DESC LIMIT 5

-- name: list_invoices
-- The newest first.
SELECT "stripeInvoiceId" AS id, "createdAt" AS created_at, status, "amountTotal" AS amount,
       "isSubscriptionCreationInvoice" AS is_first
FROM "SubscriptionInvoice"
WHERE "tenancyId" = %(tenancy)s AND "stripeSubscriptionId" = %(subscription)s
ORDER BY "createdAt" DESC, id

-- name: find_intents_of_others
SELECT "stripePaymentIntentId" FROM "OneTimePurchase"
WHERE "stripePaymentIntentId" = ANY(%(intents)s::text[]) AND "tenancyId" <> %(tenancy)s
UNION
SELECT payment_intent FROM stackctl.refund
WHERE payment_intent = ANY(%(intents)s::text[]) AND tenancy_id <> %(tenancy)s

-- name: lock_one_time_purchase
SELECT 1 FROM "OneTimePurchase" WHERE "tenancyId" = %(tenancy)s AND id = %(id)s FOR NO KEY UPDATE

-- name: lock_subscription
SELECT 1 FROM "Subscription" WHERE "tenancyId" = %(tenancy)s AND id = %(id)s FOR NO KEY UPDATE

-- name: mark_one_time_purchase_refunded
UPDATE "OneTimePurchase" SET "refundedAt" = coalesce("refundedAt", now() AT TIME ZONE 'UTC')
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s

-- name: unmark_one_time_purchase_refunded
UPDATE "OneTimePurchase" SET "refundedAt" = NULL WHERE "tenancyId" = %(tenancy)s AND id = %(id)s

-- name: unmark_subscription_refunded
UPDATE "Subscription" SET "refundedAt" = NULL, "updatedAt" = now() AT TIME ZONE 'UTC'
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s AND EXISTS (
  SELECT 1 FROM "SubscriptionInvoice" AS i
  WHERE i."tenancyId" = "Subscription"."tenancyId" AND i."stripeSubscriptionId" = "Subscription"."stripeSubscriptionId"
    AND i."isSubscriptionCreationInvoice" AND i."stripeInvoiceId" = %(invoice)s
)

-- name: mark_one_time_purchase_revoked
UPDATE "OneTimePurchase" SET "revokedAt" = coalesce("revokedAt", now() AT TIME ZONE 'UTC')
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s

-- name: mark_subscription_refunded
UPDATE "Subscription"
SET "refundedAt" = coalesce("refundedAt", now() AT TIME ZONE 'UTC'), "updatedAt" = now() AT TIME ZONE 'UTC'
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s AND EXISTS (
  SELECT 1 FROM "SubscriptionInvoice" AS i
  WHERE i."tenancyId" = "Subscription"."tenancyId" AND i."stripeSubscriptionId" = "Subscription"."stripeSubscriptionId"
    AND i."isSubscriptionCreationInvoice" AND i."stripeInvoiceId" = %(invoice)s
)

-- name: lower_subscription_quantity
-- A subscription without anything left ends with its period, and until then is what it was.
UPDATE "Subscription"
SET quantity = CASE WHEN %(left)s > 0 THEN least(quantity, %(left)s) ELSE quantity END,
    "cancelAtPeriodEnd" = "cancelAtPeriodEnd" OR %(left)s = 0, "updatedAt" = now() AT TIME ZONE 'UTC'
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s

-- name: end_subscription
UPDATE "Subscription"
SET status = 'canceled', "endedAt" = coalesce("endedAt", now() AT TIME ZONE 'UTC'),
    "canceledAt" = coalesce("canceledAt", now() AT TIME ZONE 'UTC'), "updatedAt" = now() AT TIME ZONE 'UTC'
WHERE "tenancyId" = %(tenancy)s AND id = %(id)s

-- name: find_customer_type
SELECT CASE WHEN EXISTS (SELECT 1 FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND "projectUserId" = %(id)s)
            THEN 'user'
            WHEN EXISTS (SELECT 1 FROM "Team" WHERE "tenancyId" = %(tenancy)s AND "teamId" = %(id)s)
            THEN 'team' END

-- name: find_type_bought_as
-- Who was deleted, and an id of the application's, is known by what was bought.
SELECT lower("customerType"::text) FROM "OneTimePurchase"
WHERE "tenancyId" = %(tenancy)s AND "customerId" = ANY (%(ids)s)
UNION ALL
SELECT lower("customerType"::text) FROM "Subscription"
WHERE "tenancyId" = %(tenancy)s AND "customerId" = ANY (%(ids)s)
LIMIT 1

-- name: list_purchases
-- The newest first. Owned is what is neither revoked nor ended: a subscription grants from its first appearance,
-- whatever its status, and until it has ended.
SELECT id, 'one-time-purchase' AS type, "productId" AS product_id, product, quantity,
       CASE WHEN "revokedAt" IS NULL THEN 'active' ELSE 'revoked' END AS status, "revokedAt" IS NULL AS owned,
       "createdAt" AS created_at, "refundedAt" AS refunded_at, NULL AS ends_at
FROM "OneTimePurchase"
WHERE "tenancyId" = %(tenancy)s AND "customerId" = %(customer)s AND lower("customerType"::text) = %(type)s
UNION ALL
SELECT id, 'subscription', "productId", product, quantity, status::text,
       "endedAt" IS NULL OR "endedAt" > now() AT TIME ZONE 'UTC',
       "createdAt", "refundedAt", CASE WHEN "cancelAtPeriodEnd" THEN "currentPeriodEnd" END
FROM "Subscription"
WHERE "tenancyId" = %(tenancy)s AND "customerId" = %(customer)s AND lower("customerType"::text) = %(type)s
ORDER BY created_at DESC, id

-- name: list_revoked_quantities
-- Of one-time purchases, whose row keeps what was bought. A refund that failed has taken nothing.
SELECT purchase_id, sum(quantity)::integer FROM stackctl.refund
WHERE tenancy_id = %(tenancy)s AND purchase_id = ANY (%(purchases)s) AND purchase_type = 'one-time-purchase'
  AND status NOT IN ('failed', 'canceled') AND quantity > 0
GROUP BY purchase_id

-- name: ledger_exists
SELECT to_regclass('stackctl.refund') IS NOT NULL
