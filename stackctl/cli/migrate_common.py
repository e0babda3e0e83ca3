"""What the commands of stackctl migrate share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.db import Connection
    from stackctl.migrate.files import Migration

app = group("Apply, inspect and write migrations.", example="stackctl migrate up")

Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Folder of migrations; default migrations_dir, else the bundled set."),
]


def read_migrations(run: Run, directory: Path | None) -> tuple[Migration, ...]:
    """The migrations of --dir, or else the configured ones."""
    from stackctl.migrate.files import discover

    return discover(directory or run.settings.migrations_dir())


@contextmanager
def session(run: Run) -> Iterator[Connection]:
    """A connection to the operated database, in autocommit; its errors come out as StackctlErrors."""
    from stackctl import db

    settings = run.settings
    conn = db.connect(
        settings.database_url(),
        base=settings.base,
        schema=settings.get("database.schema"),
        autocommit=True,
        what="the operated database",
        application_name="stackctl migrate",
    )
    try:
        with db.translated("the operated database"):
            yield conn
    finally:
        conn.close()
