"""stackctl fuse on"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import (
    Database,
    DryRun,
    MappingName,
    Name,
    Tenancy,
    finish,
    list_held,
    parse_scope,
)


@command(example="stackctl fuse on poller\nstackctl fuse on --database analytics")
def on(
    run: Run,
    name: Name = None,
    tenancy: Tenancy = None,
    database: Database = None,
    mapping: MappingName = None,
    dry_run: DryRun = False,
) -> None:
    """Let a stage work again, or end a pause, named as it was; what has changed meanwhile is sent at once.

    Prints what is on and what is paused afterwards.
    Exit codes: 0 done; 2 nothing is paused by that name; 4 the operated database can't be reached; 5 it was never
    migrated.
    """
    from stackctl.sync.queue import fuses, pauses
    from stackctl.sync.scope import select_databases

    scope = parse_scope(run, name, tenancy, database, mapping)
    with run.database() as conn:
        if name is not None and not dry_run:
            fuses.switch_fuse(conn, name, on=True)
        if scope is not None:
            from stackctl.sync.pipeline import Pipeline

            pipeline = Pipeline(run.settings)
            only = scope.tenancies[0] if scope.tenancies else None
            if dry_run:
                select_databases(pipeline, scope)
            elif not pauses.remove(conn, only, database, mapping, list_held(pipeline, scope)):
                select_databases(pipeline, scope)  # whether there is such a thing
                run.console.warn("that was not paused")
        finish(run, conn, dry_run=dry_run)
