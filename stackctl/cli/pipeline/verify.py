"""stackctl verify"""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.shared import (
    COPY_COLUMNS,
    REFUSED,
    OnlyDatabases,
    OnlyMappings,
    Tenancies,
    TenancyOptions,
    parse_scope,
    stop_on_signals,
)
from stackctl.core.errors import EXIT_INTERRUPTED, StateError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.config.settings import ExternalDatabase
    from stackctl.core.console import Console
    from stackctl.sync.engine.comparison import VerifyResult


REJECTED_SHOWN = 5  # rows of a mapping, as lines
REJECTED_LISTED = 100  # the same, in JSON


@command(example="stackctl verify\nstackctl verify --database analytics --mapping users --mapping teams --repair")
def verify(
    run: Run,
    tenancies: Tenancies = None,
    tenancy: TenancyOptions = None,
    databases: OnlyDatabases = None,
    mappings: OnlyMappings = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair the rows that differ, and no others.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: only say what differs.")] = False,
) -> None:
    """Compare external databases with their source row for row, by checksums; changes may go on meanwhile.

    Prints a line for each database that is equal, and a row for each copy that differs.
    Exit codes: 0 equal (or repaired by --repair); 1 differences, or a database that could not be compared; 4 the
    operated database can't be reached; 5 a database belongs to another tenancy, or a table there is not stackctl's.
    """
    from stackctl.sync.check import verify as feature
    from stackctl.sync.pipeline import Pipeline

    repair = repair and not dry_run
    scope = parse_scope(run, [*(tenancies or ()), *(tenancy or ())], databases, mappings)
    unfed: list[tuple[ExternalDatabase, str]] = []
    with stop_on_signals(None) as stop, run.console.progress("comparing") as progress:
        checks = feature.verify(Pipeline(run.settings), scope, stop, repair=repair, on_rows=progress.advance,
                                on_unfed=lambda database, name: unfed.append((database, name)))  # fmt: skip
    refused = any(check.error is not None and check.error.code in REFUSED for check in checks)
    run.finish(
        document(checks) | {"unfed": [{"tenancy": one.tenancy, "database": one.id, "mapping": n} for one, n in unfed]},
        lambda: _show_all(run.console, checks, unfed, repair=repair),
        ok=all(check.ok for check in checks) and not stop.signalled,
        exit_code=EXIT_INTERRUPTED if stop.signalled else StateError.exit_code if refused else 1,
    )


def _show_all(
    console: Console, checks: list[VerifyResult], unfed: list[tuple[ExternalDatabase, str]], *, repair: bool
) -> None:
    show(console, checks, repair=repair)
    for database, name in unfed:
        console.warn(
            f"{database.tenancy} {database.id}: nothing feeds the copy of {name}: no mapping there has its name"
        )


def document(checks: list[VerifyResult]) -> dict[str, Any]:
    return {"ok": all(check.ok for check in checks), "checks": [_document(check) for check in checks]}


def _document(check: VerifyResult) -> dict[str, Any]:
    error = check.error
    return {
        "tenancy": check.tenancy,
        "database": check.database,
        "mapping": check.mapping,
        "source_rows": check.source_rows,
        "target_rows": check.target_rows,
        "missing": check.missing,
        "extra": check.extra,
        "different": check.different,
        "repaired": check.repaired,
        "in_flight": check.in_flight,
        "rejected": len(check.rejected),
        "rejected_rows": [
            {"key": key, "error": error} for key, error in islice(check.rejected.items(), REJECTED_LISTED)
        ],
        "status": "error" if error else "interrupted" if check.interrupted else "ok" if check.ok else "differs",
        "error": error.message if error else None,
        "error_code": error.code if error else None,
        "duration_ms": check.duration_ms,
    }


def show(console: Console, checks: list[VerifyResult], *, repair: bool) -> None:
    """A line for each copy, what is wrong, and what to do about it."""
    numbers = ["source", "copy", "missing", "extra", "different", *(["repaired"] if repair else []), "in flight"]
    rows: list[tuple[object, ...]] = []
    for check in _note_equal(console, checks):
        counts = [check.source_rows, check.target_rows, check.missing, check.extra, check.different]
        counts += [check.repaired] if repair else []
        shown = [None] * (len(counts) + 1) if check.source_rows is None else [*counts, check.in_flight]
        cells = [None if number is None else f"{number:,}" for number in shown]
        rows.append((check.tenancy, check.database, check.mapping, *cells))
    if rows:
        console.table((*COPY_COLUMNS, *(Column(name, right=True) for name in numbers)), rows)
    if checks:
        console.line()
    console.line(_summary(checks))
    said: set[tuple[object, ...]] = set()
    for check in checks:
        # What is wrong with a whole database is said once.
        if check.error is not None and (what := (check.tenancy, check.database, check.error.message)) not in said:
            said.add(what)
            console.warn_of(f"{check.tenancy} {check.database}", check.error)
    for check in checks:
        _show_rejected(console, check)
    if any(check.differences - len(check.rejected) > check.repaired for check in checks) and not repair:
        console.info("hint: `stackctl verify --repair` repairs these rows in the copies, and touches no others")


def _note_equal(console: Console, checks: list[VerifyResult]) -> list[VerifyResult]:
    """A line for each database whose copies are all equal, or could not be asked; the checks left for the table."""
    if console.wide:
        return checks
    left: list[VerifyResult] = []
    said = None
    for (tenancy, database), part in groupby(checks, lambda check: (check.tenancy, check.database)):
        found = list(part)
        copies = format_count(len(found), "copy", "copies")
        if different := [check for check in found if not check.ok or check.interrupted or check.repaired]:
            outcome = f"{copies}, none could be compared"
        else:
            rows = format_count(sum(check.source_rows or 0 for check in found), "row", "rows")
            outcome = f"{rows} in {copies}, equal"
        if any(check.source_rows is not None or check.interrupted for check in different):
            left += different
            continue
        if tenancy != said:
            console.line(f"tenancy {tenancy}", style="bold")
            said = tenancy
        console.line(f"  {database}: {outcome}")
    return left


def _show_rejected(console: Console, check: VerifyResult) -> None:
    """A repair does not help these: the table does not take them."""
    if not check.rejected:
        return
    count = format_count(len(check.rejected), "difference is a rejected row", "differences are rejected rows")
    console.warn(f"{check.tenancy} {check.database} {check.mapping}: {count}")
    for key, error in islice(check.rejected.items(), REJECTED_SHOWN):
        console.warn(f"rejected: {', '.join(key)}: {error}")
    if len(check.rejected) > REJECTED_SHOWN:
        console.info(f"and {len(check.rejected) - REJECTED_SHOWN:,} more (--json lists them)")


def _summary(checks: list[VerifyResult]) -> str:
    if not checks:
        return "no external database is configured"
    compared = [check for check in checks if check.source_rows is not None and not check.interrupted]
    found = sum(check.differences for check in compared)
    repaired = sum(check.repaired for check in compared)
    rows = format_count(sum(check.source_rows or 0 for check in compared), "row", "rows")
    copies = format_count(len(compared), "copy", "copies")
    outcome = format_count(found, "difference", "differences") if found else "equal"
    parts = [f"{rows} in {copies} compared: {outcome}" if compared else "nothing compared"]
    parts += [f"{repaired:,} repaired"] if repaired else []
    if failed := sum(check.error is not None for check in checks):
        parts.append(f"{failed:,} failed")
    if interrupted := sum(check.interrupted for check in checks):
        parts.append(f"{interrupted:,} interrupted")
    return ", ".join(parts)
