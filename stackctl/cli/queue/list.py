"""stackctl queue list"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.cli.command import Run, command
from stackctl.cli.queue.shared import TenancyOption
from stackctl.core.durations import format_duration
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.sync.queue.retries import Failure


@command(example="stackctl queue list --json", lists=True)
def list_(
    run: Run,
    tenancy: TenancyOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Entries to list, oldest first.")] = 50,
) -> None:
    """List queue entries, and the databases that are waiting for another attempt or given up.

    -o has the entries alone.

    Prints a row for each entry, then a row for each database that fails.
    Exit codes: 0 printed; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.sync.queue import entries as queue
    from stackctl.sync.queue import pauses, retries

    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        entries = queue.list_entries(conn, limit, only)
        failures = [one for one in retries.list_failures(conn) if only in (None, one.tenancy)]
        summary = queue.summarize_queue(conn)
        standing = pauses.list_pauses(conn)

    def is_paused(one: Failure) -> bool:
        return pauses.find_pause(standing, one.tenancy, one.database, one.mapping) is not None

    def show_failures() -> None:
        if failures:
            run.console.line()
            run.console.table(
                (
                    Column("tenancy", group=True),
                    "database",
                    "mapping",
                    Column("attempts", right=True, spare=2),
                    Column("failing since", spare=1),
                    "next attempt",
                    Column("error", folds=True),
                ),
                [_failure_row(failure, is_paused(failure)) for failure in failures],
            )
            run.console.info("`stackctl queue retry` tries failing databases at once")

    document = {
        "summary": asdict(summary),
        "entries": [asdict(entry) for entry in entries],
        "failing": [asdict(failure) | {"dead": failure.dead, "paused": is_paused(failure)} for failure in failures],
    }
    run.finish_list(
        document,
        (Column("entry", spare=1), "tenancy", "queued", "state"),
        [
            (
                entry.id,
                entry.tenancy,
                entry.created_at,
                "pending" if entry.claimed_at is None else "stale" if entry.stale else "in flight",
            )
            for entry in entries
        ],
        empty="the queue is empty",
        after=show_failures,
    )


def _failure_row(failure: Failure, paused: bool) -> tuple[object, ...]:
    now = datetime.now(UTC)
    upcoming = failure.next_attempt_at
    if paused:
        when = "paused"
    elif upcoming is None:
        when = "given up"
    else:
        when = f"in {format_duration((upcoming - now).total_seconds())}" if upcoming > now else "due"
    return (
        failure.tenancy,
        failure.database or "(endpoint)",  # the tenancy could not be handed on
        failure.mapping,
        failure.attempts,
        failure.failing_since,
        when,
        failure.error,
    )
