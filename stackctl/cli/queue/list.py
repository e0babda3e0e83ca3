"""stackctl queue list"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.cli.command import Run, command
from stackctl.cli.queue.shared import TenancyOption, list_dead_messages
from stackctl.core.durations import format_duration
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.sync.queue.retries import Failure


@command(example="stackctl queue list --json", lists=True)
def list_(
    run: Run,
    tenancy: TenancyOption = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only what was given up, by a delivery service too (sync.dispatch: qstash).")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Entries to list, oldest first.")] = 50,
) -> None:
    """List queue entries, and the databases that are waiting for another attempt or given up.

    -o has the entries alone; with --dead, the messages that a delivery service gave up.

    Prints a row for each entry and each published message, then a row for each database that fails.
    Exit codes: 0 printed; 3 --dead, and the delivery service's settings are wrong; 4 the operated database or the
    delivery service can't be reached; 5 it was never migrated.
    """
    from stackctl.sync.queue import claims, pauses, retries
    from stackctl.sync.queue import entries as queue

    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        entries = [] if dead else queue.list_entries(conn, limit, only)
        published = [] if dead else claims.list_published(conn, limit, only)
        failures = [
            one for one in retries.list_failures(conn) if only in (None, one.tenancy) and (one.dead or not dead)
        ]
        summary = queue.summarize_queue(conn)
        standing = pauses.list_pauses(conn)
    given_up = list_dead_messages(run, only) if dead else []

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
        "published": [asdict(one) for one in published],
        **({"dead_messages": [asdict(one) for one in given_up]} if dead else {}),
        "failing": [asdict(failure) | {"dead": failure.dead, "paused": is_paused(failure)} for failure in failures],
    }
    if dead:
        run.finish_list(
            document,
            (Column("message", spare=1), "tenancy", "published", "status", Column("answer", folds=True)),
            [(one.message, one.tenancy, one.created_at, one.status, one.answer) for one in given_up],
            empty="nothing was given up" if not failures else "no message was given up",
            after=show_failures,
        )
        return
    columns = (
        Column("entry", spare=1),
        "tenancy",
        "queued",
        "state",
        *([Column("message", spare=2)] if published else []),
    )
    run.finish_list(
        document,
        columns,
        [
            (
                entry.id,
                entry.tenancy,
                entry.created_at,
                "pending" if entry.claimed_at is None else "stale" if entry.stale else "in flight",
            )
            + ((None,) if published else ())
            for entry in entries
        ]
        + [(one.entry, one.tenancy, one.published_at, "published", one.message) for one in published],
        empty="the queue is empty",
        after=show_failures,
    )


def _failure_row(failure: Failure, paused: bool) -> tuple[object, ...]:
    from stackctl.sync.queue.claims import name_database

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
        name_database(failure.database),
        failure.mapping,
        failure.attempts,
        failure.failing_since,
        when,
        failure.error,
    )
