-- What the operated database knows of a project's payments.

-- name: account
SELECT "stripeAccountId" FROM "Project" WHERE id = %(project)s
