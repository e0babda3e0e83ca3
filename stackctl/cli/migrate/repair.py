"""stackctl migrate repair"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, History, open_database, read_own_set
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.core.console import Console
    from stackctl.migrate.repair import Repair

_INTENTIONS = {
    "accept": "the edit is accepted",
    "applied": "counts as applied, and is not run",
    "pending": "is forgotten as if it had never been applied",
}
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]…", help="Applied files whose edit is intended; default all edited ones."),
]


@command(
    example="stackctl migrate repair --dry-run\n"
    "stackctl migrate repair 20260801120000_add_team_slug\n"
    "stackctl migrate repair --applied 20260801120000_add_team_slug --yes",
)
def repair(
    run: Run,
    names: Names = None,
    applied: Annotated[
        list[str] | None, typer.Option("--applied", metavar="NAME", help="Record this file as applied; run nothing.")
    ] = None,
    pending: Annotated[
        list[str] | None, typer.Option("--pending", metavar="NAME", help="Forget that this one was applied.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    directory: Directory = None,
    history: History = None,
) -> None:
    """Repair the history by hand; no migration is run.

    An applied file that was edited stops migrate up. Accept the edit here, once you have seen the difference (it is
    shown where git holds the file as it was applied): the database stays as the applied version left it. With
    --applied and --pending, say what counts as applied and what does not.

    Prints what is changed in the history.
    Exit codes: 0 repaired or nothing to do; 2 no such migration; 4 the operated database can't be reached; 5 not
    confirmed, or another run holds the lock.
    """
    from stackctl.migrate.repair import execute_repairs, find_difference, plan_repairs
    from stackctl.migrate.sets import complete_sets

    own, schema = read_own_set(run, directory, history), run.settings.get("database.schema")
    accept = None if not names and (applied or pending) else names or []
    with open_database(run) as conn:
        sets = complete_sets(conn, own, schema)

        def plan() -> tuple[Repair, ...]:
            return plan_repairs(conn, sets, schema, accept=accept, applied=applied or (), pending=pending or ())

        repairs = plan()
        differences = [find_difference(each) if each.action == "accept" else None for each in repairs]
        if not run.json_output:
            _show_plan(run.console, repairs, differences)
        if repairs and not dry_run:
            run.confirm(f"Change the history of {format_count(len(repairs), 'migration', 'migrations')}?", yes=yes)
            execute_repairs(
                conn, repairs, schema, plan, on_event=lambda event: run.console.info(f"{event.kind} {event.detail}")
            )
    document = {"repaired": _document(repairs, differences), "dry_run": dry_run}
    run.finish(document, lambda: _show_end(run.console, len(repairs), dry_run))


def _document(repairs: Sequence[Repair], differences: Sequence[str | None]) -> list[dict[str, Any]]:
    from stackctl.core.documents import Exact

    return [
        {
            "name": repair.name,
            "action": _describe(repair),
            "pieces_done": repair.before.done if repair.before else 0,
            "lacks": list(repair.lacks),
            "difference": Exact(difference),
        }
        for repair, difference in zip(repairs, differences, strict=True)
    ]


def _describe(repair: Repair) -> str:
    if repair.action == "accept":
        return "accepted"
    return "forgotten" if repair.action == "pending" and repair.migration is None else repair.action


def _show_plan(console: Console, repairs: Sequence[Repair], differences: Sequence[str | None]) -> None:
    for repair, difference in zip(repairs, differences, strict=True):
        console.line(f"{repair.name}: {_INTENTIONS[repair.action]}", "bold")
        match repair.action:
            case "accept" if difference is None:
                console.warn(f"{repair.name}: git does not hold what was applied, so the difference can't be shown")
            case "accept":
                console.diff(difference or "")
            case "applied":
                for what in repair.lacks:
                    console.warn(f"the database lacks {what}, which this file makes")
            case "pending":
                if repair.migration is not None:
                    console.warn(f"{repair.name}: what it did stays, and migrate up will run it again")


def _show_end(console: Console, count: int, dry_run: bool) -> None:
    if not count:
        console.line("nothing to repair")
        return
    console.line(f"{format_count(count, 'migration', 'migrations')} {'would be repaired' if dry_run else 'repaired'}")
