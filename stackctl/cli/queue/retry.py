"""stackctl queue retry"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import require_names_or_all
from stackctl.cli.command import Run, command, format_count
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from stackctl.sync.queue.retries import Failure


@command(example="stackctl queue retry --all")
def retry(
    run: Run,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Database ids, or TENANCY/DATABASE.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
) -> None:
    """Make failing databases due now, given up ones included. The next poll tries them."""
    from stackctl.sync.queue import retries

    require_names_or_all(ids, everything, "failing databases")
    with run.database() as conn:
        chosen = None
        if ids:
            failing = retries.list_failures(conn)
            chosen = [(f.tenancy, f.database) for f in failing if _named(f, ids)]
            for id_ in ids:
                if not any(_named(failure, [id_]) for failure in failing):
                    raise UsageError(
                        f"no failing database is called {id_!r}",
                        code="unknown-database",
                        hint="`stackctl queue list` shows those that fail",
                    )
        retried = retries.retry_now(conn, chosen)
    run.finish(
        {"retried": [{"tenancy": tenancy, "database": database} for tenancy, database in retried]},
        lambda: run.console.line(f"{format_count(len(retried), 'database', 'databases')} due now"),
    )


def _named(failure: Failure, ids: list[str]) -> bool:
    return failure.database in ids or f"{failure.tenancy}/{failure.database}" in ids or str(failure.tenancy) in ids
