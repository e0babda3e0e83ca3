"""Every variable that libpq and git read is a trap: no command walks into one."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from psycopg import pq

from stackctl.postgres import embedded
from tests import forked
from tests.backend import MINE, Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# All of libpq's, whatever its version; and those that it sends to the server as settings.
VARIABLES = sorted({one.envvar.decode() for one in pq.Conninfo.get_defaults() if one.envvar} | {
    "PGDATESTYLE", "PGTZ", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGREALM",
})  # fmt: skip
WHERE = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")


class Trap:
    """A server that nobody may connect to, and what leads there or breaks a connection, by variable."""

    def __init__(self, directory: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        port = str(self._listener.getsockname()[1])
        services, passwords = directory / "pg_service.conf", directory / "pgpass"
        services.write_text(f"[trap]\nhost=127.0.0.1\nhostaddr=127.0.0.1\nport={port}\ndbname=trap\nuser=trap\n")
        passwords.write_text("*:*:*:*:trap\n")
        passwords.chmod(0o600)
        self.variables = dict.fromkeys(VARIABLES, "trap") | {
            "PGHOST": "127.0.0.1", "PGHOSTADDR": "127.0.0.1", "PGPORT": port, "PGSERVICE": "trap",
            "PGSERVICEFILE": str(services), "PGSYSCONFDIR": str(directory), "PGPASSFILE": str(passwords),
            "PGOPTIONS": "-c search_path=trap -c default_transaction_read_only=on", "PGREQUIREAUTH": "scram-sha-256",
            "PGTARGETSESSIONATTRS": "standby", "PGGSSENCMODE": "require", "PGCHANNELBINDING": "require",
            "PGSSLMODE": "verify-full", "PGSSLCERTMODE": "require", "PGSSLNEGOTIATION": "direct",
            "PGSSLROOTCERT": str(passwords), "PGCONNECT_TIMEOUT": "1", "PGTZ": "Nowhere/Land", "PGDATESTYLE": "German",
            "PGGEQO": "trap", "PGCLIENTENCODING": "LATIN1", "PGLOADBALANCEHOSTS": "random", "PGSSLCOMPRESSION": "1",
            "PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "3.0", "PGREQUIREPEER": "nobody",
            "PGSSLMINPROTOCOLVERSION": "TLSv1.3", "PGSSLMAXPROTOCOLVERSION": "TLSv1.3",
        }  # fmt: skip

    def assert_empty(self) -> None:
        with pytest.raises(BlockingIOError):
            self._listener.accept()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trap]:
    trap = Trap(tmp_path_factory.mktemp("trap"))
    yield trap
    trap.close()


@pytest.fixture(scope="module")
def demo(environment: Path) -> Iterator[Path]:
    """A folder of `stackctl demo`, whose server runs all the while."""
    # Not below pytest's folder, which another run of pytest closes for all but its own user.
    folder = environment / "attacked"
    done = forked.run(["demo", folder, "--quiet"], cwd=environment)
    assert done.returncode == 0, done.stderr
    attached = embedded.attach(folder / "postgres")
    yield folder
    attached.release()


def run(line: str, cwd: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = forked.run(line.split(), cwd=cwd, env=os.environ | environ)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def plain(demo: Path) -> str:
    """What `fuse show` prints where nothing is set."""
    return run("fuse show --json", demo, {}).stdout


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_embedded_server_is_reached_whatever_is_set(variable: str, demo: Path, plain: str, trap: Trap) -> None:
    assert run("fuse show --json", demo, {variable: trap.variables[variable]}).stdout == plain
    trap.assert_empty()


@pytest.mark.parametrize(
    "line",
    ["doctor", "status", "sync --all --full", "verify", "migrate verify", "run --max-duration=200ms", "rules backtest",
     "migrate dump", "queue list", "demo . --yes"],
)  # fmt: skip
def test_every_way_to_the_embedded_server_avoids_all_traps_at_once(line: str, demo: Path, trap: Trap) -> None:
    if line == "rules backtest":
        (demo / "sign-up-rules.yaml").write_text("default_action: allow\n")
    run(line, demo, trap.variables)
    trap.assert_empty()


@pytest.mark.parametrize("variable", WHERE)
def test_a_url_that_says_where_is_not_led_elsewhere(
    variable: str, project: Project, external_db: str, trap: Trap
) -> None:
    project.postgres(MINE, external_db).write()
    service = {"PGSERVICEFILE": trap.variables["PGSERVICEFILE"]}
    for line in ("fuse show", "sync --all", "verify", "migrate status --check"):
        run(line, project.directory, service | {variable: trap.variables[variable]})
    trap.assert_empty()


def test_a_temporary_server_avoids_all_traps_at_once(tmp_path: Path, trap: Trap) -> None:
    """It runs the migrations of a branch."""
    migrations = tmp_path / "db"
    migrations.mkdir()
    for arguments in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "base"]):
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)
    (migrations / "20260101000000_one.sql").write_text("CREATE TABLE one (id int PRIMARY KEY);\n")
    program, ran = tmp_path / "program", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\necho >> {ran}\n")
    program.chmod(0o755)
    named = ("GIT_EXTERNAL_DIFF", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_EDITOR", "GIT_ASKPASS",
             "GIT_PROXY_COMMAND", "GIT_SEQUENCE_EDITOR", "GIT_TRACE", "GIT_TRACE2_EVENT")  # fmt: skip
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
                 "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CEILING_DIRECTORIES", "GIT_NAMESPACE", "GIT_CONFIG_GLOBAL",
                 "GIT_CONFIG_SYSTEM", "GIT_CONFIG", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_PREFIX",
                 "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_ATTR_SOURCE", "GIT_DEFAULT_HASH",
                 "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR", "GIT_QUARANTINE_PATH", "GIT_LITERAL_PATHSPECS")  # fmt: skip
    git: dict[str, str] = {**dict.fromkeys(named, str(program)), **dict.fromkeys(elsewhere, "/nowhere")}
    assert "1 file" in run("migrate lint db --base=main", tmp_path, git).stdout
    run("migrate check --dir=db --base=main", tmp_path, trap.variables | git)
    trap.assert_empty()
    assert not ran.exists()
