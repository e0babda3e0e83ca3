-- What Acme Rockets of `stackctl demo` sells, and who bought it; its payments lie in the stand-in for Stripe.

-- name: connect_account
UPDATE "Project" SET "stripeAccountId" = %(account)s, "updatedAt" = now() WHERE id = %(project)s

-- name: config
INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)
VALUES (%(project)s, 'main', now(), %(config)s)

-- name: ada
-- The user that the examples of help pages speak of.
WITH ada AS (
    INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "createdAt",
        "updatedAt", "signedUpAt", "displayName", "signUpCountryCode", "signUpRiskScoreBot")
    VALUES (%(ada)s, %(tenancy)s, %(project)s, 'main', now() - interval '90 days', now(), now() - interval '90 days',
        'Ada Lovelace', 'GB', 3)
    RETURNING "projectUserId", "tenancyId"
)
INSERT INTO "ContactChannel" (id, "projectUserId", "tenancyId", "updatedAt", type, "isPrimary", "isVerified", value,
    "usedForAuth")
SELECT gen_random_uuid(), "projectUserId", "tenancyId", now(), 'EMAIL', 'TRUE', true, 'ada@example.com', 'TRUE' FROM ada

-- name: purchase
INSERT INTO "OneTimePurchase" (id, "tenancyId", "customerId", "customerType", "productId", product, quantity,
    "stripePaymentIntentId", "createdAt", "creationSource", "priceId")
VALUES (%(id)s, %(tenancy)s, %(ada)s::uuid::text, 'USER', 'rocket-pass', %(product)s, %(quantity)s, %(intent)s,
    now() - %(age)s, 'PURCHASE_PAGE', 'once')

-- name: subscription
-- Of one of the teams.
INSERT INTO "Subscription" (id, "tenancyId", "customerId", "customerType", "productId", product, quantity,
    "stripeSubscriptionId", status, "currentPeriodStart", "currentPeriodEnd", "cancelAtPeriodEnd", "createdAt",
    "updatedAt", "creationSource", "priceId")
SELECT %(id)s, "tenancyId", "teamId"::text, 'TEAM', 'fleet', %(product)s, 3, %(subscription)s, 'active',
       now() - interval '9 days', now() + interval '21 days', false, now() - interval '39 days', now(), 'PURCHASE_PAGE',
       'monthly'
FROM "Team" WHERE "tenancyId" = %(tenancy)s ORDER BY "displayName" LIMIT 1

-- name: invoice
INSERT INTO "SubscriptionInvoice" (id, "tenancyId", "stripeSubscriptionId", "stripeInvoiceId",
    "isSubscriptionCreationInvoice", "createdAt", "updatedAt", status, "amountTotal")
VALUES (gen_random_uuid(), %(tenancy)s, %(subscription)s, %(invoice)s, %(is_first)s, now() - %(age)s, now(), 'paid', 9000)

-- name: trigger_rules
-- As the application records it: users of the last day and a half, most of them rejected.
SELECT stackctl.record_sign_up_rule_trigger(%(tenancy)s, rule, action, NULL)
FROM generate_series(1, 12) AS n,
     LATERAL (SELECT (ARRAY['block-disposable', 'block-disposable', 'risky', 'watch-france'])[1 + n %% 4] AS rule) AS a,
     LATERAL (SELECT CASE rule WHEN 'block-disposable' THEN 'reject' WHEN 'risky' THEN 'restrict' ELSE 'log' END) AS b(action)
