"""stackctl enqueue, queue"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command, counted, group, one_of, uuid_argument
from stackctl.durations import format_duration
from stackctl.errors import UsageError

if TYPE_CHECKING:
    from stackctl.sync.delivery import Failure

app = group("List the queue; retry what failed.", example="stackctl queue list")
enqueue_app = typer.Typer(add_completion=False)
apps = {"queue": app, "enqueue": enqueue_app}


@command(
    enqueue_app, "enqueue", example="stackctl enqueue 6fbbf22e-f4b2-4c6e-95a1-beab6fa41063\nstackctl enqueue --all"
)
def enqueue(
    run: Run,
    tenancies: Annotated[list[str] | None, typer.Argument(metavar="[TENANCY]...", help="Ids of tenancies.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every configured tenancy.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and queue none.")] = False,
) -> None:
    """Queue tenancies for the poller. One that is queued already is not queued twice."""
    from stackctl.sync import queue
    from stackctl.sync.pipeline import Pipeline

    one_of(tenancies, everything, "tenancies")
    pipeline = Pipeline(run.settings)
    wanted = [uuid_argument(t) for t in tenancies] if tenancies else list(pipeline.databases)
    with pipeline.session() as conn:
        known = queue.existing(conn, wanted)
        if tenancies and (strange := sorted(set(wanted) - known)):
            raise UsageError(
                f"tenancy {strange[0]} does not exist in the operated database",
                code="unknown-tenancy",
                hint='the ids are in the table "Tenancy"',
            )
        if not dry_run:
            queue.enqueue(conn, known)
    word = "would queue" if dry_run else "queued"
    run.finish(
        {"enqueued": 0 if dry_run else len(known), "tenancies": sorted(known), "dry_run": dry_run},
        lambda: run.console.line(f"{word} {counted(len(known), 'tenancy', 'tenancies')}"),
    )


@command(app, "list", example="stackctl queue list --json")
def list_(
    run: Run,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Entries to list, oldest first.")] = 50,
) -> None:
    """List queue entries, and the databases that are waiting for another attempt or given up."""
    from stackctl.sync import delivery, queue
    from stackctl.sync.pipeline import Pipeline

    with Pipeline(run.settings).session() as conn:
        entries = queue.entries(conn, limit)
        failures = delivery.failures(conn)
        summary = queue.summary(conn)

    def tables() -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        run.console.table(
            ("entry", "tenancy", "age", "state"),
            [
                (
                    entry.id,
                    entry.tenancy,
                    format_duration((now - entry.created_at).total_seconds()),
                    "pending" if entry.claimed_at is None else "stale" if entry.stale else "in flight",
                )
                for entry in entries
            ],
        ) if entries else run.console.line("the queue is empty")
        if failures:
            run.console.line()
            run.console.table(
                ("tenancy", "database", "attempts", "failing for", "next attempt", "error"),
                [_failure_row(failure) for failure in failures],
                right=("attempts",),
            )
            run.console.info("`stackctl queue retry` tries failing databases at once")

    document = {
        "summary": asdict(summary),
        "entries": [asdict(entry) for entry in entries],
        "failing": [asdict(failure) | {"dead": failure.dead} for failure in failures],
    }
    run.finish(document, tables)


def _failure_row(failure: Failure) -> tuple[object, ...]:
    now = datetime.now(UTC)
    upcoming = failure.next_attempt_at
    if upcoming is None:
        when = "given up"
    else:
        when = f"in {format_duration((upcoming - now).total_seconds())}" if upcoming > now else "due"
    since = format_duration((now - failure.failing_since).total_seconds())
    return (failure.tenancy, failure.database, failure.attempts, since, when, failure.error)


@command(app, "retry", example="stackctl queue retry --all")
def retry(
    run: Run,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Database ids, or TENANCY/DATABASE.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failing database.")] = False,
) -> None:
    """Make failing databases due now, given up ones included. The next poll tries them."""
    from stackctl.sync import delivery
    from stackctl.sync.pipeline import Pipeline

    one_of(ids, everything, "failing databases")
    with Pipeline(run.settings).session() as conn:
        chosen = None
        if ids:
            failing = delivery.failures(conn)
            chosen = [(f.tenancy, f.database) for f in failing if _named(f, ids)]
            for id_ in ids:
                if not any(_named(failure, [id_]) for failure in failing):
                    raise UsageError(
                        f"no failing database is called {id_!r}",
                        code="unknown-database",
                        hint="`stackctl queue list` shows those that fail",
                    )
        retried = delivery.retry(conn, chosen)
    run.finish(
        {"retried": [{"tenancy": tenancy, "database": database} for tenancy, database in retried]},
        lambda: run.console.line(f"{counted(len(retried), 'database', 'databases')} due now"),
    )


def _named(failure: Failure, ids: list[str]) -> bool:
    return failure.database in ids or f"{failure.tenancy}/{failure.database}" in ids or str(failure.tenancy) in ids
