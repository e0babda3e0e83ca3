"""Which kinds of external databases there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackctl.config.settings import ExternalDatabase
    from stackctl.sync.targets.protocol import Target


def open_target(database: ExternalDatabase, busy_timeout: float | None = None) -> Target:
    """Connect; `database` must be resolved. Raises ServiceError as `postgres.connect.connect` does.

    `busy_timeout`: seconds to wait for another process that holds a file, else each kind's own.
    """
    if database.type == "sqlite":
        from stackctl.sync.targets.sqlite import SqliteTarget

        return SqliteTarget(database, busy_timeout)
    if database.type == "duckdb":
        from stackctl.sync.targets.duckdb import DuckdbTarget

        return DuckdbTarget(database, busy_timeout)
    from stackctl.sync.targets.postgres import PostgresTarget

    return PostgresTarget(database)
