"""stackctl backfill"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.shared import REFUSED, OnlyDatabases, OnlyTenancies, parse_scope, stop_on_signals
from stackctl.core.errors import EXIT_INTERRUPTED, StateError, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.core.console import Console
    from stackctl.sync.check.backfill import BackfillResult


@command(example="stackctl backfill users --rate 5000/s\nstackctl backfill users --dry-run")
def backfill(
    run: Run,
    mapping: Annotated[str, typer.Argument(metavar="MAPPING", help="The mapping whose rows to send.")],
    tenancies: OnlyTenancies = None,
    databases: OnlyDatabases = None,
    rate: Annotated[str | None, typer.Option("--rate", metavar="N/s", help="Rows a second at most.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="From the beginning, not where it was left.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many rows would go where.")] = False,
) -> None:
    """Send every row of a mapping again, in batches, beside live changes; an interrupted one goes on when run again.

    Prints a row for each database: rows and batches sent.
    Exit codes: 0 done; 1 a database or a row did not take it; 4 the operated database can't be reached; 5 a database
    belongs to another tenancy.
    """
    from stackctl.sync.check import backfill as feature
    from stackctl.sync.pipeline import Pipeline

    limit = _rate(rate)
    scope = parse_scope(run, tenancies, databases)
    pipeline = Pipeline(run.settings)
    plans = feature.plan_backfill(pipeline, mapping, scope, restart=restart)
    if dry_run:
        ok = all(plan.error is None for plan in plans)
        run.finish(document(mapping, plans), lambda: _show(run.console, mapping, plans), ok=ok)
        return
    total = sum(plan.planned for plan in plans)
    with stop_on_signals(None) as stop, run.console.progress(f"sending {mapping}", total) as progress:
        options = feature.BackfillOptions(limit, restart, progress.advance)
        results = feature.backfill(pipeline, mapping, scope, options, stop)
    refused = any(result.error is not None and result.error.code in REFUSED for result in results)
    run.finish(
        document(mapping, results),
        lambda: _show(run.console, mapping, results),
        ok=all(result.status == "ok" for result in results),
        exit_code=EXIT_INTERRUPTED if stop.signalled else StateError.exit_code if refused else 1,
    )


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})(/s)?", text)
    if found is None:
        raise UsageError(f"--rate: {text!r} is not a number of rows a second", code="usage", hint="e.g. --rate 500/s")
    return int(found[1])


def document(mapping: str, results: list[BackfillResult]) -> dict[str, Any]:
    return {
        "ok": all(result.status in ("ok", "planned") for result in results),
        "mapping": mapping,
        "rows": sum(_rows(result) for result in results),
        "databases": [
            {
                "tenancy": result.tenancy,
                "database": result.database,
                "rows": _rows(result),
                "batches": result.batches,
                "resumed": result.resumed,
                "status": result.status,
                "error": result.error.message if result.error else None,
                "error_code": result.error.code if result.error else None,
                "duration_ms": result.duration_ms,
            }
            for result in results
        ],
    }


def _rows(result: BackfillResult) -> int:
    return result.planned if result.status == "planned" else result.rows


def _show(console: Console, mapping: str, results: list[BackfillResult]) -> None:
    if not results:
        console.line(f"no external database takes {mapping}")
        return
    rows = [
        (
            r.tenancy,
            r.database,
            f"{_rows(r):,}",
            f"{r.batches:,}" if r.batches else None,
            r.status + (" (resumed)" if r.resumed else ""),
        )
        for r in results
    ]
    console.table(
        (
            Column("tenancy", group=True),
            "database",
            Column("rows", right=True),
            Column("batches", right=True),
            "status",
        ),
        rows,
    )
    console.line()
    total = format_count(sum(map(_rows, results)), "row", "rows")
    planned = any(result.status == "planned" for result in results)
    console.line(f"{total} of {mapping} " + ("would be sent" if planned else "sent"))
    for result in results:
        if result.error is not None:
            console.warn_of(f"{result.tenancy} {result.database}", result.error)
    if any(result.status == "interrupted" for result in results):
        console.info("hint: run it again to go on where it stopped, or with --restart from the beginning")
