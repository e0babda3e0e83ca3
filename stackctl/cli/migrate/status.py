"""stackctl migrate status"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, list_bundled_names, open_database, read_migrations
from stackctl.core.errors import AnswerNo

if TYPE_CHECKING:
    from stackctl.migrate.runner.history import MigrationStatus


@command(example="stackctl migrate status\nstackctl migrate status --check")
def status(
    run: Run,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when anything is pending, edited or unknown.")] = False,
    directory: Directory = None,
) -> None:
    """Compare the files with what is applied. Writes nothing.

    Exit codes: 0 read (with --check: up to date), 1 --check found something.
    """
    from stackctl.migrate.change_capture import find_excluded
    from stackctl.migrate.runner.history import read_status

    migrations, schema = read_migrations(run, directory), run.settings.get("database.schema")
    with open_database(run) as conn:
        omitted = find_excluded(conn, migrations, schema, run.settings.get("database.change_capture"))
        found = read_status(conn, migrations, schema, omitted, list_bundled_names())
    empty = tuple(m.name for m in migrations if m.name in found.pending and not m.pieces and not m.tool)
    tools = sorted({m.tool for m in migrations if m.tool})
    if run.json_output:
        also = {"left_out": omitted, "empty": empty, "formats": tools}
        run.console.json_document(asdict(found) | {key: names for key, names in also.items() if names})
    else:
        if tools:
            run.console.line(f"format: {', '.join(tools)}; the ways up are run, and no way down")
        _show(run, found, dict.fromkeys(omitted, "left out") | dict.fromkeys(empty, "empty"))
    if check and (found.pending or found.drifted or found.unknown):
        problems = [
            f"{len(names)} {what}"
            for what, names in (("pending", found.pending), ("edited", found.drifted), ("unknown", found.unknown))
            if names
        ]
        if run.json_output:
            raise typer.Exit(AnswerNo.exit_code)
        raise AnswerNo(
            f"migrations: {', '.join(problems)}",
            code="migrations-not-current",
            hint="run `stackctl migrate up`" if found.pending else "restore the files as they were applied",
        )


def _show(run: Run, found: MigrationStatus, apart: dict[str, str]) -> None:
    # Of a file that is left out, the application does the work (database.change_capture).
    states = dict.fromkeys(found.pending, "pending") | apart
    applied = {entry.name: entry for entry in found.applied}
    rows: list[tuple[object, ...]] = []
    for name in sorted({*states, *applied}):
        entry = applied.get(name)
        state = states[name] if entry is None else "EDITED" if name in found.drifted else "applied"
        if name in found.unknown:
            state = "no file"
        rows.append((name, state, f"{entry.applied_at:%Y-%m-%d %H:%M:%S}" if entry else None, entry and entry.by))
    if rows:
        run.console.table(("migration", "state", "applied at (UTC)", "by"), rows)
    else:
        run.console.line("there are no migrations")
