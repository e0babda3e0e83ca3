"""What the tests of the migration runner share: folders of files, and what a run says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.core.errors import StackctlError
from stackctl.migrate import verify as verification
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import RunResult, apply_migrations
from stackctl.migrate.sets import MigrationSet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event

Connection = psycopg.Connection[Any]


def write_files(directory: Path, **contents: str) -> tuple[Migration, ...]:
    """Write one file for each keyword, `a="SELECT 1"` becoming version …01, and read them back."""
    for number, (name, content) in enumerate(contents.items(), 1):
        (directory / f"202601010000{number:02}_{name}.sql").write_text(content)
    return discover(directory)


def list_applied(result: RunResult) -> list[str]:
    return [migration.name[15:] for migration in result.applied]


def fetch_value(conn: Connection, query: Any, *parameters: Any) -> Any:
    """The first column of the first row, or None."""
    row = conn.execute(query, parameters or None).fetchone()
    return row[0] if row else None


def is_index_valid(conn: Connection, index: str) -> bool | None:
    """Whether an index is; None when there is none of that name."""
    return fetch_value(
        conn, "SELECT indisvalid FROM pg_index WHERE indexrelid = (SELECT oid FROM pg_class WHERE relname = %s)", index
    )


def catch_error(conn: Connection, migrations: tuple[Migration, ...], **options: Any) -> StackctlError:
    with pytest.raises(StackctlError) as caught:
        apply_migrations(conn, migrations, **options)
    return caught.value


def list_kinds(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events]


def verify(
    conn: Connection, migrations: tuple[Migration, ...], schema: str = "public"
) -> tuple[verification.VerifyFinding, ...]:
    return verification.verify(conn, (MigrationSet(migrations),), schema)
