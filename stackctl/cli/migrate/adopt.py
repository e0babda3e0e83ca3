"""stackctl migrate adopt"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, History, open_database, read_own_set
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.core.console import Console
    from stackctl.migrate.adopt import Adoption


@command(
    example="stackctl migrate adopt --through 20260101000017 --dry-run\n"
    "stackctl migrate adopt --through 20260801120000 --dir db/migrations",
)
def adopt(
    run: Run,
    through: Annotated[
        str | None,
        typer.Option("--through", metavar="VERSION", help="Without a history to read: the last file that is applied."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be recorded, and write nothing.")] = False,
    directory: Directory = None,
    history: History = None,
) -> None:
    """Record as applied what another tool has applied; no migration is run.

    Its history is read: the backend's ("SchemaMigration"), Prisma's, dbmate's, golang-migrate's, goose's, Flyway's and
    others'. Running it again changes nothing.

    Prints how many migrations were recorded, and from which history.
    Exit codes: 0 recorded or nothing to do; 2 there is no history to read and --through is missing; 4 the operated
    database can't be reached; 5 the database lacks what those files make, or another run holds the lock.
    """
    from stackctl.migrate.adopt import adopt as take_over
    from stackctl.migrate.sets import complete_sets

    own, schema = read_own_set(run, directory, history), run.settings.get("database.schema")
    with open_database(run) as conn:
        chosen = own or complete_sets(conn, None, schema)[0]
        found = take_over(
            conn,
            chosen.migrations,
            schema=schema,
            history_name=chosen.history,
            through=through,
            dry_run=dry_run,
            on_event=lambda event: run.console.info(f"{event.kind} {event.detail}"),
        )
    run.finish(asdict(found) | {"dry_run": dry_run}, lambda: _show_adoption(run.console, found, dry_run))


def _show_adoption(console: Console, found: Adoption, dry_run: bool) -> None:
    for name in found.adopted:
        console.line(f"{'would record' if dry_run else 'recorded'} {name}")
    for name in found.without_file:
        console.warn(f"{name} is in {found.source}, and there is no such file here")
    for what in found.doubtful:
        console.warn(f"the database lacks {what}, which these files make")
    count = format_count(len(found.adopted), "migration", "migrations")
    known = f"; {len(found.already)} known before" if found.already else ""
    console.line(f"{count} {'would be adopted' if dry_run else 'adopted'} from {found.source}{known}")
