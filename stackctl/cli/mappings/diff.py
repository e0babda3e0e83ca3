"""stackctl mappings diff"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.shared import COPY_COLUMNS, OnlyDatabases, OnlyTenancies, parse_scope
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.sync.check.mapping_differences import CopyDifference

_ACTIONS = {
    "same": "nothing",
    "new": "the first sync makes it",
    "unknown": "all rows are sent again",
    "resend": "all rows are sent again",
    "alter": "columns are changed; rows are sent again",
    "rebuild": "waits for sync --rebuild",
    "unfed": "no mapping feeds it",
    "not-ours": "a sync refuses it: rename the table, or sync --adopt",
    "error": "could not be asked",
}


@command(example="stackctl mappings diff\nstackctl mappings diff --database analytics --json")
def diff(
    run: Run,
    tenancies: OnlyTenancies = None,
    databases: OnlyDatabases = None,
) -> None:
    """Compare the mapping files with what the copies were made from, and say what a sync would do.

    Prints a row for each copy that differs, and what a sync would do with it.
    Exit codes: 0 all are the same; 1 some are not, or a database could not be asked; 4 the operated database can't be
    reached; 5 it was never migrated.
    """
    from stackctl.sync.check.mapping_differences import find_differences
    from stackctl.sync.pipeline import Pipeline

    found = find_differences(Pipeline(run.settings), parse_scope(run, tenancies, databases))
    different = [one for one in found if one.change != "same"]

    refused = ("resend", "alter") if run.settings.get("sync.schema_changes") == "refuse" else ()

    def show() -> None:
        if different:
            rows = [
                (one.tenancy, one.database, "*" if one.change == "error" else one.mapping, _describe(one),
                 _ACTIONS["rebuild" if one.change in refused else one.change])
                for one in different
            ]  # fmt: skip
            # What stands in a database's way is said once.
            run.console.table(
                (*COPY_COLUMNS, Column("change", folds=True), Column("what follows", folds=True)),
                list(dict.fromkeys(rows)),
            )
        run.console.line(_summary(found, different))

    run.finish({"ok": not different, "copies": [asdict(one) for one in found]}, show, ok=not different)


def _describe(one: CopyDifference) -> str:
    return one.error or ", ".join(one.reasons) or one.change


def _summary(found: list[CopyDifference], different: list[CopyDifference]) -> str:
    if not found:
        return "no external database is configured"
    copies = format_count(len(found), "copy", "copies")
    silent = sum(one.change == "error" for one in found)
    others = len(different) - silent
    asked = f", {silent} could not be asked" if silent else ""
    if others:
        return f"{copies}, {others} of them other than the mapping files{asked}"
    return f"{copies}, {'the others' if silent else 'all'} the same{asked}"
