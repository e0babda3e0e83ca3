"""What must hold: all the time, seen by a watcher past the proxies, and when everything is quiet."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from tests.comparison import Comparison, compare

from .changes import ONCE
from .world import DUCKDB_IS_BUSY, TENANCIES, connect_duckdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .world import Tenancy, World

# The column of each target table in which a row says whose it is: a text with the tenancy's tag, or a tagged id.
TAGGED = {
    "users": "display_name", "contact_channels": "value", "teams": "display_name",
    "team_member_profiles": "display_name", "team_permissions": "permission_id",
    "project_permissions": "permission_id", "notification_preferences": "notification_category_id",
    "connected_accounts": "provider_account_id", "refresh_tokens": "user_id", "email_outboxes": "theme_id",
    "team_invitations": "team_display_name",
}  # fmt: skip
IDS = ("notification_preferences", "refresh_tokens")
OURS = "\"qstashOptions\" ->> 'url' = '/api/latest/internal/external-db-sync/sync-engine'"
# How a database that was cut off, restarted or busy may fail; one that hangs up looks like no PostgreSQL. Anything
# else is a finding.
PASSING = {
    "unreachable", "connection-lost", "out-of-resources", "lock-timeout", "deadlock", "statement-timeout",
    "not-postgresql", "no-answer",
    "table-in-use",  # a reader holds it, and it waits for a new column
    "mapping-changed",  # said by a process that has read the mapping before it was edited
}  # fmt: skip
SELDOM = 20  # looks at the others for one at a DuckDB file, which nobody can write meanwhile
UNPREPARED = (errors.UndefinedTable, errors.InvalidCatalogName)


def foreign(tenancy: Tenancy, table: str) -> str:
    """A query for the rows that do not carry the tenancy's tag; fit for all kinds of targets."""
    column, mark = TAGGED[table], tenancy.tag
    if table in IDS:
        mark = str(tenancy.tagged_id(0))[:8]
    condition = f"CAST({column} AS text) NOT LIKE '{mark}%' OR {column} IS NULL"
    if table == "users":
        condition += f" OR primary_email NOT LIKE '{mark}%'"
    return f"SELECT '{table}', CAST({column} AS text) FROM {table} WHERE {condition}"


@dataclass
class _Copy:
    """What was seen of one copy so far."""

    cursors: dict[str, int] = field(default_factory=dict[str, int])
    present: set[str] = field(default_factory=set[str])
    gone: set[str] = field(default_factory=set[str])


class Watcher(threading.Thread):
    """Looks at every copy again and again, each time in one snapshot, until `stop()`.

    `problems`: a cursor that went back, a row of another tenancy, a row that came back after it was gone, an error of
    a database that no fault explains.
    """

    def __init__(self, world: World) -> None:
        super().__init__(name="watcher", daemon=True)
        self._world = world
        self._copies = {(t.number, kind): _Copy() for t in TENANCIES for kind in t.copies}
        self._asked = threading.Event()
        self._looking = threading.Lock()  # held while a copy is looked at
        self._kinds = {
            "postgres": self._look_at_postgres, "sqlite": self._look_at_sqlite, "duckdb": self._look_at_duckdb,
        }  # fmt: skip
        self._turn = self.looks = 0
        self.errors: Counter[str] = Counter()
        self.problems: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._asked.is_set():
                self.look()
                self._asked.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - for the thread that waits for this one
            self.failure = error

    def stop(self) -> None:
        self._asked.set()
        self.join(60)
        if self.failure is not None:
            raise self.failure

    def look(self) -> None:
        """One look at each copy that can be reached, and at what is failing."""
        for tenancy in TENANCIES:
            for kind in tenancy.copies:
                unreachable = suppress(psycopg.OperationalError, *UNPREPARED, sqlite3.OperationalError, *DUCKDB_IS_BUSY)
                with self._looking, unreachable:
                    self._kinds[kind](tenancy)
        self._turn += 1
        with suppress(psycopg.OperationalError), self._world.connect("source", name="watcher") as conn:
            for code, error in conn.execute("SELECT last_error_code, last_error FROM stackctl.delivery"):
                self.errors[code] += 1
                if code not in PASSING and not any(error in problem for problem in self.problems):
                    self.problems.append(f"a database failed with {code}: {error}")

    @contextmanager
    def forgetting(self, tenancy: Tenancy, kind: str) -> Iterator[None]:
        """Inside, the copy may be emptied, which nobody sees: its cursors begin anew, and its users are no news."""
        with self._looking:
            yield
            copy = self._copies[tenancy.number, kind]
            copy.cursors, copy.present = {}, set()

    def _look_at_postgres(self, tenancy: Tenancy) -> None:
        with self._world.connect("target", f"copy_{tenancy.number}", name="watcher", autocommit=False) as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._inspect(tenancy, "postgres", lambda query: conn.execute(query.encode()).fetchall())

    def _look_at_sqlite(self, tenancy: Tenancy) -> None:
        path = self._world.path(tenancy, "sqlite")
        if path.exists():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1, isolation_level=None)) as conn:
                conn.execute("BEGIN")
                self._inspect(tenancy, "sqlite", lambda query: conn.execute(query).fetchall())

    def _look_at_duckdb(self, tenancy: Tenancy) -> None:
        if self._turn % SELDOM == 0:
            with closing(connect_duckdb(self._world.path(tenancy, "duckdb"), read_only=True)) as file:
                file.execute("BEGIN")
                self._inspect(tenancy, "duckdb", lambda query: file.execute(query).fetchall())

    def _inspect(self, tenancy: Tenancy, kind: str, query: Callable[[str], Iterable[tuple[Any, ...]]]) -> None:
        copy, where = self._copies[tenancy.number, kind], f"tenancy {tenancy.number}, {kind}"
        cursors: dict[str, int] = dict(
            row[:2] for row in query("SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata")
        )
        once = query(f"SELECT CAST(id AS text) FROM users WHERE CAST(id AS text) >= '{uuid.UUID(int=ONCE)}'")
        found = {id for (id,) in once}
        strangers = list(query(" UNION ALL ".join(foreign(tenancy, table) for table in TAGGED)))
        self.looks += 1
        for name in copy.cursors.keys() | cursors.keys():
            before, now = copy.cursors.get(name, -1), cursors.get(name)
            if now is None or now < before:
                self.problems.append(f"{where}: the cursor of {name} went back from {before} to {now}")
        copy.cursors = cursors
        copy.gone |= copy.present - found
        if back := copy.gone & found:
            self.problems.append(f"{where}: users {sorted(back)} came back after they were gone")
            copy.gone -= back
        copy.present = found
        if strangers:
            self.problems.append(f"{where}: rows of somebody else: {strangers[:10]}")


def comparisons(world: World) -> dict[str, list[Comparison]]:
    """Every mapping of every copy against its source, row for row, past `verify` and its checksums."""
    pipeline = world.pipeline()
    found: dict[str, list[Comparison]] = {}
    with pipeline.open_session() as conn:
        for databases in pipeline.databases.values():
            for database in databases:
                target = pipeline.open_target(database)
                try:
                    found[f"tenancy {database.tenancy}, {database.id}"] = [
                        compare(conn, target, compiled.mapping, database.tenancy)
                        for compiled in pipeline.compile_mappings(database)
                    ]
                finally:
                    target.close()
    return found


SEQUENCED = (
    "ProjectUser", "ContactChannel", "Team", "TeamMember", "TeamMemberDirectPermission", "ProjectUserDirectPermission",
    "UserNotificationPreference", "ProjectUserRefreshToken", "ProjectUserOAuthAccount", "EmailOutbox", "DeletedRow",
)  # fmt: skip


def unfinished(world: World) -> list[str]:
    """What is left to do: rows to stamp, entries of ours in the queue, databases that fail. Empty: all is clean."""
    left: list[str] = []
    with world.connect("source") as conn:
        for table in SEQUENCED:
            for (count,) in conn.execute(f'SELECT count(*) FROM "{table}" WHERE "shouldUpdateSequenceId"'.encode()):
                if count:
                    left.append(f"{count} rows of {table} to stamp")
        invitations = (
            'SELECT count(*) FROM "VerificationCode" WHERE "shouldUpdateSequenceId" AND type = \'TEAM_INVITATION\''
        )
        for (count,) in conn.execute(invitations.encode()):
            if count:
                left.append(f"{count} invitations to stamp")
        for entry in conn.execute(
            f'SELECT "deduplicationKey", "startedFulfillingAt" FROM "OutgoingRequest" WHERE {OURS}'.encode()
        ):
            left.append(f"queue entry {entry[0]} claimed {entry[1]}")
        for row in conn.execute("SELECT tenancy_id, database_id, leased_at FROM stackctl.pending_delivery"):
            left.append(f"database due {' '.join(map(str, row))}")
        for row in conn.execute(
            "SELECT tenancy_id, database_id, last_error_code, next_attempt_at FROM stackctl.delivery"
        ):
            left.append(f"failing database {' '.join(map(str, row))}")
    return left


def wait_until_clean(world: World, patience: float, working: Callable[[], bool]) -> list[str]:
    """Until nothing is left to do, or nobody is `working`; what is left then. A retry's time always comes early."""
    deadline = time.monotonic() + patience
    while (left := unfinished(world)) and working() and time.monotonic() < deadline:
        with world.connect("source") as conn:
            conn.execute("UPDATE stackctl.delivery SET next_attempt_at = least(next_attempt_at, clock_timestamp())")
        time.sleep(0.5)
    return left
