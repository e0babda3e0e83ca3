"""stackctl queue retry"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command, format_count
from stackctl.cli.queue.shared import DryRun, Ids, TenancyOption, select_failing


@command(example="stackctl queue retry --all")
def retry(
    run: Run,
    ids: Ids = None,
    tenancy: TenancyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make failing databases due now, given up ones included. The next poll tries them.

    Prints the databases.
    Exit codes: 0 done; 2 no such failing database; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.sync.queue import retries

    with run.database() as conn:
        chosen = select_failing(conn, ids or (), tenancy, everything=everything)
        retried = chosen if dry_run else retries.retry_now(conn, chosen)
    word = "would be due now" if dry_run else "due now"
    run.finish(
        {"retried": [{"tenancy": tenancy, "database": name} for tenancy, name in retried], "dry_run": dry_run},
        lambda: run.console.line(f"{format_count(len(retried), 'database', 'databases')} {word}"),
    )
