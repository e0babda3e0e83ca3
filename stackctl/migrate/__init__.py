"""Migrations: files are read into a plan (`files`), the plan is applied to a database (`apply`)."""
