"""Which kinds of external databases there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackctl.config.settings import ExternalDatabase
    from stackctl.sync.targets.protocol import Target


def open_target(database: ExternalDatabase) -> Target:
    """Connect; `database` must be resolved. Raises ServiceError as `postgres.connect.connect` does."""
    if database.type == "sqlite":
        from stackctl.sync.targets.sqlite import SqliteTarget

        return SqliteTarget(database)
    if database.type == "duckdb":
        from stackctl.sync.targets.duckdb import DuckdbTarget

        return DuckdbTarget(database)
    from stackctl.sync.targets.postgres import PostgresTarget

    return PostgresTarget(database)
