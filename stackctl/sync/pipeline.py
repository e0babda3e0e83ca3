"""What the commands of the pipeline share: mappings, databases and connections, opened from the settings."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stackctl import __version__
from stackctl.backend.external_databases import BackendDatabases, DatabaseChanges, find_changes, to_place
from stackctl.config.keys import KEYS
from stackctl.config.settings import Settings
from stackctl.core.errors import ConfigError, StackctlError, StateError, unknown_name_error
from stackctl.mapping.compile import Compiled, compile_mapping
from stackctl.mapping.files import MISSING_TABLE_RULES
from stackctl.mapping.files import load_mappings as load_mappings
from stackctl.postgres.connect import OPERATED, connect, connect_operated, open_operated_session
from stackctl.postgres.errors import row_security_error
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequenced_tables import TOMBSTONES
from stackctl.sync.configuration import Reload
from stackctl.sync.engine.source import Source
from stackctl.sync.queue import entries
from stackctl.sync.targets.kinds import open_target
from stackctl.sync.targets.mapping_changes import ChangePolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.files import MappingSet
    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection
    from stackctl.sync.targets.protocol import Target

FORMAT = 1  # of what stackctl keeps in its schema: a migration that earlier versions can't live with raises it

_SQL = load_statements(__file__)
_DIALECTS: dict[str, Dialect] = {"postgres": "postgres", "sqlite": "sqlite", "duckdb": "duckdb"}


class Pipeline:
    """The pipeline of one configuration. Shared by threads; connections are not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._changing = threading.Lock()
        self._changes = DatabaseChanges()  # not yet heard of by the poller
        self._configured_databases: dict[UUID, list[ExternalDatabase]] | None = None

    @property
    def mappings(self) -> dict[str, Mapping]:
        """All mappings by name; ConfigError when a file is wrong."""
        return self._loaded.mappings

    @cached_property
    def _loaded(self) -> MappingSet:
        return load_mappings(*self.settings.mappings_dirs())

    def check_ready(
        self, conn: Connection, used: Iterable[Compiled] | None = None, *, without_missing: bool = False
    ) -> None:
        """What must hold before anything is stamped or sent; `used` are the mappings concerned, all when left out.

        `without_missing`: a table that is gone is the trouble of its own mappings alone.
        Raises StateError `not-migrated` and `newer-stackctl`, ServiceError `row-security`, and ConfigError
        `mapping-invalid` for a mapping that the operated database does not bear out.
        """
        self.check_migrated(conn)
        names = self.mappings if used is None else {compiled.mapping.name for compiled in used}
        self.refuse_hidden_rows(conn, [self.mappings[name] for name in names])
        self._loaded.check(conn, names, ignored=MISSING_TABLE_RULES if without_missing else ())

    @staticmethod
    def check_migrated(conn: Connection) -> None:
        """Raise StateError `not-migrated` where nothing of ours is there."""
        row = conn.execute(_SQL["is_migrated"]).fetchone()
        assert row is not None
        is_migrated, needed = row
        if needed is not None and int(needed[0]) > FORMAT:
            raise StateError(
                f"the operated database was migrated for stackctl {needed[1]}; this version ({__version__}) would read"
                " wrongly what that one keeps there",
                code="newer-stackctl",
                hint=f"use stackctl {needed[1]} or later",
            )
        if not is_migrated:
            raise StateError(
                "the operated database was never migrated",
                code="not-migrated",
                hint="run `stackctl migrate up --bundled` (`stackctl doctor` says what is missing)",
            )

    @staticmethod
    def refuse_hidden_rows(conn: Connection, mappings: Iterable[Mapping]) -> None:
        """Raise ServiceError `row-security` if policies hide rows from this role that these mappings, or we, read."""
        mappings = list(mappings)
        texts = [one.select for one in mappings]
        used = {entries.QUEUE, TOMBSTONES, "Tenancy"}
        used = used.union(*([one.source, *(dependency.table for dependency in one.depends_on)] for one in mappings))
        hidden = [
            f'"{name}"'
            for (name,) in conn.execute(_SQL["list_tables_with_hidden_rows"])
            if name in used or any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts)
        ]
        if hidden:
            raise row_security_error(OPERATED, f"row-level security policies apply to {', '.join(hidden)}")

    @property
    def databases(self) -> dict[UUID, list[ExternalDatabase]]:
        """The configured external databases by tenancy; those of the backend as they were last read (`refresh`).

        Raises ConfigError for a mapping that there is not, StateError for two tenancies on one database.
        """
        if self._backend is None:
            return self._configured
        if not self._backend.was_read:
            with self.open_session() as conn:
                self._backend.refresh(conn)
        return self._backend.databases

    def refresh(self, conn: Connection) -> DatabaseChanges:
        """What changed since the last time: the backend's configuration is read again when that was a while ago."""
        if self._backend is not None:
            return self._backend.refresh(conn)
        with self._changing:
            changes, self._changes = self._changes, DatabaseChanges()
        return changes

    def reload(self) -> Reload:
        """Read the configuration file again, and take up its external databases unless something in it is wrong."""
        old = self.settings
        assert old.config_path is not None
        fresh = Settings(old.flags, old.environ, old.cwd)
        try:
            if fresh.config_path != old.config_path:
                raise ConfigError(f"{old.config_path} is gone", code="config-not-found", hint="restore it")
            if fresh.file is not None and fresh.file.is_empty:
                raise ConfigError(f"{old.config_path} is empty", code="config-malformed",
                                  hint="restore it; `version: 1` alone says that nothing is configured")  # fmt: skip
            others = tuple(key for key in KEYS if _read_value(old, key) != fresh.get(key))
            if self._backend is not None:
                return Reload(old.config_path, restart_for=others)
            after = self._collect(fresh)
        except StackctlError as error:
            return Reload(old.config_path, error=error)
        with self._changing:
            changes, self._configured_databases = find_changes(self._configured, after), after
            earlier = self._changes
            self._changes = DatabaseChanges(earlier.altered + changes.altered, earlier.gone + changes.gone)
        return Reload(old.config_path, changes=changes, restart_for=others)

    def fingerprint_databases(self) -> dict[tuple[UUID, str], str]:
        """The fingerprint of each configured database, by tenancy and id."""
        return {(one.tenancy, one.id): self.fingerprint(one) for found in self.databases.values() for one in found}

    def fingerprint(self, database: ExternalDatabase) -> str:
        """What a database is known by: its place, its mappings and what they mean, and no secret."""
        try:
            place = _place(self.settings.resolve_database(database))
        except StackctlError:  # an unset variable, or what a tenancy wrote
            place = (database.connection,)
        meanings = [(one.mapping.name, one.fingerprint) for one in self.compile_mappings(database)]
        return hashlib.sha256(repr((database.type, place, meanings)).encode()).hexdigest()

    @cached_property
    def _backend(self) -> BackendDatabases | None:
        if self.settings.get("external_databases_from") != "backend":
            return None
        return BackendDatabases("neighbour" if self.settings.get("external_databases_local") == "allow" else "tenancy")

    @property
    def _configured(self) -> dict[UUID, list[ExternalDatabase]]:
        if self._configured_databases is None:
            self._configured_databases = self._collect(self.settings)
        return self._configured_databases

    def _collect(self, settings: Settings) -> dict[UUID, list[ExternalDatabase]]:
        """The external databases of the file; raises as `databases` does."""
        found: dict[UUID, list[ExternalDatabase]] = defaultdict(list)
        for database in settings.external_databases():
            for name in database.mappings or ():
                if name not in self.mappings:
                    error = unknown_name_error("mapping", name, self.mappings)
                    raise ConfigError(f"{database.mappings_origin}: {error.message}", code=error.code, hint=error.hint)
            found[database.tenancy].append(database)
        self._refuse_shared([database for databases in found.values() for database in databases])
        return dict(found)

    def _refuse_shared(self, databases: Sequence[ExternalDatabase]) -> None:
        """Two tenancies on one database would mix rows and cursors.

        Two spellings of one place are told apart here and meet at the owner marker inside the database.
        """
        owners: dict[tuple[str, ...], ExternalDatabase] = {}
        for database in databases:
            try:
                place = _place(self.settings.resolve_database(database))
            except ConfigError:
                continue  # an unset variable concerns those who use this database
            other = owners.setdefault(place, database)
            if other.tenancy != database.tenancy:
                raise StateError(
                    f"{database.origin}: tenancies {other.tenancy} and {database.tenancy} are configured onto one "
                    f"external database ({database.connection})",
                    code="shared-database",
                    hint="give each tenancy a database of its own",
                    details={"tenancies": [str(other.tenancy), str(database.tenancy)]},
                )

    @cached_property
    def _compiled(self) -> dict[tuple[str, str], Compiled]:
        return {}

    @cached_property
    def change_policy(self) -> ChangePolicy:
        """How changed mappings are met; what is remembered there is this process's."""
        return ChangePolicy(evolve=self.settings.get("sync.schema_changes") == "evolve")

    def find_unfed(self, database: ExternalDatabase, copies: Iterable[str]) -> list[str]:
        """Of these copies in a database, by the names of their cursors, those that no mapping feeds."""
        return sorted(set(copies) - set(self._list_names(database)))

    def _list_names(self, database: ExternalDatabase) -> Sequence[str]:
        return database.mappings if database.mappings is not None else tuple(self.mappings)

    def find_mapping(self, name: str) -> Mapping:
        """The mapping of that name; UsageError `unknown-mapping` with the nearest one."""
        return self._loaded.find(name)

    def compile_mappings(self, database: ExternalDatabase, only: Sequence[str] | None = None) -> list[Compiled]:
        """The database's mappings in its dialect; `only` narrows them to some."""
        # Of one that can't be used, the type may be anything; a report still names its mappings.
        dialect = _DIALECTS[database.type] if database.problem is None else "postgres"
        return [self._compile(name, dialect) for name in self._list_names(database) if only is None or name in only]

    def _compile(self, name: str, dialect: Dialect) -> Compiled:
        if (name, dialect) not in self._compiled:
            self._compiled[name, dialect] = compile_mapping(self.find_mapping(name), dialect)
        return self._compiled[name, dialect]

    def open_source(self) -> Source:
        """What the engine reads: the operated database and, when configured, its replica."""
        replica_url = self.settings.get("database.replica_url")
        primary = connect_operated(self.settings)
        if not replica_url:
            return Source(primary, self.mappings.values())
        try:
            replica = connect(
                replica_url,
                base=self.settings.base_dir,
                schema=self.settings.get("database.schema"),
                what="the replica",
            )
        except BaseException:
            primary.close()
            raise
        return Source(primary, self.mappings.values(), replica)

    def open_session(self, *, lazy_commits: bool = False) -> AbstractContextManager[Connection]:
        """A connection to the operated database that is closed at the end; its errors come out as StackctlErrors.

        With `lazy_commits`, a crash of the server may take back the last commits.
        """
        return open_operated_session(self.settings, lazy_commits=lazy_commits)

    def open_target(self, database: ExternalDatabase, *, busy_timeout: float | None = None) -> Target:
        """Connect; a file that another process holds is waited for, by the kind's own time limit or this one (s)."""
        return open_target(self.settings.resolve_database(database), busy_timeout)


def _read_value(settings: Settings, key: str) -> Any:
    """Null for what is wrong there: nothing uses it."""
    try:
        return settings.get(key)
    except ConfigError:
        return None


def _place(database: ExternalDatabase) -> tuple[str, ...]:
    if database.path is not None:
        return ("file", str(database.path.resolve()))
    return to_place(database.url or "")
