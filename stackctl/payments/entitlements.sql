-- name: has_derived_ledger
SELECT to_regclass('"BulldozerStorageEngine"') IS NOT NULL

-- name: is_revoked
-- In the purchase's row, and in what the backend derived of it. Its rows are found by a path of JSON strings.
SELECT p."revokedAt" IS NOT NULL, coalesce(l."value" #> '{rowData,revokedAtMillis}', 'null'::jsonb) <> 'null'::jsonb
FROM "OneTimePurchase" AS p
LEFT JOIN "BulldozerStorageEngine" AS l ON l."keyPath" = ARRAY[
    '"table"', '"external:payments-one-time-purchases"', '"storage"', '"rows"', to_jsonb(p.id::text)
]::jsonb[]
WHERE p."tenancyId" = %(tenancy)s AND p.id = %(purchase)s
