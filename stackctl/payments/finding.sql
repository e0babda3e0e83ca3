-- Purchases by the ids that people have in hand.

-- name: find_by_stripe_id
-- Of a payment intent, a subscription or an invoice, as far as the operated database knows it.
SELECT id, "tenancyId" AS tenancy, NULL::text AS invoice FROM "OneTimePurchase"
WHERE "stripePaymentIntentId" = %(id)s AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)
UNION ALL
SELECT id, "tenancyId", NULL FROM "Subscription"
WHERE "stripeSubscriptionId" = %(id)s AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)
UNION ALL
SELECT s.id, s."tenancyId", i."stripeInvoiceId" FROM "SubscriptionInvoice" AS i
JOIN "Subscription" AS s USING ("tenancyId", "stripeSubscriptionId")
WHERE i."stripeInvoiceId" = %(id)s AND (%(tenancy)s::uuid IS NULL OR s."tenancyId" = %(tenancy)s)
LIMIT %(limit)s

-- name: find_in_ledger
SELECT DISTINCT purchase_id AS id, tenancy_id AS tenancy, invoice FROM stackctl.refund
WHERE %(id)s IN (stripe_refund, payment_intent, id::text) AND (%(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s)
LIMIT %(limit)s

-- name: list_of_customer
-- The newest first, and how many there are.
SELECT id, "tenancyId" AS tenancy, type, product, "productId" AS product_id, "createdAt" AS created_at,
       count(*) OVER () AS of_all
FROM (
  SELECT id, "tenancyId", 'purchase' AS type, product, "productId", "createdAt" FROM "OneTimePurchase"
  WHERE "customerId" = ANY (%(customers)s) AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)
  UNION ALL
  SELECT id, "tenancyId", 'subscription', product, "productId", "createdAt" FROM "Subscription"
  WHERE "customerId" = ANY (%(customers)s) AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)
) AS bought
ORDER BY "createdAt" DESC, id
LIMIT %(limit)s
