-- What the operated database knows of a tenancy's payments.

-- name: account
SELECT p.id, p."stripeAccountId" FROM "Tenancy" AS t JOIN "Project" AS p ON p.id = t."projectId" WHERE t.id = %(tenancy)s
