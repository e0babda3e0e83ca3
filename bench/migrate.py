"""What `stackctl migrate` costs beside psql, on the bundled set and on a folder of 200 files; and twenty at once.

    python -m bench.migrate [--rounds N] [--dbmate COMMAND]

Each call is a fresh process on an embedded PostgreSQL; calls that are compared take turns. A goal that is missed is
marked; the exit code is 0 all the same. dbmate is needed for its rows alone: `npm install dbmate` in some folder, and
that folder's `node_modules/.bin` on PATH.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psycopg
from psycopg import sql

from stackctl.core.bundled import find_bundled
from stackctl.migrate.files import SCHEMA_SENTINEL
from stackctl.migrate.folder import list_files
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries

ROUNDS = 7
FILES = 200
AT_ONCE = 20
UP_GOAL = (1.5, 0.150)  # times psql, plus seconds
STATUS_GOAL = 0.5  # seconds
DBMATE_GOALS = {"up": 1.0, "up, nothing to do": 1.5, "status": 1.5}  # times dbmate

STACKCTL = [str(Path(sys.executable).parent / "stackctl")]


class Server:
    def __init__(self, directory: Path) -> None:
        self._server = embedded.attach(directory, options={"fsync": "off", "max_connections": "100"})
        self._made = 0

    def empty(self) -> str:
        """The URL of a new database."""
        self._made += 1
        name = f"empty{self._made}"
        with psycopg.connect(self._server.url(), autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._server.url(name)

    def release(self) -> None:
        self._server.release()


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - started


def stackctl(url: str, *arguments: object) -> list[str]:
    return [*STACKCTL, *map(str, arguments), "--database-url", url]


def against_psql(server: Server, rounds: int, directory: Path) -> None:
    files: list[str] = []
    for name, path in list_files(find_bundled("migrations")):
        files.append(str(directory / f"{name}.sql"))
        Path(files[-1]).write_text(path.read_text().replace(SCHEMA_SENTINEL, "public"))
    given = [word for path in files for word in ("-f", path)]
    # The schema is made by the runner, for its history.
    psql = [str(find_binaries() / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-c", "CREATE SCHEMA stackctl", *given]
    # What a command of this kind costs before it does anything.
    script = directory / "empty.py"
    script.write_text("import psycopg, typer\n\ndef main(name: str = '') -> None: ...\n\ntyper.run(main)\n")
    times: dict[str, list[float]] = {"psql": [], "up": [], "empty": []}
    for _ in range(rounds):
        times["psql"].append(seconds([*psql, server.empty()]))
        times["up"].append(seconds(stackctl(server.empty(), "migrate", "up")))
        times["empty"].append(seconds([sys.executable, str(script)]))
    limit, ours, empty = (statistics.median(times[name]) for name in ("psql", "up", "empty"))
    allowed = UP_GOAL[0] * limit + UP_GOAL[1]
    against = f"psql -f {limit * 1000:.0f} ms; allowed {allowed * 1000:.0f} ms"
    show(f"up of {len(files)} bundled files", ours, against, allowed)
    print(f"    of it Python with typer and psycopg, doing nothing: {empty * 1000:.0f} ms")


def status(server: Server, rounds: int, directory: Path) -> None:
    for number in range(FILES):
        (directory / f"202601{number // 24 + 1:02}{number % 24:02}0000_file.sql").write_text(
            f"CREATE TABLE t{number} (id int PRIMARY KEY, name text NOT NULL DEFAULT 'none');\n"
            f"CREATE INDEX ON t{number} (name);\nCOMMENT ON TABLE t{number} IS 'one of many';\n"
        )
    for what, folder in ((f"status of {FILES} files", ["--dir", directory]), ("status of the bundled set", [])):
        url = server.empty()
        subprocess.run(stackctl(url, "migrate", "up", "--quiet", *folder), check=True, stdout=subprocess.DEVNULL)
        times = [seconds(stackctl(url, "migrate", "status", *folder)) for _ in range(rounds)]
        show(what, statistics.median(times), f"goal {STATUS_GOAL * 1000:.0f} ms", STATUS_GOAL)


def against_dbmate(server: Server, rounds: int, directory: Path, dbmate: str) -> None:
    """The same folder, in dbmate's format; neither writes a dump."""
    for number in range(FILES):
        (directory / f"202601{number // 24 + 1:02}{number % 24:02}0000_file.sql").write_text(
            f"-- migrate:up\nCREATE TABLE t{number} (id int PRIMARY KEY, name text NOT NULL DEFAULT 'none');\n"
            f"CREATE INDEX ON t{number} (name);\n\n-- migrate:down\nDROP TABLE t{number};\n"
        )
    peer = [dbmate, "--migrations-dir", str(directory), "--no-dump-schema", "--url"]
    times: dict[str, tuple[list[float], list[float]]] = {what: ([], []) for what in DBMATE_GOALS}
    starts: list[float] = []
    for _ in range(rounds):
        theirs, ours = server.empty(), server.empty()
        for what, (peers, own) in times.items():
            command = what.partition(",")[0]
            peers.append(seconds([*peer, theirs, command]))
            own.append(seconds(stackctl(ours, "migrate", command, "--dir", directory)))
        starts.append(seconds([dbmate, "--version"]))
    for what, (peers, own) in times.items():
        took, limit, goal = statistics.median(own), statistics.median(peers), DBMATE_GOALS[what]
        against = f"dbmate {limit * 1000:.0f} ms; {took / limit:.2f} times, goal {goal}"
        show(f"{what}: {FILES} files", took, against, goal * limit)
    print(f"    of it dbmate, doing nothing: {statistics.median(starts) * 1000:.0f} ms")


def twenty_at_once(server: Server) -> None:
    command = stackctl(server.empty(), "migrate", "up", "--json", "--quiet", "--lock-wait", "60s")
    started = time.perf_counter()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(AT_ONCE)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    elapsed = time.perf_counter() - started
    applied = Counter(bool(json.loads(output)["applied"]) for output in outputs)
    codes = Counter(process.returncode for process in processes)
    print(f"{AT_ONCE} at once: {applied[True]} applied, {applied[False]} had nothing to do; exit codes {dict(codes)}; "
          f"{elapsed:.1f} s")  # fmt: skip


def show(what: str, took: float, against: str, allowed: float) -> None:
    print(f"{what:<28} {took * 1000:5.0f} ms   {against}{'' if took <= allowed else '   MISSED'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dbmate", metavar="COMMAND", default="dbmate", help="the program to compare with")
    given = parser.parse_args()
    rounds: int = given.rounds
    dbmate = shutil.which(given.dbmate)
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        server = Server(Path(name) / "pg")
        try:
            for part in (against_psql, status):
                folder = Path(name) / part.__name__
                folder.mkdir()
                part(server, rounds, folder)
            if dbmate is None:
                print(f"against dbmate: left out, there is no program {given.dbmate} (npm install dbmate)")
            else:
                folder = Path(name) / "dbmate"
                folder.mkdir()
                against_dbmate(server, rounds, folder, dbmate)
            twenty_at_once(server)
        finally:
            server.release()


if __name__ == "__main__":
    main()
