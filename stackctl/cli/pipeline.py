"""stackctl sequence, poll, sync, run"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl import __version__
from stackctl.cli.command import Run, command, counted, duration_option, one_of, uuid_argument
from stackctl.cli.service_log import ServiceLog
from stackctl.errors import EXIT_INTERRUPTED, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from stackctl.console import Console
    from stackctl.sync.engine import DatabaseResult
    from stackctl.sync.loop import Stop
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.poller import PollResult
    from stackctl.sync.sequencer import SequenceResult

apps = {name: typer.Typer(add_completion=False) for name in ("sequence", "poll", "sync", "run")}

Loop = Annotated[bool, typer.Option("--loop", help="Go on until a signal or --max-duration.")]
Interval = Annotated[str | None, typer.Option("--interval", metavar="DURATION", help="Pause between two passes.")]
MaxDuration = Annotated[
    str | None, typer.Option("--max-duration", metavar="DURATION", help="End after this time, e.g. 55s.")
]
Tenancies = Annotated[list[str] | None, typer.Argument(metavar="[TENANCY]...", help="Ids of tenancies.")]
All = Annotated[bool, typer.Option("--all", help="Every configured tenancy.")]


@command(apps["sequence"], "sequence", example="stackctl sequence\nstackctl sequence --loop --max-duration 55s")
def sequence(
    run: Run,
    loop: Loop = False,
    interval: Interval = None,
    max_duration: MaxDuration = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, max=1_000_000, help="Rows of a table in one transaction."),
    ] = None,
) -> None:
    """Stamp changed rows with sequence ids and queue their tenancies, until nothing is left.

    Exit codes: 0 done or fuse off, 5 another sequencer held the lock.
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    settings = run.settings
    console = run.console
    pause = _pause(loop, interval, "sync.sequencer_interval", run)
    with stopping(max_duration) as stop, console.progress("stamping") as progress:
        result = service.sequence(
            Pipeline(settings),
            stop,
            batch_size=batch_size or settings.get("sync.stamp_batch_size"),
            interval=pause,
            reports=service.Reports(
                stamped=progress.advance,
                sequenced=lambda done: _report(run, sequence_document(done), sequence_line(done)),
                trouble=lambda error: console.warn(error.message),
                warned=console.warn,
            ),
        )
    _end(run, sequence_document(result), sequence_line(result), result.stopped_by, loop=loop)


@command(apps["poll"], "poll", example="stackctl poll\nstackctl poll --loop")
def poll(
    run: Run,
    loop: Loop = False,
    interval: Interval = None,
    max_duration: MaxDuration = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=10_000, help="Queue entries held at a time.")
    ] = None,
) -> None:
    """Work off the queue: sync the external databases of the tenancies that are due, until nothing is left.

    Exit codes: 0 done or fuse off, 1 a database did not sync (it will be retried).
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    console = run.console
    log = ServiceLog(run, documents=False)
    pause = _pause(loop, interval, "sync.poller_interval", run)
    with stopping(max_duration) as stop:
        result = service.poll(
            Pipeline(run.settings),
            stop,
            claim_limit=batch_size or _claim_limit(run),
            interval=pause,
            reports=service.Reports(
                polled=lambda done: _report(run, poll_document(done), poll_line(done)),
                synced=lambda done: None if loop else _complain(console, done),
                failing=log.failing,
                recovered=log.recovered,
                trouble=log.trouble,
                regained=log.regained,
                warned=log.warned,
            ),
        )
    _end(run, poll_document(result), poll_line(result), result.stopped_by, loop=loop, failed=result.failed > 0)


@command(
    apps["sync"],
    "sync",
    example="stackctl sync --all\nstackctl sync 6fbbf22e-f4b2-4c6e-95a1-beab6fa41063 --database analytics --full",
)
def sync(
    run: Run,
    tenancies: Tenancies = None,
    everything: All = False,
    database: Annotated[str | None, typer.Option("--database", metavar="ID", help="Only this database.")] = None,
    mapping: Annotated[str | None, typer.Option("--mapping", metavar="NAME", help="Only this mapping.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Send every row again, and drop what is not there.")] = False,
) -> None:
    """Bring external databases up to date now, without the queue and whatever the fuses say.

    Exit codes: 0 all in sync, 1 a database did not sync (the others went on), 5 one belongs to another tenancy.
    """
    from stackctl.sync import service
    from stackctl.sync.engine import Options
    from stackctl.sync.pipeline import Pipeline

    one_of(tenancies, everything, "tenancies")
    scope = service.Scope([uuid_argument(t) for t in tenancies] if tenancies else None, database, mapping)
    console = run.console
    with stopping(None) as stop, console.progress("syncing") as progress:
        options = Options(
            batch_size=run.settings.get("sync.batch_size"),
            full=full,
            on_rows=lambda mapping, rows: progress.advance(rows, mapping),
        )
        results = service.sync(Pipeline(run.settings), scope, options, stop, service.Reports())
    ok = all(result.error is None for result in results)
    refused = any(result.error is not None and result.error.code in REFUSED for result in results)
    interrupted = stop.reason == "signal"
    run.finish(
        sync_document(results),
        lambda: _show_sync(run.console, results),
        ok=ok and not interrupted,
        exit_code=EXIT_INTERRUPTED if interrupted else StateError.exit_code if refused else 1,
    )


REFUSED = ("other-tenancy", "operated-database", "shared-database")


@command(apps["run"], "run", example="stackctl run\nstackctl run --max-duration 55s   # for a cron line")
def run_(run: Run, max_duration: MaxDuration = None) -> None:
    """Sequencer, poller and engine in one process, until a signal or --max-duration.

    Ctrl-C or SIGTERM ends it after the batch in hand, with exit code 0; a second one ends it at once.
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    log = ServiceLog(run, documents=True)
    pipeline = Pipeline(run.settings)
    with stopping(max_duration) as stop:
        _start(log, pipeline)  # a mistake in a file is told before anything starts
        service.run(
            pipeline,
            stop,
            claim_limit=_claim_limit(run),
            reports=service.Reports(
                sequenced=lambda done: log.say("sequence", sequence_line(done), sequence_document(done)),
                synced=lambda done: _synced(log, done),
                failing=log.failing,
                recovered=log.recovered,
                trouble=log.trouble,
                regained=log.regained,
                warned=log.warned,
            ),
        )
        log.say("end", f"stopped by {stop.reason}", {"stopped_by": stop.reason})


def _start(log: ServiceLog, pipeline: Pipeline) -> None:
    databases = sum(len(databases) for databases in pipeline.databases.values())
    document = {
        "version": __version__,
        "tenancies": len(pipeline.databases),
        "databases": databases,
        "mappings": list(pipeline.mappings),
        "wakeup": pipeline.settings.get("sync.wakeup"),
    }
    line = (
        f"stackctl {__version__} runs: {counted(databases, 'external database', 'external databases')} of "
        f"{counted(len(pipeline.databases), 'tenancy', 'tenancies')}, "
        f"{counted(len(pipeline.mappings), 'mapping', 'mappings')}; Ctrl-C ends it after the batch in hand"
    )
    log.say("start", line, document)


# -- loops


def _claim_limit(run: Run) -> int:
    # Twice the workers: whoever finishes finds the next entry at hand, and little is held that others could do.
    return 2 * run.settings.get("sync.workers")


def _pause(loop: bool, interval: str | None, key: str, run: Run) -> timedelta | None:
    given = duration_option(interval, "--interval")
    if not loop:
        if given is not None:
            raise UsageError("--interval goes with --loop", code="usage")
        return None
    return given or run.settings.get(key)


@contextmanager
def stopping(max_duration: str | None) -> Iterator[Stop]:
    """The first signal asks for a stop after the batch in hand; a second one ends the process at once."""
    from stackctl.sync.loop import Stop

    stop = Stop(duration_option(max_duration, "--max-duration"))

    def handle(signum: int, frame: object) -> None:
        if stop.signalled:
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(run: Run, document: dict[str, Any], line: str) -> None:
    if run.json_output:
        run.console.json_line(document)
    elif not run.console.quiet:
        run.console.line(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")


def _end(run: Run, document: dict[str, Any], line: str, stopped_by: str, *, loop: bool, failed: bool = False) -> None:
    """A loop that was asked to end has done its work (0); a single pass that was cut short has not (130)."""
    if loop:
        _report(run, document, f"{line}; stopped by {stopped_by}")
        return
    suffix = "" if stopped_by == "drained" else f"; stopped by {stopped_by}"
    code = {"signal": EXIT_INTERRUPTED, "lock-held": StateError.exit_code}.get(stopped_by, 1 if failed else 0)
    if stopped_by == "fuse":
        run.console.warn("the fuse is off: nothing was done (`stackctl fuse show`)")
    run.finish(document, lambda: run.console.line(line + suffix), ok=code == 0, exit_code=code)


# -- documents and lines


def sequence_document(result: SequenceResult) -> dict[str, Any]:
    return {
        "rows": result.rows,
        "batches": result.batches,
        "tenancies": len(result.touched),
        "by_table": dict(result.by_table),
        "enqueued": result.enqueued,
        "duration_ms": result.duration_ms,
        "stopped_by": result.stopped_by,
    }


def sequence_line(result: SequenceResult) -> str:
    if not result.rows:
        return "nothing to stamp"
    tables = ", ".join(f"{table} {rows:,}" for table, rows in result.by_table.most_common())
    return (
        f"stamped {counted(result.rows, 'row', 'rows')} ({tables}) "
        f"of {counted(len(result.touched), 'tenancy', 'tenancies')} in {result.duration_ms / 1000:.2f} s"
    )


def poll_document(result: PollResult) -> dict[str, Any]:
    return asdict(result)


def poll_line(result: PollResult) -> str:
    if not (result.claimed or result.failed or result.recovered):
        return "the queue is empty"
    entries = counted(result.claimed, "entry", "entries")
    line = f"delivered {result.delivered} of {entries} in {result.duration_ms / 1000:.2f} s"
    for name in ("failed", "recovered", "dead"):
        if number := getattr(result, name):
            line += f", {number} {name}"
    return line


def sync_document(results: list[DatabaseResult]) -> dict[str, Any]:
    return {"ok": all(result.error is None for result in results), "databases": [_document(r) for r in results]}


def _document(result: DatabaseResult) -> dict[str, Any]:
    return {
        "tenancy": result.tenancy,
        "database": result.database,
        "type": result.type,
        "status": result.status,
        "error": result.error.message if result.error else None,
        "error_code": result.error.code if result.error else None,
        "mappings": [asdict(mapping) for mapping in result.mappings],
    }


def _show_sync(console: Console, results: list[DatabaseResult]) -> None:
    rows = [
        (r.tenancy, r.database, m.mapping, f"{m.upserted:,}", f"{m.deleted:,}", m.cursor, f"{m.duration_ms:,}")
        for r in results
        for m in r.mappings
    ]
    columns = ("tenancy", "database", "mapping", "upserted", "deleted", "cursor", "ms")
    if rows:
        console.table(columns, rows, right=columns[3:])
    for result in results:
        _complain(console, result)
    if not results:
        console.line("no external database is configured")


def _complain(console: Console, result: DatabaseResult) -> None:
    if result.error is not None:
        hint = f" ({result.error.hint})" if result.error.hint else ""
        console.warn(f"{result.tenancy} {result.database}: {result.error.message}{hint}")


def _synced(log: ServiceLog, result: DatabaseResult) -> None:
    # What failed is told once, by `failing`; a batch that went through before is told all the same.
    sent = [m for m in result.mappings if m.batches]
    if sent:
        what = ", ".join(f"{m.mapping} +{m.upserted:,} -{m.deleted:,}" for m in sent)
        log.say("sync", f"{result.tenancy} {result.database}: {what}", _document(result))
