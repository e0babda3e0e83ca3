"""What the commands of stackctl migrate share."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.core.errors import ConfigError, ServiceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.cli.command import Run
    from stackctl.migrate.sets import MigrationSet
    from stackctl.postgres.connect import Connection

WAIT_POLL = 0.5  # seconds between two tries to reach a server that is coming up
Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Folder of migrations; default migrations_dir, else the bundled set."),
]

History = Annotated[
    str | None,
    typer.Option("--history", metavar="NAME", help="The folder's own history; default migrations.history, else none."),
]
Bundled = Annotated[
    bool, typer.Option("--bundled", help="Also stackctl's own tables, after a folder of your own migrations.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the files as superuser, who can read files and run programs.")
]


class Format(StrEnum):
    text = "text"
    json = "json"
    github = "github"
    gitlab = "gitlab"
    junit = "junit"
    sarif = "sarif"


def set_format(run: Run, format_: Format) -> None:
    """Errors come as JSON where the result does. Raises UsageError where --json asks for another one."""
    if format_ is Format.json:
        run.options["json_output"] = True
    elif run.json_output and format_ is not Format.text:
        raise UsageError(f"--json and --format {format_} can't be used together", code="usage")


def read_own_set(run: Run, directory: Path | None, history: str | None) -> MigrationSet | None:
    """The migrations of --dir, or else of the configured folder; None where the bundled set is all there is.

    Raises ConfigError, and UsageError for a history without a folder.
    """
    from stackctl.config.keys import KEYS, convert_value
    from stackctl.migrate.folder import discover
    from stackctl.migrate.sets import make_own_set

    if history is not None:
        try:
            convert_value(KEYS["migrations.history"], history, Path())
        except ValueError as error:
            raise UsageError(f"--history: {error}", code="usage") from None
    folder, name = directory or run.settings.own_migrations_dir(), history or run.settings.get("migrations.history")
    if folder is None and name:
        raise UsageError(
            f"a history of its own ({name}) is for a folder of your own",
            code="usage",
            hint="name the folder with --dir DIR, or as migrations.dir in stackctl.yaml",
        )
    return make_own_set(discover(folder), name or "") if folder else None


def require_own_folder(run: Run, directory: Path | None) -> Path:
    """The folder of --dir or of the configuration; the bundled set is not the operator's. Raises UsageError."""
    folder = directory or run.settings.own_migrations_dir()
    if folder is None:
        raise UsageError(
            "no folder of your own migrations is named",
            code="usage",
            hint="pass --dir DIR, or set migrations_dir in stackctl.yaml",
        )
    return folder


def refuse_unwritable(path: Path) -> None:
    """Raises ConfigError (`dump-unwritable`) before anything is done for a file that can't be written afterwards."""
    in_place = path.exists() and not path.is_file()  # a pipe
    if path.is_dir() or not os.access(path if in_place else path.resolve().parent, os.W_OK):
        raise ConfigError(
            f"{path} can't be written", code="dump-unwritable", hint="name a file in a folder that is there"
        )


def write_dump(run: Run, conn: Connection, path: Path) -> None:
    """Write the operated schema as SQL. Raises ConfigError (`dump-unwritable`)."""
    from stackctl.core.files import replace_file
    from stackctl.migrate.schema.dump import dump_schema

    text = dump_schema(conn, run.settings.get("database.schema"))
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}", code="dump-unwritable") from error


@contextmanager
def open_database(run: Run, wait: timedelta = timedelta(0)) -> Iterator[Connection]:
    """A connection to the operated database, in autocommit; its errors come out as StackctlErrors.

    A server that does not answer is tried again for as long as `wait`.
    """
    from stackctl.postgres.errors import translating_errors

    conn = _connect_with_retries(run, time.monotonic() + wait.total_seconds())
    try:
        with translating_errors("the operated database"):
            yield conn
    finally:
        conn.close()


def _connect_with_retries(run: Run, deadline: float) -> Connection:
    from stackctl.postgres.connect import connect

    settings = run.settings
    reported = False
    while True:
        try:
            return connect(
                settings.database_url(),
                base=settings.base_dir,
                schema=settings.get("database.schema"),
                what="the operated database",
                application_name="stackctl migrate",
                for_migrations=True,
            )
        except ServiceError as error:
            left = deadline - time.monotonic()
            # Behind a proxy, a server that is coming up accepts and hangs up.
            if left <= 0 or error.code not in (
                "unreachable",
                "not-postgresql",
                "too-many-connections",
                "connection-lost",
            ):
                raise
            if not reported:
                run.console.info(f"waiting: {error.message}")
                reported = True
            time.sleep(min(WAIT_POLL, left))
