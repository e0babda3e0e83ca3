"""stackctl sync"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import require_names_or_all
from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.shared import (
    COPY_COLUMNS,
    REFUSED,
    OnlyDatabases,
    OnlyMappings,
    Tenancies,
    TenancyOptions,
    database_document,
    parse_scope,
    stop_on_signals,
    warn_of_failure,
)
from stackctl.core.errors import EXIT_INTERRUPTED, StateError, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.core.console import Console
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.scope import Scope

All = Annotated[bool, typer.Option("--all", help="Every configured tenancy.")]


@command(
    example="stackctl sync --all\nstackctl sync 6fbbf22e-f4b2-4c6e-95a1-beab6fa41063 --database analytics --full",
)
def sync(
    run: Run,
    tenancies: Tenancies = None,
    tenancy: TenancyOptions = None,
    everything: All = False,
    databases: OnlyDatabases = None,
    mappings: OnlyMappings = None,
    full: Annotated[
        bool, typer.Option("--full", help="Send every row again, and delete rows the source lacks.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over tables with other rows, and delete rows the source lacks.")
    ] = False,
    rebuild: Annotated[
        str | None, typer.Option("--rebuild", metavar="NAME", help="Rebuild the table of this changed mapping.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many rows wait for each copy; send none.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --adopt and --rebuild: do not ask.")] = False,
) -> None:
    """Bring external databases up to date now, without the queue and whatever the fuses say.

    Prints a row for each copy: rows sent, rows deleted, the cursor.
    Exit codes: 0 all in sync; 1 a database did not sync (the others went on); 4 the operated database can't be reached;
    5 a database belongs to another tenancy, a table there is not stackctl's, a mapping has changed in a way that
    --rebuild is for, or not confirmed.
    """
    from stackctl.sync import service
    from stackctl.sync.engine.database_sync import SyncOptions
    from stackctl.sync.pipeline import Pipeline

    named = [*(tenancies or ()), *(tenancy or ())]
    require_names_or_all(named, everything, "tenancies")
    if rebuild is not None:
        if full or adopt or set(mappings or ()) - {rebuild}:
            raise UsageError("--rebuild does not go with --full, --adopt or another --mapping", code="usage")
        mappings = [rebuild]
    if dry_run and (full or adopt or rebuild):
        raise UsageError("--dry-run counts what has changed; --full, --adopt and --rebuild send all rows", code="usage")
    scope = parse_scope(run, named, databases, mappings)
    if dry_run:
        _show_waiting(run, scope)
        return
    if (adopt or rebuild) and not yes:
        _confirm(run, scope, rebuild)
    console = run.console
    with stop_on_signals(None) as stop, console.progress("syncing") as progress:
        options = SyncOptions(
            batch_size=run.settings.get("sync.batch_size"),
            full=full,
            adopt=adopt,
            rebuild=rebuild,
            repair_rewound=run.settings.get("sync.on_failover") == "repair",
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


def _confirm(run: Run, scope: Scope, rebuild: str | None) -> None:
    """Ask before tables are taken over or rebuilt, after naming them; not where there is none of that kind."""
    from stackctl.sync.check.mapping_differences import find_differences
    from stackctl.sync.pipeline import Pipeline

    found = find_differences(Pipeline(run.settings), scope)
    if rebuild is None:
        chosen = [one for one in found if one.change == "not-ours"]
        what, follows = "Take over", "rows that the source does not have are deleted"
    else:
        there = ("same", "unknown", "resend", "alter", "rebuild")
        chosen = [one for one in found if one.mapping == rebuild and one.change in there]
        what, follows = "Rebuild", "what the mapping no longer has is deleted"
    for one in chosen:
        reasons = f": {', '.join(one.reasons)}" if one.reasons else ""
        run.console.info(f"{one.tenancy} {one.database}: the table of {one.mapping}{reasons}")
    if chosen:
        tables = format_count(len(chosen), "table", "tables")
        run.confirm(f"{what} {tables}? In each, {follows}.", yes=False)


def _show_waiting(run: Run, scope: Scope) -> None:
    """How many rows a sync would send."""
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.scope import select_databases
    from stackctl.sync.status import read_status

    pipeline = Pipeline(run.settings)
    with run.database() as conn:
        pipeline.refresh(conn)
        chosen = {(one.tenancy, one.id) for one in select_databases(pipeline, scope)}
        found = read_status(
            pipeline, conn, scope.tenancies[0] if scope.tenancies and len(scope.tenancies) == 1 else None
        )
    databases: list[dict[str, Any]] = [
        {"tenancy": tenancy, "database": one.database, "type": one.type, "status": one.status, "error": one.error,
         "mappings": [{"mapping": copy.mapping, "behind": copy.backlog + copy.resend_left} for copy in one.mappings
                      if scope.mappings is None or copy.mapping in scope.mappings]}
        for tenancy, own in found.tenancies.items() for one in own if (tenancy, one.database) in chosen
    ]  # fmt: skip

    def show() -> None:
        rows = [
            (one["tenancy"], one["database"], copy["mapping"], f"{copy['behind']:,}")
            for one in databases
            for copy in one["mappings"]
            if copy["behind"]
        ]
        if rows:
            run.console.table((*COPY_COLUMNS, Column("rows to send", right=True)), rows)
        else:
            run.console.line("no stamped row waits for these databases")
        for one in databases:
            if one["error"] is not None:
                run.console.warn(f"{one['tenancy']} {one['database']}: {one['error']}")

    ok = all(one["status"] != "error" for one in databases)
    run.finish({"ok": ok, "dry_run": True, "databases": databases}, show, ok=ok)


def sync_document(results: list[DatabaseResult]) -> dict[str, Any]:
    return {"ok": all(result.error is None for result in results), "databases": [database_document(r) for r in results]}


def _show_sync(console: Console, results: list[DatabaseResult]) -> None:
    rows = [
        (r.tenancy, r.database, m.mapping, f"{m.upserted:,}", f"{m.deleted:,}", m.cursor, f"{m.duration_ms:,}")
        for r in results
        for m in r.mappings
    ]
    if rows:
        console.table(
            (
                *COPY_COLUMNS,
                Column("upserted", right=True),
                Column("deleted", right=True),
                Column("cursor", right=True, spare=2),
                Column("ms", right=True, spare=1),
            ),
            rows,
        )
    for result in results:
        for remark in result.remarks:
            console.warn(f"{result.tenancy} {result.database}: {remark}")
        warn_of_failure(console, result)
    if not results:
        console.line("no external database is configured")
