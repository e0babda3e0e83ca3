"""stackctl migrate"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command, counted, duration_option
from stackctl.cli.migrate_common import Directory, app, read_migrations, session
from stackctl.errors import AnswerNo, UsageError

if TYPE_CHECKING:
    from stackctl.console import Console
    from stackctl.migrate.apply import Event, Status

apps = {"migrate": app}


@command(app, "up", example="stackctl migrate up\nstackctl migrate up --to 20260101000003 --lock-wait 1m")
def up(
    run: Run,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Stop after this version or name.")] = None,
    lock_wait: Annotated[
        str, typer.Option("--lock-wait", metavar="DURATION", help="How long to wait for another runner.")
    ] = "10s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name what would be applied, and apply nothing.")] = False,
    directory: Directory = None,
) -> None:
    """Apply pending migrations, each with its history row in one transaction.

    On an empty database the bundled set creates the backend's tables; on a live one it adds only what is missing.
    Exit codes: 0 applied or nothing to do, 1 a migration failed (rolled back), 5 another runner holds the lock.
    """
    from stackctl.migrate.apply import status as read
    from stackctl.migrate.apply import up as apply
    from stackctl.migrate.capture import left_out

    wait = duration_option(lock_wait, "--lock-wait")
    assert wait is not None
    console = run.console
    migrations = read_migrations(run, directory)
    schema = run.settings.get("database.schema")
    capture = run.settings.get("database.change_capture")
    with session(run) as conn:

        def omitted() -> tuple[str, ...]:
            return left_out(conn, migrations, schema, capture)

        if dry_run:
            _show_pending(run, read(conn, migrations, schema, omitted()), to)
            return
        result = apply(
            conn,
            migrations,
            to=to,
            schema=schema,
            lock_wait=wait,
            left_out=omitted,
            on_event=lambda event: _tell(console, event),
        )
    done = counted(len(result.applied), "migration", "migrations")
    run.finish(
        {"applied": [asdict(applied) for applied in result.applied]},
        lambda: console.line(f"{done} applied" if result.applied else "nothing to do: no migration is pending"),
    )


def _show_pending(run: Run, found: Status, to: str | None) -> None:
    names = [name for name in found.pending if to is None or name <= to or name.startswith(to)]

    def lines() -> None:
        for name in names:
            run.console.line(f"would apply {name}")
        if not names:
            run.console.line("nothing to do: no migration is pending")

    run.finish({"would_apply": names}, lines)


def _tell(console: Console, event: Event) -> None:
    # That a file was begun says nothing yet; what was committed does.
    if event.kind != "started":
        console.info(" ".join(part for part in (event.kind, event.name, event.detail) if part))


@command(app, "status", example="stackctl migrate status\nstackctl migrate status --check")
def status(
    run: Run,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when anything is pending, edited or unknown.")] = False,
    directory: Directory = None,
) -> None:
    """Compare the files with what is applied. Writes nothing.

    Exit codes: 0 read (with --check: up to date), 1 --check found something.
    """
    from stackctl.migrate.apply import status as read
    from stackctl.migrate.capture import left_out

    migrations, schema = read_migrations(run, directory), run.settings.get("database.schema")
    with session(run) as conn:
        omitted = left_out(conn, migrations, schema, run.settings.get("database.change_capture"))
        found = read(conn, migrations, schema, omitted)
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

ELSEWHERE = (migrate_lint, migrate_check)  # importing them has registered their commands
