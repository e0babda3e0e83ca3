"""stackctl migrate status"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Bundled, Directory, History, open_database, read_own_set
from stackctl.core.errors import AnswerNo
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.core.console import Console
    from stackctl.migrate.runner.history import MigrationStatus
    from stackctl.migrate.sets import MigrationSet
    from stackctl.postgres.connect import Connection

_COLUMNS = ("migration", "state", Column("applied", spare=2), Column("by", folds=True, spare=1))


@command(example="stackctl migrate status\nstackctl migrate status --check", lists=True)
def status(
    run: Run,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when anything is pending, edited or unknown.")] = False,
    directory: Directory = None,
    history: History = None,
    bundled: Bundled = False,
) -> None:
    """Compare the files with what is applied. Writes nothing.

    stackctl's own tables are told apart, once any of them was made behind a folder of your own; -o has all in one list.

    Prints a row for each migration: applied or pending, when and by whom.
    Exit codes: 0 printed (with --check: up to date); 1 --check found something; 4 the operated database can't be
    reached; 5 its history is not stackctl's.
    """
    from stackctl.migrate.sets import complete_sets

    own, schema = read_own_set(run, directory, history), run.settings.get("database.schema")
    with open_database(run) as conn:
        sets = complete_sets(conn, own, schema, bundled=bundled)
        compared = [_compare(run, conn, each, schema) for each in sets]
    if run.json_output:
        first, *behind = compared
        run.console.json_document(first.to_document() | ({"bundled": behind[0].to_document()} if behind else {}))
    elif run.is_for_script:
        run.finish_list({}, _COLUMNS, [row for each in compared for row in each.list_rows()], empty="")
    else:
        for each in compared:
            _show(run.console, each, behind=each is not compared[0])
    problems = [text for each in compared for text in each.describe_problems()] if check else []
    if not problems:
        return
    if run.json_output:
        raise typer.Exit(AnswerNo.exit_code)
    pending = any(each.status.pending for each in compared)
    raise AnswerNo(
        f"migrations: {', '.join(problems)}",
        code="migrations-not-current",
        hint="run `stackctl migrate up`" if pending else "restore the files as they were applied",
    )


@dataclass(frozen=True)
class _Compared:
    """A set beside its history. `left_out`: the application does that work (database.change_capture)."""

    set: MigrationSet
    status: MigrationStatus
    left_out: tuple[str, ...]

    @property
    def empty(self) -> tuple[str, ...]:
        pending = set(self.status.pending)
        return tuple(m.name for m in self.set.migrations if m.name in pending and not m.pieces and not m.tool)

    @property
    def formats(self) -> list[str]:
        return sorted({m.tool for m in self.set.migrations if m.tool})

    def to_document(self) -> dict[str, Any]:
        also = {
            "history": self.set.history,
            "left_out": self.left_out,
            "empty": self.empty,
            "formats": self.formats,
        }
        return asdict(self.status) | {key: value for key, value in also.items() if value}

    def list_rows(self) -> list[tuple[object, ...]]:
        """The rows of a table of migrations: its columns are _COLUMNS."""
        found = self.status
        states = (
            dict.fromkeys(found.pending, "pending")
            | dict.fromkeys(self.left_out, "left out")
            | dict.fromkeys(self.empty, "empty")
        )
        applied = {entry.name: entry for entry in found.applied}
        rows: list[tuple[object, ...]] = []
        for name in sorted({*states, *applied}):
            entry = applied.get(name)
            state = states[name] if entry is None else "EDITED" if name in found.drifted else "applied"
            if name in found.unknown:
                state = "no file"
            rows.append((name, state, entry and entry.applied_at, entry and entry.by))
        return rows

    def describe_problems(self) -> list[str]:
        found = self.status
        kinds = (("pending", found.pending), ("edited", found.drifted), ("unknown", found.unknown))
        ours = " of stackctl's own" if self.set.bundled else ""
        return [f"{len(names)} {what}{ours}" for what, names in kinds if names]


def _compare(run: Run, conn: Connection, chosen: MigrationSet, schema: str) -> _Compared:
    from stackctl.migrate.change_capture import find_excluded
    from stackctl.migrate.runner.history import read_status

    capture = run.settings.get("database.change_capture")
    left_out = find_excluded(conn, chosen.migrations, schema, capture, chosen.history)
    status = read_status(conn, chosen.migrations, schema, left_out, chosen.names_elsewhere, chosen.history)
    return _Compared(chosen, status, left_out)


def _show(console: Console, compared: _Compared, *, behind: bool) -> None:
    if compared.set.history:
        console.line(f"history: {compared.set.history}")
    if behind:
        console.line()
        console.line("stackctl's own:")
    if compared.formats:
        console.line(f"format: {', '.join(compared.formats)}; the ways up are run, and no way down")
    if rows := compared.list_rows():
        console.table(_COLUMNS, rows)
    else:
        console.line("there are no migrations")
