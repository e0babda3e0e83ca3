"""From the commit of one row to its being visible in the external database, with `run` idle before.

python -m bench.latency [--wakeup poll|notify] [--samples 200]
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, LiteralString

import psycopg
import yaml

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

Wakeup = Literal["poll", "notify"]

TENANCY = uuid.UUID("6fbbf22e-f4b2-4c6e-95a1-beab6fa41063")
GOALS: dict[Wakeup, tuple[float, float]] = {"poll": (45.0, 80.0), "notify": (8.0, 25.0)}  # ms: median, p99
PATIENCE = 30.0  # seconds
LOOK = 0.0003  # seconds between two looks at the target

_SEED: LiteralString = """
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode") VALUES ('p', now(), 'Bench', false);
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES ('6fbbf22e-f4b2-4c6e-95a1-beab6fa41063', now(), 'p', 'main', 'TRUE');
"""
_USER: LiteralString = """
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
    "displayName")
VALUES (%s, '6fbbf22e-f4b2-4c6e-95a1-beab6fa41063', 'p', 'main', now(), 'someone')
"""
_VISIBLE: LiteralString = "SELECT true FROM users WHERE id = %s"


class Running:
    """A `stackctl run` on all eleven tables, from one database of `server` into another."""

    def __init__(self, server: embedded.EmbeddedServer, process: subprocess.Popen[str]) -> None:
        self.server = server
        self.process = process
        self.source: psycopg.Connection[Any] = psycopg.connect(server.url("backend"), autocommit=True)
        self.target: psycopg.Connection[Any] = psycopg.connect(server.url("analytics"), autocommit=True)

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def one_row(self) -> float:
        """Milliseconds from the commit of a new row to its being visible."""
        user = uuid.uuid4()
        assert self.target.execute(_VISIBLE, (user,)).fetchone() is None, "a row that is new can't be there already"
        self.source.execute(_USER, (user,))
        committed = time.perf_counter()
        while self.target.execute(_VISIBLE, (user,)).fetchone() is None:
            assert time.perf_counter() - committed < PATIENCE, "the row did not arrive"
            time.sleep(LOOK)
        return (time.perf_counter() - committed) * 1000


@contextmanager
def running(wakeup: Wakeup, options: dict[str, str] | None = None) -> Iterator[Running]:
    """The service on a server of its own, with the settings of a fresh installation, started and idle.

    `options` are the server's.
    """
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        directory = Path(name)
        server = embedded.attach(directory / "pg", options=options)
        try:
            for database in ("backend", "analytics"):
                server.ensure_database(database)
            with psycopg.connect(server.url("backend"), autocommit=True) as conn:
                apply_migrations(conn, discover(find_bundled("migrations")))
                conn.execute(_SEED)
            config = directory / "stackctl.yaml"
            analytics = {"type": "postgres", "url": server.url("analytics")}
            config.write_text(
                yaml.safe_dump(
                    {
                        "database": {"url": server.url("backend")},
                        "sync": {"sequencer_interval": "50ms", "poller_interval": "50ms", "wakeup": wakeup},
                        "tenancies": {str(TENANCY): {"external_databases": {"analytics": analytics}}},
                    }
                )
            )
            command = [sys.executable, "-m", "stackctl", "run", "--json", "--config", str(config)]
            with (directory / "log").open("w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
                try:
                    _wait_until_loaded(server, process)
                    service = Running(server, process)
                    try:
                        for _ in range(10):  # plans are made, connections open
                            service.one_row()
                        yield service
                    finally:
                        service.close()
                finally:
                    process.terminate()
                    process.wait(PATIENCE)
        finally:
            server.release()


def _wait_until_loaded(server: embedded.EmbeddedServer, process: subprocess.Popen[str]) -> None:
    """Until the first sweep has made the target's tables."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(server.url("analytics"), autocommit=True) as conn:
        while conn.execute("SELECT to_regclass('users') IS NOT NULL").fetchone() != (True,):
            assert process.poll() is None, "stackctl run has ended"
            assert time.monotonic() < deadline, "stackctl run did not start"
            time.sleep(0.05)


def measure_latency(wakeup: Wakeup, samples: int = 200) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds of that many single rows, the service idle before each."""
    pause = random.Random(1)
    measured: list[float] = []
    with running(wakeup) as service:
        for _ in range(samples):
            time.sleep(pause.uniform(0.1, 0.2))  # at no fixed distance from a tick
            measured.append(service.one_row())
    return statistics.median(measured), statistics.quantiles(measured, n=100)[98]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wakeup", choices=list(GOALS))
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    reached = True
    for wakeup in GOALS:
        if arguments.wakeup not in (None, wakeup):
            continue
        median, p99 = measure_latency(wakeup, arguments.samples)
        most, longest = GOALS[wakeup]
        good = median < most and p99 < longest
        reached &= good
        print(
            f"{wakeup:<8} median {median:6.1f} ms (goal {most:g})   p99 {p99:6.1f} ms (goal {longest:g})"
            f"{'' if good else '   MISSED'}"
        )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
