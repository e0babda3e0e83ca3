"""The highest rate of changes that `run` keeps up with, against PostgreSQL's own logical replication of the same table.

    python -m bench.sustained [--seconds 10]

Two writers commit changes of ROWS rows of a table of USERS at a fixed rate, on the server that also does the rest. A
rate is kept up with while the 99th percentile from commit to visible stays under LATE. Reads /proc: needs Linux.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg

from bench.idle import measure_ticks
from bench.latency import TENANCY, running
from bench.scene import Figure, at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from bench.latency import Running
    from bench.scene import Scene

NAMES = ("sustained",)
USERS = 20_000
ROWS = 5  # changed by a commit
WRITERS = 2
RATES = (2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000, 16_000, 20_000)  # rows a second
LATE = 250.0  # ms
GOAL, GOAL_P99 = 0.85, 50.0  # of logical replication's rate; ms
LOOK = 0.001  # seconds between two looks at the copy
PROBE_PAUSE = 0.03  # seconds between two probes
PATIENCE = 20.0  # seconds
KEPT = 0.95  # of the rate that the writers must reach for it to count

_CHANGE: LiteralString = """
UPDATE "ProjectUser" SET "displayName" = %s WHERE "tenancyId" = %s AND "projectUserId" = ANY (%s)
"""
_FILL: LiteralString = """
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
    "displayName")
SELECT gen_random_uuid(), %s, 'p', 'main', now(), 'User ' || n FROM generate_series(1, %s) AS n
"""
_COLUMNS: LiteralString = """
SELECT string_agg(format('%I %s', attname, CASE WHEN typtype = 'e' THEN 'text' ELSE format_type(t.oid, atttypmod) END),
                  ', ')
FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid
WHERE attrelid = '"ProjectUser"'::regclass AND attnum > 0 AND NOT attisdropped
"""


@dataclass(frozen=True)
class Step:
    """One rate: ms from commit to visible; processor seconds a million rows, of stackctl and of the server."""

    rate: int
    median: float
    p99: float
    own_cpu: float
    server_cpu: float


def _write(url: str, ids: list[uuid.UUID], rate: float, seconds: float, done: Any) -> None:
    """A writer: commits at a fixed rate; puts how many it made."""
    pick = random.Random(os.getpid())
    commits = 0
    with psycopg.connect(url, autocommit=True) as conn:
        started = time.monotonic()
        while (now := time.monotonic()) - started < seconds:
            due = started + commits / rate
            if due > now:
                time.sleep(due - now)
            conn.execute(_CHANGE, (f"v{commits}", TENANCY, sorted(pick.sample(ids, ROWS))))
            commits += 1
    done.put(commits)


def _measure(service: Running, is_visible: Callable[[uuid.UUID, str], bool], rate: int, seconds: float) -> Step | None:
    """None: the writers or the copy could not keep up."""
    found = service.source.execute('SELECT "projectUserId" FROM "ProjectUser" ORDER BY 1').fetchall()
    probe, *ids = [row[0] for row in found]
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    url = service.server.url("backend")
    each = rate / ROWS / WRITERS
    writers = [context.Process(target=_write, args=(url, ids, each, seconds, done)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    latencies: list[float] = []
    before, started = measure_ticks(service), time.monotonic()
    while any(writer.is_alive() for writer in writers):
        value = uuid.uuid4().hex
        service.source.execute(_CHANGE, (value, TENANCY, [probe]))
        committed = time.perf_counter()
        while not is_visible(probe, value) and time.perf_counter() - committed < PATIENCE:
            time.sleep(LOOK)
        latencies.append((time.perf_counter() - committed) * 1000)
        time.sleep(PROBE_PAUSE)
    own, server = (after - at for after, at in zip(measure_ticks(service), before, strict=True))
    commits = sum(done.get() for _ in writers)
    for writer in writers:
        writer.join()
    p99 = statistics.quantiles(latencies, n=100)[98]
    if p99 > LATE or commits < KEPT * each * WRITERS * seconds:
        written = commits * ROWS / (time.monotonic() - started)
        print(f"  {rate:,} rows/s: {written:,.0f} written, p99 {p99:.0f} ms: too much", file=sys.stderr)
        return None
    millions = commits * ROWS / 1e6 * os.sysconf("SC_CLK_TCK")
    step = Step(rate, statistics.median(latencies), p99, own / millions, server / millions)
    print(f"  {step}", file=sys.stderr)
    return step


@contextmanager
def _replicated(service: Running) -> Iterator[psycopg.Connection[Any]]:
    """A database of the same server that subscribes to the table."""
    service.server.ensure_database("replica")
    columns = service.source.execute(_COLUMNS).fetchone()
    with psycopg.connect(service.server.url("replica"), autocommit=True) as replica:
        replica.execute(cast("LiteralString", f'CREATE TABLE "ProjectUser" ({(columns or ("",))[0]})'))
        replica.execute('ALTER TABLE "ProjectUser" ADD PRIMARY KEY ("tenancyId", "projectUserId")')
        service.source.execute('CREATE PUBLICATION bench FOR TABLE "ProjectUser"')
        # By hand: CREATE SUBSCRIPTION would wait for itself on its own server.
        service.source.execute("SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
        place = service.server.url("backend")
        replica.execute(
            cast("LiteralString", f"CREATE SUBSCRIPTION bench CONNECTION '{place}' PUBLICATION bench"
                 " WITH (create_slot = false, slot_name = 'bench')")
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while replica.execute("SELECT every(srsubstate = 'r') FROM pg_subscription_rel").fetchone() != (True,):
            assert time.monotonic() < deadline, "the subscription did not start"
            time.sleep(0.05)
        yield replica
        replica.execute("DROP SUBSCRIPTION bench")


def measure_sustained(seconds: float) -> tuple[Step | None, Step | None]:
    """The highest rate of stackctl's, then of logical replication's; stackctl does not run beside the latter."""
    with running("poll", {"wal_level": "logical", "fsync": "off"}) as service:
        service.source.execute(_FILL, (TENANCY, USERS))
        service.source.execute("VACUUM ANALYZE")
        ours = "SELECT display_name = %s FROM users WHERE id = %s"
        deadline = time.monotonic() + PATIENCE
        while not _is_true(service.target, "SELECT count(*) >= %s FROM users", USERS):
            assert time.monotonic() < deadline, "the users did not arrive"
            time.sleep(0.1)
        best = _find_highest(service, lambda user, value: _is_true(service.target, ours, value, user), seconds)
        service.process.terminate()
        service.process.wait(PATIENCE)
        theirs = 'SELECT "displayName" = %s FROM "ProjectUser" WHERE "projectUserId" = %s AND "tenancyId" = %s'
        with _replicated(service) as replica:
            limit = _find_highest(service, lambda user, value: _is_true(replica, theirs, value, user, TENANCY), seconds)
    return best, limit


def _find_highest(service: Running, is_visible: Callable[[uuid.UUID, str], bool], seconds: float) -> Step | None:
    best: Step | None = None
    for rate in RATES:
        step = _measure(service, is_visible, rate, seconds)
        if step is None:
            break
        best = step
    return best


def _is_true(conn: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> bool:
    return conn.execute(query, parameters).fetchone() == (True,)


def figures(scene: Scene, wanted: Collection[str], seconds: float = 10.0) -> Iterator[Figure]:
    """The row of the table, on a server of its own."""
    best, limit = measure_sustained(seconds)
    assert limit is not None, "logical replication kept up with no rate at all"
    what = f"two writers, {ROWS} rows a commit, against logical replication"
    if best is None:
        yield Figure("sustained", what, f"not even {RATES[0]:,} rows/s", 0.0, f"≥ {GOAL:g}", reached=False)
        return
    yield at_least("sustained", what, f"{_tell(best)}; {_tell(limit)}", ratio=best.rate / limit.rate, goal=GOAL)
    yield Figure("sustained", "the 99th percentile at that rate", f"{best.p99:.0f} ms", None, f"< {GOAL_P99:.0f} ms",
                 best.p99 < GOAL_P99)  # fmt: skip


def _tell(step: Step) -> str:
    return (
        f"{step.rate:,} rows/s, median {step.median:.0f} ms, p99 {step.p99:.0f} ms,"
        f" {step.own_cpu:.0f} + {step.server_cpu:.0f} CPU s a million rows (own + server)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each rate")
    best, limit = measure_sustained(parser.parse_args().seconds)
    for name, step in (("stackctl", best), ("logical replication", limit)):
        print(f"{name:<20} {_tell(step) if step else 'nothing'}")


if __name__ == "__main__":
    main()
