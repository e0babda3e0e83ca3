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

from bench.scene import TENANCY, Scene

GOAL = 300  # MB
DATABASES = ("analytics", "local", "lake")

_TOUCH = 'UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        directory = Path(name)
        scene = Scene(directory, users)
        try:
            scene.server.ensure_database("analytics")
            config = _configure(directory)
            with scene.backend(users) as conn:
                _run(config, "sequence", "--batch-size", "20000")
                print(f"{users:,} users with a channel each; goal: under {GOAL} MB\n")
                print(f"{'sync of users':<28}{'into':<12}{'peak MB':>8}{'seconds':>9}{'rows/s':>10}")
                for database in DATABASES:
                    _measure("first load", config, database, users)
                conn.execute(_TOUCH)
                _run(config, "sequence", "--batch-size", "20000")
                for database in DATABASES:
                    _measure("every row again, in batches", config, database, users)
        finally:
            scene.server.release()


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
      lake: {{type: duckdb, path: ./lake.duckdb, mappings: [users]}}
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
