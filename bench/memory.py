"""Peak memory of a sync of many users, in its own process: bounded by the batch, not by the table.

    python -m bench.memory [--users 1000000]

Prints, for each kind of external database, the peak resident memory and the time of a first load, and of sending
every row again in batches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from stackctl import embedded
from stackctl.bundled import bundled
from stackctl.migrate.apply import up
from stackctl.migrate.files import discover

TENANCY = "6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"
GOAL = 300  # MB

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
_TOUCH = 'UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        directory = Path(name)
        server = embedded.attach(directory / "pg", options={"fsync": "off", "max_wal_size": "4GB"})
        try:
            for database in ("backend", "analytics"):
                server.ensure_database(database)
            config = _configure(directory)
            with psycopg.connect(server.url("backend"), autocommit=True) as conn:
                up(conn, discover(bundled("migrations")))
                conn.execute(_SEED)
                conn.execute(_USERS, {"tenancy": TENANCY, "users": users})
                conn.execute(_CHANNELS)
                _run(config, "sequence", "--batch-size", "20000")
                print(f"{users:,} users with a channel each; goal: under {GOAL} MB\n")
                print(f"{'sync of users':<28}{'into':<12}{'peak MB':>8}{'seconds':>9}{'rows/s':>10}")
                for database in ("analytics", "local"):
                    _measure("first load", config, database, users)
                conn.execute(_TOUCH)
                _run(config, "sequence", "--batch-size", "20000")
                for database in ("analytics", "local"):
                    _measure("every row again, in batches", config, database, users)
        finally:
            server.release()


def _configure(directory: Path) -> Path:
    config = directory / "stackctl.yaml"
    config.write_text(
        f"""
database: {{url: "embedded:./pg?dbname=backend"}}
tenancies:
  {TENANCY}:
    external_databases:
      analytics: {{type: postgres, url: "embedded:./pg?dbname=analytics", mappings: [users]}}
      local: {{type: sqlite, path: ./local.db, mappings: [users]}}
"""
    )
    return config


def _run(config: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "stackctl", *arguments, "--config", str(config), "--json", "--quiet"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _measure(title: str, config: Path, database: str, users: int) -> None:
    command = [sys.executable, "-m", "stackctl", "sync", "--all", "--database", database, "--json", "--quiet"]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([*command, "--config", str(config)], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        output.seek(0)
        result = json.load(output)
    sent = result["databases"][0]["mappings"][0]["upserted"]
    if process.returncode or sent != users:
        sys.exit(f"{title} into {database}: exit {process.returncode}, {sent} rows sent")
    peak = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)
    print(f"{title:<28}{database:<12}{peak:>8.0f}{seconds:>9.1f}{users / seconds:>10,.0f}")


if __name__ == "__main__":
    main()
