"""The schemas that folders of migrations make, on scratch databases."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import AnswerNo, ConfigError
from stackctl.migrate.compatibility.scratch_runs import ScratchRunner
from stackctl.migrate.compatibility.scratch_server import ScratchDatabases, make_scratch_directory, read_server_objects
from stackctl.migrate.files import parse_migration
from stackctl.migrate.runner.other_histories import find_history_tables
from stackctl.migrate.schema.things import read_schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.schema.things import SchemaState
    from stackctl.postgres.libpq import Connection


class ScratchSchemas:
    """Databases by name, each with migrations applied. The files' SQL runs as a superuser only with `trust`."""

    def __init__(self, directory: Path, schema: str, *, trust: bool, apart: bool) -> None:
        self._databases = ScratchDatabases(directory, trust=trust, apart=apart)
        self._runner = ScratchRunner(self._databases, schema, trust=trust)
        self._schema = schema
        self._shared: dict[str, list[str]] = {}

    def apply(self, name: str, migrations: Sequence[Migration], *, template: str | None = None) -> None:
        """Make a database, or clone `template`, with these applied; they include those that the template has.

        Raises ConfigError (`migrations-do-not-apply`), and ServiceError (`extension-missing`).
        """
        self._databases.create(name, template=template)
        with self.connect(name) as conn:
            before = read_server_objects(conn)
            try:
                self._runner.apply(name, conn, [migration for migration in migrations if migration.pieces])
            except AnswerNo as error:
                raise ConfigError(
                    f"on an empty database the migrations do not apply: {error.message}",
                    code="migrations-do-not-apply",
                    hint=error.hint,
                    details=error.details,
                ) from error
            changed = before ^ read_server_objects(conn)
            self._shared[name] = sorted(
                {f"{one.kind} {one.name}" for one in changed if one.name not in self._runner.made_up}
            )

    def list_shared(self, name: str) -> list[str]:
        """What the migrations of a database have changed that belongs to its server: roles, settings, tablespaces."""
        return self._shared[name]

    def apply_text(self, name: str, text: str, *, template: str | None = None) -> None:
        """`apply`, of a text that is no file. Raises as `apply` does."""
        path = Path("the SQL to be tried")
        self.apply(name, [parse_migration(text, path, "99999999999999_tried")], template=template)

    def connect(self, name: str) -> Connection:
        """A connection in autocommit mode."""
        return self._databases.connect(name)

    def read(self, name: str, leave_out: Collection[str] = ()) -> SchemaState:
        """What its schema holds, without the tables of other tools' histories and those called `leave_out`."""
        with self.connect(name) as conn:
            return read_schema(conn, self._schema, {*find_history_tables(conn, self._schema), *leave_out})


@contextmanager
def open_scratch_schemas(schema: str, *, trust: bool, apart: bool = False) -> Iterator[ScratchSchemas]:
    """`apart`: each database has a server of its own, which files may make their roles on."""
    with make_scratch_directory() as directory:
        yield ScratchSchemas(directory, schema, trust=trust, apart=apart)
