CREATE VIEW "PrimaryContact" AS
    SELECT u."tenancyId", u."projectUserId", c."value"
    FROM "ProjectUser" AS u
    JOIN "ContactChannel" AS c ON c."projectId" = u."projectId" AND c."projectUserId" = u."projectUserId" AND c."isPrimary" = 'TRUE';
