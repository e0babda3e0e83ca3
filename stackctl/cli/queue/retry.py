"""stackctl queue retry"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.arguments import require_names_or_all
from stackctl.cli.command import Run, command, format_count
from stackctl.cli.queue.shared import Ids, select_failing


@command(example="stackctl queue retry --all")
def retry(
    run: Run,
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
) -> None:
    """Make failing databases due now, given up ones included. The next poll tries them."""
    from stackctl.sync.queue import retries

    require_names_or_all(ids, everything, "failing databases")
    with run.database() as conn:
        chosen = select_failing(retries.list_failures(conn), ids) if ids else None
        retried = retries.retry_now(conn, chosen)
    run.finish(
        {"retried": [{"tenancy": tenancy, "database": database} for tenancy, database in retried]},
        lambda: run.console.line(f"{format_count(len(retried), 'database', 'databases')} due now"),
    )
