"""What the pipeline's tests share: a backend's rows, a project directory, and passes of the pipeline."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import yaml
from psycopg import sql
from psycopg.types.json import Jsonb

from stackctl.config.settings import Flags, Settings
from stackctl.sync import service
from stackctl.sync.engine.database_sync import DatabaseResult, SyncOptions
from stackctl.sync.pipeline import Pipeline
from stackctl.sync.queue import entries, retries
from stackctl.sync.stop import Stop
from tests import forked
from tests.comparison import Comparison, compare

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from stackctl.sync.changes.sequencer import SequenceResult
    from stackctl.sync.engine.poller import PollResult

Connection = psycopg.Connection[Any]

MINE, OTHER = uuid.UUID(int=0xA), uuid.UUID(int=0xB)
BRANCHES = {MINE: "main", OTHER: "other"}
MAPPINGS = (
    "connected_accounts", "contact_channels", "email_outboxes", "notification_preferences", "project_permissions",
    "refresh_tokens", "team_invitations", "team_member_profiles", "team_permissions", "teams", "users",
)  # fmt: skip
SEQUENCER_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('stackctl.sequencer', 0))"
ENTRY = {"url": "/api/latest/internal/external-db-sync/sync-engine"}
DEADLINE = 30.0  # seconds after which a test gives up on something that must happen at once


# -- the backend's rows


def seed_tenancies(conn: Connection) -> None:
    insert(conn, "Project", {"id": "p", "updatedAt": "now", "displayName": "P", "isProductionMode": False})
    for tenancy, branch in BRANCHES.items():
        conn.execute(
            'INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")'
            " VALUES (%s, now(), 'p', %s, 'TRUE')",
            (tenancy, branch),
        )


def insert(conn: Connection, table: str, values: dict[str, Any]) -> None:
    """One row; dicts and lists become JSON."""
    plain = {name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()}
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, plain)),
            sql.SQL(", ").join(map(sql.Placeholder, plain)),
        ),
        plain,
    )


def add_user(conn: Connection, tenancy: uuid.UUID = MINE, id: uuid.UUID | None = None, **values: Any) -> uuid.UUID:
    user = id or uuid.uuid4()
    row = {"tenancyId": tenancy, "projectUserId": user, "updatedAt": "now", "mirroredProjectId": "p"}
    insert(conn, "ProjectUser", row | {"mirroredBranchId": BRANCHES[tenancy], "displayName": "user"} | values)
    return user


def add_channel(conn: Connection, user: uuid.UUID, value: str, tenancy: uuid.UUID = MINE, **values: Any) -> uuid.UUID:
    """A primary, verified e-mail channel unless `values` say otherwise."""
    channel = uuid.uuid4()
    row = {"tenancyId": tenancy, "projectUserId": user, "id": channel, "updatedAt": "now", "type": "EMAIL"}
    insert(conn, "ContactChannel", row | {"isPrimary": "TRUE", "isVerified": True, "value": value} | values)
    return channel


def add_team(conn: Connection, tenancy: uuid.UUID = MINE, **values: Any) -> uuid.UUID:
    team = uuid.uuid4()
    row = {"tenancyId": tenancy, "teamId": team, "updatedAt": "now", "mirroredProjectId": "p"}
    insert(conn, "Team", row | {"mirroredBranchId": BRANCHES[tenancy], "displayName": "team"} | values)
    return team


def add_invitation(conn: Connection, team: uuid.UUID, tenancy: uuid.UUID = MINE, **values: Any) -> uuid.UUID:
    code = uuid.uuid4()
    row = {"projectId": "p", "branchId": BRANCHES[tenancy], "id": code, "updatedAt": "now", "code": str(code)}
    row |= {"type": "TEAM_INVITATION", "expiresAt": "2030-01-01", "data": {"team_id": str(team)}}
    insert(conn, "VerificationCode", row | {"method": {"email": "guest@example.com"}} | values)
    return code


def add_account(conn: Connection, user: uuid.UUID | None, tenancy: uuid.UUID = MINE) -> uuid.UUID:
    account = uuid.uuid4()
    insert(conn, "ProjectUserOAuthAccount",
           {"tenancyId": tenancy, "id": account, "projectUserId": user, "updatedAt": "now",
            "configOAuthProviderId": "github", "providerAccountId": str(account)})  # fmt: skip
    return account


@dataclass(frozen=True)
class Rows:
    """Ids of what `populate` made."""

    user: uuid.UUID
    team: uuid.UUID
    channel: uuid.UUID
    invitation: uuid.UUID
    account: uuid.UUID


def populate(conn: Connection, tenancy: uuid.UUID = MINE) -> Rows:
    """One user and one team with a row for every one of the eleven mappings."""
    user = add_user(conn, tenancy, displayName=f"user of {tenancy}")
    channel = add_channel(conn, user, f"{user}@example.com", tenancy, usedForAuth="TRUE")
    team = add_team(conn, tenancy, displayName=f"team of {tenancy}")
    own = {"tenancyId": tenancy, "projectUserId": user}
    insert(conn, "TeamMember", own | {"teamId": team, "updatedAt": "now"})
    permission = {"id": uuid.uuid4(), "updatedAt": "now", "permissionId": "read"}
    insert(conn, "TeamMemberDirectPermission", own | permission | {"teamId": team})
    insert(conn, "ProjectUserDirectPermission", own | permission)
    insert(conn, "UserNotificationPreference",
           own | {"id": uuid.uuid4(), "notificationCategoryId": uuid.uuid4(), "enabled": True})  # fmt: skip
    insert(conn, "ProjectUserRefreshToken", own | {"id": uuid.uuid4(), "updatedAt": "now", "refreshToken": str(user)})
    account = add_account(conn, user, tenancy)
    invitation = add_invitation(conn, team, tenancy)
    insert(conn, "EmailOutbox",
           {"tenancyId": tenancy, "id": uuid.uuid4(), "updatedAt": "now", "tsxSource": "x", "isHighPriority": False,
            "to": {}, "extraRenderVariables": {}, "createdWith": "DRAFT", "shouldSkipDeliverabilityCheck": False,
            "scheduledAt": "2024-01-01"})  # fmt: skip
    return Rows(user, team, channel, invitation, account)


def add_many_users(conn: Connection, count: int, tenancy: uuid.UUID = MINE, first: int = 1) -> None:
    """Users with the ids first, first + 1, …"""
    conn.execute(
        'INSERT INTO "ProjectUser" ("projectUserId", "updatedAt", "displayName", "tenancyId", "mirroredBranchId",'
        " \"mirroredProjectId\") SELECT lpad(to_hex(n), 32, '0')::uuid, now(), 'user ' || n, %s, %s, 'p'"
        " FROM generate_series(%s::int, %s::int) AS n",
        (tenancy, BRANCHES[tenancy], first, first + count - 1),
    )


@contextmanager
def no_capture(conn: Connection, *tables: str) -> Iterator[None]:
    """What is changed in these tables is neither marked nor recorded, and cascades nowhere."""
    for table in tables:
        conn.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
    conn.execute("SET session_replication_role = replica")
    yield
    conn.execute("RESET session_replication_role")
    for table in tables:
        conn.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(table)))


def fetch(conn: Connection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return conn.execute(cast("LiteralString", query), parameters).fetchall()


def one(conn: Connection, query: str, *parameters: Any) -> Any:
    """The first column of the only row."""
    ((value, *_),) = fetch(conn, query, *parameters)
    return value


# -- waiting for what another connection or process does


def wait_for(condition: Callable[[], Any]) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def wait_until_blocked(conn: Connection, name: str = "stackctl%") -> None:
    """Until a session with this application name waits for a lock in this connection's database."""
    wait_for(lambda: fetch(
        conn, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
        " AND wait_event_type = 'Lock'", name))  # fmt: skip


# -- a project directory


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


class Project:
    """A directory with a stackctl.yaml, and the installed command run in it."""

    def __init__(self, directory: Path, database_url: str | None = None) -> None:
        self.directory = directory
        self.settings: dict[str, Any] = {"version": 1}
        if database_url is not None:
            self.settings["database"] = {"url": database_url}

    def postgres(self, tenancy: uuid.UUID, url: str, name: str = "analytics", **options: Any) -> Project:
        return self._database(tenancy, name, {"type": "postgres", "url": url} | options)

    def sqlite(self, tenancy: uuid.UUID, path: str = "copy.db", name: str = "local", **options: Any) -> Project:
        return self._database(tenancy, name, {"type": "sqlite", "path": path} | options)

    def duckdb(self, tenancy: uuid.UUID, path: str = "copy.duckdb", name: str = "duck", **options: Any) -> Project:
        return self._database(tenancy, name, {"type": "duckdb", "path": path} | options)

    def _database(self, tenancy: uuid.UUID, name: str, options: dict[str, Any]) -> Project:
        tenancies = self.settings.setdefault("tenancies", {})
        tenancies.setdefault(str(tenancy), {"external_databases": {}})["external_databases"][name] = options
        return self

    def sync_settings(self, **values: Any) -> Project:
        self.settings.setdefault("sync", {}).update(values)
        return self

    def write(self) -> Path:
        path = self.directory / "stackctl.yaml"
        text = yaml.safe_dump(self.settings, sort_keys=False)
        # A command that was started may be reading it.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        return path

    def pipeline(self) -> Pipeline:
        return Pipeline(Settings(Flags(config=self.write()), environ={}, cwd=self.directory))

    def start(
        self,
        *arguments: object,
        point: str | None = None,
        count: int = 1,
        before: str | None = None,
        fresh: bool = False,
    ) -> subprocess.Popen[str]:
        """Begin the command; with a `point` it dies there (tests/chaos/faults.py), the `count`th time it comes by.

        `before`: Python that its process runs first.
        """  # fmt: skip
        self.write()
        if point is not None:
            before = f"{before or 'pass'}; from tests.chaos import faults; faults.arm({point!r}, {count})"
        environ = os.environ | {"PYTHONUNBUFFERED": "1"}
        return forked.start(arguments, cwd=self.directory, env=environ, before=before, fresh=fresh)

    def run(self, *arguments: object, **options: Any) -> Outcome:
        return ended(self.start(*arguments, **options))


def ended(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a started command."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=2 * DEADLINE)
        finally:
            process.kill()
    assert isinstance(process.args, list)
    forked.check_exit_code(process.args, process.returncode, stderr)
    return Outcome(process.returncode, stdout, stderr)


# Everything that waits to be delivered, or is being delivered.
QUEUED = 'SELECT 1 FROM "OutgoingRequest" UNION ALL SELECT 1 FROM stackctl.pending_delivery'


def claim_as_another(conn: Connection) -> uuid.UUID:
    """The oldest pending entry, claimed as the backend's own poller does it."""
    return one(conn, """
        UPDATE "OutgoingRequest" SET "startedFulfillingAt" = clock_timestamp() AT TIME ZONE 'UTC' WHERE id = (
            SELECT id FROM "OutgoingRequest" WHERE "startedFulfillingAt" IS NULL ORDER BY "createdAt" LIMIT 1)
        RETURNING id
    """)  # fmt: skip


# -- passes of the pipeline in this process


def sequence(pipeline: Pipeline, batch_size: int = 1000) -> SequenceResult:
    return service.sequence(pipeline, Stop(), batch_size=batch_size, interval=None, reports=service.Reports())


def poll(pipeline: Pipeline, lease: timedelta = entries.LEASE) -> PollResult:
    return service.poll(pipeline, Stop(), claim_limit=8, interval=None, reports=service.Reports(), lease=lease)


def sync(pipeline: Pipeline, *, full: bool = False, batch_size: int = 20_000) -> list[DatabaseResult]:
    """Sync every configured database."""
    options = SyncOptions(batch_size=batch_size, full=full)
    return service.sync(pipeline, service.Scope(None), options, Stop(), service.Reports())


def settle(pipeline: Pipeline) -> None:
    """Stamp and send everything; nothing may fail."""
    sequence(pipeline)
    errors = [result.error for result in sync(pipeline) if result.error is not None]
    if errors:
        raise errors[0]


def comparisons(pipeline: Pipeline) -> Iterator[Comparison]:
    """Every mapping of every configured database against its source."""
    with pipeline.open_session() as conn:
        for tenancy, databases in pipeline.databases.items():
            for database in databases:
                target = pipeline.open_target(database)
                try:
                    for compiled in pipeline.compile_mappings(database):
                        yield compare(conn, target, compiled.mapping, tenancy)
                finally:
                    target.close()


def differences(pipeline: Pipeline) -> list[Comparison]:
    return [comparison for comparison in comparisons(pipeline) if not comparison.equal]


def failures(pipeline: Pipeline) -> list[retries.Failure]:
    with pipeline.open_session() as conn:
        return retries.list_failures(conn)
