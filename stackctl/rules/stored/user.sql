-- How a user signed up.

-- name: find_sign_up_provider
-- As a backtest takes it: who has one provider to sign in with, and no address to do so, has signed up by it.
SELECT min(a."configOAuthProviderId")
FROM "ProjectUserOAuthAccount" AS a
WHERE a."tenancyId" = %(tenancy)s AND a."projectUserId" = %(id)s AND a."allowSignIn"
  AND NOT EXISTS (
      SELECT FROM "ContactChannel" AS s
      WHERE s."tenancyId" = a."tenancyId" AND s."projectUserId" = a."projectUserId" AND s."usedForAuth" = 'TRUE')
HAVING count(DISTINCT a."configOAuthProviderId") = 1
