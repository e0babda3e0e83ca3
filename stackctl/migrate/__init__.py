"""Migrations: `files` are read into a `plan`, which `run` applies to a database and `history` records."""
