"""Values of many megabytes: nothing hangs for their width, and memory is bounded by the widest row, not by the page.

Each command is a process of its own, which says how much more memory it took than it had before it began.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.backend import MINE, Connection, Project, add_user, sequence

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("postgres", "sqlite", "duckdb")
MB = 1024 * 1024
ROOM = 100  # MB besides three times the widest row
OWN = {"duckdb": 256}  # MB that a kind of target has for itself: DuckDB holds a whole group of rows to write it out
DEADLINE = 100.0  # seconds for one command

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of memory")

# What is measured begins after the imports.
_MEASURED = """
import json, re, sys
import psycopg, stackctl.sync.service, stackctl.sync.check.verify, stackctl.sync.check.backfill
from stackctl.sync.targets import {kind}
from stackctl.__main__ import main

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

before = peak()
try:
    main()
finally:
    print("peak", peak() - before, file=sys.stderr)
"""


class Measured:
    """What a command printed, and by how many MB its memory grew."""

    def __init__(self, project: Project, kind: str, *arguments: str) -> None:
        project.write()
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED.format(kind=kind), *arguments, "--json"],
            cwd=project.directory, env=os.environ.copy(), capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        self.code, self.stderr = done.returncode, done.stderr
        assert done.stdout, done.stderr
        self.json: Any = json.loads(done.stdout.splitlines()[0])
        self.grew = float(done.stderr.rpartition("peak")[2])


@pytest.fixture
def target(project: Project, external_db: str) -> Callable[[str], None]:
    """Configure one copy of the users of that kind."""

    def configure(kind: str) -> None:
        if kind == "postgres":
            project.postgres(MINE, external_db, mappings=["users"])
        elif kind == "sqlite":
            project.sqlite(MINE, mappings=["users"])
        else:
            pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
            project.duckdb(MINE, mappings=["users"])

    return configure


def add_wide_users(conn: Connection, megabytes: int, count: int) -> None:
    for _ in range(count):
        user = add_user(conn, displayName="narrow")
        conn.execute(
            'UPDATE "ProjectUser" SET "displayName" = repeat(md5(%s), %s) WHERE "projectUserId" = %s',
            (str(uuid.uuid4()), megabytes * MB // 32, user),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("megabytes", "count"),
    [(1, 60), (36, 3), pytest.param(200, 3, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
)
def test_memory_is_bounded_by_the_widest_row(
    kind: str, megabytes: int, count: int, project: Project, source: Connection, target: Callable[[str], None]
) -> None:
    """A first load, all rows again in pages, a full load over them, and a comparison."""
    target(kind)
    add_user(source, displayName="first")
    add_wide_users(source, megabytes, count)
    sequence(project.pipeline())
    refused = count if kind == "duckdb" and megabytes > 32 else 0
    for command in ("sync --all", "sync --all", "sync --all --full", "verify"):
        measured = Measured(project, kind, *command.split())
        assert measured.code == (1 if refused else 0), json.dumps(measured.json)
        if command.startswith("sync"):
            (database,) = measured.json["databases"]
            assert database.get("error_code") == ("rows-refused" if refused else None)
        assert measured.grew < 3 * megabytes + ROOM + OWN.get(kind, 0), command
        if "full" not in command:
            source.execute('UPDATE "ProjectUser" SET "profileImageUrl" = gen_random_uuid()')
            sequence(project.pipeline())
