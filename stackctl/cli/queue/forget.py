"""stackctl queue forget"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.arguments import require_names_or_all
from stackctl.cli.command import Run, command, format_count
from stackctl.cli.queue.shared import Ids, select_failing


@command(example="stackctl queue forget analytics --yes")
def forget(
    run: Run,
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget that databases fail, as after a success: for those that are gone for good.

    One that is still configured is tried again with the next change of its tenancy, or by the sweep.
    """
    from stackctl.sync.queue import retries

    require_names_or_all(ids, everything, "failing databases")
    with run.database() as conn:
        chosen = select_failing(retries.list_failures(conn), ids or None)
        if chosen:
            count = format_count(len(chosen), "failing database", "failing databases")
            run.confirm(f"Forget {count}?", yes=yes)
        forgotten = retries.forget(conn, chosen)
    run.finish(
        {"forgotten": [{"tenancy": tenancy, "database": database} for tenancy, database in forgotten]},
        lambda: run.console.line(f"{format_count(len(forgotten), 'database', 'databases')} forgotten"),
    )
