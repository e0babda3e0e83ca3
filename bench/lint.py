"""What `stackctl migrate lint` costs beside squawk, and how long a file of many rows takes to be read and linted.

    python -m bench.lint [--rounds N] [--squawk COMMAND]

Calls that are compared are fresh processes that take turns; the rest is the processor's time in this process. A goal
that is missed is marked; the exit code is 0 all the same. squawk is needed for its row alone:
`pip install 'stackctl[bench]'`.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.__main__ import COLLECT_AFTER
from stackctl.migrate.files import parse_migration
from stackctl.migrate.folder import discover
from stackctl.migrate.lint.file_selection import select_files
from stackctl.migrate.lint.linter import lint_files

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
FILES = 200
ROWS = 200_000  # of 100 bytes
PEER_GOAL = 3.0  # times squawk, plus Python's start
STATEMENT_GOAL = 0.2  # ms
READING_GOAL = 5.0  # seconds of the processor

STACKCTL = str(Path(sys.executable).parent / "stackctl")


def write_folder(directory: Path) -> None:
    """What a schema grows by: tables, columns, checks, indexes."""
    for number in range(FILES):
        (directory / f"202601{number // 24 + 1:02}{number % 24:02}0000_file.sql").write_text(
            f"CREATE TABLE IF NOT EXISTS item{number} (\n    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
            "    owner_id uuid NOT NULL REFERENCES person (id) ON DELETE CASCADE,\n"
            "    label text NOT NULL DEFAULT '',\n    amount numeric(12, 2) CHECK (amount >= 0)\n);\n"
            f"CREATE INDEX item{number}_owner ON item{number} (owner_id);\n"
            f"ALTER TABLE person ADD COLUMN note{number} text, ADD CONSTRAINT c{number} CHECK (note{number} <> '') "
            f"NOT VALID;\nCREATE INDEX person_note{number} ON person (note{number});\n"
            f"COMMENT ON TABLE item{number} IS 'what a person owns; number {number}';\n"
        )


def write_rows(path: Path, rows: int) -> str:
    line = "INSERT INTO items (id, name, note, at) VALUES ({n}, 'item {n}', 'it''s number {m}', now());\n"
    text = "".join(line.format(n=n, m=n * 7919 % 1_000_003) for n in range(rows))
    path.write_text(text)
    return text


def against_squawk(rounds: int, folder: Path, squawk: str) -> None:
    script = folder.parent / "empty.py"
    script.write_text("import typer\n\ndef main(name: str = '') -> None: ...\n\ntyper.run(main)\n")
    files = sorted(map(str, folder.iterdir()))
    # Their advice differs, and both find something.
    commands = {
        "squawk": [squawk, *files],
        "lint": [STACKCTL, "migrate", "lint", str(folder)],
        "start": [sys.executable, str(script)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - started)
    limit, ours, start = (statistics.median(times[name]) for name in commands)
    allowed = PEER_GOAL * limit + start
    against = f"squawk {limit * 1000:.0f} ms; Python with typer, doing nothing, {start * 1000:.0f} ms; "
    show(
        f"lint of {FILES} files", f"{ours * 1000:.0f} ms", f"{against}allowed {allowed * 1000:.0f} ms", ours <= allowed
    )


def each_statement(what: str, folder: Path) -> None:
    count = sum(len(piece.statements) for migration in discover(folder) for piece in migration.pieces)
    took = measure(lambda: [lint_files(files, schema="public") for files in select_files([folder])])
    each = took / count * 1000
    show(what, f"{each:.3f} ms", f"a statement, of {count:,}; goal {STATEMENT_GOAL} ms", each <= STATEMENT_GOAL)


def reading(path: Path) -> None:
    times: list[float] = []
    for rows in (ROWS // 2, ROWS):
        text = write_rows(path, rows)
        times.append(measure(lambda text=text: parse_migration(text, path, path.stem)))
    half, whole = times
    size = path.stat().st_size / 1e6
    growth = f"{whole / half:.1f} times that of half of it; goal {READING_GOAL:.0f} s"
    show(f"reading {size:.0f} MB of rows", f"{whole:.1f} s", growth, whole <= READING_GOAL)


def measure(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


def show(what: str, took: str, against: str, reached: bool) -> None:
    print(f"{what:<28} {took:>9}   {against}{'' if reached else '   MISSED'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--squawk", metavar="COMMAND", default="squawk", help="the program to compare with")
    given = parser.parse_args()
    gc.set_threshold(COLLECT_AFTER)
    squawk = shutil.which(given.squawk) or shutil.which(given.squawk, path=Path(sys.executable).parent)
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        folder, rows = Path(name) / "folder", Path(name) / "rows"
        folder.mkdir()
        rows.mkdir()
        write_folder(folder)
        if squawk is None:
            print(f"against squawk: left out, there is no program {given.squawk} (pip install 'stackctl[bench]')")
        else:
            against_squawk(given.rounds, folder, squawk)
        each_statement("lint of definitions", folder)
        path = rows / "20260101000000_rows.sql"
        reading(path)
        each_statement("lint of rows", rows)


if __name__ == "__main__":
    main()
