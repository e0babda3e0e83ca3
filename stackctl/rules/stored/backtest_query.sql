-- The users that rules are tried on, as a condition sees them.

-- name: judged_users
-- An address that is not ASCII is NULL: lower case is Python's there, and so is the decision. `method` and `provider`
-- are NULL where the database does not tell how somebody signed up. The fence keeps the fields from being computed once
-- for each rule that looks at them.
SELECT id, tenancy, email,
       CASE WHEN email IS NULL THEN NULL WHEN strpos(email, '@') = 0 THEN '' ELSE split_part(email, '@', -1) END
           AS email_domain,
       country_code, auth_method, oauth_provider, bot, free_trial_abuse, address, signed_up_at, last_active_at, paid,
       primary_verified
FROM (
    SELECT u."projectUserId" AS id, u."tenancyId" AS tenancy, c."value" AS address,
           u."signedUpAt" AS signed_up_at, u."lastActiveAt" AS last_active_at, p."customerId" IS NOT NULL AS paid,
           coalesce(c."isVerified", FALSE) AS primary_verified,
           (CASE WHEN c."value" IS NULL THEN ''
                 WHEN octet_length(c."value") = char_length(c."value")
                 THEN lower(btrim(c."value", E' \t\n\r\f\x0b\x1c\x1d\x1e\x1f') COLLATE "C") END) COLLATE "C" AS email,
           upper(coalesce(u."signUpCountryCode", '') COLLATE "C") AS country_code,
           {method} COLLATE "C" AS auth_method, {provider} COLLATE "C" AS oauth_provider,
           u."signUpRiskScoreBot" AS bot, u."signUpRiskScoreFreeTrialAbuse" AS free_trial_abuse
    FROM {selected_users} AS u
    LEFT JOIN "ContactChannel" AS c ON c."tenancyId" = u."tenancyId" AND c."projectUserId" = u."projectUserId"
        AND c."type" = 'EMAIL' AND c."isPrimary" = 'TRUE'
    {sign_up_providers}
    {payers}
    OFFSET 0
) AS u

-- name: sign_up_providers
-- Who has one provider to sign in with, and no address to do so, has signed up by it.
LEFT JOIN (
    SELECT a."tenancyId", a."projectUserId", min(a."configOAuthProviderId") AS provider
    FROM "ProjectUserOAuthAccount" AS a
    WHERE a."allowSignIn" AND NOT EXISTS (
        SELECT FROM "ContactChannel" AS s
        WHERE s."tenancyId" = a."tenancyId" AND s."projectUserId" = a."projectUserId" AND s."usedForAuth" = 'TRUE')
    GROUP BY 1, 2 HAVING count(DISTINCT a."configOAuthProviderId") = 1
) AS o ON o."tenancyId" = u."tenancyId" AND o."projectUserId" = u."projectUserId"

-- name: payers
-- Who has bought something that was neither a grant nor a test, and has not got the money back. A trial is free.
LEFT JOIN (
    SELECT "tenancyId", "customerId" FROM "Subscription"
    WHERE "customerType" = 'USER' AND "creationSource" = 'PURCHASE_PAGE' AND "refundedAt" IS NULL
      AND "status" NOT IN ('trialing', 'incomplete', 'incomplete_expired')
    UNION
    SELECT "tenancyId", "customerId" FROM "OneTimePurchase"
    WHERE "customerType" = 'USER' AND "creationSource" = 'PURCHASE_PAGE' AND "refundedAt" IS NULL
) AS p ON p."tenancyId" = u."tenancyId" AND p."customerId" = u."projectUserId"::text

-- name: with_facts
-- What came of the users. A first session is part of the sign-up: active is who was seen on a later day. Other
-- addresses than the primary one are looked up for those alone for whom it matters. Weeks are counted from the first
-- Monday there was: plain arithmetic for each user.
(SELECT t.*, (signed_up_at::date - '0001-01-01'::date) / 7 AS week, last_active_at >= signed_up_at + interval '1 day' AS active,
        primary_verified OR ((open OR NOT a_allowed OR a_restricted) AND EXISTS (
            SELECT FROM "ContactChannel" AS v
            WHERE v."tenancyId" = t.tenancy AND v."projectUserId" = t.id AND v."isVerified")) AS verified
 FROM ({outcomes}) AS t OFFSET 0) AS s

-- name: selected_users
(SELECT * FROM "ProjectUser"
 WHERE NOT "isAnonymous"
   AND ({since}::timestamp IS NULL OR "signedUpAt" >= {since}::timestamp)
   AND ({tenancy}::uuid IS NULL OR "tenancyId" = {tenancy}::uuid)
 {sample})

-- name: sample_limit
-- The same ones each time, and no others than before when more are asked for.
ORDER BY uuid_hash_extended("projectUserId", 0), "projectUserId" LIMIT {number}
