"""Many tenancies: one pass of sequencer and poller serves all, and costs what changed, not what there is."""

from __future__ import annotations

import sqlite3
import statistics
import time
from typing import TYPE_CHECKING
from uuid import UUID

from bench.scene import Figure, at_most, run, stamp
from stackctl.sync import service
from stackctl.sync.reports import Reports
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from bench.scene import Connection, Scene
    from stackctl.sync.pipeline import Pipeline

NAMES = ("tenancies", "tenancies-cost")
MANY, FEW = 10_000, 1_000
CONFIGURED = 200  # tenancies with an external database; the others' queue entries end at once
CHANGES = 1_000
USERS_EACH = 20  # users a tenancy in the large backend, one in the small
CLAIM_LIMIT = 8
ROUNDS = 3

_TENANCIES = """
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
SELECT lpad(to_hex(n), 32, '0')::uuid, now(), 'p', 'b' || n, 'TRUE' FROM generate_series(1, %s::int) AS n
"""
_USERS = """
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
    "displayName")
SELECT gen_random_uuid(), lpad(to_hex(n), 32, '0')::uuid, 'p', 'b' || n, now(), 'User ' || m
FROM generate_series(1, %s::int) AS m, generate_series(1, %s::int) AS n
"""
_CHANGE = """
UPDATE "ProjectUser" SET "displayName" = %s || "displayName"
WHERE ("tenancyId", "projectUserId") IN (
    SELECT DISTINCT ON ("tenancyId") "tenancyId", "projectUserId" FROM "ProjectUser"
    WHERE "tenancyId" <= lpad(to_hex(%s::int), 32, '0')::uuid ORDER BY "tenancyId", "projectUserId")
"""


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table that `wanted` names, of NAMES."""
    if "tenancies" in wanted:
        yield _one_pass(scene)
    if "tenancies-cost" in wanted:
        yield _cost(scene)


def _one_pass(scene: Scene) -> Figure:
    source = _fill(scene, "many", MANY, 1)
    databases = scene.directory / "tenancies"
    databases.mkdir()
    pipeline = scene.pipeline({UUID(int=n): {"copy": _file(databases, n)} for n in _spread()}, "many")
    started = time.perf_counter()
    stamped = stamp(pipeline)
    sequenced = time.perf_counter()
    polled = _poll(pipeline)
    ended = time.perf_counter()
    left = run(source, 'SELECT count(*) FROM "OutgoingRequest"')
    starved = sum(_rows(databases, n) != 1 for n in _spread())
    source.close()
    measured = (
        f"{stamped.rows:,} rows stamped in {sequenced - started:.1f} s; {polled:,} queue entries, {CONFIGURED} SQLite "
        f"databases in {ended - sequenced:.1f} s; {left + starved} starved"
    )
    served = stamped.rows == polled == MANY and not left and not starved
    return Figure("tenancies", f"{MANY:,} tenancies, one change each: one pass", measured, None, "0 starved", served)


def _cost(scene: Scene) -> Figure:
    backends = {"small": (FEW, 1), "large": (MANY, USERS_EACH)}
    sources = {name: _fill(scene, name, *size) for name, size in backends.items()}
    times: dict[str, list[float]] = {name: [] for name in backends}
    for turn in range(ROUNDS + 1):
        for name, source in sources.items():
            pipeline = scene.pipeline({}, name)
            if turn == 0:
                stamp(pipeline, 20_000)
                source.execute('TRUNCATE "OutgoingRequest"')
                source.execute("VACUUM ANALYZE")
            run(source, _CHANGE, f"{turn} ", CHANGES)
            started = time.perf_counter()
            stamped, polled = stamp(pipeline), _poll(pipeline)
            if turn:  # the first is for the caches
                times[name].append(time.perf_counter() - started)
            if (stamped.rows, polled) != (CHANGES, CHANGES):
                raise RuntimeError(f"{stamped.rows} rows were stamped and {polled} entries done, not {CHANGES}")
    for source in sources.values():
        source.close()
    small, large = (statistics.median(times[name]) for name in backends)
    measured = f"{large * 1000:,.0f} ms; {small * 1000:,.0f} ms in {FEW:,} tenancies of one row"
    what = f"{CHANGES:,} changes in {MANY:,} tenancies, {MANY * USERS_EACH:,} rows: one pass, against a small backend"
    return at_most("tenancies-cost", what, measured, ratio=large / small, goal=1.5)


def _fill(scene: Scene, name: str, tenancies: int, users: int) -> Connection:
    source = scene.backend(0, name)
    source.execute('TRUNCATE "Tenancy" CASCADE')
    source.execute('DELETE FROM "DeletedRow"')
    run(source, _TENANCIES, tenancies)
    run(source, _USERS, users, tenancies)
    source.execute("VACUUM ANALYZE")
    return source


def _spread() -> range:
    return range(1, MANY + 1, MANY // CONFIGURED)


def _file(directory: Path, tenancy: int) -> dict[str, object]:
    return {"type": "sqlite", "path": str(directory / f"{tenancy}.db"), "mappings": ["users"]}


def _rows(directory: Path, tenancy: int) -> int:
    path = directory / f"{tenancy}.db"
    if not path.exists():
        return 0
    copy = sqlite3.connect(path)
    try:
        return copy.execute("SELECT count(*) FROM users").fetchone()[0]
    finally:
        copy.close()


def _poll(pipeline: Pipeline) -> int:
    """One pass of the poller; how many entries it delivered."""
    return service.poll(pipeline, Stop(), claim_limit=CLAIM_LIMIT, interval=None, reports=Reports()).delivered
