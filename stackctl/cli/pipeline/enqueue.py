"""stackctl enqueue"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.arguments import find_tenancies, require_names_or_all
from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.shared import Tenancies, TenancyOptions
from stackctl.core.errors import UsageError
from stackctl.core.sentences import format_count


@command(example="stackctl enqueue 6fbbf22e-f4b2-4c6e-95a1-beab6fa41063\nstackctl enqueue --all")
def enqueue(
    run: Run,
    tenancies: Tenancies = None,
    tenancy: TenancyOptions = None,
    everything: Annotated[bool, typer.Option("--all", help="Every configured tenancy.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and queue none.")] = False,
) -> None:
    """Queue tenancies for the poller. One that is queued already is not queued twice.

    Prints how many tenancies were queued.
    Exit codes: 0 queued; 2 no such tenancy; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.queue import entries as queue

    named = [*(tenancies or ()), *(tenancy or ())]
    require_names_or_all(named, everything, "tenancies")
    pipeline = Pipeline(run.settings)
    wanted = find_tenancies(run, named) or list(pipeline.databases)
    with run.database() as conn:
        known = queue.find_existing_tenancies(conn, wanted)
        if named and (strange := sorted(set(wanted) - known)):
            raise UsageError(
                f"tenancy {strange[0]} does not exist in the operated database",
                code="unknown-tenancy",
                hint="`stackctl tenancies list` shows those that are there",
            )
        if not dry_run:
            queue.enqueue(conn, known)
    word = "would queue" if dry_run else "queued"
    run.finish(
        {"enqueued": 0 if dry_run else len(known), "tenancies": sorted(known), "dry_run": dry_run},
        lambda: run.console.line(f"{word} {format_count(len(known), 'tenancy', 'tenancies')}"),
    )
