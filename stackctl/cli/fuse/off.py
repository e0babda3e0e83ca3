"""stackctl fuse off"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.arguments import name_operator, parse_text_option
from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import (
    Database,
    DryRun,
    MappingName,
    Name,
    Tenancy,
    finish,
    parse_scope,
)
from stackctl.core.errors import UsageError


@command(example='stackctl fuse off sequencer\nstackctl fuse off --database analytics --reason "it moves tonight"')
def off(
    run: Run,
    name: Name = None,
    tenancy: Tenancy = None,
    database: Database = None,
    mapping: MappingName = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="The reason, for others to read.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Stop a stage everywhere after its batch in hand, or pause a tenancy, a database, a mapping, or where they meet.

    What is paused is not sent, and has not failed; what changes meanwhile is sent when it is switched on again.
    `stackctl sync` by hand still works.

    Prints what is on and what is paused afterwards.
    Exit codes: 0 done; 2 no such tenancy, database or mapping; 4 the operated database can't be reached; 5 it was never
    migrated.
    """
    from stackctl.sync.queue import fuses, pauses
    from stackctl.sync.scope import select_databases

    scope = parse_scope(run, name, tenancy, database, mapping)
    why = parse_text_option(reason, "--reason")
    if scope is None and why is not None:
        raise UsageError("--reason goes with --tenancy, --database and --mapping", code="usage")
    with run.database() as conn:
        if name is not None and not dry_run:
            fuses.switch_fuse(conn, name, on=False)
        if scope is not None:
            from stackctl.sync.pipeline import Pipeline

            if not select_databases(Pipeline(run.settings), scope):
                raise UsageError(f"no such database takes the mapping {mapping}", code="unknown-mapping")
            only = scope.tenancies[0] if scope.tenancies else None
            if not dry_run and not pauses.add(conn, only, database, mapping, reason=why, by=name_operator()):
                run.console.warn("that was paused already; what was said then stays")
        finish(run, conn, dry_run=dry_run)
