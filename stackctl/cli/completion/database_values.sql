-- What a prompt offers of the operated database; the newest where there are many.

-- name: limit_time
SELECT set_config('statement_timeout', %(milliseconds)s, TRUE), set_config('transaction_read_only', 'on', TRUE)

-- name: list_failing
SELECT database_id, min(last_error_code) FROM stackctl.delivery GROUP BY 1 ORDER BY 1 LIMIT %(limit)s

-- name: list_refunds
SELECT id, status, amount, currency, created_at::date FROM stackctl.refund ORDER BY created_at DESC, id LIMIT %(limit)s

-- name: list_purchases
SELECT id, coalesce(product->>'displayName', "productId", 'a product'), "customerId", "createdAt"::date
FROM (
    (SELECT id, product, "productId", "customerId", "createdAt" FROM "OneTimePurchase"
     ORDER BY "createdAt" DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT id, product, "productId", "customerId", "createdAt" FROM "Subscription"
     ORDER BY "createdAt" DESC LIMIT %(limit)s)
) AS bought ORDER BY "createdAt" DESC LIMIT %(limit)s
