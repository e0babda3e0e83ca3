"""What the benchmarks share: a server of their own, a filled backend, a configuration, and the pipeline's passes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, cast
from uuid import UUID

import psycopg
import yaml

from stackctl.config.settings import Flags, Settings
from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.postgres import embedded
from stackctl.sync import service
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.pipeline import Pipeline
from stackctl.sync.reports import Reports
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stackctl.sync.changes.sequencer import SequenceResult
    from stackctl.sync.engine.database_sync import DatabaseResult

Connection = psycopg.Connection[Any]

TENANCY = UUID("6fbbf22e-f4b2-4c6e-95a1-beab6fa41063")
STAMP_BATCH = 1000  # rows, as sync.stamp_batch_size is by default
SYNC_BATCH = 20_000  # keys, as sync.batch_size is by default

_SEED = """
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode") VALUES ('p', now(), 'Bench', false);
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES ('6fbbf22e-f4b2-4c6e-95a1-beab6fa41063', now(), 'p', 'main', 'TRUE');
"""
_USERS = """
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
    "displayName", "clientMetadata")
SELECT gen_random_uuid(), %(tenancy)s, 'p', 'main', now(), 'User ' || n, jsonb_build_object('n', n)
FROM generate_series(1, %(users)s) AS n
"""
_CHANNELS = """
INSERT INTO "ContactChannel" (id, "projectUserId", "tenancyId", "updatedAt", type, "isPrimary", "isVerified", value,
    "usedForAuth")
SELECT gen_random_uuid(), "projectUserId", "tenancyId", now(), 'EMAIL', 'TRUE', true, "projectUserId" || '@example.com',
    'TRUE'
FROM "ProjectUser"
"""


@dataclass(frozen=True)
class Figure:
    """One row of the table. `ratio` is None where nothing was measured; `reached` where there is no goal in numbers."""

    name: str
    what: str
    measured: str
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None

    def has_regressed(self, recorded: float | None, noise: float) -> bool:
        """Whether the ratio is worse than that which was recorded, by more than the part that `noise` leaves."""
        if self.ratio is None or recorded is None or not self.goal:
            return False
        return self.ratio > recorded / noise if self.goal.startswith("≤") else self.ratio < recorded * noise


def at_least(name: str, what: str, measured: str, *, ratio: float, goal: float) -> Figure:
    """A figure whose ratio should be no less than the goal."""
    return Figure(name, what, measured, ratio, f"≥ {goal:g}", ratio >= goal)


def at_most(name: str, what: str, measured: str, *, ratio: float, goal: float) -> Figure:
    """A figure whose ratio should be no more than the goal."""
    return Figure(name, what, measured, ratio, f"≤ {goal:g}", ratio <= goal)


@dataclass
class Scene:
    """A server of the benchmarks' own in `directory`; `rows` is how many users a full measurement moves."""

    directory: Path
    rows: int
    server: embedded.EmbeddedServer = field(init=False)

    def __post_init__(self) -> None:
        # The same for both sides of every ratio: what the disk's flush costs would drown what is compared.
        options = {"fsync": "off", "max_wal_size": "4GB", "autovacuum": "off"}
        self.server = embedded.attach(self.directory / "pg", options=options)

    def fresh(self, name: str) -> Connection:
        """An empty database of that name, connected in autocommit mode."""
        with psycopg.connect(self.server.url(), autocommit=True) as conn:
            conn.execute(cast("LiteralString", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        self.server.ensure_database(name)
        return self.connect(name)

    def connect(self, name: str) -> Connection:
        return psycopg.connect(self.server.url(name), autocommit=True)

    def backend(self, users: int, name: str = "backend") -> Connection:
        """A migrated backend with one tenancy and that many users with a channel each, all of them marked."""
        conn = self.fresh(name)
        apply_migrations(conn, discover(find_bundled("migrations")))
        conn.execute(_SEED)
        conn.execute(_USERS, {"tenancy": TENANCY, "users": users})
        conn.execute(_CHANNELS)
        conn.execute("VACUUM ANALYZE")
        return conn

    def pipeline(self, tenancies: dict[UUID, dict[str, dict[str, Any]]], backend: str = "backend") -> Pipeline:
        """The pipeline of a configuration with these external databases by tenancy and name."""
        configured = {str(tenancy): {"external_databases": databases} for tenancy, databases in tenancies.items()}
        config = self.directory / "stackctl.yaml"
        config.write_text(yaml.safe_dump({"database": {"url": self.server.url(backend)}, "tenancies": configured}))
        return Pipeline(Settings(Flags(config=config), environ={}, cwd=self.directory))


def stamp(pipeline: Pipeline, batch_size: int = STAMP_BATCH) -> SequenceResult:
    """One pass of the sequencer."""
    return service.sequence(pipeline, Stop(), batch_size=batch_size, interval=None, reports=Reports())


def sync(pipeline: Pipeline) -> list[DatabaseResult]:
    """`sync --all`; raises what failed."""
    results = service.sync(pipeline, service.Scope(None), SyncOptions(SYNC_BATCH), Stop(), Reports())
    for result in results:
        if result.error is not None:
            raise result.error
    return results


def run(conn: Connection, statement: str, *parameters: Any) -> Any:
    """The first column of the first row, if there is one; for statements that a benchmark composes."""
    cursor = conn.execute(cast("LiteralString", statement), parameters or None)
    row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(rounds: int, **ways: Callable[[], float]) -> dict[str, float]:
    """The median of what each way returns; the ways take turns, so that other work on the machine falls on all."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        names = list(ways) if turn % 2 == 0 else list(reversed(ways))
        for name in names:
            measured[name].append(ways[name]())
    return {name: statistics.median(times) for name, times in measured.items()}
