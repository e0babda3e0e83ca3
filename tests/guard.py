"""Ends what a test process leaves behind: `python tests/guard.py MARK PARENT DIRECTORY`, started by it.

However the test process ends, the guard's stdin closes; and when PARENT (the run that it is a worker of, or 0) ends,
the guard kills it. Then it ends every process with `TESTED_BY=MARK` in its environment (commands and their children) or
with its temporary files in DIRECTORY (the tests' PostgreSQL servers, which inherit little else). Last it removes the
directory. Only Linux shows the environment of a process.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TESTED_BY"
PATIENCE = 10.0  # seconds for a server to end


def marked(mark: str, directory: str) -> dict[int, bytes]:
    """The processes that bear the mark or work in the directory, each with its command line."""
    found: dict[int, bytes] = {}
    sign, files = f"{VARIABLE}={mark}".encode(), f"TMPDIR={directory}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(v == sign or v.startswith(files) for v in (process / "environ").read_bytes().split(b"\0")):
                found[int(process.name)] = (process / "cmdline").read_bytes()
    return {pid: command for pid, command in found.items() if command and pid != os.getpid()}


def end(mark: str, directory: str) -> None:
    deadline = time.monotonic() + PATIENCE
    asked: set[int] = set()
    calm = 0
    # Who is just executing another program shows neither environment nor command line for a moment.
    while calm < 3:
        left = marked(mark, directory)
        calm = 0 if left else calm + 1
        for pid, command in left.items():
            # A postmaster that is told to quit takes its shared memory along.
            polite = b"postgres" in command and pid not in asked and time.monotonic() < deadline
            if polite or b"postgres" not in command or time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT if polite else signal.SIGKILL)
            asked.add(pid)
        time.sleep(0.02)


def main() -> None:
    mark, parent, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    tested = os.getppid()
    try:
        waiting = [0, os.pidfd_open(parent)] if parent and sys.platform == "linux" else [0]
        over = 0 not in select.select(waiting, [], [])[0]
    except ProcessLookupError:
        over = True
    if over:
        with suppress(ProcessLookupError):
            os.kill(tested, signal.SIGKILL)
        os.read(0, 1)
    end(mark, directory)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
