"""What the commands of stackctl fuse share."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stackctl.cli.arguments import find_tenancies
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from stackctl.cli.command import Run
    from stackctl.postgres.connect import Connection
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.queue.pauses import Pause
    from stackctl.sync.scope import Scope

Stage = Literal["sequencer", "poller"]
Name = Annotated[Stage | None, typer.Argument(help="Which stage.")]
Tenancy = Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only what is sent of this tenancy.")]
Database = Annotated[str | None, typer.Option("--database", metavar="ID", help="Only what is sent to this database.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check what is named, and change nothing.")]
MappingName = Annotated[str | None, typer.Option("--mapping", metavar="NAME", help="Only the copies of this mapping.")]


def parse_scope(
    run: Run, name: Stage | None, tenancy: str | None, database: str | None, mapping: str | None
) -> Scope | None:
    """What the options narrow it down to; None for a whole stage. UsageError for both and for neither."""
    from stackctl.sync.scope import Scope

    given = [option is not None for option in (tenancy, database, mapping)]
    if (name is not None) == any(given):
        raise UsageError(
            "name a stage (sequencer, poller), or what to pause with --tenancy, --database, --mapping", code="usage"
        )
    if name is not None:
        return None
    return Scope(
        find_tenancies(run, [] if tenancy is None else [tenancy]),
        None if database is None else [database],
        None if mapping is None else [mapping],
    )


def list_held(pipeline: Pipeline, scope: Scope) -> list[tuple[UUID, str]]:
    """The configured databases that are in this scope, in part or as a whole."""
    return [
        (tenancy, one.id)
        for tenancy, databases in pipeline.databases.items()
        if scope.tenancies is None or tenancy in scope.tenancies
        for one in databases
        if scope.databases is None or one.id in scope.databases
    ]


def describe_pause(pause: Pause) -> str:
    """What is paused, by whom, since when and why."""
    parts = [f"{what} {value}" for what, value in _list_parts(pause) if value is not None]
    reason = f": {pause.reason}" if pause.reason else ""
    since = f"{pause.paused_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return f"{', '.join(parts)}: paused by {pause.paused_by} since {since}{reason}"


def compose_fuse_on(pause: Pause) -> str:
    """The command that ends it."""
    options = [f"--{what} {shlex.quote(str(value))}" for what, value in _list_parts(pause) if value is not None]
    return f"stackctl fuse on {' '.join(options)}"


def _list_parts(pause: Pause) -> list[tuple[str, object]]:
    return [("tenancy", pause.tenancy), ("database", pause.database), ("mapping", pause.mapping)]


def finish(run: Run, conn: Connection, *, dry_run: bool = False) -> None:
    """What is on and what is off now."""
    from psycopg.errors import UndefinedTable

    from stackctl.sync.queue import fuses, pauses

    state = fuses.read_fuses(conn)
    paused: list[Pause] = []
    with suppress(UndefinedTable):  # a stage can be stopped before the migrations are applied
        paused = pauses.list_pauses(conn)

    def lines() -> None:
        for name, on in asdict(state).items():
            run.console.line(f"{name:<10} {'on' if on else 'off'}", style=None if on else "bold red")
        for pause in paused:
            run.console.line(describe_pause(pause), style="bold red")

    if dry_run:
        run.console.info("nothing was changed; this is how it is")
    run.finish({"fuses": asdict(state), "pauses": [asdict(pause) for pause in paused]}, lines)
