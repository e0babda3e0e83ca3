"""What `run` costs while nothing changes: its own processor time and the server's, in per cent of one core.

    python -m bench.idle [--seconds 30] [--wakeup poll|notify]

Reads /proc, and so needs Linux.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench.latency import Running, Wakeup, running

GOAL = 2.0  # per cent of one core
SETTLE = 3.0  # seconds until what the start left behind is over


def _ticks(pid: int) -> int:
    """Processor time of a process and its ended children, in clock ticks; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(value) for value in fields[11:15])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def measure_ticks(service: Running) -> tuple[int, int]:
    """Processor time so far, in clock ticks: of stackctl, and of the server."""
    row = service.source.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    assert row is not None
    server = int(row[0].split("\n")[0])
    return _ticks(service.process.pid), sum(_ticks(pid) for pid in (server, *_children(server)))


def measure_idle(seconds: float, wakeup: Wakeup = "poll") -> float:
    """Per cent of one core that stackctl (all eleven tables, 50 ms ticks) and the server take together."""
    with running(wakeup) as service:
        time.sleep(SETTLE)
        started, before = time.monotonic(), sum(measure_ticks(service))
        time.sleep(seconds)
        spent = (sum(measure_ticks(service)) - before) / os.sysconf("SC_CLK_TCK")
        return 100 * spent / (time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--wakeup", choices=["poll", "notify"], default="poll")
    arguments = parser.parse_args()
    share = measure_idle(arguments.seconds, arguments.wakeup)
    print(f"idle, {arguments.wakeup}: {share:.2f} % of one core (goal {GOAL:g}){'' if share < GOAL else '   MISSED'}")
    return 0 if share < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
