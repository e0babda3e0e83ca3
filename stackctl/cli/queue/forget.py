"""stackctl queue forget"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.queue.shared import DryRun, Ids, TenancyOption, select_failing
from stackctl.core.sentences import format_count


@command(example="stackctl queue forget --all --yes")
def forget(
    run: Run,
    ids: Ids = None,
    tenancy: TenancyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Forget that databases fail, as after a success: for those that are gone for good.

    One that is still configured is tried again with the next change of its tenancy, or by the sweep.

    Prints the databases.
    Exit codes: 0 done; 2 no such failing database; 4 the operated database can't be reached; 5 not confirmed.
    """
    from stackctl.sync.queue import retries

    with run.database() as conn:
        chosen = select_failing(conn, ids or (), tenancy, everything=everything)
        if chosen and not dry_run:
            count = format_count(len(chosen), "failing database", "failing databases")
            run.confirm(f"Forget {count}?", yes=yes)
        forgotten = chosen if dry_run else retries.forget(conn, chosen)
    word = "would be forgotten" if dry_run else "forgotten"
    run.finish(
        {"forgotten": [{"tenancy": tenancy, "database": name} for tenancy, name in forgotten], "dry_run": dry_run},
        lambda: run.console.line(f"{format_count(len(forgotten), 'database', 'databases')} {word}"),
    )
