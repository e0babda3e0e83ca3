"""What the commands of stackctl queue share."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy, require_names_or_all
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.cli.command import Run
    from stackctl.postgres.connect import Connection
    from stackctl.sync.dispatch.qstash import DeadMessage

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Databases, tenancies, or TENANCY/DATABASE, by id.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which, and change nothing.")]
TenancyOption = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only the databases of this tenancy.")
]


def list_dead_messages(run: Run, tenancy: UUID | None) -> list[DeadMessage]:
    """What the delivery service gave up, of the tenancy if one is named; nothing where none is used.

    ConfigError or ServiceError if it can't be asked.
    """
    if run.settings.get("sync.dispatch") != "qstash":
        return []
    from stackctl.sync.dispatch.qstash import DeliveryService

    with closing(DeliveryService.from_settings(run.settings)) as service:
        return [one for one in service.list_dead() if tenancy in (None, one.tenancy)]


def publish_again(run: Run, conn: Connection, messages: Sequence[DeadMessage]) -> None:
    """Queue the tenancies of messages that the service gave up, then have it forget those."""
    if not messages:
        return
    from stackctl.sync.dispatch.qstash import DeliveryService
    from stackctl.sync.queue import claims, entries

    with conn.transaction():
        entries.enqueue(conn, {one.tenancy for one in messages if one.tenancy is not None})
        claims.forget_published(conn, [one.message for one in messages])
    with closing(DeliveryService.from_settings(run.settings)) as service:
        service.forget_dead(messages)


def select_failing(
    conn: Connection, ids: Sequence[str], tenancy: str | None, *, everything: bool
) -> list[tuple[UUID, str]]:
    """The failing databases that are named; of the tenancy alone, when one is. UsageError for a name that fits none."""
    from stackctl.sync.queue import retries

    require_names_or_all([*ids, *([tenancy] if tenancy is not None else [])], everything, "failing databases")
    only = find_tenancy(conn, tenancy)
    failing = list(dict.fromkeys((one.tenancy, one.database) for one in retries.list_failures(conn)))
    failing = [one for one in failing if only in (None, one[0])]
    named = [_find_named(conn, failing, id_) for id_ in ids] if ids else [failing]
    chosen = {one for found in named for one in found}
    return [one for one in failing if one in chosen]


def _find_named(conn: Connection, failing: list[tuple[UUID, str]], id_: str) -> list[tuple[UUID, str]]:
    if found := [one for one in failing if one[1] == id_]:
        return found
    # A database's id may hold a slash, a project's may not.
    tenancy, slash, database = id_.partition("/")
    try:
        of = find_tenancy(conn, tenancy)
    except UsageError as error:
        if error.code != "unknown-tenancy":
            raise
        of = None
    if found := [one for one in failing if one[0] == of and (not slash or one[1] == database)]:
        return found
    raise UsageError(
        f"no failing database is called {id_!r}",
        code="unknown-database",
        hint="`stackctl queue list` shows those that fail",
    )
