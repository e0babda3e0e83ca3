"""stackctl status"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy, parse_duration_option, parse_wait_option
from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import describe_pause
from stackctl.core.durations import format_duration
from stackctl.core.errors import AnswerNo, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column
from stackctl.sync.status_document import status_document

if TYPE_CHECKING:
    from uuid import UUID

    from stackctl.core.console import Console
    from stackctl.migrate.change_capture import CaptureMode
    from stackctl.postgres.connect import Connection
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.queue.retries import Failure
    from stackctl.sync.status import DatabaseStatus, Status

WATCH_INTERVAL = timedelta(seconds=2)
SHORTEST_INTERVAL = timedelta(milliseconds=100)
REFUSED_SHOWN = 5  # rows of a database


@command(
    example="stackctl status\nstackctl status --watch --interval 1s\nstackctl status -q\n"
    "stackctl status --check --max-backlog 1000 --max-lag 5m",
)
def status(
    run: Run,
    tenancy: Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this tenancy.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="A board that is kept up to date until q or Ctrl-C; trouble comes first.")
    ] = False,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="DURATION", help="With --watch: time between two looks; 2s.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 when something is wrong or a limit is passed.")
    ] = False,
    max_backlog: Annotated[
        int | None, typer.Option("--max-backlog", min=0, metavar="N", help="With --check: rows behind, per mapping.")
    ] = None,
    max_lag: Annotated[
        str | None, typer.Option("--max-lag", metavar="DURATION", help="With --check: time behind, per mapping.")
    ] = None,
) -> None:
    """The pipeline at a glance: fuses, stamps, queue, and how far each copy is behind.

    With -q: one line, for a shell's prompt, of what the operated database knows; it takes two seconds at the most.

    Prints the fuses, the queue, a row for each source table, and a row for each copy.
    Exit codes: 0 printed (with --check: all is well); 1 --check found something wrong; 4 the operated database can't be
    reached, or with -q does not answer in time; 5 the database was never migrated.
    """
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.status import read_status as read

    if not check and (max_backlog is not None or max_lag is not None):
        raise UsageError("--max-backlog and --max-lag go with --check", code="usage")
    if check and watch:
        raise UsageError("--check and --watch can't be used together", code="usage")
    every = _parse_interval(interval, watch)
    if run.console.quiet and not (run.json_output or watch or check):
        from stackctl.cli.pipeline.prompt_line import print_prompt_line

        print_prompt_line(run, tenancy)
        return
    lag_limit = parse_duration_option(max_lag, "--max-lag")
    pipeline = Pipeline(run.settings)
    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        if only is not None:
            _must_exist(pipeline, conn, only)
        captured = _captured(run, conn)
        found = read(pipeline, conn, only)
    if watch:
        from stackctl.cli.pipeline.watch import watch as go_on

        go_on(run, pipeline, only, found, every, lambda look: _refresh(run, look, captured))
        return
    problems = found.find_problems(max_backlog=max_backlog, max_lag=lag_limit) if check else []
    document = status_document(found, captured) | ({"ok": not problems, "problems": problems} if check else {})
    if run.json_output:
        run.console.json_document(document)
    else:
        show(run.console, found, captured)
    if check and not run.json_output:
        for pause in found.pauses:
            run.console.info(f"not looked at: {describe_pause(pause)}")
    if problems:
        for problem in problems[1:]:
            run.console.warn(problem)
        if run.json_output:
            raise typer.Exit(AnswerNo.exit_code)
        raise AnswerNo(problems[0], code="check-failed", hint="`stackctl status` and `stackctl queue list` say more")


def _parse_interval(given: str | None, watch: bool) -> float:
    """Seconds between two looks."""
    if given is None:
        return WATCH_INTERVAL.total_seconds()
    if not watch:
        raise UsageError("--interval goes with --watch", code="usage")
    found = parse_wait_option(given, "--interval")
    if found < SHORTEST_INTERVAL:
        raise UsageError(f"--interval: {given!r} is less than 100ms", code="usage")
    return found.total_seconds()


def _must_exist(pipeline: Pipeline, conn: Connection, tenancy: UUID) -> None:
    from stackctl.sync.queue import entries

    if tenancy not in pipeline.databases and not entries.find_existing_tenancies(conn, [tenancy]):
        raise UsageError(
            f"tenancy {tenancy} exists neither in the database nor in the configuration",
            code="unknown-tenancy",
            hint="`stackctl config show` lists the configured ones",
        )


def _captured(run: Run, conn: Connection) -> CaptureMode:
    from stackctl.core.bundled import find_bundled
    from stackctl.migrate.change_capture import detect_capture
    from stackctl.migrate.folder import discover

    files = discover(find_bundled("migrations"))
    return detect_capture(conn, files, run.settings.get("database.schema"), run.settings.get("database.change_capture"))


def _refresh(run: Run, found: Status, captured: CaptureMode) -> None:
    if run.json_output:
        run.console.json_line(status_document(found, captured))
        return
    run.console.clear()
    show(run.console, found, captured)


def show(console: Console, found: Status, captured: CaptureMode) -> None:
    """The status as tables."""
    fuses = "  ".join(f"{name} {'on' if on else 'OFF'}" for name, on in asdict(found.fuses).items())
    queue = found.queue
    oldest = f", oldest {format_duration(queue.oldest_age_ms / 1000)}" if queue.oldest_age_ms is not None else ""
    console.line(f"fuses   {fuses}")
    for pause in found.pauses:
        console.line(f"paused  {describe_pause(pause)}", style="bold red")
    console.line(
        f"queue   {queue.pending} pending, {queue.in_flight} in flight, {queue.stale} stale, {queue.dead} dead{oldest}"
    )
    for name in found.missing_tables:
        console.line(f'missing the table "{name}"; what changes there is not sent', style="bold red")
    console.line("changes " + ("marked by triggers" if captured == "triggers" else "marked by the application"))
    console.line()
    console.table(
        (
            "table",
            Column("rows", right=True),
            Column("to stamp", right=True),
            Column("first stamp", right=True, spare=1),
            Column("last stamp", right=True, spare=2),
        ),
        [
            (name, f"{t.total:,}", f"{t.pending:,}", t.min_sequence_id, t.max_sequence_id)
            for name, t in found.tables.items()
            if t.total or t.pending
        ],
    )
    for tenancy, databases in found.tenancies.items():
        for database in databases:
            console.line()
            where = f"{database.type}, {database.connection}" if console.wide else database.type
            console.line(f"tenancy {tenancy}  {database.database} ({where})", style="bold")
            _show_database(console, database)
    if not found.tenancies:
        console.line()
        console.line("no external database is configured; see `tenancies:` in stackctl.yaml")


def _next_attempt(at: datetime | None) -> str:
    if at is None:
        return "given up: the next change, the sweep or `stackctl queue retry` wakes it"
    left = (at - datetime.now(UTC)).total_seconds()
    return f"next in {format_duration(left)}" if left > 0 else "next now"


def _describe_attempts(failure: DatabaseStatus | Failure) -> str:
    if failure.failing_since is None:
        return ""
    age = format_duration((datetime.now(UTC) - failure.failing_since).total_seconds())
    count = format_count(failure.attempts, "attempt", "attempts")
    return f" (for {age}, {count}, {_next_attempt(failure.next_attempt_at)})"


def _show_database(console: Console, database: DatabaseStatus) -> None:
    copies = {copy.mapping: copy.failure for copy in database.mappings if copy.failure is not None}
    if database.error is not None and database.error not in [failure.error for failure in copies.values()]:
        console.line(f"error{_describe_attempts(database)}: {database.error}", style="red")
    for mapping, failure in copies.items():
        console.line(f"error of {mapping}{_describe_attempts(failure)}: {failure.error}", style="red")
    if database.busy is not None:
        console.line(f"busy: {database.busy}; how far it is can be read when it is free")
        return
    for row in database.refused[:REFUSED_SHOWN]:
        console.line(f"rejected: {row.mapping} {', '.join(map(str, row.key))}: {row.error}", style="red")
    if len(database.refused) > REFUSED_SHOWN:
        more = format_count(len(database.refused) - REFUSED_SHOWN, "more rejected row", "more rejected rows")
        console.line(f"and {more} (--json lists them)", style="red")
    for copy in database.mappings:
        if copy.change is not None:
            console.line(f"changed: {copy.mapping}: {copy.change}", style="yellow")
        if copy.resend_left:
            console.line(f"sending again: {copy.mapping}: {format_count(copy.resend_left, 'row', 'rows')} left")
    if database.unfed:
        console.line(f"fed by no mapping: {', '.join(database.unfed)}", style="yellow")
    if not database.mappings:  # it could not be asked
        return
    console.table(
        (
            "mapping",
            Column("cursor", right=True, spare=2),
            Column("last stamp", right=True, spare=1),
            Column("backlog", right=True),
            Column("behind", right=True),
            "synced",
        ),
        [
            (
                copy.mapping,
                copy.cursor,
                copy.max_sequence_id,
                f"{copy.backlog:,}",
                None if copy.lag_ms is None else format_duration(copy.lag_ms / 1000) if copy.backlog else "0",
                None if copy.cursor < 0 else copy.updated_at,
            )
            for copy in database.mappings
        ],
    )
