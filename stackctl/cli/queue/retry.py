"""stackctl queue retry"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.cli.command import Run, command
from stackctl.cli.queue.shared import DryRun, Ids, TenancyOption, list_dead_messages, publish_again, select_failing
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from uuid import UUID


@command(example="stackctl queue retry --all")
def retry(
    run: Run,
    ids: Ids = None,
    tenancy: TenancyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make failing databases due now, given up ones included. The next poll tries them.

    With sync.dispatch: qstash, messages that the service gave up are named by their ids, or by their tenancies; those
    tenancies are queued again, and the messages leave the service's list.

    Prints the databases and messages.
    Exit codes: 0 done; 2 no such failing database; 3 the delivery service's settings are wrong; 4 the operated database
    or the delivery service can't be reached; 5 it was never migrated.
    """
    from stackctl.sync.queue import retries

    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        dead = [one for one in list_dead_messages(run, only) if one.tenancy is not None]
        again = [one for one in dead if not ids or not {one.id, one.message, str(one.tenancy)}.isdisjoint(ids)]
        known = {name for one in again for name in (one.id, one.message, str(one.tenancy))}
        others = [one for one in ids or () if one not in known]
        chosen: list[tuple[UUID, str]] = []
        if others or not ids:
            chosen = select_failing(conn, others, tenancy, everything=everything)
        if not dry_run:
            retries.retry_now(conn, chosen)
            publish_again(run, conn, again)
    word = "would be" if dry_run else "are"
    document = {
        "retried": [{"tenancy": tenancy, "database": name} for tenancy, name in chosen],
        "queued": [{"tenancy": one.tenancy, "message": one.message} for one in again],
        "dry_run": dry_run,
    }

    def show() -> None:
        run.console.line(f"{format_count(len(chosen), 'database', 'databases')} {word} due now")
        if again:
            run.console.line(f"{format_count(len(again), 'message', 'messages')} {word} queued to be published again")

    run.finish(document, show)
