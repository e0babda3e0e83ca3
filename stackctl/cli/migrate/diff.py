"""stackctl migrate diff"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Trust, open_database, read_own_set
from stackctl.core.errors import UsageError
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.migrate.diff import DatabaseSide, Side
    from stackctl.migrate.schema.difference import SchemaDifference


@command(
    example="stackctl migrate diff                        # what the database lacks\n"
    "stackctl migrate diff --from db/migrations   # what the folder lacks\n"
    "stackctl migrate diff --from postgresql://stage/app --to postgresql://live/app",
)
def diff(
    run: Run,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="SIDE", help="A folder or a database URL; default the operated database."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="SIDE",
            help="What it should become; default the configured folder, or the database if --from is a folder.",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Print as SQL what makes one schema like another: a database, or what a folder of migrations makes.

    In an order that runs. A comment stands over each statement that destroys something, and in place of what no
    statement does. Histories of migrations and the schema stackctl are left out, owners and the order of columns do not
    count. Nothing is written: a folder is applied to a temporary PostgreSQL.

    Prints the statements.
    Exit codes: 0 equal; 1 different; 3 the folder does not apply; 4 a database can't be reached.
    """
    from stackctl.migrate.diff import DiffOptions, diff_sides
    from stackctl.migrate.schema.difference import write_difference

    with ExitStack() as stack:
        before, before_name = _open_operated(run, stack) if from_ is None else _open_side(run, stack, from_)
        if to is not None:
            after, after_name = _open_side(run, stack, to)
        elif from_ is not None and not _is_url(from_):
            after, after_name = _open_operated(run, stack)
        else:
            after, after_name = _open_configured(run)
        options = DiffOptions(
            schema=run.settings.get("database.schema"), trust=trust, capture=run.settings.get("database.change_capture")
        )
        found = diff_sides(before, after, options, tell=run.console.info)
    text = write_difference(found)
    document = {"equal": found.is_empty, "from": before_name, "to": after_name} | to_document(found, text)
    run.finish(document, lambda: _show(run, found, text, f"{before_name} → {after_name}"), ok=found.is_empty)


def to_document(found: SchemaDifference, text: str) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "sql": Exact(text),
        "statements": [
            {"sql": Exact(change.sql), "destroys": change.loses or None, "remark": change.remark or None}
            for change in found.changes
        ],
        "not_done": list(found.omitted),
    }


def _show(run: Run, found: SchemaDifference, text: str, what: str) -> None:
    run.console.document(text)
    if found.is_empty:
        run.console.info(f"{what}: no difference")
        return
    parts = [format_count(len(found.changes), "statement", "statements")]
    if destroying := sum(bool(change.loses) for change in found.changes):
        parts.append(f"{destroying} of them destroying data")
    if found.omitted:
        parts.append(f"{format_count(len(found.omitted), 'difference', 'differences')} without a statement")
    run.console.info(f"{what}: {', '.join(parts)}")


def _is_url(side: str) -> bool:
    return "://" in side or side.partition(":")[0] == "embedded"


def _open_operated(run: Run, stack: ExitStack) -> tuple[Side, str]:
    from stackctl.migrate.diff import DatabaseSide

    return DatabaseSide(stack.enter_context(open_database(run))), "the operated database"


def _open_configured(run: Run) -> tuple[Side, str]:
    from stackctl.migrate.diff import FolderSide

    folder = run.settings.own_migrations_dir()
    return FolderSide(read_own_set(run, None, None)), str(folder or "stackctl's own migrations")


def _open_side(run: Run, stack: ExitStack, side: str) -> tuple[Side, str]:
    from stackctl.migrate.diff import FolderSide

    if not side:
        raise UsageError("an empty string is neither a folder nor a database URL", code="usage")
    if _is_url(side):
        return _open_url(run, stack, side), "the database of the URL"
    return FolderSide(read_own_set(run, Path(side), None)), side


def _open_url(run: Run, stack: ExitStack, url: str) -> DatabaseSide:
    from stackctl.migrate.diff import DatabaseSide
    from stackctl.postgres.connect import connect
    from stackctl.postgres.errors import translating_errors

    schema = run.settings.get("database.schema")
    conn = connect(url, schema=schema, application_name="stackctl migrate", for_migrations=True)
    stack.callback(conn.close)
    stack.enter_context(translating_errors("the database"))
    return DatabaseSide(conn)
