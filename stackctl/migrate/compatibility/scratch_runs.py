"""Migrations run on scratch databases, with stand-ins for what the files name and such a server lacks."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from psycopg.pq import TransactionStatus

from stackctl.core.errors import AnswerNo, ServiceError, StackctlError
from stackctl.migrate.compatibility.scratch_server import open_schemas
from stackctl.migrate.compatibility.substitutes import find_new_owner, makes_tablespace, substitute_statements
from stackctl.migrate.runner.run import apply_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stackctl.migrate.compatibility.scratch_server import ScratchDatabases
    from stackctl.migrate.compatibility.statement_observer import StatementObserver
    from stackctl.migrate.files import Migration, Statement
    from stackctl.postgres.libpq import Connection

NEEDS_SUPERUSER = "needs-superuser"
TRUST = (
    "look at what it does, then run this with --trust: the files' SQL runs as a superuser then, who can read files"
    " and run programs as the account of the scratch server"
)
_UNKNOWN = re.compile(r'(role|database|tablespace) "(.+)" does not exist')
_OWN_PARAMETER = re.compile(r'permission denied to set (parameter) "([^"]+\.[^"]+)"')
_UNKNOWN_EXTENSION = re.compile(r'extension "(.+)" is not available')


class ScratchRunner:
    """`roles`: made up so far, in order. `made_up`: these, and other things of the server that the files name."""

    def __init__(self, databases: ScratchDatabases, schema: str, *, trust: bool) -> None:
        self._databases = databases
        self._schema = schema
        self._trust = trust
        self._as_tried: dict[tuple[Path, str], Migration] = {}
        self.roles: list[str] = []
        self.made_up: set[str] = set()  # names of roles, databases and tablespaces

    def apply(
        self,
        database: str,
        conn: Connection,
        migrations: Sequence[Migration],
        observer: StatementObserver | None = None,
    ) -> None:
        """`apply_migrations`, with a stand-in for each role and the like that the files name and the server lacks."""

        @contextmanager
        def around(migration: Migration, statement: Statement) -> Iterator[None]:
            with ExitStack() as stack:
                owner = None if self._trust else find_new_owner(statement.sql)
                if owner is not None:
                    stack.enter_context(open_schemas(conn, owner))
                if observer is not None:
                    stack.enter_context(observer.measure(migration, statement))
                # Last, so that nothing but the statement runs in it: names and operators may be the files' own.
                if makes_tablespace(statement.sql) and conn.info.transaction_status == TransactionStatus.IDLE:
                    stack.enter_context(self._databases.empower(database))
                yield

        plan = [self._substitute(migration) for migration in migrations]
        stand_ins: set[tuple[str, str]] = set()
        while True:
            try:
                apply_migrations(
                    conn,
                    plan,
                    schema=self._schema,
                    out_of_order=True,
                    sleep=lambda seconds: None,
                    statement_context=around,
                )
                return
            except (AnswerNo, ServiceError) as error:
                unknown = _UNKNOWN.search(error.message) or _OWN_PARAMETER.search(error.message)
                if unknown is None or unknown.group(1, 2) in stand_ins:
                    raise self._explain(error) from error
                kind, name = unknown.group(1, 2)
                stand_ins.add((kind, name))
                self._databases.create_stand_in(database, kind, name)
                self.made_up.add(name)
                if kind == "role" and name not in self.roles:
                    self.roles.append(name)

    def _substitute(self, migration: Migration) -> Migration:
        key = migration.path, migration.checksum
        if key not in self._as_tried:
            self._as_tried[key] = substitute_statements(migration, trust=self._trust)
        return self._as_tried[key]

    def _explain(self, error: StackctlError) -> StackctlError:
        """What an error of the runner means on a scratch server."""
        if error.code == "permission-denied" and not self._trust:
            return AnswerNo(error.message, code=NEEDS_SUPERUSER, hint=TRUST, details=error.details)
        extension = _UNKNOWN_EXTENSION.search(error.message)
        if extension is not None:
            return ServiceError(
                f"the scratch PostgreSQL lacks the extension {extension[1]} ({error.message})",
                code="extension-missing",
                hint="it brings plpgsql and vector only; a folder that needs others can't be checked here",
            )
        return error
