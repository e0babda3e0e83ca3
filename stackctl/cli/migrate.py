"""stackctl migrate"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli import migrate_up
from stackctl.cli.command import Run, command, counted
from stackctl.cli.migrate_common import Directory, app, read_migrations, session
from stackctl.errors import AnswerNo, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.console import Console
    from stackctl.migrate.adopt import Adoption
    from stackctl.migrate.history import Status
    from stackctl.migrate.verify import Finding

apps = {"migrate": app}


@command(app, "status", example="stackctl migrate status\nstackctl migrate status --check")
def status(
    run: Run,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when anything is pending, edited or unknown.")] = False,
    directory: Directory = None,
) -> None:
    """Compare the files with what is applied. Writes nothing.

    Exit codes: 0 read (with --check: up to date), 1 --check found something.
    """
    from stackctl.migrate.capture import left_out
    from stackctl.migrate.history import status as read

    migrations, schema = read_migrations(run, directory), run.settings.get("database.schema")
    with session(run) as conn:
        omitted = left_out(conn, migrations, schema, run.settings.get("database.change_capture"))
        found = read(conn, migrations, schema, omitted, _bundled())
    if run.json_output:
        run.console.document(asdict(found) | ({"left_out": omitted} if omitted else {}))
    else:
        _show(run, found, omitted)
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


def _bundled() -> list[str]:
    """The bundled set is applied beside a folder of the operator's own, to the same schema."""
    from stackctl.bundled import bundled
    from stackctl.migrate.files import listed

    return [name for name, _ in listed(bundled("migrations"))]


def _show(run: Run, found: Status, left_out: tuple[str, ...]) -> None:
    # Of a file that is left out, the application does the work (database.change_capture).
    states = dict.fromkeys(found.pending, "pending") | dict.fromkeys(left_out, "left out")
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


@command(app, "verify", example="stackctl migrate verify")
def verify(run: Run, directory: Directory = None) -> None:
    """Check that files, history and database belong together. Writes nothing.

    Found are applied files that were edited or deleted, a database ahead of the files, files older than what is
    applied, half-applied files, and INVALID indexes. Comments and line endings do not count as edits, and a pending
    file is no finding.
    Exit codes: 0 all fits, 1 something was found.
    """
    from stackctl.migrate.verify import verify as compare

    migrations, schema = read_migrations(run, directory), run.settings.get("database.schema")
    with session(run) as conn:
        found = compare(conn, migrations, schema, _bundled())
    document = {"ok": not found, "findings": [asdict(finding) for finding in found]}
    run.finish(document, lambda: _show_findings(run.console, found, len(migrations)), ok=not found)


def _show_findings(console: Console, found: Sequence[Finding], files: int) -> None:
    for finding in found:
        console.line(f"{finding.name}: {finding.kind}", "red")
        console.line(f"  {finding.message}")
        console.line(f"  hint: {finding.hint}")
    if found:
        console.line(counted(len(found), "finding", "findings"))
    else:
        console.line(f"{counted(files, 'file', 'files')}, history and database fit")


@command(
    app,
    "adopt",
    example="stackctl migrate adopt --dry-run\nstackctl migrate adopt --through 20260101000003 --dir db/migrations",
)
def adopt(
    run: Run,
    through: Annotated[
        str | None,
        typer.Option("--through", metavar="VERSION", help="Without a history to read: the last file that is applied."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be recorded, and write nothing.")] = False,
    directory: Directory = None,
) -> None:
    """Record as applied what another tool has applied; no migration is run.

    Its history is read from "SchemaMigration", else from _prisma_migrations. Running it again changes nothing.
    Exit codes: 0 recorded or nothing to do, 2 there is no history to read and --through is missing, 5 the database
    lacks what those files make, or another run holds the lock.
    """
    from stackctl.migrate.adopt import adopt as take_over

    migrations, schema = read_migrations(run, directory), run.settings.get("database.schema")
    with session(run) as conn:
        found = take_over(
            conn,
            migrations,
            schema=schema,
            through=through,
            dry_run=dry_run,
            on_event=lambda event: run.console.info(f"{event.kind} {event.detail}"),
        )
    run.finish(asdict(found) | {"dry_run": dry_run}, lambda: _show_adoption(run.console, found, dry_run))


def _show_adoption(console: Console, found: Adoption, dry_run: bool) -> None:
    for name in found.adopted:
        console.line(f"{'would record' if dry_run else 'recorded'} {name}")
    for name in found.without_file:
        console.warn(f"{name} is in {found.source}, and there is no such file here")
    for what in found.doubtful:
        console.warn(f"the database lacks {what}, which these files make")
    count = counted(len(found.adopted), "migration", "migrations")
    known = f"; {len(found.already)} known before" if found.already else ""
    console.line(f"{count} {'would be adopted' if dry_run else 'adopted'} from {found.source}{known}")


@command(app, "new", example="stackctl migrate new add_team_slug --dir migrations")
def new(
    run: Run,
    name: Annotated[str, typer.Argument(help="A few words: add_team_slug.")],
    directory: Directory = None,
) -> None:
    """Write an empty migration with its directives explained."""
    from stackctl.migrate.files import new as write

    folder = directory or run.settings.get("migrations_dir")
    if folder is None:
        raise UsageError(
            "no folder of your own migrations is named",
            code="usage",
            hint="pass --dir DIR, or set migrations_dir in stackctl.yaml",
        )
    path = write(folder, name, datetime.now(UTC))
    run.finish({"path": path}, lambda: run.console.line(str(path)))


from stackctl.cli import migrate_check, migrate_lint  # noqa: E402 after the commands above, so that help lists them first

ELSEWHERE = (migrate_up, migrate_lint, migrate_check)  # importing them has registered their commands
