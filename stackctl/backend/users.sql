-- One user: found by id or address, read, and restricted or not.

-- name: find_by_id
-- Tenancy by tenancy: every index on users begins with the tenancy.
SELECT u."tenancyId", u."projectUserId", NULL::text, NULL::boolean
FROM (SELECT id FROM "Tenancy" WHERE %(tenancy)s::uuid IS NULL OR id = %(tenancy)s) AS t
CROSS JOIN LATERAL (
    SELECT "tenancyId", "projectUserId" FROM "ProjectUser"
    WHERE "tenancyId" = t.id AND "projectUserId" = %(id)s
    OFFSET 0
) AS u
ORDER BY 1, 2
LIMIT %(limit)s

-- name: find_by_email
SELECT c."tenancyId", c."projectUserId", c."value", c."isPrimary" IS NOT NULL
FROM (SELECT id FROM "Tenancy" WHERE %(tenancy)s::uuid IS NULL OR id = %(tenancy)s) AS t
CROSS JOIN LATERAL (
    SELECT DISTINCT ON ("projectUserId") "tenancyId", "projectUserId", "value", "isPrimary" FROM "ContactChannel"
    WHERE "tenancyId" = t.id AND "type" = 'EMAIL' AND "value" = ANY (%(spellings)s)
    ORDER BY "projectUserId", "isPrimary", "value"
) AS c
ORDER BY 1, 2
LIMIT %(limit)s

-- name: find_by_email_in_any_case
SELECT c."tenancyId", c."projectUserId", c."value", c."isPrimary" IS NOT NULL
FROM (
    SELECT DISTINCT ON ("tenancyId", "projectUserId") "tenancyId", "projectUserId", "value", "isPrimary"
    FROM "ContactChannel"
    WHERE "type" = 'EMAIL' AND lower("value") = lower(%(address)s)
      AND (%(tenancy)s::uuid IS NULL OR "tenancyId" = %(tenancy)s)
    ORDER BY "tenancyId", "projectUserId", "isPrimary", "value"
) AS c
ORDER BY 1, 2
LIMIT %(limit)s

-- name: find_tenancy
SELECT 1 FROM "Tenancy" WHERE id = %(tenancy)s

-- name: read_user
-- Whether a verified address is required stands in the tenancy's configuration, nested or as a key with dots; the
-- environment's overrides the branch's, and what stands deeper sets all below it.
SELECT u."displayName", t."projectId", t."branchId", u."isAnonymous", coalesce(u."signedUpAt", u."createdAt"),
       u."signUpCountryCode", u."signUpRiskScoreBot", u."signUpRiskScoreFreeTrialAbuse",
       u."restrictedByAdmin", u."restrictedByAdminReason", u."restrictedByAdminPrivateDetails",
       CASE WHEN NOT u."shouldUpdateSequenceId" THEN u."sequenceId" END,
       coalesce(CASE
           WHEN e.config ? 'onboarding.requireEmailVerification' THEN e.config -> 'onboarding.requireEmailVerification'
           WHEN e.config ? 'onboarding' THEN e.config #> '{onboarding,requireEmailVerification}'
           WHEN b.config ? 'onboarding.requireEmailVerification' THEN b.config -> 'onboarding.requireEmailVerification'
           ELSE b.config #> '{onboarding,requireEmailVerification}'
       END = 'true'::jsonb, FALSE)
FROM "ProjectUser" AS u
JOIN "Tenancy" AS t ON t.id = u."tenancyId"
LEFT JOIN "EnvironmentConfigOverride" AS e ON e."projectId" = t."projectId" AND e."branchId" = t."branchId"
LEFT JOIN "BranchConfigOverride" AS b ON b."projectId" = t."projectId" AND b."branchId" = t."branchId"
WHERE u."tenancyId" = %(tenancy)s AND u."projectUserId" = %(id)s

-- name: list_channels
SELECT "type"::text, "value", "isPrimary" IS NOT NULL, "isVerified", "usedForAuth" IS NOT NULL
FROM "ContactChannel"
WHERE "tenancyId" = %(tenancy)s AND "projectUserId" = %(id)s
ORDER BY "isPrimary", "createdAt", "value"

-- name: can_read_triggers
-- Neither the table, which comes with a migration, nor the right to read it is needed to show a user.
SELECT CASE WHEN has_schema_privilege(to_regnamespace('stackctl'), 'USAGE')
            THEN coalesce(has_table_privilege(to_regclass('stackctl.sign_up_rule_user'), 'SELECT'), FALSE)
            ELSE FALSE END

-- name: list_triggers
SELECT rule_id, action, triggered_at FROM stackctl.sign_up_rule_user
WHERE tenancy_id = %(tenancy)s AND user_id = %(id)s
ORDER BY triggered_at, rule_id, action

-- name: set_lock_timeout
SELECT set_config('lock_timeout', %(timeout)s, TRUE)

-- name: lock_user
SELECT "restrictedByAdmin", "restrictedByAdminReason", "restrictedByAdminPrivateDetails" FROM "ProjectUser"
WHERE "tenancyId" = %(tenancy)s AND "projectUserId" = %(id)s
FOR NO KEY UPDATE

-- name: update_restriction
-- Marked here as well as by a trigger: where the application captures changes, there is none.
UPDATE "ProjectUser"
SET "restrictedByAdmin" = %(by_admin)s, "restrictedByAdminReason" = %(reason)s,
    "restrictedByAdminPrivateDetails" = %(private_details)s,
    "updatedAt" = now() AT TIME ZONE 'UTC', "shouldUpdateSequenceId" = TRUE
WHERE "tenancyId" = %(tenancy)s AND "projectUserId" = %(id)s
