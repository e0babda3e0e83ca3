-- What `stackctl demo` puts into its own database. Each statement is for one tenancy; %(users)s is its size.

-- name: project
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode")
VALUES (%(project)s, now(), %(name)s, false)

-- name: tenancy
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES (%(tenancy)s, now(), %(project)s, 'main', 'TRUE')

-- name: users
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "createdAt",
    "updatedAt", "signedUpAt", "displayName", "profileImageUrl", "clientMetadata", "serverMetadata", "isAnonymous",
    "signUpCountryCode", "signUpRiskScoreBot")
SELECT gen_random_uuid(), %(tenancy)s, %(project)s, 'main', born, born, born,
       CASE WHEN n %% 25 = 0 THEN NULL ELSE first || ' ' || last END,
       CASE WHEN n %% 3 = 0 THEN 'https://img.example.com/' || md5(n::text) || '.png' END,
       CASE WHEN n %% 4 = 0 THEN jsonb_build_object('theme', CASE WHEN n %% 8 = 0 THEN 'dark' ELSE 'light' END) END,
       CASE WHEN n %% 5 = 0 THEN jsonb_build_object('plan', (ARRAY['free', 'team', 'enterprise'])[1 + n %% 3],
                                                    'note', 'said "hi" \ o''clock') END,
       n %% 25 = 0, (ARRAY['US', 'DE', 'JP', 'BR', 'IN', 'FR'])[1 + n %% 6], (n * 7) %% 60
FROM generate_series(1, %(users)s) AS n,
     LATERAL (SELECT date_trunc('milliseconds', now() - n * interval '47 minutes') AT TIME ZONE 'UTC' AS born,
              (ARRAY['Ada', 'Grace', 'Linus', 'Björk', 'José', 'Zoë', 'Łukasz', '美咲', 'Мария', 'Nguyễn', 'Aisha',
                     'Søren', 'Olu', 'Priya', '🚀 Max', 'Chloé'])[1 + n %% 16] AS first,
              (ARRAY['Lovelace', 'Hopper', 'Torvalds', 'García', 'O''Neil', 'Müller', '田中', 'Иванова', 'Văn', 'Khan',
                     'Kierkegaard', 'Adeyemi', 'Sharma'])[1 + n %% 13] AS last) AS person

-- name: channels
INSERT INTO "ContactChannel" (id, "projectUserId", "tenancyId", "createdAt", "updatedAt", type, "isPrimary",
    "isVerified", value, "usedForAuth")
SELECT gen_random_uuid(), "projectUserId", "tenancyId", "createdAt", "updatedAt", 'EMAIL', 'TRUE',
       n %% 7 <> 0, 'user' || n || '@' || (ARRAY['example.com', 'mail.example', 'bücher.example'])[1 + n %% 3], 'TRUE'
FROM (SELECT *, row_number() OVER (ORDER BY "createdAt" DESC) AS n FROM "ProjectUser"
      WHERE "tenancyId" = %(tenancy)s AND NOT "isAnonymous") AS u

-- name: teams
INSERT INTO "Team" ("teamId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt", "displayName",
    "clientMetadata")
SELECT gen_random_uuid(), %(tenancy)s, %(project)s, 'main', now(),
       (ARRAY['Platform', 'Growth', 'Support', 'Research', 'Design', 'Finance'])[1 + n %% 6] || ' ' || n,
       jsonb_build_object('seats', n)
FROM generate_series(1, %(users)s / 25) AS n

-- name: members
INSERT INTO "TeamMember" ("projectUserId", "teamId", "tenancyId", "updatedAt", "isSelected")
SELECT u."projectUserId", t."teamId", u."tenancyId", now(), 'TRUE'
FROM (SELECT *, row_number() OVER (ORDER BY "createdAt") AS n FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s) AS u
JOIN (SELECT *, row_number() OVER (ORDER BY "displayName") AS n, count(*) OVER () AS teams FROM "Team"
      WHERE "tenancyId" = %(tenancy)s) AS t ON t.n = 1 + u.n %% t.teams

-- name: team_permissions
INSERT INTO "TeamMemberDirectPermission" (id, "projectUserId", "teamId", "tenancyId", "updatedAt", "permissionId")
SELECT gen_random_uuid(), "projectUserId", "teamId", "tenancyId", now(), permission
FROM "TeamMember", unnest(ARRAY['read', 'invite']) AS permission
WHERE "tenancyId" = %(tenancy)s AND (permission = 'read' OR get_byte(uuid_send("projectUserId"), 0) < 64)

-- name: project_permissions
INSERT INTO "ProjectUserDirectPermission" (id, "projectUserId", "tenancyId", "updatedAt", "permissionId")
SELECT gen_random_uuid(), "projectUserId", "tenancyId", now(), 'admin'
FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 1) < 16

-- name: preferences
INSERT INTO "UserNotificationPreference" (id, "tenancyId", "projectUserId", "notificationCategoryId", enabled)
SELECT gen_random_uuid(), "tenancyId", "projectUserId", '4f6f8873-3d04-46bd-8bef-18338b1a1b4c',
       get_byte(uuid_send("projectUserId"), 2) < 128
FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 3) < 64

-- name: sessions
INSERT INTO "ProjectUserRefreshToken" (id, "projectUserId", "tenancyId", "updatedAt", "refreshToken", "expiresAt")
SELECT gen_random_uuid(), "projectUserId", "tenancyId", now(), md5("projectUserId"::text || 'session'),
       now() + interval '30 days'
FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 4) < 64

-- name: accounts
INSERT INTO "ProjectUserOAuthAccount" (id, "projectUserId", "tenancyId", "updatedAt", "providerAccountId",
    "configOAuthProviderId", email)
SELECT gen_random_uuid(), "projectUserId", "tenancyId", now(), md5("projectUserId"::text),
       (ARRAY['google', 'github'])[1 + get_byte(uuid_send("projectUserId"), 5) %% 2], NULL
FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 6) < 80

-- name: emails
INSERT INTO "EmailOutbox" ("tenancyId", id, "updatedAt", "tsxSource", "isHighPriority", "to", "extraRenderVariables",
    "createdWith", "shouldSkipDeliverabilityCheck", "scheduledAt", "renderedSubject")
SELECT "tenancyId", gen_random_uuid(), now(), 'export default () => null', false,
       jsonb_build_object('type', 'user-primary-email', 'userId', "projectUserId"), '{}', 'PROGRAMMATIC_CALL', false,
       now(), 'Welcome!'
FROM "ProjectUser" WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 7) < 48

-- name: invitations
INSERT INTO "VerificationCode" ("projectId", "branchId", id, "updatedAt", type, code, "expiresAt", data, method)
SELECT %(project)s, 'main', gen_random_uuid(), now(), 'TEAM_INVITATION', md5("teamId"::text), now() + interval '7 days',
       jsonb_build_object('team_id', "teamId"), jsonb_build_object('email', 'new-' || left("teamId"::text, 8) || '@example.com')
FROM "Team" WHERE "tenancyId" = %(tenancy)s

-- name: rename_users
UPDATE "ProjectUser" SET "displayName" = coalesce("displayName", 'Someone') || ' (renamed)', "updatedAt" = now()
WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("projectUserId"), 8) < 40

-- name: verify_emails
UPDATE "ContactChannel" SET "isVerified" = true, "updatedAt" = now()
WHERE "tenancyId" = %(tenancy)s AND NOT "isVerified"

-- name: rename_teams
UPDATE "Team" SET "displayName" = "displayName" || ' & friends', "updatedAt" = now()
WHERE "tenancyId" = %(tenancy)s AND get_byte(uuid_send("teamId"), 0) < 64

-- name: delete_users
-- Channels, memberships, permissions, preferences and accounts go with them by cascade.
DELETE FROM "ProjectUser"
WHERE "tenancyId" = %(tenancy)s AND NOT "isAnonymous" AND get_byte(uuid_send("projectUserId"), 9) < 26
RETURNING "projectUserId"

-- name: return_users
-- The same ids and the same addresses come back.
WITH back AS (
    INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
        "displayName")
    SELECT id, %(tenancy)s, %(project)s, 'main', now(), 'Back again' FROM unnest(%(ids)s::uuid[]) AS id
    RETURNING "projectUserId", "tenancyId"
)
INSERT INTO "ContactChannel" (id, "projectUserId", "tenancyId", "updatedAt", type, "isPrimary", "isVerified", value,
    "usedForAuth")
SELECT gen_random_uuid(), b."projectUserId", b."tenancyId", now(), 'EMAIL', 'TRUE', true,
       coalesce((SELECT data ->> 'value' FROM "DeletedRow" AS d WHERE d."tenancyId" = b."tenancyId"
                 AND d."tableName" = 'ContactChannel' AND d."primaryKey" ->> 'projectUserId' = b."projectUserId"::text
                 LIMIT 1), b."projectUserId" || '@example.com'), 'TRUE'
FROM back AS b

-- name: list_own_tables
-- Those whose rows a person changes, and not a pipeline that runs.
SELECT schemaname, tablename FROM pg_tables
WHERE (schemaname = 'public' AND tablename NOT IN ('OutgoingRequest', 'DeletedRow'))
   OR (schemaname = 'stackctl' AND tablename = 'refund')
ORDER BY 1, 2
