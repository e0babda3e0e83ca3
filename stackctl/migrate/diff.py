"""What a database or a folder of migrations has that another lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StackctlError
from stackctl.migrate import change_capture, sets
from stackctl.migrate.compatibility.scratch_schemas import ScratchSchemas, open_scratch_schemas
from stackctl.migrate.folder import discover
from stackctl.migrate.runner import history, plan
from stackctl.migrate.runner.other_histories import find_history_tables
from stackctl.migrate.schema.difference import SchemaDifference, compare_schemas
from stackctl.migrate.schema.dump import dump_schema
from stackctl.migrate.schema.things import SchemaState, read_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from stackctl.migrate.files import Migration
    from stackctl.migrate.sets import MigrationSet
    from stackctl.postgres.libpq import Connection

_NAMES = ("before", "after")


@dataclass(frozen=True)
class DatabaseSide:
    """A database, by a connection in autocommit mode."""

    conn: Connection


@dataclass(frozen=True)
class FolderSide:
    """What a set of migrations makes of an empty database; None stands for stackctl's own."""

    migrations: MigrationSet | None


Side = DatabaseSide | FolderSide


@dataclass(frozen=True)
class DiffOptions:
    """`trust`: files may run as a superuser. `capture`: database.change_capture."""

    schema: str
    trust: bool
    capture: Literal["triggers", "application", "auto"]


def diff_sides(
    before: Side, after: Side, options: DiffOptions, *, tell: Callable[[str], None] = lambda text: None
) -> SchemaDifference:
    """The way from one to the other. Writes to neither; `tell` hears what is being done.

    A folder is applied to a scratch server, with stackctl's own tables behind it where a database on the other side has
    those. A database whose server is of another major version than the scratch server is compared by way of its dump:
    each version words definitions in its own way.

    Raises as `ScratchSchemas.apply` and `embedded.attach` do, and ConfigError (`migrations-do-not-apply`).
    """
    sides = (before, after)
    databases = [side.conn for side in sides if isinstance(side, DatabaseSide)]
    folders = len(sides) - len(databases)
    leave_out = {table for conn in databases for table in find_history_tables(conn, options.schema)}
    versions = {_read_version(conn) for conn in databases}
    if not folders and len(versions) == 1:
        states = [read_schema(conn, options.schema, leave_out) for conn in databases]
        return compare_schemas(*states)
    tell("starting a scratch PostgreSQL")
    with open_scratch_schemas(options.schema, trust=options.trust, apart=folders > 1) as scratch:
        for name, side in zip(_NAMES, sides, strict=True):
            if isinstance(side, FolderSide):
                migrations = _complete(side, databases, options, tell)
                tell(f"applying the migrations ({len(migrations)})")
                scratch.apply(name, migrations)
                with scratch.connect(name) as conn:
                    leave_out |= find_history_tables(conn, options.schema)
                    versions.add(_read_version(conn))
        states = []
        for name, side in zip(_NAMES, sides, strict=True):
            if isinstance(side, FolderSide):
                states.append(scratch.read(name, leave_out))
            elif len(versions) == 1:
                states.append(read_schema(side.conn, options.schema, leave_out))
            else:
                states.append(_read_by_dump(scratch, name, side.conn, options.schema, leave_out, tell))
        return compare_schemas(*states)


def _read_version(conn: Connection) -> int:
    return conn.info.server_version // 10000


def _read_by_dump(
    scratch: ScratchSchemas,
    name: str,
    conn: Connection,
    schema: str,
    leave_out: set[str],
    tell: Callable[[str], None],
) -> SchemaState:
    tell(f"PostgreSQL {_read_version(conn)} is compared by way of a dump")
    direct = read_schema(conn, schema, leave_out)
    try:
        scratch.apply_text(name, dump_schema(conn, schema))
    except StackctlError as error:
        tell(f"its dump does not load here; the wording of definitions may differ for no reason: {error.message}")
        return direct
    loaded = scratch.read(name, leave_out)
    return SchemaState(loaded.things, direct.unread, direct.schemas)


def _complete(
    side: FolderSide, databases: Sequence[Connection], options: DiffOptions, tell: Callable[[str], None]
) -> list[Migration]:
    """The folder's migrations, and stackctl's behind them, as `migrate up` would apply them to the other side."""
    if not databases:
        found = side.migrations.migrations if side.migrations else discover(find_bundled("migrations"))
        return [one for one in found if options.capture != "application" or not one.captures_changes]
    conn, schema = databases[0], options.schema
    complete: list[Migration] = []
    for each in sets.complete_sets(conn, side.migrations, schema):
        excluded = change_capture.find_excluded(conn, each.migrations, schema, options.capture, each.history)
        complete += [migration for migration in each.migrations if migration.name not in excluded]
        found = history.read_status(conn, each.migrations, schema, excluded, each.names_elsewhere, each.history)
        if found.pending:
            tell(f"pending in the database, and so different: {plan.format_names(found.pending)}")
    return complete
