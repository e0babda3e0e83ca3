"""What the commands of stackctl pipeline share."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import find_tenancies, parse_duration_option, parse_wait_option
from stackctl.cli.signals import handle_signals, has_terminal, ignore_further_signals, restore_handlers
from stackctl.core.errors import EXIT_INTERRUPTED, StateError, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.streams import on_reader_left
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from stackctl.cli.command import Run
    from stackctl.core.console import Console
    from stackctl.sync.changes.sequencer import SequenceResult
    from stackctl.sync.engine.database_sync import DatabaseResult, MappingResult
    from stackctl.sync.scope import Scope
    from stackctl.sync.stop import Stop

Loop = Annotated[bool, typer.Option("--loop", help="Go on until a signal or --max-duration.")]
Interval = Annotated[str | None, typer.Option("--interval", metavar="DURATION", help="Pause between two passes.")]
MaxDuration = Annotated[
    str | None, typer.Option("--max-duration", metavar="DURATION", help="End after this time, e.g. 55s.")
]
Tenancies = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TENANCY]...", help="Tenancies: an id, the beginning of one, or a project's id."),
]
TenancyOptions = Annotated[
    list[str] | None, typer.Option("--tenancy", metavar="TENANCY", help="The same as an option; repeatable.")
]
OnlyTenancies = Annotated[
    list[str] | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this tenancy; repeatable.")
]
OnlyDatabases = Annotated[
    list[str] | None, typer.Option("--database", metavar="ID", help="Only this database; repeatable.")
]
OnlyMappings = Annotated[
    list[str] | None, typer.Option("--mapping", metavar="NAME", help="Only this mapping; repeatable.")
]
COPY_COLUMNS = (Column("tenancy", group=True), Column("database", group=True), "mapping")  # how tables name a copy
CLAIM_LIMIT = 100  # queue entries taken at a time: whoever writes one of them again waits for that
REFUSED = ("other-tenancy", "operated-database", "shared-database", "not-ours", "mapping-changed", "newer-stackctl")


def parse_scope(
    run: Run, tenancies: list[str] | None, databases: list[str] | None, mappings: list[str] | None = None
) -> Scope:
    """What a command was narrowed down to."""
    from stackctl.sync.scope import Scope

    return Scope(find_tenancies(run, tenancies or ()), databases or None, mappings or None)


def loop_interval(loop: bool, interval: str | None, key: str, run: Run) -> timedelta | None:
    given = None if interval is None else parse_wait_option(interval, "--interval")
    if not loop:
        if given is not None:
            raise UsageError("--interval goes with --loop", code="usage")
        return None
    return given or run.settings.get(key)


@contextmanager
def stop_on_signals(max_duration: str | None, *, loop: bool = False) -> Iterator[Stop]:
    """The first signal asks for a stop after the batch in hand; a second one ends the process at once.

    A `loop` stops as well when nobody reads its results any more. SIGHUP makes it look at its configuration, unless it
    comes of a terminal that was closed.
    """
    from stackctl.sync.stop import Stop

    stop = Stop(parse_duration_option(max_duration, "--max-duration"))

    in_terminal = has_terminal()

    def handle(signum: int, frame: object) -> None:
        if loop and signum == signal.SIGHUP and not (in_terminal and not has_terminal()):
            stop.request_reload()
            return
        if not stop.signalled:
            stop.set()
            return
        ignore_further_signals()
        # At once: what threads are at is not waited for, but a server of ours is not left running.
        if (embedded := sys.modules.get("stackctl.postgres.embedded")) is not None:
            embedded.release_all()
        os._exit(EXIT_INTERRUPTED)

    if loop:
        on_reader_left(stop.set)
    before = handle_signals(handle)
    try:
        yield stop
    finally:
        restore_handlers(before)


def report_result(run: Run, document: dict[str, Any], line: str) -> None:
    if run.json_output:
        run.console.json_line(document)
    elif not run.console.quiet:
        run.console.line(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")


def finish_stage(
    run: Run, document: dict[str, Any], line: str, stopped_by: str, *, loop: bool, failed: bool = False
) -> None:
    """A loop that was asked to end has done its work (0); a single pass that was cut short has not (130)."""
    if loop:
        report_result(run, document, f"{line}; stopped by {stopped_by}")
        return
    suffix = "" if stopped_by == "drained" else f"; stopped by {stopped_by}"
    code = {"signal": EXIT_INTERRUPTED, "lock-held": StateError.exit_code}.get(stopped_by, 1 if failed else 0)
    if stopped_by == "fuse":
        run.console.warn("the fuse is off: nothing was done (`stackctl fuse show`)")
    run.finish(document, lambda: run.console.line(line + suffix), ok=code == 0, exit_code=code)


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
        f"stamped {format_count(result.rows, 'row', 'rows')} ({tables}) "
        f"of {format_count(len(result.touched), 'tenancy', 'tenancies')} in {result.duration_ms / 1000:.2f} s"
    )


def database_document(result: DatabaseResult) -> dict[str, Any]:
    return {
        "tenancy": result.tenancy,
        "database": result.database,
        "type": result.type,
        "status": result.status,
        "error": result.error.message if result.error else None,
        "error_code": result.error.code if result.error else None,
        "remarks": result.remarks,
        "mappings": [_mapping_document(mapping) for mapping in result.mappings],
    }


def _mapping_document(result: MappingResult) -> dict[str, Any]:
    document = {name: value for name, value in vars(result).items() if name != "error"}
    return document | ({"error": result.error.message} if result.error is not None else {})


def warn_of_failure(console: Console, result: DatabaseResult) -> None:
    from stackctl.sync.queue.claims import name_database

    if result.error is not None:
        console.warn_of(f"{result.tenancy} {name_database(result.database)}", result.error)
