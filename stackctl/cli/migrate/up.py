"""stackctl migrate up"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import parse_wait_option
from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import (
    Bundled,
    Directory,
    History,
    open_database,
    read_own_set,
    refuse_unwritable,
    write_dump,
)
from stackctl.core.errors import EXIT_INTERRUPTED
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.core.console import Console
    from stackctl.core.progress import Progress
    from stackctl.migrate import lock_forecast
    from stackctl.migrate.files import Migration, Statement
    from stackctl.migrate.runner import history
    from stackctl.migrate.runner.events import Event, RepeatedPass
    from stackctl.migrate.runner.run import RunResult
    from stackctl.migrate.sets import MigrationSet

    Planned = tuple[Migration, history.MigrationProgress, list[tuple[Statement, bool, lock_forecast.LockForecast]]]


@command(
    example="stackctl migrate up --dry-run\n"
    "stackctl migrate up --lock-timeout 1s --schema-dump db/schema.sql\n"
    "stackctl migrate up --wait 1m --lock-wait 5m   # in a deployment",
)
def up(
    run: Run,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Stop after this version or name.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the statements and what each will lock; apply nothing.")
    ] = False,
    lock_timeout: Annotated[
        str,
        typer.Option(
            "--lock-timeout", metavar="DURATION", help="How long a statement may wait for a lock; 0s: no limit."
        ),
    ] = "3s",
    statement_timeout: Annotated[
        str | None,
        typer.Option("--statement-timeout", metavar="DURATION", help="How long a statement may take; 0s: no limit."),
    ] = None,
    lock_wait: Annotated[
        str, typer.Option("--lock-wait", metavar="DURATION", help="How long to wait for another run.")
    ] = "10s",
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="How long to wait for a server that is coming up.")
    ] = "0s",
    out_of_order: Annotated[
        bool, typer.Option("--allow-out-of-order", help="Apply files older than what is applied already.")
    ] = False,
    schema_dump: Annotated[
        Path | None, typer.Option("--schema-dump", metavar="FILE", help="Write the schema as SQL to a file afterwards.")
    ] = None,
    directory: Directory = None,
    history: History = None,
    bundled: Bundled = False,
) -> None:
    """Apply pending migrations, each with its history row in one transaction.

    On an empty database the bundled set creates the backend's tables; on a live one it adds only what is missing. With
    a folder of your own it is applied behind that, if --bundled asks for it or once any of it was applied. A
    transaction that can't have its locks within --lock-timeout is rolled back and tried again after a pause, so that
    the application is never queued behind it for longer. Run it again after a crash: it goes on from the last commit.

    Prints each migration as it is committed; with --dry-run the statements that would run.
    Exit codes: 0 applied or nothing to do, 1 a migration failed, 4 the database can't be reached or may not be changed,
    5 another run or another session is in the way, or files and history do not fit.
    """
    from stackctl.migrate.change_capture import find_excluded
    from stackctl.migrate.runner.run import RunInterrupted
    from stackctl.migrate.runner.session import Limits
    from stackctl.migrate.sets import apply_sets, complete_sets, find_pending

    limits = Limits(
        lock_wait=parse_wait_option(lock_wait, "--lock-wait"),
        lock_timeout=parse_wait_option(lock_timeout, "--lock-timeout"),
        statement_timeout=(
            None if statement_timeout is None else parse_wait_option(statement_timeout, "--statement-timeout")
        ),
    )
    if schema_dump is not None and not dry_run:
        refuse_unwritable(schema_dump)
    own = read_own_set(run, directory, history)
    schema = run.settings.get("database.schema")
    capture = run.settings.get("database.change_capture")
    with open_database(run, parse_wait_option(wait, "--wait")) as conn:
        sets = complete_sets(conn, own, schema, bundled=bundled)

        def omitted(chosen: MigrationSet) -> tuple[str, ...]:
            return find_excluded(conn, chosen.migrations, schema, capture, chosen.history)

        if dry_run:
            from stackctl.migrate import lock_forecast

            pending = find_pending(
                conn, sets, schema, to=to, find_excluded=omitted, out_of_order=out_of_order, tell=run.console.info
            )
            planned = [(m, so_far, list(lock_forecast.forecast_file(m, schema, so_far.done))) for m, so_far in pending]
            run.finish(_plan_document(planned), lambda: _show_plan(run.console, planned))
            return
        try:
            with _EventDisplay(run.console) as display:
                result = apply_sets(
                    conn,
                    sets,
                    to=to,
                    schema=schema,
                    limits=limits,
                    out_of_order=out_of_order,
                    find_excluded=omitted,
                    on_event=display.show,
                )
        except RunInterrupted as interrupted:
            result = interrupted.result
            _tell(run, result, interrupted=True)
        if schema_dump is not None:
            write_dump(run, conn, schema_dump)
    _tell(run, result)


def _tell(run: Run, result: RunResult, *, interrupted: bool = False) -> None:
    elsewhere = {"applied_elsewhere": list(result.applied_elsewhere)} if result.applied_elsewhere else {}
    done = format_count(len(result.applied), "migration", "migrations")
    nothing = not (result.applied or result.applied_elsewhere or interrupted)
    run.finish(
        {"applied": [asdict(applied) for applied in result.applied]} | elsewhere,
        lambda: run.console.line("nothing to do: no migration is pending" if nothing else f"{done} applied"),
        ok=not interrupted,
        exit_code=EXIT_INTERRUPTED,
    )


class _EventDisplay:
    """Shows what a run does; the passes of a repeated piece as one progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> _EventDisplay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def show(self, event: Event) -> None:
        if event.repeated_pass is not None:
            self._advance(event.name or "", event.repeated_pass)
            return
        self._stack.close()
        self._progress = None
        # That a file was begun says nothing yet; what was committed does.
        if event.kind != "started":
            self._console.info(" ".join(part for part in (event.kind, event.name, event.detail) if part))

    def _advance(self, name: str, repeated_pass: RepeatedPass) -> None:
        rows = repeated_pass.rows or 0
        if self._progress is None:
            total = None if repeated_pass.remaining is None else rows + repeated_pass.remaining
            self._progress = self._stack.enter_context(self._console.progress(f"repeating {name}", total))
        self._progress.advance(rows)


def _plan_document(planned: Sequence[Planned]) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "would_apply": [migration.name for migration, _, _ in planned],
        "migrations": [
            {
                "name": migration.name,
                "pieces_done": so_far.done,
                "statements": [
                    {
                        "sql": Exact(statement.sql),
                        "line": statement.line,
                        "outside_transaction": outside,
                        "locks": [
                            {
                                "relation": lock.relation,
                                "mode": lock.mode,
                                "blocks": lock.blocks,
                                "work": lock.work or None,
                                "new": lock.new,
                            }
                            for lock in forecast.locks
                        ],
                        "unknown": forecast.unknown or None,
                    }
                    for statement, outside, forecast in statements
                ],
            }
            for migration, so_far, statements in planned
        ],
    }


def _show_plan(console: Console, planned: Sequence[Planned]) -> None:
    for migration, so_far, statements in planned:
        count = format_count(len(statements), "statement", "statements")
        remarks = [_describe_locks(forecast) for _, _, forecast in statements]
        quiet = "" if any(remarks) else ", locks nothing that is there already"
        console.line(f"{migration.name}: {count}{quiet}", "bold")
        if so_far.done:
            console.line(f"  goes on: {so_far.done} of {len(migration.pieces)} pieces are applied")
        before: bool | None = None
        for (statement, outside, _), said in zip(statements, remarks, strict=True):
            if outside != before:
                console.line("  outside a transaction:" if outside else "  in one transaction:")
                before = outside
            for line in statement.sql.split("\n"):
                console.line(f"    {line}".rstrip(), exact=True)
            for remark in said:
                console.line(f"      -- {remark}", "cyan")
        console.line()
    count = format_count(len(planned), "migration", "migrations")
    console.line(f"would apply {count}" if planned else "nothing to do: no migration is pending")


def _describe_locks(forecast: lock_forecast.LockForecast) -> list[str]:
    found = []
    for lock in forecast.locks:
        if lock.new:
            continue
        effect = "blocks nothing else" if lock.blocks == "nothing" else f"blocks {lock.blocks}"
        found.append(f"{lock.mode} on {lock.relation}: {effect}" + (f", {lock.work}" if lock.work else ""))
    if forecast.unknown:
        found.append(f"locks unknown: {forecast.unknown}")
    return found
