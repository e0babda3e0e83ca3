"""Which migrations a run applies, and when it refuses to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError, UsageError
from stackctl.migrate import files
from stackctl.migrate.folder import read_name
from stackctl.migrate.runner import history, other_histories

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.history import MigrationProgress
    from stackctl.migrate.runner.session import Connection

_SHOWN = 5  # names in a message


def find_pending(
    conn: Connection,
    migrations: Sequence[Migration],
    schema: str,
    *,
    to: str | None = None,
    excluded: Collection[str] = (),
    out_of_order: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    history_name: str = "",
    names_elsewhere: Collection[str] = (),
) -> tuple[tuple[Migration, MigrationProgress], ...]:
    """What a run applies, in order, each with how far it has come already. Writes nothing.

    `tell` hears which other tools migrate the schema too, when nothing of ours was ever applied there, and what the
    history holds that is neither a file here nor one of `names_elsewhere`.

    Raises UsageError (`unknown-migration`), ConfigError (`empty-migration`), StateError (`migration-edited`,
    `baseline-behind`, `out-of-order` unless that is allowed, `not-adopted`, `other-history`,
    `migration-edited-halfway`), ServiceError (`permission-denied`).
    """
    wanted = select_up_to(migrations, to)
    begun = history.count_baselines(migrations, history.read_progress(conn, schema, history_name))
    _refuse_edited(wanted, begun, history_name)
    found = [
        (migration, begun.get(migration.name, history.MigrationProgress()))
        for migration in wanted
        if migration.name not in excluded
    ]
    found = [(migration, so_far) for migration, so_far in found if not so_far.applied]
    if not found:
        return ()
    for migration, so_far in found:
        files.refuse_empty(migration)
        history.refuse_baseline_behind(migration, begun)
        if migration.name in begun:
            history.refuse_edited_halfway(migration, so_far)
    if not out_of_order:
        _refuse_out_of_order(found, find_out_of_order(migrations, begun))
    _refuse_not_adopted(conn, migrations, found, schema, tell if not begun else None)
    _refuse_in_other_history(conn, found, schema, history_name)
    if unknown := sorted(begun.keys() - {migration.name for migration in migrations} - set(names_elsewhere)):
        tell(
            f"the history holds what is no file here: {format_names(unknown)}; if another service has applied that,"
            " give this folder a history of its own (migrations.history)"
        )
    return tuple(found)


def select_up_to(migrations: Sequence[Migration], to: str | None) -> Sequence[Migration]:
    """The migrations up to and including a version or a name. Raises UsageError (`unknown-migration`)."""
    if to is None:
        return migrations
    place = find_place(migrations, to)
    if place is None:
        raise UsageError(
            f"there is no migration {to}",
            code="unknown-migration",
            hint="name a version, a file or a whole name that stackctl migrate status lists",
        )
    return migrations[: place + 1]


def find_place(migrations: Sequence[Migration], named: str) -> int | None:
    """Where the migration of a version, file or name stands."""
    wanted = read_name(Path(named)) if named.endswith(".sql") else named
    return next((at for at, m in enumerate(migrations) if wanted in (m.version, m.name)), None)


def find_out_of_order(migrations: Sequence[Migration], begun: Mapping[str, MigrationProgress]) -> dict[str, str]:
    """Pending migrations that come before one that is applied already, each with the highest applied name.

    Not late are those that the choice of who captures changes left out, and those that were begun. Names without a file
    here do not count: another folder may be migrated in the same schema.
    """
    applied = [
        migration.name for migration in migrations if begun.get(migration.name, history.MigrationProgress()).applied
    ]
    highest = max(applied, default="")
    return {
        migration.name: highest
        for migration in migrations
        if migration.name < highest and migration.name not in begun and not migration.captures_changes
    }


def format_names(names: Collection[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _refuse_edited(wanted: Sequence[Migration], begun: Mapping[str, MigrationProgress], history_name: str) -> None:
    """What is applied of such a file is not what it says: neither it nor what builds on it can be believed."""
    edited = [
        migration
        for migration in wanted
        if (so_far := begun.get(migration.name)) and so_far.applied and so_far.checksum != migration.checksum
    ]
    if edited:
        names = [migration.name for migration in edited]
        apart = "" if history_name else "; if another service has applied its own of that name, see migrations.history"
        raise StateError(
            f"applied, and edited since: {format_names(names)}",
            code="migration-edited",
            hint=f"restore what was applied, or see and accept the edit with stackctl migrate repair {names[0]}{apart}",
            details={"names": names, "files": [str(migration.path) for migration in edited]},
        )


def _refuse_out_of_order(found: Sequence[tuple[Migration, MigrationProgress]], out_of_order: Mapping[str, str]) -> None:
    names = [migration.name for migration, _ in found if migration.name in out_of_order]
    if names:
        raise StateError(
            f"{format_names(names)}: older than {out_of_order[names[0]]}, which is applied already",
            code="out-of-order",
            hint="give the file a new version (it was never tried behind the newer ones), or pass --allow-out-of-order",
            details={"names": names, "highest_applied": out_of_order[names[0]]},
        )


def _refuse_not_adopted(
    conn: Connection,
    migrations: Sequence[Migration],
    found: Sequence[tuple[Migration, MigrationProgress]],
    schema: str,
    tell: Callable[[str], None] | None,
) -> None:
    for other in other_histories.read_other_histories(conn, migrations, schema):
        for migration, _ in found:
            history.refuse_baseline_behind(migration, other.superseded)
        names = [migration.name for migration, so_far in found if migration.name in other.finished and not so_far.done]
        if names:
            raise StateError(
                f'the database records in "{other.table}" as applied what is pending here: {format_names(names)}',
                code="not-adopted",
                hint="take that history over with stackctl migrate adopt, then run this again; if that is another"
                " service's file of the same name, give yours another",
                details={"table": other.table, "names": names},
            )
        if tell is not None:
            tell(f'{other.tool} migrates this schema, too (table "{other.table}"); none of its entries is a file here')


def _refuse_in_other_history(
    conn: Connection, found: Sequence[tuple[Migration, MigrationProgress]], schema: str, history_name: str
) -> None:
    """Whoever leaves out the name of his history, or gives one later, would run everything once more."""
    for other in history.list_history_names(conn):
        begun = {} if other == history_name else history.read_progress(conn, schema, other)
        names = [
            migration.name
            for migration, so_far in found
            if not so_far.begun and (there := begun.get(migration.name)) and there.checksum == migration.checksum
        ]
        if names:
            meant = f"name it with --history {other}" if other else "leave the name of this one out"
            raise StateError(
                f"{format_names(names)}: applied already, by the history {other or 'without a name'}",
                code="other-history",
                hint=f"if that is the one of these files, {meant} (migrations.history in stackctl.yaml); if not, record"
                f" them here with stackctl migrate repair --applied {names[0]}, or rename what is to run once more",
                details={"names": names, "history": other},
            )
